//! Watching the daemon: the admin address and the control socket, and what they show.

pub mod admin;
pub mod metrics;
pub mod status;
