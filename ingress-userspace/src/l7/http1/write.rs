//! Writes heads towards the other side: what the peer sent, without what ends at this hop, with what we set. Called by
//! the exchange with the buffer that the head was parsed from; runs of kept lines are copied as one piece. Pure.

use std::io::Write as _;

use super::super::filter::hsts;
use super::super::forwarded::{keeps_request_header, keeps_response_header, write_forwarded};
use super::super::head::{Edits, Headers, RequestHead};
use super::fields::{Field, FieldKind};
use super::request::{Framing, ParsedRequest};
use super::response::ParsedResponse;
use super::syntax::list;
use crate::model::Hsts;

/// The header fields of a parsed request as routing and filters see them.
pub(crate) struct ParsedHeaders<'a> {
    /// The buffer that the head was parsed from.
    pub(crate) buffer: &'a [u8],
    /// The head.
    pub(crate) request: &'a ParsedRequest,
}

impl Headers for ParsedHeaders<'_> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.request
            .fields
            .iter()
            .find(|field| field.name.of(self.buffer).eq_ignore_ascii_case(name.as_bytes()))
            .map(|field| field.value.of(self.buffer))
    }

    fn all(&self, name: &str) -> Vec<&[u8]> {
        let fields = self.request.fields.iter();
        fields
            .filter(|field| field.name.of(self.buffer).eq_ignore_ascii_case(name.as_bytes()))
            .map(|field| field.value.of(self.buffer))
            .collect()
    }
}

/// Appends the request's head as the endpoint gets it. `buffer` is what `parsed` was parsed from.
pub(crate) fn request(
    out: &mut Vec<u8>,
    buffer: &[u8],
    parsed: &ParsedRequest,
    head: &RequestHead<'_>,
    edits: Option<&Edits>,
    id: &[u8],
) {
    request_line(out, head, edits);
    let named = Named::new(buffer, &parsed.fields);
    let underscores = head.origin.downstream.is_some_and(|options| options.underscores);
    copy_fields(out, buffer, &parsed.fields, parsed.length, |field| match field.kind {
        FieldKind::ContentLength => true,
        FieldKind::Expect => parsed.expect_continue,
        FieldKind::Other => {
            let name = field.name.of(buffer);
            keeps_request_header(name, underscores) && !named.contains(name) && !is_edited(edits, name)
        }
        _ => false,
    });
    write_forwarded(out, head, id);
    if parsed.framing == Framing::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if let Some(protocols) = parsed.upgrade {
        upgrade(out, protocols.of(buffer));
    }
    set_fields(out, edits);
    out.extend_from_slice(b"\r\n");
}

