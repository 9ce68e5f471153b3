//! `bench l4`: ns per packet of the XDP program. The measuring is `tests/bench_l4`, a program of its own because xtask does
//! not link aya.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::Row;
use crate::process;

/// A row as the program prints it.
#[derive(Deserialize)]
struct Measured {
    name: String,
    ours: f64,
    reference: f64,
    unit: String,
    target: f64,
}

pub(super) fn rows() -> Result<Vec<Row>> {
    ensure!(process::is_root(), "it needs root (BPF): run `sudo -E env PATH=\"$PATH\" cargo xtask bench l4`");
    // The selection of packages and the profile of the tests, so that nothing is built twice: what is measured runs in the
    // kernel, and `ingress-common` is optimised in this profile too.
    let output = process::cargo()
        .args([
            "bench",
            "--quiet",
            "--workspace",
            "--exclude",
            "ingress-ebpf",
            "--profile",
            "dev",
            "--bench",
            "l4",
        ])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo bench")?;
    ensure!(output.status.success(), "the measurement failed");
    let json = String::from_utf8(output.stdout)?;
    let measured: Vec<Measured> =
        serde_json::from_str(json.trim()).context("the measurement printed something else")?;
    Ok(measured
        .into_iter()
        .map(|row| Row::new(&row.name, row.ours, row.reference, &row.unit, Some(row.target)))
        .collect())
}
