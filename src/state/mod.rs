//! Key states: who the keys of a partition are and what is remembered of each; `snapshot` stores them and gets them back.

mod arena;
mod changes;
mod keys;
pub mod snapshot;

pub use arena::{Chunked, Widths};
pub use keys::KeyTable;

use changes::{Copying, SlotSet};

use crate::base::time::{EventTime, Gap};

/// The `[state]` table, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Most keys one lane may hold; one more stops the stage with an error that says so.
    pub max_keys: usize,
    /// A key that was idle for longer starts anew, as if it had never been seen.
    pub expiry: Option<Gap>,
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
    /// Recurrent tensors, then the published law, per slot: `Widths::hidden` floats.
    pub hidden: Chunked<f32>,
    /// Decaying aggregates of the recipe, per slot: `Widths::aggregates` numbers.
    pub aggregates: Chunked<f64>,
    init: Vec<f32>,
    /// Slots that have changed since the last cut began.
    dirty: SlotSet,
    /// The cut that is being copied.
    copying: Option<Box<Copying>>,
}

impl KeyStates {
    /// Empty states. `init` is what `hidden` starts with for a new key; its length is the hidden width.
    #[must_use]
    pub fn new(init: &[f32], aggregates: usize) -> Self {
        KeyStates {
            keys: KeyTable::new(),
            metas: Chunked::new(1),
            hidden: Chunked::new(init.len()),
            aggregates: Chunked::new(aggregates),
            init: init.to_vec(),
            dirty: SlotSet::default(),
            copying: None,
        }
    }

    /// The slot of a key that is about to change, made and initialised if it is new. Whatever writes to a slot's row after a cut has
    /// begun must come through here (or `touch`) first, once a batch: that is what makes a cut a picture of one moment.
    pub fn intern(&mut self, key: &[u8]) -> Slot {
        let (slot, new) = self.keys.intern(key);
        if new {
            self.metas.push(&[KeyMeta::default()]);
            self.hidden.push(&self.init);
            self.aggregates.push_default();
        }
        self.touch(slot);
        slot
    }

    /// Makes the key as if it had never been seen.
    pub fn reset(&mut self, slot: Slot) {
        self.touch(slot);
        if let Some(meta) = self.metas.row_mut(slot).first_mut() {
            *meta = KeyMeta { batch: meta.batch, round: meta.round, ..KeyMeta::default() };
        }
        self.hidden.row_mut(slot).copy_from_slice(&self.init);
        self.aggregates.row_mut(slot).fill(0.0);
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
        self.keys.bytes() + self.metas.bytes() + self.hidden.bytes() + self.aggregates.bytes() + self.dirty.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_starts_with_the_initial_state_and_keeps_what_is_written() {
        let mut states = KeyStates::new(&[0.5, -1.0], 1);
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
}
