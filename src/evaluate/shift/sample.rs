//! A sample of pairs of bounded size that depends on nothing but the pairs: those whose hash is smallest.

use std::collections::BinaryHeap;

/// Pairs that are kept at most.
pub const MOST: usize = 100_000;

/// Pairs of rows, each `width` numbers before and as many after.
#[derive(Debug)]
pub struct Sample {
    width: usize,
    most: usize,
    /// Hash and slot of each pair that is kept, the largest on top.
    heap: BinaryHeap<(u64, usize)>,
    values: Vec<f64>,
    seen: u64,
}

impl Sample {
    /// An empty one of at most `most` pairs.
    #[must_use]
    pub fn new(width: usize, most: usize) -> Self {
        Sample { width, most: most.max(1), heap: BinaryHeap::new(), values: Vec::new(), seen: 0 }
    }

    /// Takes a pair; `hash` says which it is.
    pub fn add(&mut self, hash: u64, before: &[f64], after: &[f64]) {
        debug_assert!(before.len() == self.width && after.len() == self.width);
        self.seen += 1;
        let slot = if self.heap.len() < self.most {
            self.values.extend(before.iter().chain(after));
            self.heap.push((hash, self.heap.len()));
            return;
        } else {
            match self.heap.peek_mut() {
                Some(mut top) if hash < top.0 => {
                    top.0 = hash;
                    top.1
                }
                _ => return,
            }
        };
        let start = slot * 2 * self.width;
        if let Some(place) = self.values.get_mut(start..start + 2 * self.width) {
            for (to, from) in place.iter_mut().zip(before.iter().chain(after)) {
                *to = *from;
            }
        }
    }

    /// Pairs that are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Values of a field on both sides, each sorted and without NaN.
    #[must_use]
    pub fn sorted(&self, field: usize) -> (Vec<f64>, Vec<f64>) {
        let side = |offset: usize| {
            let rows = self.values.chunks_exact(2 * self.width.max(1));
            let mut values: Vec<f64> = rows.filter_map(|row| row.get(offset + field).copied()).filter(|value| !value.is_nan()).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        (side(0), side(self.width))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_the_pairs_of_the_smallest_hashes_whatever_the_order() {
        let hash = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let filled = |order: &mut dyn Iterator<Item = u64>| {
            let mut sample = Sample::new(1, 10);
            order.for_each(|i| sample.add(hash(i), &[i as f64], &[-(i as f64)]));
            sample.sorted(0)
        };
        let (forward, backward) = (filled(&mut (0..500)), filled(&mut (0..500).rev()));
        assert_eq!(forward, backward);
        let mut expected: Vec<u64> = (0..500).collect();
        expected.sort_by_key(|i| hash(*i));
        let mut expected: Vec<f64> = expected[..10].iter().map(|i| *i as f64).collect();
        expected.sort_by(f64::total_cmp);
        assert_eq!(forward.0, expected);
        assert_eq!(forward.1.len(), 10);
    }
}
