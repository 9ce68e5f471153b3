//! The election by hand, and simulated by seed: candidates that pause, requests that are slow or get lost on either way,
//! an API server that goes away. Whatever happens, no two may write; when all is well again, one does.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: u64) -> Moment {
    Moment::at(SECOND * u32::try_from(seconds).unwrap())
}

fn lease(version: &str, holder: &str) -> Record {
    Record { version: version.to_owned(), holder: holder.to_owned(), duration: Some(SECOND * 15) }
}

fn elector(me: &str) -> Elector {
    Elector::new(me.to_owned(), Timing::default(), 7)
}

fn leads(elector: &Elector, now: Moment) -> bool {
    elector.writes_until().is_some_and(|until| now < until)
}

fn claim(over: Option<&str>, takes_over: bool) -> Action {
    Action::Write(Claim { over: over.map(str::to_owned), takes_over })
}

#[test]
fn creates_renews_and_stops_before_the_end() {
    let mut a = elector("a");
    assert_eq!(a.next(at(0)), Action::Read);
    a.saw(at(0), None);
    assert_eq!(a.next(at(0)), claim(None, true));
    assert!(!leads(&a, at(0)), "not before the server said so");
    a.claimed(at(0), "1".to_owned());
    assert!(leads(&a, at(0)));
    assert_eq!(a.next(at(1)), Action::Wait(at(2)));
    assert_eq!(a.next(at(2)), claim(Some("1"), false));
    // The answer takes a second; what counts is when it was sent.
    a.claimed(at(2), "2".to_owned());
    assert!(leads(&a, at(11)));
    assert!(!leads(&a, at(12)), "ten seconds without renewal");
}

#[test]
fn waits_for_the_end_of_a_lease_that_it_saw_unchanged() {
    let mut b = elector("b");
    b.saw(at(100), Some(lease("1", "a")));
    assert!(matches!(b.next(at(100)), Action::Wait(until) if until > at(104) && until < at(107)));
    b.saw(at(105), Some(lease("2", "a")));
    b.saw(at(119), Some(lease("2", "a")));
    assert_eq!(b.next(at(119)), Action::Wait(at(120)), "not later than its end");
    b.saw(at(120), Some(lease("2", "a")));
    assert_eq!(b.next(at(120)), claim(Some("2"), true));
    b.refused(at(120));
    b.saw(at(121), Some(lease("3", "c")));
    assert!(matches!(b.next(at(121)), Action::Wait(_)), "somebody was faster");
}

#[test]
fn a_longer_lease_of_the_holder_is_respected() {
    let mut b = elector("b");
    let long = Record { duration: Some(SECOND * 60), ..lease("1", "a") };
    b.saw(at(0), Some(long.clone()));
    b.saw(at(59), Some(long.clone()));
    assert_eq!(b.next(at(59)), Action::Wait(at(60)));
    b.saw(at(60), Some(long));
    assert_eq!(b.next(at(60)), claim(Some("1"), true));
}

#[test]
fn a_released_lease_is_taken_at_once() {
    let mut a = elector("a");
    a.saw(at(0), None);
    a.claimed(at(0), "1".to_owned());
    assert_eq!(a.resign(), Some("1".to_owned()));
    assert!(!leads(&a, at(0)));
    let mut b = elector("b");
    assert_eq!(b.resign(), None);
    b.saw(at(1), Some(lease("2", "")));
    assert_eq!(b.next(at(1)), claim(Some("2"), true));
}

#[test]
fn a_claim_whose_answer_got_lost_is_not_trusted_until_renewed() {
    let mut a = elector("a");
    a.saw(at(0), None);
    a.failed(at(4));
    assert!(matches!(a.next(at(4)), Action::Wait(until) if until >= at(6)));
    a.saw(at(7), Some(lease("1", "a")));
    assert!(!leads(&a, at(7)));
    assert_eq!(a.next(at(7)), claim(Some("1"), false));
    a.claimed(at(7), "2".to_owned());
    assert!(leads(&a, at(7)));
}

#[test]
fn a_leader_that_sees_another_holder_stops_at_once() {
    let mut a = elector("a");
    a.saw(at(0), None);
    a.claimed(at(0), "1".to_owned());
    a.refused(at(2));
    assert!(leads(&a, at(2)), "the Lease is ours until the deadline, whatever was refused");
    a.saw(at(3), Some(lease("9", "b")));
    assert!(!leads(&a, at(3)));
}

#[test]
fn simulated_elections_have_one_writer() {
    let mut led = 0;
    for seed in 1..=150 {
        let end = simulate(seed, Timing::default());
        assert_eq!(end.two_writers, 0, "seed {seed}");
        assert!(end.one_at_last, "seed {seed}: nobody leads though all is well for a minute");
        led += end.leaders;
    }
    assert!(led > 400, "the leader hardly ever changed: {led}");
}

