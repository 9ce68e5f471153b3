//! Latencies in the fine buckets of Prometheus' native histograms: eight for each doubling, so that a quantile is off by
//! less than 9 % without anybody having to guess bounds. A worker counts in a fixed array; whoever sums the workers
//! keeps only the buckets that hold something.

use super::Counter;

/// The resolution: bucket `i` holds what is above `2^((i-1)/8)` and at most `2^(i/8)` seconds (Prometheus' native
/// histograms, "standard schema" 3).
pub const SCHEMA: i32 = 3;
/// Buckets for each doubling.
const PER_DOUBLING: i32 = 1 << SCHEMA;
/// What is at most `2^SHORTEST` seconds (31 µs) is in the zero bucket.
const SHORTEST: i32 = -15;
/// What is longer than `2^LONGEST` seconds (256 s) is in the last bucket all the same: streams, whose length is no latency.
const LONGEST: i32 = 8;
/// Upper bound of the zero bucket, in seconds.
pub const ZERO_THRESHOLD: f64 = 1.0 / (1 << -SHORTEST) as f64;
/// The zero bucket, then the others.
const PLACES: usize = 1 + ((LONGEST - SHORTEST) * PER_DOUBLING) as usize;
/// Upper bounds of the buckets within a doubling, as fractions as `frexp` gives them: `2^(i/8) / 2`.
const BOUNDS: [f64; PER_DOUBLING as usize] = [
    0.5,
    0.545_253_866_332_628_8,
    0.594_603_557_501_360_5,
    0.648_419_777_325_504_8,
    0.707_106_781_186_547_5,
    0.771_105_412_703_970_4,
    0.840_896_415_253_714_4,
    0.917_004_043_204_671_1,
];

/// One worker's counts.
#[derive(Debug)]
pub(super) struct Latencies([Counter; PLACES]);

impl Latencies {
    /// Counts one, in microseconds. Only the owning worker may call this.
    pub(super) fn add(&self, micros: u64) {
        self.0[place(micros)].add(1);
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

/// The sum over workers: only buckets that hold something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NativeBuckets {
    /// What is at most [`ZERO_THRESHOLD`].
    pub zero: u64,
    /// By index in [`SCHEMA`], ascending, not cumulative.
    pub positive: Vec<(i32, u64)>,
}

impl NativeBuckets {
    pub(super) fn add(&mut self, worker: &Latencies) {
        let mut counts = worker.0.iter().map(Counter::get);
        self.zero += counts.next().unwrap_or_default();
        for (index, count) in (first()..).zip(counts).filter(|(_, count)| *count > 0) {
            match self.positive.binary_search_by_key(&index, |(index, _)| *index) {
                Ok(at) => self.positive[at].1 += count,
                Err(at) => self.positive.insert(at, (index, count)),
            }
        }
    }
}

/// Index of the first bucket behind the zero bucket.
const fn first() -> i32 {
    SHORTEST * PER_DOUBLING + 1
}

/// Where a latency is counted.
fn place(micros: u64) -> usize {
    let seconds = micros as f64 * 1e-6;
    if seconds <= ZERO_THRESHOLD {
        return 0;
    }
    // A normal number above zero: the sign is 0, `seconds = fraction × 2^exponent` with a fraction in [0.5, 1).
    let bits = seconds.to_bits();
    let exponent = (bits >> 52) as i32 - 1022;
    let fraction = f64::from_bits(bits & ((1 << 52) - 1) | 1022 << 52);
    let within = BOUNDS.partition_point(|bound| *bound < fraction);
    let before = (exponent - 1 - SHORTEST) * PER_DOUBLING;
    (usize::try_from(before).unwrap_or_default() + within).min(PLACES - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The index of the bucket at a place.
    fn index(place: usize) -> i32 {
        i32::try_from(place).unwrap() + first() - 1
    }

    /// The range of a place, in seconds, from the definition.
    fn range(place: usize) -> (f64, f64) {
        let bound = |place: usize| (f64::from(index(place)) / f64::from(PER_DOUBLING)).exp2();
        match place {
            0 => (-1.0, ZERO_THRESHOLD),
            _ => (bound(place - 1), bound(place)),
        }
    }

    #[test]
    fn known_places() {
        // 1 s = 2^0 is the upper bound of bucket 0, 2 s of bucket 8.
        for (micros, index) in [(1_000_000, 0), (1_000_001, 1), (2_000_000, 8), (2_000_001, 9), (500_000, -8)]
        {
            assert_eq!(self::index(place(micros)), index, "{micros}");
        }
        assert_eq!((place(0), place(30), place(31)), (0, 0, 1));
        assert_eq!(
            (place(256_000_000), place(256_000_001), place(u64::MAX)),
            (PLACES - 1, PLACES - 1, PLACES - 1)
        );
        assert_eq!(place(200_000_000), PLACES - 3, "2^7.64 s");
    }

    proptest! {
        #[test]
        fn every_latency_is_within_its_bucket(micros in prop_oneof![0..2_000_u64, 0..256_000_000_u64]) {
            let (low, high) = range(place(micros));
            let seconds = micros as f64 * 1e-6;
            prop_assert!(low * (1.0 - 1e-12) < seconds && seconds <= high * (1.0 + 1e-12), "{low} {seconds} {high}");
        }
    }

    #[test]
    fn workers_are_summed_without_empty_buckets() {
        let (a, b) = (Latencies::default(), Latencies::default());
        for micros in [10, 1_000_000, 1_000_000] {
            a.add(micros);
        }
        for micros in [2_000_000, 1_000_000, 250_000] {
            b.add(micros);
        }
        let mut sum = NativeBuckets::default();
        sum.add(&a);
        sum.add(&b);
        assert_eq!(sum, NativeBuckets { zero: 1, positive: vec![(-16, 1), (0, 3), (8, 1)] });
    }
}
