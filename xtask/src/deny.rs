//! The supply chain rules of `deny.toml` (cargo-deny's format), checked offline over `cargo metadata`: licences,
//! banned crates, sources, duplicates. cargo-deny does more (advisories) but takes minutes to install; this is what
//! every CI run can afford. `ci` calls it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use toml_edit::{DocumentMut, Item, Table};

use crate::{process, report};
use ingress_tests::paths;

mod spdx;

/// What `deny.toml` says, as far as we check it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Policy {
    licences: BTreeSet<String>,
    /// More licences for one crate.
    exceptions: BTreeMap<String, BTreeSet<String>>,
    /// Crate and reason.
    banned: BTreeMap<String, String>,
    duplicates_fail: bool,
}

/// A package as `cargo metadata` describes it.
#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

/// What was found: `errors` fail, `warnings` are only shown.
#[derive(Debug, Default, PartialEq, Eq)]
struct Findings {
    errors: Vec<String>,
    warnings: Vec<String>,
}

pub(crate) fn run() -> Result<()> {
    let file = paths::workspace().join("deny.toml");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let policy = Policy::parse(&text).context("deny.toml")?;
    let packages = used_packages()?;
    let findings = check(&policy, &packages);
    for warning in &findings.warnings {
        report::note(warning);
    }
    for error in &findings.errors {
        report::missing("deny.toml", error);
    }
    if !findings.errors.is_empty() {
        bail!("{} of the rules in deny.toml broken", findings.errors.len());
    }
    report::note(&format!("{} crates: licences, bans and sources are as deny.toml wants", packages.len()));
    Ok(())
}

/// The packages that a build can really contain, on any target. `cargo metadata` alone also lists crates behind
/// features nobody turns on (`dep?/feature`); `cargo tree` resolves features exactly but knows no sources.
fn used_packages() -> Result<Vec<Package>> {
    let metadata = process::output(process::cargo().args(["metadata", "--format-version", "1", "--locked"]))?;
    let metadata: Metadata = serde_json::from_str(&metadata).context("cargo metadata")?;
    let tree = ["tree", "--workspace", "--target", "all", "--edges", "all", "--prefix", "none", "--locked"];
    let tree = process::output(process::cargo().args(tree).args(["--format", "{p}"]))?;
    let used: BTreeSet<(String, String)> = tree.lines().filter_map(name_and_version).collect();
    let is_used = |package: &Package| used.contains(&(package.name.clone(), package.version.clone()));
    Ok(metadata.packages.into_iter().filter(is_used).collect())
}

/// `serde v1.0.229 (proc-macro)` → (`serde`, `1.0.229`).
fn name_and_version(line: &str) -> Option<(String, String)> {
    let mut words = line.split_whitespace();
    Some((words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned()))
}

impl Policy {
    fn parse(text: &str) -> Result<Self> {
        let document: DocumentMut = text.parse()?;
        let licences = table(&document, "licenses")?;
        let bans = table(&document, "bans")?;
        let exceptions = licences.get("exceptions").and_then(Item::as_array_of_tables);
        let exceptions = exceptions.into_iter().flatten().filter_map(|exception| {
            Some((exception.get("crate")?.as_str()?.to_owned(), strings(exception.get("allow"))))
        });
        let banned = bans.get("deny").and_then(Item::as_array).context("[bans] has no list `deny`")?;
        let banned = banned.iter().filter_map(toml_edit::Value::as_inline_table).filter_map(|ban| {
            let reason = ban.get("reason").and_then(toml_edit::Value::as_str).unwrap_or("banned");
            Some((ban.get("crate")?.as_str()?.to_owned(), reason.to_owned()))
        });
        let sources = table(&document, "sources")?;
        for rule in ["unknown-registry", "unknown-git"] {
            if sources.get(rule).and_then(Item::as_str) != Some("deny") {
                bail!("[sources] must deny {rule}: nothing else is checked");
            }
        }
        Ok(Self {
            licences: strings(licences.get("allow")),
            exceptions: exceptions.collect(),
            banned: banned.collect(),
            duplicates_fail: bans.get("multiple-versions").and_then(Item::as_str) == Some("deny"),
        })
    }

    fn allows(&self, package: &Package, licence: &str) -> bool {
        self.licences.contains(licence)
            || self.exceptions.get(&package.name).is_some_and(|more| more.contains(licence))
    }
}

fn table<'a>(document: &'a DocumentMut, name: &str) -> Result<&'a Table> {
    document.get(name).and_then(Item::as_table).with_context(|| format!("no table [{name}]"))
}

fn strings(item: Option<&Item>) -> BTreeSet<String> {
    let array = item.and_then(Item::as_array).into_iter().flatten();
    array.filter_map(|value| value.as_str().map(str::to_owned)).collect()
}

