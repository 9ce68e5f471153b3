//! `spec.options` of a class's parameters: what people set in ingress-nginx's ConfigMap, by the same names. Options that
//! have an annotation's name are that annotation on all Ingresses of the class; the others are read here. None is passed
//! over in silence (`table`).

mod table;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use ipnet::IpNet;

use super::annotation::{self, NGINX};
use super::problems::Problems;
use crate::model::{Downstream, Hsts, ObjectRef, Reason};
use crate::source::Objects;
use crate::translate::network;
use table::Status;

/// What the options of a class come to.
#[derive(Debug, Default)]
pub(super) struct Options {
    /// Annotations that its Ingresses have where they don't say otherwise.
    pub(super) annotations: BTreeMap<String, String>,
    /// What holds for its routes and has no annotation.
    pub(super) route: RouteOptions,
    /// How clients of its addresses are understood; `None`: as everywhere.
    pub(super) downstream: Option<Arc<Downstream>>,
}

/// What holds for all routes of a class and has no annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RouteOptions {
    /// `hsts` and its kin.
    pub(super) hsts: Option<Hsts>,
    /// `http-redirect-code`
    pub(super) redirect_code: u16,
}

impl Default for RouteOptions {
    /// ingress-nginx's. 308 keeps the method, unlike 301.
    fn default() -> Self {
        Self { hsts: Some(Hsts::default()), redirect_code: 308 }
    }
}

/// Options that keep people out. One that cannot be understood stays with its Ingresses, which lock themselves.
const LOCKS: [&str; 2] = ["denylist-source-range", "whitelist-source-range"];

impl Options {
    /// Reads them; what is wrong is left out and named.
    pub(super) fn read(
        reference: &ObjectRef,
        all: &BTreeMap<String, String>,
        objects: &Objects,
        problems: &mut Problems,
    ) -> Self {
        let mut reader = Reader { reference, all, problems };
        let mut annotations = BTreeMap::new();
        for (name, value) in all {
            match table::status(name) {
                Some(Status::Annotation) => {
                    let wrong = annotation::wrong(name, value, objects);
                    if wrong.is_empty() || LOCKS.contains(&name.as_str()) {
                        annotations.insert(format!("{NGINX}{name}"), value.clone());
                    }
                    for (reason, message, hint) in wrong {
                        reader.problem(name, reason, message, &hint);
                    }
                }
                Some(Status::Only(wanted, why)) if value.trim() != wanted => {
                    let message = format!("`{value}` is not honoured: {why}");
                    reader.problem(
                        name,
                        Reason::Unsupported,
                        message,
                        &format!("write \"{wanted}\", or delete it"),
                    );
                }
                Some(Status::Done | Status::Ours(_) | Status::NoEffect(_) | Status::Only(..)) => {}
                Some(Status::NotYet(hint)) => {
                    let message = "this option is not honoured yet; it is as if it were absent";
                    reader.problem(name, Reason::Unsupported, message, hint);
                }
                None => {
                    let message = "there is no such option; it has no effect";
                    reader.problem(name, Reason::InvalidValue, message, "correct its name, or delete it");
                }
            }
        }
        let hsts = reader.hsts();
        let redirect_code = reader.redirect_code();
        let downstream = reader.downstream();
        Self {
            annotations,
            route: RouteOptions { hsts, redirect_code },
            downstream: (downstream != Downstream::default()).then(|| Arc::new(downstream)),
        }
    }
}

struct Reader<'a> {
    reference: &'a ObjectRef,
    all: &'a BTreeMap<String, String>,
    problems: &'a mut Problems,
}

