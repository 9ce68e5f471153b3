//! `bench l4`: ns per packet of the XDP program.

use anyhow::{Result, bail};

use super::Row;

pub(super) fn rows() -> Result<Vec<Row>> {
    bail!("not written yet")
}
