//! Which slots have changed since the last cut, and a cut that is being copied: a consistent picture without a long pause.
//!
//! A cut begins with a set of slots to copy. They are copied some at a time between batches; a slot that a batch is about to change
//! before its turn is copied first. So the copy is of the moment at which the cut began, whatever happens while it is taken.

use super::{KeyStates, Slot};
use crate::base::number::{index, u32_of};

/// Rows of a page: some megabytes, one record batch of the file.
pub(super) const PAGE_ROWS: usize = 8192;

/// A set of slots, one bit each.
#[derive(Clone, Debug, Default)]
pub(super) struct SlotSet(Vec<u64>);

impl SlotSet {
    /// The first `n` slots.
    fn first(n: usize) -> Self {
        let mut words = vec![u64::MAX; n / 64];
        if !n.is_multiple_of(64) {
            words.push((1 << (n % 64)) - 1);
        }
        SlotSet(words)
    }

    pub(super) fn insert(&mut self, slot: Slot) {
        let (word, bit) = place(slot);
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    /// Takes a slot out; whether it was in.
    fn remove(&mut self, slot: Slot) -> bool {
        let (word, bit) = place(slot);
        match self.0.get_mut(word) {
            Some(word) if *word & bit != 0 => {
                *word &= !bit;
                true
            }
            _ => false,
        }
    }

    /// The first slot in the set from word `word` on; `word` moves to it.
    fn next(&self, word: &mut usize) -> Option<Slot> {
        while let Some(bits) = self.0.get(*word) {
            if *bits != 0 {
                return Some(Slot(u32_of(*word * 64) + bits.trailing_zeros()));
            }
            *word += 1;
        }
        None
    }

    fn len(&self) -> usize {
        self.0.iter().map(|word| index(word.count_ones())).sum()
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<u64>()
    }
}

fn place(slot: Slot) -> (usize, u64) {
    (index(slot.0 / 64), 1 << (slot.0 % 64))
}

/// Copied rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Page {
    /// Key bytes, one after the other, and where each ends.
    pub keys: Vec<u8>,
    /// End of each key.
    pub ends: Vec<i32>,
    /// Time of the last event, in microseconds.
    pub last: Vec<i64>,
    /// Events so far.
    pub events: Vec<u64>,
    /// `Widths::hidden` floats a row.
    pub hidden: Vec<f32>,
    /// `Widths::aggregates` numbers a row.
    pub aggregates: Vec<f64>,
}

impl Page {
    /// Rows in the page.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    fn with_room(rows: usize, hidden: usize, aggregates: usize) -> Self {
        Page {
            keys: Vec::with_capacity(rows * 16),
            ends: Vec::with_capacity(rows),
            last: Vec::with_capacity(rows),
            events: Vec::with_capacity(rows),
            hidden: Vec::with_capacity(rows * hidden),
            aggregates: Vec::with_capacity(rows * aggregates),
        }
    }
}

/// A cut that is being copied.
#[derive(Debug)]
pub(super) struct Copying {
    /// Slots that are still as they were and not copied yet.
    pending: SlotSet,
    left: usize,
    /// Words of `pending` below it are empty.
    word: usize,
    pages: Vec<Page>,
}

impl KeyStates {
    /// Begins a cut: of all keys, or of those that have changed since the last cut began. What an earlier cut had not finished
    /// copying is forgotten.
    pub(super) fn begin_copy(&mut self, all: bool) {
        let dirty = std::mem::take(&mut self.dirty);
        let pending = if all { SlotSet::first(self.len()) } else { dirty };
        self.copying = Some(Box::new(Copying { left: pending.len(), pending, word: 0, pages: Vec::new() }));
    }

    /// Copies up to `rows` slots of the cut. Whether all of them are copied now.
    pub(super) fn copy_some(&mut self, rows: usize) -> bool {
        let Some(mut copying) = self.copying.take() else { return true };
        for _ in 0..rows {
            let Some(slot) = copying.pending.next(&mut copying.word) else { break };
            self.copy(slot, &mut copying);
        }
        let done = copying.left == 0;
        self.copying = Some(copying);
        done
    }

    /// What was copied; the cut has ended.
    pub(super) fn end_copy(&mut self) -> Vec<Page> {
        self.copying.take().map(|copying| copying.pages).unwrap_or_default()
    }

    /// To be called before a slot changes: notes it for the next cut, and copies it if the present one still needs it as it is.
    pub fn touch(&mut self, slot: Slot) {
        self.dirty.insert(slot);
        if self.copying.is_some() {
            self.save(slot);
        }
    }

    /// No slot counts as changed: the states are those of a snapshot.
    pub(super) fn mark_clean(&mut self) {
        self.dirty = SlotSet::default();
    }

    #[cold]
    fn save(&mut self, slot: Slot) {
        let Some(mut copying) = self.copying.take() else { return };
        self.copy(slot, &mut copying);
        self.copying = Some(copying);
    }

    fn copy(&self, slot: Slot, copying: &mut Copying) {
        if !copying.pending.remove(slot) {
            return;
        }
        copying.left -= 1;
        if copying.pages.last().is_none_or(|page| page.len() >= PAGE_ROWS) {
            let rows = PAGE_ROWS.min(copying.left + 1);
            copying.pages.push(Page::with_room(rows, self.hidden.width(), self.aggregates.width()));
        }
        let (Some(page), Some(meta)) = (copying.pages.last_mut(), self.metas.row(slot).first()) else { return };
        page.keys.extend_from_slice(self.keys.key(slot).unwrap_or_default());
        page.ends.push(i32::try_from(page.keys.len()).expect("a page of keys of bounded length is far below 2 GiB"));
        page.last.push(meta.last.0);
        page.events.push(meta.events);
        page.hidden.extend_from_slice(self.hidden.row(slot));
        page.aggregates.extend_from_slice(self.aggregates.row(slot));
    }
}
