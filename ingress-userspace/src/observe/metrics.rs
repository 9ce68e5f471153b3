//! All metrics, as OpenMetrics text, made from a [`Status`] when they are asked for: the data plane keeps plain
//! counters and knows nothing of metrics. Every name stands in this file; every label is bounded.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::status::{State, Status};
use crate::l4;
use crate::l7::stats::{Buckets, LATENCY_BOUNDS};

/// Renders all metrics.
pub fn render(status: Status) -> String {
    let mut registry = Registry::with_prefix("xdp_ingress");
    registry.register_collector(Box::new(Scrape(status)));
    let mut text = String::new();
    // Writing into a String cannot fail; an encoder's own error would be a bug, seen as a cut-off scrape.
    if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &registry) {
        tracing::error!(%error, "metrics: encoding failed");
    }
    text
}

#[derive(Debug)]
struct Scrape(Status);

type Labels<'a> = [(&'a str, &'a str)];

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Self(status) = self;
        let mut out = Out(&mut encoder);
        daemon(&mut out, status)?;
        router(&mut out, status)?;
        if let Some(l4) = &status.l4 {
            front(&mut out, l4)?;
        }
        Ok(())
    }
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
        snapshot.changes.by_scope().map(|(scope, of)| (("scope", scope), of.times, of.seconds)),
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
    let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
    let requests =
        l7.requests.iter().flat_map(|count| {
            classes.iter().zip(count.by_class).filter(|(_, requests)| *requests > 0).map(
                |(class, requests)| ([("ingress", count.ingress.as_str()), ("status", *class)], requests),
            )
        });
    out.counter("requests", "Answered requests by Ingress and class of status", requests)?;
    out.counter(
        "access_log_dropped_lines",
        "Lines of the access log that were lost because its writer was too slow",
        [(NONE, l7.dropped_log_lines)],
    )?;
    let received =
        l7.requests.iter().map(|count| ([("ingress", count.ingress.as_str())], count.received_bytes));
    out.counter("request_bytes", "Bytes of requests by Ingress, heads included", received)?;
    let sent = l7.requests.iter().map(|count| ([("ingress", count.ingress.as_str())], count.sent_bytes));
    out.counter("response_bytes", "Bytes of answers' bodies by Ingress", sent)?;
    let durations =
        l7.requests.iter().map(|of| (("ingress", of.ingress.as_str()), of.latency, of.latency_seconds));
    out.histogram("request_duration_seconds", "From a request's head to the end of its answer", durations)
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

/// No labels.
const NONE: &Labels<'static> = &[];

/// Shortens what the encoder wants.
struct Out<'a, 'e>(&'a mut DescriptorEncoder<'e>);

impl Out<'_, '_> {
    fn counter<L: AsLabels>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            let labels = labels.as_labels();
            if labels.is_empty() {
                family.encode_counter::<LabelSet<'_>, u64, u64>(&value, None)?;
            } else {
                ConstCounter::new(value).encode(family.encode_family(&LabelSet(labels))?)?;
            }
        }
        Ok(())
    }

    /// Classic histograms: of each its label, the counts by `LATENCY_BOUNDS` and the sum in seconds.
    fn histogram<'a>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = ((&'a str, &'a str), Buckets<u64>, f64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        let bounds = || LATENCY_BOUNDS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
        for (label, counts, seconds) in values {
            let buckets: Vec<(f64, u64)> = bounds().zip(counts).collect();
            family.encode_family(&LabelSet(&[label]))?.encode_histogram::<LabelSet<'_>>(
                seconds,
                counts.iter().sum(),
                &buckets,
                None,
            )?;
        }
        Ok(())
    }

    fn gauge<L: AsLabels>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            let labels = labels.as_labels();
            if labels.is_empty() {
                family.encode_gauge(&value)?;
            } else {
                ConstGauge::new(value).encode(family.encode_family(&LabelSet(labels))?)?;
            }
        }
        Ok(())
    }
}

/// Arrays and slices of label pairs.
trait AsLabels {
    fn as_labels(&self) -> &Labels<'_>;
}

impl AsLabels for &Labels<'_> {
    fn as_labels(&self) -> &Labels<'_> {
        self
    }
}

impl<const N: usize> AsLabels for [(&str, &str); N] {
    fn as_labels(&self) -> &Labels<'_> {
        self
    }
}

#[derive(Debug)]
struct LabelSet<'a>(&'a Labels<'a>);

impl EncodeLabelSet for LabelSet<'_> {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelSetEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::status::{RequestCount, RouterStatus, SnapshotStatus};

    #[test]
    fn renders_openmetrics() {
        let text = render(Status {
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
                    latency_seconds: 12.5,
                    ..RequestCount::default()
                }],
                ..RouterStatus::default()
            },
        });
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
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        assert!(!text.contains("3xx"), "zeroes are left out\n{text}");
    }
}
