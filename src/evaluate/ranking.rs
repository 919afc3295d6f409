//! How well a score ranks events whose label is known.

use hashbrown::{HashMap, HashSet};

use crate::base::number::f64_of_count;

/// Microseconds in a day.
const DAY: i64 = 86_400_000_000;

/// Scores with their labels: 8 bytes an event, and the best of each day.
#[derive(Clone, Debug)]
pub struct Ranking {
    k: usize,
    scored: Vec<(f32, bool)>,
    log_loss: f64,
    squares: f64,
    days: HashMap<i64, Day>,
    /// (day, hash of the key) of keys with a positive event that day.
    positive: HashSet<(i64, u64)>,
}

/// The best of one day.
#[derive(Clone, Debug, Default)]
struct Day {
    /// Highest events: (score, label), lowest first.
    events: Vec<(f32, bool)>,
    /// Keys by their highest score, lowest first.
    keys: Vec<(f32, u64)>,
}

/// What a ranking is worth.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Ranked {
    /// Events with score and label.
    pub events: usize,
    /// Of them, how many are positive.
    pub positive: usize,
    /// Mean negative log-likelihood of the labels, nats.
    pub log_loss: f64,
    /// The same of the share of positives, for all alike.
    pub log_loss_share: f64,
    /// Mean square of score less label.
    pub brier: f64,
    /// Mean precision over the positives, from the highest score down; a random order has the share of positives.
    pub average_precision: f64,
    /// Probability that a positive has a higher score than a negative.
    pub roc_auc: f64,
    /// How many a day are looked at.
    pub k: usize,
    /// Share of positives among the `k` highest events of a day, mean over days.
    pub precision_at_k_per_day: f64,
    /// Share of keys with a positive event that day among the `k` keys with the highest score of a day, mean over days.
    pub key_precision_at_k_per_day: f64,
    /// Days.
    pub days: usize,
    /// Shares of negatives, and of positives, by twentieths of the score.
    pub histogram: [Vec<f64>; 2],
}

impl Ranking {
    /// For the `k` best of each day (in UTC).
    #[must_use]
    pub fn new(k: usize) -> Self {
        Ranking { k, scored: Vec::new(), log_loss: 0.0, squares: 0.0, days: HashMap::new(), positive: HashSet::new() }
    }

    /// The scores so far, each with its label, in the order in which they came.
    #[must_use]
    pub fn scored(&self) -> &[(f32, bool)] {
        &self.scored
    }

    /// An event with its score, a probability, and its label. `time` is in microseconds.
    pub fn add(&mut self, score: f64, label: bool, time: i64, key: u64) {
        let s = crate::base::number::f32_of(score);
        self.scored.push((s, label));
        let y = f64::from(u8::from(label));
        // A score of exactly 0 or 1 that is wrong would be infinitely bad; f32 cannot tell it from the next.
        let p = score.clamp(1e-9, 1.0 - 1e-9);
        self.log_loss -= y * p.ln() + (1.0 - y) * (-p).ln_1p();
        self.squares += (score - y) * (score - y);
        let date = time.div_euclid(DAY);
        if label {
            self.positive.insert((date, key));
        }
        let day = self.days.entry(date).or_default();
        keep_best(&mut day.events, (s, label), self.k);
        if day.keys.len() < self.k || day.keys.first().is_some_and(|(least, _)| s > *least) {
            match day.keys.iter().position(|(_, own)| *own == key) {
                Some(at) if day.keys.get(at).is_some_and(|(best, _)| *best >= s) => {}
                found => {
                    found.map(|at| day.keys.remove(at));
                    keep_best(&mut day.keys, (s, key), self.k);
                }
            }
        }
    }