/// The simulator finds two writers where the rule is broken.
#[test]
fn the_simulator_catches_a_deadline_beyond_the_lease() {
    let broken = Timing { renew_deadline: SECOND * 20, ..Timing::default() };
    assert!((1..=50).any(|seed| simulate(seed, broken).two_writers > 0));
}

struct End {
    two_writers: u32,
    leaders: u32,
    one_at_last: bool,
}

/// A request or answer under way.
struct Message {
    arrives: u64,
    sent: u64,
    of: usize,
    body: Body,
}

enum Body {
    Get,
    Put(Claim),
    Got(Option<Record>),
    Done(String),
    Conflict,
}

struct Process {
    elector: Elector,
    /// Stopped until then: answers wait, clocks don't.
    paused_until: u64,
    /// When the request under way was sent.
    waiting_since: Option<u64>,
}

/// Ten minutes of three candidates in steps of 50 ms; all is well in the last one.
fn simulate(seed: u64, timing: Timing) -> End {
    const STEP: u64 = 50;
    const TIMEOUT: u64 = 4000;
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut processes: Vec<_> = (0..3)
        .map(|n| Process {
            elector: Elector::new(format!("p{n}"), timing, random.next()),
            paused_until: 0,
            waiting_since: None,
        })
        .collect();
    let mut lease: Option<Record> = None;
    let mut version = 0;
    let mut down_until = 0;
    let mut under_way: Vec<Message> = Vec::new();
    let mut end = End { two_writers: 0, leaders: 0, one_at_last: false };
    let mut last_leader = None;

    for time in (0..600_000).step_by(STEP as usize) {
        let now = Moment::at(Duration::from_millis(time));
        let calm = time > 540_000;
        if !calm && random.one_in(1200) {
            down_until = time + random.below(30_000);
        }
        // Now and then a process stops, as by SIGSTOP or a frozen virtual machine.
        for process in &mut processes {
            if !calm && random.one_in(1000) {
                process.paused_until = time + random.below(40_000);
            }
        }
        let (arrived, rest): (Vec<_>, Vec<_>) =
            under_way.into_iter().partition(|message| message.arrives <= time);
        under_way = rest;
        let mut answers = Vec::new();
        for message in arrived {
            let answer = match message.body {
                // Requests of the past reach the server whenever they like: only the version protects it.
                Body::Get if time >= down_until => Body::Got(lease.clone()),
                Body::Put(claim) if time >= down_until => {
                    if claim.over == lease.as_ref().map(|lease| lease.version.clone()) {
                        version += 1;
                        lease = Some(Record {
                            version: version.to_string(),
                            holder: format!("p{}", message.of),
                            duration: Some(timing.lease),
                        });
                        Body::Done(version.to_string())
                    } else {
                        Body::Conflict
                    }
                }
                Body::Get | Body::Put(_) => continue,
                answer => {
                    let process = &mut processes[message.of];
                    if process.paused_until > time {
                        answers.push(Message { arrives: process.paused_until, body: answer, ..message });
                    } else if process.waiting_since == Some(message.sent) {
                        process.waiting_since = None;
                        match answer {
                            Body::Got(lease) => process.elector.saw(now, lease),
                            Body::Done(version) => {
                                let sent = Moment::at(Duration::from_millis(message.sent));
                                process.elector.claimed(sent, version);
                            }
                            _ => process.elector.refused(now),
                        }
                    }
                    continue;
                }
            };
            if calm || !random.one_in(20) {
                answers.push(Message { arrives: time + delay(&mut random, calm), body: answer, ..message });
            }
        }
        under_way.extend(answers);
        for (of, process) in processes.iter_mut().enumerate() {
            if process.paused_until > time {
                continue;
            }
            if let Some(since) = process.waiting_since {
                if time - since >= TIMEOUT {
                    process.waiting_since = None;
                    process.elector.failed(now);
                }
                continue;
            }
            let body = match process.elector.next(now) {
                Action::Wait(_) => continue,
                Action::Read => Body::Get,
                Action::Write(claim) => Body::Put(claim),
            };
            process.waiting_since = Some(time);
            if calm || !random.one_in(20) {
                let arrives = time + delay(&mut random, calm);
                under_way.push(Message { arrives, sent: time, of, body });
            }
        }
        // Those who would write if they ran now; a paused one asks again when it wakes up.
        let writers: Vec<_> = (0..processes.len()).filter(|of| leads(&processes[*of].elector, now)).collect();
        end.two_writers += u32::from(writers.len() > 1);
        if let [leader] = writers[..]
            && last_leader.replace(leader) != Some(leader)
        {
            end.leaders += 1;
        }
        end.one_at_last = !writers.is_empty();
    }
    end
}

/// Mostly quick, sometimes slower than every timeout.
fn delay(random: &mut Random, calm: bool) -> u64 {
    if !calm && random.one_in(15) { random.below(20_000) } else { random.below(200) }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
