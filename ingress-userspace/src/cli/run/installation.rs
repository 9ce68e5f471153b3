//! Whether this daemon ends because the whole installation is removed. Then nothing of it may stay on the node; at any
//! other end the XDP program stays attached and goes on until the next daemon takes it over.

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use kube::{Api, Client, Error};

/// The API server may be away; then the node waits for its next daemon.
const PATIENCE: Duration = Duration::from_secs(2);

/// Our own `DaemonSet`, as the API server knew it when the daemon started.
pub(super) struct Installation {
    api: Api<DaemonSet>,
    name: String,
}

impl Installation {
    /// Nothing where the daemon may not see it or runs without one: its absence would mean nothing later.
    pub(super) async fn find(client: Client, name: &str) -> Option<Self> {
        let found = Self { api: Api::default_namespaced(client), name: name.to_owned() };
        matches!(found.ask().await, Some(Ok(Some(_)))).then_some(found)
    }

    /// Gone, or about to be. An uninstallation takes our rights too, sooner or later than the `DaemonSet`.
    pub(super) async fn is_removed(&self) -> bool {
        match self.ask().await {
            Some(Ok(Some(set))) => set.metadata.deletion_timestamp.is_some(),
            Some(Ok(None)) => true,
            Some(Err(Error::Api(status))) => matches!(status.code, 401 | 403),
            Some(Err(_)) | None => false,
        }
    }

    async fn ask(&self) -> Option<Result<Option<DaemonSet>, Error>> {
        tokio::time::timeout(PATIENCE, self.api.get_opt(&self.name)).await.ok()
    }
}
