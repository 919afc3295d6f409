//! Forecasts and dead letters to Parquet, exactly once: `<path>/partition-P/from=<20 digits>.parquet`.
//!
//! # The protocol
//! A file is about the records of one partition in [from, to): it holds the rows that taking these records in has brought about (with held events: not
//! only rows of these offsets). The files of a partition tile its offsets. Closing the files at an epoch's end is the commit:
//!
//! 1. the rows go to a hidden temporary file in the partition's folder;
//! 2. its footer gets `meantime.from`, `meantime.to` (the committed offset), `meantime.note` (fingerprint, last record, ticks) and
//!    `meantime.format`; it is synced;
//! 3. it gets its name **only if the name is free**, in one step, and the folder is synced.
//!
//! So rows and offset become visible together. A restart reads the newest file's footer and goes on at its `to`; what a dead process left has no name
//! and is removed. The name is the fence: it follows from the newest file alone, so two writers of a partition want the same one. The second stops.
//!
//! **All files of a sink are closed together**, as soon as one is large or old enough and an epoch ends. A partition whose records brought
//! about no rows gets a file without rows then, or it would not be committed.
//!
//! # Dead letters
//! They have their own folder and their own chain of files, only where there are some, each about the records since the one before. They are
//! published before the forecasts' files. After a crash between the two the records are taken in again, and the same dead letters come again, byte for byte,
//! because everything is deterministic. So `begin` reads the offsets in the files that end at or above the committed offset, and drops what is
//! there (a record becomes a dead letter at most once). Offsets below the file's `to` alone would not do: a held event may turn
//! out to be late long after its record was taken in.

pub mod audit;
mod columns;
mod footer;
mod name;
mod rolling;
mod target;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use arrow::datatypes::SchemaRef;

use self::columns::Columns;
use self::name::Name;
use self::rolling::{Pace, Rolling, Tiling};
use self::target::Local;
use super::{DeadLetterSink, ForecastSink, Sink};
use crate::base::error::Result;
use crate::base::offset::{Offset, Partition};
use crate::data::commit::{Commit, Commits};
use crate::data::forecasts::{Forecasts, Identity};
use crate::data::layout::Layout;
use crate::data::rejected::Rejected;

/// Version of the file layout: names, footer entries and columns. Format 1 noted no commit; nothing can go on from it.
pub const FORMAT: u32 = 2;

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

impl Place<'_> {
    fn rolling(&self, tiling: Tiling, schema: SchemaRef) -> Result<Rolling> {
        let pace = Pace { roll_bytes: self.roll_bytes, roll_every: self.roll_every, lane: self.lane };
        Ok(Rolling::new(Box::new(Local::open(self.path)?), pace, tiling, schema))
    }
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

    /// Each partition with its rows.
    fn iter(&self) -> impl Iterator<Item = (Partition, &[usize])> {
        self.0.iter().map(|(partition, rows)| (*partition, rows.as_slice()))
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
        let rolling = place.rolling(Tiling::Whole, columns.schema())?;
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
        for (partition, rows) in self.groups.iter() {
            let batch = self.columns.batch(forecasts, rows)?;
            self.rolling.write(partition, &batch)?;
        }
        self.rolling.bound_memory()
    }
}

impl Sink for ParquetForecasts {
    fn is_prompt(&self) -> bool {
        false
    }

    fn recover(&mut self, partition: Partition) -> Result<Option<Commit>> {
        self.rolling.recover(partition)
    }

    fn begin(&mut self, partition: Partition, from: Offset) -> Result<()> {
        self.rolling.begin(partition, from)
    }

    fn release(&mut self, partition: Partition) -> Result<()> {
        self.rolling.release(partition);
        Ok(())
    }

    fn written(&self) -> u64 {
        self.rolling.written()
    }

    fn durable(&mut self) -> Result<u64> {
        Ok(self.rolling.durable())
    }

    fn due(&self) -> bool {
        self.rolling.due()
    }

    fn end_epoch(&mut self, commits: &Commits, force: bool) -> Result<bool> {
        self.rolling.end_epoch(commits, force)
    }

    fn close(&mut self) -> Result<()> {
        self.rolling.close();
        Ok(())
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
        let rolling = place.rolling(Tiling::WithRows, schema.clone())?;
        Ok(ParquetDeadLetters { rolling, schema, origin: origin.to_owned(), groups: Groups::default() })
    }
}

impl DeadLetterSink for ParquetDeadLetters {
    fn write(&mut self, rejected: &Rejected) -> Result<()> {
        self.groups.fill(&rejected.partitions);
        for (partition, rows) in self.groups.iter() {
            let rows = self.rolling.fresh(partition, rows, &rejected.offsets);
            if !rows.is_empty() {
                let batch = columns::dead_letters(&self.schema, rejected, &rows, &self.origin)?;
                self.rolling.write(partition, &batch)?;
            }
        }
        self.rolling.bound_memory()
    }
}

impl Sink for ParquetDeadLetters {
    fn recover(&mut self, partition: Partition) -> Result<Option<Commit>> {
        self.rolling.recover(partition)
    }

    fn begin(&mut self, partition: Partition, from: Offset) -> Result<()> {
        self.rolling.begin(partition, from)
    }

    fn release(&mut self, partition: Partition) -> Result<()> {
        self.rolling.release(partition);
        Ok(())
    }

    fn written(&self) -> u64 {
        self.rolling.written()
    }

    fn durable(&mut self) -> Result<u64> {
        Ok(self.rolling.durable())
    }

    fn due(&self) -> bool {
        self.rolling.due()
    }

    fn end_epoch(&mut self, commits: &Commits, force: bool) -> Result<bool> {
        self.rolling.end_epoch(commits, force)
    }

    fn close(&mut self) -> Result<()> {
        self.rolling.close();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
