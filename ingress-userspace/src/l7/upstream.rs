//! Connections to endpoints. Each engine has its pools of its own kind, a worker its own pools: nothing is shared.

pub mod client;
pub(super) mod connection;
pub mod http1;
pub(super) mod pool;
pub mod transport;
