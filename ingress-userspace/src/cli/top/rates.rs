//! Two looks at the daemon as rates. Pure: text out, for the screen and for scripts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use ingress_common::steer::Reason;

use crate::cli::table::{Table, bytes};
use crate::l4::{self, Totals};
use crate::observe::status::Status;

/// What happened between `before` and `now`, `elapsed` apart. Of VIPs and nodes the `most` busiest, and how many more there are.
pub(super) fn render(before: &Status, now: &Status, elapsed: Duration, most: usize) -> String {
    let per_second = |old, new| rate(old, new, elapsed);
    let mut text = String::new();
    let state = format!("{:?}", now.state).to_lowercase();
    let requests = |status: &Status| -> u64 { status.l7.requests.iter().flat_map(|r| r.by_class).sum() };
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "node {}, {state}; router: {} connections open, {:.0} requests/s, {} problems",
        now.node,
        now.l7.open_connections,
        per_second(requests(before), requests(now)),
        now.problems.len(),
    );
    match (&before.l4, &now.l4) {
        (Some(before), Some(now)) => front(&mut text, before, now, elapsed, most),
        (None, Some(_)) => text.push_str("XDP front: starting\n"),
        (_, None) => text.push_str("XDP front: off (--l4 off)\n"),
    }
    text
}

/// Counters only grow, but a restart with other maps begins at 0.
fn rate(old: u64, new: u64, elapsed: Duration) -> f64 {
    new.saturating_sub(old) as f64 / elapsed.as_secs_f64()
}

/// What was counted in between.
fn between(old: Totals, new: Totals) -> Totals {
    Totals {
        packets: new.packets.saturating_sub(old.packets),
        bytes: new.bytes.saturating_sub(old.bytes),
        flows: new.flows.saturating_sub(old.flows),
    }
}

/// The busiest `most` of `rows` in `table`, and how many more there are.
fn busiest<const N: usize>(
    text: &mut String,
    mut table: Table<N>,
    mut rows: Vec<(u64, [String; N])>,
    most: usize,
) {
    // Equally busy ones stay in their order.
    rows.sort_by_key(|(packets, _)| std::cmp::Reverse(*packets));
    let more = rows.len().saturating_sub(most);
    for (_, row) in rows.into_iter().take(most) {
        table.row(row);
    }
    table.print(text);
    if more > 0 {
        let _ = writeln!(text, "… and {more} more");
    }
}

