//! From a client's bytes to a request under way: reads until a head is complete, checks it, asks `decide`, and writes
//! the head for the endpoint. Called by `core` for connections that wait for a request.

use std::borrow::Cow;
use std::net::{IpAddr, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::access_log::{Finished, Note, Notes};
use super::super::answer::Answer;
use super::super::decide::{Decision, decide};
use super::super::forwarded::SentId;
use super::super::head::{ConnectionInfo, HeadEdits, RequestHead, normalise_path, parse_authority};
use super::super::origin::Origin;
use super::super::proxy_protocol;
use super::super::stats::IngressSlot;
use super::body::Body;
use super::chunked::Direction;
use super::config::Patience;
use super::connection::Phase;
use super::core::{Core, Next, client_token};
use super::error::Refusal;
use super::finish::Reply;
use super::link::Received;
use super::request::{Framing, ParsedRequest, Progress, TargetForm};
use super::slots::Id;
use super::syntax::may_have_ended;
use super::write::{self, ParsedHeaders};

/// RFC 9113 section 3.4: how a client with prior knowledge of HTTP/2 begins.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Core {
    /// Reads until a head is there.
    pub(super) fn receive(&mut self, id: Id) -> Next {
        let may_read = self.may_read();
        let Some(client) = self.clients.get_mut(id) else { return Next::Close };
        if client.link.flush().is_err() {
            return Next::Close;
        }
        if client.link.has_unsent() {
            // The next request waits until the client has taken the last answer.
            return Next::Wait;
        }
        let before = client.pending.len();
        let mut have = before;
        self.scratch[..before].copy_from_slice(&client.pending);
        if client.looked_at == before {
            if client.link.has_ended() {
                return Next::Close;
            }
            if !client.link.is_readable() {
                return Next::Wait;
            }
            if !may_read {
                return Next::Yield;
            }
            match client.link.receive(&mut self.scratch[before..]) {
                Received::Data(count) => have += count,
                Received::Nothing => return Next::Wait,
                Received::End | Received::Broken => return Next::Close,
            }
            self.worker.stats.bytes_in.add((have - before) as u64);
        }
        if client.awaits_proxy {
            return self.proxy_header(id, before, have);
        }
        let bytes = &self.scratch[..have];
        if client.is_new && !client.link.is_tls() && bytes.starts_with(b"PRI") {
            if bytes.starts_with(HTTP2_PREFACE) {
                return self.hand_over(id, have);
            }
            if HTTP2_PREFACE.starts_with(bytes) {
                return self.wait_for_more(id, before, have);
            }
        }
        let limits = &self.config.limits;
        if client.looked_at > 0 && have < limits.bytes && !may_have_ended(bytes, client.looked_at) {
            return self.wait_for_more(id, before, have);
        }
        match self.request.parse(bytes, limits) {
            Ok(Progress::Partial) => self.wait_for_more(id, before, have),
            Ok(Progress::Complete) => {
                // Both are borrowed for the whole of it; without them nothing else can be parsed meanwhile.
                let scratch = std::mem::take(&mut self.scratch);
                let request = std::mem::take(&mut self.request);
                let next = self.begin(id, &scratch[..have], &request);
                self.scratch = scratch;
                self.request = request;
                next
            }
            Err(refusal) => self.refuse(id, refusal),
        }
    }

    /// What a trusted proxy says of the connection comes first.
    fn proxy_header(&mut self, id: Id, before: usize, have: usize) -> Next {
        let Some(client) = self.clients.get_mut(id) else { return Next::Close };
        match proxy_protocol::parse(&self.scratch[..have]) {
            Ok(None) => self.wait_for_more(id, before, have),
            Ok(Some(header)) => {
                client.awaits_proxy = false;
                client.info = Rc::new(ConnectionInfo::clone(&client.info).proxied(&header));
                client.keep(&self.scratch[header.length..have]);
                Next::Again
            }
            Err(error) => {
                self.worker.proxy_header_failed(&client.info, &error);
                Next::Close
            }
        }
    }

    fn wait_for_more(&mut self, id: Id, before: usize, have: usize) -> Next {
        let Some(client) = self.clients.get_mut(id) else { return Next::Close };
        if client.looked_at == 0 {
            self.wheel.set(&mut client.timer, client_token(id), self.timeouts.head);
        }
        client.pending.extend_from_slice(&self.scratch[before..have]);
        client.looked_at = have;
        Next::Again
    }

    fn hand_over(&mut self, id: Id, have: usize) -> Next {
        if let Some(client) = self.give_away(id) {
            let read = Bytes::copy_from_slice(&self.scratch[..have]);
            self.worker.http2(TcpStream::from(client.link.into_fd()), read, client.info);
        }
        Next::Wait
    }

    /// Answers a message that must not be passed on, and ends the connection.
    pub(super) fn refuse(&mut self, id: Id, refusal: Refusal) -> Next {
        let answer = Answer { status: refusal.status(), ..Answer::bad_request(refusal.to_string()) };
        tracing::debug!(reason = %refusal, "request refused");
        self.answered(id, &answer, IngressSlot::OTHER, 0, None);
        self.reply(id, &answer, Reply::refusal())
    }

    /// Counts and logs a request that we answer without having asked an endpoint; `received` bytes of it have come.
    /// `from`: whose it is, if that is known.
    fn answered(
        &mut self,
        id: Id,
        answer: &Answer,
        ingress: IngressSlot,
        received: u64,
        from: Option<IpAddr>,
    ) {
        if let Some(client) = self.clients.get(id) {
            self.worker.finished(&Finished {
                connection: &client.info,
                client: from.unwrap_or(client.info.client.ip()),
                ingress,
                status: answer.status,
                received,
                sent: answer.body().len() as u64,
                took: Duration::ZERO,
                upstream: None,
                notes: &self.notes,
            });
        }
        self.notes.clear();
    }

    /// Begins the exchange for a complete head at the start of `bytes`.
    fn begin(&mut self, id: Id, bytes: &[u8], parsed: &ParsedRequest) -> Next {
        let Some(client) = self.clients.get_mut(id) else { return Next::Close };
        client.is_new = false;
        let mut rest = &bytes[parsed.length..];
        let mut upload = Body::new(parsed.framing, Direction::Request);
        // What of the body came with the head.
        let Ok((taken, early)) = upload.take_measured(rest) else { return self.refuse(id, Refusal::Chunk) };
        let early_body;
        (early_body, rest) = rest.split_at(taken);
        client.keep(rest);
        let info = Rc::clone(&client.info);
        let head = match request_head(bytes, parsed) {
            Ok(target) => target,
            Err(reason) => {
                let answer = Answer::bad_request(reason);
                self.notes.set(Note::Line, &[parsed.line(bytes)]);
                self.answered(id, &answer, IngressSlot::OTHER, parsed.length as u64, None);
                return self.reply(id, &answer, Reply::refusal());
            }
        };
        let headers = ParsedHeaders { buffer: bytes, request: parsed };
        let live = self.worker.live();
        let origin = Origin::of(&info, live.downstream_at(info.local.ip()), &headers);
        let head = RequestHead {
            method: head.method,
            authority: origin.host.unwrap_or(head.authority),
            origin,
            host: &head.host,
            path: &head.path,
            query: head.query,
            body_length: if let Framing::Length(length) = parsed.framing { length } else { early },
            headers: &headers,
            connection: &info,
        };
        let is_head = head.method == "HEAD";
        let decision = match decide(&live, &head) {
            Decision::Forward { route, hsts, .. } if route.transport.as_ref().is_some_and(|to| to.http2) => {
                Decision::Answer { answer: Answer { hsts, ..Answer::NEEDS_HTTP2 }, ingress: route.ingress }
            }
            decision => decision,
        };
        match decision {
            Decision::Answer { answer, ingress } => {
                // A client that waits for 100 may send the body or not: nobody knows where its next request begins.
                let close = !parsed.keep_alive
                    || parsed.version == super::request::Version::Http10
                    || (parsed.expect_continue && !upload.is_done());
                if self.worker.logs() {
                    note(&mut self.notes, bytes, parsed, &head);
                }
                self.worker.begin_trace(&head, &mut HeadEdits::default(), &mut self.notes);
                self.answered(id, &answer, ingress, (parsed.length + taken) as u64, Some(head.origin.client));
                self.reply(
                    id,
                    &answer,
                    Reply { head_only: is_head, ingress, close, linger: false, rest: upload },
                )
            }
            Decision::Forward { route, backend, mut edits, choice, hsts } => {
                let mut exchange = self.new_exchange();
                self.worker.begin_trace(&head, &mut edits, &mut exchange.account.notes);
                let request_id = SentId::of(&head, || self.worker.request_id());
                write::request(
                    &mut exchange.request,
                    bytes,
                    parsed,
                    &head,
                    edits.get(),
                    request_id.as_bytes(),
                );
                exchange.request.extend_from_slice(early_body);
                exchange.upload = upload;
                let filters = &route.route.filters;
                exchange.room = filters.body_limit.map_or(u64::MAX, |limit| limit.get() - early);
                exchange.patience = Patience::new(&filters.forwarding, &self.timeouts);
                exchange.retry = filters.forwarding.retry;
                exchange.is_head = is_head;
                exchange.is_idempotent = is_idempotent(head.method);
                exchange.version = parsed.version;
                exchange.keep_alive = parsed.keep_alive;
                exchange.upgrade = parsed.upgrade.is_some();
                exchange.ingress = route.ingress;
                exchange.choice = choice;
                exchange.hsts = hsts;
                exchange.transport.clone_from(&route.transport);
                let cluster = self.worker.balancer.cluster(backend);
                cluster.budget.deposit();
                exchange.cluster = Some(cluster);
                exchange.account.started = Some(Instant::now());
                exchange.account.received = (parsed.length + taken) as u64;
                exchange.account.info = Some(Rc::clone(&info));
                exchange.account.client = Some(origin.client);
                if self.worker.logs() {
                    let notes = &mut exchange.account.notes;
                    note(notes, bytes, parsed, &head);
                    notes.set(Note::RequestId, &[request_id.as_bytes()]);
                    let ingress = &route.route.ingress;
                    notes.set(Note::Namespace, &[ingress.namespace.as_bytes()]);
                    notes.set(Note::Ingress, &[ingress.name.as_bytes()]);
                    notes.set(Note::Upstream, &[route.upstream_name.as_bytes()]);
                }
                if let Some(client) = self.clients.get_mut(id) {
                    client.phase = Phase::Exchange;
                    client.exchange = Some(exchange);
                }
                self.with_exchange(id, Self::connect)
            }
        }
    }
}

