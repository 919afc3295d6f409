//! Event-time order and clock hygiene.

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
}
