//! The rows of one epoch as they will be sent: kept until their transaction is committed, so that an aborted one is sent again with the same bytes.

use std::collections::BTreeMap;

use super::Position;
use crate::base::number::u32_of;
use crate::base::offset::Partition;
use crate::data::commit::Commits;

/// Rows and the offsets that cover them.
#[derive(Default)]
pub struct Epoch {
    rows: Vec<Row>,
    bytes: Vec<u8>,
    /// How far the input is done once these rows are visible.
    pub commits: Commits,
    /// Which time it was that the member had each of these partitions.
    pub terms: BTreeMap<Partition, u64>,
}

#[derive(Clone, Copy)]
struct Row {
    topic: u8,
    at: Position,
    /// Bytes of the key; `None` for a row without one.
    key: Option<u32>,
    value: u32,
}

/// One row, borrowed.
pub struct Sending<'a> {
    /// Index of the topic it goes to.
    pub topic: u8,
    /// Where it comes from.
    pub at: Position,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: &'a [u8],
}

impl Epoch {
    /// Adds a row; `encode` appends its value.
    pub fn push(&mut self, topic: u8, at: Position, key: Option<&[u8]>, encode: impl FnOnce(&mut Vec<u8>)) {
        if let Some(key) = key {
            self.bytes.extend_from_slice(key);
        }
        let start = self.bytes.len();
        encode(&mut self.bytes);
        let value = u32_of(self.bytes.len().saturating_sub(start));
        self.rows.push(Row { topic, at, key: key.map(|key| u32_of(key.len())), value });
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Bytes of keys and values.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// The rows in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = Sending<'_>> {
        let mut at = 0_usize;
        let mut take = move |bytes: u32| {
            let start = at;
            at = at.saturating_add(crate::base::number::index(bytes));
            self.bytes.get(start..at).unwrap_or_default()
        };
        self.rows.iter().map(move |row| Sending { topic: row.topic, at: row.at, key: row.key.map(&mut take), value: take(row.value) })
    }

    /// Forgets the rows of a partition.
    pub fn forget(&mut self, partition: Partition) {
        if self.rows.iter().all(|row| row.at.partition != partition) {
            return;
        }
        let mut left = Epoch { commits: std::mem::take(&mut self.commits), terms: std::mem::take(&mut self.terms), ..Epoch::default() };
        for row in self.iter().filter(|row| row.at.partition != partition) {
            left.push(row.topic, row.at, row.key, |out| out.extend_from_slice(row.value));
        }
        left.commits.remove(partition);
        left.terms.remove(&partition);
        *self = left;
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.bytes.clear();
        self.commits = Commits::new();
        self.terms.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::offset::Offset;

    #[test]
    fn rows_of_a_partition_that_was_lost_are_forgotten_and_the_others_stay_as_they_are() {
        let mut epoch = Epoch::default();
        for (offset, partition) in [(5, 1), (6, 2), (7, 1), (8, 2)] {
            epoch.push(0, Position::of(Partition(partition), Offset(offset)), Some(b"k"), |out| {
                out.extend_from_slice(offset.to_string().as_bytes())
            });
        }
        epoch.forget(Partition(3));
        assert_eq!(epoch.len(), 4);
        epoch.forget(Partition(1));
        let left: Vec<_> = epoch.iter().map(|row| (row.at.offset.0, row.key, row.value)).collect();
        assert_eq!(left, [(6, Some(&b"k"[..]), &b"6"[..]), (8, Some(b"k"), b"8")]);
        assert_eq!((epoch.len(), epoch.byte_len()), (2, 4));
    }

    #[test]
    fn rows_come_back_as_they_were_added() {
        let mut epoch = Epoch::default();
        for round in 0..2 {
            epoch.push(0, Position::of(Partition(1), Offset(5)), Some(b"k"), |out| out.extend_from_slice(b"value"));
            epoch.push(1, Position::of(Partition(2), Offset(6)), None, |out| out.extend_from_slice(b""));
            epoch.push(0, Position::of(Partition(1), Offset(7)), Some(b""), |out| out.extend_from_slice(b"x"));
            let found: Vec<_> =
                epoch.iter().map(|row| (row.topic, row.at.offset.0, row.key.map(<[u8]>::to_vec), row.value.to_vec())).collect();
            let expected =
                vec![(0, 5, Some(b"k".to_vec()), b"value".to_vec()), (1, 6, None, Vec::new()), (0, 7, Some(Vec::new()), b"x".to_vec())];
            assert_eq!((epoch.len(), epoch.byte_len(), found), (3, 7, expected), "round {round}");
            epoch.clear();
        }
    }
}
