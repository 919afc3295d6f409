//! What is noted with a committed offset: what cannot be recomputed from the records, and what proves that the log is still the same.

use std::collections::BTreeMap;
use std::fmt;

use crate::base::limits::MAX_TICKS;
use crate::base::offset::{Offset, Partition};
use crate::base::time::EventTime;

/// Version of the text form; a reader refuses others by taking them for unknown.
const FORMAT: &str = "meantime1";

/// How far a partition has been taken in, as a commit makes it durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// All records below are done.
    pub next: Offset,
    /// The rest, which Kafka keeps as the offset's metadata and a Parquet file in its footer.
    pub note: Note,
}

/// What is noted beside an offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// Hash of what the states depend on, 16 hexadecimal digits; empty if unknown.
    pub fingerprint: String,
    /// The last record below the offset.
    pub last: Option<LastRecord>,
    /// Recorded moments at which processing time moved the watermark of the idle partition, oldest first. As many as there is room for: any
    /// snapshot may turn out to be damaged, and the replay from the one before needs them.
    pub ticks: Vec<Tick>,
    /// Where the newest one stood that there was no room for.
    pub dropped: Option<Offset>,
    /// The second model that was run in shadow up to here, if one was.
    pub shadow: Option<Shadowing>,
}

/// A model that is run in shadow: with a commit, what its states rest on; with a snapshot, what the states in it rest on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadowing {
    /// Fingerprint of its states.
    pub fingerprint: String,
    /// The record from which on it was run, with no key known before.
    pub origin: Offset,
}

/// Identity of a record: a log that was made anew, cut or compacted has another one at this place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastRecord {
    /// Its offset.
    pub offset: Offset,
    /// CRC-32C of its key and payload.
    pub checksum: u32,
}

/// Processing time moved the watermark to `time` after all records below `at`, and before those from it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// First offset that came after it.
    pub at: Offset,
    /// The watermark from then on; `EventTime::MAX` says that the input had ended.
    pub time: EventTime,
}

impl Commit {
    /// A commit with nothing noted.
    #[must_use]
    pub fn at(next: Offset) -> Self {
        Commit { next, note: Note::default() }
    }

    /// The ticks that came after those of `earlier`, where that one is of the same history. Where the last one at a place stands for one of `earlier` there,
    /// it is among them.
    #[must_use]
    pub fn ticks_after(&self, earlier: &Note) -> Vec<Tick> {
        let ticks = self.note.ticks.as_slice();
        let seen = earlier.ticks.iter().rev().find_map(|tick| ticks.iter().rposition(|other| other == tick).map(|at| at + 1));
        let last = earlier.ticks.last().map(|last| last.at);
        let before = seen.unwrap_or_else(|| ticks.partition_point(|tick| last.is_some_and(|last| tick.at < last)));
        ticks.get(before..).unwrap_or_default().to_vec()
    }

    /// Whether the history up to this commit went through the state of `earlier`. A tick is not in the records: one that `earlier` has and this does
    /// not was never committed, and what it released may have come otherwise in the attempt that was.
    #[must_use]
    pub fn follows(&self, earlier: &Commit) -> bool {
        let dropped = self.note.dropped;
        let lacks = |dropped: Offset| {
            let passed = earlier.note.last.is_some_and(|last| last.offset >= dropped);
            !passed && earlier.note.dropped < Some(dropped) && earlier.note.ticks.iter().all(|tick| tick.at < dropped)
        };
        if dropped.is_some_and(lacks) {
            return false;
        }
        let seen = earlier.note.ticks.as_slice();
        let seen = seen.get(seen.partition_point(|tick| Some(tick.at) <= dropped)..).unwrap_or_default();
        let ticks = self.note.ticks.as_slice();
        // The last tick at a place stands for those before it there.
        let rest = ticks.strip_prefix(seen).or_else(|| {
            let (last, before) = seen.split_last()?;
            let rest = ticks.strip_prefix(before)?;
            rest.first().is_some_and(|tick| tick.at == last.at && tick.time >= last.time && tick.time != EventTime::MAX).then_some(rest)
        });
        // In a hole of the log above the last record a tick may have come after the state, or before.
        let last = earlier.note.last.map_or(Offset(earlier.next.0.saturating_sub(1)), |last| last.offset);
        self.next >= earlier.next && rest.is_some_and(|rest| rest.iter().all(|tick| tick.at > last))
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{FORMAT}")?;
        if !self.fingerprint.is_empty() {
            write!(f, " fp={}", self.fingerprint)?;
        }
        if let Some(last) = self.last {
            write!(f, " last={}:{:08x}", last.offset, last.checksum)?;
        }
        if let Some(dropped) = self.dropped {
            write!(f, " dropped={dropped}")?;
        }
        if let Some(shadow) = &self.shadow {
            write!(f, " shadow={}:{}", shadow.fingerprint, shadow.origin)?;
        }
        for (i, tick) in self.ticks.iter().enumerate() {
            write!(f, "{}{}:{}", if i == 0 { " ticks=" } else { "," }, tick.at, tick.time.0)?;
        }
        Ok(())
    }
}

