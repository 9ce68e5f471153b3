//! The objects on disk: what a daemon serves that starts while the API server is away. One file in a directory of its
//! own, below the state directory. It holds Secrets: only our user may read it.
//!
//! A line with the version, a line of JSON, a line with the checksum of both. Written aside and renamed, so that there is
//! always a whole one; a file that is damaged or of another version is not used.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use aws_lc_rs::digest::{Context, SHA256, digest};
use tokio::sync::watch;

use super::Objects;

/// First line.
const HEADER: &str = "xdp-ingress objects 2 sha256";
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

    /// Leaves none.
    pub(super) fn forget(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// What was there last; `None`, said in the log, if there is nothing or nothing good.
    pub(super) fn read(&self) -> Option<Objects> {
        let file = self.file();
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
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
        // While one daemon takes over from another, both write. Unlocked when it is closed.
        let directory = fs::File::open(&self.dir)?;
        directory.lock()?;
        let aside = self.dir.join("objects.new");
        // What a crash left there may have other rights, too.
        if let Err(error) = fs::remove_file(&aside)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error).context("removing what an earlier write left");
        }
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
        let mut file = BufWriter::with_capacity(1 << 16, file);
        encode(objects, &mut file)?;
        file.flush()?;
        file.get_ref().sync_all()?;
        fs::rename(&aside, self.file())?;
        directory.sync_all()?;
        Ok(())
    }
}

/// Piece by piece: the whole text of a large cluster would double what the daemon needs.
fn encode(objects: &Objects, to: impl Write) -> anyhow::Result<()> {
    let mut to = Hashed { to, sum: Context::new(&SHA256) };
    writeln!(to, "{HEADER}")?;
    objects.write_json(&mut to)?;
    let sum = hex(to.sum.finish().as_ref());
    write!(to.to, "\n{sum}\n")?;
    Ok(())
}

/// Writes and adds up.
struct Hashed<W> {
    to: W,
    sum: Context,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.sum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn decode(text: &[u8]) -> anyhow::Result<Objects> {
    let json = text.strip_prefix(HEADER.as_bytes()).and_then(|rest| rest.strip_prefix(b"\n"));
    let json = json.context("the file is of another version")?;
    let end = json.strip_suffix(b"\n").and_then(|json| json.iter().rposition(|byte| *byte == b'\n'));
    let end = end.context("the file is cut off")?;
    let summed = &text[..text.len() - json.len() + end];
    let sum = &json[end + 1..json.len() - 1];
    ensure!(
        sum == hex(digest(&SHA256, summed).as_ref()).as_bytes(),
        "the checksum is wrong: the file is damaged"
    );
    Objects::from_json(&json[..end]).context("the file is not of this version's form")
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut hex, byte| {
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

    fn encoded(objects: &Objects) -> Vec<u8> {
        let mut text = Vec::new();
        encode(objects, &mut text).unwrap();
        text
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
        assert!(!read.ingresses.is_empty() && !read.secrets.is_empty());
        assert_eq!(encoded(&read), encoded(&objects));
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
        let good = encoded(&objects());
        assert!(decode(&good).is_ok());
        for end in [0, 1, HEADER.len(), HEADER.len() + 10, good.len() / 2, good.len() - 70, good.len() - 1] {
            assert!(decode(&good[..end]).is_err(), "cut at {end}");
        }
        for at in [3, HEADER.len() + 3, good.len() / 2, good.len() - 2] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(decode(&bad).is_err(), "changed at {at}");
        }
        let other = String::from_utf8(good).unwrap().replacen("objects 2", "objects 1", 1);
        assert!(decode(other.as_bytes()).unwrap_err().to_string().contains("another version"));
    }
}
