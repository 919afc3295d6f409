//! Calibration of quantiles on held-back events: at which level a law has to be asked, so that events come by the answer as often as was meant.
//!
//! With u = F(gap) the level at which an event came, of n exchangeable ones, the next event comes by the ceil((n + 1) q)-th smallest level with a
//! probability of at least q, and at most q + 1 / (n + 1) without ties, whatever the law: split conformal prediction with u as the score. Sources:
//! V. Vovk, A. Gammerman, G. Shafer, *Algorithmic Learning in a Random World*, 2005; V. Chernozhukov, K. Wüthrich, Y. Zhu, "Distributional conformal
//! prediction", 2021 (the score u); Y. Romano, E. Patterson, E. J. Candès, "Conformalized quantile regression", 2019. Events of a stream are not quite
//! exchangeable, so what it is worth is measured on later ones.
//!
//! Gaps that were open when the data ended: at a level v only laws count whose v-quantile lies within the data, whatever happened before, as everywhere
//! where coverage is told (`evaluate::deadline`): else events that came early would count and those that did not come would not.

use crate::base::error::{Error, Kind, Result};
use crate::base::number::{count_of, f64_of, f64_of_count};
use crate::data::law::LevelMap;

/// Fewest events that came.
pub const FEWEST: usize = 100;
/// Points of the map besides the levels that are asked for: every half of a percent.
const STEPS: i64 = 200;
/// And in the tails.
const TAILS: [f64; 4] = [0.001, 0.002, 0.998, 0.999];
/// Levels are rounded up to this: a shorter file, and never less cover.
const ROUNDING: f64 = 1e9;

/// A law that was published, and what came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// The level at which the event came; `None` if the data ended before.
    pub came: Option<f64>,
    /// The level at which the data ended.
    pub end: f64,
}

/// The map of levels.
///
/// # Errors
/// Fewer than 100 events came.
pub fn fit(outcomes: &[Outcome], asked: &[f64]) -> Result<LevelMap> {
    let sorted = Sorted::of(outcomes);
    if sorted.came.len() < FEWEST {
        let text = format!("{} events came after a law that counts; at least {FEWEST} are needed", sorted.came.len());
        return Err(Error::new(Kind::Data, "calibrate", text).help("give more history with --from, or widen --since and --where"));
    }
    let mut map = LevelMap { at: Vec::new(), gives: Vec::new() };
    let mut candidates = sorted.came.iter().copied().peekable();
    for q in grid(asked) {
        let enough = |level: f64| {
            let (laws, by) = sorted.counts(level);
            by >= needed(laws, q)
        };
        while candidates.peek().is_some_and(|level| !enough(*level)) {
            candidates.next();
        }
        // Beyond the last level that so many events bear out nothing is said: the line to (1, 1).
        let Some(level) = candidates.peek() else { break };
        map.at.push(q);
        map.gives.push(((level * ROUNDING).ceil() / ROUNDING).min(1.0));
    }
    Ok(map)
}

/// ceil((n + 1) q), but for rounding: 0.1 in binary is a little more than a tenth.
fn needed(n: usize, q: f64) -> usize {
    count_of(((f64_of_count(n) + 1.0) * q - 1e-9).ceil())
}

/// The levels of the map.
fn grid(asked: &[f64]) -> Vec<f64> {
    let mut levels: Vec<f64> = (1..STEPS).map(|i| f64_of(i) / f64_of(STEPS)).chain(TAILS).chain(asked.iter().copied()).collect();
    levels.retain(|level| *level > 0.0 && *level < 1.0);
    levels.sort_by(f64::total_cmp);
    levels.dedup();
    levels
}

/// Largest difference, over the levels from 1 to 99 percent, between a level and how often events came by the quantile that stands for it, through a map if
/// there is one: the distance of Kolmogorov and Smirnov from the uniform law, where data does not end.
#[must_use]
pub fn distance(outcomes: &[Outcome], map: Option<&LevelMap>) -> f64 {
    let sorted = Sorted::of(outcomes);
    let off = |q: f64| {
        let (laws, by) = sorted.counts(map.map_or(q, |map| map.level(q)));
        (f64_of_count(by) / f64_of_count(laws) - q).abs()
    };
    (1..100).map(|i| off(f64_of(i) / 100.0)).filter(|off| !off.is_nan()).fold(f64::NAN, f64::max)
}

/// Levels of outcomes in order.
struct Sorted {
    came: Vec<f64>,
    ends: Vec<f64>,
    /// Ends of those laws whose event came.
    ends_of_came: Vec<f64>,
}

