//! Rows of a Parquet file in slices of at most so many.

use std::sync::Arc;

use arrow::datatypes::Field;
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
        Error::new(Kind::Data, "source", format!("not a readable Parquet file: {source}"))
            .at(path.to_string())
            .help("write the file anew, or take it out of the list")
            .caused_by(source)
    })
}

fn builder(path: &Location) -> Result<(Chunks, ParquetRecordBatchReaderBuilder<Chunks>)> {
    path.bytes()?;
    let chunks = path.chunks()?;
    let builder = match chunks.metadata() {
        None => ParquetRecordBatchReaderBuilder::try_new(chunks.clone()),
        Some(metadata) => ArrowReaderMetadata::try_new(metadata, ArrowReaderOptions::new())
            .map(|metadata| ParquetRecordBatchReaderBuilder::new_with_metadata(chunks.clone(), metadata)),
    };
    let builder = builder.map_err(|e| broken(path, &chunks, e))?;
    Ok((chunks, builder))
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
