//! What is told about VIPs: the statuses of AddressPools (which also keep the allocations) and of IngressClasses'
//! parameters.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::pool::Pools;
use super::{Holder, Request, Vips};
use crate::api::{AddressPoolStatus, Allocation, Condition, IngressClassParametersStatus};
use crate::model::{ObjectRef, OwnStatus};
use crate::source::{Key, Objects, Stored as _};

/// The statuses of all pools, and of the parameters of all classes of ours.
pub(super) fn statuses(
    objects: &Objects,
    now: i64,
    pools: &Pools,
    requests: &[Request<'_>],
    vips: &Vips,
    exhausted: &BTreeSet<String>,
) -> Vec<OwnStatus> {
    let mut statuses = Vec::new();
    for (key, pool) in objects.address_pools.iter() {
        let name = &*key.name;
        let mut used = BTreeSet::new();
        let mut allocations = Vec::new();
        for (holder, addresses) in &vips.by_holder {
            for address in addresses.iter().filter(|address| pools.has(name, **address)) {
                used.insert(*address);
                allocations.push((*address, holder));
            }
        }
        allocations.sort();
        let size = pools.size(name);
        let (ready, reason, message) = if size == 0 {
            (false, "NoAddresses", "none of spec.addresses can be used; correct them".to_owned())
        } else if exhausted.contains(name) {
            let message = "somebody who asks for an address got none; add addresses".to_owned();
            (false, "Exhausted", message)
        } else {
            (true, "Available", String::new())
        };
        let before = pool.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let wanted = AddressPoolStatus {
            size,
            used: used.len() as u64,
            allocations: allocations
                .into_iter()
                .map(|(address, holder)| {
                    let address = address.to_string();
                    match holder {
                        Holder::Class(class) => {
                            Allocation { address, ingress_class: class.to_string(), ..Allocation::default() }
                        }
                        Holder::Ingress(Key { namespace, name }) => Allocation {
                            address,
                            ingress: format!("{namespace}/{name}"),
                            ..Allocation::default()
                        },
                    }
                })
                .collect(),
            conditions: vec![Condition::ready(ready, reason, message, before, now)],
        };
        statuses.push(status(pool.reference(), &wanted, pool.status.as_ref()));
    }
    // Several classes may share parameters.
    let mut by_parameters: BTreeMap<&ObjectRef, BTreeSet<std::net::IpAddr>> = BTreeMap::new();
    for request in requests {
        if let Some((reference, _)) = &request.parameters {
            let addresses = vips.by_holder.get(&request.holder()).into_iter().flatten();
            by_parameters.entry(reference).or_default().extend(addresses);
        }
    }
    for (reference, addresses) in by_parameters {
        let Some(parameters) = objects.class_parameters.get("", &reference.name) else { continue };
        let before =
            parameters.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let (ready, reason, message) = if addresses.is_empty() {
            (false, "NoVip", "the class has no VIP; its Events say why".to_owned())
        } else {
            (true, "Allocated", String::new())
        };
        let wanted = IngressClassParametersStatus {
            vips: addresses.iter().map(ToString::to_string).collect(),
            conditions: vec![Condition::ready(ready, reason, message, before, now)],
        };
        statuses.push(status(reference.clone(), &wanted, parameters.status.as_ref()));
    }
    statuses
}

fn status<S: serde::Serialize>(object: ObjectRef, wanted: &S, shown: Option<&S>) -> OwnStatus {
    // Plain data with string keys: it always serialises.
    let json = |status: &S| serde_json::to_value(status).unwrap_or_default();
    OwnStatus { object, wanted: json(wanted), shown: shown.map_or(Value::Null, json) }
}
