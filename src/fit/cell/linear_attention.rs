//! Linear attention with decay, as a recurrence: per head, S' = exp(-a gap) S + k v^T and z' = exp(-a gap) z + k; read q S' / (q z'). Keys and queries pass
//! through a sigmoid, so that they are positive. Sources: A. Katharopoulos et al., "Transformers are RNNs", 2020; Y. Sun et al., "Retentive network", 2023
//! (the decay, here per time and not per step).
//!
//! Heads are `SIDE` wide. S lies in one row: at (head, i, j). What the outer products repeat is repeated in the weights, and sums over i are products
//! with matrices of zeros and ones: see `ops`.

use super::{Design, Inputs, State, Stepped, Weight, ones};
use crate::fit::ops::{Function, Ops};

/// Width of a head.
const SIDE: usize = 4;

fn heads(design: &Design) -> usize {
    design.hidden.div_ceil(SIDE)
}

pub fn states(design: &Design) -> Vec<State> {
    let heads = heads(design);
    vec![State { name: "s", width: heads * SIDE * SIDE }, State { name: "z", width: heads * SIDE }]
}

pub fn weights(design: &Design) -> Vec<Weight> {
    let (f, wide, bound) = (design.features, heads(design) * SIDE, design.input_bound());
    vec![
        Weight::values("log_a", Design::log_rates(heads(design))),
        Weight::uniform("q", &[f, wide], bound),
        Weight::uniform("k", &[f, wide], bound),
        Weight::uniform("v", &[f, wide], bound),
        Weight::uniform("o", &[wide, design.hidden], design.bound()),
        Weight::uniform("d", &[f, design.hidden], bound),
        Weight::filled("b", design.hidden, 0.0),
    ]
}

pub fn step<O: Ops>(design: &Design, ops: &mut O, inputs: &Inputs<'_, O::T>) -> Stepped<O::T> {
    let heads = heads(design);
    let (wide, all) = (heads * SIDE, heads * SIDE * SIDE);
    let [s, z] = inputs.states()?;
    // (head, i) and (head, j) of a place (head, i, j).
    let of_i = |narrow: usize, place: usize| narrow == place / SIDE;
    let of_j = |narrow: usize, place: usize| narrow == place / (SIDE * SIDE) * SIDE + place % SIDE;
    let by_i = ops.constant(&[wide, all], &ones(wide, all, of_i))?;
    let by_j = ops.constant(&[wide, all], &ones(wide, all, of_j))?;
    let over_i = ops.constant(&[all, wide], &ones(all, wide, |place, narrow| of_j(narrow, place)))?;
    let same_head = ops.constant(&[wide, wide], &ones(wide, wide, |a, b| a / SIDE == b / SIDE))?;
    let to_wide = ops.constant(&[heads, wide], &ones(heads, wide, |head, narrow| head == narrow / SIDE))?;
    let to_all = ops.constant(&[heads, all], &ones(heads, all, |head, place| head == place / (SIDE * SIDE)))?;

    let log_a = ops.weight("log_a")?;
    let a = ops.apply(Function::Exp, &log_a)?;
    let a = ops.scale(&a, -1.0)?;
    let elapsed = ops.mul(inputs.gap()?, &a)?;
    let left = ops.apply(Function::Exp, &elapsed)?;
    let positive = |ops: &mut O, weight: &str, repeat: Option<&O::T>| {
        let weight = ops.weight(weight)?;
        let weight = repeat.map_or_else(|| Ok(weight.clone()), |repeat| ops.matmul(&weight, repeat))?;
        let product = ops.matmul(inputs.x, &weight)?;
        ops.apply(Function::Sigmoid, &product)
    };
    let (k, k_all) = (positive(ops, "k", None)?, positive(ops, "k", Some(&by_i))?);
    let (q, q_all) = (positive(ops, "q", None)?, positive(ops, "q", Some(&by_i))?);
    let v = ops.weight("v")?;
    let v = ops.matmul(&v, &by_j)?;
    let v = ops.matmul(inputs.x, &v)?;

    let left_all = ops.matmul(&left, &to_all)?;
    let kept = ops.mul(s, &left_all)?;
    let new = ops.mul(&k_all, &v)?;
    let s = ops.add(&kept, &new)?;
    let left_wide = ops.matmul(&left, &to_wide)?;
    let kept = ops.mul(z, &left_wide)?;
    let z = ops.add(&kept, &k)?;
    let asked = ops.mul(&s, &q_all)?;
    let above = ops.matmul(&asked, &over_i)?;
    let weight = ops.mul(&z, &q)?;
    let below = ops.matmul(&weight, &same_head)?;
    let read = ops.div(&above, &below)?;
    let read = ops.project(&read, "o")?;
    let direct = ops.linear(inputs.x, "d", "b")?;
    let sum = ops.add(&read, &direct)?;
    let activations = ops.apply(Function::Tanh, &sum)?;
    Ok((activations, vec![s, z]))
}
