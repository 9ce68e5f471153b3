//! How the endpoint for one request is to be chosen: from its route and, for `upstream-hash-by`, from its head. Made by
//! `decide`, read by `balance`. Pure.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::l7::head::RequestHead;
use crate::model::{Balance, HashPart, Upstream};

/// How to choose.
#[derive(Debug, Clone, Copy, Default)]
pub struct Choice {
    /// By what.
    pub by: By,
    /// Requests at once that all workers together may have under way; more wait or are refused.
    pub limit: Option<NonZeroU32>,
    /// Requests that may wait for that.
    pub pending: u32,
    /// How long new endpoints get fewer requests.
    pub slow_start: Option<Duration>,
}

/// Which of the endpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum By {
    /// The one of two random ones with fewer requests in flight.
    #[default]
    LeastOfTwo,
    /// The next one.
    RoundRobin,
    /// The one of two random ones that is expected to answer sooner.
    Ewma,
    /// The one to which this hash leads.
    Hash(u64),
    /// Of so many to which this hash leads, the one of two random ones with fewer requests in flight.
    HashSubset(u64, NonZeroU32),
}

impl Choice {
    /// The choice for a request of a route.
    pub fn of(upstream: Option<&Upstream>, head: &RequestHead<'_>) -> Self {
        let Some(upstream) = upstream else { return Self::default() };
        let by = match &upstream.balance {
            Balance::LeastOfTwo => By::LeastOfTwo,
            Balance::RoundRobin => By::RoundRobin,
            Balance::Ewma => By::Ewma,
            Balance::Hash(parts) => By::Hash(key(parts, head)),
            Balance::HashSubset(parts, size) => By::HashSubset(key(parts, head), *size),
        };
        let Upstream { max_requests: limit, max_pending: pending, slow_start, .. } = *upstream;
        Self { by, limit, pending, slow_start }
    }
}

/// FNV-1a: the same on all nodes and workers, and for all time.
#[derive(Clone, Copy)]
struct Fnv(u64);

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

fn key(parts: &[HashPart], head: &RequestHead<'_>) -> u64 {
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    for part in parts {
        match part {
            HashPart::Text(text) => hash.add(text.as_bytes()),
            HashPart::RequestUri => {
                hash.add(head.path.as_bytes());
                if let Some(query) = head.query {
                    hash.add(b"?");
                    hash.add(query.as_bytes());
                }
            }
            HashPart::Path => hash.add(head.path.as_bytes()),
            HashPart::Query => hash.add(head.query.unwrap_or_default().as_bytes()),
            HashPart::RemoteAddr => match head.origin.client {
                std::net::IpAddr::V4(address) => hash.add(&address.octets()),
                std::net::IpAddr::V6(address) => hash.add(&address.octets()),
            },
            HashPart::Host => hash.add(head.host.as_bytes()),
            HashPart::Header(name) => hash.add(head.headers.get(name).unwrap_or_default()),
            HashPart::Argument(name) => {
                let pairs = head.query.unwrap_or_default().split('&');
                let value = pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| key == name);
                hash.add(value.map(|(_, value)| value).unwrap_or_default().as_bytes());
            }
            HashPart::Cookie(name) => hash.add(head.cookie(name).unwrap_or_default()),
        }
    }
    hash.0
}
