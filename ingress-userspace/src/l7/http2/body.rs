//! The bodies that cross the proxy in an HTTP/2 exchange: passed through as they come, counted, and with the timeouts
//! that belong to them.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use super::account::Account;
use super::{Activity, Stream};
use crate::l7::answer::Answer;
use crate::l7::balance::InFlight;
use crate::l7::stats::Stats;
use crate::l7::timeouts;
use crate::l7::upstream::client::{Download, Failure};

/// Who moves a request body, and when it last moved.
#[derive(Debug)]
pub struct Progress {
    pub(super) last: Cell<Instant>,
    pub(super) activity: Rc<Activity>,
    /// The client owes us the next piece; else the endpoint has to read or to answer.
    pub(super) client_owes: Cell<bool>,
    /// How much of the body may still come.
    pub(super) room: Cell<u64>,
    /// How much has come.
    pub(super) received: Cell<u64>,
    /// Since when, and how much, has come in the span in which its rate is watched. `None`: it is not; calls of gRPC may
    /// be slow for good.
    pub(super) pace: Cell<Option<(Instant, u64)>>,
    /// Frames without a byte, one after the other.
    pub(super) empty: Cell<u32>,
    /// Why it was broken off.
    pub(super) fault: Cell<Option<Fault>>,
}

/// Frames without a byte that a body may have, one after the other: they cost us work and nobody needs them.
const MAX_EMPTY: u32 = 128;

/// Why we take no more of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is longer than `proxy-body-size` allows.
    #[error("the request body is too large")]
    TooLarge,
    /// It comes so slowly that it only keeps its stream busy.
    #[error("the request body comes too slowly")]
    TooSlow,
    /// It consists of frames without a byte.
    #[error("the request body has too many empty frames")]
    Empty,
}

impl Fault {
    /// What the client is told.
    pub(super) fn answer(self) -> Answer {
        match self {
            Self::TooLarge => Answer::BODY_TOO_LARGE,
            Self::TooSlow => Answer::REQUEST_TIMEOUT,
            Self::Empty => Answer::bad_request("the request body has too many empty frames"),
        }
    }
}

impl Progress {
    /// Takes a piece of `length` bytes into account.
    fn note(&self, length: u64) -> Result<(), Fault> {
        self.received.set(self.received.get() + length);
        self.empty.set(if length == 0 { self.empty.get() + 1 } else { 0 });
        let fault = match self.room.get().checked_sub(length) {
            None => Some(Fault::TooLarge),
            Some(_) if self.empty.get() > MAX_EMPTY => Some(Fault::Empty),
            Some(room) => {
                self.room.set(room);
                self.is_too_slow(length).then_some(Fault::TooSlow)
            }
        };
        self.fault.set(fault);
        fault.map_or(Ok(()), Err)
    }

    fn is_too_slow(&self, length: u64) -> bool {
        let Some((since, before)) = self.pace.get() else { return false };
        let (bytes, span) = (before + length, since.elapsed());
        if span < timeouts::CLIENT_BODY {
            self.pace.set(Some((since, bytes)));
            return false;
        }
        self.pace.set(Some((Instant::now(), 0)));
        u128::from(bytes) < u128::from(timeouts::CLIENT_BODY_RATE) * span.as_millis() / 1000
    }
}

