//! Exports spans by OTLP (opentelemetry.io/docs/specs/otlp): binary messages over HTTP/1.1 to a collector, in batches, on a
//! thread of its own. Workers never wait for it: their queue is bounded, and a batch that the collector does not take is
//! dropped and counted. Without TLS: a collector runs on the node or in the cluster.

mod model;

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use prost::Message as _;

use crate::l7::trace::{Span, SpanCounts};

/// Spans that may wait for a slow collector: some MiB.
const WAITING: usize = 8192;
/// Spans in one message.
const BATCH: usize = 512;
/// How long the first span of a message waits for others.
const LINGER: Duration = Duration::from_secs(1);
/// How long the collector may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer that is read.
const MAX_ANSWER: usize = 64 * 1024;
/// How often a failure is told.
const COMPLAIN_EVERY: Duration = Duration::from_mins(1);

/// `http://HOST:PORT[/PATH]`, as `OTEL_EXPORTER_OTLP_ENDPOINT` has it: `/v1/traces` is appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    authority: String,
    path: String,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: http::Uri = text.parse().map_err(|error| format!("`{text}` is no URL: {error}"))?;
        let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(format!(
                "`{text}` is not of the form http://HOST:PORT (OTLP over HTTP, without TLS)"
            ));
        };
        if authority.host().is_empty() || uri.query().is_some() {
            return Err(format!("`{text}` has no host, or a query"));
        }
        let port = authority.port_u16().unwrap_or(80);
        let path = format!("{}/v1/traces", uri.path().trim_end_matches('/'));
        Ok(Self { authority: format!("{}:{port}", authority.host()), path })
    }
}

/// Who we are: attributes of all spans.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Name of this node.
    pub node: String,
    /// Version of the daemon.
    pub version: String,
}

/// Starts the exporter. It ends when the last worker has dropped its sender.
pub fn start(
    endpoint: Endpoint,
    resource: Resource,
    counts: Arc<SpanCounts>,
) -> anyhow::Result<SyncSender<Span>> {
    let (sink, spans) = sync_channel(WAITING);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("otlp".to_owned()).spawn(move || {
        let mut told: Option<Instant> = None;
        while let Some(batch) = next_batch(&spans) {
            let message = message(&batch, &resource).encode_to_vec();
            let sent = runtime.block_on(async {
                let post = tokio::time::timeout(PATIENCE, post(&endpoint, message));
                post.await.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {PATIENCE:?}")))
            });
            let count = batch.len() as u64;
            match sent {
                Ok(()) => counts.exported.fetch_add(count, Relaxed),
                Err(error) => {
                    if told.is_none_or(|told| told.elapsed() >= COMPLAIN_EVERY) {
                        told = Some(Instant::now());
                        let (error, collector) = (format!("{error:#}"), &endpoint.authority);
                        tracing::warn!(
                            collector,
                            error,
                            "spans are lost: is the collector of --otlp-endpoint there?"
                        );
                    }
                    counts.dropped.fetch_add(count, Relaxed)
                }
            };
        }
    })?;
    Ok(sink)
}