fn front(text: &mut String, before: &l4::Status, now: &l4::Status, elapsed: Duration, most: usize) {
    let per_second = |old, new| rate(old, new, elapsed);
    let whole_per_second =
        |count: u64| (u128::from(count) * 1_000_000_000 / elapsed.as_nanos().max(1)) as u64;
    let cells = |rate: Totals| {
        [
            format!("{:.0}", per_second(0, rate.packets)),
            format!("{}/s", bytes(whole_per_second(rate.bytes))),
            format!("{:.0}", per_second(0, rate.flows)),
        ]
    };
    let is_drop = |name: &str| Reason::ALL.iter().any(|reason| reason.name() == name && reason.is_drop());
    let old: BTreeMap<_, _> = before.vips.iter().map(|vip| (vip.address, vip.totals)).collect();
    let (mut rows, mut sum) = (Vec::new(), Totals::default());
    for vip in &now.vips {
        let rate = between(old.get(&vip.address).copied().unwrap_or_default(), vip.totals);
        sum = Totals {
            packets: sum.packets + rate.packets,
            bytes: sum.bytes + rate.bytes,
            flows: sum.flows + rate.flows,
        };
        let [packets, bytes, flows] = cells(rate);
        let owner = vip.owner.clone().unwrap_or_else(|| "nobody".to_owned());
        rows.push((rate.packets, [vip.address.to_string(), owner, packets, bytes, flows]));
    }
    let dropped = |status: &l4::Status| -> u64 {
        status.reasons.iter().filter(|(reason, _)| is_drop(reason)).map(|(_, packets)| packets).sum()
    };
    let [packets, bytes, flows] = cells(sum);
    let _ = writeln!(
        text,
        "XDP front: {packets} packets/s, {bytes}, {flows} new flows/s for VIPs; {:.0} packets/s dropped",
        per_second(dropped(before), dropped(now))
    );
    busiest(text, Table::new(["VIP", "OWNER", "PACKETS/S", "BYTES", "NEW FLOWS/S"]), rows, most);
    let old: BTreeMap<_, _> = before.nodes.iter().map(|node| (&node.name, node.totals)).collect();
    let mut rows = Vec::new();
    for node in &now.nodes {
        let rate = between(old.get(&node.name).copied().unwrap_or_default(), node.totals);
        let [packets, bytes, flows] = cells(rate);
        let name = if node.is_self { format!("{} (here)", node.name) } else { node.name.clone() };
        rows.push((rate.packets, [name, node.state.to_string(), packets, bytes, flows]));
    }
    busiest(text, Table::new(["NODE", "STATE", "PACKETS/S TO IT", "BYTES", "NEW FLOWS/S"]), rows, most);
    for (heading, wanted) in [("DROPPED", true), ("VERDICT", false)] {
        let mut table = Table::new([heading, "PACKETS/S", "SINCE THE START"]);
        for (reason, packets) in now.reasons.iter().filter(|(reason, _)| is_drop(reason) == wanted) {
            let old = before.reasons.get(reason).copied().unwrap_or(0);
            table.row([reason.clone(), format!("{:.0}", per_second(old, *packets)), packets.to_string()]);
        }
        table.print(text);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::render;
    use crate::l4::{Standing, Totals};
    use crate::observe::status::Status;

    fn status(packets: u64, dropped: u64) -> Status {
        let totals = |packets: u64| Totals { packets, bytes: packets * 1024, flows: packets / 10 };
        let text = serde_json::json!({
            "version": "1", "node": "n1", "source": "kubernetes", "state": "serving", "not_ready": null,
            "uptime_seconds": 1, "snapshot": crate::observe::status::SnapshotStatus::default(), "problems": [],
            "l7": crate::observe::status::RouterStatus::default(),
            "l4": {
                "node": "n1", "draining": false, "generation": 1, "applied_at_ms": null, "took_us": 0,
                "interfaces": [], "problem": null,
                "nodes": [
                    {"name": "n1", "is_self": true, "state": Standing::Serving, "weight": 1, "way": null,
                     "packets": packets, "bytes": totals(packets).bytes, "flows": totals(packets).flows},
                ],
                "vips": [
                    {"address": "192.0.2.1:80", "owner": "n1",
                     "packets": packets, "bytes": totals(packets).bytes, "flows": totals(packets).flows},
                ],
                "reasons": {"drop_walk_budget": dropped, "local_new": packets},
            },
        });
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn rates_are_differences_per_second() {
        let text = render(&status(1000, 5), &status(3000, 45), Duration::from_secs(2), usize::MAX);
        for line in [
            "XDP front: 1000 packets/s, 1000.0 KiB/s, 100 new flows/s for VIPs; 20 packets/s dropped",
            "192.0.2.1:80  n1     1000       1000.0 KiB/s  100",
            "n1 (here)  serving  1000             1000.0 KiB/s  100",
            "drop_walk_budget  20         45",
            "local_new  1000       3000",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n---\n{text}");
        }
        assert!(text.find("DROPPED").unwrap() < text.find("VERDICT").unwrap());
    }

    #[test]
    fn the_busiest_come_first_and_the_rest_is_counted() {
        let with = |counts: [u64; 3]| {
            let mut status = status(0, 0);
            let front = status.l4.as_mut().unwrap();
            let vip = |(number, packets): (u8, u64)| {
                let address = std::net::SocketAddr::from(([192, 0, 2, number], 80));
                crate::l4::VipStatus { address, owner: None, totals: Totals { packets, ..Totals::default() } }
            };
            front.vips = (1..).zip(counts).map(vip).collect();
            status
        };
        let text = render(&with([0, 0, 0]), &with([5, 90, 7]), Duration::from_secs(1), 2);
        let vips: Vec<_> = text.lines().filter(|line| line.starts_with("192.0.2.")).collect();
        assert!(
            vips.len() == 2 && vips[0].starts_with("192.0.2.2:80") && vips[1].starts_with("192.0.2.3:80"),
            "{text}"
        );
        assert!(text.contains("… and 1 more"), "{text}");
    }

    #[test]
    fn counters_that_start_anew_are_no_negative_rate() {
        let text = render(&status(3000, 0), &status(10, 0), Duration::from_secs(1), usize::MAX);
        assert!(text.lines().any(|l| l.starts_with("192.0.2.1:80  n1     0 ")), "{text}");
    }
}
