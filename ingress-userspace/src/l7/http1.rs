//! HTTP/1.1, an engine of our own: strict parsing and framing in one pass (`request`, `response`, `chunked`, pure), and
//! the machine that joins a client's connection with an endpoint's for one exchange at a time. Runs on its own epoll
//! inside the worker's tokio runtime; asks `decide` what to do with a request and never looks at rules itself.

mod body;
mod chunked;
pub mod error;
pub mod fields;
pub mod request;
pub mod response;
pub mod syntax;
