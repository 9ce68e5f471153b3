//! The HTTP/1.1 engine from outside: raw sockets on both sides of a running router, on 127.0.0.1. What clients get is
//! asserted together with what backends received.

#![expect(clippy::unwrap_used, reason = "a test that fails shall say where")]

mod anybody;
mod bodies;
mod connections;
mod harness;
mod limits;
mod nginx;
mod tls;
mod upgrade;
mod vectors;
