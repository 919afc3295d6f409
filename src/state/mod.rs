//! Key states: who the keys of a partition are and what is remembered of each; `snapshot` stores them and gets them back.

mod arena;
mod changes;
mod event_before;
mod idle;
mod keys;
pub mod snapshot;
mod timers;

pub use arena::{Chunked, Widths};
pub use event_before::{EventBefore, Step};
pub use keys::KeyTable;
pub use timers::{Fired, Timers, Watched};

use changes::{Copying, Since, SlotSet};
use idle::Idle;

use crate::base::time::{EventTime, Gap};

/// Bytes that a processor fetches at once.
const CACHE_LINE: usize = 64;

/// The `[state]` table, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Most keys one partition may hold. Per partition, because only then is what happens a function of the partition's own records.
    pub max_keys: usize,
    /// What happens when a key more comes.
    pub when_full: WhenFull,
    /// A key that was idle for longer starts anew, as if it had never been seen.
    pub expiry: Option<Gap>,
}

/// What happens when a key comes to a partition that holds `max_keys` keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// The stage stops with an error that says so.
    #[default]
    Stop,
    /// The key that was idle longest is forgotten.
    Evict,
}

/// Where a key's state lies in its partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// What every key has, whatever the model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct KeyMeta {
    /// Time of its last event, as taken.
    pub last: EventTime,
    /// Events so far; 0 for a slot that was just made.
    pub events: u64,
    /// Batch in which the key was last seen, and how often in it: which round its next event belongs to.
    pub batch: u32,
    /// Events of the key in that batch.
    pub round: u32,
}

/// All key states of one partition. Dropping it forgets the partition.
#[derive(Debug)]
pub struct KeyStates {
    /// Key bytes to slots.
    pub keys: KeyTable,
    /// One entry a slot.
    pub metas: Chunked<KeyMeta>,
    /// Recurrent tensors, then the published law, then the event before where reasons need it, per slot: `Widths::hidden` floats.
    pub hidden: Chunked<f32>,
    /// Decaying aggregates of the recipe, per slot: `Widths::aggregates` numbers.
    pub aggregates: Chunked<f64>,
    /// When each key will be overdue. Those of a key that was forgotten stay until its successor's are set.
    pub timers: Timers,
    init: Vec<f32>,
    /// Slots that have changed since the last cut began.
    dirty: SlotSet,
    /// The cut that is being copied.
    copying: Option<Box<Copying>>,
    /// Keys that were forgotten since the last cut began; not kept before the first.
    since: Option<Since>,
    /// Who was idle longest; empty until someone asks.
    idle: Idle,
}

impl KeyStates {
    /// Empty states. `init` is what `hidden` starts with for a new key; its length is the hidden width. `timers` is how many each key has.
    #[must_use]
    pub fn new(init: &[f32], aggregates: usize, timers: usize) -> Self {
        KeyStates {
            keys: KeyTable::new(),
            metas: Chunked::new(1),
            hidden: Chunked::new(init.len()),
            aggregates: Chunked::new(aggregates),
            timers: Timers::new(timers),
            init: init.to_vec(),
            dirty: SlotSet::default(),
            copying: None,
            since: None,
            idle: Idle::default(),
        }
    }

    /// The slot of a key that is about to change, made and initialised if it is new. Whatever writes to a slot's row after a cut has
    /// begun must come through here (or `touch`) first, once a batch: that is what makes a cut a picture of one moment.
    pub fn intern(&mut self, key: &[u8]) -> Slot {
        self.intern_at(key, None)
    }

    /// As `intern`, for a key that was found in a slot before, where it is not looked up again if it still lies there.
    fn intern_at(&mut self, key: &[u8], expected: Option<Slot>) -> Slot {
        if let Some(slot) = expected.filter(|slot| self.keys.key(*slot) == Some(key)) {
            self.touch(slot);
            return slot;
        }
        let (slot, new) = self.keys.intern(key);
        if new {
            self.metas.push(&[KeyMeta::default()]);
            self.hidden.push(&self.init);
            self.aggregates.push_default();
            self.timers.push();
            if let Some(since) = &mut self.since {
                since.fresh.insert(slot);
            }
        }
        self.touch(slot);
        slot
    }

    /// Reads of everything that is known of a slot's key, and does nothing with it: among millions of keys each of these is a wait for memory, and in a
    /// loop that does nothing else a processor waits for many at once.
    pub fn fetch(&self, slot: Slot) {
        let hidden = self.hidden.row(slot).iter().step_by(CACHE_LINE / size_of::<f32>()).fold(0.0, |sum, value| sum + value);
        let aggregates = self.aggregates.row(slot).iter().step_by(CACHE_LINE / size_of::<f64>()).fold(0.0, |sum, value| sum + value);
        let events = self.metas.row(slot).first().map_or(0, |meta| meta.events);
        std::hint::black_box((hidden, aggregates, events));
    }

