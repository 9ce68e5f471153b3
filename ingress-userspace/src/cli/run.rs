//! `xdp-ingress run`: starts the parts, lets changes flow from the source to the data plane, and drains at the end. The
//! only file that knows all rooms.

mod daemon;
mod end;
mod following;
mod installation;
mod succession;

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::client::SOCKET_NAME;
use super::config::{AccessLogArg, LogFormat, RunArgs, Secrets, SourceArg, Switch, XdpMode};
use crate::l4::membership::Key;
use crate::l4::{self, L4};
use crate::l7::access_log::{AccessLogConfig, Format};
use crate::l7::tls::tickets::Seed;
use crate::l7::trace::TraceConfig;
use crate::l7::{self, L7};
use crate::model::Scope;
use crate::observe::{access_log, admin};
use crate::source;
use crate::status::{self, Published};
use crate::translate::{Settings, Translator, named_secrets};
use daemon::Daemon;
use end::{end_in_peace, told_to_end};
use following::{Following, Reporter};
use installation::Installation;
use succession::Place;

/// After so long without a change the objects are translated again: a certificate may have come near its end.
const LOOK_AGAIN: Duration = Duration::from_hours(1);

/// How long the admin address may be somebody else's.
const ADMIN_PATIENCE: Duration = Duration::from_secs(20);

/// For so long somebody who came to take over may be without the admin address that was left to it.
const ADMIN_LENT: Duration = Duration::from_secs(5);

/// How often the file of `--ticket-key-file` is read again.
const TICKET_KEY_EVERY: Duration = Duration::from_secs(30);

/// Runs the daemon until it is told to stop (SIGTERM or SIGINT, twice to stop without waiting for connections).
pub fn run(arguments: &RunArgs) -> anyhow::Result<()> {
    raise_open_files();
    let settings = settings(arguments);
    // The control side only: requests are served by the router's own threads.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .context("starting the control threads")?;
    let result = runtime.block_on(serve(arguments, settings));
    // Nothing that is still running there (watches, file look-ups) is worth waiting for.
    runtime.shutdown_background();
    result
}

/// Each connection is a file descriptor, or two; the usual soft limit of 1,024 is for programs that use `select`.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, limit = ?limit.current, "the limit of open files cannot be raised to the hard limit");
    }
}

async fn serve(arguments: &RunArgs, settings: Settings) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let daemon = Arc::new(Daemon::new(arguments, node_name(arguments)?));
    std::fs::create_dir_all(&arguments.state_dir)
        .with_context(|| format!("creating the state directory {}", arguments.state_dir.display()))?;
    let mut place = Place::find(arguments.state_dir.join(SOCKET_NAME), &daemon).await?;
    let admin = tokio::select! {
        admin = serve_admin(arguments.admin, &daemon) => admin,
        () = stop.asked() => return Ok(()),
    };
    let admin =
        admin.with_context(|| format!("listening on the admin address {} (--admin)", arguments.admin))?;
    tokio::spawn(lend_admin(admin, Arc::clone(&daemon)));

    // Before the objects are there: what is wrong with the node shall be known at once.
    let mut is_fresh = false;
    if arguments.l4 == Switch::On {
        let prepared = L4::prepare(l4_config(arguments, daemon.node())?).await?;
        is_fresh = !prepared.is_adopted();
        place.prepare(prepared);
    }
    if place.is_free() {
        place.take(&daemon).await?;
    }
    let result = serve_objects(arguments, settings, &daemon, &mut stop, &mut place).await;
    daemon.stop_front().await;
    let failed_to_start = result.is_err() && is_fresh && !daemon.is_serving();
    let is_uninstalled = matches!(&result, Ok(End::Uninstalled));
    if arguments.l4 == Switch::On && (failed_to_start || is_uninstalled) {
        // A start that failed leaves nothing behind. What an earlier daemon left goes on without us.
        tracing::info!(pin_path = %arguments.pin_path.display(), is_uninstalled, "taking the XDP program off");
        l4::cleanup(&arguments.pin_path).await.context("taking the XDP program off again")?;
    }
    if is_uninstalled {
        source::forget(&arguments.state_dir).context("removing the remembered objects")?;
    }
    result.map(drop)
}

