//! No option is passed over in silence, and the page for users says what the code does.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::*;
use crate::model::{Kind, ObjectRef, Problem};
use crate::source::Objects;
use crate::translate::docs::assert_page;
use crate::translate::options::Options;
use crate::translate::problems::Problems;

fn read(name: &str, value: &str) -> (Options, Vec<Problem>) {
    let mut problems = Problems::default();
    let reference = ObjectRef::new(Kind::IngressClassParameters, "", "xdp");
    let all = BTreeMap::from([(name.to_owned(), value.to_owned())]);
    let options = Options::read(&reference, &all, &Objects::default(), &mut problems);
    (options, problems.into_sorted())
}

#[test]
fn what_is_not_honoured_is_said_with_a_hint() {
    for (name, status) in TABLE.iter().flat_map(|(_, names)| *names) {
        let field = format!("spec.options[{name}]");
        let problems = read(name, "no such value").1;
        assert!(problems.iter().all(|problem| problem.field == field && !problem.hint.is_empty()), "{name}");
        match status {
            NotYet(_) => assert_eq!(problems.len(), 1, "{name} is passed over in silence"),
            NoEffect(_) => assert!(problems.is_empty(), "{name}: {problems:?}"),
            Only(value, _) => {
                assert_eq!(problems.len(), 1, "{name} takes any value");
                assert!(read(name, value).1.is_empty(), "{name}: {value}");
            }
            // Every text may be a conditions' list or a size; what each of them refuses, its own tests say.
            Annotation => {}
            Done | Ours(_) => assert_eq!(problems.len(), 1, "{name} takes any value"),
        }
    }
    assert_eq!(read("no-such-thing", "x").1.len(), 1);
}

#[test]
fn each_has_one_row() {
    let mut names: Vec<&str> = TABLE.iter().flat_map(|(_, names)| *names).map(|(name, _)| *name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn options_with_an_annotations_name_are_that_annotation() {
    let (options, problems) = read("proxy-body-size", "8m");
    assert!(problems.is_empty());
    assert_eq!(options.annotations["nginx.ingress.kubernetes.io/proxy-body-size"], "8m");
    // What is wrong is said once, not for each Ingress; but a lock stays one.
    let (options, problems) = read("proxy-read-timeout", "1s");
    assert_eq!((options.annotations.len(), problems.len()), (0, 1));
    let (options, problems) = read("whitelist-source-range", "10.0.0.0/8,x");
    assert_eq!((options.annotations.len(), problems.len()), (1, 1));
}

#[test]
fn the_page_is_what_the_code_says() {
    assert_page("options.md", &render());
}

fn render() -> String {
    let mut page = String::from(
        "# Options\n\n\
         What ingress-nginx is told by its ConfigMap, a class is told by `spec.options` of its `IngressClassParameters`: the\n\
         same names, the same values, as text. They hold for all Ingresses and addresses of the class (listeners of `--http`\n\
         and `--https` have those of the class that `--ingress-class` names). What a class's `spec.annotations` or an Ingress's\n\
         own annotations say goes before. This page is made from the code (`cargo test -p ingress-userspace --lib the_page_is`);\n\
         an option that is not honoured gives a problem of the IngressClassParameters.\n\n\
         ```yaml\n\
         apiVersion: xdp-ingress.io/v1alpha1\n\
         kind: IngressClassParameters\n\
         metadata: {name: xdp}\n\
         spec:\n\
         \x20 options:\n\
         \x20   hsts-max-age: \"63072000\"\n\
         \x20   proxy-body-size: 8m\n\
         \x20   use-forwarded-headers: \"true\"\n\
         \x20   proxy-real-ip-cidr: 10.0.0.0/8,2001:db8::/32\n\
         ```\n\n\
         ## Where we differ\n\n\
         - **Nobody is trusted unless `proxy-real-ip-cidr` lists him**; ingress-nginx trusts everybody by default. Of a trusted\n\
         \x20 proxy we take `X-Forwarded-For`, `-Proto`, `-Host` and `-Port`; the client is the right-most address that is not\n\
         \x20 trusted. `whitelist-source-range`, `$remote_addr` in `upstream-hash-by` and the access log go by that address.\n\
         - **`Forwarded`** (RFC 7239) is never believed and never passed on, also from trusted proxies: they say who their\n\
         \x20 clients are by `X-Forwarded-*`. With `generate-forwarded` backends get one of ours beside `X-Forwarded-*`, with the same\n\
         \x20 addresses (all of them with `compute-full-forwarded-for`; what cannot be read ends the list), host and scheme.\n\
         - **`use-proxy-protocol`**: connections from trusted addresses must begin with a PROXY header (version 1 or 2, before\n\
         \x20 TLS), or they are closed; all others are clients and must not. If it names port 443, the client came by HTTPS.\n\
         - **HSTS** is sent over TLS for hosts that have a certificate, in the place of what the backend sends.\n",
    );
    for (group, names) in TABLE {
        let _ = write!(page, "\n## {group}\n\n| option | status |\n|---|---|\n");
        for (name, status) in *names {
            let status = match status {
                Done => "honoured".to_owned(),
                Ours(what) => format!("ours. {what}"),
                Annotation => "the annotation of this name, for all Ingresses of the class".to_owned(),
                NoEffect(reason) => format!("accepted, without effect: {reason}"),
                Only(value, why) => format!("only `{value}`: {why}"),
                NotYet(hint) => format!("not yet: {hint}"),
            };
            let _ = writeln!(page, "| `{name}` | {status} |");
        }
    }
    page
}
