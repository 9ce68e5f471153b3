//! `bench l4`: ns per packet of the XDP program. The measuring is `tests/bench_l4`, a program of its own because xtask does
//! not link aya.

use anyhow::{Result, ensure};

use super::Row;
use crate::process;

pub(super) fn rows() -> Result<Vec<Row>> {
    ensure!(process::is_root(), "it needs root (BPF): run `sudo -E env PATH=\"$PATH\" cargo xtask bench l4`");
    // The selection of packages and the profile of the tests, so that nothing is built twice: what is measured runs in the
    // kernel, and `ingress-common` is optimised in this profile too.
    super::measured(
        process::cargo().args(["bench", "--quiet", "--workspace", "--exclude", "ingress-ebpf"]).args([
            "--profile",
            "dev",
            "--bench",
            "l4",
        ]),
    )
}
