//! Parquet and NDJSON files, read once from beginning to end as partition 0.
//!
//! A record's offset is its number over all files in order: rows of a Parquet file, lines of an NDJSON file. Blank lines are skipped but counted,
//! so that line numbers and offsets of the first file agree (offset = line - 1). All records go to lane 0; there is nothing to share out.
//! When a log took a record in is not known of a file, so `recorded` is `None`.

mod lines;
mod nested;
mod rows;

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

pub use self::lines::Lines;
pub use self::rows::Rows;

use super::start::ended;
use super::{Assignment, Feed, FileSettings, Handed, Opening, Polled};
use crate::base::error::{Error, Result};
use crate::base::limits::MAX_BATCH_BYTES;
use crate::base::offset::{Offset, Partition};
use crate::data::commit::Commits;
use crate::data::input::{Input, Table};
use crate::link::file::Location;

/// What a file's name says it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `.parquet`, `.pq`.
    Parquet,
    /// `.ndjson`, `.jsonl`, `.json`: one JSON object a line; also compressed, `.gz` or `.zst`.
    Ndjson,
}

impl Kind {
    /// The kind of a file, by the ending of its name.
    ///
    /// # Errors
    /// The ending is none of those above.
    pub fn of(location: &Location) -> Result<Kind> {
        let path = location.name();
        let ending_of = |path: &Path| path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        let ending = match ending_of(path).as_deref() {
            Some("gz" | "zst") => {
                path.file_stem().and_then(|stem| ending_of(Path::new(stem))).filter(|inner| !matches!(inner.as_str(), "parquet" | "pq"))
            }
            _ => ending_of(path),
        };
        match ending.as_deref() {
            Some("parquet" | "pq") => Ok(Kind::Parquet),
            Some("ndjson" | "jsonl" | "json") => Ok(Kind::Ndjson),
            _ => Err(Error::config("source", "the ending of the name does not say what the file holds")
                .at(location.to_string())
                .help("name it .parquet, .pq, .ndjson, .jsonl or .json; the last three may be compressed, .gz or .zst")),
        }
    }
}

enum Reading {
    Rows(Rows),
    Lines(Lines),
}

/// The files as lane 0 sees them.
pub struct FileFeed {
    files: VecDeque<(Location, Kind)>,
    /// Fields to read of Parquet files; empty for all.
    fields: Vec<String>,
    reading: Option<Reading>,
    announced: bool,
    next: Offset,
    /// Rows not yet handed out, if all files are Parquet.
    backlog: Option<u64>,
    line: Vec<u8>,
    /// The first file's name, for errors.
    place: String,
    /// First record whose forecasts are emitted: the sink has all below.
    live_from: Offset,
}

impl FileFeed {
    /// Checks every file: its name, that it can be opened and, for Parquet, its footer.
    ///
    /// # Errors
    /// No file at all, a name with an unknown ending, or a file that is missing, is a folder or is not Parquet though its name says so.
    pub fn open(settings: &FileSettings, opening: &Opening) -> Result<Self> {
        if settings.paths.is_empty() {
            return Err(Error::config("source", "no files to read").help("name at least one file; a pattern must match at least one"));
        }
        let mut backlog = Some(0_u64);
        let mut files = VecDeque::new();
        for path in &settings.paths {
            let kind = Kind::of(path)?;
            let rows = match kind {
                Kind::Parquet => Some(rows::count(path)?),
                Kind::Ndjson => path.bytes().map(|_| None)?,
            };
            backlog = backlog.zip(rows).map(|(sum, rows)| sum.saturating_add(rows));
            files.push_back((path.clone(), kind));
        }
        let fields = opening.fields.clone();
        let place = settings.paths.first().map(Location::to_string).unwrap_or_default();
        Ok(FileFeed {
            files,
            fields,
            reading: None,
            announced: false,
            next: Offset(0),
            backlog,
            line: Vec::new(),
            place,
            live_from: Offset(0),
        })
    }

    /// Hands on one slice of rows; false at the end of the file.
    fn take_rows(&mut self, max: usize, input: &mut Input) -> Result<bool> {
        let Some(Reading::Rows(rows)) = &mut self.reading else { return Ok(false) };
        let Some(slice) = rows.next(max)? else { return Ok(false) };
        let taken = slice.num_rows();
        input.tables.push(Table { partition: Partition(0), first: self.next, rows: slice });
        self.next = Offset(self.next.0.saturating_add(crate::base::number::i64_of_count(taken)));
        self.backlog = self.backlog.map(|left| left.saturating_sub(u64::try_from(taken).unwrap_or(u64::MAX)));
        Ok(true)
    }

    /// Hands on lines until there are `max` or enough bytes; false at the end of the file.
    fn take_lines(&mut self, max: usize, input: &mut Input) -> Result<bool> {
        let Some(Reading::Lines(lines)) = &mut self.reading else { return Ok(false) };
        while input.records.len() < max && input.records.payloads.byte_len() < MAX_BATCH_BYTES {
            if !lines.next(&mut self.line)? {
                return Ok(false);
            }
            if !self.line.iter().all(u8::is_ascii_whitespace) {
                input.records.lines = true;
                input.records.push(Partition(0), self.next, None, None, Some(&self.line));
            }
            self.next = self.next.next();
        }
        Ok(true)
    }
}

impl Feed for FileFeed {
    /// Hands on rows or lines of one file, never of two kinds at once.
    fn poll(&mut self, max: usize, _wait: Duration, input: &mut Input) -> Result<Polled> {
        if !self.announced {
            self.announced = true;
            return Ok(Polled::Assigned(Box::new(Assignment::whole(Partition(0), &self.place))));
        }
        if max == 0 {
            return Ok(Polled::Idle);
        }
        while input.is_empty() {
            let more = match &self.reading {
                Some(Reading::Rows(_)) => self.take_rows(max, input)?,
                Some(Reading::Lines(_)) => self.take_lines(max, input)?,
                None => match self.files.pop_front() {
                    None => {
                        ended("the files end", self.next, self.live_from, &self.place)?;
                        return Ok(Polled::Ended);
                    }
                    Some((path, kind)) => {
                        self.reading = Some(match kind {
                            Kind::Parquet => Reading::Rows(Rows::open(&path, &self.fields)?),
                            Kind::Ndjson => Reading::Lines(Lines::open(&path)?),
                        });
                        true
                    }
                },
            };
            if !more {
                self.reading = None;
            }
        }
        Ok(Polled::Records)
    }

    /// Reads on from the beginning: a file's rows are cheap to pass over, and the lane leaves out what it has.
    fn start(&mut self, _partition: Partition, _read_from: Offset, live_from: Offset) -> Result<()> {
        self.live_from = live_from;
        Ok(())
    }

    /// Does nothing: files keep no positions. Where the sink keeps them, a run goes on there.
    fn commit(&mut self, _commits: &Commits) -> Result<()> {
        Ok(())
    }

    fn released(&mut self, _partition: Partition) {}

    fn backlog(&self) -> Option<u64> {
        self.backlog
    }

    fn handed(&self, note: &mut dyn FnMut(Handed)) {
        let end = self.backlog.map(|left| Offset(self.next.0.saturating_add_unsigned(left)));
        note(Handed { partition: Partition(0), next: self.next, end });
    }

    fn close(&mut self) -> Result<()> {
        self.reading = None;
        self.files.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
