//! The directory of ordinary manifests that the lab's daemons watch, and the objects that describe the lab in it.
//! Files change as a careful tool changes them: written aside, then renamed.

use std::{
    fmt::Write as _,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{Lab, Node, Pod, tls::Identity, topology};

/// `foo.bar.com/bar` to `service1:80`, `*.foo.com/foo` to `service2:80`.
pub const WILDCARD_HOST: &str = include_str!("examples/wildcard-host.yaml");
/// `app.test.com` to `service1:8080`, `app.prod.com` to `service2:8080`.
pub const TWO_HOSTS: &str = include_str!("examples/two-hosts.yaml");
/// `secure.example.com` with TLS to `service1:80`.
pub const TLS: &str = include_str!("examples/tls.yaml");

/// A directory of manifests.
#[derive(Debug)]
pub struct Manifests {
    dir: PathBuf,
    aside: PathBuf,
}

impl Manifests {
    pub(super) fn create(dir: &Path) -> Result<Self> {
        let aside = dir.with_extension("aside");
        fs::create_dir_all(dir)?;
        fs::create_dir_all(&aside)?;
        Ok(Self { dir: dir.to_owned(), aside })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes the file `name`.yaml, replacing it at once where it exists.
    pub fn write(&self, name: &str, yaml: &str) -> Result<()> {
        let file = format!("{name}.yaml");
        let aside = self.aside.join(&file);
        fs::write(&aside, yaml)?;
        fs::rename(&aside, self.dir.join(&file)).with_context(|| format!("writing {file}"))
    }

    /// Removes the file `name`.yaml.
    pub fn remove(&self, name: &str) -> Result<()> {
        fs::remove_file(self.dir.join(format!("{name}.yaml")))
            .with_context(|| format!("removing {name}.yaml"))
    }
}

impl Lab {
    /// Writes what a cluster would have before any Ingress: class, address pool, nodes, Services, EndpointSlices.
    pub fn declare_cluster(&self) -> Result<()> {
        self.manifests.write("class", &class(self.ipv6))?;
        for node in &self.nodes {
            self.declare_node(node)?;
        }
        for service in &self.services {
            self.manifests.write(service, &service_object(service))?;
            self.declare_endpoints(service, &self.pods_of(service).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Writes the Node object of `node`.
    pub fn declare_node(&self, node: &Node) -> Result<()> {
        self.manifests.write(node.name(), &node_object(node))
    }

    /// Writes the EndpointSlices of `service`: one per IP version, as Kubernetes does.
    pub fn declare_endpoints(&self, service: &str, pods: &[&Pod]) -> Result<()> {
        self.declare_rollout(service, &[], pods)
    }

    /// The same while pods are replaced: those of `ending` are terminating and still serve.
    pub fn declare_rollout(&self, service: &str, ending: &[&Pod], ready: &[&Pod]) -> Result<()> {
        let mut yaml = endpoint_slice(service, "IPv4", ending, ready, IpAddr::is_ipv4);
        if self.ipv6 {
            yaml += "---\n";
            yaml += &endpoint_slice(service, "IPv6", ending, ready, IpAddr::is_ipv6);
        }
        self.manifests.write(&format!("{service}-endpoints"), &yaml)
    }

    /// The VIPs of the lab: IPv4, and IPv6 where the lab has it.
    pub fn vips(&self) -> Vec<IpAddr> {
        topology::addresses(topology::VIP, self.ipv6)
    }
}

/// The `IngressClass`, and the pool with the VIP that its Ingresses share.
fn class(ipv6: bool) -> String {
    let (v4, v6) = topology::VIP;
    let mut addresses = format!("\"{v4}\"");
    if ipv6 {
        let _ = write!(addresses, ", \"{v6}\"");
    }
    format!(
        "apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata:
  name: xdp
spec:
  controller: xdp-ingress.io/controller
---
apiVersion: xdp-ingress.io/v1alpha1
kind: AddressPool
metadata:
  name: default
spec:
  addresses: [{addresses}]
"
    )
}

fn node_object(node: &Node) -> String {
    let mut yaml = format!(
        "apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\n  labels: {{kubernetes.io/hostname: {name}}}\nspec: {{}}\n\
         status:\n  addresses:\n",
        name = node.name()
    );
    for address in node.addresses() {
        let _ = writeln!(yaml, "    - type: InternalIP\n      address: \"{address}\"");
    }
    yaml
}

fn service_object(name: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata:
  name: {name}
  namespace: default
spec:
  ports:
    - name: http
      port: 80
      targetPort: 80
    - name: alternative
      port: 8080
      targetPort: 8080
"
    )
}

fn endpoint_slice(
    service: &str,
    family: &str,
    ending: &[&Pod],
    ready: &[&Pod],
    ours: impl Fn(&IpAddr) -> bool,
) -> String {
    let mut yaml = format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {service}-{}
  namespace: default
  labels:
    kubernetes.io/service-name: {service}
addressType: {family}
ports:
  - name: http
    port: 80
    protocol: TCP
  - name: alternative
    port: 8080
    protocol: TCP
endpoints:
",
        family.to_lowercase()
    );
    if ending.is_empty() && ready.is_empty() {
        yaml = yaml.replace("endpoints:\n", "endpoints: []\n");
    }
    let ending = ending.iter().map(|pod| (pod, "ready: false, serving: true, terminating: true"));
    let ready = ready.iter().map(|pod| (pod, "ready: true, serving: true, terminating: false"));
    for (pod, conditions) in ending.chain(ready) {
        for address in pod.addresses().iter().filter(|address| ours(address)) {
            let _ = writeln!(
                yaml,
                "  - addresses: [\"{address}\"]\n    conditions: {{{conditions}}}\n    nodeName: {}\n    targetRef: {{kind: Pod, \
                 namespace: default, name: {}}}",
                pod.node(),
                pod.name()
            );
        }
    }
    yaml
}

/// A Secret of type `kubernetes.io/tls`.
pub fn tls_secret(name: &str, identity: &Identity) -> String {
    format!(
        "apiVersion: v1
kind: Secret
metadata:
  name: {name}
  namespace: default
type: kubernetes.io/tls
data:
  tls.crt: {}
  tls.key: {}
",
        base64(identity.certificate.as_bytes()),
        base64(identity.key.as_bytes())
    )
}

/// RFC 4648 §4, as Secrets hold their data.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut group = [0; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let group = u32::from_be_bytes(group);
        for place in 0..4 {
            if place <= chunk.len() {
                let index = (group >> (18 - 6 * place)) & 63;
                text.push(char::from(ALPHABET[index as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_of_rfc_4648() {
        let cases = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (plain, encoded) in cases {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }
}
