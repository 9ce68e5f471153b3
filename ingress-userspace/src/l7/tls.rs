//! TLS termination: the listeners' loop, the handshake, and which certificate is shown to whom. Certificates are
//! compiled with each snapshot and looked up during the handshake, so rotating one touches no connection.

pub mod accept;
mod certificates;
mod config;

pub use certificates::{Certificates, self_signed};
pub use config::server_config;
