//! A trained network as a step graph: inputs `x` [B, F], for cells that take it `gap` [B, 1], and the states; outputs the head's parameters and the next states.

use super::autograd;
use super::batch::Sequence;
use super::cell::{Design, HEAD, HEAD_BIAS, Inputs};
use super::history::History;
use super::network::{Network, Weights};
use super::ops::{Nodes, Ops};
use super::step::{Forward, Step};
use super::train::Each;
use crate::base::error::Result;
use crate::base::number::f32_of;
use crate::base::time::TimeUnit;
use crate::model::manifest::{InputSpec, StateSpec};
use crate::model::onnx::Graph;

/// Input that takes the feature row.
pub const FEATURES: &str = "x";
/// Input that takes the gap.
const GAP: &str = "gap";

fn next(state: &str) -> String {
    format!("{state}_next")
}

/// The graph's inputs besides the states; the gap in this unit.
#[must_use]
pub fn inputs(design: &Design, unit: TimeUnit) -> InputSpec {
    let gap = design.takes_gap().then(|| GAP.to_owned());
    let gap_unit = if design.takes_gap() { unit } else { TimeUnit::Second };
    InputSpec { features: FEATURES.to_owned(), gap, gap_unit }
}

/// The state tensors.
#[must_use]
pub fn states(design: &Design) -> Vec<StateSpec> {
    let spec = |state: super::cell::State| StateSpec {
        input: state.name.to_owned(),
        output: next(state.name),
        shape: vec![state.width],
        init: 0.0,
    };
    design.states().into_iter().map(spec).collect()
}

/// The bytes of `model.onnx`; `output` names the head's parameters `[B, P]`.
///
/// # Errors
/// Never for the weights of a design.
pub fn step_graph(weights: &Weights, output: &str) -> Result<Vec<u8>> {
    let design = &weights.design;
    let mut graph = Graph::new(design.cell.name());
    graph.input(FEATURES, &[design.features]);
    if design.takes_gap() {
        graph.input(GAP, &[1]);
    }
    design.states().iter().for_each(|state| graph.input(state.name, &[state.width]));
    for (spec, values) in design.weights(&vec![0.0; design.outputs]).iter().zip(&weights.values) {
        graph.constant(spec.name, &spec.shape, values);
    }
    let mut ops = Nodes::new(graph);
    let step = |ops: &mut Nodes| {
        let gap = if design.takes_gap() { Some(ops.scale(&GAP.to_owned(), f32_of(design.pace))?) } else { None };
        let states: Vec<String> = design.states().iter().map(|state| state.name.to_owned()).collect();
        let (x, anchor) = design.seen(ops, &FEATURES.to_owned())?;
        let (active, after) = design.step(ops, &Inputs { x: &x, gap: gap.as_ref(), states: &states })?;
        let outputs = ops.linear(&active, HEAD, HEAD_BIAS)?;
        let outputs = if let Some(anchor) = &anchor { ops.concat(&[&outputs, anchor])? } else { outputs };
        ops.output(&outputs, output, design.published());
        for (state, after) in design.states().iter().zip(after) {
            ops.output(&after, &next(state.name), state.width);
        }
        candle_core::Result::Ok(())
    };
    step(&mut ops).map_err(autograd)?;
    Ok(ops.graph.to_bytes())
}

/// A trained network with its weights.
pub struct Recurrent {
    network: Network,
    weights: Weights,
    unit: TimeUnit,
}

impl Recurrent {
    /// The network of these weights; gaps in this unit.
    ///
    /// # Errors
    /// A vector has another length than the design says.
    pub fn new(weights: Weights, unit: TimeUnit) -> Result<Self> {
        Ok(Recurrent { network: Network::new(&weights).map_err(autograd)?, weights, unit })
    }
}

impl Forward for Recurrent {
    fn forward(&self, history: &History, group: &[Sequence], each: &mut Each<'_>) -> Result<()> {
        self.network.forward(history, group, each)
    }
}

impl Step for Recurrent {
    fn input(&self) -> InputSpec {
        inputs(&self.weights.design, self.unit)
    }

    fn states(&self) -> Vec<StateSpec> {
        states(&self.weights.design)
    }

    fn attention(&self) -> Option<String> {
        self.weights.design.attention().map(str::to_owned)
    }

    fn graph(&self, output: &str) -> Result<Vec<u8>> {
        step_graph(&self.weights, output)
    }

    fn weights(&self) -> usize {
        self.weights.count()
    }

    fn describe(&self) -> String {
        let design = &self.weights.design;
        let floats: usize = design.states().iter().map(|state| state.width).sum();
        format!(
            "{} of width {}: {floats} numbers per key, {} weights, {} floats per feature row.",
            design.cell.title(),
            design.hidden,
            self.weights.count(),
            design.features
        )
    }
}
