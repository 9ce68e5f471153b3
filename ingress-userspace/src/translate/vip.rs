//! VIPs: which addresses and ports each class of ours has, and each Ingress that asks for addresses of its own. Named, or
//! taken from a pool.
//!
//! An address that somebody has stays its own: the leader writes it into the pool's status, and whoever allocates reads it
//! there first. So it makes no difference who is the leader, who restarts and which classes come and go.

mod admission;
mod announcement;
mod own;
mod pool;
mod protection;
mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::networking::v1::IngressClass;

use super::Settings;
use super::class::{Classes, Owned};
use super::order::by_age;
use super::problems::Problems;
use crate::api::{AddressPool, GROUP, IngressClassParametersSpec};
use crate::model::{Downstream, ObjectRef, OwnStatus, Reason, Vip};
use crate::source::{Key, Objects, Stored as _};
use admission::is_everybodys;
use pool::Pools;

/// The pool of classes that name none.
const DEFAULT_POOL: &str = "default";

/// Addresses that an IngressClass or an Ingress asks for, separated by commas; in a pool, and nobody else's.
pub(super) const ADDRESS: &str = "xdp-ingress.io/address";
/// The pool from which an Ingress gets addresses of its own.
pub(super) const ADDRESS_POOL: &str = "xdp-ingress.io/address-pool";

/// Who has addresses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    /// The IngressClass of this name, for all its Ingresses that have none of their own.
    Class(Arc<str>),
    /// This Ingress alone.
    Ingress(Key),
}

/// What was allocated.
#[derive(Debug, Default)]
pub(super) struct Vips {
    by_holder: BTreeMap<Holder, Vec<IpAddr>>,
    by_address: BTreeMap<IpAddr, Vip>,
    /// Who had it first.
    first: BTreeMap<IpAddr, Holder>,
    own_statuses: Vec<OwnStatus>,
}

/// A class with what it asks for.
struct Request<'a> {
    name: Arc<str>,
    class: &'a Arc<IngressClass>,
    /// Where its parameters are, and what they say; `None`: it has none.
    parameters: Option<(ObjectRef, &'a IngressClassParametersSpec)>,
    /// How clients of its addresses are understood.
    downstream: Option<Arc<Downstream>>,
}

impl Request<'_> {
    fn holder(&self) -> Holder {
        Holder::Class(Arc::clone(&self.name))
    }

    /// The addresses that the class's annotation names.
    fn asks(&self) -> Option<&str> {
        self.class.metadata.annotations.as_ref()?.get(ADDRESS).map(String::as_str)
    }
}

impl Vips {
    pub(super) fn new(
        objects: &Objects,
        settings: &Settings,
        classes: &Classes,
        owned: &[Owned],
        problems: &mut Problems,
    ) -> Self {
        let pools = Pools::new(objects, problems);
        let requests: Vec<Request<'_>> =
            classes.ours.iter().filter_map(|class| request(objects, classes, class, problems)).collect();
        let mut vips = Self::default();
        // Addresses that are named win over those that can be chosen.
        for request in &requests {
            if let Some((reference, spec)) =
                request.parameters.as_ref().filter(|(_, spec)| !spec.vips.is_empty())
            {
                let addresses = named(reference, spec, problems);
                vips.give(request.holder(), request, addresses, problems);
            }
        }
        let left = requests.iter().filter(|request| !vips.by_holder.contains_key(&request.holder()));
        let (asking, choosing): (Vec<_>, Vec<_>) = left.partition(|request| request.asks().is_some());
        let choosing: Vec<_> =
            choosing.into_iter().map(|request| (request, candidates(objects, request, problems))).collect();
        // What each of them has already, before anything is given to those that have nothing yet.
        let kept = Kept::read(objects, &pools, &choosing);
        for request in asking {
            let reference = request.class.reference();
            let asked = own::asked(&reference, request.asks().unwrap_or_default(), problems);
            let addresses = own::free(&reference, asked, &pools, problems, |address| {
                kept.all().find(|(has, _)| *has == address).map(|(_, class)| format!("IngressClass {class}"))
            });
            vips.give(request.holder(), request, addresses, problems);
        }
        let mut exhausted = BTreeSet::new();
        own::give(&mut vips, objects, &pools, &requests, &kept, owned, &mut exhausted, problems);
        for (request, candidates) in &choosing {
            let taken =
                vips.by_address.keys().copied().chain(kept.all().map(|(address, _)| address)).collect();
            let chosen = kept.of(&request.name).map_or_else(
                || {
                    let free = |pool: &&str| [true, false].map(|v4| pools.first_free(pool, v4, &taken));
                    candidates
                        .iter()
                        .map(free)
                        .find(|free| free.iter().any(Option::is_some))
                        .unwrap_or_default()
                },
                // A version that its pool got later.
                |(pool, had)| pools.keep_or_choose(pool, had, &taken),
            );
            let chosen: Vec<IpAddr> = chosen.into_iter().flatten().collect();
            if chosen.is_empty() && !candidates.is_empty() {
                exhausted.extend(candidates.iter().map(|pool| (*pool).to_owned()));
                problems.add(
                    &request.class.reference(),
                    "spec.parameters",
                    Reason::Exhausted,
                    format!(
                        "AddressPool {} has no free address left; the class has no VIP",
                        candidates.join(", ")
                    ),
                    format!(
                        "add addresses to AddressPool {}, or name another pool in the class's parameters",
                        candidates[0]
                    ),
                );
            }
            vips.give(request.holder(), request, chosen, problems);
        }
        announcement::add(&mut vips, objects, &pools, problems);
        vips.own_statuses = usage::statuses(objects, settings.now, &pools, &requests, &vips, &exhausted);
        vips
    }

