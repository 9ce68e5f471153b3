//! What `xdp-ingress status` shows and `/metrics` counts: one picture of the daemon at one moment, as plain data that
//! goes over the control socket as JSON. Field names are an interface: add, don't rename.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::changes::Changes;
use crate::l7::stats::Buckets;
use crate::l7::stats::native::NativeBuckets;
use crate::{l7, model};

/// The daemon at one moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Its version.
    pub version: String,
    /// Its node.
    pub node: String,
    /// Where its objects come from: `kubernetes` or `dir:PATH`.
    pub source: String,
    /// Starting, serving or draining.
    pub state: State,
    /// Why `/readyz` fails, if it does.
    pub not_ready: Option<String>,
    /// Seconds since the daemon started.
    pub uptime_seconds: u64,
    /// What is served.
    pub snapshot: SnapshotStatus,
    /// What is wrong with the objects.
    pub problems: Vec<ProblemStatus>,
    /// The XDP front; `None` with `--l4 off`.
    pub l4: Option<crate::l4::Status>,
    /// The router.
    pub l7: RouterStatus,
}

/// What the daemon does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It has not seen all objects yet.
    Starting,
    /// It takes new connections.
    Serving,
    /// It takes no new connections.
    Draining,
}

/// Size and age of the snapshot that is served.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SnapshotStatus {
    /// Counts the changes since the daemon started.
    pub generation: u64,
    /// Seconds since the last change.
    pub age_seconds: u64,
    /// Ingresses that are served.
    pub ingresses: usize,
    /// Hosts with rules.
    pub hosts: usize,
    /// Backends.
    pub clusters: usize,
    /// Endpoints behind them.
    pub endpoints: usize,
    /// Certificates, with the end of their validity.
    pub certificates: Vec<CertificateStatus>,
    /// Seconds that the last change took from the source to the data plane.
    pub last_change_seconds: f64,
    /// How long all changes took.
    #[serde(default)]
    pub changes: Changes,
}

/// One certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// `namespace/name` of its Secret.
    pub secret: String,
    /// `notAfter`, seconds since 1970.
    pub not_after: i64,
}

/// One problem.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of `model::Problem`")]
pub struct ProblemStatus {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub field: String,
    pub reason: String,
    pub message: String,
    pub hint: String,
}

/// The router's counters since the daemon started.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RouterStatus {
    /// Client connections open now.
    pub open_connections: u64,
    /// Client connections accepted.
    pub accepted_connections: u64,
    /// Bytes of requests from clients, without TLS.
    pub received_bytes: u64,
    /// Bytes of answers to clients, without TLS.
    pub sent_bytes: u64,
    /// TLS handshakes that failed.
    pub failed_handshakes: u64,
    /// Connections made to endpoints.
    pub upstream_connections: u64,
    /// Connections to endpoints that could not be made.
    pub failed_upstream_connections: u64,
    /// Requests that an endpoint did not answer properly or in time.
    pub failed_upstream_requests: u64,
    /// Requests that were sent again on another connection.
    pub retried_requests: u64,
    /// Lines of the access log that were lost because its writer was too slow.
    #[serde(default)]
    pub dropped_log_lines: u64,
    /// Spans that the collector took.
    #[serde(default)]
    pub exported_spans: u64,
    /// Spans that were lost: the collector was away or too slow.
    #[serde(default)]
    pub dropped_spans: u64,
    /// Answered requests by Ingress (`namespace/name`; empty: none) and class of status.
    pub requests: Vec<RequestCount>,
}

/// Answered requests of one Ingress.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RequestCount {
    /// `namespace/name`; empty for requests that no Ingress matched, and for Ingresses beyond the first 4,095.
    pub ingress: String,
    /// By class of status: 1xx, 2xx, 3xx, 4xx, 5xx.
    pub by_class: [u64; 5],
    /// By latency, one for each of `l7::stats::LATENCY_BOUNDS` (not cumulative) and one for the rest.
    #[serde(default)]
    pub latency: Buckets<u64>,
    /// The same in finer buckets; for `/metrics` only.
    #[serde(skip)]
    pub fine_latency: NativeBuckets,
    /// The sum of the latencies, in seconds.
    #[serde(default)]
    pub latency_seconds: f64,
    /// Bytes of the requests.
    #[serde(default)]
    pub received_bytes: u64,
    /// Bytes of the answers' bodies.
    #[serde(default)]
    pub sent_bytes: u64,
    /// What the endpoints answered, by class of status.
    #[serde(default)]
    pub upstream_by_class: [u64; 5],
    /// Requests that went to endpoints and got no answer there.
    #[serde(default)]
    pub upstream_unanswered: u64,
    /// Times of the endpoints, as in `latency`.
    #[serde(default)]
    pub upstream_latency: Buckets<u64>,
    /// The sum of these times, in seconds.
    #[serde(default)]
    pub upstream_seconds: f64,
}

impl From<&model::Problem> for ProblemStatus {
    fn from(problem: &model::Problem) -> Self {
        Self {
            kind: problem.object.kind.to_string(),
            namespace: problem.object.namespace.clone(),
            name: problem.object.name.clone(),
            field: problem.field.clone(),
            reason: problem.reason.to_string(),
            message: problem.message.clone(),
            hint: problem.hint.clone(),
        }
    }
}

impl From<l7::Report> for RouterStatus {
    fn from(report: l7::Report) -> Self {
        let totals = report.totals;
        let names: BTreeMap<_, _> = report.ingresses.iter().map(|(ingress, slot)| (*slot, ingress)).collect();
        let requests = totals.by_ingress.into_iter().map(|(slot, totals)| RequestCount {
            ingress: names.get(&slot).map(|i| format!("{}/{}", i.namespace, i.name)).unwrap_or_default(),
            by_class: totals.by_class,
            latency: totals.latency,
            fine_latency: totals.fine,
            latency_seconds: totals.latency_micros as f64 / 1e6,
            received_bytes: totals.received,
            sent_bytes: totals.sent,
            upstream_by_class: totals.upstream_by_class,
            upstream_unanswered: totals.upstream_unanswered,
            upstream_latency: totals.upstream_latency,
            upstream_seconds: totals.upstream_micros as f64 / 1e6,
        });
        Self {
            open_connections: totals.open,
            accepted_connections: totals.accepted,
            received_bytes: totals.bytes_in,
            sent_bytes: totals.bytes_out,
            failed_handshakes: totals.tls_failed,
            upstream_connections: totals.connected,
            failed_upstream_connections: totals.connect_failed,
            failed_upstream_requests: totals.upstream_failed,
            retried_requests: totals.retried,
            dropped_log_lines: totals.log_dropped,
            exported_spans: totals.spans_exported,
            dropped_spans: totals.spans_dropped,
            requests: requests.collect(),
        }
    }
}

impl SnapshotStatus {
    /// Counts what a snapshot holds; the ages are the caller's.
    pub fn of(snapshot: &model::Snapshot) -> Self {
        Self {
            ingresses: snapshot.ingresses.len(),
            hosts: snapshot.routes.hosts.len(),
            clusters: snapshot.clusters.len(),
            endpoints: snapshot.clusters.values().map(|cluster| cluster.endpoints.len()).sum(),
            certificates: snapshot
                .certificates
                .iter()
                .map(|certificate| CertificateStatus {
                    secret: format!("{}/{}", certificate.source.namespace, certificate.source.name),
                    not_after: certificate.not_after,
                })
                .collect(),
            ..Self::default()
        }
    }
}
