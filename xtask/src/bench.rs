//! `cargo xtask bench l4|l7|control [--json FILE]`: measures us beside our peers in the same run, prints a table and writes
//! the rows. What is measured is in the files below; this one knows only rows.

use std::{
    fmt::Write as _,
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{build, report, setup};

mod control;
mod l4;
mod l7;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to measure.
    what: What,
    /// Also write the rows to this file, as a JSON array.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Of `l7` only the rows whose name contains this.
    #[arg(long)]
    only: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// The XDP program: ns per packet beside the same wrapper around `return XDP_TX`.
    L4,
    /// The router: CPU seconds per million requests beside nginx and HAProxy.
    L7,
    /// The control plane: time of a change and memory with 10,000 Ingresses, beside our own limits.
    Control,
}

/// One figure of ours beside the reference's, from the same run. Absolute figures differ by machine; ratios less so.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) ours: f64,
    pub(crate) reference: f64,
    pub(crate) unit: String,
    /// `ours / reference`; smaller is better for every unit that we use (time, CPU).
    pub(crate) ratio: f64,
    /// The ratio that we aim at, if one is set.
    pub(crate) target: Option<f64>,
    /// Whether `ratio` reaches `target`.
    pub(crate) ok: Option<bool>,
}

impl Row {
    pub(crate) fn new(name: &str, ours: f64, reference: f64, unit: &str, target: Option<f64>) -> Self {
        let ratio = ours / reference;
        let ok = target.map(|target| ratio <= target);
        Self { name: name.into(), ours, reference, unit: unit.into(), ratio, target, ok }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(&setup::BENCH)?;
    match args.what {
        What::L7 => build::dist()?,
        What::L4 | What::Control => build::run()?,
    }
    report::heading("bench");
    let mut rows = Rows::default();
    match args.what {
        What::L4 => rows.add("l4", l4::rows()),
        What::L7 => l7::rows(args.only.as_deref(), &mut rows)?,
        What::Control => rows.add("control", control::rows()),
    }
    print!("{}", table(&rows.measured));
    if let Some(file) = &args.json {
        let json = serde_json::to_string_pretty(&rows.measured)?;
        fs::write(file, json + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    }
    ensure!(rows.failed.is_empty(), "not measured: {}", rows.failed.join(", "));
    Ok(())
}

/// What was measured so far. A measurement that fails costs its own rows only.
#[derive(Default)]
struct Rows {
    measured: Vec<Row>,
    failed: Vec<String>,
}

impl Rows {
    /// Takes the rows of one measurement in, and shows them.
    fn add(&mut self, name: &str, rows: Result<impl IntoIterator<Item = Row>>) {
        match rows {
            Ok(rows) => {
                for row in rows {
                    report::note(&format!("{:.2}  {}", row.ratio, row.name));
                    self.measured.push(row);
                }
            }
            Err(error) => {
                report::note(&format!("{name}: {error:#}"));
                self.failed.push(name.to_owned());
            }
        }
    }
}

/// A row as a measuring program prints it.
#[derive(Deserialize)]
struct Measured {
    name: String,
    ours: f64,
    reference: f64,
    unit: String,
    target: f64,
}

/// Runs a program that measures and prints rows as JSON.
fn measured(command: &mut Command) -> Result<Vec<Row>> {
    let output = command.stderr(Stdio::inherit()).output().context("cannot run cargo bench")?;
    ensure!(output.status.success(), "the measurement failed");
    let json = String::from_utf8(output.stdout)?;
    let measured: Vec<Measured> =
        serde_json::from_str(json.trim()).context("the measurement printed something else")?;
    Ok(measured.into_iter().map(Row::from).collect())
}

impl From<Measured> for Row {
    fn from(row: Measured) -> Self {
        Self::new(&row.name, row.ours, row.reference, &row.unit, Some(row.target))
    }
}

fn table(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0).max(4);
    let mut table = format!(
        "{:width$}  {:>10}  {:>10}  {:>6}  {:>6}  unit\n",
        "name", "ours", "reference", "ratio", "target"
    );
    for row in rows {
        let target = row.target.map_or_else(|| "-".into(), |target| format!("{target:.2}"));
        let missed = if row.ok == Some(false) { "  MISSED" } else { "" };
        let Row { name, ours, reference, ratio, unit, .. } = row;
        let _infallible = writeln!(
            table,
            "{name:width$}  {ours:>10.2}  {reference:>10.2}  {ratio:>6.2}  {target:>6}  {unit}{missed}"
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_judges_itself_by_its_target() {
        assert_eq!(Row::new("hit", 70.0, 100.0, "ns", Some(0.7)).ok, Some(true));
        assert_eq!(Row::new("hit", 71.0, 100.0, "ns", Some(0.7)).ok, Some(false));
        assert_eq!(Row::new("hit", 71.0, 100.0, "ns", None).ok, None);
    }

    #[test]
    fn a_failed_measurement_costs_its_own_rows_only() {
        let mut rows = Rows::default();
        rows.add("one", Ok([Row::new("hit", 1.0, 2.0, "ns", None)]));
        rows.add("two", Err::<[Row; 0], _>(anyhow::anyhow!("no backend")));
        rows.add("three", Ok([Row::new("miss", 1.0, 2.0, "ns", None)]));
        assert_eq!(rows.measured.len(), 2);
        assert_eq!(rows.failed, ["two"]);
    }

    #[test]
    fn the_table_lines_up_and_names_what_was_missed() {
        let rows =
            [Row::new("hit", 1.0, 2.0, "ns", None), Row::new("a long name", 3.0, 2.0, "ns", Some(0.7))];
        let table = table(&rows);
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[2].ends_with("ns  MISSED"));
        assert_eq!(lines[0].find("ratio").map(|at| at + 5), lines[1].find("0.50").map(|at| at + 4));
    }
}
