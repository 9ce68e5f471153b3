//! The configuration of a node's containerd, CNI and kubelet, as text. Pure. Paths are the usual ones of a node: each
//! node has a mount namespace in which they are its own.

use std::path::Path;

/// containerd's configuration and socket.
pub(super) const CONTAINERD_CONFIG: &str = "/run/containerd.toml";
pub(super) const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
/// The kubelet's configuration.
pub(super) const KUBELET_CONFIG: &str = "/run/kubelet.yaml";
/// How a node's pods are connected.
pub(super) const CNI_CONFIG: &str = "/etc/cni/net.d/10-lab.conflist";

/// What holds a pod's namespaces open: the image of the backends, which sleeps when it is asked for nothing.
pub const POD_IMAGE: &str = "xdp-ingress.test/pod:1";

pub(super) fn containerd() -> String {
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{POD_IMAGE}"
  # Lowering a score takes a right that containers, and many test machines, lack.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"#
    )
}

/// Pods of `range`, each on a veth pair of its own with the node as its gateway.
pub(super) fn cni(range: &str) -> String {
    format!(
        r#"{{"cniVersion": "0.4.0", "name": "lab", "plugins": [{{
  "type": "ptp", "ipMasq": false,
  "ipam": {{"type": "host-local", "ranges": [[{{"subnet": "{range}"}}]], "routes": [{{"dst": "0.0.0.0/0"}}]}}
}}]}}
"#
    )
}

pub(super) fn kubelet(authority: &Path, cgroup: &str) -> String {
    format!(
        r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: false}}
  x509: {{clientCAFile: {}}}
authorization: {{mode: AlwaysAllow}}
containerRuntimeEndpoint: unix://{CONTAINERD_SOCKET}
cgroupDriver: cgroupfs
cgroupRoot: /{cgroup}
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
localStorageCapacityIsolation: false
makeIPTablesUtilChains: false
oomScoreAdj: 0
resolvConf: ""
# Whether somebody answers there is the scenarios' business.
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
# The disk is the machine's, and how full it is no matter of the test.
imageGCHighThresholdPercent: 100
evictionHard: {{memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%", imagefs.inodesFree: "0%"}}
"#,
        authority.display()
    )
}
