//! Files that are not in order: sorted in parts that fit into memory, which are written aside.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, UInt32Type};
use arrow::error::ArrowError;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;

use super::chunk::{Chunk, Turn, broken};
use super::reader::{ROWS, Reader, Reading};
use super::survey::FileFacts;
use crate::base::error::{Error, Result};

/// Columns beside those of the rows.
const TIME: &str = "__time";
const TIE: &str = "__tie";
const SHARD: &str = "__shard";

/// A sorted part of a file.
#[derive(Clone, Debug)]
pub struct Part {
    /// Where it is.
    pub path: PathBuf,
    /// First turn in it.
    pub first: Turn,
}

/// Cuts a file into sorted parts of at most about `memory` bytes, each a file in `scratch` whose name begins with `name`. Rows of the same time keep
/// their order within a part, and the parts are in the order of the file.
///
/// # Errors
/// The file cannot be read, or the folder cannot be written.
pub fn sort(file: &FileFacts, reading: &Reading, memory: u64, scratch: &Path, name: &str) -> Result<Vec<Part>> {
    let mut reader = Reader::again(file, reading)?;
    let (mut parts, mut held, mut bytes) = (Vec::new(), Vec::new(), 0_u64);
    loop {
        let next = reader.chunk()?;
        let ended = next.is_none();
        if let Some(chunk) = next {
            // Rows, their sorted copy, and 28 bytes a row for times, shards and places.
            bytes += u64::try_from(2 * chunk.rows.get_array_memory_size() + 56 * chunk.len()).unwrap_or(u64::MAX);
            held.push(chunk);
        }
        if !held.is_empty() && (ended || bytes >= memory) {
            let path = scratch.join(format!("{name}-{:04}.arrow", parts.len()));
            parts.push(spill(&held, path)?);
            held.clear();
            bytes = 0;
        }
        if ended {
            return Ok(parts);
        }
    }
}

fn spill(held: &[Chunk], path: PathBuf) -> Result<Part> {
    let mut places: Vec<(Turn, usize, usize)> =
        held.iter().enumerate().flat_map(|(i, chunk)| chunk.turns.iter().enumerate().map(move |(row, turn)| (*turn, i, row))).collect();
    places.sort_unstable();
    let first = places.first().map_or(Turn::LAST, |(turn, ..)| *turn);
    let chunks: Vec<&Chunk> = held.iter().collect();
    let io = |e: std::io::Error| {
        Error::io("backfill", &path, e).help("sorting needs room beside the output, or in the folder that --scratch names")
    };
    let arrow = |e: ArrowError| match e {
        ArrowError::IoError(_, e) => io(e),
        other => broken(&other),
    };
    let mut writer: Option<FileWriter<BufWriter<File>>> = None;
    for some in places.chunks(ROWS) {
        let places: Vec<(usize, usize)> = some.iter().map(|(_, chunk, row)| (*chunk, *row)).collect();
        let batch = packed(&Chunk::interleave(&chunks, &places)?)?;
        let writer = match &mut writer {
            Some(writer) => writer,
            none => none.insert(FileWriter::try_new(BufWriter::new(File::create(&path).map_err(io)?), &batch.schema()).map_err(arrow)?),
        };
        writer.write(&batch).map_err(arrow)?;
    }
    if let Some(mut writer) = writer {
        writer.finish().map_err(arrow)?;
    }
    Ok(Part { path, first })
}

fn packed(chunk: &Chunk) -> Result<RecordBatch> {
    let schema = chunk.rows.schema();
    let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(TIME, DataType::Int64, false)));
    fields.push(Arc::new(Field::new(TIE, DataType::Int64, false)));
    fields.push(Arc::new(Field::new(SHARD, DataType::UInt32, false)));
    let mut columns: Vec<ArrayRef> = chunk.rows.columns().to_vec();
    columns.push(Arc::new(chunk.turns.iter().map(|turn| Some(turn.at)).collect::<Int64Array>()));
    columns.push(Arc::new(chunk.turns.iter().map(|turn| Some(turn.tie)).collect::<Int64Array>()));
    columns.push(Arc::new(UInt32Array::from(chunk.shards.clone())));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|e| broken(&e))
}

/// A sorted part that is read again.
pub struct PartReader {
    path: PathBuf,
    reader: FileReader<BufReader<File>>,
}

impl PartReader {
    /// Starts at the first row.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io("backfill", path, e))?;
        let reader = FileReader::try_new(BufReader::new(file), None).map_err(|e| broken(&e).at(path.display().to_string()))?;
        Ok(PartReader { path: path.to_owned(), reader })
    }

    /// The next rows; `None` at the end.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn chunk(&mut self) -> Result<Option<Chunk>> {
        let Some(batch) = self.reader.next() else { return Ok(None) };
        let batch = batch.map_err(|e| broken(&e).at(self.path.display().to_string()))?;
        let columns = batch.num_columns().saturating_sub(3);
        let numbers =
            |name: &str| batch.column_by_name(name).ok_or_else(|| Error::internal("backfill", format!("a sorted part has no {name}")));
        let (times, ties) = (numbers(TIME)?.as_primitive::<Int64Type>(), numbers(TIE)?.as_primitive::<Int64Type>());
        let turns = times.values().iter().zip(ties.values()).map(|(at, tie)| Turn { at: *at, tie: *tie }).collect();
        let shards = numbers(SHARD)?.as_primitive::<UInt32Type>().values().to_vec();
        let rows = batch.project(&(0..columns).collect::<Vec<_>>()).map_err(|e| broken(&e))?;
        Ok(Some(Chunk { turns, shards, rows }))
    }
}
