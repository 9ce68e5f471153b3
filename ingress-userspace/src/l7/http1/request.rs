//! Parses a request head in one pass over the connection's buffer and decides how the body is framed.
//! Called by the exchange for each request; the parsed head is reused, so a request allocates nothing.
//! Everything that RFC 9112 calls ambiguous is refused here: nothing later repairs a message.

use super::{
    error::Refusal,
    fields::{self, Field, FieldError, FieldKind},
    syntax::{Span, decimal, is_target, is_token, list},
};

/// Limits on a head.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Bytes of the whole head, request or status line included.
    pub bytes: usize,
    /// Bytes of the request line.
    pub line: usize,
    /// Field lines.
    pub fields: usize,
}

impl Default for HeadLimits {
    /// nginx's sizes (`large_client_header_buffers 4 8k`), and a count that no browser comes near.
    fn default() -> HeadLimits {
        HeadLimits { bytes: 32 * 1024, line: 8 * 1024, fields: 128 }
    }
}

/// HTTP's minor version; the major one is always 1 here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// HTTP/1.0: no chunked coding, no 1xx, closes unless `keep-alive` is asked for.
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
}

/// How the end of a body is found (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// This many bytes.
    Length(u64),
    /// Chunked coding.
    Chunked,
    /// Everything until the connection closes; answers only.
    UntilClose,
}

/// The form of the request target (RFC 9112 section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetForm {
    /// `/path?query`
    #[default]
    Origin,
    /// `http://authority/path?query`
    Absolute,
    /// `*`, for `OPTIONS`.
    Asterisk,
}

/// A parsed request head. Spans point into the buffer that was parsed.
#[derive(Debug, Default)]
pub struct ParsedRequest {
    /// The method as sent (methods are case-sensitive).
    pub method: Span,
    /// The request target as sent.
    pub target: Span,
    /// Which form the target has.
    pub form: TargetForm,
    /// Path and query within the target: for the absolute form what follows the authority, which may be empty.
    pub path_and_query: Span,
    /// The authority of an absolute-form target, else the value of `Host`.
    pub authority: Option<Span>,
    /// The protocol's version.
    pub version: Version,
    /// All field lines in order.
    pub fields: Vec<Field>,
    /// Length of the head, the empty line included.
    pub length: usize,
    /// How the body is framed.
    pub framing: Framing,
    /// Whether the client wants the connection kept (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// `Expect: 100-continue` from an HTTP/1.1 client.
    pub expect_continue: bool,
    /// The value of `Upgrade` when the client asks to switch protocols, in a way that we pass on.
    pub upgrade: Option<Span>,
}

/// Whether a head is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It is; the parsed fields are valid.
    Complete,
    /// More bytes are needed; nothing refused so far.
    Partial,
}

impl ParsedRequest {
    /// Parses the head at the start of `buffer`. After `Partial`, call again with more bytes in the same
    /// buffer; after an error the connection must be closed.
    pub fn parse(&mut self, buffer: &[u8], limits: &HeadLimits) -> Result<Progress, Refusal> {
        match self.scan(buffer, limits)? {
            Some(length) if length > limits.bytes => Err(Refusal::HeadTooLarge),
            Some(length) => {
                self.length = length;
                self.understand(buffer)?;
                Ok(Progress::Complete)
            }
            None if buffer.len() >= limits.bytes => Err(Refusal::HeadTooLarge),
            None => Ok(Progress::Partial),
        }
    }

