//! A network under training: the weights of a design as variables, run over a window of steps.

use std::collections::HashMap;

use candle_core::{Device, Result, Tensor, Var};
use rand_chacha::ChaCha8Rng;

use super::cell::{Design, HEAD, HEAD_BIAS, Inputs};
use super::gru_window::GruWindow;
use super::ops::{Ops, Tensors};
use crate::base::number::f32_of;
use crate::pipeline::plan::Cell;

/// A design and the values of its weights, each row-major, in the order of `Design::weights`.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// Which cell, and how large.
    pub design: Design,
    /// The values.
    pub values: Vec<Vec<f32>>,
}

impl Weights {
    /// The weights at the start of training; the outputs start at `bias`.
    #[must_use]
    pub fn random(design: Design, bias: &[f32], random: &mut ChaCha8Rng) -> Self {
        let values = design.weights(bias).iter().map(|weight| weight.draw(random)).collect();
        Weights { design, values }
    }

    /// Multiplies one output by a number.
    pub fn scale_output(&mut self, output: usize, by: f64) {
        let width = self.design.outputs.max(1);
        // The head stands last: its matrix, then its bias.
        if let [.., head, bias] = self.values.as_mut_slice() {
            let column = head.iter_mut().skip(output).step_by(width).chain(bias.iter_mut().skip(output).take(1));
            column.for_each(|weight| *weight = f32_of(f64::from(*weight) * by));
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.values.iter().map(Vec::len).sum()
    }
}

/// The weights as variables of the autograd graph.
#[derive(Clone, Debug)]
pub struct Network {
    design: Design,
    variables: Vec<(&'static str, Var)>,
}

/// A window after it ran.
pub struct Ran {
    /// All state floats after every step `[T, B, S]`.
    pub states: Tensor,
    /// Outputs `[T * B, P]`.
    pub outputs: Tensor,
}

impl Network {
    /// Variables that start at `weights`.
    ///
    /// # Errors
    /// A vector has another length than the design says.
    pub fn new(weights: &Weights) -> Result<Self> {
        let specs = weights.design.weights(&vec![0.0; weights.design.outputs]);
        let var = |(spec, values): (&super::cell::Weight, &Vec<f32>)| {
            Ok((spec.name, Var::from_slice(values, spec.shape.as_slice(), &Device::Cpu)?))
        };
        Ok(Network { design: weights.design.clone(), variables: specs.iter().zip(&weights.values).map(var).collect::<Result<_>>()? })
    }

    /// State floats per key.
    #[must_use]
    pub fn state_floats(&self) -> usize {
        self.design.states().iter().map(|state| state.width).sum()
    }

    /// Mean gaps per unit.
    #[must_use]
    pub fn pace(&self) -> f64 {
        self.design.pace
    }

    /// The variables, in the order of the weights.
    #[must_use]
    pub fn variables(&self) -> Vec<Var> {
        self.variables.iter().map(|(_, var)| var.clone()).collect()
    }

    /// A copy of the weights.
    ///
    /// # Errors
    /// Never for CPU variables of f32.
    pub fn weights(&self) -> Result<Weights> {
        let values = self.variables.iter().map(|(_, var)| var.as_tensor().flatten_all()?.to_vec1::<f32>());
        Ok(Weights { design: self.design.clone(), values: values.collect::<Result<_>>()? })
    }

    /// Runs a window: `x` `[T, B, F]`, the gaps before each event in mean gaps `[T, B, 1]`, and the state floats before the window `[B, S]`.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn window(&self, x: &Tensor, gaps: &Tensor, before: &Tensor) -> Result<Ran> {
        let weights: HashMap<&'static str, Tensor> = self.variables.iter().map(|(name, var)| (*name, var.as_tensor().clone())).collect();
        let mut ops = Tensors { weights: &weights };
        let (steps, rows, features) = x.dims3()?;
        let (seen, anchor) = self.design.seen(&mut ops, &x.reshape((steps * rows, features))?)?;
        let x = &seen.reshape((steps, rows, features))?;
        let (activations, states) =
            if self.design.cell == Cell::Gru { self.gru(&mut ops, x, before)? } else { self.steps(&mut ops, x, gaps, before)? };
        let head = ops.weight(HEAD)?;
        let bias = ops.weight(HEAD_BIAS)?;
        let outputs = activations.matmul(&head)?.broadcast_add(&bias)?;
        let outputs = if let Some(anchor) = &anchor { ops.concat(&[&outputs, anchor])? } else { outputs };
        Ok(Ran { states, outputs })
    }

    /// The window step by step.
    fn steps(&self, ops: &mut Tensors<'_>, x: &Tensor, gaps: &Tensor, before: &Tensor) -> Result<(Tensor, Tensor)> {
        let widths: Vec<usize> = self.design.states().iter().map(|state| state.width).collect();
        let mut states = ops.split(before, &widths)?;
        let (mut activations, mut after) = (Vec::new(), Vec::new());
        for step in 0..x.dim(0)? {
            let (x, gap) = (x.get(step)?, gaps.get(step)?);
            let inputs = Inputs { x: &x, gap: self.design.takes_gap().then_some(&gap), states: &states };
            let (active, next) = self.design.step(ops, &inputs)?;
            activations.push(active);
            after.push(Tensor::cat(&next.iter().map(Tensor::detach).collect::<Vec<_>>(), 1)?);
            states = next;
        }
        Ok((Tensor::cat(&activations, 0)?, Tensor::stack(&after, 0)?))
    }

