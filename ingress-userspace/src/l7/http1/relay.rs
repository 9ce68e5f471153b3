//! Moves one exchange on: the request's body to the endpoint, the answer to the client, in both directions only as fast
//! as the receiving side takes it. Called by `core` whenever one of the two connections has something new.

use std::time::Instant;

use super::super::answer::Answer;
use super::super::retry::Cause;
use super::body::Body;
use super::chunked::Direction;
use super::connection::{Answering, Exchange, Phase};
use super::core::{Core, Next, client_token};
use super::error::{BadAnswer, Refusal};
use super::link::Received;
use super::request::{Framing, Progress, Version};
use super::response::MAX_INTERIM;
use super::slots::Id;
use super::splice;
use super::write::{self, Persistence};

/// Up to here a body's first piece is copied behind its head; above, both are handed to the kernel as they are.
const COPIED: usize = 4096;
/// What the read for an answer's head may bring of its body where a big one is spliced: all of a page or a script, and of a
/// big body no more than that.
const HEAD_READ: usize = 20 * 1024;

impl Core {
    /// One step of the exchange.
    pub(super) fn relay(&mut self, id: Id, exchange: &mut Exchange) -> Next {
        let Some(client) = self.clients.get_mut(id) else { return Next::Close };
        // A client that closed its direction after a whole request, without having said so, is taken to be gone, as
        // nginx does; most of those that only half-close say `close` or speak HTTP/1.0.
        let gone = client.link.is_hung_up() && exchange.keep_alive && exchange.upload.is_done();
        if gone || client.link.is_dead() || client.link.flush().is_err() {
            return Next::Close;
        }
        if exchange.pending.is_some() {
            return self.connect(id, exchange);
        }
        let Some(upstream) = exchange.upstream.and_then(|id| self.upstreams.get_mut(id)) else {
            return Next::Close;
        };
        if upstream.link.flush().is_err() {
            exchange.upload_broken = true;
        }
        if !exchange.connected && upstream.link.is_connected() {
            exchange.connected = true;
            self.note_connected(exchange);
            self.wait_anew(id, exchange);
        }
        match self.upload(id, exchange) {
            Some(next) => next,
            None => self.download(id, exchange),
        }
    }

    /// The request's body. `None`: nothing more to do in this direction now.
    fn upload(&mut self, id: Id, exchange: &mut Exchange) -> Option<Next> {
        while !exchange.upload.is_done() && !exchange.upload_broken {
            let may_read = self.may_read();
            let client = self.clients.get_mut(id)?;
            let upstream = exchange.upstream.and_then(|id| self.upstreams.get_mut(id))?;
            if upstream.link.has_unsent() {
                // It is the endpoint that is slow.
                exchange.pace = None;
                return None;
            }
            if !client.link.is_readable() {
                return None;
            }
            if !may_read {
                return Some(Next::Yield);
            }
            let unseen = exchange.upload.unseen();
            if unseen >= splice::WORTH_IT
                && let Some(moved) = upstream.link.splice_from(&mut client.link, unseen, &self.pipes)
            {
                match moved {
                    Received::Data(count) => {
                        exchange.upload.passed(count);
                        exchange.note_upload(count, &self.worker.stats);
                        if let Some(next) = self.upload_goes_on(id, exchange, count) {
                            return Some(next);
                        }
                        continue;
                    }
                    Received::Nothing => return None,
                    Received::End | Received::Broken => return Some(Next::Close),
                }
            }
            let count = match client.link.receive(&mut self.scratch) {
                Received::Data(count) => count,
                Received::Nothing => return None,
                Received::End | Received::Broken => return Some(Next::Close),
            };
            exchange.note_upload(count, &self.worker.stats);
            let bytes = &self.scratch[..count];
            let Ok((taken, payload)) = exchange.upload.take_measured(bytes) else {
                return Some(self.fail(id, exchange, &Answer::bad_request(Refusal::Chunk.to_string())));
            };
            client.keep(&bytes[taken..]);
            let Some(room) = exchange.room.checked_sub(payload) else {
                return Some(self.fail(id, exchange, &Answer::BODY_TOO_LARGE));
            };
            exchange.room = room;
            if upstream.link.send(&bytes[..taken], &[]).is_err() {
                exchange.upload_broken = true;
            }
            if let Some(next) = self.upload_goes_on(id, exchange, taken) {
                return Some(next);
            }
        }
        None
    }

