//! `cargo xtask fuzz`: each fuzzer of `tests/fuzz` for a bounded time, with what earlier runs found kept in
//! `target/xtask/fuzz`. Coverage comes from the compiler's own instrumentation, so a stable toolchain is enough. A fuzzer
//! that finds something leaves the input, says how to run it again, and fails the run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use ingress_tests::paths;

use crate::{process, report, setup};

/// What `cargo fuzz` sets too: counters at every edge of the control flow, and the operands of comparisons.
const INSTRUMENTATION: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=16 -Cdebug-assertions=on";

/// Longest input, bytes: heads are at most 32 KiB, everything of interest happens long before.
const MAX_LENGTH: usize = 4096;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only this fuzzer.
    target: Option<String>,
    /// Seconds for each fuzzer.
    #[arg(long, default_value_t = 30)]
    seconds: u32,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(&setup::FUZZ)?;
    let package = paths::workspace().join("tests/fuzz");
    let targets = targets(&package, args.target.as_deref())?;
    let programs = build(&package)?;
    let mut failed = Vec::new();
    for target in &targets {
        report::heading(&format!("fuzz {target}, {} s", args.seconds));
        if let Err(error) = fuzz(&package, &programs.join(target), target, args.seconds) {
            report::missing(target, &format!("{error:#}"));
            failed.push(target.as_str());
        }
    }
    if !failed.is_empty() {
        bail!("found something: {}", failed.join(", "));
    }
    Ok(())
}

/// The names of the fuzzers: one program each.
fn targets(package: &Path, only: Option<&str>) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(package.join("src/bin"))? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if only.is_none_or(|only| only == name) {
            names.push(name);
        }
    }
    names.sort();
    if names.is_empty() {
        bail!("there is no fuzzer `{}`", only.unwrap_or_default());
    }
    Ok(names)
}

/// Builds all of them and returns where they are.
fn build(package: &Path) -> Result<PathBuf> {
    let host = process::output(Command::new("rustc").arg("-vV"))?;
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    // The versions that ship; what only the fuzzers need is added.
    fs::copy(paths::workspace().join("Cargo.lock"), package.join("Cargo.lock"))?;
    let target_dir = paths::xtask_dir().join("fuzz/target");
    let mut cargo = process::cargo();
    // With `--target`, build scripts and procedural macros stay without instrumentation.
    cargo.args(["build", "--release", "--target", host, "--manifest-path"]);
    cargo.arg(package.join("Cargo.toml")).arg("--target-dir").arg(&target_dir);
    process::logged("build the fuzzers", "fuzz-build", cargo.env("RUSTFLAGS", INSTRUMENTATION))?;
    Ok(target_dir.join(host).join("release"))
}

fn fuzz(package: &Path, program: &Path, target: &str, seconds: u32) -> Result<()> {
    let corpus = paths::xtask_dir().join("fuzz/corpus").join(target);
    let found = paths::xtask_dir().join("fuzz/found").join(target);
    for dir in [&corpus, &found] {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let mut command = Command::new(program);
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={MAX_LENGTH}"));
    command.args(["-timeout=5", "-rss_limit_mb=2048", "-print_final_stats=1", "-verbosity=0"]);
    command.arg(format!("-artifact_prefix={}/", found.display()));
    // New inputs go to the first directory.
    command.arg(&corpus).arg(package.join("seeds").join(target));
    process::streamed(&mut command).with_context(|| {
        format!("run it again with `{} FILE`, FILE from {}", program.display(), found.display())
    })
}
