//! Annotations of Ingresses to filters: one file per group, each with a twin of the same name in `l7::filter`. What is
//! asked for and not done is said, never passed over in silence.

mod app_root;
mod body_size;
pub(super) mod canary;
mod client_auth;
mod forwarding;
mod no_effect;
mod redirect;
mod rewrite;
mod source_range;
mod ssl_redirect;
mod table;
mod upstream;
mod upstream_vhost;
mod www_redirect;

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::networking::v1::Ingress;

pub(super) use body_size::DEFAULT as DEFAULT_BODY_LIMIT;

use super::class::Owned;
use super::options::RouteOptions;
use super::problems::Problems;
use super::vip::{ADDRESS, ADDRESS_POOL};
use crate::model::{
    ClientAuth, Filters, Forwarding, Hsts, Kind, ObjectRef, Reason, Redirect, SourceRange, Target, Upstream,
};
use crate::source::Objects;

/// The prefix of ingress-nginx, whose annotations mean the same here.
pub(super) const NGINX: &str = "nginx.ingress.kubernetes.io/";
/// Our own, for what ingress-nginx has no word for.
const OWN: &str = "xdp-ingress.io/";

/// Those that keep people out. An Ingress with one that we don't honour is answered with 503: its author relies on the
/// lock, and an open door is worse than a closed one.
const LOCKS: [&str; 6] =
    ["auth-secret", "auth-signin", "auth-snippet", "auth-tls-match-cn", "auth-type", "auth-url"];

/// One Ingress's annotations, read.
#[derive(Debug)]
pub(super) struct Annotations {
    /// It has a lock that we don't honour.
    locked: bool,
    /// What the hosts of its rules want of their clients' certificates.
    pub(super) client_auth: Option<Arc<ClientAuth>>,
    ssl_redirect: ssl_redirect::SslRedirects,
    hsts: Option<Hsts>,
    body_limit: Option<NonZeroU64>,
    redirect: Option<Redirect>,
    /// `rewrite-target`, `use-regex`.
    pub(super) rewrites: rewrite::Rewrites,
    /// `from-to-www-redirect`.
    pub(super) www_redirect: bool,
    source_range: Option<Arc<SourceRange>>,
    upstream_vhost: Option<Arc<str>>,
    forwarding: Forwarding,
    upstream: Option<Arc<Upstream>>,
    /// `ssl-passthrough`: TLS connections of its hosts are passed through as they are.
    pub(super) passthrough: bool,
    /// `service-upstream`: the Service's address stands for its endpoints.
    pub(super) by_service: bool,
    /// Where `/` of its hosts leads.
    pub(super) app_root: Option<Arc<str>>,
    /// It is a canary: which requests it takes from another Ingress.
    pub(super) canary: Option<canary::Rules>,
}

/// An Ingress of ours with its annotations.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) owned: Owned,
    pub(super) annotations: Annotations,
}

/// Reads the annotations of our Ingresses.
pub(super) fn served(owned: Vec<Owned>, objects: &Objects, problems: &mut Problems) -> Vec<Served> {
    let served = |owned: Owned| {
        let annotations =
            Annotations::read(&owned.ingress, &owned.reference, owned.options, objects, problems);
        Served { owned, annotations }
    };
    owned.into_iter().map(served).collect()
}

/// What is wrong with an annotation that all Ingresses of a class shall have: message and hint.
pub(super) fn wrong(name: &str, value: &str, objects: &Objects) -> Vec<(Reason, String, String)> {
    let mut ingress = Ingress::default();
    ingress.metadata.annotations = Some(BTreeMap::from([(format!("{NGINX}{name}"), value.to_owned())]));
    let (mut problems, reference) = (Problems::default(), ObjectRef::new(Kind::Ingress, "", ""));
    Annotations::read(&ingress, &reference, RouteOptions::default(), objects, &mut problems);
    let problems = problems.into_sorted().into_iter();
    problems.map(|problem| (problem.reason, problem.message, problem.hint)).collect()
}

