//! Continuous-time LSTM: between events the cell decays from c towards c_bar, c(t) = c_bar + (c - c_bar) exp(-d t), and h(t) = o tanh c(t). At an event all
//! gates see x and h(t). Source: H. Mei, J. Eisner, "The neural Hawkes process", 2017, equations 5 and 6.

use super::{Design, Inputs, State, Stepped, Weight, parts};
use crate::fit::ops::{Function, Ops};

pub fn states(design: &Design) -> Vec<State> {
    ["c", "c_bar", "decay", "o"].map(|name| State { name, width: design.hidden }).to_vec()
}

pub fn weights(design: &Design) -> Vec<Weight> {
    let (f, h, bound) = (design.features, design.hidden, design.bound());
    vec![Weight::uniform("w", &[f, 7 * h], bound), Weight::uniform("b", &[7 * h], bound), Weight::uniform("u", &[h, 7 * h], bound)]
}

/// Gates in the order i, f, o, i_bar, f_bar, z, d: those with a sigmoid side by side. The decay d is kept per mean gap.
pub fn step<O: Ops>(design: &Design, ops: &mut O, inputs: &Inputs<'_, O::T>) -> Stepped<O::T> {
    let hidden = design.hidden;
    let [c, c_bar, decay, o] = inputs.states()?;
    let elapsed = ops.mul(decay, inputs.gap()?)?;
    let elapsed = ops.scale(&elapsed, -1.0)?;
    let left = ops.apply(Function::Exp, &elapsed)?;
    let far = ops.sub(c, c_bar)?;
    let far = ops.mul(&far, &left)?;
    let c = ops.add(c_bar, &far)?;
    let squashed = ops.apply(Function::Tanh, &c)?;
    let h = ops.mul(o, &squashed)?;
    let input = ops.linear(inputs.x, "w", "b")?;
    let recurrent = ops.project(&h, "u")?;
    let sum = ops.add(&input, &recurrent)?;
    let [gates, z, d] = parts(ops.split(&sum, &[5 * hidden, hidden, hidden])?)?;
    let gates = ops.apply(Function::Sigmoid, &gates)?;
    let [i, f, o, i_bar, f_bar] = parts(ops.split(&gates, &[hidden; 5])?)?;
    let z = ops.apply(Function::Tanh, &z)?;
    let decay = ops.apply(Function::Softplus, &d)?;
    let (kept, new) = (ops.mul(&f, &c)?, ops.mul(&i, &z)?);
    let c = ops.add(&kept, &new)?;
    let (kept, new) = (ops.mul(&f_bar, c_bar)?, ops.mul(&i_bar, &z)?);
    let c_bar = ops.add(&kept, &new)?;
    let active = if design.publishes_itself() {
        let far = ops.sub(&c, &c_bar)?;
        ops.concat(&[&far, &c_bar, &decay, &o])?
    } else {
        let squashed = ops.apply(Function::Tanh, &c)?;
        ops.mul(&o, &squashed)?
    };
    Ok((active, vec![c, c_bar, decay, o]))
}
