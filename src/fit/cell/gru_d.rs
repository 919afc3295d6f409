//! GRU-D, for readings that are often missing: a missing value fades from its last reading to the mean (zero, for a standardised column), and the state fades
//! with the gap; both at learnt rates. Which values are missing is what the recipe's missing flags say.
//! Source: Z. Che et al., "Recurrent neural networks for multivariate time series with missing values", 2018.

use super::{Design, Inputs, State, Stepped, Weight, gru, ones};
use crate::fit::ops::{Function, Ops};

pub fn states(design: &Design) -> Vec<State> {
    let state = |name, width| State { name, width };
    vec![state("h", design.hidden), state("last", design.features), state("since", design.features)]
}

pub fn weights(design: &Design) -> Vec<Weight> {
    let (f, h) = (design.features, design.hidden);
    let mut weights = gru::of_input(design, 2 * f);
    weights.extend([
        Weight::filled("fade", f, 0.3),
        Weight::uniform("fade_h", &[f, h], 0.1 * design.input_bound()),
        Weight::filled("b_fade_h", h, 0.05),
    ]);
    weights
}

pub fn step<O: Ops>(design: &Design, ops: &mut O, inputs: &Inputs<'_, O::T>) -> Stepped<O::T> {
    let f = design.features;
    let [h, last, since] = inputs.states()?;
    let flags = ones(f, f, |flag, value| design.missing.contains(&(value, flag)));
    let flags = ops.constant(&[f, f], &flags)?;
    let missing = ops.matmul(inputs.x, &flags)?;
    let minus = ops.scale(&missing, -1.0)?;
    let there = ops.shift(&minus, 1.0)?;
    let since = ops.add(since, inputs.gap()?)?;
    let left = |ops: &mut O, rate: &O::T| {
        let rate = ops.apply(Function::Relu, rate)?;
        let rate = ops.scale(&rate, -1.0)?;
        ops.apply(Function::Exp, &rate)
    };
    let fade = ops.weight("fade")?;
    let rate = ops.mul(&since, &fade)?;
    let faded = left(ops, &rate)?;
    let faded = ops.mul(&faded, last)?;
    let read = ops.mul(&there, inputs.x)?;
    let imputed = ops.mul(&missing, &faded)?;
    let x = ops.add(&read, &imputed)?;
    let rate = ops.linear(&since, "fade_h", "b_fade_h")?;
    let kept = left(ops, &rate)?;
    let h = ops.mul(&kept, h)?;
    let both = ops.concat(&[&x, &there])?;
    let h = gru::update(design, ops, &both, &h)?;
    let old = ops.mul(&missing, last)?;
    let last = ops.add(&read, &old)?;
    let since = ops.mul(&missing, &since)?;
    Ok((h.clone(), vec![h, last, since]))
}
