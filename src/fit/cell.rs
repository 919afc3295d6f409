//! The network: a GRU and a linear head, as weights, as a differentiable pass over a window, and as an exported step.

use candle_core::{Device, Result, Tensor, Var};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::window::GruWindow;
use crate::base::number::{f32_of, f64_of_count};

/// Sizes of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Floats per feature row, F.
    pub features: usize,
    /// Size of the recurrent state, H.
    pub hidden: usize,
    /// Outputs per event, P.
    pub outputs: usize,
}

/// The weights, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// Sizes.
    pub sizes: Sizes,
    /// Input projection W `[F, 3H]`, gates in the order r, z, n.
    pub w: Vec<f32>,
    /// Its bias b `[3H]`.
    pub b: Vec<f32>,
    /// Recurrent projection U `[H, 3H]` and, as last row, its bias c.
    pub u: Vec<f32>,
    /// Head `[H, P]`.
    pub head: Vec<f32>,
    /// Its bias `[P]`.
    pub head_bias: Vec<f32>,
}

impl Weights {
    /// Random weights: uniform in +-1/sqrt(H) for the cell (as PyTorch's GRU), a tenth of that for the head, so that the outputs start at
    /// `bias`, the law without history.
    #[must_use]
    pub fn random(sizes: Sizes, bias: &[f32], random: &mut ChaCha8Rng) -> Self {
        let Sizes { features, hidden, outputs } = sizes;
        let bound = 1.0 / f64_of_count(hidden.max(1)).sqrt();
        let mut uniform = |n: usize, bound: f64| (0..n).map(|_| f32_of((random.random::<f64>() * 2.0 - 1.0) * bound)).collect::<Vec<f32>>();
        Weights {
            sizes,
            w: uniform(features * 3 * hidden, bound),
            b: uniform(3 * hidden, bound),
            u: uniform((hidden + 1) * 3 * hidden, bound),
            head: uniform(hidden * outputs, bound * 0.1),
            head_bias: bias.to_vec(),
        }
    }

    /// Multiplies one output by a number.
    pub fn scale_output(&mut self, output: usize, by: f64) {
        let width = self.sizes.outputs.max(1);
        let column = self.head.iter_mut().skip(output).step_by(width).chain(self.head_bias.iter_mut().skip(output).take(1));
        column.for_each(|weight| *weight = f32_of(f64::from(*weight) * by));
    }

