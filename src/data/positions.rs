//! Progress as a type: how far each partition has been taken in.

use std::collections::BTreeMap;

use crate::base::offset::{Offset, Partition};

/// The next offset of each partition: all records below it are done. Never goes back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions(BTreeMap<Partition, Offset>);

impl Positions {
    /// No partition.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that all records of `partition` below `next` are done. A lower `next` than before changes nothing.
    pub fn advance(&mut self, partition: Partition, next: Offset) {
        let entry = self.0.entry(partition).or_insert(next);
        *entry = (*entry).max(next);
    }

    /// Next offset of a partition.
    #[must_use]
    pub fn get(&self, partition: Partition) -> Option<Offset> {
        self.0.get(&partition).copied()
    }

    /// Forgets a partition.
    pub fn remove(&mut self, partition: Partition) {
        self.0.remove(&partition);
    }

    /// Partitions in order with their next offsets.
    pub fn iter(&self) -> impl Iterator<Item = (Partition, Offset)> {
        self.0.iter().map(|(partition, offset)| (*partition, *offset))
    }

    /// Whether no partition is noted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_never_goes_back() {
        let mut positions = Positions::new();
        positions.advance(Partition(1), Offset(10));
        positions.advance(Partition(1), Offset(4));
        assert_eq!(positions.get(Partition(1)), Some(Offset(10)));
    }
}
