//! Reads the positions of rows back from a sink's files, for `meantime verify --files`.

use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::day::Day;
use super::name::{self, Name, Slice};
use crate::base::error::{Error, Kind, Result};
use crate::base::offset::{Offset, Partition};

const STAGE: &str = "verify";

/// Names of the columns, as the files have them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Of `partition`.
    pub partition: String,
    /// Of `offset`.
    pub offset: String,
    /// Of `overdue`, where keys may be.
    pub overdue: Option<String>,
}

impl Names {
    /// Those of dead letters.
    #[must_use]
    pub fn of_dead_letters() -> Self {
        Names { partition: "partition".to_owned(), offset: "offset".to_owned(), overdue: None }
    }
}

/// Hands on, of every row of every finished file below a sink's folder, its record's position, and the quantile if it says that a key is overdue. A
/// folder that is not there has none. Returns how many rows there were.
///
/// # Errors
/// A file cannot be read, or does not say where its rows come from.
pub fn positions(folder: &Path, names: &Names, each: &mut dyn FnMut((Partition, Offset), Option<f64>)) -> Result<u64> {
    let mut rows = 0;
    for path in files(folder)? {
        rows += of_file(&path, names, each)?;
    }
    Ok(rows)
}

fn of_file(path: &Path, names: &Names, each: &mut dyn FnMut((Partition, Offset), Option<f64>)) -> Result<u64> {
    let broken = |text: String| {
        Error::new(Kind::Check, STAGE, text).at(path.display().to_string()).help(
            "name the folder of a backfill by --positions whose rows say where they come from: `partition` and `offset` in [sink] fields",
        )
    };
    let file = std::fs::File::open(path).map_err(|e| Error::io(STAGE, path, e))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| broken(e.to_string()))?;
    let wanted: Vec<&str> = [&names.partition, &names.offset].into_iter().chain(&names.overdue).map(String::as_str).collect();
    let mask = ProjectionMask::columns(builder.parquet_schema(), wanted);
    let mut rows = 0;
    for batch in builder.with_projection(mask).build().map_err(|e| broken(e.to_string()))? {
        let batch = batch.map_err(|e| broken(e.to_string()))?;
        let partitions = batch.column_by_name(&names.partition).and_then(|column| column.as_primitive_opt::<Int32Type>());
        let offsets = batch.column_by_name(&names.offset).and_then(|column| column.as_primitive_opt::<Int64Type>());
        let (Some(partitions), Some(offsets)) = (partitions, offsets) else {
            let text =
                format!("its rows do not say which records they come from: it has no columns `{}` and `{}`", names.partition, names.offset);
            return Err(broken(text));
        };
        let overdue = names.overdue.as_ref().and_then(|name| batch.column_by_name(name)?.as_primitive_opt::<Float64Type>());
        for (row, (partition, offset)) in partitions.values().iter().zip(offsets.values()).enumerate() {
            let overdue = overdue.filter(|column| column.is_valid(row)).map(|column| column.value(row));
            each((Partition(*partition), Offset(*offset)), overdue);
            rows += 1;
        }
    }
    Ok(rows)
}

/// The finished files of all partitions or dates, in order.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for (text, within) in list(folder)? {
        if !within.is_dir() {
            continue;
        }
        let is_ours = match (name::read_folder(&text), Day::read_folder(&text)) {
            (Some(_), _) => |text: &str| Name::read(text).is_some(),
            (None, Some(_)) => |text: &str| Slice::read(text).is_some(),
            (None, None) => continue,
        };
        found.extend(list(&within)?.into_iter().filter(|(text, _)| is_ours(text)).map(|(_, path)| path));
    }
    found.sort();
    Ok(found)
}

fn list(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let io = |e: std::io::Error| Error::io(STAGE, folder, e);
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(io)?,
    };
    entries.map(|entry| entry.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())).map_err(io)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch};
    use parquet::arrow::ArrowWriter;

    use super::*;

    fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    fn rows(folder: &Path, names: &Names) -> Result<Vec<(i32, i64, Option<f64>)>> {
        let mut found = Vec::new();
        positions(folder, names, &mut |(partition, offset), overdue| found.push((partition.0, offset.0, overdue)))?;
        Ok(found)
    }

    #[test]
    fn rows_are_read_under_the_names_of_the_layout_and_only_of_finished_files() {
        let folder = tempfile::tempdir().unwrap();
        let columns = |offsets: Vec<i64>| -> Vec<(&str, ArrayRef)> {
            let partitions: Vec<i32> = offsets.iter().map(|_| 3).collect();
            let late: Vec<Option<f64>> = offsets.iter().map(|offset| (offset % 2 == 1).then_some(0.9)).collect();
            vec![
                ("p", Arc::new(Int32Array::from(partitions))),
                ("o", Arc::new(Int64Array::from(offsets))),
                ("late", Arc::new(Float64Array::from(late))),
            ]
        };
        write(&folder.path().join("partition-3/from=00000000000000000000.parquet"), columns(vec![0, 1]));
        write(&folder.path().join("partition-3/from=00000000000000000002.parquet"), columns(vec![2]));
        write(&folder.path().join("partition-3/.from=00000000000000000003.parquet.tmp"), columns(vec![3]));
        write(&folder.path().join("event_date=2026-11-25/partition-3-from-00000000000000000003-00000-00000.parquet"), columns(vec![3]));
        write(
            &folder.path().join("_commits/partition-3/from=00000000000000000003.2026-11-25.00000.0123456789abcdef.staged"),
            columns(vec![3]),
        );
        write(&folder.path().join("elsewhere/from=00000000000000000003.parquet"), columns(vec![4]));
        let names = |overdue: Option<&str>| Names { partition: "p".into(), offset: "o".into(), overdue: overdue.map(str::to_owned) };
        assert_eq!(rows(folder.path(), &names(Some("late"))).unwrap(), [(3, 3, Some(0.9)), (3, 0, None), (3, 1, Some(0.9)), (3, 2, None)]);
        assert_eq!(rows(folder.path(), &names(None)).unwrap().len(), 4);
        assert_eq!(rows(&folder.path().join("nowhere"), &names(None)).unwrap(), []);
        let error = rows(folder.path(), &Names::of_dead_letters()).unwrap_err();
        assert!(error.exit_code() == 1 && error.to_string().contains("no columns `partition` and `offset`"), "{error}");
    }
}
