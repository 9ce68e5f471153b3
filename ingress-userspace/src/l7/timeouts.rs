//! How long we wait for whom, the same for both engines: ingress-nginx's defaults where it has one.

use std::time::Duration;

/// For an endpoint to accept a connection (`proxy-connect-timeout`).
pub const CONNECT: Duration = Duration::from_secs(5);
/// Between two looks whether a request that waits for others to end (`max-pending-requests`) may go.
pub const ROOM: Duration = Duration::from_millis(5);
/// For an endpoint between two reads of its answer (`proxy-read-timeout`).
pub const READ: Duration = Duration::from_mins(1);
/// For an endpoint between two writes of a request (`proxy-send-timeout`).
pub const SEND: Duration = Duration::from_mins(1);
/// For a client's next request on an idle connection (`keep-alive`).
pub const CLIENT_IDLE: Duration = Duration::from_secs(75);
/// For a client's whole request head (`client-header-timeout`).
pub const CLIENT_HEAD: Duration = Duration::from_mins(1);
/// For a client between two reads of its request body (`client-body-timeout`).
pub const CLIENT_BODY: Duration = Duration::from_mins(1);
/// For a client's TLS handshake, from the first byte to the last.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection to an endpoint is kept without a request (`upstream-keepalive-timeout`).
pub const UPSTREAM_IDLE: Duration = Duration::from_mins(1);
/// What a client must send of a request body per second, on average over [`CLIENT_BODY`], for as long as there is no answer
/// and its endpoint takes what comes.
pub const CLIENT_BODY_RATE: u32 = 64;