    /// As `intern`, for an event at `time`, which a new key must be given as its last. Where there are `most` keys, a new one takes the
    /// place of the one whose last event is the oldest, of several the one with the smallest key; who that is depends on nothing but
    /// the events so far. The key that was forgotten for it is returned as well: `hidden`, `aggregates` and `timers` are still its own, as events of
    /// it may yet have to be stepped, and are to be set anew when the new key's turn comes. `expected` is where the key was found earlier.
    pub fn intern_within(&mut self, key: &[u8], time: EventTime, most: usize, expected: Option<Slot>) -> (Slot, Option<Box<[u8]>>) {
        if self.len() < most || self.keys.find(key).is_some() {
            return (self.intern_at(key, expected), None);
        }
        let mut idle = std::mem::take(&mut self.idle);
        let Some(slot) = idle.longest(&self.keys, &self.metas) else { return (self.intern(key), None) };
        self.touch(slot);
        let forgotten: Box<[u8]> = self.keys.key(slot).unwrap_or_default().into();
        if let Some(since) = &mut self.since {
            since.note(slot, &forgotten);
        }
        self.keys.replace(slot, key);
        if let Some(meta) = self.metas.row_mut(slot).first_mut() {
            // Which round comes next goes on: the new key is stepped after the old one.
            *meta = KeyMeta { last: time, events: 0, ..*meta };
        }
        idle.replaced(time, &self.keys);
        self.idle = idle;
        (slot, Some(forgotten))
    }

    /// Makes the key as if it had never been seen.
    pub fn reset(&mut self, slot: Slot) {
        self.touch(slot);
        self.idle = Idle::default();
        if let Some(meta) = self.metas.row_mut(slot).first_mut() {
            *meta = KeyMeta { batch: meta.batch, round: meta.round, ..KeyMeta::default() };
        }
        self.hidden.row_mut(slot).copy_from_slice(&self.init);
        self.aggregates.row_mut(slot).fill(0.0);
        self.timers.set(slot, Watched::default(), std::iter::empty());
    }

    /// Takes out the first timer that is due before `now`.
    pub fn fire(&mut self, now: EventTime) -> Option<Fired> {
        let fired = self.timers.first().filter(|fired| fired.due < now)?;
        self.touch(fired.slot);
        self.timers.clear(fired.slot, fired.timer);
        Some(fired)
    }

    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes held, allocated slack included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.keys.bytes()
            + self.metas.bytes()
            + self.hidden.bytes()
            + self.aggregates.bytes()
            + self.timers.bytes()
            + self.dirty.bytes()
            + self.idle.bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_new_key_starts_with_the_initial_state_and_keeps_what_is_written() {
        let mut states = KeyStates::new(&[0.5, -1.0], 1, 0);
        for i in 0..10_000u32 {
            let slot = states.intern(format!("key-{i}").as_bytes());
            assert_eq!(slot, Slot(i));
            assert_eq!(states.hidden.row(slot), [0.5, -1.0]);
            states.hidden.row_mut(slot)[0] = i as f32;
        }
        for i in (0..10_000u32).rev() {
            let slot = states.intern(format!("key-{i}").as_bytes());
            assert_eq!((slot, states.hidden.row(slot)[0]), (Slot(i), i as f32));
        }
        states.reset(Slot(7));
        assert_eq!(states.hidden.row(Slot(7)), [0.5, -1.0]);
        assert_eq!(states.len(), 10_000);
    }

    proptest! {
        #[test]
        fn who_is_forgotten_is_the_key_idle_longest_and_of_several_the_smallest(
            most in 1usize..6,
            events in prop::collection::vec((0u8..12, -3i64..10), 0..200),
        ) {
            let mut states = KeyStates::new(&[0.0], 0, 0);
            let mut expected: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
            for (i, (number, step)) in events.into_iter().enumerate() {
                let key = [b'k', number, number].repeat(1 + usize::from(number % 3));
                // Where it was some events ago, or never.
                let stale = (number % 2 == 0).then_some(Slot(u32::from(number) % most as u32));
                // Also a new key may come late, and many come at one time.
                let mut time = (i as i64 / 4) * 4 + step;
                let known = expected.get(&key).copied();
                let mut forgotten = None;
                match known {
                    Some(last) => time = time.max(last),
                    None if expected.len() == most => {
                        forgotten = expected.iter().min_by_key(|(key, last)| (**last, (*key).clone())).map(|(key, _)| key.clone());
                        expected.remove(forgotten.as_ref().unwrap());
                    }
                    None => {}
                }
                expected.insert(key.clone(), time);
                let (slot, evicted) = states.intern_within(&key, EventTime(time), most, stale);
                let meta = &mut states.metas.row_mut(slot)[0];
                prop_assert_eq!(meta.events == 0, known.is_none());
                (meta.last, meta.events) = (EventTime(time), meta.events + 1);
                prop_assert_eq!(evicted.as_deref(), forgotten.as_deref());
                let found: BTreeMap<Vec<u8>, i64> = (0..states.len() as u32)
                    .map(|slot| (states.keys.key(Slot(slot)).unwrap().to_vec(), states.metas.row(Slot(slot))[0].last.0))
                    .collect();
                prop_assert_eq!(&found, &expected);
            }
        }
    }
}
