//! The board: how each assigned partition stands. Lanes write it about once per commit; metrics, health, progress and the end of a stop
//! read it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::base::clock;
use crate::base::metrics::{Histogram, LONG_TIMES};
use crate::base::offset::{Offset, Partition};
use crate::base::time::EventTime;

/// How one partition stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Where reading began: a snapshot's offset, or the first record's. `None` before that is known.
    pub start: Option<Offset>,
    /// First offset whose forecasts are emitted.
    pub live_from: Offset,
    /// All records below it have been taken in; `None` before the first.
    pub next: Option<Offset>,
    /// All records below it are committed in this assignment; `None` before the first commit.
    pub committed: Option<Offset>,
    /// Offset that the partition's log will give next, as last heard.
    pub end: Option<Offset>,
    /// Latest event time taken in.
    pub last_event_time: Option<EventTime>,
    /// Something was to be loaded or replayed.
    restores: bool,
    assigned_at: Instant,
    live_at: Option<Instant>,
}

impl Standing {
    /// Whether states are rebuilt and forecasts are emitted.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.live_at.is_some()
    }

    /// Offsets that are still to be replayed; 0 when live, `None` while it is not known where replay begins.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        if self.is_live() { Some(0) } else { self.next.or(self.start).map(|next| between(next, self.live_from)) }
    }

    /// Offsets between the next one to take in and the end of the log.
    #[must_use]
    pub fn lag(&self) -> Option<u64> {
        Some(between(self.next.or(self.start)?, self.end?))
    }

    /// Offsets that were taken in live and are not committed: they will be read again.
    #[must_use]
    pub fn uncommitted(&self) -> Option<(Offset, Offset)> {
        let next = self.next?;
        let from = self.committed.unwrap_or(self.live_from).max(self.live_from).max(self.start.unwrap_or_default());
        (next > from).then_some((from, next))
    }

    /// Offsets of silent replay: (done, all). Nothing before it is known where it begins, or if there is none.
    fn replay(&self) -> Option<(u64, u64)> {
        let start = self.start?;
        let all = between(start, self.live_from);
        let done = if self.is_live() { all } else { between(start, self.next.unwrap_or(start)).min(all) };
        (all > 0).then_some((done, all))
    }
}

fn between(from: Offset, to: Offset) -> u64 {
    u64::try_from(to.0.saturating_sub(from.0)).unwrap_or(0)
}

/// Silent replay over all partitions that are in it, and those that have become live since it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Offsets replayed.
    pub done: u64,
    /// Offsets to replay in all.
    pub all: u64,
    /// Since the oldest assignment that is still replaying.
    pub elapsed: Duration,
}

impl Replay {
    /// Time left at the rate so far; `None` before anything is done.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        let (done, left) = (float(self.done), float(self.all.saturating_sub(self.done)));
        (done > 0.0).then(|| self.elapsed.mul_f64(left / done))
    }
}

#[allow(clippy::cast_precision_loss)]
fn float(count: u64) -> f64 {
    count as f64
}

#[derive(Debug, Default)]
struct Board {
    ever_assigned: bool,
    /// A lane has failed: the stage is on its way out.
    failed: bool,
    partitions: BTreeMap<Partition, Standing>,
}

/// All partitions that lanes of this process have. What is noted of a partition that is not assigned changes nothing.
#[derive(Debug)]
pub struct Partitions {
    board: Mutex<Board>,
    /// Time from assignment until live, of partitions that had something to replay or to load.
    pub restores: Histogram,
}

impl Default for Partitions {
    fn default() -> Self {
        Partitions { board: Mutex::default(), restores: Histogram::new(&LONG_TIMES) }
    }
}

