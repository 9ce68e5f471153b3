//! `IngressClassParameters`: what an IngressClass of ours says in `spec.parameters`. `translate::vip` reads it.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::status::{Condition, conditions};

/// VIPs and ports of an IngressClass. Without it a class gets one address of each IP version from the AddressPool
/// `default`, or from the only one, and the ports 80 and 443.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "xdp-ingress.io",
    version = "v1alpha1",
    kind = "IngressClassParameters",
    plural = "ingressclassparameters",
    category = "xdp-ingress",
    status = "IngressClassParametersStatus",
    derive = "PartialEq",
    derive = "Default",
    shortname = "xdpparams",
    printcolumn = r#"{"name": "VIPs", "type": "string", "jsonPath": ".status.vips"}"#,
    printcolumn = r#"{"name": "Pool", "type": "string", "jsonPath": ".spec.pool"}"#,
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].status"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct IngressClassParametersSpec {
    /// The addresses at which clients reach this class. Wins over `pool`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "vips")]
    pub vips: Vec<String>,
    /// Name of the AddressPool from which one address of each IP version is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Ports for plain HTTP; 80 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "ports")]
    pub http_ports: Option<Vec<u16>>,
    /// Ports for HTTPS; 443 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "ports")]
    pub https_ports: Option<Vec<u16>>,
    /// Annotations (`nginx.ingress.kubernetes.io/…`) that each Ingress of the class has, unless it has them itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "annotations")]
    pub annotations: BTreeMap<String, String>,
    /// Options by the names that they have in ingress-nginx's `ConfigMap` (`hsts`, `use-forwarded-headers`, ...), for
    /// all Ingresses and VIPs of the class. `docs/options.md` lists them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "options")]
    pub options: BTreeMap<String, String>,
    /// Who may connect to these VIPs, and how often. Decided in XDP, before the node's TCP stack sees anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection: Option<ProtectionSpec>,
}

/// Who may connect to the VIPs of a class, and how often.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProtectionSpec {
    /// Addresses and networks that are served; all others are not. Absent: everybody is. What
    /// `loadBalancerSourceRanges` is for a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_networks")]
    pub allow: Option<Vec<String>>,
    /// Addresses and networks that are not served, whatever `allow` says. Their established connections end too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "networks")]
    pub deny: Vec<String>,
    /// New connections of one source: of an IPv4 address, or of an IPv6 network of 64 bits. Each node at which packets
    /// arrive counts by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_connections_per_source: Option<RateSpec>,
    /// SYNs per second to one VIP and port, on one node, above which it answers with SYN cookies in XDP where its listener's
    /// queue is full; 0: never. Absent: as `--syn-cookies-above` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_count")]
    pub syn_cookies_above: Option<u32>,
}

/// A rate, and how many may come at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateSpec {
    /// How many per second in the long run.
    #[schemars(schema_with = "positive")]
    pub per_second: u32,
    /// How many at once; as many as `perSecond` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_positive")]
    pub burst: Option<u32>,
}

/// What the classes with these parameters have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngressClassParametersStatus {
    /// Their VIPs.
    #[serde(default)]
    pub vips: Vec<String>,
    /// `Ready`: they have at least one.
    #[serde(default)]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// What the API server refuses at once.
fn vips(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "array",
        "maxItems": 64,
        "items": {
            "type": "string",
            "maxLength": 45,
            "x-kubernetes-validations": [{ "rule": "isIP(self)", "message": "must be an IP address" }],
        },
    })
}

fn annotations(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": { "type": "string", "maxLength": 4096 },
        "x-kubernetes-validations": [{
            "rule": "self.all(name, name.startsWith('nginx.ingress.kubernetes.io/'))",
            "message": "only annotations nginx.ingress.kubernetes.io/… can have defaults",
        }],
    })
}

fn options(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 256,
        "additionalProperties": { "type": "string", "maxLength": 16384 },
    })
}

/// Kubernetes knows no 16-bit integers.
fn ports(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "array",
        "nullable": true,
        "maxItems": 16,
        "items": { "type": "integer", "minimum": 1, "maximum": 65535 },
    })
}

fn positive(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({ "type": "integer", "minimum": 1, "maximum": 1_000_000 })
}

fn optional_positive(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({ "type": "integer", "minimum": 1, "maximum": 1_000_000, "nullable": true })
}

fn optional_count(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({ "type": "integer", "minimum": 0, "maximum": 10_000_000, "nullable": true })
}

fn network() -> serde_json::Value {
    serde_json::json!({
        "type": "string",
        "maxLength": 49,
        "x-kubernetes-validations": [{ "rule": "isIP(self) || isCIDR(self)", "message": "must be an address or NETWORK/BITS" }],
    })
}

fn networks(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({ "type": "array", "maxItems": 1024, "items": network() })
}

fn optional_networks(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({ "type": "array", "maxItems": 1024, "nullable": true, "items": network() })
}
