//! Parses the head of a backend's answer and decides how its body is framed. Called by the exchange;
//! as strict as the request parser, because a backend may be shared by tenants that don't trust each
//! other: what it sends wrong becomes 502 and costs it the connection.

use super::{
    error::BadAnswer,
    fields::{self, Field, FieldError, FieldKind},
    request::{Framing, HeadLimits, Progress, Version},
    syntax::{Span, decimal, list, text_end},
};

/// Interim answers (1xx) that one request may have.
pub(crate) const MAX_INTERIM: u8 = 16;

/// A parsed answer's head. Spans point into the buffer that was parsed.
#[derive(Debug, Default)]
pub struct ParsedResponse {
    /// 100 to 999.
    pub status: u16,
    /// The reason phrase, often empty.
    pub reason: Span,
    /// The backend's version.
    pub version: Version,
    /// All field lines in order.
    pub fields: Vec<Field>,
    /// Length of the head, the empty line included.
    pub length: usize,
    /// How the body is framed, were this the answer to a request with a body in it (not `HEAD`).
    pub framing: Framing,
    /// Whether the backend keeps the connection open.
    pub keep_alive: bool,
}

impl ParsedResponse {
    /// Parses the head at the start of `buffer`; `to_head` says that the request was `HEAD`.
    pub fn parse(
        &mut self,
        buffer: &[u8],
        limits: &HeadLimits,
        to_head: bool,
    ) -> Result<Progress, BadAnswer> {
        self.fields.clear();
        let ended = match self.status_line(buffer)? {
            None => None,
            Some(at) => {
                fields::parse(buffer, at, limits.fields, &mut self.fields).map_err(|error| match error {
                    FieldError::TooMany => BadAnswer::HeadTooLarge,
                    _ => BadAnswer::Field,
                })?
            }
        };
        match ended {
            Some(length) if length > limits.bytes => Err(BadAnswer::HeadTooLarge),
            Some(length) => {
                self.length = length;
                self.understand(buffer, to_head)?;
                Ok(Progress::Complete)
            }
            None if buffer.len() >= limits.bytes => Err(BadAnswer::HeadTooLarge),
            None => Ok(Progress::Partial),
        }
    }

    /// An interim answer, after which the final one follows on the same connection.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    fn status_line(&mut self, buffer: &[u8]) -> Result<Option<usize>, BadAnswer> {
        let version = &buffer[..buffer.len().min(8)];
        self.version = match version {
            b"HTTP/1.1" => Version::Http11,
            b"HTTP/1.0" => Version::Http10,
            _ if version.len() < 8 && (b"HTTP/1.".starts_with(version)) => return Ok(None),
            _ => return Err(BadAnswer::StatusLine),
        };
        let Some(rest) = buffer.get(8..12) else {
            return Ok(None);
        };
        let &[b' ', hundreds @ b'1'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9'] = rest else {
            return Err(BadAnswer::StatusLine);
        };
        self.status = u16::from(hundreds - b'0') * 100 + u16::from(tens - b'0') * 10 + u16::from(ones - b'0');
        // Many servers leave out the space before an empty reason phrase.
        let start = match buffer.get(12) {
            None => return Ok(None),
            Some(b' ') => 13,
            Some(b'\r') => 12,
            Some(_) => return Err(BadAnswer::StatusLine),
        };
        let at = text_end(buffer, start);
        self.reason = Span::new(start, at);
        match (buffer.get(at), buffer.get(at + 1)) {
            (None, _) | (Some(b'\r'), None) => Ok(None),
            (Some(b'\r'), Some(b'\n')) => Ok(Some(at + 2)),
            _ => Err(BadAnswer::StatusLine),
        }
    }

    fn understand(&mut self, buffer: &[u8], to_head: bool) -> Result<(), BadAnswer> {
        let mut length = None;
        let mut chunked = false;
        let (mut close, mut keep) = (false, false);
        for field in &self.fields {
            let value = field.value.of(buffer);
            match field.kind {
                FieldKind::ContentLength => {
                    let number = decimal(value).ok_or(BadAnswer::ContentLength)?;
                    if length.replace(number).is_some() {
                        return Err(BadAnswer::ContentLength);
                    }
                }
                FieldKind::TransferEncoding => {
                    if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(BadAnswer::TransferEncoding);
                    }
                    chunked = true;
                }
                FieldKind::Connection => {
                    for option in list(value) {
                        close |= option.eq_ignore_ascii_case(b"close");
                        keep |= option.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                _ => {}
            }
        }
        let http11 = self.version == Version::Http11;
        if chunked && (length.is_some() || !http11) {
            return Err(BadAnswer::TransferEncoding);
        }
        let bodiless = to_head || matches!(self.status, 100..=199 | 204 | 304);
        self.framing = if bodiless {
            Framing::None
        } else {
            match length {
                None if chunked => Framing::Chunked,
                None => Framing::UntilClose,
                Some(0) => Framing::None,
                Some(bytes) => Framing::Length(bytes),
            }
        };
        self.keep_alive =
            (if http11 { !close } else { keep && !close }) && self.framing != Framing::UntilClose;
        Ok(())
    }
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
