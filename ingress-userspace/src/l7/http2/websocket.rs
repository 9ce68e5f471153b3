//! WebSocket over HTTP/2 (RFC 8441): the client's extended CONNECT becomes an `Upgrade` towards the endpoint (RFC 6455),
//! and its 101 a 200 towards the client; then bytes go both ways unread. Called by `exchange`.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use aws_lc_rs::digest;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::SEC_WEBSOCKET_ACCEPT;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::account::Account;
use super::body::ResponseBody;
use super::io::Prefixed;
use super::{Activity, Stream};
use crate::l7::answer::Answer;
use crate::l7::balance::InFlight;
use crate::l7::stats::Stats;
use crate::l7::timeouts;
use crate::l7::upstream::client::{self, Download};
use crate::l7::upstream::http1::Io;

/// What RFC 6455 1.3 appends to the key.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// What is read at once in a tunnel.
const PIECE: usize = 16 << 10;

/// A client's wish for a WebSocket.
pub(super) struct Handshake {
    client: OnUpgrade,
    key: String,
}

impl Handshake {
    /// `None`: an ordinary request. A wish is turned into the `GET` that the endpoint will get.
    pub(super) fn of(request: &mut Request<Incoming>) -> Result<Option<Self>, Answer> {
        let Some(protocol) = request.extensions().get::<Protocol>() else { return Ok(None) };
        if request.method() != Method::CONNECT || !protocol.as_str().eq_ignore_ascii_case("websocket") {
            return Err(Answer::new(501, "CONNECT is supported for websocket only"));
        }
        let mut key = [0; 16];
        if SystemRandom::new().fill(&mut key).is_err() {
            return Err(Answer::new(500, "no random numbers are to be had"));
        }
        let client = hyper::upgrade::on(&mut *request);
        *request.method_mut() = Method::GET;
        Ok(Some(Self { client, key: STANDARD.encode(key) }))
    }

    /// Appends to the endpoint's head what HTTP/1.1 asks with.
    pub(super) fn ask(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: ");
        out.extend_from_slice(self.key.as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    /// The endpoint has agreed (101): tells the client, and joins both.
    pub(super) fn complete(
        self,
        answer: client::Answer,
        picked: InFlight,
        stream: Stream,
        stats: Arc<Stats>,
    ) -> Result<(Response<ResponseBody>, Tunnel), Answer> {
        let client::Answer { mut headers, body, .. } = answer;
        let accept = headers.remove(SEC_WEBSOCKET_ACCEPT);
        let endpoint = match body {
            Download::Http1(body) if accept.is_some_and(|accept| accept == accepted(&self.key)) => {
                body.into_stream()
            }
            _ => None,
        };
        let (early, endpoint) = endpoint.ok_or(Answer::BACKEND_INVALID)?;
        let endpoint = Prefixed::new(early, endpoint);
        let tunnel = Tunnel { client: self.client, endpoint, picked, stream, stats };
        let mut response = Response::new(ResponseBody::of(Bytes::new()));
        *response.headers_mut() = headers;
        Ok((response, tunnel))
    }
}

/// What comes after an agreement.
pub(super) struct Tunnel {
    client: OnUpgrade,
    endpoint: Prefixed<Io>,
    picked: InFlight,
    stream: Stream,
    stats: Arc<Stats>,
}

impl Tunnel {
    /// Joins both sides for as long as they last. The request is told of when they have ended.
    pub(super) fn start(self, mut account: Account) {
        let Self { client, endpoint, picked, stream, stats } = self;
        tokio::task::spawn_local(async move {
            let Ok(client) = client.await else { return };
            let (up, down) = (Cell::new(0), Cell::new(0));
            let ends = (TokioIo::new(client), endpoint);
            let ended = tunnel(ends, &stream.0, (&up, &down)).await;
            account.carried(up.get(), down.get());
            stats.bytes_in.add(up.get());
            stats.bytes_out.add(down.get());
            if let Err(error) = ended {
                tracing::debug!(address = %picked.address(), %error, "a WebSocket broke off");
            }
        });
    }
}

fn accepted(key: &str) -> String {
    let text = [key, GUID].concat();
    STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

/// Until both have ended, one breaks off, or nothing moves for [`timeouts::READ`].
async fn tunnel(
    (client, endpoint): (impl AsyncRead + AsyncWrite, impl AsyncRead + AsyncWrite),
    activity: &Rc<Activity>,
    (up, down): (&Cell<u64>, &Cell<u64>),
) -> io::Result<()> {
    let last = Cell::new(Instant::now());
    let moved = || {
        last.set(Instant::now());
        activity.touch();
    };
    let (from_client, to_client) = tokio::io::split(client);
    let (from_endpoint, to_endpoint) = tokio::io::split(endpoint);
    let idle = async {
        while last.get().elapsed() < timeouts::READ {
            tokio::time::sleep_until((last.get() + timeouts::READ).into()).await;
        }
    };
    tokio::select! {
        ended = async {
            tokio::try_join!(
                pump(from_client, to_endpoint, moved, up),
                pump(from_endpoint, to_client, moved, down),
            )
        } => ended.map(|_| ()),
        () = idle => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: impl Fn(),
    count: &Cell<u64>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let length = from.read(&mut piece).await?;
        moved();
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&piece[..length]).await?;
        to.flush().await?;
        moved();
        count.set(count.get() + length as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_key() {
        // The example of RFC 6455 1.3.
        assert_eq!(accepted("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
