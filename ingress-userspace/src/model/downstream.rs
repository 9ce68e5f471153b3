//! The clients' side of an address: whom it believes what they say about others, and what it makes of their header fields.
//! From the options of a class; everything at its default is the usual case.

use std::net::IpAddr;

use ipnet::IpNet;

/// How connections to an address are understood.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "options that are independent of each other")]
pub struct Downstream {
    /// `proxy-real-ip-cidr`: proxies in front of us, whose word about their clients counts.
    pub trusted: Vec<IpNet>,
    /// `use-forwarded-headers`: their `X-Forwarded-*` count.
    pub forwarded_headers: bool,
    /// `forwarded-for-header`: where they write the addresses of their clients. Lower case.
    pub forwarded_for: Box<str>,
    /// `compute-full-forwarded-for`: the backend gets the whole list, and the proxy's address behind it.
    pub full_forwarded_for: bool,
    /// `generate-forwarded`: the backend gets `Forwarded` (RFC 7239), too.
    pub forwarded: bool,
    /// `use-proxy-protocol`: their connections begin with a PROXY header.
    pub proxy_protocol: bool,
    /// `enable-underscores-in-headers`: fields whose names have underscores go on to the backend.
    pub underscores: bool,
    /// `generate-request-id`: requests without an `X-Request-ID` get one.
    pub request_ids: bool,
}

impl Default for Downstream {
    fn default() -> Self {
        Self {
            trusted: Vec::new(),
            forwarded_headers: false,
            forwarded_for: "x-forwarded-for".into(),
            full_forwarded_for: false,
            forwarded: false,
            proxy_protocol: false,
            underscores: false,
            request_ids: true,
        }
    }
}

impl Downstream {
    /// Whether this address is a proxy of ours.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&address))
    }
}
