//! Stepping keys in batches: gather their states, run the graph, scatter the next states.

use std::sync::Arc;

use tract_onnx::prelude::*;

use super::cohorts::Cohorts;
use super::eval;
use super::graph::{Graph, Signature};
use super::intensity::Intensity;
use super::manifest::Manifest;
use super::rounds::Rounds;
use crate::base::error::{Error, Kind, Result};
use crate::base::metrics::SizeTally;
use crate::base::number::{f32_of, index};
use crate::base::time::{Gap, TimeUnit};
use crate::data::outputs::Outputs;

/// Most rows of one run: large enough to amortise the graph's fixed cost, small enough to stay in the cache.
const STEP_ROWS: usize = 512;

/// Where the lane keeps what the model remembers of the key of each row.
pub trait Memory {
    /// Row `row` is about to be stepped, after all earlier events of its key: the place to start an expired key anew.
    fn begin(&mut self, _row: usize) {}
    /// The hidden floats of row `row`'s key: the states in the manifest's order, then the published law if the head needs it.
    fn hidden(&mut self, row: usize) -> &mut [f32];
    /// Row `row` has been stepped, and no later event of its key has yet.
    fn end(&mut self, _row: usize) {}
}

/// A loaded model, ready to step. One per lane: it keeps the run's scratch.
pub struct Model {
    state: TypedSimpleState,
    signature: Signature,
    /// Shape of each state, without the batch axis.
    shapes: Vec<Vec<usize>>,
    gap_unit: Option<TimeUnit>,
    head_width: usize,
    /// Whether the law is kept per key, behind its states.
    keeps_law: bool,
    init: Vec<f32>,
    /// Where states of new keys start, by their first events.
    pub(super) cohorts: Option<Arc<Cohorts>>,
    rounds: Rounds,
    /// Sizes of the rounds since someone emptied it.
    pub round_sizes: SizeTally,
    /// The second graph, for a head that asks it; taken by whoever makes the head.
    pub intensity: Option<Intensity>,
}

impl Model {
    pub(super) fn new(graph: &Graph, manifest: &Manifest) -> Result<Self> {
        let keeps_law = manifest.head.is_timed();
        let mut init: Vec<f32> = manifest.states.iter().flat_map(|state| std::iter::repeat_n(state.init, state.floats())).collect();
        if keeps_law {
            init.extend(std::iter::repeat_n(f32::NAN, manifest.head.width()));
        }
        Ok(Model {
            state: graph.plan.spawn().map_err(|e| run_error(&e))?,
            signature: graph.signature.clone(),
            shapes: manifest.states.iter().map(|state| state.shape.clone()).collect(),
            gap_unit: manifest.input.gap.as_ref().map(|_| manifest.input.gap_unit),
            head_width: manifest.head.width(),
            keeps_law,
            init,
            cohorts: None,
            rounds: Rounds::default(),
            round_sizes: SizeTally::default(),
            intensity: None,
        })
    }

    /// What a new key's hidden floats are: every state at its initial value, the law NaN ("none published yet"). A package with cohorts replaces the states
    /// by those of the cohort when the first event, whose gap is `None`, is stepped.
    #[must_use]
    pub fn initial_hidden(&self) -> &[f32] {
        &self.init
    }

    /// What the graph takes and gives.
    #[must_use]
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Steps every row of a batch once, in rounds, and fills `outputs` in row order.
    ///
    /// `rows` is `[n, F]`, `gaps` the gap of each row (`None` for a first event: a key that starts anew), `occurrences` how often the row's key has
    /// occurred before in this batch. A step whose next state would not be finite leaves the key's state as it was: one
    /// broken input must not silence a key for ever. Its outputs are given as they came.
    ///
    /// # Errors
    /// The graph fails to run.
    pub fn steps(
        &mut self,
        rows: &[f32],
        gaps: &[Option<Gap>],
        occurrences: &[u32],
        memory: &mut dyn Memory,
        outputs: &mut Outputs,
    ) -> Result<()> {
        let n = occurrences.len();
        outputs.width = self.head_width;
        outputs.after.clear();
        outputs.after.resize(n * self.head_width, 0.0);
        outputs.before.clear();
        outputs.kept.clear();
        if self.keeps_law {
            outputs.before.resize(n * self.head_width, 0.0);
        }
        let mut rounds = std::mem::take(&mut self.rounds);
        rounds.arrange(occurrences);
        let result =
            rounds.iter().flat_map(|round| round.chunks(STEP_ROWS)).try_for_each(|chunk| self.run(chunk, rows, gaps, memory, outputs));
        self.rounds = rounds;
        result.map_err(|e| run_error(&e))
    }

