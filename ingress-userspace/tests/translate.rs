//! Translation as a table: each folder of `tests/translate/` has manifests and what must come out of them, the snapshot
//! and the problems. A comment line `flags:` in `input.yaml` sets the daemon's flags. `INSTA_UPDATE=always` writes the
//! expectations anew; read them before you commit them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::networking::v1::Ingress;
use proptest::prelude::*;
use xdp_ingress::model::{
    Announcement, ClientAuth, Forwarding, HostPattern, NodeIntent, PathMatch, Piece, Problem, Protection,
    Reason, Route, RouteTable, Snapshot, Target, Template,
};
use xdp_ingress::source::{Key, Object, Objects, Store, read_once};
use xdp_ingress::translate::{Settings, Translator, translate};

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

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// A translator that has seen the objects come, go and change one by one says the same as one that sees the last
    /// state only.
    #[test]
    fn history_makes_no_difference(
        cases in prop::collection::vec(prop::sample::select(cases()), 1..4),
        steps in prop::collection::vec((any::<u16>(), any::<bool>(), 0..4_u8), 1..40),
    ) {
        let settings = Settings { now: NOW, ..Settings::default() };
        let mut translator = Translator::new(settings.clone());
        let mut objects = Objects::default();
        for case in cases {
            // Objects of the case before that have the same names are replaced, the others stay.
            let next = read_once(&[case.join("input.yaml")]).unwrap();
            objects.problems = next.problems.clone();
            for object in all(&next) {
                objects.insert(object);
            }
            translator.translate(&objects, NOW);
            for &(which, back, what) in &steps {
                let before = objects.clone();
                change(&mut objects, usize::from(which), what);
                let (snapshot, problems) = translator.translate(&objects, NOW);
                let expected = translate(&objects, &settings);
                prop_assert_eq!((&*snapshot, &*problems), (&expected.0, &expected.1));
                if back {
                    objects = before;
                }
            }
            let (snapshot, problems) = translator.translate(&objects, NOW);
            let expected = translate(&objects, &settings);
            prop_assert_eq!((&*snapshot, &*problems), (&expected.0, &expected.1));
        }
    }
}

/// One object less, or (`what` is 3) an Ingress with the rules of another one.
fn change(objects: &mut Objects, which: usize, what: u8) {
    fn pick<T>(store: &Store<T>, which: usize) -> Option<Key> {
        store.iter().nth(which % store.len().max(1)).map(|(key, _)| key.clone())
    }
    match what {
        0 => drop(pick(&objects.endpoint_slices, which).and_then(|key| objects.endpoint_slices.remove(&key))),
        1 => drop(pick(&objects.ingresses, which).and_then(|key| objects.ingresses.remove(&key))),
        2 => drop(pick(&objects.services, which).and_then(|key| objects.services.remove(&key))),
        _ => {
            let (Some(one), Some(other)) =
                (pick(&objects.ingresses, which), pick(&objects.ingresses, which / 7 + 1))
            else {
                return;
            };
            let rules =
                objects.ingresses.find(&other).unwrap().spec.as_ref().and_then(|spec| spec.rules.clone());
            let mut changed = Ingress::clone(objects.ingresses.find(&one).unwrap());
            changed.spec.get_or_insert_default().rules = rules;
            objects.insert(Object::Ingress(Arc::new(changed)));
        }
    }
}

