//! Forecasts and dead letters to Parquet, exactly once: `<path>/partition-P/from=<20 digits>.parquet`, or forecasts by date.
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
//! In an object store step 1 writes a nameless file of this machine, and step 3 is one conditional request that carries it whole.
//!
//! So rows and offset become visible together. A restart reads the newest file's footer and goes on at its `to`; what a dead process left has no name
//! and is removed. The name is the fence: it follows from the newest file alone, so two writers of a partition want the same one. The second stops.
//!
//! **All files of a sink are closed together**, as soon as one is large or old enough and an epoch ends. A partition whose records brought
//! about no rows gets a file without rows then, or it would not be committed.
//!
//! # By date
//! Engines leave unread what they need not read if the folders say so: `<path>/event_date=2026-11-25/`. The rows of an epoch may fall on several dates
//! then, and its commit is a file of its own, `_commits/partition-P/from=<20 digits>.json`: see `ledger`. What is said above of the names and footers
//! of files holds for the commits.
//!
//! The folder is a function of a row, not of an epoch. Ending an epoch wherever the date changes, so that each has one file whose name is the fence, would do for
//! history in order, but not for what comes a little out of order around midnight, clamped late events, or rows in the order of their offsets:
//! these change the date at every other row.
//!
//! # Dead letters
//! They have their own folder and their own chain of files, only where there are some, each about the records since the one before. They are
//! published before the forecasts' files. After a crash between the two the records are taken in again, and the same dead letters come again, byte for byte,
//! because everything is deterministic. So `begin` reads the offsets in the files that end at or above the committed offset, and drops what is
//! there (a record becomes a dead letter at most once). Offsets below the file's `to` alone would not do: a held event may turn
//! out to be late long after its record was taken in.

pub mod audit;
mod checkpoint;
mod columns;
mod day;
mod delta;
mod footer;
mod ledger;
mod local;
mod name;
mod open;
mod rolling;
pub mod rows;
mod scribe;
mod spread;
mod store;
mod target;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;

use self::columns::Columns;
use self::day::Day;
use self::delta::Delta;
use self::ledger::{COMMITS, Ledger};
use self::name::Name;
use self::rolling::{Pace, Rolling, Tiling};
use self::target::Target;
use super::{DeadLetterSink, Folders, ForecastSink, Sink};
use crate::base::error::{Error, Result};
use crate::base::offset::{Offset, Partition};
use crate::data::commit::{Commit, Commits};
use crate::data::forecasts::{Forecasts, Identity};
use crate::data::layout::Layout;
use crate::data::rejected::Rejected;
use crate::link::objects::{Folder, Objects, Place};

/// Version of the file layout: names, footer entries and columns. Format 1 noted no commit; nothing can go on from it.
pub const FORMAT: u32 = 2;

/// Where files go and when they are rolled.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// The folder or bucket.
    pub place: &'a Place,
    /// Files are rolled when one has about this many bytes.
    pub roll_bytes: u64,
    /// Files are rolled when one has been open for this long.
    pub roll_every: Duration,
    /// Lane that writes; several may write to one folder, each its own partitions.
    pub lane: usize,
    /// Name of the pipeline, if the files are to be noted in a Delta log.
    pub delta: Option<&'a str>,
    /// Which folders the files of forecasts are in.
    pub folders: Folders,
}

impl Opening<'_> {
    fn pace(&self) -> Pace {
        Pace { roll_bytes: self.roll_bytes, roll_every: self.roll_every, lane: self.lane }
    }
}

/// Whether a column would be called as the one that engines make of the names of folders by date. Several of them do not tell capitals from small
/// letters.
#[must_use]
pub fn is_date_column(name: &str) -> bool {
    name.eq_ignore_ascii_case(day::COLUMN)
}

/// Rows of each partition, and date where files are by date, reused from batch to batch.
#[derive(Default)]
struct Groups(BTreeMap<(Partition, Option<Day>), Vec<usize>>);

impl Groups {
    fn fill(&mut self, partitions: &[Partition], day: impl Fn(usize) -> Option<Day>) {
        self.0.values_mut().for_each(Vec::clear);
        for (row, partition) in partitions.iter().enumerate() {
            self.0.entry((*partition, day(row))).or_default().push(row);
        }
        self.0.retain(|_, rows| !rows.is_empty());
    }

    /// Each partition and date with its rows.
    fn iter(&self) -> impl Iterator<Item = (Partition, Option<Day>, &[usize])> {
        self.0.iter().map(|((partition, day), rows)| (*partition, *day, rows.as_slice()))
    }
}

/// Forecasts as Parquet files.
pub struct ParquetForecasts {
    rolling: Rolling,
    columns: Columns,
    by_date: bool,
    groups: Groups,
}

