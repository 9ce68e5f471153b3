//! One kind's watch: turns watch events into updates of the store, and failures into waiting. Run by `kubernetes`.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{Namespace, Node, NodeCondition, NodeStatus, Secret, Service, ServiceSpec};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::{Error, Event};
use tokio::sync::{Notify, mpsc};

use super::{Backoff, Heard, Update};
use crate::api::{AddressPool, IngressClassParameters};
use crate::model::Kind;
use crate::source::{EndpointSlice, Key, Objects, Store, Stored};

/// `kubectl apply` keeps a copy of the whole object here.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Kinds that we watch, and what of them is not worth its memory.
pub(super) trait Watched: Stored {
    fn metadata_mut(&mut self) -> &mut ObjectMeta;

    /// Drops what nobody here reads. What changes often for nothing must go: it would make every change look new.
    fn trim(&mut self) {}
}

macro_rules! watched {
    ($($kind:ident $(, $trim:expr)?;)*) => {
        $(impl Watched for $kind {
            fn metadata_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }

            $(fn trim(&mut self) {
                let trim: fn(&mut Self) = $trim;
                trim(self);
            })?
        })*
    };
}

watched! {
    // Lists come with room to grow, and these do not.
    Ingress, |ingress| {
        ingress.status = None;
        let rules = ingress.spec.as_mut().and_then(|spec| spec.rules.as_mut());
        if let Some(rules) = rules {
            rules.iter_mut().filter_map(|rule| rule.http.as_mut()).for_each(|http| http.paths.shrink_to_fit());
            rules.shrink_to_fit();
        }
    };
    IngressClass;
    Service, |service| {
        service.status = None;
        if let Some(spec) = &mut service.spec {
            let mut ports = spec.ports.take();
            ports.iter_mut().for_each(Vec::shrink_to_fit);
            *spec = ServiceSpec {
                type_: spec.type_.take(),
                cluster_ip: spec.cluster_ip.take(),
                cluster_ips: spec.cluster_ips.take(),
                ports,
                ..ServiceSpec::default()
            };
        }
    };
    // When it changed, said anew at each change.
    EndpointSlice, |slice| slice.metadata.annotations = None;
    Secret;
    // The kubelet reports the node's health every few minutes; what it said before is not read.
    Node, |node| if let Some(status) = &mut node.status {
        let conditions = status.conditions.take().into_iter().flatten();
        let read = conditions.filter(|one| ["Ready", "NetworkUnavailable"].contains(&&*one.type_));
        let bare = |one: NodeCondition| NodeCondition { type_: one.type_, status: one.status, ..NodeCondition::default() };
        let conditions = Some(read.map(bare).collect());
        *status = NodeStatus { addresses: status.addresses.take(), conditions, ..NodeStatus::default() };
    };
    // What selectors see of it are its labels.
    Namespace, |namespace| {
        let (name, labels) = (namespace.metadata.name.take(), namespace.metadata.labels.take());
        let metadata = ObjectMeta { name, labels, ..ObjectMeta::default() };
        *namespace = Namespace { metadata, ..Namespace::default() };
    };
    AddressPool;
    IngressClassParameters;
}

/// What a watch is about.
pub(super) struct Part<F> {
    /// Said when it has been listed for the first time.
    pub(super) heard: Heard,
    /// It may be missing from the API server.
    pub(super) optional: bool,
    /// Which objects of the kind are its own: no others are stored, replaced or removed.
    pub(super) holds: F,
}

/// A whole kind.
pub(super) fn whole<K: Stored>(optional: bool) -> Part<fn(&Key) -> bool> {
    Part { heard: Heard::Kind(K::KIND), optional, holds: |_| true }
}

