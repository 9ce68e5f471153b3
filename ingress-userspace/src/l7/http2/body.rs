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

use super::{Activity, Stream};
use crate::l7::balance::InFlight;
use crate::l7::stats::Stats;
use crate::l7::upstream::hyper::{Pool, Sender};
use crate::l7::upstream::pool::PoolKey;

/// Who moves a request body, and when it last moved.
#[derive(Debug)]
pub struct Progress {
    pub(super) last: Cell<Instant>,
    pub(super) activity: Rc<Activity>,
    /// The client owes us the next piece; else the endpoint has to read or to answer.
    pub(super) client_owes: Cell<bool>,
    /// How much of the body may still come; `None`: too much has.
    pub(super) room: Cell<Option<u64>>,
}

/// Why a request's body broke off.
#[derive(Debug, thiserror::Error)]
pub enum RequestBodyError {
    /// The client broke off or sent nonsense.
    #[error(transparent)]
    Client(#[from] hyper::Error),
    /// It is longer than `proxy-body-size` allows.
    #[error("the request body is too large")]
    TooLarge,
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
            progress.room.set(progress.room.get().and_then(|room| room.checked_sub(length)));
            if progress.room.get().is_none() {
                return Poll::Ready(Some(Err(RequestBodyError::TooLarge)));
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
    /// Our own answer.
    Answer(Full<Bytes>),
    /// An endpoint's.
    Streamed(Box<Streamed>),
}

/// What an endpoint sends. Gives the connection back to the pool at its end.
pub struct Streamed {
    pub(super) body: Incoming,
    /// Taken when the body has ended.
    pub(super) connection: Option<(PoolKey, Sender, Rc<Pool>)>,
    pub(super) stats: Arc<Stats>,
    /// `proxy-read-timeout`.
    pub(super) read_timeout: Duration,
    /// Set while we wait for the endpoint.
    pub(super) timer: Option<Pin<Box<Sleep>>>,
    pub(super) _in_flight: InFlight,
    pub(super) stream: Stream,
}

/// Why a response's body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The endpoint broke off or sent nonsense.
    #[error(transparent)]
    Upstream(#[from] hyper::Error),
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
            Self::Answer(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Streamed(streamed) => streamed.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Answer(body) => body.is_end_stream(),
            Self::Streamed(streamed) => streamed.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Answer(body) => body.size_hint(),
            Self::Streamed(streamed) => streamed.body.size_hint(),
        }
    }
}

impl Streamed {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.read_timeout)));
            ready!(timer.as_mut().poll(cx));
            self.stats.upstream_failed.add(1);
            self.connection = None;
            return Poll::Ready(Some(Err(BodyError::Timeout)));
        };
        self.timer = None;
        self.stream.0.touch();
        match &frame {
            Some(Ok(frame)) => self.stats.bytes_out.add(frame.data_ref().map_or(0, Bytes::len) as u64),
            Some(Err(_)) => {
                self.stats.upstream_failed.add(1);
                self.connection = None;
            }
            None => {}
        }
        if self.body.is_end_stream() {
            self.finish();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
    }

    /// The response is complete: its connection may serve the next request.
    pub(super) fn finish(&mut self) {
        if let Some((key, sender, pool)) = self.connection.take() {
            pool.give_back(key, sender);
        }
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        // The server asks a body that has told its end for no further frame.
        if self.body.is_end_stream() {
            self.finish();
        }
    }
}
