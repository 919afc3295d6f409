//! What every fit ends in: a step that can be run over the history, and written as a graph.

use super::batch::Sequence;
use super::history::History;
use super::loss::{Objective, Target, Terms};
use super::train::Each;
use crate::base::error::Result;
use crate::model::manifest::{InputSpec, StateSpec};

/// What can be run over the history.
pub trait Forward {
    /// Runs a group of keys from their first events on and hands each event with its outputs and its states (one after the other, in the order of
    /// `states`) to `each`, in order of time within a key.
    ///
    /// # Errors
    /// Never for a history of the widths that it was fitted to.
    fn forward(&self, history: &History, group: &[Sequence], each: &mut Each<'_>) -> Result<()>;

    /// What rows of outputs, one after the other, lose against their targets.
    ///
    /// # Errors
    /// Never for outputs of its own.
    fn terms(&self, objective: &Objective, outputs: &[f32], targets: &[Target]) -> Result<Vec<Terms>> {
        Ok(objective.rows(outputs, targets))
    }
}

/// A step from one event of a key to the next, ready to be written.
pub trait Step: Forward {
    /// Inputs of the graph besides the states.
    fn input(&self) -> InputSpec;

    /// The state tensors.
    fn states(&self) -> Vec<StateSpec>;

    /// Output of the graph with the weights of the last events, if there is one.
    fn attention(&self) -> Option<String> {
        None
    }

    /// The bytes of `model.onnx`; `output` names the head's parameters.
    ///
    /// # Errors
    /// Never for what `fit` made.
    fn graph(&self, output: &str) -> Result<Vec<u8>>;

    /// The bytes of `intensity.onnx`, if the law needs one.
    ///
    /// # Errors
    /// Never for what `fit` made.
    fn intensity_graph(&self) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    /// Intensities of rows of outputs at a gap each, `[n, marks]`, if the law has a second graph.
    ///
    /// # Errors
    /// Never for outputs of its own.
    fn intensities(&self, _outputs: &[f32], _taus: &[f32]) -> Result<Option<Vec<f32>>> {
        Ok(None)
    }

    /// Numbers that were fitted.
    fn weights(&self) -> usize;

    /// What it is, in one sentence for the card.
    fn describe(&self) -> String;
}
