//! A transformer block with recurrent memory: the event attends to `SLOTS` memory vectors, passes through a feed-forward layer, and writes back to every
//! vector through a gate, m' = m + g (c - m). Sources: A. Bulatov, Y. Kuratov, M. Burtsev, "Recurrent memory transformer", 2022, for the memory; the gated
//! write is that of D. Hutchins et al., "Block-recurrent transformers", 2022.

use super::{Design, Inputs, State, Stepped, Weight, ones};
use crate::base::number::{f32_of, f64_of_count};
use crate::fit::ops::{Function, Ops};

/// Memory vectors.
const SLOTS: usize = 4;
/// Width of one.
const SIDE: usize = 16;
/// All of them.
const ALL: usize = SLOTS * SIDE;

pub fn states(_: &Design) -> Vec<State> {
    vec![State { name: "m", width: ALL }]
}

pub fn weights(design: &Design) -> Vec<Weight> {
    let (f, h) = (design.features, design.hidden);
    let side = 1.0 / f64_of_count(SIDE).sqrt();
    vec![
        Weight::uniform("q", &[f, SIDE], design.input_bound()),
        Weight::uniform("o", &[SIDE, h], side),
        Weight::uniform("d", &[f, h], design.input_bound()),
        Weight::filled("b", h, 0.0),
        Weight::uniform("up", &[h, h], design.bound()),
        Weight::filled("b_up", h, 0.0),
        Weight::uniform("write", &[h, 2 * ALL], design.bound()),
        Weight::uniform("keep", &[ALL, 2 * ALL], 1.0 / f64_of_count(ALL).sqrt()),
        Weight::values("b_write", [vec![-1.0; ALL], vec![0.0; ALL]].concat()),
    ]
}

pub fn step<O: Ops>(_: &Design, ops: &mut O, inputs: &Inputs<'_, O::T>) -> Stepped<O::T> {
    let [m] = inputs.states()?;
    let again: Vec<f32> = ones(SIDE, ALL, |i, place| place % SIDE == i);
    let again: Vec<f32> = again.iter().map(|one| one * f32_of(1.0 / f64_of_count(SIDE).sqrt())).collect();
    let again = ops.constant(&[SIDE, ALL], &again)?;
    let q = ops.weight("q")?;
    let q = ops.matmul(&q, &again)?;
    let q = ops.matmul(inputs.x, &q)?;
    let over_side = ops.constant(&[ALL, SLOTS], &ones(ALL, SLOTS, |place, slot| place / SIDE == slot))?;
    let over_slots = ops.constant(&[SLOTS, ALL], &ones(SLOTS, ALL, |slot, place| place / SIDE == slot))?;
    let to_side = ops.constant(&[ALL, SIDE], &ones(ALL, SIDE, |place, i| place % SIDE == i))?;
    let alike = ops.mul(m, &q)?;
    let scores = ops.matmul(&alike, &over_side)?;
    let weights = ops.apply(Function::Softmax, &scores)?;
    let weights = ops.matmul(&weights, &over_slots)?;
    let read = ops.mul(m, &weights)?;
    let read = ops.matmul(&read, &to_side)?;

    let read = ops.project(&read, "o")?;
    let direct = ops.linear(inputs.x, "d", "b")?;
    let sum = ops.add(&read, &direct)?;
    let first = ops.apply(Function::Tanh, &sum)?;
    let up = ops.linear(&first, "up", "b_up")?;
    let up = ops.apply(Function::Relu, &up)?;
    let activations = ops.add(&first, &up)?;

    let written = ops.linear(&activations, "write", "b_write")?;
    let remembered = ops.project(m, "keep")?;
    let sum = ops.add(&written, &remembered)?;
    let (gate, candidate) = ops.split2(&sum, ALL, ALL)?;
    let gate = ops.apply(Function::Sigmoid, &gate)?;
    let candidate = ops.apply(Function::Tanh, &candidate)?;
    let difference = ops.sub(&candidate, m)?;
    let change = ops.mul(&gate, &difference)?;
    let m = ops.add(m, &change)?;
    Ok((activations, vec![m]))
}
