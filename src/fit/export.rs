//! The trained network as a step graph: inputs `x` [B, F] and `h` [B, H], outputs the head's parameters and `h_next` [B, H].
//!
//! One product for `x`, one for `h`, gates split off: tract pushes the splits into the products, which then take two thirds of a step
//! (`docs/performance.md`).

use super::autograd;
use super::batch::Sequence;
use super::cell::{Network, Sizes, Weights};
use super::history::History;
use super::step::{Forward, Step};
use super::train::Each;
use crate::base::error::Result;
use crate::base::number::i64_of_count;
use crate::base::time::TimeUnit;
use crate::model::manifest::{InputSpec, StateSpec};
use crate::model::onnx::Graph;

/// Input that takes the feature row.
pub const FEATURES: &str = "x";
/// Input that takes the state.
pub const STATE: &str = "h";
/// Output that gives the next state.
pub const NEXT_STATE: &str = "h_next";

/// The bytes of `model.onnx`; `output` names the head's parameters `[B, P]`.
#[must_use]
pub fn step_graph(weights: &Weights, output: &str) -> Vec<u8> {
    let Sizes { features, hidden, outputs } = weights.sizes;
    let (recurrent, c) = weights.u.split_at(3 * hidden * hidden);
    // The recurrent bias of r and z may as well be added with that of the input; that of n is inside the reset gate.
    let (c_rz, c_n) = c.split_at(2 * hidden);
    let mut bias = weights.b.clone();
    bias.iter_mut().zip(c_rz).for_each(|(b, c)| *b += *c);
    let mut graph = Graph::new("gru");
    graph.input(FEATURES, &[features]);
    graph.input(STATE, &[hidden]);
    graph.constant("w", &[features, 3 * hidden], &weights.w);
    graph.constant("b", &[3 * hidden], &bias);
    graph.constant("u", &[hidden, 3 * hidden], recurrent);
    graph.constant("c_n", &[hidden], c_n);
    graph.constant("w_out", &[hidden, outputs], &weights.head);
    graph.constant("b_out", &[outputs], &weights.head_bias);
    let parts = [2 * hidden, hidden].map(i64_of_count);
    graph.positions("rz_n", &parts);
    graph.positions("r_z", &[hidden, hidden].map(i64_of_count));
    graph.node("MatMul", &[FEATURES, "w"], &["xw"], &[]);
    graph.node("Add", &["xw", "b"], &["a"], &[]);
    graph.node("MatMul", &[STATE, "u"], &["hu"], &[]);
    graph.node("Split", &["a", "rz_n"], &["a_rz", "a_n"], &[("axis", 1)]);
    graph.node("Split", &["hu", "rz_n"], &["hu_rz", "hu_n"], &[("axis", 1)]);
    graph.node("Add", &["a_rz", "hu_rz"], &["rz_in"], &[]);
    graph.node("Sigmoid", &["rz_in"], &["rz"], &[]);
    graph.node("Split", &["rz", "r_z"], &["r", "z"], &[("axis", 1)]);
    graph.node("Add", &["hu_n", "c_n"], &["q"], &[]);
    graph.node("Mul", &["r", "q"], &["rq"], &[]);
    graph.node("Add", &["a_n", "rq"], &["n_in"], &[]);
    graph.node("Tanh", &["n_in"], &["n"], &[]);
    graph.node("Sub", &[STATE, "n"], &["h_n"], &[]);
    graph.node("Mul", &["z", "h_n"], &["zh_n"], &[]);
    graph.node("Add", &["n", "zh_n"], &[NEXT_STATE], &[]);
    graph.node("MatMul", &[NEXT_STATE, "w_out"], &["hw"], &[]);
    graph.node("Add", &["hw", "b_out"], &[output], &[]);
    graph.output(output, &[outputs]);
    graph.output(NEXT_STATE, &[hidden]);
    graph.to_bytes()
}

/// A trained network with its weights.
pub struct Gru {
    /// Runs.
    pub network: Network,
    /// Is written.
    pub weights: Weights,
}

impl Gru {
    /// The network of these weights.
    ///
    /// # Errors
    /// A vector has another length than the sizes say.
    pub fn new(weights: Weights) -> Result<Self> {
        Ok(Gru { network: Network::new(&weights).map_err(autograd)?, weights })
    }
}

impl Forward for Gru {
    fn forward(&self, history: &History, group: &[Sequence], each: &mut Each<'_>) -> Result<()> {
        self.network.forward(history, group, each)
    }
}

impl Step for Gru {
    fn input(&self) -> InputSpec {
        InputSpec { features: FEATURES.to_owned(), gap: None, gap_unit: TimeUnit::Second }
    }

    fn states(&self) -> Vec<StateSpec> {
        let shape = vec![self.weights.sizes.hidden];
        vec![StateSpec { input: STATE.to_owned(), output: NEXT_STATE.to_owned(), shape, init: 0.0 }]
    }

    fn graph(&self, output: &str) -> Vec<u8> {
        step_graph(&self.weights, output)
    }

    fn weights(&self) -> usize {
        self.weights.len()
    }

    fn describe(&self) -> String {
        let Sizes { features, hidden, .. } = self.weights.sizes;
        format!("A GRU of {hidden} numbers per key, {} weights, {features} floats per feature row.", self.weights.len())
    }
}
