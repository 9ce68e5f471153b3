//! The directory for pinned maps and links: it must lie in a BPF file system, which is mounted where it is missing
//! and we may. Called by `load` and by `cleanup`.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::MountFlags;

use super::StartError;
use super::attach::PIN_PREFIX;
use crate::l4::maps::LAYOUT;

/// `BPF_FS_MAGIC` of `linux/magic.h`.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
/// A directory of this name among the pins: the pinned maps are new, and no program on an uplink uses them yet.
const REBUILDING: &str = "rebuilding";
/// Where the kernel makes room for it.
const USUAL_PLACE: &str = "/sys/fs/bpf";

/// Makes `pin_path` a directory in a BPF file system.
pub(super) fn prepare(pin_path: &Path) -> Result<(), StartError> {
    let failed = |path: &Path, error: io::Error| StartError::NoBpffs { path: path.to_owned(), error };
    let place = mount_point(pin_path);
    let is_there = || is_bpffs(nearest_existing(pin_path)).map_err(|error| failed(pin_path, error));
    if !is_there()? {
        std::fs::create_dir_all(&place).map_err(|error| failed(&place, error))?;
        // Two daemons that start at once must not mount one over the other's pins.
        let directory = std::fs::File::open(&place).map_err(|error| failed(&place, error))?;
        directory.lock().map_err(|error| failed(&place, error))?;
        if is_there()? {
            return std::fs::create_dir_all(pin_path).map_err(|error| failed(pin_path, error));
        }
        rustix::mount::mount(
            "bpffs",
            &place,
            "bpf",
            MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
            None,
        )
        .map_err(|error| failed(&place, error.into()))?;
        tracing::info!(path = %place.display(), "mounted a BPF file system");
    }
    std::fs::create_dir_all(pin_path).map_err(|error| failed(pin_path, error))
}

fn mount_point(pin_path: &Path) -> PathBuf {
    if pin_path.starts_with(USUAL_PLACE) { USUAL_PLACE.into() } else { pin_path.to_owned() }
}

fn nearest_existing(path: &Path) -> &Path {
    path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"))
}

fn is_bpffs(path: &Path) -> io::Result<bool> {
    Ok(rustix::fs::statfs(path)?.f_type == BPF_FS_MAGIC)
}

/// Names of what we pinned in `pin_path`; none if it does not exist. The kernel puts files of its own into the root of
/// each BPF file system.
pub(super) fn pinned(pin_path: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(pin_path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(PIN_PREFIX) || LAYOUT.iter().any(|(map, ..)| *map == name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Removes the pin `name`; that it is gone already is fine.
pub(super) fn unpin(pin_path: &Path, name: impl AsRef<OsStr>) -> io::Result<()> {
    match std::fs::remove_file(pin_path.join(name.as_ref())) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// The pinned maps are about to be made anew, while the uplinks go on with the old ones.
pub(super) fn begin_rebuilding(pin_path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(pin_path.join(REBUILDING))
}

/// Whether the pinned maps are not those that the program on the uplinks uses.
pub(super) fn is_rebuilding(pin_path: &Path) -> bool {
    pin_path.join(REBUILDING).exists()
}

/// The program on the uplinks uses the pinned maps.
pub(super) fn end_rebuilding(pin_path: &Path) -> io::Result<()> {
    match std::fs::remove_dir(pin_path.join(REBUILDING)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Removes everything that is pinned in `pin_path` and the directory. A program whose link goes is detached.
pub(super) fn remove_all(pin_path: &Path) -> io::Result<()> {
    for name in pinned(pin_path)? {
        unpin(pin_path, name)?;
    }
    end_rebuilding(pin_path)?;
    match std::fs::remove_dir(pin_path) {
        // It is the mount point itself, or others use it too.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound
            ) =>
        {
            Ok(())
        }
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{is_bpffs, mount_point, nearest_existing};

    #[test]
    fn where_it_is_mounted() {
        assert_eq!(mount_point(Path::new("/sys/fs/bpf/xdp-ingress")), Path::new("/sys/fs/bpf"));
        assert_eq!(mount_point(Path::new("/run/xdp/pins")), Path::new("/run/xdp/pins"));
        assert_eq!(nearest_existing(Path::new("/proc/self/no/such/thing")), Path::new("/proc/self"));
        assert!(!is_bpffs(Path::new("/proc")).unwrap());
    }
}
