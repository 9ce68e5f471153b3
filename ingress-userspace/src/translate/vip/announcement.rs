//! `spec.nodeSelectors` and `spec.interfaces` of AddressPools: who answers for a pool's VIPs on the link, and where. A selector
//! that cannot be read matches nothing; the list stays one, so that no node answers that shall not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::pool::Pools;
use super::{Holder, Vips};
use crate::api::AddressPool;
use crate::model::{Announcement, Kind, ObjectRef, Reason};
use crate::source::{Objects, Stored as _};
use crate::translate::problems::Problems;
use crate::translate::selector;

/// Longest name of an interface (`IFNAMSIZ` without its end).
const LONGEST: usize = 15;

/// Says of each VIP where it came from and who may answer for it.
pub(super) fn add(vips: &mut Vips, objects: &Objects, pools: &Pools, problems: &mut Problems) {
    let by_pool: BTreeMap<&str, (ObjectRef, Arc<Announcement>)> = objects
        .address_pools
        .iter()
        .map(|(key, pool)| {
            let reference = pool.reference();
            let announcement = Arc::new(read(pool, &reference, objects, problems));
            (&*key.name, (reference, announcement))
        })
        .collect();
    for (address, vip) in &mut vips.by_address {
        if let Some((source, announcement)) = pools.of(*address).and_then(|pool| by_pool.get(pool)) {
            vip.source = source.clone();
            vip.announcement = Arc::clone(announcement);
        } else if let Some(holder) = vips.first.get(address) {
            vip.source = match holder {
                Holder::Class(class) => ObjectRef::new(Kind::IngressClass, "", &**class),
                Holder::Ingress(key) => ObjectRef::new(Kind::Ingress, &*key.namespace, &*key.name),
            };
        }
    }
}

fn read(
    pool: &AddressPool,
    reference: &ObjectRef,
    objects: &Objects,
    problems: &mut Problems,
) -> Announcement {
    let mut interfaces = BTreeSet::new();
    for (index, name) in pool.spec.interfaces.iter().enumerate() {
        if name.is_empty() || name.len() > LONGEST || name.contains(|c: char| c == '/' || c.is_whitespace()) {
            problems.add(
                reference,
                format!("spec.interfaces[{index}]"),
                Reason::InvalidValue,
                format!("no interface can be called `{name}`"),
                "write the name of an interface that --interface names too",
            );
        }
        interfaces.insert(name.clone());
    }
    if pool.spec.node_selectors.is_empty() {
        return Announcement { nodes: None, interfaces };
    }
    let field = "spec.nodeSelectors";
    let selectors = selector::parse(&pool.spec.node_selectors, reference, field, problems);
    let selected = objects.nodes.iter().filter(|(_, node)| {
        let labels = node.metadata.labels.as_ref();
        selector::matches(&selectors, labels)
    });
    let nodes: BTreeSet<String> = selected.map(|(key, _)| key.name.to_string()).collect();
    if nodes.is_empty() {
        problems.add(
            reference,
            field,
            Reason::Unannounced,
            "no node has such labels: nobody answers for the pool's addresses",
            "label the nodes that shall, or correct the selectors",
        );
    }
    Announcement { nodes: Some(nodes), interfaces }
}
