//! The header section: one strict pass that finds each field line, and recognises the few names that
//! framing and connection handling need. Shared by request heads, response heads and trailers; decides
//! nothing about what the fields mean.

use super::syntax::{Span, is_token, text_end, trim_end};

/// One field line; the spans point into the buffer that was parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// The name as it was sent.
    pub name: Span,
    /// The value without the white space around it.
    pub value: Span,
    /// Which of the names that the engine cares about it is.
    pub kind: FieldKind,
}

/// The field names that the engine itself reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// `Host`
    Host,
    /// `Content-Length`
    ContentLength,
    /// `Transfer-Encoding`
    TransferEncoding,
    /// `Connection`
    Connection,
    /// `Keep-Alive`, `Proxy-Connection`, `TE`, `HTTP2-Settings`: end at each hop and mean nothing to us.
    HopByHop,
    /// `Upgrade`
    Upgrade,
    /// `Expect`
    Expect,
    /// Any other.
    Other,
}

/// What was wrong with a field line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldError {
    LineEnd,
    Folding,
    Name,
    Value,
    TooMany,
}

/// Reads field lines from `at` to the empty line that ends them and appends them to `fields`.
///
/// `Some(end)` is the offset behind the empty line; `None` says that the section is not complete yet.
pub(crate) fn parse(
    buffer: &[u8],
    mut at: usize,
    max: usize,
    fields: &mut Vec<Field>,
) -> Result<Option<usize>, FieldError> {
    loop {
        match buffer.get(at) {
            None => return Ok(None),
            Some(b'\r') => {
                return match buffer.get(at + 1) {
                    None => Ok(None),
                    Some(b'\n') => Ok(Some(at + 2)),
                    Some(_) => Err(FieldError::LineEnd),
                };
            }
            Some(b'\n') => return Err(FieldError::LineEnd),
            Some(b' ' | b'\t') => return Err(FieldError::Folding),
            Some(_) => {}
        }
        if fields.len() == max {
            return Err(FieldError::TooMany);
        }
        let name_start = at;
        while at < buffer.len() && is_token(buffer[at]) {
            at += 1;
        }
        match buffer.get(at) {
            None => return Ok(None),
            Some(b':') if at > name_start => {}
            Some(_) => return Err(FieldError::Name),
        }
        let name = Span::new(name_start, at);
        at += 1;
        while matches!(buffer.get(at), Some(b' ' | b'\t')) {
            at += 1;
        }
        let value_start = at;
        at = text_end(buffer, at);
        let value = Span::new(value_start, trim_end(buffer, value_start, at));
        at = match line_end(buffer, at)? {
            Some(next) => next,
            None => return Ok(None),
        };
        fields.push(Field { name, value, kind: kind(name.of(buffer)) });
    }
}

/// The offset behind the CR LF that must stand at `at`.
fn line_end(buffer: &[u8], at: usize) -> Result<Option<usize>, FieldError> {
    match (buffer.get(at), buffer.get(at + 1)) {
        (None, _) | (Some(b'\r'), None) => Ok(None),
        (Some(b'\r'), Some(b'\n')) => Ok(Some(at + 2)),
        (Some(b'\r' | b'\n'), _) => Err(FieldError::LineEnd),
        (Some(_), _) => Err(FieldError::Value),
    }
}

/// Which of the engine's names this is, letter case ignored.
fn kind(name: &[u8]) -> FieldKind {
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    match name.len() {
        2 if is("te") => FieldKind::HopByHop,
        4 if is("host") => FieldKind::Host,
        6 if is("expect") => FieldKind::Expect,
        7 if is("upgrade") => FieldKind::Upgrade,
        10 if is("connection") => FieldKind::Connection,
        10 if is("keep-alive") => FieldKind::HopByHop,
        14 if is("content-length") => FieldKind::ContentLength,
        14 if is("http2-settings") => FieldKind::HopByHop,
        16 if is("proxy-connection") => FieldKind::HopByHop,
        17 if is("transfer-encoding") => FieldKind::TransferEncoding,
        _ => FieldKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Result<Option<Vec<(String, String)>>, FieldError> {
        let mut fields = Vec::new();
        let text = text.as_bytes();
        let ended = parse(text, 0, 4, &mut fields)?;
        let string = |span: Span| String::from_utf8_lossy(span.of(text)).into_owned();
        Ok(ended.map(|end| {
            assert_eq!(end, text.len());
            fields.iter().map(|field| (string(field.name), string(field.value))).collect()
        }))
    }

    #[test]
    fn reads_lines() {
        let read = lines("A: 1\r\nb:\t two words \t\r\nC:\r\n\r\n").unwrap().unwrap();
        let expected = [("A", "1"), ("b", "two words"), ("C", "")];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn waits_for_the_rest() {
        let whole = "A: 1\r\nBb: 2\r\n\r\n";
        for cut in 0..whole.len() {
            assert_eq!(lines(&whole[..cut]), Ok(None), "cut at {cut}");
        }
    }

    #[test]
    fn refuses_what_could_be_read_in_two_ways() {
        for (text, error) in [
            ("A: 1\nB: 2\r\n\r\n", FieldError::LineEnd),
            ("A: 1\r\n\n", FieldError::LineEnd),
            ("A: 1\rB: 2\r\n\r\n", FieldError::LineEnd),
            ("A: 1\r\n\rX", FieldError::LineEnd),
            ("A: 1\r\n 2\r\n\r\n", FieldError::Folding),
            (" A: 1\r\n\r\n", FieldError::Folding),
            ("\tA: 1\r\n\r\n", FieldError::Folding),
            ("A : 1\r\n\r\n", FieldError::Name),
            (": 1\r\n\r\n", FieldError::Name),
            ("A\0: 1\r\n\r\n", FieldError::Name),
            ("A B: 1\r\n\r\n", FieldError::Name),
            ("no colon\r\n\r\n", FieldError::Name),
            ("Ä: 1\r\n\r\n", FieldError::Name),
            ("A: 1\0\r\n\r\n", FieldError::Value),
            ("A: \x1b[0m\r\n\r\n", FieldError::Value),
            ("A: \x7f\r\n\r\n", FieldError::Value),
            ("A:1\r\nB:2\r\nC:3\r\nD:4\r\nE:5\r\n\r\n", FieldError::TooMany),
        ] {
            assert_eq!(lines(text), Err(error), "{text:?}");
        }
    }
}
