//! Map `HEARTBEAT`: the daemon's sign of life. It writes `CLOCK_MONOTONIC` in nanoseconds (the clock of
//! `bpf_ktime_get_ns`) several times per [`super::Config::heartbeat_timeout_ns`]. When the value is older, the program
//! gives new flows to the peers; established sockets of this node keep getting their packets.

/// `Array<u64>` with one element.
pub const HEARTBEAT: &str = "HEARTBEAT";