/// Waits for spans; `None` at the end.
fn next_batch(spans: &Receiver<Span>) -> Option<Vec<Span>> {
    let mut batch = vec![spans.recv().ok()?];
    let end = Instant::now() + LINGER;
    while batch.len() < BATCH {
        match spans.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(span) => batch.push(span),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    Some(batch)
}

/// A connection for each message: they are a second apart, and none is lost to one that has gone stale.
async fn post(endpoint: &Endpoint, message: Vec<u8>) -> anyhow::Result<()> {
    let stream = tokio::net::TcpStream::connect(&endpoint.authority).await.context("connecting")?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::post(&endpoint.path)
        .header(header::HOST, &endpoint.authority)
        .header(header::CONTENT_TYPE, "application/x-protobuf")
        .header(header::CONNECTION, "close")
        .body(Full::new(Bytes::from(message)))?;
    let answer = sender.send_request(request).await.context("asking")?;
    let status = answer.status();
    // Read to its end, so that the collector does not see a broken connection.
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    drop(body.map_err(|error| anyhow::anyhow!("reading the answer: {error}"))?);
    ensure!(status.is_success(), "it answered {status}");
    Ok(())
}

fn message(spans: &[Span], resource: &Resource) -> model::ExportTraceServiceRequest {
    let Resource { node, version } = resource;
    let of_all = [
        ("service.name", "xdp-ingress"),
        ("service.version", version),
        ("service.instance.id", node),
        ("k8s.node.name", node),
    ];
    let resource = model::Resource { attributes: of_all.map(|(key, value)| text(key, value)).into() };
    let scope = model::InstrumentationScope { name: "xdp-ingress".into(), version: version.clone() };
    let scope_spans = model::ScopeSpans { scope: Some(scope), spans: spans.iter().map(encode).collect() };
    let resource_spans = model::ResourceSpans { resource: Some(resource), scope_spans: vec![scope_spans] };
    model::ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
}

/// `Span`, with attributes by the semantic conventions of HTTP; what only we know has names of our own.
fn encode(span: &Span) -> model::Span {
    let mut parts = span.line.split(' ');
    let (method, target, protocol) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let texts = [
        ("http.request.method", method),
        ("url.scheme", if span.tls { "https" } else { "http" }),
        ("url.path", path),
        ("url.query", query),
        ("network.protocol.version", protocol.strip_prefix("HTTP/").unwrap_or_default()),
        ("server.address", &span.host),
        ("client.address", &span.client.to_string()),
        ("user_agent.original", &span.user_agent),
        ("xdp_ingress.vip", &span.vip.to_string()),
        ("xdp_ingress.ingress", &span.ingress),
        ("xdp_ingress.upstream.name", &span.upstream_name),
        ("xdp_ingress.request_id", &span.request_id),
    ];
    let is_told = |(_, value): &(&str, &str)| !value.is_empty();
    let mut attributes: Vec<_> =
        texts.into_iter().filter(is_told).map(|(key, value)| text(key, value)).collect();
    attributes.push(integer("http.response.status_code", span.status));
    if let Some(upstream) = &span.upstream {
        attributes.extend([
            text("xdp_ingress.upstream.address", &upstream.endpoint.to_string()),
            integer("xdp_ingress.upstream.status_code", upstream.status),
            seconds("xdp_ingress.upstream.connect_time", upstream.connect),
            seconds("xdp_ingress.upstream.response_time", upstream.response),
        ]);
        attributes.extend(upstream.header.map(|time| seconds("xdp_ingress.upstream.header_time", time)));
    }
    let end = nanoseconds(span.end.duration_since(UNIX_EPOCH).unwrap_or_default());
    model::Span {
        trace_id: span.trace.into(),
        span_id: span.id.into(),
        parent_span_id: span.parent.map(Vec::from).unwrap_or_default(),
        name: if span.ingress.is_empty() { method.to_owned() } else { format!("{method} {}", span.ingress) },
        kind: model::SpanKind::Server.into(),
        start_time_unix_nano: end.saturating_sub(nanoseconds(span.took)),
        end_time_unix_nano: end,
        attributes,
        status: (span.status >= 500).then(|| model::Status { code: model::StatusCode::Error.into() }),
    }
}

fn text(key: &str, value: &str) -> model::KeyValue {
    attribute(key, model::Value::Text(value.to_owned()))
}

fn integer(key: &str, value: u16) -> model::KeyValue {
    attribute(key, model::Value::Integer(value.into()))
}

fn seconds(key: &str, value: Duration) -> model::KeyValue {
    attribute(key, model::Value::Float(value.as_secs_f64()))
}

fn attribute(key: &str, value: model::Value) -> model::KeyValue {
    model::KeyValue { key: key.to_owned(), value: Some(model::AnyValue { value: Some(value) }) }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
