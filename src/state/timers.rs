//! Timers of the keys: when quantiles of each key's law pass without an event.

use super::{Chunked, Slot};
use crate::base::number::{index, u32_of};
use crate::base::offset::Offset;
use crate::base::time::EventTime;

/// Stands for a timer that is not set.
const NONE: EventTime = EventTime(i64::MAX);

/// The event whose forecast the timers watch over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Where its record is.
    pub offset: Offset,
    /// When it happened.
    pub time: EventTime,
    /// Events of its key so far.
    pub events: u64,
}

/// A timer that has run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fired {
    /// Whose.
    pub slot: Slot,
    /// Which of the key's timers.
    pub timer: usize,
    /// When it was due.
    pub due: EventTime,
    /// After which event.
    pub after: Watched,
}

/// When a slot was due next as it was put into the heap. What is due at one time leaves in the order of the watched events' offsets: slots are numbered
/// anew by a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    due: EventTime,
    offset: Offset,
    slot: Slot,
}

/// Timers of all keys of a partition: some per key, and a heap with one entry per key at most. An entry may be earlier than what the key is due
/// at now: most events only move a key's timers on, and that is looked at when the entry is on top.
#[derive(Debug)]
pub struct Timers {
    due: Chunked<EventTime>,
    watched: Chunked<Watched>,
    heap: Vec<Entry>,
    /// One more than where a slot's entry is in the heap; 0: nowhere.
    places: Vec<u32>,
}

impl Timers {
    /// No keys, `width` timers each.
    #[must_use]
    pub fn new(width: usize) -> Self {
        Timers { due: Chunked::new(width), watched: Chunked::new(width.min(1)), heap: Vec::new(), places: Vec::new() }
    }

    /// Timers per key.
    #[must_use]
    pub fn width(&self) -> usize {
        self.due.width()
    }

    /// Adds a slot without a timer.
    pub fn push(&mut self) {
        if self.width() > 0 {
            self.due.push(&vec![NONE; self.width()]);
            self.watched.push_default();
            self.places.push(0);
        }
    }

    /// Sets a slot's timers; those that are not given are off.
    pub fn set(&mut self, slot: Slot, after: Watched, due: impl Iterator<Item = Option<EventTime>>) {
        if let Some(watched) = self.watched.row_mut(slot).first_mut() {
            *watched = after;
        }
        let mut due = due;
        self.due.row_mut(slot).fill_with(|| due.next().flatten().unwrap_or(NONE));
        let Some(entry) = self.entry(slot) else { return };
        match self.places.get(index(slot.0)).copied() {
            Some(0) => {
                self.heap.push(entry);
                self.place(self.heap.len() - 1);
                self.rise(self.heap.len() - 1);
            }
            Some(place) => {
                let at = index(place - 1);
                if let Some(old) = self.heap.get_mut(at).filter(|old| entry < **old) {
                    *old = entry;
                    self.rise(at);
                }
            }
            None => {}
        }
    }

    /// A slot's timers: the event they watch, and when each is due that is on.
    pub fn of(&self, slot: Slot) -> impl Iterator<Item = (usize, EventTime)> {
        self.due.row(slot).iter().copied().enumerate().filter(|(_, due)| *due != NONE)
    }

    /// The event that a slot's timers watch.
    #[must_use]
    pub fn watched(&self, slot: Slot) -> Watched {
        self.watched.row(slot).first().copied().unwrap_or_default()
    }

    /// The timer that is due first; none if all are off.
    pub fn first(&mut self) -> Option<Fired> {
        loop {
            let top = *self.heap.first()?;
            match self.entry(top.slot) {
                Some(now) if now == top => break,
                Some(now) => {
                    if let Some(first) = self.heap.first_mut() {
                        *first = now;
                    }
                    self.sink(0);
                }
                None => {
                    self.heap.swap_remove(0);
                    if let Some(place) = self.places.get_mut(index(top.slot.0)) {
                        *place = 0;
                    }
                    self.place(0);
                    self.sink(0);
                }
            }
        }
        let slot = self.heap.first()?.slot;
        let (timer, due) = self.of(slot).min_by_key(|(_, due)| *due)?;
        Some(Fired { slot, timer, due, after: self.watched(slot) })
    }

    /// Turns one timer of a slot off.
    pub fn clear(&mut self, slot: Slot, timer: usize) {
        if let Some(due) = self.due.row_mut(slot).get_mut(timer) {
            *due = NONE;
        }
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let heap = self.heap.capacity() * size_of::<Entry>() + self.places.capacity() * size_of::<u32>();
        self.due.bytes() + self.watched.bytes() + heap
    }

    fn entry(&self, slot: Slot) -> Option<Entry> {
        let due = self.of(slot).map(|(_, due)| due).min()?;
        Some(Entry { due, offset: self.watched(slot).offset, slot })
    }

    /// Notes where the entry at `at` is.
    fn place(&mut self, at: usize) {
        if let Some(entry) = self.heap.get(at)
            && let Some(place) = self.places.get_mut(index(entry.slot.0))
        {
            *place = u32_of(at) + 1;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.place(a);
        self.place(b);
    }

    fn is_before(&self, a: usize, b: usize) -> bool {
        self.heap.get(a).zip(self.heap.get(b)).is_some_and(|(a, b)| a < b)
    }

    fn rise(&mut self, mut at: usize) {
        while at > 0 && self.is_before(at, (at - 1) / 2) {
            self.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
    }

    fn sink(&mut self, mut at: usize) {
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            let child = if self.is_before(right, left) { right } else { left };
            if !self.is_before(child, at) {
                return;
            }
            self.swap(at, child);
            at = child;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn timers_run_out_in_order_once_and_not_after_the_next_event(
            steps in prop::collection::vec((0u32..8, 0i64..40, prop::option::of(1i64..60), prop::option::of(1i64..60)), 1..120)
        ) {
            let mut timers = Timers::new(2);
            // The slow, obvious way: all timers that are on.
            let mut expected: BTreeMap<(i64, i64, u32, usize), i64> = BTreeMap::new();
            (0..8).for_each(|_| timers.push());
            let mut now = 0;
            for (at, (slot, step, first, second)) in steps.into_iter().enumerate() {
                now += step;
                while let Some(fired) = timers.first().filter(|fired| fired.due.0 < now) {
                    timers.clear(fired.slot, fired.timer);
                    let (key, time) = expected.pop_first().unwrap();
                    prop_assert_eq!((fired.due.0, fired.after.offset.0, fired.slot.0), (key.0, key.1, key.2));
                    prop_assert_eq!(fired.after.time.0, time);
                }
                prop_assert!(expected.first_key_value().is_none_or(|(key, _)| key.0 >= now));
                expected.retain(|key, _| key.2 != slot);
                let due = [first, second].map(|wait| wait.map(|wait| EventTime(now + wait)));
                let after = Watched { offset: Offset(at as i64), time: EventTime(now), events: 1 };
                timers.set(Slot(slot), after, due.into_iter());
                for (timer, due) in due.into_iter().enumerate() {
                    due.map(|due| expected.insert((due.0, at as i64, slot, timer), now));
                }
                prop_assert!(timers.heap.len() <= 8);
            }
        }
    }
}
