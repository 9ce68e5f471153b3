//! Classes side by side: which routes clients reach through which VIP. An Ingress is served at the addresses of its own
//! class, or at those that it has for itself, and at no others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::annotation::Served;
use super::problems::Problems;
use super::vip::{Holder, Vips};
use crate::model::{RouteTable, Shared};

/// The table of all Ingresses, and those of the VIPs that don't have all of them. `table` makes one.
pub(super) fn tables(
    served: &[Served],
    vips: &Vips,
    problems: &mut Problems,
    mut table: impl FnMut(&[&Served], &mut Problems) -> RouteTable,
) -> (Shared<RouteTable>, Shared<BTreeMap<IpAddr, Shared<RouteTable>>>) {
    let by_vip = vips.holders();
    let sets: BTreeSet<&BTreeSet<Holder>> = by_vip.values().collect();
    let is_in = |set: &BTreeSet<Holder>, one: &Served| {
        vips.holder(&one.owned).is_some_and(|holder| set.contains(&holder))
    };
    let all: Vec<&Served> = served.iter().collect();
    if sets.is_empty() || (sets.len() == 1 && sets.iter().all(|set| all.iter().all(|one| is_in(set, one)))) {
        return (table(&all, problems).into(), Shared::default());
    }
    let mut tables: BTreeMap<&BTreeSet<Holder>, Shared<RouteTable>> = BTreeMap::new();
    for set in &sets {
        let some: Vec<&Served> = all.iter().copied().filter(|one| is_in(set, one)).collect();
        tables.insert(set, table(&some, problems).into());
    }
    // Reached through no VIP, but what is wrong with them is said all the same.
    let rest: Vec<&Served> =
        all.iter().copied().filter(|one| !sets.iter().any(|set| is_in(set, one))).collect();
    if !rest.is_empty() {
        table(&rest, problems);
    }
    let vip_routes = by_vip.iter().filter_map(|(vip, set)| Some((*vip, tables.get(set)?.clone()))).collect();
    // Two classes that have the same host are no conflict: only listeners besides the VIPs show both.
    (table(&all, &mut Problems::default()).into(), vip_routes)
}
