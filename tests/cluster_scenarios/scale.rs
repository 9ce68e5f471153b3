//! A large cluster on the real API server: start, memory, changes, floods, and what all this asks of it. A test has a
//! tenth of everything, so that it takes seconds; `cargo xtask bench control` has 10,000 Ingresses, 5,000 Services and
//! 100,000 endpoints, and takes the figures from the file that `XDP_INGRESS_ROWS` names. What fails a run is what no busy
//! machine explains; figures are printed.

use std::{
    env, fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use http::Method;
use ingress_tests::{
    cluster::Requests,
    lab::{
        Node,
        http::{Response, Target},
        load::{self, SteadyRequests},
    },
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{
    scenario,
    world::{ACCOUNT, World},
};
use objects::{ENDPOINTS_OF_EACH, PARALLEL, Size, endpoints, ingress_path, slice, slice_path};

mod objects;

/// How long anything may take here before it counts as never.
const PATIENCE: Duration = Duration::from_mins(3);
/// What `bench` has, and what a test has.
const LARGE: Size = Size { ingresses: 10_000, services: 5_000 };
const SMALL: Size = Size { ingresses: 1_000, services: 500 };
/// Changes of endpoints, one after the other.
const CHANGES: usize = 1_000;
/// Changes of Ingresses at once.
const FLOOD: usize = 10_000;
/// Of the changes of endpoints, how many are awaited by a client.
const SEEN: usize = 50;
/// The Service whose endpoint is a real pod.
const LIVE: usize = 1;

pub(super) fn trials() -> Vec<Trial> {
    vec![scenario("scale::ten_thousand_ingresses_on_one_api_server", large)]
}

/// A figure with the limit that we set ourselves, as `cargo xtask bench` shows it.
struct Row(&'static str, f64, f64, &'static str);

fn large() -> Result<()> {
    let rows_file = env::var_os("XDP_INGRESS_ROWS");
    let size = if rows_file.is_some() { LARGE } else { SMALL };
    let world = World::start("kscale", 1)?;
    let (admin, api) = (world.cluster.admin().to_owned(), world.lab.client(1));
    let started = Instant::now();
    for calls in objects::everything(size) {
        objects::send(api, &admin, PARALLEL, calls)?;
    }
    let [here, there] = [1, 2].map(|number| pod(&world, &format!("service{number}")));
    let (here, there) = (here?, there?);
    point(&world, &admin, &here.1)?;
    println!("kscale: the objects were made in {:.1} s", started.elapsed().as_secs_f64());

    let node = &world.lab.nodes()[0];
    let target = Target::new(world.vip()?, &format!("host-{LIVE}.example.com"), "/");
    let started = start(&world, node)?;
    let fresh = Figures::of(node)?;
    until_served_by(&world, &target, &here.0)?;
    ensure!(
        fresh.endpoints > (size.services - 1) * ENDPOINTS_OF_EACH && fresh.ingresses == size.ingresses,
        "not all: {fresh:?}"
    );

    let statuses = Instant::now();
    let written = |requests: &Requests| requests.get("patch ingresses/status").copied().unwrap_or_default();
    load::wait_for("every Ingress's status", PATIENCE, || {
        thread::sleep(Duration::from_millis(200));
        Ok(written(&world.cluster.requests_of(ACCOUNT)?) >= size.ingresses)
    })?;
    let statuses = statuses.elapsed();

    // The same again by a daemon that comes after: it finds every status as it shall be.
    node.begin_stop()?;
    node.wait_stopped(PATIENCE)?;
    fs::remove_dir_all(node.state_dir().join("memory")).context("the remembered objects")?;
    let before = world.cluster.requests_of(ACCOUNT)?;
    let restarted = start(&world, node)?;
    until_served_by(&world, &target, &here.0)?;
    load::wait_for("the daemon to lead", PATIENCE, || {
        Ok(node.daemon_log().matches("leader: writing").count() > 1)
    })?;
    thread::sleep(Duration::from_secs(2));
    let after = world.cluster.requests_of(ACCOUNT)?;
    let asked = difference(&before, &after);
    println!("kscale: a daemon's start asks the API server for: {asked:?}");
    ensure!(written(&after) == written(&before), "statuses were written again: {asked:?}");
    // A page of a list is 500 objects: 10 of Services and of slices, 20 of Ingresses, which the leader lists too.
    let lists: usize =
        asked.iter().filter(|(what, _)| what.starts_with("list ")).map(|(_, count)| count).sum();
    ensure!(lists <= 75, "lists: {asked:?}");

    // Endpoints change one after the other; a client waits for some of the changes.
    let (figures, before) = (Figures::of(node)?, after);
    let mut seen = Vec::with_capacity(SEEN);
    for change in 0..SEEN {
        let pod = if change % 2 == 0 { &there } else { &here };
        let since = Instant::now();
        point(&world, &admin, &pod.1)?;
        until_served_by(&world, &target, &pod.0)?;
        seen.push(since.elapsed());
    }
    let changes = (0..CHANGES).map(|change| {
        let service = 2 + change * 7 % (size.services - 2);
        let fewer = &endpoints(service)[change % 3 + 1..];
        (Method::PATCH, slice_path(service), json!({ "endpoints": slice(service, fewer)["endpoints"] }))
    });
    objects::send(api, &admin, 1, changes)?;
    point(&world, &admin, &there.1)?;
    until_served_by(&world, &target, &there.0)?;
    let changed = Figures::of(node)?.since(&figures);
    let asked = difference(&before, &world.cluster.requests_of(ACCOUNT)?);
    ensure!(changed.whole == 0, "{} changes of endpoints translated everything anew", changed.whole);
    ensure!(
        asked.keys().all(|what| what.ends_with(" leases") || what.starts_with("watch ")),
        "changes of endpoints asked the API server for {asked:?}"
    );

    // Ten thousand events at once, with traffic.
    let requests = SteadyRequests::start(world.client(), &target, 50);
    let flooded = Instant::now();
    let touches = (0..FLOOD).map(|event| {
        let round = (event / size.ingresses).to_string();
        let touch = json!({ "metadata": { "annotations": { "example.com/touched": round } } });
        (Method::PATCH, ingress_path(event % size.ingresses).1, touch)
    });
    objects::send(api, &admin, PARALLEL, touches)?;
    let sent = flooded.elapsed();
    point(&world, &admin, &here.1)?;
    let end = Instant::now();
    until_served_by(&world, &target, &here.0)?;
    let behind = end.elapsed();

    // And all of a namespace goes.
    let gone = Target::new(world.vip()?, "host-0.example.com", "/");
    let (all, _) = ingress_path(0);
    let removed = ["ingresses", "services", "endpointslices"].map(|kind| {
        let path = match kind {
            "services" => format!("/api/v1/namespaces/{}/services", objects::namespace(0)),
            "endpointslices" => slice_path(0).trim_end_matches("/service-0-a").to_owned(),
            _ => all.clone(),
        };
        (Method::DELETE, path, Value::Null)
    });
    objects::send(api, &admin, 1, removed)?;
    load::until(world.client(), &gone, Instant::now(), PATIENCE, |answer| {
        answer.as_ref().is_ok_and(|answer| answer.status == 404)
    })?;
    let report = requests.finish()?;
    println!(
        "kscale: {FLOOD} events in {:.1} s, a namespace removed: {} of {} requests lost, the next change was live {:.0} ms later",
        sent.as_secs_f64(),
        report.lost(),
        report.sent(),
        millis(behind),
    );
    ensure!(report.lost() == 0, "lost: {:?}", report.losses());

    let last = Figures::of(node)?;
    seen.sort();
    let rows = [
        Row("API: start to ready", started.as_secs_f64(), 10.0, "s"),
        Row("API: start to ready again", restarted.as_secs_f64(), 10.0, "s"),
        Row("API: memory after the start", fresh.memory, 300.0, "MiB"),
        Row("API: memory after all changes", last.memory, 300.0, "MiB"),
        Row("API: memory at most", last.peak, 300.0, "MiB"),
        Row("API: one endpoint changed, later than 10 ms", changed.late_percent(), 1.0, "%"),
        Row("API: write to first request, p50", millis(seen[SEEN / 2]), 50.0, "ms"),
        Row("API: write to first request, worst", millis(seen[SEEN - 1]), 200.0, "ms"),
        Row("API: all statuses written", statuses.as_secs_f64(), 60.0, "s"),
        Row("API: requests for 1,050 changes", asked.values().sum::<usize>() as f64, 20.0, "requests"),
    ];
    for Row(name, value, limit, unit) in &rows {
        println!("kscale: {name}: {value:.1} {unit} (limit {limit})");
    }
    println!(
        "kscale: {} changes of endpoints, on average {:.2} ms from the watch event",
        changed.count(),
        changed.mean()
    );
    if let Some(file) = rows_file {
        let row = |Row(name, value, limit, unit): &Row| json!({ "name": name, "ours": value, "reference": limit, "unit": unit, "target": 1.0 });
        fs::write(file, Value::from(rows.iter().map(row).collect::<Vec<_>>()).to_string())?;
    }
    Ok(())
}

/// Starts the daemon; how long it took until it was ready.
fn start(world: &World, node: &Node) -> Result<Duration> {
    let kubeconfig = world.account()?;
    let mut command = node.daemon_command_from("kubernetes");
    command.arg("--kubeconfig").arg(&kubeconfig);
    let started = Instant::now();
    node.launch(command)?;
    node.wait_until_ready_within(PATIENCE)?;
    Ok(started.elapsed())
}

/// The pod of a Service of the lab: name and address.
fn pod(world: &World, service: &str) -> Result<(String, String)> {
    let pod = world.lab.pods_of(service).next().with_context(|| format!("{service} has no pod"))?;
    let address = pod.addresses().first().context("the pod has no address")?;
    Ok((pod.name().to_owned(), address.to_string()))
}

/// Makes `address` the only endpoint of the Service that is asked.
fn point(world: &World, admin: &Path, address: &str) -> Result<()> {
    let body = json!({ "endpoints": slice(LIVE, &[address.to_owned()])["endpoints"] });
    objects::send(world.lab.client(1), admin, 1, [(Method::PATCH, slice_path(LIVE), body)])
}

fn until_served_by(world: &World, target: &Target, pod: &str) -> Result<Duration> {
    let is_its = |answer: &Response| answer.echo().is_ok_and(|echo| echo.pod == pod);
    load::until(world.client(), target, Instant::now(), PATIENCE, |answer| answer.as_ref().is_ok_and(is_its))
        .with_context(|| world.logs())
}

fn difference(before: &Requests, after: &Requests) -> Requests {
    let new = after.iter().map(|(what, count)| (what.clone(), count - before.get(what).unwrap_or(&0)));
    new.filter(|(_, count)| *count > 0).collect()
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// What the daemon says of itself, and the kernel of its memory.
#[derive(Debug, Default)]
struct Figures {
    ingresses: usize,
    endpoints: usize,
    /// Changes that translated everything.
    whole: u64,
    /// Changes of endpoints by time, as `l7::stats::LATENCY_BOUNDS` has it: the third bucket ends at 10 ms.
    times: Vec<u64>,
    seconds: f64,
    /// MiB.
    memory: f64,
    peak: f64,
}

impl Figures {
    fn of(node: &Node) -> Result<Self> {
        let status = node.status()?;
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        let counts = |value: &Value| value.as_array().into_iter().flatten().map(number).collect::<Vec<_>>();
        let (snapshot, changes) = (&status["snapshot"], &status["snapshot"]["changes"]);
        let id = node.daemon_id().context("no daemon")?;
        let process = fs::read_to_string(format!("/proc/{id}/status"))?;
        let mib = |name: &str| {
            let line = process.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
            Ok::<_, anyhow::Error>(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
        };
        Ok(Self {
            ingresses: number(&snapshot["ingresses"]) as usize,
            endpoints: number(&snapshot["endpoints"]) as usize,
            whole: counts(&changes["everything"]["times"]).iter().sum(),
            times: counts(&changes["endpoints"]["times"]),
            seconds: changes["endpoints"]["seconds"].as_f64().unwrap_or_default(),
            memory: mib("VmRSS:")?,
            peak: mib("VmHWM:")?,
        })
    }

    fn since(mut self, before: &Self) -> Self {
        self.whole -= before.whole;
        self.seconds -= before.seconds;
        self.times.iter_mut().zip(&before.times).for_each(|(now, before)| *now -= before);
        self
    }

    fn count(&self) -> u64 {
        self.times.iter().sum()
    }

    fn late_percent(&self) -> f64 {
        let late: u64 = self.times.iter().skip(3).sum();
        late as f64 * 100.0 / self.count() as f64
    }

    fn mean(&self) -> f64 {
        self.seconds * 1e3 / self.count() as f64
    }
}
