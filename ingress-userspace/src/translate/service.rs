//! Services: a backend's name and port to a cluster. Each is asked for once, however many routes lead to it, and built by `incremental`.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::networking::v1::IngressBackend;

use super::DefaultBackend;
use super::endpoints::{self, Slices};
use super::problems::Problems;
use crate::model::{Cluster, ClusterId, Endpoint, ObjectRef, Problem, Reason, Target};
use crate::source::{Key, Objects};

/// The clusters that routes lead to.
pub(super) struct Backends<'a> {
    objects: &'a Objects,
    /// That of our own node.
    zone: Option<String>,
    wanted: BTreeMap<ClusterId, Wanted>,
    asked: HashMap<ObjectRef, Vec<ClusterId>>,
}

/// What a cluster is made of, besides its endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The name of the Service's port, by which EndpointSlices know it.
    port: Option<String>,
    /// Whose endpoints are preferred, where EndpointSlices say for whom they are.
    zone: Option<String>,
    /// The Service's own addresses, in place of its endpoints.
    addresses: Vec<IpAddr>,
}

impl Wanted {
    /// The cluster with the endpoints of now.
    pub(super) fn cluster(&self, id: &ClusterId, slices: &Slices, problems: &mut Problems) -> Cluster {
        if id.by_service {
            let endpoint =
                |address: &IpAddr| Endpoint { address: SocketAddr::new(*address, id.port), node: None };
            return Cluster { id: id.clone(), endpoints: self.addresses.iter().map(endpoint).collect() };
        }
        let service = Key::new(&id.namespace, &id.service);
        let (port, zone) = (self.port.as_deref(), self.zone.as_deref());
        let endpoints = endpoints::endpoints(slices.of(&service), port, zone, problems);
        Cluster { id: id.clone(), endpoints }
    }
}

/// What is wrong with a backend: the part of the field's path below the backend, and the rest of a problem.
type Wrong = (&'static str, Reason, String, String);

/// A port of a Service, as the Ingress names it.
#[derive(Debug, Clone, Copy)]
enum PortRef<'a> {
    Name(&'a str),
    Number(i32),
}

impl<'a> Backends<'a> {
    pub(super) fn new(objects: &'a Objects, zone: Option<String>) -> Self {
        Self { objects, zone, wanted: BTreeMap::new(), asked: HashMap::new() }
    }

    /// Where a backend of an Ingress leads; `field` is its path.
    pub(super) fn target(
        &mut self,
        ingress: &ObjectRef,
        field: &str,
        backend: &IngressBackend,
        by_service: bool,
        problems: &mut Problems,
    ) -> Target {
        match self.resolve_backend(&ingress.namespace, backend, by_service) {
            Ok(id) => {
                match self.asked.get_mut(ingress) {
                    Some(asked) if asked.contains(&id) => {}
                    Some(asked) => asked.push(id.clone()),
                    None => drop(self.asked.insert(ingress.clone(), vec![id.clone()])),
                }
                Target::Cluster(id)
            }
            Err((below, reason, message, hint)) => {
                problems.add(
                    ingress,
                    format!("{field}{below}"),
                    reason,
                    format!("{message}; its requests get 503"),
                    hint,
                );
                Target::Missing
            }
        }
    }

    /// Where `--default-backend` leads.
    pub(super) fn default_target(&mut self, backend: &DefaultBackend, problems: &mut Problems) -> Target {
        let port = backend.port.parse().map_or(PortRef::Name(&backend.port), PortRef::Number);
        match self.resolve(&backend.namespace, &backend.service, port, false) {
            Ok(id) => Target::Cluster(id),
            Err((_, reason, message, hint)) => {
                problems.push(Problem {
                    object: ObjectRef::new(crate::model::Kind::Service, &backend.namespace, &backend.service),
                    field: "--default-backend".into(),
                    reason,
                    message: format!("{message}; requests that no rule matches get 503"),
                    hint,
                });
                Target::Missing
            }
        }
    }

    /// All clusters that were asked for, and which Ingress asked for which.
    pub(super) fn into_parts(self) -> (BTreeMap<ClusterId, Wanted>, HashMap<ObjectRef, Vec<ClusterId>>) {
        (self.wanted, self.asked)
    }

    fn resolve_backend(
        &mut self,
        namespace: &str,
        backend: &IngressBackend,
        by_service: bool,
    ) -> Result<ClusterId, Wrong> {
        if let Some(resource) = &backend.resource {
            return Err((
                ".resource",
                Reason::Unsupported,
                format!(
                    "backend {} {} is not a Service: resource backends are not supported",
                    resource.kind, resource.name
                ),
                "name a Service".into(),
            ));
        }
        let Some(service) = backend.service.as_ref().filter(|service| !service.name.is_empty()) else {
            return Err((
                ".service.name",
                Reason::InvalidValue,
                "no Service is named".into(),
                "name a Service".into(),
            ));
        };
        let port = service.port.as_ref();
        let port = match port.and_then(|port| port.name.as_deref()).filter(|name| !name.is_empty()) {
            Some(name) => PortRef::Name(name),
            None => match port.and_then(|port| port.number).filter(|number| *number != 0) {
                Some(number) => PortRef::Number(number),
                None => {
                    return Err((
                        ".service.port",
                        Reason::InvalidValue,
                        "no port is named".into(),
                        "give `number` or `name`".into(),
                    ));
                }
            },
        };
        self.resolve(namespace, &service.name, port, by_service)
    }

    fn resolve(
        &mut self,
        namespace: &str,
        name: &str,
        port: PortRef<'_>,
        by_service: bool,
    ) -> Result<ClusterId, Wrong> {
        let Some(service) = self.objects.services.get(namespace, name) else {
            return Err((
                ".service.name",
                Reason::NotFound,
                format!("Service {namespace}/{name} does not exist"),
                "create it, or correct the name; a backend is in the Ingress's own namespace".into(),
            ));
        };
        if service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
            return Err((
                ".service.name",
                Reason::Unsupported,
                format!("Service {namespace}/{name} is of type ExternalName, which is not supported"),
                "use a Service with endpoints".into(),
            ));
        }
        let found = find_port(service, port)?;
        let number = u16::try_from(found.port).ok().filter(|number| *number != 0).ok_or_else(|| {
            let message =
                format!("Service {namespace}/{name} has port {}, which is out of range", found.port);
            (".service.port", Reason::InvalidValue, message, "correct the Service: 1 to 65535".to_owned())
        })?;
        let addresses = if by_service { addresses(service) } else { Vec::new() };
        // A headless Service has no address: its endpoints it is, as with ingress-nginx.
        let by_service = !addresses.is_empty();
        let id = ClusterId { namespace: namespace.into(), service: name.into(), port: number, by_service };
        let (port, zone) = (found.name.clone(), self.zone.clone());
        self.wanted.entry(id.clone()).or_insert(Wanted { port, zone, addresses });
        Ok(id)
    }
}

