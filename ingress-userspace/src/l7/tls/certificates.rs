//! Certificates by server name: exact names, wildcards, and a default; for each name one per kind of key, of which the
//! client gets the cheapest that it can check. A certificate that cannot be used disables only itself. What did not
//! change is shared between generations, since parsing a key takes long.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};

use crate::model::{Certificate, HostPattern};

type ByName = HashMap<Box<str>, Choice, RandomState>;

/// The certificates of one name, one per kind of key: what costs us least to sign with comes first.
#[derive(Debug, Clone, Default)]
pub struct Choice(Vec<Arc<CertifiedKey>>);

impl Choice {
    /// Takes a certificate up unless there is one with a key of that kind.
    fn add(&mut self, key: &Arc<CertifiedKey>) {
        let cost = |key: &CertifiedKey| match key.key.algorithm() {
            SignatureAlgorithm::RSA => 1,
            _ => 0,
        };
        let kind = key.key.algorithm();
        if self.0.iter().all(|known| known.key.algorithm() != kind) {
            self.0.push(Arc::clone(key));
            self.0.sort_by_key(|key| cost(key));
        }
    }

    /// The first one that the client can check; the first of all if it can check none.
    pub fn choose(&self, offered: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        self.0.iter().find(|key| key.key.choose_scheme(offered).is_some()).or(self.0.first())
    }

    /// Whether both are the same certificates.
    fn is(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

/// The compiled table.
#[derive(Debug, Default)]
pub struct Certificates {
    exact: ByName,
    /// Keyed by what follows `*.`.
    wildcard: ByName,
    default: Option<Choice>,
    /// What each key was made of, for the next generation; `None` where it could not be used.
    parsed: Vec<(Arc<Certificate>, Option<Arc<CertifiedKey>>)>,
}

impl Certificates {
    /// Compiles the snapshot's list; where two with the same kind of key cover one name, the first serves it.
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
            let choice = match host {
                HostPattern::Exact(name) => self.exact.entry(name.as_str().into()).or_default(),
                HostPattern::Wildcard(parent) => self.wildcard.entry(parent.as_str().into()).or_default(),
                HostPattern::Any => self.default.get_or_insert_default(),
            };
            choice.add(key);
        }
    }

    /// The certificates for a server name (lower case); `None`: no certificate covers it.
    pub fn find(&self, name: Option<&str>) -> Option<&Choice> {
        name.and_then(|name| self.of_name(name)).or(self.default.as_ref())
    }

    fn of_name(&self, name: &str) -> Option<&Choice> {
        self.exact.get(name).or_else(|| {
            let (label, parent) = name.split_once('.')?;
            self.wildcard.get(parent).filter(|_| !label.is_empty())
        })
    }

    /// Whether a connection whose client was shown the certificate of `server_name` may carry requests for `host`: not
    /// if the name has a certificate of its own and the host another. (RFC 9110 7.4; clients that share a connection
    /// between hosts look at the certificate, RFC 9113 9.1.1.)
    pub fn share_a_connection(&self, server_name: &str, host: &str) -> bool {
        match (self.of_name(server_name), self.of_name(host)) {
            (Some(shown), Some(own)) => shown.is(own),
            (Some(_), None) => false,
            (None, _) => true,
        }
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
        let key = table.find(name)?.choose(&[])?;
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
        let shown = |table: &Certificates| table.find(Some("a.test")).unwrap().clone();
        assert!(shown(&before).is(&shown(&after)));
        let rotated = Certificates::compile(&[certificate("same", &[exact("a.test")])], &after);
        assert!(!shown(&after).is(&shown(&rotated)));
    }

    #[test]
    fn hosts_share_a_connection_if_they_share_the_certificate() {
        let list = [
            certificate("one", &[exact("a.foo.com"), exact("b.foo.com")]),
            certificate("two", &[exact("c.foo.com")]),
            certificate("any", &[HostPattern::Any]),
        ];
        let table = Certificates::compile(&list, &Certificates::default());
        for (server_name, host, may) in [
            ("a.foo.com", "b.foo.com", true),
            ("a.foo.com", "c.foo.com", false),
            ("c.foo.com", "a.foo.com", false),
            ("a.foo.com", "without.com", false),
            ("without.com", "a.foo.com", true),
            ("without.com", "elsewhere.com", true),
        ] {
            assert_eq!(table.share_a_connection(server_name, host), may, "{server_name} {host}");
        }
    }

    #[test]
    fn there_is_a_certificate_for_the_rest() {
        assert_eq!(self_signed().unwrap().cert.len(), 1);
    }
}
