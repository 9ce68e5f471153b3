//! `spec.tls`: which certificate serves which names. A broken Secret disables only itself. The table is kept from one state
//! of the objects to the next and is told what has changed; a translation from nothing tells it everything. Kept by
//! `incremental`.

mod claims;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::networking::v1::Ingress;

use super::host;
use super::problems::Problems;
use super::secret::{self, Pair, Wrong};
use crate::model::{Certificate, HostPattern, Kind, ObjectRef, Problem, Reason, Shared};
use crate::source::{Key, Objects};
use claims::{Claim, Place, Rank};

/// The Secrets that our Ingresses name in `spec.tls`, and who asks for which names.
#[derive(Debug, Default)]
pub(super) struct Table {
    secrets: HashMap<Key, Named>,
    /// What is asked for: at each name one place for each kind of key.
    names: HashMap<HostPattern, Vec<Place>>,
    mentions: HashMap<Key, Mention>,
    problems: BTreeMap<Origin, Vec<Problem>>,
    /// When there is more to say of a Secret: it expires soon, or has expired (seconds since 1970).
    deadlines: BTreeSet<(i64, Key)>,
    /// Since `settle`.
    touched_names: BTreeSet<HostPattern>,
    touched_secrets: BTreeSet<Key>,
}

/// A Secret, and what its reading gave.
type Read = (Arc<Secret>, Arc<Result<Pair, Wrong>>);

/// A Secret with those that name it. Parsing a key takes long, and Secrets rarely change.
#[derive(Debug, Default)]
struct Named {
    /// `None`: it does not exist.
    read: Option<Read>,
    users: HashSet<Key>,
    /// The names for which it is served.
    serves: BTreeSet<HostPattern>,
    deadline: Option<i64>,
}

/// What an Ingress asks for.
#[derive(Debug, Default)]
struct Mention {
    secrets: Vec<Key>,
    names: Vec<HostPattern>,
}

/// What something wrong hangs on.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    Ingress(Key),
    /// Two want it.
    Name(HostPattern),
    Secret(Key),
}

impl Named {
    fn read(&mut self, secret: Option<&Arc<Secret>>) {
        self.read = secret.map(|secret| match self.read.take() {
            Some((known, pair)) if Arc::ptr_eq(&known, secret) => (known, pair),
            _ => (Arc::clone(secret), Arc::new(secret::pair(secret))),
        });
    }

    /// Whether those that name it see the same: it is there, can be used, and has the same names and kind of key.
    fn looks_like(&self, other: Option<&Read>) -> bool {
        match (&self.read, other) {
            (None, None) => true,
            (Some((_, one)), Some((_, other))) => match (one.as_ref(), other.as_ref()) {
                (Ok(one), Ok(other)) => (&one.names, one.kind) == (&other.names, other.kind),
                (one, other) => one.is_err() && other.is_err(),
            },
            _ => false,
        }
    }
}

impl Table {
    /// Knows nothing but what was read of Secrets.
    pub(super) fn emptied(self) -> Self {
        let read = |(key, named): (Key, Named)| (key, Named { read: named.read, ..Named::default() });
        // Who is not named again is forgotten by `settle`.
        let touched_secrets = self.secrets.keys().cloned().collect();
        Self { secrets: self.secrets.into_iter().map(read).collect(), touched_secrets, ..Self::default() }
    }

    /// A Secret is another one now, or gone. Gives the Ingresses that must be `put` again: none after an ordinary renewal.
    pub(super) fn reread(&mut self, key: &Key, secret: Option<&Arc<Secret>>) -> Vec<Key> {
        let Some(named) = self.secrets.get_mut(key) else { return Vec::new() };
        let before = named.read.clone();
        named.read(secret);
        self.touched_secrets.insert(key.clone());
        if named.looks_like(before.as_ref()) { Vec::new() } else { named.users.iter().cloned().collect() }
    }

