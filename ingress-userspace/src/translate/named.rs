//! Which Secrets our Ingresses name: the only ones that the daemon asks an API server for.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::networking::v1::Ingress;

use super::Settings;
use super::class::Classes;
use super::problems::Problems;
use crate::source::{Key, Objects};

/// Annotations that name a Secret end so: `auth-secret`, `auth-tls-secret`, `proxy-ssl-secret`.
const SUFFIX: &str = "-secret";

/// The Secrets that each of these Ingresses names in `spec.tls` and in annotations, in its own namespace: nobody shall get at
/// another's Secrets by naming them. None where it is not ours. Of `objects` the classes are read.
pub fn named_secrets(
    objects: &Objects,
    ingresses: &[&Arc<Ingress>],
    settings: &Settings,
) -> Vec<BTreeSet<Key>> {
    // What is wrong with the classes is said by the translation.
    let mut unsaid = Problems::default();
    let classes = Classes::new(objects, settings, &mut unsaid);
    let mut of = |ingress: &Arc<Ingress>| {
        let Some(owned) = classes.own(ingress, &mut unsaid) else { return BTreeSet::new() };
        let namespace = owned.reference.namespace.as_str();
        let sections = owned.ingress.spec.as_ref().and_then(|spec| spec.tls.as_deref()).unwrap_or_default();
        let tls = sections.iter().filter_map(|section| section.secret_name.as_deref());
        let names = tls.chain(annotated(namespace, &owned.ingress)).filter(|name| !name.is_empty());
        names.map(|name| Key::new(namespace, name)).collect()
    };
    ingresses.iter().map(|ingress| of(ingress)).collect()
}

/// The Secrets that annotations of an Ingress of this namespace name there.
pub(super) fn annotated<'i>(namespace: &str, ingress: &'i Ingress) -> impl Iterator<Item = &'i str> {
    let annotations = ingress.metadata.annotations.iter().flatten();
    annotations.filter(|(key, _)| key.ends_with(SUFFIX)).filter_map(move |(_, value)| {
        match value.split_once('/') {
            Some((of, name)) => (of == namespace).then_some(name),
            None => Some(value.as_str()),
        }
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::networking::v1::IngressTLS;

    use super::*;

    fn ingress(class: &str, name: &str, secret: &str, annotations: &[(&str, &str)]) -> Arc<Ingress> {
        let mut ingress = Ingress::default();
        ingress.metadata.namespace = Some("shop".into());
        ingress.metadata.name = Some(name.into());
        let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        ingress.metadata.annotations = Some(annotations.collect());
        let spec = ingress.spec.get_or_insert_default();
        spec.ingress_class_name = Some(class.into());
        spec.tls = Some(vec![IngressTLS { secret_name: Some(secret.into()), hosts: None }]);
        Arc::new(ingress)
    }

    #[test]
    fn those_of_our_ingresses_in_their_own_namespace() {
        let ingresses = [
            ingress(
                "xdp",
                "a",
                "cert",
                &[
                    ("nginx.ingress.kubernetes.io/auth-secret", "users"),
                    ("nginx.ingress.kubernetes.io/auth-tls-secret", "shop/authority"),
                    ("nginx.ingress.kubernetes.io/proxy-ssl-secret", "kube-system/token"),
                    ("nginx.ingress.kubernetes.io/auth-secret-type", "auth-map"),
                ],
            ),
            ingress("others", "b", "not-ours", &[]),
        ];
        let [ours, others] = &ingresses;
        let named = named_secrets(&Objects::default(), &[ours, others], &Settings::default());
        let names: Vec<&str> = named[0].iter().map(|key| &*key.name).collect();
        assert_eq!(names, ["authority", "cert", "users"]);
        assert!(named[0].iter().all(|key| &*key.namespace == "shop"));
        assert!(named[1].is_empty());
    }
}
