//! One finished request as one line, in the two formats. Pure but for the clock. Called by `AccessLog`.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use super::super::trace::push_hex;
use super::{Finished, Note};

/// The time of day as text; rendered anew once a second.
#[derive(Debug, Default)]
pub(super) struct Clock {
    second: u64,
    nanoseconds: u32,
    /// `24/Nov/2026:23:38:40 +0000`
    nginx: String,
    /// `2026-11-24T23:38:40`
    iso: String,
}

impl Clock {
    pub(super) fn read(&mut self) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.nanoseconds = now.subsec_nanos();
        if now.as_secs() != self.second || self.iso.is_empty() {
            self.set(now.as_secs());
        }
    }

    fn set(&mut self, second: u64) {
        self.second = second;
        let time = jiff::Timestamp::from_second(second.cast_signed()).unwrap_or_default();
        self.nginx = time.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string();
        self.iso = time.strftime("%Y-%m-%dT%H:%M:%S").to_string();
    }
}

/// `$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"
/// $request_length $request_time [$proxy_upstream_name] [] $upstream_addr $upstream_response_length
/// $upstream_response_time $upstream_status $req_id`, then node, VIP, connect time, header time, namespace/Ingress.
pub(super) fn nginx(out: &mut Vec<u8>, clock: &Clock, node: &str, finished: &Finished<'_>) {
    let note = |note| finished.notes.get(note);
    address(out, finished.client);
    out.extend_from_slice(b" - - [");
    out.extend_from_slice(clock.nginx.as_bytes());
    out.extend_from_slice(b"] \"");
    escaped(out, note(Note::Line));
    out.extend_from_slice(b"\" ");
    number(out, u64::from(finished.status));
    out.push(b' ');
    number(out, finished.sent);
    out.extend_from_slice(b" \"");
    dashed(out, note(Note::Referer));
    out.extend_from_slice(b"\" \"");
    dashed(out, note(Note::UserAgent));
    out.extend_from_slice(b"\" ");
    number(out, finished.received);
    out.push(b' ');
    seconds(out, finished.took);
    out.extend_from_slice(b" [");
    escaped(out, note(Note::Upstream));
    out.extend_from_slice(b"] [] ");
    match &finished.upstream {
        None => out.extend_from_slice(b"- - - - "),
        Some(upstream) => {
            socket(out, upstream.endpoint);
            out.push(b' ');
            number(out, upstream.bytes);
            out.push(b' ');
            seconds(out, upstream.response);
            out.push(b' ');
            match upstream.status {
                0 => out.push(b'-'),
                status => number(out, u64::from(status)),
            }
            out.push(b' ');
        }
    }
    dashed(out, note(Note::RequestId));
    out.push(b' ');
    out.extend_from_slice(node.as_bytes());
    out.push(b' ');
    socket(out, finished.connection.local);
    out.push(b' ');
    match &finished.upstream {
        None => out.extend_from_slice(b"- -"),
        Some(upstream) => {
            seconds(out, upstream.connect);
            out.push(b' ');
            match upstream.header {
                None => out.push(b'-'),
                Some(header) => seconds(out, header),
            }
        }
    }
    out.push(b' ');
    match note(Note::Ingress) {
        b"" => out.push(b'-'),
        ingress => {
            out.extend_from_slice(note(Note::Namespace));
            out.push(b'/');
            out.extend_from_slice(ingress);
        }
    }
    out.push(b'\n');
}

