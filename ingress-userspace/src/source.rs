//! Where objects come from: the store of typed objects, and the two sources that fill it. A source sends the latest
//! [`Objects`] over a watch channel; bursts are coalesced and the latest wins. Started by `cli::run`; `cli::check` uses
//! the directory reader without watching.

mod directory;
mod endpoint_slice;
mod kubernetes;
mod manifest;
mod objects;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;

pub use directory::read_once;
pub use endpoint_slice::{EndpointSlice, SliceEndpoint};
pub use kubernetes::{Names, SecretScope, client};
pub use objects::{Change, Key, Object, Objects, Store, Stored};

/// How long a source waits for more changes before it publishes: long enough for what one message of a watch brings,
/// and a small part of the 10 ms in which a change shall be live.
const COALESCE: Duration = Duration::from_millis(1);

/// Receives the objects; `None` until the source has seen all there are.
pub type Receiver = watch::Receiver<Option<Objects>>;

/// Starts a source over manifests at `path` (a file or a directory). They have been read once when this returns.
pub async fn directory(path: PathBuf) -> anyhow::Result<Receiver> {
    directory::start(path).await
}

/// Starts a source over an API server. Returns at once; the first objects come when every kind has been listed, or, if
/// that takes long and an earlier daemon left some below `state_dir`, from there.
pub fn kubernetes(client: &kube::Client, state_dir: &Path, secrets: SecretScope) -> Receiver {
    kubernetes::start(client, state_dir, secrets)
}

/// Removes the objects that a daemon remembered below `state_dir`; there are Secrets among them.
pub fn forget(state_dir: &Path) -> std::io::Result<()> {
    kubernetes::forget(state_dir)
}

/// The objects of one file; what cannot be read of it is left out.
#[cfg(feature = "fuzzing")]
pub(crate) fn objects_of(text: &str) -> Objects {
    let mut objects = Objects::default();
    manifest::parse(text)
        .into_iter()
        .flat_map(|document| document.objects)
        .for_each(|object| objects.insert(object));
    objects
}
