//! Event-time order and clock hygiene: which events are released, in which order, and what the watermark is.
//!
//! Per partition, a deterministic function of its records. The watermark is the latest event time seen, except that
//! one record alone never moves it by more than `max_future_skew`: a larger step needs a second record that agrees.

mod hold;
mod watermark;

pub use hold::Order;
pub use watermark::Watermark;

use crate::base::time::Gap;

/// What to do with an event that is earlier than its key's last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Late {
    /// Take it at the last one's time (gap 0) and flag it `late_clamped`.
    #[default]
    Clamp,
    /// Make it a dead letter `late`.
    DeadLetter,
}

/// The `[order]` table, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long an event waits for earlier ones.
    pub lateness: Gap,
    /// How far an event time may lie after the time at which the log took the record in.
    pub max_future_skew: Gap,
    /// What to do with a late event.
    pub late: Late,
    /// Whether the watermark is wanted also where nothing waits for it.
    pub timed: bool,
}
