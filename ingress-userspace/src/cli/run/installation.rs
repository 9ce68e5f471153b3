//! Whether this daemon ends because the whole installation is removed. Then nothing of it may stay on the node; at any
//! other end the XDP program stays attached and goes on until the next daemon takes it over.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client, Error};
use tokio::sync::watch;

/// The API server may be away; then the node waits for its next daemon.
const PATIENCE: Duration = Duration::from_secs(2);

/// Our own `DaemonSet`, watched from the daemon's start on.
pub(super) struct Installation {
    api: Api<DaemonSet>,
    name: String,
    is_removed: watch::Receiver<bool>,
}

impl Installation {
    /// Nothing where the daemon may not see it or runs without one: its absence would mean nothing later.
    pub(super) async fn find(client: Client, name: &str) -> Option<Self> {
        let api = Api::default_namespaced(client);
        matches!(ask(&api, name).await, Some(Ok(Some(_)))).then(|| {
            let (removed, is_removed) = watch::channel(false);
            tokio::spawn(follow(api.clone(), name.to_owned(), removed));
            Self { api, name: name.to_owned(), is_removed }
        })
    }

    /// Gone, or about to be. That we may not ask any more (401, 403) says nothing: an uninstallation takes our rights, too,
    /// but so does a pod that is deleted by force, at whose place another one stands already. There the watch knows.
    pub(super) async fn is_removed(&self) -> bool {
        match ask(&self.api, &self.name).await {
            Some(Ok(set)) => is_ending(set.as_ref()),
            Some(Err(_)) | None => *self.is_removed.borrow(),
        }
    }
}

async fn ask(api: &Api<DaemonSet>, name: &str) -> Option<Result<Option<DaemonSet>, Error>> {
    tokio::time::timeout(PATIENCE, api.get_opt(name)).await.ok()
}

fn is_ending(set: Option<&DaemonSet>) -> bool {
    set.is_none_or(|set| set.metadata.deletion_timestamp.is_some())
}

/// A watch goes on when the rights that it began with are gone. Ends with the [`Installation`].
async fn follow(api: Api<DaemonSet>, name: String, removed: watch::Sender<bool>) {
    let mut states = pin!(watch_object(api, &name).default_backoff());
    let told = async {
        while let Some(state) = states.next().await {
            // A watch that broke begins anew.
            if let Ok(set) = state {
                removed.send_replace(is_ending(set.as_ref()));
            }
        }
    };
    tokio::select! {
        () = told => {}
        () = removed.closed() => {}
    }
}
