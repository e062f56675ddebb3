//! A progress bar on a terminal; elsewhere a plain line now and then.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::note;
use super::units::{bytes, compact, duration};

/// Time between two lines where there is no terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// The bar that is on the screen, for whoever else writes there.
static DRAWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Runs `write`, which writes lines to the screen, above the bar that is there.
pub(crate) fn above_bar(write: impl FnOnce()) {
    let drawn = DRAWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match drawn {
        Some(bar) if !bar.is_finished() => bar.suspend(write),
        _ => write(),
    }
}

/// Takes the bar that is on the screen, if there is one, off it.
pub(crate) fn clear_screen() {
    if let Some(bar) = DRAWN.lock().unwrap_or_else(PoisonError::into_inner).take() {
        bar.finish_and_clear();
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Bytes, shown with their prefix.
    Bytes,
    /// Things.
    Count,
}

/// Progress of one stage, on standard error.
pub(crate) struct Bar {
    label: String,
    unit: Unit,
    total: u64,
    /// None where there is no terminal.
    drawn: Option<ProgressBar>,
    start: Instant,
    /// Where the stage began: not at 0 if it goes on from earlier work.
    first: u64,
    last_line: Instant,
}

impl Bar {
    /// A stage that begins at 0.
    pub(crate) fn new(label: &str, total: u64, unit: Unit) -> Self {
        Self::resumed(label, 0, total, unit)
    }

    /// A stage that begins at `first`.
    pub(crate) fn resumed(label: &str, first: u64, total: u64, unit: Unit) -> Self {
        let drawn = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix} {bar:12} {percent:>3} %  {wide_msg}")
                .expect("a constant template")
                .progress_chars("━╸ ");
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(8));
            let bar = bar.with_style(style).with_prefix(label.to_owned()).with_position(first);
            *DRAWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
            bar
        });
        let now = Instant::now();
        Bar { label: label.to_owned(), unit, total, drawn, start: now, first, last_line: now }
    }

    /// The same stage, if it began before the bar was there to show it.
    pub(crate) fn begun_at(mut self, start: Instant) -> Self {
        self.start = start;
        self
    }

    /// Moves on to `done`, with rate and remaining time.
    pub(crate) fn set(&mut self, done: u64) {
        let unit = |x: f64| match self.unit {
            Unit::Bytes => bytes(x as u64),
            Unit::Count => compact(x.round()),
        };
        let (done_text, total, per_second) = (unit(done as f64), unit(self.total as f64), unit(self.rate(done)));
        let remaining = duration(self.remaining_seconds(done));
        self.set_with(done, &format!("{done_text} of {total}  {per_second}/s  {remaining} left"));
    }

    /// Moves on to `done`, with words of the caller's.
    pub(crate) fn set_with(&mut self, done: u64, message: &str) {
        match &self.drawn {
            Some(bar) => {
                bar.set_message(message.to_owned());
                bar.set_position(done);
            }
            None if self.last_line.elapsed() >= PLAIN_EVERY => {
                self.last_line = Instant::now();
                note(&format!("{}: {message}", self.label));
            }
            None => {}
        }
    }

    /// Shows other words without moving.
    pub(crate) fn set_message(&self, message: &str) {
        if let Some(bar) = &self.drawn {
            bar.set_message(message.to_owned());
        }
    }

    /// Units per second so far.
    fn rate(&self, done: u64) -> f64 {
        done.saturating_sub(self.first) as f64 / self.start.elapsed().as_secs_f64().max(1e-9)
    }

    /// Seconds to the end at the rate so far.
    pub(crate) fn remaining_seconds(&self, done: u64) -> f64 {
        match self.rate(done) {
            0.0 => f64::NAN,
            rate => self.total.saturating_sub(done) as f64 / rate,
        }
    }

    /// Ends the stage and says how long it took.
    pub(crate) fn finish(self, what: &str) {
        self.clear();
        note(&format!("{what}: {}", duration(self.start.elapsed().as_secs_f64())));
    }

    /// Takes the bar off the screen.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.drawn {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}
