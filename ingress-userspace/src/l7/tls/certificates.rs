//! Certificates by server name: exact names, wildcards, and a default. A certificate that cannot be used disables only
//! itself. What did not change is shared between generations, since parsing a key takes long.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::model::{Certificate, HostPattern};

type ByName = HashMap<Box<str>, Arc<CertifiedKey>, RandomState>;

/// The compiled table.
#[derive(Debug, Default)]
pub struct Certificates {
    exact: ByName,
    /// Keyed by what follows `*.`.
    wildcard: ByName,
    default: Option<Arc<CertifiedKey>>,
    /// What each key was made of, for the next generation; `None` where it could not be used.
    parsed: Vec<(Arc<Certificate>, Option<Arc<CertifiedKey>>)>,
}

impl Certificates {
    /// Compiles the snapshot's list; where two cover one name, the first serves it.
    pub fn compile(certificates: &[Arc<Certificate>], previous: &Self) -> Self {
        let known: HashMap<_, _> =
            previous.parsed.iter().map(|(source, key)| (&source.source, (source, key))).collect();
        let mut table = Self::default();
        for certificate in certificates {
            let key = match known.get(&certificate.source) {
                Some((source, key)) if Arc::ptr_eq(source, certificate) || *source == certificate => {
                    Option::clone(key)
                }
                _ => parse(certificate),
            };
            if let Some(key) = &key {
                table.insert(&certificate.hosts, key);
            }
            table.parsed.push((Arc::clone(certificate), key));
        }
        table
    }

    fn insert(&mut self, hosts: &[HostPattern], key: &Arc<CertifiedKey>) {
        for host in hosts {
            match host {
                HostPattern::Exact(name) => {
                    self.exact.entry(name.as_str().into()).or_insert_with(|| Arc::clone(key));
                }
                HostPattern::Wildcard(parent) => {
                    self.wildcard.entry(parent.as_str().into()).or_insert_with(|| Arc::clone(key));
                }
                HostPattern::Any => {
                    self.default.get_or_insert_with(|| Arc::clone(key));
                }
            }
        }
    }

    /// The certificate for a server name (lower case); `None`: no certificate covers it.
    pub fn find(&self, name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let by_name = name.and_then(|name| {
            self.exact.get(name).or_else(|| {
                let (label, parent) = name.split_once('.')?;
                self.wildcard.get(parent).filter(|_| !label.is_empty())
            })
        });
        by_name.or(self.default.as_ref())
    }
}

fn parse(certificate: &Certificate) -> Option<Arc<CertifiedKey>> {
    let chain: Vec<CertificateDer<'static>> =
        certificate.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let made = PrivateKeyDer::try_from(certificate.key.clone()).map_err(str::to_owned).and_then(|key| {
        CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| error.to_string())
    });
    match made {
        Ok(key) => Some(Arc::new(key)),
        Err(error) => {
            tracing::error!(secret = %certificate.source, %error, "certificate cannot be used; its names get another one");
            None
        }
    }
}
