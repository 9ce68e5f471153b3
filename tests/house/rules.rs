//! The rules of the house over one file's text: each returns what is wrong, a line each. Pure; `main.rs` finds the
//! files. Words that the rules look for are put together here so that this file passes its own rules.

use std::path::Path;

use libtest_mimic::Failed;

/// What people write by hand.
pub(crate) const TEXT: [&str; 9] = ["rs", "md", "toml", "yaml", "yml", "json", "sh", "go", "html"];

const MAX_LINES: usize = 500;
/// Below this a file is a table or a re-export that its name says enough about.
const TINY: usize = 3;

/// A file that long is two rooms.
pub(crate) fn too_long(_path: &Path, text: &str) -> Vec<String> {
    let lines = text.lines().count();
    if lines > MAX_LINES { vec![format!("{lines} lines, at most {MAX_LINES}")] } else { Vec::new() }
}

/// Every room says what it does, who calls it and what it must not do.
pub(crate) fn no_module_comment(_path: &Path, text: &str) -> Vec<String> {
    if text.starts_with("//!") || text.lines().count() <= TINY {
        return Vec::new();
    }
    vec!["does not begin with a `//!` comment".into()]
}

/// Open ends belong in the issues.
pub(crate) fn left_to_do(_path: &Path, text: &str) -> Vec<String> {
    let marks = [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["todo", "!("].concat(),
        ["unimplemented", "!("].concat(),
    ];
    lines_with(text, |line| marks.iter().any(|mark| contains_word(line, mark)))
}

/// Paths that exist on the machine of whoever wrote them only.
pub(crate) fn machine_path(_path: &Path, text: &str) -> Vec<String> {
    let marks = [
        ["/wo", "rk/"].concat(),
        ["/ro", "ot/"].concat(),
        ["/ho", "me/"].concat(),
        ["/tmp/", "k8s"].concat(),
    ];
    lines_with(text, |line| marks.iter().any(|mark| starts_a_path(line, mark)))
}

fn lines_with(text: &str, bad: impl Fn(&str) -> bool) -> Vec<String> {
    let numbered = text.lines().enumerate().filter(|(_, line)| bad(line));
    numbered.map(|(number, line)| format!("line {}: {}", number + 1, line.trim())).collect()
}

/// `mark` as a word of its own, so that names which only contain it pass.
fn contains_word(line: &str, mark: &str) -> bool {
    line.match_indices(mark).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + mark.len()..].chars().next();
        let part_of_word = |next: Option<char>| next.is_some_and(|it| it.is_alphanumeric() || it == '_');
        !part_of_word(before) && (mark.ends_with('(') || !part_of_word(after))
    })
}

/// `mark` at the beginning of an absolute path: in the middle of one (`a/b/`) it is somebody else's folder.
fn starts_a_path(line: &str, mark: &str) -> bool {
    line.match_indices(mark).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|it| it.is_alphanumeric() || "._-~}/*".contains(it))
    })
}

/// Rules that find nothing would pass for ever.
pub(crate) fn self_test() -> Result<(), Failed> {
    let path = Path::new("x.rs");
    let long = "a\n".repeat(MAX_LINES + 1);
    let to_do = ["// TO", "DO: later"].concat();
    let machine = ["see /ro", "ot/x"].concat();
    let cases = [
        ("too long", !too_long(path, &long).is_empty(), too_long(path, "a\n").is_empty()),
        (
            "module comment",
            !no_module_comment(path, "use a;\nuse b;\nuse c;\nuse d;\n").is_empty(),
            no_module_comment(path, "//! It does.\n").is_empty(),
        ),
        ("to do", !left_to_do(path, &to_do).is_empty(), left_to_do(path, "let TODOS = 1;").is_empty()),
        ("machine", !machine_path(path, &machine).is_empty(), machine_path(path, "$X/root/y").is_empty()),
    ];
    let broken: Vec<_> =
        cases.iter().filter(|(_, finds, spares)| !(*finds && *spares)).map(|case| case.0).collect();
    if broken.is_empty() { Ok(()) } else { Err(format!("rules without teeth: {}", broken.join(", ")).into()) }
}
