//! Distributed tracing: W3C trace context (w3.org/TR/trace-context) read from requests and written for backends, and at a
//! request's end one span for whoever exports them (`observe::otlp`). Who sends a sampled context is traced; of those who
//! send none, a share. Off the hot path: nothing is done for others, and a span that nobody takes is dropped and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, SystemTime};

use super::access_log::{Finished, Note, Notes, UpstreamPart};
use super::forwarded::RequestIds;
use super::head::{HeadEdits, Headers, RequestHead};

/// The field that carries the context.
const TRACEPARENT: &str = "traceparent";

/// Which requests are traced, and where their spans go.
#[derive(Debug, Clone)]
pub struct TraceConfig {
    /// Share of the requests without a context that are traced, from 0 to 1.
    pub share: f64,
    /// The exporter. Bounded: that bounds the memory, too.
    pub sink: SyncSender<Span>,
    /// What became of the spans.
    pub counts: Arc<SpanCounts>,
}

/// Spans since the daemon started.
#[derive(Debug, Default)]
pub struct SpanCounts {
    /// Taken by the collector.
    pub exported: AtomicU64,
    /// Lost: the exporter was too slow, or the collector did not take them.
    pub dropped: AtomicU64,
}

/// What a request was, at its end.
#[derive(Debug, Clone)]
pub struct Span {
    /// The trace.
    pub trace: [u8; 16],
    /// This span, the parent of the backend's.
    pub id: [u8; 8],
    /// The client's span, if it has one.
    pub parent: Option<[u8; 8]>,
    /// When the request ended.
    pub end: SystemTime,
    /// From the request's head to the end of the answer.
    pub took: Duration,
    /// Method, target and protocol as the client sent them.
    pub line: String,
    /// `Host`
    pub host: String,
    /// `User-Agent`
    pub user_agent: String,
    /// `X-Request-ID` as the backend got it.
    pub request_id: String,
    /// `namespace/name` of the Ingress; empty if none matched.
    pub ingress: String,
    /// `namespace-service-port`
    pub upstream_name: String,
    /// Whose request it was.
    pub client: std::net::IpAddr,
    /// VIP and port.
    pub vip: std::net::SocketAddr,
    /// Whether it came by TLS.
    pub tls: bool,
    /// What the client got.
    pub status: u16,
    /// The endpoint's part, if there was one.
    pub upstream: Option<UpstreamPart>,
}

/// A worker's side.
#[derive(Debug)]
pub struct Tracer {
    config: TraceConfig,
    ids: RequestIds,
}

impl Tracer {
    /// Traces as `config` says.
    pub fn new(config: TraceConfig) -> Self {
        Self { config, ids: RequestIds::new() }
    }

    /// A request begins. If it is traced, the backend gets our span as its parent, and `notes` remember it.
    pub fn begin(&self, head: &RequestHead<'_>, edits: &mut HeadEdits, notes: &mut Notes) {
        let context = Context::of(head.headers);
        match &context {
            Some(context) if !context.sampled => return,
            None if !self.is_chosen() => return,
            _ => {}
        }
        let trace =
            context.as_ref().map_or_else(|| (self.ids.bits() | 1).to_be_bytes(), |context| context.trace);
        let id = (self.ids.bits() as u64 | 1).to_be_bytes();
        let mut value = b"00-".to_vec();
        push_hex(&mut value, &trace);
        value.push(b'-');
        push_hex(&mut value, &id);
        value.extend_from_slice(b"-01");
        edits.edit().set.push((TRACEPARENT.into(), value));
        if context.is_none() {
            // It belongs to a context that we could not read.
            edits.edit().remove.push("tracestate".into());
        }
        let parent = context.as_ref().map_or(&[][..], |context| &context.parent);
        notes.set(Note::Trace, &[&trace, &id, parent]);
    }

    /// A request has ended.
    pub fn end(&self, finished: &Finished<'_>) {
        let Some((trace, rest)) = finished.notes.get(Note::Trace).split_first_chunk::<16>() else { return };
        let Some((id, parent)) = rest.split_first_chunk::<8>() else { return };
        let note = |note| String::from_utf8_lossy(finished.notes.get(note)).into_owned();
        let ingress = match note(Note::Ingress) {
            name if name.is_empty() => name,
            name => format!("{}/{name}", note(Note::Namespace)),
        };
        let span = Span {
            trace: *trace,
            id: *id,
            parent: parent.try_into().ok(),
            end: SystemTime::now(),
            took: finished.took,
            line: note(Note::Line),
            host: note(Note::Host),
            user_agent: note(Note::UserAgent),
            request_id: note(Note::RequestId),
            ingress,
            upstream_name: note(Note::Upstream),
            client: finished.client,
            vip: finished.connection.local,
            tls: finished.connection.tls.is_some(),
            status: finished.status,
            upstream: finished.upstream,
        };
        if self.config.sink.try_send(span).is_err() {
            self.config.counts.dropped.fetch_add(1, Relaxed);
        }
    }

    fn is_chosen(&self) -> bool {
        // Uniform in [0, 1): a share of 0 takes none, of 1 all.
        let draw = (self.ids.bits() as u64 >> 11) as f64 / (1_u64 << 53) as f64;
        draw < self.config.share
    }
}

/// A context that a client sent.
#[derive(Debug, PartialEq, Eq)]
struct Context {
    trace: [u8; 16],
    parent: [u8; 8],
    sampled: bool,
}

impl Context {
    /// Only if there is exactly one and it is valid: otherwise the specification wants a new trace.
    fn of(headers: &dyn Headers) -> Option<Self> {
        match headers.all(TRACEPARENT).as_slice() {
            [value] => Self::parse(value),
            _ => None,
        }
    }