    /// Takes an Ingress of ours in, or its newer version.
    pub(super) fn put(&mut self, key: &Key, ingress: &Ingress, objects: &Objects) {
        self.remove(key);
        let sections = ingress.spec.as_ref().and_then(|spec| spec.tls.as_deref()).unwrap_or_default();
        if sections.is_empty() {
            return;
        }
        let reference = ObjectRef::new(Kind::Ingress, &*key.namespace, &*key.name);
        let created = ingress.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let mut mention = Mention::default();
        let mut problems = Problems::default();
        for (section, tls) in sections.iter().enumerate() {
            // No name is no mistake: TLS with whatever certificate fits the hosts.
            let Some(name) = tls.secret_name.as_deref().filter(|name| !name.is_empty()) else { continue };
            let secret = Key { namespace: Arc::clone(&key.namespace), name: name.into() };
            mention.secrets.push(secret.clone());
            self.touched_secrets.insert(secret.clone());
            let named = self.secrets.entry(secret.clone()).or_default();
            named.users.insert(key.clone());
            named.read(objects.secrets.find(&secret));
            let Some((_, pair)) = &named.read else {
                problems.add(
                    &reference,
                    format!("spec.tls[{section}].secretName"),
                    Reason::NotFound,
                    format!(
                        "{} of type kubernetes.io/tls does not exist; its hosts have no certificate from here",
                        reference_of(&secret)
                    ),
                    "create it (`kubectl create secret tls`), in the Ingress's own namespace",
                );
                continue;
            };
            let Ok(Pair { names, kind, .. }) = pair.as_ref() else { continue };
            let is_written = tls.hosts.as_ref().is_some_and(|hosts| !hosts.is_empty());
            let field = format!("spec.tls[{section}]");
            for (host, pattern) in wanted(tls.hosts.as_deref(), names, &reference, &field, &mut problems) {
                let rank = Rank { created, ingress: key.clone(), section, host };
                let claim = Claim { rank, secret: secret.clone(), is_written };
                Place::of(self.names.entry(pattern.clone()).or_default(), u8::from(*kind)).claim(claim);
                self.touched_names.insert(pattern.clone());
                mention.names.push(pattern);
            }
        }
        self.say(Origin::Ingress(key.clone()), problems);
        self.mentions.insert(key.clone(), mention);
    }

    /// It is no longer ours.
    pub(super) fn remove(&mut self, key: &Key) {
        let Some(Mention { secrets, names }) = self.mentions.remove(key) else { return };
        for secret in secrets {
            if let Some(named) = self.secrets.get_mut(&secret) {
                named.users.remove(key);
            }
            self.touched_secrets.insert(secret);
        }
        for name in names {
            for place in self.names.get_mut(&name).into_iter().flatten() {
                place.forget(key);
            }
            self.touched_names.insert(name);
        }
        self.problems.remove(&Origin::Ingress(key.clone()));
    }

    /// Brings `certificates` up to date with all that was told since the last time, and with the time. Gives the names that
    /// have a certificate now and had none, or had one and have none.
    pub(super) fn settle(
        &mut self,
        now: i64,
        certificates: &mut Shared<Vec<Arc<Certificate>>>,
    ) -> BTreeSet<HostPattern> {
        let mut changed = BTreeSet::new();
        for name in std::mem::take(&mut self.touched_names) {
            if self.settle_name(&name) {
                changed.insert(name);
            }
        }
        // What was true until a second before now.
        let passed = self.deadlines.iter().take_while(|(deadline, _)| *deadline < now);
        self.touched_secrets.extend(passed.map(|(_, key)| key.clone()));
        for key in std::mem::take(&mut self.touched_secrets) {
            let certificate = self.settle_secret(&key, now);
            replace(certificates, &key, certificate);
        }
        changed
    }

