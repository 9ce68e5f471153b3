//! The Helm chart without a cluster: it passes helm's own lint, refuses wrong values, makes what `deploy/manifests` has,
//! and its README says what its values do. `XDP_INGRESS_UPDATE=1` writes the README anew.

use std::{collections::BTreeMap, env, fmt::Write as _, fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail, ensure};
use ingress_tests::paths;
use libtest_mimic::Trial;
use serde_json::Value;

use super::scenario;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        scenario("chart::lint_finds_nothing", lint),
        scenario("chart::wrong_values_are_refused_with_their_names", wrong_values),
        scenario("chart::values_reach_the_objects", values_reach_the_objects),
        scenario("chart::host_paths_are_those_that_the_security_page_names", host_paths),
        scenario("chart::manifests_are_what_the_chart_makes", manifests_are_the_charts),
        scenario("chart::readme_lists_every_value", readme),
    ]
}

fn chart() -> PathBuf {
    paths::workspace().join("deploy/chart")
}

fn helm(arguments: &[&str]) -> Result<String> {
    let output = Command::new(paths::go_bin().join("helm"))
        .args(arguments)
        .current_dir(paths::workspace())
        .env("HOME", paths::xtask_dir())
        .output()
        .context("starting helm; `cargo xtask setup` builds it")?;
    if !output.status.success() {
        bail!("helm {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn template(values: &[&str]) -> Result<BTreeMap<String, Value>> {
    let mut arguments = vec!["template", "xdp-ingress", "deploy/chart", "-n", "xdp-ingress"];
    for value in values {
        arguments.extend(["--set", value]);
    }
    objects(&helm(&arguments)?)
}

/// Kind and name → object, of a stream of YAML documents.
fn objects(yaml: &str) -> Result<BTreeMap<String, Value>> {
    let mut objects = BTreeMap::new();
    for document in yaml.split("\n---") {
        let object: Value = serde_saphyr::from_str(document).with_context(|| document.to_owned())?;
        if let (Some(kind), Some(name)) = (object["kind"].as_str(), object["metadata"]["name"].as_str()) {
            objects.insert(format!("{kind}/{name}"), object.clone());
        }
    }
    Ok(objects)
}

fn lint() -> Result<()> {
    let said = helm(&["lint", "deploy/chart"])?;
    ensure!(said.contains("0 chart(s) failed"), "{said}");
    Ok(())
}

fn wrong_values() -> Result<()> {
    for (value, named) in [
        ("interfaces=", "interfaces"),
        ("xdpMode=fast", "xdpMode"),
        ("gracePeriodSeconds=-1", "gracePeriodSeconds"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("unknown=1", "unknown"),
        ("extraEnv.lower=1", "lower"),
    ] {
        let Err(error) = template(&[value]) else { bail!("{value} should be refused") };
        ensure!(format!("{error:#}").contains(named), "{value}: {error:#}");
    }
    Ok(())
}

fn values_reach_the_objects() -> Result<()> {
    let objects = template(&[
        "interfaces={eth1,eth2}",
        "ingressClass.name=front",
        "ingressClass.default=true",
        "gracePeriodSeconds=7",
        "membership.existingSecret=mine",
        "addressPool.addresses={192.0.2.1}",
        "image.tag=x",
    ])?;
    let set = &objects["DaemonSet/xdp-ingress"]["spec"]["template"]["spec"];
    let container = &set["containers"][0];
    let env = |name: &str| {
        let all = container["env"].as_array().into_iter().flatten();
        all.filter(|it| it["name"] == name).map(|it| it["value"].clone()).next().unwrap_or_default()
    };
    ensure!(env("XDP_INGRESS_INTERFACE") == "eth1,eth2" && env("XDP_INGRESS_INGRESS_CLASS") == "front");
    ensure!(env("XDP_INGRESS_GRACE_PERIOD") == "7s" && set["terminationGracePeriodSeconds"] == 37);
    ensure!(container["image"].as_str().is_some_and(|image| image.ends_with(":x")));
    ensure!(!objects.keys().any(|key| key.starts_with("Secret/")), "a Secret beside the existing one");
    ensure!(objects["AddressPool/default"]["spec"]["addresses"][0] == "192.0.2.1");
    let class = &objects["IngressClass/front"]["metadata"]["annotations"];
    ensure!(class["ingressclass.kubernetes.io/is-default-class"] == "true");
    // With hostNetwork a declared port would be reserved on the node, and keep a second pod from it.
    ensure!(container["ports"].is_null(), "{}", container["ports"]);
    Ok(())
}

fn host_paths() -> Result<()> {
    let objects = template(&[])?;
    let set = &objects["DaemonSet/xdp-ingress"]["spec"]["template"]["spec"];
    let volumes = set["volumes"].as_array().into_iter().flatten();
    let mut used: Vec<_> = volumes.filter_map(|volume| volume["hostPath"]["path"].as_str()).collect();
    used.sort_unstable();
    let page = fs::read_to_string(paths::workspace().join("docs/security.md"))?;
    let mut named: Vec<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `/")?.split_once('`'))
        .map(|(path, _)| format!("/{path}"))
        .collect();
    named.sort_unstable();
    ensure!(!used.is_empty() && used == named, "the chart has {used:?}, docs/security.md names {named:?}");
    Ok(())
}

fn manifests_are_the_charts() -> Result<()> {
    let mut ours = BTreeMap::new();
    for entry in fs::read_dir(paths::workspace().join("deploy/manifests"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            ours.extend(objects(&fs::read_to_string(&path)?)?);
        }
    }
    let mut charts = template(&[])?;
    // helm makes the one with --create-namespace; the key of the other is random, and made by hand without helm.
    ours.remove("Namespace/xdp-ingress").context("deploy/manifests has a Namespace")?;
    charts.remove("Secret/xdp-ingress-membership").context("the chart makes the key")?;
    for object in ours.values_mut().chain(charts.values_mut()) {
        // Those that only tell who made it.
        object["metadata"]["labels"] = Value::Null;
    }
    let names = |objects: &BTreeMap<String, Value>| objects.keys().cloned().collect::<Vec<_>>();
    ensure!(names(&ours) == names(&charts), "manifests: {:?}\nchart: {:?}", names(&ours), names(&charts));
    for (name, object) in &ours {
        ensure!(*object == charts[name], "{name} differs\nmanifests: {object:#}\nchart: {:#}", charts[name]);
    }
    Ok(())
}

const README: &str = "# Helm chart

```sh
helm install xdp-ingress deploy/chart -n xdp-ingress --create-namespace \\
  --set 'addressPool.addresses={192.0.2.10-192.0.2.20}'
```

The addresses become VIPs: they must be free, and on the link of the nodes or routed to them. `interfaces` names the
uplinks of the nodes. The custom resources are installed with the chart; helm never changes or removes them: before an
upgrade run `kubectl apply --server-side -f deploy/crds`, and after `helm uninstall` `kubectl delete -f deploy/crds`.

The namespace must admit pods with `hostNetwork` and `hostPath` (Pod Security level `privileged`):
`kubectl label namespace xdp-ingress pod-security.kubernetes.io/enforce=privileged`.

## Values

| Value | Default | What it does |
|---|---|---|
";

fn readme() -> Result<()> {
    let mut text = README.to_owned();
    let values = fs::read_to_string(chart().join("values.yaml"))?;
    let parsed: Value = serde_saphyr::from_str(&values)?;
    for (path, says) in documented(&values) {
        let pointer = format!("/{}", path.replace('.', "/"));
        let default =
            parsed.pointer(&pointer).with_context(|| format!("{path} is documented but not there"))?;
        // What is in it has rows of its own.
        let has_rows = default.as_object().is_some_and(|map| !map.is_empty()) && path == "image";
        if !has_rows {
            writeln!(text, "| `{path}` | `{default}` | {says} |")?;
        }
    }
    let file = chart().join("README.md");
    if env::var_os("XDP_INGRESS_UPDATE").is_some() {
        fs::write(&file, &text)?;
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    ensure!(
        found == text,
        "deploy/chart/README.md is not what values.yaml says: run with XDP_INGRESS_UPDATE=1"
    );
    Ok(())
}

/// Path of a value and its comment, which begins with `# --`.
fn documented(values: &str) -> Vec<(String, String)> {
    let (mut found, mut parents, mut comment) = (Vec::new(), Vec::<(usize, String)>::new(), String::new());
    for line in values.lines() {
        let (indent, trimmed) = (line.len() - line.trim_start().len(), line.trim());
        if let Some(begin) = trimmed.strip_prefix("# --") {
            begin.trim().clone_into(&mut comment);
        } else if let (Some(more), false) = (trimmed.strip_prefix('#'), comment.is_empty()) {
            comment = format!("{comment} {}", more.trim());
        } else if let Some((key, _)) = trimmed.split_once(':').filter(|_| !trimmed.starts_with('-')) {
            parents.retain(|(depth, _)| *depth < indent);
            parents.push((indent, key.to_owned()));
            if !comment.is_empty() {
                let path: Vec<&str> = parents.iter().map(|(_, key)| key.as_str()).collect();
                found.push((path.join("."), std::mem::take(&mut comment)));
            }
        }
    }
    found
}
