//! What xtask prints: one line a step, saying what is done, or why it is skipped. Long steps get a spinner with the
//! time so far on a terminal, and plain lines everywhere else (CI logs). Prints only; runs nothing.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// A heading for a group of steps.
pub(crate) fn heading(text: &str) {
    println!("==> {text}");
}

/// A step that isn't needed, and why.
pub(crate) fn skipped(what: &str, why: &str) {
    println!("    skip  {what}: {why}");
}

/// A prerequisite that isn't there, for reports that change nothing.
pub(crate) fn missing(what: &str, why: &str) {
    println!("    miss  {what}: {why}");
}

/// A remark below a step.
pub(crate) fn note(text: &str) {
    println!("          {text}");
}

/// A step under way. Dropped without `done`, it counts as failed.
pub(crate) struct Step {
    what: String,
    started: Instant,
    spinner: ProgressBar,
    finished: bool,
}

impl Step {
    pub(crate) fn start(what: impl Into<String>) -> Self {
        let what = what.into();
        let spinner = ProgressBar::new_spinner();
        if spinner.is_hidden() {
            println!("    do    {what}");
        } else {
            let style =
                ProgressStyle::with_template("    {spinner}     {prefix} ({elapsed}) {wide_msg:.dim}");
            spinner.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            spinner.set_prefix(what.clone());
            spinner.enable_steady_tick(Duration::from_millis(120));
        }
        Self { what, started: Instant::now(), spinner, finished: false }
    }

    /// The newest line of output, to show that something moves.
    pub(crate) fn progress(&self, line: &str) {
        self.spinner.set_message(line.trim().to_owned());
    }

    pub(crate) fn done(mut self) {
        self.finish("done");
    }

    fn finish(&mut self, word: &str) {
        self.finished = true;
        self.spinner.finish_and_clear();
        println!("    {word}  {} ({:.1} s)", self.what, self.started.elapsed().as_secs_f64());
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.finished {
            self.finish("FAIL");
        }
    }
}