/// What the log wants of a request's head.
fn note(notes: &mut Notes, bytes: &[u8], parsed: &ParsedRequest, head: &RequestHead<'_>) {
    notes.set(Note::Line, &[parsed.line(bytes)]);
    notes.set(Note::Host, &[head.host.as_bytes()]);
    for field in &parsed.fields {
        let name = field.name.of(bytes);
        let (note, known) = match name.len() {
            7 => (Note::Referer, "referer"),
            10 => (Note::UserAgent, "user-agent"),
            _ => continue,
        };
        if name.eq_ignore_ascii_case(known.as_bytes()) {
            notes.set(note, &[field.value.of(bytes)]);
        }
    }
}

/// RFC 9110 section 9.2.2: what may be sent again without having been asked to.
fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE" | "TRACE")
}

/// The parts of a head that need a second look: text, host, path.
pub(super) struct Target<'a> {
    pub(super) method: &'a str,
    pub(super) authority: &'a str,
    pub(super) host: Cow<'a, str>,
    pub(super) path: Cow<'a, str>,
    pub(super) query: Option<&'a str>,
}

/// Reads them; the error is the reason for a 400.
pub(super) fn request_head<'a>(
    bytes: &'a [u8],
    parsed: &ParsedRequest,
) -> Result<Target<'a>, Cow<'static, str>> {
    let text = |part: &'a [u8], reason: &'static str| std::str::from_utf8(part).map_err(|_| reason);
    let method = text(parsed.method.of(bytes), "the method is malformed")?;
    let authority = match parsed.authority {
        Some(span) => text(span.of(bytes), "the host is not valid")?,
        None => "",
    };
    let host = match parsed.authority {
        Some(_) => parse_authority(authority).map_err(|error| error.to_string())?.host,
        None => Cow::Borrowed(""),
    };
    let target = text(parsed.path_and_query.of(bytes), "the request target is not valid")?;
    if parsed.form == TargetForm::Asterisk {
        return Ok(Target { method, authority, host, path: Cow::Borrowed("*"), query: None });
    }
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let path = match path {
        "" if method == "OPTIONS" && query.is_none() => Cow::Borrowed("*"),
        "" => Cow::Borrowed("/"),
        path => normalise_path(path).map_err(|error| error.to_string())?,
    };
    Ok(Target { method, authority, host, path, query })
}

impl Reply {
    /// The last answer on a connection whose next bytes mean nothing.
    fn refusal() -> Self {
        Self { head_only: false, ingress: IngressSlot::OTHER, close: true, linger: true, rest: Body::Done }
    }
}
