//! TLS termination: the listeners' loop, the handshake, which certificate is shown to whom, and what a client's own is
//! worth. Certificates are compiled with each snapshot and looked up during the handshake, so rotating one touches no
//! connection.

pub mod accept;
mod certificates;
pub mod client_auth;
mod config;
mod name;
mod passthrough;
mod policies;
pub mod stream;
pub mod tickets;

pub use certificates::{Certificates, self_signed};
pub use config::Server;
pub use policies::is_misdirected;
