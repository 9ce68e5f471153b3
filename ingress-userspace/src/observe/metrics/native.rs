//! Native histograms as they go over the wire: runs of buckets that follow each other ("spans"), and each count as the
//! difference to the one before it. Pure; used by the encoder of `metrics`.

use super::model::BucketSpan;
use crate::l7::stats::native::NativeBuckets;

/// Empty buckets between two runs up to which they are one: a new run costs more than two zeroes.
const BRIDGED: i32 = 2;

/// Runs and differences.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sparse {
    pub(super) spans: Vec<BucketSpan>,
    /// Of each bucket in a run.
    pub(super) deltas: Vec<i64>,
}

impl Sparse {
    pub(super) fn of(buckets: &NativeBuckets) -> Self {
        let mut sparse = Self::default();
        let (mut next, mut previous) = (0, 0);
        for &(index, count) in &buckets.positive {
            let gap = index - next;
            match sparse.spans.last_mut() {
                Some(span) if gap <= BRIDGED => {
                    for _ in 0..gap {
                        sparse.deltas.push(-std::mem::take(&mut previous));
                    }
                    span.length += gap.unsigned_abs() + 1;
                }
                _ => sparse.spans.push(BucketSpan { offset: gap, length: 1 }),
            }
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            sparse.deltas.push(count - previous);
            (next, previous) = (index + 1, count);
        }
        sparse
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_differences() {
        let of = |positive: &[(i32, u64)]| {
            let Sparse { spans, deltas } =
                Sparse::of(&NativeBuckets { zero: 9, positive: positive.to_vec() });
            (spans.iter().map(|span| (span.offset, span.length)).collect::<Vec<_>>(), deltas)
        };
        assert_eq!(of(&[]), (vec![], vec![]));
        assert_eq!(of(&[(-5, 3), (-4, 1)]), (vec![(-5, 2)], vec![3, -2]));
        assert_eq!(of(&[(0, 2), (3, 5)]), (vec![(0, 4)], vec![2, -2, 0, 5]), "two empty ones are bridged");
        assert_eq!(of(&[(0, 2), (4, 5)]), (vec![(0, 1), (3, 1)], vec![2, 3]), "three are not");
    }
}
