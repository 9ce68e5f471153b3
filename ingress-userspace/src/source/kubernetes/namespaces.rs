//! Namespaces: watched only while an AddressPool selects them by their labels, so that nobody else has to give us the right
//! to. Run by `collector`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::{OPTIONAL, Update, kind};
use crate::api::AddressPool;
use crate::source::{Objects, Store};

/// The watch, while there is one.
pub(super) struct Namespaces {
    client: Client,
    updates: mpsc::WeakSender<Update>,
    reachable: Arc<Notify>,
    watch: Option<JoinHandle<()>>,
    seen: Store<AddressPool>,
}

/// What became of the watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    /// It goes on, or there is still none.
    Same,
    /// It begins: what it says is to be waited for.
    Begins,
    /// It ended, and what it said is gone.
    Ended,
}

impl Namespaces {
    pub(super) fn new(client: Client, updates: mpsc::WeakSender<Update>, reachable: Arc<Notify>) -> Self {
        Self { client, updates, reachable, watch: None, seen: Store::default() }
    }

    /// Watches while one of the pools wants it.
    pub(super) fn follow(&mut self, objects: &mut Objects) -> Watch {
        if self.seen.is(&objects.address_pools) {
            return Watch::Same;
        }
        self.seen = objects.address_pools.clone();
        let is_wanted = self.seen.iter().any(|(_, pool)| !pool.spec.namespace_selectors.is_empty());
        if is_wanted == self.watch.is_some() {
            return Watch::Same;
        }
        if let Some(watch) = self.watch.take() {
            watch.abort();
            objects.namespaces = Store::default();
            return Watch::Ended;
        }
        let Some(updates) = self.updates.upgrade() else { return Watch::Same };
        self.watch = Some(tokio::spawn(kind::run(
            watcher(Api::<Namespace>::all(self.client.clone()), watcher::Config::default()),
            kind::whole::<Namespace>(OPTIONAL),
            updates,
            Arc::clone(&self.reachable),
        )));
        Watch::Begins
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch {
            watch.abort();
        }
    }
}
