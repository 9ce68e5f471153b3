//! TLS connections that we do not open (`ssl-passthrough`): the client's first message and all that follows go to an
//! endpoint as they are. Called by `accept` once the name is known.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::l7::balance::{Choice, ClusterState, InFlight};
use crate::l7::timeouts;
use crate::l7::worker::Worker;

/// Peers that are gone without a word are noticed after a few of these: nobody else knows what silence means here.
const KEEPALIVE: Duration = Duration::from_mins(1);

/// Passes a connection through until both sides have ended it. `hello` is what was read of it.
pub(super) async fn pass(worker: &Worker, mut client: TcpStream, hello: &[u8], to: Option<&ClusterState>) {
    worker.stats.accepted.add(1);
    worker.stats.open.add(1);
    if let Some(cluster) = to
        && let Some((_in_flight, mut endpoint)) = connect(worker, cluster).await
    {
        let moved = async {
            for socket in [&client, &endpoint] {
                SockRef::from(socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
            }
            endpoint.write_all(hello).await?;
            tokio::io::copy_bidirectional(&mut client, &mut endpoint).await
        };
        match moved.await {
            Ok((up, down)) => {
                worker.stats.bytes_in.add(up + hello.len() as u64);
                worker.stats.bytes_out.add(down);
            }
            Err(error) => tracing::debug!(%error, "a connection that was passed through broke off"),
        }
    }
    worker.stats.open.sub(1);
}

/// A connection to an endpoint; each is tried once. Without one the client's connection closes: there is no other way
/// to tell a client with whom we share no keys.
async fn connect(worker: &Worker, cluster: &ClusterState) -> Option<(InFlight, TcpStream)> {
    let mut tried = Vec::new();
    while let Ok(picked) = cluster.pick(&tried, Choice::default()) {
        let address = picked.address();
        let connecting = timeout(timeouts::CONNECT, TcpStream::connect(address)).await;
        let connected = connecting.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match connected.and_then(|socket| socket.set_nodelay(true).map(|()| socket)) {
            Ok(socket) => {
                worker.stats.connected.add(1);
                picked.succeeded();
                return Some((picked, socket));
            }
            Err(error) => {
                tracing::debug!(%address, %error, "endpoint cannot be reached");
                worker.stats.connect_failed.add(1);
                cluster.failed(&picked);
                tried.push(address);
            }
        }
    }
    None
}
