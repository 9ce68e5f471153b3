//! Nodes: addresses and whether they shall take new flows. Whether they live is `l4::membership`'s to say.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Node as NodeObject;

use super::problems::Problems;
use crate::model::{Node, NodeIntent, ObjectRef, Reason};
use crate::source::{Objects, Stored as _};

/// `kubectl explain` does not know this well-known label; its presence alone counts, whatever its value.
const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Taints of nodes that are, or will be in a moment, no more: set by administrators, and by the cluster autoscaler (the cloud
/// provider's controllers take such nodes off their load balancers too).
const LEAVING: [&str; 2] = ["node.kubernetes.io/out-of-service", "ToBeDeletedByClusterAutoscaler"];
/// Where a node is.
const ZONE: &str = "topology.kubernetes.io/zone";
/// Share of new flows relative to the other nodes.
const WEIGHT: &str = "xdp-ingress.io/weight";
/// Larger weights would leave the others next to nothing.
const MAX_WEIGHT: u32 = 1000;

/// All nodes, by name.
///
/// Where Kubernetes holds more than half of those that serve for not ready, it is rather its own trouble than theirs, and they
/// all serve on.
pub(super) fn nodes(objects: &Objects, problems: &mut Problems) -> Vec<Node> {
    let mut nodes: Vec<Node> =
        objects.nodes.iter().map(|(_, node)| translate(node, &node.reference(), problems)).collect();
    let count = |intent| nodes.iter().filter(|node| node.intent == intent).count();
    if count(NodeIntent::Avoid) > count(NodeIntent::Serve) {
        for node in nodes.iter_mut().filter(|node| node.intent == NodeIntent::Avoid) {
            node.intent = NodeIntent::Serve;
        }
    }
    nodes
}

/// The zone of a node, by its well-known label.
pub(super) fn zone(objects: &Objects, node: Option<&str>) -> Option<String> {
    let node = objects.nodes.get("", node?)?;
    node.metadata.labels.as_ref()?.get(ZONE).filter(|zone| !zone.is_empty()).cloned()
}

fn translate(node: &NodeObject, reference: &ObjectRef, problems: &mut Problems) -> Node {
    Node {
        name: reference.name.clone(),
        addresses: addresses(node, reference, problems),
        weight: weight(node, reference, problems),
        intent: intent(node),
    }
}

fn intent(node: &NodeObject) -> NodeIntent {
    let spec = node.spec.as_ref();
    let taints = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let drains = spec.and_then(|spec| spec.unschedulable).unwrap_or(false)
        || node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(EXCLUDE))
        || node.metadata.deletion_timestamp.is_some()
        || taints.iter().any(|taint| LEAVING.contains(&&*taint.key));
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let is = |name: &str| conditions.iter().find(|one| one.type_ == name).map(|one| &*one.status);
    // Without the condition nobody has said anything: a manifest.
    let is_ready =
        is("Ready").is_none_or(|status| status == "True") && is("NetworkUnavailable") != Some("True");
    match (drains, is_ready) {
        (true, _) => NodeIntent::Drain,
        (false, false) => NodeIntent::Avoid,
        (false, true) => NodeIntent::Serve,
    }
}

fn addresses(node: &NodeObject, reference: &ObjectRef, problems: &mut Problems) -> Vec<IpAddr> {
    let listed = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    let internal = listed.iter().enumerate().filter(|(_, address)| address.type_ == "InternalIP");
    let mut addresses = Vec::new();
    for (index, entry) in internal {
        match entry.address.parse::<IpAddr>() {
            Ok(address) => addresses.push(address),
            Err(_) => problems.add(
                reference,
                format!("status.addresses[{index}].address"),
                Reason::InvalidValue,
                format!("`{}` is not an IP address; it is left out", entry.address),
                "correct what the node's kubelet reports (--node-ip)",
            ),
        }
    }
    addresses
}

fn weight(node: &NodeObject, reference: &ObjectRef, problems: &mut Problems) -> u32 {
    let Some(text) = node.metadata.annotations.as_ref().and_then(|all| all.get(WEIGHT)) else { return 1 };
    match text.parse() {
        Ok(weight) if weight <= MAX_WEIGHT => weight,
        _ => {
            problems.add(
                reference,
                format!("metadata.annotations[{WEIGHT}]"),
                Reason::InvalidValue,
                format!("`{text}` is not a whole number from 0 to {MAX_WEIGHT}; the weight is 1"),
                "write a number, such as \"2\" for twice the share",
            );
            1
        }
    }
}
