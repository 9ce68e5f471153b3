//! One request by HTTP/2 and its answer: decides, picks an endpoint, sends the request, passes the answer back.
//! Tries another endpoint when one cannot be reached, and another connection when a used one turns out dead.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, LOCATION, STRICT_TRANSPORT_SECURITY};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};

use super::account::Account;
use super::body::{Progress, RequestBody, ResponseBody, Streamed};
use super::websocket::{Handshake, Tunnel};
use super::{Http2, Stream, grpc, head};
use crate::l7::answer::Answer;
use crate::l7::balance::{Choice, ClusterState, InFlight, NoEndpoint};
use crate::l7::decide::{Decision, decide};
use crate::l7::filter::hsts;
use crate::l7::forwarded::SentId;
use crate::l7::head::{ConnectionInfo, HeadEdits};
use crate::l7::http1::request::Framing;
use crate::l7::retry::{self, Attempt, Cause};
use crate::l7::timeouts;
use crate::l7::upstream::client::{self, ConnectError, Outgoing, Sender};
use crate::l7::upstream::http1::Upload;
use crate::l7::upstream::transport::Transport;
use crate::model::{Forwarding, Hsts};

/// Answers one request.
pub(super) async fn exchange(
    http2: &Rc<Http2>,
    connection: &Rc<ConnectionInfo>,
    mut request: Request<Incoming>,
    stream: Stream,
) -> Response<ResponseBody> {
    let handshake = Handshake::of(&mut request);
    let (parts, body) = request.into_parts();
    let mut account = Account::new(&http2.worker, connection, &parts);
    let mut hsts = None;
    let has_body = !body.is_end_stream();
    let planned = handshake.and_then(|handshake| {
        let request = (&parts, has_body, handshake.as_ref());
        let (plan, head) = plan(http2, connection, request, &mut account)?;
        hsts = plan.hsts;
        if handshake.is_some() && matches!(head, Head::Http2(_)) {
            return Err(Answer::NO_WEBSOCKET);
        }
        Ok((plan, head, handshake))
    });
    let ingress = account.ingress;
    let outcome = match planned {
        Ok((plan, head, handshake)) => {
            let request = (&parts, head, body);
            forward(http2, plan, request, stream, handshake, &mut account).await
        }
        Err(answer) => Err(answer),
    };
    let outcome = with_hsts(outcome, hsts);
    let (mut response, tunnel) = match outcome {
        Ok((response, tunnel)) => (response, tunnel),
        Err(answer) => (rendered(&answer, &parts), None),
    };
    let status = response.status().as_u16();
    http2.worker.stats.request(ingress, status);
    if let Some(tunnel) = tunnel {
        account.answered(101);
        tunnel.start(account);
    } else {
        account.answered(status);
        response.body_mut().end_with(account);
    }
    response
}

/// An answer, and what begins with it.
type Answered = (Response<ResponseBody>, Option<Tunnel>);

/// Where a request goes, free of the generation that decided it.
struct Plan {
    cluster: Rc<ClusterState>,
    choice: Choice,
    /// `Strict-Transport-Security` of the answer.
    hsts: Option<Hsts>,
    transport: Option<Arc<Transport>>,
    forwarding: Forwarding,
    /// The longest body that is allowed.
    body_limit: u64,
}

/// The head for an endpoint.
enum Head {
    Http1(Vec<u8>, Framing),
    Http2(Box<Parts>),
}

/// The plan, and the head for the endpoint.
fn plan(
    http2: &Http2,
    connection: &ConnectionInfo,
    (parts, has_body, handshake): (&Parts, bool, Option<&Handshake>),
    account: &mut Account,
) -> Result<(Plan, Head), Answer> {
    let target = head::target(parts)?;
    let live = http2.worker.live();
    let head = target.head(parts, connection, live.downstream_at(connection.local.ip()));
    account.note_head(&head);
    match decide(&live, &head) {
        Decision::Answer { answer, ingress } => {
            account.ingress = ingress;
            account.begin_trace(&head, &mut HeadEdits::default());
            Err(answer)
        }
        Decision::Forward { route, backend, mut edits, choice, hsts } => {
            account.begin_trace(&head, &mut edits);
            let id = SentId::of(&head, || http2.worker.request_id());
            let id = id.as_bytes();
            account.note_route(route, id);
            let transport = route.transport.clone();
            let head = if let Some(transport) = transport.as_deref().filter(|transport| transport.http2) {
                let head = target.http2(parts, &head, id, &edits, transport);
                Head::Http2(Box::new(head.map_err(|answer| Answer { hsts, ..answer })?))
            } else {
                let framing = head::framing(parts, has_body);
                Head::Http1(head::http1(parts, &head, id, &edits, (framing, handshake)), framing)
            };
            let cluster = http2.worker.balancer.cluster(backend);
            cluster.budget.deposit();
            let filters = &route.route.filters;
            let body_limit = filters.body_limit.map_or(u64::MAX, NonZeroU64::get);
            let forwarding = filters.forwarding;
            Ok((Plan { cluster, choice, hsts, transport, forwarding, body_limit }, head))
        }
    }
}

