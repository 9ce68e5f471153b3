//! EndpointSlices: the addresses behind a Service's port. Those of both IP versions are merged.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::problems::Problems;
use crate::model::{Endpoint, Reason};
use crate::source::{EndpointSlice, Key, SliceEndpoint, Store, Stored as _};

/// How a slice names its Service.
const SERVICE: &str = "kubernetes.io/service-name";

/// All slices, by the Service that they name.
#[derive(Debug, Default)]
pub(super) struct Slices {
    store: Store<EndpointSlice>,
    by_service: HashMap<Key, BTreeMap<Key, Arc<EndpointSlice>>>,
}

impl Slices {
    /// Takes over what has changed. Gives the Services whose slices those were.
    pub(super) fn update(&mut self, store: &Store<EndpointSlice>) -> BTreeSet<Key> {
        let mut touched = BTreeSet::new();
        for (key, was, is) in store.changes(&self.store) {
            if let Some(service) = was.and_then(|slice| service(key, slice)) {
                if let Some(slices) = self.by_service.get_mut(&service) {
                    slices.remove(key);
                    if slices.is_empty() {
                        self.by_service.remove(&service);
                    }
                }
                touched.insert(service);
            }
            if let Some(slice) = is
                && let Some(service) = service(key, slice)
            {
                self.by_service.entry(service.clone()).or_default().insert(key.clone(), Arc::clone(slice));
                touched.insert(service);
            }
        }
        self.store = store.clone();
        touched
    }

    /// Those of a Service, by name.
    pub(super) fn of(&self, service: &Key) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.by_service.get(service).into_iter().flat_map(BTreeMap::values)
    }
}

/// The Service that a slice names; it is in the slice's own namespace.
fn service(key: &Key, slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE)?;
    Some(Key { namespace: Arc::clone(&key.namespace), name: name.as_str().into() })
}

/// Whether an endpoint may get requests. In the order of preference, best last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Condition {
    /// Not at all.
    Down,
    /// Serving while terminating: only when none is ready.
    Leaving,
    Ready,
}

/// The endpoints that may get requests now: the ready ones, or, if none is, those that are still serving while
/// terminating. `port` is the name of the Service's port. Where every one of them says for which zones it is
/// (`hints.forZones`) and some are for `zone`, those; as kube-proxy does it.
pub(super) fn endpoints<'s>(
    slices: impl Iterator<Item = &'s Arc<EndpointSlice>>,
    port: Option<&str>,
    zone: Option<&str>,
    problems: &mut Problems,
) -> Vec<Endpoint> {
    // An address may be in two slices while it moves from one to the other: the better condition counts.
    let mut found: BTreeMap<SocketAddr, (Condition, Option<Arc<str>>, ForUs)> = BTreeMap::new();
    for slice in slices {
        let Some(port) = port_of(slice, port) else { continue };
        for (index, endpoint) in slice.endpoints.iter().enumerate() {
            let condition = condition(endpoint);
            for address in addresses(slice, index, endpoint, problems) {
                let entry =
                    found.entry(SocketAddr::new(address, port)).or_insert((condition, None, ForUs::Unsaid));
                entry.0 = entry.0.max(condition);
                entry.2 = for_us(endpoint, zone);
                if entry.1.is_none() {
                    entry.1.clone_from(&endpoint.node);
                }
            }
        }
    }
    let best = found.values().map(|(condition, ..)| *condition).max().filter(|best| *best > Condition::Down);
    found.retain(|_, (condition, ..)| Some(*condition) == best);
    let hints = || found.values().map(|(.., for_us)| *for_us);
    if hints().all(|hint| hint != ForUs::Unsaid) && hints().any(|hint| hint == ForUs::Yes) {
        found.retain(|_, (.., for_us)| *for_us == ForUs::Yes);
    }
    found.into_iter().map(|(address, (_, node, _))| Endpoint { address, node }).collect()
}

/// Whether an endpoint is for our zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ForUs {
    Unsaid,
    Yes,
    No,
}

fn for_us(endpoint: &SliceEndpoint, zone: Option<&str>) -> ForUs {
    match zone {
        Some(zone) if endpoint.zones.iter().any(|hint| **hint == *zone) => ForUs::Yes,
        Some(_) if !endpoint.zones.is_empty() => ForUs::No,
        _ => ForUs::Unsaid,
    }
}

/// The number that the Service's port has in this slice: found by name, since `targetPort` may be a name that means
/// another number on each pod.
fn port_of(slice: &EndpointSlice, name: Option<&str>) -> Option<u16> {
    let name = name.unwrap_or_default();
    let port = slice.ports.iter().find(|port| {
        port.name.as_deref().unwrap_or_default() == name && port.protocol.as_deref().unwrap_or("TCP") == "TCP"
    })?;
    port.port.and_then(|number| u16::try_from(number).ok()).filter(|number| *number != 0)
}

/// Absent conditions mean what `kubectl explain endpointslice.endpoints.conditions` says: ready is true, serving is as
/// ready, terminating is false.
fn condition(endpoint: &SliceEndpoint) -> Condition {
    let ready = endpoint.ready.unwrap_or(true);
    let serving = endpoint.serving.unwrap_or(ready);
    let terminating = endpoint.terminating.unwrap_or(false);
    match (ready, serving && terminating) {
        (true, _) => Condition::Ready,
        (false, true) => Condition::Leaving,
        (false, false) => Condition::Down,
    }
}

fn addresses(
    slice: &EndpointSlice,
    index: usize,
    endpoint: &SliceEndpoint,
    problems: &mut Problems,
) -> Vec<IpAddr> {
    let mut good = Vec::new();
    for (position, text) in endpoint.addresses.iter().enumerate() {
        match address(&slice.address_type, text) {
            Ok(address) => good.push(address),
            Err((reason, message)) => problems.add(
                &slice.reference(),
                format!("endpoints[{index}].addresses[{position}]"),
                reason,
                format!("{message}; it gets no requests"),
                "correct the EndpointSlice, or whatever writes it",
            ),
        }
    }
    good
}

fn address(kind: &str, text: &str) -> Result<IpAddr, (Reason, String)> {
    if kind == "FQDN" {
        return Err((
            Reason::Unsupported,
            format!("`{text}` is in a slice of addressType FQDN, which is not supported"),
        ));
    }
    let invalid = |what: &str| Err((Reason::InvalidValue, format!("`{text}` {what}")));
    let Ok(address) = text.parse::<IpAddr>() else { return invalid("is not an IP address") };
    match (kind, address) {
        ("IPv4", IpAddr::V4(_)) | ("IPv6", IpAddr::V6(_)) => {}
        _ => return invalid(&format!("is not of the slice's addressType {kind}")),
    }
    if address.is_unspecified() || address.is_multicast() {
        return invalid("is not the address of a host");
    }
    // Without a zone it leads nowhere, and Kubernetes has none.
    if let IpAddr::V6(v6) = address
        && v6.is_unicast_link_local()
    {
        return invalid("is a link-local address");
    }
    Ok(address)
}
