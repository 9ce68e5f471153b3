//! All metrics, as OpenMetrics text or in Prometheus' binary format, made from a [`Status`] when they are asked for: the
//! data plane keeps plain counters and knows nothing of metrics. Every name stands in this file; every label is bounded.

mod model;
mod native;
mod out;

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;

use super::exposition::Exposition;
use super::status::{State, Status};
use crate::l4;
use out::{Distribution, Labels, NONE, Out, PREFIX};

/// Renders all metrics in the format that was asked for.
pub fn render(status: Status, exposition: Exposition) -> Vec<u8> {
    // Writing into memory cannot fail; an encoder's own error would be a bug, seen as a cut-off scrape.
    let told = |error| tracing::error!(%error, "metrics: encoding failed");
    match exposition {
        Exposition::Text => {
            let mut registry = Registry::with_prefix(PREFIX);
            registry.register_collector(Box::new(Scrape(status)));
            let mut out = String::new();
            text::encode(&mut out, &registry).unwrap_or_else(told);
            out.into_bytes()
        }
        Exposition::Protobuf => {
            let mut out = Vec::new();
            all(&mut Out::Protobuf(&mut out), &status).unwrap_or_else(told);
            out
        }
    }
}

#[derive(Debug)]
struct Scrape(Status);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        all(&mut Out::Text(&mut encoder), &self.0)
    }
}

fn all(out: &mut Out<'_, '_>, status: &Status) -> fmt::Result {
    daemon(out, status)?;
    router(out, status)?;
    status.l4.as_ref().map_or(Ok(()), |l4| front(out, l4))
}

fn daemon(out: &mut Out<'_, '_>, status: &Status) -> fmt::Result {
    let snapshot = &status.snapshot;
    let build: &Labels<'_> = &[("version", &status.version)];
    out.gauge("build_info", "Version of the daemon", [(build, 1.0)])?;
    let ready = f64::from(u8::from(status.not_ready.is_none()));
    out.gauge("ready", "1 if this node may get traffic", [(NONE, ready)])?;
    let draining = f64::from(u8::from(status.state == State::Draining));
    out.gauge("draining", "1 if this node takes no new connections", [(NONE, draining)])?;
    out.counter("snapshot_changes", "Snapshots that went live", [(NONE, snapshot.generation)])?;
    out.gauge(
        "last_change_seconds",
        "Time that the last change took from the source to the data plane",
        [(NONE, snapshot.last_change_seconds)],
    )?;
    out.histogram(
        "change_duration_seconds",
        "From when the source heard of a change until it was live, by what had to be translated",
        snapshot.changes.by_scope().map(|(scope, of)| Distribution {
            label: ("scope", scope),
            counts: of.times,
            fine: None,
            seconds: of.seconds,
        }),
    )?;
    let kinds = [
        ("ingress", snapshot.ingresses),
        ("host", snapshot.hosts),
        ("cluster", snapshot.clusters),
        ("endpoint", snapshot.endpoints),
    ];
    out.gauge(
        "snapshot_objects",
        "What is served, by kind",
        kinds.each_ref().map(|(kind, count)| ([("kind", *kind)], *count as f64)),
    )?;
    let mut reasons: Vec<(&str, f64)> = Vec::new();
    for problem in &status.problems {
        match reasons.iter_mut().find(|(reason, _)| *reason == problem.reason) {
            Some((_, count)) => *count += 1.0,
            None => reasons.push((&problem.reason, 1.0)),
        }
    }
    out.gauge(
        "problems",
        "Problems with objects now, by reason",
        reasons.into_iter().map(|(reason, count)| ([("reason", reason)], count)),
    )?;
    out.gauge(
        "certificate_not_after_seconds",
        "End of validity of each certificate, seconds since 1970",
        snapshot.certificates.iter().map(|c| ([("secret", c.secret.as_str())], c.not_after as f64)),
    )
}