async fn forward(
    http2: &Rc<Http2>,
    plan: Plan,
    (parts, head, body): (&Parts, Head, Incoming),
    stream: Stream,
    handshake: Option<Handshake>,
    account: &mut Account,
) -> Result<Answered, Answer> {
    let is_slow_by_nature = matches!(head, Head::Http2(_));
    let progress = (!body.is_end_stream()).then(|| {
        Rc::new(Progress {
            last: Cell::new(Instant::now()),
            activity: Rc::clone(&stream.0),
            client_owes: Cell::new(false),
            room: Cell::new(plan.body_limit),
            received: Cell::new(0),
            pace: Cell::new((!is_slow_by_nature).then(|| (Instant::now(), 0))),
            empty: Cell::new(0),
            fault: Cell::new(None),
        })
    });
    let body = match &progress {
        None => RequestBody::Empty,
        Some(progress) => {
            account.follow(progress);
            let (progress, stats) = (Rc::clone(progress), Arc::clone(&http2.worker.stats));
            RequestBody::Streamed { body, progress, stats }
        }
    };
    // A request without a body may be sent again as it is, if its method allows that (RFC 9110 9.2.2).
    let is_whole = progress.is_none() && handshake.is_none();
    let replayable = is_whole && parts.method.is_idempotent();
    let mut request = match head {
        Head::Http1(head, framing) => Outgoing::Http1(Box::new(Upload::new(head, body, framing))),
        Head::Http2(head) => Outgoing::http2(*head, body),
    };
    let mut tried = Vec::new();
    let started = Instant::now();
    let read_timeout = plan.forwarding.read_timeout.unwrap_or(timeouts::READ);
    // Whether one more endpoint may have the request, and is there.
    let another = |tried: &mut Vec<SocketAddr>, failed: SocketAddr, cause: Cause| {
        let is_idempotent = parts.method.is_idempotent();
        let attempt = Attempt { tried, started: Some(started), is_idempotent, is_whole };
        let allowed = retry::allowed(&plan.forwarding.retry, cause, attempt, &plan.cluster.budget);
        let another = allowed && plan.cluster.has_more(tried, failed);
        tried.push(failed);
        another
    };
    loop {
        let (picked, sender, reused) = reach(http2, &plan, started, &mut tried, account).await?;
        let address = picked.address();
        if let Some(progress) = &progress {
            progress.last.set(Instant::now());
        }
        let outcome = {
            let home = ((address, Transport::id(plan.transport.as_ref())), &http2.pool);
            let sent = pin!(sender.send(&mut request, parts.method == Method::HEAD, home));
            in_time(sent, progress.as_deref(), read_timeout).await
        };
        match outcome {
            None => {
                plan.cluster.failed(&picked);
                if !is_whole || !another(&mut tried, address, Cause::Timeout) {
                    http2.worker.stats.upstream_failed.add(1);
                    let client_owes = progress.is_some_and(|progress| progress.client_owes.get());
                    return Err(if client_owes { Answer::REQUEST_TIMEOUT } else { Answer::BACKEND_TIMEOUT });
                }
            }
            Some(Ok(answer)) if answer.status == StatusCode::SWITCHING_PROTOCOLS => {
                // Without a handshake we did not ask for it.
                let handshake = handshake.ok_or(Answer::BACKEND_INVALID)?;
                account.headed(101);
                let stats = Arc::clone(&http2.worker.stats);
                let (response, tunnel) = handshake.complete(answer, picked, stream, stats)?;
                return Ok((response, Some(tunnel)));
            }
            Some(Ok(answer)) => {
                let status = answer.status.as_u16();
                account.headed(status);
                if let Some(progress) = &progress {
                    progress.pace.set(None);
                }
                let unwanted = plan.forwarding.retry.on.statuses.contains(status);
                if !unwanted || !another(&mut tried, address, Cause::Status(status)) {
                    return Ok((passed_on(http2, answer, picked, stream, read_timeout), None));
                }
            }
            Some(Err(error)) => {
                if let Some(fault) = progress.as_ref().and_then(|progress| progress.fault.get()) {
                    return Err(fault.answer());
                }
                if error.is_clients() {
                    return Err(Answer::bad_request("the request body broke off"));
                }
                if !reused {
                    plan.cluster.failed(&picked);
                }
                let is_invalid = error.is_invalid();
                if is_invalid {
                    tracing::warn!(endpoint = %address, reason = %error, "an endpoint's answer was refused");
                }
                // On a connection that was used before, the endpoint's end of it may have been on its way already.
                let died = reused && (request.is_untouched() || (replayable && error.is_closed()));
                let cause = if is_invalid { Cause::Invalid } else { Cause::Error };
                if !died && !another(&mut tried, address, cause) {
                    tracing::debug!(%address, %error, "endpoint failed");
                    http2.worker.stats.upstream_failed.add(1);
                    return Err(if is_invalid { Answer::BACKEND_INVALID } else { Answer::BACKEND_CLOSED });
                }
            }
        }
        request.rewind();
        http2.worker.stats.retried.add(1);
    }
}

