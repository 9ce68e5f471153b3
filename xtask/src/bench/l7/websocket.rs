//! WebSocket peers for the bench: a server that sends each message back, and a client that keeps one message under way on
//! each connection. Frames are RFC 6455's, of one size; what the bench needs and no more.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::load::HOST;
use super::server::PEERS_CORE;

/// Bytes of payload in a message.
const PAYLOAD: usize = 100;
/// FIN and `binary`; then mask bit and length.
const CLIENT_HEAD: [u8; 6] = [0x82, 0x80 | PAYLOAD as u8, 0, 0, 0, 0];
const SERVER_HEAD: [u8; 2] = [0x82, PAYLOAD as u8];

/// The sample of RFC 6455 section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Starts the server, for as long as this process runs.
pub(super) fn serve() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that breaks is the client's to complain of.
            thread::spawn(move || drop(echo(stream)));
        }
    });
    Ok(address)
}

fn echo(mut stream: TcpStream) -> Result<()> {
    on_peers_core()?;
    stream.set_nodelay(true)?;
    read_head(&mut stream)?;
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    )?;
    let mut message = [0; CLIENT_HEAD.len() + PAYLOAD];
    loop {
        stream.read_exact(&mut message)?;
        // The client's mask is zero, so its payload is plain.
        let from = CLIENT_HEAD.len() - SERVER_HEAD.len();
        message[from..CLIENT_HEAD.len()].copy_from_slice(&SERVER_HEAD);
        stream.write_all(&message[from..])?;
    }
}

/// Runs messages over `connections` for that long and returns how many came back.
pub(super) fn load(proxy: SocketAddr, connections: usize, duration: Duration) -> Result<u32> {
    let client = thread::spawn(move || -> Result<u32> {
        on_peers_core()?;
        let mut streams: Vec<_> = (0..connections).map(|_| open(proxy)).collect::<Result<_>>()?;
        let message = [CLIENT_HEAD.as_slice(), &[b'x'; PAYLOAD]].concat();
        let mut answer = [0; SERVER_HEAD.len() + PAYLOAD];
        let (end, mut count) = (Instant::now() + duration, 0);
        while Instant::now() < end {
            for stream in &mut streams {
                stream.write_all(&message)?;
            }
            for stream in &mut streams {
                stream.read_exact(&mut answer)?;
                ensure!(answer[..2] == SERVER_HEAD, "another message came back");
                count += 1;
            }
        }
        Ok(count)
    });
    client.join().map_err(|_| anyhow::anyhow!("the WebSocket client panicked"))?
}

fn open(proxy: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(proxy)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "GET /websocket HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )?;
    let head = read_head(&mut stream)?;
    ensure!(head.starts_with("HTTP/1.1 101 "), "no upgrade: {head}");
    Ok(stream)
}

/// A head is all that comes before the other side speaks, so nothing is read too much.
fn read_head(stream: &mut TcpStream) -> Result<String> {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.ends_with(b"\r\n\r\n") {
        let count = stream.read(&mut buffer)?;
        ensure!(count > 0, "the connection ended in the head");
        head.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8(head).context("a head that is no text")
}

/// Moves this thread to where client and backend run.
fn on_peers_core() -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(PEERS_CORE.parse()?);
    Ok(sched_setaffinity(None, &cores)?)
}
