//! What event-time order remembers of a partition: events that are held back, and how far the watermark is.

use super::events::Events;
use crate::base::time::EventTime;

/// Everything that an order stage must be given to go on where another one stood.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Held {
    /// Events that have not left yet, in offset order.
    pub events: Events,
    /// Where the watermark stands.
    pub watermark: WatermarkAt,
}

/// Where a watermark stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct WatermarkAt {
    /// Event time up to which events are taken to have come, in microseconds since 1970; none before the first event.
    pub now: Option<EventTime>,
    /// A far later event time that a second record has not confirmed yet.
    pub ahead: Option<EventTime>,
}
