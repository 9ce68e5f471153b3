//! `xdp-ingress top`: what the XDP front does per second, live in a terminal, or once as a table for scripts. Asks the
//! daemon for its status again and again; `rates` turns two answers into a rate.

mod rates;
mod screen;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use http::Method;

use super::client::{self, DaemonArgs};
use crate::observe::status::Status;

/// VIPs and nodes on the screen, so that the drops below them are in sight.
const ON_SCREEN: usize = 8;

/// `xdp-ingress top`.
#[derive(Debug, Clone, Args)]
pub struct TopArgs {
    #[command(flatten)]
    daemon: DaemonArgs,
    /// Time between two looks, in seconds.
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS")]
    interval: f64,
    /// Print one table over one interval and end.
    #[arg(long)]
    once: bool,
}

/// Shows it until `q`, Escape or Ctrl-C; with `--once`, one table.
pub fn top(arguments: &TopArgs) -> anyhow::Result<()> {
    let interval = Duration::try_from_secs_f64(arguments.interval)
        .ok()
        .filter(|interval| (Duration::from_millis(100)..=Duration::from_mins(1)).contains(interval))
        .context("--interval must be from 0.1 to 60 seconds")?;
    let look = || -> anyhow::Result<(Instant, Status)> {
        let body = client::ask(&arguments.daemon, Method::GET, "/status")?;
        let status =
            serde_json::from_str(&body).context("the daemon's answer is not what this version expects")?;
        Ok((Instant::now(), status))
    };
    let mut before = look()?;
    if arguments.once {
        std::thread::sleep(interval);
        let now = look()?;
        super::say(rates::render(&before.1, &now.1, now.0 - before.0, usize::MAX).trim_end());
        return Ok(());
    }
    let mut screen = screen::Screen::open().context("top needs a terminal; use --once in scripts")?;
    screen.show("asking the daemon …")?;
    while !screen::end_is_wanted(interval)? {
        let now = look()?;
        screen.show(&rates::render(&before.1, &now.1, now.0 - before.0, ON_SCREEN))?;
        before = now;
    }
    Ok(())
}
