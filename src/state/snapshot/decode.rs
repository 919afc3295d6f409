//! An Arrow IPC file to rows and held events.

use std::io::Cursor;

use arrow::array::{
    Array, ArrayRef, BinaryArray, FixedSizeListArray, Float32Array, Float64Array, Int64Array, ListArray, PrimitiveArray, RecordBatch,
    StructArray, TimestampMicrosecondArray, UInt8Array, UInt64Array,
};
use arrow::datatypes::ArrowPrimitiveType;
use arrow::ipc::reader::FileReader;

use super::columns::Columns;
use super::manifest::{Header, METADATA};
use crate::base::error::{Error, Kind, Result};
use crate::base::offset::{Offset, Partition};
use crate::base::time::EventTime;
use crate::data::events::{Column, Events};
use crate::data::flags::Flags;

/// Opens a file whose check sum holds, and compares it with what it should be.
///
/// # Errors
/// One sentence: it is no Arrow file, has other columns, or says something else of itself than its manifest does.
pub(super) fn open<'a>(columns: &Columns, header: &Header, bytes: &'a [u8]) -> std::result::Result<FileReader<Cursor<&'a [u8]>>, String> {
    let reader = FileReader::try_new(Cursor::new(bytes), None).map_err(|e| format!("it is not an Arrow file: {e}"))?;
    let schema = reader.schema();
    let text = schema.metadata().get(METADATA).ok_or("its schema has no header")?;
    let found: Header = serde_json::from_str(text).map_err(|e| format!("its header cannot be read: {e}"))?;
    if found != *header {
        return Err("its header is not the one of its manifest".to_owned());
    }
    columns.check(&schema)?;
    Ok(reader)
}

/// The rows of a batch, by column.
pub(super) struct Rows<'a> {
    pub keys: &'a BinaryArray,
    last: &'a TimestampMicrosecondArray,
    events: &'a UInt64Array,
    /// Values and width of each stored tensor.
    tensors: Vec<(&'a [f32], usize)>,
    aggregates: (&'a [f64], usize),
    timers: &'a ListArray,
    held: &'a ListArray,
}

/// What a row says of a key's state.
pub(super) struct Row<'a> {
    pub key: &'a [u8],
    pub last: EventTime,
    pub events: u64,
    pub aggregates: &'a [f64],
}

impl<'a> Rows<'a> {
    /// # Errors
    /// The batch has other columns, which `open` has ruled out.
    pub fn new(columns: &Columns, batch: &'a RecordBatch) -> Result<Self> {
        let mut arrays = batch.columns().iter();
        let mut next = || arrays.next().ok_or_else(shape);
        let (keys, last, events) = (cast(next()?)?, cast(next()?)?, cast(next()?)?);
        let mut tensors = Vec::new();
        for (_, width) in columns.stored() {
            let list: &FixedSizeListArray = cast(next()?)?;
            tensors.push((cast::<Float32Array>(list.values())?.values().as_ref(), width));
        }
        let aggregates: (&[f64], usize) = if columns.aggregates > 0 {
            let list: &FixedSizeListArray = cast(next()?)?;
            (cast::<Float64Array>(list.values())?.values().as_ref(), columns.aggregates)
        } else {
            (&[], 0)
        };
        Ok(Rows { keys, last, events, tensors, aggregates, timers: cast(next()?)?, held: cast(next()?)? })
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// What row `row` says of its key's state, if anything. The floats are appended to `hidden`, which is cleared first.
    pub fn state(&self, row: usize, hidden: &mut Vec<f32>) -> Option<Row<'a>> {
        if self.last.is_null(row) {
            return None;
        }
        hidden.clear();
        for (values, width) in &self.tensors {
            hidden.extend_from_slice(values.get(row * width..(row + 1) * width).unwrap_or_default());
        }
        let (aggregates, width) = self.aggregates;
        Some(Row {
            key: self.keys.value(row),
            last: EventTime(self.last.value(row)),
            events: self.events.value(row),
            aggregates: aggregates.get(row * width..(row + 1) * width).unwrap_or_default(),
        })
    }

