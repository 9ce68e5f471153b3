//! Which nodes serve a slot, best first: weighted rendezvous hashing. A pure function of the membership, so every node
//! computes the same table and no history has to be agreed on. Called by the daemon and by the simulator.
//!
//! A node with weight `w` scores `-log2(u) / w` on a slot, `u` being its own random number in (0, 1) there, and the
//! smallest score wins: the share of slots that it wins is `w` over the sum of all weights, and a node that comes or goes
//! changes nothing in the order of the others (Mosko et al., "Weighted rendezvous hashing"). In integers only: the last
//! digit of a floating-point logarithm may differ between machines.

use crate::abi::{MAX_CANDIDATES, NodeIndex, Slot};
use crate::hash::{NodeKey, mix};

/// A node as the ranking sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What is written into the slots.
    pub index: NodeIndex,
    /// What ranks the node, the same on every node of the cluster.
    key: NodeKey,
    /// 2^24 / weight.
    inverse: u64,
    /// Not draining.
    accepts: bool,
}

impl Candidate {
    /// A living node. `weight` is relative to the other nodes' (at least 1). A draining one does not `accept`.
    pub fn new(index: NodeIndex, key: NodeKey, weight: u16, accepts: bool) -> Self {
        Self { index, key, inverse: (1 << 24) / u64::from(weight.max(1)), accepts }
    }

    #[inline]
    fn score(&self, slot: u32) -> Score {
        let random = mix(self.key.0 ^ (u64::from(slot) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Score { distance: minus_log2(random) * self.inverse, key: self.key.0 }
    }
}

/// Smallest is best; the key decides between equals.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    distance: u64,
    key: u64,
}

/// Fills `table` (slot 0 first) with the best `k` nodes of each slot, 1 to [`MAX_CANDIDATES`]. When all of those drain,
/// the best node that accepts is added (in the last place, if there is no free one).
pub fn build_table(nodes: &[Candidate], k: usize, table: &mut [Slot]) {
    for (number, slot) in table.iter_mut().enumerate() {
        *slot = rank(nodes, k, number as u32);
    }
}

/// The best `k` nodes of one slot, as [`build_table`] says.
pub fn rank(nodes: &[Candidate], k: usize, slot: u32) -> Slot {
    let k = k.clamp(1, MAX_CANDIDATES);
    let worst = Score { distance: u64::MAX, key: u64::MAX };
    let mut best = [(worst, NodeIndex::NONE); MAX_CANDIDATES];
    let mut best_accepting = (worst, NodeIndex::NONE);
    for node in nodes {
        let score = node.score(slot);
        if node.accepts && score < best_accepting.0 {
            best_accepting = (score, node.index);
        }
        if score < best[k - 1].0 {
            let mut place = k - 1;
            while place > 0 && score < best[place - 1].0 {
                best[place] = best[place - 1];
                place -= 1;
            }
            best[place] = (score, node.index);
        }
    }
    let last = best[k - 1].0;
    if best_accepting.0 > last && best_accepting.1 != NodeIndex::NONE {
        best[k.min(MAX_CANDIDATES - 1)] = best_accepting;
    }
    Slot { order: best.map(|(_, node)| node) }
}

/// `-log2((random + ½) / 2^64)` in units of 2^-24: 0 to 64 × 2^24. Linear between 256 points per octave, at most 3 × 10^-6
/// off.
#[inline]
fn minus_log2(random: u64) -> u64 {
    let random = random | 1;
    let zeros = u64::from(random.leading_zeros());
    // The mantissa 1.xxxxxxxx|yyyyyyyyyyyyyyyy: 8 bits choose the interval, 16 the place inside it.
    let mantissa = random << zeros << 1;
    let (interval, inside) = ((mantissa >> 56) as usize, mantissa >> 40 & 0xffff);
    let (low, high) = (u64::from(LOG2[interval]), u64::from(LOG2[interval + 1]));
    let log = low + (((high - low) * inside) >> 16);
    ((zeros + 1) << 24) - log
}

/// 1 in the arithmetic of [`log2_one_plus`].
const ONE: u64 = 1 << 31;

/// `log2(1 + i / 256)` in units of 2^-24.
static LOG2: [u32; 257] = log2_table();

const fn log2_table() -> [u32; 257] {
    let mut table = [0; 257];
    let mut i = 0;
    while i <= 256 {
        table[i] = log2_one_plus(i as u64);
        i += 1;
    }
    table
}

/// `log2(1 + i / 256)` in units of 2^-24, digit by digit: squaring doubles the logarithm.
const fn log2_one_plus(i: u64) -> u32 {
    if i == 256 {
        return 1 << 24;
    }
    let mut x = ONE + (i << 23);
    let mut log = 0;
    let mut digit = 0;
    while digit < 24 {
        x = (x * x) >> 31;
        log <<= 1;
        if x >= 2 * ONE {
            x >>= 1;
            log |= 1;
        }
        digit += 1;
    }
    log
}

#[cfg(test)]
#[path = "rank/tests.rs"]
mod tests;
