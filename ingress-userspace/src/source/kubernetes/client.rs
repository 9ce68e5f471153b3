//! The API client: in-cluster configuration or kubeconfig. Used by this source and by `status`.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rustls::crypto::aws_lc_rs;

/// A server that does not answer is tried again soon enough; the kernel alone would wait for two minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client for the API server that the kubeconfig file names; without one: `$KUBECONFIG`, `~/.kube/config`, or what
/// a pod is given.
pub async fn client(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    // kube takes the process's provider. An error means that there is one already.
    let _ = aws_lc_rs::default_provider().install_default();
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("cannot read the kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("cannot use the kubeconfig {}", path.display()))?
        }
        None => Config::infer()
            .await
            .context("no API server is known: run in a pod with a service account, or give --kubeconfig")?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    Client::try_from(config).context("cannot make a client for the API server")
}
