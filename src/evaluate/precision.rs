//! Temporal mean average precision: drawn events are guesses, each with the probability of its mark as score, and a guess is right if it can be matched with an
//! event that came, of that mark, within a tolerance. Average precision of each mark over all sequences, then the mean over marks. Source: I. Karpukhin et
//! al., "HoTPP benchmark: are we good at the long horizon events forecasting?", 2024, section 4.

use crate::base::number::f64_of_count;

/// Guesses of one mark in all sequences.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Guesses {
    /// Score, and whether it is matched.
    scored: Vec<(f32, bool)>,
    /// Events that came.
    came: usize,
}

impl Guesses {
    /// Takes a sequence: guesses as (time, score), and the times of the events that came.
    pub fn add(&mut self, guesses: &[(f64, f32)], came: &[f64], tolerance: f64) {
        self.came += came.len();
        let matched = matching(guesses, came, tolerance);
        self.scored.extend(guesses.iter().zip(matched).map(|((_, score), hit)| (*score, hit)));
    }

    /// Events that came.
    #[must_use]
    pub fn came(&self) -> usize {
        self.came
    }

    /// Sum over thresholds of the recall that is gained times the precision there; equal scores share a threshold. NaN if nothing came.
    #[must_use]
    pub fn average_precision(mut self) -> f64 {
        self.scored.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let (mut seen, mut found, mut sum) = (0.0, 0.0, 0.0);
        for ties in self.scored.chunk_by(|a, b| a.0 == b.0) {
            let gained = f64_of_count(ties.iter().filter(|(_, hit)| *hit).count());
            seen += f64_of_count(ties.len());
            found += gained;
            sum += gained * found / seen;
        }
        sum / f64_of_count(self.came)
    }
}

/// Which guesses are matched: by falling score, each if those before can still be matched with it (Kuhn's augmenting paths). So, for every threshold, as many of
/// the guesses above it are matched as can be: sets that can be matched are the independent ones of a matroid, where the greedy choice is the best.
fn matching(guesses: &[(f64, f32)], came: &[f64], tolerance: f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..guesses.len()).collect();
    order.sort_by(|a, b| {
        let score = |i: &usize| guesses.get(*i).map_or(0.0, |(_, score)| *score);
        score(b).total_cmp(&score(a)).then(a.cmp(b))
    });
    let near = |guess: usize, event: usize| {
        guesses.get(guess).zip(came.get(event)).is_some_and(|((guess, _), event)| (guess - event).abs() <= tolerance)
    };
    let mut holder: Vec<Option<usize>> = vec![None; came.len()];
    let mut matched = vec![false; guesses.len()];
    for guess in order {
        let mut tried = vec![false; came.len()];
        if let Some(own) = matched.get_mut(guess) {
            *own = augment(guess, &near, &mut holder, &mut tried);
        }
    }
    matched
}

/// Finds an event for a guess, moving other guesses to other events if need be.
fn augment(guess: usize, near: &dyn Fn(usize, usize) -> bool, holder: &mut [Option<usize>], tried: &mut [bool]) -> bool {
    for event in 0..holder.len() {
        if !near(guess, event) || std::mem::replace(tried.get_mut(event).unwrap_or(&mut true), true) {
            continue;
        }
        let other = holder.get(event).copied().flatten();
        if other.is_none_or(|other| augment(other, near, holder, tried)) {
            if let Some(holder) = holder.get_mut(event) {
                *holder = Some(guess);
            }
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Most guesses that can be matched at once, by trying all.
    fn most(guesses: &[(f64, f32)], came: &[f64], tolerance: f64) -> usize {
        let Some(((time, _), rest)) = guesses.split_first() else { return 0 };
        let mut best = most(rest, came, tolerance);
        for i in (0..came.len()).filter(|i| (came[*i] - time).abs() <= tolerance) {
            let mut left = came.to_vec();
            left.remove(i);
            best = best.max(1 + most(rest, &left, tolerance));
        }
        best
    }

    proptest! {
        #[test]
        fn above_every_threshold_as_many_are_matched_as_can_be(
            guesses in prop::collection::vec((0.0_f64..6.0, 0_u8..6), 0..7), came in prop::collection::vec(0.0_f64..6.0, 0..6), tolerance in 0.1_f64..2.0
        ) {
            let guesses: Vec<(f64, f32)> = guesses.into_iter().map(|(time, score)| (time, f32::from(score))).collect();
            let matched = matching(&guesses, &came, tolerance);
            for threshold in 0..6 {
                let above = |score: f32| score >= threshold as f32;
                let kept: Vec<(f64, f32)> = guesses.iter().copied().filter(|(_, score)| above(*score)).collect();
                let found = guesses.iter().zip(&matched).filter(|((_, score), hit)| **hit && above(*score)).count();
                prop_assert_eq!(found, most(&kept, &came, tolerance));
            }
        }
    }

    #[test]
    fn average_precision_counts_what_was_never_guessed() {
        let mut guesses = Guesses::default();
        guesses.add(&[(1.0, 0.9), (5.0, 0.5)], &[1.1, 9.0], 0.5);
        assert_eq!(guesses.came(), 2);
        // Half of the events at a precision of 1; the second guess is wrong, the second event never found.
        assert!((guesses.average_precision() - 0.5).abs() < 1e-12);
        let mut perfect = Guesses::default();
        perfect.add(&[(1.0, 0.9), (2.0, 0.9)], &[1.0, 2.0], 0.1);
        assert_eq!(perfect.average_precision(), 1.0);
        assert!(Guesses::default().average_precision().is_nan());
    }
}
