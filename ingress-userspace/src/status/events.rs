//! Tells the users of an object what is wrong with it: an Event (events.k8s.io/v1) on the object for each problem, shown
//! by `kubectl describe` and `kubectl events`. Runs while this daemon leads, and everywhere for what only one node sees; `notebook` decides which Events and when.
//! Best effort: a lost Event is not worth a retry storm, and problems are in the log, in metrics and in
//! `xdp-ingress status` anyway.

mod notebook;

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ApiResource, DynamicObject, ObjectMeta, PostParams};
use kube::{Client, Error};
use tokio::sync::watch;
use tokio::time::timeout;

use super::clock::{Moment, sleep_until};
use super::lease::{Leadership, REQUEST_TIMEOUT};
use super::why;
use crate::model::{Kind, Problem};
use notebook::{Next, Notebook};

/// `reportingController` of our Events.
const CONTROLLER: &str = "xdp-ingress.io/controller";
/// `action` of our Events: what the controller was doing.
const ACTION: &str = "Translate";
/// The API server refuses a longer `note`.
const MAX_NOTE: usize = 1024;
/// Names are DNS subdomains, at most 253 characters; room for a dot and the hash.
const MAX_NAME: usize = 253 - 17;

/// Ends when this daemon no longer leads (if it must lead for these Events), or the sender of `published` is dropped.
pub(super) async fn run<T: Send + Sync>(
    client: &Client,
    instance: &str,
    leadership: Option<&Leadership>,
    mut published: watch::Receiver<T>,
    problems: impl Fn(&T) -> Arc<Vec<Problem>>,
) {
    let mut notebook = Notebook::new(Moment::now());
    let latest = |published: &mut watch::Receiver<T>| problems(&published.borrow_and_update());
    notebook.problems(Moment::now(), &latest(&mut published));
    loop {
        let wake = match notebook.next(Moment::now()) {
            Next::Report(problem) => {
                if leadership.is_some_and(|leadership| !leadership.held()) {
                    return;
                }
                match timeout(REQUEST_TIMEOUT * 2, report(client, instance, &problem)).await {
                    Ok(Ok(())) => notebook.reported(Moment::now(), problem),
                    Ok(Err(error)) if refused(&error) => {
                        tracing::warn!(
                            object = %problem.object, error = why(&error),
                            "events: the API server refuses our Event; not trying again soon. May our ServiceAccount \
                             create events.k8s.io/events and get this kind?"
                        );
                        notebook.refused(Moment::now(), problem);
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(error = why(&error), "events: not sent; trying again");
                        notebook.failed(Moment::now());
                    }
                    Err(_) => {
                        tracing::debug!("events: no answer in time; trying again");
                        notebook.failed(Moment::now());
                    }
                }
                continue;
            }
            Next::Wait(until) => Some(until),
            Next::Idle => None,
        };
        tokio::select! {
            changed = published.changed() => {
                if changed.is_err() {
                    return;
                }
                notebook.problems(Moment::now(), &latest(&mut published));
            }
            () = async {
                match wake {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            } => {}
        }
    }
}

/// Would the same request fail again?
fn refused(error: &Error) -> bool {
    match error {
        Error::Api(status) => (400..500).contains(&status.code) && status.code != 429,
        _ => false,
    }
}

/// Creates the Event, unless it exists or its object doesn't.
async fn report(client: &Client, instance: &str, problem: &Problem) -> Result<(), Error> {
    let object = &problem.object;
    let Some(resource) = resource(object.kind) else { return Ok(()) };
    let api: Api<DynamicObject> = if object.namespace.is_empty() {
        Api::all_with(client.clone(), &resource)
    } else {
        Api::namespaced_with(client.clone(), &object.namespace, &resource)
    };
    let Some(metadata) = api.get_metadata_opt(&object.name).await? else { return Ok(()) };
    let Some(uid) = metadata.metadata.uid else { return Ok(()) };
    let event = event(instance, problem, &resource, uid, jiff::Timestamp::now());
    let namespace = event.metadata.namespace.clone().unwrap_or_default();
    match Api::<Event>::namespaced(client.clone(), &namespace).create(&PostParams::default(), &event).await {
        // 409: reported before, by a former leader or by ourselves before a restart, and still there to be read.
        Err(Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error),
        Ok(_) => {
            tracing::debug!(%object, reason = %problem.reason, "events: sent");
            Ok(())
        }
    }
}

/// The Event that tells `problem`. Its name is made of what it says, so that there is one of it however many leaders
/// report it.
fn event(
    instance: &str,
    problem: &Problem,
    resource: &ApiResource,
    uid: String,
    now: jiff::Timestamp,
) -> Event {
    let object = &problem.object;
    let note = note(problem);
    let hash = digest(&SHA256, format!("{uid}\0{}\0{note}", problem.reason).as_bytes());
    let hash = hash.as_ref().iter().take(8).fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    let name = truncated(&object.name, MAX_NAME).trim_end_matches(['.', '-']);
    // Events about cluster-wide objects live in `default`, as the API server's validation asks.
    let cluster_wide = object.namespace.is_empty();
    let namespace = if cluster_wide { "default".to_owned() } else { object.namespace.clone() };
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{hash}")),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        action: Some(ACTION.to_owned()),
        event_time: Some(MicroTime(now)),
        note: Some(note),
        reason: Some(problem.reason.to_string()),
        regarding: Some(ObjectReference {
            api_version: Some(resource.api_version.clone()),
            kind: Some(resource.kind.clone()),
            name: Some(object.name.clone()),
            namespace: (!cluster_wide).then(|| object.namespace.clone()),
            uid: Some(uid),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(truncated(instance, 128).to_owned()),
        type_: Some("Warning".to_owned()),
        ..Event::default()
    }
}

/// Field, what is wrong, and what to do; the hint is kept whole where the message is too long.
fn note(problem: &Problem) -> String {
    let Problem { field, message, hint, .. } = problem;
    let what = if field.is_empty() { message.clone() } else { format!("{field}: {message}") };
    let hint = if hint.is_empty() { String::new() } else { format!(" ({hint})") };
    let hint = truncated(&hint, MAX_NOTE / 2);
    format!("{}{hint}", truncated(&what, MAX_NOTE - hint.len()))
}

/// The beginning of `text`, at most `bytes` long.
fn truncated(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// Where objects of this kind are; `None` for files, which are on no API server.
pub(super) fn resource(kind: Kind) -> Option<ApiResource> {
    let (group, version, plural) = match kind {
        Kind::AddressPool => ("xdp-ingress.io", "v1alpha1", "addresspools"),
        Kind::ConfigMap => ("", "v1", "configmaps"),
        Kind::EndpointSlice => ("discovery.k8s.io", "v1", "endpointslices"),
        Kind::Ingress => ("networking.k8s.io", "v1", "ingresses"),
        Kind::IngressClass => ("networking.k8s.io", "v1", "ingressclasses"),
        Kind::IngressClassParameters => ("xdp-ingress.io", "v1alpha1", "ingressclassparameters"),
        Kind::Namespace => ("", "v1", "namespaces"),
        Kind::Node => ("", "v1", "nodes"),
        Kind::Secret => ("", "v1", "secrets"),
        Kind::Service => ("", "v1", "services"),
        Kind::File => return None,
    };
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version,
        kind: kind.to_string(),
        plural: plural.to_owned(),
    })
}

#[cfg(test)]
mod tests;