/// Reads the watch until nobody listens any more.
pub(super) async fn run<K: Watched + PartialEq, F: Fn(&Key) -> bool + Clone + Send + 'static>(
    stream: impl Stream<Item = Result<Event<K>, Error>>,
    Part { heard, optional, holds }: Part<F>,
    updates: mpsc::Sender<Update>,
    reachable: Arc<Notify>,
) {
    let mut stream = pin!(stream);
    let mut listing: BTreeMap<Key, Arc<K>> = BTreeMap::new();
    let mut backoff = Backoff::default();
    let mut first = Some(heard);
    let is_urgent = K::KIND == Kind::EndpointSlice;
    while let Some(event) = stream.next().await {
        let at = Instant::now();
        let apply: Box<dyn FnOnce(&mut Objects) -> bool + Send> = match event {
            Ok(Event::Init) => {
                listing = BTreeMap::new();
                continue;
            }
            Ok(Event::InitApply(object)) => {
                let (key, object) = prepare(object);
                if holds(&key) {
                    listing.insert(key, object);
                }
                continue;
            }
            Ok(Event::InitDone) => {
                let listed = std::mem::take(&mut listing);
                let holds = holds.clone();
                Box::new(move |objects| replace(K::store_mut(objects), listed, holds))
            }
            Ok(Event::Apply(object)) => {
                let (key, object) = prepare(object);
                if !holds(&key) {
                    continue;
                }
                Box::new(move |objects| put(K::store_mut(objects), key, object))
            }
            Ok(Event::Delete(object)) => {
                let (key, _) = prepare(object);
                if !holds(&key) {
                    continue;
                }
                Box::new(move |objects| K::store_mut(objects).remove(&key).is_some())
            }
            Err(error) => {
                let absent = optional && is_absent::<K>(&error);
                report::<K>(&error, absent, backoff.failures);
                if absent {
                    let holds = holds.clone();
                    let empty =
                        |objects: &mut Objects| replace(K::store_mut(objects), BTreeMap::new(), holds);
                    let update = Update { at, is_urgent: false, apply: Box::new(empty), first: first.take() };
                    if updates.send(update).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    () = tokio::time::sleep(backoff.next()) => {}
                    () = reachable.notified() => {}
                    () = updates.closed() => return,
                }
                continue;
            }
        };
        if backoff.failures > 0 {
            tracing::info!(kind = %K::KIND, "watched again");
            reachable.notify_waiters();
            backoff = Backoff::default();
        }
        if updates.send(Update { at, is_urgent, apply, first: first.take() }).await.is_err() {
            return;
        }
    }
}

/// Takes out what nobody reads, so that it neither costs memory nor makes an object look changed.
fn prepare<K: Watched>(mut object: K) -> (Key, Arc<K>) {
    object.trim();
    let metadata = object.metadata_mut();
    metadata.managed_fields = None;
    metadata.resource_version = None;
    metadata.generation = None;
    metadata.owner_references = None;
    metadata.uid = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(LAST_APPLIED);
    }
    (Key::of(metadata), Arc::new(object))
}

fn put<K: PartialEq>(store: &mut Store<K>, key: Key, object: Arc<K>) -> bool {
    if store.find(&key) == Some(&object) {
        return false;
    }
    store.insert(key, object);
    true
}

/// After a watch that started anew most objects are as they were: those keep their place, so that what is compared by
/// identity further on is not built again.
fn replace<K: PartialEq>(
    store: &mut Store<K>,
    mut listed: BTreeMap<Key, Arc<K>>,
    holds: impl Fn(&Key) -> bool,
) -> bool {
    // What belongs to other watches of this kind stays.
    for (key, object) in store.iter().filter(|(key, _)| !holds(key)) {
        listed.insert(key.clone(), Arc::clone(object));
    }
    let mut same = listed.len() == store.len();
    for (key, object) in &mut listed {
        match store.find(key) {
            Some(old) if old == object => object.clone_from(old),
            _ => same = false,
        }
    }
    if !same {
        store.replace(listed);
    }
    !same
}

/// The API server does not have this kind.
fn is_absent<K: Stored>(error: &Error) -> bool {
    match error {
        Error::InitialListFailed(kube::Error::Api(status))
        | Error::WatchStartFailed(kube::Error::Api(status)) => {
            // What RBAC keeps from us of these is as good as missing: a certificate, an address, and all else is served.
            status.code == 404 || (status.code == 403 && matches!(K::KIND, Kind::Secret | Kind::Namespace))
        }
        _ => false,
    }
}

/// Says it once; while it goes on it is only of interest to who debugs it.
fn report<K: Stored>(error: &Error, absent: bool, failures: u32) {
    if failures > 0 {
        tracing::debug!(kind = %K::KIND, %error, failures, "still not watched");
    } else if absent && K::KIND == Kind::Secret {
        tracing::warn!(
            error = %chain(error),
            "a Secret that an Ingress names may not be read: give the ServiceAccount get, list and watch for it; going on \
             without"
        );
    } else if absent && K::KIND == Kind::Namespace {
        tracing::warn!(
            error = %chain(error),
            "an AddressPool selects namespaces by their labels, which may not be read: give the ServiceAccount list and \
             watch for namespaces (chart: rbac.namespaces=true); going on without"
        );
    } else if absent {
        tracing::warn!(
            kind = %K::KIND,
            "the API server does not have this kind: install deploy/crds; going on without"
        );
    } else if let Error::WatchError(status) = error
        && status.code == 410
    {
        // The server has forgotten what we saw last: ordinary, the list comes anew.
        tracing::debug!(kind = %K::KIND, "watch expired");
    } else {
        tracing::warn!(
            kind = %K::KIND,
            error = %chain(error),
            "not watched: the last known objects stay in use; trying again"
        );
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        let next_text = next.to_string();
        // Many errors repeat their source in their own words.
        if !text.contains(&next_text) {
            text.push_str(": ");
            text.push_str(&next_text);
        }
        source = next.source();
    }
    text
}

#[cfg(test)]
mod tests;
