//! One row of parameters to the columns of a forecast, for any law.

use super::elementary::{exp, ln, ln_1p};
use super::law::{Law, RARELY, Reach, Time};
use super::marks::Marks;
use super::value::{self, NO_VALUE, ValueLaw};
use super::{Arrivals, Asks, Drawn, add_flags};
use crate::base::number::{f32_of, i64_of, index, u32_of};
use crate::base::time::{EventTime, Gap, TimeUnit};
use crate::data::flags::Flags;
use crate::data::forecasts::Forecasts;
use crate::data::law::{LawSpec, LevelMap};
use crate::data::outputs::Outputs;

/// What the package says of the clock; checked by `Head::new`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// Unit of gaps, densities and intensities.
    pub(super) unit: TimeUnit,
    /// Gaps are not taken as smaller, in units.
    pub(super) min_gap: f64,
    /// Width of a clock tick, in units.
    pub(super) resolution: Option<f64>,
}

impl Clock {
    /// Up to where an event may have come that the clock shows within this gap: of a coarse one the end of the last tick that it may show.
    fn end(&self, gap: f64) -> f64 {
        /// What divisions leave of a whole number of ticks.
        const ROUNDED: f64 = 1.0 + 1e-12;
        self.resolution.map_or(gap, |width| width * ((gap / width * ROUNDED).floor() + 0.5))
    }
}