    /// `count` bytes of the body have gone on. `None`: more may come.
    fn upload_goes_on(&mut self, id: Id, exchange: &mut Exchange, count: usize) -> Option<Next> {
        if self.is_too_slow(exchange, count) {
            return Some(self.fail(id, exchange, &Answer::REQUEST_TIMEOUT));
        }
        self.wait_anew(id, exchange);
        None
    }

    /// Whether a body comes so slowly that it only keeps its connection busy. `count` bytes of it have just come.
    fn is_too_slow(&self, exchange: &mut Exchange, count: usize) -> bool {
        let now = Instant::now();
        let (since, before) = exchange.pace.unwrap_or((now, 0));
        let bytes = before + count as u64;
        let span = now.saturating_duration_since(since);
        let over = span >= self.config.client_timeout;
        exchange.pace = Some(if over { (now, 0) } else { (since, bytes) });
        let wanted = u128::from(self.config.body_rate) * span.as_millis() / 1000;
        over && u128::from(bytes) < wanted
            && !exchange.upload.is_done()
            && matches!(exchange.answering, Answering::Waiting)
    }

    /// Something moved: the time that the exchange may take begins anew, for whoever is to move next.
    pub(super) fn wait_anew(&mut self, id: Id, exchange: &Exchange) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let upstream = exchange.upstream.and_then(|id| self.upstreams.get(id));
        let timeout = if !exchange.connected {
            exchange.patience.connect
        } else if client.link.has_unsent() {
            self.timeouts.client
        } else if upstream.is_some_and(|upstream| upstream.link.has_unsent()) {
            exchange.patience.send
        } else if !exchange.upload.is_done() && !exchange.upload_broken {
            self.timeouts.client
        } else {
            exchange.patience.read
        };
        self.wheel.set(&mut client.timer, client_token(id), timeout);
    }

    /// The answer.
    fn download(&mut self, id: Id, exchange: &mut Exchange) -> Next {
        loop {
            let may_read = self.may_read();
            let Some(client) = self.clients.get_mut(id) else { return Next::Close };
            let Some(upstream) = exchange.upstream.and_then(|id| self.upstreams.get_mut(id)) else {
                return Next::Close;
            };
            if client.link.has_unsent() || !(upstream.link.is_readable() || upstream.link.has_ended()) {
                return Next::Wait;
            }
            if !may_read {
                return Next::Yield;
            }
            if let Answering::Body(body) = &mut exchange.answering
                && body.unseen() >= splice::WORTH_IT
                && let Some(moved) = client.link.splice_from(&mut upstream.link, body.unseen(), &self.pipes)
            {
                match moved {
                    Received::Data(count) => {
                        body.passed(count);
                        exchange.account.sent += count as u64;
                        self.worker.stats.bytes_out.add(count as u64);
                        if body.is_done() {
                            return self.finish(id, exchange);
                        }
                        self.wait_anew(id, exchange);
                        continue;
                    }
                    Received::Nothing => return Next::Wait,
                    Received::End | Received::Broken => return self.upstream_ended(id, exchange, false),
                }
            }
            let handshaking = upstream.link.is_handshaking();
            let before = upstream.pending.len();
            self.scratch[..before].copy_from_slice(&upstream.pending);
            let room = match exchange.answering {
                Answering::Waiting if !client.link.is_tls() => (before + HEAD_READ).min(self.scratch.len()),
                _ => self.scratch.len(),
            };
            match upstream.link.receive(&mut self.scratch[before..room]) {
                Received::Data(count) => {
                    let next = match exchange.answering {
                        Answering::Waiting => self.answer_head(id, exchange, before + count),
                        Answering::Body(_) => self.answer_body(id, exchange, count),
                    };
                    if let Some(next) = next {
                        return next;
                    }
                    self.wait_anew(id, exchange);
                }
                // The handshake is done: the request's body may go on.
                Received::Nothing if handshaking && !upstream.link.is_handshaking() => return Next::Again,
                Received::Nothing => return Next::Wait,
                Received::End | Received::Broken => return self.upstream_ended(id, exchange, before > 0),
            }
        }
    }

    fn upstream_ended(&mut self, id: Id, exchange: &mut Exchange, in_head: bool) -> Next {
        match exchange.answering {
            Answering::Body(Body::UntilClose) => {
                exchange.upstream_keeps = false;
                self.finish(id, exchange)
            }
            Answering::Waiting if in_head => self.bad_answer(id, exchange, BadAnswer::Truncated),
            Answering::Waiting => self.upstream_lost(id, exchange),
            Answering::Body(_) => self.bad_answer(id, exchange, BadAnswer::Truncated),
        }
    }

    /// What the endpoint sent is no answer that can be passed on.
    fn bad_answer(&mut self, id: Id, exchange: &mut Exchange, reason: BadAnswer) -> Next {
        let endpoint = exchange.in_flight.as_ref().map(super::super::balance::InFlight::address);
        tracing::warn!(?endpoint, %reason, "an endpoint's answer was refused");
        if let Some(next) = self.try_another(id, exchange, Cause::Invalid) {
            return next;
        }
        self.worker.stats.upstream_failed.add(1);
        self.fail(id, exchange, &Answer::BACKEND_INVALID)
    }

    /// `have` bytes at the start of the scratch begin with an answer's head. `None`: read on.
    fn answer_head(&mut self, id: Id, exchange: &mut Exchange, have: usize) -> Option<Next> {
        let mut at = 0;
        loop {
            let bytes = &self.scratch[at..have];
            match self.response.parse(bytes, &self.config.limits, exchange.is_head) {
                Ok(Progress::Partial) => {
                    let upstream = exchange.upstream.and_then(|id| self.upstreams.get_mut(id))?;
                    upstream.pending.clear();
                    upstream.pending.extend_from_slice(bytes);
                    return None;
                }
                Err(reason) => return Some(self.bad_answer(id, exchange, reason)),
                Ok(Progress::Complete) if self.response.is_interim() => {
                    exchange.interim += 1;
                    if exchange.interim > MAX_INTERIM {
                        return Some(self.bad_answer(id, exchange, BadAnswer::Excess));
                    }
                    // RFC 9110 section 15.2: never to HTTP/1.0 clients.
                    if exchange.version == Version::Http11 {
                        self.out.clear();
                        write::response(
                            &mut self.out,
                            bytes,
                            &self.response,
                            Persistence::Default,
                            false,
                            None,
                        );
                        let client = self.clients.get_mut(id)?;
                        if client.link.send(&self.out, &[]).is_err() {
                            return Some(Next::Close);
                        }
                    }
                    at += self.response.length;
                }
                Ok(Progress::Complete) if self.response.status == 101 => {
                    return Some(if exchange.upgrade {
                        self.switch(id, exchange, at, have)
                    } else {
                        self.bad_answer(id, exchange, BadAnswer::Upgrade)
                    });
                }
                Ok(Progress::Complete) => return self.final_head(id, exchange, at, have),
            }
        }
    }

    /// The final answer's head is parsed from `scratch[at..have]`.
    fn final_head(&mut self, id: Id, exchange: &mut Exchange, at: usize, have: usize) -> Option<Next> {
        if exchange.retry.on.statuses.contains(self.response.status)
            && let Some(next) = self.try_another(id, exchange, Cause::Status(self.response.status))
        {
            return Some(next);
        }
        let parsed = &self.response;
        let bytes = &self.scratch[at..have];
        let rest = &bytes[parsed.length..];
        let http10 = exchange.version == Version::Http10;
        exchange.unchunk = http10 && parsed.framing == Framing::Chunked;
        exchange.close = !exchange.keep_alive
            || self.worker.draining()
            || exchange.unchunk
            || parsed.framing == Framing::UntilClose
            // Whoever answers before the request is complete may not want the rest.
            || !exchange.upload.is_done();
        exchange.upstream_keeps = parsed.keep_alive;
        let persistence = match exchange.close {
            true => Persistence::Close,
            false if http10 => Persistence::KeepAlive,
            false => Persistence::Default,
        };
        if let Some(in_flight) = &exchange.in_flight {
            in_flight.succeeded();
        }
        exchange.account.headed = Some(Instant::now());
        exchange.account.status = parsed.status;
        exchange.account.upstream_status = parsed.status;
        let mut body = Body::new(parsed.framing, Direction::Response);
        let chunked = parsed.framing == Framing::Chunked && !exchange.unchunk;
        self.out.clear();
        write::response(&mut self.out, bytes, parsed, persistence, chunked, exchange.hsts);
        let head = self.out.len();
        let taken = if exchange.unchunk { body.take_payload(rest, &mut self.out) } else { body.take(rest) };
        let Ok(taken) = taken else {
            return Some(self.bad_answer(id, exchange, BadAnswer::Chunk));
        };
        let mut piece = if exchange.unchunk { &[] } else { &rest[..taken] };
        if piece.len() <= COPIED {
            self.out.extend_from_slice(piece);
            piece = &[];
        }
        exchange.upstream_keeps &= taken == rest.len();
        let status = parsed.status;
        let done = body.is_done();
        exchange.answering = Answering::Body(body);
        self.worker.stats.request(exchange.ingress, status);
        let sent = self.out.len() + piece.len();
        self.worker.stats.bytes_out.add(sent as u64);
        exchange.account.sent = (sent - head) as u64;
        if done {
            exchange.account.ended = exchange.account.headed;
        }
        let upstream = exchange.upstream.and_then(|id| self.upstreams.get_mut(id))?;
        upstream.pending = Vec::new();
        let client = self.clients.get_mut(id)?;
        if client.link.send(&self.out, piece).is_err() {
            return Some(Next::Close);
        }
        done.then(|| self.finish(id, exchange))
    }

    /// `count` bytes of an answer's body (or behind it) are in the scratch. `None`: read on.
    fn answer_body(&mut self, id: Id, exchange: &mut Exchange, count: usize) -> Option<Next> {
        let bytes = &self.scratch[..count];
        let Answering::Body(body) = &mut exchange.answering else { return None };
        self.out.clear();
        let taken = if exchange.unchunk { body.take_payload(bytes, &mut self.out) } else { body.take(bytes) };
        let Ok(taken) = taken else {
            return Some(self.bad_answer(id, exchange, BadAnswer::Chunk));
        };
        let piece = if exchange.unchunk { &self.out[..] } else { &bytes[..taken] };
        self.worker.stats.bytes_out.add(piece.len() as u64);
        exchange.account.sent += piece.len() as u64;
        exchange.upstream_keeps &= taken == count;
        let done = body.is_done();
        let client = self.clients.get_mut(id)?;
        if !piece.is_empty() && client.link.send(piece, &[]).is_err() {
            return Some(Next::Close);
        }
        done.then(|| self.finish(id, exchange))
    }

    /// 101: from here on the bytes of both sides are none of our business.
    fn switch(&mut self, id: Id, exchange: &mut Exchange, at: usize, have: usize) -> Next {
        let bytes = &self.scratch[at..have];
        self.out.clear();
        write::response(&mut self.out, bytes, &self.response, Persistence::Upgrade, false, exchange.hsts);
        self.worker.stats.request(exchange.ingress, 101);
        exchange.account.headed = Some(Instant::now());
        exchange.account.status = 101;
        exchange.account.upstream_status = 101;
        let rest = &bytes[self.response.length..];
        let Some(upstream) = exchange.upstream.and_then(|id| self.upstreams.get_mut(id)) else {
            return Next::Close;
        };
        let Some(client) = self.clients.get_mut(id) else { return Next::Close };
        upstream.pending = Vec::new();
        client.phase = Phase::Tunnel;
        let early = std::mem::take(&mut client.pending);
        self.wheel.set(&mut client.timer, client_token(id), exchange.patience.read);
        let sent = client.link.send(&self.out, rest).is_ok()
            && (early.is_empty() || upstream.link.send(&early, &[]).is_ok());
        if sent { Next::Again } else { Next::Close }
    }
}
