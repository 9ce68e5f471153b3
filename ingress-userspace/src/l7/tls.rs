//! TLS termination: which certificate is shown to whom. Compiled with each snapshot; asked by the handshake.

mod certificates;

pub use certificates::Certificates;