    /// The request line as sent, without its line end. Only for a complete head.
    pub(crate) fn line<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        const VERSION: usize = " HTTP/1.1".len();
        &buffer[self.method.start as usize..self.target.end as usize + VERSION]
    }

    /// Finds the lines; the length of the head, or `None` when it is incomplete.
    fn scan(&mut self, buffer: &[u8], limits: &HeadLimits) -> Result<Option<usize>, Refusal> {
        self.fields.clear();
        let mut at = 0;
        // RFC 9112 section 2.2: an empty line before the request line is skipped; old clients send one
        // after a POST body.
        if buffer.starts_with(b"\r\n") {
            at = 2;
        }
        let Some(next) = self.request_line(buffer, at, limits)? else {
            return Ok(None);
        };
        fields::parse(buffer, next, limits.fields, &mut self.fields).map_err(|error| match error {
            FieldError::LineEnd => Refusal::LineEnd,
            FieldError::Folding => Refusal::Folding,
            FieldError::Name => Refusal::FieldName,
            FieldError::Value => Refusal::FieldValue,
            FieldError::TooMany => Refusal::HeadTooLarge,
        })
    }

    fn request_line(
        &mut self,
        buffer: &[u8],
        start: usize,
        limits: &HeadLimits,
    ) -> Result<Option<usize>, Refusal> {
        const LONGEST_METHOD: usize = 32;
        let mut at = start;
        while at < buffer.len() && is_token(buffer[at]) {
            at += 1;
        }
        if at - start > LONGEST_METHOD {
            return Err(Refusal::RequestLine);
        }
        match buffer.get(at) {
            // A lone CR may be the first half of the empty line.
            None => return Ok(None),
            Some(b'\r') if at == start && buffer.len() == at + 1 => return Ok(None),
            Some(b' ') if at > start => {}
            Some(b'\n') if at == start => return Err(Refusal::LineEnd),
            Some(_) => return Err(Refusal::RequestLine),
        }
        self.method = Span::new(start, at);
        at += 1;
        let target_start = at;
        while at < buffer.len() && is_target(buffer[at]) {
            at += 1;
        }
        if at - start > limits.line {
            return Err(Refusal::TargetTooLong);
        }
        match buffer.get(at) {
            None => return Ok(None),
            Some(b' ') if at > target_start => {}
            Some(b' ' | b'\r' | b'\n') => return Err(Refusal::RequestLine),
            Some(_) => return Err(Refusal::Target),
        }
        self.target = Span::new(target_start, at);
        at += 1;
        let version = &buffer[at..buffer.len().min(at + 8)];
        self.version = match version {
            b"HTTP/1.1" => Version::Http11,
            b"HTTP/1.0" => Version::Http10,
            _ if is_start_of_version(version) => return Ok(None),
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                return Err(Refusal::Version);
            }
            _ => return Err(Refusal::RequestLine),
        };
        at += 8;
        match (buffer.get(at), buffer.get(at + 1)) {
            (None, _) | (Some(b'\r'), None) => Ok(None),
            (Some(b'\r'), Some(b'\n')) => Ok(Some(at + 2)),
            (Some(b'\r' | b'\n'), _) => Err(Refusal::LineEnd),
            _ => Err(Refusal::RequestLine),
        }
    }

    /// What the fields mean for framing, routing and the connection.
    fn understand(&mut self, buffer: &[u8]) -> Result<(), Refusal> {
        let mut host = None;
        let mut length = None;
        let mut chunked = false;
        let mut upgrade = None;
        let mut expects = false;
        let (mut close, mut keep, mut connection_upgrade) = (false, false, false);
        for field in &self.fields {
            let value = field.value.of(buffer);
            match field.kind {
                FieldKind::Other | FieldKind::HopByHop => {}
                FieldKind::Host => {
                    if host.replace(field.value).is_some() {
                        return Err(Refusal::HostRepeated);
                    }
                }
                FieldKind::ContentLength => {
                    let number = decimal(value).ok_or(Refusal::ContentLength)?;
                    if length.replace(number).is_some() {
                        return Err(Refusal::ContentLength);
                    }
                }
                FieldKind::TransferEncoding => {
                    if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(Refusal::TransferEncoding);
                    }
                    chunked = true;
                }
                FieldKind::Connection => {
                    for option in list(value) {
                        close |= option.eq_ignore_ascii_case(b"close");
                        keep |= option.eq_ignore_ascii_case(b"keep-alive");
                        connection_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                    }
                }
                FieldKind::Upgrade => {
                    // Two Upgrade lines would have to be joined; nobody sends them: not passed on.
                    upgrade = if upgrade.is_some() { Some(Span::default()) } else { Some(field.value) };
                }
                FieldKind::Expect => {
                    if !value.eq_ignore_ascii_case(b"100-continue") {
                        return Err(Refusal::Expectation);
                    }
                    expects = true;
                }
            }
        }
        let http11 = self.version == Version::Http11;
        if chunked && length.is_some() {
            return Err(Refusal::BothFramings);
        }
        if chunked && !http11 {
            return Err(Refusal::TransferEncoding);
        }
        self.framing = match length {
            None if chunked => Framing::Chunked,
            None | Some(0) => Framing::None,
            Some(bytes) => Framing::Length(bytes),
        };
        if http11 && host.is_none() {
            return Err(Refusal::HostMissing);
        }
        self.authority = host;
        self.keep_alive = if http11 { !close } else { keep && !close };
        // RFC 9110 section 10.1.1: a 1.0 client cannot be waiting for 100, nor one that has no body.
        self.expect_continue = expects && http11 && self.framing != Framing::None;
        self.upgrade = upgrade.filter(|span| {
            let protocols = span.of(buffer);
            http11
                && connection_upgrade
                && self.framing == Framing::None
                && !protocols.is_empty()
                // Passing `Upgrade: h2c` on would open a tunnel past every rule of ours.
                && !list(protocols).any(|protocol| {
                    protocol.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(b"h2"))
                })
        });
        self.target_form(buffer)
    }

    fn target_form(&mut self, buffer: &[u8]) -> Result<(), Refusal> {
        let method = self.method.of(buffer);
        let target = self.target.of(buffer);
        if std::str::from_utf8(target).is_err() {
            return Err(Refusal::Target);
        }
        if method == b"CONNECT" {
            return Err(Refusal::Connect);
        }
        if target[0] == b'/' {
            self.form = TargetForm::Origin;
            self.path_and_query = self.target;
            return Ok(());
        }
        if target == b"*" && method == b"OPTIONS" {
            self.form = TargetForm::Asterisk;
            self.path_and_query = self.target;
            return Ok(());
        }
        let scheme = [&b"http://"[..], b"https://"]
            .into_iter()
            .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
            .ok_or(Refusal::TargetForm)?;
        let rest = &target[scheme.len()..];
        let authority = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        if authority == 0 {
            return Err(Refusal::TargetForm);
        }
        // RFC 9112 section 3.2.2: the target's authority replaces Host, which must be there all the same.
        let start = self.target.start as usize + scheme.len();
        self.form = TargetForm::Absolute;
        self.authority = Some(Span::new(start, start + authority));
        self.path_and_query = Span::new(start + authority, self.target.end as usize);
        Ok(())
    }
}

/// `HTTP/1.1`, or that of another version, cut off.
fn is_start_of_version(text: &[u8]) -> bool {
    let same =
        |(byte, wanted): (&u8, &u8)| if *wanted == b'1' { byte.is_ascii_digit() } else { byte == wanted };
    text.len() < 8 && text.iter().zip(b"HTTP/1.1").all(same)
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