/// A head that gives a law of the next event's time.
pub(super) trait Timed: std::fmt::Debug + Send {
    /// Appends a row per arrival to the columns that a head fills.
    fn forecasts(&mut self, arrivals: &Arrivals<'_>, outputs: &Outputs, into: &mut Forecasts);

    /// How far out each arrival is under the law in its row of this width, see `Head::surprises`.
    fn surprises(&mut self, arrivals: &Arrivals<'_>, rows: &[f32], width: usize) -> Vec<[f64; 3]>;

    /// Draws the next event of each row, see `Head::samples`.
    fn samples(&mut self, rows: &[f32], uniform: &mut dyn FnMut(usize) -> f64, into: &mut Drawn);

    /// Hazard (per unit) and compensator of a row's law at each gap; empty if the row is not that of a law.
    fn curve(&mut self, row: &[f32], gaps: &[Gap]) -> Vec<(f64, f64)>;

    /// Whether it also gives a law of the value.
    fn has_value(&self) -> bool;
}

/// The columns of one law.
#[derive(Debug)]
pub(super) struct Columns<L> {
    law: L,
    value: Option<ValueLaw>,
    clock: Clock,
    marks: Marks,
    /// Whether the package names marks.
    has_marks: bool,
    /// How far the law of the next event is asked.
    reach: Reach,
    horizons: Vec<Time>,
    /// Compensators of the quantiles.
    targets: Vec<f64>,
    /// Which probability a level of the law stands for, where that was corrected.
    levels: Option<LevelMap>,
    micros_per_unit: f64,
    /// Gap at which `intensity_now` is taken: `min_gap`, or half a clock tick. At 0 itself the hazard of some laws is 0 or infinite.
    now: Time,
    quantiles: Vec<f64>,
    intensities: Vec<f64>,
    chances: Vec<f64>,
    logits: Vec<f32>,
}

/// How surprising an arrival was; NaN stands for null.
#[derive(Clone, Copy, Debug)]
struct Surprise {
    time: f64,
    mark: f64,
    residual: f64,
    value: value::Arrived,
    flags: Flags,
}

const NO_SURPRISE: Surprise = Surprise { time: f64::NAN, mark: f64::NAN, residual: f64::NAN, value: NO_VALUE, flags: Flags::NONE };

/// Arrivals whose laws are prepared together: enough to amortise a run of the second graph, few enough for their panels to stay in the cache.
const BLOCK: usize = 64;

impl<L: Law> Columns<L> {
    /// For checked settings and asks, whose quantiles are levels of the law: the calibration in `spec` has been asked for them.
    pub(super) fn new(law: L, clock: Clock, asks: &Asks, spec: &LawSpec, value: Option<ValueLaw>) -> Self {
        let now = clock.resolution.map_or(clock.min_gap, |width| 0.5 * width);
        let horizons: Vec<Time> = asks.horizons.iter().map(|horizon| Time::of(clock.end(horizon.in_unit(clock.unit)))).collect();
        let targets: Vec<f64> = asks.quantiles.iter().map(|q| 0.0 - ln_1p(-q)).collect();
        // The chances of the marks take nearly all of the law.
        let marks = if asks.marks > 0 { -ln(RARELY) } else { 0.0 };
        let target = targets.iter().copied().fold(marks, f64::max);
        let gap = horizons.iter().fold(now, |far, horizon| far.max(horizon.tau));
        Columns {
            law,
            value,
            clock,
            marks: Marks::new(asks.marks),
            has_marks: !spec.marks.is_empty(),
            reach: Reach::Compensator { target, gap },
            horizons,
            targets,
            levels: spec.quantile_calibration.clone(),
            micros_per_unit: clock.unit.seconds() * 1e6,
            now: Time::of(now),
            quantiles: Vec::new(),
            intensities: Vec::new(),
            chances: Vec::new(),
            logits: Vec::new(),
        }
    }

    /// Parameters of the time, logits of the marks, parameters of the value.
    fn split<'a>(&self, row: &'a [f32]) -> (&'a [f32], &'a [f32], &'a [f32]) {
        let (time, rest) = row.split_at_checked(self.law.width()).unwrap_or((row, &[]));
        let of_value = self.value.as_ref().map_or(0, ValueLaw::width);
        let (logits, value) = rest.split_at_checked(rest.len().saturating_sub(of_value)).unwrap_or((rest, &[]));
        (time, logits, value)
    }

    /// The gap of an arrival that is scored. No gap, or a row of NaN throughout, means that no law was published before it.
    fn scored(&self, gap: Option<Gap>, before: &[f32]) -> Option<f64> {
        let tau = gap?.in_unit(self.clock.unit).max(self.clock.min_gap);
        (!before.iter().all(|value| value.is_nan())).then_some(tau)
    }

    /// How far the law before an arrival is asked.
    fn reach_of(&self, gap: Option<Gap>, before: &[f32]) -> Reach {
        let half = self.clock.resolution.map_or(0.0, |width| 0.5 * width);
        self.scored(gap, before).map_or(Reach::Unasked, |tau| Reach::Gap(tau + half))
    }

    /// Scores an arrival against the law published before it, which was prepared at `place`.
    fn surprise(&mut self, place: usize, gap: Option<Gap>, mark: Option<u32>, value: f64, before: &[f32]) -> Surprise {
        let Some(tau) = self.scored(gap, before) else { return NO_SURPRISE };
        let mut surprise = NO_SURPRISE;
        let (time, logits, of_value) = self.split(before);
        let lawful = self.law.take(place, time);
        let at = Time::of(tau);
        if lawful {
            (surprise.time, surprise.residual) = match self.clock.resolution {
                None => {
                    let point = self.law.at(at);
                    (-point.ln_density, point.compensator)
                }
                Some(width) => {
                    let low = Time::of((tau - 0.5 * width).max(0.0));
                    let (ln_tick, before) = (self.law.ln_interval(low, Time::of(tau + 0.5 * width)), self.law.compensator(low));
                    // Of what is left of the law before the tick, half of the tick's share lies behind the middle of its probability.
                    (0.0 - ln_tick, before - ln_1p(-0.5 * exp((ln_tick + before).min(0.0))))
                }
            };
        } else {
            surprise.flags = Flags::NOT_FINITE;
        }
        if lawful && self.law.intensities(at, &mut self.intensities) {
            surprise.mark = mark.and_then(|mark| surprise_of(&self.intensities, index(mark))).unwrap_or(f64::NAN);
        } else if logits.iter().all(|logit| logit.is_finite()) {
            surprise.mark = mark.and_then(|mark| Marks::surprise(logits, index(mark))).unwrap_or(f64::NAN);
        } else {
            surprise.flags = Flags::NOT_FINITE;
        }
        if let Some(law) = &mut self.value {
            if law.read(of_value) {
                surprise.value = law.arrived(value);
            } else {
                surprise.flags = Flags::NOT_FINITE;
            }
        }
        surprise
    }

    /// Appends the columns of the next event to one row, which was prepared at `place`: times, values, `p_never`, `p_within`, marks and `intensity_now`.
    fn next(&mut self, place: usize, now: EventTime, after: &[f32], into: &mut Forecasts) -> Flags {
        let mut flags = Flags::NONE;
        let (time, logits, of_value) = self.split(after);
        let lawful = self.law.take(place, time);
        if lawful {
            self.quantiles.clear();
            self.law.quantiles(&self.targets, &mut self.quantiles);
            for (column, tau) in into.next_times.iter_mut().zip(&self.quantiles) {
                column.push(now.after(Gap(i64_of(tau * self.micros_per_unit + 0.5))).in_range());
            }
            let corrected = |level: f64| self.levels.as_ref().map_or(level, |levels| levels.probability(level));
            for (column, horizon) in into.p_within.iter_mut().zip(&self.horizons) {
                column.push(corrected(self.law.below(*horizon)));
            }
            let never = self.law.p_never();
            into.p_never.push(if never > 0.0 { 1.0 - corrected(1.0 - never) } else { never });
            into.intensity_now.push(self.law.hazard(self.now));
        } else {
            flags = Flags::NOT_FINITE;
            super::push_no_time(into);
        }
        if self.marks.top() == 0 {
            // Not asked for.
        } else if lawful && self.next_chances() {
            self.marks.likeliest(&self.logits, &mut into.next_marks);
        } else if !logits.is_empty() && logits.iter().all(|logit| logit.is_finite()) {
            self.marks.likeliest(logits, &mut into.next_marks);
        } else {
            flags = Flags::NOT_FINITE;
            self.marks.none(&mut into.next_marks);
        }
        if !logits.iter().all(|logit| logit.is_finite()) {
            flags = Flags::NOT_FINITE;
        }
        match &mut self.value {
            None => super::push_no_value(into),
            Some(law) => {
                if law.read(of_value) {
                    law.quantiles(&mut into.next_values);
                } else {
                    super::push_no_value(into);
                    flags = Flags::NOT_FINITE;
                }
            }
        }
        flags
    }

    /// A drawn gap as the clock shows it: whole ticks of a coarse one, microseconds of a fine one.
    fn on_clock(&self, tau: f64) -> Gap {
        let tau = self.clock.resolution.map_or(tau, |width| width * (tau / width + 0.5).floor());
        Gap(i64_of(tau * self.micros_per_unit + 0.5))
    }

    /// Sets `logits` to those of the marks of the next event, whenever it comes, where they depend on when.
    fn next_chances(&mut self) -> bool {
        let Some(chances) = self.law.chances() else { return false };
        self.logits.clear();
        self.logits.extend(chances.iter().map(|chance| f32_of(ln(*chance)).max(f32::MIN)));
        true
    }
}

/// -ln of a mark's share of the intensity.
fn surprise_of(intensities: &[f64], mark: usize) -> Option<f64> {
    let own = *intensities.get(mark)?;
    let all: f64 = intensities.iter().sum();
    Some(super::law::finite(ln(all) - ln(own)).max(0.0))
}

impl<L: Law> Timed for Columns<L> {
    fn curve(&mut self, row: &[f32], gaps: &[Gap]) -> Vec<(f64, f64)> {
        let (time, ..) = self.split(row);
        if !self.law.read(time) {
            return Vec::new();
        }
        let times = gaps.iter().map(|gap| Time::of(gap.in_unit(self.clock.unit).max(self.clock.min_gap)));
        times.map(|time| (self.law.hazard(time), self.law.compensator(time))).collect()
    }

