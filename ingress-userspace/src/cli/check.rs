//! `xdp-ingress check`: reads manifests offline and prints what is wrong with them, exactly what the daemon would say.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::Output;
use crate::model::Problem;
use crate::source;
use crate::translate::{Settings, translate};

/// Checks the manifests at `paths` together, as if they were applied at once, and prints their problems; whether there
/// are none.
pub fn check(paths: &[PathBuf], output: Output) -> anyhow::Result<bool> {
    let objects = source::read_once(paths)?;
    let settings = Settings { now: jiff::Timestamp::now().as_second(), ..Settings::default() };
    let (snapshot, problems) = translate(&objects, &settings);
    match output {
        Output::Json => super::say(&json(&problems)),
        Output::Table if problems.is_empty() => {
            let (ingresses, vips) = (snapshot.ingresses.len(), snapshot.vips.len());
            super::say(&format!(
                "no problems: {}, {}",
                count(ingresses, "Ingress", "es"),
                count(vips, "VIP", "s")
            ));
        }
        Output::Table => super::say(&table(&problems)),
    }
    Ok(problems.is_empty())
}

fn count(number: usize, noun: &str, plural: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { plural })
}

/// Problems by object, the fields of one object aligned.
fn table(problems: &[Problem]) -> String {
    let mut text = String::new();
    for group in problems.chunk_by(|a, b| a.object == b.object) {
        let width = group.iter().map(|problem| problem.field.chars().count()).max().unwrap_or_default();
        let Some(first) = group.first() else { continue };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", first.object);
        for problem in group {
            let reason = problem.reason.to_string();
            let _ = writeln!(text, "  {:width$}  {reason:12}  {}", problem.field, problem.message);
            let _ = writeln!(text, "  {:width$}  {:12}  → {}", "", "", problem.hint);
        }
        text.push('\n');
    }
    let objects = problems.chunk_by(|a, b| a.object == b.object).count();
    let _ = write!(text, "{} in {}", count(problems.len(), "problem", "s"), count(objects, "object", "s"));
    text
}

fn json(problems: &[Problem]) -> String {
    let rows: Vec<serde_json::Value> = problems
        .iter()
        .map(|problem| {
            serde_json::json!({
                "kind": problem.object.kind.to_string(),
                "namespace": problem.object.namespace,
                "name": problem.object.name,
                "field": problem.field,
                "reason": problem.reason.to_string(),
                "message": problem.message,
                "hint": problem.hint,
            })
        })
        .collect();
    format!("{:#}", serde_json::json!({ "problems": rows }))
}