impl ParquetForecasts {
    /// Makes the folder, or the client of the bucket.
    ///
    /// # Errors
    /// The folder cannot be made; the bucket's settings are not complete.
    pub fn open(opening: Opening<'_>, layout: &Layout, identity: &Identity) -> Result<Self> {
        let by_date = opening.folders == Folders::Date;
        let within = if by_date { COMMITS } else { "" };
        let mut sink = Self::over(target::open(opening.place, within)?, opening.pace(), layout, identity);
        if by_date {
            if let Some(field) = sink.schema().fields().iter().find(|field| is_date_column(field.name())) {
                let text = format!("a field is called `{}`, and engines make a column of this name of the folders' names", field.name());
                return Err(Error::config("sink", text).at(opening.place.to_string()).help("give the field another name: [sink] fields"));
            }
            let objects: Arc<dyn Objects> = match opening.place.folder() {
                // Only what is there is moved in it.
                Some(folder) => Arc::new(Folder::as_it_is(folder)),
                None => opening.place.open()?,
            };
            sink = sink.by_date(objects);
        }
        if let Some(pipeline) = opening.delta {
            let delta = Delta::open(opening.place.open()?, pipeline, &sink.schema(), by_date)?;
            sink.rolling = sink.rolling.with_delta(Some(delta));
        }
        Ok(sink)
    }

    fn over(target: Box<dyn Target>, pace: Pace, layout: &Layout, identity: &Identity) -> Self {
        let columns = Columns::new(layout, identity);
        let rolling = Rolling::new(target, pace, Tiling::Whole, columns.schema()).of(&identity.pipeline);
        ParquetForecasts { rolling, columns, by_date: false, groups: Groups::default() }
    }

    /// The same in folders by date of the place `objects`, in whose folder of commits the target's partitions are.
    fn by_date(self, objects: Arc<dyn Objects>) -> Self {
        ParquetForecasts { rolling: self.rolling.by_date(Ledger::over(objects)), by_date: true, ..self }
    }

    /// The columns of the files.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.columns.schema()
    }
}

impl ForecastSink for ParquetForecasts {
    fn write(&mut self, forecasts: &Forecasts) -> Result<()> {
        let by_date = self.by_date;
        let day = |row: usize| forecasts.event_times.get(row).filter(|_| by_date).map(|time| Day::of(*time));
        self.groups.fill(&forecasts.partitions, day);
        for (partition, day, rows) in self.groups.iter() {
            let batch = self.columns.batch(forecasts, rows)?;
            self.rolling.write(partition, day, batch)?;
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
    /// Makes the folder, or the client of the bucket.
    ///
    /// # Errors
    /// As of forecasts.
    pub fn open(opening: Opening<'_>, origin: &str) -> Result<Self> {
        Ok(Self::over(target::open(opening.place, "")?, opening.pace(), origin))
    }

    fn over(target: Box<dyn Target>, pace: Pace, origin: &str) -> Self {
        let schema = columns::dead_letter_schema();
        let rolling = Rolling::new(target, pace, Tiling::WithRows, schema.clone());
        ParquetDeadLetters { rolling, schema, origin: origin.to_owned(), groups: Groups::default() }
    }
}

impl DeadLetterSink for ParquetDeadLetters {
    fn write(&mut self, rejected: &Rejected) -> Result<()> {
        self.groups.fill(&rejected.partitions, |_| None);
        for (partition, _, rows) in self.groups.iter() {
            let rows = self.rolling.fresh(partition, rows, &rejected.offsets);
            if !rows.is_empty() {
                let batch = columns::dead_letters(&self.schema, rejected, &rows, &self.origin)?;
                self.rolling.write(partition, None, batch)?;
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

/// A sink of forecasts by date over an open store.
#[cfg(test)]
pub fn by_date_over_store(
    objects: &Arc<dyn Objects>,
    (roll_bytes, roll_every): (u64, Duration),
    layout: &Layout,
    identity: &Identity,
) -> ParquetForecasts {
    let target = Box::new(store::Store::over(Arc::clone(objects)).within(COMMITS));
    ParquetForecasts::over(target, Pace { roll_bytes, roll_every, lane: 0 }, layout, identity).by_date(Arc::clone(objects))
}

/// Both sinks over an open store.
#[cfg(test)]
pub fn over_store(
    objects: &std::sync::Arc<dyn crate::link::objects::Objects>,
    (roll_bytes, roll_every): (u64, Duration),
    layout: &Layout,
    identity: &Identity,
) -> (ParquetForecasts, ParquetDeadLetters) {
    let pace = Pace { roll_bytes, roll_every, lane: 0 };
    let target = || Box::new(store::Store::over(std::sync::Arc::clone(objects)));
    (ParquetForecasts::over(target(), pace, layout, identity), ParquetDeadLetters::over(target(), pace, "t"))
}

#[cfg(test)]
mod tests;
