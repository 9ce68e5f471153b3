//! The chunked coding (RFC 9112 section 7.1) as a state machine over bytes that arrive in any pieces. It changes
//! nothing: chunks, extensions and trailers pass as they are once they were checked, and are checked so strictly that no
//! two readers can disagree about where a chunk ends. Used by `body` only.

use super::super::forwarded::{keeps_request_header, keeps_response_header};
use super::syntax::{is_text, is_token};

/// Longest chunk extension, so that a small body cannot be wrapped in an endless one (CVE-2023-39326).
const MAX_EXTENSION: u16 = 1024;
/// Bytes of all trailer lines.
const MAX_TRAILERS: u16 = 8 * 1024;
/// Hexadecimal digits of a chunk size: keeps it below 2^60.
const MAX_DIGITS: u8 = 15;
/// Longest name that is looked up; longer than any that is refused.
const LONGEST_NAME: usize = 24;

/// Something in the framing is not as it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkError;

/// Whose body it is: decides which trailers may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Request,
    Response,
}

/// The decoder.
#[derive(Debug)]
pub(crate) struct Chunks {
    state: State,
    direction: Direction,
    /// Bytes of the current extension, or of the trailer section.
    length: u16,
    name: [u8; LONGEST_NAME],
    name_length: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size {
        value: u64,
        digits: u8,
    },
    /// Behind `;`: a name must begin.
    ExtensionStart {
        size: u64,
    },
    ExtensionName {
        size: u64,
    },
    /// Behind `=`: a token or a quoted string must begin.
    ExtensionValueStart {
        size: u64,
    },
    ExtensionValue {
        size: u64,
    },
    Quoted {
        size: u64,
    },
    QuotedPair {
        size: u64,
    },
    QuotedEnd {
        size: u64,
    },
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

impl Chunks {
    pub(crate) fn new(direction: Direction) -> Chunks {
        Chunks {
            state: State::Size { value: 0, digits: 0 },
            direction,
            length: 0,
            name: [0; LONGEST_NAME],
            name_length: 0,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Checks `bytes` up to the end of the body at most; how many of them belong to it. `payload` gets the data.
    pub(crate) fn take(&mut self, bytes: &[u8], payload: impl FnMut(&[u8])) -> Result<usize, ChunkError> {
        self.take_all(bytes, payload, |_| {})
    }

    /// The same; `trailers` gets the trailer section, with the empty line that ends it.
    pub(crate) fn take_all(
        &mut self,
        bytes: &[u8],
        mut payload: impl FnMut(&[u8]),
        mut trailers: impl FnMut(u8),
    ) -> Result<usize, ChunkError> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::Done {
            if let State::Data { left } = self.state {
                let rest = &bytes[at..];
                let taken = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
                payload(&rest[..taken]);
                at += taken;
                let left = left - taken as u64;
                self.state = if left == 0 { State::DataCr } else { State::Data { left } };
            } else {
                let next = self.next(bytes[at])?;
                if self.is_in_trailers() {
                    trailers(bytes[at]);
                }
                self.state = next;
                at += 1;
            }
        }
        Ok(at)
    }

    fn is_in_trailers(&self) -> bool {
        matches!(
            self.state,
            State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerLf | State::EndLf
        )
    }

    fn next(&mut self, byte: u8) -> Result<State, ChunkError> {
        Ok(match self.state {
            State::Size { value, digits } => match byte {
                b'\r' if digits > 0 => State::SizeLf { size: value },
                b';' if digits > 0 => {
                    self.length = 0;
                    State::ExtensionStart { size: value }
                }
                _ if digits < MAX_DIGITS => {
                    let digit = char::from(byte).to_digit(16).ok_or(ChunkError)?;
                    State::Size { value: value << 4 | u64::from(digit), digits: digits + 1 }
                }
                _ => return Err(ChunkError),
            },
            State::ExtensionStart { size } | State::ExtensionName { size } if is_token(byte) => {
                self.count(MAX_EXTENSION)?;
                State::ExtensionName { size }
            }
            State::ExtensionValueStart { size } | State::ExtensionValue { size } if is_token(byte) => {
                self.count(MAX_EXTENSION)?;
                State::ExtensionValue { size }
            }
            State::ExtensionName { size } if byte == b'=' => State::ExtensionValueStart { size },
            State::ExtensionValueStart { size } if byte == b'"' => State::Quoted { size },
            State::ExtensionName { size } | State::ExtensionValue { size } | State::QuotedEnd { size } => {
                match byte {
                    b';' => {
                        self.count(MAX_EXTENSION)?;
                        State::ExtensionStart { size }
                    }
                    b'\r' => State::SizeLf { size },
                    _ => return Err(ChunkError),
                }
            }
            State::Quoted { size } | State::QuotedPair { size } if is_text(byte) => {
                self.count(MAX_EXTENSION)?;
                match (self.state, byte) {
                    (State::Quoted { .. }, b'"') => State::QuotedEnd { size },
                    (State::Quoted { .. }, b'\\') => State::QuotedPair { size },
                    _ => State::Quoted { size },
                }
            }
            State::SizeLf { size } if byte == b'\n' => match size {
                0 => {
                    self.length = 0;
                    State::TrailerStart
                }
                left => State::Data { left },
            },
            State::DataCr if byte == b'\r' => State::DataLf,
            State::DataLf if byte == b'\n' => State::Size { value: 0, digits: 0 },
            State::TrailerStart if byte == b'\r' => State::EndLf,
            State::TrailerStart if is_token(byte) => {
                self.name_length = 0;
                self.name_byte(byte)?;
                State::TrailerName
            }
            State::TrailerName if is_token(byte) => {
                self.name_byte(byte)?;
                State::TrailerName
            }
            State::TrailerName if byte == b':' => {
                self.check_trailer()?;
                State::TrailerValue
            }
            State::TrailerValue if byte == b'\r' => State::TrailerLf,
            State::TrailerValue if is_text(byte) => {
                self.count(MAX_TRAILERS)?;
                State::TrailerValue
            }
            State::TrailerLf if byte == b'\n' => State::TrailerStart,
            State::EndLf if byte == b'\n' => State::Done,
            _ => return Err(ChunkError),
        })
    }

    fn count(&mut self, max: u16) -> Result<(), ChunkError> {
        self.length += 1;
        if self.length > max { Err(ChunkError) } else { Ok(()) }
    }

    fn name_byte(&mut self, byte: u8) -> Result<(), ChunkError> {
        self.count(MAX_TRAILERS)?;
        if byte == b'_' && self.direction == Direction::Request {
            return Err(ChunkError);
        }
        if let Some(slot) = self.name.get_mut(usize::from(self.name_length)) {
            *slot = byte;
        }
        self.name_length = self.name_length.saturating_add(1);
        Ok(())
    }

    fn check_trailer(&self) -> Result<(), ChunkError> {
        let Some(name) = self.name.get(..usize::from(self.name_length)) else {
            return Ok(());
        };
        if may_be_trailer(name, self.direction) { Ok(()) } else { Err(ChunkError) }
    }
}

/// RFC 9110 section 6.5.1: no framing, routing or connection fields in trailers; and none of those that we set, since
/// backends may merge trailers into the head.
pub(crate) fn may_be_trailer(name: &[u8], direction: Direction) -> bool {
    let crosses = match direction {
        Direction::Request => keeps_request_header(name, false),
        Direction::Response => keeps_response_header(name),
    };
    let misplaced = ["content-length", "host", "expect", "trailer", "content-encoding", "authorization"]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known.as_bytes()));
    crosses && !misplaced
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The payload, and what was left over behind the body.
    type Decoded = (Vec<u8>, Vec<u8>);

