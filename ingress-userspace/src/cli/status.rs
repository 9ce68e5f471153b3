//! `xdp-ingress status`: the daemon's picture as tables, or as it came (JSON).

use std::fmt::Write as _;

use anyhow::Context as _;
use http::Method;

use super::Output;
use super::client::{self, DaemonArgs};
use super::table::{Table, bytes};
use crate::l4;
use crate::observe::status::{ProblemStatus, RouterStatus, Status};

/// Prints what the daemon knows and does.
pub fn status(daemon: &DaemonArgs, output: Output) -> anyhow::Result<()> {
    let body = client::ask(daemon, Method::GET, "/status")?;
    match output {
        Output::Json => super::say(&body),
        Output::Table => {
            let status = serde_json::from_str(&body).context(
                "the daemon's answer is not what this version expects; `-o json` shows it as it is",
            )?;
            super::say(render(&status).trim_end());
        }
    }
    Ok(())
}

fn render(status: &Status) -> String {
    let mut text = String::new();
    let state = format!("{:?}", status.state).to_lowercase();
    let ready = status.not_ready.as_ref().map_or_else(String::new, |why| format!(", not ready: {why}"));
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "node {}, xdp-ingress {}, {state}{ready}, up {} s, objects from {}",
        status.node, status.version, status.uptime_seconds, status.source
    );
    let snapshot = &status.snapshot;
    let _ = writeln!(
        text,
        "{} Ingresses, {} hosts, {} backends with {} endpoints, {} certificates; change {} live since {} s, took {:.1} ms",
        snapshot.ingresses,
        snapshot.hosts,
        snapshot.clusters,
        snapshot.endpoints,
        snapshot.certificates.len(),
        snapshot.generation,
        snapshot.age_seconds,
        snapshot.last_change_seconds * 1e3,
    );
    match &status.l4 {
        Some(l4) => front(&mut text, l4),
        None => text.push_str("XDP front: off (--l4 off)\n"),
    }
    router(&mut text, &status.l7);
    problems(&mut text, &status.problems);
    text
}

fn front(text: &mut String, l4: &l4::Status) {
    if let Some(problem) = &l4.problem {
        let _ = writeln!(text, "\nXDP front: {problem}");
    }
    let mut table = Table::new(["INTERFACE", "XDP MODE", "WHY"]);
    for attachment in &l4.interfaces {
        let why = attachment.reason.clone().unwrap_or_default();
        table.row([attachment.interface.clone(), attachment.mode.to_string(), why]);
    }
    table.print(text);
    let mut table = Table::new(["VIP", "OWNER", "PACKETS HERE", "BYTES", "NEW FLOWS"]);
    for vip in &l4.vips {
        let owner = vip.owner.clone().unwrap_or_else(|| "nobody".to_owned());
        let totals = vip.totals;
        table.row([
            vip.address.to_string(),
            owner,
            totals.packets.to_string(),
            bytes(totals.bytes),
            totals.flows.to_string(),
        ]);
    }
    table.print(text);
    let mut table = Table::new(["NODE", "STATE", "WEIGHT", "VIA", "PACKETS TO IT", "NEW FLOWS"]);
    for node in &l4.nodes {
        let via = match (&node.way, node.is_self) {
            (_, true) => "this node".to_owned(),
            (Some(way), false) => way.to_string(),
            (None, false) => "no way yet".to_owned(),
        };
        table.row([
            node.name.clone(),
            node.state.to_string(),
            node.weight.to_string(),
            via,
            node.totals.packets.to_string(),
            node.totals.flows.to_string(),
        ]);
    }
    table.print(text);
    let mut table = Table::new(["VERDICT", "PACKETS"]);
    for (reason, packets) in &l4.reasons {
        table.row([reason.clone(), packets.to_string()]);
    }
    table.print(text);
}

fn router(text: &mut String, l7: &RouterStatus) {
    let _ = writeln!(
        text,
        "\nrouter: {} connections open, {} accepted, {} in, {} out; to endpoints: {} connections, {} failed; {} requests \
         failed there, {} retried; {} TLS handshakes failed",
        l7.open_connections,
        l7.accepted_connections,
        bytes(l7.received_bytes),
        bytes(l7.sent_bytes),
        l7.upstream_connections,
        l7.failed_upstream_connections,
        l7.failed_upstream_requests,
        l7.retried_requests,
        l7.failed_handshakes,
    );
    let mut table = Table::new(["INGRESS", "1XX", "2XX", "3XX", "4XX", "5XX"]);
    for count in &l7.requests {
        let name = if count.ingress.is_empty() { "(none)" } else { &count.ingress };
        let [informed, good, redirected, refused, failed] =
            count.by_class.map(|requests| requests.to_string());
        table.row([name.to_owned(), informed, good, redirected, refused, failed]);
    }
    table.print(text);
}

fn problems(text: &mut String, problems: &[ProblemStatus]) {
    if problems.is_empty() {
        text.push_str("\nno problems\n");
        return;
    }
    let _ = writeln!(text, "\nproblems: {}", problems.len());
    for problem in problems {
        let name = if problem.namespace.is_empty() {
            problem.name.clone()
        } else {
            format!("{}/{}", problem.namespace, problem.name)
        };
        let _ = writeln!(
            text,
            "  {} {name}: {}: {} ({})",
            problem.kind, problem.field, problem.message, problem.hint
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::status::{RequestCount, SnapshotStatus, State};

    #[test]
    fn renders_for_people() {
        let status = Status {
            version: "1.2.3".to_owned(),
            node: "n1".to_owned(),
            source: "kubernetes".to_owned(),
            state: State::Draining,
            not_ready: Some("draining".to_owned()),
            uptime_seconds: 5,
            snapshot: SnapshotStatus {
                generation: 3,
                last_change_seconds: 0.0012,
                ..SnapshotStatus::default()
            },
            problems: vec![ProblemStatus {
                kind: "Ingress".to_owned(),
                namespace: "a".to_owned(),
                name: "b".to_owned(),
                field: "spec.rules[0]".to_owned(),
                reason: "NotFound".to_owned(),
                message: "m".to_owned(),
                hint: "h".to_owned(),
            }],
            l4: None,
            l7: RouterStatus {
                requests: vec![RequestCount { by_class: [0, 0, 0, 12, 0], ..RequestCount::default() }],
                ..RouterStatus::default()
            },
        };
        let text = render(&status);
        for line in [
            "node n1, xdp-ingress 1.2.3, draining, not ready: draining, up 5 s, objects from kubernetes",
            "INGRESS  1XX  2XX  3XX  4XX  5XX",
            "(none)   0    0    0    12   0",
            "  Ingress a/b: spec.rules[0]: m (h)",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n---\n{text}");
        }
    }
}
