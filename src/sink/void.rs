//! Sinks that keep nothing: for a run that is made for its states.

use super::{DeadLetterSink, ForecastSink, Sink};
use crate::base::error::Result;
use crate::data::commit::Commits;
use crate::data::forecasts::Forecasts;
use crate::data::rejected::Rejected;

/// Takes everything and forgets it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Void {
    written: u64,
}

impl Void {
    fn add(&mut self, rows: usize) {
        self.written = self.written.saturating_add(u64::try_from(rows).unwrap_or(u64::MAX));
    }
}

impl Sink for Void {
    fn written(&self) -> u64 {
        self.written
    }

    fn durable(&mut self) -> Result<u64> {
        Ok(self.written)
    }

    fn end_epoch(&mut self, _commits: &Commits, _force: bool) -> Result<bool> {
        Ok(true)
    }

    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

impl ForecastSink for Void {
    fn write(&mut self, forecasts: &Forecasts) -> Result<()> {
        self.add(forecasts.len());
        Ok(())
    }
}

impl DeadLetterSink for Void {
    fn write(&mut self, rejected: &Rejected) -> Result<()> {
        self.add(rejected.len());
        Ok(())
    }
}
