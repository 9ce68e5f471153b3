//! Objects in, snapshot and problems out. Pure: no IO, no clock (it comes with the settings), and the same input gives
//! the same output whatever the order of arrival. One file per kind. Called by `cli::run` and `cli::check`.

mod annotation;
mod class;
#[cfg(test)]
mod docs;
mod endpoints;
mod host;
mod incremental;
mod ingress;
mod named;
mod node;
mod options;
mod order;
mod path;
mod problems;
mod secret;
mod selector;
mod service;
mod tls;
mod vip;
mod vip_routes;

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::{Problem, Snapshot};
use crate::source::Objects;

pub use incremental::Translator;
pub use named::named_secrets;

/// A network, or a single address as one.
fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// `spec.controller` of our `IngressClass`es.
pub const CONTROLLER: &str = "xdp-ingress.io/controller";

/// What the operator decides, and the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Name of our `IngressClass`: what the legacy annotation says, and whose VIPs `also_class` gets.
    pub ingress_class: String,
    /// Serve Ingresses that name no class, even where no class is the default.
    pub watch_without_class: bool,
    /// Serve the Ingresses of these classes too, whoever their controller is.
    pub also_class: Vec<String>,
    /// Serves what no rule and no Ingress with nothing but a `defaultBackend` does.
    pub default_backend: Option<DefaultBackend>,
    /// Name of our own node: endpoints that are meant for its zone are preferred.
    pub node: Option<String>,
    /// Seconds since 1970, for the expiry of certificates.
    pub now: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ingress_class: "xdp".into(),
            watch_without_class: false,
            also_class: Vec::new(),
            default_backend: None,
            node: None,
            now: 0,
        }
    }
}

/// `--default-backend NAMESPACE/SERVICE:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultBackend {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub service: String,
    /// Its port, by number or name.
    pub port: String,
}

impl FromStr for DefaultBackend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(namespace, rest)| {
            let (service, port) = rest.split_once(':')?;
            Some((namespace, service, port))
        });
        match parts {
            Some((namespace, service, port))
                if !namespace.is_empty()
                    && !service.is_empty()
                    && !port.is_empty()
                    && !service.contains('/') =>
            {
                Ok(Self { namespace: namespace.into(), service: service.into(), port: port.into() })
            }
            _ => Err(format!("`{text}` is not NAMESPACE/SERVICE:PORT")),
        }
    }
}

/// Translates everything. Only what is broken is left out, and each such thing is named by one problem.
pub fn translate(objects: &Objects, settings: &Settings) -> (Snapshot, Vec<Problem>) {
    let (snapshot, problems) = Translator::new(settings.clone()).translate(objects, settings.now);
    (Arc::unwrap_or_clone(snapshot), Arc::unwrap_or_clone(problems))
}
