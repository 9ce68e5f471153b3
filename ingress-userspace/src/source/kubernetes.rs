//! The Kubernetes source: one watch per kind (list, then watch with bookmarks), and one per Secret that an Ingress
//! names, all feeding one store. Started by
//! `source`. While the API server is away the last state stays; a kind that the server does not have (our custom
//! resources before their definitions are installed) is empty and asked for again.

mod client;
mod collector;
mod kind;
mod memory;
mod namespaces;
mod secrets;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Secret, Service};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, mpsc};

use super::{EndpointSlice, Objects, Receiver, Stored};
use crate::api::{AddressPool, IngressClassParameters};
use crate::model::Kind;
use collector::Collector;
use kind::Watched;
use memory::Memory;
use namespaces::Namespaces;
use secrets::Secrets;

pub use client::client;
pub use secrets::Names;

/// Kinds that can be missing from the API server.
const OPTIONAL: bool = true;

/// Which Secrets are read.
pub enum SecretScope {
    /// Those that these objects name.
    Named(Names),
    /// All of type `kubernetes.io/tls`, in one watch.
    AllTls,
}

/// Starts the watches; they end when the receiver is dropped.
pub(super) fn start(client: &Client, state_dir: &Path, secrets: SecretScope) -> Receiver {
    let (updates, inbox) = mpsc::channel(1024);
    let reachable = Arc::new(Notify::new());
    let watches = Watches { client, updates: &updates, reachable: &reachable };
    let all = watcher::Config::default;
    let mut kinds = BTreeSet::from([
        watches.start::<Ingress>(all(), !OPTIONAL),
        watches.start::<IngressClass>(all(), !OPTIONAL),
        watches.start::<Service>(all(), !OPTIONAL),
        watches.start::<EndpointSlice>(all(), !OPTIONAL),
        watches.start::<Node>(all(), !OPTIONAL),
        watches.start::<AddressPool>(all(), OPTIONAL),
        watches.start::<IngressClassParameters>(all(), OPTIONAL),
    ]);
    let secrets = match secrets {
        SecretScope::Named(names) => {
            Some(Secrets::new(client.clone(), names, updates.downgrade(), Arc::clone(&reachable)))
        }
        SecretScope::AllTls => {
            kinds.insert(watches.start::<Secret>(all().fields("type=kubernetes.io/tls"), !OPTIONAL));
            None
        }
    };
    let namespaces = Namespaces::new(client.clone(), updates.downgrade(), Arc::clone(&reachable));
    let (sender, receiver) = tokio::sync::watch::channel(None);
    let memory = Memory::new(state_dir);
    tokio::spawn(Collector::new(kinds, secrets, namespaces, memory.clone(), sender).run(inbox));
    tokio::spawn(memory.keep(receiver.clone()));
    receiver
}

/// Removes what was remembered.
pub(super) fn forget(state_dir: &Path) -> std::io::Result<()> {
    Memory::new(state_dir).forget()
}

/// What a watch has to say.
struct Update {
    /// When it was heard.
    at: Instant,
    /// It is about endpoints only: cheap to make live, and requests go wrong until it is.
    is_urgent: bool,
    /// Changes the store; whether anything is different.
    apply: Box<dyn FnOnce(&mut Objects) -> bool + Send>,
    /// It has listed its objects for the first time.
    first: Option<Heard>,
}

/// Who has been heard for the first time.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Heard {
    /// A kind.
    Kind(Kind),
    /// Some Secrets.
    Secrets(secrets::Scope),
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
    fn start<K>(&self, config: watcher::Config, optional: bool) -> Kind
    where
        K: Stored + Watched + Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + PartialEq,
    {
        let stream = watcher(Api::<K>::all(self.client.clone()), config);
        tokio::spawn(kind::run(
            stream,
            kind::whole::<K>(optional),
            self.updates.clone(),
            Arc::clone(self.reachable),
        ));
        K::KIND
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
