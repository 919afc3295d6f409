//! Forecasts and dead letters to Parquet: `<path>/partition-P/from=<first offset, 20 digits>.parquet`.
//!
//! The folder is not called `partition=P`: readers that take `name=value` folders for columns would find `partition` twice.
//!
//! One file a partition is being written at a time, under a hidden name that ends in `.tmp-<pid>-<lane>`; when files are rolled they are closed, synced and
//! renamed, so under a final name there is never half a file. **All files of a sink are rolled together**, as soon as one of them is large
//! or old enough and the lane flushes: only then is everything that was written durable, and only then can positions be committed.
//!
//! `from` is the smallest offset in the file; the footer notes it as `meantime.from`, the largest plus one as `meantime.to`, and the fingerprint. A
//! file of the same name is replaced: it can only come from a run that stopped before it committed, and then everything from that
//! offset on is written again.

mod columns;
mod rolling;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use arrow::datatypes::SchemaRef;

use self::columns::Columns;
use self::rolling::Rolling;
use super::{DeadLetterSink, ForecastSink, Sink};
use crate::base::error::Result;
use crate::base::offset::{Offset, Partition};
use crate::data::commit::Commits;
use crate::data::forecasts::{Forecasts, Identity};
use crate::data::layout::Layout;
use crate::data::rejected::Rejected;

/// Version of the file layout: names, footer entries and columns.
pub const FORMAT: u32 = 1;

/// Where files go and when they are rolled.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The folder.
    pub path: &'a Path,
    /// Files are rolled when one has about this many bytes.
    pub roll_bytes: u64,
    /// Files are rolled when one has been open for this long.
    pub roll_every: Duration,
    /// Lane that writes; several may write to one folder, each its own partitions.
    pub lane: usize,
}

/// Rows of each partition, reused from batch to batch.
#[derive(Default)]
struct Groups(BTreeMap<Partition, Vec<usize>>);

impl Groups {
    fn fill(&mut self, partitions: &[Partition]) {
        self.0.values_mut().for_each(Vec::clear);
        for (row, partition) in partitions.iter().enumerate() {
            self.0.entry(*partition).or_default().push(row);
        }
        self.0.retain(|_, rows| !rows.is_empty());
    }

    /// Each partition with its rows, and the smallest and largest of their offsets.
    fn iter<'a>(&'a self, offsets: &'a [Offset]) -> impl Iterator<Item = (Partition, &'a [usize], (Offset, Offset))> {
        self.0.iter().filter_map(move |(partition, rows)| {
            let of_rows = || rows.iter().filter_map(|row| offsets.get(*row).copied());
            Some((*partition, rows.as_slice(), (of_rows().min()?, of_rows().max()?)))
        })
    }
}

/// Forecasts as Parquet files.
pub struct ParquetForecasts {
    rolling: Rolling,
    columns: Columns,
    groups: Groups,
}

impl ParquetForecasts {
    /// Makes the folder.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(place: Place<'_>, layout: &Layout, identity: &Identity) -> Result<Self> {
        let columns = Columns::new(layout, identity);
        let rolling = Rolling::open(place, columns.schema(), &identity.fingerprint)?;
        Ok(ParquetForecasts { rolling, columns, groups: Groups::default() })
    }

    /// The columns of the files.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.columns.schema()
    }
}

impl ForecastSink for ParquetForecasts {
    fn write(&mut self, forecasts: &Forecasts) -> Result<()> {
        self.groups.fill(&forecasts.partitions);
        for (partition, rows, offsets) in self.groups.iter(&forecasts.offsets) {
            let batch = self.columns.batch(forecasts, rows)?;
            self.rolling.write(partition, offsets, &batch)?;
        }
        self.rolling.bound_memory()
    }
}

impl Sink for ParquetForecasts {
    fn is_prompt(&self) -> bool {
        false
    }

    fn written(&self) -> u64 {
        self.rolling.written()
    }

    fn durable(&mut self) -> Result<u64> {
        Ok(self.rolling.durable())
    }

    fn end_epoch(&mut self, _commits: &Commits, force: bool) -> Result<bool> {
        self.rolling.flush(force)
    }

    fn close(&mut self) -> Result<()> {
        self.rolling.close()
    }
}

/// Dead letters as Parquet files: `topic`, `partition`, `offset`, `reason`, `detail`, `key` and `payload`, the last two as bytes.
pub struct ParquetDeadLetters {
    rolling: Rolling,
    schema: SchemaRef,
    origin: String,
    groups: Groups,
}

impl ParquetDeadLetters {
    /// Makes the folder.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(place: Place<'_>, origin: &str) -> Result<Self> {
        let schema = columns::dead_letter_schema();
        let rolling = Rolling::open(place, schema.clone(), "")?;
        Ok(ParquetDeadLetters { rolling, schema, origin: origin.to_owned(), groups: Groups::default() })
    }
}

impl DeadLetterSink for ParquetDeadLetters {
    fn write(&mut self, rejected: &Rejected) -> Result<()> {
        self.groups.fill(&rejected.partitions);
        for (partition, rows, offsets) in self.groups.iter(&rejected.offsets) {
            let batch = columns::dead_letters(&self.schema, rejected, rows, &self.origin)?;
            self.rolling.write(partition, offsets, &batch)?;
        }
        self.rolling.bound_memory()
    }
}

impl Sink for ParquetDeadLetters {
    fn written(&self) -> u64 {
        self.rolling.written()
    }

    fn durable(&mut self) -> Result<u64> {
        Ok(self.rolling.durable())
    }

    fn end_epoch(&mut self, _commits: &Commits, force: bool) -> Result<bool> {
        self.rolling.flush(force)
    }

    fn close(&mut self) -> Result<()> {
        self.rolling.close()
    }
}

#[cfg(test)]
mod tests;