    /// Whose addresses an Ingress is served at; `None`: it has no class.
    pub(super) fn holder(&self, owned: &Owned) -> Option<Holder> {
        let own = Holder::Ingress(Key::of(&owned.ingress.metadata));
        if self.by_holder.contains_key(&own) {
            return Some(own);
        }
        owned.class.clone().map(Holder::Class)
    }

    /// The addresses of an Ingress, for its status.
    pub(super) fn of(&self, owned: &Owned) -> Vec<IpAddr> {
        let addresses = self.holder(owned).and_then(|holder| self.by_holder.get(&holder));
        addresses.cloned().unwrap_or_default()
    }

    /// Who has each VIP.
    pub(super) fn holders(&self) -> BTreeMap<IpAddr, BTreeSet<Holder>> {
        let mut holders: BTreeMap<IpAddr, BTreeSet<Holder>> = BTreeMap::new();
        for (holder, addresses) in &self.by_holder {
            for address in addresses {
                holders.entry(*address).or_default().insert(holder.clone());
            }
        }
        holders
    }

    /// All VIPs, by address, and what our own resources shall say of them.
    pub(super) fn parts(&self) -> (Vec<Vip>, Vec<OwnStatus>) {
        (self.by_address.values().cloned().collect(), self.own_statuses.clone())
    }

    /// With the ports that the class asks for.
    fn give(&mut self, to: Holder, request: &Request<'_>, addresses: Vec<IpAddr>, problems: &mut Problems) {
        let protection = protection::read(request, problems);
        for address in &addresses {
            let vip = self.by_address.entry(*address).or_insert_with(|| Vip {
                downstream: request.downstream.clone(),
                ..Vip::new(*address, request.class.reference())
            });
            if vip.downstream != request.downstream {
                downstream_differs(vip, request, problems);
            }
            add_ports(vip, request, problems);
            if let Some(protection) = &protection {
                protection::add(vip, request, protection, problems);
            }
            self.first.entry(*address).or_insert_with(|| to.clone());
        }
        self.by_holder.insert(to, addresses);
    }
}

/// Of two classes with one VIP the first is heard.
fn downstream_differs(vip: &Vip, request: &Request<'_>, problems: &mut Problems) {
    let (object, field) = match &request.parameters {
        Some((reference, _)) => (reference.clone(), "spec.options"),
        None => (request.class.reference(), "spec.parameters"),
    };
    let message = format!(
        "{} is another class's too, whose options about proxies and header fields differ; those of the other one hold there",
        vip.address
    );
    let hint = "give both classes the same options, or each its own VIP";
    problems.add(&object, field, Reason::Conflict, message, hint);
}

/// The pools from which a class may get its addresses, in the order in which they are asked.
fn candidates<'a>(objects: &'a Objects, request: &Request<'a>, problems: &mut Problems) -> Vec<&'a str> {
    let named =
        request.parameters.as_ref().and_then(|(reference, spec)| Some((reference, spec.pool.as_deref()?)));
    let Some((reference, name)) = named else {
        // What is for some Ingresses is not for a class, which is everybody's.
        let is_auto = |pool: &&Arc<AddressPool>| pool.spec.auto_assign && is_everybodys(&pool.spec);
        let auto = by_age(&objects.address_pools).into_iter().filter(is_auto);
        let mut names: Vec<&str> = auto.filter_map(|pool| pool.metadata.name.as_deref()).collect();
        names.sort_by_key(|name| *name != DEFAULT_POOL);
        return names;
    };
    if objects.address_pools.get("", name).is_some() {
        return vec![name];
    }
    problems.add(
        reference,
        "spec.pool",
        Reason::NotFound,
        format!("AddressPool {name} does not exist; the class has no VIP"),
        "create it, or correct the name",
    );
    Vec::new()
}

/// What the pools' statuses say of allocations that are still good: of a class that may have them, in a pool that still
/// has the address. Of two classes with one address the older keeps it.
#[derive(Debug, Default)]
struct Kept<'a>(BTreeMap<Arc<str>, (&'a str, Vec<IpAddr>)>);

