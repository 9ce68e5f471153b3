//! Label selectors of our own resources.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt as _};

use super::problems::Problems;
use crate::model::{ObjectRef, Reason};

/// Those of a list that make sense; the others match nothing, and are named.
pub(super) fn parse(
    list: &[LabelSelector],
    reference: &ObjectRef,
    field: &str,
    problems: &mut Problems,
) -> Vec<Selector> {
    let mut selectors = Vec::new();
    for (index, selector) in list.iter().enumerate() {
        match Selector::try_from(selector.clone()) {
            Ok(selector) => selectors.push(selector),
            Err(error) => problems.add(
                reference,
                format!("{field}[{index}]"),
                Reason::InvalidValue,
                format!("it is no label selector, so it matches nothing: {error}"),
                "write matchLabels, or matchExpressions with an operator of In, NotIn, Exists, DoesNotExist",
            ),
        }
    }
    selectors
}

/// Whether one of them matches.
pub(super) fn matches(selectors: &[Selector], labels: Option<&BTreeMap<String, String>>) -> bool {
    let none = BTreeMap::new();
    let labels = labels.unwrap_or(&none);
    selectors.iter().any(|selector| selector.matches(labels))
}
