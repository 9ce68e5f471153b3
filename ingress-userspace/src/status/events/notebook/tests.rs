//! Each problem once, in measure.

use super::*;
use crate::model::{ObjectRef, Reason};

fn problem(object: &str, message: &str) -> Problem {
    Problem {
        object: ObjectRef::new(Kind::Ingress, "shop", object),
        field: "spec.rules[0].host".to_owned(),
        reason: Reason::InvalidValue,
        message: message.to_owned(),
        hint: String::new(),
    }
}

fn at(seconds: u64) -> Moment {
    Moment::at(Duration::from_secs(seconds))
}

/// Reports all that may be reported at `now`, and says how many that were.
fn drain(notebook: &mut Notebook, now: Moment) -> usize {
    let mut count = 0;
    while let Next::Report(problem) = notebook.next(now) {
        notebook.reported(now, problem);
        count += 1;
    }
    count
}

#[test]
fn each_once_and_again_after_its_event_expired() {
    let mut notebook = Notebook::new(at(0));
    assert_eq!(notebook.next(at(0)), Next::Idle);
    let problems = [problem("web", "a"), problem("web", "b"), problem("web", "a")];
    notebook.problems(at(0), &problems);
    assert_eq!(drain(&mut notebook, at(0)), 2, "one per distinct problem");
    notebook.problems(at(1), &problems);
    assert_eq!(drain(&mut notebook, at(1)), 0, "every snapshot repeats its problems");
    assert_eq!(notebook.next(at(1)), Next::Wait(at(0) + REPEAT));
    assert_eq!(drain(&mut notebook, at(0) + REPEAT), 2, "still there");
}

#[test]
fn a_problem_that_flickers_is_reported_once() {
    let mut notebook = Notebook::new(at(0));
    notebook.problems(at(0), &[problem("web", "a")]);
    assert_eq!(drain(&mut notebook, at(0)), 1);
    for second in 1..100 {
        notebook.problems(at(second), &[]);
        assert_eq!(notebook.next(at(second)), Next::Idle);
        notebook.problems(at(second), &[problem("web", "a")]);
        assert_eq!(drain(&mut notebook, at(second)), 0);
    }
    notebook.problems(at(0) + REPEAT, &[]);
    assert!(notebook.reported.is_empty(), "and is forgotten at last");
}

#[test]
fn a_flood_is_measured_out_and_arrives_whole() {
    let mut notebook = Notebook::new(at(0));
    let problems: Vec<_> = (0..1000).map(|n| problem(&format!("web-{n:04}"), "a")).collect();
    notebook.problems(at(0), &problems);
    assert_eq!(drain(&mut notebook, at(0)), BURST as usize);
    assert_eq!(notebook.next(at(0)), Next::Wait(at(0) + REFILL));
    let mut sent = BURST as usize;
    let mut now = at(0);
    while sent < problems.len() {
        let Next::Wait(until) = notebook.next(now) else { panic!("measured out") };
        now = until;
        sent += drain(&mut notebook, now);
    }
    let expected = REFILL * (1000 - BURST);
    assert_eq!(now, at(0) + expected);
}

#[test]
fn one_object_gets_a_page_and_files_none() {
    let mut notebook = Notebook::new(at(0));
    let mut problems: Vec<_> = (0..30).map(|n| problem("web", &n.to_string())).collect();
    problems.push(problem("api", "a"));
    problems.push(Problem { object: ObjectRef::new(Kind::File, "", "a.yaml"), ..problem("", "a") });
    notebook.problems(at(0), &problems);
    assert_eq!(drain(&mut notebook, at(0)), PER_OBJECT + 1);
}

#[test]
fn an_api_server_away_is_asked_ever_more_slowly() {
    let mut notebook = Notebook::new(at(0));
    notebook.problems(at(0), &[problem("web", "a")]);
    let mut now = at(0);
    let mut tries = 0;
    while now < at(600) {
        match notebook.next(now) {
            Next::Report(_) => {
                tries += 1;
                notebook.failed(now);
            }
            Next::Wait(until) => now = until,
            Next::Idle => panic!("not reported yet"),
        }
    }
    assert!((10..20).contains(&tries), "{tries}");
    assert_eq!(drain(&mut notebook, now), 1);
}

#[test]
fn a_refused_one_is_tried_again_but_not_soon() {
    let mut notebook = Notebook::new(at(0));
    notebook.problems(at(0), &[problem("web", "a"), problem("web", "b")]);
    let Next::Report(first) = notebook.next(at(0)) else { panic!("due") };
    notebook.refused(at(0), first);
    assert_eq!(drain(&mut notebook, at(0)), 1, "the other one is not held up");
    assert_eq!(notebook.next(at(1)), Next::Wait(at(0) + REFUSED));
    assert_eq!(drain(&mut notebook, at(0) + REFUSED), 1);
}
