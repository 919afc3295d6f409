//! The law of the next mark: a softmax.

use super::elementary::{exp_falling, ln};
use super::mixture::{LANES, total};
use crate::base::number::{f32_of, u32_of};
use crate::data::forecasts::MarkChance;

/// Most likely marks, and how surprising one was.
#[derive(Clone, Debug)]
pub(super) struct Marks {
    /// How many of the likeliest.
    top: usize,
    /// (logit, mark), likeliest first.
    best: Vec<(f32, u32)>,
}

/// Largest logit, and the sum of e^(logit - largest).
struct Scale {
    highest: f64,
    sum: f64,
}

impl Marks {
    /// For the `top` likeliest marks of each row.
    pub(super) fn new(top: usize) -> Self {
        Marks { top, best: Vec::with_capacity(top) }
    }

    /// Entries per row.
    pub(super) fn top(&self) -> usize {
        self.top
    }

    /// -ln p of `mark` in nats; `None` if it is out of range.
    pub(super) fn surprise(logits: &[f32], mark: usize) -> Option<f64> {
        let logit = f64::from(*logits.get(mark)?);
        let scale = scale(logits);
        Some((scale.highest - logit + ln(scale.sum)).max(0.0))
    }

    /// Sets `into` to the probability of each mark.
    pub(super) fn chances(logits: &[f32], into: &mut Vec<f64>) {
        let scale = scale(logits);
        into.clear();
        into.extend(logits.iter().map(|logit| exp_falling(f64::from(*logit) - scale.highest) / scale.sum));
    }

    /// Appends the `top` likeliest marks, likeliest first and of equals the one that stands first. The probabilities are rounded down, so
    /// that they never sum to more than 1.
    pub(super) fn likeliest(&mut self, logits: &[f32], into: &mut Vec<MarkChance>) {
        self.best.clear();
        if self.top == 0 {
            return;
        }
        for (mark, logit) in logits.iter().enumerate() {
            let full = self.best.len() == self.top;
            if full && self.best.last().is_some_and(|(least, _)| logit <= least) {
                continue;
            }
            if full {
                self.best.pop();
            }
            let at = self.best.partition_point(|(other, _)| other >= logit);
            self.best.insert(at, (*logit, u32_of(mark)));
        }
        let scale = scale(logits);
        into.extend(self.best.iter().map(|(logit, mark)| {
            let p = exp_falling(f64::from(*logit) - scale.highest) / scale.sum;
            let rounded = f32_of(p);
            MarkChance { mark: *mark, p: if f64::from(rounded) > p { rounded.next_down() } else { rounded } }
        }));
    }

    /// Appends entries without a probability: their `p` is NaN, which stands for null.
    pub(super) fn none(&self, into: &mut Vec<MarkChance>) {
        into.extend((0..self.top).map(|mark| MarkChance { mark: u32_of(mark), p: f32::NAN }));
    }
}

fn scale(logits: &[f32]) -> Scale {
    let highest = logits.iter().fold(f32::MIN, |a, b| if *b > a { *b } else { a });
    let highest = f64::from(highest);
    let mut sum = [0.0; LANES];
    let mut add = |block: &[f32; LANES]| {
        for (sum, logit) in sum.iter_mut().zip(block) {
            *sum += exp_falling(f64::from(*logit) - highest);
        }
    };
    let (blocks, rest) = logits.as_chunks::<LANES>();
    blocks.iter().for_each(&mut add);
    if !rest.is_empty() {
        let mut last = [f32::NEG_INFINITY; LANES];
        last.iter_mut().zip(rest).for_each(|(lane, logit)| *lane = *logit);
        add(&last);
    }
    Scale { highest, sum: total(sum) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn likeliest(logits: &[f32], top: usize) -> Vec<MarkChance> {
        let mut into = Vec::new();
        Marks::new(top).likeliest(logits, &mut into);
        into
    }

    #[test]
    fn the_likeliest_come_first_and_of_equals_the_first() {
        let marks: Vec<u32> = likeliest(&[0.0, 2.0, -1.0, 2.0, 0.0, 5.0], 4).iter().map(|c| c.mark).collect();
        assert_eq!(marks, [5, 1, 3, 0]);
        assert!(likeliest(&[1.0], 0).is_empty());
    }

    #[test]
    fn probabilities_are_the_softmax_and_never_sum_above_one() {
        for n in 1..40 {
            let logits: Vec<f32> = (0..n).map(|i| ((i * 37) % 11) as f32 * 0.3 - 1.0).collect();
            let chances = likeliest(&logits, n);
            let sum: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
            for c in &chances {
                let expected = f64::from(logits[c.mark as usize]).exp() / sum;
                assert!((f64::from(c.p) - expected).abs() < 1.3e-7 * expected, "{c:?} {expected}");
                let surprise = Marks::surprise(&logits, c.mark as usize).unwrap();
                assert!((surprise + expected.ln()).abs() < 1e-14);
            }
            let all: f64 = chances.iter().map(|c| f64::from(c.p)).sum();
            assert!(all <= 1.0 && all > 0.999_99, "{n} marks sum to {all}");
        }
    }

    #[test]
    fn extreme_logits_give_finite_surprises_and_probabilities() {
        let logits = [1e30, -1e30, f32::MAX, f32::MIN, 0.0];
        for mark in 0..5 {
            assert!(Marks::surprise(&logits, mark).unwrap().is_finite());
        }
        let chances = likeliest(&logits, 5);
        assert_eq!((chances[0], chances[4].mark), (MarkChance { mark: 2, p: 1.0 }, 3));
        assert!(chances.iter().all(|c| c.p.is_finite()));
        assert_eq!(Marks::surprise(&logits, 5), None);
    }
}