/// A change of an Ingress or a Service leaves all hosts the same memory that have nothing to do with it.
#[test]
fn an_ingress_alone_changes_its_hosts_only() {
    let input = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/translate/good-tls/input.yaml");
    let mut objects = read_once(&[input]).unwrap();
    let rule = |host: &str| {
        serde_json::from_value(serde_json::json!({
            "host": host,
            "http": { "paths": [{ "path": "/", "pathType": "Prefix", "backend": { "service": { "name": "no", "port": { "number": 80 } } } }] },
        }))
        .unwrap()
    };
    let mut ingress = Ingress::clone(objects.ingresses.iter().next().unwrap().1);
    ingress.metadata.name = Some("another".into());
    let spec = ingress.spec.as_mut().unwrap();
    (spec.tls, spec.rules) = (None, Some(vec![rule("another.example.net")]));
    let mut translator = Translator::new(Settings { now: NOW, ..Settings::default() });
    let (before, _) = translator.translate(&objects, NOW);
    objects.insert(Object::Ingress(Arc::new(ingress.clone())));
    let (with, problems) = translator.translate(&objects, NOW);
    assert_eq!(with.routes.hosts.len(), before.routes.hosts.len() + 1);
    assert!(before.routes.hosts.iter().all(|(host, routes)| with.routes.hosts[host].is(routes)));
    assert!(with.certificates.is(&before.certificates) && with.clusters.is(&before.clusters));
    assert!(problems.iter().any(|problem| problem.object.name == "another"), "{problems:?}");
    let key = Key::of(&ingress.metadata);
    objects.ingresses.remove(&key);
    let (after, _) = translator.translate(&objects, NOW);
    assert_eq!(after, before);
}

/// A change of endpoints leaves all the rest the same memory: nothing is built again.
#[test]
fn endpoints_alone_change_nothing_else() {
    let input = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/translate/good-tls/input.yaml");
    let mut objects = read_once(&[input]).unwrap();
    let mut translator = Translator::new(Settings { now: NOW, ..Settings::default() });
    let (before, _) = translator.translate(&objects, NOW);
    let key = objects.endpoint_slices.iter().next().unwrap().0.clone();
    objects.endpoint_slices.remove(&key);
    let (after, _) = translator.translate(&objects, NOW);
    assert!(after.routes.is(&before.routes) && after.certificates.is(&before.certificates));
    assert!(after.ingresses.is(&before.ingresses) && after.vip_routes.is(&before.vip_routes));
    assert_ne!(after.clusters, before.clusters);
    // Something else and back: equal parts become the same memory again.
    let (later, _) = translator.translate(&objects, NOW + 1);
    assert!(later.routes.is(&before.routes));
}

/// A certificate is spoken of two weeks before its end and after it, without any change of the objects.
#[test]
fn the_end_of_a_certificate_is_said_before_it_comes() {
    let input = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/translate/good-tls/input.yaml");
    let objects = read_once(&[input]).unwrap();
    let (snapshot, _) = translate(&objects, &Settings { now: NOW, ..Settings::default() });
    let mut translator = Translator::new(Settings::default());
    let first = snapshot.certificates.iter().min_by_key(|certificate| certificate.not_after).unwrap();
    let day = 24 * 3600;
    for (now, expected) in [
        (first.not_after - 15 * day, None),
        (first.not_after - 13 * day, Some((Reason::Expiring, "expires at"))),
        (first.not_after + 1, Some((Reason::InvalidValue, "expired at"))),
    ] {
        let (_, problems) = translator.translate(&objects, now);
        let said = problems.iter().find(|problem| problem.object == first.source);
        let said = said.map(|problem| (problem.reason, &problem.message[..10]));
        assert_eq!(said, expected, "at {now}");
    }
}

fn all(objects: &Objects) -> Vec<Object> {
    let mut all = Vec::new();
    all.extend(objects.ingresses.iter().map(|(_, object)| Object::Ingress(object.clone())));
    all.extend(objects.ingress_classes.iter().map(|(_, object)| Object::IngressClass(object.clone())));
    all.extend(objects.services.iter().map(|(_, object)| Object::Service(object.clone())));
    all.extend(objects.endpoint_slices.iter().map(|(_, object)| Object::EndpointSlice(object.clone())));
    all.extend(objects.secrets.iter().map(|(_, object)| Object::Secret(object.clone())));
    all.extend(objects.nodes.iter().map(|(_, object)| Object::Node(object.clone())));
    all.extend(objects.address_pools.iter().map(|(_, object)| Object::AddressPool(object.clone())));
    let parameters = objects.class_parameters.iter();
    all.extend(parameters.map(|(_, object)| Object::IngressClassParameters(object.clone())));
    all
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
    format!("{target}{filters} by {}", route.ingress)
}