    fn has_value(&self) -> bool {
        self.value.is_some()
    }

    fn surprises(&mut self, arrivals: &Arrivals<'_>, rows: &[f32], width: usize) -> Vec<[f64; 3]> {
        let mut found = Vec::with_capacity(arrivals.gaps.len());
        let law_width = self.law.width();
        let all = || arrivals.gaps.iter().zip(arrivals.marks).zip(rows.chunks_exact(width.max(1)));
        for first in (0..arrivals.gaps.len()).step_by(BLOCK) {
            let block = || all().skip(first).take(BLOCK);
            let reaches: Vec<Reach> = block().map(|((gap, _), row)| self.reach_of(*gap, row)).collect();
            self.law.prepare(&mut block().zip(&reaches).map(|((_, row), reach)| (row.get(..law_width).unwrap_or(row), *reach)));
            for (place, ((gap, mark), row)) in block().enumerate() {
                let value = arrivals.values.get(first + place).copied().unwrap_or(f64::NAN);
                let surprise = self.surprise(place, *gap, *mark, value, row);
                found.push([surprise.time, surprise.mark, surprise.value.surprise]);
            }
        }
        found
    }

    fn samples(&mut self, rows: &[f32], uniform: &mut dyn FnMut(usize) -> f64, into: &mut Drawn) {
        into.clear();
        let (width, stride) = (self.law.width(), into.width.max(1));
        let reach = self.law.reach_of_samples();
        for first in (0..rows.len() / stride).step_by(BLOCK) {
            let block = || rows.chunks_exact(stride).skip(first).take(BLOCK);
            self.law.prepare(&mut block().map(|row| (row.get(..width).unwrap_or(row), reach)));
            for (place, row) in block().enumerate() {
                let (time, logits, _) = self.split(row);
                let lawful = self.law.take(place, time) && logits.iter().all(|logit| logit.is_finite());
                let uniform = &mut || uniform(first + place);
                let tau = if lawful { self.law.sample(uniform) } else { f64::INFINITY };
                let before = into.chances.len();
                let gap = tau.is_finite().then(|| self.on_clock(tau));
                let mut mark = None;
                if let (Some(gap), true) = (gap, self.has_marks) {
                    let at = Time::of(gap.in_unit(self.clock.unit).max(self.clock.min_gap));
                    if !self.law.intensities(at, &mut self.chances) {
                        Marks::chances(logits, &mut self.chances);
                    }
                    let all: f64 = self.chances.iter().sum();
                    mark = drawn(&self.chances, uniform() * all);
                    into.chances.extend(self.chances.iter().map(|chance| f32_of(chance / all)));
                }
                into.chances.resize(before + into.marks, 0.0);
                into.gaps.push(gap);
                into.next_marks.push(mark);
            }
        }
    }

