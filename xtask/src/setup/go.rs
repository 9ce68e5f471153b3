//! Go, for the Kubernetes binaries. Any Go since 1.21 does: it fetches the toolchain that `go.mod` names through the
//! module proxy. Missing altogether: Debian's `golang-go`.

use std::process::Command;

use anyhow::{Context as _, Result};
use ingress_tests::paths;

use super::{Prerequisite, State, debian, kubernetes};
use crate::process;

/// The first Go that fetches newer toolchains by itself (`GOTOOLCHAIN`).
const SELF_UPDATING: (u32, u32) = (1, 21);

pub(super) struct Go;

impl Prerequisite for Go {
    fn name(&self) -> String {
        "Go".into()
    }

    fn state(&self) -> Result<State> {
        let Some(program) = paths::program("go") else {
            return Ok(State::Missing("not installed".into()));
        };
        // Outside of any module: a `go.mod` around us would make Go switch toolchains before it answers.
        let mut command = Command::new(&program);
        command.args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local").current_dir("/");
        let found = process::output(&mut command)?;
        let found = found.trim();
        let version = version(found).with_context(|| format!("cannot read Go's version `{found}`"))?;
        if version < SELF_UPDATING {
            return Ok(State::Missing(format!("{found} cannot fetch the toolchain that go.mod names")));
        }
        let wanted = kubernetes::go_directive()?;
        let newer =
            if Some(version) >= self::version(&wanted) { "" } else { ", which fetches the one wanted" };
        Ok(State::Ready(format!("{found} at {}{newer} (go.mod wants {wanted})", program.display())))
    }

    fn install(&self) -> Result<()> {
        debian::install(&["golang-go"])?;
        if let State::Missing(why) = self.state()? {
            anyhow::bail!("Debian's Go is too old: {why}; install Go 1.21 or newer by hand");
        }
        Ok(())
    }
}

/// Lets Go fetch the toolchain that `go.mod` wants if the local one is older.
pub(super) fn command() -> Command {
    let mut command = Command::new(paths::program("go").unwrap_or_else(|| "go".into()));
    command.env("GOTOOLCHAIN", "auto");
    command
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