    /// The timers of row `row` that are on: which, when it is due, and the offset of the event that it watches.
    pub fn timers(&self, row: usize) -> Result<Vec<(usize, EventTime, Offset)>> {
        if self.timers.is_null(row) {
            return Ok(Vec::new());
        }
        let list = self.timers.value(row);
        let item: &StructArray = cast(&list)?;
        let mut children = item.columns().iter();
        let mut next = || children.next().ok_or_else(shape);
        let (which, due, offsets): (&UInt8Array, &TimestampMicrosecondArray, &Int64Array) =
            (cast(next()?)?, cast(next()?)?, cast(next()?)?);
        Ok((0..item.len()).map(|i| (usize::from(which.value(i)), EventTime(due.value(i)), Offset(offsets.value(i)))).collect())
    }

    /// Whether row `row` says that its key was forgotten, whatever older files say.
    pub fn is_forgotten(&self, row: usize) -> bool {
        self.last.is_null(row) && self.events.is_valid(row)
    }

    /// Whether row `row` says something of its key's state.
    pub fn has_state(&self, row: usize) -> bool {
        self.last.is_valid(row)
    }

    /// Appends the events that are held for row `row`.
    pub fn held(&self, row: usize, partition: Partition, to: &mut Events) -> Result<()> {
        if self.held.is_null(row) {
            return Ok(());
        }
        let list = self.held.value(row);
        let item: &StructArray = cast(&list)?;
        let mut children = item.columns().iter();
        let mut next = || children.next().ok_or_else(shape);
        let (times, offsets): (&TimestampMicrosecondArray, &Int64Array) = (cast(next()?)?, cast(next()?)?);
        let (recorded, ids): (&TimestampMicrosecondArray, &BinaryArray) = (cast(next()?)?, cast(next()?)?);
        let flags: &UInt8Array = cast(next()?)?;
        for event in 0..item.len() {
            to.partitions.push(partition);
            to.times.push(EventTime(times.value(event)));
            to.offsets.push(Offset(offsets.value(event)));
            to.recorded.push(value(recorded, event).map(EventTime));
            to.keys.push(self.keys.value(row));
            to.ids.push_option(ids.is_valid(event).then(|| ids.value(event)));
            to.flags.push(Flags::from_bits(flags.value(event)));
        }
        for (column, child) in to.columns.iter_mut().zip(children) {
            match column {
                Column::Number(values) => values.extend_from_slice(cast::<Float64Array>(child)?.values()),
                Column::Text(values) => cast::<BinaryArray>(child)?.iter().for_each(|text| values.push_option(text)),
            }
        }
        Ok(())
    }
}

/// All events held in a file, in offset order, as they were exported.
pub(super) fn held(columns: &Columns, header: &Header, bytes: &[u8]) -> Result<Events> {
    let mut found = columns.no_events();
    if header.held > 0 {
        for batch in open(columns, header, bytes).map_err(damaged)? {
            let batch = batch.map_err(|e| damaged(e.to_string()))?;
            let rows = Rows::new(columns, &batch)?;
            for row in 0..rows.len() {
                rows.held(row, Partition(header.partition), &mut found)?;
            }
        }
    }
    if u64::try_from(found.len()).ok() != Some(header.held) {
        return Err(damaged(format!("it has {} held events, its header says {}", found.len(), header.held)));
    }
    let mut order: Vec<usize> = (0..found.len()).collect();
    order.sort_by_key(|row| found.offsets.get(*row));
    let mut sorted = columns.no_events();
    order.into_iter().for_each(|row| sorted.push_from(&found, row));
    Ok(sorted)
}

/// What a file with a right check sum has wrong.
pub(super) fn damaged(text: String) -> Error {
    Error::new(Kind::Data, "state", format!("a snapshot cannot be used: {text}"))
        .help("remove it: an older one, or a replay, takes its place")
}

fn value<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, row: usize) -> Option<T::Native> {
    array.is_valid(row).then(|| array.value(row))
}

fn cast<T: Array + 'static>(array: &ArrayRef) -> Result<&T> {
    array.as_any().downcast_ref().ok_or_else(shape)
}

fn shape() -> Error {
    Error::internal("state", "a batch has other columns than its file's schema")
}