/// A connection to an endpoint that was not tried yet, and whether it was used before.
async fn reach(
    http2: &Rc<Http2>,
    plan: &Plan,
    started: Instant,
    tried: &mut Vec<SocketAddr>,
    account: &mut Account,
) -> Result<(InFlight, Sender, bool), Answer> {
    let stats = &http2.worker.stats;
    let mut failure = if tried.is_empty() { Answer::NO_ENDPOINTS } else { Answer::CONNECT_FAILED };
    let retry = &plan.forwarding.retry;
    let transport = plan.transport.as_ref();
    let limit = plan.forwarding.connect_timeout.unwrap_or(timeouts::CONNECT);
    let since = Instant::now();
    // A place among those that wait until fewer requests are under way.
    let mut pending = None;
    loop {
        let picked = match plan.cluster.pick(tried, plan.choice) {
            Ok(picked) => picked,
            Err(NoEndpoint::Full) => {
                pending = pending.or_else(|| plan.cluster.wait(plan.choice));
                if pending.is_none() || since.elapsed() >= limit {
                    return Err(Answer::BACKEND_FULL);
                }
                tokio::time::sleep(timeouts::ROOM).await;
                continue;
            }
            Err(NoEndpoint::Empty | NoEndpoint::Tried) => return Err(failure),
        };
        let address = picked.address();
        account.asks(address);
        if let Some(sender) = http2.pool.take(address, transport) {
            return Ok((picked, sender, true));
        }
        // Boxed, since it is rare and large: every request's future is copied a few times before it rests.
        match Box::pin(http2.pool.connect(address, transport, limit)).await {
            Ok(sender) => {
                stats.connected.add(1);
                account.connected();
                return Ok((picked, sender, false));
            }
            Err(error) => {
                tracing::debug!(%address, %error, "endpoint cannot be reached");
                stats.connect_failed.add(1);
                let (answer, cause) = match error {
                    ConnectError::Timeout => (Answer::BACKEND_TIMEOUT, Cause::ConnectTimeout),
                    ConnectError::Io(_) | ConnectError::Http(_) | ConnectError::Tls(_) => {
                        (Answer::CONNECT_FAILED, Cause::ConnectError)
                    }
                };
                failure = answer;
                let attempt = Attempt { tried, started: Some(started), is_idempotent: true, is_whole: true };
                let go_on = retry::allowed(retry, cause, attempt, &plan.cluster.budget);
                plan.cluster.failed(&picked);
                tried.push(address);
                if !go_on {
                    return Err(failure);
                }
            }
        }
    }
}

/// Waits for a response for as long as the request's body moves, and `limit` beyond. `None`: too long.
async fn in_time<T>(
    mut sent: std::pin::Pin<&mut impl Future<Output = T>>,
    progress: Option<&Progress>,
    limit: Duration,
) -> Option<T> {
    let mut timer = pin!(tokio::time::sleep(limit));
    poll_fn(|cx| {
        if let Poll::Ready(outcome) = sent.as_mut().poll(cx) {
            return Poll::Ready(Some(outcome));
        }
        while timer.as_mut().poll(cx).is_ready() {
            // Without a body nothing but the answer can come.
            match progress.map(|progress| progress.last.get() + limit) {
                Some(due) if due > Instant::now() => timer.as_mut().reset(due.into()),
                _ => return Poll::Ready(None),
            }
        }
        Poll::Pending
    })
    .await
}

fn passed_on(
    http2: &Rc<Http2>,
    answer: client::Answer,
    picked: InFlight,
    stream: Stream,
    read_timeout: Duration,
) -> Response<ResponseBody> {
    picked.succeeded();
    let streamed = Box::new(Streamed {
        body: answer.body,
        stats: Arc::clone(&http2.worker.stats),
        read_timeout,
        timer: None,
        _in_flight: picked,
        stream,
        account: None,
    });
    let mut response = Response::new(ResponseBody::Streamed(streamed));
    (*response.status_mut(), *response.headers_mut()) = (answer.status, answer.headers);
    response
}

fn with_hsts(mut outcome: Result<Answered, Answer>, hsts: Option<Hsts>) -> Result<Answered, Answer> {
    match (&mut outcome, hsts) {
        (Ok((response, _)), Some(hsts)) => {
            response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, hsts::value(hsts));
        }
        (Err(answer), Some(hsts)) => answer.hsts = Some(hsts),
        _ => {}
    }
    outcome
}

fn rendered(answer: &Answer, request: &Parts) -> Response<ResponseBody> {
    if grpc::is_request(&request.headers)
        && let Some((status, headers)) = grpc::answer(answer)
    {
        let mut response = Response::new(ResponseBody::of(Bytes::new()));
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        return response;
    }
    let mut response = Response::new(ResponseBody::of(answer.body()));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if let Some(Ok(location)) = answer.location.as_deref().map(HeaderValue::from_str) {
        headers.insert(LOCATION, location);
    }
    if let Some(hsts) = answer.hsts {
        headers.insert(STRICT_TRANSPORT_SECURITY, hsts::value(hsts));
    }
    response
}
