//! A diagonal state-space layer over irregular time: complex state s (as two tensors), s(t + gap) = s exp((-a + i w) gap), and at an event s' = s + B x;
//! activations tanh(C s' + D x + b). Source: J. T. H. Smith, A. Warrington, S. W. Linderman, "Simplified state space layers for sequence modeling" (S5),
//! 2023; A. Gu et al., "On the parameterization and initialization of diagonal state space models" (S4D), 2022.
//!
//! The turn is by the angle 2 atan(w gap / 2), Cayley's, instead of w gap: the same for small angles, of size one for all, and without the sine and cosine
//! that are the slowest part of such a graph. The decay is exact.

use super::{Design, Inputs, State, Stepped, Weight};
use crate::base::number::{f32_of, f64_of_count};
use crate::fit::ops::{Function, Ops};

pub fn states(design: &Design) -> Vec<State> {
    ["re", "im"].map(|name| State { name, width: design.hidden }).to_vec()
}

pub fn weights(design: &Design) -> Vec<Weight> {
    let (f, h) = (design.features, design.hidden);
    let turns = (0..h).map(|i| f32_of(std::f64::consts::PI * f64_of_count(i % 8) / 8.0)).collect();
    vec![
        Weight::values("log_a", Design::log_rates(h)),
        Weight::values("half_w", turns),
        Weight::uniform("in", &[f, 2 * h], 0.5 * design.input_bound()),
        Weight::uniform("c", &[2 * h, h], design.bound()),
        Weight::uniform("d", &[f, h], design.input_bound()),
        Weight::filled("b", h, 0.0),
    ]
}

pub fn step<O: Ops>(design: &Design, ops: &mut O, inputs: &Inputs<'_, O::T>) -> Stepped<O::T> {
    let hidden = design.hidden;
    let [re, im] = inputs.states()?;
    let gap = inputs.gap()?;
    let log_a = ops.weight("log_a")?;
    let a = ops.apply(Function::Exp, &log_a)?;
    let a = ops.scale(&a, -1.0)?;
    let elapsed = ops.mul(gap, &a)?;
    let left = ops.apply(Function::Exp, &elapsed)?;
    let half_w = ops.weight("half_w")?;
    let u = ops.mul(gap, &half_w)?;
    // cos = (1 - u²) / (1 + u²), sin = 2 u / (1 + u²); with v = left / (1 + u²): left cos = 2 v - left, left sin = 2 u v.
    let square = ops.mul(&u, &u)?;
    let size = ops.shift(&square, 1.0)?;
    let v = ops.div(&left, &size)?;
    let v = ops.scale(&v, 2.0)?;
    let cos = ops.sub(&v, &left)?;
    let sin = ops.mul(&u, &v)?;
    let input = ops.project(inputs.x, "in")?;
    let (input_re, input_im) = ops.split2(&input, hidden, hidden)?;
    let (re_cos, im_sin) = (ops.mul(re, &cos)?, ops.mul(im, &sin)?);
    let turned = ops.sub(&re_cos, &im_sin)?;
    let next_re = ops.add(&turned, &input_re)?;
    let (re_sin, im_cos) = (ops.mul(re, &sin)?, ops.mul(im, &cos)?);
    let turned = ops.add(&re_sin, &im_cos)?;
    let next_im = ops.add(&turned, &input_im)?;
    let both = ops.concat(&[&next_re, &next_im])?;
    let read = ops.project(&both, "c")?;
    let direct = ops.linear(inputs.x, "d", "b")?;
    let sum = ops.add(&read, &direct)?;
    let activations = ops.apply(Function::Tanh, &sum)?;
    Ok((activations, vec![next_re, next_im]))
}
