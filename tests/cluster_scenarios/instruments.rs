//! The cluster itself, without the product: it keeps what is applied, over a restart of the API server too, and says
//! no to strangers. The other scenarios mean something only because of this.

use anyhow::{Result, ensure};
use ingress_tests::{
    cluster::Cluster,
    lab::{Lab, manifests::TWO_HOSTS},
};
use libtest_mimic::Trial;

use super::scenario;

pub(super) fn trials() -> Vec<Trial> {
    vec![scenario("instruments::the_api_server_keeps_objects_over_a_restart", keeps_objects)]
}

fn keeps_objects() -> Result<()> {
    let lab = Lab::builder("kapi").nodes(0).clients(2).build()?;
    let mut cluster = Cluster::start(lab.client(1), lab.dir())?;
    cluster.apply(TWO_HOSTS)?;

    // From another host, as a user without rights: the certificate is known, RBAC decides.
    let stranger = cluster.kubeconfig("stranger", "nobody", "default")?;
    let stranger = stranger.display().to_string();
    let ask = |kubeconfig: &str| {
        let kubectl = ingress_tests::paths::go_bin().join("kubectl");
        let kubectl = kubectl.display().to_string();
        let arguments = ["--kubeconfig", kubeconfig, "--request-timeout=5s", "get", "ingresses"];
        lab.client(0).output(&kubectl, &arguments)
    };
    let refused = ask(&stranger).err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(refused.contains("forbidden"), "a stranger was answered otherwise: {refused}");

    cluster.stop_api_server();
    ensure!(cluster.kubectl(&["get", "ingresses"]).is_err(), "a stopped API server answers");
    cluster.start_api_server()?;
    let names = cluster.kubectl(&["get", "ingresses", "--output=name"])?;
    ensure!(names.trim() == "ingress.networking.k8s.io/two-hosts", "{names}");
    Ok(())
}
