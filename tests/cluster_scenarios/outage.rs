//! The API server away: everything goes on with the last known state, and changes are seen again when it is back.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ingress_tests::{
    cluster::Requests,
    lab::{
        Node,
        http::{Response, Target},
        load::{self, SteadyRequests},
        manifests::TWO_HOSTS,
    },
};
use libtest_mimic::Trial;

use super::{
    outage, scenario,
    world::{ACCOUNT, LIVE, World},
};

/// API priority and fairness gives our account the least that it can: one request at a time, all others get 429.
const THROTTLE: &str = "
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: PriorityLevelConfiguration
metadata: {name: one-at-a-time}
spec:
  type: Limited
  limited: {nominalConcurrencyShares: 0, borrowingLimitPercent: 0, lendablePercent: 0, limitResponse: {type: Reject}}
---
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: FlowSchema
metadata: {name: one-at-a-time}
spec:
  matchingPrecedence: 2
  priorityLevelConfiguration: {name: one-at-a-time}
  rules:
    - subjects: [{kind: User, user: {name: 'system:serviceaccount:xdp-ingress:xdp-ingress'}}]
      resourceRules:
        - {verbs: ['*'], apiGroups: ['*'], resources: ['*'], clusterScope: true, namespaces: ['*']}
";
const OUTAGE: Duration = Duration::from_secs(5);
/// A connection whose other end is gone is noticed after 25 seconds, and a watch's longest pause is five.
const NOTICED: Duration = Duration::from_mins(1);

pub(super) fn trials() -> Vec<Trial> {
    vec![
        scenario("outage::traffic_goes_on_without_the_api_server", traffic_goes_on),
        scenario("outage::a_daemon_that_starts_meanwhile_serves_from_disk", serves_from_disk),
        scenario("outage::a_throttling_and_a_hanging_api_server_disturb_nobody", throttles_and_hangs),
        scenario("outage::watches_that_etcd_has_compacted_away_begin_anew", compacted),
    ]
}

/// Service 1 gets the pods of service 2; how long after `since` that was live.
fn change_endpoints(world: &mut World, since: Instant) -> Result<Duration> {
    let other: Vec<_> = world.lab.pods_of("service2").collect();
    world.lab.declare_endpoints("service1", &other)?;
    world.apply_changes()?;
    world.until_served_by(("app.test.com", "/"), "service2", since)
}

fn traffic_goes_on() -> Result<()> {
    let mut world = World::start("koutage", 2)?;
    world.apply(TWO_HOSTS)?;
    world.start_daemons()?;
    world.until_served_by(("app.test.com", "/"), "service1", Instant::now())?;

    let target = Target::new(world.vip()?, "app.test.com", "/");
    let requests = SteadyRequests::start(world.client(), &target, 50);
    world.cluster.stop_api_server();
    let away = outage(OUTAGE);
    thread::sleep(away);
    ensure!(world.lab.nodes().iter().all(Node::is_running), "a daemon ended: {}", world.logs());
    world.cluster.start_api_server()?;
    let back = Instant::now();

    let live = change_endpoints(&mut world, back).context("after the outage")?;
    let report = requests.finish()?;
    println!(
        "koutage: {} of {} requests lost while the API server was away for {} s; a change was live {:.1} s after it was back",
        report.lost(),
        report.sent(),
        away.as_secs(),
        live.as_secs_f64()
    );
    ensure!(report.lost() == 0, "lost: {:?}", report.losses());
    Ok(())
}

fn serves_from_disk() -> Result<()> {
    let mut world = World::start("kmemory", 1)?;
    world.apply(TWO_HOSTS)?;
    world.start_daemons()?;
    world.until_served_by(("app.test.com", "/"), "service1", Instant::now())?;
    let node = &world.lab.nodes()[0];
    let file = node.state_dir().join("memory/objects");
    load::wait_for("the Ingress on disk", LIVE, || {
        Ok(fs::read_to_string(&file).is_ok_and(|text| text.contains("app.test.com")))
    })?;
    let mode = fs::metadata(&file)?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "others may read the Secrets: {mode:o}");

    world.cluster.stop_api_server();
    world.lab.nodes()[0].kill_daemon();
    let started = Instant::now();
    world.start_daemons()?;
    let served = world.until_served_by(("app.prod.com", "/"), "service2", started)?;

    // And what changes is seen once the API server is back.
    world.cluster.start_api_server()?;
    let back = Instant::now();
    let live = change_endpoints(&mut world, back)?;
    println!(
        "kmemory: without an API server a daemon serves {:.1} s after its start; a change is live {:.1} s after the API \
         server is back",
        served.as_secs_f64(),
        live.as_secs_f64()
    );
    Ok(())
}