/// The registry's own name for itself in Cargo's metadata; anything else is a git repository or another registry.
fn is_crates_io(source: &str) -> bool {
    source.starts_with("registry+") && source.ends_with("/crates.io-index")
        || source.starts_with("sparse+") && source.contains("crates.io")
}

fn check(policy: &Policy, packages: &[Package]) -> Findings {
    let mut findings = Findings::default();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages {
        let Package { name, version, .. } = package;
        versions.entry(name).or_default().insert(version);
        if let Some(reason) = policy.banned.get(name) {
            findings.errors.push(format!("{name} {version} is banned: {reason}"));
        }
        if let Some(source) = package.source.as_deref().filter(|source| !is_crates_io(source)) {
            findings.errors.push(format!("{name} {version} comes from {source}, not from crates.io"));
        }
        let Some(licence) = &package.license else {
            findings.errors.push(format!("{name} {version} names no licence"));
            continue;
        };
        match spdx::satisfied(licence, |licence| policy.allows(package, licence)) {
            Ok(true) => {}
            Ok(false) => findings.errors.push(format!("{name} {version}: `{licence}` is not on the list")),
            Err(error) => findings.errors.push(format!("{name} {version}: `{licence}`: {error}")),
        }
    }
    for (name, versions) in versions.iter().filter(|(_, versions)| versions.len() > 1) {
        let versions: Vec<_> = versions.iter().copied().collect();
        let line = format!("{name} is there {} times: {}", versions.len(), versions.join(", "));
        if policy.duplicates_fail { findings.errors.push(line) } else { findings.warnings.push(line) }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"
        [licenses]
        allow = ["MIT", "Apache-2.0"]
        [[licenses.exceptions]]
        crate = "kernel-side"
        allow = ["GPL-2.0-only"]
        [bans]
        multiple-versions = "warn"
        deny = [{ crate = "openssl", reason = "rustls" }]
        [sources]
        unknown-registry = "deny"
        unknown-git = "deny"
    "#;

    const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

    fn package(name: &str, license: &str, source: &str) -> Package {
        Package {
            name: name.into(),
            version: "1.0.0".into(),
            license: Some(license.into()),
            source: Some(source.into()),
        }
    }

    fn errors(package: Package) -> Vec<String> {
        check(&Policy::parse(POLICY).expect("a policy"), &[package]).errors
    }

    #[test]
    fn allowed_crates_pass() {
        assert_eq!(errors(package("serde", "MIT OR GPL-3.0", CRATES_IO)), Vec::<String>::new());
        assert_eq!(errors(package("kernel-side", "GPL-2.0-only AND MIT", CRATES_IO)), Vec::<String>::new());
    }

    #[test]
    fn a_licence_off_the_list_fails_and_so_does_none() {
        assert_eq!(errors(package("x", "GPL-2.0-only", CRATES_IO)).len(), 1);
        let mut nameless = package("x", "", CRATES_IO);
        nameless.license = None;
        assert_eq!(errors(nameless).len(), 1);
    }

    #[test]
    fn bans_and_foreign_sources_fail() {
        assert_eq!(errors(package("openssl", "MIT", CRATES_IO)), ["openssl 1.0.0 is banned: rustls"]);
        assert_eq!(errors(package("x", "MIT", "git+https://example.org/x?rev=1#1")).len(), 1);
    }

    #[test]
    fn duplicates_warn_or_fail_as_the_policy_says() {
        let twice = [
            package("x", "MIT", CRATES_IO),
            Package { version: "2.0.0".into(), ..package("x", "MIT", CRATES_IO) },
        ];
        let mut policy = Policy::parse(POLICY).expect("a policy");
        assert_eq!(check(&policy, &twice).warnings, ["x is there 2 times: 1.0.0, 2.0.0"]);
        policy.duplicates_fail = true;
        assert_eq!(check(&policy, &twice).errors.len(), 1);
    }

    #[test]
    fn cargo_tree_lines_are_read() {
        let read = name_and_version("serde_derive v1.0.229 (proc-macro) (*)");
        assert_eq!(read, Some(("serde_derive".into(), "1.0.229".into())));
        assert_eq!(name_and_version(""), None);
    }

    #[test]
    fn our_own_policy_is_understood_whole() {
        let text = std::fs::read_to_string(paths::workspace().join("deny.toml")).expect("deny.toml");
        let policy = Policy::parse(&text).expect("a policy");
        assert!(policy.licences.contains("Apache-2.0"));
        assert!(policy.banned.contains_key("ring"));
        assert!(policy.exceptions.contains_key("ingress-common"));
    }
}
