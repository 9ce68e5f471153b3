//! Secrets: only those that Ingresses of ours name. Each has a watch of its own, by name, so that RBAC can be as narrow as
//! `resourceNames`; a namespace with many of them is watched as a whole, and the others there are dropped at once. Run by
//! `collector`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::networking::v1::Ingress;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::{Heard, Update, kind};
use crate::source::{Key, Objects};

/// A namespace with more named Secrets than this is watched as a whole: each watch is a connection.
const MOST_BY_NAME: usize = 16;

/// Tells which Secrets each of these Ingresses names, in view of the classes among the objects.
pub type Names = Arc<dyn Fn(&Objects, &[&Arc<Ingress>]) -> Vec<BTreeSet<Key>> + Send + Sync>;

/// What one watch is about: these Secrets of this namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Scope {
    namespace: Arc<str>,
    names: BTreeSet<Arc<str>>,
}

impl Scope {
    fn has(&self, key: &Key) -> bool {
        key.namespace == self.namespace && self.names.contains(&key.name)
    }
}

/// The watches.
pub(super) struct Secrets {
    client: Client,
    named: Named,
    updates: mpsc::WeakSender<Update>,
    reachable: Arc<Notify>,
    watches: BTreeMap<Scope, JoinHandle<()>>,
    /// Not listed yet.
    pending: BTreeSet<Scope>,
}

/// Who names which Secret. Most changes of Ingresses change nothing about that, and there may be very many Ingresses.
struct Named {
    names: Names,
    by_ingress: HashMap<Key, BTreeSet<Key>>,
    /// How many name each.
    secrets: BTreeMap<Key, usize>,
    /// What this was made of.
    seen: Objects,
}

impl Named {
    fn new(names: Names) -> Self {
        Self { names, by_ingress: HashMap::new(), secrets: BTreeMap::new(), seen: Objects::default() }
    }

    /// Takes in what the objects name now; whether that are other Secrets than before.
    fn follow(&mut self, objects: &Objects) -> bool {
        let mut has_changed = false;
        if !self.seen.ingress_classes.is(&objects.ingress_classes)
            || !self.seen.class_parameters.is(&objects.class_parameters)
        {
            *self = Self::new(Arc::clone(&self.names));
            has_changed = true;
        }
        let changes = objects.ingresses.changes(&self.seen.ingresses);
        let ingresses: Vec<&Arc<Ingress>> = changes.iter().filter_map(|(_, _, is)| *is).collect();
        let mut named = (self.names)(objects, &ingresses).into_iter();
        for (key, _, is) in changes {
            let new = is.and_then(|_| named.next()).unwrap_or_default();
            let old = self.by_ingress.remove(key).unwrap_or_default();
            for secret in &new {
                let users = self.secrets.entry(secret.clone()).or_default();
                has_changed |= *users == 0;
                *users += 1;
            }
            for secret in &old {
                if let Some(users) = self.secrets.get_mut(secret) {
                    *users -= 1;
                    if *users == 0 {
                        self.secrets.remove(secret);
                        has_changed = true;
                    }
                }
            }
            if !new.is_empty() {
                self.by_ingress.insert(key.clone(), new);
            }
        }
        self.seen = Objects {
            ingresses: objects.ingresses.clone(),
            ingress_classes: objects.ingress_classes.clone(),
            class_parameters: objects.class_parameters.clone(),
            ..Objects::default()
        };
        has_changed
    }
}

impl Secrets {
    pub(super) fn new(
        client: Client,
        names: Names,
        updates: mpsc::WeakSender<Update>,
        reachable: Arc<Notify>,
    ) -> Self {
        Self {
            client,
            named: Named::new(names),
            updates,
            reachable,
            watches: BTreeMap::new(),
            pending: BTreeSet::new(),
        }
    }

    /// Watches what the objects name now. Secrets that nobody names any more leave the store; whether there were any.
    pub(super) fn follow(&mut self, objects: &mut Objects) -> bool {
        if !self.named.follow(objects) {
            return false;
        }
        let scopes = scopes(self.named.secrets.keys());
        self.watches.retain(|scope, task| {
            let stays = scopes.contains(scope);
            if !stays {
                task.abort();
            }
            stays
        });
        self.pending.retain(|scope| scopes.contains(scope));
        for scope in scopes {
            if !self.watches.contains_key(&scope)
                && let Some(updates) = self.updates.upgrade()
            {
                self.pending.insert(scope.clone());
                let task = self.watch(scope.clone(), updates);
                self.watches.insert(scope, task);
            }
        }
        let named = &self.named.secrets;
        let dropped: Vec<Key> = objects
            .secrets
            .iter()
            .map(|(key, _)| key)
            .filter(|key| !named.contains_key(*key))
            .cloned()
            .collect();
        for key in &dropped {
            objects.secrets.remove(key);
        }
        !dropped.is_empty()
    }

