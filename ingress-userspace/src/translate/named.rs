//! Which Secrets our Ingresses name: the only ones that the daemon asks an API server for.

use std::collections::BTreeSet;

use super::Settings;
use super::class::Classes;
use super::problems::Problems;
use crate::source::{Key, Objects};

/// Annotations that name a Secret end so: `auth-secret`, `auth-tls-secret`, `proxy-ssl-secret`.
const SUFFIX: &str = "-secret";

/// The Secrets of `spec.tls` and of annotations of our Ingresses, each in its Ingress's own namespace: nobody shall get at
/// another's Secrets by naming them.
pub fn named_secrets(objects: &Objects, settings: &Settings) -> BTreeSet<Key> {
    // What is wrong with the classes is said by the translation.
    let mut unsaid = Problems::default();
    let classes = Classes::new(objects, settings, &mut unsaid);
    let mut named = BTreeSet::new();
    for owned in classes.owned(objects, &mut unsaid) {
        let namespace = owned.reference.namespace.as_str();
        let sections = owned.ingress.spec.as_ref().and_then(|spec| spec.tls.as_deref()).unwrap_or_default();
        let tls = sections.iter().filter_map(|section| section.secret_name.as_deref());
        let annotations = owned.ingress.metadata.annotations.iter().flatten();
        let annotated = annotations.filter(|(key, _)| key.ends_with(SUFFIX)).filter_map(|(_, value)| {
            match value.split_once('/') {
                Some((of, name)) => (of == namespace).then_some(name),
                None => Some(value.as_str()),
            }
        });
        named.extend(
            tls.chain(annotated).filter(|name| !name.is_empty()).map(|name| Key::new(namespace, name)),
        );
    }
    named
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::networking::v1::{Ingress, IngressTLS};

    use super::*;

    fn ingress(class: &str, name: &str, secret: &str, annotations: &[(&str, &str)]) -> (Key, Arc<Ingress>) {
        let mut ingress = Ingress::default();
        ingress.metadata.namespace = Some("shop".into());
        ingress.metadata.name = Some(name.into());
        let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        ingress.metadata.annotations = Some(annotations.collect());
        let spec = ingress.spec.get_or_insert_default();
        spec.ingress_class_name = Some(class.into());
        spec.tls = Some(vec![IngressTLS { secret_name: Some(secret.into()), hosts: None }]);
        (Key::new("shop", name), Arc::new(ingress))
    }

    #[test]
    fn those_of_our_ingresses_in_their_own_namespace() {
        let mut objects = Objects::default();
        for (key, ingress) in [
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
        ] {
            objects.ingresses.insert(key, ingress);
        }
        let named = named_secrets(&objects, &Settings::default());
        let names: Vec<&str> = named.iter().map(|key| &*key.name).collect();
        assert_eq!(names, ["authority", "cert", "users"]);
        assert!(named.iter().all(|key| &*key.namespace == "shop"));
    }
}
