//! Translation as a table: each folder of `tests/translate/` has manifests and what must come out of them, the snapshot
//! and the problems. A comment line `flags:` in `input.yaml` sets the daemon's flags. `INSTA_UPDATE=always` writes the
//! expectations anew; read them before you commit them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use xdp_ingress::model::{HostPattern, NodeIntent, PathMatch, Problem, Route, Snapshot, Target};
use xdp_ingress::source::read_once;
use xdp_ingress::translate::{Settings, translate};

/// 2027-01-01: after the end of the certificate `old`, before that of the others.
const NOW: i64 = 1_798_761_600;

#[test]
fn every_case_gives_what_its_folder_says() {
    let mut wrong = Vec::new();
    for folder in cases() {
        let input = folder.join("input.yaml");
        let (snapshot, problems) = run(&input, &input);
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(&folder);
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.set_input_file(&input);
        let (snapshot, problems) = (show_snapshot(&snapshot), show_problems(&problems, &folder));
        let checked = catch_unwind(AssertUnwindSafe(|| {
            settings.bind(|| {
                insta::assert_snapshot!("snapshot", snapshot);
                insta::assert_snapshot!("problems", problems);
            });
        }));
        if checked.is_err() {
            wrong.push(folder.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    assert!(wrong.is_empty(), "not as expected: {}", wrong.join(", "));
}

/// Every `bad-` case must find something wrong and every `good-` case nothing: an expectation that was written anew
/// without being read would pass otherwise.
#[test]
fn bad_cases_have_problems_and_good_ones_none() {
    for folder in cases() {
        let input = folder.join("input.yaml");
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let (_, problems) = run(&input, &input);
        assert_eq!(problems.is_empty(), !name.starts_with("bad-"), "{name}: {problems:#?}");
        for problem in problems {
            let said = [&problem.field, &problem.message, &problem.hint, &problem.object.name];
            assert!(said.iter().all(|text| !text.is_empty()), "{name}: {problem:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// The same objects in other files, in another order, give the same snapshot and the same problems.
    #[test]
    fn the_order_of_arrival_makes_no_difference(
        case in prop::sample::select(cases().into_iter().filter(|folder| well_formed(folder)).collect::<Vec<_>>()),
        seed in any::<u64>(),
    ) {
        let input = case.join("input.yaml");
        let expected = run(&input, &input);
        let text = std::fs::read_to_string(&input).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for (index, document) in text.split("\n---\n").enumerate() {
            // A name from which no order can be guessed.
            let name = (index as u64 + 1).wrapping_mul(seed | 1).rotate_left(31);
            std::fs::write(folder.path().join(format!("{name:020}.yaml")), document).unwrap();
        }
        let shuffled = run(&input, folder.path());
        prop_assert_eq!(show_snapshot(&shuffled.0), show_snapshot(&expected.0));
        prop_assert_eq!(shuffled, expected);
    }
}

/// Problems of files name the file: those cases say something else when they are cut into others.
fn well_formed(folder: &Path) -> bool {
    let name = folder.file_name().unwrap().to_string_lossy();
    !["bad-yaml", "bad-schema", "bad-list"].contains(&&*name)
}

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/translate");
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() > 20, "the table is gone");
    folders
}

/// Translates the manifests at `path` with the flags that `input` names.
fn run(input: &Path, path: &Path) -> (Snapshot, Vec<Problem>) {
    let objects = read_once(&[path.to_path_buf()]).unwrap();
    translate(&objects, &settings(&std::fs::read_to_string(input).unwrap()))
}

fn settings(text: &str) -> Settings {
    let mut settings = Settings { now: NOW, ..Settings::default() };
    let Some(flags) = text.lines().find_map(|line| line.strip_prefix("# flags: ")) else { return settings };
    let mut words = flags.split_whitespace();
    while let Some(flag) = words.next() {
        match flag {
            "--watch-ingress-without-class" => settings.watch_without_class = true,
            "--also-class" => settings.also_class.push(words.next().unwrap().to_owned()),
            "--default-backend" => settings.default_backend = Some(words.next().unwrap().parse().unwrap()),
            other => panic!("unknown flag {other}"),
        }
    }
    settings
}

fn show_problems(problems: &[Problem], folder: &Path) -> String {
    let mut text = String::new();
    for problem in problems {
        writeln!(text, "{} | {} | {}", problem.object, problem.field, problem.reason).unwrap();
        writeln!(text, "    {}", problem.message).unwrap();
        writeln!(text, "    -> {}", problem.hint).unwrap();
    }
    text.replace(&format!("{}/", folder.display()), "")
}

fn show_snapshot(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    for vip in &snapshot.vips {
        writeln!(text, "vip {} http {:?} https {:?}", vip.address, vip.http_ports, vip.https_ports).unwrap();
    }
    for node in &snapshot.nodes {
        let drain = if node.intent == NodeIntent::Drain { " drain" } else { "" };
        writeln!(text, "node {} {:?} weight {}{drain}", node.name, node.addresses, node.weight).unwrap();
    }
    for (host, routes) in &snapshot.routes.hosts {
        writeln!(text, "host {}", show_host(host)).unwrap();
        for rule in &routes.paths {
            let path = match &rule.path {
                PathMatch::Exact(path) => format!("Exact {path}"),
                PathMatch::Prefix(path) => format!("Prefix {path}/"),
            };
            writeln!(text, "  {path} -> {}", show_route(&rule.route)).unwrap();
        }
        if let Some(route) = &routes.default {
            writeln!(text, "  default -> {}", show_route(route)).unwrap();
        }
    }
    if let Some(route) = &snapshot.routes.default {
        writeln!(text, "default -> {}", show_route(route)).unwrap();
    }
    for (id, cluster) in &snapshot.clusters {
        assert_eq!(*id, cluster.id);
        writeln!(text, "cluster {id}").unwrap();
        for endpoint in &cluster.endpoints {
            writeln!(text, "  {} on {}", endpoint.address, endpoint.node.as_deref().unwrap_or("?")).unwrap();
        }
    }
    for certificate in &snapshot.certificates {
        let hosts: Vec<String> = certificate.hosts.iter().map(show_host).collect();
        let length = certificate.chain.len();
        writeln!(text, "certificate {} for {} chain of {length}", certificate.source, hosts.join(" "))
            .unwrap();
    }
    for (ingress, addresses) in &snapshot.ingresses {
        writeln!(text, "serves {ingress} at {addresses:?}").unwrap();
    }
    text
}

fn show_host(host: &HostPattern) -> String {
    match host {
        HostPattern::Exact(name) => name.clone(),
        HostPattern::Wildcard(parent) => format!("*.{parent}"),
        HostPattern::Any => "(any)".into(),
    }
}

fn show_route(route: &Route) -> String {
    let target = match &route.target {
        Target::Cluster(id) => id.to_string(),
        Target::Missing => "missing".into(),
    };
    let redirect = route.filters.ssl_redirect.as_ref().map(|redirect| format!(" redirect {}", redirect.code));
    format!("{target}{} by {}", redirect.unwrap_or_default(), route.ingress)
}
