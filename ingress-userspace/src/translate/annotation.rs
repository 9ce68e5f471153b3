//! Annotations of Ingresses to filters: one file per group, each with a twin of the same name in `l7::filter`. What is
//! asked for and not done is said, never passed over in silence.

mod ssl_redirect;

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::Ingress;

use super::problems::Problems;
use crate::model::{Filters, ObjectRef, Reason};

/// The prefix of ingress-nginx, whose annotations mean the same here.
const NGINX: &str = "nginx.ingress.kubernetes.io/";

/// One Ingress's annotations, read.
#[derive(Debug)]
pub(super) struct Annotations {
    ssl_redirect: ssl_redirect::SslRedirects,
    /// `canary: "true"`.
    pub(super) canary: bool,
}

impl Annotations {
    /// Reads what we know and names what we don't.
    pub(super) fn read(ingress: &Ingress, reference: &ObjectRef, problems: &mut Problems) -> Self {
        let mut reader = Reader { reference, values: BTreeMap::new(), problems };
        for (key, value) in ingress.metadata.annotations.iter().flatten() {
            if let Some(name) = key.strip_prefix(NGINX) {
                reader.values.insert(name, value);
            }
        }
        let canary = reader.values.remove("canary").is_some_and(|value| value == "true");
        let ssl_redirect = ssl_redirect::SslRedirects::read(&mut reader);
        if canary {
            reader.problem(
                "canary",
                Reason::Unsupported,
                "canaries are not supported yet; this Ingress is left out, so that it does not take the place of the one it belongs to",
                "delete the canary Ingress",
            );
        } else {
            for name in std::mem::take(&mut reader.values).into_keys() {
                reader.problem(
                    name,
                    Reason::Unsupported,
                    "this annotation is not honoured yet; the Ingress is served as if it were absent",
                    "delete it if you can do without",
                );
            }
        }
        Self { ssl_redirect, canary }
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
