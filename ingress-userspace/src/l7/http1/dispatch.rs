//! Finds a connection for a request: picks an endpoint, takes a pooled connection or makes one, sends the head, and
//! tries again where that is safe. Called by `receive` when a request begins and by `relay` when an endpoint fails it.

use std::time::{Duration, Instant};

use super::super::answer::Answer;
use super::super::balance::NoEndpoint;
use super::super::retry::{self, Attempt, Cause};
use super::super::upstream::connection::Upstream;
use super::super::upstream::transport::Transport;
use super::body::Body;
use super::connection::{Answering, Exchange};
use super::core::{Core, Next};
use super::finish::Reply;
use super::slots::Id;

/// Waiting requests that try again in one turn.
const LET_IN: usize = 64;

impl Core {
    /// Sends the request to an endpoint that was not tried yet.
    pub(super) fn connect(&mut self, id: Id, exchange: &mut Exchange) -> Next {
        loop {
            let picked = exchange.cluster.as_ref().ok_or(NoEndpoint::Empty);
            let picked = picked.and_then(|cluster| cluster.pick(&exchange.tried, exchange.choice));
            let in_flight = match picked {
                Ok(in_flight) => in_flight,
                Err(NoEndpoint::Empty) => return self.fail(id, exchange, &Answer::NO_ENDPOINTS),
                Err(NoEndpoint::Full) => return self.wait_for_room(id, exchange),
                Err(NoEndpoint::Tried) => return self.fail(id, exchange, &Answer::CONNECT_FAILED),
            };
            exchange.pending = None;
            let address = in_flight.address();
            exchange.in_flight = Some(in_flight);
            let pooled = if exchange.retried { None } else { self.take_pooled(id, exchange) };
            exchange.reused = pooled.is_some();
            exchange.account.endpoint = Some(address);
            // A pooled connection is asked at once: no need to look at the clock again.
            let first = exchange.reused && exchange.tried.is_empty() && !exchange.retried;
            exchange.account.asked = if first { exchange.account.started } else { Some(Instant::now()) };
            let made = match pooled {
                Some(upstream) => Ok(upstream),
                None => Upstream::connect(address, exchange.transport.as_ref(), id)
                    .and_then(|upstream| self.add_upstream(upstream)),
            };
            let sent = made.map(|upstream| {
                exchange.upstream = Some(upstream);
                let link = self.upstreams.get_mut(upstream).map(|upstream| &mut upstream.link);
                link.is_some_and(|link| {
                    let sent = link.send(&exchange.request, &[]).is_ok();
                    exchange.connected = link.is_connected();
                    sent
                })
            });
            match sent {
                Ok(true) => break,
                Ok(false) if exchange.reused => {
                    // Nothing of the request was taken: a fresh connection to the same endpoint may do.
                    self.drop_upstream(exchange);
                    exchange.retried = true;
                    self.worker.stats.retried.add(1);
                }
                _ => {
                    exchange.note_failure();
                    self.drop_upstream(exchange);
                    self.worker.stats.connect_failed.add(1);
                    if !may_go_on(exchange, Cause::ConnectError) {
                        return self.fail(id, exchange, &Answer::CONNECT_FAILED);
                    }
                    exchange.tried.push(address);
                }
            }
        }
        if exchange.connected && !exchange.reused {
            self.note_connected(exchange);
        }
        self.wait_anew(id, exchange);
        Next::Again
    }

    /// As many requests as are allowed are under way: this one waits, if it may, until [`Core::let_in`] tries again.
    fn wait_for_room(&mut self, id: Id, exchange: &mut Exchange) -> Next {
        if exchange.pending.is_some() {
            return Next::Wait;
        }
        exchange.pending = exchange.cluster.as_ref().and_then(|cluster| cluster.wait(exchange.choice));
        if exchange.pending.is_none() {
            return self.fail(id, exchange, &Answer::BACKEND_FULL);
        }
        self.wait_anew(id, exchange);
        self.waiting.push_back(id);
        Next::Wait
    }

    /// Requests that wait for room try again, some of them. They take turns: those of one backend that stays full do not
    /// keep others waiting.
    pub(super) fn let_in(&mut self) {
        for _ in 0..self.waiting.len().min(LET_IN) {
            let Some(id) = self.waiting.pop_front() else { return };
            self.drive(id);
            let exchange = self.clients.get(id).and_then(|client| client.exchange.as_ref());
            if exchange.is_some_and(|exchange| exchange.pending.is_some()) {
                self.waiting.push_back(id);
            }
        }
    }

    /// A new connection to an endpoint stands.
    pub(super) fn note_connected(&self, exchange: &mut Exchange) {
        self.worker.stats.connected.add(1);
        exchange.account.connect = exchange.account.asked.map_or(Duration::ZERO, |asked| asked.elapsed());
    }

    /// A pooled connection to the endpoint that was picked, if a usable one is there.
    fn take_pooled(&mut self, id: Id, exchange: &Exchange) -> Option<Id> {
        let address = exchange.in_flight.as_ref()?.address();
        let key = (address, Transport::id(exchange.transport.as_ref()));
        while let Some(upstream_id) = self.pool.take(key) {
            let Some(upstream) = self.upstreams.get_mut(upstream_id) else { continue };
            // A request that cannot be sent twice is worth a look whether the endpoint closed just now.
            if upstream.link.is_hung_up() || (!exchange.is_idempotent && !upstream.link.is_quiet()) {
                self.upstreams.remove(upstream_id);
                continue;
            }
            upstream.client = Some(id);
            return Some(upstream_id);
        }
        None
    }

