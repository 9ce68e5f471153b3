//! The API client: in-cluster configuration or kubeconfig. Used by this source and by `status`. An API server that dies
//! without a word must be noticed: a watch only listens, and nothing else would ever tell.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rustls::crypto::aws_lc_rs;
use tower::retry::RetryLayer;
use tower::{BoxError, ServiceBuilder};

/// A server that does not answer is tried again soon enough; the kernel alone would wait for two minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A watch says something once a minute at least: its bookmarks.
const SILENCE: Duration = Duration::from_secs(90);
/// A connection without traffic is probed after so long, so often, so many times: a machine that is gone is noticed after 25
/// seconds, one that came back without its memory at the first probe.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(10), Duration::from_secs(5), 3);
/// The same for what was sent and not acknowledged.
const UNACKNOWLEDGED: Duration = Duration::from_secs(25);
/// Throttled requests (429, 503, 504) are repeated as the server says, at least after the first and at most the second, so many
/// times; then whoever asked waits.
const RETRY: (Duration, Duration, u32) = (Duration::from_millis(200), Duration::from_secs(5), 3);

/// A client for the API server that the kubeconfig file names; without one: `$KUBECONFIG`, `~/.kube/config`, or what
/// a pod is given.
pub async fn client(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    // kube takes the process's provider. An error means that there is one already.
    let _ = aws_lc_rs::default_provider().install_default();
    let config = match kubeconfig {
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
    build(config).context("cannot make a client for the API server")
}

/// What `Client::try_from` makes, with our own patience: it neither probes connections nor bounds its retries.
fn build(config: Config) -> anyhow::Result<Client> {
    anyhow::ensure!(
        config.proxy_url.is_none(),
        "proxies are not supported: leave `proxy-url` out of the kubeconfig, and HTTPS_PROXY out of the environment"
    );
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_keepalive(Some(KEEPALIVE.0));
    tcp.set_keepalive_interval(Some(KEEPALIVE.1));
    tcp.set_keepalive_retries(Some(KEEPALIVE.2));
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(tcp)?);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_read_timeout(Some(SILENCE));
    connector.set_write_timeout(Some(SILENCE));
    let http = legacy::Builder::new(TokioExecutor::new()).build::<_, Body>(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(RetryLayer::new(RetryPolicy::new(RETRY.0, RETRY.1, RETRY.2, true)?))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}
