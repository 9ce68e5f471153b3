//! `bench control`: the road of a change, from the objects to the router, at the size of a large cluster. The measuring is
//! `ingress-userspace/benches/control.rs`; the reference is the limit that we set ourselves.

use anyhow::Result;

use super::Row;
use crate::process;

pub(super) fn rows() -> Result<Vec<Row>> {
    // The package and the profile of the release binary, so that nothing is built twice.
    super::measured(process::cargo().args(["bench", "--quiet", "--package", "ingress-userspace"]).args([
        "--profile",
        "release",
        "--bench",
        "control",
    ]))
}
