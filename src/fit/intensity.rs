//! The law `intensity`: the intensity of each mark by units that decay between events, as the neural Hawkes process has it,
//! lambda_k(tau) = s_k softplus((w_k . h(tau) + b_k) / s_k), h(tau) = o tanh(c(tau)), c(tau) = c_bar + (c - c_bar) e^(-d tau).
//! Source: H. Mei, J. Eisner, "The neural Hawkes process", NeurIPS 2017, equations 4 to 7.
//!
//! A step publishes c - c_bar, c_bar, d and o of each unit: of the cell `ct_lstm` its own state, of other cells a linear map of their activations. The
//! intensities are written once in `Ops`: as tensors they are trained, as nodes they are `intensity.onnx`. The compensator has no closed form; training
//! integrates by Gauss and Legendre's rule in ln(1 + RATE tau), so that what is short after an event is seen as well as what is long.

use candle_core::{Device, Result, Tensor};

use super::autograd;
use super::cell::{Design, HEAD, HEAD_BIAS, Start, Weight};
use super::loss::{Objective, Target, Terms};
use super::network::Weights;
use super::ops::{Function, Nodes, Ops, Tensors};
use crate::base::number::{f32_of, f64_of_count, index};
use crate::model::onnx::Graph;

/// Names of the readout's weights: w `[units, marks]`, b and ln s `[marks]`.
pub const READOUT: [&str; 3] = ["w_lambda", "b_lambda", "ln_s_lambda"];
/// Added to each intensity, per mean gap: its logarithm stays finite.
const LEAST: f32 = 1e-6;
/// Decays per mean gap that the nodes of the integral still resolve.
const RATE: f64 = 64.0;
/// Nodes of the integral while training, and where figures are computed. With decays up to 300 per mean gap they are off by at most 1e-4 and 1e-6 of a nat
/// over gaps up to 30 mean gaps.
const NODES: [usize; 2] = [20, 32];
/// Rows whose figures are computed together.
const ROWS: usize = 1024;

/// Units that decay, and the marks whose intensities they make.
#[derive(Clone, Debug, PartialEq)]
pub struct Decaying {
    /// Units.
    pub units: usize,
    /// Marks; 1 without.
    pub marks: usize,
    /// Mean gaps per unit of time.
    pub pace: f64,
}

/// What a step publishes of each unit: c - c_bar, c_bar, d per mean gap, o.
pub type Parts<T> = [T; 4];

/// x with softplus(x) = y.
fn before_softplus(y: f64) -> f32 {
    f32_of(y.max(1e-6).exp_m1().ln())
}

impl Decaying {
    /// The weights of the head; `bias` are the readout's b. `linear`: with the map from a cell's activations.
    #[must_use]
    pub fn weights(&self, design: &Design, bias: &[f32], linear: bool) -> Vec<Weight> {
        let (units, marks) = (self.units, self.marks);
        let uniform = |name, shape: &[usize], bound| Weight { name, shape: shape.to_vec(), start: Start::Uniform(bound) };
        let values = |name, values: Vec<f32>| Weight { name, shape: vec![values.len()], start: Start::Values(values) };
        let mut weights = Vec::new();
        if linear {
            let rates = Design::log_rates(units).into_iter().map(|ln| before_softplus(f64::from(ln).exp()));
            let even = |n: usize| std::iter::repeat_n(0.0, n);
            weights.push(uniform(HEAD, &[design.hidden, 4 * units], 1.0 / f64_of_count(design.hidden.max(1)).sqrt()));
            weights.push(values(HEAD_BIAS, even(2 * units).chain(rates).chain(even(units)).collect()));
        }
        weights.push(uniform(READOUT[0], &[units, marks], 1.0 / f64_of_count(units.max(1)).sqrt()));
        weights.push(values(READOUT[1], bias.to_vec()));
        weights.push(values(READOUT[2], vec![0.0; marks]));
        weights
    }

    /// b for intensities that are, without history, these shares of one event a mean gap.
    #[must_use]
    pub fn bias(shares: impl Iterator<Item = f64>) -> Vec<f32> {
        shares.map(before_softplus).collect()
    }

