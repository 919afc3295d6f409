//! Long short-term memory: c' = f c + i g, h' = o tanh c', gates i, f, g, o of x and h.
//! Source: F. A. Gers, J. Schmidhuber, F. Cummins, "Learning to forget: continual prediction with LSTM", 2000.

use super::{Design, Inputs, State, Stepped, Weight, parts};
use crate::fit::ops::{Function, Ops};

pub fn states(design: &Design) -> Vec<State> {
    vec![State { name: "h", width: design.hidden }, State { name: "c", width: design.hidden }]
}

pub fn weights(design: &Design) -> Vec<Weight> {
    let (f, h, bound) = (design.features, design.hidden, design.bound());
    // The forget gate starts open.
    let bias = [vec![0.0; 2 * h], vec![1.0; h], vec![0.0; h]].concat();
    vec![Weight::uniform("w", &[f, 4 * h], bound), Weight::values("b", bias), Weight::uniform("u", &[h, 4 * h], bound)]
}

/// Gates in the order i, o, f, g: those with a sigmoid side by side.
pub fn step<O: Ops>(design: &Design, ops: &mut O, inputs: &Inputs<'_, O::T>) -> Stepped<O::T> {
    let hidden = design.hidden;
    let [h, c] = inputs.states()?;
    let input = ops.linear(inputs.x, "w", "b")?;
    let recurrent = ops.project(h, "u")?;
    let sum = ops.add(&input, &recurrent)?;
    let (gates, g) = ops.split2(&sum, 3 * hidden, hidden)?;
    let gates = ops.apply(Function::Sigmoid, &gates)?;
    let [i, o, f] = parts(ops.split(&gates, &[hidden; 3])?)?;
    let g = ops.apply(Function::Tanh, &g)?;
    let (kept, new) = (ops.mul(&f, c)?, ops.mul(&i, &g)?);
    let c = ops.add(&kept, &new)?;
    let squashed = ops.apply(Function::Tanh, &c)?;
    let h = ops.mul(&o, &squashed)?;
    Ok((h.clone(), vec![h, c]))
}
