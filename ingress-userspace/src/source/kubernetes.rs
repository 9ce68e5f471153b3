//! The Kubernetes source: one watch per kind (list, then watch with bookmarks), all feeding one store. Started by
//! `source`. While the API server is away the last state stays; a kind that the server does not have (our custom
//! resources before their definitions are installed) is empty and asked for again.

mod client;
mod kind;

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::{COALESCE, Objects, Receiver, Stored};
use crate::api::{AddressPool, IngressClassParameters};
use kind::Watched;

pub use client::client;

/// Kinds that can be missing from the API server.
const OPTIONAL: bool = true;

/// Starts the watches; they end when the receiver is dropped.
pub(super) fn start(client: &Client) -> Receiver {
    let (updates, inbox) = mpsc::channel(1024);
    let all = watcher::Config::default;
    let kinds = [
        watch::<Ingress>(client, all(), !OPTIONAL, &updates),
        watch::<IngressClass>(client, all(), !OPTIONAL, &updates),
        watch::<Service>(client, all(), !OPTIONAL, &updates),
        watch::<EndpointSlice>(client, all(), !OPTIONAL, &updates),
        // The others hold what is none of our business.
        watch::<Secret>(client, all().fields("type=kubernetes.io/tls"), !OPTIONAL, &updates),
        watch::<Node>(client, all(), !OPTIONAL, &updates),
        watch::<AddressPool>(client, all(), OPTIONAL, &updates),
        watch::<IngressClassParameters>(client, all(), OPTIONAL, &updates),
    ];
    let (sender, receiver) = tokio::sync::watch::channel(None);
    tokio::spawn(collect(inbox, kinds.len(), sender));
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
/// would withdraw routes that are in use.
async fn collect(
    mut inbox: mpsc::Receiver<Update>,
    mut missing: usize,
    sender: tokio::sync::watch::Sender<Option<Objects>>,
) {
    let mut objects = Objects::default();
    let mut changed = false;
    loop {
        let first = tokio::select! {
            () = sender.closed() => return,
            update = inbox.recv() => match update {
                Some(update) => update,
                None => return,
            },
        };
        let mut take = |update: Update| {
            changed |= (update.apply)(&mut objects);
            if update.first {
                missing -= 1;
                changed = true;
            }
        };
        take(first);
        let rest = tokio::time::Instant::now() + COALESCE;
        while let Ok(Some(update)) = tokio::time::timeout_at(rest, inbox.recv()).await {
            take(update);
        }
        if changed && missing == 0 {
            changed = false;
            sender.send_replace(Some(objects.clone()));
        }
    }
}

/// Watches one kind on a task of its own until the inbox closes.
fn watch<K>(client: &Client, config: watcher::Config, optional: bool, updates: &mpsc::Sender<Update>)
where
    K: Stored + Watched + Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + PartialEq,
{
    let stream = watcher(Api::<K>::all(client.clone()), config);
    tokio::spawn(kind::run(stream, optional, updates.clone()));
}

/// How long to wait after a failure: doubled each time, with some chance in it so that the nodes of a cluster do not
/// ask all at once.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(200);
    const LONGEST: Duration = Duration::from_secs(10);

    fn next(&mut self) -> Duration {
        use std::hash::{BuildHasher as _, Hasher as _};
        let full = Self::FIRST.saturating_mul(1 << self.failures.min(10)).min(Self::LONGEST);
        self.failures = self.failures.saturating_add(1);
        // Each RandomState has keys of its own: enough chance for this.
        let chance = std::hash::RandomState::new().build_hasher().finish() % 1000;
        full.mul_f64(0.75 + chance as f64 / 4000.0)
    }
}
