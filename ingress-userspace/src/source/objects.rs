//! The store: the latest version of every object that we read, by kind and name. A plain value, cheap to clone: the
//! maps and the objects in them are shared.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Secret, Service};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use serde::{Deserialize, Serialize};

use super::EndpointSlice;
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

/// One difference between two stores: the key, what was there and what is.
pub type Change<'s, T> = Difference<'s, Key, T>;
type Difference<'s, K, V> = (&'s K, Option<&'s Arc<V>>, Option<&'s Arc<V>>);

/// The objects of one namespace.
type Space<T> = Arc<BTreeMap<Key, Arc<T>>>;

/// The objects of one kind. By namespace, so that a change copies the list of its own one and no other.
#[derive(Debug, Clone)]
pub struct Store<T>(Arc<BTreeMap<Arc<str>, Space<T>>>);

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Store<T> {
    /// The object of that name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<T>> {
        self.0.get(namespace)?.get(&Key::new(namespace, name))
    }

    /// The object of that key.
    pub fn find(&self, key: &Key) -> Option<&Arc<T>> {
        self.0.get(&key.namespace)?.get(key)
    }

    /// All objects, by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Arc<T>)> {
        self.0.values().flat_map(|space| space.iter())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.values().map(|space| space.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether both are the same memory: nothing has changed between them.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// What is different from `old`: the key, the old object and the new one. What is the same memory is not looked
    /// into.
    pub fn changes<'s>(&'s self, old: &'s Self) -> Vec<Change<'s, T>> {
        if self.is(old) {
            return Vec::new();
        }
        let of = |space: Option<&'s Space<T>>| space.into_iter().flat_map(|space| space.iter());
        let mut changes = Vec::new();
        for (_, was, is) in differences(old.0.iter(), self.0.iter()) {
            changes.extend(differences(of(was), of(is)));
        }
        changes
    }

    /// Puts an object in the place of its older version, which is returned.
    pub fn insert(&mut self, key: Key, object: Arc<T>) -> Option<Arc<T>> {
        let space = Arc::make_mut(&mut self.0).entry(Arc::clone(&key.namespace)).or_default();
        Arc::make_mut(space).insert(key, object)
    }

    /// Takes an object out.
    pub fn remove(&mut self, key: &Key) -> Option<Arc<T>> {
        // A look before `make_mut` spares a copy where there is nothing to do.
        self.find(key)?;
        let spaces = Arc::make_mut(&mut self.0);
        let space = Arc::make_mut(spaces.get_mut(&key.namespace)?);
        let object = space.remove(key);
        if space.is_empty() {
            spaces.remove(&key.namespace);
        }
        object
    }

    /// Exchanges all objects at once (a watch that started anew).
    pub fn replace(&mut self, objects: BTreeMap<Key, Arc<T>>) {
        let mut spaces: BTreeMap<Arc<str>, Vec<(Key, Arc<T>)>> = BTreeMap::new();
        for (key, object) in objects {
            spaces.entry(Arc::clone(&key.namespace)).or_default().push((key, object));
        }
        let space = |(name, objects): (_, Vec<_>)| (name, Arc::new(objects.into_iter().collect()));
        self.0 = Arc::new(spaces.into_iter().map(space).collect());
    }
}

