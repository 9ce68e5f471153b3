//! What XDP did on each node: packets by verdict, as `xdp-ingress status -o json` has them.

use anyhow::Result;

use super::table;
use crate::lab::{Lab, Node};

/// Verdicts as people think of them, and how the names of their reasons begin.
const VERDICTS: [(&str, &str); 5] = [
    ("delivered here", "local_"),
    ("to another node", "forward_"),
    ("ARP/NDP answered", "_answered"),
    ("left to the owner", "_not_owner"),
    ("dropped", "drop_"),
];

/// A table of the living nodes.
pub(super) fn table(lab: &Lab) -> Result<String> {
    let mut rows = Vec::new();
    for node in lab.nodes() {
        if node.is_running() {
            rows.push(row(node)?);
        } else {
            rows.push(vec![node.name().to_owned(), "cut off".to_owned()]);
        }
    }
    let header: Vec<&str> =
        ["packets of the VIPs"].into_iter().chain(VERDICTS.map(|(title, _)| title)).collect();
    Ok(table::render(&header, &rows))
}

fn row(node: &Node) -> Result<Vec<String>> {
    let status = node.status()?;
    let packets = &status["l4"]["reasons"];
    let count = |mark: &str| -> u64 {
        let reasons = packets.as_object().into_iter().flatten();
        reasons
            .filter(|(reason, _)| reason.starts_with(mark) || reason.ends_with(mark))
            .filter_map(|(_, count)| count.as_u64())
            .sum()
    };
    let mut row = vec![node.name().to_owned()];
    row.extend(VERDICTS.map(|(_, mark)| count(mark).to_string()));
    Ok(row)
}