    /// `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`; later versions may have more behind it.
    fn parse(value: &[u8]) -> Option<Self> {
        let (known, rest) = value.split_first_chunk::<55>()?;
        let [version] = hex::<1>(&known[..2])?;
        let is_whole =
            if version == 0 { rest.is_empty() } else { rest.first().is_none_or(|byte| *byte == b'-') };
        let dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        if version == 0xff || !is_whole || !dashes {
            return None;
        }
        let (trace, parent) = (hex::<16>(&known[3..35])?, hex::<8>(&known[36..52])?);
        let [flags] = hex::<1>(&known[53..])?;
        let is_set = trace != [0; 16] && parent != [0; 8];
        is_set.then_some(Self { trace, parent, sampled: flags & 1 == 1 })
    }
}

/// Lower-case hexadecimal digits only, as the specification wants them.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// A byte in hexadecimal digits.
pub(super) fn hex_digits(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

/// Appends bytes as hexadecimal digits.
pub(super) fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        out.extend_from_slice(&hex_digits(*byte));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use http::HeaderMap;

    use super::super::head::ConnectionInfo;
    use super::*;

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn contexts_of_the_specification() {
        let read = Context::parse(SAMPLED.as_bytes()).unwrap();
        assert_eq!((read.trace[0], read.parent[7], read.sampled), (0x4b, 0xb7, true));
        for (value, valid) in [
            (SAMPLED.replace("-01", "-00"), true),
            (SAMPLED.replacen("00-", "cc-", 1) + "-what-comes-later", true),
            (SAMPLED.replacen("00-", "cc-", 1) + ".", false),
            (SAMPLED.to_owned() + "-more", false),
            (SAMPLED.replacen("00-", "ff-", 1), false),
            (SAMPLED.to_uppercase(), false),
            (SAMPLED.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)), false),
            (SAMPLED.replace("00f067aa0ba902b7", &"0".repeat(16)), false),
            (SAMPLED.replacen("4b", "4g", 1), false),
            (SAMPLED[1..].to_owned(), false),
            (SAMPLED.replace('-', "_"), false),
            (String::new(), false),
        ] {
            assert_eq!(Context::parse(value.as_bytes()).is_some(), valid, "{value}");
        }
    }

    /// What `begin` does with these fields: the `traceparent` that the backend gets, and the notes.
    fn begin(tracer: &Tracer, fields: &[(&'static str, &str)]) -> (Option<String>, HeadEdits, Notes) {
        let connection = ConnectionInfo::example();
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let head = RequestHead::example(&connection, &headers);
        let (mut edits, mut notes) = (HeadEdits::default(), Notes::default());
        tracer.begin(&head, &mut edits, &mut notes);
        let sent = edits.get().and_then(|edits| edits.set.first().cloned());
        (sent.map(|(_, value)| String::from_utf8(value).unwrap()), edits, notes)
    }

    fn tracer(share: f64, room: usize) -> (Tracer, std::sync::mpsc::Receiver<Span>) {
        let (sink, spans) = sync_channel(room);
        (Tracer::new(TraceConfig { share, sink, counts: Arc::default() }), spans)
    }

    #[test]
    fn a_sampled_context_is_continued_and_an_unsampled_one_left_alone() {
        let (none, _spans) = tracer(0.0, 1);
        let (sent, edits, notes) = begin(&none, &[("traceparent", SAMPLED), ("tracestate", "a=b")]);
        let sent = sent.unwrap();
        assert_eq!((&sent[..36], &sent[52..]), (&SAMPLED[..36], "-01"));
        assert_ne!(sent[36..52], SAMPLED[36..52], "our span is the backend's parent");
        assert!(edits.get().unwrap().remove.is_empty());
        assert_eq!(notes.get(Note::Trace).len(), 32);

        let (all, _spans) = tracer(1.0, 1);
        let unsampled = SAMPLED.replace("-01", "-00");
        assert!(begin(&all, &[("traceparent", &unsampled)]).1.get().is_none());
        // No context, a broken one, two of them: a new trace.
        for fields in
            [vec![], vec![("traceparent", "x")], vec![("traceparent", SAMPLED), ("traceparent", SAMPLED)]]
        {
            let (sent, edits, notes) = begin(&all, &fields);
            assert_ne!(sent.unwrap()[..36], SAMPLED[..36]);
            assert_eq!((edits.get().unwrap().remove.len(), notes.get(Note::Trace).len()), (1, 24));
        }
        assert!(begin(&none, &[]).1.get().is_none());
    }

    #[test]
    fn a_share_is_traced() {
        let (some, _spans) = tracer(0.25, 1);
        let chosen = (0..10_000).filter(|_| some.is_chosen()).count();
        assert!((2_000..3_000).contains(&chosen), "{chosen}");
    }

    #[test]
    fn what_the_exporter_cannot_take_is_dropped_and_counted() {
        let (tracer, spans) = tracer(1.0, 1);
        let (sent, _, notes) = begin(&tracer, &[("traceparent", SAMPLED)]);
        let connection = ConnectionInfo::example();
        let mut finished = Finished::example(&connection, &notes);
        tracer.end(&finished);
        tracer.end(&finished);
        assert_eq!(tracer.config.counts.dropped.load(Relaxed), 1);
        let span = spans.recv().unwrap();
        let mut id = Vec::new();
        push_hex(&mut id, &span.id);
        assert_eq!(String::from_utf8(id).unwrap(), sent.unwrap()[36..52]);
        assert_eq!(span.parent.unwrap()[7], 0xb7);
        // A request that is not traced.
        let none = Notes::default();
        finished.notes = &none;
        tracer.end(&finished);
        assert!(spans.try_recv().is_err());
    }
}
