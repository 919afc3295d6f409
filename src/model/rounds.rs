//! Rounds: a batch in which each key stands at most once, so that one run of the graph steps all of them.

use crate::base::number::{index, u32_of};

/// Rows of a batch sorted by round: all first events of their keys, then all second ones, ...
#[derive(Debug, Default)]
pub struct Rounds {
    rows: Vec<u32>,
    ends: Vec<usize>,
}

impl Rounds {
    /// Sorts rows by how often their key has occurred before in this batch (`rounds[i]`, 0 for the first time).
    pub fn arrange(&mut self, rounds: &[u32]) {
        self.ends.clear();
        for round in rounds {
            let round = index(*round);
            if self.ends.len() <= round {
                self.ends.resize(round + 1, 0);
            }
            if let Some(count) = self.ends.get_mut(round) {
                *count += 1;
            }
        }
        let mut start = 0;
        for end in &mut self.ends {
            let count = *end;
            *end = start;
            start += count;
        }
        self.rows.clear();
        self.rows.resize(rounds.len(), 0);
        for (row, round) in rounds.iter().enumerate() {
            if let Some(next) = self.ends.get_mut(index(*round)) {
                if let Some(place) = self.rows.get_mut(*next) {
                    *place = u32_of(row);
                }
                *next += 1;
            }
        }
    }

    /// The rounds in order, each the rows of the batch that it steps, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &[u32]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| self.rows.get(start..*end).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn two_events_of_one_key_never_share_a_round_and_keep_their_order(keys in prop::collection::vec(0u32..6, 0..200)) {
            let occurrence: Vec<u32> = (0..keys.len()).map(|i| keys[..i].iter().filter(|k| **k == keys[i]).count() as u32).collect();
            let mut rounds = Rounds::default();
            rounds.arrange(&occurrence);
            let mut seen = Vec::new();
            for round in rounds.iter() {
                let mut distinct: Vec<u32> = round.iter().map(|row| keys[*row as usize]).collect();
                distinct.sort_unstable();
                distinct.dedup();
                prop_assert_eq!(distinct.len(), round.len());
                seen.extend_from_slice(round);
            }
            for key in 0..6 {
                let order: Vec<u32> = seen.iter().copied().filter(|row| keys[*row as usize] == key).collect();
                prop_assert!(order.is_sorted());
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..keys.len() as u32).collect::<Vec<_>>());
        }
    }
}
