//! Seeded draws that give the same bits on every machine.
//!
//! ChaCha8 is defined to the bit; sums, products, quotients and square roots are exact by IEEE 754; logarithms and exponentials come from
//! `libm`, which is plain Rust, because those of the platform's C library differ in the last bit from one system to the next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::base::time::EventTime;

/// A source of random numbers.
#[derive(Clone, Debug)]
pub struct Draws {
    rng: ChaCha8Rng,
    spare: Option<f64>,
}

impl Draws {
    /// Draws for a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Draws { rng: ChaCha8Rng::seed_from_u64(seed), spare: None }
    }

    /// Uniform in [0, 1), a multiple of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        self.rng.random::<f64>()
    }

    /// Uniform in (0, 1]: safe to take the logarithm of.
    pub fn positive(&mut self) -> f64 {
        1.0 - self.uniform()
    }

    /// Uniform over `0..n`; 0 for `n` = 0.
    pub fn below(&mut self, n: u32) -> u32 {
        // The high half of a 64-bit product maps 32 random bits to 0..n; its bias is below n / 2^32.
        let wide = u64::from(self.rng.random::<u32>()) * u64::from(n);
        u32::try_from(wide >> 32).unwrap_or(0)
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// Exponential with mean 1.
    pub fn exponential(&mut self) -> f64 {
        -libm::log(self.positive())
    }

    /// Erlang with `shape` stages of mean 1: minus the logarithm of a product of uniforms.
    pub fn erlang(&mut self, shape: u32) -> f64 {
        let mut product = 1.0;
        for _ in 0..shape {
            product *= self.positive();
        }
        -libm::log(product)
    }

    /// Standard normal (Marsaglia's polar method).
    pub fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        loop {
            let (x, y) = (2.0 * self.uniform() - 1.0, 2.0 * self.uniform() - 1.0);
            let square = x * x + y * y;
            if square > 0.0 && square < 1.0 {
                let scale = (-2.0 * libm::log(square) / square).sqrt();
                self.spare = Some(y * scale);
                return x * scale;
            }
        }
    }

    /// Index drawn with probability proportional to its weight; the last one if rounding leaves a rest.
    pub fn weighted(&mut self, weights: &[f64]) -> usize {
        let mut rest = self.uniform() * weights.iter().sum::<f64>();
        for (i, weight) in weights.iter().enumerate() {
            rest -= weight;
            if rest < 0.0 {
                return i;
            }
        }
        weights.len().saturating_sub(1)
    }
}

/// What comes next for one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    /// When.
    pub at: EventTime,
    /// Key number, from 0.
    pub key: u32,
    /// Which of the key's processes: streams number them from 0.
    pub process: u8,
}

/// The next event of every process of every key, earliest first; ties go by key, then by process.
#[derive(Clone, Debug, Default)]
pub struct Agenda(BinaryHeap<Reverse<Due>>);

impl Agenda {
    /// An agenda of these.
    #[must_use]
    pub fn new(due: Vec<Due>) -> Self {
        Agenda(due.into_iter().map(Reverse).collect())
    }

    /// The earliest.
    #[must_use]
    pub fn earliest(&self) -> Option<Due> {
        self.0.peek().map(|due| due.0)
    }

    /// Puts `due` in the place of the earliest: one pass down the heap instead of two.
    pub fn replace_earliest(&mut self, due: Due) {
        if let Some(mut top) = self.0.peek_mut() {
            *top = Reverse(due);
        }
    }

    /// Removes the earliest.
    pub fn remove_earliest(&mut self) {
        self.0.pop();
    }

    /// Adds one.
    pub fn add(&mut self, due: Due) {
        self.0.push(Reverse(due));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_the_moments_of_their_laws() {
        let mut draws = Draws::new(1);
        let n = 200_000;
        let mean = |f: &mut dyn FnMut() -> f64| (0..n).map(|_| f()).sum::<f64>() / f64::from(n);
        assert!((mean(&mut || draws.exponential()) - 1.0).abs() < 0.01);
        assert!((mean(&mut || draws.erlang(3)) - 3.0).abs() < 0.02);
        assert!(mean(&mut || draws.normal()).abs() < 0.01);
        assert!((mean(&mut || draws.normal().powi(2)) - 1.0).abs() < 0.02);
        assert!((mean(&mut || f64::from(draws.below(20))) - 9.5).abs() < 0.1);
        let shares = (0..n).filter(|_| draws.weighted(&[1.0, 3.0]) == 1).count();
        assert!((shares as f64 / f64::from(n) - 0.75).abs() < 0.01);
    }

    #[test]
    fn the_agenda_gives_the_earliest_and_breaks_ties_by_key() {
        let due = |at, key| Due { at: EventTime(at), key, process: 0 };
        let mut agenda = Agenda::new(vec![due(5, 1), due(3, 9), due(3, 2)]);
        assert_eq!(agenda.earliest(), Some(due(3, 2)));
        agenda.replace_earliest(due(7, 2));
        assert_eq!(agenda.earliest(), Some(due(3, 9)));
        agenda.remove_earliest();
        assert_eq!(agenda.earliest(), Some(due(5, 1)));
    }
}