/// A daemon of this node that was told to end may still have the address for a moment: a pod that is deleted by force is
/// replaced before its containers are gone. To fail at once would cost the node a restart's back-off.
async fn serve_admin(address: SocketAddr, daemon: &Arc<Daemon>) -> io::Result<admin::Admin> {
    let deadline = Instant::now() + ADMIN_PATIENCE;
    let mut is_said = false;
    loop {
        match admin::serve_tcp(address, Arc::clone(daemon) as _).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                if !is_said {
                    is_said = true;
                    tracing::info!(%address, "somebody has the admin address, as an earlier daemon that is still ending has: waiting");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            result => return result,
        }
    }
}

/// Lets a daemon that comes to take over have the admin address, and takes it back if that one goes away again.
async fn lend_admin(mut admin: admin::Admin, daemon: Arc<Daemon>) {
    let succession = daemon.succession();
    loop {
        succession.successor().await;
        let address = admin.address;
        admin.stop().await;
        admin = loop {
            tokio::time::sleep(ADMIN_LENT).await;
            if succession.is_over() {
                return;
            }
            // The other one has it.
            if let Ok(admin) = admin::serve_tcp(address, Arc::clone(&daemon) as _).await {
                break admin;
            }
        };
    }
}

/// Why the daemon ended in order.
enum End {
    /// It was told to; another one will follow.
    Stopped,
    /// Another one has taken over.
    HandedOver,
    /// The installation is gone.
    Uninstalled,
}

/// From the first objects to the end of the drain.
async fn serve_objects(
    arguments: &RunArgs,
    settings: Settings,
    daemon: &Arc<Daemon>,
    stop: &mut Stop,
    place: &mut Place,
) -> anyhow::Result<End> {
    let mut translator = Translator::new(settings);
    let (mut objects, client) = start_source(arguments).await?;
    // What the source has read already counts as a change, too.
    objects.mark_changed();
    let first = tokio::select! {
        first = next_change(&mut objects, &mut translator) => first?,
        () = stop.asked() => return Ok(End::Stopped),
        () = daemon.succession().end() => {
            stop.asked().await;
            return Ok(End::HandedOver);
        }
    };
    daemon.start_router(L7::start(l7_config(arguments, daemon.node())?, &first.snapshot)?);
    // Beside an earlier daemon's listeners by now.
    if !place.is_free() {
        place.take(daemon).await?;
    }
    daemon.publish(&first);
    let (published, receiver) = watch::channel(first.published());
    // On the side: the API server may be away, and serving does not wait for it.
    let installation = client
        .clone()
        .zip(arguments.daemon_set.clone())
        .map(|(client, name)| tokio::spawn(async move { Installation::find(client, &name).await }));
    if let (Some(client), Some(findings)) = (client.clone(), daemon.findings()) {
        let problems = |findings: &l4::Findings| Arc::new(findings.problems.clone());
        // Ends with the front.
        tokio::spawn(status::tell(client, status::Config::new(daemon.node()), findings, problems));
    }
    let mut reporter = Reporter::new(client, daemon.node(), receiver);
    reporter.start_with(&first);
    tracing::info!(node = daemon.node(), source = %arguments.source, "serving");

    let mut following = Following { objects, translator, reporting: Some((published, reporter)) };
    tokio::select! {
        ended = following.follow(daemon) => match ended? {},
        never = follow_ticket_key(arguments, daemon) => match never {},
        never = daemon.follow_tunnels() => match never {},
        never = daemon.log_findings() => match never {},
        () = told_to_end(daemon, stop) => {}
        () = daemon.succession().end() => {}
    }
    end_in_peace(following, daemon, stop, arguments.grace_period).await?;
    if daemon.succession().is_over() {
        return Ok(End::HandedOver);
    }
    let installation = match installation {
        Some(found) if found.is_finished() => found.await.ok().flatten(),
        _ => None,
    };
    match installation {
        Some(installation) if installation.is_removed().await => Ok(End::Uninstalled),
        _ => Ok(End::Stopped),
    }
}

