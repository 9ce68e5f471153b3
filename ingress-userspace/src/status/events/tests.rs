//! Events as they go to the API server: within its limits, and the same for the same problem.

use super::*;
use crate::model::{ObjectRef, Reason};

fn problem() -> Problem {
    Problem {
        object: ObjectRef::new(Kind::Ingress, "shop", "web"),
        field: "spec.rules[0].host".to_owned(),
        reason: Reason::InvalidValue,
        message: "`a b` is no host name; the rule is not served".to_owned(),
        hint: "use a DNS name".to_owned(),
    }
}

fn made(problem: &Problem, instance: &str, uid: &str, second: i64) -> Event {
    let resource = resource(problem.object.kind).unwrap();
    event(instance, problem, &resource, uid.to_owned(), jiff::Timestamp::from_second(second).unwrap())
}

#[test]
fn says_what_is_wrong_and_where() {
    let event = made(&problem(), "node-1", "u-1", 1_700_000_000);
    assert_eq!(
        event.note.as_deref(),
        Some("spec.rules[0].host: `a b` is no host name; the rule is not served (use a DNS name)")
    );
    assert_eq!(event.metadata.namespace.as_deref(), Some("shop"));
    assert_eq!(event.reason.as_deref(), Some("InvalidValue"));
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    let regarding = event.regarding.unwrap();
    assert_eq!(regarding.api_version.as_deref(), Some("networking.k8s.io/v1"));
    assert_eq!(regarding.kind.as_deref(), Some("Ingress"));
    assert_eq!(regarding.uid.as_deref(), Some("u-1"));
    assert_eq!(regarding.namespace.as_deref(), Some("shop"));
}

#[test]
fn the_name_stands_for_what_is_said() {
    let name = |event: Event| event.metadata.name.unwrap();
    let first = name(made(&problem(), "node-1", "u-1", 1));
    assert!(first.starts_with("web.") && first.len() == "web.".len() + 16, "{first}");
    assert_eq!(first, name(made(&problem(), "node-2", "u-1", 99)), "whoever says it, whenever");
    assert_ne!(first, name(made(&problem(), "node-1", "u-2", 1)), "an object made anew");
    assert_ne!(first, name(made(&Problem { field: "spec.tls".to_owned(), ..problem() }, "node-1", "u-1", 1)));
    assert_ne!(first, name(made(&Problem { reason: Reason::NotFound, ..problem() }, "node-1", "u-1", 1)));
}

#[test]
fn stays_within_the_limits_of_the_api() {
    let object = ObjectRef::new(Kind::Ingress, "shop", format!("{}.x", "a".repeat(251)));
    let long = Problem { object, message: "ä".repeat(3000), hint: "do it".to_owned(), ..problem() };
    let event = made(&long, &"n".repeat(200), "u-1", 1);
    let note = event.note.unwrap();
    assert!(note.len() <= MAX_NOTE && note.len() > MAX_NOTE - 4, "{}", note.len());
    assert!(note.ends_with("(do it)"));
    assert_eq!(event.metadata.name.unwrap().len(), 253);
    assert_eq!(event.reporting_instance.unwrap().len(), 128);
    let long = Problem { hint: "ö".repeat(3000), ..long };
    assert!(made(&long, "node-1", "u-1", 1).note.unwrap().len() <= MAX_NOTE);
}

#[test]
fn cluster_wide_objects_have_their_events_in_default() {
    let object = ObjectRef::new(Kind::AddressPool, "", "pool");
    let event = made(&Problem { object, ..problem() }, "node-1", "u-1", 1);
    assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
    assert_eq!(event.regarding.unwrap().namespace, None);
}

#[test]
fn errors_that_stay() {
    let api = |code| Error::Api(Box::new(kube::core::Status { code, ..kube::core::Status::default() }));
    for code in [400, 403, 404, 422] {
        assert!(refused(&api(code)), "{code}");
    }
    for code in [429, 500, 503] {
        assert!(!refused(&api(code)), "{code}");
    }
}
