//! Sorted runs to one stream in the order (time, tie, file, part of the file, row), in blocks of a fixed number of rows.

use std::path::PathBuf;

use super::chunk::{Chunk, Turn};
use super::reader::{Reader, Reading};
use super::sort::PartReader;
use super::survey::FileFacts;
use crate::base::error::{Error, Result};

/// Rows of a block: what is handed to the lanes at once.
pub const BLOCK: usize = 8192;

/// Where a run's rows are.
#[derive(Clone, Debug)]
pub enum Place {
    /// A file that was in order when it was looked at.
    File(Box<FileFacts>),
    /// A sorted part of one that is not.
    Part(PathBuf),
}

/// Rows that are in order.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its place among rows of the same time: file, then part.
    pub order: (usize, usize),
    /// Its first turn. It is not opened before that is reached.
    pub first: Turn,
    /// Where it is.
    pub place: Place,
}

enum Stream {
    File(Box<Reader>),
    Part(Box<PartReader>),
}

impl Stream {
    /// The next rows, none of which is before `last`: what is not in order cannot be merged.
    fn next(&mut self, last: Turn) -> Result<Option<Chunk>> {
        let next = match self {
            Stream::File(reader) => reader.chunk()?,
            Stream::Part(reader) => reader.chunk()?,
        };
        let in_order = |chunk: &Chunk| chunk.turns.first().is_none_or(|first| *first >= last) && chunk.turns.is_sorted();
        match (next, self) {
            (Some(chunk), Stream::File(reader)) if !in_order(&chunk) => Err(reader.changed("rows that were in order are not any more")),
            (Some(chunk), Stream::Part(_)) if !in_order(&chunk) => Err(Error::internal("backfill", "a sorted part is not in order")),
            (next, _) => Ok(next),
        }
    }
}

/// A run that is open: its current chunk from row `at` on.
struct Open {
    order: (usize, usize),
    stream: Stream,
    chunk: Chunk,
    at: usize,
}

impl Open {
    fn last(&self) -> Turn {
        self.chunk.turns.last().copied().unwrap_or(Turn::LAST)
    }

    /// Rows from `at` on that come before (turn, order) or are it.
    fn until(&self, turn: Turn, order: (usize, usize)) -> usize {
        let rest = self.chunk.turns.get(self.at..).unwrap_or_default();
        rest.partition_point(|own| *own < turn || (*own == turn && self.order <= order))
    }
}

/// The stream.
pub struct Merge {
    reading: Reading,
    /// Runs that are not open yet, the earliest last.
    waiting: Vec<Run>,
    open: Vec<Open>,
    /// Rows that are in order and do not fill a block yet.
    ready: Vec<Chunk>,
    rows: usize,
}

impl Merge {
    /// All runs from their first rows on.
    #[must_use]
    pub fn new(reading: Reading, mut runs: Vec<Run>) -> Self {
        runs.sort_by_key(|run| std::cmp::Reverse((run.first, run.order)));
        Merge { reading, waiting: runs, open: Vec::new(), ready: Vec::new(), rows: 0 }
    }

    /// The next `BLOCK` rows, fewer only at the very end; `None` after it.
    ///
    /// # Errors
    /// A run cannot be read.
    pub fn block(&mut self) -> Result<Option<Chunk>> {
        while self.rows < BLOCK {
            let Some(some) = self.some()? else { break };
            self.rows += some.len();
            self.ready.push(some);
        }
        if self.rows == 0 {
            return Ok(None);
        }
        let mut whole = Vec::new();
        let mut wanted = BLOCK.min(self.rows);
        self.rows -= wanted;
        while wanted > 0 && !self.ready.is_empty() {
            let first = self.ready.remove(0);
            if first.len() <= wanted {
                wanted -= first.len();
                whole.push(first);
            } else {
                whole.push(first.slice(0, wanted));
                self.ready.insert(0, first.slice(wanted, first.len() - wanted));
                wanted = 0;
            }
        }
        Chunk::concat(&whole).map(Some)
    }

    /// Some rows that nothing can come before any more; `None` when all runs have ended.
    fn some(&mut self) -> Result<Option<Chunk>> {
        loop {
            // The run whose chunk ends first bounds what is known: all others go at least as far.
            let bound = self.open.iter().map(|open| (open.last(), open.order)).min();
            let due = self.waiting.last().is_some_and(|run| bound.is_none_or(|(turn, _)| run.first <= turn));
            if !due {
                return match bound {
                    None => Ok(None),
                    Some((turn, order)) => self.take(turn, order).map(Some),
                };
            }
            if let Some(run) = self.waiting.pop() {
                let mut stream = match &run.place {
                    Place::File(file) => Stream::File(Box::new(Reader::again(file, &self.reading)?)),
                    Place::Part(path) => Stream::Part(Box::new(PartReader::open(path)?)),
                };
                if let Some(chunk) = stream.next(run.first)? {
                    self.open.push(Open { order: run.order, stream, chunk, at: 0 });
                }
            }
        }
    }

    /// The rows of all open runs up to (turn, order), which is the last row of one run's chunk.
    fn take(&mut self, turn: Turn, order: (usize, usize)) -> Result<Chunk> {
        let counts: Vec<usize> = self.open.iter().map(|open| open.until(turn, order)).collect();
        let mut giving = self.open.iter().zip(&counts).filter(|(_, count)| **count > 0);
        let taken = match (giving.next(), giving.next()) {
            (Some((only, count)), None) => only.chunk.slice(only.at, *count),
            _ => {
                let mut places: Vec<(Turn, (usize, usize), usize, usize)> = Vec::new();
                for (i, (open, count)) in self.open.iter().zip(&counts).enumerate() {
                    let rows = (open.at..open.at + count).zip(open.chunk.turns.get(open.at..).unwrap_or_default());
                    places.extend(rows.map(|(row, turn)| (*turn, open.order, i, row)));
                }
                places.sort_unstable();
                let places: Vec<(usize, usize)> = places.into_iter().map(|(_, _, run, row)| (run, row)).collect();
                let chunks: Vec<&Chunk> = self.open.iter().map(|open| &open.chunk).collect();
                Chunk::interleave(&chunks, &places)?
            }
        };
        let mut kept = Vec::new();
        for (mut open, count) in std::mem::take(&mut self.open).into_iter().zip(counts) {
            open.at += count;
            if open.at < open.chunk.len() {
                kept.push(open);
            } else if let Some(chunk) = open.stream.next(open.last())? {
                kept.push(Open { chunk, at: 0, ..open });
            }
        }
        self.open = kept;
        Ok(taken)
    }
}