/// A translated state of the objects on its way to the data plane.
pub(super) struct Change {
    snapshot: Arc<crate::model::Snapshot>,
    problems: Arc<Vec<crate::model::Problem>>,
    /// The objects were not all the API server's.
    is_remembered: bool,
    scope: Scope,
    /// When the source heard of it; when it was taken from there, if that does not know.
    since: Instant,
}

impl Change {
    fn published(&self) -> Published {
        Published { snapshot: Arc::clone(&self.snapshot), problems: Arc::clone(&self.problems) }
    }
}

/// Waits for the source to have something new and translates it. That takes up to a second where very much changes at
/// once, on this thread: it serves nothing else meanwhile, and nobody else has to be woken for a small change.
async fn next_change(objects: &mut source::Receiver, translator: &mut Translator) -> anyhow::Result<Change> {
    loop {
        let is_new = tokio::select! {
            changed = objects.changed() => changed.context("the source of objects ended").map(|()| true)?,
            // Time changes something, too: certificates expire.
            () = tokio::time::sleep(LOOK_AGAIN) => false,
        };
        let taken = Instant::now();
        let Some(latest) = objects.borrow_and_update().clone() else { continue };
        let since = latest.heard.filter(|_| is_new).unwrap_or(taken);
        let (snapshot, problems) = translator.translate(&latest, jiff::Timestamp::now().as_second());
        let scope = translator.scope();
        return Ok(Change { snapshot, problems, is_remembered: latest.is_remembered, scope, since });
    }
}

async fn start_source(arguments: &RunArgs) -> anyhow::Result<(source::Receiver, Option<kube::Client>)> {
    match &arguments.source {
        SourceArg::Directory(path) => Ok((source::directory(path.clone()).await?, None)),
        SourceArg::Kubernetes => {
            let client = source::client(arguments.kubeconfig.as_deref()).await?;
            let objects = source::kubernetes(&client, &arguments.state_dir, secret_scope(arguments));
            Ok((objects, Some(client)))
        }
    }
}

fn secret_scope(arguments: &RunArgs) -> source::SecretScope {
    match arguments.secrets {
        Secrets::Tls => source::SecretScope::AllTls,
        Secrets::Named => {
            let settings = settings(arguments);
            source::SecretScope::Named(Arc::new(move |objects, ingresses| {
                named_secrets(objects, ingresses, &settings)
            }))
        }
    }
}

fn settings(arguments: &RunArgs) -> Settings {
    Settings {
        ingress_class: arguments.ingress_class.clone(),
        also_class: arguments.also_class.clone(),
        watch_without_class: arguments.watch_ingress_without_class,
        default_backend: arguments.default_backend.clone(),
        node: node_name(arguments).ok(),
        now: 0,
    }
}

fn node_name(arguments: &RunArgs) -> anyhow::Result<String> {
    if let Some(name) = &arguments.node_name {
        return Ok(name.clone());
    }
    let name = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    anyhow::ensure!(
        !name.is_empty(),
        "this host has no name: pass --node-name with the name of its Node object"
    );
    Ok(name)
}

fn l4_config(arguments: &RunArgs, node: &str) -> anyhow::Result<l4::Config> {
    anyhow::ensure!(
        !arguments.interface.is_empty(),
        "--interface is needed with --l4 on: name the uplink at which clients' packets arrive (or use --l4 off)"
    );
    let mut config = l4::Config::new(node, arguments.interface.clone(), &arguments.pin_path);
    config.vlans.clone_from(&arguments.vlan);
    config.mode = match arguments.xdp_mode {
        XdpMode::Auto => l4::Mode::Auto,
        XdpMode::Native => l4::Mode::Native,
        XdpMode::Generic => l4::Mode::Generic,
    };
    config.membership.port = arguments.membership_port;
    config.membership.key = arguments.membership_key_file.as_deref().map(membership_key).transpose()?;
    config.membership.gossip_above = arguments.gossip_above;
    anyhow::ensure!(
        arguments.announce_interval >= Duration::from_secs(1),
        "--announce-interval must be 1s or more: each announcement is a broadcast on every uplink"
    );
    config.candidates = usize::from(arguments.candidates);
    config.announce_interval = arguments.announce_interval;
    config.syn_cookies_above = arguments.syn_cookies_above;
    config.bpf_log = arguments.bpf_log;
    Ok(config)
}

