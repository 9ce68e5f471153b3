//! Who was first: where two objects claim the same thing, the older one keeps it.

use std::sync::Arc;

use crate::source::{Store, Stored};

/// The objects of a store, the oldest first: by `creationTimestamp` (manifests have none: they count as oldest), then
/// by namespace and name.
pub(super) fn by_age<T: Stored>(store: &Store<T>) -> Vec<&Arc<T>> {
    oldest_first(store.iter().map(|(_, object)| object))
}

/// The same of some, which come by namespace and name.
pub(super) fn oldest_first<'a, T: Stored>(objects: impl Iterator<Item = &'a Arc<T>>) -> Vec<&'a Arc<T>> {
    let mut objects: Vec<&Arc<T>> = objects.collect();
    // Stable: the store's own order, by namespace and name, stays where the times are equal.
    objects.sort_by_key(|object| object.metadata().creation_timestamp.as_ref().map(|time| time.0));
    objects
}