    /// What is published, from the activations of a cell that does not decay itself.
    ///
    /// # Errors
    /// As candle's.
    pub fn publish<O: Ops>(&self, ops: &mut O, active: &O::T) -> Result<O::T> {
        let all = ops.linear(active, HEAD, HEAD_BIAS)?;
        let [far, c_bar, decay, o] = self.parts(ops, &all)?;
        let decay = ops.apply(Function::Softplus, &decay)?;
        let o = ops.apply(Function::Sigmoid, &o)?;
        ops.concat(&[&far, &c_bar, &decay, &o])
    }

    fn parts<O: Ops>(&self, ops: &mut O, law: &O::T) -> Result<Parts<O::T>> {
        let parts = ops.split(law, &[self.units; 4])?;
        parts.try_into().map_err(|_| candle_core::Error::Msg("a split gave another number of parts".to_owned()))
    }

    /// lambda `[B, marks]`, per unit of time, at gaps `[B, 1]` in units of time.
    ///
    /// # Errors
    /// As candle's.
    pub fn intensities<O: Ops>(&self, ops: &mut O, [far, c_bar, decay, o]: &Parts<O::T>, tau: &O::T) -> Result<O::T> {
        let pace = f32_of(self.pace);
        // A product with a row: faster than stretching.
        let back = ops.constant(&[1, self.units], &vec![-pace; self.units])?;
        let back = ops.matmul(tau, &back)?;
        let fallen = ops.mul(decay, &back)?;
        let kept = ops.apply(Function::Exp, &fallen)?;
        let left = ops.mul(far, &kept)?;
        let c = ops.add(c_bar, &left)?;
        let squashed = ops.apply(Function::Tanh, &c)?;
        let h = ops.mul(o, &squashed)?;
        // Constants are put together with constants: of those a graph has only one left.
        let [w, b, ln_scale] = [ops.weight(READOUT[0])?, ops.weight(READOUT[1])?, ops.weight(READOUT[2])?];
        let scale = ops.apply(Function::Exp, &ln_scale)?;
        let (w, b, scale) = (ops.div(&w, &scale)?, ops.div(&b, &scale)?, ops.scale(&scale, pace)?);
        let product = ops.matmul(&h, &w)?;
        let scaled = ops.add(&product, &b)?;
        // max(x, 0) + softplus(-abs x): e^x itself would leave the range of numbers where s is small.
        let up = ops.apply(Function::Relu, &scaled)?;
        let both = ops.scale(&up, -2.0)?;
        let down = ops.add(&scaled, &both)?;
        let rest = ops.apply(Function::Softplus, &down)?;
        let positive = ops.add(&up, &rest)?;
        let lambda = ops.mul(&positive, &scale)?;
        ops.shift(&lambda, LEAST * pace)
    }

    /// The bytes of `intensity.onnx`.
    ///
    /// # Errors
    /// Never for the weights of a design.
    pub fn graph(&self, weights: &Weights) -> crate::base::error::Result<Vec<u8>> {
        let mut graph = Graph::new("intensity");
        let (law, tau) = ("law".to_owned(), "tau".to_owned());
        graph.input(&law, &[4 * self.units]);
        graph.input(&tau, &[1]);
        for (spec, values) in weights.specs().iter().zip(&weights.values).filter(|(spec, _)| READOUT.contains(&spec.name)) {
            graph.constant(spec.name, &spec.shape, values);
        }
        let mut ops = Nodes::new(graph);
        let parts = self.parts(&mut ops, &law).map_err(autograd)?;
        let lambda = self.intensities(&mut ops, &parts, &tau).map_err(autograd)?;
        ops.output(&lambda, "lambda", self.marks);
        Ok(ops.graph.to_bytes())
    }