    /// What it is worth; `None` without events.
    #[must_use]
    pub fn close(mut self) -> Option<Ranked> {
        let events = self.scored.len();
        if events == 0 {
            return None;
        }
        let positive = self.scored.iter().filter(|(_, label)| *label).count();
        let share = f64_of_count(positive) / f64_of_count(events);
        let entropy = |p: f64| if p > 0.0 { -p * p.ln() } else { 0.0 };
        let (average_precision, roc_auc) = curves(&mut self.scored);
        let mean = |shares: &mut dyn Iterator<Item = f64>| {
            let all: Vec<f64> = shares.collect();
            all.iter().sum::<f64>() / f64_of_count(all.len())
        };
        let hits = |best: &[(f32, bool)]| f64_of_count(best.iter().filter(|(_, label)| *label).count()) / f64_of_count(best.len());
        let key_hits = |date: i64, best: &[(f32, u64)]| {
            f64_of_count(best.iter().filter(|(_, key)| self.positive.contains(&(date, *key))).count()) / f64_of_count(best.len())
        };
        let mut histogram = [vec![0.0; 20], vec![0.0; 20]];
        for (score, label) in &self.scored {
            let own = histogram.get_mut(usize::from(*label));
            let all = if *label { positive } else { events - positive };
            if let Some(bar) = own.and_then(|bars| bars.get_mut(crate::base::number::count_of(f64::from(*score) * 20.0).min(19))) {
                *bar += 1.0 / f64_of_count(all);
            }
        }
        Some(Ranked {
            events,
            positive,
            log_loss: self.log_loss / f64_of_count(events),
            log_loss_share: entropy(share) + entropy(1.0 - share),
            brier: self.squares / f64_of_count(events),
            average_precision,
            roc_auc,
            k: self.k,
            precision_at_k_per_day: mean(&mut self.days.values().map(|day| hits(&day.events))),
            key_precision_at_k_per_day: mean(&mut self.days.iter().map(|(date, day)| key_hits(*date, &day.keys))),
            days: self.days.len(),
            histogram,
        })
    }
}

/// Keeps the `k` highest, lowest first.
fn keep_best<T: Copy>(best: &mut Vec<(f32, T)>, one: (f32, T), k: usize) {
    if best.len() >= k {
        if best.first().is_none_or(|(least, _)| one.0 <= *least) {
            return;
        }
        best.remove(0);
    }
    let at = best.partition_point(|(score, _)| *score < one.0);
    best.insert(at, one);
}

/// Average precision and area under the ROC curve; equal scores share a threshold. NaN without events of both kinds.
fn curves(scored: &mut [(f32, bool)]) -> (f64, f64) {
    scored.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let positives = f64_of_count(scored.iter().filter(|(_, positive)| *positive).count());
    let negatives = f64_of_count(scored.len()) - positives;
    let (mut seen, mut found, mut precision, mut area) = (0.0, 0.0, 0.0, 0.0);
    for ties in scored.chunk_by(|a, b| a.0 == b.0) {
        let gained = f64_of_count(ties.iter().filter(|(_, positive)| *positive).count());
        let wrong = f64_of_count(ties.len()) - gained;
        area += wrong * (found + 0.5 * gained);
        seen += f64_of_count(ties.len());
        found += gained;
        precision += gained * found / seen;
    }
    (precision / positives, area / (positives * negatives))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_have_the_values_of_their_definitions() {
        let mut mixed = [(0.9, true), (0.8, false), (0.7, true), (0.6, false)];
        let (precision, area) = curves(&mut mixed);
        assert!((precision - (1.0 + 2.0 / 3.0) / 2.0).abs() < 1e-12 && (area - 0.75).abs() < 1e-12);
        let (precision, area) = curves(&mut [(0.5, true), (0.5, false), (0.5, false), (0.5, false)]);
        assert!((precision - 0.25).abs() < 1e-12 && (area - 0.5).abs() < 1e-12);
    }

    #[test]
    fn the_best_of_each_day_are_counted_by_event_and_by_key() {
        let mut ranking = Ranking::new(2);
        // Day 0: key 1 twice at the top; key 2 is positive by an event of a low score.
        for (score, label, time, key) in
            [(0.9, true, 0, 1), (0.8, false, 1, 1), (0.7, false, 2, 2), (0.1, true, 3, 2), (0.6, false, 4, 3), (0.5, true, DAY, 4)]
        {
            ranking.add(score, label, time, key);
        }
        let ranked = ranking.close().unwrap();
        assert_eq!((ranked.events, ranked.positive, ranked.days), (6, 3, 2));
        // Day 0: 1 of 2 events, both keys; day 1: the only event and its key.
        assert!((ranked.precision_at_k_per_day - 0.75).abs() < 1e-12, "{ranked:?}");
        assert!((ranked.key_precision_at_k_per_day - 1.0).abs() < 1e-12);
        assert!(
            (ranked.histogram[0].iter().sum::<f64>() - 1.0).abs() < 1e-12 && (ranked.histogram[1].iter().sum::<f64>() - 1.0).abs() < 1e-12
        );
        assert!(Ranking::new(3).close().is_none());
    }
}
