//! Balance, weights, minimal disruption, and the speed of building a table.
extern crate std;

use std::{collections::HashMap, format, time::Instant, vec, vec::Vec};

use proptest::prelude::*;

use super::*;
use crate::abi::SLOTS_LEN;

fn nodes(count: u16) -> Vec<Candidate> {
    (0..count).map(|i| Candidate::new(NodeIndex(i), NodeKey::of(&format!("node-{i}")), 1, true)).collect()
}

fn table(nodes: &[Candidate], k: usize) -> Vec<Slot> {
    let mut table = vec![Slot::EMPTY; SLOTS_LEN];
    build_table(nodes, k, &mut table);
    table
}

#[test]
fn logarithm_is_close() {
    for random in [1_u64, 3, 0xffff, 1 << 40 | 1, u64::MAX / 3, u64::MAX - (1 << 50), u64::MAX] {
        #[expect(clippy::cast_precision_loss, reason = "an estimate to compare with")]
        let (got, want) = (minus_log2(random) as f64 / f64::from(1 << 24), 64.0 - (random as f64).log2());
        assert!((got - want).abs() < 4e-6, "{random}: {got} instead of {want}");
    }
}

#[test]
fn equal_nodes_win_equal_shares() {
    let table = table(&nodes(10), 4);
    let mut won = HashMap::new();
    for slot in &table {
        *won.entry(slot.order[0]).or_insert(0_u32) += 1;
    }
    for (node, slots) in won {
        // 6,554 expected, standard deviation 77.
        assert!((6_200..6_900).contains(&slots), "{node:?} won {slots} slots");
    }
}

#[test]
fn weights_are_shares() {
    let mut nodes = nodes(4);
    for (node, weight) in nodes.iter_mut().zip([1, 2, 3, 10]) {
        *node = Candidate::new(node.index, node.key, weight, true);
    }
    let table = table(&nodes, 4);
    for (index, weight) in [(0, 1_u32), (1, 2), (2, 3), (3, 10)] {
        let won = table.iter().filter(|slot| slot.order[0] == NodeIndex(index)).count();
        let want = 65_536 * weight as usize / 16;
        assert!(won.abs_diff(want) < want / 20, "weight {weight} won {won} instead of {want}");
    }
}

#[test]
fn a_slot_never_lacks_a_node_that_accepts() {
    let mut nodes = nodes(12);
    for node in &mut nodes[..11] {
        node.accepts = false;
    }
    for k in [1, 4, 8] {
        assert!(table(&nodes, k).iter().all(|slot| slot.order.contains(&NodeIndex(11))), "k = {k}");
    }
}

#[test]
fn no_nodes_no_candidates() {
    assert_eq!(rank(&[], 4, 7), Slot::EMPTY);
    let one = rank(&nodes(1), 8, 7);
    assert_eq!(one.order[..2], [NodeIndex(0), NodeIndex::NONE]);
}

#[test]
fn a_table_for_100_nodes_is_built_quickly() {
    let nodes = nodes(100);
    let start = Instant::now();
    let table = table(&nodes, 4);
    let took = start.elapsed();
    std::println!("65,536 slots for 100 nodes: {took:?}");
    assert_eq!(table.len(), SLOTS_LEN);
    // Debug builds are some ten times slower; `cargo xtask bench l4` measures the release build.
    let limit = if cfg!(debug_assertions) { 3_000 } else { 100 };
    assert!(took.as_millis() < limit, "{took:?}");
}

proptest! {
    /// Without the changed node, a slot's order is the same before and after: nothing moves but what it wins or loses.
    #[test]
    fn one_node_changes_only_its_own_places(count in 2_u16..40, gone in 0_u16..40, slot in 0_u32..65_536) {
        let nodes = nodes(count);
        let gone = NodeIndex(gone % count);
        let fewer: Vec<_> = nodes.iter().copied().filter(|node| node.index != gone).collect();
        let before = rank(&nodes, 8, slot).order.into_iter().filter(|node| *node != gone);
        let after = rank(&fewer, 8, slot).order;
        for (before, after) in before.zip(after) {
            prop_assert!(before == after || before == NodeIndex::NONE);
        }
    }

    /// A drain changes no rank.
    #[test]
    fn draining_keeps_the_order(count in 5_u16..40, draining in 0_u16..40, slot in 0_u32..65_536) {
        let mut nodes = nodes(count);
        let before = rank(&nodes, 4, slot);
        nodes[usize::from(draining % count)].accepts = false;
        prop_assert_eq!(rank(&nodes, 4, slot), before);
    }
}
