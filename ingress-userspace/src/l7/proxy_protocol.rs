//! The PROXY protocol, versions 1 and 2: what a load balancer in front of us says about a connection before its first byte
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>). Strict and bounded: a header that is not what the
//! text says costs the connection. Asked only where the peer is trusted. The parser is pure; `read` serves the TLS
//! listeners.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::TcpStream;

use super::tls::stream;

/// How a version 2 header begins (section 2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest version 1 line, CR LF included (section 2.1).
const LONGEST_LINE: usize = 107;
/// The longest rest of a version 2 header that is taken; extensions use a few hundred bytes.
const LONGEST_REST: usize = 2048;
/// Length of what a version 2 header always has.
const FIXED: usize = 16;
/// The extension that says how the client's TLS was (section 2.2.6), and its flag for "there was some".
const TYPE_SSL: u8 = 0x20;
const CLIENT_SSL: u8 = 0x01;

/// A whole header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Its length in bytes.
    pub length: usize,
    /// The client's address and the one that it chose; `None`: the proxy speaks for itself (health checks), or does not know.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// The client came by TLS, which ended at the proxy.
    pub is_tls: bool,
}

/// It is no PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It begins otherwise.
    #[error("it does not begin with a PROXY header; does the proxy send one (option use-proxy-protocol)?")]
    Missing,
    /// It begins right, but goes on wrong.
    #[error("its PROXY header is malformed")]
    Malformed,
    /// It is longer than is allowed.
    #[error("its PROXY header is too long")]
    TooLong,
}

/// Parses the header at the start of `bytes`. `None`: more bytes are needed.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Error> {
    match bytes.first() {
        None => Ok(None),
        Some(b'P') => parse_line(bytes),
        _ => parse_binary(bytes),
    }
}

/// Version 1: `PROXY TCP4 192.0.2.7 192.0.2.1 5000 80`.
fn parse_line(bytes: &[u8]) -> Result<Option<Header>, Error> {
    const START: &[u8] = b"PROXY ";
    let known = bytes.len().min(START.len());
    if bytes[..known] != START[..known] {
        return Err(Error::Missing);
    }
    let line = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() < LONGEST_LINE { Ok(None) } else { Err(Error::TooLong) };
    };
    let line = line[..end].strip_suffix(b"\r").ok_or(Error::Malformed)?;
    let text = std::str::from_utf8(&line[START.len()..]).map_err(|_| Error::Malformed)?;
    // Whatever follows UNKNOWN is to be ignored.
    let addresses = if text == "UNKNOWN" || text.starts_with("UNKNOWN ") {
        None
    } else {
        Some(addresses(text).ok_or(Error::Malformed)?)
    };
    Ok(Some(Header { length: end + 1, addresses, is_tls: false }))
}

fn addresses(text: &str) -> Option<(SocketAddr, SocketAddr)> {
    let mut words = text.split(' ');
    let family = words.next()?;
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (from, to) = (address()?, address()?);
    let mut port =
        || words.next().filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok();
    let (from, to) = (SocketAddr::new(from, port()?), SocketAddr::new(to, port()?));
    words.next().is_none().then_some((from, to))
}

/// Version 2.
fn parse_binary(bytes: &[u8]) -> Result<Option<Header>, Error> {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes[..known] != SIGNATURE[..known] {
        return Err(Error::Missing);
    }
    let Some(&[version_and_command, family, high, low]) = bytes.get(SIGNATURE.len()..FIXED) else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > LONGEST_REST {
        return Err(Error::TooLong);
    }
    let command = match version_and_command {
        0x20 | 0x21 => version_and_command & 0x0f,
        _ => return Err(Error::Malformed),
    };
    let Some(rest) = bytes.get(FIXED..FIXED + length) else { return Ok(None) };
    let whole = |addresses, is_tls| Ok(Some(Header { length: FIXED + length, addresses, is_tls }));
    if command == 0 {
        return whole(None, false);
    }
    let (addresses, extensions) = match family {
        0x11 => socket_addresses::<4>(rest).ok_or(Error::Malformed)?,
        0x21 => socket_addresses::<16>(rest).ok_or(Error::Malformed)?,
        // Unspecified, and UNIX sockets: nothing that we could use. Datagrams do not come by TCP.
        0x00 | 0x31 => return whole(None, false),
        _ => return Err(Error::Malformed),
    };
    let is_tls = is_tls(extensions).ok_or(Error::Malformed)?;
    whole(Some(addresses), is_tls)
}

/// Two addresses of `N` bytes, two ports, and what follows.
fn socket_addresses<const N: usize>(bytes: &[u8]) -> Option<((SocketAddr, SocketAddr), &[u8])>
where
    IpAddr: From<[u8; N]>,
{
    let (from, bytes) = bytes.split_first_chunk::<N>()?;
    let (to, bytes) = bytes.split_first_chunk::<N>()?;
    let (ports, extensions) = bytes.split_first_chunk::<4>()?;
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    let from = SocketAddr::new(IpAddr::from(*from), port(0));
    let to = SocketAddr::new(IpAddr::from(*to), port(2));
    Some(((from, to), extensions))
}

/// Whether an extension says that the client came by TLS; `None`: they are malformed.
fn is_tls(mut extensions: &[u8]) -> Option<bool> {
    let mut is_tls = false;
    while let [kind, rest @ ..] = extensions {
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        is_tls |= *kind == TYPE_SSL && value.first().is_some_and(|flags| flags & CLIENT_SSL != 0);
        extensions = rest;
    }
    Some(is_tls)
}

/// Reads the header of a connection, and gives what came behind it. The caller has the timeout.
pub async fn read(stream: &TcpStream) -> io::Result<(Header, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream::read(stream, &mut buffer).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
        let header = parse(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if let Some(header) = header {
            return Ok((header, bytes.split_off(header.length)));
        }
    }
}

#[cfg(test)]
mod tests;
