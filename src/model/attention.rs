//! How much each event looks at the ones before it, for models whose graph says so: the output that `attention` in model.toml names, [B, n], the weight
//! of each of the last n places, the oldest first. The served graph leaves it out; this one is loaded only to be looked at.

use std::path::Path;

use tract_onnx::prelude::*;

use super::manifest::Manifest;
use super::{eval, graph};
use crate::base::error::{Error, Kind, Result};
use crate::base::number::f32_of;
use crate::base::time::{Gap, TimeUnit};

/// One key's steps, one event after the other.
pub struct Attention {
    state: TypedSimpleState,
    shapes: Vec<Vec<usize>>,
    gap_unit: Option<TimeUnit>,
    init: Vec<Vec<f32>>,
    hidden: Vec<Vec<f32>>,
}

impl Attention {
    /// Loads the graph of a package that has such an output; `None` without one.
    ///
    /// # Errors
    /// The graph has no output of that name.
    pub fn load(folder: &Path, manifest: &Manifest) -> Result<Option<Self>> {
        let Some(output) = &manifest.attention else { return Ok(None) };
        let plan = graph::looked_at(&folder.join("model.onnx"), manifest, output)?;
        let init: Vec<Vec<f32>> = manifest.states.iter().map(|state| vec![state.init; state.floats()]).collect();
        Ok(Some(Attention {
            state: plan.spawn().map_err(|e| failed(&e))?,
            shapes: manifest.states.iter().map(|state| state.shape.clone()).collect(),
            gap_unit: manifest.input.gap.as_ref().map(|_| manifest.input.gap_unit),
            hidden: init.clone(),
            init,
        }))
    }

    /// Steps the key's next event, of this feature row; without a gap it is the first one and the key begins anew. Gives the weights.
    ///
    /// # Errors
    /// The graph fails to run.
    pub fn step(&mut self, row: &[f32], gap: Option<Gap>) -> Result<Vec<f32>> {
        if gap.is_none() {
            self.hidden.clone_from(&self.init);
        }
        self.run(row, gap).map_err(|e| failed(&e))
    }

    fn run(&mut self, row: &[f32], gap: Option<Gap>) -> TractResult<Vec<f32>> {
        let mut inputs: TVec<TValue> = tvec!(Tensor::from_shape(&[1, row.len()], row)?.into_tvalue());
        if let Some(unit) = self.gap_unit {
            inputs.push(Tensor::from_shape(&[1, 1], &[gap.map_or(0.0, |gap| f32_of(gap.in_unit(unit)))])?.into_tvalue());
        }
        for (shape, values) in self.shapes.iter().zip(&self.hidden) {
            let dims: Vec<usize> = std::iter::once(1).chain(shape.iter().copied()).collect();
            inputs.push(Tensor::from_shape(&dims, values)?.into_tvalue());
        }
        let mut results = eval::run(&mut self.state, inputs)?.into_iter();
        let weights = match results.next() {
            Some(weights) => weights.try_as_plain_ram()?.as_slice::<f32>()?.to_vec(),
            None => Vec::new(),
        };
        for (own, next) in self.hidden.iter_mut().zip(results) {
            let next = next.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
            // As when it is served: a step that is not finite leaves the state as it was.
            if next.iter().all(|value| value.is_finite()) {
                *own = next;
            }
        }
        Ok(weights)
    }
}

fn failed(e: &TractError) -> Error {
    Error::new(Kind::Config, "model", format!("the graph failed to run for its attention: {e:#}"))
}
