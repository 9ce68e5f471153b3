//! The end of an exchange: gives the endpoint's connection back, and lets the client's go on, wait, or end in a way that
//! its last answer is not lost (RFC 9112 section 9.6). Also answers of our own. Called by the other steps.

use super::super::answer::Answer;
use super::super::stats::IngressSlot;
use super::body::Body;
use super::connection::{Exchange, Phase};
use super::core::{Core, Next, client_token, upstream_token};
use super::link::Received;
use super::slots::Id;

/// The longest rest of a body that is read for nothing, so that the connection can be kept.
const DISCARDED: u64 = 64 * 1024;

/// How an answer of ours is given.
pub(super) struct Reply {
    /// To `HEAD`: without the body.
    pub(super) head_only: bool,
    /// Where it is counted.
    pub(super) ingress: IngressSlot,
    /// The connection ends with it.
    pub(super) close: bool,
    /// More may come from the client that must not destroy the answer.
    pub(super) linger: bool,
    /// The rest of the request's body.
    pub(super) rest: Body,
}

impl Core {
    /// Answers a request ourselves.
    pub(super) fn reply(&mut self, id: Id, answer: &Answer, reply: Reply) -> Next {
        let Some(client) = self.clients.get_mut(id) else { return Next::Close };
        let discardable = match reply.rest {
            Body::Done => true,
            Body::Length(left) => left <= DISCARDED,
            _ => false,
        };
        let close = reply.close || !discardable || self.worker.draining();
        self.out.clear();
        answer.write_http1(&mut self.out, reply.head_only, close);
        self.worker.stats.request(reply.ingress, answer.status);
        self.worker.stats.bytes_out.add(self.out.len() as u64);
        if client.link.send(&self.out, &[]).is_err() {
            return Next::Close;
        }
        let timeout = if close {
            let linger = reply.linger || !reply.rest.is_done() || client.link.is_readable();
            client.phase = Phase::Last { linger };
            self.timeouts.client
        } else if reply.rest.is_done() {
            client.phase = Phase::Head;
            self.timeouts.idle
        } else {
            client.phase = Phase::Discard;
            client.discard = reply.rest;
            self.timeouts.client
        };
        self.wheel.set(&mut client.timer, client_token(id), timeout);
        Next::Again
    }

    /// The whole answer has gone to the client.
    pub(super) fn finish(&mut self, id: Id, exchange: &mut Exchange) -> Next {
        let complete = exchange.upload.is_done() && !exchange.upload_broken;
        exchange.in_flight = None;
        if let Some(upstream) = exchange.upstream.take() {
            self.give_back(upstream, exchange.upstream_keeps && complete);
        }
        let Some(client) = self.clients.get_mut(id) else { return Next::Close };
        client.link.relax();
        let timeout = if exchange.close {
            let linger =
                !exchange.upload.is_done() || !client.pending.is_empty() || client.link.is_readable();
            client.phase = Phase::Last { linger };
            self.timeouts.client
        } else {
            client.phase = Phase::Head;
            self.timeouts.idle
        };
        self.wheel.set(&mut client.timer, client_token(id), timeout);
        Next::Again
    }

    fn give_back(&mut self, id: Id, keep: bool) {
        let Some(upstream) = self.upstreams.get_mut(id) else { return };
        if !keep || upstream.link.is_hung_up() || upstream.link.has_unsent() || self.worker.draining() {
            self.upstreams.remove(id);
            return;
        }
        upstream.client = None;
        upstream.link.relax();
        self.wheel.set(&mut upstream.timer, upstream_token(id), self.timeouts.pool);
        if let Some(oldest) = self.pool.put(upstream.key, id, self.config.pool_size) {
            self.upstreams.remove(oldest);
        }
    }

    /// Reads the rest of a body that nobody wants.
    pub(super) fn discard(&mut self, id: Id) -> Next {
        loop {
            let may_read = self.may_read();
            let Some(client) = self.clients.get_mut(id) else { return Next::Close };
            if client.link.flush().is_err() {
                return Next::Close;
            }
            if client.discard.is_done() {
                client.phase = Phase::Head;
                self.wheel.set(&mut client.timer, client_token(id), self.timeouts.idle);
                return Next::Again;
            }
            if !client.link.is_readable() {
                return Next::Wait;
            }
            if !may_read {
                return Next::Yield;
            }
            match client.link.receive(&mut self.scratch) {
                Received::Data(count) => {
                    self.worker.stats.bytes_in.add(count as u64);
                    let bytes = &self.scratch[..count];
                    let Ok(taken) = client.discard.take(bytes) else { return Next::Close };
                    client.keep(&bytes[taken..]);
                }
                Received::Nothing => return Next::Wait,
                Received::End | Received::Broken => return Next::Close,
            }
        }
    }

    /// Sends what is left of the last answer.
    pub(super) fn last(&mut self, id: Id, linger: bool) -> Next {
        let Some(client) = self.clients.get_mut(id) else { return Next::Close };
        if client.link.flush().is_err() {
            return Next::Close;
        }
        if client.link.has_unsent() {
            return Next::Wait;
        }
        if !linger {
            return Next::Close;
        }
        // Closing with bytes unread would make the kernel reset the connection, and the client could lose the answer.
        client.link.finish();
        client.phase = Phase::Linger;
        client.keep(&[]);
        self.wheel.set(&mut client.timer, client_token(id), self.timeouts.linger);
        Next::Again
    }

    /// Throws away what a client sends behind its last answer, until it closes.
    pub(super) fn linger(&mut self, id: Id) -> Next {
        loop {
            let may_read = self.may_read();
            let Some(client) = self.clients.get_mut(id) else { return Next::Close };
            if client.link.has_ended() {
                return Next::Close;
            }
            if !client.link.is_readable() {
                return Next::Wait;
            }
            if !may_read {
                return Next::Yield;
            }
            match client.link.receive(&mut self.scratch) {
                Received::Data(_) => {}
                Received::Nothing => return Next::Wait,
                Received::End | Received::Broken => return Next::Close,
            }
        }
    }
}
