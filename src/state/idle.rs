//! Who was idle longest: a heap with one entry a key whose times may lag behind.
//!
//! An entry's time is at most that of its key's last event, so nothing has to be done when an event comes. Only when someone is asked for,
//! entries that come to the top and are behind are brought up to date; each event pays for that at most once.

use std::mem::size_of;

use super::{Chunked, KeyMeta, KeyTable, Slot};
use crate::base::number::u32_of;
use crate::base::time::EventTime;

/// A binary heap of all slots of a partition, the key that was idle longest on top; of several at one time the smallest key. Keys and not
/// slots, because a restart from a snapshot numbers slots anew.
#[derive(Debug, Default)]
pub(super) struct Idle(Vec<(EventTime, Slot)>);

impl Idle {
    /// The slot whose key was idle longest; `None` if there is no key. It is on top then, until someone else is asked for.
    pub fn longest(&mut self, keys: &KeyTable, metas: &Chunked<KeyMeta>) -> Option<Slot> {
        let last = |slot: Slot| metas.row(slot).first().map(|meta| meta.last);
        if self.0.len() != keys.len() {
            self.0 = (0..u32_of(keys.len())).filter_map(|slot| Some((last(Slot(slot))?, Slot(slot)))).collect();
            (0..self.0.len() / 2).rev().for_each(|at| self.sink(at, keys));
        }
        loop {
            let (time, slot) = self.0.first_mut()?;
            let (slot, last) = (*slot, last(*slot)?);
            if *time >= last {
                return Some(slot);
            }
            *time = last;
            self.sink(0, keys);
        }
    }

    /// The slot on top now has another key, whose last event is at `time`.
    pub fn replaced(&mut self, time: EventTime, keys: &KeyTable) {
        if let Some(top) = self.0.first_mut() {
            top.0 = time;
        }
        self.sink(0, keys);
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<(EventTime, Slot)>()
    }

    /// Moves an entry down until none below it comes before it.
    fn sink(&mut self, mut at: usize, keys: &KeyTable) {
        let heap = &mut self.0;
        let before = |heap: &[(EventTime, Slot)], a: usize, b: usize| match (heap.get(a), heap.get(b)) {
            (Some((time, slot)), Some((other, rival))) => time.cmp(other).then_with(|| keys.key(*slot).cmp(&keys.key(*rival))).is_lt(),
            _ => false,
        };
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            let child = if before(heap, right, left) { right } else { left };
            if !before(heap, child, at) {
                return;
            }
            heap.swap(child, at);
            at = child;
        }
    }
}
