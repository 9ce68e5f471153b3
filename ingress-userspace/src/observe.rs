//! Watching the daemon: the admin address and the control socket, and what they show.

pub mod access_log;
pub mod admin;
pub mod changes;
pub mod exposition;
pub mod metrics;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod status;
