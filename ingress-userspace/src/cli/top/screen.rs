//! The terminal while `top` has it: alternate screen, raw mode, and back again however `top` ends.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers, poll, read};
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use crossterm::{cursor, execute, queue, style};

/// The screen; the terminal is as before when it is dropped.
pub(super) struct Screen {
    out: io::Stdout,
}

impl Screen {
    pub(super) fn open() -> io::Result<Self> {
        enable_raw_mode()?;
        let mut screen = Self { out: io::stdout() };
        execute!(screen.out, EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }

    /// As much of `text` as fits.
    pub(super) fn show(&mut self, text: &str) -> io::Result<()> {
        let (width, height) = size()?;
        let mut out = self.out.lock();
        for (row, line) in (0..height).zip(text.lines().map(Some).chain(std::iter::repeat(None))) {
            let line: String = line.unwrap_or_default().chars().take(width.into()).collect();
            queue!(out, cursor::MoveTo(0, row), style::Print(line), Clear(ClearType::UntilNewLine))?;
        }
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs no repair.
        let _ = execute!(self.out, cursor::Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

/// Waits for `time`, or less if the user wants to end it: then true.
pub(super) fn end_is_wanted(time: Duration) -> io::Result<bool> {
    let end = Instant::now() + time;
    while poll(end.saturating_duration_since(Instant::now()))? {
        if let Event::Key(key) = read()?
            && key.kind == KeyEventKind::Press
            && match key.code {
                KeyCode::Char('q') | KeyCode::Esc => true,
                KeyCode::Char('c') => key.modifiers.contains(KeyModifiers::CONTROL),
                _ => false,
            }
        {
            return Ok(true);
        }
    }
    Ok(false)
}