/// Why a request's body broke off.
#[derive(Debug, thiserror::Error)]
pub enum RequestBodyError {
    /// The client broke off or sent nonsense.
    #[error(transparent)]
    Client(#[from] hyper::Error),
    /// We take no more of it.
    #[error(transparent)]
    Refused(#[from] Fault),
}

/// A request's body on its way to an endpoint.
#[derive(Debug)]
pub enum RequestBody {
    /// None.
    Empty,
    /// Passed through.
    Streamed {
        /// From the client.
        body: Incoming,
        /// Watched by the exchange, which has the timer.
        progress: Rc<Progress>,
        /// Where its bytes are counted.
        stats: Arc<Stats>,
    },
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let Self::Streamed { body, progress, stats } = self.get_mut() else { return Poll::Ready(None) };
        progress.client_owes.set(true);
        let frame = ready!(Pin::new(body).poll_frame(cx));
        progress.client_owes.set(false);
        progress.last.set(Instant::now());
        progress.activity.touch();
        if let Some(Ok(frame)) = &frame {
            let length = frame.data_ref().map_or(0, Bytes::len) as u64;
            stats.bytes_in.add(length);
            if frame.is_data()
                && let Err(fault) = progress.note(length)
            {
                return Poll::Ready(Some(Err(fault.into())));
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(RequestBodyError::from)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streamed { body, .. } => body.size_hint(),
        }
    }
}

/// A response's body on its way to the client.
pub enum ResponseBody {
    /// Our own answer, and what is told when it has gone.
    Answer(Full<Bytes>, Option<Box<Account>>),
    /// An endpoint's.
    Streamed(Box<Streamed>),
}

impl ResponseBody {
    /// A body of ours.
    pub(super) fn of(text: impl Into<Bytes>) -> Self {
        Self::Answer(Full::new(text.into()), None)
    }

    /// The request is told of when this body has gone.
    pub(super) fn end_with(&mut self, mut account: Account) {
        match self {
            Self::Answer(body, place) => {
                account.sent = body.size_hint().exact().unwrap_or_default();
                *place = Some(Box::new(account));
            }
            Self::Streamed(streamed) => streamed.account = Some(account),
        }
    }
}

/// What an endpoint sends.
pub struct Streamed {
    pub(super) body: Download,
    pub(super) stats: Arc<Stats>,
    /// `proxy-read-timeout`.
    pub(super) read_timeout: Duration,
    /// Set while we wait for the endpoint.
    pub(super) timer: Option<Pin<Box<Sleep>>>,
    pub(super) _in_flight: InFlight,
    pub(super) stream: Stream,
    pub(super) account: Option<Account>,
}

/// Why a response's body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The endpoint broke off or sent nonsense.
    #[error(transparent)]
    Upstream(#[from] Failure),
    /// It sent nothing for `proxy-read-timeout`.
    #[error("the endpoint sent nothing for too long")]
    Timeout,
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Answer(body, _) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Streamed(streamed) => streamed.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Answer(body, _) => body.is_end_stream(),
            Self::Streamed(streamed) => streamed.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Answer(body, _) => body.size_hint(),
            Self::Streamed(streamed) => streamed.body.size_hint(),
        }
    }
}

impl Streamed {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Poll::Ready(frame) = self.body.poll_frame(cx) else {
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.read_timeout)));
            ready!(timer.as_mut().poll(cx));
            self.stats.upstream_failed.add(1);
            return Poll::Ready(Some(Err(BodyError::Timeout)));
        };
        self.timer = None;
        self.stream.0.touch();
        match &frame {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                self.stats.bytes_out.add(length);
                if let Some(account) = &mut self.account {
                    account.sent += length;
                }
            }
            Some(Err(_)) => self.stats.upstream_failed.add(1),
            None => {}
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(room: u64, pace: Option<(Instant, u64)>) -> Progress {
        Progress {
            last: Cell::new(Instant::now()),
            activity: Rc::new(Activity::new()),
            client_owes: Cell::new(false),
            room: Cell::new(room),
            received: Cell::new(0),
            pace: Cell::new(pace),
            empty: Cell::new(0),
            fault: Cell::new(None),
        }
    }

    #[test]
    fn bodies_are_bounded_in_length_speed_and_emptiness() {
        let long = progress(10, None);
        assert_eq!([long.note(10), long.note(1)], [Ok(()), Err(Fault::TooLarge)]);
        assert_eq!((long.received.get(), long.fault.get()), (11, Some(Fault::TooLarge)));

        let before = Instant::now().checked_sub(timeouts::CLIENT_BODY).unwrap();
        let wanted = u64::from(timeouts::CLIENT_BODY_RATE) * timeouts::CLIENT_BODY.as_secs();
        for (sent, fault) in [(100, Err(Fault::TooSlow)), (2 * wanted, Ok(()))] {
            assert_eq!(progress(u64::MAX, Some((before, sent))).note(1), fault, "{sent}");
        }
        // Within the span, and where speed does not matter.
        assert_eq!(progress(u64::MAX, Some((Instant::now(), 0))).note(1), Ok(()));
        assert_eq!(progress(u64::MAX, None).note(1), Ok(()));

        let hollow = progress(u64::MAX, None);
        for round in 0..1000_u64 {
            assert_eq!(hollow.note(u64::from(round % 100 == 0)), Ok(()), "{round}");
        }
        assert_eq!((0..200).find(|_| hollow.note(0).is_err()), Some(29));
        assert_eq!(hollow.fault.get(), Some(Fault::Empty));
    }
}
