//! Cases of balancing.

use super::*;
use crate::model::{ClusterId, Endpoint};

fn address(last: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], last))
}

fn backend(service: &str, ports: &[u16]) -> Backend {
    let endpoints = ports.iter().map(|&port| Endpoint { address: address(port), node: None }).collect();
    let id = ClusterId { namespace: "n".into(), service: service.into(), port: 80, by_service: false };
    Backend { key: ClusterKey(3), load: Arc::default(), cluster: Arc::new(Cluster { id, endpoints }) }
}

fn pick(balancer: &Balancer, backend: &Backend, tried: &[SocketAddr]) -> Result<InFlight, NoEndpoint> {
    balancer.cluster(backend).pick(tried, Choice::default())
}

fn by(by: By) -> Choice {
    Choice { by, ..Choice::default() }
}

#[test]
fn nothing_to_pick_from() {
    let balancer = Balancer::default();
    let pick = |backend, tried: &[SocketAddr]| pick(&balancer, &backend, tried).unwrap_err();
    assert_eq!(pick(backend("a", &[]), &[]), NoEndpoint::Empty);
    assert_eq!(pick(backend("b", &[1]), &[address(1)]), NoEndpoint::Tried);
}

#[test]
fn requests_in_flight_are_spread() {
    let (balancer, backend) = (Balancer::default(), backend("a", &[1, 2, 3, 4]));
    let held: Vec<InFlight> = (0..400).map(|_| pick(&balancer, &backend, &[]).unwrap()).collect();
    for port in 1..=4 {
        let count = held.iter().filter(|picked| picked.address() == address(port)).count();
        assert!((90..=110).contains(&count), "{port}: {count}");
    }
    drop(held);
    let state = balancer.cluster(&backend);
    assert!(state.inner.borrow().endpoints.iter().all(|endpoint| endpoint.in_flight.get() == 0));
}

#[test]
fn tried_endpoints_are_left_out() {
    let (balancer, backend) = (Balancer::default(), backend("a", &[1, 2, 3]));
    for _ in 0..50 {
        let picked = pick(&balancer, &backend, &[address(1), address(3)]).unwrap();
        assert_eq!(picked.address(), address(2));
    }
}

#[test]
fn a_new_snapshot_keeps_what_is_known_and_a_kept_state_sees_it() {
    let balancer = Balancer::default();
    let state = balancer.cluster(&backend("a", &[1]));
    let held = state.pick(&[], Choice::default()).unwrap();
    balancer.cluster(&backend("a", &[1, 2]));
    for _ in 0..50 {
        // Endpoint 1 is busy and 2 is not.
        assert_eq!(state.pick(&[], Choice::default()).unwrap().address(), address(2));
    }
    balancer.cluster(&backend("a", &[2]));
    assert_eq!(held.address(), address(1), "a removed endpoint lives on with its last request");
}

#[test]
fn two_below_gives_two_different_numbers() {
    let random = Random::default();
    for n in 2..20 {
        let (a, b) = random.two_below(n);
        assert!(a != b && a < n && b < n);
    }
}

#[test]
fn round_robin_takes_turns() {
    let (balancer, backend) = (Balancer::default(), backend("a", &[1, 2, 3]));
    let state = balancer.cluster(&backend);
    let ports: Vec<u16> =
        (0..30).map(|_| state.pick(&[], by(By::RoundRobin)).unwrap().address().port()).collect();
    for window in ports.windows(3) {
        assert!(window[0] != window[1] && window[1] != window[2] && window[0] != window[2], "{ports:?}");
    }
}

#[test]
fn a_hash_leads_to_one_endpoint_and_few_keys_move() {
    let ports: Vec<u16> = (1..=10).collect();
    let balancer = Balancer::default();
    let home = |ports: &[u16]| -> Vec<u16> {
        let state = balancer.cluster(&backend("a", ports));
        (0..1000_u64).map(|key| state.pick(&[], by(By::Hash(mix(key)))).unwrap().address().port()).collect()
    };
    let before = home(&ports);
    assert_eq!(before, home(&ports));
    for port in &ports {
        let count = before.iter().filter(|home| *home == port).count();
        assert!((60..=140).contains(&count), "{port}: {count}");
    }
    // One leaves: only its keys move.
    let after = home(&ports[..9]);
    assert!(before.iter().zip(&after).all(|(before, after)| before == after || *before == 10));
}

/// A pod is dead and not known as such yet: no retry goes there again, all requests of a key go to the same other one, and
/// once it is known, none is sent there first.
#[test]
fn a_dead_endpoint_costs_its_keys_one_retry_each_until_it_is_left_alone() {
    let ports: Vec<u16> = (1..=5).collect();
    let balancer = Balancer::default();
    let state = balancer.cluster(&backend("a", &ports));
    let dead = address(3);
    let mut homes = std::collections::BTreeMap::new();
    let mut retries = 0;
    for round in 0..20_u64 {
        for key in 0..100_u64 {
            let mut tried = Vec::new();
            let home = loop {
                let picked = state.pick(&tried, by(By::Hash(mix(key)))).unwrap();
                assert!(!tried.contains(&picked.address()), "a retry goes to the same endpoint");
                if picked.address() != dead {
                    picked.succeeded();
                    break picked.address();
                }
                state.failed(&picked);
                tried.push(dead);
                retries += 1;
            };
            let before = *homes.entry(key).or_insert(home);
            assert_eq!(before, home, "key {key} moved in round {round}");
        }
    }
    assert!((1..=10).contains(&retries), "{retries} requests met the dead endpoint");
}

