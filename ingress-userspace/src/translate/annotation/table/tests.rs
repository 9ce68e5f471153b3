//! No annotation is passed over in silence, and the page for users says what the code does.

use std::fmt::Write as _;

use k8s_openapi::api::networking::v1::Ingress;

use super::super::no_effect;
use super::*;
use crate::model::Problem;
use crate::source::{Object, Objects};
use crate::translate::docs::assert_page;
use crate::translate::{Settings, translate};

/// What is said about an Ingress with this annotation.
fn said(name: &str, value: &str) -> Vec<Problem> {
    let ingress: Ingress = serde_json::from_value(serde_json::json!({
        "metadata": {
            "namespace": "default", "name": "web",
            "annotations": { format!("nginx.ingress.kubernetes.io/{name}"): value }
        },
        "spec": {
            "ingressClassName": "legacy",
            "rules": [{ "host": "a.test" }]
        }
    }))
    .unwrap();
    let mut objects = Objects::default();
    objects.insert(Object::Ingress(ingress.into()));
    let settings = Settings { also_class: vec!["legacy".into()], ..Settings::default() };
    let field = format!("metadata.annotations[nginx.ingress.kubernetes.io/{name}]");
    let problems = translate(&objects, &settings).1;
    problems.into_iter().filter(|problem| problem.field == field).collect()
}

#[test]
fn what_is_not_honoured_is_said_with_a_hint() {
    let mut names = 0;
    for (name, status) in TABLE.iter().flat_map(|(_, names)| *names) {
        names += 1;
        let problems = said(name, "x");
        match status {
            NotYet(_) | Never => {
                assert_eq!(problems.len(), 1, "{name} is passed over in silence");
                assert!(!problems[0].hint.is_empty(), "{name}");
            }
            Done | NoEffect => {
                let unknown = problems.iter().find(|problem| problem.message.contains("not honoured yet"));
                assert_eq!(unknown, None, "{name} is honoured, says the table");
            }
        }
        let untouched = no_effect::NAMES.iter().any(|(known, _)| known == name);
        assert_eq!(untouched, *status == NoEffect, "{name}");
    }
    assert!(names >= 137, "{names} annotations only");
    let problems = said("no-such-thing", "x");
    assert!(problems.len() == 1 && problems[0].hint.contains("correct its name"), "{problems:?}");
}

/// What ingress-nginx has no word for.
const OWN_NAMES: &str = "
## Our own

| annotation | meaning |
|---|---|
| `xdp-ingress.io/max-requests` | requests that may be with the backend of a rule at once, on each node; more get 503 |
| `xdp-ingress.io/slow-start` | seconds over which an endpoint that is new gets its full share of requests |
| `xdp-ingress.io/address` | addresses that an IngressClass or Ingress asks for, separated by commas (`address-pools.md`) |
| `xdp-ingress.io/address-pool` | the AddressPool from which an Ingress gets addresses of its own (`address-pools.md`) |

What all Ingresses of a class shall have is in its parameters: `spec.annotations`, and `spec.options` (`options.md`).
";

#[test]
fn the_page_is_what_the_code_says() {
    assert_page("annotations.md", &render());
}

fn render() -> String {
    let mut page = String::from(
        "# Annotations\n\n\
         Annotations `nginx.ingress.kubernetes.io/...` mean what they mean to ingress-nginx. This page is made from the code\n\
         (`cargo test -p ingress-userspace --lib the_page_is`); none is passed over in silence: what is not honoured gives a problem\n\
         (`xdp-ingress check`, `xdp-ingress status`, an Event), and an Ingress with a lock that is not honoured (`auth-*`) is answered\n\
         with 503 instead of being open. Text of nginx' configuration is never executed.\n",
    );
    for (group, names) in TABLE {
        let _ = write!(page, "\n## {group}\n\n| annotation | status |\n|---|---|\n");
        for (name, status) in *names {
            let status = match status {
                Done => "honoured".to_owned(),
                NoEffect => {
                    let reason = no_effect::NAMES
                        .iter()
                        .find(|(known, _)| known == name)
                        .map_or("", |(_, reason)| reason);
                    format!("accepted, without effect: {reason}")
                }
                NotYet(hint) => format!("not yet: {hint}"),
                Never => "never: raw nginx configuration".to_owned(),
            };
            let _ = writeln!(page, "| `{name}` | {status} |");
        }
    }
    page.push_str(OWN_NAMES);
    page
}
