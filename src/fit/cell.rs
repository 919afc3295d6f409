//! The cells: what each remembers of a key, its weights, and one step, written once in `Ops`.
//!
//! Nothing but `fit` knows them: what serves is the step graph.

mod attention;
mod ct_lstm;
mod gru;
mod gru_d;
mod linear_attention;
mod lstm;
mod memory;
mod ode;
mod rnn;
mod ssm;

use candle_core::Result;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::ops::Ops;
use crate::base::number::{f32_of, f64_of_count};
use crate::pipeline::plan::Cell;

/// Name of the head's matrix `[H, P]`; its bias is `HEAD_BIAS`.
pub const HEAD: &str = "w_out";
/// Name of the head's bias `[P]`.
pub const HEAD_BIAS: &str = "b_out";

/// A network before its weights: which cell, and how large.
#[derive(Clone, Debug, PartialEq)]
pub struct Design {
    /// Which cell.
    pub cell: Cell,
    /// Floats per feature row, F.
    pub features: usize,
    /// Width of the cell, H.
    pub hidden: usize,
    /// Outputs per event, P.
    pub outputs: usize,
    /// One over the mean gap: cells that look at the gap itself count it in mean gaps.
    pub pace: f64,
    /// First of the two columns of the feature row (centre, ln of the scale) that the cell does not see and that are given on behind the outputs: the
    /// anchor of a law of the value.
    pub anchor: Option<usize>,
    /// Columns of the feature row that hold a value and say in another column that it is missing: (value, flag).
    pub missing: Vec<(usize, usize)>,
}

/// How a weight starts.
#[derive(Clone, Debug, PartialEq)]
pub enum Start {
    /// Uniform between plus and minus this.
    Uniform(f64),
    /// These values.
    Values(Vec<f32>),
}

/// A weight of a cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    /// Name in the graph.
    pub name: &'static str,
    /// Shape.
    pub shape: Vec<usize>,
    /// Values at the start of training.
    pub start: Start,
}

impl Weight {
    fn uniform(name: &'static str, shape: &[usize], bound: f64) -> Self {
        Weight { name, shape: shape.to_vec(), start: Start::Uniform(bound) }
    }

    /// A vector of equal values.
    fn filled(name: &'static str, width: usize, value: f32) -> Self {
        Weight { name, shape: vec![width], start: Start::Values(vec![value; width]) }
    }

    fn values(name: &'static str, values: Vec<f32>) -> Self {
        Weight { name, shape: vec![values.len()], start: Start::Values(values) }
    }

    /// Values at the start of training.
    #[must_use]
    pub fn draw(&self, random: &mut ChaCha8Rng) -> Vec<f32> {
        match &self.start {
            Start::Uniform(bound) => {
                (0..self.shape.iter().product()).map(|_| f32_of((random.random::<f64>() * 2.0 - 1.0) * bound)).collect()
            }
            Start::Values(values) => values.clone(),
        }
    }
}

/// A state tensor `[B, width]`, zero for a new key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Name of the graph input; the output is this and `_next`.
    pub name: &'static str,
    /// Floats.
    pub width: usize,
}

/// What a step gives: the activations `[B, H]` that the head reads, and the next states.
pub type Stepped<T> = Result<(T, Vec<T>)>;

/// What a step takes.
pub struct Inputs<'a, T> {
    /// Feature rows `[B, F]`.
    pub x: &'a T,
    /// Gap since the key's last event `[B, 1]`, in mean gaps; for cells that take it.
    pub gap: Option<&'a T>,
    /// The states.
    pub states: &'a [T],
}

impl<T> Inputs<'_, T> {
    /// The gap.
    fn gap(&self) -> Result<&T> {
        self.gap.ok_or_else(|| fault("a cell that decays was given no gap"))
    }

    /// As many states as the cell has.
    fn states<const N: usize>(&self) -> Result<&[T; N]> {
        self.states.try_into().map_err(|_| fault("a cell was given another number of states"))
    }
}

fn fault(text: &str) -> candle_core::Error {
    candle_core::Error::Msg(text.to_owned())
}

/// An array of the parts that `split` gave.
fn parts<T, const N: usize>(parts: Vec<T>) -> Result<[T; N]> {
    parts.try_into().map_err(|_| fault("a split gave another number of parts"))
}

