//! A real Kubernetes API: etcd and kube-apiserver on one host of the lab, with an authority of its own and client
//! certificates. By itself it has no kubelet and no controller: objects that those would write (Nodes' status,
//! EndpointSlices) are applied by the tests. [`Kubernetes`] is the whole: controllers, scheduler and nodes with
//! containers. Everything ends with the value; the lab's guard catches what a crash left.

use std::{
    fs,
    io::Write as _,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    lab::{Host, process::Process},
    paths,
};
use pki::Authority;

mod audit;
mod files;
mod kubernetes;
mod node;
mod pki;

pub use audit::Requests;
pub use files::POD_IMAGE;
pub use kubernetes::{Kubernetes, ProxyMode, command};
pub use node::KubeNode;

/// The API server's port on its host; the host is all its own.
const PORT: u16 = 6443;
/// Addresses of Services, and the first of them: the Service `kubernetes`.
const SERVICE_RANGE: &str = "10.96.0.0/16";
const SERVICE_ADDRESS: &str = "10.96.0.1";
/// How long either server may take; both together take three seconds on an idle machine.
const READY: Duration = Duration::from_mins(1);

/// A running API server with its etcd.
#[derive(Debug)]
pub struct Cluster {
    // In this order: each complains when what it depends on goes first.
    controllers: Vec<Process>,
    api_server: Option<Process>,
    etcd: Process,
    /// Whether there is more than the API: pods use the Service `kubernetes`, and the API server calls kubelets.
    whole: bool,
    host: Host,
    address: IpAddr,
    dir: PathBuf,
    authority: Authority,
    admin: PathBuf,
}

impl Cluster {
    /// Starts both on `host`, which others reach at its first address, and waits until they are ready. Keys, data and
    /// kubeconfigs go below `dir`.
    pub fn start(host: &Host, dir: &Path) -> Result<Self> {
        Self::start_api(host, dir, false)
    }

    /// The same with the controllers and the scheduler.
    pub fn start_whole(host: &Host, dir: &Path) -> Result<Self> {
        let mut cluster = Self::start_api(host, dir, true)?;
        for (program, arguments) in [
            (
                "kube-controller-manager",
                vec![
                    "--use-service-account-credentials=true".to_owned(),
                    format!("--root-ca-file={}", cluster.file("ca.crt")),
                    format!("--service-account-private-key-file={}", cluster.file("service-accounts.key")),
                ],
            ),
            ("kube-scheduler", Vec::new()),
        ] {
            let kubeconfig = cluster.kubeconfig(&format!("system:{program}"), "lab", "default")?;
            let mut command = cluster.host.command(binary(program)?);
            command
                .arg(format!("--kubeconfig={}", kubeconfig.display()))
                // There is one of each: nothing to elect, and a new one starts at once.
                .args(["--leader-elect=false", "--bind-address=127.0.0.1"])
                .args(arguments);
            let process = cluster.host.spawn(program, command)?;
            cluster.controllers.push(process);
        }
        Ok(cluster)
    }

    fn start_api(host: &Host, dir: &Path, whole: bool) -> Result<Self> {
        let dir = dir.join("kubernetes");
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let address = *host.addresses().first().context("the API server's host has no address")?;
        let authority = Authority::new().context("making the cluster's authority")?;
        authority.write_server_files(&dir, address)?;
        fs::write(dir.join("audit-policy.yaml"), audit::POLICY)?;
        let etcd = host.spawn("etcd", etcd_command(host, &dir)?)?;
        let admin = dir.join("admin.kubeconfig");
        let mut cluster = Self {
            controllers: Vec::new(),
            api_server: None,
            etcd,
            whole,
            host: host.clone(),
            address,
            dir,
            authority,
            admin,
        };
        // `system:masters` may do everything without asking RBAC.
        cluster.admin = cluster.kubeconfig("admin", "system:masters", "default")?;
        cluster.start_api_server()?;
        Ok(cluster)
    }

    /// Starts the API server (again) and waits until it is ready.
    pub fn start_api_server(&mut self) -> Result<()> {
        let command = self.api_server_command()?;
        let mut process = self.host.spawn("kube-apiserver", command)?;
        let end = Instant::now() + READY;
        while self.kubectl(&["get", "--raw", "/readyz"]).is_err() {
            if let Some(status) = process.ended() {
                bail!("kube-apiserver ended with {status}; the end of its log:\n{}", process.log_tail());
            }
            if Instant::now() > end {
                bail!("kube-apiserver isn't ready; the end of its log:\n{}", process.log_tail());
            }
            thread::sleep(Duration::from_millis(100));
        }
        self.api_server = Some(process);
        Ok(())
    }

    /// Ends the API server at once, as when its machine dies; etcd keeps the objects.
    pub fn stop_api_server(&mut self) {
        self.api_server = None;
    }

    /// Makes the API server hang (`true`) and go on: connections are accepted by the kernel, and nobody answers.
    pub fn pause_api_server(&self, paused: bool) -> Result<()> {
        let process = self.api_server.as_ref().context("the API server is stopped")?;
        let signal = if paused { Signal::STOP } else { Signal::CONT };
        let id = i32::try_from(process.id()).ok().and_then(Pid::from_raw).context("its process number")?;
        Ok(kill_process(id, signal)?)
    }

