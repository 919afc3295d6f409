//! Records that cannot be used, as values: position, reason and the bytes. Each becomes a dead letter.

use super::text::TextColumn;
use crate::base::offset::{Offset, Partition};

/// Why a record cannot be used. The codes are part of the dead-letter contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The record has no payload (a tombstone).
    Empty,
    /// The payload is longer than `MAX_RECORD_BYTES`.
    TooLarge,
    /// The payload is not the format the pipeline names (not JSON, not UTF-8, not an object).
    Malformed,
    /// The key field is missing or null.
    MissingKey,
    /// The key is longer than `MAX_KEY_BYTES`.
    KeyTooLong,
    /// The time field is missing or null.
    MissingTime,
    /// A field has a type that cannot be read as the pipeline says.
    WrongType,
    /// The time lies outside 1900..2200.
    TimeOutOfRange,
    /// The time lies more than `max_future_skew` after the time at which the log took the record in.
    FutureTime,
    /// The event is earlier than its key's last one and `late = "dead_letter"`.
    Late,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Reason; 10] = [
        Reason::Empty,
        Reason::TooLarge,
        Reason::Malformed,
        Reason::MissingKey,
        Reason::KeyTooLong,
        Reason::MissingTime,
        Reason::WrongType,
        Reason::TimeOutOfRange,
        Reason::FutureTime,
        Reason::Late,
    ];

    /// The code written to the dead letter and used as metric label.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Reason::Empty => "empty",
            Reason::TooLarge => "too_large",
            Reason::Malformed => "malformed",
            Reason::MissingKey => "missing_key",
            Reason::KeyTooLong => "key_too_long",
            Reason::MissingTime => "missing_time",
            Reason::WrongType => "wrong_type",
            Reason::TimeOutOfRange => "time_out_of_range",
            Reason::FutureTime => "future_time",
            Reason::Late => "late",
        }
    }
}

/// Bad records from which on their share says something of the schema, and not of one record.
const FEW: u64 = 10;

/// Whether so many of these records are bad that the schema is wrong, not the data: a share above `max`, and at least ten or half of them. If none are
/// allowed, one is too many.
#[must_use]
#[allow(clippy::cast_precision_loss)]
pub fn too_many(bad: u64, records: u64, max: f64) -> bool {
    let many = bad >= FEW || bad.saturating_mul(2) >= records || max <= 0.0;
    many && bad as f64 > max * records as f64
}

/// Rejected records as columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejected {
    /// Partition of each record.
    pub partitions: Vec<Partition>,
    /// Offset of each record.
    pub offsets: Vec<Offset>,
    /// Why.
    pub reasons: Vec<Reason>,
    /// One sentence for people: which field, what was found, what was expected.
    pub details: Vec<String>,
    /// The record's own key.
    pub keys: TextColumn,
    /// The bytes as they came; missing for a tombstone. Rows of a table are given as a JSON object.
    pub payloads: TextColumn,
}

impl Rejected {
    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.reasons.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reasons.is_empty()
    }

    /// Removes all and keeps the memory.
    pub fn clear(&mut self) {
        self.partitions.clear();
        self.offsets.clear();
        self.reasons.clear();
        self.details.clear();
        self.keys.clear();
        self.payloads.clear();
    }

    /// Adds a record.
    pub fn push(&mut self, at: (Partition, Offset), reason: Reason, detail: impl Into<String>, key: Option<&[u8]>, payload: Option<&[u8]>) {
        self.partitions.push(at.0);
        self.offsets.push(at.1);
        self.reasons.push(reason);
        self.details.push(detail.into());
        self.keys.push_option(key);
        self.payloads.push_option(payload);
    }
}
