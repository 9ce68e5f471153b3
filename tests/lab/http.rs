//! The load clients' HTTP/1.1: one request on a blocking connection, and what may go wrong told apart, since the
//! scenarios count it. Independent of the product's HTTP code and of the pods' (`echo`).

use std::{
    fmt,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::echo::Echo;

/// Where to, and for which site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Address and port of the VIP.
    pub address: SocketAddr,
    /// The `Host` header.
    pub host: String,
    /// Path and query.
    pub path: String,
}

impl Target {
    /// Port 80 of `address`.
    pub fn new(address: IpAddr, host: &str, path: &str) -> Self {
        Self { address: SocketAddr::new(address, 80), host: host.to_owned(), path: path.to_owned() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{} at {}", self.host, self.path, self.address)
    }
}

/// A whole response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// `200`, …
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Without framing.
    pub body: String,
}

impl Response {
    /// The first value of the header field `name` (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The server closes the connection after this response.
    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    /// The backend's answer; an error where it isn't a 200 from one.
    pub fn echo(&self) -> Result<Echo> {
        if self.status != 200 {
            bail!("status {}: {}", self.status, self.body.trim());
        }
        Echo::parse(&self.body)
    }
}

/// Why there was no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// No connection within the time.
    ConnectTimeout,
    /// The connection was refused, or there is no way to it.
    Refused,
    /// Reset by the peer.
    Reset,
    /// Closed by the peer without a (whole) response.
    Closed,
    /// No whole response within the time.
    Timeout,
    /// Not HTTP/1.1.
    Malformed,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConnectTimeout => "no connection in time",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Closed => "closed without a response",
            Self::Timeout => "no response in time",
            Self::Malformed => "not HTTP/1.1",
        })
    }
}

impl std::error::Error for Failure {}

impl Failure {
    fn of(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Timeout,
            ErrorKind::UnexpectedEof => Self::Closed,
            ErrorKind::InvalidData => Self::Malformed,
            _ => Self::Reset,
        }
    }
}

/// A connection to one target.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    timeout: Duration,
    /// Received, not used yet.
    buffer: Vec<u8>,
}

impl Connection {
    /// Opens one; `timeout` is for this and for each response.
    pub fn open(address: SocketAddr, timeout: Duration) -> Result<Self, Failure> {
        let stream = TcpStream::connect_timeout(&address, timeout).map_err(|error| match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Failure::ConnectTimeout,
            _ => Failure::Refused,
        })?;
        // Nagle would only add waiting; a failure to set this changes nothing else.
        let _ = stream.set_nodelay(true);
        Ok(Self { stream, timeout, buffer: Vec::with_capacity(2048) })
    }

    /// The local address.
    pub fn local(&self) -> Option<SocketAddr> {
        self.stream.local_addr().ok()
    }

    /// Sends `GET` and reads the response; with `close` the server is told that it is the last one.
    pub fn get(&mut self, target: &Target, close: bool) -> Result<Response, Failure> {
        let connection = if close { "connection: close\r\n" } else { "" };
        let head = format!(
            "GET {} HTTP/1.1\r\nhost: {}\r\nuser-agent: lab\r\n{connection}\r\n",
            target.path, target.host
        );
        self.exchange(head.as_bytes())
    }

    /// Sends the bytes of a whole request and reads the response.
    pub fn exchange(&mut self, request: &[u8]) -> Result<Response, Failure> {
        let end = Instant::now() + self.timeout;
        self.stream.write_all(request).map_err(|error| Failure::of(&error))?;
        let response = self.read_response(end);
        response.map_err(|error| Failure::of(&error))
    }

    fn read_response(&mut self, end: Instant) -> io::Result<Response> {
        loop {
            let head = self.read_until(b"\r\n\r\n", end)?;
            let head = String::from_utf8(head).map_err(|_| malformed())?;
            let mut lines = head.split("\r\n");
            let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
            let status: u16 = status.ok_or_else(malformed)?;
            let headers: Option<Vec<_>> = lines
                .filter(|line| !line.is_empty())
                .map(|line| line.split_once(':').map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned())))
                .collect();
            let mut response =
                Response { status, headers: headers.ok_or_else(malformed)?, body: String::new() };
            if (100..200).contains(&status) {
                continue;
            }
            let body = self.read_body(&response, end)?;
            response.body = String::from_utf8_lossy(&body).into_owned();
            return Ok(response);
        }
    }

    fn read_body(&mut self, response: &Response, end: Instant) -> io::Result<Vec<u8>> {
        if response.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            let mut body = Vec::new();
            loop {
                let line = String::from_utf8(self.read_until(b"\r\n", end)?).map_err(|_| malformed())?;
                let size = usize::from_str_radix(line.trim(), 16).map_err(|_| malformed())?;
                if size == 0 {
                    while self.read_until(b"\r\n", end)?.len() > 2 {}
                    return Ok(body);
                }
                body.extend(self.read_exactly(size, end)?);
                self.read_exactly(2, end)?;
            }
        }
        match response.header("content-length") {
            Some(length) => self.read_exactly(length.parse().map_err(|_| malformed())?, end),
            None if matches!(response.status, 204 | 304) => Ok(Vec::new()),
            None => loop {
                match self.fill(end) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                        return Ok(std::mem::take(&mut self.buffer));
                    }
                    Err(error) => return Err(error),
                }
            },
        }
    }

    fn read_exactly(&mut self, size: usize, end: Instant) -> io::Result<Vec<u8>> {
        while self.buffer.len() < size {
            self.fill(end)?;
        }
        Ok(self.buffer.drain(..size).collect())
    }

    fn read_until(&mut self, mark: &[u8], end: Instant) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(mark.len()).position(|window| window == mark) {
                return Ok(self.buffer.drain(..at + mark.len()).collect());
            }
            if self.buffer.len() > 1 << 20 {
                return Err(malformed());
            }
            self.fill(end)?;
        }
    }

    fn fill(&mut self, end: Instant) -> io::Result<()> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            read => {
                self.buffer.extend_from_slice(&chunk[..read]);
                Ok(())
            }
        }
    }
}

fn malformed() -> io::Error {
    ErrorKind::InvalidData.into()
}

/// One request on a connection of its own.
pub fn get(target: &Target, timeout: Duration) -> Result<Response, Failure> {
    Connection::open(target.address, timeout)?.get(target, true)
}
