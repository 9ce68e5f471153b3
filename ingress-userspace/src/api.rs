//! Our own custom resources, group `xdp-ingress.io`, version `v1alpha1`: their types, from which `deploy/crds` is
//! generated. Read by `source`, understood by `translate`. No behaviour here.

mod address_pool;
mod class_parameters;
mod selector;
mod status;

pub use address_pool::{AddressPool, AddressPoolSpec, AddressPoolStatus, Allocation};
pub use class_parameters::{
    IngressClassParameters, IngressClassParametersSpec, IngressClassParametersStatus, ProtectionSpec,
    RateSpec,
};
pub use status::Condition;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

/// API group of our custom resources.
pub const GROUP: &str = "xdp-ingress.io";
/// `apiVersion` of our custom resources.
pub const API_VERSION: &str = "xdp-ingress.io/v1alpha1";

/// The definitions of all our custom resources, with the file name under which `deploy/crds` keeps each.
pub fn definitions() -> Vec<(&'static str, CustomResourceDefinition)> {
    vec![
        ("addresspools.yaml", AddressPool::crd()),
        ("ingressclassparameters.yaml", IngressClassParameters::crd()),
    ]
}

#[cfg(test)]
mod tests;
