//! Which part of the history each event belongs to.

use super::history::Part;
use super::read::Seen;
use crate::base::error::{Error, Kind, Result};
use crate::base::number::{count_of, f64_of_count, index};
use crate::base::time::EventTime;
use crate::data::schema::EventSchema;
use crate::pipeline::plan::Split;

/// Part of every event.
///
/// # Errors
/// The field is not read or never says `train`.
pub fn parts(split: &Split, schema: &EventSchema, seen: &Seen) -> Result<Vec<Part>> {
    match split {
        Split::Key => Ok(by_key(seen)),
        Split::Time { valid, test } => Ok(by_time(seen, *valid, *test)),
        Split::Field(field) => {
            let column = schema.field(field).and_then(|i| seen.events.columns.get(i)).and_then(|column| column.texts());
            let Some(column) = column else {
                return Err(Error::config("fit", format!("[fit] split names the field `{field}`, which is not read as text"))
                    .help("use the field in no other way than for the split"));
            };
            let parts: Vec<Part> = column
                .iter()
                .map(|value| match value {
                    Some(b"train") => Part::Train,
                    Some(b"valid") => Part::Valid,
                    Some(b"test") => Part::Test,
                    _ => Part::Other,
                })
                .collect();
            if parts.contains(&Part::Train) {
                return Ok(parts);
            }
            let found: std::collections::BTreeSet<_> = column.iter().flatten().map(String::from_utf8_lossy).take(10_000).collect();
            let found: Vec<_> = found.into_iter().take(5).collect();
            Err(Error::new(Kind::Data, "fit", format!("split field `{field}` never says `train`; it says {found:?}"))
                .help("allowed are `train`, `valid` and `test`; events that say anything else only advance states"))
        }
    }
}

/// How an event is known to be of the test part.
#[derive(Clone, Debug, PartialEq)]
pub enum Held {
    /// By its key, one of these.
    Keys(Vec<Box<[u8]>>),
    /// By its time, this or later.
    Since(EventTime),
    /// By this field, which says `test`.
    Field(String),
    /// There is no test part.
    Nothing,
}

/// The test part, if any event is in it.
#[must_use]
pub fn held(split: &Split, seen: &Seen) -> Held {
    let test = || seen.parts.iter().enumerate().filter(|(_, part)| **part == Part::Test).map(|(row, _)| row);
    if test().next().is_none() {
        return Held::Nothing;
    }
    match split {
        Split::Key => {
            let keys: std::collections::BTreeSet<&[u8]> = test().map(|row| seen.events.keys.bytes_at(row)).collect();
            Held::Keys(keys.into_iter().map(Into::into).collect())
        }
        Split::Time { .. } => Held::Since(test().filter_map(|row| seen.events.times.get(row)).min().copied().unwrap_or_default()),
        Split::Field(field) => Held::Field(field.clone()),
    }
}

/// Keys in byte order; of every five the fourth is valid and the fifth is test.
fn by_key(seen: &Seen) -> Vec<Part> {
    let mut first: Vec<Option<usize>> = vec![None; seen.keys];
    for (row, slot) in seen.slots.iter().enumerate() {
        if let Some(place @ None) = first.get_mut(index(slot.0)) {
            *place = Some(row);
        }
    }
    let mut order: Vec<(&[u8], usize)> =
        first.iter().enumerate().filter_map(|(slot, row)| row.map(|row| (seen.events.keys.bytes_at(row), slot))).collect();
    order.sort_unstable();
    let mut parts = vec![Part::Train; seen.keys];
    for (place, (_, slot)) in order.into_iter().enumerate() {
        if let Some(part) = parts.get_mut(slot) {
            *part = match place % 5 {
                3 => Part::Valid,
                4 => Part::Test,
                _ => Part::Train,
            };
        }
    }
    seen.slots.iter().map(|slot| parts.get(index(slot.0)).copied().unwrap_or(Part::Other)).collect()
}

/// By date; a missing one is the time below which 60 % or 80 % of the events lie (of those before `test`: 80 % for `valid`).
fn by_time(seen: &Seen, valid: Option<EventTime>, test: Option<EventTime>) -> Vec<Part> {
    let mut times = seen.events.times.clone();
    times.sort_unstable();
    let below = |share: f64, times: &[EventTime]| times.get(count_of(share * f64_of_count(times.len()))).copied().unwrap_or(EventTime::MAX);
    let (valid, test) = match (valid, test) {
        (Some(valid), Some(test)) => (valid, test),
        (Some(valid), None) => (valid, EventTime(i64::MAX)),
        (None, Some(test)) => {
            let before = times.partition_point(|time| *time < test);
            (below(0.8, times.get(..before).unwrap_or_default()), test)
        }
        (None, None) => (below(0.6, &times), below(0.8, &times)),
    };
    let part = |time: &EventTime| match time {
        time if *time >= test => Part::Test,
        time if *time >= valid => Part::Valid,
        _ => Part::Train,
    };
    seen.events.times.iter().map(part).collect()
}
