//! Keeps the statuses of our own resources (`AddressPool`, `IngressClassParameters`) as the snapshot wants them, while this
//! daemon leads. What is there now comes with the snapshot: nothing is asked of the API server until something differs.

use std::collections::HashMap;
use std::time::Duration;

use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::{Client, Error};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::timeout;

use super::events::resource;
use super::lease::{Leadership, NO_ANSWER, REQUEST_TIMEOUT};
use super::{Published, why};
use crate::model::{ObjectRef, OwnStatus};

/// Between two rounds while something is not as it shall be: a write comes back with the watch in milliseconds; whoever
/// else writes there, or an API server that refuses, must not make it a race.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_mins(1));

/// Ends when this daemon no longer leads, or the sender of `published` is dropped.
pub(super) async fn run(
    client: &Client,
    field_manager: &str,
    leadership: &Leadership,
    mut published: watch::Receiver<Published>,
) {
    let mut pause = PAUSE.0;
    // What was written over what, and not seen yet.
    let mut written: HashMap<ObjectRef, OwnStatus> = HashMap::new();
    loop {
        let wanted = published.borrow_and_update().snapshot.own_statuses.clone();
        let (mut failed, mut wrote) = (false, false);
        written.retain(|_, last| wanted.contains(last));
        for status in wanted.iter().filter(|status| status.wanted != status.shown) {
            if written.contains_key(&status.object) {
                continue;
            }
            match timeout(REQUEST_TIMEOUT * 2, write(client, field_manager, leadership, status)).await {
                Ok(Ok(true)) => {
                    tracing::info!(object = %status.object, "status: written");
                    wrote = true;
                    written.insert(status.object.clone(), status.clone());
                }
                Ok(Ok(false)) => return,
                Ok(Err(error)) => {
                    failed = true;
                    report(status, &error);
                }
                Err(_) => {
                    failed = true;
                    tracing::debug!(object = %status.object, why = NO_ANSWER, "status: not written; trying again");
                }
            }
        }
        pause = if failed { (pause * 2).min(PAUSE.1) } else { PAUSE.0 };
        if wrote {
            tokio::time::sleep(PAUSE.0).await;
        }
        tokio::select! {
            () = tokio::time::sleep(pause), if failed => {}
            changed = published.changed() => if changed.is_err() { return },
        }
    }
}

/// Writes one status. `false`: this daemon is not the leader any more, and nothing was written.
async fn write(
    client: &Client,
    field_manager: &str,
    leadership: &Leadership,
    status: &OwnStatus,
) -> Result<bool, Error> {
    let Some(resource) = resource(status.object.kind) else { return Ok(true) };
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let Some(present) = api.get_metadata_opt(&status.object.name).await? else { return Ok(true) };
    if !leadership.held() {
        return Ok(false);
    }
    // With the version that was read: what a paused former leader sends late is refused.
    let body = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": { "resourceVersion": present.metadata.resource_version },
        "status": status.wanted,
    });
    let parameters = PatchParams::apply(field_manager).force();
    match api.patch_status(&status.object.name, &parameters, &Patch::Apply(body)).await {
        Ok(_) => Ok(true),
        // Deleted meanwhile.
        Err(Error::Api(answer)) if answer.code == 404 => Ok(true),
        Err(error) => Err(error),
    }
}

fn report(status: &OwnStatus, error: &Error) {
    let (object, why) = (&status.object, why(error));
    match error {
        Error::Api(answer) if answer.code == 403 => tracing::warn!(
            %object, %why,
            "status: the API server refuses to write it; trying again later. VIPs are kept all the same until a class \
             is deleted. May our ServiceAccount patch the status of this kind?"
        ),
        _ => tracing::debug!(%object, %why, "status: not written; trying again"),
    }
}
