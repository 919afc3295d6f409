//! Rows of a Parquet file in slices of at most so many.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::ParquetMetaData;

use super::nested;
use crate::base::error::{Error, Kind, Result};
use crate::base::limits::MAX_BATCH_BYTES;
use crate::link::file::{Chunks, Location};

/// Rows decoded at once; fewer where they are wide.
const BATCH: usize = 8192;

/// Rows that are still to be read.
pub struct Rows {
    fields: Vec<String>,
    path: Location,
    chunks: Chunks,
    reader: ParquetRecordBatchReader,
    /// What has been decoded but not handed out.
    rest: Option<RecordBatch>,
}

fn broken(path: &Location, chunks: &Chunks, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    // A store that does not answer says nothing about the file.
    chunks.fault().unwrap_or_else(|| {
        let text = source.to_string();
        let help = if text.contains("Disabled feature") {
            "files may be compressed with zstd, snappy, gzip or LZ4, or not at all: write it anew with one of these"
        } else {
            "write the file anew, or take it out of the list"
        };
        Error::new(Kind::Data, "source", format!("not a readable Parquet file: {text}")).at(path.to_string()).help(help).caused_by(source)
    })
}

fn builder(path: &Location) -> Result<(Chunks, ParquetRecordBatchReaderBuilder<Chunks>)> {
    path.bytes()?;
    let chunks = path.chunks()?;
    let metadata = match chunks.metadata() {
        None => ArrowReaderMetadata::load(&chunks, ArrowReaderOptions::new()),
        Some(metadata) => ArrowReaderMetadata::try_new(metadata, ArrowReaderOptions::new()),
    };
    let metadata = metadata.and_then(|metadata| match without_odd_dictionaries(metadata.schema()) {
        None => Ok(metadata),
        Some(schema) => ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), ArrowReaderOptions::new().with_schema(schema)),
    });
    let metadata = metadata.map_err(|e| broken(path, &chunks, e))?;
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(chunks.clone(), metadata);
    Ok((chunks, builder))
}

/// The schema with plain columns in place of dictionaries of anything but texts, which is what their writer had in memory and not how they are stored: the reader has none
/// of them. `None` if there are no such columns.
fn without_odd_dictionaries(schema: &Schema) -> Option<SchemaRef> {
    fn plain(field: &Field) -> Option<Field> {
        match field.data_type() {
            DataType::Dictionary(_, values) if !values.is_string() && !values.is_binary() => {
                Some(field.clone().with_data_type(values.as_ref().clone()))
            }
            DataType::Struct(inner) => {
                let changed: Vec<Option<Field>> = inner.iter().map(|field| plain(field)).collect();
                let is_any = changed.iter().any(Option::is_some);
                let inner = inner.iter().zip(changed).map(|(field, changed)| changed.map_or_else(|| Arc::clone(field), Arc::new));
                is_any.then(|| field.clone().with_data_type(DataType::Struct(inner.collect())))
            }
            _ => None,
        }
    }
    let changed: Vec<Option<Field>> = schema.fields().iter().map(|field| plain(field)).collect();
    let is_any = changed.iter().any(Option::is_some);
    let fields = schema.fields().iter().zip(changed).map(|(field, changed)| changed.map_or_else(|| Arc::clone(field), Arc::new));
    is_any.then(|| Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}

/// Rows of the file by its footer.
pub fn count(path: &Location) -> Result<u64> {
    let rows = builder(path)?.1.metadata().file_metadata().num_rows();
    Ok(u64::try_from(rows).unwrap_or(0))
}

/// So many rows that a batch stays below the bytes a poll may hand on, by the widest row group.
fn batch_rows(metadata: &ParquetMetaData) -> usize {
    let most = i64::try_from(MAX_BATCH_BYTES).unwrap_or(i64::MAX);
    let rows = metadata.row_groups().iter().map(|group| {
        let width = group.total_byte_size() / group.num_rows().max(1);
        usize::try_from(most / width.max(1)).unwrap_or(BATCH)
    });
    rows.min().unwrap_or(BATCH).clamp(1, BATCH)
}

impl Rows {
    /// Starts at the first row. Reads only the columns in `fields` that the file has; all of them if `fields` is empty. A field `a.b` is the column of
    /// that name, or else `b` within the column `a`.
    ///
    /// # Errors
    /// The file cannot be opened, or is not Parquet.
    pub fn open(path: &Location, fields: &[String]) -> Result<Self> {
        let (chunks, builder) = builder(path)?;
        let mask = if fields.is_empty() {
            ProjectionMask::all()
        } else {
            let names: Vec<&str> = builder.parquet_schema().root_schema().get_fields().iter().map(|field| field.name()).collect();
            let roots = nested::roots(fields, &names);
            let wanted: Vec<usize> = names.iter().enumerate().filter(|(_, name)| roots.contains(*(*name))).map(|(i, _)| i).collect();
            ProjectionMask::roots(builder.parquet_schema(), wanted)
        };
        let rows = batch_rows(builder.metadata());
        let reader = builder.with_projection(mask).with_batch_size(rows).build().map_err(|e| broken(path, &chunks, e))?;
        Ok(Rows { fields: fields.to_vec(), path: path.clone(), chunks, reader, rest: None })
    }

    /// The columns that would be read, with their types.
    ///
    /// # Errors
    /// As `open`.
    pub fn columns(path: &Location, fields: &[String]) -> Result<Vec<Field>> {
        let (_, builder) = builder(path)?;
        let schema = Arc::clone(builder.schema());
        let lifted = nested::lift(&RecordBatch::new_empty(schema), fields).schema();
        Ok(lifted
            .fields()
            .iter()
            .filter(|field| fields.is_empty() || fields.contains(field.name()))
            .map(|field| field.as_ref().clone())
            .collect())
    }

    /// The next rows, at most `max` and at least one; `None` at the end of the file.
    ///
    /// # Errors
    /// The file is broken.
    pub fn next(&mut self, max: usize) -> Result<Option<RecordBatch>> {
        let batch = match self.rest.take() {
            Some(rest) => rest,
            None => match self.reader.find(|batch| !matches!(batch, Ok(batch) if batch.num_rows() == 0)) {
                None => return Ok(None),
                Some(batch) => nested::lift(&batch.map_err(|e| broken(&self.path, &self.chunks, e))?, &self.fields),
            },
        };
        let taken = max.min(batch.num_rows());
        if taken < batch.num_rows() {
            self.rest = Some(batch.slice(taken, batch.num_rows() - taken));
        }
        Ok(Some(batch.slice(0, taken)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dictionaries_of_what_is_no_text_are_read_as_plain_columns() {
        let of = |kind: DataType| DataType::Dictionary(Box::new(DataType::Int8), Box::new(kind));
        let schema = |kinds: [DataType; 3]| {
            let [a, b, c] = kinds;
            let inner = DataType::Struct(vec![Field::new("c", c, true)].into());
            Schema::new(vec![Field::new("a", a, true), Field::new("b", b, true), Field::new("s", inner, true)])
        };
        let (text, flag, money) = (of(DataType::Utf8), DataType::Boolean, DataType::Decimal128(5, 2));
        assert_eq!(without_odd_dictionaries(&schema([text.clone(), flag.clone(), text.clone()])), None);
        let found = without_odd_dictionaries(&schema([text.clone(), of(flag.clone()), of(money.clone())])).unwrap();
        assert_eq!(*found, schema([text, flag, money]));
    }
}
