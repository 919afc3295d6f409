//! Forecast rows and dead letters as Arrow columns.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Float32Array, Float64Array, Int32Array, Int64Array, ListArray, RecordBatchOptions, StringArray, StringBuilder,
    StructArray, TimestampMicrosecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;

use crate::base::error::{Error, Result};
use crate::base::number::index;
use crate::base::rfc3339;
use crate::base::time::EventTime;
use crate::data::forecasts::{Forecasts, Identity};
use crate::data::layout::{FieldId, Layout};
use crate::data::rejected::Rejected;
use crate::data::text::TextColumn;
use crate::sink::json::{kind, next_marks, reasons};

const UTC: &str = "UTC";

fn item(kind: DataType) -> FieldRef {
    Arc::new(Field::new("item", kind, false))
}

/// A name and a number.
fn pair_fields(name: &str, number: &str) -> Fields {
    Fields::from(vec![Field::new(name, DataType::Utf8, false), Field::new(number, DataType::Float32, false)])
}

fn chance_fields() -> Fields {
    pair_fields("mark", "p")
}

fn reason_fields() -> Fields {
    pair_fields("code", "effect")
}

/// Type of a field's column, and whether it may be null.
fn column_type(field: FieldId) -> (DataType, bool) {
    match field {
        FieldId::Kind | FieldId::Key | FieldId::Model | FieldId::ModelVersion | FieldId::Fingerprint => (DataType::Utf8, false),
        FieldId::EventId => (DataType::Utf8, true),
        FieldId::EventTime | FieldId::NextTime(_) => {
            (DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())), field != FieldId::EventTime)
        }
        FieldId::Partition => (DataType::Int32, false),
        FieldId::Offset | FieldId::NEvents => (DataType::Int64, false),
        FieldId::NextMarks => (DataType::List(item(DataType::Struct(chance_fields()))), false),
        FieldId::Reasons => (DataType::List(item(DataType::Struct(reason_fields()))), false),
        FieldId::Flags => (DataType::List(item(DataType::Utf8)), false),
        FieldId::GapS
        | FieldId::Overdue
        | FieldId::SurpriseTime
        | FieldId::SurpriseMark
        | FieldId::SurpriseValue
        | FieldId::Residual
        | FieldId::ResidualValue
        | FieldId::NextValue(_)
        | FieldId::Score
        | FieldId::PNever
        | FieldId::PWithin(_)
        | FieldId::IntensityNow => (DataType::Float64, true),
    }
}

/// Makes the columns of a layout.
pub struct Columns {
    fields: Vec<FieldId>,
    schema: SchemaRef,
    model: String,
    model_version: String,
    fingerprint: String,
}

impl Columns {
    /// Columns for the fields of a layout, in its order.
    pub fn new(layout: &Layout, identity: &Identity) -> Self {
        let fields = layout.fields.iter().map(|(name, field)| {
            let (kind, nullable) = column_type(*field);
            Field::new(name, kind, nullable)
        });
        Columns {
            schema: Arc::new(Schema::new(fields.collect::<Fields>())),
            fields: layout.fields.iter().map(|(_, field)| *field).collect(),
            model: identity.model.clone(),
            model_version: identity.model_version.clone(),
            fingerprint: identity.fingerprint.clone(),
        }
    }

    /// Names and types.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The given rows as a batch.
    pub fn batch(&self, forecasts: &Forecasts, rows: &[usize]) -> Result<RecordBatch> {
        let columns = self.fields.iter().map(|field| self.column(*field, forecasts, rows)).collect();
        batch(&self.schema, columns, rows.len())
    }

