//! What a lane holds of one partition: its order stage, its key states, and how far it has come. A pure function of the records taken in.

use std::collections::VecDeque;

use crate::base::error::{Error, Result};
use crate::base::offset::{Offset, Partition};
use crate::base::time::EventTime;
use crate::data::commit::{Commit, LastRecord, Note, Shadowing, Tick};
use crate::data::input::Records;
use crate::order::Order;
use crate::state::KeyStates;

/// Where a partition starts and with what.
pub struct Recovered {
    /// The partition.
    pub partition: Partition,
    /// First record to be taken in; `states` hold all below.
    pub from: Offset,
    /// First offset whose outputs are emitted; below it is silent replay.
    pub live_from: Offset,
    /// What was noted with the offset up to which is replayed: the record that must be found below it, and recorded ticks.
    pub note: Note,
    /// What was noted with the snapshot that `states` are of: its ticks are in them already, and its last record must be found in the log, unless nobody can
    /// look at it any more (then it is `None` here).
    pub included: Note,
    /// States of a snapshot; `None`: empty.
    pub states: Option<(Order, KeyStates)>,
    /// How many of the last ticks of `note` bring about outputs that have not been emitted yet: none, but in a shadow's own folder.
    pub live_ticks: usize,
}

impl Recovered {
    /// Whether records that the states rest on at `committed` are not there to rebuild them, and no snapshot holds them. `prior`: they rest on events that
    /// were never in the log.
    #[must_use]
    pub fn lacks_history(&self, committed: Option<Offset>, prior: bool) -> bool {
        self.states.is_none() && (prior || self.from > Offset(0) && committed > Some(Offset(0)))
    }

    /// Empty states at the beginning of what there is.
    #[must_use]
    pub fn empty(partition: Partition, live_from: Offset) -> Self {
        let (note, included) = (Note::default(), Note::default());
        Recovered { partition, from: Offset(0), live_from, note, included, states: None, live_ticks: 0 }
    }
}

/// One partition of a lane.
#[derive(Debug)]
pub struct PartitionState {
    pub partition: Partition,
    pub order: Order,
    pub keys: KeyStates,
    /// Latest event time that was applied; for lag only.
    pub latest: Option<EventTime>,
    from: Offset,
    live_from: Offset,
    /// Next offset to be taken in, once there was a record.
    next: Option<Offset>,
    last: Option<LastRecord>,
    /// Records that must be found in the log before anything is emitted, in the order of their offsets.
    expected: VecDeque<Expected>,
    /// Something has been taken in that is not below what was committed.
    moved: bool,
    /// Ticks that are part of the state at `next`.
    ticks: Note,
    /// Recorded ticks that the replay has yet to come to.
    ahead: Vec<Tick>,
    /// How many of them, from the end on, are emitted all the same.
    live_ahead: usize,
}

/// A record that must be there, and who has noted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// The last one below what was committed.
    Committed(LastRecord),
    /// The last one below a snapshot.
    Snapshot(LastRecord),
}

impl Expected {
    fn record(&self) -> &LastRecord {
        let (Expected::Committed(record) | Expected::Snapshot(record)) = self;
        record
    }
}

impl PartitionState {
    pub fn new(recovered: Recovered, empty: (Order, KeyStates)) -> Self {
        let Recovered { partition, from, live_from, note, included, states, live_ticks } = recovered;
        let (order, keys) = states.unwrap_or(empty);
        // Not only those at or above `from`: a commit, and with it a snapshot, may stand above a hole in the log where a later tick is noted below it.
        let ahead: Vec<Tick> = note.ticks.into_iter().filter(|tick| !included.ticks.contains(tick)).collect();
        let included = Note { dropped: included.dropped.max(note.dropped), ..included };
        let committed = note.last.filter(|_| live_from > Offset(0));
        let snapshot = included.last.filter(|last| Some(*last) != committed && last.offset < from).map(Expected::Snapshot);
        // A commit is never below a snapshot that it follows.
        let expected = snapshot.into_iter().chain(committed.map(Expected::Committed)).collect();
        PartitionState {
            partition,
            latest: None,
            order,
            keys,
            from,
            live_from,
            next: None,
            last: committed,
            expected,
            moved: false,
            ticks: included,
            ahead,
            live_ahead: live_ticks,
        }
    }

