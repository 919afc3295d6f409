//! When a lane takes snapshots of its partitions, and what it finds of them when it takes a partition over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::counts::Counts;
use super::lane::Lane;
use crate::base::clock;
use crate::base::error::{Error, Result};
use crate::base::offset::{Offset, Partition};
use crate::data::commit::{Commit, Commits, Note};
use crate::state::snapshot::{Boundary, Cutter, Found, Progress, Snapshots, Writer};

/// Rows copied between two batches: a few milliseconds at most.
const ROWS: usize = 8192;

/// Where the snapshots of all lanes are, and who writes them.
pub struct Shelf {
    snapshots: Arc<Snapshots>,
    /// Where states of the same fingerprint may lie too: those of the shadow that this model was, or of the first model that this shadow was.
    also: Option<Snapshots>,
    writer: Writer,
    every: Duration,
    /// How long the last snapshots may take, where they are what a run is made for; it begins without any then.
    making: Option<Duration>,
    /// How long the last snapshots may take, even if a stop may not: a live run is to go on from them.
    patience: Duration,
}

impl Shelf {
    /// Starts the writer.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn new(snapshots: Snapshots, every: Duration) -> Result<Self> {
        let snapshots = Arc::new(snapshots);
        let writer = Writer::start(Arc::clone(&snapshots))?;
        Ok(Shelf { snapshots, also: None, writer, every, making: None, patience: Duration::ZERO })
    }

    /// Looks for states in another place too.
    #[must_use]
    pub fn and(self, also: Option<Snapshots>) -> Self {
        Shelf { also, ..self }
    }

    /// For a run that is made for its snapshots: it begins without any, and the last ones may take as long as this, even if a stop may not.
    #[must_use]
    pub fn making(self, patience: Duration) -> Self {
        Shelf { making: Some(patience), ..self }
    }

    /// For a run whose last snapshots may take as long as this, even if a stop may not.
    #[must_use]
    pub fn patient(self, patience: Duration) -> Self {
        Shelf { patience, ..self }
    }

    /// A shelf whose snapshots are written by the lane itself: for simulations, where nothing may depend on threads.
    #[cfg(test)]
    #[must_use]
    #[allow(dead_code)]
    pub fn inline(snapshots: Arc<Snapshots>, every: Duration) -> Self {
        let writer = Writer::inline(Arc::clone(&snapshots));
        Shelf { snapshots, also: None, writer, every, making: None, patience: Duration::ZERO }
    }
}

/// The newest usable snapshot of a partition that `committed` follows.
///
/// # Errors
/// The place cannot be read.
pub fn newest_below(snapshots: &Snapshots, partition: Partition, committed: &Commit) -> Result<Option<Found>> {
    let mut below = committed.next;
    while let Some(found) = snapshots.newest(partition, below)? {
        let state = Commit { next: found.offset, note: Note::read(&found.note).unwrap_or_default() };
        if committed.follows(&state) {
            return Ok(Some(found));
        }
        if state.next <= Offset(0) {
            break;
        }
        below = Offset(state.next.0.saturating_sub(1));
    }
    Ok(None)
}

/// How the last snapshots are taken.
#[derive(Clone, Copy)]
pub struct Last<'a> {
    /// Only of this partition, if not of all.
    pub only: Option<Partition>,
    /// How long they may take.
    pub within: Duration,
    /// Whether a commit of the partition is known to be stored.
    pub stored: &'a dyn Fn(Partition) -> bool,
    /// Where failures are counted.
    pub counts: &'a Counts,
}

/// One lane's snapshots; without a shelf it takes none.
pub struct Cutters<'a> {
    shelf: Option<&'a Shelf>,
    partitions: BTreeMap<Partition, Cut>,
    /// Partitions whose snapshot was found in the other place: no delta here builds on it.
    lent: BTreeSet<Partition>,
}

struct Cut {
    cutter: Cutter,
    began: Instant,
}

impl<'a> Cutters<'a> {
    /// For a lane without partitions.
    #[must_use]
    pub fn new(shelf: Option<&'a Shelf>) -> Self {
        Cutters { shelf, partitions: BTreeMap::new(), lent: BTreeSet::new() }
    }

    /// The newest usable snapshot of a partition that `committed` follows.
    ///
    /// # Errors
    /// The place cannot be read. What is damaged, or of an attempt that was lost, is only passed over.
    pub fn find(&mut self, partition: Partition, committed: Option<&Commit>) -> Result<Option<Found>> {
        self.lent.remove(&partition);
        let Some((shelf, committed)) = self.shelf.filter(|shelf| shelf.making.is_none()).zip(committed) else { return Ok(None) };
        let own = newest_below(&shelf.snapshots, partition, committed)?;
        let Some(also) = &shelf.also else { return Ok(own) };
        match (own, newest_below(also, partition, committed)?) {
            (Some(own), Some(other)) if own.offset >= other.offset => Ok(Some(own)),
            (own, None) => Ok(own),
            (_, other) => {
                self.lent.insert(partition);
                Ok(other)
            }
        }
    }