/// The entries of two sorted lists that are not the same memory, side by side.
fn differences<'s, K: Ord, V>(
    before: impl Iterator<Item = (&'s K, &'s Arc<V>)>,
    after: impl Iterator<Item = (&'s K, &'s Arc<V>)>,
) -> Vec<Difference<'s, K, V>> {
    let mut different = Vec::new();
    let (mut before, mut after) = (before.peekable(), after.peekable());
    loop {
        let order = match (before.peek(), after.peek()) {
            (None, None) => return different,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            // What is the same memory has the same key.
            (Some((_, was)), Some((_, is))) if Arc::ptr_eq(was, is) => Ordering::Equal,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let was = if order == Ordering::Greater { None } else { before.next() };
        let is = if order == Ordering::Less { None } else { after.next() };
        let same = matches!((was, is), (Some((_, was)), Some((_, is))) if Arc::ptr_eq(was, is));
        if let Some((key, _)) = was.or(is)
            && !same
        {
            different.push((key, was.map(|(_, value)| value), is.map(|(_, value)| value)));
        }
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
            /// They are those of an earlier daemon, from disk, at least in part: the API server has not told all yet.
            pub is_remembered: bool,
            /// When the first of the changes since the state before was heard, where the source knows.
            pub heard: Option<Instant>,
        }

        /// As it is written to disk.
        #[derive(Serialize)]
        struct Written<'a> {
            $($field: Vec<&'a $kind>,)*
        }

        /// As it is read from there.
        #[derive(Deserialize)]
        struct Read {
            // An older daemon knew fewer kinds.
            $(#[serde(default = "Vec::new")] $field: Vec<$kind>,)*
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
            /// Whether nothing has changed between them but `EndpointSlice`s.
            pub fn differ_only_in_slices(&self, other: &Self) -> bool {
                let Self { $($field,)* problems, is_remembered: _, heard: _ } = self;
                let mut others = true;
                $(others &= Kind::$kind == Kind::EndpointSlice || $field.is(&other.$field);)*
                others && Arc::ptr_eq(problems, &other.problems)
            }

            /// Whether nothing has changed between them but Ingresses, Services, Secrets and `EndpointSlice`s.
            pub fn differ_only_in_routes(&self, other: &Self) -> bool {
                const ROUTES: [Kind; 4] = [Kind::Ingress, Kind::Service, Kind::Secret, Kind::EndpointSlice];
                let Self { $($field,)* problems, is_remembered: _, heard: _ } = self;
                let mut others = true;
                $(others &= ROUTES.contains(&Kind::$kind) || $field.is(&other.$field);)*
                others && Arc::ptr_eq(problems, &other.problems)
            }

            /// Takes these kinds from `other`.
            pub fn take(&mut self, kinds: &BTreeSet<Kind>, other: Self) {
                $(if kinds.contains(&Kind::$kind) {
                    self.$field = other.$field;
                })*
            }

            /// Writes all objects, as JSON. They are many: give it a buffer.
            pub fn write_json(&self, to: impl std::io::Write) -> serde_json::Result<()> {
                serde_json::to_writer(to, &Written {
                    $($field: self.$field.iter().map(|(_, object)| &**object).collect(),)*
                })
            }

            /// What `write_json` wrote.
            pub fn from_json(json: &[u8]) -> serde_json::Result<Self> {
                let read: Read = serde_json::from_slice(json)?;
                let mut objects = Self::default();
                $(
                    let all = read.$field.into_iter().map(|object| (Key::of(&object.metadata), Arc::new(object)));
                    objects.$field.replace(all.collect());
                )*
                Ok(objects)
            }

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
    namespaces: Namespace, "`v1`; from an API server only while a pool selects them by their labels.";
    address_pools: AddressPool, "`xdp-ingress.io/v1alpha1`.";
    class_parameters: IngressClassParameters, "`xdp-ingress.io/v1alpha1`.";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(names: &[&str]) -> Store<Node> {
        let mut store = Store::default();
        for name in names {
            store.insert(Key::new("", name), Arc::new(Node::default()));
        }
        store
    }

    #[test]
    fn changes_are_what_came_went_and_is_another_object() {
        let old = store(&["a", "b", "c"]);
        assert!(old.changes(&old.clone()).is_empty());
        let mut new = old.clone();
        new.remove(&Key::new("", "a"));
        new.insert(Key::new("", "b"), Arc::new(Node::default()));
        new.insert(Key::new("", "d"), Arc::new(Node::default()));
        let changes: Vec<_> = new
            .changes(&old)
            .into_iter()
            .map(|(key, was, is)| (&*key.name, was.is_some(), is.is_some()))
            .collect();
        assert_eq!(changes, [("a", true, false), ("b", true, true), ("d", false, true)]);
    }

    #[test]
    fn only_slices() {
        let old = Objects { nodes: store(&["n"]), ..Objects::default() };
        let mut new = old.clone();
        new.endpoint_slices.insert(Key::new("a", "b"), Arc::default());
        assert!(new.differ_only_in_slices(&old));
        new.nodes.insert(Key::new("", "n"), Arc::default());
        assert!(!new.differ_only_in_slices(&old));
    }
}
