//! Sinks that keep what they are given, for tests: as strict as those that write somewhere.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::json::{RowEncoder, dead_letter};
use super::{DeadLetterSink, ForecastSink, Sink};
use crate::base::error::{Error, Result};
use crate::base::offset::{Offset, Partition};
use crate::data::commit::Commits;
use crate::data::forecasts::{Forecasts, Identity};
use crate::data::layout::Layout;
use crate::data::rejected::Rejected;

/// A row or dead letter that was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kept {
    /// Partition of the record.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
    /// What an NDJSON sink would have written.
    pub json: String,
}

/// What one kind of sink has been given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kind {
    /// Everything written, in order.
    pub written: Vec<Kept>,
    /// How many of `written`, from the first on, have been flushed.
    pub durable: usize,
    /// Sinks that were closed.
    pub closed: usize,
}

/// What all memory sinks that share it have been given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Forecasts.
    pub forecasts: Kind,
    /// Dead letters.
    pub dead_letters: Kind,
}

/// Shared by the sinks of all lanes and the test.
#[derive(Clone, Debug, Default)]
pub struct Store(Arc<Mutex<Collected>>);

impl Store {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What has been collected so far.
    #[must_use]
    pub fn collected(&self) -> Collected {
        self.lock().clone()
    }

    /// A forecast sink that writes here.
    #[must_use]
    pub fn forecasts(&self, layout: &Layout, identity: &Identity) -> MemoryForecasts {
        MemoryForecasts { end: End::new(self), encoder: RowEncoder::new(layout, identity) }
    }

    /// A dead letter sink that writes here.
    #[must_use]
    pub fn dead_letters(&self, origin: &str) -> MemoryDeadLetters {
        MemoryDeadLetters { end: End::new(self), origin: origin.to_owned() }
    }

    fn lock(&self) -> MutexGuard<'_, Collected> {
        // Rows are pushed whole: a panic elsewhere cannot have left half of one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One sink's end of the store. Rows count as durable, and are seen by others, once they are flushed.
#[derive(Debug)]
struct End {
    store: Store,
    pending: Vec<Kept>,
    written: u64,
    durable: u64,
    closed: bool,
}

impl End {
    fn new(store: &Store) -> Self {
        End { store: store.clone(), pending: Vec::new(), written: 0, durable: 0, closed: false }
    }

    fn open(&self) -> Result<()> {
        if self.closed { Err(Error::internal("sink", "used after close").at("memory sink")) } else { Ok(()) }
    }

    fn keep(&mut self, at: Option<(Partition, Offset)>, json: &[u8]) -> Result<()> {
        let (partition, offset) = at.ok_or_else(|| Error::internal("sink", "a row without a position").at("memory sink"))?;
        let json = String::from_utf8(json.to_vec())
            .map_err(|e| Error::internal("sink", "a row is not UTF-8").at("memory sink").caused_by(e.utf8_error()))?;
        self.pending.push(Kept { partition, offset, json });
        self.written += 1;
        Ok(())
    }

    fn flush(&mut self, kind: impl FnOnce(&mut Collected) -> &mut Kind) -> Result<bool> {
        self.open()?;
        let mut collected = self.store.lock();
        let kind = kind(&mut collected);
        kind.written.append(&mut self.pending);
        kind.durable = kind.written.len();
        self.durable = self.written;
        Ok(true)
    }

    fn close(&mut self, kind: impl Fn(&mut Collected) -> &mut Kind) -> Result<()> {
        if !self.closed {
            self.flush(&kind)?;
            self.closed = true;
            kind(&mut self.store.lock()).closed += 1;
        }
        Ok(())
    }
}

fn position(partitions: &[Partition], offsets: &[Offset], row: usize) -> Option<(Partition, Offset)> {
    partitions.get(row).copied().zip(offsets.get(row).copied())
}

/// Keeps forecasts.
#[derive(Debug)]
pub struct MemoryForecasts {
    end: End,
    encoder: RowEncoder,
}

impl ForecastSink for MemoryForecasts {
    fn write(&mut self, forecasts: &Forecasts) -> Result<()> {
        self.end.open()?;
        let mut json = Vec::new();
        for row in 0..forecasts.len() {
            json.clear();
            self.encoder.row(forecasts, row, &mut json);
            self.end.keep(position(&forecasts.partitions, &forecasts.offsets, row), &json)?;
        }
        Ok(())
    }
}

impl Sink for MemoryForecasts {
    fn written(&self) -> u64 {
        self.end.written
    }

    fn durable(&mut self) -> Result<u64> {
        Ok(self.end.durable)
    }

    fn end_epoch(&mut self, _commits: &Commits, _force: bool) -> Result<bool> {
        self.end.flush(|collected| &mut collected.forecasts)
    }

    fn close(&mut self) -> Result<()> {
        self.end.close(|collected| &mut collected.forecasts)
    }
}

/// Keeps dead letters.
#[derive(Debug)]
pub struct MemoryDeadLetters {
    end: End,
    origin: String,
}

impl DeadLetterSink for MemoryDeadLetters {
    fn write(&mut self, rejected: &Rejected) -> Result<()> {
        self.end.open()?;
        let mut json = Vec::new();
        for row in 0..rejected.len() {
            json.clear();
            dead_letter(rejected, row, &self.origin, &mut json);
            self.end.keep(position(&rejected.partitions, &rejected.offsets, row), &json)?;
        }
        Ok(())
    }
}

impl Sink for MemoryDeadLetters {
    fn written(&self) -> u64 {
        self.end.written
    }

    fn durable(&mut self) -> Result<u64> {
        Ok(self.end.durable)
    }

    fn end_epoch(&mut self, _commits: &Commits, _force: bool) -> Result<bool> {
        self.end.flush(|collected| &mut collected.dead_letters)
    }

    fn close(&mut self) -> Result<()> {
        self.end.close(|collected| &mut collected.dead_letters)
    }
}
