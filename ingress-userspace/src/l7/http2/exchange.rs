//! One request by HTTP/2 and its answer: decides, picks an endpoint, sends the request by HTTP/1.1, passes the answer
//! back. Tries another endpoint when one cannot be reached, and another connection when a used one turns out dead.

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
use http::{Request, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};

use super::account::Account;
use super::body::{Progress, RequestBody, ResponseBody, Streamed};
use super::websocket::{Handshake, Tunnel};
use super::{Http2, Stream, grpc, head};
use crate::l7::answer::Answer;
use crate::l7::balance::{Choice, ClusterState, InFlight, NoEndpoint};
use crate::l7::decide::{Decision, decide};
use crate::l7::filter::hsts;
use crate::l7::forwarded::{self, RequestId, SentId};
use crate::l7::head::{ConnectionInfo, HeadEdits};
use crate::l7::retry::{self, Attempt, Cause};
use crate::l7::timeouts;
use crate::l7::upstream::hyper::{ConnectError, Sender};
use crate::l7::upstream::pool::PoolKey;
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
    let planned = handshake.and_then(|handshake| {
        let (plan, mut head) = plan(http2, connection, &parts, &mut account)?;
        hsts = plan.hsts;
        if let Some(handshake) = &handshake {
            if head.version == Version::HTTP_2 {
                return Err(Answer::NO_WEBSOCKET);
            }
            handshake.ask(&mut head.headers);
        }
        Ok((plan, head, handshake))
    });
    let ingress = account.ingress;
    let outcome = match planned {
        Ok((plan, head, handshake)) => {
            let request = (&parts, head, body);
            forward(http2, connection, plan, request, stream, handshake, &mut account).await
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
    /// What the head for the endpoint was made with, to make it again.
    id: RequestId,
    edits: HeadEdits,
}

/// The plan, and the head for the endpoint.
fn plan(
    http2: &Http2,
    connection: &ConnectionInfo,
    parts: &Parts,
    account: &mut Account,
) -> Result<(Plan, Parts), Answer> {
    let target = head::target(parts)?;
    let live = http2.worker.live();
    let head = target.head(parts, connection, live.downstream_at(connection.local.ip()));
    account.note_head(&head);
    match decide(&live, &head) {
        Decision::Answer { answer, ingress } => {
            account.ingress = ingress;
            Err(answer)
        }
        Decision::Forward { route, backend, edits, choice, hsts } => {
            let id = http2.worker.request_id();
            let sent = SentId::of(&head, || id);
            account.note_route(route, sent.as_bytes());
            let transport = route.transport.clone();
            let head = target
                .upstream(parts, &head, sent.as_bytes(), &edits, transport.as_deref())
                .map_err(|answer| Answer { hsts, ..answer })?;
            let cluster = http2.worker.balancer.cluster(backend);
            cluster.budget.deposit();
            let filters = &route.route.filters;
            let body_limit = filters.body_limit.map_or(u64::MAX, NonZeroU64::get);
            let forwarding = filters.forwarding;
            Ok((Plan { cluster, choice, hsts, transport, forwarding, body_limit, id, edits }, head))
        }
    }
}

async fn forward(
    http2: &Rc<Http2>,
    connection: &ConnectionInfo,
    plan: Plan,
    (parts, head, body): (&Parts, Parts, Incoming),
    stream: Stream,
    handshake: Option<Handshake>,
    account: &mut Account,
) -> Result<Answered, Answer> {
    let is_grpc = head.version == Version::HTTP_2;
    let progress = Rc::new(Progress {
        last: Cell::new(Instant::now()),
        activity: Rc::clone(&stream.0),
        client_owes: Cell::new(false),
        room: Cell::new(plan.body_limit),
        received: Cell::new(0),
        pace: Cell::new((!is_grpc).then(|| (Instant::now(), 0))),
        empty: Cell::new(0),
        fault: Cell::new(None),
    });
    account.follow(&progress);
    let body = if body.is_end_stream() {
        RequestBody::Empty
    } else {
        RequestBody::Streamed { body, progress: Rc::clone(&progress), stats: Arc::clone(&http2.worker.stats) }
    };
    // A request without a body may be sent again as it is, if its method allows that (RFC 9110 9.2.2).
    let is_whole = matches!(body, RequestBody::Empty) && handshake.is_none();
    let replayable = is_whole && parts.method.is_idempotent();
    let again = || -> Result<_, Answer> {
        let target = head::target(parts)?;
        let live = http2.worker.live();
        let head = target.head(parts, connection, live.downstream_at(connection.local.ip()));
        let (id, transport) = (SentId::of(&head, || plan.id), plan.transport.as_deref());
        let head = target.upstream(parts, &head, id.as_bytes(), &plan.edits, transport)?;
        Ok(Request::from_parts(head, RequestBody::Empty))
    };
    let mut request = Request::from_parts(head, body);
    let mut tried = Vec::new();
    let started = Instant::now();
    let read_timeout = plan.forwarding.read_timeout.unwrap_or(timeouts::READ);
    // Whether one more endpoint may have the request, and is there.
    let another = |tried: &mut Vec<SocketAddr>, failed: SocketAddr, cause: Cause, is_whole: bool| {
        let is_idempotent = parts.method.is_idempotent();
        let attempt = Attempt { tried, started: Some(started), is_idempotent, is_whole };
        let allowed = retry::allowed(&plan.forwarding.retry, cause, attempt, &plan.cluster.budget);
        let another = allowed && plan.cluster.has_more(tried, failed);
        tried.push(failed);
        another
    };
    loop {
        let (picked, mut sender, reused) = reach(http2, &plan, started, &mut tried, account).await?;
        progress.last.set(Instant::now());
        let outcome = {
            let sent = pin!(sender.send(request));
            in_time(sent, &progress, read_timeout).await
        };
        let mut error = match outcome {
            None => {
                plan.cluster.failed(&picked);
                if is_whole && another(&mut tried, picked.address(), Cause::Timeout, true) {
                    request = again()?;
                    http2.worker.stats.retried.add(1);
                    continue;
                }
                http2.worker.stats.upstream_failed.add(1);
                let client_owes = progress.client_owes.get();
                return Err(if client_owes { Answer::REQUEST_TIMEOUT } else { Answer::BACKEND_TIMEOUT });
            }
            Some(Ok(response)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                // Without a handshake we did not ask for it.
                let handshake = handshake.ok_or(Answer::BACKEND_INVALID)?;
                account.headed(101);
                let stats = Arc::clone(&http2.worker.stats);
                let (response, tunnel) = handshake.complete(response, picked, stream, stats)?;
                return Ok((response, Some(tunnel)));
            }
            Some(Ok(response)) => {
                let status = response.status().as_u16();
                account.headed(status);
                progress.pace.set(None);
                if plan.forwarding.retry.on.statuses.contains(status)
                    && another(&mut tried, picked.address(), Cause::Status(status), is_whole)
                {
                    request = again()?;
                    http2.worker.stats.retried.add(1);
                    continue;
                }
                let key = (picked.address(), Transport::id(plan.transport.as_ref()));
                let response = passed_on(http2, response, picked, (key, sender), stream, read_timeout);
                return Ok((response, None));
            }
            Some(Err(error)) => error,
        };
        if let Some(fault) = progress.fault.get() {
            return Err(fault.answer());
        }
        if !reused {
            plan.cluster.failed(&picked);
        }
        // On a connection that was used before, the endpoint's end of it may have been on its way already.
        request = match error.take_message() {
            Some(request) if reused => request,
            None if reused && replayable && broke_off(error.error()) => again()?,
            _ if another(&mut tried, picked.address(), failure(error.error()), is_whole) => again()?,
            _ => {
                tracing::debug!(address = %picked.address(), error = %error.error(), "endpoint failed");
                http2.worker.stats.upstream_failed.add(1);
                let invalid = error.error().is_parse();
                return Err(if invalid { Answer::BACKEND_INVALID } else { Answer::BACKEND_CLOSED });
            }
        };
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
        match http2.pool.connect(address, transport, limit).await {
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
    progress: &Progress,
    limit: Duration,
) -> Option<T> {
    let mut timer = pin!(tokio::time::sleep(limit));
    poll_fn(|cx| {
        if let Poll::Ready(outcome) = sent.as_mut().poll(cx) {
            return Poll::Ready(Some(outcome));
        }
        while timer.as_mut().poll(cx).is_ready() {
            let due = progress.last.get() + limit;
            if due <= Instant::now() {
                return Poll::Ready(None);
            }
            timer.as_mut().reset(due.into());
        }
        Poll::Pending
    })
    .await
}

/// What kind of failure it is for `proxy-next-upstream`.
fn failure(error: &hyper::Error) -> Cause {
    if error.is_parse() { Cause::Invalid } else { Cause::Error }
}

/// The connection ended before a response began.
fn broke_off(error: &hyper::Error) -> bool {
    error.is_closed() || error.is_incomplete_message() || error.is_canceled()
}

fn passed_on(
    http2: &Rc<Http2>,
    response: Response<Incoming>,
    picked: InFlight,
    (key, sender): (PoolKey, Sender),
    stream: Stream,
    read_timeout: Duration,
) -> Response<ResponseBody> {
    picked.succeeded();
    let (mut parts, body) = response.into_parts();
    forwarded::apply_to_response(&mut parts.headers);
    let mut streamed = Box::new(Streamed {
        body,
        connection: Some((key, sender, Rc::clone(&http2.pool))),
        stats: Arc::clone(&http2.worker.stats),
        read_timeout,
        timer: None,
        _in_flight: picked,
        stream,
        account: None,
    });
    if streamed.body.is_end_stream() {
        streamed.finish();
    }
    Response::from_parts(parts, ResponseBody::Streamed(streamed))
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
