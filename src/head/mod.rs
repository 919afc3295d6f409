//! Model outputs to laws of the next time and mark, and the surprise of the event that arrived.

use crate::base::time::{EventTime, Gap};

/// What the pipeline asks of a law.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asks {
    /// Quantiles of the next event's time, ascending, each in (0, 1).
    pub quantiles: Vec<f64>,
    /// Horizons.
    pub horizons: Vec<Gap>,
    /// How many of the likeliest next marks.
    pub marks: usize,
}

/// The events whose forecasts are made, as columns of equal length.
#[derive(Clone, Copy, Debug)]
pub struct Arrivals<'a> {
    /// When each happened.
    pub times: &'a [EventTime],
    /// Gap since its key's last event; `None` for a first one.
    pub gaps: &'a [Option<Gap>],
    /// Its mark as an index into the head's marks; `None` without marks, or where it is missing or unknown.
    pub marks: &'a [Option<u32>],
}
