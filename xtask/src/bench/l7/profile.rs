//! Where the time of a row goes that misses its target: `perf` samples ours and the better of the peers under the row's own
//! load, and what each system call cost, and what was left for user space, is told in microseconds a request.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use ingress_tests::paths;

use super::ROUND;
use super::load::Load;
use super::proxies::Proxy;
use crate::{process, report};

/// Shares below are not told, in percent.
const TELLING: f64 = 1.0;
/// All system calls; what is not below is user space's.
const SYSTEM: &str = "do_syscall_64";
/// System calls whose own function jumps to another one, which is all that is left on the stack.
const JUMPING: [(&str, &str); 2] = [("do_writev", "writev"), ("do_readv", "readv")];
/// The kernel's name of `epoll_wait`'s sleep.
const SLEEP: &str = "schedule_hrtimeout_range_clock";

/// Tells it for each of `proxies`, which spend `cost` microseconds a request. A profile that cannot be had is said and no more:
/// the row was measured.
pub(super) fn tell(load: Load, proxies: [(&Proxy, f64); 2]) {
    for (proxy, cost) in proxies {
        match shares(load, proxy) {
            Ok(shares) => report::note(&format!("  {}: {}", proxy.name, told(&shares, cost))),
            Err(error) => report::note(&format!("  {}: no profile: {error:#}", proxy.name)),
        }
    }
}

/// Percent of the samples in each function of the kernel and in what it calls.
fn shares(load: Load, proxy: &Proxy) -> Result<BTreeMap<String, f64>> {
    let file = paths::xtask_dir().join("bench/perf.data");
    let pids: Vec<_> = proxy.server.processes().iter().map(u32::to_string).collect();
    let mut perf = Command::new("perf")
        .args(["record", "--quiet", "--event=cpu-clock", "--freq=1999", "-g", "--pid", &pids.join(","), "-o"])
        .arg(&file)
        .arg("--")
        .args(["sleep", &ROUND.as_secs().to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run perf (Debian package linux-perf)")?;
    let done = load.put(proxy, ROUND);
    let recorded = perf.wait()?;
    done?;
    ensure!(recorded.success(), "perf record failed ({recorded}); is kernel.perf_event_paranoid too strict?");
    let mut perf = Command::new("perf");
    perf.args(["report", "--stdio", "--children", "-g", "none", "--sort=symbol", "-i"]).arg(&file);
    Ok(parse(&process::output(&mut perf)?))
}

/// Of lines like `  58.67%     0.13%  [k] __x64_sys_sendto` the first and the last column.
fn parse(report: &str) -> BTreeMap<String, f64> {
    let line = |line: &str| {
        let (share, rest) = line.trim().split_once('%')?;
        let (_, function) = rest.split_once("[k] ")?;
        Some((function.split_whitespace().next()?.to_owned(), share.parse().ok()?))
    };
    report.lines().filter_map(line).collect()
}

fn told(shares: &BTreeMap<String, f64>, cost: f64) -> String {
    let micros = |share: f64| share / 100.0 * cost;
    let of = |name: &str| shares.get(name).copied().unwrap_or_default();
    let mut text = format!("{:.1} µs in user space", micros(100.0 - of(SYSTEM)));
    let mut calls: Vec<_> = shares
        .iter()
        .filter_map(|(function, share)| Some((system_call(function)?, *share)))
        .filter(|(_, share)| *share >= TELLING)
        .collect();
    calls.sort_by(|one, other| other.1.total_cmp(&one.1));
    let mut asleep = Some(micros(of(SLEEP)));
    for (call, share) in calls {
        // Writing to a String cannot fail.
        let _ = write!(text, ", {:.1} {call}", micros(share));
        if call.starts_with("epoll")
            && let Some(asleep) = asleep.take()
        {
            let _ = write!(text, " (falling asleep and waking up: {asleep:.1})");
        }
    }
    text
}

fn system_call(function: &str) -> Option<&str> {
    let jumped = || JUMPING.iter().find(|(to, _)| *to == function).map(|(_, call)| *call);
    function.strip_prefix("__x64_sys_").or_else(jumped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_perf_says_becomes_microseconds() {
        let report = "# Samples: 9\n    86.60%     1.82%  [k] do_syscall_64\n    58.67%     0.13%  [k] do_writev\n    \
                      15.96%     0.30%  [k] __x64_sys_epoll_wait\n     9.71%     0.04%  [k] schedule_hrtimeout_range_clock\n     \
                      0.50%     0.04%  [k] __x64_sys_close\n    60.00%     0.65%  [.] Link::send\n";
        assert_eq!(
            told(&parse(report), 10.0),
            "1.3 µs in user space, 5.9 writev, 1.6 epoll_wait (falling asleep and waking up: 1.0)"
        );
    }
}