    fn column(&self, field: FieldId, forecasts: &Forecasts, rows: &[usize]) -> ArrayRef {
        let same = |text: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(|_| text))) };
        match field {
            FieldId::Kind => Arc::new(StringArray::from_iter_values(rows.iter().map(|row| kind(forecasts, *row)))),
            FieldId::Model => same(&self.model),
            FieldId::ModelVersion => same(&self.model_version),
            FieldId::Fingerprint => same(&self.fingerprint),
            FieldId::Key => texts(rows.iter().map(|row| Some(forecasts.keys.bytes_at(*row)))),
            FieldId::EventId => texts(rows.iter().map(|row| forecasts.event_ids.get(*row))),
            FieldId::EventTime => {
                times(rows.iter().map(|row| Some(forecasts.event_times.get(*row).map_or(EventTime::default(), |time| *time))))
            }
            FieldId::NextTime(quantile) => {
                let column = forecasts.next_times.get(quantile).map_or(&[][..], Vec::as_slice);
                let next = |row: &usize| column.get(*row).copied().flatten();
                // What has no RFC 3339 form is null here as in JSON; many readers know no later years either.
                times(rows.iter().map(|row| next(row).filter(|time| rfc3339::has_form(*time))))
            }
            FieldId::Partition => {
                let partitions = rows.iter().map(|row| forecasts.partitions.get(*row).map_or(0, |partition| partition.0));
                Arc::new(Int32Array::from_iter_values(partitions))
            }
            FieldId::Offset => {
                Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| forecasts.offsets.get(*row).map_or(0, |offset| offset.0))))
            }
            FieldId::NEvents => {
                let counts = rows.iter().map(|row| forecasts.n_events.get(*row).copied().unwrap_or(0));
                Arc::new(Int64Array::from_iter_values(counts.map(|count| i64::try_from(count).unwrap_or(i64::MAX))))
            }
            FieldId::Overdue => {
                let of = |row: &usize| forecasts.overdue_at(*row);
                Arc::new(Float64Array::from_iter(rows.iter().map(of)))
            }
            FieldId::GapS => numbers(&forecasts.gap_s, rows),
            FieldId::SurpriseTime => numbers(&forecasts.surprise_time, rows),
            FieldId::SurpriseMark => numbers(&forecasts.surprise_mark, rows),
            FieldId::SurpriseValue => numbers(&forecasts.surprise_value, rows),
            FieldId::Residual => numbers(&forecasts.residual, rows),
            FieldId::ResidualValue => numbers(&forecasts.residual_value, rows),
            FieldId::NextValue(quantile) => numbers(forecasts.next_values.get(quantile).map_or(&[][..], Vec::as_slice), rows),
            FieldId::Score => numbers(&forecasts.score, rows),
            FieldId::PNever => numbers(&forecasts.p_never, rows),
            FieldId::PWithin(horizon) => numbers(forecasts.p_within.get(horizon).map_or(&[][..], Vec::as_slice), rows),
            FieldId::IntensityNow => numbers(&forecasts.intensity_now, rows),
            FieldId::NextMarks => {
                let of = |row: usize| next_marks(forecasts, row).map(|chance| (index(chance.mark), chance.p));
                pairs(chance_fields(), &forecasts.identity.marks, rows, of)
            }
            FieldId::Reasons => {
                let of = |row: usize| reasons(forecasts, row).map(|named| (index(named.reason), named.effect));
                pairs(reason_fields(), &forecasts.identity.reasons, rows, of)
            }
            FieldId::Flags => flags(forecasts, rows),
        }
    }
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(|e| Error::internal("sink", e.to_string()).caused_by(e))
}

/// What is not finite has no value.
fn numbers(column: &[f64], rows: &[usize]) -> ArrayRef {
    let value = |row: &usize| column.get(*row).copied().filter(|value| value.is_finite());
    Arc::new(Float64Array::from_iter(rows.iter().map(value)))
}

fn times(values: impl Iterator<Item = Option<EventTime>>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter(values.map(|time| time.map(|time| time.0))).with_timezone(UTC))
}

/// What is not UTF-8 becomes U+FFFD.
fn texts<'a>(values: impl ExactSizeIterator<Item = Option<&'a [u8]>>) -> ArrayRef {
    let mut builder = StringBuilder::with_capacity(values.len(), values.len() * 16);
    for value in values {
        builder.append_option(value.map(String::from_utf8_lossy));
    }
    Arc::new(builder.finish())
}

/// A list a row of names, by index, and numbers.
fn pairs<I: Iterator<Item = (usize, f32)>>(fields: Fields, names: &[String], rows: &[usize], of: impl Fn(usize) -> I) -> ArrayRef {
    let (mut lengths, mut texts, mut numbers) = (Vec::with_capacity(rows.len()), Vec::new(), Vec::new());
    for row in rows {
        let before = texts.len();
        for (name, number) in of(*row) {
            if let Some(name) = names.get(name) {
                texts.push(name.as_str());
                numbers.push(number);
            }
        }
        lengths.push(texts.len() - before);
    }
    let columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(texts)), Arc::new(Float32Array::from(numbers))];
    let values = StructArray::new(fields.clone(), columns, None);
    Arc::new(ListArray::new(item(DataType::Struct(fields)), OffsetBuffer::from_lengths(lengths), Arc::new(values), None))
}

fn flags(forecasts: &Forecasts, rows: &[usize]) -> ArrayRef {
    let (mut lengths, mut names) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in rows {
        let before = names.len();
        names.extend(forecasts.flags.get(*row).copied().unwrap_or_default().names());
        lengths.push(names.len() - before);
    }
    let values = Arc::new(StringArray::from(names));
    Arc::new(ListArray::new(item(DataType::Utf8), OffsetBuffer::from_lengths(lengths), values, None))
}

/// Columns of dead letters.
pub fn dead_letter_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("topic", DataType::Utf8, true),
        Field::new("partition", DataType::Int32, false),
        Field::new("offset", DataType::Int64, false),
        Field::new("reason", DataType::Utf8, false),
        Field::new("detail", DataType::Utf8, false),
        Field::new("key", DataType::Binary, true),
        Field::new("payload", DataType::Binary, true),
    ]))
}

/// The given rejected records as a batch.
pub fn dead_letters(schema: &SchemaRef, rejected: &Rejected, rows: &[usize], origin: &str) -> Result<RecordBatch> {
    let bytes = |column: &TextColumn| -> ArrayRef { Arc::new(BinaryArray::from_iter(rows.iter().map(|row| column.get(*row)))) };
    let origin = (!origin.is_empty()).then_some(origin);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter(rows.iter().map(|_| origin))),
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| rejected.partitions.get(*row).map_or(0, |partition| partition.0)))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| rejected.offsets.get(*row).map_or(0, |offset| offset.0)))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| rejected.reasons.get(*row).map_or("", |reason| reason.code())))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| rejected.details.get(*row).map_or("", String::as_str)))),
        bytes(&rejected.keys),
        bytes(&rejected.payloads),
    ];
    batch(schema, columns, rows.len())
}