impl<'a> Kept<'a> {
    fn read(objects: &Objects, pools: &Pools, choosing: &[(&Request<'a>, Vec<&'a str>)]) -> Self {
        let mut kept = Self::default();
        let mut taken = BTreeSet::new();
        for (request, candidates) in choosing {
            for pool in candidates {
                let status = objects.address_pools.get("", pool).and_then(|pool| pool.status.as_ref());
                let allocations = status.map(|status| status.allocations.as_slice()).unwrap_or_default();
                let own = allocations.iter().filter(|allocation| *allocation.ingress_class == *request.name);
                let addresses: Vec<IpAddr> = own
                    .filter_map(|allocation| allocation.address.parse().ok())
                    .filter(|address| pools.has(pool, *address) && taken.insert(*address))
                    .collect();
                if !addresses.is_empty() {
                    kept.0.insert(Arc::clone(&request.name), (pool, addresses));
                    break;
                }
            }
        }
        kept
    }

    fn all(&self) -> impl Iterator<Item = (IpAddr, &Arc<str>)> {
        self.0
            .iter()
            .flat_map(|(class, (_, addresses))| addresses.iter().map(move |address| (*address, class)))
    }

    fn of(&self, class: &str) -> Option<&(&'a str, Vec<IpAddr>)> {
        self.0.get(class)
    }
}

/// What a class asks for; `None` if its parameters are broken: it must not get addresses that nobody meant.
fn request<'a>(
    objects: &'a Objects,
    classes: &Classes,
    class: &'a Arc<IngressClass>,
    problems: &mut Problems,
) -> Option<Request<'a>> {
    let reference = class.reference();
    let name: Arc<str> = reference.name.as_str().into();
    let Some(named) = class.spec.as_ref().and_then(|spec| spec.parameters.as_ref()) else {
        return Some(Request { name, class, parameters: None, downstream: None });
    };
    if named.api_group.as_deref() != Some(GROUP) || named.kind != "IngressClassParameters" {
        problems.add(
            &reference,
            "spec.parameters.kind",
            Reason::InvalidValue,
            format!(
                "{}/{} is not a kind of parameters that we know; the class has no VIP",
                named.api_group.as_deref().unwrap_or_default(),
                named.kind
            ),
            format!("write apiGroup {GROUP} and kind IngressClassParameters"),
        );
        return None;
    }
    if named.scope.as_deref() == Some("Namespace") {
        problems.add(
            &reference,
            "spec.parameters.scope",
            Reason::InvalidValue,
            "IngressClassParameters are cluster-wide: there are none in a namespace; the class has no VIP",
            "write `scope: Cluster`, or nothing, and leave the namespace out",
        );
        return None;
    }
    let Some(parameters) = objects.class_parameters.get("", &named.name) else {
        problems.add(
            &reference,
            "spec.parameters.name",
            Reason::NotFound,
            format!("IngressClassParameters {} does not exist; the class has no VIP", named.name),
            "create it, or correct the name; it is cluster-wide",
        );
        return None;
    };
    let downstream = classes.downstream(&name);
    let parameters = Some((parameters.reference(), &parameters.spec));
    Some(Request { name, class, parameters, downstream })
}

fn named(reference: &ObjectRef, spec: &IngressClassParametersSpec, problems: &mut Problems) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for (index, text) in spec.vips.iter().enumerate() {
        match text.parse::<IpAddr>().map_err(|_| "it is not an IP address").and_then(pool::usable) {
            Ok(address) if addresses.contains(&address) => {}
            Ok(address) => addresses.push(address),
            Err(what) => problems.add(
                reference,
                format!("spec.vips[{index}]"),
                Reason::InvalidValue,
                format!("`{text}` cannot be a VIP: {what}; it is left out"),
                "write an address that clients can reach",
            ),
        }
    }
    addresses
}

/// A VIP that several classes share has the ports of all.
fn add_ports(vip: &mut Vip, request: &Request<'_>, problems: &mut Problems) {
    let spec = request.parameters.as_ref().map(|(_, spec)| *spec);
    let http = spec.and_then(|spec| spec.http_ports.as_deref()).unwrap_or(&[80]);
    let https = spec.and_then(|spec| spec.https_ports.as_deref()).unwrap_or(&[443]);
    for (field, ports, is_tls) in [("spec.httpPorts", http, false), ("spec.httpsPorts", https, true)] {
        for (index, port) in ports.iter().enumerate() {
            let (same, other) = if is_tls {
                (&mut vip.https_ports, &vip.http_ports)
            } else {
                (&mut vip.http_ports, &vip.https_ports)
            };
            let problem = if *port == 0 {
                Some((Reason::InvalidValue, "port 0 does not exist; it is left out".to_owned()))
            } else if other.contains(port) {
                let protocols = if is_tls { "plain HTTP" } else { "HTTPS" };
                Some((
                    Reason::Conflict,
                    format!("port {port} of {} already speaks {protocols}; it is left out here", vip.address),
                ))
            } else {
                None
            };
            match problem {
                Some((reason, message)) => {
                    // The default ports are the class's, not written anywhere.
                    let (object, field) = match &request.parameters {
                        Some((reference, _)) => (reference.clone(), format!("{field}[{index}]")),
                        None => (request.class.reference(), "spec.parameters".to_owned()),
                    };
                    problems.add(&object, field, reason, message, "give each port one protocol");
                }
                None => {
                    if !same.contains(port) {
                        same.push(*port);
                        same.sort_unstable();
                    }
                }
            }
        }
    }
}
