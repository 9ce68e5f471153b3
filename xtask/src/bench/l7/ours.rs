//! Our side of the bench: the daemon as it ships, as a plain router, with manifests that say what the peers'
//! configurations say.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use ingress_tests::lab::tls::Identity;
use ingress_tests::paths;

use super::load::HOST;
use super::proxies::{Backend, Change, PATHS, Proxy, changed_host, directory};
use super::server::{PROXY_CORE, Server, free_address};

/// A daemon that can be started.
pub(super) struct Ours {
    pub(super) http: SocketAddr,
    https: SocketAddr,
    change: PathBuf,
    pub(super) command: Vec<String>,
}

impl Ours {
    /// Writes its manifests below `name` and chooses its addresses. `hosts`: how many beside the one with everything.
    pub(super) fn prepare(name: &str, backend: &Backend, identity: &Identity, hosts: usize) -> Result<Self> {
        let (http, https, admin) = (free_address()?, free_address()?, free_address()?);
        let directory = directory(name)?;
        let manifests = directory.join("manifests");
        fs::create_dir_all(&manifests)?;
        fs::write(manifests.join("bench.yaml"), manifest(backend, identity, hosts))?;
        let change = manifests.join("change.yaml");
        fs::write(&change, changed_manifest(None))?;
        let command = vec![
            paths::target_dir().join("dist/xdp-ingress").display().to_string(),
            "run".into(),
            "--l4=off".into(),
            "--workers=1".into(),
            "--node-name=bench".into(),
            "--log=warn".into(),
            format!("--source=dir:{}", manifests.display()),
            format!("--state-dir={}", directory.display()),
            format!("--access-log={}", directory.join("access.log").display()),
            format!("--http={http}"),
            format!("--https={https}"),
            format!("--admin={admin}"),
        ];
        Ok(Self { http, https, change, command })
    }

    /// Starts it on the core of the proxies.
    pub(super) fn start(self) -> Result<Proxy> {
        let Self { http, https, change, command } = self;
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let server = Server::start("xdp-ingress", PROXY_CORE, http, &command)?;
        let change = Change { file: change, render: Box::new(changed_manifest), signal: None };
        Ok(Proxy { name: "xdp-ingress", http, https, server, change })
    }
}

/// An Ingress with some paths of the Service `bench`.
fn ingress(name: &str, host: &str, paths: &[String]) -> String {
    let mut text = format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: {name}\n  annotations: \
         {{nginx.ingress.kubernetes.io/ssl-redirect: \"false\", nginx.ingress.kubernetes.io/proxy-body-size: \"0\"}}\nspec:\n  \
         ingressClassName: xdp\n  rules:\n  - host: {host}\n    http:\n      paths:\n"
    );
    for path in paths {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "      - {{path: {path}, pathType: Prefix, backend: {{service: {{name: bench, port: {{number: 80}}}}}}}}"
        );
    }
    text
}

fn changed_manifest(more: Option<usize>) -> String {
    ingress("change", &changed_host(more), &["/".to_owned()])
}

fn manifest(backend: &Backend, identity: &Identity, hosts: usize) -> String {
    let mut text =
        "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: xdp}\nspec: {controller: xdp-ingress.io/controller}\n"
            .to_owned();
    text += &ingress("bench", HOST, &["/".to_owned()]);
    let upgrade = "      - {path: /websocket, pathType: Prefix, backend: {service: {name: websocket, port: {number: 80}}}}\n";
    text += upgrade;
    let _ = writeln!(text, "  tls: [{{hosts: [{HOST}], secretName: bench}}]");
    let paths: Vec<_> = (0..PATHS).map(|path| format!("/path-{path}")).collect();
    for host in 0..hosts {
        text += &ingress(&format!("host-{host}"), &format!("host-{host}.example"), &paths);
    }
    let indent = |pem: &str| pem.trim().replace('\n', "\n    ");
    let _ = writeln!(
        text,
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: bench}}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n    \
         {}\n  tls.key: |\n    {}",
        indent(&identity.certificate),
        indent(&identity.key)
    );
    for (name, address) in [("bench", backend.http), ("websocket", backend.websocket)] {
        let (ip, port) = (address.ip(), address.port());
        let _ = writeln!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{name: http, port: 80, targetPort: \
             {port}}}]}}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, labels: \
             {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\nports: [{{name: http, port: {port}}}]\nendpoints: \
             [{{addresses: [\"{ip}\"], conditions: {{ready: true}}}}]"
        );
    }
    text
}