    /// Whether what the record at `offset` brings about is emitted.
    pub fn is_live(&self, offset: Offset) -> bool {
        offset >= self.live_from
    }

    /// First record that is to be taken in.
    pub fn from(&self) -> Offset {
        self.from
    }

    /// Whether records must be looked at before they are taken in: some are to be passed over, or one has to be recognised.
    pub fn is_picky(&self) -> bool {
        !self.expected.is_empty() || self.next.is_none() || !self.ahead.is_empty()
    }

    /// Compares a record with what the last commit and the snapshot noted. Behind the last committed record there is none below what was committed.
    ///
    /// # Errors
    /// The log has another record there, or none.
    pub fn recognise(&mut self, offset: Offset, key: Option<&[u8]>, payload: Option<&[u8]>) -> Result<()> {
        while let Some(expected) = self.expected.front().copied().filter(|expected| offset >= expected.record().offset) {
            let record = expected.record();
            if offset > record.offset || checksum(key, payload) != record.checksum {
                return Err(self.another(expected, if offset > record.offset { "is not there any more" } else { "is another one now" }));
            }
            self.expected.pop_front();
            if matches!(expected, Expected::Committed(_)) {
                self.advance(self.live_from, None);
            }
        }
        Ok(())
    }

    /// The error for a log that is not the one that something was noted of.
    fn another(&self, expected: Expected, found: &str) -> Error {
        let at = expected.record().offset;
        let (text, help) = match expected {
            Expected::Committed(_) => (
                format!("the record at offset {at}, the last one below what was committed, {found}"),
                "the log was made anew, cut or compacted since; to start over give the pipeline another `source.group`, an empty output and another \
                 `state.snapshots`",
            ),
            Expected::Snapshot(_) => (
                format!("the record at offset {at}, the last one below the snapshot at offset {}, {found}", self.from),
                "the snapshot is of another log of this name: the topic was made anew, cut or compacted since. Remove the snapshots of this topic, or name another \
                 `state.snapshots`: the states are then rebuilt from the topic as it is",
            ),
        };
        Error::config("run", text).at(format!("partition {}", self.partition)).help(help)
    }

    /// Notes that all records below `next` were taken in, of which `last` was the last.
    pub fn advance(&mut self, next: Offset, last: Option<LastRecord>) {
        self.moved |= next > self.live_from;
        self.next = Some(self.next.map_or(next, |before| before.max(next)));
        if last.is_some() {
            self.last = last;
        }
    }

    /// The source has handed out all records below `handed`, and they were taken in. What follows the last of them without being a record (marks of
    /// transactions, rows of aborted ones) is done with it.
    pub fn read_to(&mut self, handed: Offset) {
        let behind = if self.replaying().is_some() { handed >= self.live_from } else { self.next.is_none() && handed > self.live_from };
        if behind && self.expected.is_empty() {
            self.advance(self.live_from, None);
        }
    }

    /// Whether nothing has been taken in but what was committed: what was noted with that still holds.
    pub fn stands_as_committed(&self) -> bool {
        !self.moved
    }

    /// Whether recorded ticks wait for a record that may not come: the replay is over.
    pub fn awaits_ticks(&self) -> Option<Offset> {
        let over = self.expected.is_empty() && self.replaying().is_none() && !self.ahead.is_empty();
        over.then(|| self.next.unwrap_or(self.from).max(self.live_from))
    }

    /// The log has ended: where it stands then, which is not below what was committed (there may be no record between, only marks of
    /// transactions; or the snapshot has them all). `None` where the last committed record was not found, or nothing is there to be released.
    pub fn end(&self) -> Option<Offset> {
        let at = self.next.unwrap_or(self.from).max(self.live_from);
        (self.expected.is_empty() && (self.next.is_some() || self.order.held() > 0 || !self.ahead.is_empty())).then_some(at)
    }