    /// Feeds `bytes` in pieces.
    fn decode(bytes: &[u8], piece: usize) -> Result<Option<Decoded>, ChunkError> {
        let mut chunks = Chunks::new(Direction::Request);
        let mut payload = Vec::new();
        let mut at = 0;
        while at < bytes.len() && !chunks.is_done() {
            let end = bytes.len().min(at + piece);
            at += chunks.take(&bytes[at..end], |data| payload.extend_from_slice(data))?;
        }
        Ok(chunks.is_done().then(|| (payload, bytes[at..].to_vec())))
    }

    #[test]
    fn accepts() {
        for (text, payload) in [
            ("0\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "hello"),
            ("00005\r\nhello\r\n000\r\n\r\n", "hello"),
            ("a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n", "01234567890123456789a"),
            ("5;x\r\nhello\r\n0;y=1\r\n\r\n", "hello"),
            ("5;x=\"a;\\\"b\";z\r\nhello\r\n0\r\n\r\n", "hello"),
            ("0\r\nX-Sum: 1\r\nY:\r\n\r\n", ""),
        ] {
            let whole = format!("{text}GET ");
            for piece in [1, 2, 3, 1000] {
                let read = decode(whole.as_bytes(), piece).unwrap().unwrap();
                assert_eq!(read, (payload.as_bytes().to_vec(), b"GET ".to_vec()), "{text:?}");
            }
        }
    }

    #[test]
    fn refuses() {
        let long = format!("5;{}\r\n", "x".repeat(1100));
        let trailers = format!("0\r\n{}", "X: 123456\r\n".repeat(2000));
        for text in [
            "\r\n",
            ";x\r\n",
            "0x5\r\nhello\r\n",
            "+5\r\nhello\r\n",
            "-1\r\n",
            " 5\r\n",
            "5 \r\nhello\r\n",
            "5\nhello\r\n",
            "5\r\nhello\n",
            "5\r\nhelloX\r\n",
            "5\rX",
            "5;\r\n",
            "5;x=\r\n",
            "5; x\r\n",
            "5;x=\"a\"; \r\n",
            "5;x\n",
            "5;x\r0",
            "5;x=\"\n\"\r\n",
            "5;x=\"a\"b\r\n",
            "5;\0\r\n",
            "g\r\n",
            "0000000000000005\r\n",
            "ffffffffffffffffff\r\n",
            "0\r\nX\r\n\r\n",
            "0\r\n X: 1\r\n\r\n",
            "0\r\nX : 1\r\n\r\n",
            "0\r\nX: 1\n\r\n",
            "0\r\nX: \0\r\n\r\n",
            "0\r\n: 1\r\n\r\n",
            "0\r\nContent-Length: 3\r\n\r\n",
            "0\r\nhost: a\r\n\r\n",
            "0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "0\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n",
            "0\r\nX_Forwarded_For: 6.6.6.6\r\n\r\n",
            "0\r\n\n",
            "0\r\n\rX",
            &long,
            &trailers,
        ] {
            for piece in [1, 1000] {
                assert_eq!(decode(text.as_bytes(), piece), Err(ChunkError), "{text:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8), piece in 1usize..50) {
            let mut wire = Vec::new();
            for part in &parts {
                wire.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                wire.extend_from_slice(part);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\nnext");
            let read = decode(&wire, piece).unwrap().unwrap();
            prop_assert_eq!(read, (parts.concat(), b"next".to_vec()));
        }
    }
}
