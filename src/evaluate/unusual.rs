//! How unusual an event is for its key, from 0 to 1: the surprise of its time and its value together, against what that key's surprises are like.
//!
//! A law may fit one key better than another, and surprises are densities in units: so they are compared within a key. With s = `surprise_time` +
//! `surprise_value` (one that is null counts as nothing; `CAP` at most above the key's mean), m and d mean and standard deviation of the key's earlier s, which forget half in
//! `MEMORY` events, z = (s - m) / d, and p the highest earlier z, which fades by half in `FADING` events:
//!
//! score = 1 - e^-(z - p), or 0 where z < p.
//!
//! The running tail is that of anomaly likelihood (Lavin and Ahmad, "Evaluating Real-time Anomaly Detection Algorithms", ICMLA 2015), with an exponential tail in place of a normal one, so
//! that scores do not run into 1. The fading peak is what makes one alarm of a disturbance that lasts, where each of its events is as surprising.
//! Five numbers per key; nothing of an event is used but what its forecast row says.

use hashbrown::HashMap;

use crate::data::forecasts::Forecasts;

/// Events after which a surprise counts half in what a key's surprises are like.
const MEMORY: f64 = 1000.0;
/// Events in which the highest z fades by half.
const FADING: f64 = 100.0;
/// Weight of a key's events before it is scored: ten, the first of which have faded a little.
const FEWEST: f64 = 9.9;
/// Most that a surprise may lie above the key's mean, in nats: beyond it, it says no more, and one reading must not set what is usual.
const CAP: f64 = 30.0;
/// Smallest variance of the surprises.
const FLOOR: f64 = 0.05;

/// What is known of one key.
#[derive(Clone, Copy, Debug, Default)]
struct Usual {
    weight: f64,
    mean: f64,
    squares: f64,
    peak: f64,
}

/// Scores of events, key by key in order of time.
#[derive(Clone, Debug, Default)]
pub struct Unusual {
    keys: HashMap<Box<[u8]>, Usual>,
}

impl Unusual {
    /// The score of a row's event, which is then taken in. `None` where it has no surprise, and for the first events of a key.
    pub fn score(&mut self, forecasts: &Forecasts, row: usize) -> Option<f64> {
        let own = |column: &[f64]| column.get(row).copied().filter(|surprise| surprise.is_finite());
        let (time, value) = (own(&forecasts.surprise_time), own(&forecasts.surprise_value));
        let surprise = time.or(value).map(|_| time.unwrap_or(0.0) + value.unwrap_or(0.0))?;
        self.keys.entry_ref(forecasts.keys.bytes_at(row)).or_default().take(surprise)
    }
}

impl Usual {
    fn take(&mut self, surprise: f64) -> Option<f64> {
        let surprise = if self.weight > 0.0 { surprise.min(self.mean + CAP) } else { surprise };
        let deviation = (self.squares / self.weight.max(1.0) + FLOOR).sqrt();
        let z = (surprise - self.mean) / deviation;
        let known = self.weight >= FEWEST;
        let score = known.then(|| -(-(z - self.peak).max(0.0)).exp_m1());
        if known {
            self.peak = (self.peak * (-1.0 / FADING).exp2()).max(z);
        }
        let keep = (-1.0 / MEMORY).exp2();
        self.weight = keep * self.weight + 1.0;
        let off = surprise - self.mean;
        self.mean += off / self.weight;
        self.squares = keep * self.squares + off * (surprise - self.mean);
        score
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disturbance_is_one_alarm_and_what_is_usual_is_none() {
        let mut usual = Usual::default();
        let calm = |i: usize| 1.0 + 0.5 * f64::from(u8::from(i.is_multiple_of(3)));
        for i in 0..500 {
            let score = usual.take(calm(i));
            assert_eq!(score.is_some(), i >= 10);
            assert!(i < 20 || score.unwrap() < 0.9, "{i}: {score:?}");
        }
        assert!(usual.take(9.0).unwrap() > 0.999_999);
        assert!((0..5).all(|_| usual.take(9.0).unwrap() < 0.5), "the same once more is no news");
        // A level that stays is usual in the end, and rarer things are scored again.
        let mut after: Vec<f64> = (0..5000).map(|i| usual.take(8.0 + calm(i)).unwrap()).collect();
        assert!(after.split_off(1000).iter().all(|score| *score < 0.99));
        assert!(usual.take(20.0).unwrap() > 0.999);
    }

    #[test]
    fn events_without_a_surprise_have_no_score_and_keys_do_not_mix() {
        let mut forecasts = Forecasts::default();
        let mut unusual = Unusual::default();
        for i in 0..40 {
            forecasts.keys.push(if i % 2 == 0 { b"a" } else { b"b" });
            forecasts.surprise_time.push(if i % 4 == 0 { f64::NAN } else { 0.5 });
            forecasts.surprise_value.push(if i % 2 == 0 { f64::NAN } else { -2.0 });
        }
        let scores: Vec<bool> = (0..40).map(|row| unusual.score(&forecasts, row).is_some()).collect();
        assert!((0..40).all(|i| scores[i] == (i % 2 == 1 && i > 20)), "{scores:?}");
    }
}
