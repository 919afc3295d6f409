//! Rows as they were read, with the turn and the shard of each.

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{CastOptions, cast, cast_with_options, concat_batches, interleave_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Decimal128Type, Field, Float64Type, Int64Type, Schema, SchemaRef, UInt64Type};
use arrow::error::ArrowError;
use std::sync::Arc;

use super::Positions;
use super::murmur2::partition;
use crate::base::error::{Error, Kind, Result};
use crate::base::number::{i64_of, u32_of};
use crate::base::offset::{Offset, Partition};
use crate::data::events::{Column, Events};
use crate::data::input::{Input, Table};
use crate::data::rejected::Rejected;
use crate::data::schema::{EventSchema, Field as DataField, FieldKind};
use crate::decode::Decoder;

/// The column that holds a line of an NDJSON file.
pub const LINE: &str = "line";

/// When it is a row's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn {
    /// Event time in microseconds, of a row whose time cannot be read that of the row before; or the offset in the topic.
    pub at: i64,
    /// Among rows of the same time: as their numbers in the column for ties are ordered, those without one last. 0 without such a column.
    pub tie: i64,
}

impl Turn {
    /// Before all others.
    pub const FIRST: Turn = Turn { at: i64::MIN, tie: i64::MIN };
    /// After all others.
    pub const LAST: Turn = Turn { at: i64::MAX, tie: i64::MAX };

    /// Of a row without ties.
    #[must_use]
    pub fn at(at: i64) -> Self {
        Turn { at, tie: 0 }
    }
}

/// An integer that is ordered as the numbers are; NaN comes last.
fn rank(number: f64) -> i64 {
    if number.is_nan() {
        return i64::MAX;
    }
    // Of negative numbers the bits run the other way.
    let bits = number.to_bits().cast_signed();
    bits ^ (((bits >> 63).cast_unsigned() >> 1).cast_signed())
}

/// Rows.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Turn of each row.
    pub turns: Vec<Turn>,
    /// Shard of each row.
    pub shards: Vec<u32>,
    /// What was read.
    pub rows: RecordBatch,
}

impl Chunk {
    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.turns.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Rows from one on.
    #[must_use]
    pub fn slice(&self, from: usize, len: usize) -> Chunk {
        Chunk {
            turns: self.turns.get(from..from + len).unwrap_or_default().to_vec(),
            shards: self.shards.get(from..from + len).unwrap_or_default().to_vec(),
            rows: self.rows.slice(from, len),
        }
    }

    /// Several one after the other.
    ///
    /// # Errors
    /// Never for chunks of one backfill.
    pub fn concat(chunks: &[Chunk]) -> Result<Chunk> {
        if let [one] = chunks {
            return Ok(one.clone());
        }
        let Some(first) = chunks.first() else { return Err(Error::internal("backfill", "no rows to join")) };
        Ok(Chunk {
            turns: chunks.iter().flat_map(|chunk| chunk.turns.iter().copied()).collect(),
            shards: chunks.iter().flat_map(|chunk| chunk.shards.iter().copied()).collect(),
            rows: concat_batches(&first.rows.schema(), chunks.iter().map(|chunk| &chunk.rows)).map_err(|e| broken(&e))?,
        })
    }

    /// Rows of several in any order: (chunk, row).
    ///
    /// # Errors
    /// Never for chunks of one backfill.
    pub fn interleave(chunks: &[&Chunk], places: &[(usize, usize)]) -> Result<Chunk> {
        let rows: Vec<&RecordBatch> = chunks.iter().map(|chunk| &chunk.rows).collect();
        let at = |(chunk, row): &(usize, usize)| chunks.get(*chunk).map(|chunk| (chunk, *row));
        Ok(Chunk {
            turns: places.iter().filter_map(at).filter_map(|(chunk, row)| chunk.turns.get(row).copied()).collect(),
            shards: places.iter().filter_map(at).filter_map(|(chunk, row)| chunk.shards.get(row).copied()).collect(),
            rows: interleave_record_batch(&rows, places).map_err(|e| broken(&e))?,
        })
    }

    /// The rows of each shard, in order, with their turns; shards without rows are left out.
    ///
    /// # Errors
    /// Never for chunks of one backfill.
    pub fn by_shard(&self, shards: u32) -> Result<Vec<(u32, Vec<Turn>, RecordBatch)>> {
        if shards == 1 {
            return Ok(vec![(0, self.turns.clone(), self.rows.clone())]);
        }
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); crate::base::number::index(shards)];
        for (row, shard) in self.shards.iter().enumerate() {
            if let Some(rows) = rows.get_mut(crate::base::number::index(*shard)) {
                rows.push(u32_of(row));
            }
        }
        let taken = rows.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty());
        let turns = |rows: &[u32]| rows.iter().filter_map(|row| self.turns.get(crate::base::number::index(*row)).copied()).collect();
        taken
            .map(|(shard, rows)| {
                let own = turns(&rows);
                Ok((u32_of(shard), own, take_record_batch(&self.rows, &UInt32Array::from(rows)).map_err(|e| broken(&e))?))
            })
            .collect()
    }
}

