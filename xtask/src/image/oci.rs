//! The OCI image layout (image-spec v1.1: `oci-layout`, `index.json`, blobs by digest) around one layer. Pure: bytes
//! in, bytes out.

use std::fmt::{self, Write as _};

use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType};

use super::layer::{Layer, append};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Reproducible: an image says when its contents were made, not when it was packed.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// A SHA-256 digest, printed as OCI wants it: `sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Digest {
    hex: String,
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex)
    }
}

pub(super) fn digest(bytes: &[u8]) -> Digest {
    let hex = Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        let _infallible = write!(hex, "{byte:02x}");
        hex
    });
    Digest { hex }
}

/// The image as one file.
pub(super) struct Archive {
    pub(super) bytes: Vec<u8>,
    pub(super) manifest: Digest,
}

/// An image of one layer that runs `entrypoint`, with `arguments` where a container says none. `name` is its repository and
/// tag.
pub(super) fn archive(
    layer: &Layer,
    (entrypoint, arguments): (&str, &[&str]),
    name: &str,
) -> Result<Archive> {
    let (repository, version) = name.rsplit_once(':').unwrap_or((name, "latest"));
    let title = repository.rsplit('/').next().unwrap_or(repository);
    let config = serde_json::to_vec(&json!({
        "created": CREATED,
        "architecture": architecture(std::env::consts::ARCH),
        "os": "linux",
        "config": {
            "Entrypoint": [entrypoint],
            "Cmd": arguments,
            "Env": ["PATH=/usr/bin"],
            "Labels": {
                "org.opencontainers.image.title": title,
                "org.opencontainers.image.version": version,
                "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
            },
        },
        "rootfs": { "type": "layers", "diff_ids": [layer.diff_id.to_string()] },
        "history": [{ "created": CREATED, "created_by": "cargo xtask image" }],
    }))?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config),
        "layers": [descriptor(LAYER, &layer.bytes)],
    }))?;
    let mut manifest_descriptor = descriptor(MANIFEST, &manifest);
    // The first is the standard's, the second is where containerd looks for the whole name.
    manifest_descriptor["annotations"] =
        json!({ "org.opencontainers.image.ref.name": version, "io.containerd.image.name": name });
    let index = serde_json::to_vec(&json!({ "schemaVersion": 2, "manifests": [manifest_descriptor] }))?;
    let layout = serde_json::to_vec(&json!({ "imageLayoutVersion": "1.0.0" }))?;

    let mut tar = Builder::new(Vec::new());
    for folder in ["blobs/", "blobs/sha256/"] {
        append(&mut tar, folder, EntryType::Directory, 0o755, &[])?;
    }
    for blob in [&config, &manifest, &layer.bytes] {
        append(&mut tar, &format!("blobs/sha256/{}", digest(blob).hex), EntryType::Regular, 0o644, blob)?;
    }
    append(&mut tar, "index.json", EntryType::Regular, 0o644, &index)?;
    append(&mut tar, "oci-layout", EntryType::Regular, 0o644, &layout)?;
    Ok(Archive { bytes: tar.into_inner()?, manifest: digest(&manifest) })
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(blob).to_string(), "size": blob.len() })
}

/// Go's name for a machine, which OCI uses.
fn architecture(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read as _};

    use super::*;

    fn unpack(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut tar = tar::Archive::new(bytes);
        let entries = tar.entries().expect("a tar");
        entries
            .map(|entry| {
                let mut entry = entry.expect("an entry");
                let path = entry.path().expect("a path").display().to_string();
                let mut contents = Vec::new();
                entry.read_to_end(&mut contents).expect("contents");
                (path, contents)
            })
            .collect()
    }

    #[test]
    fn digests_are_those_of_fips_180() {
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest(b"abc").to_string(), abc);
    }

    #[test]
    fn every_descriptor_points_to_a_blob_of_that_size_and_digest() {
        let layer = Layer { bytes: b"packed".to_vec(), diff_id: digest(b"plain") };
        let archive = archive(&layer, ("/usr/bin/x", &["y"]), "example.com/x:1.2.3").expect("an archive");
        let files = unpack(&archive.bytes);
        let follow = |descriptor: &Value| {
            let name = descriptor["digest"].as_str().expect("a digest").replace("sha256:", "blobs/sha256/");
            let blob = files.get(&name).expect("the blob");
            assert_eq!(descriptor["size"], blob.len());
            assert_eq!(descriptor["digest"], digest(blob).to_string());
            blob.clone()
        };
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).expect("JSON");
        let index = json(&files["index.json"]);
        let manifest = json(&follow(&index["manifests"][0]));
        let config = json(&follow(&manifest["config"]));
        assert_eq!(follow(&manifest["layers"][0]), b"packed");
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(b"plain").to_string());
        assert_eq!(config["config"]["Entrypoint"][0], "/usr/bin/x");
        assert_eq!(config["config"]["Cmd"][0], "y");
    }
}
