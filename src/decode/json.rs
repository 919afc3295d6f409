//! JSON objects to columns without an allocation per event: one pass of the parser writes each wanted field to a
//! scratch row, which is appended to the columns once the whole object has proved to be valid.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Fault, check_key};
use crate::base::number::{f64_of, i64_of};
use crate::base::time::{EventTime, TimeUnit};
use crate::data::events::{Column, Events};
use crate::data::rejected::Reason;
use crate::data::schema::{EventSchema, FieldKind, TimeFormat};

/// What a wanted field held.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Cell {
    #[default]
    Missing,
    Int(i64),
    Float(f64),
    Bool(bool),
    /// Range of the scratch text.
    Text(usize, usize),
    /// An array or an object.
    Nested,
}

impl Cell {
    fn kind(self) -> &'static str {
        match self {
            Cell::Missing => "nothing",
            Cell::Int(_) | Cell::Float(_) => "a number",
            Cell::Bool(_) => "a boolean",
            Cell::Text(..) => "a text",
            Cell::Nested => "an array or object",
        }
    }
}

/// Decodes one object after another into columns.
pub struct RowDecoder {
    /// Name and cells it is written to. A field may serve as key and as column at once.
    names: Vec<(String, Vec<usize>)>,
    /// Cells: key, time, id, then the columns.
    cells: Vec<Cell>,
    text: Vec<u8>,
    number: String,
}

const KEY: usize = 0;
const TIME: usize = 1;
const ID: usize = 2;
const COLUMNS: usize = 3;

impl RowDecoder {
    pub fn new(schema: &EventSchema) -> Self {
        let mut names: Vec<(String, Vec<usize>)> = Vec::new();
        let mut add = |name: &str, cell: usize| match names.iter_mut().find(|(n, _)| n == name) {
            Some((_, cells)) => cells.push(cell),
            None => names.push((name.to_owned(), vec![cell])),
        };
        add(&schema.key, KEY);
        add(&schema.time, TIME);
        if let Some(id) = &schema.id {
            add(id, ID);
        }
        for (i, field) in schema.fields.iter().enumerate() {
            add(&field.name, COLUMNS + i);
        }
        RowDecoder { names, cells: vec![Cell::Missing; COLUMNS + schema.fields.len()], text: Vec::new(), number: String::new() }
    }

    /// Appends the object to keys, times, ids and columns of `events`; on a fault nothing is appended.
    pub fn decode(&mut self, schema: &EventSchema, payload: &[u8], events: &mut Events) -> Result<(), Fault> {
        self.cells.fill(Cell::Missing);
        self.text.clear();
        let mut parser = serde_json::Deserializer::from_slice(payload);
        let row = Row { names: &self.names, cells: &mut self.cells, text: &mut self.text };
        row.deserialize(&mut parser).and_then(|()| parser.end()).map_err(|e| (Reason::Malformed, format!("not a JSON object: {e}")))?;

        let cell = |index: usize| self.cells.get(index).copied().unwrap_or_default();
        let time = time(schema, cell(TIME), &self.text)?;
        for (i, field) in schema.fields.iter().enumerate() {
            let wrong = |expected: &str, found: Cell| {
                let found = found.kind();
                Err((Reason::WrongType, format!("field `{}`: expected {expected}, found {found}", field.name)))
            };
            match (field.kind, cell(COLUMNS + i)) {
                (FieldKind::Number, found @ (Cell::Text(..) | Cell::Nested)) => return wrong("a number", found),
                (FieldKind::Text, Cell::Nested) => return wrong("a text", Cell::Nested),
                _ => {}
            }
        }
        match text(cell(KEY), &self.text, &mut self.number) {
            Some(key) => {
                check_key(key, &schema.key)?;
                events.keys.push(key);
            }
            None if cell(KEY) == Cell::Missing => {
                return Err((Reason::MissingKey, format!("key field `{}` is missing or null", schema.key)));
            }
            None => {
                let found = cell(KEY).kind();
                return Err((Reason::WrongType, format!("key field `{}`: expected a text or an integer, found {found}", schema.key)));
            }
        }
        events.times.push(time);
        events.ids.push_option(text(cell(ID), &self.text, &mut self.number));
        for (i, column) in events.columns.iter_mut().enumerate() {
            let cell = self.cells.get(COLUMNS + i).copied().unwrap_or_default();
            match column {
                Column::Number(values) => values.push(match cell {
                    Cell::Int(value) => f64_of(value),
                    Cell::Float(value) => value,
                    Cell::Bool(value) => f64::from(u8::from(value)),
                    _ => f64::NAN,
                }),
                Column::Text(values) => values.push_option(text(cell, &self.text, &mut self.number)),
            }
        }
        Ok(())
    }
}

