//! apt, in the two ways that setup uses it: installing packages of the system's own suites without starting their
//! services, and fetching one package of another suite through private folders, so that the system's list of suites
//! stays as it is.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use ingress_tests::paths;

use crate::process;

/// Installs packages; their services are not started (we run nginx and haproxy ourselves, on ports of our own).
pub(super) fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if paths::program("apt-get").is_none() {
        bail!("no apt-get here: install the equivalents of Debian's {list} by hand");
    }
    if !process::is_root() {
        bail!("installing packages needs root: run `sudo apt-get install {list}`");
    }
    let _quiet = ServicesStayStopped::hold()?;
    let install = |log| {
        let mut command = apt_get();
        command.args(["install", "--yes", "--no-install-recommends"]).args(packages);
        process::logged(&format!("apt-get install {list}"), log, &mut command)
    };
    // Package lists may be missing (container images) or old; most machines don't need the update. One suite of the
    // user's that cannot be reached makes `update` fail though ours may be there: installing decides.
    let missing_lists =
        process::output(Command::new("apt-cache").args(["show", "--no-all-versions"]).args(packages))
            .is_err();
    if missing_lists || install("apt-install").is_err() {
        if let Err(error) = process::logged("apt-get update", "apt-update", apt_get().arg("update")) {
            crate::report::note(&format!("{error:#}"));
        }
        return install("apt-install-again");
    }
    Ok(())
}

/// Fetches `package` at exactly `version` (without Debian's revision) from `suite` and unpacks it into `into`.
/// `Ok(false)` if the suite doesn't have that version.
pub(super) fn fetch_from_suite(package: &str, version: &str, suite: &str, into: &Path) -> Result<bool> {
    let Some(archive) = debian_archive() else { return Ok(false) };
    let apt = PrivateApt::new(suite, &archive)?;
    process::logged(&format!("package lists of {suite}"), "apt-private-update", apt.command().arg("update"))?;

    let versions = process::output(apt.cache_command().args(["madison", package]))?;
    let Some(full_version) = pick_version(&versions, version) else { return Ok(false) };
    let mut download = apt.command();
    download.current_dir(&apt.dir).args(["download", &format!("{package}={full_version}")]);
    process::logged(&format!("{package} {full_version}"), "apt-private-download", &mut download)?;

    let deb = fs::read_dir(&apt.dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get download left no package")?;
    process::logged(
        &format!("unpack {package}"),
        "dpkg-unpack",
        Command::new("dpkg").arg("-x").arg(&deb).arg(into),
    )?;
    fs::remove_file(deb)?;
    Ok(true)
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
    command
}

/// apt with sources, lists and cache of its own, below `target/xtask/apt`.
struct PrivateApt {
    dir: PathBuf,
    options: Vec<String>,
}

impl PrivateApt {
    fn new(suite: &str, archive: &Archive) -> Result<Self> {
        let dir = paths::xtask_dir().join("apt").join(suite);
        for part in ["sources", "lists/partial", "cache/archives/partial"] {
            let part = dir.join(part);
            fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
        }
        let signed_by =
            archive.signed_by.as_ref().map_or_else(String::new, |key| format!("Signed-By: {key}\n"));
        let source =
            format!("Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n{signed_by}", archive.uri);
        fs::write(dir.join("sources/suite.sources"), source)?;
        let options = [
            ("Dir::Etc::sourcelist", "/dev/null".into()),
            ("Dir::Etc::sourceparts", dir.join("sources").display().to_string()),
            ("Dir::State::lists", dir.join("lists").display().to_string()),
            ("Dir::Cache", dir.join("cache").display().to_string()),
            // apt drops to the user `_apt`, which may not reach into the target directory.
            ("APT::Sandbox::User", "root".into()),
        ]
        .map(|(key, value): (_, String)| format!("{key}={value}"));
        Ok(Self { dir, options: options.into() })
    }

    fn command(&self) -> Command {
        self.with_options(apt_get())
    }

    fn cache_command(&self) -> Command {
        self.with_options(Command::new("apt-cache"))
    }

    fn with_options(&self, mut command: Command) -> Command {
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }
}

/// Where this machine gets Debian from.
#[derive(Debug, PartialEq, Eq)]
struct Archive {
    uri: String,
    signed_by: Option<String>,
}

/// Reads the address of Debian's archive from the system's own sources.
fn debian_archive() -> Option<Archive> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    let parts = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten();
    files.extend(parts.filter_map(|entry| Some(entry.ok()?.path())));
    files.iter().filter_map(|file| fs::read_to_string(file).ok()).find_map(|text| archive_in(&text))
}