impl Partitions {
    fn board(&self) -> MutexGuard<'_, Board> {
        // Plain numbers: a panic elsewhere cannot have left them half written.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with(&self, partition: Partition, change: impl FnOnce(&mut Standing)) {
        if let Some(standing) = self.board().partitions.get_mut(&partition) {
            change(standing);
        }
    }

    /// A lane owns the partition from now on. `start` is the first offset that will be read, where that is known (a snapshot's), and
    /// records below `live_from` are replayed silently. It is replaying until `note_live`, or `note_progress` reaches `live_from`; with
    /// nothing to replay it is live at once.
    pub fn note_assigned(&self, partition: Partition, start: Option<Offset>, live_from: Offset) {
        let mut standing = Standing {
            start,
            live_from,
            next: None,
            committed: None,
            end: None,
            last_event_time: None,
            restores: live_from > start.unwrap_or_default(),
            assigned_at: clock::tick(),
            live_at: None,
        };
        if start.is_some_and(|start| start >= live_from) {
            self.live(&mut standing);
        }
        let mut board = self.board();
        board.ever_assigned = true;
        board.partitions.insert(partition, standing);
    }

    /// Recovery has found out where reading begins (behind the snapshot that was loaded, or at the first record) and from where on
    /// forecasts are emitted. With nothing to replay the partition is live at once.
    pub fn note_start(&self, partition: Partition, start: Offset, live_from: Offset) {
        self.with(partition, |standing| {
            (standing.start, standing.live_from) = (Some(start), live_from);
            standing.restores |= live_from > start;
            if start >= live_from {
                self.live(standing);
            }
        });
    }

    /// All records below `next` are taken in, and the latest event time among them is `last_event_time`. Makes the partition live if
    /// that is all that was to be replayed.
    pub fn note_progress(&self, partition: Partition, next: Offset, last_event_time: Option<EventTime>) {
        self.with(partition, |standing| {
            standing.next = Some(next);
            standing.last_event_time = standing.last_event_time.max(last_event_time);
            if next >= standing.live_from {
                self.live(standing);
            }
        });
    }

    /// All records below `next` and what they brought about are durable.
    pub fn note_committed(&self, partition: Partition, next: Offset) {
        self.with(partition, |standing| standing.committed = standing.committed.max(Some(next)));
    }

    /// The partition's log will give `end` next.
    pub fn note_end(&self, partition: Partition, end: Offset) {
        self.with(partition, |standing| standing.end = Some(end));
    }

    /// States are rebuilt: from here on forecasts are emitted.
    pub fn note_live(&self, partition: Partition) {
        self.with(partition, |standing| self.live(standing));
    }

    fn live(&self, standing: &mut Standing) {
        if standing.live_at.is_none() {
            let now = clock::tick();
            standing.live_at = Some(now);
            if standing.restores {
                self.restores.observe_time(now.duration_since(standing.assigned_at));
            }
        }
    }

    /// The lane has let go of the partition.
    pub fn note_released(&self, partition: Partition) {
        self.board().partitions.remove(&partition);
    }

    /// All partitions as they stand.
    #[must_use]
    pub fn standings(&self) -> BTreeMap<Partition, Standing> {
        self.board().partitions.clone()
    }

    /// A lane has failed, and its partitions stand still.
    pub fn note_failed(&self) {
        self.board().failed = true;
    }

    /// Whether a partition was assigned at least once, all that are assigned now are live, and no lane has failed.
    #[must_use]
    pub fn are_live(&self) -> bool {
        let board = self.board();
        !board.failed && board.ever_assigned && board.partitions.values().all(Standing::is_live)
    }

    /// Silent replay, if any partition is in it and it is known where it began.
    #[must_use]
    pub fn replay(&self) -> Option<Replay> {
        let board = self.board();
        let replaying = board.partitions.values().filter(|standing| !standing.is_live() && standing.replay().is_some());
        let since = replaying.map(|standing| standing.assigned_at).min()?;
        let counted = board.partitions.values().filter(|standing| standing.live_at.is_none_or(|live| live >= since));
        let (done, all) = counted.filter_map(Standing::replay).fold((0, 0), |(done, all), (d, a)| (done + d, all + a));
        Some(Replay { done, all, elapsed: clock::tick().duration_since(since) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: Partition = Partition(3);

    fn standing(board: &Partitions) -> Standing {
        board.standings().remove(&P).unwrap()
    }

    #[test]
    fn a_partition_is_replaying_until_its_progress_reaches_where_it_is_live() {
        let board = Partitions::default();
        assert!(!board.are_live(), "before anything was assigned");
        board.note_assigned(P, Some(Offset(10)), Offset(110));
        assert_eq!(standing(&board).remaining(), Some(100));
        board.note_progress(P, Offset(60), Some(EventTime(5)));
        assert_eq!((standing(&board).remaining(), board.are_live()), (Some(50), false));
        let replay = board.replay().unwrap();
        assert_eq!((replay.done, replay.all), (50, 100));
        assert_eq!(board.restores.read().count, 0);
        board.note_progress(P, Offset(110), Some(EventTime(4)));
        assert_eq!((standing(&board).remaining(), board.are_live()), (Some(0), true));
        assert_eq!((standing(&board).last_event_time, board.replay()), (Some(EventTime(5)), None));
        assert_eq!(board.restores.read().count, 1);
        board.note_live(P);
        assert_eq!(board.restores.read().count, 1, "live only once");
    }

    #[test]
    fn nothing_to_replay_is_no_restore() {
        let board = Partitions::default();
        board.note_assigned(P, Some(Offset(7)), Offset(7));
        assert!(board.are_live());
        assert_eq!(board.restores.read().count, 0);
    }

    #[test]
    fn a_snapshot_that_leaves_nothing_to_replay_is_a_restore_all_the_same() {
        let board = Partitions::default();
        board.note_assigned(P, None, Offset(70));
        assert!(!board.are_live(), "while it is loaded");
        assert_eq!(standing(&board).remaining(), None);
        board.note_start(P, Offset(70), Offset(70));
        assert!(board.are_live());
        assert_eq!(board.restores.read().count, 1);
        board.note_assigned(P, None, Offset(0));
        board.note_start(P, Offset(12), Offset(12));
        assert_eq!((board.are_live(), board.restores.read().count), (true, 1), "nothing was committed: nothing to restore");
    }

    #[test]
    fn partitions_that_became_live_during_a_replay_stay_in_its_total() {
        let board = Partitions::default();
        for partition in [1, 2] {
            board.note_assigned(Partition(partition), Some(Offset(0)), Offset(100));
        }
        board.note_live(Partition(1));
        let replay = board.replay().unwrap();
        assert_eq!((replay.done, replay.all), (100, 200));
    }

    #[test]
    fn what_was_taken_in_live_but_not_committed_is_named() {
        let board = Partitions::default();
        board.note_assigned(P, Some(Offset(0)), Offset(50));
        board.note_progress(P, Offset(40), None);
        assert_eq!(standing(&board).uncommitted(), None, "replayed records were committed before");
        board.note_progress(P, Offset(80), None);
        assert_eq!(standing(&board).uncommitted(), Some((Offset(50), Offset(80))));
        board.note_committed(P, Offset(70));
        board.note_committed(P, Offset(60));
        assert_eq!(standing(&board).uncommitted(), Some((Offset(70), Offset(80))));
        board.note_committed(P, Offset(80));
        assert_eq!(standing(&board).uncommitted(), None);
    }

    #[test]
    fn lag_is_to_the_end_of_the_log_and_a_released_partition_has_none() {
        let board = Partitions::default();
        board.note_assigned(P, None, Offset(0));
        board.note_end(P, Offset(90));
        assert_eq!(standing(&board).lag(), None, "it is not known where reading begins");
        board.note_progress(P, Offset(30), None);
        assert_eq!(standing(&board).lag(), Some(60));
        board.note_released(P);
        board.note_progress(P, Offset(31), None);
        assert!(board.standings().is_empty());
    }

    #[test]
    fn the_time_left_follows_from_the_rate_so_far() {
        let replay = Replay { done: 250, all: 1_000, elapsed: Duration::from_secs(10) };
        assert_eq!(replay.left(), Some(Duration::from_secs(30)));
        assert_eq!(Replay { done: 0, ..replay }.left(), None);
    }
}
