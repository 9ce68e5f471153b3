//! A backend on a thread of its own: answers each request with a JSON-free text of what it saw.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a backend does with a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// Answers 200 with its name and the request's head and body.
    Echo,
    /// The same by chunks, with a pause.
    Slow(Duration),
    /// Closes the connection once a request has arrived.
    HangUp,
    /// Answers once per connection, then closes it without saying so.
    OneShot,
    /// Answers nonsense.
    Nonsense,
}

pub(super) struct Backend {
    pub(super) address: SocketAddr,
    pub(super) connections: Arc<AtomicUsize>,
    pub(super) requests: Arc<Mutex<Vec<String>>>,
}

impl Backend {
    pub(super) fn start(name: &'static str, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let backend = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            requests: Arc::default(),
        };
        let (connections, requests) = (Arc::clone(&backend.connections), Arc::clone(&backend.requests));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                connections.fetch_add(1, Ordering::Relaxed);
                let requests = Arc::clone(&requests);
                std::thread::spawn(move || serve(name, behaviour, stream, &requests));
            }
        });
        backend
    }

    /// The heads of the requests that arrived.
    pub(super) fn seen(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(name: &str, behaviour: Behaviour, stream: TcpStream, requests: &Mutex<Vec<String>>) -> Option<()> {
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let (head, body) = read_request(&mut reader)?;
        requests.lock().unwrap().push(head.clone());
        let text = format!("{name}\n{head}{body}");
        match behaviour {
            Behaviour::Echo | Behaviour::OneShot => {
                write!(
                    writer,
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nKeep-Alive: timeout=5\r\nX-Backend: {name}\r\n\r\n{text}",
                    text.len()
                )
                .ok()?;
            }
            Behaviour::Slow(pause) => {
                write!(writer, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfirst\n\r\n")
                    .ok()?;
                std::thread::sleep(pause);
                write!(writer, "4\r\nlast\r\n0\r\n\r\n").ok()?;
            }
            Behaviour::HangUp => return None,
            Behaviour::Nonsense => writer.write_all(b"SMTP 220 hello\r\n\r\n").ok()?,
        }
        if behaviour == Behaviour::OneShot {
            return None;
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<(String, String)> {
    let mut head = String::new();
    loop {
        let start = head.len();
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
        if head[start..].trim_end().is_empty() {
            break;
        }
    }
    let lower = head.to_ascii_lowercase();
    let field = |name: &str| lower.lines().find_map(|l| l.strip_prefix(name).map(|v| v.trim().to_owned()));
    let mut body = Vec::new();
    if let Some(length) = field("content-length:") {
        body.resize(length.parse().unwrap(), 0);
        reader.read_exact(&mut body).ok()?;
    } else if field("transfer-encoding:").is_some() {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            let start = body.len();
            body.resize(start + size, 0);
            reader.read_exact(&mut body[start..]).ok()?;
            reader.read_line(&mut line).ok()?;
            if size == 0 {
                break;
            }
        }
    }
    Some((head, String::from_utf8_lossy(&body).into_owned()))
}