/// The first source of Debian's main archive, in either format of apt's: a stanza or a line. Told from other
/// publishers' by the path, which every mirror keeps (`…/debian`), and from security updates by the same.
fn archive_in(text: &str) -> Option<Archive> {
    let is_debian = |uri: &str| uri.trim_end_matches('/').ends_with("/debian");
    let stanza = text.split("\n\n").find_map(|stanza| {
        let field =
            |name: &str| stanza.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
        let uri = field("URIs:")?.split_whitespace().find(|uri| is_debian(uri))?.to_owned();
        Some(Archive { uri, signed_by: field("Signed-By:").filter(|key| key.starts_with('/')) })
    });
    stanza.or_else(|| {
        let lines = text.lines().filter(|line| line.starts_with("deb "));
        let uri =
            lines.flat_map(str::split_whitespace).find(|word| word.contains("://") && is_debian(word))?;
        Some(Archive { uri: uri.to_owned(), signed_by: None })
    })
}

/// The version in `apt-cache madison`'s table (`package | version | suite`) whose upstream part is `wanted`:
/// Debian appends `+dfsg…`, `-1`, `~bpo13+1`.
fn pick_version(madison: &str, wanted: &str) -> Option<String> {
    madison.lines().filter_map(|line| Some(line.split('|').nth(1)?.trim())).find_map(|version| {
        let rest = version.strip_prefix(wanted)?;
        rest.starts_with(['+', '-', '~']).then(|| version.to_owned())
    })
}

/// While held, packages don't start their services: `policy-rc.d` is how Debian lets an installer say so.
struct ServicesStayStopped {
    made: Option<PathBuf>,
}

impl ServicesStayStopped {
    fn hold() -> Result<Self> {
        let path = PathBuf::from("/usr/sbin/policy-rc.d");
        if path.exists() {
            return Ok(Self { made: None });
        }
        fs::write(
            &path,
            "#!/bin/sh\n# Made by `cargo xtask setup` for the time of one apt-get run.\nexit 101\n",
        )
        .with_context(|| format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(Self { made: Some(path) })
    }
}

impl Drop for ServicesStayStopped {
    fn drop(&mut self) {
        if let Some(path) = &self.made
            && let Err(error) = fs::remove_file(path)
        {
            crate::report::note(&format!("remove {} by hand: {error}", path.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_found_in_stanzas_and_in_lines() {
        let stanzas = "Types: deb\nURIs: http://mirror.example/debian-security\nSigned-By: /k/a.gpg\n\n\
                       Types: deb\n# a snapshot\nURIs: http://mirror.example/debian\nSigned-By: /k/b.gpg\n";
        let expected =
            Archive { uri: "http://mirror.example/debian".into(), signed_by: Some("/k/b.gpg".into()) };
        assert_eq!(archive_in(stanzas), Some(expected));

        let lines = "# comment\ndeb https://other.example/apt stable main\ndeb http://m.example/debian/ trixie main\n";
        assert_eq!(
            archive_in(lines),
            Some(Archive { uri: "http://m.example/debian/".into(), signed_by: None })
        );
        assert_eq!(archive_in("deb https://other.example/apt stable main\n"), None);
    }

    #[test]
    fn only_the_very_version_is_picked() {
        let table =
            " rust-src | 1.95.1+dfsg1-1~bpo13+1 | suite\n rust-src | 1.95.0+dfsg1-1~bpo13+1 | suite\n";
        assert_eq!(pick_version(table, "1.95.0"), Some("1.95.0+dfsg1-1~bpo13+1".into()));
        assert_eq!(pick_version(table, "1.95"), None);
        assert_eq!(pick_version(table, "1.96.0"), None);
    }
}
