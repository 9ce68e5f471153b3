//! Many nodes, one seed: joins, drains, crashes, returns, daemons that hang, owner moves, ECMP reshuffles, full flow tables,
//! tables of different age, weights, lost and overtaken packets, reused ports (also while a node has the earlier connection in
//! time-wait), against the very decision code. No established flow on a healthy node may break.
//!
//! `XDP_INGRESS_SIM_SEED=n` replays one history, `XDP_INGRESS_SIM_RUNS=n` runs more of them.

mod cluster;
mod history;
mod random;

use std::env;

use ingress_common::abi::MAX_CANDIDATES;

use history::{Growth, History, Outcome};

const RUNS: u64 = 2000;

fn seeds() -> Vec<u64> {
    let number = |name| env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    match number("XDP_INGRESS_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("XDP_INGRESS_SIM_RUNS").unwrap_or(RUNS)).collect(),
    }
}

fn run(growth: Growth, k: usize) -> Outcome {
    let mut total = Outcome::default();
    // The usual number of candidates gets most of the time.
    let seeds = seeds();
    let count = if k == MAX_CANDIDATES { seeds.len().div_ceil(5) } else { seeds.len() };
    for &seed in &seeds[..count] {
        let outcome = History::new(seed, growth, k).play();
        assert!(
            outcome.broken_inside_the_bound.is_empty(),
            "history {seed}: flows broke though their node was among the best K everywhere \
             (replay with XDP_INGRESS_SIM_SEED={seed}):\n{}",
            outcome.broken_inside_the_bound.join("\n")
        );
        total += outcome;
    }
    println!("{growth:?}, K = {k}: {total}");
    total
}

/// At most K - 1 nodes ever rank before the one that has the flow, in any table: the bound is zero, so nothing at all may
/// break.
#[test]
fn within_the_bound_nothing_breaks() {
    for growth in [Growth::WithinBound, Growth::CrashesHeard] {
        let outcome = run(growth, 4);
        assert_eq!(outcome.broken_outside_the_bound, 0, "{growth:?}");
        assert!(
            outcome.delivered > 10_000 || seeds().len() == 1,
            "the histories are too short to show anything"
        );
    }
}

/// The cluster grows as it likes: flows may break only if their node was pushed out of the best K, and few do.
#[test]
fn beyond_the_bound_few_break() {
    let outcome = run(Growth::Any, 4);
    let (broken, all) = (outcome.broken_outside_the_bound, outcome.opened);
    assert!(broken * 100 <= 3 * all, "{broken} of {all} flows broke");
}

/// Twice as many candidates: seven nodes may come and go, and nothing at all may break.
#[test]
fn with_eight_candidates_nothing_breaks_within_a_wider_bound() {
    for growth in [Growth::WithinBound, Growth::CrashesHeard] {
        let outcome = run(growth, MAX_CANDIDATES);
        assert_eq!(outcome.broken_outside_the_bound, 0, "{growth:?}");
        assert!(
            outcome.delivered > 10_000 || seeds().len() == 1,
            "the histories are too short to show anything"
        );
    }
}

/// As [`beyond_the_bound_few_break`], with eight candidates: far fewer.
#[test]
fn with_eight_candidates_hardly_any_break_beyond_the_bound() {
    let outcome = run(Growth::Any, MAX_CANDIDATES);
    let (broken, all) = (outcome.broken_outside_the_bound, outcome.opened);
    assert!(broken * 1000 <= all, "{broken} of {all} flows broke");
}
