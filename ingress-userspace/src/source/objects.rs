//! The store: the latest version of every object that we read, by kind and name. A plain value, cheap to clone: the
//! maps and the objects in them are shared.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::{AddressPool, IngressClassParameters};
use crate::model::{Kind, ObjectRef, Problem};

/// Namespace and name. Ordered by namespace first; `namespace` is empty for cluster-wide kinds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

impl Key {
    /// The key of `namespace/name`.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object with this metadata. Absent parts are empty.
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self::new(
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default(),
        )
    }
}

/// The objects of one kind.
#[derive(Debug, Clone)]
pub struct Store<T>(Arc<BTreeMap<Key, Arc<T>>>);

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Store<T> {
    /// The object of that name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<T>> {
        self.0.get(&Key::new(namespace, name))
    }

    /// The object of that key.
    pub fn find(&self, key: &Key) -> Option<&Arc<T>> {
        self.0.get(key)
    }

    /// All objects, by namespace and name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Key, &Arc<T>)> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts an object in the place of its older version, which is returned.
    pub fn insert(&mut self, key: Key, object: Arc<T>) -> Option<Arc<T>> {
        Arc::make_mut(&mut self.0).insert(key, object)
    }

    /// Takes an object out.
    pub fn remove(&mut self, key: &Key) -> Option<Arc<T>> {
        // A look before `make_mut` spares a copy of the map where there is nothing to do.
        if self.0.contains_key(key) { Arc::make_mut(&mut self.0).remove(key) } else { None }
    }

    /// Exchanges all objects at once (a watch that started anew).
    pub fn replace(&mut self, objects: BTreeMap<Key, Arc<T>>) {
        self.0 = Arc::new(objects);
    }
}

/// A kind that the store holds.
pub trait Stored: Sized + Send + Sync + 'static {
    /// Its name in problems.
    const KIND: Kind;

    /// Its metadata.
    fn metadata(&self) -> &ObjectMeta;
    /// Its place in the store.
    fn store(objects: &Objects) -> &Store<Self>;
    /// Its place in the store.
    fn store_mut(objects: &mut Objects) -> &mut Store<Self>;

    /// What problems call it.
    fn reference(&self) -> ObjectRef {
        let metadata = self.metadata();
        ObjectRef::new(
            Self::KIND,
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default(),
        )
    }
}

macro_rules! kinds {
    ($($field:ident: $kind:ident, $doc:literal;)*) => {
        /// The latest version of every object.
        #[derive(Debug, Clone, Default)]
        pub struct Objects {
            $(#[doc = $doc] pub $field: Store<$kind>,)*
            /// What the source could not read: broken manifests.
            pub problems: Arc<Vec<Problem>>,
        }

        /// One object of any kind that the store holds.
        #[derive(Debug, Clone, PartialEq)]
        #[expect(missing_docs, reason = "the names are Kubernetes' own")]
        pub enum Object {
            $($kind(Arc<$kind>),)*
        }

        $(
            impl Stored for $kind {
                const KIND: Kind = Kind::$kind;

                fn metadata(&self) -> &ObjectMeta {
                    &self.metadata
                }

                fn store(objects: &Objects) -> &Store<Self> {
                    &objects.$field
                }

                fn store_mut(objects: &mut Objects) -> &mut Store<Self> {
                    &mut objects.$field
                }
            }
        )*

        impl Object {
            /// What problems call it.
            pub fn reference(&self) -> ObjectRef {
                match self {
                    $(Self::$kind(object) => object.reference(),)*
                }
            }
        }

        impl Objects {
            /// Puts an object in the place of its older version.
            pub fn insert(&mut self, object: Object) {
                match object {
                    $(Object::$kind(object) => {
                        self.$field.insert(Key::of(&object.metadata), object);
                    })*
                }
            }
        }
    };
}

kinds! {
    ingresses: Ingress, "`networking.k8s.io/v1`.";
    ingress_classes: IngressClass, "`networking.k8s.io/v1`.";
    services: Service, "`v1`.";
    endpoint_slices: EndpointSlice, "`discovery.k8s.io/v1`.";
    secrets: Secret, "`v1`; from an API server only those of type `kubernetes.io/tls`.";
    config_maps: ConfigMap, "`v1`; from manifests only, until something reads them.";
    nodes: Node, "`v1`.";
    address_pools: AddressPool, "`xdp-ingress.io/v1alpha1`.";
    class_parameters: IngressClassParameters, "`xdp-ingress.io/v1alpha1`.";
}
