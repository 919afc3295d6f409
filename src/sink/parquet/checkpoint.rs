//! A classic checkpoint of a Delta log: one Parquet file that stands for all commits up to its number. Of it only what appends need is read.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StructArray};
use arrow::datatypes::{Int32Type, Int64Type};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

use super::delta::Seen;
use crate::base::error::{Error, Result};
use crate::link::objects::{Entry, Objects};

/// Versions of applications, the protocol and the metadata, the latter two as the actions of a commit hold them.
///
/// # Errors
/// It cannot be read, or is no checkpoint.
pub fn read(objects: &Arc<dyn Objects>, entry: Entry) -> Result<(Seen, Option<Value>, Option<Value>)> {
    let place = format!("{objects}/{}", entry.name);
    let broken = |e: &dyn std::fmt::Display| Error::config("sink", format!("the checkpoint cannot be read: {e}")).at(place.clone());
    let bytes = objects.get(&entry.name)?.ok_or_else(|| broken(&"it has vanished"))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).map_err(|e| broken(&e))?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["txn", "protocol", "metaData"]);
    let (mut seen, mut protocol, mut metadata) = (Seen::default(), None, None);
    for batch in builder.with_projection(mask).build().map_err(|e| broken(&e))? {
        let batch = batch.map_err(|e| broken(&e))?;
        for row in 0..batch.num_rows() {
            if let Some(txn) = action(&batch, "txn", row)
                && let (Some(app), Some(version)) = (text(txn, "appId", row), long(txn, "version", row))
            {
                seen.txns.insert(app, version);
            }
            if let Some(action) = action(&batch, "protocol", row) {
                protocol = Some(
                    json!({ "minWriterVersion": long(action, "minWriterVersion", row), "writerFeatures": texts(action, "writerFeatures", row) }),
                );
            }
            if let Some(action) = action(&batch, "metaData", row) {
                let columns = texts(action, "partitionColumns", row);
                metadata = Some(json!({ "schemaString": text(action, "schemaString", row), "partitionColumns": columns }));
            }
        }
    }
    if protocol.is_none() || metadata.is_none() {
        return Err(broken(&"it holds no table").help("make a classic checkpoint of the table, in one file"));
    }
    Ok((seen, protocol, metadata))
}

/// The action of this name in a row, if the row is one.
fn action<'a>(batch: &'a RecordBatch, name: &str, row: usize) -> Option<&'a StructArray> {
    batch.column_by_name(name)?.as_struct_opt().filter(|action| action.is_valid(row))
}

fn text(action: &StructArray, name: &str, row: usize) -> Option<String> {
    let column = action.column_by_name(name)?.as_string_opt::<i32>()?;
    column.is_valid(row).then(|| column.value(row).to_owned())
}

fn long(action: &StructArray, name: &str, row: usize) -> Option<i64> {
    let column = action.column_by_name(name).filter(|column| column.is_valid(row))?;
    let wide = column.as_primitive_opt::<Int64Type>().map(|column| column.value(row));
    wide.or_else(|| column.as_primitive_opt::<Int32Type>().map(|column| i64::from(column.value(row))))
}

fn texts(action: &StructArray, name: &str, row: usize) -> Vec<String> {
    let column = action.column_by_name(name).and_then(|column| column.as_list_opt::<i32>());
    let Some(values) = column.filter(|column| column.is_valid(row)).map(|column| column.value(row)) else { return Vec::new() };
    values.as_string_opt::<i32>().map(|values| values.iter().flatten().map(str::to_owned).collect()).unwrap_or_default()
}
