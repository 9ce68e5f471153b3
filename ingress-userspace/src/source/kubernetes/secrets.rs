//! Secrets: only those that Ingresses of ours name. Each has a watch of its own, by name, so that RBAC can be as narrow as
//! `resourceNames`; a namespace with many of them is watched as a whole, and the others there are dropped at once. Run by
//! `collector`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::{Heard, Update, kind};
use crate::source::{Key, Objects};

/// A namespace with more named Secrets than this is watched as a whole: each watch is a connection.
const MOST_BY_NAME: usize = 16;

/// Tells which Secrets shall be watched.
pub type Names = Arc<dyn Fn(&Objects) -> BTreeSet<Key> + Send + Sync>;

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
    names: Names,
    updates: mpsc::WeakSender<Update>,
    reachable: Arc<Notify>,
    watches: BTreeMap<Scope, JoinHandle<()>>,
    /// Not listed yet.
    pending: BTreeSet<Scope>,
    seen: Objects,
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
            names,
            updates,
            reachable,
            watches: BTreeMap::new(),
            pending: BTreeSet::new(),
            seen: Objects::default(),
        }
    }

    /// Watches what the objects name now. Secrets that nobody names any more leave the store; whether there were any.
    pub(super) fn follow(&mut self, objects: &mut Objects) -> bool {
        let same = self.seen.ingresses.is(&objects.ingresses)
            && self.seen.ingress_classes.is(&objects.ingress_classes);
        if same {
            return false;
        }
        self.seen = Objects {
            ingresses: objects.ingresses.clone(),
            ingress_classes: objects.ingress_classes.clone(),
            ..Objects::default()
        };
        let named = (self.names)(objects);
        let scopes = scopes(&named);
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
        let dropped: Vec<Key> =
            objects.secrets.iter().map(|(key, _)| key).filter(|key| !named.contains(*key)).cloned().collect();
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

fn scopes(named: &BTreeSet<Key>) -> BTreeSet<Scope> {
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
        assert_eq!(scopes(&named).len(), MOST_BY_NAME + 1);
        let named: BTreeSet<Key> = names(MOST_BY_NAME + 1).chain([Key::new("few", "one")]).collect();
        let scopes = scopes(&named);
        assert_eq!(scopes.len(), 2);
        let many = scopes.iter().find(|scope| &*scope.namespace == "many").unwrap();
        assert!(many.has(&Key::new("many", "s3")) && !many.has(&Key::new("many", "other")));
        assert!(!many.has(&Key::new("few", "s3")));
    }
}
