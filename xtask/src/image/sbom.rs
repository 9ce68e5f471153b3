//! The bill of materials of the daemon: `CycloneDX` 1.5, from what Cargo resolved for this target. Without times and
//! random serial numbers, so that the same `Cargo.lock` gives the same bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::process;

/// The crate that the daemon is.
const ROOT: &str = "ingress-userspace";

/// Writes the bill to `path`.
pub(super) fn write(path: &Path) -> Result<()> {
    let verbose = process::output(Command::new("rustc").arg("-vV"))?;
    let host = verbose.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let arguments = ["metadata", "--format-version=1", "--locked", "--filter-platform", host];
    let metadata =
        process::output(process::cargo().args(arguments)).context("asking Cargo what is in the daemon")?;
    let bill = bill(&serde_json::from_str(&metadata)?)?;
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(path, serde_json::to_vec_pretty(&bill)?).with_context(|| format!("writing {}", path.display()))
}

/// What is reached from the daemon over ordinary dependencies: neither those of tests nor build scripts.
fn bill(metadata: &Value) -> Result<Value> {
    let packages: BTreeMap<&str, &Value> =
        list(&metadata["packages"]).iter().filter_map(|it| Some((it["id"].as_str()?, it))).collect();
    let nodes: BTreeMap<&str, &Value> =
        list(&metadata["resolve"]["nodes"]).iter().filter_map(|it| Some((it["id"].as_str()?, it))).collect();
    let root = *packages
        .iter()
        .find(|(_, package)| package["name"] == ROOT)
        .with_context(|| format!("Cargo knows no {ROOT}"))?
        .0;
    let (mut reached, mut open) = (BTreeSet::new(), vec![root]);
    while let Some(id) = open.pop() {
        if reached.insert(id) {
            open.extend(nodes.get(id).into_iter().flat_map(|node| linked(node)));
        }
    }
    let mut components: Vec<Value> = reached
        .iter()
        .filter(|id| **id != root)
        .filter_map(|id| packages.get(id))
        .map(|it| component(it))
        .collect();
    components.sort_by_key(|it| it["purl"].to_string());
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": component(packages[root]) },
        "components": components,
    }))
}

/// The dependencies of a node that end up in the binary.
fn linked(node: &Value) -> impl Iterator<Item = &str> {
    list(&node["deps"])
        .iter()
        .filter(|dep| list(&dep["dep_kinds"]).iter().any(|kind| kind["kind"].is_null()))
        .filter_map(|dep| dep["pkg"].as_str())
}

fn component(package: &Value) -> Value {
    let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
    let purl = format!("pkg:cargo/{}@{}", text("name"), text("version"));
    json!({
        "type": if package["name"] == ROOT { "application" } else { "library" },
        "bom-ref": purl,
        "name": text("name"),
        "version": text("version"),
        "purl": purl,
        // Cargo's old way to write `OR`.
        "licenses": [{ "expression": text("license").replace('/', " OR ") }],
    })
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_linked_is_listed() {
        let package =
            |name: &str| json!({ "id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0" });
        let dep = |name: &str, kind: Value| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let metadata = json!({
            "packages": [package(ROOT), package("a"), package("b"), package("build"), package("test")],
            "resolve": { "nodes": [
                { "id": ROOT, "deps": [dep("a", Value::Null), dep("build", json!("build")), dep("test", json!("dev"))] },
                { "id": "a", "deps": [dep("b", Value::Null)] },
                { "id": "b", "deps": [] },
            ]},
        });
        let bill = bill(&metadata).expect("a bill");
        let names: Vec<_> = list(&bill["components"]).iter().map(|it| it["purl"].clone()).collect();
        assert_eq!(names, ["pkg:cargo/a@1.0.0", "pkg:cargo/b@1.0.0"]);
        assert_eq!(bill["components"][0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(bill["metadata"]["component"]["type"], "application");
    }
}
