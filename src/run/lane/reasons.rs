//! Reasons of forecasts that `[reasons]` asks for.
//!
//! Of a score: grouped occlusion. The event is stepped again from the state before it, once per subject of the recipe with that subject's columns at 0,
//! and the effect is by how much the log-odds fall. Of a surprise: what it is made of, in nats: the gap's two-sided tail probability under the law
//! before it, -ln(2 min(F, S)), that of the value likewise, and -ln of the mark's probability. Or, of a surprise by columns: grouped occlusion one event
//! back, where the law that judges an event was made. The event before is stepped again from the state before that, and the effect is by how many nats
//! the surprise falls under the law that is published then.

use super::Lane;
use super::seen::LaneMemory;
use crate::base::error::Result;
use crate::base::number::{f32_of, u32_of};
use crate::base::time::Gap;
use crate::data::forecasts::Named;
use crate::data::outputs::Outputs;
use crate::features::reasons::{Asked, Reason};
use crate::head::Arrivals;
use crate::model::Memory;
use crate::state::{EventBefore, Step};

/// Rows that are tried together: bounds the memory for their states.
const TRIES: usize = 512;

/// A lane's memory that keeps the hidden floats of each row as they were before its step, and in them the event of each row for the one after it.
pub(super) struct Remembering<'a> {
    pub memory: LaneMemory<'a>,
    /// Hidden floats of a key, all of them.
    pub width: usize,
    /// As many for each row, or none.
    pub before: &'a mut Vec<f32>,
    /// How events are kept, if they are, and the rows of features.
    pub event: Option<(EventBefore, &'a [f32])>,
}

