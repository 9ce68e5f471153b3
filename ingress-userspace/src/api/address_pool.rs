//! `AddressPool`: addresses from which IngressClasses get their VIPs. `translate::vip` allocates from it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::status::{Condition, conditions};

/// Addresses that xdp-ingress may use as VIPs. They must be routed to, or on the link of, the cluster's nodes, and
/// belong to nothing else.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "xdp-ingress.io",
    version = "v1alpha1",
    kind = "AddressPool",
    plural = "addresspools",
    shortname = "pool",
    category = "xdp-ingress",
    status = "AddressPoolStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn = r#"{"name": "Addresses", "type": "string", "jsonPath": ".spec.addresses"}"#,
    printcolumn = r#"{"name": "Auto", "type": "boolean", "jsonPath": ".spec.autoAssign"}"#,
    printcolumn = r#"{"name": "Size", "type": "integer", "jsonPath": ".status.size"}"#,
    printcolumn = r#"{"name": "Used", "type": "integer", "jsonPath": ".status.used"}"#,
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].status"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolSpec {
    /// Single addresses (`192.0.2.10`), ranges (`192.0.2.10-192.0.2.20`) and networks (`192.0.2.0/28`, `2001:db8::/64`),
    /// handed out in this order. A network's first and last IPv4 address and its first IPv6 address are not used: they
    /// mean the network, the broadcast and the router anycast address.
    #[schemars(schema_with = "addresses")]
    pub addresses: Vec<String>,
    /// Whether classes that name no pool get their addresses here: from the pool `default` first, then from the oldest.
    #[serde(default = "yes")]
    pub auto_assign: bool,
    /// Names of the namespaces whose Ingresses may have addresses of this pool (annotations `xdp-ingress.io/address` and
    /// `xdp-ingress.io/address-pool`), besides those that `namespaceSelectors` select; without both: all. A pool for some
    /// Ingresses only is no class's unless its parameters name it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "namespaces")]
    pub namespaces: Vec<String>,
    /// Namespaces by their labels: those that one of these selectors matches. The daemon needs the right to list and watch
    /// namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::selector::selectors")]
    pub namespace_selectors: Vec<LabelSelector>,
    /// Which Ingresses of these namespaces may, by their labels: those that one of these selectors matches; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::selector::selectors")]
    pub ingress_selectors: Vec<LabelSelector>,
    /// Which nodes may answer for its addresses (ARP, neighbour discovery): those with labels that one of these selectors
    /// matches; empty: all. While none of them lives, nobody answers. Every node serves what arrives, selected or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::selector::selectors")]
    pub node_selectors: Vec<LabelSelector>,
    /// Names of the uplinks on which a node answers for its addresses, of those that `--interface` names; empty: all. A node
    /// that has none of them must be left out by `nodeSelectors`: it would not answer where it should.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "interfaces")]
    pub interfaces: Vec<String>,
}

/// What is used of a pool. It is also where allocations are kept: a class keeps its address for as long as it is written
/// here and is in the pool, whatever happens to daemons, leaders and other classes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolStatus {
    /// How many addresses it has (at most 9,007,199,254,740,991 is shown).
    #[serde(default)]
    #[schemars(schema_with = "count")]
    pub size: u64,
    /// How many of them are VIPs.
    #[serde(default)]
    #[schemars(schema_with = "count")]
    pub used: u64,
    /// Who has which.
    #[serde(default)]
    pub allocations: Vec<Allocation>,
    /// `Ready`: it has addresses, and all who asked for one have one.
    #[serde(default)]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// One address of a pool that is a VIP.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Allocation {
    /// The address.
    pub address: String,
    /// Name of the `IngressClass` that has it; empty: an Ingress has it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ingress_class: String,
    /// `namespace/name` of the Ingress that has it for itself; empty: a class has it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ingress: String,
}

fn yes() -> bool {
    true
}

/// What the API server refuses at once; overlaps with other pools are found later.
fn addresses(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": 64,
        "items": {
            "type": "string",
            "maxLength": 96,
            "x-kubernetes-validations": [{
                "rule": "isIP(self) || isCIDR(self) || (self.split('-').size() == 2 && isIP(self.split('-')[0].trim()) && isIP(self.split('-')[1].trim()))",
                "message": "must be an address, FIRST-LAST or NETWORK/BITS",
            }],
        },
    })
}

fn namespaces(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "array",
        "maxItems": 256,
        "items": { "type": "string", "minLength": 1, "maxLength": 63 },
    })
}

/// As the kernel allows interfaces to be called.
fn interfaces(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "array",
        "maxItems": 8,
        "items": { "type": "string", "minLength": 1, "maxLength": 15, "pattern": "^[^/\\s]+$" },
    })
}

fn count(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({ "type": "integer", "format": "int64", "minimum": 0 })
}