    fn forecasts(&mut self, arrivals: &Arrivals<'_>, outputs: &Outputs, into: &mut Forecasts) {
        let rows = arrivals.times.len();
        let flags = into.flags.len().saturating_sub(rows);
        into.marks_per_row = self.marks.top();
        let (width, law_width) = (outputs.width, self.law.width());
        let arrived = || arrivals.times.iter().zip(arrivals.gaps.iter().zip(arrivals.marks));
        let laws = || outputs.before.chunks_exact(width).zip(outputs.after.chunks_exact(width));
        for first in (0..rows).step_by(BLOCK) {
            let block = || arrived().zip(laws()).skip(first).take(BLOCK);
            let reaches: Vec<[Reach; 2]> = block().map(|((_, (gap, _)), (before, _))| [self.reach_of(*gap, before), self.reach]).collect();
            let rows = block().zip(&reaches).flat_map(|((_, (before, after)), reaches)| [before, after].into_iter().zip(*reaches));
            self.law.prepare(&mut rows.map(|(row, reach)| (row.get(..law_width).unwrap_or(row), reach)));
            for (place, ((time, (gap, mark)), (before, after))) in block().enumerate() {
                let value = arrivals.values.get(first + place).copied().unwrap_or(f64::NAN);
                let surprise = self.surprise(2 * place, *gap, *mark, value, before);
                into.surprise_time.push(surprise.time);
                into.surprise_mark.push(surprise.mark);
                into.surprise_value.push(surprise.value.surprise);
                into.residual.push(surprise.residual);
                into.residual_value.push(surprise.value.below);
                into.score.push(f64::NAN);
                let next = self.next(2 * place + 1, *time, after, into);
                add_flags(into, flags + first + place, surprise.flags.with(next));
            }
        }
    }
}

/// The mark in whose share of the sum a number lies; of numbers beyond, by rounding, the last one with a share.
fn drawn(chances: &[f64], mut rest: f64) -> Option<u32> {
    let mut last = None;
    for (mark, chance) in chances.iter().enumerate().filter(|(_, chance)| **chance > 0.0) {
        last = Some(u32_of(mark));
        rest -= chance;
        if rest < 0.0 {
            break;
        }
    }
    last
}
