//! One kind's watch against made-up event streams: what reaches the store, and what is said while it fails.

use futures_util::stream;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::core::Status;

use super::*;

fn service(name: &str, port: i32) -> Service {
    let mut service = Service::default();
    service.metadata.name = Some(name.into());
    service.metadata.namespace = Some("ns".into());
    service.metadata.resource_version = Some(format!("{port}-{name}"));
    service.metadata.managed_fields = Some(vec![ManagedFieldsEntry::default()]);
    service
        .spec
        .get_or_insert_default()
        .ports
        .get_or_insert_default()
        .push(k8s_openapi::api::core::v1::ServicePort { port, ..Default::default() });
    service
}

fn absent() -> Error {
    let status = Status { code: 404, ..Status::default() };
    Error::InitialListFailed(kube::Error::Api(Box::new(status)))
}

/// Runs the watch over these events; the store and, per update, whether it changed anything and was the first.
async fn events(events: Vec<Result<Event<Service>, Error>>, optional: bool) -> (Objects, Vec<(bool, bool)>) {
    let (sender, mut updates) = mpsc::channel(1024);
    run(stream::iter(events), whole::<Service>(optional), sender, Arc::default()).await;
    let mut objects = Objects::default();
    let mut log = Vec::new();
    while let Some(update) = updates.recv().await {
        let changed = (update.apply)(&mut objects);
        log.push((changed, update.first.is_some()));
    }
    (objects, log)
}

fn names(objects: &Objects) -> Vec<&str> {
    objects.services.iter().map(|(key, _)| &*key.name).collect()
}

#[tokio::test]
async fn a_list_and_changes() {
    let (objects, log) = events(
        vec![
            Ok(Event::Init),
            Ok(Event::InitApply(service("a", 1))),
            Ok(Event::InitApply(service("b", 1))),
            Ok(Event::InitDone),
            Ok(Event::Apply(service("c", 1))),
            Ok(Event::Apply(service("c", 1))),
            Ok(Event::Delete(service("a", 1))),
            Ok(Event::Delete(service("a", 1))),
        ],
        false,
    )
    .await;
    assert_eq!(names(&objects), ["b", "c"]);
    assert_eq!(log, [(true, true), (true, false), (false, false), (true, false), (false, false)]);
    let stored = objects.services.get("ns", "b").unwrap();
    assert!(stored.metadata.managed_fields.is_none() && stored.metadata.resource_version.is_none());
}

/// After the API server was away: what is gone meanwhile goes, what stayed keeps its identity.
#[tokio::test]
async fn a_new_list_replaces_all_at_once() {
    let list = |names: &[&str]| {
        let mut events = vec![Ok(Event::Init)];
        events.extend(names.iter().map(|name| Ok(Event::InitApply(service(name, 1)))));
        events.push(Ok(Event::InitDone));
        events
    };
    let (sender, mut updates) = mpsc::channel(16);
    let all = list(&["a", "b"]).into_iter().chain(list(&["a", "b"])).chain(list(&["b", "c"]));
    run(stream::iter(all.collect::<Vec<_>>()), whole::<Service>(false), sender, Arc::default()).await;
    let mut objects = Objects::default();
    assert!((updates.recv().await.unwrap().apply)(&mut objects));
    let before = Arc::clone(objects.services.get("ns", "b").unwrap());
    assert!(!(updates.recv().await.unwrap().apply)(&mut objects), "the same list is nothing new");
    assert!((updates.recv().await.unwrap().apply)(&mut objects));
    assert_eq!(names(&objects), ["b", "c"]);
    assert!(Arc::ptr_eq(&before, objects.services.get("ns", "b").unwrap()));
}

#[tokio::test]
async fn a_kind_that_the_server_lacks_does_not_block_the_others() {
    let (objects, log) = events(
        vec![
            Ok(Event::Init),
            Err(absent()),
            Ok(Event::Init),
            Err(absent()),
            Ok(Event::Init),
            Ok(Event::InitApply(service("a", 1))),
            Ok(Event::InitDone),
        ],
        true,
    )
    .await;
    assert_eq!(names(&objects), ["a"]);
    assert_eq!(log, [(false, true), (false, false), (true, false)]);
}

#[tokio::test]
async fn a_needed_kind_is_waited_for() {
    let (_, log) = events(vec![Err(absent()), Ok(Event::Init), Ok(Event::InitDone)], false).await;
    assert_eq!(log, [(false, true)]);
}

#[test]
fn waiting_doubles_up_to_its_limit() {
    let mut backoff = Backoff::default();
    let waits: Vec<_> = (0..40).map(|_| backoff.next()).collect();
    assert!(waits[0] <= Backoff::FIRST && waits[0] >= Backoff::FIRST / 2);
    assert!(waits[3] > waits[0] * 4, "{waits:?}");
    assert!(
        waits[10..].iter().all(|wait| *wait <= Backoff::LONGEST && *wait >= Backoff::LONGEST / 2),
        "{waits:?}"
    );
    assert!(waits[10..].iter().any(|wait| *wait != waits[10]), "no chance in it");
}
