//! Certificates by server name: exact names, wildcards, and a default; for each name one per kind of key, of which the
//! client gets the cheapest that it can check. A certificate that cannot be used disables only itself. What did not
//! change is shared between generations: parsing a key takes long, and there are many names.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};

use crate::model::{Certificate, HostPattern};

/// Cloned with every change: names and keys are shared.
type ByName = HashMap<Arc<str>, Choice, RandomState>;

/// The certificates of one name, one per kind of key: what costs us least to sign with comes first.
#[derive(Debug, Clone, Default)]
pub struct Choice(Arc<[Arc<CertifiedKey>]>);

impl Choice {
    /// Of those that cover a name; where two have the same kind of key, the first serves it.
    fn new(covering: Vec<Arc<CertifiedKey>>) -> Self {
        let mut keys: Vec<Arc<CertifiedKey>> = Vec::with_capacity(covering.len());
        for key in covering {
            if keys.iter().all(|known| known.key.algorithm() != key.key.algorithm()) {
                keys.push(key);
            }
        }
        keys.sort_by_key(|key| {
            (key.key.algorithm() == SignatureAlgorithm::RSA, u8::from(key.key.algorithm()))
        });
        Self(keys.into())
    }

    /// The first one that the client can check; the first of all if it can check none.
    pub fn choose(&self, offered: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        self.0.iter().find(|key| key.key.choose_scheme(offered).is_some()).or(self.0.first())
    }

    /// Whether both are the same certificates.
    fn is(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(other.0.iter()).all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

/// The compiled table.
#[derive(Debug, Default)]
pub struct Certificates {
    exact: ByName,
    /// Keyed by what follows `*.`.
    wildcard: ByName,
    default: Option<Choice>,
    /// What it was made of.
    parsed: Vec<Parsed>,
}

#[derive(Debug, Clone)]
struct Parsed {
    certificate: Arc<Certificate>,
    /// `None`: it cannot be used.
    key: Option<Arc<CertifiedKey>>,
}

impl Certificates {
    /// Compiles the snapshot's list; where two with the same kind of key cover one name, the first serves it. Names whose
    /// certificates are the same memory as in `previous` are not looked at.
    pub fn compile(certificates: &[Arc<Certificate>], previous: &Self) -> Self {
        let at = |certificate: &Arc<Certificate>| Arc::as_ptr(certificate);
        let known = previous.parsed.iter().map(|parsed| (at(&parsed.certificate), parsed));
        let mut gone: HashMap<_, &Parsed, RandomState> = known.collect();
        let kept: Vec<Option<&Parsed>> =
            certificates.iter().map(|certificate| gone.remove(&at(certificate))).collect();
        let mut names: HashSet<&HostPattern, RandomState> =
            gone.values().flat_map(|parsed| &parsed.certificate.hosts).collect();
        let gone: HashMap<_, &Parsed> =
            gone.into_values().map(|parsed| (&parsed.certificate.source, parsed)).collect();
        let mut parsed = Vec::with_capacity(certificates.len());
        for (certificate, kept) in certificates.iter().zip(kept) {
            parsed.push(kept.cloned().unwrap_or_else(|| {
                names.extend(&certificate.hosts);
                // Who only got other names keeps its key.
                let same = gone.get(&certificate.source).filter(|parsed| {
                    parsed.certificate.chain == certificate.chain && parsed.certificate.key == certificate.key
                });
                let key = same.map_or_else(|| parse(certificate), |parsed| parsed.key.clone());
                Parsed { certificate: Arc::clone(certificate), key }
            }));
        }
        let mut covering: HashMap<_, Vec<Arc<CertifiedKey>>, RandomState> =
            names.into_iter().map(|name| (name, Vec::new())).collect();
        for Parsed { certificate, key } in &parsed {
            for host in &certificate.hosts {
                if let (Some(keys), Some(key)) = (covering.get_mut(host), key) {
                    keys.push(Arc::clone(key));
                }
            }
        }
        let mut table = Self {
            exact: previous.exact.clone(),
            wildcard: previous.wildcard.clone(),
            default: previous.default.clone(),
            parsed: Vec::new(),
        };
        for (name, keys) in covering {
            table.put(name, keys);
        }
        Self { parsed, ..table }
    }

    fn put(&mut self, host: &HostPattern, keys: Vec<Arc<CertifiedKey>>) {
        let choice = Some(keys).filter(|keys| !keys.is_empty()).map(Choice::new);
        let (map, name) = match host {
            HostPattern::Exact(name) => (&mut self.exact, name),
            HostPattern::Wildcard(parent) => (&mut self.wildcard, parent),
            HostPattern::Any => {
                self.default = choice;
                return;
            }
        };
        match choice {
            Some(choice) => drop(map.insert(name.as_str().into(), choice)),
            None => drop(map.remove(name.as_str())),
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
    let made = PrivateKeyDer::try_from(certificate.key.to_vec()).map_err(str::to_owned).and_then(|key| {
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
            chain: [params.self_signed(&key).unwrap().der().to_vec()].into(),
            key: key.serialize_der().into(),
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
        broken.key = broken.key[..10].into();
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

    /// Whatever comes, goes and gets other names: the table is that of a compilation from nothing.
    #[test]
    fn history_makes_no_difference() {
        let wild = HostPattern::Wildcard("foo.com".into());
        let all = [
            certificate("a", &[exact("a.foo.com"), wild.clone()]),
            certificate("b", &[exact("b.foo.com"), exact("a.foo.com")]),
            certificate("c", &[HostPattern::Any, wild]),
        ];
        let other_names = |from: &Certificate, hosts: &[HostPattern]| {
            Arc::new(Certificate { hosts: hosts.to_vec(), ..from.clone() })
        };
        let moved = other_names(&all[0], &[exact("c.foo.com")]);
        let more = other_names(&all[1], &[exact("a.foo.com"), exact("b.foo.com"), exact("d.foo.com")]);
        let [a, b, c] = all.clone();
        let mut table = Certificates::default();
        for list in [
            vec![a.clone(), b.clone(), c.clone()],
            vec![b.clone(), c.clone()],
            vec![moved.clone(), b, c.clone()],
            vec![moved, more.clone()],
            vec![a, more, c],
            vec![],
        ] {
            table = Certificates::compile(&list, &table);
            let anew = Certificates::compile(&list, &Certificates::default());
            assert_eq!((table.exact.len(), table.wildcard.len()), (anew.exact.len(), anew.wildcard.len()));
            for name in ["a", "b", "c", "d", "e"].map(|label| format!("{label}.foo.com")) {
                let name = Some(name.as_str());
                assert_eq!(found(&table, &list, name), found(&anew, &list, name), "{name:?}");
            }
            assert_eq!(found(&table, &list, None), found(&anew, &list, None));
        }
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
