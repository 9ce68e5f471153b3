//! The objects of a large cluster, and a client that writes many at once. What a person's `kubectl` would take an hour
//! for goes through the same API, some dozens of requests side by side.

use std::path::Path;

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::{Method, Request};
use ingress_tests::lab::Host;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

/// Endpoints of each Service.
pub(super) const ENDPOINTS_OF_EACH: usize = 20;
const NAMESPACES: usize = 100;
/// Requests under way at once where the order does not matter.
pub(super) const PARALLEL: usize = 48;

/// How many there are.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub(super) ingresses: usize,
    pub(super) services: usize,
}

/// One request: verb, path and body.
pub(super) type Call = (Method, String, Value);

/// Sends `calls` from `host`, so many at once, as the user of that kubeconfig; ends with the first that fails.
pub(super) fn send(
    host: &Host,
    kubeconfig: &Path,
    parallel: usize,
    calls: impl IntoIterator<Item = Call, IntoIter: Send>,
) -> Result<()> {
    let calls = calls.into_iter();
    host.run(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
            let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
            let client = Client::try_from(config)?;
            let answers = stream::iter(calls.map(|call| request(&client, call))).buffer_unordered(parallel);
            answers.try_for_each(|()| async { Ok(()) }).await
        })
    })
}

async fn request(client: &Client, (method, path, body): Call) -> Result<()> {
    let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let what = format!("{method} {path}");
    let request = Request::builder().method(method).uri(path).header("content-type", kind);
    client.request_text(request.body(serde_json::to_vec(&body)?)?).await.map(drop).context(what)
}

/// Everything: namespaces first.
pub(super) fn everything(size: Size) -> [Vec<Call>; 2] {
    let post = |path: String, body: Value| (Method::POST, path, body);
    let namespaces = (0..NAMESPACES).map(|index| {
        let name = namespace(index);
        post("/api/v1/namespaces".to_owned(), json!({ "metadata": { "name": name } }))
    });
    let services = (0..size.services).flat_map(|index| {
        let namespace = namespace(index);
        [
            post(format!("/api/v1/namespaces/{namespace}/services"), service(index)),
            post(
                format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"),
                slice(index, &endpoints(index)),
            ),
        ]
    });
    let ingresses =
        (0..size.ingresses).map(|index| post(ingress_path(index).0, ingress(index, index % size.services)));
    [namespaces.collect(), services.chain(ingresses).collect()]
}

pub(super) fn namespace(index: usize) -> String {
    format!("team-{}", index % NAMESPACES)
}

/// The paths of all Ingresses of its namespace, and its own.
pub(super) fn ingress_path(index: usize) -> (String, String) {
    let all = format!("/apis/networking.k8s.io/v1/namespaces/{}/ingresses", namespace(index));
    let own = format!("{all}/ingress-{index}");
    (all, own)
}

pub(super) fn slice_path(index: usize) -> String {
    format!("/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices/service-{index}-a", namespace(index))
}

/// As a Deployment's Service has them; nobody is there.
pub(super) fn endpoints(service: usize) -> Vec<String> {
    let number = |index: usize| service * ENDPOINTS_OF_EACH + index;
    let address = |n: usize| format!("10.{}.{}.{}", 100 + (n >> 16 & 63), n >> 8 & 255, n & 255);
    (0..ENDPOINTS_OF_EACH).map(|index| address(number(index))).collect()
}

/// With all that the EndpointSlice controller writes.
pub(super) fn slice(index: usize, addresses: &[String]) -> Value {
    let endpoint = |(number, address): (usize, &String)| {
        json!({
            "addresses": [address],
            "conditions": { "ready": true, "serving": true, "terminating": false },
            "nodeName": format!("node-{}", number % 50),
            "targetRef": {
                "kind": "Pod",
                "name": format!("service-{index}-6d4b75cb6d-{number:05}"),
                "namespace": namespace(index),
                "uid": format!("7c9e6679-7425-40de-944b-{:012}", index * 100 + number),
            },
            "zone": "zone-a",
        })
    };
    json!({
        "metadata": {
            "name": format!("service-{index}-a"),
            "annotations": { "endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z" },
            "labels": {
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                "kubernetes.io/service-name": format!("service-{index}"),
            },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        "endpoints": addresses.iter().enumerate().map(endpoint).collect::<Vec<_>>(),
    })
}

fn service(index: usize) -> Value {
    json!({
        "metadata": { "name": format!("service-{index}") },
        "spec": { "ports": [{ "name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP" }] },
    })
}

fn ingress(index: usize, service: usize) -> Value {
    let name = format!("service-{service}");
    let backend = json!({ "service": { "name": name, "port": { "number": 80 } } });
    let path = |path| json!({ "path": path, "pathType": "Prefix", "backend": backend });
    json!({
        "metadata": { "name": format!("ingress-{index}") },
        "spec": {
            "ingressClassName": "xdp",
            "rules": [{
                "host": format!("host-{index}.example.com"),
                "http": { "paths": [path("/"), path("/api")] },
            }],
        },
    })
}
