//! Finds the manifest files under the given paths and the directories whose changes matter. Called by `directory`.
//! Reads no content.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Deeper is a symlink that leads back up.
const MAX_DEPTH: usize = 32;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Manifest files by path, or why one, or a directory, cannot be looked at.
    pub(super) files: BTreeMap<PathBuf, Result<Signature, String>>,
    /// Directories to watch: those with manifests, and those where a symlink on the way leads.
    pub(super) directories: BTreeSet<PathBuf>,
}

/// Changes when a file's content does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Signature {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    /// Changed so shortly before the look that a second change could have the same time: look into it again.
    pub(super) racy: bool,
}

impl Signature {
    fn of(metadata: &std::fs::Metadata) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let age = i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(metadata.ctime());
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            racy: age < 2,
        }
    }
}

/// Looks at all the paths. A directory is searched for `.yaml`, `.yml` and `.json` files to any depth; names that begin
/// with a dot are passed over (editors' files; the `..data` of a ConfigMap volume is reached by the symlinks beside it).
pub(super) fn scan(roots: &[PathBuf]) -> Found {
    let mut found = Found::default();
    for root in roots {
        watch_beside(root, &mut found);
        match std::fs::metadata(root) {
            Ok(metadata) if metadata.is_dir() => directory(root, 0, &mut found),
            // A path that is given by name is read whatever its extension is.
            Ok(metadata) => drop(found.files.insert(root.clone(), Ok(Signature::of(&metadata)))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => drop(found.files.insert(root.clone(), Err(error.to_string()))),
        }
    }
    found
}

fn directory(path: &Path, depth: usize, found: &mut Found) {
    found.directories.insert(path.to_path_buf());
    if depth > MAX_DEPTH {
        found.files.insert(path.to_path_buf(), Err(format!("more than {MAX_DEPTH} directories deep")));
        return;
    }
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => {
            found.files.insert(path.to_path_buf(), Err(error.to_string()));
            return;
        }
    };
    for entry in entries.filter_map(Result::ok) {
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            watch_beside(&path, found);
        }
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => directory(&path, depth + 1, found),
            Ok(metadata) if metadata.is_file() && is_manifest(&path) => {
                found.files.insert(path, Ok(Signature::of(&metadata)));
            }
            // A symlink that leads nowhere (an editor's lock), or gone since the listing.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) if is_manifest(&path) => drop(found.files.insert(path, Err(error.to_string()))),
            _ => {}
        }
    }
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
}

/// A file is replaced in its directory, a symlink's target in another one: both are watched.
fn watch_beside(path: &Path, found: &mut Found) {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_path_buf(),
        None => path.to_path_buf(),
    };
    found.directories.insert(parent(path));
    if let Ok(target) = std::fs::canonicalize(path) {
        found.directories.insert(parent(&target));
    }
}
