//! Forecast rows and dead letters as JSON, appended to a buffer. No allocation per row: what is the same for every row is written once,
//! when the encoder is made.

mod text;

use crate::base::limits::{LETTER_PREFIX, MAX_LETTER_BYTES};
use crate::base::number::index;
use crate::base::rfc3339;
use crate::base::time::EventTime;
use crate::data::forecasts::{Forecasts, Identity};
use crate::data::layout::{FieldId, Layout};
use crate::data::rejected::Rejected;

pub use text::{base64, string};

/// A field whose value differs from row to row.
#[derive(Clone, Copy, Debug)]
enum Value {
    Kind,
    Overdue,
    Key,
    EventId,
    EventTime,
    Partition,
    Offset,
    NEvents,
    Number(Number),
    NextTime(usize),
    NextReading(usize),
    PWithin(usize),
    NextMarks,
    Reasons,
    Flags,
}

/// A column of numbers.
#[derive(Clone, Copy, Debug)]
enum Number {
    Gap,
    SurpriseTime,
    SurpriseMark,
    SurpriseValue,
    Residual,
    ResidualValue,
    Score,
    PNever,
    Intensity,
}

impl Number {
    fn column(self, forecasts: &Forecasts) -> &[f64] {
        match self {
            Number::Gap => &forecasts.gap_s,
            Number::SurpriseTime => &forecasts.surprise_time,
            Number::SurpriseMark => &forecasts.surprise_mark,
            Number::SurpriseValue => &forecasts.surprise_value,
            Number::Residual => &forecasts.residual,
            Number::ResidualValue => &forecasts.residual_value,
            Number::Score => &forecasts.score,
            Number::PNever => &forecasts.p_never,
            Number::Intensity => &forecasts.intensity_now,
        }
    }
}

/// Writes rows of one layout as JSON objects, without a newline.
#[derive(Clone, Debug)]
pub struct RowEncoder {
    /// Bytes before each value that differs (names, and values that are the same for every row), and the value.
    parts: Vec<(Vec<u8>, Value)>,
    /// Bytes after the last of them.
    tail: Vec<u8>,
    /// `{"mark":"name","p":` of each mark.
    marks: Vec<Vec<u8>>,
    /// `{"code":"name","effect":` of each reason.
    reasons: Vec<Vec<u8>>,
}

impl RowEncoder {
    /// An encoder for the fields of a layout, in its order.
    #[must_use]
    pub fn new(layout: &Layout, identity: &Identity) -> Self {
        let (mut parts, mut pending) = (Vec::new(), vec![b'{']);
        for (name, field) in &layout.fields {
            if !pending.ends_with(b"{") || !parts.is_empty() {
                pending.push(b',');
            }
            string(&mut pending, name.as_bytes());
            pending.push(b':');
            let value = match field {
                FieldId::Kind => Ok(Value::Kind),
                FieldId::Overdue => Ok(Value::Overdue),
                FieldId::Model => Err(identity.model.as_str()),
                FieldId::ModelVersion => Err(identity.model_version.as_str()),
                FieldId::Fingerprint => Err(identity.fingerprint.as_str()),
                FieldId::Key => Ok(Value::Key),
                FieldId::EventId => Ok(Value::EventId),
                FieldId::EventTime => Ok(Value::EventTime),
                FieldId::Partition => Ok(Value::Partition),
                FieldId::Offset => Ok(Value::Offset),
                FieldId::NEvents => Ok(Value::NEvents),
                FieldId::GapS => Ok(Value::Number(Number::Gap)),
                FieldId::SurpriseTime => Ok(Value::Number(Number::SurpriseTime)),
                FieldId::SurpriseMark => Ok(Value::Number(Number::SurpriseMark)),
                FieldId::SurpriseValue => Ok(Value::Number(Number::SurpriseValue)),
                FieldId::Residual => Ok(Value::Number(Number::Residual)),
                FieldId::ResidualValue => Ok(Value::Number(Number::ResidualValue)),
                FieldId::Score => Ok(Value::Number(Number::Score)),
                FieldId::PNever => Ok(Value::Number(Number::PNever)),
                FieldId::IntensityNow => Ok(Value::Number(Number::Intensity)),
                FieldId::NextTime(quantile) => Ok(Value::NextTime(*quantile)),
                FieldId::NextValue(quantile) => Ok(Value::NextReading(*quantile)),
                FieldId::PWithin(horizon) => Ok(Value::PWithin(*horizon)),
                FieldId::NextMarks => Ok(Value::NextMarks),
                FieldId::Reasons => Ok(Value::Reasons),
                FieldId::Flags => Ok(Value::Flags),
            };
            match value {
                Ok(value) => parts.push((std::mem::take(&mut pending), value)),
                Err(same) => string(&mut pending, same.as_bytes()),
            }
        }
        pending.push(b'}');
        let begin = |names: &[String], name: &str, number: &str| -> Vec<Vec<u8>> {
            let one = |value: &String| {
                let mut bytes = format!("{{\"{name}\":").into_bytes();
                string(&mut bytes, value.as_bytes());
                bytes.extend_from_slice(format!(",\"{number}\":").as_bytes());
                bytes
            };
            names.iter().map(one).collect()
        };
        RowEncoder { marks: begin(&identity.marks, "mark", "p"), reasons: begin(&identity.reasons, "code", "effect"), parts, tail: pending }
    }