impl Note {
    /// Notes one more tick. Of several at one place the last says it all, but for the end of the input, which is none of time.
    pub fn push(&mut self, tick: Tick) {
        let end = EventTime::MAX;
        match self.ticks.last_mut() {
            Some(last) if last.at == tick.at && last.time != end && tick.time != end => *last = tick,
            _ => self.ticks.push(tick),
        }
        while self.ticks.len() > MAX_TICKS {
            self.dropped = Some(self.ticks.remove(0).at);
        }
        // Those that stood with it at one place are as good as gone.
        self.ticks.retain(|tick| Some(tick.at) > self.dropped);
    }

    /// Reads what `Display` wrote. Anything else, such as another program's metadata, is `None`.
    #[must_use]
    pub fn read(text: &str) -> Option<Note> {
        let mut words = text.split(' ');
        if words.next()? != FORMAT {
            return None;
        }
        let mut note = Note::default();
        for word in words {
            let (name, value) = word.split_once('=')?;
            match name {
                "fp" => value.clone_into(&mut note.fingerprint),
                "last" => {
                    let (offset, checksum) = value.split_once(':')?;
                    let checksum = u32::from_str_radix(checksum, 16).ok()?;
                    note.last = Some(LastRecord { offset: Offset(offset.parse().ok()?), checksum });
                }
                "dropped" => note.dropped = Some(Offset(value.parse().ok()?)),
                "shadow" => {
                    let (fingerprint, origin) = value.split_once(':')?;
                    note.shadow = Some(Shadowing { fingerprint: fingerprint.to_owned(), origin: Offset(origin.parse().ok()?) });
                }
                "ticks" => {
                    for tick in value.split(',') {
                        let (at, time) = tick.split_once(':')?;
                        note.ticks.push(Tick { at: Offset(at.parse().ok()?), time: EventTime(time.parse().ok()?) });
                    }
                }
                // A later version may note more.
                _ => {}
            }
        }
        Some(note)
    }
}

/// How far each partition of a lane has been taken in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commits(BTreeMap<Partition, Commit>);

impl Commits {
    /// No partition.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a partition's commit.
    pub fn insert(&mut self, partition: Partition, commit: Commit) {
        self.0.insert(partition, commit);
    }

    /// A partition's commit.
    #[must_use]
    pub fn get(&self, partition: Partition) -> Option<&Commit> {
        self.0.get(&partition)
    }

    /// Next offset of a partition.
    #[must_use]
    pub fn next(&self, partition: Partition) -> Option<Offset> {
        self.0.get(&partition).map(|commit| commit.next)
    }

    /// A partition's commit, to be changed.
    pub fn get_mut(&mut self, partition: Partition) -> Option<&mut Commit> {
        self.0.get_mut(&partition)
    }

    /// Forgets a partition.
    pub fn remove(&mut self, partition: Partition) {
        self.0.remove(&partition);
    }

    /// Partitions in order with their commits.
    pub fn iter(&self) -> impl Iterator<Item = (Partition, &Commit)> {
        self.0.iter().map(|(partition, commit)| (*partition, commit))
    }

