//! One image layer: a tar of files and the folders above them, with times and owners fixed and in the order of their
//! names, so that the same contents give the same bytes. Reads the files; writes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

use super::oci::{Digest, digest};

/// A layer, packed.
pub(super) struct Layer {
    /// The tar, gzip-compressed.
    pub(super) bytes: Vec<u8>,
    /// Of the tar before compression: what the image's configuration calls its `diff_id`.
    pub(super) diff_id: Digest,
}

impl Layer {
    /// Packs `files` (path in the image → file here).
    pub(super) fn build(files: &BTreeMap<String, PathBuf>) -> Result<Self> {
        let mut tar = Builder::new(Vec::new());
        for folder in folders(files.keys()) {
            append(&mut tar, &format!("{folder}/"), EntryType::Directory, 0o755, &[])?;
        }
        for (path, file) in files {
            let (mode, contents) = read(file)?;
            append(&mut tar, path, EntryType::Regular, mode, &contents)?;
        }
        let tar = tar.into_inner()?;
        let mut bytes = Vec::new();
        // No time and no name in the header: they differ from run to run.
        GzBuilder::new().mtime(0).read(tar.as_slice(), Compression::default()).read_to_end(&mut bytes)?;
        Ok(Self { bytes, diff_id: digest(&tar) })
    }
}

/// An entry that carries nothing of this machine and this moment.
pub(super) fn append(
    tar: &mut Builder<Vec<u8>>,
    path: &str,
    kind: EntryType,
    mode: u32,
    contents: &[u8],
) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(contents.len() as u64);
    tar.append_data(&mut header, path, contents).with_context(|| format!("packing {path}"))
}

/// Only whether a file is executable counts: the rest of the mode depends on the builder's umask.
fn read(file: &Path) -> Result<(u32, Vec<u8>)> {
    let executable = File::open(file)
        .and_then(|file| file.metadata())
        .map(|meta| meta.permissions().mode() & 0o111 != 0)
        .with_context(|| format!("cannot read {}", file.display()))?;
    let contents = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok((if executable { 0o755 } else { 0o644 }, contents))
}

/// All folders above `paths`, each before what is in it.
fn folders<'a>(paths: impl Iterator<Item = &'a String>) -> BTreeSet<String> {
    let above = |path: &'a String| path.match_indices('/').map(|(at, _)| path[..at].to_owned());
    paths.flat_map(above).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_what_is_in_them() {
        let paths = ["usr/bin/a".to_owned(), "lib/x/b".to_owned()];
        let found: Vec<_> = folders(paths.iter()).into_iter().collect();
        assert_eq!(found, ["lib", "lib/x", "usr", "usr/bin"]);
    }

    #[test]
    fn the_same_contents_give_the_same_bytes() {
        let this = paths_of_this_crate();
        let first = Layer::build(&this).expect("packed");
        let second = Layer::build(&this).expect("packed");
        assert_eq!(first.bytes, second.bytes);
        assert_eq!(first.diff_id, second.diff_id);

        let mut unpacked = tar::Archive::new(flate2::read::GzDecoder::new(first.bytes.as_slice()));
        let names: Vec<_> = unpacked
            .entries()
            .expect("a tar")
            .map(|entry| entry.expect("an entry").path().expect("a path").display().to_string())
            .collect();
        assert_eq!(names, ["etc/", "etc/Cargo.toml"]);
    }

    fn paths_of_this_crate() -> BTreeMap<String, PathBuf> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        BTreeMap::from([("etc/Cargo.toml".to_owned(), manifest)])
    }
}
