//! A scratch row to the columns of the events: the rules of key, time and types that all formats of records share.

use super::cells::{COLUMNS, Cell, Cells, ID, KEY, TIME};
use super::{Fault, check_key};
use crate::base::number::{f64_of, i64_of};
use crate::base::time::{EventTime, TimeUnit};
use crate::data::events::{Column, Events};
use crate::data::rejected::Reason;
use crate::data::schema::{EventSchema, FieldKind, TimeFormat};

/// Appends the row to keys, times, ids and columns of `events`; on a fault nothing is appended. `number` is scratch.
pub fn append(schema: &EventSchema, cells: &Cells, number: &mut String, events: &mut Events) -> Result<(), Fault> {
    let time = time(schema, cells)?;
    for (i, field) in schema.fields.iter().enumerate() {
        let wrong = |expected: &str, found: Cell| {
            let found = found.kind();
            Err((Reason::WrongType, format!("field `{}`: expected {expected}, found {found}", field.name)))
        };
        match (field.kind, cells.get(COLUMNS + i)) {
            (FieldKind::Number, found @ (Cell::Text(..) | Cell::Nested | Cell::Instant(_))) => return wrong("a number", found),
            (FieldKind::Text, Cell::Nested) => return wrong("a text", Cell::Nested),
            _ => {}
        }
    }
    if cells.get(ID) == Cell::Nested {
        let field = schema.id.as_deref().unwrap_or_default();
        return Err((Reason::WrongType, format!("id field `{field}`: expected a text, found {}", Cell::Nested.kind())));
    }
    match text(cells, KEY, number) {
        Some(key) => {
            check_key(key, &schema.key)?;
            events.keys.push(key);
        }
        None if cells.get(KEY).is_missing() => {
            return Err((Reason::MissingKey, format!("key field `{}` is missing or null", schema.key)));
        }
        None => {
            let found = cells.get(KEY).kind();
            return Err((Reason::WrongType, format!("key field `{}`: expected a text or an integer, found {found}", schema.key)));
        }
    }
    events.times.push(time);
    events.ids.push_option(text(cells, ID, number));
    for (i, column) in events.columns.iter_mut().enumerate() {
        match column {
            Column::Number(values) => values.push(match cells.get(COLUMNS + i) {
                Cell::Int(value) => f64_of(value),
                Cell::Float(value) => value,
                Cell::Bool(value) => f64::from(u8::from(value)),
                _ => f64::NAN,
            }),
            Column::Text(values) => values.push_option(text(cells, COLUMNS + i, number)),
        }
    }
    Ok(())
}

/// A number as text, in its shortest form; 3.0 is 3: tools that know no missing integers write all of a column as fractions.
pub(super) fn literal(value: f64, text: &mut String) {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT {
        text.push_str(itoa::Buffer::new().format(i64_of(value)));
    } else {
        text.push_str(ryu::Buffer::new().format(value));
    }
}

/// A cell as text: numbers in their shortest form.
fn text<'a>(cells: &'a Cells, at: usize, number: &'a mut String) -> Option<&'a [u8]> {
    number.clear();
    match cells.get(at) {
        Cell::Text(start, end) => Some(cells.text(start, end)),
        Cell::Int(value) => {
            number.push_str(itoa::Buffer::new().format(value));
            Some(number.as_bytes())
        }
        Cell::Float(value) if value.is_nan() => None,
        Cell::Float(value) => {
            literal(value, number);
            Some(number.as_bytes())
        }
        Cell::Bool(value) => Some(if value { b"true" } else { b"false" }),
        Cell::Instant(time) => {
            number.push_str(&time.to_string());
            Some(number.as_bytes())
        }
        Cell::Missing | Cell::Nested => None,
    }
}

fn time(schema: &EventSchema, cells: &Cells) -> Result<EventTime, Fault> {
    let cell = cells.get(TIME);
    let field = &schema.time;
    let wrong = |expected: &str| Err((Reason::WrongType, format!("time field `{field}`: expected {expected}, found {}", cell.kind())));
    let time = match (schema.time_format, cell) {
        (_, Cell::Missing) => return Err((Reason::MissingTime, format!("time field `{field}` is missing or null"))),
        (_, Cell::Instant(time)) => Some(time),
        (TimeFormat::Unit(unit), Cell::Int(value)) => from_integer(value, unit),
        (TimeFormat::Unit(unit), Cell::Float(value)) => from_float(value, unit),
        (TimeFormat::Unit(unit), _) => return wrong(&format!("a number of `{}` since 1970", unit.name())),
        (TimeFormat::Rfc3339, Cell::Text(start, end)) => match parse_rfc3339(cells.text(start, end)) {
            Some(time) => Some(time),
            None => return wrong("an RFC 3339 time such as 2026-01-31T12:00:00Z"),
        },
        (TimeFormat::Rfc3339, _) => return wrong("an RFC 3339 text such as \"2026-01-31T12:00:00Z\""),
    };
    time.and_then(EventTime::in_range).ok_or_else(|| {
        let found = match cell {
            Cell::Int(value) => value.to_string(),
            Cell::Instant(time) => format!("{} us", time.0),
            Cell::Float(value) => value.to_string(),
            Cell::Text(start, end) => String::from_utf8_lossy(cells.text(start, end)).into_owned(),
            _ => String::new(),
        };
        let number = match cell {
            Cell::Int(value) => f64_of(value),
            Cell::Float(value) => value,
            _ => f64::NAN,
        };
        let likelier = match schema.time_format {
            TimeFormat::Unit(unit) => unit.likelier(number).map(|(other, then)| (unit, other, then)),
            TimeFormat::Rfc3339 => None,
        };
        let hint = likelier
            .map_or_else(String::new, |(unit, other, then)| format!("; the unit is `{}`, in `{}` it is {then}", unit.name(), other.name()));
        (Reason::TimeOutOfRange, format!("time field `{field}` = {found} lies outside {}..{}{hint}", EventTime::MIN, EventTime::MAX))
    })
}

/// Whole units since 1970 as event time; `None` beyond the number line.
pub(super) fn from_integer(value: i64, unit: TimeUnit) -> Option<EventTime> {
    let micros_per_unit = match unit {
        TimeUnit::Nanosecond => return Some(EventTime(value.div_euclid(1000))),
        TimeUnit::Microsecond => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Second => 1_000_000,
        TimeUnit::Minute => 60_000_000,
        TimeUnit::Hour => 3_600_000_000,
        TimeUnit::Day => 86_400_000_000,
    };
    value.checked_mul(micros_per_unit).map(EventTime)
}

/// Units since 1970 with a fraction, rounded to the nearest microsecond; `None` if it is not finite.
pub(super) fn from_float(value: f64, unit: TimeUnit) -> Option<EventTime> {
    let micros = (value * unit.seconds() * 1e6).round();
    micros.is_finite().then(|| EventTime(i64_of(micros)))
}

/// RFC 3339 text as event time.
pub(super) fn parse_rfc3339(text: &[u8]) -> Option<EventTime> {
    let text = std::str::from_utf8(text).ok()?;
    // Databases leave the minutes of an offset out where they are 0.
    let time = chrono::DateTime::parse_from_rfc3339(text).or_else(|fault| match text.as_bytes() {
        [.., b'+' | b'-', a, b] if a.is_ascii_digit() && b.is_ascii_digit() && text.len() > "2026-01-31T12:00".len() => {
            chrono::DateTime::parse_from_rfc3339(&format!("{text}:00"))
        }
        _ => Err(fault),
    });
    time.ok().map(|time| EventTime(time.timestamp_micros()))
}
