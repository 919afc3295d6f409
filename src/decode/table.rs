//! Rows of an Arrow table to columns, a column at a time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit as ArrowUnit, TimestampMicrosecondType, TimestampNanosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::row::{from_float, from_integer, literal, parse_rfc3339};
use super::{Fault, check_key};
use crate::base::number::i64_of_count;
use crate::base::offset::Offset;
use crate::base::time::EventTime;
use crate::data::events::{Column, Events};
use crate::data::input::Table;
use crate::data::rejected::{Reason, Rejected};
use crate::data::schema::{EventSchema, FieldKind, TimeFormat};
use crate::data::text::TextColumn;

/// Appends usable rows to `events` and the others to `rejected`. A column that is missing, or whose type cannot be
/// read as the schema says, rejects every row with that reason.
pub fn decode(schema: &EventSchema, table: &Table, events: &mut Events, rejected: &mut Rejected) {
    let rows = &table.rows;
    let n = rows.num_rows();
    let mut faults: Vec<Option<Fault>> = vec![None; n];

    let keys = read_texts(rows, &schema.key, &mut faults);
    let times = read_times(schema, rows, &mut faults);
    let ids = schema.id.as_ref().map(|id| read_texts(rows, id, &mut faults));
    let columns: Vec<Column> = schema
        .fields
        .iter()
        .map(|field| match field.kind {
            FieldKind::Number => Column::Number(read_numbers(rows, &field.name, &mut faults)),
            FieldKind::Text => Column::Text(read_texts(rows, &field.name, &mut faults)),
        })
        .collect();

    for (row, (fault, time)) in faults.into_iter().zip(times).enumerate() {
        let offset = Offset(table.first.0.saturating_add(i64_of_count(row)));
        let key = keys.get(row);
        let fault = fault.or_else(|| match key {
            None => Some((Reason::MissingKey, format!("key column `{}` is missing or null", schema.key))),
            Some(key) => check_key(key, &schema.key).err(),
        });
        let time = match (fault, time) {
            (None, Some(time)) => time,
            (fault, _) => {
                let (reason, detail) = fault.unwrap_or((Reason::MissingTime, format!("time column `{}` is null", schema.time)));
                rejected.push((table.partition, offset), reason, detail, key, Some(row_as_json(rows, row).as_bytes()));
                continue;
            }
        };
        events.partitions.push(table.partition);
        events.offsets.push(offset);
        events.times.push(time);
        events.recorded.push(None);
        events.flags.push(Default::default());
        events.keys.push_from(&keys, row);
        events.ids.push_option(ids.as_ref().and_then(|ids| ids.get(row)));
        for (to, from) in events.columns.iter_mut().zip(&columns) {
            to.push_from(from, row);
        }
    }
}

fn note(faults: &mut [Option<Fault>], reason: Reason, detail: &str) {
    for fault in faults.iter_mut().filter(|fault| fault.is_none()) {
        *fault = Some((reason, detail.to_owned()));
    }
}

/// Strings, numbers, booleans and times as text; missing where null or where there is no such column. What a record may not hold as a text, a list or
/// a record of its own, is none in a table either: what is fitted to files is served from records.
fn read_texts(rows: &RecordBatch, name: &str, faults: &mut [Option<Fault>]) -> TextColumn {
    let mut texts = TextColumn::default();
    let Some(array) = rows.column_by_name(name) else {
        (0..rows.num_rows()).for_each(|_| texts.push_missing());
        return texts;
    };
    match texts_of(array) {
        Some(array) => array.iter().for_each(|value| texts.push_option(value.map(str::as_bytes))),
        None => {
            note(faults, Reason::WrongType, &format!("column `{name}`: expected text, found {}", array.data_type()));
            (0..rows.num_rows()).for_each(|_| texts.push_missing());
        }
    }
    texts
}

/// A column as texts; `None` where its type is none that has any.
pub fn texts_of(array: &ArrayRef) -> Option<StringArray> {
    let array = plain(array);
    let kind = array.data_type();
    if kind.is_floating() {
        let values = cast(&array, &DataType::Float64).ok()?;
        let text = |value: f64| {
            let mut text = String::new();
            literal(value, &mut text);
            text
        };
        // NaN is how tools write a missing number.
        return Some(values.as_primitive::<Float64Type>().iter().map(|value| value.filter(|value| !value.is_nan()).map(text)).collect());
    }
    if kind.is_nested() || kind.is_binary() {
        return None;
    }
    // An instant is told in UTC whatever the zone is called.
    if let DataType::Timestamp(unit, Some(_)) = kind {
        let instants = cast(&cast(&array, &DataType::Timestamp(*unit, None)).ok()?, &DataType::Utf8).ok()?;
        return Some(instants.as_string::<i32>().iter().map(|instant| instant.map(|instant| format!("{instant}Z"))).collect());
    }
    cast(&array, &DataType::Utf8).ok()?.as_string_opt::<i32>().cloned()
}

/// The column without a dictionary.
fn plain(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Dictionary(_, values) => cast(array, values).unwrap_or_else(|_| Arc::clone(array)),
        _ => Arc::clone(array),
    }
}

/// Numbers and booleans; NaN where null or where there is no such column.
fn read_numbers(rows: &RecordBatch, name: &str, faults: &mut [Option<Fault>]) -> Vec<f64> {
    let missing = || vec![f64::NAN; rows.num_rows()];
    let Some(array) = rows.column_by_name(name).map(plain) else { return missing() };
    let is_number = array.data_type().is_numeric() || matches!(array.data_type(), DataType::Boolean | DataType::Null);
    match cast(&array, &DataType::Float64) {
        Ok(values) if is_number => values.as_primitive::<Float64Type>().iter().map(|value| value.unwrap_or(f64::NAN)).collect(),
        _ => {
            note(faults, Reason::WrongType, &format!("column `{name}`: expected numbers, found {}", array.data_type()));
            missing()
        }
    }
}

