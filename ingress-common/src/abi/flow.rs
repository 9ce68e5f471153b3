//! Map `FLOWS`: where packets of a flow were sent last, if to *another* node. Written by the program only. A cache: losing
//! an entry, finding one that is out of date, or taking another flow's for it, costs a walk and breaks nothing.
//!
//! Flows of the own node are not remembered: the socket itself is looked up.
//!
//! A flow's entry is one word (48 bits of the flow's hash, and the node), a set of eight is one cache line, and any
//! CPU may write any of them: no lock, no list, no half-written entry. That two of 2^48 flows look alike is harmless for the
//! reason above, and whoever does not know the cluster's key cannot choose them.

use core::cell::Cell;

use super::NodeIndex;

/// `Array<FlowSet>`, page-aligned (`BPF_F_MMAPABLE`) so that a set is one cache line. The number of sets is a power of two.
pub const FLOWS: &str = "FLOWS";
/// Flows in a set.
pub const FLOW_WAYS: usize = 8;
/// Flows that [`FLOWS`] has room for unless the daemon sets another size before loading: 4 MiB.
pub const DEFAULT_MAX_FLOWS: u32 = 1 << 19;

/// The hash bits that an entry keeps. The others choose the set.
const TAG: u64 = !0xffff;
/// Set in every entry: zero is a free place.
const USED: u64 = 0x8000;
/// The client has sent a FIN: the first to go when a place is needed.
const CLOSING: u64 = 0x4000;
const NODE: u64 = 0x3ff;

const _: () = assert!(super::MAX_NODES as u64 - 1 == NODE, "each node's place fits an entry");

/// Element of [`FLOWS`]. In the kernel other CPUs change the words meanwhile; each is read and written by one instruction,
/// and any value of it is a good one.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct FlowSet([Cell<u64>; FLOW_WAYS]);

const _: () = assert!(size_of::<FlowSet>() == 64, "the size is part of the map ABI");

impl FlowSet {
    /// From the words of a map's element.
    pub fn from_words(words: [u64; FLOW_WAYS]) -> Self {
        Self(words.map(Cell::new))
    }

    /// The words of the map's element.
    pub fn words(&self) -> [u64; FLOW_WAYS] {
        core::array::from_fn(|way| self.0[way].get())
    }

    /// The element of [`FLOWS`] for a flow's hash, of as many as `sets`.
    #[inline(always)]
    pub const fn number(hash: u64, sets: u32) -> u32 {
        hash as u32 & sets.wrapping_sub(1)
    }

    /// The place where a flow of this hash is looked for first and, when all are taken, put.
    #[inline(always)]
    const fn home(hash: u64) -> usize {
        (hash >> 61) as usize % FLOW_WAYS
    }

    #[inline(always)]
    fn place(&self, hash: u64) -> Option<(&Cell<u64>, u64)> {
        let home = &self.0[Self::home(hash)];
        let entry = home.get();
        if entry & TAG == hash & TAG && entry != 0 {
            return Some((home, entry));
        }
        for place in &self.0 {
            let entry = place.get();
            if entry & TAG == hash & TAG && entry != 0 {
                return Some((place, entry));
            }
        }
        None
    }

    /// Where the flow's packets go. `fin`, `rst`: the packet in hand ends it (soon).
    #[inline(always)]
    pub fn find(&self, hash: u64, fin: bool, rst: bool) -> Option<NodeIndex> {
        let (place, entry) = self.place(hash)?;
        if rst {
            place.set(0);
        } else if fin {
            place.set(entry | CLOSING);
        }
        Some(NodeIndex((entry & NODE) as u16))
    }

    /// Remembers a flow that is not remembered. Takes a free place, else one of a flow that closes, else its home's.
    #[inline(always)]
    pub fn learn(&self, hash: u64, node: NodeIndex) {
        let (mut free, mut closing) = (FLOW_WAYS, FLOW_WAYS);
        for (way, place) in self.0.iter().enumerate() {
            let entry = place.get();
            if entry == 0 {
                free = way;
            } else if entry & CLOSING != 0 {
                closing = way;
            }
        }
        let home = Self::home(hash);
        let way = if self.0[home].get() == 0 {
            home
        } else if free < FLOW_WAYS {
            free
        } else if closing < FLOW_WAYS {
            closing
        } else {
            home
        };
        self.0[way % FLOW_WAYS].set(Self::entry(hash, node));
    }

    /// A new flow of this hash goes to `node` (`None`: stays here). What is remembered of an earlier one follows; if nothing
    /// is, nothing will be: a flood of SYNs must not wash out what is known of real flows.
    #[inline(always)]
    pub fn correct(&self, hash: u64, node: Option<NodeIndex>) {
        if let Some((place, _)) = self.place(hash) {
            place.set(node.map_or(0, |node| Self::entry(hash, node)));
        }
    }

    #[inline(always)]
    const fn entry(hash: u64, node: NodeIndex) -> u64 {
        hash & TAG | USED | node.0 as u64 & NODE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u64) -> u64 {
        crate::hash::mix(number)
    }

    #[test]
    fn what_is_learnt_is_found_until_it_is_corrected_or_ends() {
        let set = FlowSet::default();
        for number in 1..=8 {
            set.learn(hash(number), NodeIndex(number as u16));
        }
        for number in 1..=8 {
            assert_eq!(set.find(hash(number), false, false), Some(NodeIndex(number as u16)));
        }
        assert_eq!(set.find(hash(9), false, false), None);
        set.correct(hash(1), Some(NodeIndex(1023)));
        set.correct(hash(2), None);
        set.correct(hash(9), Some(NodeIndex(5)));
        assert_eq!(set.find(hash(1), false, false), Some(NodeIndex(1023)));
        assert_eq!(set.find(hash(2), false, false), None);
        assert_eq!(set.find(hash(9), false, false), None, "a SYN teaches nothing new");
        assert_eq!(set.find(hash(3), false, true), Some(NodeIndex(3)), "the RST itself still goes there");
        assert_eq!(set.find(hash(3), false, false), None);
    }

    #[test]
    fn a_full_set_gives_up_closing_flows_first() {
        let set = FlowSet::default();
        for number in 1..=8 {
            set.learn(hash(number), NodeIndex(0));
        }
        assert!(set.find(hash(4), true, false).is_some());
        set.learn(hash(100), NodeIndex(1));
        assert_eq!(set.find(hash(4), false, false), None);
        for number in [1, 2, 3, 5, 6, 7, 8, 100] {
            assert!(set.find(hash(number), false, false).is_some(), "{number}");
        }
        set.learn(hash(101), NodeIndex(1));
        let left = [1, 2, 3, 5, 6, 7, 8, 100].iter().filter(|n| set.find(hash(**n), false, false).is_some());
        assert_eq!(left.count(), 7);
        assert!(set.find(hash(101), false, false).is_some());
    }
}
