//! Keeps `Ingress.status.loadBalancer.ingress` as the snapshot wants it, while this daemon leads: watches the Ingresses
//! (so that nothing is polled and somebody else's edits are seen), asks `ledger` what differs, and applies that on the
//! server side. Called by `status::write`; decides nothing itself.

mod ledger;

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Error};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use super::clock::{Moment, sleep_until};
use super::lease::{Leadership, NO_ANSWER, REQUEST_TIMEOUT};
use super::{Published, chain, why};
use crate::model::{Kind, ObjectRef};
use ledger::{Change, Job, Ledger, Next, Outcome, Present};

/// Writes under way at once: enough for hundreds a second, few enough for the API server's fairness rules.
const PARALLEL: usize = 8;

/// Ends when this daemon no longer leads, or the sender of `published` is dropped.
pub(super) async fn run(
    client: &Client,
    field_manager: &str,
    leadership: &Leadership,
    mut published: watch::Receiver<Published>,
) {
    let api: Api<Ingress> = Api::all(client.clone());
    let events = watcher(api, watcher::Config::default()).default_backoff();
    let mut events = std::pin::pin!(events);
    let mut relisted: Option<HashMap<ObjectRef, Present>> = None;
    let mut ledger = Ledger::default();
    let mut writing = FuturesUnordered::new();
    ledger.want(Arc::clone(&published.borrow_and_update().snapshot));
    loop {
        let mut wake = None;
        while writing.len() < PARALLEL {
            match ledger.next(Moment::now()) {
                Next::Write(job) => writing.push(write(client, field_manager, leadership, job)),
                Next::Wait(until) => {
                    wake = Some(until);
                    break;
                }
                Next::Idle => break,
            }
        }
        tokio::select! {
            changed = published.changed() => {
                if changed.is_err() {
                    return;
                }
                ledger.want(Arc::clone(&published.borrow_and_update().snapshot));
            }
            Some(event) = events.next() => match event {
                Ok(event) => take(&mut ledger, &mut relisted, event, field_manager),
                Err(error) => tracing::debug!(error = chain(&error), "status: watching Ingresses; trying again"),
            },
            Some((job, outcome)) = writing.next() => {
                let Some(outcome) = outcome else { return };
                report(&job, &outcome);
                ledger.done(Moment::now(), &job, outcome);
            }
            () = wait(wake) => {}
        }
    }
}

async fn wait(until: Option<Moment>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

fn take(
    ledger: &mut Ledger,
    relisted: &mut Option<HashMap<ObjectRef, Present>>,
    event: Event<Ingress>,
    field_manager: &str,
) {
    match event {
        Event::Init => *relisted = Some(HashMap::new()),
        Event::InitApply(ingress) => {
            relisted.get_or_insert_default().insert(name(&ingress), present(&ingress, field_manager));
        }
        Event::InitDone => ledger.relisted(relisted.take().unwrap_or_default()),
        Event::Apply(ingress) => ledger.saw(name(&ingress), present(&ingress, field_manager)),
        Event::Delete(ingress) => ledger.gone(&name(&ingress)),
    }
}

fn name(ingress: &Ingress) -> ObjectRef {
    let metadata = &ingress.metadata;
    ObjectRef::new(
        Kind::Ingress,
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}

/// What of an Ingress matters for its status.
fn present(ingress: &Ingress, field_manager: &str) -> Present {
    let metadata = &ingress.metadata;
    let entries = ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let entries = entries.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
    let plain = entries.iter().map(|entry| {
        let others = entry.hostname.is_some() || entry.ports.as_ref().is_some_and(|ports| !ports.is_empty());
        if others { None } else { entry.ip.as_deref()?.parse::<IpAddr>().ok() }
    });
    Present {
        version: metadata.resource_version.clone().unwrap_or_default(),
        addresses: plain.collect::<Option<BTreeSet<_>>>(),
        ours: metadata.managed_fields.iter().flatten().any(|entry| holds_addresses(entry, field_manager)),
    }
}

/// Does this entry say that we applied the addresses? It is the API server that keeps this record: it survives our
/// restarts, moves to whoever overwrites the list, and is not fooled by another controller with the same addresses.
fn holds_addresses(entry: &ManagedFieldsEntry, field_manager: &str) -> bool {
    entry.manager.as_deref() == Some(field_manager)
        && entry.operation.as_deref() == Some("Apply")
        && entry.subresource.as_deref() == Some("status")
        && entry
            .fields_v1
            .as_ref()
            .is_some_and(|fields| fields.0.pointer("/f:status/f:loadBalancer/f:ingress").is_some())
}

/// Sends one write; no outcome: this daemon is not the leader any more, and nothing was sent.
fn write(
    client: &Client,
    field_manager: &str,
    leadership: &Leadership,
    job: Job,
) -> impl Future<Output = (Job, Option<Outcome>)> {
    let api: Api<Ingress> = Api::namespaced(client.clone(), &job.object.namespace);
    // Forced: the Ingress is ours, so its addresses are. Where we only clear, nothing is claimed and nothing forced.
    let parameters = PatchParams::apply(field_manager);
    let parameters = if job.change == Change::Clear { parameters } else { parameters.force() };
    let (leadership, field_manager) = (leadership.clone(), field_manager.to_owned());
    async move {
        if !leadership.held() {
            return (job, None);
        }
        let body = Patch::Apply(body(&job));
        let answer = timeout(REQUEST_TIMEOUT, api.patch_status(&job.object.name, &parameters, &body)).await;
        let outcome = match answer {
            Ok(Ok(ingress)) => Outcome::Written(present(&ingress, &field_manager)),
            Ok(Err(Error::Api(status))) => match status.code {
                404 => Outcome::Gone,
                409 => Outcome::Outdated,
                429 | 500.. => Outcome::Unreachable(status.message),
                _ => Outcome::Refused(status.message),
            },
            Ok(Err(error)) => Outcome::Unreachable(why(&error)),
            Err(_) => Outcome::Unreachable(NO_ANSWER.to_owned()),
        };
        (job, Some(outcome))
    }
}

/// The object to apply. `resourceVersion` makes the server refuse it if the Ingress changed since we looked, so that
/// even a request that a paused former leader sends late cannot undo what the new one wrote.
fn body(job: &Job) -> Value {
    let mut body = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": { "resourceVersion": job.version },
    });
    if let Change::Set(addresses) = &job.change {
        let entries: Vec<_> = addresses.iter().map(|address| json!({ "ip": address })).collect();
        body["status"] = json!({ "loadBalancer": { "ingress": entries } });
    }
    body
}

fn report(job: &Job, outcome: &Outcome) {
    let object = &job.object;
    match outcome {
        Outcome::Written(_) => tracing::info!(%object, change = %job.change, "status: written"),
        Outcome::Refused(why) => tracing::warn!(
            %object, %why,
            "status: the API server refuses to write it; trying again later. Requests are served all the same. May our \
             ServiceAccount patch ingresses/status?"
        ),
        Outcome::Unreachable(why) => tracing::debug!(%object, %why, "status: not written; trying again"),
        Outcome::Gone | Outcome::Outdated => {}
    }
}

#[cfg(test)]
mod tests;