/// A decimal without digits after the point, as warehouses export whole numbers.
fn is_whole_decimal(kind: &DataType) -> bool {
    use DataType::{Decimal32, Decimal64, Decimal128, Decimal256};
    matches!(kind, Decimal32(_, scale) | Decimal64(_, scale) | Decimal128(_, scale) | Decimal256(_, scale) if *scale <= 0)
}

fn read_times(schema: &EventSchema, rows: &RecordBatch, faults: &mut [Option<Fault>]) -> Vec<Option<EventTime>> {
    let name = &schema.time;
    let Some(array) = rows.column_by_name(name) else {
        note(faults, Reason::MissingTime, &format!("there is no time column `{name}`"));
        return vec![None; rows.num_rows()];
    };
    let raw: Option<Vec<Option<EventTime>>> = match (array.data_type(), schema.time_format) {
        // A typed timestamp says what it is; it is taken as UTC instants whatever the pipeline's unit.
        (DataType::Timestamp(..) | DataType::Date32 | DataType::Date64, _) => timestamps(array),
        (kind, TimeFormat::Unit(unit)) if kind.is_integer() || is_whole_decimal(kind) => cast(array, &DataType::Int64).ok().map(|values| {
            values.as_primitive::<Int64Type>().iter().map(|v| v.map(|v| from_integer(v, unit).unwrap_or(EventTime(i64::MAX)))).collect()
        }),
        (kind, TimeFormat::Unit(unit)) if kind.is_floating() || kind.is_decimal() => cast(array, &DataType::Float64).ok().map(|values| {
            values.as_primitive::<Float64Type>().iter().map(|v| v.map(|v| from_float(v, unit).unwrap_or(EventTime(i64::MAX)))).collect()
        }),
        (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(..), TimeFormat::Rfc3339) => {
            cast(array, &DataType::Utf8).ok().map(|values| {
                let texts = values.as_string::<i32>().iter();
                texts.zip(faults.iter_mut()).map(|(text, fault)| rfc3339(text, name, fault)).collect()
            })
        }
        _ => None,
    };
    let Some(raw) = raw else {
        note(faults, Reason::WrongType, &format!("time column `{name}`: found {}, which cannot be read as a time here", array.data_type()));
        return vec![None; rows.num_rows()];
    };
    raw.into_iter()
        .zip(faults.iter_mut())
        .map(|(time, fault)| {
            let checked = time.and_then(EventTime::in_range);
            if time.is_some() && checked.is_none() && fault.is_none() {
                let detail = format!("time column `{name}` lies outside {}..{}", EventTime::MIN, EventTime::MAX);
                *fault = Some((Reason::TimeOutOfRange, detail));
            }
            checked
        })
        .collect()
}

fn rfc3339(text: Option<&str>, name: &str, fault: &mut Option<Fault>) -> Option<EventTime> {
    let time = parse_rfc3339(text?.as_bytes());
    if time.is_none() && fault.is_none() {
        *fault = Some((Reason::WrongType, format!("time column `{name}`: expected an RFC 3339 time such as 2026-01-31T12:00:00Z")));
    }
    time
}

fn timestamps(array: &ArrayRef) -> Option<Vec<Option<EventTime>>> {
    // A safe cast gives null on overflow, so overflow is told apart from null by the source's own validity.
    let options = CastOptions { safe: true, ..CastOptions::default() };
    if let DataType::Timestamp(ArrowUnit::Nanosecond, _) = array.data_type() {
        // A cast cuts towards 1970; integers and texts are cut downwards.
        let nanos = array.as_primitive_opt::<TimestampNanosecondType>()?;
        return Some(nanos.iter().map(|value| value.map(|value| EventTime(value.div_euclid(1000)))).collect());
    }
    let micros = cast_with_options(array, &DataType::Timestamp(ArrowUnit::Microsecond, None), &options).ok()?;
    let micros = micros.as_primitive::<TimestampMicrosecondType>();
    let times = micros.iter().enumerate().map(|(row, value)| match value {
        Some(value) => Some(EventTime(value)),
        None if array.is_valid(row) => Some(EventTime(i64::MAX)),
        None => None,
    });
    Some(times.collect())
}

/// A rejected row as a JSON object of texts, so that a dead letter shows what was there.
fn row_as_json(rows: &RecordBatch, row: usize) -> String {
    let options = FormatOptions::default();
    let fields = rows.schema();
    let object: serde_json::Map<String, serde_json::Value> = fields
        .fields()
        .iter()
        .zip(rows.columns())
        .map(|(field, column)| {
            // Names of time zones are not known to the formatter; the instant is the same without.
            let plain = match column.data_type() {
                DataType::Timestamp(unit, Some(_)) => cast(column, &DataType::Timestamp(*unit, None)).ok(),
                _ => None,
            };
            let column = plain.as_ref().unwrap_or(column);
            let text = ArrayFormatter::try_new(column, &options).ok().map(|f| f.value(row).to_string());
            let value = if column.is_null(row) { serde_json::Value::Null } else { text.into() };
            (field.name().clone(), value)
        })
        .collect();
    serde_json::Value::Object(object).to_string()
}
