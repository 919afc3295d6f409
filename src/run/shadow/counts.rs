//! What a shadow has done so far, over all lanes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::compare::Judged;
use crate::base::metrics::{Histogram, SHORT_TIMES};
use crate::base::number::u64_of_count;
use crate::data::rejected::Rejected;

/// Counts of the shadow; all 0 without one.
#[derive(Debug)]
pub struct ShadowCounts {
    /// Whether there is one.
    pub runs: AtomicU64,
    /// Forecasts of arrived events handed to its sink.
    pub forecasts: AtomicU64,
    /// Overdue forecasts handed to its sink.
    pub overdue: AtomicU64,
    /// Lanes in which it has failed and stands still.
    pub failed: AtomicU64,
    /// Forecasts without a law and without a score: the graph gave something that is none.
    pub without_law: AtomicU64,
    /// Records that it cannot use, though the first model can.
    pub rejected: AtomicU64,
    /// Bytes of its states.
    pub bytes: AtomicU64,
    /// Time that it takes for one batch.
    pub steps: Histogram,
    judged: Mutex<Judged>,
}

impl Default for ShadowCounts {
    fn default() -> Self {
        ShadowCounts {
            runs: AtomicU64::default(),
            forecasts: AtomicU64::default(),
            overdue: AtomicU64::default(),
            failed: AtomicU64::default(),
            without_law: AtomicU64::default(),
            rejected: AtomicU64::default(),
            bytes: AtomicU64::default(),
            steps: Histogram::new(&SHORT_TIMES),
            judged: Mutex::default(),
        }
    }
}

impl ShadowCounts {
    /// The comparison with the first model.
    pub fn judged(&self) -> MutexGuard<'_, Judged> {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another model from here on, or none: what is compared begins anew.
    pub fn clear(&self) {
        *self.judged() = Judged::default();
        self.failed.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
    }

    pub(super) fn note_rows(&self, forecasts: usize, overdue: usize) {
        self.forecasts.fetch_add(u64_of_count(forecasts), Ordering::Relaxed);
        self.overdue.fetch_add(u64_of_count(overdue), Ordering::Relaxed);
    }

    pub(super) fn note_without_law(&self, rows: usize) {
        if rows == 0 {
            return;
        }
        let rows = u64_of_count(rows);
        let before = self.without_law.fetch_add(rows, Ordering::Relaxed);
        // Every doubling is worth a line.
        if before.checked_ilog2() != before.saturating_add(rows).checked_ilog2() {
            tracing::warn!(
                rows = before.saturating_add(rows),
                "the shadow gives numbers that are no law and no score; its forecasts have none there"
            );
        }
    }

    pub(super) fn note_rejected(&self, own: &Rejected, first: &Rejected) {
        let known = |at: (_, _)| first.partitions.iter().zip(&first.offsets).any(|(partition, offset)| (*partition, *offset) == at);
        let alone = own.partitions.iter().zip(&own.offsets).filter(|(partition, offset)| !known((**partition, **offset))).count();
        self.rejected.fetch_add(u64_of_count(alone), Ordering::Relaxed);
    }

    pub(super) fn note_bytes(&self, now: usize, before: usize) {
        self.bytes.fetch_add(u64_of_count(now), Ordering::Relaxed);
        self.bytes.fetch_sub(u64_of_count(before), Ordering::Relaxed);
    }
}
