//! A GRU over a whole window of steps as one operator with its own backward pass, so that the autograd graph has a handful of
//! nodes per window instead of a dozen per step.
//!
//! h' = n + z (h - n), with r, z = sigmoid(a_rz + h U_rz + c_rz), n = tanh(a_n + r (h U_n + c_n)), where a = x W + b is computed for the
//! whole window beforehand. This is the form of cuDNN, PyTorch and ONNX with `linear_before_reset = 1`. Gates stand in the order r, z, n.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp3, D, Device, Layout, Result, Shape, Tensor};

use super::contiguous;

/// The operator: inputs `a` `[T, B, 3H]`, `h` before the window `[B, H]`, `u` `[H + 1, 3H]` (U and, as last row, c); result `[T, B, H]`, the
/// state after each step. The gradient does not flow into the state before the window (truncated backpropagation).
#[derive(Default)]
pub struct GruWindow {
    /// r, z, n and h U_n + c_n of every step: `[T, B, 4H]`.
    gates: OnceLock<Vec<f32>>,
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn split3<T>(row: &[T], width: usize) -> (&[T], &[T], &[T]) {
    let (first, rest) = row.split_at(width);
    let (second, third) = rest.split_at(width);
    (first, second, third)
}

fn split3_mut<T>(row: &mut [T], width: usize) -> (&mut [T], &mut [T], &mut [T]) {
    let (first, rest) = row.split_at_mut(width);
    let (second, third) = rest.split_at_mut(width);
    (first, second, third)
}

/// One row of one step: `a` and `hu` `[3H]`, `c` `[3H]`, `h` `[H]`; writes r, z, n, q into `gates` `[4H]` and the new state into `next` `[H]`.
fn cell_row(a: &[f32], hu: &[f32], c: &[f32], h: &[f32], gates: &mut [f32], next: &mut [f32]) {
    let width = h.len();
    let (rzn, q) = gates.split_at_mut(3 * width);
    for (((gate, a), hu), c) in rzn.iter_mut().zip(a).zip(hu).zip(c).take(2 * width) {
        *gate = sigmoid(*a + *hu + *c);
    }
    let (r, z, n) = split3_mut(rzn, width);
    let ((_, _, a), (_, _, hu), (_, _, c)) = (split3(a, width), split3(hu, width), split3(c, width));
    for (((((q, n), r), a), hu), c) in q.iter_mut().zip(n.iter_mut()).zip(r.iter()).zip(a).zip(hu).zip(c) {
        *q = *hu + *c;
        *n = (*a + *r * *q).tanh();
    }
    for (((next, n), z), h) in next.iter_mut().zip(n.iter()).zip(z.iter()).zip(h) {
        *next = *n + *z * (*h - *n);
    }
}

/// One row of one step backwards: `slope` is dL/dh' on entry and the part of dL/dh that does not pass through U on return; `by_a` and `by_hu`
/// `[3H]` receive the gradients of a and h U + c.
fn cell_row_back(gates: &[f32], h: &[f32], slope: &mut [f32], by_a: &mut [f32], by_hu: &mut [f32]) {
    let width = h.len();
    let (rzn, q) = gates.split_at(3 * width);
    let (r, z, n) = split3(rzn, width);
    let (by_r, by_z, by_n) = split3_mut(by_a, width);
    let (hu_r, hu_z, hu_n) = split3_mut(by_hu, width);
    let saved = r.iter().zip(z).zip(n).zip(q).zip(h);
    let outputs = by_r.iter_mut().zip(by_z).zip(by_n).zip(hu_r.iter_mut().zip(hu_z).zip(hu_n));
    for ((slope, ((((r, z), n), q), h)), (((by_r, by_z), by_n), ((hu_r, hu_z), hu_n))) in slope.iter_mut().zip(saved).zip(outputs) {
        let d = *slope;
        *by_z = d * (*h - *n) * *z * (1.0 - *z);
        *by_n = d * (1.0 - *z) * (1.0 - *n * *n);
        *by_r = *by_n * *q * *r * (1.0 - *r);
        *hu_r = *by_r;
        *hu_z = *by_z;
        *hu_n = *by_n * *r;
        *slope = d * *z;
    }
}

fn add_product(sum: &mut [f32], left: Vec<f32>, rows: usize, right: &Tensor) -> Result<()> {
    let inner = left.len() / rows.max(1);
    let product = Tensor::from_vec(left, (rows, inner), &Device::Cpu)?.matmul(right)?;
    let (storage, layout) = product.storage_and_layout();
    if let candle_core::Storage::Cpu(storage) = &*storage {
        sum.iter_mut().zip(contiguous(storage, layout)?).for_each(|(sum, value)| *sum += *value);
    }
    Ok(())
}

impl CustomOp3 for GruWindow {
    fn name(&self) -> &'static str {
        "gru_window"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (steps, rows, _) = l1.shape().dims3()?;
        let hidden = l2.shape().dims2()?.1;
        let (a, before, u) = (contiguous(s1, l1)?, contiguous(s2, l2)?, contiguous(s3, l3)?);
        let (weights, c) = u.split_at(3 * hidden * hidden);
        let weights = Tensor::from_slice(weights, (hidden, 3 * hidden), &Device::Cpu)?;
        let mut states = vec![0f32; steps * rows * hidden];
        let mut gates = vec![0f32; steps * rows * 4 * hidden];
        let mut state = before.to_vec();
        let per_step = states.chunks_exact_mut(rows * hidden).zip(gates.chunks_exact_mut(rows * 4 * hidden));
        for (a, (states, gates)) in a.chunks_exact(rows * 3 * hidden).zip(per_step) {
            let mut hu = vec![0f32; rows * 3 * hidden];
            add_product(&mut hu, state.clone(), rows, &weights)?;
            let inputs = a.chunks_exact(3 * hidden).zip(hu.chunks_exact(3 * hidden)).zip(state.chunks_exact(hidden));
            let outputs = gates.chunks_exact_mut(4 * hidden).zip(states.chunks_exact_mut(hidden));
            for (((a, hu), h), (gates, next)) in inputs.zip(outputs) {
                cell_row(a, hu, c, h, gates, next);
            }
            state.copy_from_slice(states);
        }
        self.gates.set(gates).map_err(|_| candle_core::Error::Msg("a window is computed once".to_owned()))?;
        Ok((CpuStorage::F32(states), Shape::from((steps, rows, hidden))))
    }