    /// Appends row `row` as a JSON object. What a row does not have (NaN, a missing id, no next time) is `null`.
    pub fn row(&mut self, forecasts: &Forecasts, row: usize, out: &mut Vec<u8>) {
        for (before, value) in &self.parts {
            out.extend_from_slice(before);
            match *value {
                Value::Kind => string(out, kind(forecasts, row).as_bytes()),
                Value::Overdue => number(out, forecasts.overdue.get(row)),
                Value::Key => string(out, forecasts.keys.bytes_at(row)),
                Value::EventId => string_or_null(out, forecasts.event_ids.get(row)),
                Value::EventTime => time_or_null(out, forecasts.event_times.get(row).copied()),
                Value::Partition => integer(out, forecasts.partitions.get(row).map_or(0, |partition| partition.0)),
                Value::Offset => integer(out, forecasts.offsets.get(row).map_or(0, |offset| offset.0)),
                Value::NEvents => integer(out, forecasts.n_events.get(row).copied().unwrap_or(0)),
                Value::Number(column) => number(out, column.column(forecasts).get(row)),
                Value::NextTime(quantile) => {
                    time_or_null(out, forecasts.next_times.get(quantile).and_then(|times| times.get(row).copied().flatten()));
                }
                Value::NextReading(quantile) => number(out, forecasts.next_values.get(quantile).and_then(|column| column.get(row))),
                Value::PWithin(horizon) => number(out, forecasts.p_within.get(horizon).and_then(|column| column.get(row))),
                Value::NextMarks => {
                    list(next_marks(forecasts, row).filter_map(|chance| Some((self.marks.get(index(chance.mark))?, chance.p))), out);
                }
                Value::Reasons => {
                    list(reasons(forecasts, row).filter_map(|named| Some((self.reasons.get(index(named.reason))?, named.effect))), out);
                }
                Value::Flags => flags(forecasts, row, out),
            }
        }
        out.extend_from_slice(&self.tail);
    }
}

/// Objects of a name and a number, of which the bytes before the number are given.
fn list<'a>(entries: impl Iterator<Item = (&'a Vec<u8>, f32)>, out: &mut Vec<u8>) {
    out.push(b'[');
    for (i, (before, number)) in entries.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(before);
        out.extend_from_slice(ryu::Buffer::new().format_finite(number).as_bytes());
        out.push(b'}');
    }
    out.push(b']');
}

/// What a row is.
pub(super) fn kind(forecasts: &Forecasts, row: usize) -> &'static str {
    if forecasts.overdue_at(row).is_some() { "overdue" } else { "forecast" }
}

/// The likeliest next marks of a row that have a probability.
pub(super) fn next_marks(forecasts: &Forecasts, row: usize) -> impl Iterator<Item = &crate::data::forecasts::MarkChance> {
    let width = forecasts.marks_per_row;
    let start = row.saturating_mul(width);
    let chances = forecasts.next_marks.get(start..start.saturating_add(width)).unwrap_or_default();
    chances.iter().filter(|chance| chance.p.is_finite())
}

/// The reasons that a row names.
pub(super) fn reasons(forecasts: &Forecasts, row: usize) -> impl Iterator<Item = &crate::data::forecasts::Named> {
    let width = forecasts.reasons_per_row;
    let start = row.saturating_mul(width);
    let named = forecasts.reasons.get(start..start.saturating_add(width)).unwrap_or_default();
    named.iter().filter(|named| named.effect.is_finite())
}

fn flags(forecasts: &Forecasts, row: usize, out: &mut Vec<u8>) {
    out.push(b'[');
    for (i, name) in forecasts.flags.get(row).copied().unwrap_or_default().names().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.push(b'"');
    }
    out.push(b']');
}

