//! The log-normal mixture as a head: one row of parameters to the columns of a forecast.

use super::elementary::{exp, ln};
use super::marks::Marks;
use super::mixture::Mixture;
use super::solve::Solver;
use crate::base::number::{i64_of, index};
use crate::base::time::{EventTime, Gap, TimeUnit};
use crate::data::flags::Flags;
use crate::data::forecasts::Forecasts;

/// What the package says of the law besides its marks; checked by `Head::new`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    /// K.
    pub(super) components: usize,
    /// Unit of gaps, densities and intensities.
    pub(super) unit: TimeUnit,
    /// Gaps are not taken as smaller, in units.
    pub(super) min_gap: f64,
    /// Width of a clock tick, in units.
    pub(super) resolution: Option<f64>,
}

/// The head `lognormal_mixture`.
#[derive(Clone, Debug)]
pub(super) struct Law {
    setting: Setting,
    mixture: Mixture,
    solver: Solver,
    marks: Marks,
    /// ln of each horizon in units.
    horizons: Vec<f64>,
    micros_per_unit: f64,
    /// Gap at which `intensity_now` is taken, in units, and its logarithm.
    now: (f64, f64),
}

/// How surprising an arrival was; NaN stands for null.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surprise {
    pub(super) time: f64,
    pub(super) mark: f64,
    pub(super) residual: f64,
    pub(super) flags: Flags,
}

const NO_SURPRISE: Surprise = Surprise { time: f64::NAN, mark: f64::NAN, residual: f64::NAN, flags: Flags::NONE };

impl Law {
    /// A law for checked settings and asks.
    pub(super) fn new(setting: Setting, quantiles: &[f64], horizons: &[Gap], top_marks: usize) -> Self {
        let now = setting.resolution.map_or(setting.min_gap, |width| 0.5 * width);
        Law {
            setting,
            mixture: Mixture::new(setting.components),
            solver: Solver::new(quantiles),
            marks: Marks::new(top_marks),
            horizons: horizons.iter().map(|horizon| ln(horizon.in_unit(setting.unit))).collect(),
            micros_per_unit: setting.unit.seconds() * 1e6,
            now: (now, ln(now)),
        }
    }

    /// Entries of `next_marks` per row.
    pub(super) fn marks_per_row(&self) -> usize {
        self.marks.top()
    }

    fn split<'a>(&self, row: &'a [f32]) -> (&'a [f32], &'a [f32]) {
        row.split_at_checked(3 * self.setting.components).unwrap_or((row, &[]))
    }

    /// Scores an arrival against the law published before it. No gap, or a row of NaN throughout, means there was none.
    pub(super) fn surprise(&mut self, gap: Option<Gap>, mark: Option<u32>, before: &[f32]) -> Surprise {
        let Some(gap) = gap else { return NO_SURPRISE };
        if before.iter().all(|value| value.is_nan()) {
            return NO_SURPRISE;
        }
        let mut surprise = NO_SURPRISE;
        let (time, marks) = self.split(before);
        if self.mixture.read(time) {
            let tau = gap.in_unit(self.setting.unit).max(self.setting.min_gap);
            let u = ln(tau);
            let sums = self.mixture.sums(u);
            surprise.residual = self.mixture.compensator(&sums, u);
            surprise.time = match self.setting.resolution {
                // The density of the gap is that of u over the gap.
                None => u - self.mixture.ln_density(&sums, u),
                Some(width) => 0.0 - self.mixture.ln_interval(ln((tau - 0.5 * width).max(0.0)), ln(tau + 0.5 * width)),
            };
        } else {
            surprise.flags = Flags::NOT_FINITE;
        }
        if marks.iter().all(|logit| logit.is_finite()) {
            surprise.mark = mark.and_then(|mark| Marks::surprise(marks, index(mark))).unwrap_or(f64::NAN);
        } else {
            surprise.flags = Flags::NOT_FINITE;
        }
        surprise
    }

    /// Appends the columns of the next event to one row: times, `p_never`, `p_within`, marks and `intensity_now`.
    pub(super) fn next(&mut self, now: EventTime, after: &[f32], into: &mut Forecasts) -> Flags {
        let mut flags = Flags::NONE;
        let (time, marks) = self.split(after);
        if self.mixture.read(time) {
            for (column, u) in into.next_times.iter_mut().zip(self.solver.quantiles(&self.mixture)) {
                column.push(now.after(Gap(i64_of(exp(*u) * self.micros_per_unit + 0.5))).in_range());
            }
            for (column, u) in into.p_within.iter_mut().zip(&self.horizons) {
                column.push(self.mixture.below(*u));
            }
            into.p_never.push(0.0);
            into.intensity_now.push(self.intensity_now());
        } else {
            flags = Flags::NOT_FINITE;
            super::push_no_time(into);
        }
        if marks.iter().all(|logit| logit.is_finite()) {
            self.marks.likeliest(marks, &mut into.next_marks);
        } else {
            flags = Flags::NOT_FINITE;
            self.marks.none(&mut into.next_marks);
        }
        flags
    }

    /// The hazard f / S at the smallest gap the law can tell: `min_gap`, or half a clock tick. At 0 itself it is always 0.
    fn intensity_now(&self) -> f64 {
        let (tau, u) = self.now;
        let sums = self.mixture.sums(u);
        let ln_hazard = self.mixture.ln_density(&sums, u) + self.mixture.compensator(&sums, u);
        // Very small gaps can bring it beyond the largest number.
        (exp(ln_hazard) / tau).min(f64::MAX)
    }
}
