//! The access log's writer: one thread that takes whole batches of lines from the workers and writes them to a file or
//! to standard output. Reopens its file when it was moved away or removed (logrotate). A file that cannot be written
//! costs lines, never requests.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::l7::access_log::Batch;

/// Batches of about 64 KiB that may wait for a slow disk: 16 MiB.
const WAITING: usize = 256;
/// How often the file is looked for, and how often a failure is told.
const LOOK: Duration = Duration::from_secs(1);

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// Appended to this file.
    File(PathBuf),
}

/// Opens the target and starts the writer. The error names what is wrong with the file.
pub fn start(target: Target) -> io::Result<SyncSender<Batch>> {
    let output = Output::open(&target)?;
    let (sink, batches) = sync_channel(WAITING);
    std::thread::Builder::new()
        .name("access-log".to_owned())
        .spawn(move || write(output, &target, &batches))?;
    Ok(sink)
}

enum Output {
    Stdout(io::Stdout),
    File { file: File, inode: u64 },
}

impl Output {
    fn open(target: &Target) -> io::Result<Self> {
        match target {
            Target::Stdout => Ok(Self::Stdout(io::stdout())),
            Target::File(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path)?;
                let inode = file.metadata()?.ino();
                Ok(Self::File { file, inode })
            }
        }
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => {
                stdout.write_all(text)?;
                stdout.flush()
            }
            Self::File { file, .. } => file.write_all(text),
        }
    }

    /// Whether the path now leads elsewhere or nowhere.
    fn is_moved(&self, path: &Path) -> bool {
        match self {
            Self::Stdout(_) => false,
            Self::File { inode, .. } => std::fs::metadata(path).map(|now| now.ino()).ok() != Some(*inode),
        }
    }
}

fn write(mut output: Output, target: &Target, batches: &Receiver<Batch>) {
    let mut looked = Instant::now();
    let mut told: Option<Instant> = None;
    let mut lost = 0;
    // Ends when the last worker has dropped its sender.
    while let Ok(batch) = batches.recv() {
        if looked.elapsed() >= LOOK
            && let Target::File(path) = target
        {
            looked = Instant::now();
            if output.is_moved(path)
                && let Ok(new) = Output::open(target)
            {
                output = new;
            }
        }
        match output.write(&batch.text) {
            Ok(()) => {}
            Err(error) => {
                lost += batch.lines;
                if told.is_none_or(|told| told.elapsed() >= LOOK * 60) {
                    told = Some(Instant::now());
                    tracing::error!(?target, %error, lost, "the access log cannot be written: is the disk full?");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_a_file_that_is_rotated() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let sink = start(Target::File(path.clone())).unwrap();
        let send = |text: &str| sink.send(Batch { text: text.into(), lines: 1 }).unwrap();
        let holds = |path: &Path, text: &str| {
            let end = Instant::now() + Duration::from_secs(10);
            while std::fs::read_to_string(path).unwrap_or_default() != text {
                assert!(Instant::now() < end, "{} never holds {text:?}", path.display());
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        send("one\n");
        holds(&path, "one\n");
        let old = directory.path().join("access.log.1");
        std::fs::rename(&path, &old).unwrap();
        std::thread::sleep(LOOK);
        send("two\n");
        holds(&path, "two\n");
        holds(&old, "one\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error() {
        assert!(start(Target::File("/nonexistent/access.log".into())).is_err());
    }
}
