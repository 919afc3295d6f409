//! What a lane knows of the keys of a batch, and their hidden states as the model asks for them.

use crate::base::time::Gap;
use crate::data::events::Events;
use crate::model::Memory;
use crate::run::overdue::Forgotten;
use crate::run::partition::PartitionState;
use crate::state::{KeyStates, Slot};

/// What interning found out about each ready event.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Slot of each ready event's key as the batch began; none for one that was new then.
    pub expected: Vec<Option<Slot>>,
    /// Index of the partition in the lane.
    pub homes: Vec<usize>,
    pub slots: Vec<Slot>,
    pub gaps: Vec<Option<Gap>>,
    pub counts: Vec<u64>,
    pub occurrences: Vec<u32>,
    /// The state starts anew with this event: the key was idle for longer than `expiry`, or takes the place of one that was forgotten. What
    /// came before in the same batch, and has the same slot, is stepped in earlier rounds.
    pub anew: Vec<bool>,
    pub marks: Vec<Option<u32>>,
    /// Keys that were forgotten.
    pub forgotten: Vec<Forgotten>,
}

impl Seen {
    /// Looks up the keys of all ready events together, before they are taken one by one.
    pub fn look_up(&mut self, partitions: &[PartitionState], ready: &Events) {
        self.expected.clear();
        let mut own: Option<&PartitionState> = None;
        for (row, partition) in ready.partitions.iter().enumerate() {
            if own.is_none_or(|own| own.partition != *partition) {
                own = partitions.iter().find(|state| state.partition == *partition);
            }
            self.expected.push(own.zip(ready.keys.get(row)).and_then(|(own, key)| own.keys.keys.find(key)));
        }
        for (slot, partition) in self.expected.iter().zip(&ready.partitions) {
            if own.is_none_or(|own| own.partition != *partition) {
                own = partitions.iter().find(|state| state.partition == *partition);
            }
            if let Some((own, slot)) = own.zip(*slot) {
                own.keys.fetch(slot);
            }
        }
    }

    /// Forgets the batch and keeps the memory.
    pub fn clear(&mut self) {
        self.homes.clear();
        self.slots.clear();
        self.gaps.clear();
        self.counts.clear();
        self.occurrences.clear();
        self.anew.clear();
        self.marks.clear();
        self.forgotten.clear();
    }
}

/// What a key's state is after an event that is kept.
#[derive(Debug)]
pub(super) struct Kept {
    pub row: usize,
    pub hidden: Vec<f32>,
    pub aggregates: Vec<f64>,
}

/// Hidden state of each row's key, across the lane's partitions.
pub(super) struct LaneMemory<'a> {
    pub partitions: &'a mut [PartitionState],
    pub seen: &'a Seen,
    /// What each key begins with.
    pub init: Vec<f32>,
    /// How many floats of it are the model's.
    pub width: usize,
    /// Rows whose states are kept, ascending.
    pub kept: &'a mut [Kept],
}

impl LaneMemory<'_> {
    fn place(&mut self, row: usize) -> Option<(&mut KeyStates, Slot)> {
        let (home, slot) = (self.seen.homes.get(row)?, self.seen.slots.get(row)?);
        self.partitions.get_mut(*home).map(|state| (&mut state.keys, *slot))
    }

    /// All hidden floats of a row's key, those that are not the model's among them.
    pub fn whole(&mut self, row: usize) -> &mut [f32] {
        match self.place(row) {
            Some((keys, slot)) => keys.hidden.row_mut(slot),
            None => &mut [],
        }
    }
}

impl Memory for LaneMemory<'_> {
    fn begin(&mut self, row: usize) {
        if self.seen.anew.get(row) == Some(&true) {
            let init = std::mem::take(&mut self.init);
            if let Some((keys, slot)) = self.place(row) {
                keys.hidden.row_mut(slot).copy_from_slice(&init);
            }
            self.init = init;
        }
    }

    fn hidden(&mut self, row: usize) -> &mut [f32] {
        let width = self.width;
        self.whole(row).get_mut(..width).unwrap_or_default()
    }

    fn end(&mut self, row: usize) {
        if let Ok(at) = self.kept.binary_search_by_key(&row, |kept| kept.row) {
            let hidden = self.hidden(row).to_vec();
            if let Some(kept) = self.kept.get_mut(at) {
                kept.hidden = hidden;
            }
        }
    }
}