impl Sorted {
    fn of(outcomes: &[Outcome]) -> Self {
        let sorted = |values: &mut dyn Iterator<Item = f64>| {
            let mut all: Vec<f64> = values.collect();
            all.sort_by(f64::total_cmp);
            all
        };
        // An event lies within the data, however its level was rounded.
        let end = |outcome: &Outcome| outcome.came.map_or(outcome.end, |came| came.max(outcome.end));
        Sorted {
            came: sorted(&mut outcomes.iter().filter_map(|outcome| outcome.came)),
            ends: sorted(&mut outcomes.iter().map(end)),
            ends_of_came: sorted(&mut outcomes.iter().filter(|outcome| outcome.came.is_some()).map(end)),
        }
    }

    /// Of the laws whose quantile of this level lies within the data: how many there are, and by how many of the quantiles an event came.
    fn counts(&self, level: f64) -> (usize, usize) {
        let below = |sorted: &[f64]| sorted.partition_point(|other| *other < level);
        let by = self.came.partition_point(|other| *other <= level);
        // Whose data ended before the level and whose event came has come before that.
        (self.ends.len() - below(&self.ends), by - below(&self.ends_of_came))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Levels whose law is u^2: too many are high. Data that ends at level `ends` for a share of the laws.
    fn outcomes(n: usize, seed: u64, ends: f64) -> Vec<Outcome> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        (0..n)
            .map(|_| {
                let u = random.random::<f64>().sqrt();
                let end = if random.random::<f64>() < ends { random.random::<f64>() } else { 1.0 };
                Outcome { came: (u <= end).then_some(u), end }
            })
            .collect()
    }

    fn covered(outcomes: &[Outcome], level: f64) -> f64 {
        let within: Vec<_> = outcomes.iter().filter(|outcome| outcome.end >= level).collect();
        within.iter().filter(|outcome| outcome.came.is_some_and(|came| came <= level)).count() as f64 / within.len() as f64
    }

    #[test]
    fn later_outcomes_are_covered_as_often_as_was_asked_for_also_where_the_data_ends() {
        for ends in [0.0, 0.5] {
            let map = fit(&outcomes(20_000, 1, ends), &[0.333]).unwrap();
            assert_eq!(map.fault(), None);
            let later = outcomes(40_000, 2, ends);
            for q in [0.05, 0.1, 0.333, 0.5, 0.9, 0.95] {
                let (before, after) = (covered(&later, q), covered(&later, map.level(q)));
                assert!((after - q).abs() < 0.012 && (before - q * q).abs() < 0.012, "{ends} {q}: {before} {after}");
            }
        }
        for ends in [0.0, 0.5] {
            assert!((distance(&outcomes(40_000, 2, ends), None) - 0.25).abs() < 0.01, "of u^2 from u");
        }
        let map = fit(&outcomes(20_000, 1, 0.0), &[]).unwrap();
        assert!(distance(&outcomes(40_000, 2, 0.0), Some(&map)) < 0.015);
    }

    #[test]
    fn what_is_right_is_left_nearly_as_it_is() {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let outcomes: Vec<_> = (0..20_000).map(|_| Outcome { came: Some(random.random()), end: 1.0 }).collect();
        let map = fit(&outcomes, &[]).unwrap();
        assert!((1..100).all(|i| (map.level(f64::from(i) / 100.0) - f64::from(i) / 100.0).abs() < 0.012));
    }

    #[test]
    fn the_map_goes_as_far_as_events_bear_it_out() {
        let few: Vec<_> = (0..150).map(|i| Outcome { came: Some((f64::from(i) + 0.5) / 150.0), end: 1.0 }).collect();
        let map = fit(&few, &[]).unwrap();
        // ceil(151 q) <= 150 up to 0.99.
        assert_eq!(map.at.last(), Some(&0.99));
        assert!(fit(few.get(..50).unwrap(), &[]).unwrap_err().to_string().contains("50 events came"));
    }

    proptest! {
        #[test]
        fn a_level_is_the_order_statistic_that_conformal_prediction_takes(levels in prop::collection::vec(0.0..1.0f64, 100..300), q in 0.01..0.99f64) {
            let outcomes: Vec<_> = levels.iter().map(|u| Outcome { came: Some(*u), end: 1.0 }).collect();
            let map = fit(&outcomes, &[q]).unwrap();
            let mut sorted = levels.clone();
            sorted.sort_by(f64::total_cmp);
            let place = ((levels.len() as f64 + 1.0) * q - 1e-9).ceil() as usize;
            if place <= levels.len() {
                prop_assert!((map.level(q) - sorted[place.max(1) - 1]).abs() <= 1.0 / ROUNDING);
            }
            prop_assert_eq!(map.fault(), None);
        }
    }
}