/// The place that a column of numbers gives each row: integers as they are, however large; fractions in an order of their own; none last.
fn places(column: &ArrayRef) -> Result<Vec<i64>> {
    let wrong = |e: ArrowError| Error::new(Kind::Data, "backfill", format!("--ties: {e}"));
    let column = match column.data_type() {
        DataType::Dictionary(_, values) => cast(column, values).map_err(wrong)?,
        _ => Arc::clone(column),
    };
    if column.data_type() == &DataType::UInt64 {
        let numbers = column.as_primitive::<UInt64Type>().iter();
        return Ok(numbers.map(|number| number.map_or(i64::MAX, |number| (number ^ (1 << 63)).cast_signed())).collect());
    }
    if column.data_type().is_integer() {
        let numbers = cast(&column, &DataType::Int64).map_err(wrong)?;
        return Ok(numbers.as_primitive::<Int64Type>().iter().map(|number| number.unwrap_or(i64::MAX)).collect());
    }
    if let DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) =
        column.data_type()
    {
        // All of a column have one scale: their digits are in the order of the numbers.
        let exact = CastOptions { safe: false, ..CastOptions::default() };
        let numbers = cast_with_options(&column, &DataType::Decimal128(38, *scale), &exact).map_err(wrong)?;
        let digits = numbers.as_primitive::<Decimal128Type>().iter();
        let place = |digits: i128| i64::try_from(digits).map_err(|_| too_large());
        return digits.map(|digits| digits.map_or(Ok(i64::MAX), place)).collect();
    }
    let numbers = cast(&column, &DataType::Float64).map_err(wrong)?;
    Ok(numbers.as_primitive::<Float64Type>().iter().map(|number| number.map_or(i64::MAX, rank)).collect())
}

fn too_large() -> Error {
    Error::new(Kind::Data, "backfill", "--ties: a decimal has more digits than 64 bits hold").help("name a column of integers")
}

/// The place that a number in a line gives: only whole ones have one, so that integers of any size and numbers such as 3.0 are in one order.
fn place(text: &[u8]) -> Result<i64> {
    let text = String::from_utf8_lossy(text);
    let whole = text.parse::<f64>().ok().filter(|number| number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0).map(i64_of);
    text.parse::<i64>().ok().or(whole).ok_or_else(|| {
        Error::new(Kind::Data, "backfill", format!("--ties: `{text}` is no integer of 64 bits"))
            .help("in NDJSON files name a field of integers")
    })
}

/// Finds turn and shard of rows, by the code that decodes them when they are served; or takes offset and partition, where there are such columns.
pub struct Sight {
    positions: Option<Positions>,
    decoder: Decoder,
    shards: u32,
    ties: Option<String>,
    /// Whether rows are lines.
    lines: bool,
    /// Time of the last row.
    last: i64,
    checksum: u32,
    events: Events,
    rejected: Rejected,
}

impl Sight {
    /// At the beginning of a file.
    #[must_use]
    pub fn new(schema: &EventSchema, positions: Option<&Positions>, ties: Option<&str>, shards: u32, lines: bool) -> Self {
        let positions = positions.cloned();
        // A column of a table is looked at as it is.
        let fields = ties.iter().filter(|_| lines).map(|name| DataField { name: (*name).to_owned(), kind: FieldKind::Text }).collect();
        let schema = EventSchema { id: None, fields, mark: None, label: None, ..schema.clone() };
        Sight {
            positions,
            decoder: Decoder::new(&schema),
            shards,
            ties: ties.map(str::to_owned),
            lines,
            last: i64::MIN,
            checksum: 0,
            events: Events::new(&schema),
            rejected: Rejected::default(),
        }
    }

