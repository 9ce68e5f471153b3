//! Who asks the API server for what, as its audit log has it: for scenarios that count requests.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::Value;

/// Every request of `ServiceAccount`s and of those that act as one, once, as soon as it is received.
pub(super) const POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [ResponseStarted, ResponseComplete, Panic]
rules:
  - level: Metadata
    userGroups: ['system:serviceaccounts']
  - level: None
";

/// Verb and resource (`list endpointslices`, `patch ingresses/status`) → how often.
pub type Requests = BTreeMap<String, usize>;

/// What `user` has asked for so far.
pub(super) fn requests(log: &Path, user: &str) -> Result<Requests> {
    let text = fs::read_to_string(log).with_context(|| format!("reading {}", log.display()))?;
    let mut requests = Requests::new();
    // A last line without its end is still being written.
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let event: Value = serde_json::from_str(line).context("a line of the audit log")?;
        if event["user"]["username"] != user {
            continue;
        }
        let part = |name: &str| event["objectRef"][name].as_str().unwrap_or_default();
        let mut what = format!("{} {}", event["verb"].as_str().unwrap_or_default(), part("resource"));
        if !part("subresource").is_empty() {
            what = format!("{what}/{}", part("subresource"));
        }
        *requests.entry(what).or_default() += 1;
    }
    Ok(requests)
}
