//! What of the engine can be set, with ingress-nginx's defaults where it has them. Read once when the engine starts.

use std::time::Duration;

use super::super::timeouts;
use super::request::HeadLimits;
use super::wheel::{Tick, ticks};
use crate::model::Forwarding;

/// Limits and timeouts of the HTTP/1.1 engine. Timeouts are kept to about a quarter of a second.
#[derive(Debug, Clone)]
pub struct Http1Config {
    /// Limits on heads, of requests and of answers.
    pub limits: HeadLimits,
    /// From the first byte of a request's head to its last (nginx `client_header_timeout`).
    pub head_timeout: Duration,
    /// How long a connection may wait for its next request (`keepalive_timeout`).
    pub idle_timeout: Duration,
    /// Between two reads of a request's body, and between two writes to a client (`client_body_timeout`,
    /// `send_timeout`).
    pub client_timeout: Duration,
    /// What a client must send of a body per second, on average over `client_timeout`, for as long as there is no answer
    /// and its endpoint takes what comes.
    pub body_rate: u32,
    /// To connect to an endpoint (`proxy_connect_timeout`).
    pub connect_timeout: Duration,
    /// Between two reads from an endpoint, two writes to it, and of silence in an upgraded connection
    /// (`proxy_read_timeout`, `proxy_send_timeout`).
    pub upstream_timeout: Duration,
    /// How long an unused connection to an endpoint is kept (`upstream-keepalive-timeout`).
    pub pool_timeout: Duration,
    /// How many unused connections are kept per endpoint (`upstream-keepalive-connections`).
    pub pool_size: usize,
    /// How long what a refused client still sends is read and thrown away (`lingering_timeout`).
    pub linger: Duration,
    /// How long, once draining, an idle connection may still bring a request before it is closed.
    pub drain_idle: Duration,
}

impl Default for Http1Config {
    fn default() -> Self {
        Self {
            limits: HeadLimits::default(),
            head_timeout: timeouts::CLIENT_HEAD,
            idle_timeout: timeouts::CLIENT_IDLE,
            client_timeout: timeouts::CLIENT_BODY,
            body_rate: timeouts::CLIENT_BODY_RATE,
            connect_timeout: timeouts::CONNECT,
            upstream_timeout: timeouts::READ,
            pool_timeout: timeouts::UPSTREAM_IDLE,
            pool_size: 320,
            linger: Duration::from_secs(5),
            // Longer than most clients pause: a request that meets the close looks broken to whoever sent it.
            drain_idle: Duration::from_secs(5),
        }
    }
}

/// The timeouts in ticks of the wheel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    pub(super) head: Tick,
    pub(super) idle: Tick,
    pub(super) client: Tick,
    pub(super) connect: Tick,
    pub(super) upstream: Tick,
    pub(super) pool: Tick,
    pub(super) linger: Tick,
    pub(super) drain_idle: Tick,
}

/// How long one exchange waits for its endpoint: the route's timeouts, the engine's where it has none.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Patience {
    pub(super) connect: Tick,
    pub(super) read: Tick,
    pub(super) send: Tick,
}

impl Patience {
    pub(super) fn new(route: &Forwarding, default: &Timeouts) -> Self {
        Self {
            connect: route.connect_timeout.map_or(default.connect, ticks),
            read: route.read_timeout.map_or(default.upstream, ticks),
            send: route.send_timeout.map_or(default.upstream, ticks),
        }
    }
}

impl Timeouts {
    pub(super) fn new(config: &Http1Config) -> Self {
        Self {
            head: ticks(config.head_timeout),
            idle: ticks(config.idle_timeout),
            client: ticks(config.client_timeout),
            connect: ticks(config.connect_timeout),
            upstream: ticks(config.upstream_timeout),
            pool: ticks(config.pool_timeout),
            linger: ticks(config.linger),
            drain_idle: ticks(config.drain_idle),
        }
    }
}
