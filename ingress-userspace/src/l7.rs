//! The router, in the order of a request's road: listeners, `tls`, the protocol engines, `decide` (`router`, `filter`),
//! `balance`, upstream. One worker a core; a request never leaves its worker. Started and fed by `cli::run`; knows
//! `model` and nobody else.

pub mod answer;
pub mod balance;
pub mod decide;
pub mod filter;
pub mod forwarded;
pub mod head;
pub mod http1;
pub mod live;
pub mod router;
pub mod stats;
pub mod tls;
pub mod worker;

pub use live::{Backend, ClusterKey};
