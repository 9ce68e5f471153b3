//! The daemon's rooms, in the order in which a change flows through them:
//!
//! `source` (objects come in) → `translate` (pure) → `model::Snapshot` (plain data) → `l4` (BPF maps),
//! `l7` (router), `status` (what the API server is told). `observe` watches, `cli` is the outside.
//!
//! Arrows are one-way: `model` knows nobody, `translate` knows `model`, `l4` and `l7` know `model` and never each
//! other; only `cli::run` knows all.

pub mod api;
pub mod cli;
#[cfg(feature = "fuzzing")]
pub mod fuzz;
pub mod l4;
pub mod l7;
pub mod model;
pub mod observe;
pub mod source;
pub mod status;
pub mod translate;
