//! Adds up the closing lines of test binaries ("test result: ok. 3 passed; 0 failed; 1 ignored; …"), which libtest
//! and libtest-mimic share. Pure.

use std::{fmt, ops::AddAssign};

/// How many tests ended how. Printed as the plain line that closes `cargo xtask test`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) skipped: u64,
}

impl Summary {
    /// Counts `line` if it is a closing line.
    pub(super) fn add_line(&mut self, line: &str) {
        let plain = without_colours(line);
        let Some(counts) = plain.trim().strip_prefix("test result:") else { return };
        let counts = counts.split_once('.').map_or(counts, |(_verdict, counts)| counts);
        for count in counts.split(';') {
            let mut words = count.split_whitespace();
            let (Some(Ok(number)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// `line` without ANSI colour sequences (`ESC [ … m`).
fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('\x1b') {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_sequence, after)| after);
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary_of(output: &str) -> Summary {
        let mut summary = Summary::default();
        output.lines().for_each(|line| summary.add_line(line));
        summary
    }

    #[test]
    fn closing_lines_of_several_binaries_add_up() {
        let output = "running 3 tests\ntest a ... ok\n\
            test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\n\
            test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 5 filtered out; finished in 1.20s\n";
        assert_eq!(summary_of(output), Summary { passed: 13, failed: 2, skipped: 1 });
    }

    #[test]
    fn colours_do_not_hide_a_closing_line() {
        let line =
            "test result: \x1b[31mFAILED\x1b[0m. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(summary_of(line), Summary { passed: 1, failed: 2, skipped: 0 });
    }

    #[test]
    fn other_lines_count_nothing() {
        assert_eq!(
            summary_of("thread 'x' says: test result: 5 passed\n7 passed; 3 failed\n"),
            Summary::default()
        );
    }

    #[test]
    fn the_closing_line_is_plain() {
        assert_eq!(Summary { passed: 3, failed: 0, skipped: 0 }.to_string(), "3 passed, 0 failed");
        assert_eq!(Summary { passed: 3, failed: 1, skipped: 2 }.to_string(), "3 passed, 1 failed, 2 skipped");
    }
}
