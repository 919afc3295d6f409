//! Reasons of forecasts that `[reasons]` asks for.
//!
//! Of a score: grouped occlusion. The event is stepped again from the state before it, once per subject of the recipe with that subject's columns at 0,
//! and the effect is by how much the log-odds fall. Of a surprise: what it is made of, in nats: the gap's two-sided tail probability under the law
//! before it, -ln(2 min(F, S)), that of the value likewise, and -ln of the mark's probability.

use super::Lane;
use super::seen::LaneMemory;
use crate::base::error::Result;
use crate::base::number::{f32_of, u32_of};
use crate::base::time::Gap;
use crate::data::forecasts::Named;
use crate::features::reasons::{Asked, Reason};
use crate::model::Memory;

/// Rows that are tried together: bounds the memory for their states.
const TRIES: usize = 512;

/// A lane's memory that keeps the hidden floats of each row as they were before its step.
pub(super) struct Remembering<'a> {
    pub memory: LaneMemory<'a>,
    pub width: usize,
    pub before: &'a mut Vec<f32>,
}

impl Memory for Remembering<'_> {
    fn begin(&mut self, row: usize) {
        self.memory.begin(row);
        let hidden = self.memory.hidden(row);
        if let Some(before) = self.before.get_mut(row * self.width..(row + 1) * self.width)
            && before.len() == hidden.len()
        {
            before.copy_from_slice(hidden);
        }
    }

    fn hidden(&mut self, row: usize) -> &mut [f32] {
        self.memory.hidden(row)
    }
}

/// Hidden floats of rows that are only tried.
pub(super) struct Tried {
    pub width: usize,
    pub hidden: Vec<f32>,
}

impl Memory for Tried {
    fn hidden(&mut self, row: usize) -> &mut [f32] {
        self.hidden.get_mut(row * self.width..(row + 1) * self.width).unwrap_or_default()
    }
}

impl Lane {
    /// Names the reasons of the forecasts of the batch, which are complete but for them.
    pub(super) fn explain(&mut self) -> Result<()> {
        let Some(asked) = self.plan.reasons.clone() else { return Ok(()) };
        let rows = self.forecasts.len();
        self.forecasts.reasons_per_row = asked.top;
        self.forecasts.reasons.clear();
        self.forecasts.reasons.resize(rows * asked.top, Named::NONE);
        if self.head.scores_arrivals() {
            self.of_surprise(&asked, rows);
            return Ok(());
        }
        let chosen: Vec<usize> = (0..rows)
            .filter(|row| self.emit.get(*row) == Some(&true))
            .filter(|row| self.forecasts.score.get(*row).is_some_and(|score| *score >= asked.above))
            .collect();
        let subjects = asked.reasons.len();
        if subjects == 0 {
            return Ok(());
        }
        for some in chosen.chunks((TRIES / subjects).max(1)) {
            let without = self.without(&asked.reasons, some)?;
            for (row, without) in some.iter().zip(without.chunks_exact(subjects)) {
                let Some(whole) = self.log_odds(&self.outputs.after, *row) else { continue };
                let effects = without.iter().map(|without| without.map_or(f64::NAN, |without| whole - without));
                self.name(&asked, *row, effects.collect());
            }
        }
        Ok(())
    }

    fn log_odds(&self, outputs: &[f32], row: usize) -> Option<f64> {
        let width = self.outputs.width;
        self.head.log_odds(outputs.get(row * width..(row + 1) * width)?)
    }