    /// The window of a GRU as one fused operator: a fifth of the time.
    fn gru(&self, ops: &mut Tensors<'_>, x: &Tensor, before: &Tensor) -> Result<(Tensor, Tensor)> {
        let (steps, rows, features) = x.dims3()?;
        let hidden = self.design.hidden;
        let a = ops.linear(&x.reshape((steps * rows, features))?, "w", "b")?.reshape((steps, rows, 3 * hidden))?;
        // The recurrent bias of r and z is in that of the input; that of n is inside the reset gate.
        let none = Tensor::zeros((1, 2 * hidden), candle_core::DType::F32, &Device::Cpu)?;
        let bias = Tensor::cat(&[&none, &ops.weight("c_n")?.unsqueeze(0)?], 1)?;
        let u = Tensor::cat(&[&ops.weight("u")?, &bias], 0)?;
        let states = a.apply_op3(before, &u, GruWindow::default())?;
        Ok((states.reshape((steps * rows, hidden))?, states))
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::fit::loss::{LawKind, MeanLoss, Objective, Target};

    const OBJECTIVE: Objective = Objective::Law { law: LawKind::Mixture(2), min_gap: 1e-6, resolution: None, marks: 0, value: None };

    fn network(cell: Cell, seed: u64) -> Network {
        let design = Design { cell, features: 3, hidden: 4, outputs: 6, pace: 1.0, anchor: None, missing: vec![(0, 2)] };
        let mut weights = Weights::random(design, &[0.0, 0.2, -0.5, 0.4, 0.1, -0.1], &mut ChaCha8Rng::seed_from_u64(seed));
        let head = weights.values.len() - 2;
        weights.values[head].iter_mut().for_each(|w| *w *= 10.0);
        Network::new(&weights).unwrap()
    }

    /// Five steps of two rows; the last feature is a flag.
    fn window(seed: u64) -> (Tensor, Tensor) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let x: Vec<f32> = (0..30).map(|i| if i % 3 == 2 { ((i / 3) % 2) as f32 } else { random.random::<f32>() * 2.0 - 1.0 }).collect();
        let gaps: Vec<f32> = (0..10).map(|_| random.random::<f32>() * 2.0).collect();
        (Tensor::from_vec(x, (5, 2, 3), &Device::Cpu).unwrap(), Tensor::from_vec(gaps, (5, 2, 1), &Device::Cpu).unwrap())
    }

    fn loss(network: &Network, x: &Tensor, gaps: &Tensor, targets: &[Target]) -> Tensor {
        let before = Tensor::full(0.2f32, (2, network.state_floats()), &Device::Cpu).unwrap();
        network.window(x, gaps, &before).unwrap().outputs.apply_op1(MeanLoss::new(OBJECTIVE, targets.to_vec())).unwrap()
    }

    #[test]
    fn the_gradient_through_a_window_is_the_slope_of_the_loss() {
        let (x, gaps) = window(3);
        let mut targets: Vec<Target> = (0..10).map(|i| Target { gap: 0.3 + f64::from(i), ..Target::NONE }).collect();
        targets[3] = Target::NONE;
        for cell in Cell::NETWORKS {
            let network = network(cell, 3);
            let gradients = loss(&network, &x, &gaps, &targets).backward().unwrap();
            let mut moving = 0;
            for (name, variable) in &network.variables {
                let values = variable.as_tensor().flatten_all().unwrap().to_vec1::<f32>().unwrap();
                let gradient = gradients.get(variable).map(|g| g.flatten_all().unwrap().to_vec1::<f32>().unwrap());
                let gradient = gradient.unwrap_or_else(|| vec![0.0; values.len()]);
                // All of a small weight, every seventh of a large one.
                for (i, given) in gradient.iter().enumerate().step_by(if values.len() > 40 { 7 } else { 1 }) {
                    let at = |step: f32| {
                        let mut moved = values.clone();
                        moved[i] += step;
                        variable.set(&Tensor::from_vec(moved, variable.shape(), &Device::Cpu).unwrap()).unwrap();
                        let value = loss(&network, &x, &gaps, &targets).to_scalar::<f32>().unwrap();
                        variable.set(&Tensor::from_vec(values.clone(), variable.shape(), &Device::Cpu).unwrap()).unwrap();
                        value
                    };
                    // A rectifier has a kink: near one, the shorter step is on one side of it.
                    let near = [1e-2, 1e-3].map(|step| (at(step) - at(-step)) / (2.0 * step));
                    moving += usize::from(given.abs() > 1e-3);
                    let close = |slope: &f32| (slope - given).abs() < 4e-3 * slope.abs().max(0.5);
                    assert!(near.iter().any(close), "{cell:?} {name} {i}: {near:?} is not {given}");
                }
            }
            assert!(moving > 20, "{cell:?}: only {moving} weights matter");
        }
    }

    #[test]
    fn the_fused_gru_is_the_one_that_is_written() {
        let (x, gaps) = window(5);
        let network = network(Cell::Gru, 5);
        let before = Tensor::full(0.2f32, (2, 4), &Device::Cpu).unwrap();
        let fused = network.window(&x, &gaps, &before).unwrap();
        let weights: HashMap<&'static str, Tensor> = network.variables.iter().map(|(name, var)| (*name, var.as_tensor().clone())).collect();
        let (_, states) = network.steps(&mut Tensors { weights: &weights }, &x, &gaps, &before).unwrap();
        let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (a, b) in flat(&fused.states).iter().zip(flat(&states)) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
    }
}
