//! How far a command is: a bar on a terminal, one log line every ten seconds elsewhere.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::base::clock;

const EVERY: Duration = Duration::from_secs(10);

/// Progress of one piece of work that is counted in steps (events, rows, epochs).
pub struct Progress {
    what: &'static str,
    total: Option<u64>,
    started: Instant,
    last_line: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Starts the clock. `what` is counted, in the plural (`events`); `total` is how many there will be, where that is known.
    #[must_use]
    pub fn start(what: &'static str, total: Option<u64>) -> Self {
        let (counted, uncounted) =
            ("{bar:30} {percent:>3}% {human_pos} {msg}, {per_sec:.0}, ETA {eta}", "{spinner} {human_pos} {msg}, {per_sec:.0}");
        let progress = Self::styled(what, total, if total.is_some() { counted } else { uncounted });
        if let Some(bar) = &progress.bar {
            bar.set_message(what);
        }
        progress
    }

    /// As `start`, for work whose message says more than a count: `show` gives it.
    #[must_use]
    pub fn start_with_message(what: &'static str, total: Option<u64>) -> Self {
        Self::styled(what, total, if total.is_some() { "{bar:30} {percent:>3}% {msg} ETA {eta}" } else { "{spinner} {msg}" })
    }

    fn styled(what: &'static str, total: Option<u64>, template: &str) -> Self {
        let now = clock::tick();
        let bar = io::stderr().is_terminal().then(|| {
            let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
            bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Progress { what, total, started: now, last_line: now, bar }
    }

    /// Shows that `done` steps are done. Cheap enough for every thousandth step, not for every one.
    pub fn at(&mut self, done: u64) {
        let (what, total, seconds) = (self.what, self.total, self.started.elapsed().as_secs());
        self.show(done, None, || tracing::info!(what, done, total, seconds, "progress"));
    }

    /// Shows `done` and, on a terminal, what `message` says; elsewhere writes `line` when ten seconds have passed since the last one.
    pub fn show(&mut self, done: u64, message: Option<&dyn Fn() -> String>, line: impl FnOnce()) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            if let Some(message) = message {
                bar.set_message(message());
            }
        } else if self.last_line.elapsed() >= EVERY {
            self.last_line = clock::tick();
            line();
        }
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Steps that there will be, where that is known.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// Ends the display and says how long it took.
    #[must_use]
    pub fn stop(self) -> Duration {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
        self.started.elapsed()
    }
}
