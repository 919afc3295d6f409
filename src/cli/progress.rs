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
        let now = clock::tick();
        let bar = io::stderr().is_terminal().then(|| {
            let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
            let template = match total {
                Some(_) => "{bar:30} {percent:>3}% {human_pos} {msg}, {per_sec:.0}, ETA {eta}",
                None => "{spinner} {human_pos} {msg}, {per_sec:.0}",
            };
            bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message(what);
            bar
        });
        Progress { what, total, started: now, last_line: now, bar }
    }

    /// Shows that `done` steps are done. Cheap enough for every thousandth step, not for every one.
    pub fn at(&mut self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        } else if self.last_line.elapsed() >= EVERY {
            self.last_line = clock::tick();
            let seconds = self.started.elapsed().as_secs();
            tracing::info!(what = self.what, done, total = self.total, seconds, "progress");
        }
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