/// The cell as text: numbers in their shortest form.
fn text<'a>(cell: Cell, text: &'a [u8], number: &'a mut String) -> Option<&'a [u8]> {
    number.clear();
    match cell {
        Cell::Text(start, end) => text.get(start..end),
        Cell::Int(value) => {
            number.push_str(itoa::Buffer::new().format(value));
            Some(number.as_bytes())
        }
        Cell::Float(value) => {
            number.push_str(ryu::Buffer::new().format(value));
            Some(number.as_bytes())
        }
        Cell::Bool(value) => Some(if value { b"true" } else { b"false" }),
        Cell::Missing | Cell::Nested => None,
    }
}

fn time(schema: &EventSchema, cell: Cell, texts: &[u8]) -> Result<EventTime, Fault> {
    let field = &schema.time;
    let wrong = |expected: &str| Err((Reason::WrongType, format!("time field `{field}`: expected {expected}, found {}", cell.kind())));
    let time = match (schema.time_format, cell) {
        (_, Cell::Missing) => return Err((Reason::MissingTime, format!("time field `{field}` is missing or null"))),
        (TimeFormat::Unit(unit), Cell::Int(value)) => from_integer(value, unit),
        (TimeFormat::Unit(unit), Cell::Float(value)) => from_float(value, unit),
        (TimeFormat::Unit(unit), _) => return wrong(&format!("a number of `{}` since 1970", unit.name())),
        (TimeFormat::Rfc3339, Cell::Text(start, end)) => match parse_rfc3339(texts.get(start..end).unwrap_or_default()) {
            Some(time) => Some(time),
            None => return wrong("an RFC 3339 time such as 2026-01-31T12:00:00Z"),
        },
        (TimeFormat::Rfc3339, _) => return wrong("an RFC 3339 text such as \"2026-01-31T12:00:00Z\""),
    };
    time.and_then(EventTime::in_range).ok_or_else(|| {
        let found = match cell {
            Cell::Int(value) => value.to_string(),
            Cell::Float(value) => value.to_string(),
            Cell::Text(start, end) => String::from_utf8_lossy(texts.get(start..end).unwrap_or_default()).into_owned(),
            _ => String::new(),
        };
        (Reason::TimeOutOfRange, format!("time field `{field}` = {found} lies outside {}..{}", EventTime::MIN, EventTime::MAX))
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
    chrono::DateTime::parse_from_rfc3339(text).ok().map(|time| EventTime(time.timestamp_micros()))
}

/// Reads an object; a name that is given twice keeps its last value, as most JSON readers have it.
struct Row<'a> {
    names: &'a [(String, Vec<usize>)],
    cells: &'a mut [Cell],
    text: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Row<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        // Producers write fields in the same order again and again: look first behind the last hit.
        let mut expected = 0;
        while let Some(found) = map.next_key_seed(Name { names: self.names, expected })? {
            match self.names.get(found) {
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
                Some((_, cells)) => {
                    let cell = map.next_value_seed(Value { text: self.text })?;
                    for index in cells {
                        if let Some(slot) = self.cells.get_mut(*index) {
                            *slot = cell;
                        }
                    }
                    expected = found + 1;
                }
            }
        }
        Ok(())
    }
}

/// Finds a field name: its index in `names`, or the number of names if it is not wanted.
struct Name<'a> {
    names: &'a [(String, Vec<usize>)],
    expected: usize,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, name: &str) -> Result<usize, E> {
        if self.names.get(self.expected).is_some_and(|(n, _)| n == name) {
            return Ok(self.expected);
        }
        Ok(self.names.iter().position(|(n, _)| n == name).unwrap_or(self.names.len()))
    }
}

/// Reads any value into a cell; text goes to the scratch.
struct Value<'a> {
    text: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = Cell;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cell, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = Cell;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Cell, E> {
        Ok(Cell::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Cell, E> {
        Ok(Cell::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Cell, E> {
        // Beyond i64 only the magnitude matters: no key, time or count is that large.
        #[allow(clippy::cast_precision_loss)]
        Ok(i64::try_from(value).map_or_else(|_| Cell::Float(value as f64), Cell::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Cell, E> {
        Ok(Cell::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Cell, E> {
        let start = self.text.len();
        self.text.extend_from_slice(value.as_bytes());
        Ok(Cell::Text(start, self.text.len()))
    }

    fn visit_unit<E>(self) -> Result<Cell, E> {
        Ok(Cell::Missing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Cell, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Cell::Nested)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cell, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Cell::Nested)
    }
}
