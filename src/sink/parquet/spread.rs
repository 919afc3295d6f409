//! The rows of a partition's epoch by date: files that are written, and rows that wait for one.
//!
//! Mostly rows come about in the order of their dates, so few files are written at once, and a date's file is ended when later dates have come. Rows of
//! more dates than that wait in memory; when they are many, what is open is ended and they get files. So an epoch has one file a date, if its
//! dates come in order, and not many more however they come. What happens depends on the rows alone and on how they are cut into batches: the same
//! epoch gets the same files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;

use arrow::record_batch::RecordBatch;
use parquet::file::metadata::KeyValue;

use super::FORMAT;
use super::day::{COLUMN, Day};
use super::ledger::{self, Entry, Piece};
use super::name::{Name, Slice};
use super::open::{Form, Open};
use super::target::{Draft, Target, Temporary, unavailable, writer};
use crate::base::error::Result;
use crate::base::offset::Partition;

/// Dates whose files are written at once.
const OPEN: usize = 4;
/// Rows that wait before they get files.
const WAITING: usize = 65_536;

/// Where files of an epoch are written.
pub struct Bench<'a> {
    /// The place.
    pub target: &'a dyn Target,
    /// Their columns.
    pub form: &'a Form,
    /// Whose they are.
    pub partition: Partition,
    /// Name of the commit that will be about them.
    pub name: Name,
    /// Lane that writes.
    pub lane: usize,
}

impl Bench<'_> {
    fn draft(&self) -> Result<(File, Draft)> {
        // Several are written at once under one name: each is a writer of its own.
        self.target.draft(self.partition, Temporary::of(self.name, self.lane, writer()))
    }

    /// Commits what is staged. False if there is another commit of this name.
    pub fn commit(&self, entry: &Entry) -> Result<bool> {
        let (mut file, draft) = self.draft()?;
        file.write_all(&entry.bytes()?).map_err(|e| unavailable(&draft.path, e))?;
        self.target.put_new(file, &draft, self.partition, &ledger::file(self.name))
    }

    /// Ends a file of a date and stages it.
    fn end(&self, open: Open, day: Day, part: u32) -> Result<Piece> {
        let note = |key: &str, value: String| KeyValue::new(format!("meantime.{key}"), value);
        let notes = vec![note("format", FORMAT.to_string()), note("from", self.name.from.to_string()), note(COLUMN, day.to_string())];
        let written = open.end(notes)?;
        let slice = Slice { partition: self.partition, name: self.name, part };
        let piece = Piece { day, slice, rows: written.rows, bytes: written.bytes, sha256: written.sha256 };
        self.target.stage(written.file, &written.draft, self.partition, &piece.staged())?;
        Ok(piece)
    }
}

/// The rows of an epoch by date.
#[derive(Default)]
pub struct Spread {
    open: BTreeMap<Day, Open>,
    waiting: BTreeMap<Day, Vec<RecordBatch>>,
    waiting_rows: usize,
    waiting_bytes: usize,
    /// Number of the next file of a date that has one.
    parts: BTreeMap<Day, u32>,
    ended: Vec<Piece>,
    ended_bytes: u64,
}

impl Spread {
    /// Adds rows of a date.
    pub fn write(&mut self, bench: &Bench<'_>, day: Day, batch: RecordBatch) -> Result<()> {
        if !self.open.contains_key(&day) {
            if self.open.len() >= OPEN {
                self.waiting_rows += batch.num_rows();
                self.waiting_bytes += batch.get_array_memory_size();
                self.waiting.entry(day).or_default().push(batch);
                return if self.waiting_rows >= WAITING { self.give_way(bench) } else { Ok(()) };
            }
            self.open.insert(day, Open::create(bench.draft()?, bench.form)?);
        }
        self.open.get_mut(&day).map_or(Ok(()), |open| open.write(batch))
    }

    /// Ends the open files and writes what waits; the files of its last dates stay open.
    fn give_way(&mut self, bench: &Bench<'_>) -> Result<()> {
        self.end_open(bench)?;
        let waiting = std::mem::take(&mut self.waiting);
        (self.waiting_rows, self.waiting_bytes) = (0, 0);
        let ending = waiting.len().saturating_sub(OPEN);
        for (i, (day, batches)) in waiting.into_iter().enumerate() {
            let mut open = Open::create(bench.draft()?, bench.form)?;
            batches.into_iter().try_for_each(|batch| open.write(batch))?;
            self.open.insert(day, open);
            if i < ending {
                self.end_open(bench)?;
            }
        }
        Ok(())
    }

    fn end_open(&mut self, bench: &Bench<'_>) -> Result<()> {
        while let Some((day, open)) = self.open.pop_first() {
            let part = self.parts.entry(day).or_default();
            let piece = bench.end(open, day, *part)?;
            *part += 1;
            self.ended_bytes += piece.bytes;
            self.ended.push(piece);
        }
        Ok(())
    }

    /// Ends and stages all files, and says which there are.
    pub fn end(mut self, bench: &Bench<'_>) -> Result<Vec<Piece>> {
        self.give_way(bench)?;
        self.end_open(bench)?;
        self.ended.sort_unstable_by_key(|piece| (piece.day, piece.slice));
        Ok(self.ended)
    }

    /// Lets go of memory.
    pub fn flush(&mut self, bench: &Bench<'_>) -> Result<()> {
        if self.waiting.is_empty() { self.open.values_mut().try_for_each(Open::flush) } else { self.give_way(bench) }
    }

    /// Bytes that its files have and will have, about.
    pub fn bytes(&self) -> u64 {
        let open: usize = self.open.values().map(Open::bytes).sum();
        self.ended_bytes.saturating_add(u64::try_from(open + self.waiting_bytes).unwrap_or(u64::MAX))
    }

    /// Bytes that it holds in memory.
    pub fn memory(&self) -> usize {
        self.open.values().map(Open::memory).sum::<usize>() + self.waiting_bytes
    }
}

#[cfg(test)]
mod tests;