    fn run(
        &mut self,
        chunk: &[u32],
        rows: &[f32],
        gaps: &[Option<Gap>],
        memory: &mut dyn Memory,
        outputs: &mut Outputs,
    ) -> TractResult<()> {
        let n = chunk.len();
        self.round_sizes.note(n);
        let width = self.signature.features;
        let mut inputs: TVec<TValue> = tvec!();
        inputs.push(filled(&[n, width], |x: &mut [f32]| {
            for (to, row) in x.chunks_exact_mut(width).zip(chunk) {
                let from = index(*row) * width;
                to.copy_from_slice(rows.get(from..from + width).unwrap_or_default());
            }
        })?);
        if let Some(unit) = self.gap_unit {
            inputs.push(filled(&[n, 1], |x| {
                for (to, row) in x.iter_mut().zip(chunk) {
                    *to = gaps.get(index(*row)).copied().flatten().map_or(0.0, |gap| f32_of(gap.in_unit(unit)));
                }
            })?);
        }
        for row in chunk {
            memory.begin(index(*row));
        }
        if let Some(cohorts) = &self.cohorts {
            // Here, and not where keys are made: a first event, an expired key and one that took another's place are alike, in a lane and everywhere else.
            for row in chunk.iter().map(|row| index(*row)).filter(|row| gaps.get(*row).is_some_and(Option::is_none)) {
                let start = rows.get(row * width..(row + 1) * width).and_then(|x| cohorts.start(x));
                if let Some((start, hidden)) = start.and_then(|start| Some((start, memory.hidden(row).get_mut(..start.len())?))) {
                    hidden.copy_from_slice(start);
                }
            }
        }
        let mut start = 0;
        for shape in &self.shapes {
            let floats: usize = shape.iter().product();
            let dims: TVec<usize> = std::iter::once(n).chain(shape.iter().copied()).collect();
            inputs.push(filled(&dims, |x| {
                for (to, row) in x.chunks_exact_mut(floats).zip(chunk) {
                    to.copy_from_slice(memory.hidden(index(*row)).get(start..start + floats).unwrap_or_default());
                }
            })?);
            start += floats;
        }

        let results = eval::run(&mut self.state, inputs)?;
        let heads = self.signature.outputs.len();
        let mut next_states = Vec::with_capacity(self.shapes.len());
        for value in results.iter().skip(heads) {
            next_states.push(value.try_as_plain_ram()?.as_slice::<f32>()?);
        }
        let mut at = 0;
        for (value, width) in results.iter().zip(&self.signature.outputs) {
            let values = value.try_as_plain_ram()?.as_slice::<f32>()?;
            for (from, row) in values.chunks_exact(*width).zip(chunk) {
                let to = index(*row) * self.head_width + at;
                if let Some(to) = outputs.after.get_mut(to..to + width) {
                    to.copy_from_slice(from);
                }
            }
            at += width;
        }
        for (i, row) in chunk.iter().enumerate() {
            let hidden = memory.hidden(index(*row));
            let mut start = 0;
            let parts = || {
                next_states.iter().zip(&self.shapes).map(|(values, shape)| {
                    let floats: usize = shape.iter().product();
                    values.get(i * floats..(i + 1) * floats).unwrap_or_default()
                })
            };
            // No early end and no sum of floats, whose order is fixed: this way the compiler may use vectors.
            let finite = parts().all(|part| part.iter().fold(true, |finite, v| finite & v.is_finite()));
            if !finite {
                outputs.kept.push(*row);
            }
            for part in parts() {
                if finite && let Some(to) = hidden.get_mut(start..start + part.len()) {
                    to.copy_from_slice(part);
                }
                start += part.len();
            }
            if self.keeps_law
                && let Some(law) = hidden.get_mut(start..start + self.head_width)
            {
                let at = index(*row) * self.head_width;
                if let (Some(before), Some(after)) =
                    (outputs.before.get_mut(at..at + self.head_width), outputs.after.get(at..at + self.head_width))
                {
                    before.copy_from_slice(law);
                    law.copy_from_slice(after);
                }
            }
            memory.end(index(*row));
        }
        Ok(())
    }
}

fn filled(shape: &[usize], fill: impl FnOnce(&mut [f32])) -> TractResult<TValue> {
    let mut tensor = Tensor::zero::<f32>(shape)?;
    fill(tensor.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?);
    Ok(tensor.into_tvalue())
}

fn run_error(e: &TractError) -> Error {
    Error::new(Kind::Config, "model", format!("the graph failed to run: {e:#}"))
}
