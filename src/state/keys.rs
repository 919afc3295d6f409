//! Key bytes to slots: an interned table without an allocation per key.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::Slot;
use crate::base::number::{index, u32_of};

const PAGE_BYTES: usize = 1 << 18;

/// Where a key's bytes lie.
#[derive(Clone, Copy, Debug)]
struct Place {
    page: u32,
    start: u32,
    len: u32,
}

/// The keys of one partition, numbered in the order in which they were first seen; one that took another's place has its number.
#[derive(Debug)]
pub struct KeyTable {
    hasher: FixedState,
    slots: HashTable<u32>,
    /// Key of each slot, in chunks so that growing does not double the memory.
    places: Vec<Vec<Place>>,
    len: usize,
    pages: Vec<Vec<u8>>,
    /// Bytes of all keys, and bytes of the pages: what was replaced leaves holes.
    live: usize,
    stored: usize,
}

const PLACES_PER_CHUNK: usize = 4096;

impl Default for KeyTable {
    fn default() -> Self {
        Self::new()
    }
}

impl KeyTable {
    /// An empty table. The hash is seeded with a constant: order and slots never depend on the process.
    #[must_use]
    pub fn new() -> Self {
        let hasher = FixedState::with_seed(0x6d65_616e);
        KeyTable { hasher, slots: HashTable::new(), places: Vec::new(), len: 0, pages: Vec::new(), live: 0, stored: 0 }
    }

    /// Makes room for `keys` more keys, so that the table does not grow step by step.
    pub fn reserve(&mut self, keys: usize) {
        let (places, pages, hasher) = (&self.places, &self.pages, &self.hasher);
        self.slots.reserve(keys, |slot| hasher.hash_one(key_at(places, pages, *slot).unwrap_or_default()));
    }

    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The key of a slot.
    #[must_use]
    pub fn key(&self, slot: Slot) -> Option<&[u8]> {
        key_at(&self.places, &self.pages, slot.0)
    }

    /// The slot of a key, if it is known.
    #[must_use]
    pub fn find(&self, key: &[u8]) -> Option<Slot> {
        let hash = self.hasher.hash_one(key);
        self.slots.find(hash, |slot| key_at(&self.places, &self.pages, *slot) == Some(key)).map(|slot| Slot(*slot))
    }

    /// The slot of a key and whether it was made just now. A new slot is the number of keys before.
    ///
    /// # Panics
    /// With 2^32 keys in one partition, which `max_keys` rules out.
    pub fn intern(&mut self, key: &[u8]) -> (Slot, bool) {
        let hash = self.hasher.hash_one(key);
        let (places, pages) = (&self.places, &self.pages);
        if let Some(slot) = self.slots.find(hash, |slot| key_at(places, pages, *slot) == Some(key)) {
            return (Slot(*slot), false);
        }
        let slot = u32_of(self.len);
        let place = self.store(key);
        self.live += key.len();
        if self.len.is_multiple_of(PLACES_PER_CHUNK) {
            self.places.push(Vec::with_capacity(PLACES_PER_CHUNK));
        }
        self.places.last_mut().expect("a chunk with room was just made sure of").push(place);
        self.len += 1;
        self.insert(hash, slot);
        (Slot(slot), true)
    }

    /// Gives a slot to another key, which must be a new one; the key that had it is forgotten.
    pub fn replace(&mut self, slot: Slot, key: &[u8]) {
        let (places, pages) = (&self.places, &self.pages);
        let Some(old) = key_at(places, pages, slot.0) else { return };
        if let Ok(entry) = self.slots.find_entry(self.hasher.hash_one(old), |other| *other == slot.0) {
            entry.remove();
        }
        self.live = self.live + key.len() - old.len();
        let place = self.overwrite(slot, key).unwrap_or_else(|| self.store(key));
        if let Some(known) = self.place_mut(slot.0) {
            *known = place;
        }
        self.insert(self.hasher.hash_one(key), slot.0);
        // Half of it is holes: moving all keys together costs no more than what made the holes.
        if self.stored > 2 * self.live + PAGE_BYTES {
            self.compact();
        }
    }