fn router(out: &mut Out<'_, '_>, status: &Status) -> fmt::Result {
    let l7 = &status.l7;
    out.gauge("connections", "Client connections open now", [(NONE, l7.open_connections as f64)])?;
    out.counter("connections_accepted", "Client connections", [(NONE, l7.accepted_connections)])?;
    out.counter("received_bytes", "Bytes of requests, without TLS", [(NONE, l7.received_bytes)])?;
    out.counter("sent_bytes", "Bytes of answers, without TLS", [(NONE, l7.sent_bytes)])?;
    out.counter("tls_handshakes_failed", "TLS handshakes that failed", [(NONE, l7.failed_handshakes)])?;
    out.counter("upstream_connections", "Connections made to endpoints", [(NONE, l7.upstream_connections)])?;
    out.counter(
        "upstream_connections_failed",
        "Connections to endpoints that could not be made",
        [(NONE, l7.failed_upstream_connections)],
    )?;
    out.counter(
        "upstream_requests_failed",
        "Requests that an endpoint did not answer properly or in time",
        [(NONE, l7.failed_upstream_requests)],
    )?;
    out.counter(
        "requests_retried",
        "Requests sent again on another connection",
        [(NONE, l7.retried_requests)],
    )?;
    let requests = l7.requests.iter().flat_map(|of| by_status(&of.ingress, of.by_class));
    out.counter("requests", "Answered requests by Ingress and class of status", requests)?;
    out.counter(
        "access_log_dropped_lines",
        "Lines of the access log that were lost because its writer was too slow",
        [(NONE, l7.dropped_log_lines)],
    )?;
    out.counter("spans_exported", "Spans that the OTLP collector took", [(NONE, l7.exported_spans)])?;
    out.counter(
        "spans_dropped",
        "Spans that were lost because the OTLP collector was away or too slow",
        [(NONE, l7.dropped_spans)],
    )?;
    let received =
        l7.requests.iter().map(|count| ([("ingress", count.ingress.as_str())], count.received_bytes));
    out.counter("request_bytes", "Bytes of requests by Ingress, heads included", received)?;
    let sent = l7.requests.iter().map(|count| ([("ingress", count.ingress.as_str())], count.sent_bytes));
    out.counter("response_bytes", "Bytes of answers' bodies by Ingress", sent)?;
    let durations = l7.requests.iter().map(|of| Distribution {
        label: ("ingress", of.ingress.as_str()),
        counts: of.latency,
        fine: Some(&of.fine_latency),
        seconds: of.latency_seconds,
    });
    out.histogram("request_duration_seconds", "From a request's head to the end of its answer", durations)?;
    let answers = l7.requests.iter().flat_map(|of| {
        let none = ([("ingress", of.ingress.as_str()), ("status", "none")], of.upstream_unanswered);
        by_status(&of.ingress, of.upstream_by_class).chain((none.1 > 0).then_some(none))
    });
    out.counter(
        "upstream_responses",
        "Endpoints' answers by Ingress and class of status; `none`: there was none",
        answers,
    )?;
    let durations = l7.requests.iter().map(|of| Distribution {
        label: ("ingress", of.ingress.as_str()),
        counts: of.upstream_latency,
        fine: None,
        seconds: of.upstream_seconds,
    });
    out.histogram(
        "upstream_duration_seconds",
        "From a request to an endpoint to the end of its answer",
        durations,
    )
}