    /// Who serves the name now. Whether it has a certificate now and had none, or the other way round.
    fn settle_name(&mut self, name: &HostPattern) -> bool {
        let Some(places) = self.names.get_mut(name) else { return false };
        let was_served = places.iter().any(|place| place.served_by.is_some());
        let mut problems = Problems::default();
        let mut new = Vec::new();
        for place in places.iter_mut() {
            let first = place.first().cloned();
            if place.served_by.as_ref() != first.as_ref() {
                let former = std::mem::replace(&mut place.served_by, first.clone());
                if let Some(former) = former {
                    if let Some(named) = self.secrets.get_mut(&former) {
                        named.serves.remove(name);
                    }
                    self.touched_secrets.insert(former);
                }
                new.extend(first);
            }
            place.conflicts(name, &mut problems);
        }
        // After all that was taken away: a Secret may have moved from one kind of key to another.
        for key in new {
            if let Some(named) = self.secrets.get_mut(&key) {
                named.serves.insert(name.clone());
            }
            self.touched_secrets.insert(key);
        }
        places.retain(|place| place.served_by.is_some());
        let is_served = !places.is_empty();
        if !is_served {
            self.names.remove(name);
        }
        self.say(Origin::Name(name.clone()), problems);
        was_served != is_served
    }

    /// The certificate of a Secret, and what is to be said of it.
    fn settle_secret(&mut self, key: &Key, now: i64) -> Option<Arc<Certificate>> {
        let named = self.secrets.get_mut(key)?;
        if let Some(deadline) = named.deadline.take() {
            self.deadlines.remove(&(deadline, key.clone()));
        }
        let mut problems = Problems::default();
        let mut certificate = None;
        if named.users.is_empty() {
            self.secrets.remove(key);
        } else if let Some((_, pair)) = &named.read {
            let source = reference_of(key);
            named.deadline = secret::judge(pair, &source, now, &mut problems);
            self.deadlines.extend(named.deadline.map(|deadline| (deadline, key.clone())));
            if let (Ok(pair), false) = (pair.as_ref(), named.serves.is_empty()) {
                certificate = Some(Arc::new(Certificate {
                    source,
                    hosts: named.serves.iter().cloned().collect(),
                    chain: Arc::clone(&pair.chain),
                    key: Arc::clone(&pair.key),
                    not_after: pair.not_after,
                }));
            }
        }
        self.say(Origin::Secret(key.clone()), problems);
        certificate
    }

    fn say(&mut self, of: Origin, problems: Problems) {
        let problems = problems.into_sorted();
        if problems.is_empty() {
            self.problems.remove(&of);
        } else {
            self.problems.insert(of, problems);
        }
    }

    /// What is wrong with Secrets and with how they are named.
    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values().flatten()
    }

    /// Whether one of the certificates serves this host.
    pub(super) fn serves(&self, host: &HostPattern) -> bool {
        self.names.contains_key(host)
            || match host {
                HostPattern::Exact(name) => name.split_once('.').is_some_and(|(_, parent)| {
                    self.names.contains_key(&HostPattern::Wildcard(parent.to_owned()))
                }),
                _ => false,
            }
    }
}

fn reference_of(secret: &Key) -> ObjectRef {
    ObjectRef::new(Kind::Secret, &*secret.namespace, &*secret.name)
}

/// Puts the certificate of a Secret into the list, which is in the order of their names; an equal one stays.
fn replace(list: &mut Shared<Vec<Arc<Certificate>>>, key: &Key, certificate: Option<Arc<Certificate>>) {
    let place = list.binary_search_by(|known| {
        (known.source.namespace.as_str(), known.source.name.as_str()).cmp(&(&*key.namespace, &*key.name))
    });
    match (place, certificate) {
        (Ok(at), Some(certificate)) if list[at] == certificate => {}
        (Ok(at), Some(certificate)) => list[at] = certificate,
        (Ok(at), None) => drop(list.remove(at)),
        (Err(at), Some(certificate)) => list.insert(at, certificate),
        (Err(_), None) => {}
    }
}

/// The names that a section asks for, by their places; the certificate's own where it names none.
fn wanted(
    hosts: Option<&[String]>,
    names: &[HostPattern],
    reference: &ObjectRef,
    field: &str,
    problems: &mut Problems,
) -> Vec<(usize, HostPattern)> {
    let hosts = hosts.unwrap_or_default();
    if hosts.is_empty() {
        return names.iter().cloned().enumerate().collect();
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
                        field,
                        Reason::InvalidValue,
                        format!(
                            "the certificate does not cover {text}, only [{}]; clients will refuse it",
                            names.join(", ")
                        ),
                        "get a certificate with this name (subjectAltName)",
                    );
                }
                wanted.push((index, pattern));
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
