//! `spec.tls`: which certificate serves which names. A broken Secret disables only itself.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::annotation::Served;
use super::class::Owned;
use super::problems::Problems;
use super::secret::{Pair, Parsed, Wrong};
use super::{Settings, host};
use crate::model::{Certificate, HostPattern, Kind, ObjectRef, Reason};
use crate::source::Objects;

/// One Secret in the making.
struct Entry {
    pair: Arc<Result<Pair, Wrong>>,
    source: ObjectRef,
    hosts: Vec<HostPattern>,
}

/// The certificates of all our Ingresses, in the order of preference: those of the oldest Ingress first. And how long
/// what was said of them stays true: until the next one expires (seconds since 1970).
pub(super) fn certificates(
    objects: &Objects,
    settings: &Settings,
    served: &[Served],
    parsed: &mut Parsed,
    problems: &mut Problems,
) -> (Vec<Arc<Certificate>>, i64) {
    let mut secrets = Secrets { objects, settings, parsed, good_until: i64::MAX };
    let mut entries: Vec<Entry> = Vec::new();
    let mut by_source: HashMap<ObjectRef, usize> = HashMap::new();
    let mut taken: HashMap<(HostPattern, u8), (ObjectRef, ObjectRef)> = HashMap::new();
    for Served { owned: Owned { ingress, reference, .. }, .. } in served {
        let sections = ingress.spec.as_ref().and_then(|spec| spec.tls.as_deref()).unwrap_or_default();
        for (index, section) in sections.iter().enumerate() {
            let field = format!("spec.tls[{index}]");
            // No name is no mistake: TLS with whatever certificate fits the hosts.
            let Some(name) = section.secret_name.as_deref().filter(|name| !name.is_empty()) else { continue };
            let source = ObjectRef::new(Kind::Secret, &reference.namespace, name);
            let Some(pair) = secrets.pair(&source, reference, &field, problems) else { continue };
            let Ok(Pair { names, kind, .. }) = pair.as_ref() else { continue };
            let wanted = wanted(section.hosts.as_deref(), names, reference, &field, problems);
            let at = *by_source.entry(source.clone()).or_insert_with(|| {
                entries.push(Entry { pair: Arc::clone(&pair), source: source.clone(), hosts: Vec::new() });
                entries.len() - 1
            });
            for (field, pattern) in wanted {
                // A name may have one certificate for each kind of key.
                let place = (pattern.clone(), u8::from(*kind));
                match taken.get(&place) {
                    Some((other, _)) if *other == source => {}
                    Some((other, first)) => {
                        // Names that only the certificate claims give way in silence.
                        if let Some(field) = field {
                            problems.add(
                                reference,
                                field,
                                Reason::Conflict,
                                format!(
                                    "{first}, which came first, has {other} for {}; that one is served",
                                    host::show(&pattern)
                                ),
                                "name the same Secret in both, or take the host out of one",
                            );
                        }
                    }
                    None => {
                        taken.insert(place, (source.clone(), reference.clone()));
                        entries[at].hosts.push(pattern);
                    }
                }
            }
        }
    }
    let used = entries.into_iter().filter(|entry| !entry.hosts.is_empty());
    let certificates = used.filter_map(|Entry { pair, source, hosts }| {
        let Pair { chain, key, not_after, .. } = pair.as_ref().as_ref().ok()?;
        let (chain, key, not_after) = (chain.clone(), key.clone(), *not_after);
        Some(Arc::new(Certificate { source, hosts, chain, key, not_after }))
    });
    (certificates.collect(), secrets.good_until)
}

/// The names that have a certificate.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Certified(HashSet<HostPattern>);

impl Certified {
    pub(super) fn new(certificates: &[Arc<Certificate>]) -> Self {
        Self(certificates.iter().flat_map(|certificate| certificate.hosts.iter().cloned()).collect())
    }

