//! Translation as a table: each folder of `tests/translate/` has manifests and what must come out of them, the snapshot
//! and the problems. A comment line `flags:` in `input.yaml` sets the daemon's flags. `INSTA_UPDATE=always` writes the
//! expectations anew; read them before you commit them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod history;

use std::fmt::Write as _;
use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use xdp_ingress::model::{
    Announcement, Canary, ClientAuth, Forwarding, HostPattern, NodeIntent, PathMatch, Piece, Problem,
    Protection, Route, RouteTable, Snapshot, Target, Template,
};
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
    let paths = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = paths.filter(|path| path.is_dir()).collect();
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
            "--node-name" => settings.node = Some(words.next().unwrap().to_owned()),
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
        if vip.protection != Protection::default() {
            writeln!(text, "    {:?}", vip.protection).unwrap();
        }
        if *vip.announcement != Announcement::default() {
            writeln!(text, "    of {}: {:?}", vip.source, vip.announcement).unwrap();
        }
        if let Some(downstream) = &vip.downstream {
            writeln!(text, "    {downstream:?}").unwrap();
        }
    }
    if let Some(downstream) = &snapshot.downstream {
        writeln!(text, "other listeners {downstream:?}").unwrap();
    }
    for node in &snapshot.nodes {
        let drain = match node.intent {
            NodeIntent::Serve => "",
            NodeIntent::Avoid => " avoid",
            NodeIntent::Drain => " drain",
        };
        writeln!(text, "node {} {:?} weight {}{drain}", node.name, node.addresses, node.weight).unwrap();
    }
    text.push_str(&show_table(&snapshot.routes));
    for (vip, table) in snapshot.vip_routes.iter() {
        writeln!(text, "at {vip} only:").unwrap();
        for line in show_table(table).lines() {
            writeln!(text, "  {line}").unwrap();
        }
    }
    for (id, cluster) in snapshot.clusters.iter() {
        assert_eq!(*id, cluster.id);
        writeln!(text, "cluster {id}").unwrap();
        for endpoint in &cluster.endpoints {
            writeln!(text, "  {} on {}", endpoint.address, endpoint.node.as_deref().unwrap_or("?")).unwrap();
        }
    }
    for certificate in snapshot.certificates.iter() {
        let hosts: Vec<String> = certificate.hosts.iter().map(show_host).collect();
        let length = certificate.chain.len();
        writeln!(text, "certificate {} for {} chain of {length}", certificate.source, hosts.join(" "))
            .unwrap();
    }
    for status in snapshot.own_statuses.iter() {
        writeln!(text, "{} says {}", status.object, status.wanted).unwrap();
    }
    for (ingress, addresses) in snapshot.ingresses.iter() {
        writeln!(text, "serves {ingress} at {addresses:?}").unwrap();
    }
    text
}

fn show_table(table: &RouteTable) -> String {
    let mut text = String::new();
    for (host, routes) in &table.hosts {
        writeln!(text, "host {}", show_host(host)).unwrap();
        if let Some(auth) = &routes.client_auth {
            let ClientAuth { ca, revoked, verify, depth, error_page, pass_certificate } = &**auth;
            let (ca, revoked) = (ca.len(), revoked.len());
            writeln!(
                text,
                "  clients {verify:?} by {ca} roots, {revoked} lists, depth {depth}, page {error_page:?}, passed on {pass_certificate}"
            )
            .unwrap();
        }
        for rule in &routes.paths {
            let path = match &rule.path {
                PathMatch::Exact(path) => format!("Exact {path}"),
                PathMatch::Prefix(path) => format!("Prefix {path}/"),
                PathMatch::Regex(path) => format!("Regex {path}"),
            };
            writeln!(text, "  {path} -> {}", show_route(&rule.route)).unwrap();
        }
        if let Some(route) = &routes.passthrough {
            writeln!(text, "  TLS passed through -> {}", show_route(route)).unwrap();
        }
        if let Some(host) = &routes.www_redirect {
            writeln!(text, "  redirects to {host}").unwrap();
        }
        if let Some(path) = &routes.app_root {
            writeln!(text, "  / redirects to {path}").unwrap();
        }
        if let Some(route) = &routes.default {
            writeln!(text, "  default -> {}", show_route(route)).unwrap();
        }
    }
    if let Some(route) = &table.default {
        writeln!(text, "default -> {}", show_route(route)).unwrap();
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

fn show_template(template: &Template) -> String {
    let pieces = template.0.iter().map(|piece| match piece {
        Piece::Text(text) => text.clone(),
        Piece::Group(group) => format!("${group}"),
    });
    pieces.collect()
}

fn show_route(route: &Route) -> String {
    let target = match &route.target {
        Target::Cluster(id) => id.to_string(),
        Target::Missing => "missing".into(),
    };
    let redirect = route.filters.ssl_redirect.as_ref().map(|redirect| format!(" redirect {}", redirect.code));
    let mut filters = redirect.unwrap_or_default();
    if let Some(hsts) = &route.filters.hsts {
        let subdomains = if hsts.include_subdomains { "+" } else { "" };
        let preload = if hsts.preload { " preload" } else { "" };
        write!(filters, " hsts {}{subdomains}{preload}", hsts.max_age).unwrap();
    }
    if let Some(redirect) = &route.filters.redirect {
        write!(filters, " answered {} {}", redirect.code, redirect.location).unwrap();
    }
    if let Some(range) = &route.filters.source_range {
        write!(filters, " denies {:?} allows {:?}", range.deny, range.allow).unwrap();
    }
    if let Some(rewrite) = &route.filters.rewrite {
        write!(filters, " to {}", show_template(&rewrite.target)).unwrap();
        if let Some(prefix) = &rewrite.forwarded_prefix {
            write!(filters, " prefix {}", show_template(prefix)).unwrap();
        }
    }
    if let Some(host) = &route.filters.upstream_vhost {
        write!(filters, " vhost {host}").unwrap();
    }
    if route.filters.body_limit != NonZeroU64::new(1 << 20) {
        let limit = route.filters.body_limit.map_or("any".into(), |limit| limit.to_string());
        write!(filters, " bodies {limit}").unwrap();
    }
    if route.filters.forwarding != Forwarding::default() {
        write!(filters, " {:?}", route.filters.forwarding).unwrap();
    }
    if let Some(upstream) = &route.filters.upstream {
        write!(filters, " {upstream:?}").unwrap();
    }
    if let Some(Canary { header, cookie, weight, total, target }) = route.filters.canary.as_deref() {
        let target = match target {
            Target::Cluster(id) => id.to_string(),
            Target::Missing => "missing".into(),
        };
        write!(filters, " canary {target} {header:?} {cookie:?} {weight}/{total}").unwrap();
    }
    format!("{target}{filters} by {}", route.ingress)
}