fn membership_key(file: &Path) -> anyhow::Result<Key> {
    let bytes = std::fs::read(file)
        .with_context(|| format!("reading the membership key {} (--membership-key-file)", file.display()))?;
    Key::new(&bytes).with_context(|| {
        format!("the membership key {} is shorter than {} bytes", file.display(), Key::MIN_LEN)
    })
}

fn access_log(arguments: &RunArgs, node: &str) -> anyhow::Result<Option<AccessLogConfig>> {
    let target = match &arguments.access_log {
        AccessLogArg::Off => return Ok(None),
        AccessLogArg::Stdout => access_log::Target::Stdout,
        AccessLogArg::File(path) => access_log::Target::File(path.clone()),
    };
    let sink = access_log::start(target).with_context(|| {
        format!("opening the access log (--access-log {:?}): does its directory exist?", arguments.access_log)
    })?;
    let format = match arguments.access_log_format {
        LogFormat::Nginx => Format::Nginx,
        LogFormat::Json => Format::Json,
    };
    Ok(Some(AccessLogConfig { format, node: node.to_owned(), sink }))
}

/// Where spans go, with the exporter started.
#[cfg(feature = "otlp")]
fn tracing(arguments: &RunArgs, node: &str) -> anyhow::Result<Option<TraceConfig>> {
    use crate::observe::otlp;
    let Some(endpoint) = arguments.otlp_endpoint.clone() else { return Ok(None) };
    let resource = otlp::Resource { node: node.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
    let counts = Arc::default();
    let sink = otlp::start(endpoint, resource, Arc::clone(&counts))
        .context("starting the exporter of traces (--otlp-endpoint)")?;
    Ok(Some(TraceConfig { share: arguments.otlp_share, sink, counts }))
}

#[cfg(not(feature = "otlp"))]
#[expect(clippy::unnecessary_wraps, reason = "the same as with the feature")]
fn tracing(_: &RunArgs, _: &str) -> anyhow::Result<Option<TraceConfig>> {
    Ok(None)
}

fn l7_config(arguments: &RunArgs, node: &str) -> anyhow::Result<l7::Config> {
    let ticket_seed = ticket_seed(arguments)?;
    let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    Ok(l7::Config {
        workers: arguments.workers.map_or_else(cores, NonZeroUsize::get),
        http: arguments.http.clone(),
        https: arguments.https.clone(),
        follow_vips: arguments.l4 == Switch::On,
        access_log: access_log(arguments, node)?,
        tracing: tracing(arguments, node)?,
        ticket_seed,
    })
}

/// What session tickets are made of: a secret of their own, or else the one that the nodes share anyway.
fn ticket_seed(arguments: &RunArgs) -> anyhow::Result<Option<Seed>> {
    let (purpose, file, flag) = match (&arguments.ticket_key_file, &arguments.membership_key_file) {
        (Some(file), _) => ("file", file, "--ticket-key-file"),
        (None, Some(file)) => ("membership", file, "--membership-key-file"),
        (None, None) => return Ok(None),
    };
    let secret = std::fs::read(file)
        .with_context(|| format!("reading the key of TLS tickets {} ({flag})", file.display()))?;
    let seed = Seed::derive(purpose, &secret);
    let seed = seed.with_context(|| {
        format!("the key of TLS tickets {} ({flag}) is shorter than {} bytes", file.display(), Seed::MIN_LEN)
    })?;
    Ok(Some(seed))
}

/// Looks now and then whether the operator has put another key of TLS tickets there. Runs for as long as the router.
async fn follow_ticket_key(arguments: &RunArgs, daemon: &Daemon) -> Infallible {
    loop {
        tokio::time::sleep(TICKET_KEY_EVERY).await;
        match ticket_seed(arguments) {
            Ok(Some(seed)) => daemon.set_ticket_seed(seed),
            Ok(None) => {}
            Err(error) => tracing::error!(error = format!("{error:#}"), "the old key of TLS tickets stays"),
        }
    }
}

/// Asked to stop: SIGTERM or SIGINT.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("handling SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("handling SIGINT")?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