    /// Whether one of the certificates serves this host.
    pub(super) fn serves(&self, host: &HostPattern) -> bool {
        let Self(names) = self;
        names.contains(host)
            || match host {
                HostPattern::Exact(name) => name
                    .split_once('.')
                    .is_some_and(|(_, parent)| names.contains(&HostPattern::Wildcard(parent.to_owned()))),
                _ => false,
            }
    }
}

/// The names that a section asks for, with the field where it names them; the certificate's own where it names none.
fn wanted(
    hosts: Option<&[String]>,
    names: &[HostPattern],
    reference: &ObjectRef,
    field: &str,
    problems: &mut Problems,
) -> Vec<(Option<String>, HostPattern)> {
    let hosts = hosts.unwrap_or_default();
    if hosts.is_empty() {
        return names.iter().map(|name| (None, name.clone())).collect();
    }
    let mut wanted = Vec::new();
    for (index, text) in hosts.iter().enumerate() {
        let field = format!("{field}.hosts[{index}]");
        match host::parse(text) {
            Ok(HostPattern::Any) => {
                problems.add(
                    reference,
                    field,
                    Reason::InvalidValue,
                    "is empty; it is left out",
                    "write a host name",
                );
            }
            Ok(pattern) => {
                if !names.iter().any(|name| host::covers(name, &pattern)) {
                    let names: Vec<String> = names.iter().map(host::show).collect();
                    problems.add(
                        reference,
                        field.clone(),
                        Reason::InvalidValue,
                        format!(
                            "the certificate does not cover {text}, only [{}]; clients will refuse it",
                            names.join(", ")
                        ),
                        "get a certificate with this name (subjectAltName)",
                    );
                }
                wanted.push((Some(field), pattern));
            }
            Err(message) => problems.add(
                reference,
                field,
                Reason::InvalidValue,
                format!("`{text}` is not a host name: {message}; it is left out"),
                "write a DNS name in lower case, or `*.` and a DNS name",
            ),
        }
    }
    wanted
}

/// How long before its end a certificate is spoken of, in seconds: two weeks. Renewals usually come a month before.
const EXPIRES_SOON: i64 = 14 * 24 * 3600;

/// Secrets, each parsed once.
struct Secrets<'a> {
    objects: &'a Objects,
    settings: &'a Settings,
    parsed: &'a mut Parsed,
    good_until: i64,
}

impl Secrets<'_> {
    fn pair(
        &mut self,
        source: &ObjectRef,
        ingress: &ObjectRef,
        field: &str,
        problems: &mut Problems,
    ) -> Option<Arc<Result<Pair, Wrong>>> {
        let Some(secret) = self.objects.secrets.get(&source.namespace, &source.name) else {
            problems.add(
                ingress,
                format!("{field}.secretName"),
                Reason::NotFound,
                format!("{source} of type kubernetes.io/tls does not exist; its hosts have no certificate from here"),
                "create it (`kubectl create secret tls`), in the Ingress's own namespace",
            );
            return None;
        };
        let pair = self.parsed.pair(source, secret);
        match pair.as_ref() {
            Ok(Pair { not_after, .. }) if *not_after < self.settings.now => problems.add(
                source,
                "data[tls.crt]",
                Reason::InvalidValue,
                format!("expired at {}; it is served, but clients will refuse it", time(*not_after)),
                "renew the certificate",
            ),
            Ok(Pair { not_after, .. }) if *not_after - EXPIRES_SOON < self.settings.now => {
                self.good_until = self.good_until.min(*not_after);
                problems.add(
                    source,
                    "data[tls.crt]",
                    Reason::Expiring,
                    format!("expires at {}; until then it is served", time(*not_after)),
                    "renew the certificate; whatever renews it by itself is late",
                );
            }
            Ok(Pair { not_after, .. }) => {
                self.good_until = self.good_until.min(*not_after - EXPIRES_SOON);
            }
            Err(wrong) => problems.add(
                source,
                wrong.field,
                Reason::InvalidValue,
                format!("{}; this certificate is not served", wrong.message),
                wrong.hint,
            ),
        }
        Some(pair)
    }
}

fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}