    /// Closes the connection to the endpoint; the endpoint counts one request less.
    pub(super) fn drop_upstream(&mut self, exchange: &mut Exchange) {
        if let Some(upstream) = exchange.upstream.take() {
            self.upstreams.remove(upstream);
        }
        exchange.in_flight = None;
        exchange.connected = false;
    }

    /// The endpoint's connection ended or broke before any byte of an answer: sends the request again if that is safe.
    pub(super) fn upstream_lost(&mut self, id: Id, exchange: &mut Exchange) -> Next {
        if !exchange.connected {
            exchange.note_failure();
            self.worker.stats.connect_failed.add(1);
            return match self.try_another(id, exchange, Cause::ConnectError) {
                Some(next) => next,
                None => self.fail(id, exchange, &Answer::CONNECT_FAILED),
            };
        }
        let replayable = exchange.reused
            && !exchange.retried
            && !exchange.streamed
            && exchange.is_idempotent
            && exchange.interim == 0;
        if !exchange.reused {
            exchange.note_failure();
        }
        if replayable {
            self.drop_upstream(exchange);
            exchange.retried = true;
            self.worker.stats.retried.add(1);
            return self.connect(id, exchange);
        }
        if let Some(next) = self.try_another(id, exchange, Cause::Error) {
            return next;
        }
        self.worker.stats.upstream_failed.add(1);
        self.fail(id, exchange, &Answer::BACKEND_CLOSED)
    }

    /// The endpoint failed the request: another one gets it, if the route wants that and there is one. `None`: nothing
    /// was done.
    pub(super) fn try_another(&mut self, id: Id, exchange: &mut Exchange, cause: Cause) -> Option<Next> {
        let failed = exchange.in_flight.as_ref()?.address();
        let another =
            exchange.cluster.as_ref().is_some_and(|cluster| cluster.has_more(&exchange.tried, failed));
        if !another || !may_go_on(exchange, cause) {
            return None;
        }
        exchange.tried.push(failed);
        self.drop_upstream(exchange);
        exchange.retried = false;
        exchange.upload_broken = false;
        exchange.account.upstream_status = 0;
        self.worker.stats.retried.add(1);
        Some(self.connect(id, exchange))
    }

    /// Nothing has come for too long.
    pub(super) fn exchange_timed_out(&mut self, id: Id, exchange: &mut Exchange) -> Next {
        if exchange.pending.take().is_some() {
            return self.fail(id, exchange, &Answer::BACKEND_FULL);
        }
        if !exchange.connected {
            exchange.note_failure();
            self.worker.stats.connect_failed.add(1);
            return match self.try_another(id, exchange, Cause::ConnectTimeout) {
                Some(next) => next,
                None => self.fail(id, exchange, &Answer::BACKEND_TIMEOUT),
            };
        }
        let client_stuck = self.clients.get(id).is_none_or(|client| client.link.has_unsent());
        if client_stuck {
            return Next::Close;
        }
        let upstream_stuck = exchange
            .upstream
            .and_then(|upstream| self.upstreams.get(upstream))
            .is_none_or(|upstream| upstream.link.has_unsent());
        if !exchange.upload.is_done() && !exchange.upload_broken && !upstream_stuck {
            return self.fail(id, exchange, &Answer::REQUEST_TIMEOUT);
        }
        exchange.note_failure();
        if let Some(next) = self.try_another(id, exchange, Cause::Timeout) {
            return next;
        }
        self.worker.stats.upstream_failed.add(1);
        self.fail(id, exchange, &Answer::BACKEND_TIMEOUT)
    }

    /// Ends the exchange with an answer of ours, or, if the client already has the head of another, by closing.
    pub(super) fn fail(&mut self, id: Id, exchange: &mut Exchange, answer: &Answer) -> Next {
        self.drop_upstream(exchange);
        if !matches!(exchange.answering, Answering::Waiting) {
            return Next::Close;
        }
        let rest = std::mem::replace(&mut exchange.upload, Body::Done);
        let close = !exchange.keep_alive
            || exchange.version == super::request::Version::Http10
            || !rest.is_done()
            || matches!(answer.status, 400 | 408);
        exchange.account.status = answer.status;
        let reply = Reply {
            head_only: exchange.is_head,
            ingress: exchange.ingress,
            close,
            linger: !rest.is_done(),
            rest,
        };
        self.reply(id, &Answer { hsts: exchange.hsts, ..answer.clone() }, reply)
    }
}

/// Whether the route wants the request to go to one more endpoint.
fn may_go_on(exchange: &Exchange, cause: Cause) -> bool {
    let attempt = Attempt {
        tried: &exchange.tried,
        started: exchange.account.started,
        is_idempotent: exchange.is_idempotent,
        is_whole: !exchange.streamed
            && exchange.interim == 0
            && matches!(exchange.answering, Answering::Waiting),
    };
    let budget = exchange.cluster.as_ref().map(|cluster| &cluster.budget);
    budget.is_some_and(|budget| retry::allowed(&exchange.retry, cause, attempt, budget))
}
