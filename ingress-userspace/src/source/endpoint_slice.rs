//! EndpointSlices as they are kept. They are most of a large cluster, and Kubernetes' own type takes four times the room:
//! it has a place for everything that may be said of an endpoint, and lists as long as they might still grow. Read and
//! written in Kubernetes' form by every source; understood by `translate::endpoints`.

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice as Said, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

/// `discovery.k8s.io/v1` `EndpointSlice`, without what nobody here reads.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Said", into = "Said")]
pub struct EndpointSlice {
    /// `metadata`.
    pub metadata: ObjectMeta,
    /// `addressType`: `IPv4`, `IPv6` or `FQDN`.
    pub address_type: Box<str>,
    /// `ports`.
    pub ports: Box<[EndpointPort]>,
    /// `endpoints`.
    pub endpoints: Box<[SliceEndpoint]>,
}

/// One of `endpoints`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SliceEndpoint {
    /// `addresses`, as they are written.
    pub addresses: Box<[Box<str>]>,
    /// `conditions.ready`.
    pub ready: Option<bool>,
    /// `conditions.serving`.
    pub serving: Option<bool>,
    /// `conditions.terminating`.
    pub terminating: Option<bool>,
    /// `nodeName`.
    pub node: Option<Arc<str>>,
    /// The names of `hints.forZones`.
    pub zones: Box<[Box<str>]>,
}

impl From<Said> for EndpointSlice {
    fn from(said: Said) -> Self {
        Self {
            metadata: said.metadata,
            address_type: said.address_type.into(),
            ports: said.ports.unwrap_or_default().into(),
            endpoints: said.endpoints.into_iter().map(SliceEndpoint::from).collect(),
        }
    }
}

impl From<Endpoint> for SliceEndpoint {
    fn from(said: Endpoint) -> Self {
        let EndpointConditions { ready, serving, terminating } = said.conditions.unwrap_or_default();
        let zones = said.hints.and_then(|hints| hints.for_zones).unwrap_or_default();
        Self {
            addresses: said.addresses.into_iter().map(Box::from).collect(),
            ready,
            serving,
            terminating,
            node: said.node_name.map(Arc::from),
            zones: zones.into_iter().map(|zone| zone.name.into()).collect(),
        }
    }
}

impl From<EndpointSlice> for Said {
    fn from(kept: EndpointSlice) -> Self {
        Self {
            metadata: kept.metadata,
            address_type: kept.address_type.into(),
            ports: Some(kept.ports.into()),
            endpoints: kept.endpoints.into_iter().map(Endpoint::from).collect(),
        }
    }
}

impl From<SliceEndpoint> for Endpoint {
    fn from(kept: SliceEndpoint) -> Self {
        let SliceEndpoint { addresses, ready, serving, terminating, node, zones } = kept;
        let for_zones: Vec<_> = zones.into_iter().map(|name| ForZone { name: name.into() }).collect();
        Self {
            addresses: addresses.into_iter().map(String::from).collect(),
            conditions: Some(EndpointConditions { ready, serving, terminating }),
            node_name: node.map(|node| node.as_ref().to_owned()),
            hints: (!for_zones.is_empty())
                .then(|| EndpointHints { for_zones: Some(for_zones), ..EndpointHints::default() }),
            ..Self::default()
        }
    }
}

/// Where the API server has them: as [`Said`].
impl kube::Resource for EndpointSlice {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        Said::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        Said::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        Said::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        Said::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// All that is read survives being written, and what is not read is gone.
    #[test]
    fn what_is_read_is_kept() {
        let endpoint = json!({
            "addresses": ["10.0.0.1"],
            "conditions": { "ready": true, "serving": true, "terminating": false },
            "nodeName": "node-1",
            "hints": { "forZones": [{ "name": "a" }] },
        });
        let kept = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": { "name": "web-x", "namespace": "shop", "labels": { "kubernetes.io/service-name": "web" } },
            "addressType": "IPv4",
            "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
            "endpoints": [endpoint, { "addresses": ["not an address"], "conditions": {} }],
        });
        let mut said = kept.clone();
        said["endpoints"][0]["targetRef"] = json!({ "kind": "Pod", "name": "web-0" });
        said["endpoints"][0]["zone"] = json!("a");
        let slice: EndpointSlice = serde_json::from_value(said).unwrap();
        assert_eq!(serde_json::to_value(&slice).unwrap(), kept);
        assert_eq!(serde_json::from_value::<EndpointSlice>(kept).unwrap(), slice);
    }

    /// A hundred thousand of them are in memory: this is what each takes, without its texts.
    #[test]
    fn an_endpoint_is_small() {
        assert!(size_of::<SliceEndpoint>() <= 56 && size_of::<Endpoint>() >= 300);
    }
}
