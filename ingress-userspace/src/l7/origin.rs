//! Who a request comes from. Usually that is what its connection says; where a trusted proxy stands in front of us (options
//! `use-forwarded-headers`, `proxy-real-ip-cidr`), it is what that proxy says of its client. Asked by both engines before
//! `decide`; the only place where a header field about the client is believed. Pure.

use std::net::{IpAddr, SocketAddr};

use super::head::{ConnectionInfo, Headers, Scheme, parse_authority};
use crate::model::Downstream;

/// Where a request comes from, as far as it is believed.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The client's address: the right-most one that is no trusted proxy's.
    pub client: IpAddr,
    /// How the client reached us, or the proxy in front of us.
    pub scheme: Scheme,
    /// The port that it chose there.
    pub port: u16,
    /// The `Host` that it sent there, if that is told: what backends get as `Host`.
    pub host: Option<&'a str>,
    /// A trusted proxy's header fields were read.
    pub is_told: bool,
    /// The options of the address. `None`: as everywhere.
    pub downstream: Option<&'a Downstream>,
}

impl<'a> Origin<'a> {
    /// What the connection says.
    pub fn of_connection(connection: &ConnectionInfo) -> Self {
        Self {
            client: connection.client.ip(),
            scheme: connection.scheme(),
            port: connection.port,
            host: None,
            is_told: false,
            downstream: None,
        }
    }

    /// What is to be believed of a request.
    pub fn of(
        connection: &ConnectionInfo,
        downstream: Option<&'a Downstream>,
        headers: &'a dyn Headers,
    ) -> Self {
        let own = Self { downstream, ..Self::of_connection(connection) };
        match downstream {
            Some(options) if options.forwarded_headers && options.trusts(own.client) => {
                own.told(options, headers)
            }
            _ => own,
        }
    }

    fn told(self, options: &'a Downstream, headers: &'a dyn Headers) -> Self {
        let last =
            |name: &str| Some(headers.all(name).pop()?.rsplit(|byte| *byte == b',').next()?.trim_ascii());
        let scheme = match last("x-forwarded-proto") {
            Some(text) if text.eq_ignore_ascii_case(b"https") => Scheme::Https,
            Some(text) if text.eq_ignore_ascii_case(b"http") => Scheme::Http,
            _ => self.scheme,
        };
        let port = last("x-forwarded-port").and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        let own_port = if scheme == self.scheme { self.port } else { scheme.default_port() };
        let host = last("x-forwarded-host").and_then(|text| std::str::from_utf8(text).ok());
        Self {
            client: client(self.client, options, headers),
            scheme,
            port: port.filter(|port| *port != 0).unwrap_or(own_port),
            host: host.filter(|host| parse_authority(host).is_ok()),
            is_told: true,
            downstream: Some(options),
        }
    }

    /// `X-Forwarded-For` as the backend gets it.
    pub fn forwarded_for(&self, connection: &ConnectionInfo, headers: &dyn Headers) -> Vec<u8> {
        let mut text = Vec::new();
        if let Some(options) = self.downstream.filter(|options| self.is_told && options.full_forwarded_for) {
            for value in headers.all(&options.forwarded_for) {
                text.extend_from_slice(value);
                text.extend_from_slice(b", ");
            }
            text.extend_from_slice(connection.client.ip().to_string().as_bytes());
        } else {
            text.extend_from_slice(self.client.to_string().as_bytes());
        }
        text
    }
}

/// The right-most address that is no proxy of ours; what cannot be read ends the list, as nginx does it.
fn client(peer: IpAddr, options: &Downstream, headers: &dyn Headers) -> IpAddr {
    let mut client = peer;
    for value in headers.all(&options.forwarded_for).into_iter().rev() {
        for entry in value.rsplit(|byte| *byte == b',') {
            let Some(address) = address(entry.trim_ascii()) else { return client };
            client = address;
            if !options.trusts(client) {
                return client;
            }
        }
    }
    client
}

