//! Exports spans by OTLP (opentelemetry.io/docs/specs/otlp): binary messages over HTTP/1.1 to a collector, in batches, on a
//! thread of its own. Workers never wait for it: their queue is bounded, and a batch that the collector does not take is
//! dropped and counted. Without TLS: a collector runs on the node or in the cluster.

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

use super::protobuf::Message;
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
            let message = message(&batch, &resource).into_bytes();
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

/// `ExportTraceServiceRequest`; the numbers are those of opentelemetry-proto's trace.proto, resource.proto and
/// common.proto.
fn message(spans: &[Span], resource: &Resource) -> Message {
    let mut attributes = Attributes::default();
    attributes.text(1, "service.name", "xdp-ingress");
    attributes.text(1, "service.version", &resource.version);
    attributes.text(1, "service.instance.id", &resource.node);
    attributes.text(1, "k8s.node.name", &resource.node);
    let mut scope = Message::default();
    scope.bytes(1, "xdp-ingress").bytes(2, &resource.version);
    let mut scope_spans = Message::default();
    scope_spans.message(1, &scope);
    for span in spans {
        scope_spans.message(2, &encode(span));
    }
    let mut resource_spans = Message::default();
    resource_spans.message(1, &attributes.0).message(2, &scope_spans);
    let mut request = Message::default();
    request.message(1, &resource_spans);
    request
}

/// `Span`, with attributes by the semantic conventions of HTTP; what only we know has names of our own.
fn encode(span: &Span) -> Message {
    const SERVER: u64 = 2;
    const ERROR: u64 = 2;
    let mut parts = span.line.split(' ');
    let (method, target, protocol) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let end = nanoseconds(span.end.duration_since(UNIX_EPOCH).unwrap_or_default());
    let mut out = Attributes::default();
    out.0.bytes(1, span.trace).bytes(2, span.id);
    if let Some(parent) = span.parent {
        out.0.bytes(4, parent);
    }
    out.0.bytes(
        5,
        if span.ingress.is_empty() { method.to_owned() } else { format!("{method} {}", span.ingress) },
    );
    out.0.uint(6, SERVER).fixed64(7, end.saturating_sub(nanoseconds(span.took))).fixed64(8, end);
    for (key, value) in [
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
    ] {
        out.text(9, key, value);
    }
    out.number(9, "http.response.status_code", span.status.into());
    if let Some(upstream) = &span.upstream {
        out.text(9, "xdp_ingress.upstream.address", &upstream.endpoint.to_string());
        out.number(9, "xdp_ingress.upstream.status_code", upstream.status.into());
        out.seconds(9, "xdp_ingress.upstream.connect_time", upstream.connect);
        out.seconds(9, "xdp_ingress.upstream.response_time", upstream.response);
        if let Some(headed) = upstream.header {
            out.seconds(9, "xdp_ingress.upstream.header_time", headed);
        }
    }
    if span.status >= 500 {
        let mut status = Message::default();
        status.uint(3, ERROR);
        out.0.message(15, &status);
    }
    out.0
}

/// A message that has attributes.
#[derive(Default)]
struct Attributes(Message);

impl Attributes {
    /// Adds one to the message's field `field`, unless it is empty.
    fn text(&mut self, field: u32, key: &str, value: &str) {
        if !value.is_empty() {
            self.add(field, key, |any| any.bytes(1, value));
        }
    }

    fn number(&mut self, field: u32, key: &str, value: u64) {
        self.add(field, key, |any| any.uint(3, value));
    }

    fn seconds(&mut self, field: u32, key: &str, value: Duration) {
        self.add(field, key, |any| any.double(4, value.as_secs_f64()));
    }

    /// `KeyValue` with an `AnyValue`.
    fn add(&mut self, field: u32, key: &str, fill: impl FnOnce(&mut Message) -> &mut Message) {
        let mut any = Message::default();
        fill(&mut any);
        let mut pair = Message::default();
        pair.bytes(1, key).message(2, &any);
        self.0.message(field, &pair);
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