    /// lambda of rows that were published, at a gap each: `[B, marks]`, row-major.
    ///
    /// # Errors
    /// As candle's.
    pub fn at(&self, ops: &mut Tensors<'_>, laws: &[f32], taus: &[f32]) -> Result<Vec<f32>> {
        let law = Tensor::from_slice(laws, (taus.len(), 4 * self.units), &Device::Cpu)?;
        let parts = self.parts(ops, &law)?;
        let tau = Tensor::from_slice(taus, (taus.len(), 1), &Device::Cpu)?;
        self.intensities(ops, &parts, &tau)?.flatten_all()?.to_vec1::<f32>()
    }

    /// Integral of the sum over marks between two gaps of each row: `[n, 1]`.
    fn integral(&self, ops: &mut Tensors<'_>, parts: &Parts<Tensor>, spans: &[(f64, f64)], nodes: usize) -> Result<Tensor> {
        let rate = RATE * self.pace;
        let mut sum: Option<Tensor> = None;
        for (x, weight) in gauss_legendre(nodes) {
            // tau = (e^s - 1) / rate, s evenly between those of the ends.
            let points = spans.iter().map(|(from, to)| {
                let (low, high) = ((rate * from).ln_1p(), (rate * to).ln_1p());
                let s = low + (high - low) * x;
                (f32_of(s.exp_m1() / rate), f32_of(weight * (high - low) * s.exp() / rate))
            });
            let (taus, weights): (Vec<f32>, Vec<f32>) = points.unzip();
            let at = self.intensities(ops, parts, &column(taus)?)?.sum_keepdim(1)?.mul(&column(weights)?)?;
            sum = Some(match sum {
                None => at,
                Some(sum) => (sum + at)?,
            });
        }
        sum.ok_or_else(|| candle_core::Error::Msg("a rule without nodes".to_owned()))
    }

    /// -ln f of each row's gap (with a resolution: -ln of the tick's probability), and -ln of its mark's share of the intensity at the gap; both `[n, 1]`. What
    /// a row without a target has means nothing.
    fn losses(&self, ops: &mut Tensors<'_>, law: &Tensor, targets: &[Target], clock: Clock, nodes: usize) -> Result<(Tensor, Tensor)> {
        let parts = self.parts(ops, law)?;
        let gap = |target: &Target| if target.gap.is_nan() { 1.0 / self.pace } else { target.gap }.max(clock.min_gap);
        let gaps: Vec<f64> = targets.iter().map(gap).collect();
        let at = self.intensities(ops, &parts, &column(gaps.iter().map(|gap| f32_of(*gap)).collect())?)?;
        let ln_all = at.sum_keepdim(1)?.log()?;
        let time = match clock.resolution {
            None => {
                let spans: Vec<(f64, f64)> = gaps.iter().map(|gap| (0.0, *gap)).collect();
                (self.integral(ops, &parts, &spans, nodes)? - &ln_all)?
            }
            Some(width) => {
                let low = |gap: &f64| (gap - 0.5 * width).max(0.0);
                let before: Vec<(f64, f64)> = gaps.iter().map(|gap| (0.0, low(gap))).collect();
                let within: Vec<(f64, f64)> = gaps.iter().map(|gap| (low(gap), gap + 0.5 * width)).collect();
                // 1 - e^-r = 2 t / (1 + t), t = tanh(r / 2): nothing is lost where r is small.
                let t = self.integral(ops, &parts, &within, nodes)?.affine(0.5, 0.0)?.tanh()?;
                let ln_share = (t.affine(2.0, 0.0)?.log()? - t.affine(1.0, 1.0)?.log()?)?;
                (self.integral(ops, &parts, &before, nodes)? - ln_share)?
            }
        };
        let mut own = vec![0f32; targets.len() * self.marks];
        for (row, target) in own.chunks_exact_mut(self.marks).zip(targets) {
            if let Some(one) = row.get_mut(target.mark.map_or(0, index)) {
                *one = 1.0;
            }
        }
        let own = at.mul(&Tensor::from_vec(own, (targets.len(), self.marks), &Device::Cpu)?)?.sum_keepdim(1)?;
        Ok((time, (ln_all - own.log()?)?))
    }

    /// Whether the mark of a target counts.
    fn marked(&self, target: &Target) -> bool {
        self.marks > 1 && !target.gap.is_nan() && target.mark.is_some_and(|mark| index(mark) < self.marks)
    }

