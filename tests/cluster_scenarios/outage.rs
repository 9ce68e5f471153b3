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
        http::Target,
        load::{self, SteadyRequests},
        manifests::TWO_HOSTS,
    },
};
use libtest_mimic::Trial;

use super::{
    scenario,
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
/// Longer than a watch's first retries.
const OUTAGE: Duration = Duration::from_secs(5);

pub(super) fn trials() -> Vec<Trial> {
    vec![
        scenario("outage::traffic_goes_on_without_the_api_server", traffic_goes_on),
        scenario("outage::a_daemon_that_starts_meanwhile_serves_from_disk", serves_from_disk),
        scenario("outage::a_throttling_and_a_hanging_api_server_disturb_nobody", throttles_and_hangs),
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
    thread::sleep(OUTAGE);
    ensure!(world.lab.nodes().iter().all(Node::is_running), "a daemon ended: {}", world.logs());
    world.cluster.start_api_server()?;
    let back = Instant::now();

    let live = change_endpoints(&mut world, back).context("after the outage")?;
    let report = requests.finish()?;
    println!(
        "koutage: {} of {} requests lost while the API server was away; a change was live {:.1} s after it was back",
        report.lost(),
        report.sent(),
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
    println!(
        "kslow: throttled, a change was live after {:.1} s; the daemon asked {asked} times, {} answers were 429",
        live.as_secs_f64(),
        world.lab.nodes()[0].daemon_log().matches("code: 429").count(),
    );
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