    /// Whether there is no partition.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(Partition, Commit)> for Commits {
    fn from_iter<T: IntoIterator<Item = (Partition, Commit)>>(iter: T) -> Self {
        Commits(iter.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ticks_fit_beside_an_offset_and_a_state_without_a_dropped_one_is_not_followed() {
        let shadow = Some(Shadowing { fingerprint: "0".repeat(16), origin: Offset(9_000_000_000_000_000) });
        let (mut note, mut all) = (Note { fingerprint: "0".repeat(16), shadow, ..Note::default() }, Vec::new());
        let last = |at: i64| Some(LastRecord { offset: Offset(at - 1), checksum: u32::MAX });
        for i in 0..5000_i64 {
            let at = Offset(9_000_000_000_000_000 + 10 * i);
            note.push(Tick { at, time: EventTime(1_700_000_000_000_000 + i) });
            note.push(Tick { at, time: EventTime(1_700_000_000_000_500 + i) });
            note.last = last(at.0);
            all.push(Commit { next: at, note: note.clone() });
            assert!(note.to_string().len() < 4096, "{}", note.to_string().len());
        }
        let newest = all.last().unwrap();
        assert_eq!(newest.note.ticks.len(), MAX_TICKS);
        assert_eq!(newest.note.ticks.last().unwrap().time, EventTime(1_700_000_000_000_500 + 4999));
        for (i, earlier) in all.iter().enumerate() {
            // The state of the tick that was dropped last has all ticks that are not known any more.
            assert_eq!(newest.follows(earlier), i >= 4999 - MAX_TICKS, "{i}");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            fingerprint in "[0-9a-f]{0,16}", last in prop::option::of((0i64..i64::MAX, any::<u32>())),
            ticks in prop::collection::vec((0i64..i64::MAX, any::<i64>()), 0..4), dropped in prop::option::of(0i64..i64::MAX),
            shadow in prop::option::of(("[0-9a-f]{16}", 0i64..i64::MAX))
        ) {
            let last = last.map(|(offset, checksum)| LastRecord { offset: Offset(offset), checksum });
            let dropped = dropped.map(Offset);
            let ticks = ticks.into_iter().map(|(at, time)| Tick { at: Offset(at), time: EventTime(time) }).collect();
            let shadow = shadow.map(|(fingerprint, origin)| Shadowing { fingerprint, origin: Offset(origin) });
            let note = Note { fingerprint, last, ticks, dropped, shadow };
            prop_assert_eq!(Note::read(&note.to_string()), Some(note));
        }

        #[test]
        fn a_commit_follows_those_that_its_history_went_through(
            offsets in prop::collection::btree_set(0i64..100, 1..12), cut in 0usize..12, ticked in prop::collection::vec(any::<bool>(), 12)
        ) {
            let offsets: Vec<i64> = offsets.into_iter().collect();
            let commit = |records: usize, ticks: Vec<Tick>| {
                let last = offsets[..records].last().map(|last| LastRecord { offset: Offset(*last), checksum: 0 });
                Commit { next: Offset(last.map_or(0, |last| last.offset.0 + 1)), note: Note { last, ticks, ..Note::default() } }
            };
            let tick = |record: usize| Tick { at: Offset(offsets[record] + 1), time: EventTime(record as i64) };
            let ticks = |records: usize| (0..records).filter(|record| ticked[*record]).map(tick).collect::<Vec<_>>();
            let cut = cut.min(offsets.len() - 1);
            let (earlier, all) = (commit(cut, ticks(cut)), commit(offsets.len(), ticks(offsets.len())));
            prop_assert!(all.follows(&earlier));
            prop_assert!(!earlier.follows(&all));
            let mut lost = earlier.clone();
            lost.note.ticks.push(Tick { at: earlier.next, time: EventTime::MAX });
            prop_assert!(!all.follows(&lost), "a tick that was never committed");
            let mut without = earlier;
            if without.note.ticks.pop().is_some() && ticked[..cut.saturating_sub(1)].iter().any(|ticked| *ticked) {
                let missed = ticks(cut).last().is_some_and(|tick| without.note.last.is_some_and(|last| tick.at <= last.offset));
                prop_assert_eq!(all.follows(&without), !missed, "a tick that the state has not seen");
            }
        }

        #[test]
        fn text_of_other_programs_is_no_note(text in "\\PC{0,40}") {
            prop_assert!(Note::read(&text).is_none() || text.starts_with(FORMAT));
        }
    }
}
