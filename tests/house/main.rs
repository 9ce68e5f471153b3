//! House level: rules about the code itself. `cargo xtask test house` runs it; it needs nothing but the sources, and
//! names every place that breaks a rule. The rules are pure functions over a file's text (`rules.rs`).

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use ingress_tests::paths;
use libtest_mimic::{Arguments, Failed, Trial};

mod rules;

fn main() -> ExitCode {
    let args = Arguments::from_args();
    let trials = vec![
        Trial::test("rust_files_are_at_most_500_lines_long", || every_file(&["rs"], rules::too_long)),
        Trial::test("rust_files_begin_with_a_module_comment", || {
            every_file(&["rs"], rules::no_module_comment)
        }),
        Trial::test("nothing_is_left_to_do", || every_file(&rules::TEXT, rules::left_to_do)),
        Trial::test("no_path_of_a_developers_machine", || every_file(&rules::TEXT, rules::machine_path)),
        Trial::test("root_documents_exist", root_documents),
        Trial::test("examples_pass_the_check", examples_pass),
        Trial::test("rules_catch_what_they_are_for", rules::self_test),
    ];
    libtest_mimic::run(&args, trials).exit_code()
}

/// Applies `rule` to every tracked file with one of the extensions; it returns what is wrong, a line each.
fn every_file(extensions: &[&str], rule: fn(&Path, &str) -> Vec<String>) -> Result<(), Failed> {
    let files = tracked_files()?;
    let chosen = files.iter().filter(|path| {
        path.extension().and_then(|it| it.to_str()).is_some_and(|extension| extensions.contains(&extension))
    });
    let mut checked = 0;
    let mut wrong = Vec::new();
    for path in chosen {
        // Deleted in the work tree but still in the index.
        let Ok(text) = fs::read_to_string(paths::workspace().join(path)) else { continue };
        checked += 1;
        wrong.extend(rule(path, &text).into_iter().map(|what| format!("{}: {what}", path.display())));
    }
    if checked == 0 {
        return Err("no file was found to check".into());
    }
    none(&wrong)
}

/// Everything that would be committed, relative to the workspace. An unpacked archive has no git: then every file
/// outside of `target/`.
fn tracked_files() -> Result<Vec<PathBuf>, Failed> {
    let mut git = Command::new("git");
    git.current_dir(paths::workspace()).args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    if let Ok(output) = git.output()
        && output.status.success()
    {
        let list = String::from_utf8(output.stdout)?;
        return Ok(list.lines().map(PathBuf::from).collect());
    }
    let mut files = Vec::new();
    walk(&paths::workspace(), &mut files)?;
    Ok(files)
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failed> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let hidden_or_built =
            path.file_name().is_none_or(|name| name == "target" || name.to_string_lossy().starts_with('.'));
        if path.is_dir() && !hidden_or_built {
            walk(&path, files)?;
        } else if path.is_file() {
            files.push(path.strip_prefix(paths::workspace())?.to_path_buf());
        }
    }
    Ok(())
}

fn root_documents() -> Result<(), Failed> {
    let wanted = [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "LICENSE-APACHE",
        "LICENSE-GPL2",
        "deny.toml",
        ".ci/run",
    ];
    let lacking: Vec<_> = wanted
        .iter()
        .filter(|name| fs::metadata(paths::workspace().join(name)).map_or(0, |meta| meta.len()) == 0)
        .map(|name| format!("{name} is missing or empty"))
        .collect();
    none(&lacking)
}

/// Each file of `examples/` stands for itself: what it names, it brings along.
fn examples_pass() -> Result<(), Failed> {
    let folder = paths::workspace().join("examples");
    let mut examples: Vec<_> = fs::read_dir(&folder)
        .map_err(|error| format!("{}: {error}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    examples.sort();
    if examples.is_empty() {
        return Err("examples/ has no YAML file".into());
    }
    let daemon = daemon()?;
    let mut wrong = Vec::new();
    for example in examples {
        let check = Command::new(&daemon).arg("check").arg(&example).output()?;
        if !check.status.success() {
            let said = [check.stdout, check.stderr].concat();
            wrong.push(format!("{}: {}", example.display(), String::from_utf8_lossy(&said)));
        }
    }
    none(&wrong)
}

/// A debug build, which costs next to nothing after the unit tests: the selection of packages is the same.
fn daemon() -> Result<PathBuf, Failed> {
    if std::env::var_os("XDP_INGRESS_BIN").is_some() {
        return Ok(paths::daemon());
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(paths::workspace());
    cargo.args(["build", "--quiet", "--workspace", "--exclude", "ingress-ebpf", "--bin", "xdp-ingress"]);
    let build = cargo.output()?;
    if !build.status.success() {
        return Err(format!("the daemon does not build: {}", String::from_utf8_lossy(&build.stderr)).into());
    }
    Ok(paths::target_dir().join("debug/xdp-ingress"))
}

fn none(wrong: &[String]) -> Result<(), Failed> {
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}
