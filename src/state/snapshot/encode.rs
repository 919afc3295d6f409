//! Copied rows and held events to an Arrow IPC file.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, FixedSizeListArray, Float32Array, Float64Array, Int64Array, ListArray, RecordBatch, StructArray,
    TimestampMicrosecondArray, UInt8Array, UInt64Array, new_null_array,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::FileWriter;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::columns::{Columns, list_of, timer_fields};
use super::manifest::Header;
use crate::base::error::{Error, Result};
use crate::base::number::{index, u32_of};
use crate::base::offset::Offset;
use crate::base::time::EventTime;
use crate::data::events::{Column, Events};
use crate::data::text::TextColumn;
use crate::state::changes::{PAGE_ROWS, Page};

/// A finished file.
pub(super) struct Encoded {
    pub bytes: Vec<u8>,
    pub rows: u64,
}

/// A file that is being written.
pub(super) struct File {
    writer: FileWriter<Vec<u8>>,
    schema: SchemaRef,
    rows: usize,
}

impl File {
    /// An empty file. `size` is about how long it will become.
    pub fn begin(columns: &Columns, header: &Header, size: usize) -> Result<Self> {
        let schema = columns.schema(header)?;
        let writer = FileWriter::try_new(Vec::with_capacity(size), &schema).map_err(arrow)?;
        Ok(File { writer, schema, rows: 0 })
    }

    /// Appends rows.
    pub fn write(&mut self, columns: Vec<ArrayRef>) -> Result<()> {
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(arrow)?;
        self.rows += batch.num_rows();
        self.writer.write(&batch).map_err(arrow)
    }

    /// Appends the held events of keys that have no other row.
    pub fn write_rest(&mut self, columns: &Columns, mut held: Groups<'_>) -> Result<()> {
        for page in held.rest() {
            let arrays = arrays(columns, page, Says::Held, &mut held)?;
            self.write(arrays)?;
        }
        Ok(())
    }

    /// Ends the file.
    pub fn end(mut self) -> Result<Encoded> {
        self.writer.finish().map_err(arrow)?;
        let bytes = self.writer.into_inner().map_err(arrow)?;
        Ok(Encoded { bytes, rows: u64::try_from(self.rows).unwrap_or(u64::MAX) })
    }
}

/// A whole file. The pages are dropped as they are written: a cut is large.
pub(super) fn encode(columns: &Columns, header: &Header, pages: Vec<Page>, held: &Events) -> Result<Encoded> {
    let size: usize = pages.iter().map(|page| page.keys.len() + page.len() * (64 + columns.hidden() * 4 + columns.aggregates * 8)).sum();
    let mut file = File::begin(columns, header, size + size / 32 + (64 << 10) + held.len() * 128)?;
    let mut held = Groups::new(held);
    for page in pages {
        let says = if page.forgotten { Says::Forgotten } else { Says::State };
        let arrays = arrays(columns, page, says, &mut held)?;
        file.write(arrays)?;
    }
    file.write_rest(columns, held)?;
    file.end()
}

/// Held events by key.
pub(super) struct Groups<'a> {
    events: &'a Events,
    rows: HashMap<&'a [u8], Vec<u32>, FixedState>,
}

impl<'a> Groups<'a> {
    pub fn new(events: &'a Events) -> Self {
        let mut rows: HashMap<&[u8], Vec<u32>, FixedState> = HashMap::with_hasher(FixedState::with_seed(1));
        for (row, key) in events.keys.iter().enumerate() {
            rows.entry(key.unwrap_or_default()).or_default().push(u32_of(row));
        }
        Groups { events, rows }
    }

    /// The `held` column of rows with these keys; what is given out is taken from the groups.
    pub fn column<'k>(&mut self, columns: &Columns, keys: impl ExactSizeIterator<Item = &'k [u8]>) -> Result<ArrayRef> {
        let item = Arc::new(columns.held_item());
        if self.rows.is_empty() {
            return Ok(new_null_array(&DataType::List(item), keys.len()));
        }
        let (mut order, mut lengths, mut valid) = (Vec::new(), Vec::with_capacity(keys.len()), Vec::with_capacity(keys.len()));
        for key in keys {
            let rows = self.rows.remove(key).unwrap_or_default();
            lengths.push(rows.len());
            valid.push(!rows.is_empty());
            order.extend(rows.into_iter().map(index));
        }
        let DataType::Struct(fields) = item.data_type() else { return Err(Error::internal("state", "a held event is a struct")) };
        let values = StructArray::try_new(fields.clone(), events(self.events, &order), None).map_err(arrow)?;
        let offsets = OffsetBuffer::from_lengths(lengths);
        Ok(Arc::new(ListArray::try_new(item, offsets, Arc::new(values), Some(NullBuffer::from(valid))).map_err(arrow)?))
    }

    /// Pages of the keys that are left, in the order of their first event. They have no state: floats are there to fill the place.
    fn rest(&self) -> Vec<Page> {
        let mut keys: Vec<(u32, &[u8])> = self.rows.iter().filter_map(|(key, rows)| Some((*rows.first()?, *key))).collect();
        keys.sort_unstable();
        let page = |keys: &[(u32, &[u8])]| {
            let mut page = Page { last: vec![0; keys.len()], events: vec![0; keys.len()], ..Page::default() };
            keys.iter().for_each(|(_, key)| page.push_key(key));
            page
        };
        keys.chunks(PAGE_ROWS).map(page).collect()
    }
}

