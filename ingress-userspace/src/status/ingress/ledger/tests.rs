//! Wanted against present, and the pace of writing.

use super::*;
use crate::model::Kind;

fn object(name: &str) -> ObjectRef {
    ObjectRef::new(Kind::Ingress, "shop", name)
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn snapshot(ingresses: &[(&str, &[&str])]) -> Arc<Snapshot> {
    let ingresses =
        ingresses.iter().map(|(name, list)| (object(name), list.iter().map(|text| address(text)).collect()));
    Arc::new(Snapshot { ingresses: ingresses.collect(), ..Snapshot::default() })
}

fn present(version: &str, addresses: &[&str], ours: bool) -> Present {
    let addresses = Some(addresses.iter().map(|text| address(text)).collect());
    Present { version: version.to_owned(), addresses, ours }
}

fn at(seconds: u64) -> Moment {
    Moment::at(Duration::from_secs(seconds))
}

fn job(next: Next) -> Job {
    match next {
        Next::Write(job) => job,
        other => panic!("no write: {other:?}"),
    }
}

#[test]
fn decisions() {
    let set = |list: &[&str]| Some(Change::Set(list.iter().map(|text| address(text)).collect()));
    let other = |ours| Present { version: "1".to_owned(), addresses: None, ours };
    let cases: [(&str, &[&str], Present, Option<Change>); 11] = [
        ("new", &["10.0.0.1"], present("1", &[], false), set(&["10.0.0.1"])),
        ("as it shall be", &["10.0.0.1"], present("1", &["10.0.0.1"], true), None),
        ("in another order", &["10.0.0.1", "fd00::1"], present("1", &["fd00::1", "10.0.0.1"], true), None),
        ("another address", &["10.0.0.2"], present("1", &["10.0.0.1"], true), set(&["10.0.0.2"])),
        (
            "one more",
            &["10.0.0.1", "fd00::1"],
            present("1", &["10.0.0.1"], true),
            set(&["10.0.0.1", "fd00::1"]),
        ),
        ("right, but not by us", &["10.0.0.1"], present("1", &["10.0.0.1"], false), set(&["10.0.0.1"])),
        ("another controller's host name", &["10.0.0.1"], other(false), set(&["10.0.0.1"])),
        ("no longer ours", &[], present("1", &["10.0.0.1"], true), Some(Change::Clear)),
        ("somebody else's", &[], present("1", &["10.0.0.1"], false), None),
        ("somebody else's host name", &[], other(false), None),
        ("nothing wanted, nothing there", &[], present("1", &[], false), None),
    ];
    for (what, wanted, present, change) in cases {
        let mut ledger = Ledger::default();
        ledger.want(snapshot(&[("web", wanted)]));
        ledger.relisted(HashMap::from([(object("web"), present.clone())]));
        let expected = match &change {
            None => Next::Idle,
            Some(change) => {
                Next::Write(Job { object: object("web"), version: "1".to_owned(), change: change.clone() })
            }
        };
        assert_eq!(ledger.next(at(0)), expected, "{what}");
        // An Ingress that is in no snapshot is as one without addresses.
        if wanted.is_empty() {
            let mut ledger = Ledger::default();
            ledger.relisted(HashMap::from([(object("web"), present)]));
            assert_eq!(matches!(ledger.next(at(0)), Next::Write(_)), change.is_some(), "{what}");
        }
    }
}

#[test]
fn written_once() {
    let mut ledger = Ledger::default();
    ledger.want(snapshot(&[("web", &["10.0.0.1"])]));
    assert_eq!(ledger.next(at(0)), Next::Idle, "not seen on the API server yet");
    ledger.saw(object("web"), present("1", &[], false));
    let write = job(ledger.next(at(0)));
    assert_eq!(ledger.next(at(0)), Next::Idle, "it is under way");
    ledger.done(at(0), &write, Outcome::Written(present("2", &["10.0.0.1"], true)));
    assert_eq!(ledger.next(at(0)), Next::Idle);
    ledger.saw(object("web"), present("2", &["10.0.0.1"], true));
    assert_eq!(ledger.next(at(0)), Next::Idle, "the watch tells what we know");
}

#[test]
fn the_latest_wins_while_a_write_is_under_way() {
    let mut ledger = Ledger::default();
    ledger.saw(object("web"), present("1", &[], false));
    ledger.want(snapshot(&[("web", &["10.0.0.1"])]));
    let first = job(ledger.next(at(0)));
    ledger.want(snapshot(&[("web", &["10.0.0.2"])]));
    ledger.want(snapshot(&[("web", &["10.0.0.3"])]));
    assert_eq!(ledger.next(at(0)), Next::Idle);
    ledger.done(at(0), &first, Outcome::Written(present("2", &["10.0.0.1"], true)));
    let Next::Wait(until) = ledger.next(at(0)) else { panic!("paced") };
    let second = job(ledger.next(until));
    assert_eq!(second.change, Change::Set(vec![address("10.0.0.3")]));
    assert_eq!(second.version, "2");
}

#[test]
fn a_controller_that_overwrites_us_is_answered_ever_more_slowly() {
    let mut ledger = Ledger::default();
    ledger.want(snapshot(&[("web", &["10.0.0.1"])]));
    let mut now = at(0);
    let mut writes = 0;
    // It overwrites at once, for an hour.
    while now < at(3600) {
        ledger.saw(object("web"), present("1", &["192.0.2.1"], false));
        match ledger.next(now) {
            Next::Write(write) => {
                writes += 1;
                ledger.done(now, &write, Outcome::Written(present("2", &["10.0.0.1"], true)));
            }
            Next::Wait(until) => now = until,
            Next::Idle => panic!("the status is wrong"),
        }
    }
    assert!((15..25).contains(&writes), "{writes}");
    ledger.want(snapshot(&[("web", &["10.0.0.2"])]));
    ledger.saw(object("web"), present("3", &["10.0.0.1"], true));
    assert!(matches!(ledger.next(now), Next::Write(_)), "what its owner changes is not slowed down");
}

#[test]
fn an_api_server_away_is_asked_ever_more_slowly_and_everything_follows() {
    let mut ledger = Ledger::default();
    ledger.want(snapshot(&[("a", &["10.0.0.1"]), ("b", &["10.0.0.1"])]));
    for name in ["a", "b"] {
        ledger.saw(object(name), present("1", &[], false));
    }
    let mut now = at(0);
    let mut writes = 0;
    while now < at(600) {
        match ledger.next(now) {
            Next::Write(write) => {
                writes += 1;
                ledger.done(now, &write, Outcome::Unreachable("no route".to_owned()));
            }
            Next::Wait(until) => now = until,
            Next::Idle => panic!("nothing is written yet"),
        }
    }
    assert!((20..30).contains(&writes), "{writes}");
    let first = loop {
        match ledger.next(now) {
            Next::Write(write) => break write,
            Next::Wait(until) => now = until,
            Next::Idle => panic!("nothing is written yet"),
        }
    };
    ledger.done(now, &first, Outcome::Written(present("2", &["10.0.0.1"], true)));
    let second = job(ledger.next(now));
    assert_ne!(first.object, second.object);
}

#[test]
fn failures_of_parallel_writes_count_once() {
    let mut ledger = Ledger::default();
    let names = ["a", "b", "c", "d", "e", "f"];
    ledger.want(snapshot(&names.map(|name| (name, &["10.0.0.1"][..]))));
    for name in names {
        ledger.saw(object(name), present("1", &[], false));
    }
    let writes: Vec<_> = names.iter().map(|_| job(ledger.next(at(0)))).collect();
    for write in &writes {
        ledger.done(at(1), write, Outcome::Unreachable("no route".to_owned()));
    }
    assert_eq!(ledger.next(at(1)), Next::Wait(at(1) + API_PAUSE.0));
}

#[test]
fn outdated_and_refused_writes_are_repeated() {
    for outcome in [Outcome::Outdated, Outcome::Refused("no".to_owned())] {
        let mut ledger = Ledger::default();
        ledger.want(snapshot(&[("web", &["10.0.0.1"])]));
        ledger.saw(object("web"), present("1", &[], false));
        let write = job(ledger.next(at(0)));
        ledger.done(at(0), &write, outcome);
        ledger.saw(object("web"), present("5", &[], false));
        let Next::Wait(until) = ledger.next(at(0)) else { panic!("paced") };
        assert_eq!(job(ledger.next(until)).version, "5");
    }
}

#[test]
fn deleted_ingresses_are_forgotten() {
    let mut ledger = Ledger::default();
    ledger.want(snapshot(&[("web", &["10.0.0.1"]), ("api", &["10.0.0.1"])]));
    ledger.saw(object("web"), present("1", &[], false));
    let write = job(ledger.next(at(0)));
    ledger.gone(&object("web"));
    ledger.done(at(0), &write, Outcome::Written(present("2", &["10.0.0.1"], true)));
    assert_eq!(ledger.next(at(0)), Next::Idle);
    ledger.saw(object("web"), present("1", &[], false));
    let write = job(ledger.next(at(9)));
    ledger.done(at(9), &write, Outcome::Gone);
    assert_eq!(ledger.next(at(99)), Next::Idle);
    ledger.saw(object("api"), present("1", &[], false));
    ledger.relisted(HashMap::new());
    assert_eq!(ledger.next(at(99)), Next::Idle);
}
