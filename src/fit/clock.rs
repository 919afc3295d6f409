//! What the clock of a history shows of the gaps: how short they can be told, and whether it is so coarse that likelihoods must be those of its ticks.

use super::history::Part;
use super::read::Seen;
use crate::base::number::f64_of_count;
use crate::base::time::{Gap, TimeUnit};
use crate::pipeline::plan::FitPlan;

/// Width of the tick that a perfectly regular stream is given, as a share of its gap, if its clock is finer than that.
const WIDTH: f64 = 0.01;
/// With a resolution, the smallest gap as a share of it: small enough for a gap of zero to be the tick that begins at zero.
const ZERO_GAP: f64 = 1e-6;
/// Ticks that are looked for, in microseconds, each with its name as `resolution` has it.
const TICKS: [(i64, &str); 4] = [(86_400_000_000, "1d"), (3_600_000_000, "1h"), (60_000_000, "1m"), (1_000_000, "1s")];
/// The shortest tick that is taken unasked: gaps of shorter ones are more often those of the events than of the clock.
const UNASKED: Gap = Gap(60_000_000);
/// Share of the gaps that must be whole ticks: a few are cut by a summer time or a row that was mended by hand.
const WHOLE: f64 = 0.99;
/// Share of gaps of 0 from which on events of one tick are no accident.
const FREQUENT: f64 = 0.01;
/// Half of the gaps within so many ticks: the clock cuts the law into so few steps that a density says little of it.
const FEW: f64 = 20.0;
/// Fewest gaps of more than 0 that say something of the clock.
const FEWEST: usize = 20;

/// A clock that shows whole days, hours, minutes or seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coarse {
    /// Its tick.
    pub tick: Gap,
    /// The tick as `resolution` has it.
    name: &'static str,
    /// Share of gaps of 0.
    zeros: f64,
}

impl Coarse {
    /// What the gaps of the train split say of the clock. Of the gaps and not of the times: midnights of another zone than UTC are a day apart all the same.
    #[must_use]
    pub fn of(seen: &Seen) -> Option<Coarse> {
        let train = seen.gaps.iter().zip(&seen.parts).filter(|(_, part)| **part == Part::Train);
        Coarse::of_gaps(&mut train.filter_map(|(gap, _)| gap.map(|gap| gap.0)).collect::<Vec<i64>>())
    }

    fn of_gaps(gaps: &mut [i64]) -> Option<Coarse> {
        gaps.sort_unstable();
        let (none, some) = gaps.split_at(gaps.partition_point(|gap| *gap <= 0));
        let zeros = f64_of_count(none.len()) / f64_of_count(gaps.len().max(1));
        let median = gaps.get(gaps.len() / 2).copied().unwrap_or(0);
        let is_whole = |tick: i64| f64_of_count(some.iter().filter(|gap| *gap % tick == 0).count()) >= WHOLE * f64_of_count(some.len());
        let (tick, name) = TICKS.into_iter().find(|(tick, _)| is_whole(*tick)).filter(|_| some.len() >= FEWEST)?;
        let few = zeros >= FREQUENT || Gap(median).seconds() <= FEW * Gap(tick).seconds();
        few.then_some(Coarse { tick: Gap(tick), name, zeros })
    }

    /// Whether likelihoods are those of its ticks without being asked for: where events of one tick are frequent, a density would be that of the clock.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.tick >= UNASKED && self.zeros >= FREQUENT
    }

    /// What to tell the user.
    fn note(&self) -> String {
        let Coarse { name, zeros, .. } = self;
        let zeros = format!("{:.1} % of the gaps are 0", 100.0 * zeros);
        if self.is_taken() {
            format!(
                "Nearly all gaps are whole multiples of {name}, and {zeros}: the law is one of ticks of {name}, as with `resolution = \"{name}\"` in [fit]. Name another \
                 `resolution` there if that is not the clock's tick."
            )
        } else {
            format!(
                "Nearly all gaps are whole multiples of {name}, and {zeros}. If that is the clock and not the events, set `resolution = \"{name}\"` in [fit]: \
                 likelihoods are then those of its ticks; the densities of this law are in part those of the clock, and what it says within a tick means nothing."
            )
        }
    }
}

/// How gaps are floored and, for a coarse clock, how wide its tick is; all in the law's unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clock {
    /// No gap is taken as shorter.
    pub min_gap: f64,
    /// Width of a tick.
    pub resolution: Option<f64>,
    /// Smallest gap whose logarithm is a feature.
    pub floor: f64,
}

