//! The command line: one file per verb. Arguments are parsed once, here, and handed on as plain configuration.

pub mod check;
pub mod cleanup;
pub mod client;
pub mod config;
pub mod drain;
pub mod run;
pub mod status;
mod table;
pub mod top;
pub mod why;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};

/// Load balancer and ingress controller for Kubernetes on bare metal, in one `DaemonSet`.
#[derive(Debug, Parser)]
#[command(name = "xdp-ingress", version, propagate_version = true, max_term_width = 110)]
pub struct Cli {
    /// Which messages to log: `info`, `debug`, or per module (`xdp_ingress::l7=debug`). Logs go to standard error.
    #[arg(long, global = true, env = "XDP_INGRESS_LOG", default_value = "info")]
    log: String,
    /// How log lines look.
    #[arg(long, global = true, env = "XDP_INGRESS_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the daemon on this node.
    Run(Box<config::RunArgs>),
    /// Read manifests offline and print what is wrong with them; exit status 1 if anything is.
    Check {
        /// Files or directories of YAML or JSON manifests.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// How to print.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Show what the running daemon knows and does.
    Status {
        #[command(flatten)]
        daemon: client::DaemonArgs,
        /// How to print.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Take no new connections on this node; the established ones stay.
    Drain {
        #[command(flatten)]
        daemon: client::DaemonArgs,
    },
    /// Take new connections again.
    Undrain {
        #[command(flatten)]
        daemon: client::DaemonArgs,
    },
    /// Watch the packets: VIPs, nodes, new flows and drops per second. `q` ends it.
    Top(top::TopArgs),
    /// Ask this node's XDP front what it would do with a packet, and why.
    Why(why::WhyArgs),
    /// Take xdp-ingress off this node: programs, pinned maps, VIPs on lo. Stop the daemon first.
    Cleanup(cleanup::CleanupArgs),
    /// Print the version.
    Version,
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// How a verb prints its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Parses the process's arguments, does what they say and returns the exit status: 0 done, 1 failed or problems
/// found, 2 wrong usage (clap's).
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    init_log(&cli.log, cli.log_format);
    let result = match cli.verb {
        Verb::Run(arguments) => run::run(&arguments).map(|()| ExitCode::SUCCESS),
        Verb::Check { paths, output } => {
            check::check(&paths, output).map(|good| if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Verb::Status { daemon, output } => status::status(&daemon, output).map(|()| ExitCode::SUCCESS),
        Verb::Drain { daemon } => drain::drain(&daemon, true).map(|()| ExitCode::SUCCESS),
        Verb::Undrain { daemon } => drain::drain(&daemon, false).map(|()| ExitCode::SUCCESS),
        Verb::Top(arguments) => top::top(&arguments).map(|()| ExitCode::SUCCESS),
        Verb::Why(arguments) => why::why(&arguments).map(|()| ExitCode::SUCCESS),
        Verb::Cleanup(arguments) => cleanup::cleanup(&arguments).map(|()| ExitCode::SUCCESS),
        Verb::Version => {
            say(&format!("xdp-ingress {}", env!("CARGO_PKG_VERSION")));
            Ok(ExitCode::SUCCESS)
        }
        Verb::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "xdp-ingress", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("xdp-ingress: {error:#}");
        ExitCode::FAILURE
    })
}

/// Prints a line on standard output. A closed pipe (`xdp-ingress status | head`) ends the process quietly.
fn say(line: &str) {
    use std::io::Write as _;
    if writeln!(std::io::stdout(), "{line}").is_err() {
        std::process::exit(0);
    }
}

fn init_log(filter: &str, format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::builder()
        .parse(filter)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}