/// The children of held events, rows in this order.
fn events(events: &Events, order: &[usize]) -> Vec<ArrayRef> {
    fn pick<T: Copy + Default>(values: &[T], order: &[usize]) -> Vec<T> {
        order.iter().map(|row| values.get(*row).copied().unwrap_or_default()).collect()
    }
    let times = pick(&events.times, order).into_iter().map(|time| time.0);
    let recorded = pick(&events.recorded, order).into_iter().map(|time: Option<EventTime>| time.map(|time| time.0));
    let mut children: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC")),
        Arc::new(Int64Array::from_iter_values(pick(&events.offsets, order).into_iter().map(|offset: Offset| offset.0))),
        Arc::new(TimestampMicrosecondArray::from_iter(recorded).with_timezone("UTC")),
        texts(&events.ids, order),
        Arc::new(UInt8Array::from_iter_values(pick(&events.flags, order).into_iter().map(|flags| flags.bits()))),
    ];
    for column in &events.columns {
        children.push(match column {
            Column::Number(values) => Arc::new(Float64Array::from(pick(values, order))),
            Column::Text(values) => texts(values, order),
        });
    }
    children
}

fn texts(values: &TextColumn, order: &[usize]) -> ArrayRef {
    Arc::new(BinaryArray::from_iter(order.iter().map(|row| values.get(*row))))
}

/// What the rows of a page say of their keys.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Says {
    /// The key's state, and what is held of it.
    State,
    /// What is held, and that older files are wrong to know a state: their row counts no events.
    Forgotten,
    /// Nothing but what is held.
    Held,
}

/// The columns of a page. Rows without a state have null in its place.
fn arrays(columns: &Columns, mut page: Page, says: Says, held: &mut Groups<'_>) -> Result<Vec<ArrayRef>> {
    let rows = page.len();
    let has_state = says == Says::State;
    let nulls = (!has_state).then(|| NullBuffer::new_null(rows));
    let offsets = OffsetBuffer::new(ScalarBuffer::from_iter(std::iter::once(0).chain(page.ends.iter().copied())));
    let key = BinaryArray::try_new(offsets, Buffer::from_vec(page.keys), None).map_err(arrow)?;
    let held = held.column(columns, (0..rows).map(|row| key.value(row)))?;
    let mut arrays: Vec<ArrayRef> = vec![
        Arc::new(key),
        Arc::new(TimestampMicrosecondArray::new(page.last.into(), nulls.clone()).with_timezone("UTC")),
        Arc::new(UInt64Array::new(page.events.into(), nulls.clone().filter(|_| says == Says::Held))),
    ];
    let fill = |values: Vec<f32>, width: usize| if has_state { values } else { vec![0.0; rows * width] };
    let hidden = columns.hidden();
    let mut at = 0;
    for (_, width) in columns.stored() {
        let values = if width == hidden && has_state {
            // The only tensor: its column is the page as it is.
            std::mem::take(&mut page.hidden)
        } else {
            page.hidden.chunks_exact(hidden).flat_map(|row| row.get(at..at + width).unwrap_or_default()).copied().collect()
        };
        at += width;
        arrays.push(list(Arc::new(Float32Array::from(fill(values, width))), width, nulls.clone())?);
    }
    if columns.aggregates > 0 {
        let values = if has_state { page.aggregates } else { vec![0.0; rows * columns.aggregates] };
        arrays.push(list(Arc::new(Float64Array::from(values)), columns.aggregates, nulls)?);
    }
    arrays.push(timers(rows, &page.timers)?);
    arrays.push(held);
    Ok(arrays)
}

/// The `overdue` column.
fn timers(rows: usize, timers: &[(u32, u8, EventTime, Offset)]) -> Result<ArrayRef> {
    let item = Arc::new(Field::new("item", DataType::Struct(timer_fields()), false));
    if timers.is_empty() {
        return Ok(new_null_array(&DataType::List(item), rows));
    }
    let mut lengths = vec![0; rows];
    for (row, ..) in timers {
        if let Some(length) = lengths.get_mut(index(*row)) {
            *length += 1;
        }
    }
    let valid = NullBuffer::from_iter(lengths.iter().map(|length| *length > 0));
    let children: Vec<ArrayRef> = vec![
        Arc::new(UInt8Array::from_iter_values(timers.iter().map(|timer| timer.1))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(timers.iter().map(|timer| timer.2.0)).with_timezone("UTC")),
        Arc::new(Int64Array::from_iter_values(timers.iter().map(|timer| timer.3.0))),
    ];
    let values = StructArray::try_new(timer_fields(), children, None).map_err(arrow)?;
    Ok(Arc::new(ListArray::try_new(item, OffsetBuffer::from_lengths(lengths), Arc::new(values), Some(valid)).map_err(arrow)?))
}

fn list(values: ArrayRef, width: usize, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
    let DataType::FixedSizeList(item, width) = list_of(values.data_type().clone(), width) else {
        return Err(Error::internal("state", "a tensor is a list"));
    };
    Ok(Arc::new(FixedSizeListArray::try_new(item, width, values, nulls).map_err(arrow)?))
}

/// Arrow refuses what this module builds only if it is built wrongly.
pub(super) fn arrow(error: ArrowError) -> Error {
    Error::internal("state", format!("a snapshot cannot be written: {error}")).caused_by(error)
}
