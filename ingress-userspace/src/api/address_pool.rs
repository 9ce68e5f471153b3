//! `AddressPool`: addresses from which IngressClasses get their VIPs. `translate::vip` allocates from it.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Addresses that xdp-ingress may use as VIPs. They must be routed to, or on the link of, the cluster's nodes, and
/// belong to nothing else.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "xdp-ingress.io",
    version = "v1alpha1",
    kind = "AddressPool",
    plural = "addresspools",
    shortname = "pool",
    category = "xdp-ingress",
    derive = "PartialEq",
    derive = "Default",
    printcolumn = r#"{"name": "Addresses", "type": "string", "jsonPath": ".spec.addresses"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolSpec {
    /// Single addresses (`192.0.2.10`), ranges (`192.0.2.10-192.0.2.20`) and networks (`192.0.2.0/28`, `2001:db8::/64`),
    /// handed out in this order. A network's first and last IPv4 address and its first IPv6 address are not used: they
    /// mean the network, the broadcast and the router anycast address.
    pub addresses: Vec<String>,
}
