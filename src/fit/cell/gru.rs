//! Gated recurrent unit: h' = n + z (h - n), r, z = sigmoid(W x + U h + b), n = tanh(W x + b + r (U h + c)): the form of cuDNN, PyTorch and ONNX with
//! `linear_before_reset = 1`. Source: K. Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014.

use candle_core::Result;

use super::{Design, Inputs, State, Stepped, Weight};
use crate::fit::ops::{Function, Ops};

pub fn states(design: &Design) -> Vec<State> {
    vec![State { name: "h", width: design.hidden }]
}

pub fn weights(design: &Design) -> Vec<Weight> {
    of_input(design, design.features)
}

/// The weights of a GRU that takes `features` floats.
pub fn of_input(design: &Design, features: usize) -> Vec<Weight> {
    let (h, bound) = (design.hidden, design.bound());
    vec![
        Weight::uniform("w", &[features, 3 * h], bound),
        Weight::uniform("b", &[3 * h], bound),
        Weight::uniform("u", &[h, 3 * h], bound),
        Weight::uniform("c_n", &[h], bound),
    ]
}

pub fn step<O: Ops>(design: &Design, ops: &mut O, inputs: &Inputs<'_, O::T>) -> Stepped<O::T> {
    let [h] = inputs.states()?;
    let next = update(design, ops, inputs.x, h)?;
    Ok((next.clone(), vec![next]))
}

/// The next state. One product for `x`, one for `h`, gates split off: tract pushes the splits into the products, which then take two thirds of a step
/// (`docs/performance.md`).
pub fn update<O: Ops>(design: &Design, ops: &mut O, x: &O::T, h: &O::T) -> Result<O::T> {
    let hidden = design.hidden;
    let a = ops.linear(x, "w", "b")?;
    let hu = ops.project(h, "u")?;
    let (a_rz, a_n) = ops.split2(&a, 2 * hidden, hidden)?;
    let (hu_rz, hu_n) = ops.split2(&hu, 2 * hidden, hidden)?;
    let rz = ops.add(&a_rz, &hu_rz)?;
    let rz = ops.apply(Function::Sigmoid, &rz)?;
    let (r, z) = ops.split2(&rz, hidden, hidden)?;
    let bias = ops.weight("c_n")?;
    let q = ops.add(&hu_n, &bias)?;
    let reset = ops.mul(&r, &q)?;
    let n = ops.add(&a_n, &reset)?;
    let n = ops.apply(Function::Tanh, &n)?;
    let difference = ops.sub(h, &n)?;
    let kept = ops.mul(&z, &difference)?;
    ops.add(&n, &kept)
}
