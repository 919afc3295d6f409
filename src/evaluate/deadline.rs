//! Forecasts that something happens by a deadline, and whether it did.
//!
//! Only deadlines that the data reaches count, whatever happened before: to count an event that came early, but not the silence whose end is
//! beyond the data, would make every forecast look too careful.

use crate::base::number::f64_of_count;

/// Outcomes that wait until the data has reached their deadline are settled when there are so many.
const WAITING: usize = 1 << 18;
/// Bars of the reliability curve.
const BARS: usize = 20;

/// Sums over forecasts of one kind.
#[derive(Clone, Debug, Default)]
pub struct Deadlines {
    waiting: Vec<Outcome>,
    sums: Sums,
}

#[derive(Clone, Copy, Debug)]
struct Outcome {
    deadline: i64,
    p: f64,
    came: bool,
}

/// What is known of the forecasts whose deadline the data has reached.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    /// Forecasts.
    pub count: usize,
    /// Of these, how often it happened.
    pub came: usize,
    p: f64,
    squares: f64,
    /// (forecasts, sum of p, how often it happened) by twentieths of p.
    bars: [(usize, f64, usize); BARS],
}

impl Sums {
    fn add(&mut self, outcome: Outcome) {
        let y = f64::from(u8::from(outcome.came));
        self.count += 1;
        self.came += usize::from(outcome.came);
        self.p += outcome.p;
        self.squares += (outcome.p - y) * (outcome.p - y);
        let bar = crate::base::number::count_of(outcome.p * f64_of_count(BARS)).min(BARS - 1);
        if let Some(bar) = self.bars.get_mut(bar) {
            *bar = (bar.0 + 1, bar.1 + outcome.p, bar.2 + usize::from(outcome.came));
        }
    }

    /// How often it happened, as a share.
    #[must_use]
    pub fn rate(&self) -> f64 {
        f64_of_count(self.came) / f64_of_count(self.count)
    }

    /// Mean probability.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.p / f64_of_count(self.count)
    }

    /// Brier's score: mean square of probability less outcome (Brier 1950); 0 is perfect.
    #[must_use]
    pub fn brier(&self) -> f64 {
        self.squares / f64_of_count(self.count)
    }

    /// (mean probability, share that happened, forecasts) by twentieths of the probability, without empty ones.
    #[must_use]
    pub fn reliability(&self) -> Vec<(f64, f64, usize)> {
        let filled = self.bars.iter().filter(|(count, ..)| *count > 0);
        filled.map(|(count, p, came)| (p / f64_of_count(*count), f64_of_count(*came) / f64_of_count(*count), *count)).collect()
    }
}

impl Deadlines {
    /// A forecast with probability `p` for a deadline, of which is known that it came true by then, or that it did not. `clock`: how far the data
    /// has come.
    pub fn add(&mut self, deadline: i64, p: f64, came: bool, clock: i64) {
        let outcome = Outcome { deadline, p, came };
        if deadline <= clock {
            self.sums.add(outcome);
            return;
        }
        if self.waiting.len() >= WAITING.max(2 * self.waiting.capacity() / 3) {
            self.settle(clock);
        }
        self.waiting.push(outcome);
    }

    fn settle(&mut self, clock: i64) {
        let sums = &mut self.sums;
        self.waiting.retain(|outcome| {
            if outcome.deadline <= clock {
                sums.add(*outcome);
            }
            outcome.deadline > clock
        });
    }

    /// The sums, once the data has ended.
    #[must_use]
    pub fn close(mut self, end: i64) -> Sums {
        self.settle(end);
        self.sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_deadlines_within_the_data_count() {
        let mut deadlines = Deadlines::default();
        deadlines.add(10, 0.8, true, 5);
        deadlines.add(10, 0.6, false, 12);
        deadlines.add(99, 1.0, true, 20);
        let sums = deadlines.close(50);
        assert_eq!((sums.count, sums.came), (2, 1));
        assert!((sums.mean() - 0.7).abs() < 1e-15 && (sums.brier() - 0.5 * (0.04 + 0.36)).abs() < 1e-15);
        assert_eq!(sums.reliability().len(), 2);
    }

    #[test]
    fn waiting_ones_are_settled_on_the_way() {
        let mut deadlines = Deadlines::default();
        for i in 0..2_000_000_i64 {
            deadlines.add(i + 10, 0.5, true, i);
        }
        assert!(deadlines.waiting.len() < 4 * WAITING);
        assert_eq!(deadlines.close(i64::MAX).count, 2_000_000);
    }
}