    /// Where a tick would be noted: as `end`, also where only timers wait. `None` while it replays, or a tick would change nothing.
    pub fn tick_at(&mut self, time: EventTime) -> Option<Offset> {
        if !self.expected.is_empty() || !self.ahead.is_empty() || self.replaying().is_some() {
            return None;
        }
        let clock = self.order.clock_at(time);
        let due = self.order.waits_for(time) || self.keys.timers.first().is_some_and(|first| first.due < clock);
        due.then(|| self.next.unwrap_or(self.from).max(self.live_from))
    }

    /// Recorded ticks that come before the record at `offset`, oldest first, and of each whether what it brings about is emitted.
    pub fn ticks_before(&mut self, offset: Offset) -> Vec<(Tick, bool)> {
        if self.ahead.first().is_none_or(|tick| tick.at > offset) {
            return Vec::new();
        }
        let later = self.ahead.split_off(self.ahead.partition_point(|tick| tick.at <= offset));
        let silent = self.ahead.len().saturating_add(later.len()).saturating_sub(self.live_ahead);
        let due = std::mem::replace(&mut self.ahead, later);
        due.iter().for_each(|tick| self.ticks.push(*tick));
        due.into_iter().enumerate().map(|(at, tick)| (tick, at >= silent)).collect()
    }

    /// What a shadow's states rest on, for its snapshots.
    pub fn shadowing(&self) -> Option<&Shadowing> {
        self.ticks.shadow.as_ref()
    }

    /// Records a tick at this place of the log.
    pub fn note_tick(&mut self, tick: Tick) {
        self.moved = true;
        self.ticks.push(tick);
    }

    /// How far it has come, for a commit. `None` before the first record, and while what was committed before is replayed.
    pub fn commit(&self, fingerprint: &str) -> Option<Commit> {
        let mut commit = self.boundary(fingerprint)?;
        // What was committed stays committed, also where the replay stands at the end of the log, before the tick.
        self.ahead.iter().for_each(|tick| commit.note.push(*tick));
        Some(commit)
    }

    /// As `commit`, of a shadow's own rows: ticks that are ahead and to be emitted are not among what they have brought about.
    pub fn own_commit(&self, fingerprint: &str) -> Option<Commit> {
        let mut commit = self.boundary(fingerprint)?;
        let said = self.ahead.len().saturating_sub(self.live_ahead);
        self.ahead.iter().take(said).for_each(|tick| commit.note.push(*tick));
        Some(commit)
    }

    /// What the states hold, for a snapshot: as `commit`, but only with the ticks that were applied.
    pub fn boundary(&self, fingerprint: &str) -> Option<Commit> {
        let next = self.next.filter(|next| *next >= self.live_from)?;
        Some(Commit { next, note: Note { fingerprint: fingerprint.to_owned(), last: self.last, ..self.ticks.clone() } })
    }

    /// Records still to be replayed, and whether there are any.
    pub fn replaying(&self) -> Option<(Offset, Offset)> {
        let next = self.next.unwrap_or(self.from);
        (next < self.live_from).then_some((next, self.live_from))
    }
}

/// What tells records apart.
pub fn checksum(key: Option<&[u8]>, payload: Option<&[u8]>) -> u32 {
    [key, payload].into_iter().fold(0, |sum, part| {
        // A missing part is not an empty one.
        let sum = crc32c::crc32c_append(sum, &[u8::from(part.is_some())]);
        crc32c::crc32c_append(sum, part.unwrap_or_default())
    })
}

/// The record at `row`, as a commit notes it.
pub fn last_record(records: &Records, row: usize) -> Option<LastRecord> {
    let offset = *records.offsets.get(row)?;
    Some(LastRecord { offset, checksum: checksum(records.keys.get(row), records.payloads.get(row)) })
}
