//! Runs other programs for the verbs: with their output in a log file behind a progress line, straight through to
//! the terminal, or captured. Says which command failed and how. Decides nothing.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result, bail};
use ingress_tests::paths;

use crate::report::Step;

/// How much of a failed command's output is shown; the log file has all of it.
const SHOWN_LINES: usize = 25;

/// Runs `command` as one step called `what`. Its output goes to `target/xtask/logs/LOG.log`, the newest line to the
/// progress line, and the last lines into the error if it fails.
pub(crate) fn logged(what: &str, log: &str, command: &mut Command) -> Result<()> {
    let log_path = log_file(log)?;
    let mut file = File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
    writeln!(file, "$ {command:?}")?;

    let step = Step::start(what);
    let (reader, writer) = std::io::pipe()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("cannot run {}", name(command)))?;
    // `command` still holds our ends of the pipe: without letting go of them the loop below never ends.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let mut tail = VecDeque::new();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        writeln!(file, "{line}")?;
        step.progress(&line);
        if tail.len() == SHOWN_LINES {
            tail.pop_front();
        }
        tail.push_back(line.into_owned());
    }
    let status = child.wait()?;
    if status.success() {
        step.done();
        return Ok(());
    }
    drop(step);
    let tail: Vec<_> = tail.into();
    bail!(
        "{} {}; its last lines:\n{}\n(all of it: {})",
        name(command),
        ending(status),
        tail.join("\n"),
        log_path.display()
    );
}

/// Runs `command` with our own terminal.
pub(crate) fn streamed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", name(command)))?;
    if !status.success() {
        bail!("{} {}", name(command), ending(status));
    }
    Ok(())
}

/// What `command` writes to its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", name(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} {}: {}", name(command), ending(output.status), said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Cargo, as the one that runs us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::workspace());
    command
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn log_file(log: &str) -> Result<PathBuf> {
    let dir = paths::xtask_dir().join("logs");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir.join(format!("{log}.log")))
}

/// The program and its first arguments, enough to recognise it.
fn name(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let program = program.file_name().unwrap_or(command.get_program()).to_string_lossy().into_owned();
    let arguments = command.get_args().take(3).map(|argument| argument.to_string_lossy().into_owned());
    let words: Vec<_> = std::iter::once(program).chain(arguments).collect();
    format!("`{}`", words.join(" "))
}

fn ending(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("failed with exit status {code}"),
        None => format!("was ended ({status})"),
    }
}