fn null(out: &mut Vec<u8>) {
    out.extend_from_slice(b"null");
}

fn string_or_null(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        Some(value) => string(out, value),
        None => null(out),
    }
}

fn time_or_null(out: &mut Vec<u8>, time: Option<EventTime>) {
    match time {
        Some(time) if rfc3339::has_form(time) => {
            out.push(b'"');
            rfc3339::write_micros(out, time);
            out.push(b'"');
        }
        // Beyond the year 9999 there is no such text, and nobody waits that long.
        _ => null(out),
    }
}

fn integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// The shortest decimal that reads back as the same number.
fn number(out: &mut Vec<u8>, value: Option<&f64>) {
    match value {
        Some(value) if value.is_finite() => out.extend_from_slice(ryu::Buffer::new().format_finite(*value).as_bytes()),
        _ => null(out),
    }
}

/// Appends row `row` of rejected records as a JSON object: `topic` (where the record came from; left out if `origin` is empty), `partition`,
/// `offset`, `reason`, `detail`, `key`, `payload`. A key or payload that is not UTF-8 is written as `key_base64` or `payload_base64`.
pub fn dead_letter(rejected: &Rejected, row: usize, origin: &str, out: &mut Vec<u8>) {
    letter(rejected, row, origin, usize::MAX, out);
}

/// As `dead_letter`, for a topic that takes no more than `MAX_LETTER_BYTES` with the record's key (as `letter_key` gives it). Of a larger one only the first
/// `LETTER_PREFIX` bytes of key and payload are written, and how many there were, as `key_bytes` and `payload_bytes`.
pub fn bounded_dead_letter(rejected: &Rejected, row: usize, origin: &str, out: &mut Vec<u8>) {
    let start = out.len();
    dead_letter(rejected, row, origin, out);
    let key = letter_key(rejected, row).map_or(0, <[u8]>::len);
    if out.len().saturating_sub(start).saturating_add(key) > MAX_LETTER_BYTES {
        out.truncate(start);
        letter(rejected, row, origin, LETTER_PREFIX, out);
    }
}

/// Key of the record of a dead letter in a topic: at most `LETTER_PREFIX` bytes.
pub fn letter_key(rejected: &Rejected, row: usize) -> Option<&[u8]> {
    rejected.keys.get(row).map(|key| key.get(..LETTER_PREFIX).unwrap_or(key))
}

/// A dead letter with at most `most` bytes of key and payload, before they are escaped.
fn letter(rejected: &Rejected, row: usize, origin: &str, most: usize, out: &mut Vec<u8>) {
    out.push(b'{');
    if !origin.is_empty() {
        out.extend_from_slice(b"\"topic\":");
        string(out, origin.as_bytes());
        out.push(b',');
    }
    out.extend_from_slice(b"\"partition\":");
    integer(out, rejected.partitions.get(row).map_or(0, |partition| partition.0));
    out.extend_from_slice(b",\"offset\":");
    integer(out, rejected.offsets.get(row).map_or(0, |offset| offset.0));
    out.extend_from_slice(b",\"reason\":");
    string_or_null(out, rejected.reasons.get(row).map(|reason| reason.code().as_bytes()));
    out.extend_from_slice(b",\"detail\":");
    // It may quote the record.
    string_or_null(out, rejected.details.get(row).map(|detail| prefix(detail.as_bytes(), most / 16)));
    bytes(out, "key", rejected.keys.get(row), most);
    bytes(out, "payload", rejected.payloads.get(row), most);
    out.push(b'}');
}

/// The first `most` bytes, or a few less where a character would be cut.
fn prefix(value: &[u8], most: usize) -> &[u8] {
    let Some(cut) = value.get(..most) else { return value };
    match std::str::from_utf8(cut) {
        Err(error) if error.error_len().is_none() => cut.get(..error.valid_up_to()).unwrap_or(cut),
        _ => cut,
    }
}

fn bytes(out: &mut Vec<u8>, name: &str, value: Option<&[u8]>, most: usize) {
    let whole = value.map_or(0, <[u8]>::len);
    let value = value.map(|value| prefix(value, most));
    if whole > value.map_or(0, <[u8]>::len) {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"_bytes\":");
        integer(out, whole);
    }
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    match value {
        Some(value) if std::str::from_utf8(value).is_err() => {
            out.extend_from_slice(b"_base64\":\"");
            base64(out, value);
            out.push(b'"');
        }
        value => {
            out.extend_from_slice(b"\":");
            string_or_null(out, value);
        }
    }
}

#[cfg(test)]
mod tests;
