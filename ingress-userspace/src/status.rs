//! What the API server is told: `Ingress.status` and Events for problems. Written by one daemon of the cluster at a
//! time, the holder of a Lease. `cli::run` starts it next to the data plane, which never waits for it: the API server
//! may be away for as long as it likes, and only the latest state is written when it is back.

mod clock;
mod events;
mod ingress;
mod leader;
mod lease;
mod own;

use std::sync::Arc;

use kube::Client;
use tokio::sync::watch;

use crate::model::{Problem, Snapshot};
use lease::{Candidate, Leadership};

/// Name of the Lease, in the namespace of the installation.
pub const LEASE_NAME: &str = "xdp-ingress";

/// How this daemon appears to the API server.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who we are: the node's name. A random suffix is added, because during a rolling update two daemons of one node
    /// may run at once, and only one of them may hold the Lease.
    pub identity: String,
    /// Namespace of the Lease; the client's own (in a cluster: the pod's) if absent.
    pub namespace: Option<String>,
    /// Field manager under which statuses are applied: what it owns is ours to change and to remove. Two installations
    /// in one cluster need different ones, or they would clear each other's statuses.
    pub field_manager: String,
}

impl Config {
    /// The usual configuration of the daemon on node `identity`.
    pub fn new(identity: impl Into<String>) -> Self {
        Self { identity: identity.into(), namespace: None, field_manager: "xdp-ingress".to_owned() }
    }
}

/// What the data plane serves now, and what is wrong with the objects it is made of.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// Says which Ingresses are ours and which addresses they shall show.
    pub snapshot: Arc<Snapshot>,
    /// Each becomes an Event on its object.
    pub problems: Arc<Vec<Problem>>,
}

/// Writes statuses and Events while this daemon is the leader; returns, with the Lease released, when the sender of
/// `published` is dropped.
///
/// The value that `published` holds at the start must come from a complete list of objects: an Ingress that is missing
/// there loses the addresses that we wrote into its status.
pub async fn run(client: Client, config: Config, published: watch::Receiver<Published>) {
    let (mut candidate, leadership) = Candidate::new(&client, &config);
    tokio::select! {
        () = candidate.campaign() => {}
        () = write(&client, &config, &leadership, published) => {}
    }
    candidate.release().await;
}

/// Writes Events about what one node alone sees, whoever is the leader; returns when the sender of `seen` is dropped.
/// `problems`: those of a value.
pub async fn tell<T: Send + Sync>(
    client: Client,
    config: Config,
    seen: watch::Receiver<T>,
    problems: impl Fn(&T) -> Arc<Vec<Problem>>,
) {
    events::run(&client, &config.identity, None, seen, problems).await;
}

/// Returns when the sender of `published` is dropped.
async fn write(
    client: &Client,
    config: &Config,
    leadership: &Leadership,
    published: watch::Receiver<Published>,
) {
    let problems = |published: &Published| Arc::clone(&published.problems);
    loop {
        let mut closing = published.clone();
        tokio::select! {
            () = leadership.won() => {}
            () = closed(&mut closing) => return,
        }
        tracing::info!(identity = %config.identity, "leader: writing statuses and Events from here on");
        tokio::select! {
            // First, so that a daemon that was paused stops before it writes anything else.
            biased;
            () = leadership.lost() => tracing::warn!(
                identity = %config.identity,
                "leader: the Lease was not renewed in time or is another daemon's; writing nothing until it is ours again"
            ),
            () = closed(&mut closing) => return,
            () = ingress::run(client, &config.field_manager, leadership, published.clone()) => {}
            () = own::run(client, &config.field_manager, leadership, published.clone()) => {}
            () = events::run(client, &config.identity, Some(leadership), published.clone(), problems) => {}
        }
    }
}

/// Why a request failed, for operators: the server's own words, or the whole chain of what went wrong on the way there.
fn why(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => chain(error),
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

async fn closed(published: &mut watch::Receiver<Published>) {
    while published.changed().await.is_ok() {}
}