impl Reader<'_> {
    fn hsts(&mut self) -> Option<Hsts> {
        let default = Hsts::default();
        let hsts = Hsts {
            max_age: self.number("hsts-max-age", default.max_age, u32::MAX),
            include_subdomains: self.boolean("hsts-include-subdomains", default.include_subdomains),
            preload: self.boolean("hsts-preload", default.preload),
        };
        self.boolean("hsts", true).then_some(hsts)
    }

    fn redirect_code(&mut self) -> u16 {
        const NAME: &str = "http-redirect-code";
        let default = RouteOptions::default().redirect_code;
        match self.number(NAME, default.into(), 999) {
            code @ (301 | 302 | 307 | 308) => code as u16,
            code => {
                let message = format!("{code} is no redirect that a browser follows; {default} is sent");
                self.problem(NAME, Reason::InvalidValue, message, "write 301, 302, 307 or 308");
                default
            }
        }
    }

    fn downstream(&mut self) -> Downstream {
        let default = Downstream::default();
        let downstream = Downstream {
            trusted: self.networks("proxy-real-ip-cidr"),
            forwarded_headers: self.boolean("use-forwarded-headers", default.forwarded_headers),
            forwarded_for: self.field_name("forwarded-for-header", &default.forwarded_for),
            full_forwarded_for: self.boolean("compute-full-forwarded-for", default.full_forwarded_for),
            forwarded: self.boolean("generate-forwarded", default.forwarded),
            proxy_protocol: self.boolean("use-proxy-protocol", default.proxy_protocol),
            underscores: self.boolean("enable-underscores-in-headers", default.underscores),
            request_ids: self.boolean("generate-request-id", default.request_ids),
        };
        for (name, is_on) in [
            ("use-forwarded-headers", downstream.forwarded_headers),
            ("use-proxy-protocol", downstream.proxy_protocol),
        ] {
            if is_on && downstream.trusted.is_empty() && !self.all.contains_key("proxy-real-ip-cidr") {
                // ingress-nginx would trust everybody: any client could be whoever it wants.
                let message = "nobody is trusted yet, so it has no effect: clients could say that they are somebody else";
                let hint = "list the addresses of your proxies in proxy-real-ip-cidr (0.0.0.0/0,::/0 trusts everybody, as ingress-nginx does)";
                self.problem(name, Reason::InvalidValue, message, hint);
            }
        }
        downstream
    }

    fn networks(&mut self, name: &str) -> Vec<IpNet> {
        let mut networks = Vec::new();
        let Some(text) = self.all.get(name) else { return networks };
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            if let Some(network) = network(entry) {
                networks.push(network);
            } else {
                let message = format!("`{entry}` is neither an address nor a network; it is left out");
                let hint = "write networks, such as 10.0.0.0/8,192.0.2.7";
                self.problem(name, Reason::InvalidValue, message, hint);
            }
        }
        networks
    }

    fn field_name(&mut self, name: &str, default: &str) -> Box<str> {
        let text = self.all.get(name).map_or(default, |text| text.trim());
        if let Ok(name) = http::HeaderName::try_from(text) {
            return name.as_str().into();
        }
        let message = format!("`{text}` is no name of a header field; {default} is read");
        self.problem(name, Reason::InvalidValue, message, "write a name such as X-Forwarded-For");
        default.into()
    }

    fn boolean(&mut self, name: &str, default: bool) -> bool {
        let Some(text) = self.all.get(name) else { return default };
        annotation::boolean(text).unwrap_or_else(|| {
            self.invalid(name, text, default, "write \"true\" or \"false\"");
            default
        })
    }

    fn number(&mut self, name: &str, default: u32, max: u32) -> u32 {
        let Some(text) = self.all.get(name) else { return default };
        text.trim().parse().ok().filter(|number| *number <= max).unwrap_or_else(|| {
            self.invalid(name, text, default, "write digits only");
            default
        })
    }

    fn invalid(&mut self, name: &str, text: &str, default: impl Display, hint: &str) {
        let message = format!("`{text}` is not valid; the default, {default}, holds");
        self.problem(name, Reason::InvalidValue, message, hint);
    }

    fn problem(&mut self, name: &str, reason: Reason, message: impl Into<String>, hint: &str) {
        self.problems.add(self.reference, format!("spec.options[{name}]"), reason, message, hint);
    }
}
