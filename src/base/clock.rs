//! The only place that reads a clock. What is computed from records never asks it; progress, pacing and file names do.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::time::EventTime;

/// Wall-clock time in microseconds since 1970.
#[allow(clippy::disallowed_methods)]
#[must_use]
pub fn now() -> EventTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    EventTime(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Monotonic time, for rates, pacing and time-outs.
#[must_use]
pub fn tick() -> Instant {
    Instant::now()
}