    /// Log-odds of each row with each reason's columns at 0.
    fn without(&mut self, reasons: &[Reason], rows: &[usize]) -> Result<Vec<Option<f64>>> {
        let (width, hidden) = (self.features.width(), self.model.initial_hidden().len());
        let mut tried = Tried { width: hidden, hidden: Vec::with_capacity(rows.len() * reasons.len() * hidden) };
        let (mut tries, mut gaps): (Vec<f32>, Vec<Option<Gap>>) = (Vec::new(), Vec::new());
        for row in rows {
            let whole = self.rows.get(row * width..(row + 1) * width).unwrap_or_default();
            let before = self.before.get(row * hidden..(row + 1) * hidden).unwrap_or_default();
            for reason in reasons {
                tries.extend(whole.iter().enumerate().map(|(place, value)| if reason.places.contains(&place) { 0.0 } else { *value }));
                tried.hidden.extend_from_slice(before);
                gaps.push(self.seen.gaps.get(*row).copied().flatten());
            }
        }
        let mut outputs = crate::data::outputs::Outputs::default();
        // What is tried is no round of the stream.
        let sizes = std::mem::take(&mut self.model.round_sizes);
        let stepped = self.model.steps(&tries, &gaps, &vec![0; gaps.len()], &mut tried, &mut outputs);
        self.model.round_sizes = sizes;
        stepped?;
        Ok((0..gaps.len()).map(|row| self.log_odds(&outputs.after, row)).collect())
    }

    fn of_surprise(&mut self, asked: &Asked, rows: usize) {
        for row in 0..rows {
            let of = |column: &Vec<f64>| column.get(row).copied().unwrap_or(f64::NAN);
            let (residual, mark) = (of(&self.forecasts.residual), of(&self.forecasts.surprise_mark));
            let [short, long] = of_gap(residual);
            let [low, high] = of_value(of(&self.forecasts.residual_value));
            let effects = vec![short, long, mark, low, high];
            let whole: f64 = effects.iter().filter(|effect| **effect > 0.0).sum();
            if whole >= asked.above {
                self.name(asked, row, effects);
            }
        }
    }

    /// The largest effects, those above 0; of equal ones the first.
    fn name(&mut self, asked: &Asked, row: usize, effects: Vec<f64>) {
        let mut named: Vec<(usize, f64)> = effects.into_iter().enumerate().filter(|(_, effect)| *effect > 0.0).collect();
        named.sort_by(|a, b| b.1.total_cmp(&a.1));
        let start = row * asked.top;
        let places = self.forecasts.reasons.get_mut(start..start + asked.top).unwrap_or_default();
        for (place, (reason, effect)) in places.iter_mut().zip(named) {
            *place = Named { reason: u32_of(reason), effect: f32_of(effect) };
        }
    }
}

/// -ln of the two-sided tail probability of a gap with this compensator, as `short` or as `long`, the other 0.
fn of_gap(residual: f64) -> [f64; 2] {
    if residual < std::f64::consts::LN_2 {
        // F = 1 - e^-residual; a gap of 0 under a law without ties is as far out as numbers go.
        let below = -libm::expm1(-residual);
        [-libm::log((2.0 * below).max(f64::MIN_POSITIVE)), 0.0]
    } else {
        [0.0, residual - std::f64::consts::LN_2]
    }
}

/// -ln of the two-sided tail probability of a value with this share of the law below it, as `low` or as `high`, the other 0.
fn of_value(below: f64) -> [f64; 2] {
    let out = -libm::log(2.0 * below.min(1.0 - below));
    if below < 0.5 { [out, 0.0] } else { [0.0, out] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_gap_has_no_tail_and_both_sides_grow_from_it() {
        assert_eq!(of_gap(std::f64::consts::LN_2), [0.0, 0.0]);
        let [short, long] = of_gap(0.01);
        assert!((short + (2.0 * (1.0 - (-0.01_f64).exp())).ln()).abs() < 1e-12 && long == 0.0);
        // One in a hundred on either side.
        assert!((of_gap(-(0.005_f64).ln())[1] - 100.0_f64.ln()).abs() < 1e-12);
        assert!(of_gap(0.0)[0].is_finite());
        assert_eq!(of_value(0.5), [0.0, 0.0]);
        assert_eq!(of_value(0.005), [100.0_f64.ln(), 0.0]);
        assert!((of_value(0.995)[1] - 100.0_f64.ln()).abs() < 1e-12 && of_value(0.995)[0] == 0.0);
        assert!(of_value(f64::NAN).iter().all(|tail| tail.is_nan() || *tail == 0.0));
        assert!(of_gap(f64::NAN).iter().all(|tail| tail.is_nan() || *tail == 0.0));
    }
}
