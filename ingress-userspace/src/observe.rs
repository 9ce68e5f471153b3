//! Watching the daemon: the admin address (health, metrics) and the control socket (status, drain).

pub mod admin;