/// The addresses of a Service, in order.
fn addresses(service: &Service) -> Vec<IpAddr> {
    let spec = service.spec.as_ref();
    let all = spec.and_then(|spec| spec.cluster_ips.as_deref()).unwrap_or_default();
    let first = spec.and_then(|spec| spec.cluster_ip.as_ref());
    let mut addresses: Vec<IpAddr> = all.iter().chain(first).filter_map(|text| text.parse().ok()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn find_port<'s>(service: &'s Service, wanted: PortRef<'_>) -> Result<&'s ServicePort, Wrong> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let tcp = |port: &ServicePort| port.protocol.as_deref().unwrap_or("TCP") == "TCP";
    let matches = |port: &ServicePort| match wanted {
        PortRef::Name(name) => port.name.as_deref() == Some(name),
        PortRef::Number(number) => port.port == number,
    };
    // A number may be there twice, once for each protocol.
    if let Some(port) = ports.iter().find(|port| matches(port) && tcp(port)) {
        return Ok(port);
    }
    let below = match wanted {
        PortRef::Name(_) => ".service.port.name",
        PortRef::Number(_) => ".service.port.number",
    };
    let shown = match wanted {
        PortRef::Name(name) => format!("`{name}`"),
        PortRef::Number(number) => number.to_string(),
    };
    let metadata = &service.metadata;
    let service = format!(
        "Service {}/{}",
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default()
    );
    if ports.iter().any(matches) {
        let message = format!("port {shown} of {service} is not TCP");
        return Err((below, Reason::InvalidValue, message, "name a TCP port".into()));
    }
    let known: Vec<String> = ports
        .iter()
        .map(|port| match &port.name {
            Some(name) => format!("{} ({name})", port.port),
            None => port.port.to_string(),
        })
        .collect();
    let hint = match known.as_slice() {
        [] => "the Service has no ports".to_owned(),
        known => format!("it has {}", known.join(", ")),
    };
    Err((below, Reason::NotFound, format!("{service} has no port {shown}"), hint))
}