impl Annotations {
    /// Reads what we know and names what we don't.
    fn read(
        ingress: &Ingress,
        reference: &ObjectRef,
        options: RouteOptions,
        objects: &Objects,
        problems: &mut Problems,
    ) -> Self {
        let mut reader = Reader { reference, values: BTreeMap::new(), own: BTreeMap::new(), problems };
        for (key, value) in ingress.metadata.annotations.iter().flatten() {
            if let Some(name) = key.strip_prefix(NGINX) {
                reader.values.insert(name, value);
            } else if let Some(name) = key.strip_prefix(OWN)
                // Where it is served is read by `vip`.
                && ![ADDRESS, ADDRESS_POOL].contains(&key.as_str())
            {
                reader.own.insert(name, value);
            }
        }
        let canary = canary::read(&mut reader);
        let ssl_redirect = ssl_redirect::SslRedirects::read(&mut reader, options.redirect_code);
        let client_auth = client_auth::read(&mut reader, objects);
        let mut locked = client_auth.is_err();
        let has_rules =
            ingress.spec.as_ref().is_some_and(|spec| spec.rules.iter().flatten().next().is_some());
        if let (Ok(Some(_)), false) = (&client_auth, has_rules) {
            let message =
                "clients' certificates are asked for by host, and this Ingress names none; requests get 503";
            reader.problem("auth-tls-secret", Reason::Unsupported, message, "write a rule");
            locked = true;
        }
        let body_limit = body_size::read(&mut reader);
        let forwarding = forwarding::read(&mut reader);
        no_effect::read(&mut reader);
        let passthrough = passthrough(&mut reader, has_rules);
        let by_service = reader.boolean("service-upstream").unwrap_or(false);
        let upstream = upstream::read(&mut reader, objects);
        locked |= upstream.is_err();
        let redirect = redirect::read(&mut reader);
        let rewrites = rewrite::Rewrites::read(&mut reader);
        let www_redirect = www_redirect::read(&mut reader);
        let upstream_vhost = upstream_vhost::read(&mut reader);
        let app_root = app_root::read(&mut reader);
        let source_range = source_range::read(&mut reader);
        locked |= source_range.is_err();
        for name in std::mem::take(&mut reader.own).into_keys() {
            let message = "there is no such annotation; it has no effect";
            reader.own_problem(name, message, "correct its name, or delete it");
        }
        for name in std::mem::take(&mut reader.values).into_keys() {
            let is_lock = LOCKS.contains(&name);
            locked |= is_lock;
            let message = if is_lock {
                "this annotation is not honoured yet; so that nobody gets in whom it would keep out, requests get 503"
            } else {
                "this annotation is not honoured yet; the Ingress is served as if it were absent"
            };
            reader.problem(name, Reason::Unsupported, message, table::hint(name));
        }
        let source_range = source_range.ok().flatten();
        Self {
            locked,
            client_auth: client_auth.ok().flatten(),
            ssl_redirect,
            hsts: options.hsts,
            body_limit,
            redirect,
            rewrites,
            www_redirect,
            source_range,
            upstream_vhost,
            forwarding,
            upstream: upstream.ok().flatten(),
            by_service,
            passthrough,
            app_root,
            canary,
        }
    }

    /// Where requests for `target` may go.
    pub(super) fn admit(&self, target: Target) -> Target {
        if self.locked { Target::Missing } else { target }
    }

    /// The filters of a route with this path (as written; none for a default backend) on a host that has (or has not) a
    /// certificate.
    pub(super) fn filters(&self, tls: bool, path: Option<&str>) -> Filters {
        Filters {
            body_limit: self.body_limit,
            // A locked Ingress answers nothing but 503.
            redirect: self.redirect.clone().filter(|_| !self.locked),
            hsts: self.hsts.filter(|_| tls),
            ssl_redirect: self.ssl_redirect.filter(tls),
            source_range: self.source_range.clone(),
            rewrite: path.and_then(|path| self.rewrites.of(path)).cloned(),
            upstream_vhost: self.upstream_vhost.clone(),
            forwarding: self.forwarding,
            upstream: self.upstream.clone(),
            canary: None,
        }
    }
}

