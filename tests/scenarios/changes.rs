//! Objects change under load: how soon a change is live, that nothing is lost meanwhile, and what broken objects do.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use ingress_tests::lab::{
    Lab, Node, Pod,
    http::Target,
    load::{self, Load},
    manifests::{TWO_HOSTS, WILDCARD_HOST},
    serve::Curl,
};
use libtest_mimic::Trial;

use super::scenario;

/// Between two changes, so that the load meets all of them.
const PAUSE: Duration = Duration::from_millis(20);
/// A change of a file is live within this time, even on a busy machine.
const LIVE: Duration = Duration::from_secs(3);

pub(super) fn trials() -> Vec<Trial> {
    vec![
        scenario("changes::an_ingress_is_edited", an_ingress_is_edited),
        scenario("changes::endpoints_come_and_go", endpoints_come_and_go),
        scenario("changes::a_rollout_loses_nothing", a_rollout_loses_nothing),
        scenario("changes::a_broken_document_keeps_the_rest", a_broken_document_keeps_the_rest),
    ]
}

/// How long after `since` a request to `host` and `path` is answered by a pod whose name begins with `pods`.
fn live(lab: &Lab, host: &str, path: &str, pods: &str, since: Instant) -> Result<Duration> {
    let target = Target::new(lab.vips()[0], host, path);
    load::until(lab.client(0), &target, since, LIVE, |answer| {
        let echo = answer.as_ref().ok().and_then(|response| response.echo().ok());
        echo.is_some_and(|echo| echo.pod.starts_with(pods))
    })
}

fn an_ingress_is_edited() -> Result<()> {
    const TIMES: usize = 200;
    let lab = Lab::builder("edit").build()?;
    lab.serve_examples()?;
    let load = Load::start(&lab, "foo.bar.com", "/bar", 100, 100)?;
    let swapped = TWO_HOSTS
        .replace("service1", "service3")
        .replace("service2", "service1")
        .replace("service3", "service2");
    let mut times = Vec::new();
    for round in 0..TIMES {
        let (yaml, pods) = if round % 2 == 0 { (&*swapped, "service2-") } else { (TWO_HOSTS, "service1-") };
        let since = Instant::now();
        lab.manifests().write("two-hosts", yaml)?;
        times.push(live(&lab, "app.test.com", "/", pods, since)?);
        thread::sleep(PAUSE);
    }
    times.sort();
    println!(
        "an Ingress edited {TIMES} times: live after {:.0?} (median), {:.0?} (slowest)",
        times[TIMES / 2],
        times[TIMES - 1]
    );
    let report = load.finish()?;
    println!("an Ingress edited: {}", report.summary());
    ensure!(report.steady.lost() == 0 && report.hold.broken(|_| true) == 0, "{}", report.summary());
    Ok(())
}

fn endpoints_come_and_go() -> Result<()> {
    let lab = Lab::builder("endpoints").build()?;
    lab.serve_examples()?;
    let load = Load::start(&lab, "foo.bar.com", "/bar", 100, 100)?;
    let all: Vec<_> = lab.pods_of("service1").collect();
    let mut times = Vec::new();
    for round in 0..100 {
        let chosen = all[round % all.len()];
        let since = Instant::now();
        lab.declare_endpoints("service1", &[chosen])?;
        times.push(live(&lab, "foo.bar.com", "/bar", chosen.name(), since)?);
        thread::sleep(PAUSE);
    }
    times.sort();
    println!(
        "endpoints changed {} times: live after {:.0?} (median), {:.0?} (slowest)",
        times.len(),
        times[times.len() / 2],
        times[times.len() - 1]
    );
    // The load moves on, so that the next step is not its loss.
    lab.manifests().write("wildcard-host", &WILDCARD_HOST.replace("service1", "service2"))?;
    live(&lab, "foo.bar.com", "/bar", "service2-", Instant::now())?;
    let report = load.finish()?;
    println!("endpoints changed: {}", report.summary());
    ensure!(report.steady.lost() == 0 && report.hold.broken(|_| true) == 0, "{}", report.summary());
    // None left: that is said, with 503; then they are back.
    lab.declare_endpoints("service1", &[])?;
    let target = Target::new(lab.vips()[0], "app.test.com", "/");
    let since = Instant::now();
    load::until(lab.client(0), &target, since, LIVE, |answer| {
        answer.as_ref().is_ok_and(|r| r.status == 503)
    })?;
    lab.declare_endpoints("service1", &all)?;
    live(&lab, "app.test.com", "/", "service1-", Instant::now())?;
    Ok(())
}