    fn bwd(
        &self,
        a: &Tensor,
        before: &Tensor,
        u: &Tensor,
        states: &Tensor,
        upstream: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (steps, rows, hidden) = states.dims3()?;
        let gates = self.gates.get().ok_or_else(|| candle_core::Error::Msg("backward before forward".to_owned()))?;
        let weights_t = u.narrow(0, 0, hidden)?.t()?.contiguous()?;
        // State before each step: the one before the window, then all but the last after a step.
        let earlier = Tensor::cat(&[&before.unsqueeze(0)?, &states.narrow(0, 0, steps - 1)?], 0)?.contiguous()?;
        let flat = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
        let (earlier_values, upstream) = (flat(&earlier)?, flat(&upstream.contiguous()?)?);
        let mut by_a = vec![0f32; steps * rows * 3 * hidden];
        let mut by_hu = vec![0f32; steps * rows * 3 * hidden];
        let mut carry = vec![0f32; rows * hidden];
        let per_step = by_a.chunks_exact_mut(rows * 3 * hidden).zip(by_hu.chunks_exact_mut(rows * 3 * hidden));
        let saved = gates.chunks_exact(rows * 4 * hidden).zip(earlier_values.chunks_exact(rows * hidden));
        for (((by_a, by_hu), (gates, earlier)), upstream) in per_step.zip(saved).zip(upstream.chunks_exact(rows * hidden)).rev() {
            carry.iter_mut().zip(upstream).for_each(|(carry, slope)| *carry += *slope);
            let outputs = by_a.chunks_exact_mut(3 * hidden).zip(by_hu.chunks_exact_mut(3 * hidden));
            let inputs = gates.chunks_exact(4 * hidden).zip(earlier.chunks_exact(hidden)).zip(carry.chunks_exact_mut(hidden));
            for (((gates, h), slope), (by_a, by_hu)) in inputs.zip(outputs) {
                cell_row_back(gates, h, slope, by_a, by_hu);
            }
            add_product(&mut carry, by_hu.to_vec(), rows, &weights_t)?;
        }
        let by_hu = Tensor::from_vec(by_hu, (steps * rows, 3 * hidden), &Device::Cpu)?;
        let by_weights = earlier.reshape((steps * rows, hidden))?.t()?.matmul(&by_hu)?;
        let by_u = Tensor::cat(&[&by_weights, &by_hu.sum_keepdim(D::Minus2)?], 0)?;
        let by_a = Tensor::from_vec(by_a, a.shape(), &Device::Cpu)?;
        Ok((Some(by_a), None, Some(by_u)))
    }
}