/// The same as an object; what is not known is left out.
pub(super) fn json(out: &mut Vec<u8>, clock: &Clock, node: &str, finished: &Finished<'_>) {
    out.extend_from_slice(b"{\"time\":\"");
    out.extend_from_slice(clock.iso.as_bytes());
    // Writing into a Vec cannot fail.
    let _ = write!(out, ".{:03}Z\"", clock.nanoseconds / 1_000_000);
    text(out, "node", node.as_bytes());
    key(out, "vip");
    quoted(out, |out| socket(out, finished.connection.local));
    key(out, "client");
    let peer = finished.connection.client;
    if finished.client == peer.ip() {
        quoted(out, |out| socket(out, peer));
    } else {
        quoted(out, |out| address(out, finished.client));
        key(out, "proxy");
        quoted(out, |out| socket(out, peer));
    }
    key(out, "tls");
    out.extend_from_slice(if finished.connection.tls.is_some() { b"true" } else { b"false" });
    let line = finished.notes.get(Note::Line);
    let mut parts = line.splitn(2, |byte| *byte == b' ');
    let (method, rest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut parts = rest.rsplitn(2, |byte| *byte == b' ');
    let (protocol, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    for (name, value) in [("method", method), ("uri", target), ("protocol", protocol)] {
        text(out, name, value);
    }
    for (name, note) in [
        ("host", Note::Host),
        ("referer", Note::Referer),
        ("user_agent", Note::UserAgent),
        ("request_id", Note::RequestId),
        ("namespace", Note::Namespace),
        ("ingress", Note::Ingress),
        ("upstream_name", Note::Upstream),
    ] {
        text(out, name, finished.notes.get(note));
    }
    if let Some(trace) = finished.notes.get(Note::Trace).first_chunk::<16>() {
        key(out, "trace_id");
        quoted(out, |out| push_hex(out, trace));
    }
    for (name, value) in [
        ("status", u64::from(finished.status)),
        ("request_bytes", finished.received),
        ("body_bytes", finished.sent),
    ] {
        key(out, name);
        number(out, value);
    }
    key(out, "request_time");
    seconds(out, finished.took);
    if let Some(upstream) = &finished.upstream {
        key(out, "upstream");
        quoted(out, |out| socket(out, upstream.endpoint));
        if upstream.status != 0 {
            key(out, "upstream_status");
            number(out, u64::from(upstream.status));
        }
        key(out, "upstream_connect_time");
        seconds(out, upstream.connect);
        if let Some(header) = upstream.header {
            key(out, "upstream_header_time");
            seconds(out, header);
        }
        key(out, "upstream_response_time");
        seconds(out, upstream.response);
        key(out, "upstream_bytes");
        number(out, upstream.bytes);
    }
    out.extend_from_slice(b"}\n");
}

fn address(out: &mut Vec<u8>, ip: std::net::IpAddr) {
    match ip {
        std::net::IpAddr::V4(v4) => {
            for (index, part) in v4.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                number(out, u64::from(part));
            }
        }
        std::net::IpAddr::V6(v6) => {
            let _ = write!(out, "{v6}");
        }
    }
}

fn socket(out: &mut Vec<u8>, socket: std::net::SocketAddr) {
    if socket.is_ipv6() {
        let _ = write!(out, "{socket}");
        return;
    }
    address(out, socket.ip());
    out.push(b':');
    number(out, u64::from(socket.port()));
}

/// Decimal digits, without the machinery of `fmt`: a line has a dozen numbers.
fn number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Seconds with milliseconds, as nginx writes them.
fn seconds(out: &mut Vec<u8>, time: Duration) {
    number(out, time.as_secs());
    let millis = time.subsec_millis();
    let digit = |value: u32| b'0' + (value % 10) as u8;
    out.extend_from_slice(&[b'.', digit(millis / 100), digit(millis / 10), digit(millis)]);
}

fn dashed(out: &mut Vec<u8>, value: &[u8]) {
    if value.is_empty() { out.push(b'-') } else { escaped(out, value) }
}

/// nginx's default escaping: what could break out of the quotes or the line becomes `\xHH`.
fn escaped(out: &mut Vec<u8>, value: &[u8]) {
    let plain = |byte: &u8| matches!(byte, 0x20..=0x7e) && !matches!(byte, b'"' | b'\\');
    if value.iter().all(plain) {
        return out.extend_from_slice(value);
    }
    for byte in value {
        if plain(byte) {
            out.push(*byte);
        } else {
            let _ = write!(out, "\\x{byte:02X}");
        }
    }
}

fn key(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn quoted(out: &mut Vec<u8>, value: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    value(out);
    out.push(b'"');
}

fn text(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    if value.is_empty() {
        return;
    }
    key(out, name);
    let plain = |byte: &u8| matches!(byte, 0x20..=0x7e) && !matches!(byte, b'"' | b'\\');
    if value.iter().all(plain) {
        return quoted(out, |out| out.extend_from_slice(value));
    }
    // Bytes that are not UTF-8 become U+FFFD; a string always serialises.
    let _ = serde_json::to_writer(&mut *out, &*String::from_utf8_lossy(value));
}

#[cfg(test)]
mod tests {
    use super::super::{Notes, UpstreamPart};
    use super::*;
    use crate::l7::head::ConnectionInfo;
    use crate::l7::stats::IngressSlot;

    fn line(render: fn(&mut Vec<u8>, &Clock, &str, &Finished<'_>), full: bool) -> String {
        let mut clock = Clock::default();
        clock.set(1_795_563_520);
        let local = "192.0.2.1:80".parse().unwrap();
        let connection = ConnectionInfo::new("192.0.2.7:5000".parse().unwrap(), local, None);
        let mut notes = Notes::default();
        if full {
            notes.set(Note::Line, &[b"GET", b" ", b"/a?\"b", b" HTTP/1.1"]);
            notes.set(Note::Host, &[b"foo.bar"]);
            notes.set(Note::UserAgent, &["Ä\n".as_bytes()]);
            notes.set(Note::RequestId, &[b"0a"]);
            notes.set(Note::Namespace, &[b"ns"]);
            notes.set(Note::Ingress, &[b"web"]);
            notes.set(Note::Upstream, &[b"ns-svc-80"]);
        }
        let upstream = UpstreamPart {
            endpoint: "[fd00::1]:8080".parse().unwrap(),
            status: 200,
            connect: Duration::from_micros(1500),
            header: Some(Duration::from_millis(20)),
            response: Duration::from_millis(1042),
            bytes: 12,
        };
        let finished = Finished {
            connection: &connection,
            client: connection.client.ip(),
            ingress: IngressSlot::OTHER,
            status: if full { 200 } else { 400 },
            received: 345,
            sent: 12,
            took: Duration::from_millis(1043),
            upstream: full.then_some(upstream),
            notes: &notes,
        };
        let mut out = Vec::new();
        render(&mut out, &clock, "node-a", &finished);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nginx_lines() {
        assert_eq!(
            line(nginx, true),
            "192.0.2.7 - - [24/Nov/2026:23:38:40 +0000] \"GET /a?\\x22b HTTP/1.1\" 200 12 \"-\" \"\\xC3\\x84\\x0A\" \
             345 1.043 [ns-svc-80] [] [fd00::1]:8080 12 1.042 200 0a node-a 192.0.2.1:80 0.001 0.020 ns/web\n"
        );
        assert_eq!(
            line(nginx, false),
            "192.0.2.7 - - [24/Nov/2026:23:38:40 +0000] \"\" 400 12 \"-\" \"-\" 345 1.043 [] [] - - - - - \
             node-a 192.0.2.1:80 - - -\n"
        );
    }

    #[test]
    fn json_lines_are_json() {
        let read: serde_json::Value = serde_json::from_str(&line(json, true)).unwrap();
        for (name, value) in [
            ("time", "2026-11-24T23:38:40.000Z"),
            ("node", "node-a"),
            ("vip", "192.0.2.1:80"),
            ("method", "GET"),
            ("uri", "/a?\"b"),
            ("protocol", "HTTP/1.1"),
            ("user_agent", "Ä\n"),
            ("ingress", "web"),
            ("upstream", "[fd00::1]:8080"),
        ] {
            assert_eq!(read[name], value, "{name}");
        }
        assert_eq!((&read["status"], &read["upstream_header_time"]), (&200.into(), &0.02.into()));
        let bare: serde_json::Value = serde_json::from_str(&line(json, false)).unwrap();
        assert_eq!((&bare["status"], bare.get("upstream"), bare.get("ingress")), (&400.into(), None, None));
    }
}
