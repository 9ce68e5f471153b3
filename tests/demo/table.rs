//! Plain tables for a terminal: columns as wide as their widest cell, numbers to the right. Pure.

use std::fmt::Write as _;

/// Lays out `rows` under `header`; the first column is aligned left, the others right.
pub(super) fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let cells = |row: &[String], column: usize| row.get(column).map_or(0, |cell| cell.chars().count());
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let widest = rows.iter().map(|row| cells(row, column)).max().unwrap_or(0);
            widest.max(title.chars().count())
        })
        .collect();
    let mut text = String::new();
    let titles: Vec<String> = header.iter().map(|&title| title.to_owned()).collect();
    let rule: Vec<String> = widths.iter().map(|&width| "─".repeat(width)).collect();
    for row in [&titles, &rule].into_iter().chain(rows) {
        text.push_str("  ");
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let pad = width - cell.chars().count();
            let (before, after) = if column == 0 { (0, pad) } else { (pad, 0) };
            let _ = write!(text, "{}{cell}{}  ", " ".repeat(before), " ".repeat(after));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::render;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "1,000".to_owned()], vec!["längste".to_owned(), "2".to_owned()]];
        let expected = "  what     count\n  ───────  ─────\n  a        1,000\n  längste      2\n";
        assert_eq!(render(&["what", "count"], &rows), expected);
    }
}