    /// Rows of a table, or lines in their column `line`.
    ///
    /// # Errors
    /// A row does not say where it stood in its topic, or stood in a partition beyond the shards.
    pub fn look(&mut self, rows: RecordBatch) -> Result<Chunk> {
        if let Some(positions) = &self.positions {
            let whole = |name: &str| {
                let column = rows.column_by_name(name).and_then(|column| cast(column, &DataType::Int64).ok());
                let column = column.filter(|column| column.null_count() == 0);
                column.map(|column| column.as_primitive::<Int64Type>().values().to_vec()).ok_or_else(|| {
                    Error::new(Kind::Data, "backfill", format!("column `{name}` is not a whole number in every row"))
                        .help("--positions names the columns with partition and offset of each row, in this order")
                })
            };
            let (partitions, offsets) = (whole(&positions.partition)?, whole(&positions.offset)?);
            let shards = partitions.iter().map(|partition| u32::try_from(*partition).ok().filter(|shard| *shard < self.shards));
            let Some(shards) = shards.collect::<Option<Vec<u32>>>() else {
                let text = format!("a row stood in a partition beyond the {} shards", self.shards);
                return Err(Error::new(Kind::Data, "backfill", text).help("give --shards as many as the topic has partitions"));
            };
            for (offset, shard) in offsets.iter().zip(&shards) {
                self.note(&offset.to_le_bytes());
                self.note(&shard.to_le_bytes());
            }
            return Ok(Chunk { turns: offsets.into_iter().map(Turn::at).collect(), shards, rows });
        }
        let input = input_of(&[(0, Offset(0), rows.clone())], self.lines);
        self.events.clear();
        self.rejected.clear();
        self.decoder.decode(&input, &mut self.events, &mut self.rejected)?;
        self.sum(&rows);
        let (mut times, mut shards) = (vec![None; rows.num_rows()], vec![0; rows.num_rows()]);
        let mut ties = match &self.ties {
            None => Vec::new(),
            Some(_) if self.lines => vec![i64::MAX; rows.num_rows()],
            Some(name) => rows.column_by_name(name).map(places).transpose()?.unwrap_or_else(|| vec![i64::MAX; rows.num_rows()]),
        };
        let texts = self.events.columns.first().and_then(Column::texts);
        for (i, (offset, time)) in self.events.offsets.iter().zip(&self.events.times).enumerate() {
            if let Some(row) = usize::try_from(offset.0).ok().filter(|row| *row < times.len()) {
                if let Some(place) = times.get_mut(row) {
                    *place = Some(time.0);
                }
                if let (Some(tie), Some(text)) = (ties.get_mut(row), texts.and_then(|texts| texts.get(i))) {
                    *tie = place(text)?;
                }
                if let Some(place) = shards.get_mut(row) {
                    *place = partition(self.events.keys.bytes_at(i), self.shards);
                }
            }
        }
        for (i, offset) in self.rejected.offsets.iter().enumerate() {
            let key = self.rejected.keys.get(i).unwrap_or_default();
            if let Some(place) = usize::try_from(offset.0).ok().and_then(|row| shards.get_mut(row)) {
                *place = partition(key, self.shards);
            }
        }
        let turns = times.into_iter().enumerate().map(|(row, time)| {
            self.last = time.unwrap_or(self.last);
            Turn { at: self.last, tie: ties.get(row).copied().unwrap_or(0) }
        });
        Ok(Chunk { turns: turns.collect(), shards, rows })
    }
}

impl Sight {
    /// Checksum of what has been seen: lines as they are; of tables places in the topic, or keys and times.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        self.checksum
    }

    fn note(&mut self, bytes: &[u8]) {
        self.checksum = crc32c::crc32c_append(self.checksum, bytes);
    }

    fn sum(&mut self, rows: &RecordBatch) {
        if let Some(lines) = rows.column_by_name(LINE).filter(|_| self.lines) {
            for line in lines.as_any().downcast_ref::<BinaryArray>().into_iter().flatten().flatten() {
                self.checksum = crc32c::crc32c_append(self.checksum, line);
                self.note(b"\n");
            }
            return;
        }
        for (row, time) in self.events.times.iter().enumerate() {
            self.checksum = crc32c::crc32c_append(self.checksum, self.events.keys.bytes_at(row));
            self.checksum = crc32c::crc32c_append(self.checksum, &time.0.to_le_bytes());
        }
    }
}

/// What a lane takes: (shard, offset of the first row, rows).
#[must_use]
pub fn input_of(parts: &[(u32, Offset, RecordBatch)], lines: bool) -> Input {
    let mut input = Input::default();
    input.records.lines = lines;
    for (shard, first, rows) in parts {
        let partition = Partition(shard.cast_signed());
        if !lines {
            input.tables.push(Table { partition, first: *first, rows: rows.clone() });
            continue;
        }
        let column = rows.column_by_name(LINE).and_then(|column| column.as_any().downcast_ref::<BinaryArray>());
        let mut offset = *first;
        for line in column.into_iter().flatten() {
            input.records.push(partition, offset, None, None, line);
            offset = offset.next();
        }
    }
    input
}

/// The schema of lines.
#[must_use]
pub fn line_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(LINE, DataType::Binary, false)]))
}

/// Lines as a table.
///
/// # Errors
/// Never.
pub fn of_lines(lines: &[Vec<u8>]) -> Result<RecordBatch> {
    let array: ArrayRef = Arc::new(BinaryArray::from_iter_values(lines));
    RecordBatch::try_new_with_options(line_schema(), vec![array], &RecordBatchOptions::new()).map_err(|e| broken(&e))
}

/// A fault of the table library, which only a defect can cause.
pub fn broken(error: &ArrowError) -> Error {
    Error::internal("backfill", format!("rows cannot be put together: {error}"))
}