impl Clock {
    /// The clock as `[fit]` says or, without that, as the gaps show it; and what to tell the user of it.
    #[must_use]
    pub fn of(fit: &FitPlan, tick: Gap, coarse: Option<Coarse>, unit: TimeUnit, gaps: &[f64]) -> (Self, Option<String>) {
        let asked = fit.resolution.map(|width| width.in_unit(unit));
        let taken = coarse.filter(Coarse::is_taken).map(|coarse| coarse.tick.in_unit(unit));
        let same = || regular(gaps).map(|gap| tick.in_unit(unit).max(gap * WIDTH));
        let note = match (asked, taken, same()) {
            (Some(_), ..) => None,
            (None, None, Some(width)) if regular(gaps) == Some(0.0) => Some(format!(
                "More than half of all gaps are 0, so the law is one of ticks of {} s: a density would have no bound there. If these are the same events sent twice, leave them \
                 out; if the clock is coarse, set `resolution` in [fit] to its tick.",
                width * unit.seconds()
            )),
            (None, None, Some(_)) => None,
            (None, ..) => coarse.map(|coarse| coarse.note()),
        };
        let clock = match asked.or(taken).or_else(same) {
            Some(width) => Clock { min_gap: width * ZERO_GAP, resolution: Some(width), floor: width * 0.5 },
            None => Clock { min_gap: tick.in_unit(unit), resolution: None, floor: tick.in_unit(unit) },
        };
        (clock, note)
    }
}

/// The gap that more than half of all gaps are, exactly, if there is one. The density of such a law would have no bound: it would grow with every step of
/// training and drown what else is fitted. So it is then a law of a coarse clock.
fn regular(gaps: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = gaps.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.get(sorted.len() / 2).copied()?;
    // What more than half of the numbers are, their median is; sums of seconds in days differ in the last bits.
    let same = |gap: &&f64| (**gap - middle).abs() <= 1e-9 * middle;
    (2 * sorted.iter().filter(same).count() > sorted.len()).then_some(middle)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000;

    #[test]
    fn days_are_taken_as_ticks_where_events_of_one_day_are_frequent_and_else_are_told() {
        let days = |zeros: i64| (0..1000).map(|i| if i < zeros { 0 } else { DAY * (1 + i % 9) }).collect::<Vec<i64>>();
        let coarse = |mut gaps: Vec<i64>| Coarse::of_gaps(&mut gaps);
        let taken = coarse(days(300)).unwrap();
        assert!(taken.is_taken() && taken.tick == Gap(DAY) && taken.note().contains("30.0 % of the gaps are 0"), "{taken:?}");
        let told = coarse(days(0)).unwrap();
        assert!(!told.is_taken() && told.note().contains("set `resolution = \"1d\"`"), "{told:?}");
        // A clock of seconds is told, not taken; one of microseconds and one of days whose gaps are years are neither.
        let seconds = coarse(days(300).iter().map(|gap| gap / 86_400).collect()).unwrap();
        assert!(!seconds.is_taken() && seconds.tick == Gap(1_000_000));
        assert_eq!(coarse(days(300).iter().map(|gap| gap / 86_400 * 7 / 1_000_003).collect()), None);
        assert_eq!(coarse(days(0).iter().map(|gap| gap * 365).collect()), None);
        // One gap in two hundred that a summer time has cut changes nothing, one in ten does.
        let cut = |every: usize| {
            days(300).iter().enumerate().map(|(i, gap)| gap - if i % every == 0 && *gap > 0 { DAY / 24 } else { 0 }).collect()
        };
        assert_eq!(coarse(cut(200)).unwrap().tick, Gap(DAY));
        assert_eq!(coarse(cut(10)).unwrap().tick, Gap(DAY / 24));
    }

    #[test]
    fn gaps_of_which_more_than_half_are_the_same_are_regular_also_at_zero() {
        assert_eq!(regular(&[3.0, 3.0, 3.0, 1.0, 7.0]), Some(3.0));
        assert_eq!(regular(&[0.0, 0.0, 0.0, 1.0, 7.0]), Some(0.0));
        assert_eq!(regular(&[0.0, 0.0, 2.0, 1.0, 7.0]), None);
        assert_eq!(regular(&[]), None);
    }
}
