//! Whose a pool is: which namespaces and Ingresses may have addresses of it.

use k8s_openapi::api::networking::v1::Ingress;
use kube::core::Selector;

use crate::api::{AddressPool, AddressPoolSpec};
use crate::model::Reason;
use crate::source::{Objects, Stored as _};
use crate::translate::problems::Problems;
use crate::translate::selector;

/// What a pool says of it.
#[derive(Debug, Default)]
pub(super) struct Admission {
    namespaces: Vec<String>,
    /// `None`: all namespaces may, or those that are named alone.
    namespace_selectors: Option<Vec<Selector>>,
    /// `None`: all Ingresses of these namespaces may.
    ingress_selectors: Option<Vec<Selector>>,
}

impl Admission {
    pub(super) fn read(pool: &AddressPool, objects: &Objects, problems: &mut Problems) -> Self {
        let (spec, reference) = (&pool.spec, pool.reference());
        let mut parse = |list: &[_], field| {
            (!list.is_empty()).then(|| selector::parse(list, &reference, field, problems))
        };
        let admission = Self {
            namespaces: spec.namespaces.clone(),
            namespace_selectors: parse(&spec.namespace_selectors, "spec.namespaceSelectors"),
            ingress_selectors: parse(&spec.ingress_selectors, "spec.ingressSelectors"),
        };
        if admission.namespace_selectors.is_some() && objects.namespaces.is_empty() {
            problems.add(
                &reference,
                "spec.namespaceSelectors",
                Reason::NotFound,
                "no namespace is known, so that they match none",
                "let the ServiceAccount list and watch namespaces (chart: rbac.namespaces=true), or name them in spec.namespaces",
            );
        }
        admission
    }

    /// Whether the Ingress may have addresses of the pool.
    pub(super) fn admits(&self, objects: &Objects, ingress: &Ingress) -> bool {
        let namespace = ingress.metadata.namespace.as_deref().unwrap_or_default();
        let selectors = self.ingress_selectors.as_ref();
        self.admits_namespace(objects, namespace)
            && selectors.is_none_or(|all| selector::matches(all, ingress.metadata.labels.as_ref()))
    }

    fn admits_namespace(&self, objects: &Objects, namespace: &str) -> bool {
        if self.namespaces.is_empty() && self.namespace_selectors.is_none() {
            return true;
        }
        let is_selected = |selectors: &Vec<_>| {
            let known = objects.namespaces.get("", namespace);
            known.is_some_and(|known| selector::matches(selectors, known.metadata.labels.as_ref()))
        };
        self.namespaces.iter().any(|one| one == namespace)
            || self.namespace_selectors.as_ref().is_some_and(is_selected)
    }
}

/// Whether a pool is for everybody: no other is given to classes that do not name it.
pub(super) fn is_everybodys(spec: &AddressPoolSpec) -> bool {
    spec.namespaces.is_empty() && spec.namespace_selectors.is_empty() && spec.ingress_selectors.is_empty()
}
