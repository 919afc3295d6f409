//! What `decode` must find in a record: derived by the plan from the `[event]` table and the recipe.

use crate::base::time::{EventTime, TimeUnit};

/// Stands for the key of the Kafka record itself, where a field is named. In files it is a field like any other.
pub const RECORD_KEY: &str = "$key";
/// Stands for the timestamp of the Kafka record itself, in milliseconds.
pub const RECORD_TIMESTAMP: &str = "$timestamp";

/// How the event time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeFormat {
    /// A number in this unit since 1970 (integer, or a decimal fraction of the unit).
    Unit(TimeUnit),
    /// RFC 3339 text such as `2026-01-31T12:00:00.5Z`.
    Rfc3339,
}

/// Type that a field is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// A number; JSON booleans are 0 and 1, a missing or null value is NaN.
    Number,
    /// Text; JSON numbers and booleans are taken as their literal, a missing or null value stays missing.
    Text,
}

/// A field besides key, time and id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name in the record.
    pub name: String,
    /// What it is read as.
    pub kind: FieldKind,
}

/// Names and types of everything that is read from a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventSchema {
    /// Field that holds the key: text or an integer. Required in every record.
    pub key: String,
    /// Field that holds the event time. Required in every record.
    pub time: String,
    /// How the time is written.
    pub time_format: TimeFormat,
    /// Field copied to the output as `event_id`, if any.
    pub id: Option<String>,
    /// Other fields, each once, in the order of `Events::columns`.
    pub fields: Vec<Field>,
    /// Index into `fields` of the mark (a text field), if any.
    pub mark: Option<usize>,
    /// Index into `fields` of the label (a number field), if any; only `fit` asks for it.
    pub label: Option<usize>,
}

impl EventSchema {
    /// What is doubtful about the time of the first event: numbers that are no likely times in the unit that the pipeline names, but are in another one.
    #[must_use]
    pub fn doubt(&self, first: EventTime) -> Option<String> {
        let TimeFormat::Unit(unit) = self.time_format else { return None };
        let (other, then) = first.likelier(unit)?;
        let (field, unit, other) = (&self.time, unit.name(), other.name());
        Some(format!(
            "the first event is of {first}: `{field}` is read in `{unit}`, and in `{other}` it would be of {then}; see `unit` in [event] time"
        ))
    }

    /// Index of the field `name` in `fields`.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }
}
