//! What a source hands to a lane: raw records (bytes with a position) or a table whose columns are already typed.

use arrow::record_batch::RecordBatch;

use super::text::TextColumn;
use crate::base::offset::{Offset, Partition};
use crate::base::time::EventTime;

/// Raw records of one or more partitions; within a partition in offset order.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// Partition of each record.
    pub partitions: Vec<Partition>,
    /// Offset of each record.
    pub offsets: Vec<Offset>,
    /// When the log took the record in (Kafka's record timestamp), if it noted that.
    pub recorded: Vec<Option<EventTime>>,
    /// The record's own key (not necessarily the event's key field).
    pub keys: TextColumn,
    /// The payload; missing for a tombstone.
    pub payloads: TextColumn,
    /// They are lines of a file: JSON, whatever the records of the pipeline's topic are.
    pub lines: bool,
}

impl Records {
    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Removes all records and keeps the memory.
    pub fn clear(&mut self) {
        self.partitions.clear();
        self.offsets.clear();
        self.recorded.clear();
        self.keys.clear();
        self.payloads.clear();
        self.lines = false;
    }

    /// Adds a record.
    pub fn push(&mut self, partition: Partition, offset: Offset, recorded: Option<EventTime>, key: Option<&[u8]>, payload: Option<&[u8]>) {
        self.partitions.push(partition);
        self.offsets.push(offset);
        self.recorded.push(recorded);
        self.keys.push_option(key);
        self.payloads.push_option(payload);
    }
}

/// Rows of one partition as an Arrow table; row `i` has offset `first + i`.
#[derive(Clone, Debug)]
pub struct Table {
    /// Partition of all rows.
    pub partition: Partition,
    /// Offset of the first row.
    pub first: Offset,
    /// The columns as the file has them.
    pub rows: RecordBatch,
}

/// One poll's worth of input. A poll fills either part.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// Records to be decoded from bytes.
    pub records: Records,
    /// Rows to be decoded by column.
    pub tables: Vec<Table>,
}

impl Input {
    /// Records and rows together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len() + self.tables.iter().map(|table| table.rows.num_rows()).sum::<usize>()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes everything and keeps the memory.
    pub fn clear(&mut self) {
        self.records.clear();
        self.tables.clear();
    }
}