    /// Makes etcd forget all versions of objects but the newest, as every cluster does every five minutes.
    pub fn compact(&self) -> Result<()> {
        let ask = |verb: &str, body: &str| -> Result<serde_json::Value> {
            let url = format!("http://127.0.0.1:2379/v3/kv/{verb}");
            let answer =
                self.host.output("curl", &["-sS", "--fail", "--max-time", "10", "-d", body, &url])?;
            serde_json::from_str(&answer).with_context(|| format!("{verb}: {answer}"))
        };
        let newest = ask("range", r#"{"key": "AA=="}"#)?["header"]["revision"].clone();
        ask("compaction", &serde_json::json!({ "revision": newest, "physical": true }).to_string()).map(drop)
    }

    /// A kubeconfig for `user`, who belongs to `group` and means `namespace` where none is named.
    pub fn kubeconfig(&self, user: &str, group: &str, namespace: &str) -> Result<PathBuf> {
        let (certificate, key) = self.authority.client(user, group)?;
        let file = |extension: &str| self.dir.join(format!("{}.{extension}", user.replace(':', "_")));
        let (certificate_file, key_file, kubeconfig) = (file("crt"), file("key"), file("kubeconfig"));
        fs::write(&certificate_file, certificate)?;
        fs::write(&key_file, key)?;
        let server = match self.address {
            IpAddr::V4(address) => format!("https://{address}:{PORT}"),
            IpAddr::V6(address) => format!("https://[{address}]:{PORT}"),
        };
        let text = format!(
            "apiVersion: v1
kind: Config
clusters:
  - name: lab
    cluster:
      server: {server}
      certificate-authority: {}
users:
  - name: {user}
    user:
      client-certificate: {}
      client-key: {}
contexts:
  - name: lab
    context: {{cluster: lab, user: \"{user}\", namespace: {namespace}}}
current-context: lab
",
            self.dir.join("ca.crt").display(),
            certificate_file.display(),
            key_file.display(),
        );
        fs::write(&kubeconfig, text)?;
        Ok(kubeconfig)
    }

    /// What `kubectl` with these arguments prints, as the administrator.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.run_kubectl(arguments, None)
    }

    /// `kubectl apply -f -`. Not server-side: that merges lists by keys which are not unique (a Node's addresses of one
    /// type), and refuses such objects.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        self.run_kubectl(&["apply", "-f", "-"], Some(yaml))
    }

    fn run_kubectl(&self, arguments: &[&str], input: Option<&str>) -> Result<String> {
        let mut command = self.host.command(binary("kubectl")?);
        command
            .args(["--kubeconfig", &self.admin.display().to_string(), "--request-timeout=10s"])
            .args(arguments)
            // Nothing of the user's own configuration and caches is read or written.
            .env("HOME", &self.dir)
            .env_remove("KUBECONFIG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("starting kubectl")?;
        if let (Some(mut pipe), Some(text)) = (child.stdin.take(), input) {
            pipe.write_all(text.as_bytes()).context("writing to kubectl")?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("kubectl {}: {}", arguments.join(" "), said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What the `ServiceAccount` `user` has asked the API server for since that started first.
    pub fn requests_of(&self, user: &str) -> Result<Requests> {
        audit::requests(&self.dir.join("audit.log"), user)
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// The administrator's kubeconfig.
    pub fn admin(&self) -> &Path {
        &self.admin
    }

    /// Leaves it running when this value goes away.
    fn keep(&mut self) {
        self.controllers.iter_mut().chain(self.api_server.as_mut()).for_each(Process::keep);
        self.etcd.keep();
    }

    fn api_server_command(&self) -> Result<Command> {
        let mut command = self.host.command(binary("kube-apiserver")?);
        let file = |name: &str| self.file(name);
        if self.whole {
            let (certificate, key) = self.authority.client("kube-apiserver", "system:masters")?;
            fs::write(self.dir.join("kubelet-client.crt"), certificate)?;
            fs::write(self.dir.join("kubelet-client.key"), key)?;
            command.args([
                format!("--kubelet-client-certificate={}", file("kubelet-client.crt")),
                format!("--kubelet-client-key={}", file("kubelet-client.key")),
                "--kubelet-preferred-address-types=InternalIP".to_owned(),
            ]);
        } else {
            // The Service `kubernetes` in the cluster isn't used: no endpoint of it has to be kept.
            command.arg("--endpoint-reconciler-type=none");
        }
        command.args([
            "--etcd-servers=http://127.0.0.1:2379".to_owned(),
            format!("--secure-port={PORT}"),
            format!("--advertise-address={}", self.address),
            format!("--service-cluster-ip-range={SERVICE_RANGE}"),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--allow-privileged=true".to_owned(),
            format!("--client-ca-file={}", file("ca.crt")),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", file("service-accounts.pub")),
            format!("--service-account-signing-key-file={}", file("service-accounts.key")),
            format!("--cert-dir={}", self.dir.display()),
            format!("--audit-policy-file={}", file("audit-policy.yaml")),
            format!("--audit-log-path={}", file("audit.log")),
        ]);
        Ok(command)
    }
}

/// One member, on 127.0.0.1 of its host, that doesn't wait for the disk.
fn etcd_command(host: &Host, dir: &Path) -> Result<Command> {
    let mut command = host.command(binary("etcd")?);
    let (clients, peers) = ("http://127.0.0.1:2379", "http://127.0.0.1:2380");
    command
        .args(["--name=lab", "--unsafe-no-fsync", "--log-level=warn"])
        .arg(format!("--data-dir={}", dir.join("etcd").display()))
        .args([format!("--listen-client-urls={clients}"), format!("--advertise-client-urls={clients}")])
        .args([format!("--listen-peer-urls={peers}"), format!("--initial-advertise-peer-urls={peers}")])
        .arg(format!("--initial-cluster=lab={peers}"));
    Ok(command)
}

fn binary(name: &str) -> Result<PathBuf> {
    let path = paths::go_bin().join(name);
    if !path.is_file() {
        bail!("{} isn't there: run `cargo xtask setup`", path.display());
    }
    Ok(path)
}