/// Appends the request line and `Host`.
pub(in crate::l7) fn request_line(out: &mut Vec<u8>, head: &RequestHead<'_>, edits: Option<&Edits>) {
    out.extend_from_slice(head.method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(edits.and_then(|edits| edits.path.as_deref()).unwrap_or(head.path).as_bytes());
    if let Some(query) = head.query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    out.extend_from_slice(edits.and_then(|edits| edits.host.as_deref()).unwrap_or(head.authority).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends the fields that filters set.
pub(in crate::l7) fn set_fields(out: &mut Vec<u8>, edits: Option<&Edits>) {
    for (name, value) in edits.iter().flat_map(|edits| &edits.set) {
        field(out, name.as_bytes(), value);
    }
}

/// Appends a field's line.
pub(in crate::l7) fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// What the head of an answer says about the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// HTTP/1.1's default: nothing to say.
    Default,
    /// `Connection: close`
    Close,
    /// `Connection: keep-alive`, which HTTP/1.0 clients need to be told.
    KeepAlive,
    /// 101: `Connection: upgrade` and the backend's `Upgrade`.
    Upgrade,
}

/// Appends an answer's head as the client gets it. `chunked` says that the body goes out in chunks, `hsts` what stands in
/// the place of the backend's own.
pub(crate) fn response(
    out: &mut Vec<u8>,
    buffer: &[u8],
    parsed: &ParsedResponse,
    persistence: Persistence,
    chunked: bool,
    hsts: Option<Hsts>,
) {
    // The status was parsed from three digits. Writing into a Vec cannot fail.
    let _ = write!(out, "HTTP/1.1 {} ", parsed.status);
    out.extend_from_slice(parsed.reason.of(buffer));
    out.extend_from_slice(b"\r\n");
    let crosses = crossing(buffer, parsed);
    copy_fields(out, buffer, &parsed.fields, parsed.length, |field| {
        crosses(field)
            && !(hsts.is_some() && field.name.of(buffer).eq_ignore_ascii_case(hsts::NAME.as_bytes()))
    });
    if let Some(hsts) = hsts {
        hsts::write(out, hsts);
    }
    if chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    match persistence {
        Persistence::Default => {}
        Persistence::Close => out.extend_from_slice(b"Connection: close\r\n"),
        Persistence::KeepAlive => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        Persistence::Upgrade => {
            for field in parsed.fields.iter().filter(|field| field.kind == FieldKind::Upgrade) {
                upgrade(out, field.value.of(buffer));
            }
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Which fields of an answer go on to the client.
pub(in crate::l7) fn crossing<'a>(
    buffer: &'a [u8],
    parsed: &'a ParsedResponse,
) -> impl Fn(&Field) -> bool + use<'a> {
    // RFC 9110 section 8.6: neither 1xx nor 204 may have one, but backends send it.
    let length = !matches!(parsed.status, 100..=199 | 204);
    let named = Named::new(buffer, &parsed.fields);
    move |field| match field.kind {
        FieldKind::ContentLength => length,
        FieldKind::Other | FieldKind::Host | FieldKind::Expect => {
            let name = field.name.of(buffer);
            keeps_response_header(name) && !named.contains(name)
        }
        _ => false,
    }
}

fn upgrade(out: &mut Vec<u8>, protocols: &[u8]) {
    out.extend_from_slice(b"Connection: upgrade\r\nUpgrade: ");
    out.extend_from_slice(protocols);
    out.extend_from_slice(b"\r\n");
}

/// Copies the lines that `keeps` keeps; lines that stand together are copied together. `end` is the head's length.
fn copy_fields(
    out: &mut Vec<u8>,
    buffer: &[u8],
    fields: &[Field],
    end: usize,
    keeps: impl Fn(&Field) -> bool,
) {
    let mut run: Option<usize> = None;
    for field in fields {
        let start = field.name.start as usize;
        match (keeps(field), run) {
            (true, None) => run = Some(start),
            (false, Some(from)) => {
                out.extend_from_slice(&buffer[from..start]);
                run = None;
            }
            _ => {}
        }
    }
    if let Some(from) = run {
        // Without the empty line.
        out.extend_from_slice(&buffer[from..end - 2]);
    }
}

/// Whether filters take a field out or put another in its place.
pub(in crate::l7) fn is_edited(edits: Option<&Edits>, name: &[u8]) -> bool {
    edits.is_some_and(|edits| {
        let same = |known: &str| known.as_bytes().eq_ignore_ascii_case(name);
        edits.remove.iter().any(|known| same(known)) || edits.set.iter().any(|(known, _)| same(known))
    })
}

/// The fields that `Connection` names, beside the options that mean the connection itself (RFC 9110 section 7.6.1).
struct Named<'a> {
    buffer: &'a [u8],
    fields: &'a [Field],
    any: bool,
}

impl<'a> Named<'a> {
    fn new(buffer: &'a [u8], fields: &'a [Field]) -> Self {
        let named = Self { buffer, fields, any: true };
        let any = named.names().next().is_some();
        Self { any, ..named }
    }

    fn names(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let buffer = self.buffer;
        self.fields
            .iter()
            .filter(|field| field.kind == FieldKind::Connection)
            .flat_map(move |field| list(field.value.of(buffer)))
            .filter(|option| {
                !["close", "keep-alive", "upgrade"]
                    .iter()
                    .any(|own| option.eq_ignore_ascii_case(own.as_bytes()))
            })
    }

    fn contains(&self, name: &[u8]) -> bool {
        self.any && self.names().any(|option| option.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
