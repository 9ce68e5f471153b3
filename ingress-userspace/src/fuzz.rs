//! What must hold for any bytes, for the fuzzers in `tests/fuzz` (feature `fuzzing`). Each function takes what a fuzzer
//! made up and panics where a promise is broken that other parts of the router rely on.

use std::borrow::Cow;
use std::sync::Arc;

use crate::l7::head::{normalise_path, parse_authority};
use crate::l7::live::{Compiler, Live};
use crate::l7::proxy_protocol;
use crate::l7::router::Found;
use crate::model::{HostPattern, PathMatch, Route, RouteTable, path_regex};
use crate::source;
use crate::translate::{Settings, translate};

pub use crate::l7::http1::fuzz::{body, request, response};

/// A host and a path, a line each: what is matched is what is forwarded, so the normal form of a normal form is itself,
/// and nothing is left in it that a backend could read as a way out.
pub fn target(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (host, path) = text.split_once('\n').unwrap_or(("", text));
    if let Ok(authority) = parse_authority(host) {
        let again = parse_authority(&authority.host).expect("a parsed host is a host");
        assert_eq!(again.host, authority.host);
        assert_eq!(again.port, None);
    }
    let Ok(normal) = normalise_path(path) else { return };
    assert_eq!(normalise_path(&normal).as_deref(), Ok(&*normal), "{path:?}");
    assert!(normal.starts_with('/') && normal.bytes().all(|byte| byte.is_ascii_graphic()), "{normal:?}");
    assert!(!normal.contains("//") && !normal.contains('#'), "{normal:?}");
    assert!(!normal.split('/').any(|element| matches!(element, "." | "..")), "{normal:?}");
}

/// What a proxy sends first: a header is found once its last byte is there and not before, and what follows changes nothing.
/// The listeners rely on it, which read in pieces as the network cuts them.
pub fn proxy(data: &[u8]) {
    let Ok(Some(header)) = proxy_protocol::parse(data) else { return };
    assert!(header.length <= data.len());
    for end in 0..header.length {
        assert_eq!(proxy_protocol::parse(&data[..end]), Ok(None), "the first {end} bytes");
    }
    assert_eq!(proxy_protocol::parse(&data[..header.length]), Ok(Some(header)));
}

/// Manifests, then a line `#ask HOST PATH`: reading and translating ends, in problems at worst, and twice in the same
/// ones; the compiled router answers as the table read aloud does.
pub fn manifest(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let objects = source::objects_of(text);
    let (snapshot, problems) = translate(&objects, &Settings::default());
    let (again, same) = translate(&objects, &Settings::default());
    assert!(problems == same && snapshot == again, "translation depends on more than the objects");
    let live = Compiler::default().compile(&snapshot, &Live::default());
    for question in text.lines().filter_map(|line| line.strip_prefix("#ask ")) {
        let (host, path) = question.split_once(' ').unwrap_or((question, "/"));
        let (Ok(host), Ok(path)) = (parse_authority(host), normalise_path(path)) else { continue };
        let found = match live.router.find(&host.host, &path) {
            Found::Route(entry) => Some(&entry.route),
            Found::Nothing => None,
        };
        assert_eq!(found, read_aloud(&snapshot.routes, &host.host, &path), "{host:?} {path}");
    }
}

/// The specification's way to the rule: the most exact host, then the first path in order that matches.
fn read_aloud<'t>(table: &'t RouteTable, host: &str, path: &str) -> Option<&'t Arc<Route>> {
    let wildcard = host.split_once('.').filter(|(label, _)| !label.is_empty());
    let hosts = [
        Some(HostPattern::Exact(host.to_owned())),
        wildcard.map(|(_, parent)| HostPattern::Wildcard(parent.to_owned())),
        Some(HostPattern::Any),
    ];
    let routes = hosts.iter().flatten().find_map(|pattern| table.hosts.get(pattern));
    let matches = |rule: &PathMatch| match rule {
        PathMatch::Exact(exact) => normal(exact) == path,
        PathMatch::Regex(pattern) => path_regex(pattern).is_ok_and(|regex| regex.is_match(path.as_bytes())),
        PathMatch::Prefix(prefix) => {
            let prefix = normal(prefix);
            let mut theirs = path.split('/');
            prefix.trim_end_matches('/').split('/').all(|element| theirs.next() == Some(element))
        }
    };
    routes
        .and_then(|routes| {
            let rule = routes.paths.iter().find(|rule| matches(&rule.path));
            rule.map(|rule| &rule.route).or(routes.default.as_ref())
        })
        .or(table.default.as_ref())
}

/// A rule's path in the form in which requests are matched.
fn normal(path: &str) -> String {
    normalise_path(path).map_or_else(|_| path.to_owned(), Cow::into_owned)
}
