//! VIPs: which addresses and ports each class of ours has. Said by the class's parameters, or taken from a pool.

mod pool;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::networking::v1::IngressClass;

use super::class::Classes;
use super::problems::Problems;
use crate::api::{GROUP, IngressClassParametersSpec};
use crate::model::{ObjectRef, Reason, Vip};
use crate::source::{Objects, Stored as _};
use pool::Pools;

/// The pool of classes that name none.
const DEFAULT_POOL: &str = "default";

/// What was allocated.
#[derive(Debug, Default)]
pub(super) struct Vips {
    by_class: BTreeMap<Arc<str>, Vec<IpAddr>>,
    vips: BTreeMap<IpAddr, Vip>,
}

/// A class with what it asks for.
struct Request<'a> {
    name: Arc<str>,
    class: &'a Arc<IngressClass>,
    /// Where its parameters are, and what they say; `None`: it has none.
    parameters: Option<(ObjectRef, &'a IngressClassParametersSpec)>,
}

impl Vips {
    pub(super) fn new(objects: &Objects, classes: &Classes, problems: &mut Problems) -> Self {
        let pools = Pools::new(objects, problems);
        let requests: Vec<Request<'_>> =
            classes.ours.iter().filter_map(|class| request(objects, class, problems)).collect();
        let mut vips = Self::default();
        // Addresses that are named win over those that can be chosen.
        for request in &requests {
            if let Some((reference, spec)) =
                request.parameters.as_ref().filter(|(_, spec)| !spec.vips.is_empty())
            {
                let addresses = named(reference, spec, problems);
                vips.give(request, addresses, problems);
            }
        }
        for request in &requests {
            if !vips.by_class.contains_key(&request.name) {
                let addresses = vips.choose(objects, &pools, request, problems);
                vips.give(request, addresses, problems);
            }
        }
        vips
    }

    /// The addresses of a class, for the status of its Ingresses.
    pub(super) fn of_class(&self, class: Option<&str>) -> Vec<IpAddr> {
        class.and_then(|class| self.by_class.get(class)).cloned().unwrap_or_default()
    }

    /// The classes that have each VIP.
    pub(super) fn classes(&self) -> BTreeMap<IpAddr, BTreeSet<Arc<str>>> {
        let mut classes: BTreeMap<IpAddr, BTreeSet<Arc<str>>> = BTreeMap::new();
        for (class, addresses) in &self.by_class {
            for address in addresses {
                classes.entry(*address).or_default().insert(Arc::clone(class));
            }
        }
        classes
    }

    /// All VIPs, by address.
    pub(super) fn into_vips(self) -> Vec<Vip> {
        self.vips.into_values().collect()
    }

    fn give(&mut self, request: &Request<'_>, addresses: Vec<IpAddr>, problems: &mut Problems) {
        for address in &addresses {
            let vip = self.vips.entry(*address).or_insert_with(|| Vip {
                address: *address,
                http_ports: Vec::new(),
                https_ports: Vec::new(),
            });
            add_ports(vip, request, problems);
        }
        self.by_class.insert(Arc::clone(&request.name), addresses);
    }

    /// The first free address of each IP version.
    fn choose(
        &self,
        objects: &Objects,
        pools: &Pools,
        request: &Request<'_>,
        problems: &mut Problems,
    ) -> Vec<IpAddr> {
        let named = request
            .parameters
            .as_ref()
            .and_then(|(reference, spec)| Some((reference, spec.pool.as_deref()?)));
        let pool = match named {
            Some((reference, name)) => {
                if objects.address_pools.get("", name).is_none() {
                    problems.add(
                        reference,
                        "spec.pool",
                        Reason::NotFound,
                        format!("AddressPool {name} does not exist; the class has no VIP"),
                        "create it, or correct the name",
                    );
                    return Vec::new();
                }
                name
            }
            None => match default_pool(objects) {
                Some(name) => name,
                None => return Vec::new(),
            },
        };
        let taken: BTreeSet<IpAddr> = self.vips.keys().copied().collect();
        let chosen = pools.first_free(pool, &taken);
        if chosen.is_empty() {
            problems.add(
                &request.class.reference(),
                "spec.parameters",
                Reason::Exhausted,
                format!("AddressPool {pool} has no free address left; the class has no VIP"),
                format!(
                    "add addresses to AddressPool {pool}, or name another pool in the class's parameters"
                ),
            );
        }
        chosen
    }
}

/// What a class asks for; `None` if its parameters are broken: it must not get addresses that nobody meant.
fn request<'a>(
    objects: &'a Objects,
    class: &'a Arc<IngressClass>,
    problems: &mut Problems,
) -> Option<Request<'a>> {
    let reference = class.reference();
    let name: Arc<str> = reference.name.as_str().into();
    let Some(named) = class.spec.as_ref().and_then(|spec| spec.parameters.as_ref()) else {
        return Some(Request { name, class, parameters: None });
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
    Some(Request { name, class, parameters: Some((parameters.reference(), &parameters.spec)) })
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

fn default_pool(objects: &Objects) -> Option<&str> {
    if objects.address_pools.get("", DEFAULT_POOL).is_some() {
        return Some(DEFAULT_POOL);
    }
    let mut pools = objects.address_pools.iter();
    match (pools.next(), pools.next()) {
        (Some((only, _)), None) => Some(&only.name),
        _ => None,
    }
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
