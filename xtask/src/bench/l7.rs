//! `bench l7`: CPU seconds per million small keep-alive requests, beside nginx and HAProxy.

use anyhow::{Result, bail};

use super::Row;

pub(super) fn rows() -> Result<Vec<Row>> {
    bail!("not written yet")
}