    /// The mean loss over the rows that count, with gradients.
    ///
    /// # Errors
    /// As candle's.
    pub fn mean_loss(&self, ops: &mut Tensors<'_>, law: &Tensor, objective: &Objective, targets: &[Target]) -> Result<Tensor> {
        let (time, mark) = self.losses(ops, law, targets, Clock::of(objective), NODES[0])?;
        let count = targets.iter().filter(|target| !target.gap.is_nan()).count().max(1);
        let one = f32_of(1.0 / f64_of_count(count));
        let weights =
            |counts: &dyn Fn(&Target) -> bool| column(targets.iter().map(|target| if counts(target) { one } else { 0.0 }).collect());
        let time = time.mul(&weights(&|target| !target.gap.is_nan())?)?.sum_all()?;
        let mark = mark.mul(&weights(&|target| self.marked(target))?)?.sum_all()?;
        time + mark
    }

    /// The terms of each row.
    ///
    /// # Errors
    /// As candle's.
    pub fn terms(&self, ops: &mut Tensors<'_>, laws: &[f32], objective: &Objective, targets: &[Target]) -> Result<Vec<Terms>> {
        let mut terms = Vec::with_capacity(targets.len());
        for (laws, targets) in laws.chunks(ROWS * 4 * self.units).zip(targets.chunks(ROWS)) {
            let law = Tensor::from_slice(laws, (targets.len(), 4 * self.units), &Device::Cpu)?;
            let (time, mark) = self.losses(ops, &law, targets, Clock::of(objective), NODES[1])?;
            let values = |of: Tensor| of.flatten_all()?.to_vec1::<f32>();
            for ((time, mark), target) in values(time)?.into_iter().zip(values(mark)?).zip(targets) {
                terms.push(Terms {
                    time: (!target.gap.is_nan()).then_some(f64::from(time)),
                    mark: self.marked(target).then_some(f64::from(mark)),
                    label: None,
                });
            }
        }
        Ok(terms)
    }
}

/// How gaps are taken.
#[derive(Clone, Copy, Debug)]
struct Clock {
    min_gap: f64,
    resolution: Option<f64>,
}

impl Clock {
    fn of(objective: &Objective) -> Self {
        match objective {
            Objective::Law { min_gap, resolution, .. } => Clock { min_gap: *min_gap, resolution: *resolution },
            Objective::Score => Clock { min_gap: 0.0, resolution: None },
        }
    }
}

fn column(values: Vec<f32>) -> Result<Tensor> {
    let rows = values.len();
    Tensor::from_vec(values, (rows, 1), &Device::Cpu)
}

/// Nodes and weights of Gauss and Legendre's rule on (0, 1): the zeros of Legendre's polynomial by Newton's steps.
fn gauss_legendre(count: usize) -> Vec<(f64, f64)> {
    let n = f64_of_count(count);
    let value = |x: f64| {
        let (mut before, mut value) = (1.0, x);
        for k in 2..=count {
            let k = f64_of_count(k);
            (before, value) = (value, ((2.0 * k - 1.0) * x * value - (k - 1.0) * before) / k);
        }
        (value, n * (x * value - before) / (x * x - 1.0))
    };
    let node = |i: usize| {
        let mut x = (std::f64::consts::PI * (f64_of_count(i) + 0.75) / (n + 0.5)).cos();
        for _ in 0..20 {
            let (value, slope) = value(x);
            x -= value / slope;
        }
        let (_, slope) = value(x);
        (0.5 * (1.0 + x), 1.0 / ((1.0 - x * x) * slope * slope))
    };
    (0..count).map(node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_is_exact_for_polynomials_of_twice_its_degree() {
        for count in NODES {
            for power in 0..2 * count {
                let sum: f64 = gauss_legendre(count).iter().map(|(x, weight)| weight * x.powi(power as i32)).sum();
                assert!((sum * (power as f64 + 1.0) - 1.0).abs() < 1e-12, "{count} nodes, power {power}: {sum}");
            }
        }
    }
}