    /// Writes a key over the one of a slot, if it fits there.
    fn overwrite(&mut self, slot: Slot, key: &[u8]) -> Option<Place> {
        let place = *self.place_mut(slot.0)?;
        let end = (key.len() <= index(place.len)).then(|| index(place.start) + key.len())?;
        self.pages.get_mut(index(place.page))?.get_mut(index(place.start)..end)?.copy_from_slice(key);
        Some(Place { len: u32_of(key.len()), ..place })
    }

    fn compact(&mut self) {
        let old = std::mem::take(&mut self.pages);
        self.stored = 0;
        for slot in 0..u32_of(self.len) {
            let place = self.store(key_at(&self.places, &old, slot).unwrap_or_default());
            if let Some(known) = self.place_mut(slot) {
                *known = place;
            }
        }
    }

    fn place_mut(&mut self, slot: u32) -> Option<&mut Place> {
        self.places.get_mut(index(slot) / PLACES_PER_CHUNK)?.get_mut(index(slot) % PLACES_PER_CHUNK)
    }

    fn insert(&mut self, hash: u64, slot: u32) {
        let (places, pages, hasher) = (&self.places, &self.pages, &self.hasher);
        self.slots.insert_unique(hash, slot, |slot| hasher.hash_one(key_at(places, pages, *slot).unwrap_or_default()));
    }

    fn store(&mut self, key: &[u8]) -> Place {
        if self.pages.last().is_none_or(|page| page.len() + key.len() > page.capacity()) {
            self.pages.push(Vec::with_capacity(PAGE_BYTES.max(key.len())));
        }
        let page = u32_of(self.pages.len() - 1);
        let bytes = self.pages.last_mut().expect("a page with room was just made sure of");
        let place = Place { page, start: u32_of(bytes.len()), len: u32_of(key.len()) };
        bytes.extend_from_slice(key);
        self.stored += key.len();
        place
    }

    /// Bytes held, slack included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let pages: usize = self.pages.iter().map(Vec::capacity).sum();
        let places: usize = self.places.iter().map(|chunk| chunk.capacity() * size_of::<Place>()).sum();
        pages + places + self.slots.allocation_size()
    }
}

fn key_at<'a>(places: &[Vec<Place>], pages: &'a [Vec<u8>], slot: u32) -> Option<&'a [u8]> {
    let slot = index(slot);
    let place = places.get(slot / PLACES_PER_CHUNK)?.get(slot % PLACES_PER_CHUNK)?;
    pages.get(index(place.page))?.get(index(place.start)..index(place.start) + index(place.len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn slots_are_numbered_by_first_sight(keys in prop::collection::vec("[a-z]{0,3}", 0..500)) {
            let (mut table, mut seen) = (KeyTable::new(), Vec::<String>::new());
            for key in &keys {
                let expected = seen.iter().position(|k| k == key).unwrap_or_else(|| { seen.push(key.clone()); seen.len() - 1 });
                let (slot, new) = table.intern(key.as_bytes());
                prop_assert_eq!(slot.0 as usize, expected);
                prop_assert_eq!(new, table.len() == expected + 1 && keys.iter().filter(|k| *k == key).count() >= 1 && table.key(slot) == Some(key.as_bytes()) && seen.len() == table.len() && new);
            }
            for (i, key) in seen.iter().enumerate() {
                prop_assert_eq!(table.find(key.as_bytes()), Some(Slot(i as u32)));
            }
            prop_assert_eq!(table.find(b"none of them"), None);
        }
    }

    #[test]
    fn slots_that_are_given_on_again_and_again_know_only_their_last_key_and_memory_stays_bounded() {
        let mut table = KeyTable::new();
        let name = |i: u32| format!("{i}-{}", "x".repeat(i as usize * 7 % 90)).into_bytes();
        for i in 0..1000 {
            table.intern(&name(i));
        }
        for i in 1000..100_000 {
            table.replace(Slot(i * 17 % 1000), &name(i));
        }
        assert_eq!((table.len(), table.slots.len()), (1000, 1000));
        for slot in 0..1000 {
            let key = table.key(Slot(slot)).unwrap().to_vec();
            assert_eq!(table.find(&key), Some(Slot(slot)));
        }
        assert_eq!(table.find(&name(500)), None);
        assert_eq!(table.live, (0..1000).map(|slot| table.key(Slot(slot)).unwrap().len()).sum::<usize>());
        assert!(table.stored <= 2 * table.live + PAGE_BYTES && table.bytes() < 1 << 20, "{} {}", table.stored, table.bytes());
    }
}
