//! `bench control`: the road of a change at the size of a large cluster. First from the objects to the router
//! (`ingress-userspace/benches/control/main.rs`), then with the whole daemon on a real API server
//! (`tests/cluster_scenarios/scale.rs`). The reference is the limit that we set ourselves.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};
use ingress_tests::paths;

use super::{Measured, Row};
use crate::{process, setup};

pub(super) fn rows() -> Result<Vec<Row>> {
    // The profile that ships, as everywhere where something is measured.
    let package = ["--profile", "dist", "--package", "ingress-userspace"];
    let mut rows = super::measured(
        process::cargo().args(["bench", "--quiet"]).args(package).args(["--bench", "control"]),
    )?;
    if process::is_root() {
        setup::ensure(&setup::CLUSTER)?;
        process::streamed(process::cargo().arg("build").args(package))
            .context("the daemon does not build")?;
        rows.extend(on_a_real_api_server()?);
    } else {
        println!("without root there is no API server to measure with: its rows are left out");
    }
    Ok(rows)
}

fn on_a_real_api_server() -> Result<Vec<Row>> {
    let file = paths::xtask_dir().join("scale.json");
    let mut test: Command = process::cargo();
    test.args([
        "test",
        "--quiet",
        "--workspace",
        "--exclude",
        "ingress-ebpf",
        "--test",
        "cluster",
        "--",
        "scale::",
    ])
    .env("XDP_INGRESS_BIN", paths::target_dir().join("dist/xdp-ingress"))
    .env("XDP_INGRESS_ROWS", &file);
    process::streamed(&mut test).context("the measurement on a real API server failed")?;
    let measured: Vec<Measured> = serde_json::from_slice(&fs::read(&file)?)?;
    Ok(measured.into_iter().map(Row::from).collect())
}