/// `ssl-passthrough` needs names: SNI is all that can be seen of a connection.
fn passthrough(reader: &mut Reader<'_>, has_rules: bool) -> bool {
    let wanted = reader.boolean("ssl-passthrough").unwrap_or(false);
    if wanted && !has_rules {
        let message = "connections are passed through by host, and this Ingress names none";
        reader.problem("ssl-passthrough", Reason::InvalidValue, message, "write a rule");
    }
    wanted && has_rules
}

/// Why an annotation names no Secret that may be used.
enum NoSecret {
    /// It is in another namespace.
    Elsewhere,
    /// There is none of this name, or it may not be read.
    Missing(String),
}

impl NoSecret {
    const ELSEWHERE: (&str, &str) = ("is in another namespace", "copy the Secret next to the Ingress");
}

/// The annotations that no group has taken yet.
struct Reader<'a> {
    reference: &'a ObjectRef,
    values: BTreeMap<&'a str, &'a String>,
    /// The same of our own prefix.
    own: BTreeMap<&'a str, &'a String>,
    problems: &'a mut Problems,
}

impl Reader<'_> {
    /// Takes a boolean; `None` if it is absent or not one.
    fn boolean(&mut self, name: &'static str) -> Option<bool> {
        let value = self.values.remove(name)?;
        let found = boolean(value);
        if found.is_none() {
            let message = format!("`{value}` is neither \"true\" nor \"false\"; it is as if it were absent");
            self.problem(name, Reason::InvalidValue, message, "write \"true\" or \"false\"");
        }
        found
    }

    /// Takes a number from 0; `None` if it is absent or not one.
    fn number(&mut self, name: &'static str) -> Option<u32> {
        whole_number(self.values.remove(name)?)
            .map_err(|(message, hint)| self.problem(name, Reason::InvalidValue, message, hint))
            .ok()
    }

    /// The same for an annotation of our own.
    fn own_number(&mut self, name: &'static str) -> Option<u32> {
        whole_number(self.own.remove(name)?)
            .map_err(|(message, hint)| self.own_problem(name, message, hint))
            .ok()
    }

    /// The Secret that an annotation names (`NAME` or `NAMESPACE/NAME`). Of the Ingress's own namespace: nobody shall get at
    /// another's Secrets by naming them.
    fn secret<'o>(&self, objects: &'o Objects, text: &str) -> Result<&'o Arc<Secret>, NoSecret> {
        let own = &self.reference.namespace;
        let (namespace, name) = text.split_once('/').unwrap_or((own, text));
        if namespace != own {
            return Err(NoSecret::Elsewhere);
        }
        objects.secrets.get(own, name).ok_or_else(|| NoSecret::Missing(format!("{own}/{name}")))
    }

    /// Something is wrong with an annotation of our own.
    fn own_problem(&mut self, name: &str, message: impl Into<String>, hint: &str) {
        let field = format!("metadata.annotations[{OWN}{name}]");
        self.problems.add(self.reference, field, Reason::InvalidValue, message, hint);
    }

    fn problem(&mut self, name: &str, reason: Reason, message: impl Into<String>, hint: &str) {
        self.problems.add(
            self.reference,
            format!("metadata.annotations[{NGINX}{name}]"),
            reason,
            message,
            hint,
        );
    }
}

/// Go's strconv.ParseBool, which ingress-nginx uses.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// The number, or what is wrong and what to do.
fn whole_number(text: &str) -> Result<u32, (String, &'static str)> {
    // More than a day of seconds, or that many tries, is a mistake, and would overflow somewhere later.
    let number = text.trim().parse().ok().filter(|number| *number <= 1_000_000);
    number.ok_or_else(|| {
        let message = format!("`{text}` is not a whole number up to 1000000; it is as if it were absent");
        (message, "write digits only, without a unit")
    })
}