    /// A watch has listed its Secrets for the first time.
    pub(super) fn heard(&mut self, scope: &Scope) {
        self.pending.remove(scope);
    }

    /// Whether some are named that have not been asked for yet.
    pub(super) fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// What has not been listed until now is waited for no longer.
    pub(super) fn give_up(&mut self) {
        self.pending.clear();
    }

    fn watch(&self, scope: Scope, updates: mpsc::Sender<Update>) -> JoinHandle<()> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &scope.namespace);
        let config = watcher::Config::default();
        let config = match scope.names.first() {
            Some(name) if scope.names.len() == 1 => config.fields(&format!("metadata.name={name}")),
            _ => config,
        };
        let part = scope.clone();
        let run = kind::run(
            watcher(api, config),
            kind::Part {
                heard: Heard::Secrets(scope),
                optional: true,
                holds: move |key: &Key| part.has(key),
            },
            updates,
            Arc::clone(&self.reachable),
        );
        tokio::spawn(run)
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        self.watches.values().for_each(JoinHandle::abort);
    }
}

fn scopes<'k>(named: impl Iterator<Item = &'k Key>) -> BTreeSet<Scope> {
    let mut by_namespace: BTreeMap<&Arc<str>, BTreeSet<Arc<str>>> = BTreeMap::new();
    for Key { namespace, name } in named {
        by_namespace.entry(namespace).or_default().insert(Arc::clone(name));
    }
    let mut scopes = BTreeSet::new();
    for (namespace, names) in by_namespace {
        let scope = |names| Scope { namespace: Arc::clone(namespace), names };
        if names.len() > MOST_BY_NAME {
            scopes.insert(scope(names));
        } else {
            scopes.extend(names.into_iter().map(|name| scope(BTreeSet::from([name]))));
        }
    }
    scopes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_watched_by_name_and_many_by_namespace() {
        let names = |count: usize| (0..count).map(move |i| Key::new("many", &format!("s{i}")));
        let named: BTreeSet<Key> = names(MOST_BY_NAME).chain([Key::new("few", "one")]).collect();
        assert_eq!(scopes(named.iter()).len(), MOST_BY_NAME + 1);
        let named: BTreeSet<Key> = names(MOST_BY_NAME + 1).chain([Key::new("few", "one")]).collect();
        let scopes = scopes(named.iter());
        assert_eq!(scopes.len(), 2);
        let many = scopes.iter().find(|scope| &*scope.namespace == "many").unwrap();
        assert!(many.has(&Key::new("many", "s3")) && !many.has(&Key::new("many", "other")));
        assert!(!many.has(&Key::new("few", "s3")));
    }
    #[test]
    fn who_names_what_is_followed_change_by_change() {
        // An Ingress names the Secret that its class is called by.
        let names: Names = Arc::new(|_, ingresses| {
            let secret = |ingress: &&Arc<Ingress>| {
                let class = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_deref());
                class.map(|name| Key::new("a", name)).into_iter().collect()
            };
            ingresses.iter().map(secret).collect()
        });
        let ingress = |secret: &str| {
            let mut ingress = Ingress::default();
            ingress.spec.get_or_insert_default().ingress_class_name = Some(secret.to_owned());
            Arc::new(ingress)
        };
        let mut named = Named::new(names);
        let mut objects = Objects::default();
        named.follow(&objects);
        let [one, two] = ["one", "two"].map(|name| Key::new("a", name));
        for (key, secret, is_other, secrets) in [
            (&one, Some("x"), true, &["x"][..]),
            (&two, Some("x"), false, &["x"]),
            (&one, Some("y"), true, &["x", "y"]),
            (&one, Some("y"), false, &["x", "y"]),
            (&two, None, true, &["y"]),
            (&one, None, true, &[]),
        ] {
            match secret {
                Some(secret) => drop(objects.ingresses.insert(key.clone(), ingress(secret))),
                None => drop(objects.ingresses.remove(key)),
            }
            assert_eq!(named.follow(&objects), is_other, "{key:?} {secret:?}");
            let found: Vec<&str> = named.secrets.keys().map(|key| &*key.name).collect();
            assert_eq!(found, secrets);
        }
        objects.ingresses.insert(one, ingress("x"));
        named.follow(&objects);
        objects.ingress_classes.insert(Key::new("", "xdp"), Arc::default());
        assert!(named.follow(&objects), "another class may name others");
        assert_eq!(named.secrets.len(), 1);
    }
}