#[test]
fn a_subset_is_the_same_for_a_key_and_shares_its_requests() {
    let ports: Vec<u16> = (1..=10).collect();
    let balancer = Balancer::default();
    let state = balancer.cluster(&backend("a", &ports));
    let size = std::num::NonZeroU32::new(3).unwrap();
    let mut first_of = std::collections::BTreeSet::new();
    for key in 0..20_u64 {
        let subset = By::HashSubset(mix(key), size);
        let held: Vec<InFlight> = (0..300).map(|_| state.pick(&[], by(subset)).unwrap()).collect();
        let mut counts = std::collections::BTreeMap::new();
        for picked in &held {
            *counts.entry(picked.address()).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 3, "{counts:?}");
        assert!(counts.values().all(|count| (80..=120).contains(count)), "{counts:?}");
        // Without one of them another one joins, and two stay.
        let gone = *counts.keys().next().unwrap();
        first_of.insert(gone);
        drop(held);
        let others: std::collections::BTreeSet<SocketAddr> =
            (0..100).map(|_| state.pick(&[gone], by(subset)).unwrap().address()).collect();
        assert_eq!(others.len(), 3);
        assert_eq!(others.iter().filter(|other| counts.contains_key(other)).count(), 2);
    }
    assert!(first_of.len() > 3, "different keys have different subsets: {first_of:?}");
    // More than there are: all.
    let all = By::HashSubset(1, std::num::NonZeroU32::new(50).unwrap());
    let found: std::collections::BTreeSet<SocketAddr> =
        (0..500).map(|_| state.pick(&[], by(all)).unwrap().address()).collect();
    assert_eq!(found.len(), 10);
}

#[test]
fn ewma_prefers_who_answers_fast() {
    let (balancer, backend) = (Balancer::default(), backend("a", &[1, 2]));
    let state = balancer.cluster(&backend);
    let now = Instant::now();
    for endpoint in &state.inner.borrow().endpoints {
        endpoint.took(if endpoint.address.port() == 1 { 0.5 } else { 0.01 }, now);
    }
    let fast = (0..100).filter(|_| state.pick(&[], by(By::Ewma)).unwrap().address().port() == 2).count();
    assert_eq!(fast, 100);
}

#[test]
fn who_fails_again_and_again_is_left_alone_but_never_more_than_half() {
    let (balancer, backend) = (Balancer::default(), backend("a", &[1, 2, 3]));
    let state = balancer.cluster(&backend);
    let fail = |port: u16| {
        let others: Vec<SocketAddr> = (1..=3).filter(|other| *other != port).map(address).collect();
        for _ in 0..5 {
            let picked = state.pick(&others, Choice::default()).unwrap();
            state.failed(&picked);
        }
    };
    fail(1);
    assert!((0..100).all(|_| state.pick(&[], Choice::default()).unwrap().address().port() != 1));
    fail(2);
    let twos = (0..200).filter(|_| state.pick(&[], Choice::default()).unwrap().address().port() == 2).count();
    assert!(twos > 0, "the second of three stays");
    // When nobody else is left to try, it is asked after all.
    assert_eq!(state.pick(&[address(2), address(3)], Choice::default()).unwrap().address(), address(1));
}

#[test]
fn an_answer_makes_failures_forgotten() {
    let (balancer, backend) = (Balancer::default(), backend("a", &[1, 2]));
    let state = balancer.cluster(&backend);
    for _ in 0..20 {
        let picked = state.pick(&[address(2)], Choice::default()).unwrap();
        state.failed(&picked);
        picked.succeeded();
    }
    assert!(!state.has_ejected());
}

#[test]
fn requests_above_the_limit_are_refused() {
    let (balancer, backend) = (Balancer::default(), backend("a", &[1, 2]));
    let (one, other) = (balancer.cluster(&backend), Balancer::default().cluster(&backend));
    let choice = Choice { limit: std::num::NonZeroU32::new(3), ..Choice::default() };
    let held = [one.pick(&[], choice), other.pick(&[], choice), one.pick(&[], choice)];
    assert!(held.iter().all(Result::is_ok), "of all workers together");
    assert_eq!(other.pick(&[], choice).unwrap_err(), NoEndpoint::Full);
    drop(held);
    assert!(other.pick(&[], choice).is_ok());
}

#[test]
fn a_slow_start_gives_a_new_endpoint_few_requests() {
    let balancer = Balancer::default();
    balancer.cluster(&backend("a", &[1]));
    let state = balancer.cluster(&backend("a", &[1, 2]));
    let choice = Choice { slow_start: Some(std::time::Duration::from_hours(1)), ..Choice::default() };
    let new = (0..1000).filter(|_| state.pick(&[], choice).unwrap().address().port() == 2).count();
    assert!((30..200).contains(&new), "{new} of 1000");
}