/// Counts that are not zero, with their labels.
fn by_status(ingress: &str, by_class: [u64; 5]) -> impl Iterator<Item = ([(&'static str, &str); 2], u64)> {
    let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(by_class);
    classes
        .filter(|(_, count)| *count > 0)
        .map(move |(class, count)| ([("ingress", ingress), ("status", class)], count))
}

fn front(out: &mut Out<'_, '_>, l4: &l4::Status) -> fmt::Result {
    out.counter(
        "verdicts",
        "Packets by reason of the XDP program's verdict",
        l4.reasons.iter().map(|(reason, packets)| ([("reason", reason.as_str())], *packets)),
    )?;
    let vips: Vec<(String, l4::Totals)> =
        l4.vips.iter().map(|vip| (vip.address.to_string(), vip.totals)).collect();
    totals(out, "vip", "arrived for the VIP", &vips)?;
    let nodes: Vec<(String, l4::Totals)> =
        l4.nodes.iter().map(|node| (node.name.clone(), node.totals)).collect();
    totals(out, "node", "went to the node", &nodes)?;
    out.gauge(
        "node_serving",
        "1 if the node takes new flows, seen from here",
        l4.nodes.iter().map(|node| {
            ([("node", node.name.as_str())], f64::from(u8::from(node.state == l4::Standing::Serving)))
        }),
    )?;
    membership(out, l4)?;
    let findings = &l4.findings;
    let claimed: Vec<String> = findings.conflicts.iter().map(|conflict| conflict.vip.to_string()).collect();
    out.gauge(
        "vip_conflict",
        "1 while another host answers for a VIP that this node owns",
        findings
            .conflicts
            .iter()
            .zip(&claimed)
            .map(|(conflict, vip)| ([("vip", vip.as_str()), ("mac", conflict.mac.as_str())], 1.0)),
    )?;
    out.counter("vip_claims", "Answers of others for VIPs that this node owns", [(NONE, findings.claims)])?;
    out.counter("vip_takeovers", "VIPs that this node got from another one", [(NONE, findings.takeovers)])?;
    out.gauge(
        "vip_takeover_seconds",
        "How long the last of these took, from when this node knew until its program answered",
        [(NONE, findings.last_takeover_us as f64 / 1e6)],
    )?;
    out.gauge(
        "vip_owned",
        "1 if this node answers ARP and neighbour discovery for the VIP",
        l4.vips.iter().zip(&vips).map(|(vip, (address, _))| {
            ([("vip", address.as_str())], f64::from(u8::from(vip.owner.as_deref() == Some(&l4.node))))
        }),
    )
}

fn membership(out: &mut Out<'_, '_>, l4: &l4::Status) -> fmt::Result {
    let mut states: BTreeMap<String, f64> = BTreeMap::new();
    for node in &l4.nodes {
        *states.entry(node.state.to_string()).or_default() += 1.0;
    }
    out.gauge(
        "nodes",
        "Nodes by state, seen from here, this one included",
        states.iter().map(|(state, count)| ([("state", state.as_str())], *count)),
    )?;
    let of = &l4.membership;
    out.gauge(
        "membership_suspects",
        "Peers that are up and suspected to be dead",
        [(NONE, of.suspects as f64)],
    )?;
    out.gauge(
        "membership_peers_by_link",
        "Peers that are heard on the link only: what they send by UDP does not arrive",
        [(NONE, of.by_link as f64)],
    )?;
    out.counter("membership_peers_lost", "How often a peer that was up went down", [(NONE, of.lost)])?;
    let messages = [
        ([("kind", "heartbeat"), ("direction", "sent")], of.beats_sent),
        ([("kind", "heartbeat"), ("direction", "received")], of.beats_received),
        ([("kind", "gossip"), ("direction", "sent")], of.gossip_sent),
        ([("kind", "gossip"), ("direction", "received")], of.gossip_received),
    ];
    out.counter("membership_messages", "Datagrams between the nodes", messages)?;
    out.counter(
        "membership_messages_refused",
        "Datagrams that were no peer's: another key, or an address that is not the sender's",
        [(NONE, of.refused)],
    )
}

fn totals(out: &mut Out<'_, '_>, label: &str, what: &str, rows: &[(String, l4::Totals)]) -> fmt::Result {
    type Field = fn(&l4::Totals) -> u64;
    let fields: [(&str, &str, Field); 3] = [
        ("packets", "Packets that", |t| t.packets),
        ("bytes", "Bytes that", |t| t.bytes),
        ("flows", "New flows that", |t| t.flows),
    ];
    for (unit, subject, field) in fields {
        let name = format!("{label}_{unit}");
        let values = rows.iter().map(|(value, totals)| ([(label, value.as_str())], field(totals)));
        out.counter(&name, &format!("{subject} {what}"), values)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prost::Message as _;

    use super::*;
    use crate::l7::stats::LATENCY_BOUNDS;
    use crate::l7::stats::native::NativeBuckets;
    use crate::observe::status::{RequestCount, RouterStatus, SnapshotStatus};

    fn status() -> Status {
        Status {
            version: "1.2.3".to_owned(),
            node: "n".to_owned(),
            source: "kubernetes".to_owned(),
            state: State::Serving,
            not_ready: None,
            uptime_seconds: 1,
            snapshot: SnapshotStatus { generation: 7, ..SnapshotStatus::default() },
            problems: Vec::new(),
            l4: None,
            l7: RouterStatus {
                requests: vec![RequestCount {
                    ingress: "a/b\"c".to_owned(),
                    by_class: [0, 5, 0, 1, 0],
                    latency: [4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
                    fine_latency: NativeBuckets { zero: 1, positive: vec![(-80, 3), (-79, 1), (30, 1)] },
                    latency_seconds: 12.5,
                    upstream_by_class: [0, 4, 0, 0, 0],
                    upstream_unanswered: 1,
                    upstream_latency: [4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                    upstream_seconds: 1.5,
                    ..RequestCount::default()
                }],
                ..RouterStatus::default()
            },
        }
    }

    #[test]
    fn renders_openmetrics() {
        let text = String::from_utf8(render(status(), Exposition::Text)).unwrap();
        for line in [
            "xdp_ingress_build_info{version=\"1.2.3\"} 1.0",
            "xdp_ingress_ready 1.0",
            "xdp_ingress_snapshot_changes_total 7",
            "xdp_ingress_change_duration_seconds_count{scope=\"endpoints\"} 0",
            "xdp_ingress_requests_total{ingress=\"a/b\\\"c\",status=\"2xx\"} 5",
            "xdp_ingress_requests_total{ingress=\"a/b\\\"c\",status=\"4xx\"} 1",
            "xdp_ingress_request_duration_seconds_sum{ingress=\"a/b\\\"c\"} 12.5",
            "xdp_ingress_request_duration_seconds_bucket{le=\"0.005\",ingress=\"a/b\\\"c\"} 5",
            "xdp_ingress_request_duration_seconds_bucket{le=\"+Inf\",ingress=\"a/b\\\"c\"} 6",
            "xdp_ingress_upstream_responses_total{ingress=\"a/b\\\"c\",status=\"2xx\"} 4",
            "xdp_ingress_upstream_responses_total{ingress=\"a/b\\\"c\",status=\"none\"} 1",
            "xdp_ingress_upstream_duration_seconds_sum{ingress=\"a/b\\\"c\"} 1.5",
            "xdp_ingress_upstream_duration_seconds_bucket{le=\"0.001\",ingress=\"a/b\\\"c\"} 4",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        assert!(!text.contains("3xx"), "zeroes are left out\n{text}");
    }

    #[test]
    fn renders_native_histograms_in_prometheus_format() {
        let bytes = render(status(), Exposition::Protobuf);
        let mut rest = bytes.as_slice();
        let mut first = BTreeMap::new();
        while !rest.is_empty() {
            let family = model::MetricFamily::decode_length_delimited(&mut rest).unwrap();
            first.extend(family.metrics.into_iter().next().map(|metric| (family.name, metric)));
        }
        let value = |value| Some(model::Number { value });
        assert_eq!(first["xdp_ingress_requests_total"].counter, value(5.0));
        assert_eq!(first["xdp_ingress_ready"].gauge, value(1.0));

        let histogram = first["xdp_ingress_request_duration_seconds"].histogram.as_ref().unwrap();
        assert_eq!((histogram.count, histogram.sum.to_bits()), (6, 12.5_f64.to_bits()));
        assert_eq!(histogram.buckets.len(), LATENCY_BOUNDS.len() + 1, "the classic ones are there, too");
        let native = model::Histogram { count: 0, sum: 0.0, buckets: Vec::new(), ..histogram.clone() };
        let zero_threshold = 0.000_030_517_578_125_f64.to_le_bytes();
        let mut wanted = vec![5 << 3, 6, 6 << 3 | 1];
        wanted.extend(zero_threshold);
        // Signed numbers are zigzag: 3 is 6, -80 is 159, 108 is 216 (two bytes), -2 is 3.
        wanted.extend([7 << 3, 1, 12 << 3 | 2, 5, 8, 159, 1, 16, 2]);
        wanted.extend([12 << 3 | 2, 5, 8, 216, 1, 16, 1, 13 << 3 | 2, 3, 6, 3, 0]);
        assert_eq!(native.encode_to_vec(), wanted, "as metrics.proto has it");

        let changes = first["xdp_ingress_change_duration_seconds"].histogram.as_ref().unwrap();
        assert_eq!(changes.schema, None, "only requests are counted in fine buckets");
    }
}