/// Calls the function of this name in the module of the cell.
macro_rules! of_cell {
    ($design:expr, $function:ident($($argument:expr),*)) => {
        match $design.cell {
            Cell::Rnn => rnn::$function($design, $($argument),*),
            Cell::Lstm => lstm::$function($design, $($argument),*),
            Cell::CtLstm => ct_lstm::$function($design, $($argument),*),
            Cell::Ssm => ssm::$function($design, $($argument),*),
            Cell::LinearAttention => linear_attention::$function($design, $($argument),*),
            Cell::Attention => attention::$function($design, $($argument),*),
            Cell::Memory => memory::$function($design, $($argument),*),
            Cell::GruD => gru_d::$function($design, $($argument),*),
            Cell::Ode => ode::$function($design, $($argument),*),
            // A process has no network.
            Cell::Gru | Cell::Poisson | Cell::GammaPoisson | Cell::History | Cell::Hawkes => gru::$function($design, $($argument),*),
        }
    };
}

impl Design {
    /// Outputs with the anchor behind them.
    #[must_use]
    pub fn published(&self) -> usize {
        self.outputs + if self.anchor.is_some() { 2 } else { 0 }
    }

    /// The feature row as the cell sees it, and the anchor. Numbers of an anchor may be of any size, and the network knows of them by the deviation.
    ///
    /// # Errors
    /// The row has no such columns.
    pub fn seen<O: Ops>(&self, ops: &mut O, x: &O::T) -> Result<(O::T, Option<O::T>)> {
        let Some(at) = self.anchor else { return Ok((x.clone(), None)) };
        let after = self.features.checked_sub(at + 2).ok_or_else(|| fault("an anchor beyond the feature row"))?;
        let mask: Vec<f32> = (0..self.features).map(|i| if (at..at + 2).contains(&i) { 0.0 } else { 1.0 }).collect();
        let mask = ops.constant(&[self.features], &mask)?;
        let widths: Vec<usize> = [at, 2, after].into_iter().filter(|width| *width > 0).collect();
        let anchor = ops.split(x, &widths)?.into_iter().nth(usize::from(at > 0));
        Ok((ops.mul(x, &mask)?, anchor))
    }

    /// Whether the cell takes the gap itself, beside the features.
    #[must_use]
    pub fn takes_gap(&self) -> bool {
        matches!(self.cell, Cell::CtLstm | Cell::Ssm | Cell::LinearAttention | Cell::GruD | Cell::Ode)
    }

    /// The output that says how much weight an event gives to each of the last ones, if the cell has it.
    #[must_use]
    pub fn attention(&self) -> Option<&'static str> {
        (self.cell == Cell::Attention).then_some(attention::ATTENTION)
    }

    /// The states.
    #[must_use]
    pub fn states(&self) -> Vec<State> {
        of_cell!(self, states())
    }

    /// The weights: of the cell, then of the head. Head weights start small, so that the outputs start at `bias`, the law without history.
    #[must_use]
    pub fn weights(&self, bias: &[f32]) -> Vec<Weight> {
        let mut weights = of_cell!(self, weights());
        weights.push(Weight::uniform(HEAD, &[self.hidden, self.outputs], 0.1 * self.bound()));
        weights.push(Weight::values(HEAD_BIAS, bias.to_vec()));
        weights
    }

    /// One step.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn step<O: Ops>(&self, ops: &mut O, inputs: &Inputs<'_, O::T>) -> Stepped<O::T> {
        of_cell!(self, step(ops, inputs))
    }

    /// 1/sqrt(H), within which PyTorch's recurrent cells start.
    fn bound(&self) -> f64 {
        1.0 / f64_of_count(self.hidden.max(1)).sqrt()
    }

    /// 1/sqrt(F).
    fn input_bound(&self) -> f64 {
        1.0 / f64_of_count(self.features.max(1)).sqrt()
    }

    /// Logarithms of `n` decay rates, evenly from a fiftieth to five per mean gap.
    fn log_rates(n: usize) -> Vec<f32> {
        let last = f64_of_count(n.max(2) - 1);
        (0..n).map(|i| f32_of(f64::ln(0.02) + (f64::ln(5.0) - f64::ln(0.02)) * f64_of_count(i) / last)).collect()
    }
}

/// A matrix `[rows, columns]` of zeros, and ones where `one` says so.
fn ones(rows: usize, columns: usize, one: impl Fn(usize, usize) -> bool) -> Vec<f32> {
    let row = |row: usize| (0..columns).map(move |column| (row, column));
    (0..rows).flat_map(row).map(|(row, column)| if one(row, column) { 1.0 } else { 0.0 }).collect()
}
