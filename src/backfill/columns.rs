//! One type for a column of all files, where they have several: none that would make two values one, or a text another one than the file alone gives.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Decimal128Type, SchemaRef, TimeUnit};
use arrow::error::ArrowError;

use crate::base::error::{Error, Kind as ErrorKind, Result};
use crate::data::schema::{EventSchema, FieldKind};
use crate::decode::texts_of;
use crate::link::file::Location;

/// Whole numbers up to it are floats as well.
const EXACT: i128 = 1 << 53;

/// What columns are read as.
#[derive(Clone, Debug, Default)]
pub struct Roles {
    texts: Vec<String>,
    /// Those that decide order, or are read as text and as a number: they must not be rounded.
    exact: Vec<String>,
}

impl Roles {
    /// By the pipeline's schema.
    #[must_use]
    pub fn of(schema: &EventSchema, ties: Option<&str>) -> Self {
        let of_kind = |kind: FieldKind| schema.fields.iter().filter(move |field| field.kind == kind).map(|field| field.name.clone());
        let mut exact: Vec<String> = std::iter::once(schema.time.clone()).chain(ties.map(str::to_owned)).collect();
        let texts = std::iter::once(schema.key.clone()).chain(schema.id.clone()).chain(of_kind(FieldKind::Text));
        // What is read as a number too stays one.
        let numbers: Vec<String> = of_kind(FieldKind::Number).chain(exact.iter().cloned()).collect();
        let (both, texts) = texts.partition(|name| numbers.contains(name));
        let both: Vec<String> = both;
        exact.extend(both);
        Roles { texts, exact }
    }

    /// Whether a column is read as text, and as nothing else.
    #[must_use]
    pub fn is_text(&self, name: &str) -> bool {
        self.texts.iter().any(|text| text == name)
    }
}

/// The type without a dictionary.
#[must_use]
pub fn plain(kind: &DataType) -> DataType {
    match kind {
        DataType::Dictionary(_, values) => plain(values),
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        other => other.clone(),
    }
}

/// A type that holds the values of both; `None` where there is none. `text`: the column is read as text, and whether it may become one here.
#[must_use]
pub fn common(a: &DataType, b: &DataType, text: Option<bool>) -> Option<DataType> {
    use DataType::{Date32, Date64, Float64, Int64, Null, Timestamp, UInt64, Utf8};
    let is_readable = |kind: &DataType| !kind.is_nested() && !kind.is_binary();
    match (a, b) {
        (a, b) if a == b => Some(a.clone()),
        (Null, other) | (other, Null) => Some(other.clone()),
        (a, b) if a.is_integer() && b.is_integer() && (text.is_none() || *a != UInt64 && *b != UInt64) => Some(Int64),
        // Each value as the text that its own file gives: keys that differ stay apart, and are called the same in any company.
        (a, b) if text == Some(true) && is_readable(a) && is_readable(b) => Some(Utf8),
        _ if text.is_some() => None,
        (a, b) if a.is_numeric() && b.is_numeric() => Some(Float64),
        // Without a zone it is UTC; with one it is an instant all the same.
        (Timestamp(..) | Date32 | Date64, Timestamp(..) | Date32 | Date64) => Some(Timestamp(TimeUnit::Microsecond, None)),
        _ => None,
    }
}

/// The batch with the columns that all files have: missing ones null, others cast.
///
/// # Errors
/// A value cannot be what it is in other files.
pub fn conform(batch: &RecordBatch, columns: &SchemaRef, roles: &Roles, path: &Location) -> Result<RecordBatch> {
    if batch.schema().fields() == columns.fields() {
        return Ok(batch.clone());
    }
    let arrays = columns.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
        Some(array) if array.data_type() == field.data_type() => Ok(Arc::clone(array)),
        Some(array) => as_others(array, field.data_type(), roles, field.name()).map_err(|e| {
            let text = format!(
                "column `{}` is {} here and {} in other files, and cannot be read as that",
                field.name(),
                array.data_type(),
                field.data_type()
            );
            Error::new(ErrorKind::Data, "backfill", text)
                .at(path.to_string())
                .help("write the files with one type for the column")
                .caused_by(e)
        }),
    });
    let arrays = arrays.collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(columns), arrays, &options).map_err(|e| super::chunk::broken(&e))
}

fn as_others(array: &ArrayRef, kind: &DataType, roles: &Roles, name: &str) -> std::result::Result<ArrayRef, ArrowError> {
    if *kind == DataType::Utf8 && roles.is_text(name) {
        let texts = texts_of(array).ok_or_else(|| ArrowError::CastError(format!("{} is no text", array.data_type())))?;
        return Ok(Arc::new(texts));
    }
    if *kind == DataType::Float64 && roles.exact.iter().any(|exact| exact == name) && !is_exact(array)? {
        return Err(ArrowError::CastError("a whole number beyond 2^53 would be rounded".to_owned()));
    }
    cast_with_options(array, kind, &CastOptions { safe: false, ..CastOptions::default() })
}

