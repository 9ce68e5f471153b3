//! `Forwarded` (RFC 7239), for classes whose option `generate-forwarded` asks for it. It is made of the same words as
//! `X-Forwarded-*`, so the two never contradict each other; a `Forwarded` that comes in is dropped, whoever sent it: a proxy
//! that writes `X-Forwarded-For` may pass on what its client made up here.

use std::io::Write as _;
use std::net::IpAddr;

use super::super::head::RequestHead;
use super::super::origin::address;

/// The most elements that are written, the nearest ones: a list of short entries must not grow many times over.
const MOST: usize = 32;

/// Whether the request's class asks for the field.
pub(super) fn is_wanted(head: &RequestHead<'_>) -> bool {
    head.origin.downstream.is_some_and(|options| options.forwarded)
}

/// Writes the field's value; `list` is that of `X-Forwarded-For`.
pub(super) fn write(out: &mut Vec<u8>, head: &RequestHead<'_>, list: &[u8]) {
    let origin = &head.origin;
    // From the right: what cannot be read ends the list, as it does for `Origin`.
    let entries = list.rsplit(|byte| *byte == b',').map_while(|entry| address(entry.trim_ascii()));
    let nearest: Vec<IpAddr> = entries.take(MOST).collect();
    let client = nearest.iter().position(|address| *address == origin.client);
    // Writing into a Vec cannot fail.
    for (index, address) in nearest.iter().enumerate().rev() {
        let _ = match address {
            IpAddr::V4(address) => write!(out, "for={address}"),
            IpAddr::V6(address) => write!(out, "for=\"[{address}]\""),
        };
        // Host and scheme are those that the client chose, so they stand with its address.
        if Some(index) == client {
            if !head.authority.is_empty() {
                // A valid `Host` has neither quotes nor backslashes.
                let _ = write!(out, ";host=\"{}\"", head.authority);
            }
            let _ = write!(out, ";proto={}", origin.scheme.as_str());
        }
        if index > 0 {
            out.extend_from_slice(b", ");
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::super::super::head::ConnectionInfo;
    use super::super::super::origin::Origin;
    use super::*;
    use crate::model::Downstream;

    fn options() -> Downstream {
        Downstream {
            trusted: vec!["10.0.0.0/8".parse().unwrap()],
            forwarded_headers: true,
            forwarded: true,
            ..Downstream::default()
        }
    }

    fn value_of(peer: &str, options: &Downstream, forwarded_for: &str) -> Option<String> {
        let connection = ConnectionInfo::new(peer.parse().unwrap(), "192.0.2.1:80".parse().unwrap(), None);
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", forwarded_for.parse().unwrap());
        headers.insert("x-forwarded-proto", "https".parse().unwrap());
        headers.insert("forwarded", "for=6.6.6.6".parse().unwrap());
        let head = RequestHead {
            origin: Origin::of(&connection, Some(options), &headers),
            authority: "foo.bar.com:8443",
            host: "foo.bar.com",
            ..RequestHead::example(&connection, &headers)
        };
        is_wanted(&head).then(|| {
            let mut value = Vec::new();
            write(&mut value, &head, &head.origin.forwarded_for(&connection, &headers));
            String::from_utf8(value).unwrap()
        })
    }

    #[test]
    fn it_says_what_is_believed() {
        for (peer, full, sent, expected) in [
            ("192.0.2.7:1", false, "6.6.6.6", "for=192.0.2.7;host=\"foo.bar.com:8443\";proto=http"),
            (
                "[2001:db8::7]:1",
                true,
                "6.6.6.6",
                "for=\"[2001:db8::7]\";host=\"foo.bar.com:8443\";proto=http",
            ),
            (
                "10.0.0.1:1",
                false,
                "6.6.6.6, 192.0.2.9",
                "for=192.0.2.9;host=\"foo.bar.com:8443\";proto=https",
            ),
            (
                "10.0.0.1:1",
                true,
                "6.6.6.6, [2001:db8::9]:5000, 10.0.0.2",
                "for=6.6.6.6, for=\"[2001:db8::9]\";host=\"foo.bar.com:8443\";proto=https, for=10.0.0.2, for=10.0.0.1",
            ),
            // What cannot be read ends the list.
            (
                "10.0.0.1:1",
                true,
                "192.0.2.9, a\", 10.0.0.2",
                "for=10.0.0.2;host=\"foo.bar.com:8443\";proto=https, for=10.0.0.1",
            ),
        ] {
            let options = Downstream { full_forwarded_for: full, ..options() };
            assert_eq!(value_of(peer, &options, sent).as_deref(), Some(expected), "{peer} {sent}");
        }
        assert_eq!(value_of("10.0.0.1:1", &Downstream { forwarded: false, ..options() }, "192.0.2.9"), None);
    }

    #[test]
    fn long_lists_are_cut() {
        let options = Downstream { full_forwarded_for: true, ..options() };
        let value = value_of("10.0.0.1:1", &options, &"10.0.0.2,".repeat(1000)[..8999]).unwrap();
        assert_eq!(value.matches("for=").count(), MOST);
        assert!(value.ends_with(", for=10.0.0.1"), "{value}");
    }
}
