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

/// The keys of one partition, numbered in the order in which they were first seen.
#[derive(Debug)]
pub struct KeyTable {
    hasher: FixedState,
    slots: HashTable<u32>,
    /// Key of each slot, in chunks so that growing does not double the memory.
    places: Vec<Vec<Place>>,
    len: usize,
    pages: Vec<Vec<u8>>,
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
        KeyTable { hasher: FixedState::with_seed(0x6d65_616e), slots: HashTable::new(), places: Vec::new(), len: 0, pages: Vec::new() }
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
        self.store(key);
        let (places, pages, hasher) = (&self.places, &self.pages, &self.hasher);
        self.slots.insert_unique(hash, slot, |slot| hasher.hash_one(key_at(places, pages, *slot).unwrap_or_default()));
        (Slot(slot), true)
    }

    fn store(&mut self, key: &[u8]) {
        if self.pages.last().is_none_or(|page| page.len() + key.len() > page.capacity()) {
            self.pages.push(Vec::with_capacity(PAGE_BYTES.max(key.len())));
        }
        let page = u32_of(self.pages.len() - 1);
        let bytes = self.pages.last_mut().expect("a page with room was just made sure of");
        let place = Place { page, start: u32_of(bytes.len()), len: u32_of(key.len()) };
        bytes.extend_from_slice(key);
        if self.len.is_multiple_of(PLACES_PER_CHUNK) {
            self.places.push(Vec::with_capacity(PLACES_PER_CHUNK));
        }
        self.places.last_mut().expect("a chunk with room was just made sure of").push(place);
        self.len += 1;
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
}
