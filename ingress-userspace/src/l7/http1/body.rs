//! Finds the end of a body in the bytes that pass by, and checks chunked framing on the way, so that nothing
//! malformed is passed on. Called by the exchange for both directions; bodies are not copied here (but for the
//! payload that an HTTP/1.0 client gets without its chunks).

use super::chunked::{ChunkError, Chunks, Direction};
use super::request::Framing;

/// The rest of one body.
#[derive(Debug)]
pub(crate) enum Body {
    /// All of it has passed (or there was none).
    Done,
    /// This many bytes are still to come.
    Length(u64),
    /// Chunked coding.
    Chunked(Chunks),
    /// Everything until the connection closes.
    UntilClose,
}

impl Body {
    /// A body of which nothing has passed yet.
    pub(crate) fn new(framing: Framing, direction: Direction) -> Body {
        match framing {
            Framing::None | Framing::Length(0) => Body::Done,
            Framing::Length(bytes) => Body::Length(bytes),
            Framing::Chunked => Body::Chunked(Chunks::new(direction)),
            Framing::UntilClose => Body::UntilClose,
        }
    }

    /// Whether all of it has passed.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Body::Done)
    }

    /// How many bytes may pass unseen: the framing does not depend on them.
    pub(crate) fn unseen(&self) -> u64 {
        match self {
            Body::Length(left) => *left,
            Body::UntilClose => u64::MAX,
            Body::Done | Body::Chunked(_) => 0,
        }
    }

    /// So many of them have passed.
    pub(crate) fn passed(&mut self, count: usize) {
        if let Body::Length(left) = self {
            *left = left.saturating_sub(count as u64);
            if *left == 0 {
                *self = Body::Done;
            }
        }
    }

    /// How many bytes at the start of `bytes` belong to this body; the rest belongs to what follows it.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, ChunkError> {
        self.take_and(bytes, |_| {})
    }

    /// The same; also how much of them is payload.
    pub(crate) fn take_measured(&mut self, bytes: &[u8]) -> Result<(usize, u64), ChunkError> {
        let mut payload = 0;
        let taken = self.take_and(bytes, |piece| payload += piece.len() as u64)?;
        Ok((taken, payload))
    }

    /// The same, and appends the payload without chunk framing and trailers to `out`.
    pub(crate) fn take_payload(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, ChunkError> {
        self.take_and(bytes, |payload| out.extend_from_slice(payload))
    }

    /// The same; trailers are appended to `trailers`, with the empty line behind them.
    pub(crate) fn take_decoded(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        trailers: &mut Vec<u8>,
    ) -> Result<usize, ChunkError> {
        let Body::Chunked(chunks) = self else { return self.take_payload(bytes, out) };
        let taken = chunks.take_all(bytes, |data| out.extend_from_slice(data), |byte| trailers.push(byte))?;
        if chunks.is_done() {
            *self = Body::Done;
        }
        Ok(taken)
    }

    fn take_and(&mut self, bytes: &[u8], mut payload: impl FnMut(&[u8])) -> Result<usize, ChunkError> {
        match self {
            Body::Done => Ok(0),
            Body::UntilClose => {
                payload(bytes);
                Ok(bytes.len())
            }
            Body::Length(left) => {
                let taken = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                payload(&bytes[..taken]);
                self.passed(taken);
                Ok(taken)
            }
            Body::Chunked(chunks) => {
                let taken = chunks.take(bytes, payload)?;
                if chunks.is_done() {
                    *self = Body::Done;
                }
                Ok(taken)
            }
        }
    }
}
