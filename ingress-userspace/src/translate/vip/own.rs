//! Addresses that are asked for by annotation: by an IngressClass, or by an Ingress for itself alone. They are of a pool
//! that the namespace may use, and nobody else's. An Ingress that asks and gets nothing has no VIP: what its author wanted
//! to have apart does not appear among the others.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::pool::{Pools, usable};
use super::{ADDRESS, ADDRESS_POOL, Holder, Kept, Request, Vips};
use crate::model::{ObjectRef, Reason};
use crate::source::{Key, Objects};
use crate::translate::class::Owned;
use crate::translate::problems::Problems;

/// More for one Ingress is a mistake.
const MOST: usize = 8;

/// Gives Ingresses the addresses that they ask for, the oldest first.
#[expect(clippy::too_many_arguments, reason = "what there is, who asks, and what becomes of it")]
pub(super) fn give(
    vips: &mut Vips,
    objects: &Objects,
    pools: &Pools,
    requests: &[Request<'_>],
    kept: &Kept<'_>,
    owned: &[Owned],
    exhausted: &mut BTreeSet<String>,
    problems: &mut Problems,
) {
    let annotation = |owned: &Owned, name: &str| {
        let annotations = owned.ingress.metadata.annotations.as_ref();
        annotations.and_then(|all| all.get(name)).cloned()
    };
    let mut choosing = Vec::new();
    for owned in owned {
        let request = requests.iter().find(|request| owned.class.as_deref() == Some(&*request.name));
        let Some(request) = request else { continue };
        let key = Key::of(&owned.ingress.metadata);
        let reference = &owned.reference;
        if let Some(text) = annotation(owned, ADDRESS) {
            let asked = asked(reference, &text, problems);
            let addresses = free(reference, asked, pools, problems, |address| {
                let class = kept.all().find(|(has, _)| *has == address);
                let class = class.map(|(_, class)| format!("IngressClass {class}"));
                class.or_else(|| taken(vips, &key, address)).or_else(|| {
                    let pool = pools.of(address)?;
                    let admits = pools.admits(objects, pool, &owned.ingress);
                    (!admits).then(|| format!("AddressPool {pool}, which is not for this Ingress"))
                })
            });
            vips.give(Holder::Ingress(key), request, addresses, problems);
        } else if let Some(pool) = annotation(owned, ADDRESS_POOL) {
            choosing.push((owned, request, key, pool));
        }
    }
    let mut taken: BTreeSet<IpAddr> =
        vips.by_address.keys().copied().chain(kept.all().map(|(address, _)| address)).collect();
    // What each has already, before anything is given to those that have nothing yet.
    let mut allocated = |key: &Key, pool: &str| {
        let mut had = allocated(objects, pools, pool, key);
        had.retain(|address| taken.insert(*address));
        had
    };
    let had: Vec<Vec<IpAddr>> = choosing.iter().map(|(_, _, key, pool)| allocated(key, pool)).collect();
    for ((owned, request, key, pool), had) in choosing.iter().zip(&had) {
        let field = format!("metadata.annotations[{ADDRESS_POOL}]");
        let is_admitted = pools.admits(objects, pool, &owned.ingress);
        let chosen = if is_admitted { pools.keep_or_choose(pool, had, &taken) } else { [None, None] };
        let chosen: Vec<IpAddr> = chosen.into_iter().flatten().collect();
        taken.extend(&chosen);
        if !is_admitted {
            problems.add(
                &owned.reference,
                field,
                Reason::NotFound,
                format!("there is no AddressPool {pool} for this Ingress; it has no VIP"),
                "name another pool, or have its spec.namespaces, namespaceSelectors and ingressSelectors let it in",
            );
        } else if chosen.is_empty() {
            exhausted.insert(pool.clone());
            problems.add(
                &owned.reference,
                field,
                Reason::Exhausted,
                format!("AddressPool {pool} has no free address left; the Ingress has no VIP"),
                "add addresses to it, or name another pool",
            );
        }
        vips.give(Holder::Ingress(key.clone()), request, chosen, problems);
    }
}

/// Who has the address so that the Ingress cannot. Those of one namespace may share.
fn taken(vips: &Vips, key: &Key, address: IpAddr) -> Option<String> {
    match vips.first.get(&address)? {
        Holder::Ingress(other) if other.namespace == key.namespace => None,
        Holder::Ingress(other) => Some(format!("Ingress {}/{}", other.namespace, other.name)),
        Holder::Class(class) => Some(format!("IngressClass {class}")),
    }
}

/// What the pool's status says that the Ingress has.
fn allocated(objects: &Objects, pools: &Pools, pool: &str, key: &Key) -> Vec<IpAddr> {
    let status = objects.address_pools.get("", pool).and_then(|pool| pool.status.as_ref());
    let allocations = status.map(|status| status.allocations.as_slice()).unwrap_or_default();
    let name = format!("{}/{}", key.namespace, key.name);
    let own = allocations.iter().filter(|allocation| allocation.ingress == name);
    own.filter_map(|allocation| allocation.address.parse().ok())
        .filter(|address| pools.has(pool, *address))
        .collect()
}

/// The addresses in an annotation.
pub(super) fn asked(reference: &ObjectRef, text: &str, problems: &mut Problems) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for part in text.split(',').map(str::trim) {
        let address = part.parse().map_err(|_| "it is not an IP address").and_then(usable);
        match address {
            Ok(address) if addresses.contains(&address) => {}
            Ok(address) if addresses.len() < MOST => addresses.push(address),
            wrong => problems.add(
                reference,
                format!("metadata.annotations[{ADDRESS}]"),
                Reason::InvalidValue,
                format!(
                    "`{part}` cannot be a VIP: {}; it is left out",
                    wrong.err().unwrap_or("there are eight before it")
                ),
                "write addresses of a pool, separated by commas",
            ),
        }
    }
    addresses
}

/// Those of `asked` that can be had. `whose` names who else has one.
pub(super) fn free(
    reference: &ObjectRef,
    asked: Vec<IpAddr>,
    pools: &Pools,
    problems: &mut Problems,
    whose: impl Fn(IpAddr) -> Option<String>,
) -> Vec<IpAddr> {
    let mut free = Vec::new();
    for address in asked {
        let field = format!("metadata.annotations[{ADDRESS}]");
        if pools.of(address).is_none() {
            problems.add(
                reference,
                field,
                Reason::NotFound,
                format!("{address} is in no AddressPool; it is left out"),
                "name an address of a pool, or add it to one",
            );
        } else if let Some(owner) = whose(address) {
            problems.add(
                reference,
                field,
                Reason::Conflict,
                format!("{address} belongs to {owner}; it is left out"),
                "name another address; Ingresses of one namespace may share one",
            );
        } else {
            free.push(address);
        }
    }
    free
}