/// Whether the numbers are the same as floats.
fn is_exact(array: &ArrayRef) -> std::result::Result<bool, ArrowError> {
    let array = &cast(array, &plain(array.data_type()))?;
    let whole = match array.data_type() {
        kind if kind.is_integer() => cast(array, &DataType::Decimal128(38, 0))?,
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => {
            cast_with_options(array, &DataType::Decimal128(38, *scale), &CastOptions { safe: false, ..CastOptions::default() })?
        }
        _ => return Ok(true),
    };
    let numbers = whole.as_primitive::<Decimal128Type>();
    Ok(numbers.iter().flatten().all(|number| number.abs() <= EXACT))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Decimal128Array, Float64Array, Int64Array, StringArray, TimestampNanosecondArray};
    use arrow::datatypes::{Field, Schema, TimestampMicrosecondType};

    use super::*;
    use crate::data::schema::{self, TimeFormat};

    fn schema() -> EventSchema {
        EventSchema {
            key: "card".to_owned(),
            time: "ts".to_owned(),
            time_format: TimeFormat::Rfc3339,
            id: None,
            fields: vec![schema::Field { name: "amount".to_owned(), kind: FieldKind::Number }],
            mark: None,
            label: None,
        }
    }

    fn roles() -> Roles {
        Roles::of(&schema(), Some("no"))
    }

    fn conformed(name: &str, array: ArrayRef, kind: DataType) -> Result<ArrayRef> {
        let batch = RecordBatch::try_from_iter([(name, array)]).unwrap();
        let columns = Arc::new(Schema::new(vec![Field::new(name, kind, true)]));
        conform(&batch, &columns, &roles(), &Location::Path("x.parquet".into())).map(|batch| Arc::clone(batch.column(0)))
    }

    #[test]
    fn keys_of_several_types_are_the_texts_that_each_file_alone_gives() {
        let text = |kind: &DataType, other: &DataType| common(kind, other, Some(true)).unwrap();
        assert_eq!(text(&DataType::Int64, &DataType::Float64), DataType::Utf8);
        assert_eq!(text(&DataType::Decimal128(38, 0), &DataType::Decimal128(20, 0)), DataType::Utf8);
        assert_eq!(text(&DataType::Int32, &DataType::Int64), DataType::Int64);
        let large = 12_345_678_901_234_567_i64;
        let keys = conformed("card", Arc::new(Int64Array::from(vec![large, large + 1])), DataType::Utf8).unwrap();
        assert_eq!(keys.as_string::<i32>(), &StringArray::from(vec!["12345678901234567", "12345678901234568"]));
        let keys = conformed("card", Arc::new(Float64Array::from(vec![Some(3.0), None])), DataType::Utf8).unwrap();
        assert_eq!(keys.as_string::<i32>(), &StringArray::from(vec![Some("3"), None]));
        let money = Decimal128Array::from(vec![110, 300]).with_precision_and_scale(5, 2).unwrap();
        let keys = conformed("card", Arc::new(money), DataType::Utf8).unwrap();
        assert_eq!(keys.as_string::<i32>(), &StringArray::from(vec!["1.10", "3.00"]));
        // Where expressions read the column it must stay what it is.
        assert_eq!(common(&DataType::Int64, &DataType::Float64, Some(false)), None);
        assert_eq!(common(&DataType::Int64, &DataType::Float64, None), Some(DataType::Float64));
    }

    #[test]
    fn what_decides_order_is_not_rounded_and_features_may_be() {
        let large = || Arc::new(Int64Array::from(vec![1 << 53, (1 << 53) + 1])) as ArrayRef;
        for name in ["ts", "no"] {
            let refused = conformed(name, large(), DataType::Float64).unwrap_err().to_string();
            assert!(refused.contains("cannot be read as that"), "{refused}");
            conformed(name, Arc::new(Int64Array::from(vec![1 << 53])), DataType::Float64).unwrap();
        }
        conformed("amount", large(), DataType::Float64).unwrap();
        // A key that is a feature as well stays a number: two keys must not become one.
        let mut both = schema();
        both.fields.push(schema::Field { name: "card".to_owned(), kind: FieldKind::Number });
        let roles = Roles::of(&both, None);
        assert!(!roles.is_text("card") && as_others(&large(), &DataType::Float64, &roles, "card").is_err());
    }

    #[test]
    fn times_with_and_without_a_zone_in_any_unit_are_instants() {
        let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
        let zoned = DataType::Timestamp(TimeUnit::Nanosecond, Some("Europe/Berlin".into()));
        for (a, b) in [(&micros, &zoned), (&zoned, &DataType::Date32), (&DataType::Timestamp(TimeUnit::Second, None), &DataType::Date64)] {
            assert_eq!(common(a, b, None), Some(micros.clone()));
        }
        let array = Arc::new(TimestampNanosecondArray::from(vec![1_500_000]).with_timezone("Europe/Berlin"));
        let times = conformed("ts", array, micros).unwrap();
        assert_eq!(times.as_primitive::<TimestampMicrosecondType>().values(), &[1_500]);
    }
}
