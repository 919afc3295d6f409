//! Drawn continuations of a key: what may come next, as columns.

use crate::base::offset::{Offset, Partition};
use crate::base::time::EventTime;

/// Where in its log an event stands from which a key is continued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Partition of its record.
    pub partition: Partition,
    /// Offset of its record.
    pub offset: Offset,
}

/// One way in which a key may go on, in order of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Path {
    /// When each event happens.
    pub times: Vec<EventTime>,
    /// Its mark, by index.
    pub marks: Vec<Option<u32>>,
    /// Probability of every mark at that time, as many an event as the law has marks.
    pub chances: Vec<f32>,
}
