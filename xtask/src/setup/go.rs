//! Go, for the programs of `go_programs`. Since 1.21 any Go fetches the toolchain that `go.mod` names by itself. An older
//! one (Debian 12 has 1.19) is told to fetch it as what it is, a module; it then lies in `target/xtask/go`. Missing
//! altogether: Debian's `golang-go`.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use ingress_tests::paths;

use super::{Prerequisite, State, debian, go_programs};
use crate::{process, report::Step};

/// The first Go that fetches newer toolchains by itself (`GOTOOLCHAIN`).
const SELF_UPDATING: (u32, u32) = (1, 21);

pub(super) struct Go;

impl Prerequisite for Go {
    fn name(&self) -> String {
        "Go".into()
    }

    fn state(&self) -> Result<State> {
        let Some(program) = program() else {
            return Ok(State::Missing("not installed".into()));
        };
        let (found, version) = version_of(&program)?;
        if version < SELF_UPDATING {
            return Ok(State::Missing(format!("{found} cannot fetch the toolchain that go.mod names")));
        }
        let wanted = go_programs::go_directive()?;
        let newer =
            if Some(version) >= self::version(&wanted) { "" } else { ", which fetches the one wanted" };
        Ok(State::Ready(format!("{found} at {}{newer} (go.mod wants {wanted})", program.display())))
    }

    fn install(&self) -> Result<()> {
        if program().is_none() {
            debian::install(&["golang-go"])?;
        }
        let found = program().context("Debian's golang-go brought no `go`")?;
        if version_of(&found)?.1 < SELF_UPDATING {
            fetch_toolchain(&found, &go_programs::go_directive()?)?;
        }
        Ok(())
    }
}

/// Lets Go fetch the toolchain that `go.mod` wants if the local one is older.
pub(super) fn command() -> Command {
    let mut command = Command::new(program().unwrap_or_else(|| "go".into()));
    command.env("GOTOOLCHAIN", "auto").env_remove("GOROOT");
    command
}

/// Ours, if one had to be fetched.
fn program() -> Option<PathBuf> {
    let ours = Some(private_dir().join("bin/go")).filter(|program| program.is_file());
    ours.or_else(|| paths::program("go"))
}

fn private_dir() -> PathBuf {
    paths::xtask_dir().join("go")
}

/// As it calls itself, and as numbers.
fn version_of(program: &Path) -> Result<(String, (u32, u32))> {
    // Outside of any module: a `go.mod` around us would make Go switch toolchains before it answers.
    let mut command = Command::new(program);
    command.args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local").current_dir("/");
    let found = process::output(&mut command)?.trim().to_owned();
    let version = version(&found).with_context(|| format!("cannot read Go's version `{found}`"))?;
    Ok((found, version))
}

/// Does by hand what newer versions do by themselves: toolchains are modules (`golang.org/toolchain`), checked
/// against the checksum database like any other.
fn fetch_toolchain(old: &Path, wanted: &str) -> Result<()> {
    let target = process::output(Command::new(old).args(["env", "GOOS", "GOARCH"]).current_dir("/"))?;
    let target = target.split_whitespace().collect::<Vec<_>>().join("-");
    let step = Step::start(format!("Go {wanted} as a module"));
    let cache = paths::xtask_dir().join("go-modules");
    let mut download = Command::new(old);
    download
        .args(["mod", "download", "-json", &format!("golang.org/toolchain@v0.0.1-go{wanted}.{target}")])
        .env("GOMODCACHE", &cache)
        .env("GOFLAGS", "-modcacherw")
        .current_dir("/");
    let answer: serde_json::Value = serde_json::from_str(&process::output(&mut download)?)?;
    let dir = PathBuf::from(answer["Dir"].as_str().context("go mod download names no folder")?);
    // Modules carry no permissions.
    make_executable(&dir.join("bin"))?;
    make_executable(&dir.join("pkg/tool").join(target.replace('-', "_")))?;
    fs::rename(&dir, private_dir()).with_context(|| format!("cannot move {}", dir.display()))?;
    fs::remove_dir_all(&cache)?;
    step.done();
    Ok(())
}

fn make_executable(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("the toolchain has no {}", dir.display()))? {
        fs::set_permissions(entry?.path(), fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Major and minor of `go1.26.8` or `1.26.0`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim_start_matches("go").split(['.', ' ', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn gos_versions_are_compared_by_number() {
        assert_eq!(version("go1.26.8"), Some((1, 26)));
        assert_eq!(version("1.9"), Some((1, 9)));
        assert!(version("go1.9.1") < version("go1.21.0"));
        assert_eq!(version("devel"), None);
    }
}
