//! Annotations of Ingresses to filters: one file per group, each with a twin of the same name in `l7::filter`. What is
//! asked for and not done is said, never passed over in silence.

mod ssl_redirect;

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::Ingress;

use super::class::Owned;
use super::problems::Problems;
use crate::model::{Filters, ObjectRef, Reason};

/// The prefix of ingress-nginx, whose annotations mean the same here.
const NGINX: &str = "nginx.ingress.kubernetes.io/";

/// One Ingress's annotations, read.
#[derive(Debug)]
pub(super) struct Annotations {
    ssl_redirect: ssl_redirect::SslRedirects,
}

/// An Ingress of ours with its annotations.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) owned: Owned,
    pub(super) annotations: Annotations,
}

/// Reads the annotations of our Ingresses, and leaves those out that cannot be served without one that we don't know.
pub(super) fn served(owned: Vec<Owned>, problems: &mut Problems) -> Vec<Served> {
    let mut served = Vec::with_capacity(owned.len());
    for owned in owned {
        if let Some(annotations) = Annotations::read(&owned.ingress, &owned.reference, problems) {
            served.push(Served { owned, annotations });
        }
    }
    served
}

impl Annotations {
    /// Reads what we know and names what we don't. `None`: better not served than served like this.
    fn read(ingress: &Ingress, reference: &ObjectRef, problems: &mut Problems) -> Option<Self> {
        let mut reader = Reader { reference, values: BTreeMap::new(), problems };
        for (key, value) in ingress.metadata.annotations.iter().flatten() {
            if let Some(name) = key.strip_prefix(NGINX) {
                reader.values.insert(name, value);
            }
        }
        if reader.boolean("canary") == Some(true) {
            reader.problem(
                "canary",
                Reason::Unsupported,
                "canaries are not supported yet; this Ingress is left out, so that it does not take the place of the one it belongs to",
                "delete the canary Ingress",
            );
            return None;
        }
        let annotations = Self { ssl_redirect: ssl_redirect::SslRedirects::read(&mut reader) };
        for name in std::mem::take(&mut reader.values).into_keys() {
            reader.problem(
                name,
                Reason::Unsupported,
                "this annotation is not honoured yet; the Ingress is served as if it were absent",
                "delete it if you can do without",
            );
        }
        Some(annotations)
    }

    /// The filters of a route on a host that has (or has not) a certificate.
    pub(super) fn filters(&self, tls: bool) -> Filters {
        Filters { ssl_redirect: self.ssl_redirect.filter(tls) }
    }
}

/// The annotations that no group has taken yet.
struct Reader<'a> {
    reference: &'a ObjectRef,
    values: BTreeMap<&'a str, &'a String>,
    problems: &'a mut Problems,
}

impl Reader<'_> {
    /// Takes a boolean; `None` if it is absent or not one.
    fn boolean(&mut self, name: &'static str) -> Option<bool> {
        let value = self.values.remove(name)?;
        // Go's strconv.ParseBool, which ingress-nginx uses.
        match value.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
            other => {
                let message =
                    format!("`{other}` is neither \"true\" nor \"false\"; it is as if it were absent");
                self.problem(name, Reason::InvalidValue, message, "write \"true\" or \"false\"");
                None
            }
        }
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