fn throttles_and_hangs() -> Result<()> {
    let mut world = World::start("kslow", 1)?;
    world.apply(TWO_HOSTS)?;
    world.start_daemons()?;
    world.until_served_by(("app.test.com", "/"), "service1", Instant::now())?;
    let target = Target::new(world.vip()?, "app.test.com", "/");
    let requests = SteadyRequests::start(world.client(), &target, 50);

    // All watches begin anew, side by side; and the API server that comes knows nothing of versions before its time (410).
    world.apply(THROTTLE)?;
    world.cluster.stop_api_server();
    let before = world.cluster.requests_of(ACCOUNT)?;
    world.cluster.start_api_server()?;
    let back = Instant::now();
    let live = change_endpoints(&mut world, back)?;
    thread::sleep(OUTAGE.saturating_sub(back.elapsed()));
    let count = |requests: &Requests| requests.values().sum::<usize>();
    let asked = count(&world.cluster.requests_of(ACCOUNT)?) - count(&before);
    let rejected = rejected(&world)?;
    println!(
        "kslow: throttled, a change was live after {:.1} s; the daemon asked {asked} times, {rejected} answers were 429",
        live.as_secs_f64(),
    );
    ensure!(rejected > 0.0, "the API server rejected nobody");
    // Eight watches with a growing pause, and whoever wants the Lease.
    ensure!(asked <= 200, "{asked} requests in {:?} to an API server that throttles", back.elapsed());

    // It takes connections and says nothing.
    world.cluster.pause_api_server(true)?;
    thread::sleep(OUTAGE);
    world.cluster.pause_api_server(false)?;
    let back = Instant::now();
    let first: Vec<_> = world.lab.pods_of("service1").collect();
    world.lab.declare_endpoints("service1", &first)?;
    world.apply_changes()?;
    let live = world.until_served_by(("app.test.com", "/"), "service1", back)?;
    let report = requests.finish()?;
    println!(
        "kslow: {} of {} requests lost; {:.1} s after the API server woke up a change was live",
        report.lost(),
        report.sent(),
        live.as_secs_f64()
    );
    ensure!(report.lost() == 0, "lost: {:?}", report.losses());
    Ok(())
}

/// How many requests of ours API priority and fairness has rejected.
fn rejected(world: &World) -> Result<f64> {
    let metrics = world.cluster.kubectl(&["get", "--raw", "/metrics"])?;
    let ours = metrics.lines().filter(|line| {
        line.starts_with("apiserver_flowcontrol_rejected_requests_total{")
            && line.contains(r#"flow_schema="one-at-a-time""#)
    });
    Ok(ours.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

fn compacted() -> Result<()> {
    let mut world = World::start("kcompact", 1)?;
    world.apply(TWO_HOSTS)?;
    world.start_daemons()?;
    world.until_served_by(("app.test.com", "/"), "service1", Instant::now())?;
    let target = Target::new(world.vip()?, "app.test.com", "/");
    let requests = SteadyRequests::start(world.client(), &target, 50);
    // A watch only listens: without probes it would not notice that its API server is gone.
    let connections = world.lab.nodes()[0].host().output("ss", &["-tno", "dport = :6443"])?;
    ensure!(connections.contains("timer:(keepalive"), "nobody probes: {connections}");

    // The machine of the API server is cut off; what changes there meanwhile is known to etcd alone, and only as it is now.
    let lists = |requests: &Requests| requests.get("list endpointslices").copied().unwrap_or_default();
    let before = lists(&world.cluster.requests_of(ACCOUNT)?);
    world.lab.client(1).cut_link()?;
    world.cluster.stop_api_server();
    world.cluster.start_api_server()?;
    let other: Vec<_> = world.lab.pods_of("service2").collect();
    world.lab.declare_endpoints("service1", &other)?;
    world.apply_changes()?;
    world.cluster.kubectl(&["delete", "ingress", "two-hosts", "--namespace=default"])?;
    world.apply(&TWO_HOSTS.replace("app.prod.com", "app.late.com"))?;
    world.cluster.stop_api_server();
    world.cluster.compact()?;
    world.cluster.start_api_server()?;
    world.lab.client(1).mend_link()?;
    let mended = Instant::now();

    let is_new = |answer: &Response| answer.echo().is_ok_and(|echo| echo.pod.starts_with("service2-"));
    let late = Target::new(world.vip()?, "app.late.com", "/");
    for target in [&target, &late] {
        load::until(world.client(), target, mended, NOTICED, |answer| answer.as_ref().is_ok_and(is_new))
            .with_context(|| world.logs())?;
    }
    let live = mended.elapsed();
    let gone = Target::new(world.vip()?, "app.prod.com", "/");
    load::until(world.client(), &gone, mended, NOTICED, |answer| {
        answer.as_ref().is_ok_and(|answer| answer.status == 404)
    })?;
    let listed = lists(&world.cluster.requests_of(ACCOUNT)?) - before;
    let report = requests.finish()?;
    println!(
        "kcompact: {:.1} s after the API server could be reached again, with nothing older than now, all changes were live ({listed} lists of slices); {} of {} requests lost",
        live.as_secs_f64(),
        report.lost(),
        report.sent(),
    );
    ensure!(listed > 0, "the watch of slices went on over a compaction");
    ensure!(report.lost() == 0, "lost: {:?}", report.losses());
    Ok(())
}