/// Pod after pod is replaced, as a Deployment does it: the old one is terminating and still serves, its successor is ready;
/// then the old one is gone.
fn a_rollout_loses_nothing() -> Result<()> {
    let lab = Lab::builder("rollout").build()?;
    lab.serve_examples()?;
    let load = Load::start(&lab, "foo.bar.com", "/bar", 100, 100)?;
    let old: Vec<&Pod> = lab.pods_of("service1").collect();
    let new: Vec<&Pod> = lab.pods_of("service2").collect();
    let mut terminating = Vec::new();
    for step in 0..old.len() {
        let ready: Vec<&Pod> = old[step + 1..].iter().chain(&new[..=step]).copied().collect();
        all_know(&lab, || lab.declare_rollout("service1", &[old[step]], &ready))?;
        let since = Instant::now();
        thread::sleep(Duration::from_millis(400));
        terminating.push((old[step].name(), since, Instant::now()));
        old[step].kill()?;
        all_know(&lab, || lab.declare_endpoints("service1", &ready))?;
    }
    // Where all are terminating, those that still serve are better than nobody.
    all_know(&lab, || lab.declare_rollout("service1", &new, &[]))?;
    let since = Instant::now();
    thread::sleep(Duration::from_millis(400));
    let until = Instant::now();
    let report = load.finish()?;
    println!("a rollout of {} pods: {}", old.len(), report.summary());
    ensure!(report.steady.lost() == 0 && report.hold.broken(|_| true) == 0, "{}", report.summary());
    for (pod, since, until) in terminating {
        let meanwhile = report.steady.between(since, until);
        let served = meanwhile.pods();
        ensure!(
            !served.is_empty() && !served.contains(pod),
            "{pod} is terminating, and got new requests: {served:?}"
        );
    }
    let meanwhile = report.steady.between(since, until);
    ensure!(!meanwhile.pods().is_empty(), "nobody was asked while all were terminating");
    Ok(())
}

/// Makes a change, and waits until every node has it.
fn all_know(lab: &Lab, change: impl FnOnce() -> Result<()>) -> Result<()> {
    let generation = |node: &Node| Ok::<_, anyhow::Error>(node.status()?["snapshot"]["generation"].as_u64());
    let before = lab.nodes().iter().map(generation).collect::<Result<Vec<_>>>()?;
    change()?;
    for (node, before) in lab.nodes().iter().zip(before) {
        load::wait_for("the change on every node", LIVE, || Ok(generation(node)? > before))?;
    }
    Ok(())
}

fn a_broken_document_keeps_the_rest() -> Result<()> {
    let lab = Lab::builder("broken").nodes(2).build()?;
    lab.serve_examples()?;
    let client = lab.client(0);
    let vip = lab.vips()[0];
    let ask = |url: &str| -> Result<u16> { Ok(Curl::new(url, vip, &[])?.run(client)?.status) };
    // A document that was good and is broken now keeps its last good version; its neighbour in the file is new.
    let broken = TWO_HOSTS.replace("kind: Ingress", "kind: Ingress\n  bad: [indent");
    let new = TWO_HOSTS
        .replace("name: two-hosts", "name: new")
        .replace("app.test.com", "new.test.com")
        .replace("app.prod.com", "new.prod.com");
    let since = Instant::now();
    lab.manifests().write("two-hosts", &format!("{broken}---\n{new}"))?;
    live(&lab, "new.test.com", "/", "service1-", since)?;
    // Objects that name what isn't there: one route is out, the others stay.
    let missing = TWO_HOSTS
        .replace("name: two-hosts", "name: missing")
        .replace("app.test.com", "lost.test.com")
        .replace("app.prod.com", "found.prod.com")
        .replacen("service1", "nowhere", 1);
    let since = Instant::now();
    lab.manifests().write("missing", &missing)?;
    live(&lab, "found.prod.com", "/", "service2-", since)?;
    ensure!(ask("http://lost.test.com/")? == 503, "a route to a Service that isn't there says 503");
    for url in ["http://app.test.com/", "http://app.prod.com/", "http://foo.bar.com/bar"] {
        ensure!(ask(url)? == 200, "{url} is lost because another document is broken");
    }
    let status = lab.node(0).status()?;
    let problems = status["problems"].as_array().map(Vec::len).unwrap_or_default();
    println!("problems shown: {:#}", status["problems"]);
    ensure!(problems == 2, "one problem each, got {problems}");
    Ok(())
}
