//! Which slots have changed since the last cut, and a cut that is being copied: a consistent picture without a long pause.
//!
//! A cut begins with a set of slots to copy. They are copied some at a time between batches; a slot that a batch is about to change
//! before its turn is copied first. So the copy is of the moment at which the cut began, whatever happens while it is taken.

use super::{KeyStates, Slot};
use crate::base::number::{index, u32_of};
use crate::base::offset::Offset;
use crate::base::time::EventTime;

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

    fn contains(&self, slot: Slot) -> bool {
        let (word, bit) = place(slot);
        self.0.get(word).is_some_and(|word| word & bit != 0)
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

/// What has become of keys since the last cut began. A key that has come and gone in between is none of the next cut's business, so there
/// are never more forgotten keys to remember than slots.
#[derive(Debug, Default)]
pub(super) struct Since {
    /// Slots whose key the last cut does not have in them.
    pub fresh: SlotSet,
    /// Keys that the last cut has and that were forgotten since; one may have come back in another slot.
    forgotten: Vec<Box<[u8]>>,
}

impl Since {
    /// The key of a slot is forgotten, and another one takes its place.
    pub fn note(&mut self, slot: Slot, key: &[u8]) {
        if !self.fresh.contains(slot) {
            self.fresh.insert(slot);
            self.forgotten.push(key.into());
        }
    }
}

/// Copied rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Page {
    /// The rows are keys that were forgotten: nothing but key bytes.
    pub forgotten: bool,
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
    /// Timers that are on, by row: which, when it is due, and the offset of the event that it watches.
    pub timers: Vec<(u32, u8, EventTime, Offset)>,
}

impl Page {
    /// Rows in the page.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Appends a key.
    pub fn push_key(&mut self, key: &[u8]) {
        self.keys.extend_from_slice(key);
        self.ends.push(i32::try_from(self.keys.len()).expect("a page of keys of bounded length is far below 2 GiB"));
    }

    fn with_room(rows: usize, hidden: usize, aggregates: usize) -> Self {
        Page {
            forgotten: false,
            keys: Vec::with_capacity(rows * 16),
            ends: Vec::with_capacity(rows),
            last: Vec::with_capacity(rows),
            events: Vec::with_capacity(rows),
            hidden: Vec::with_capacity(rows * hidden),
            aggregates: Vec::with_capacity(rows * aggregates),
            timers: Vec::new(),
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
    /// Keys that the last cut has and that were forgotten by the time this one began.
    gone: Vec<Page>,
}

impl KeyStates {
    /// Begins a cut: of all keys, or of those that have changed since the last cut began. What an earlier cut had not finished
    /// copying is forgotten.
    pub(super) fn begin_copy(&mut self, all: bool) {
        let dirty = std::mem::take(&mut self.dirty);
        let pending = if all { SlotSet::first(self.len()) } else { dirty };
        let forgotten = self.since.replace(Since::default()).map(|since| since.forgotten).filter(|_| !all).unwrap_or_default();
        let gone: Vec<&[u8]> = forgotten.iter().map(AsRef::as_ref).filter(|key| self.keys.find(key).is_none()).collect();
        let page = |keys: &[&[u8]]| {
            let mut page = Page { forgotten: true, last: vec![0; keys.len()], events: vec![0; keys.len()], ..Page::default() };
            keys.iter().for_each(|key| page.push_key(key));
            page
        };
        let gone = gone.chunks(PAGE_ROWS).map(page).collect();
        self.copying = Some(Box::new(Copying { left: pending.len(), pending, word: 0, pages: Vec::new(), gone }));
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
        let Some(mut copying) = self.copying.take() else { return Vec::new() };
        copying.pages.append(&mut copying.gone);
        copying.pages
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
        self.since = Some(Since::default());
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
        page.push_key(self.keys.key(slot).unwrap_or_default());
        page.last.push(meta.last.0);
        page.events.push(meta.events);
        page.hidden.extend_from_slice(self.hidden.row(slot));
        page.aggregates.extend_from_slice(self.aggregates.row(slot));
        let (row, watched) = (u32_of(page.len() - 1), self.timers.watched(slot));
        let timers = self.timers.of(slot).map(|(timer, due)| (row, u8::try_from(timer).unwrap_or(u8::MAX), due, watched.offset));
        page.timers.extend(timers);
    }
}