impl Memory for Remembering<'_> {
    fn begin(&mut self, row: usize) {
        self.memory.begin(row);
        let (model, gap) = (self.memory.width, self.memory.seen.gaps.get(row).copied().flatten());
        let hidden = self.memory.whole(row);
        if let Some(before) = self.before.get_mut(row * self.width..(row + 1) * self.width)
            && before.len() == hidden.len()
        {
            before.copy_from_slice(hidden);
        }
        if let Some((event, rows)) = self.event
            && let Some((hidden, own)) = hidden.split_at_mut_checked(model)
            && let Some(row) = rows.get(row * event.columns..(row + 1) * event.columns)
        {
            // Here and not at the end of the step, when the tensors before it are gone.
            let tensors = hidden.get(..event.tensors).unwrap_or_default();
            event.write(own, Step { tensors, row, gap });
        }
    }

    fn hidden(&mut self, row: usize) -> &mut [f32] {
        self.memory.hidden(row)
    }

    fn end(&mut self, row: usize) {
        self.memory.end(row);
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
        let subjects = asked.reasons.len();
        if subjects == 0 {
            return Ok(());
        }
        match self.event_before {
            Some(event) => return self.of_event_before(&asked, event, rows),
            None if self.head.scores_arrivals() => {
                self.of_surprise(&asked, rows);
                return Ok(());
            }
            None => {}
        }
        let chosen: Vec<usize> = (0..rows)
            .filter(|row| self.emit.get(*row) == Some(&true))
            .filter(|row| self.forecasts.score.get(*row).is_some_and(|score| *score >= asked.above))
            .collect();
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
        let mut tries = Tries::new(hidden);
        for row in rows {
            let tensors = self.before.get(row * hidden..(row + 1) * hidden).unwrap_or_default();
            let row_of_it = self.rows.get(row * width..(row + 1) * width).unwrap_or_default();
            let gap = self.seen.gaps.get(*row).copied().flatten();
            tries.add(reasons, Step { tensors, row: row_of_it, gap });
        }
        let outputs = self.tried(tries)?;
        Ok((0..rows.len() * reasons.len()).map(|row| self.log_odds(&outputs.after, row)).collect())
    }

    /// What the model gives for each try.
    fn tried(&mut self, mut tries: Tries) -> Result<Outputs> {
        let mut outputs = Outputs::default();
        // What is tried is no round of the stream.
        let sizes = std::mem::take(&mut self.model.round_sizes);
        let none_before = vec![0; tries.gaps.len()];
        let stepped = self.model.steps(&tries.rows, &tries.gaps, &none_before, &mut tries.memory, &mut outputs);
        self.model.round_sizes = sizes;
        stepped.map(|()| outputs)
    }

    /// What a surprise is made of, as the subjects of a surprise are listed.
    fn parts(&self, row: usize) -> [f64; 5] {
        let of = |column: &[f64]| column.get(row).copied().unwrap_or(f64::NAN);
        let [short, long] = of_gap(of(&self.forecasts.residual));
        let [low, high] = of_value(of(&self.forecasts.residual_value));
        [short, long, of(&self.forecasts.surprise_mark), low, high]
    }

    fn of_surprise(&mut self, asked: &Asked, rows: usize) {
        for row in 0..rows {
            let parts = self.parts(row);
            if whole(&parts) >= asked.above {
                self.name(asked, row, parts.to_vec());
            }
        }
    }

    /// Reasons of surprises by what the event before was.
    fn of_event_before(&mut self, asked: &Asked, event: EventBefore, rows: usize) -> Result<()> {
        let (subjects, hidden) = (asked.reasons.len(), self.model.initial_hidden().len());
        let block = hidden + event.floats();
        let chosen: Vec<usize> =
            (0..rows).filter(|row| self.emit.get(*row) == Some(&true)).filter(|row| whole(&self.parts(*row)) >= asked.above).collect();
        for some in chosen.chunks((TRIES / subjects).max(1)) {
            let (mut tries, mut explained) = (Tries::new(hidden), Vec::new());
            for row in some {
                let own = self.before.get(row * block + hidden..(row + 1) * block).and_then(|own| event.read(own));
                if let Some(step) = own {
                    tries.add(&asked.reasons, step);
                    explained.push(*row);
                }
            }
            let laws = self.tried(tries)?.after;
            let surprises = self.surprises_under(&laws, &explained, subjects);
            for (row, without) in explained.iter().zip(surprises.chunks_exact(subjects)) {
                let of = |column: &[f64]| column.get(*row).copied().unwrap_or(f64::NAN);
                let forecasts = &self.forecasts;
                let served = [of(&forecasts.surprise_time), of(&forecasts.surprise_mark), of(&forecasts.surprise_value)];
                let effects = without.iter().map(|without| fall(&served, without)).collect();
                self.name(asked, *row, effects);
            }
        }
        Ok(())
    }

    /// How far out each row is under so many laws of its own.
    fn surprises_under(&mut self, laws: &[f32], rows: &[usize], each: usize) -> Vec<[f64; 3]> {
        let repeated = || rows.iter().flat_map(|row| std::iter::repeat_n(*row, each));
        let gaps: Vec<Option<Gap>> = repeated().map(|row| self.seen.gaps.get(row).copied().flatten()).collect();
        let marks: Vec<Option<u32>> = repeated().map(|row| self.seen.marks.get(row).copied().flatten()).collect();
        let values = self.values();
        let values: Vec<f64> = repeated().map(|row| values.get(row).copied().unwrap_or(f64::NAN)).collect();
        self.head.surprises(&Arrivals { times: &[], gaps: &gaps, marks: &marks, values: &values }, laws)
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

/// Steps that are tried: rows of features, gaps, and the hidden floats that they begin with.
struct Tries {
    rows: Vec<f32>,
    gaps: Vec<Option<Gap>>,
    memory: Tried,
}

impl Tries {
    fn new(hidden: usize) -> Self {
        Tries { rows: Vec::new(), gaps: Vec::new(), memory: Tried { width: hidden, hidden: Vec::new() } }
    }

    /// A step once more for each reason, with the reason's columns at 0.
    fn add(&mut self, reasons: &[Reason], step: Step<'_>) {
        // The law that was published before it plays no part in a step.
        let law = self.memory.width.saturating_sub(step.tensors.len());
        for reason in reasons {
            let row = step.row.iter().enumerate();
            self.rows.extend(row.map(|(place, value)| if reason.places.contains(&place) { 0.0 } else { *value }));
            self.gaps.push(step.gap);
            self.memory.hidden.extend_from_slice(step.tensors);
            self.memory.hidden.extend(std::iter::repeat_n(f32::NAN, law));
        }
    }
}

/// Nats of all parts together.
fn whole(parts: &[f64]) -> f64 {
    parts.iter().filter(|part| **part > 0.0).sum()
}

/// By how much a surprise is less under another law, over the parts that it has; NaN if that law says nothing of one of them.
fn fall(served: &[f64; 3], other: &[f64; 3]) -> f64 {
    served.iter().zip(other).filter(|(served, _)| !served.is_nan()).map(|(served, other)| served - other).sum()
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
