//! What a request costs among 100,000 rules beside 100: our own router twice, the same requests otherwise, to random hosts and
//! paths of those that each has.

use anyhow::Result;
use ingress_tests::lab::tls::Authority;

use super::load::{HOST, Load};
use super::ours::Ours;
use super::proxies::{Backend, PATHS};
use super::{ROUND, ROUNDS, Row, UNIT, cost, median};
use crate::report;

pub(super) const NAME: &str = "routing, 100,000 rules beside 100";
/// The cost shall not grow with the number of rules; memory that is not in the caches costs something.
const TARGET: f64 = 1.2;
/// Hosts of `PATHS` rules each: few, and many.
const HOSTS: [usize; 2] = [100 / PATHS, 100_000 / PATHS];
const CONNECTIONS: u32 = 64;

pub(super) fn rows(backend: &Backend) -> Result<Vec<Row>> {
    let step = report::Step::start(NAME);
    let identity = Authority::new()?.issue(&[HOST])?;
    let start = |hosts: usize| Ours::prepare(&format!("routing-{hosts}"), backend, &identity, hosts)?.start();
    let routers = [start(HOSTS[0])?, start(HOSTS[1])?];
    let load = HOSTS.map(|hosts| Load::Hosts { connections: CONNECTIONS, hosts });
    let mut costs = [const { Vec::new() }; 2];
    for (router, load) in routers.iter().zip(load) {
        load.put(router, ROUND)?;
    }
    for round in 0..ROUNDS {
        for index in if round.is_multiple_of(2) { [0, 1] } else { [1, 0] } {
            step.progress(&format!("round {}: {} hosts", round + 1, HOSTS[index]));
            costs[index].push(cost(load[index], &routers[index])?);
        }
    }
    step.done();
    let [few, many] = costs.map(|mut costs| median(&mut costs));
    Ok(vec![Row::new(NAME, many, few, UNIT, Some(TARGET))])
}
