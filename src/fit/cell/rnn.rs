//! Elman's network: h' = tanh(W x + U h + b). Source: J. L. Elman, "Finding structure in time", 1990.

use super::{Design, Inputs, State, Stepped, Weight};
use crate::fit::ops::{Function, Ops};

pub fn states(design: &Design) -> Vec<State> {
    vec![State { name: "h", width: design.hidden }]
}

pub fn weights(design: &Design) -> Vec<Weight> {
    let (f, h, bound) = (design.features, design.hidden, design.bound());
    vec![Weight::uniform("w", &[f, h], bound), Weight::uniform("b", &[h], bound), Weight::uniform("u", &[h, h], bound)]
}

pub fn step<O: Ops>(_: &Design, ops: &mut O, inputs: &Inputs<'_, O::T>) -> Stepped<O::T> {
    let [h] = inputs.states()?;
    let input = ops.linear(inputs.x, "w", "b")?;
    let recurrent = ops.project(h, "u")?;
    let sum = ops.add(&input, &recurrent)?;
    let next = ops.apply(Function::Tanh, &sum)?;
    Ok((next.clone(), vec![next]))
}