    /// Offset of the newest snapshot of a partition that has no committed offset, if there is one at all.
    ///
    /// # Errors
    /// The place cannot be read.
    pub fn left_over(&self, partition: Partition) -> Result<Option<Offset>> {
        match self.shelf.filter(|shelf| shelf.making.is_none()) {
            Some(shelf) => shelf.snapshots.newest_of_any(partition),
            None => Ok(None),
        }
    }

    /// The lane has taken the partition over, with the states of the snapshot at `base`.
    pub fn watch(&mut self, partition: Partition, base: Option<Offset>) {
        if self.shelf.is_some() {
            let base = base.filter(|_| !self.lent.remove(&partition));
            let cut = Cut { cutter: Cutter::new(partition, base), began: clock::tick() };
            self.partitions.insert(partition, cut);
        }
    }

    /// Begins snapshots that are due. One above the committed offset is of no use to a restart, so where the sink is not `prompt` (the commit of what
    /// was just taken in may be a minute away) a partition must stand exactly where it is committed. Nor is there one before the first commit of a partition is
    /// `stored`: a snapshot without a commit is one whose commit was forgotten.
    pub fn begin(&mut self, lane: &mut Lane, committed: &Commits, prompt: bool, stored: &dyn Fn(Partition) -> bool) {
        let Some(shelf) = self.shelf else { return };
        let fingerprint = lane.forecasts.identity.fingerprint.clone();
        for state in lane.partitions_mut() {
            let Some(cut) = self.partitions.get_mut(&state.partition) else { continue };
            let due = cut.began.elapsed() >= shelf.every;
            let Some(commit) = state.boundary(&fingerprint).filter(|_| due && cut.cutter.is_idle()) else { continue };
            let committed = committed.get(state.partition).filter(|_| stored(state.partition));
            if committed.is_some_and(|committed| prompt || committed.follows(&commit)) {
                cut.began = clock::tick();
                let boundary = Boundary { offset: commit.next, note: commit.note.to_string(), held: state.order.export() };
                cut.cutter.begin(&mut state.keys, boundary);
            }
        }
    }

    /// Goes on with what is under way, for a few milliseconds at most.
    pub fn step(&mut self, lane: &mut Lane, counts: &Counts) {
        let Some(shelf) = self.shelf else { return };
        for state in lane.partitions_mut() {
            let Some(cut) = self.partitions.get_mut(&state.partition).filter(|cut| !cut.cutter.is_idle()) else { continue };
            match cut.cutter.step(&mut state.keys, ROWS, &shelf.writer) {
                Progress::Done(written) => {
                    counts.note_snapshot(written.took, written.bytes);
                    tracing::debug!(partition = %written.partition, offset = %written.offset, bytes = written.bytes, "snapshot stored");
                }
                Progress::Failed(error) => {
                    counts.snapshots_failed.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(partition = %state.partition, %error, "a snapshot failed; the next one will be full")
                }
                Progress::Idle | Progress::Copying | Progress::Writing => {}
            }
        }
    }

    /// The partition is another one's: none is taken of it any more.
    pub fn forget(&mut self, partition: Partition) {
        self.partitions.remove(&partition);
    }

    /// Takes a last snapshot of a partition that is let go, or of all, so that whoever takes it over has little to replay. Blocks up to `within`.
    pub fn settle(&mut self, lane: &mut Lane, committed: &Commits, last: &Last<'_>) {
        let Some(shelf) = self.shelf else { return };
        let Last { only, within, stored, counts } = *last;
        let deadline = clock::tick() + within.max(shelf.making.unwrap_or_default()).max(shelf.patience);
        let fingerprint = lane.forecasts.identity.fingerprint.clone();
        for state in lane.partitions_mut() {
            if only.is_some_and(|only| only != state.partition) {
                continue;
            }
            let Some(mut cut) = self.partitions.remove(&state.partition) else { continue };
            let left = || deadline.saturating_duration_since(clock::tick());
            let failed = |error: &Error| {
                counts.snapshots_failed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(partition = %state.partition, %error, "the last snapshot failed; whoever goes on has more to replay");
            };
            if let Progress::Failed(error) = cut.cutter.settle(&mut state.keys, &shelf.writer, left()) {
                failed(&error);
            }
            let committed = committed.get(state.partition).filter(|_| shelf.making.is_some() || stored(state.partition));
            let Some(commit) = state.boundary(&fingerprint).filter(|state| committed.is_some_and(|committed| committed.follows(state)))
            else {
                continue;
            };
            let boundary = Boundary { offset: commit.next, note: commit.note.to_string(), held: state.order.export() };
            if cut.cutter.begin(&mut state.keys, boundary)
                && let Progress::Failed(error) = cut.cutter.settle(&mut state.keys, &shelf.writer, left())
            {
                failed(&error);
            }
        }
    }
}
