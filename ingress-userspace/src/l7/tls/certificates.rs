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

/// A certificate that nobody trusts, for clients whose server name none of ours covers. Made anew at each start.
pub fn self_signed() -> anyhow::Result<Arc<CertifiedKey>> {
    let key = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::new(vec!["default.invalid".to_owned()])?;
    params.distinguished_name.push(rcgen::DnType::CommonName, "xdp-ingress default certificate");
    let chain = vec![params.self_signed(&key)?.der().clone()];
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    Ok(Arc::new(CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())?))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, ObjectRef};

    fn certificate(name: &str, hosts: &[HostPattern]) -> Arc<Certificate> {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![format!("{name}.test")]).unwrap();
        Arc::new(Certificate {
            source: ObjectRef::new(Kind::Secret, "default", name),
            hosts: hosts.to_vec(),
            chain: vec![params.self_signed(&key).unwrap().der().to_vec()],
            key: key.serialize_der(),
            not_after: 0,
        })
    }

    fn exact(name: &str) -> HostPattern {
        HostPattern::Exact(name.to_owned())
    }

    fn found<'c>(table: &Certificates, list: &'c [Arc<Certificate>], name: Option<&str>) -> Option<&'c str> {
        let key = table.find(name)?;
        let certificate = list.iter().find(|c| c.chain[0] == key.cert[0].as_ref())?;
        Some(certificate.source.name.as_str())
    }

    #[test]
    fn names_are_found_by_exactness() {
        let list = [
            certificate("first", &[exact("a.foo.com")]),
            certificate("second", &[exact("a.foo.com"), HostPattern::Wildcard("foo.com".into())]),
            certificate("third", &[HostPattern::Any]),
        ];
        let table = Certificates::compile(&list[..2], &Certificates::default());
        for (name, expected) in [
            (Some("a.foo.com"), Some("first")),
            (Some("b.foo.com"), Some("second")),
            (Some("a.b.foo.com"), None),
            (Some("foo.com"), None),
            (None, None),
        ] {
            assert_eq!(found(&table, &list, name), expected, "{name:?}");
        }
        let table = Certificates::compile(&list, &table);
        assert_eq!(found(&table, &list, Some("foo.com")), Some("third"));
        assert_eq!(found(&table, &list, None), Some("third"));
    }

    #[test]
    fn a_broken_certificate_disables_only_itself() {
        let mut broken = Certificate::clone(&certificate("broken", &[exact("a.test"), exact("b.test")]));
        broken.key.truncate(10);
        let list = [Arc::new(broken), certificate("good", &[exact("b.test")])];
        let table = Certificates::compile(&list, &Certificates::default());
        assert_eq!(found(&table, &list, Some("a.test")), None);
        assert_eq!(found(&table, &list, Some("b.test")), Some("good"));
    }

    #[test]
    fn unchanged_certificates_are_not_parsed_again() {
        let first = certificate("same", &[exact("a.test")]);
        let before = Certificates::compile(&[Arc::clone(&first)], &Certificates::default());
        let equal = Arc::new(Certificate::clone(&first));
        let after = Certificates::compile(&[equal], &before);
        assert!(Arc::ptr_eq(before.find(Some("a.test")).unwrap(), after.find(Some("a.test")).unwrap()));
        let rotated = Certificates::compile(&[certificate("same", &[exact("a.test")])], &after);
        assert!(!Arc::ptr_eq(after.find(Some("a.test")).unwrap(), rotated.find(Some("a.test")).unwrap()));
    }

    #[test]
    fn there_is_a_certificate_for_the_rest() {
        assert_eq!(self_signed().unwrap().cert.len(), 1);
    }
}
