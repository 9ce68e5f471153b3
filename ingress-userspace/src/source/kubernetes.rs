//! The Kubernetes source: one watch per kind (list, then watch with bookmarks), all feeding one store. Started by
//! `source`. While the API server is away the last state stays; a kind that the server does not have (our custom
//! resources before their definitions are installed) is empty and asked for again.

mod client;
mod kind;
mod memory;

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, mpsc};

use super::{COALESCE, Objects, Receiver, Stored};
use crate::api::{AddressPool, IngressClassParameters};
use kind::Watched;
use memory::Memory;

pub use client::client;

/// How long the API server may take to list everything before what an earlier daemon left is served.
const PATIENCE: Duration = Duration::from_secs(2);

/// Kinds that can be missing from the API server.
const OPTIONAL: bool = true;

/// Starts the watches; they end when the receiver is dropped.
pub(super) fn start(client: &Client, state_dir: &Path) -> Receiver {
    let (updates, inbox) = mpsc::channel(1024);
    let reachable = Arc::new(Notify::new());
    let watches = Watches { client, updates: &updates, reachable: &reachable };
    let all = watcher::Config::default;
    let kinds = [
        watches.start::<Ingress>(all(), !OPTIONAL),
        watches.start::<IngressClass>(all(), !OPTIONAL),
        watches.start::<Service>(all(), !OPTIONAL),
        watches.start::<EndpointSlice>(all(), !OPTIONAL),
        // The others hold what is none of our business.
        watches.start::<Secret>(all().fields("type=kubernetes.io/tls"), !OPTIONAL),
        watches.start::<Node>(all(), !OPTIONAL),
        watches.start::<AddressPool>(all(), OPTIONAL),
        watches.start::<IngressClassParameters>(all(), OPTIONAL),
    ];
    let (sender, receiver) = tokio::sync::watch::channel(None);
    let memory = Memory::new(state_dir);
    let remembered = memory.read();
    tokio::spawn(collect(inbox, kinds.len(), remembered, sender));
    tokio::spawn(memory.keep(receiver.clone()));
    receiver
}

/// What a watch has to say.
struct Update {
    /// Changes the store; whether anything is different.
    apply: Box<dyn FnOnce(&mut Objects) -> bool + Send>,
    /// The kind has been listed for the first time.
    first: bool,
}

/// Applies the updates and publishes: for the first time when every kind has been listed, since a half-filled store
/// would withdraw routes that are in use. What is remembered is not half-filled: after a while it is served, with all that
/// has been heard since.
async fn collect(
    mut inbox: mpsc::Receiver<Update>,
    mut missing: usize,
    remembered: Option<Objects>,
    sender: tokio::sync::watch::Sender<Option<Objects>>,
) {
    let mut is_remembered = remembered.is_some();
    let mut objects = remembered.unwrap_or_default();
    let mut changed = false;
    let patience = tokio::time::sleep(PATIENCE);
    tokio::pin!(patience);
    let mut is_patient = true;
    loop {
        let first = tokio::select! {
            () = sender.closed() => return,
            () = &mut patience, if is_patient => {
                is_patient = false;
                changed |= is_remembered;
                if is_remembered {
                    tracing::warn!("the API server has not told everything yet: serving what was known before, from disk");
                }
                None
            }
            update = inbox.recv() => match update {
                Some(update) => Some(update),
                None => return,
            },
        };
        let mut take = |update: Update| {
            changed |= (update.apply)(&mut objects);
            if update.first {
                missing -= 1;
                changed |= missing == 0;
            }
        };
        if let Some(first) = first {
            take(first);
            let rest = tokio::time::Instant::now() + COALESCE;
            while let Ok(Some(update)) = tokio::time::timeout_at(rest, inbox.recv()).await {
                take(update);
            }
        }
        is_remembered &= missing > 0;
        objects.is_remembered = is_remembered;
        if changed && (missing == 0 || (is_remembered && !is_patient)) {
            changed = false;
            sender.send_replace(Some(objects.clone()));
        }
    }
}

/// What the watches have in common.
struct Watches<'a> {
    client: &'a Client,
    updates: &'a mpsc::Sender<Update>,
    /// The API server answers again: who waits need not wait longer.
    reachable: &'a Arc<Notify>,
}

impl Watches<'_> {
    /// Watches one kind on a task of its own until the inbox closes.
    fn start<K>(&self, config: watcher::Config, optional: bool)
    where
        K: Stored + Watched + Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + PartialEq,
    {
        let stream = watcher(Api::<K>::all(self.client.clone()), config);
        tokio::spawn(kind::run(stream, optional, self.updates.clone(), Arc::clone(self.reachable)));
    }
}

/// How long to wait after a failure: doubled each time, with some chance in it so that the nodes of a cluster do not
/// ask all at once.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(200);
    const LONGEST: Duration = Duration::from_secs(5);

    fn next(&mut self) -> Duration {
        use std::hash::{BuildHasher as _, Hasher as _};
        let full = Self::FIRST.saturating_mul(1 << self.failures.min(10)).min(Self::LONGEST);
        self.failures = self.failures.saturating_add(1);
        // Each RandomState has keys of its own: enough chance for this.
        let chance = std::hash::RandomState::new().build_hasher().finish() % 1000;
        full.mul_f64(0.75 + chance as f64 / 4000.0)
    }
}
