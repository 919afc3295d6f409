//! ODE-RNN: between events the state follows dh/ds = tanh(h A + a), at an event it takes a GRU step.
//! Source: Y. Rubanova, R. T. Q. Chen, D. Duvenaud, "Latent ODEs for irregularly-sampled time series", 2019.
//!
//! s = t / (1 + t), t in mean gaps, is a clock that runs ever slower, so that one step of Runge and Kutta's fourth order reaches over any gap and stays stable.

use super::{Design, Inputs, State, Stepped, Weight, gru};
use crate::fit::ops::{Function, Ops};

pub fn states(design: &Design) -> Vec<State> {
    vec![State { name: "h", width: design.hidden }]
}

pub fn weights(design: &Design) -> Vec<Weight> {
    let h = design.hidden;
    let mut weights = gru::weights(design);
    weights.extend([Weight::uniform("flow", &[h, h], design.bound()), Weight::filled("b_flow", h, 0.0)]);
    weights
}

pub fn step<O: Ops>(design: &Design, ops: &mut O, inputs: &Inputs<'_, O::T>) -> Stepped<O::T> {
    let [h] = inputs.states()?;
    let gap = inputs.gap()?;
    let longer = ops.shift(gap, 1.0)?;
    let whole = ops.div(gap, &longer)?;
    let half = ops.scale(&whole, 0.5)?;
    let flow = |ops: &mut O, h: &O::T| {
        let sum = ops.linear(h, "flow", "b_flow")?;
        ops.apply(Function::Tanh, &sum)
    };
    let after = |ops: &mut O, slope: &O::T, time: &O::T| {
        let way = ops.mul(slope, time)?;
        ops.add(h, &way)
    };
    let k1 = flow(ops, h)?;
    let at = after(ops, &k1, &half)?;
    let k2 = flow(ops, &at)?;
    let at = after(ops, &k2, &half)?;
    let k3 = flow(ops, &at)?;
    let at = after(ops, &k3, &whole)?;
    let k4 = flow(ops, &at)?;
    let middle = ops.add(&k2, &k3)?;
    let middle = ops.scale(&middle, 2.0)?;
    let ends = ops.add(&k1, &k4)?;
    let sum = ops.add(&ends, &middle)?;
    let slope = ops.scale(&sum, 1.0 / 6.0)?;
    let h = after(ops, &slope, &whole)?;
    let h = gru::update(design, ops, inputs.x, &h)?;
    Ok((h.clone(), vec![h]))
}
