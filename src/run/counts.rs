//! What has happened so far: the one place where a run's counts and times live. Lanes add to it once per batch or commit; progress,
//! summary, metrics and health read it while they run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::board::Partitions;
use super::pulse::Pulses;
use super::shadow::ShadowCounts;
use super::trust::Trust;
use crate::base::metrics::{Histogram, ROUND_SIZES, SHORT_TIMES, SIZES};
use crate::data::flags::Flags;
use crate::data::rejected::Reason;

/// Counts and times over all lanes.
#[derive(Debug)]
pub struct Counts {
    /// Records taken in, silent replay and bad ones included.
    pub records: AtomicU64,
    /// Forecasts of arrived events handed to the sink.
    pub forecasts: AtomicU64,
    /// Overdue forecasts handed to the sink: no event came by the time that was asked for.
    pub overdue: AtomicU64,
    /// Events replayed silently.
    pub replayed: AtomicU64,
    /// Records that became dead letters, by reason.
    pub dead: [AtomicU64; Reason::ALL.len()],
    /// Keys of all lanes.
    pub keys: AtomicU64,
    /// Keys forgotten to make room for others, in silent replay too.
    pub evicted: AtomicU64,
    /// Events left out because they were before `since`.
    pub before_since: AtomicU64,
    /// Bytes of their states.
    pub bytes: AtomicU64,
    /// Records known to be waiting.
    pub backlog: AtomicU64,
    /// Time of bringing one batch from records to forecasts.
    pub steps: Histogram,
    /// Keys of each round.
    pub rounds: Histogram,
    /// Time of one commit.
    pub commits: Histogram,
    /// Time of writing one snapshot.
    pub snapshots: Histogram,
    /// Bytes of one written snapshot.
    pub snapshot_bytes: Histogram,
    /// Snapshots that could not be stored.
    pub snapshots_failed: AtomicU64,
    /// Partitions taken over without all that their states rest on.
    pub incomplete_starts: AtomicU64,
    /// How each assigned partition stands.
    pub partitions: Partitions,
    /// Signs of life of the lanes.
    pub pulses: Pulses,
    /// Whether the law is still right.
    pub trust: Trust,
    /// Forecasts with each flag, in the order of `Flags::NAMES`.
    pub flagged: [AtomicU64; Flags::NAMES.len()],
    /// Model packages that were taken while running.
    pub models_taken: AtomicU64,
    /// Those that were to be and were refused.
    pub models_refused: AtomicU64,
    /// What the shadow does.
    pub shadow: ShadowCounts,
}

impl Default for Counts {
    fn default() -> Self {
        Counts {
            records: AtomicU64::default(),
            forecasts: AtomicU64::default(),
            overdue: AtomicU64::default(),
            replayed: AtomicU64::default(),
            dead: Default::default(),
            keys: AtomicU64::default(),
            evicted: AtomicU64::default(),
            before_since: AtomicU64::default(),
            bytes: AtomicU64::default(),
            backlog: AtomicU64::default(),
            steps: Histogram::new(&SHORT_TIMES),
            rounds: Histogram::new(&ROUND_SIZES),
            commits: Histogram::new(&SHORT_TIMES),
            snapshots: Histogram::new(&SHORT_TIMES),
            snapshot_bytes: Histogram::new(&SIZES),
            snapshots_failed: AtomicU64::default(),
            incomplete_starts: AtomicU64::default(),
            partitions: Partitions::default(),
            pulses: Pulses::default(),
            flagged: Default::default(),
            trust: Trust::default(),
            models_taken: AtomicU64::default(),
            models_refused: AtomicU64::default(),
            shadow: ShadowCounts::default(),
        }
    }
}

impl Counts {
    /// Dead letters of all reasons.
    #[must_use]
    pub fn dead_letters(&self) -> u64 {
        self.dead.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Dead letters by reason code, those that occurred.
    pub fn dead_by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Reason::ALL
            .iter()
            .zip(&self.dead)
            .map(|(reason, count)| (reason.code(), count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
    }

    /// A snapshot of a partition has been written.
    pub fn note_snapshot(&self, took: Duration, bytes: u64) {
        self.snapshots.observe_time(took);
        self.snapshot_bytes.observe(bytes);
    }
}
