//! Attention of an event over the key's last `WINDOW` events, whose keys and values are the state, the oldest first; a learnt bias for each place says how far
//! back it lies. Source: A. Vaswani et al., "Attention is all you need", 2017, bounded as a sliding window.

use super::{Design, Inputs, State, Stepped, Weight, ones};
use crate::base::number::{f32_of, f64_of_count};
use crate::fit::ops::{Function, Ops};

/// Name of the weights of the places.
pub const ATTENTION: &str = "attention";
/// Events that are remembered.
const WINDOW: usize = 32;
/// Width of keys and values.
const SIDE: usize = 16;
/// Added to the score of a place that no event has filled.
const NEVER: f32 = 1e4;

pub fn states(_: &Design) -> Vec<State> {
    let state = |name, width| State { name, width };
    vec![state("keys", WINDOW * SIDE), state("values", WINDOW * SIDE), state("filled", WINDOW)]
}

pub fn weights(design: &Design) -> Vec<Weight> {
    let (f, h, bound) = (design.features, design.hidden, design.input_bound());
    vec![
        Weight::uniform("q", &[f, SIDE], bound),
        Weight::uniform("k", &[f, SIDE], bound),
        Weight::uniform("v", &[f, SIDE], bound),
        Weight::filled("place", WINDOW, 0.0),
        Weight::uniform("o", &[SIDE, h], 1.0 / f64_of_count(SIDE).sqrt()),
        Weight::uniform("d", &[f, h], bound),
        Weight::filled("b", h, 0.0),
        Weight::uniform("up", &[h, h], design.bound()),
        Weight::filled("b_up", h, 0.0),
    ]
}

pub fn step<O: Ops>(design: &Design, ops: &mut O, inputs: &Inputs<'_, O::T>) -> Stepped<O::T> {
    let _ = design;
    let [keys, values, filled] = inputs.states()?;
    let all = WINDOW * SIDE;
    let (_, keys) = ops.split2(keys, SIDE, all - SIDE)?;
    let k = ops.project(inputs.x, "k")?;
    let keys = ops.concat(&[&keys, &k])?;
    let (_, values) = ops.split2(values, SIDE, all - SIDE)?;
    let v = ops.project(inputs.x, "v")?;
    let values = ops.concat(&[&values, &v])?;
    let (first, filled) = ops.split2(filled, 1, WINDOW - 1)?;
    let nothing = ops.scale(&first, 0.0)?;
    let one = ops.shift(&nothing, 1.0)?;
    let filled = ops.concat(&[&filled, &one])?;

    // The query once for every place, already divided by sqrt(SIDE).
    let again: Vec<f32> = ones(SIDE, all, |i, place| place % SIDE == i);
    let again: Vec<f32> = again.iter().map(|one| one * f32_of(1.0 / f64_of_count(SIDE).sqrt())).collect();
    let again = ops.constant(&[SIDE, all], &again)?;
    let q = ops.weight("q")?;
    let q = ops.matmul(&q, &again)?;
    let q = ops.matmul(inputs.x, &q)?;
    let over_side = ops.constant(&[all, WINDOW], &ones(all, WINDOW, |place, event| place / SIDE == event))?;
    let over_events = ops.constant(&[WINDOW, all], &ones(WINDOW, all, |event, place| place / SIDE == event))?;
    let to_side = ops.constant(&[all, SIDE], &ones(all, SIDE, |place, i| place % SIDE == i))?;
    let alike = ops.mul(&keys, &q)?;
    let scores = ops.matmul(&alike, &over_side)?;
    let place = ops.weight("place")?;
    let place = ops.shift(&place, -NEVER)?;
    let there = ops.scale(&filled, NEVER)?;
    let bias = ops.add(&there, &place)?;
    let scores = ops.add(&scores, &bias)?;
    let weights = ops.apply(Function::Softmax, &scores)?;
    ops.show(ATTENTION, &weights, WINDOW);
    let weights = ops.matmul(&weights, &over_events)?;
    let read = ops.mul(&values, &weights)?;
    let read = ops.matmul(&read, &to_side)?;

    let read = ops.project(&read, "o")?;
    let direct = ops.linear(inputs.x, "d", "b")?;
    let sum = ops.add(&read, &direct)?;
    let first = ops.apply(Function::Tanh, &sum)?;
    let up = ops.linear(&first, "up", "b_up")?;
    let up = ops.apply(Function::Relu, &up)?;
    let activations = ops.add(&first, &up)?;
    Ok((activations, vec![keys, values, filled]))
}