/// An entry of `X-Forwarded-For`: an address, with brackets and a port where somebody wrote them.
pub(super) fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().ok().map(|socket| socket.ip());
    bare.parse().ok().or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn options() -> Downstream {
        let trusted = ["10.0.0.0/8", "2001:db8::/32"].map(|network| network.parse().unwrap()).to_vec();
        Downstream { trusted, forwarded_headers: true, ..Downstream::default() }
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn connection(peer: &str) -> ConnectionInfo {
        ConnectionInfo::new(peer.parse().unwrap(), "192.0.2.1:80".parse().unwrap(), None)
    }

    /// The client and what is sent on as `X-Forwarded-For`.
    fn client_of(peer: &str, options: &Downstream, lines: &[&str]) -> (String, String) {
        let lines: Vec<(&str, &str)> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
        let (map, connection) = (headers(&lines), connection(peer));
        let origin = Origin::of(&connection, Some(options), &map);
        let sent = String::from_utf8(origin.forwarded_for(&connection, &map)).unwrap();
        (origin.client.to_string(), sent)
    }

    #[test]
    fn the_client_is_the_right_most_address_that_is_not_trusted() {
        let options = options();
        for (peer, lines, client) in [
            // Nobody's word counts but a proxy's.
            ("192.0.2.7:1", &["6.6.6.6"][..], "192.0.2.7"),
            ("10.0.0.1:1", &[][..], "10.0.0.1"),
            ("10.0.0.1:1", &["192.0.2.9"][..], "192.0.2.9"),
            // What the client wrote itself stands to the left.
            ("10.0.0.1:1", &["6.6.6.6, 192.0.2.9"][..], "192.0.2.9"),
            ("10.0.0.1:1", &["6.6.6.6, 192.0.2.9, 10.1.1.1,10.2.2.2"][..], "192.0.2.9"),
            // Several lines are one list.
            ("10.0.0.1:1", &["6.6.6.6", "192.0.2.9 , 10.1.1.1"][..], "192.0.2.9"),
            // All of them proxies: the first.
            ("10.0.0.1:1", &["10.3.3.3, 10.1.1.1"][..], "10.3.3.3"),
            // What cannot be read ends the list.
            ("10.0.0.1:1", &["192.0.2.9, nonsense, 10.1.1.1"][..], "10.1.1.1"),
            ("10.0.0.1:1", &["unknown"][..], "10.0.0.1"),
            ("10.0.0.1:1", &[""][..], "10.0.0.1"),
            ("10.0.0.1:1", &["192.0.2.9:5000"][..], "192.0.2.9"),
            ("10.0.0.1:1", &["[2001:db9::1]:5000"][..], "2001:db9::1"),
            ("10.0.0.1:1", &["[2001:db9::1]"][..], "2001:db9::1"),
            ("[2001:db8::5]:1", &["2001:db9::1"][..], "2001:db9::1"),
            // IPv4 addresses mapped into IPv6 are what they mean.
            ("[::ffff:10.0.0.1]:1", &["::ffff:192.0.2.9"][..], "192.0.2.9"),
        ] {
            let expected = (client.to_owned(), client.to_owned());
            assert_eq!(client_of(peer, &options, lines), expected, "{peer} {lines:?}");
        }
        let off = Downstream { forwarded_headers: false, ..options.clone() };
        assert_eq!(client_of("10.0.0.1:1", &off, &["192.0.2.9"]).0, "10.0.0.1");
    }

    #[test]
    fn the_whole_list_goes_on_if_wanted() {
        let options = Downstream { full_forwarded_for: true, ..options() };
        let sent = |peer, lines: &[&str]| client_of(peer, &options, lines).1;
        assert_eq!(sent("10.0.0.1:1", &["6.6.6.6", "192.0.2.9"]), "6.6.6.6, 192.0.2.9, 10.0.0.1");
        assert_eq!(sent("10.0.0.1:1", &[]), "10.0.0.1");
        assert_eq!(sent("192.0.2.7:1", &["6.6.6.6"]), "192.0.2.7");
    }

    #[test]
    fn another_field_may_name_the_client() {
        let options = Downstream { forwarded_for: "cf-connecting-ip".into(), ..options() };
        let map = headers(&[("x-forwarded-for", "6.6.6.6"), ("cf-connecting-ip", "192.0.2.9")]);
        let origin = Origin::of(&connection("10.0.0.1:1"), Some(&options), &map);
        assert_eq!(origin.client.to_string(), "192.0.2.9");
    }

    #[test]
    fn scheme_port_and_host_are_told() {
        let options = options();
        for (fields, expected) in [
            (&[][..], (Scheme::Http, 80, None)),
            (&[("x-forwarded-proto", "HTTPS")][..], (Scheme::Https, 443, None)),
            (&[("x-forwarded-proto", "ftp")][..], (Scheme::Http, 80, None)),
            (
                &[("x-forwarded-proto", "http, https"), ("x-forwarded-port", "8443")][..],
                (Scheme::Https, 8443, None),
            ),
            (
                &[("x-forwarded-port", "0"), ("x-forwarded-host", "b.test:8080")][..],
                (Scheme::Http, 80, Some("b.test:8080")),
            ),
            (&[("x-forwarded-host", "evil.test, b.test")][..], (Scheme::Http, 80, Some("b.test"))),
            (&[("x-forwarded-host", "b .test")][..], (Scheme::Http, 80, None)),
        ] {
            let map = headers(fields);
            let origin = Origin::of(&connection("10.0.0.1:1"), Some(&options), &map);
            assert_eq!((origin.scheme, origin.port, origin.host), expected, "{fields:?}");
            let stranger = Origin::of(&connection("192.0.2.7:1"), Some(&options), &map);
            assert_eq!(
                (stranger.scheme, stranger.port, stranger.host),
                (Scheme::Http, 80, None),
                "{fields:?}"
            );
        }
    }
}