    /// Number of weights.
    #[must_use]
    pub fn len(&self) -> usize {
        self.w.len() + self.b.len() + self.u.len() + self.head.len() + self.head_bias.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The weights as variables of the autograd graph.
#[derive(Clone, Debug)]
pub struct Network {
    sizes: Sizes,
    w: Var,
    b: Var,
    u: Var,
    head: Var,
    head_bias: Var,
}

impl Network {
    /// Variables that start at `weights`.
    ///
    /// # Errors
    /// A vector has another length than the sizes say.
    pub fn new(weights: &Weights) -> Result<Self> {
        let Sizes { features, hidden, outputs } = weights.sizes;
        let var = |values: &[f32], shape: &[usize]| Var::from_slice(values, shape, &Device::Cpu);
        Ok(Network {
            sizes: weights.sizes,
            w: var(&weights.w, &[features, 3 * hidden])?,
            b: var(&weights.b, &[3 * hidden])?,
            u: var(&weights.u, &[hidden + 1, 3 * hidden])?,
            head: var(&weights.head, &[hidden, outputs])?,
            head_bias: var(&weights.head_bias, &[outputs])?,
        })
    }

    /// Size of the recurrent state.
    #[must_use]
    pub fn hidden(&self) -> usize {
        self.sizes.hidden
    }

    /// The variables, in a fixed order.
    #[must_use]
    pub fn variables(&self) -> Vec<Var> {
        [&self.w, &self.b, &self.u, &self.head, &self.head_bias].map(Var::clone).to_vec()
    }

    /// A copy of the weights.
    ///
    /// # Errors
    /// Never for CPU variables of f32.
    pub fn weights(&self) -> Result<Weights> {
        let flat = |var: &Var| var.as_tensor().flatten_all()?.to_vec1::<f32>();
        Ok(Weights {
            sizes: self.sizes,
            w: flat(&self.w)?,
            b: flat(&self.b)?,
            u: flat(&self.u)?,
            head: flat(&self.head)?,
            head_bias: flat(&self.head_bias)?,
        })
    }

    /// Runs a window: `x` `[T, B, F]` and the states before it `[B, H]` to the states after every step `[T, B, H]` and the outputs `[T * B, P]`.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn window(&self, x: &Tensor, before: &Tensor) -> Result<(Tensor, Tensor)> {
        let (steps, rows, features) = x.dims3()?;
        let a = x.reshape((steps * rows, features))?.matmul(&self.w)?.broadcast_add(&self.b)?;
        let a = a.reshape((steps, rows, 3 * self.sizes.hidden))?;
        let states = a.apply_op3(before, &self.u, GruWindow::default())?;
        let flat = states.reshape((steps * rows, self.sizes.hidden))?;
        let outputs = flat.matmul(&self.head)?.broadcast_add(&self.head_bias)?;
        Ok((states, outputs))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::fit::loss::{MeanLoss, Objective, Target};

    const SIZES: Sizes = Sizes { features: 3, hidden: 4, outputs: 6 };
    const OBJECTIVE: Objective = Objective::Law { law: crate::fit::loss::LawKind::Mixture(2), min_gap: 1e-6, resolution: None, marks: 0 };

    fn loss(network: &Network, x: &Tensor, targets: &[Target]) -> Tensor {
        let before = Tensor::full(0.2f32, (2, 4), &Device::Cpu).unwrap();
        let (_, outputs) = network.window(x, &before).unwrap();
        outputs.apply_op1(MeanLoss::new(OBJECTIVE, targets.to_vec())).unwrap()
    }

    #[test]
    fn the_gradient_through_a_window_is_the_slope_of_the_loss() {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let mut weights = Weights::random(SIZES, &[0.0, 0.2, -0.5, 0.4, 0.1, -0.1], &mut random);
        weights.head.iter_mut().for_each(|w| *w *= 10.0);
        let x: Vec<f32> = (0..5 * 2 * 3).map(|_| random.random::<f32>() * 2.0 - 1.0).collect();
        let x = Tensor::from_vec(x, (5, 2, 3), &Device::Cpu).unwrap();
        let mut targets: Vec<Target> = (0..10).map(|i| Target { gap: 0.3 + f64::from(i), ..Target::NONE }).collect();
        targets[3] = Target::NONE;
        let network = Network::new(&weights).unwrap();
        let gradients = loss(&network, &x, &targets).backward().unwrap();
        for variable in network.variables() {
            let gradient = gradients.get(&variable).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let values = variable.as_tensor().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for (i, given) in gradient.iter().enumerate() {
                let at = |step: f32| {
                    let mut moved = values.clone();
                    moved[i] += step;
                    variable.set(&Tensor::from_vec(moved, variable.shape(), &Device::Cpu).unwrap()).unwrap();
                    let value = loss(&network, &x, &targets).to_scalar::<f32>().unwrap();
                    variable.set(&Tensor::from_vec(values.clone(), variable.shape(), &Device::Cpu).unwrap()).unwrap();
                    value
                };
                let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
                assert!(
                    (slope - given).abs() < 2e-3 * slope.abs().max(0.5),
                    "shape {:?}, weight {i}: {slope} is not {given}",
                    variable.shape()
                );
            }
        }
    }

    #[test]
    fn a_window_is_the_textbook_gru_step_by_step() {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let weights = Weights::random(SIZES, &[0.0; 6], &mut random);
        let x = [[0.5f32, -1.0, 2.0], [0.1, 0.7, -0.3]];
        let network = Network::new(&weights).unwrap();
        let tensor = Tensor::new(&[[x[0]], [x[1]]], &Device::Cpu).unwrap();
        let (states, _) = network.window(&tensor, &Tensor::zeros((1, 4), candle_core::DType::F32, &Device::Cpu).unwrap()).unwrap();
        let given = states.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let sigmoid = |v: f32| 1.0 / (1.0 + (-v).exp());
        let mut h = [0f32; 4];
        for (step, x) in x.iter().enumerate() {
            let before = h;
            let a = |g: usize, i: usize| weights.b[g * 4 + i] + (0..3).map(|f| x[f] * weights.w[f * 12 + g * 4 + i]).sum::<f32>();
            let q =
                |g: usize, i: usize| weights.u[4 * 12 + g * 4 + i] + (0..4).map(|j| before[j] * weights.u[j * 12 + g * 4 + i]).sum::<f32>();
            for i in 0..4 {
                let (r, z) = (sigmoid(a(0, i) + q(0, i)), sigmoid(a(1, i) + q(1, i)));
                h[i] = (1.0 - z) * (a(2, i) + r * q(2, i)).tanh() + z * before[i];
                assert!((h[i] - given[step * 4 + i]).abs() < 1e-6);
            }
        }
    }
}
