//! The objects on disk: what a daemon serves that starts while the API server is away. One file in a directory of its
//! own, below the state directory. It holds Secrets: only our user may read it.
//!
//! A line with version and checksum, then JSON. Written aside and renamed, so that there is always a whole one; a file that
//! is damaged or of another version is not used.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use tokio::sync::watch;

use super::Objects;

/// First line: this, a space, the checksum.
const HEADER: &str = "xdp-ingress objects 1 sha256";
/// Between two writes at least.
const PAUSE: Duration = Duration::from_secs(2);
/// And this many times what the last one took: with very many objects it shall still be next to nothing.
const SHARE: u32 = 50;

/// Where the objects are.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    dir: PathBuf,
}

impl Memory {
    /// Below this state directory.
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { dir: state_dir.join("memory") }
    }

    fn file(&self) -> PathBuf {
        self.dir.join("objects")
    }

    /// What was there last; `None`, said in the log, if there is nothing or nothing good.
    pub(super) fn read(&self) -> Option<Objects> {
        let file = self.file();
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) => {
                if error.kind() != std::io::ErrorKind::NotFound {
                    tracing::warn!(file = %file.display(), %error, "the remembered objects cannot be read; going on without");
                }
                return None;
            }
        };
        match decode(&text) {
            Ok(objects) => Some(objects),
            Err(error) => {
                tracing::warn!(
                    file = %file.display(), error = format!("{error:#}"),
                    "the remembered objects are not used; they are written anew when the API server is reached"
                );
                None
            }
        }
    }

    /// Keeps the newest on disk until the sender is dropped.
    pub(super) async fn keep(self, mut objects: watch::Receiver<Option<Objects>>) {
        let mut last: Option<Result<(), String>> = None;
        while objects.changed().await.is_ok() {
            let Some(latest) = objects.borrow_and_update().clone() else { continue };
            if latest.is_remembered {
                continue;
            }
            let memory = self.clone();
            let started = Instant::now();
            let written = tokio::task::spawn_blocking(move || memory.write(&latest)).await;
            let written = written.map_err(anyhow::Error::from).and_then(|written| written);
            let written = written.map_err(|error| format!("{error:#}"));
            if last.as_ref() != Some(&written)
                && let Err(error) = &written
            {
                tracing::warn!(
                    dir = %self.dir.display(), error,
                    "the objects cannot be kept on disk: a daemon that starts while the API server is away will have none"
                );
            }
            last = Some(written);
            tokio::time::sleep(PAUSE.max(started.elapsed() * SHARE)).await;
        }
    }

    fn write(&self, objects: &Objects) -> anyhow::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        // It may have been there with other rights.
        fs::set_permissions(&self.dir, fs::Permissions::from_mode(0o700))?;
        let aside = self.dir.join("objects.new");
        // What a crash left there may have other rights, too.
        if let Err(error) = fs::remove_file(&aside)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error).context("removing what an earlier write left");
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
        file.write_all(&encode(objects)?)?;
        file.sync_all()?;
        fs::rename(&aside, self.file())?;
        fs::File::open(&self.dir)?.sync_all()?;
        Ok(())
    }
}

fn encode(objects: &Objects) -> anyhow::Result<Vec<u8>> {
    let json = objects.to_json()?;
    let mut text = format!("{HEADER} {}\n", checksum(&json)).into_bytes();
    text.extend(json);
    Ok(text)
}

fn decode(text: &[u8]) -> anyhow::Result<Objects> {
    let end = text.iter().position(|byte| *byte == b'\n').context("the file is empty")?;
    let (header, json) = (&text[..end], &text[end + 1..]);
    let wanted = std::str::from_utf8(header).ok().and_then(|line| line.strip_prefix(HEADER));
    let wanted = wanted.context("the file is of another version")?;
    ensure!(wanted.trim() == checksum(json), "the checksum is wrong: the file is damaged");
    let objects = Objects::from_json(json).context("the file is not of this version's form")?;
    Ok(Objects { is_remembered: true, ..objects })
}

fn checksum(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    digest(&SHA256, bytes).as_ref().iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Key;

    fn objects() -> Objects {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/translate/good-tls");
        crate::source::read_once(&[folder.join("input.yaml")]).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::new(folder.path());
        assert!(memory.read().is_none());
        let mut objects = objects();
        memory.write(&objects).unwrap();
        objects.services.remove(&Key::new("default", "web"));
        memory.write(&objects).unwrap();
        let read = memory.read().unwrap();
        assert!(read.is_remembered);
        assert!(!read.ingresses.is_empty() && !read.secrets.is_empty());
        assert_eq!(read.to_json().unwrap(), objects.to_json().unwrap());
        let (now, _) = crate::translate::translate(&objects, &crate::translate::Settings::default());
        let (then, _) = crate::translate::translate(&read, &crate::translate::Settings::default());
        assert_eq!(now, then);
    }

    #[test]
    fn only_we_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::new(folder.path());
        fs::create_dir(&memory.dir).unwrap();
        fs::set_permissions(&memory.dir, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(memory.dir.join("objects.new"), "left by a crash").unwrap();
        memory.write(&objects()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&memory.dir), mode(&memory.file())), (0o700, 0o600));
        assert!(!memory.dir.join("objects.new").exists());
    }

    /// Cut off anywhere, with any byte changed, or of another version: not used.
    #[test]
    fn a_damaged_file_is_not_used() {
        let good = encode(&objects()).unwrap();
        assert!(decode(&good).is_ok());
        for end in [0, 1, HEADER.len(), HEADER.len() + 10, good.len() / 2, good.len() - 1] {
            assert!(decode(&good[..end]).is_err(), "cut at {end}");
        }
        for at in [3, HEADER.len() + 3, good.len() / 2, good.len() - 2] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(decode(&bad).is_err(), "changed at {at}");
        }
        let other = String::from_utf8(good).unwrap().replacen("objects 1", "objects 2", 1);
        assert!(decode(other.as_bytes()).unwrap_err().to_string().contains("another version"));
    }
}
