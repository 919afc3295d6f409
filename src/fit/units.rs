//! Fewer hidden units. Which stay is chosen by data: with C the covariance of the units' values over the train split and d how strongly each is read
//! (the norm of its row in every matrix that reads units), pivoted Cholesky decomposition of d C d takes, again and again, the unit whose reading is least
//! explained by those taken before. What is left out is replaced by its least-squares guess from what stays, folded into the matrices and biases that
//! read it. Source of the idea: J. Chee et al., "Model preserving compression for neural networks" (interpolative decomposition), 2022.
//!
//! Whole units go, so that the state and the step become smaller. Single weights set to zero would change neither.

use ndarray::{Array1, Array2};

use super::autograd;
use super::batch::{groups, sequences};
use super::cell::{Design, HEAD, HEAD_BIAS, Weight};
use super::history::{History, Part};
use super::loss::Objective;
use super::network::{Network, Weights};
use super::step::Forward;
use crate::base::error::{Error, Result};
use crate::base::number::{count_of, f32_of, f64_of_count};
use crate::pipeline::plan::Cell;

/// Events that are looked at; more say nothing new.
const LOOKED_AT: usize = 200_000;
/// A pivot that is so much smaller than the first is rounding.
const NOTHING: f64 = 1e-9;

/// How a weight hangs on the units.
#[derive(Clone, Copy, Debug)]
struct Hang {
    /// Its rows are units: it reads them.
    reads: bool,
    /// How many times all units stand side by side in its columns (of a vector: its elements); 0 if they are something else.
    blocks: usize,
}

/// How the weight of this name hangs on the units of a cell; `None` for cells whose state is no row of units.
fn hang(cell: Cell, name: &str) -> Option<Hang> {
    let gates = match cell {
        Cell::Rnn => 1,
        Cell::Gru | Cell::GruD | Cell::Ode => 3,
        Cell::Lstm => 4,
        Cell::CtLstm => 7,
        _ => return None,
    };
    let (reads, blocks) = match name {
        "w" | "b" => (false, gates),
        "u" => (true, gates),
        "c_n" | "fade_h" | "b_fade_h" | "b_flow" => (false, 1),
        "flow" => (true, 1),
        "fade" | HEAD_BIAS => (false, 0),
        HEAD => (true, 0),
        _ => return None,
    };
    Some(Hang { reads, blocks })
}

/// Which bias, and which element of it, is added where column `column` of a matrix that reads units goes.
fn bias_of(design: &Design, matrix: &str, column: usize) -> (&'static str, usize) {
    let gated = matches!(design.cell, Cell::Gru | Cell::GruD | Cell::Ode);
    match matrix {
        HEAD => (HEAD_BIAS, column),
        "flow" => ("b_flow", column),
        // What the reset gate takes away has a bias of its own.
        _ if gated && column >= 2 * design.hidden => ("c_n", column - 2 * design.hidden),
        _ => ("b", column),
    }
}

/// The values of the units after an event, out of its states.
fn units<'a>(cell: Cell, hidden: usize, states: &'a [f32]) -> Box<dyn Iterator<Item = f64> + 'a> {
    let part = |i: usize| states.iter().skip(i * hidden).take(hidden).map(|value| f64::from(*value));
    match cell {
        // States c, c_bar, decay, o; what is read is o tanh c.
        Cell::CtLstm => Box::new(part(0).zip(part(3)).map(|(c, o)| o * c.tanh())),
        _ => Box::new(part(0)),
    }
}

/// Means and covariances of the units over the train split.
fn moments(network: &Network, design: &Design, history: &History, objective: &Objective) -> Result<(Array1<f64>, Array2<f64>)> {
    let hidden = design.hidden;
    let (mut count, mut sum, mut products) = (0.0, Array1::zeros(hidden), Array2::zeros((hidden, hidden)));
    let mut seen = 0;
    for group in groups(&sequences(history, objective, Part::Train), None) {
        if seen > LOOKED_AT {
            break;
        }
        network.forward(history, &group, &mut |_, _, states| {
            let row: Array1<f64> = units(design.cell, hidden, states).collect();
            for (i, a) in row.iter().enumerate() {
                products.row_mut(i).scaled_add(*a, &row);
            }
            sum += &row;
            count += 1.0;
            seen += 1;
        })?;
    }
    let mean = sum / f64::max(count, 1.0);
    let outer = Array2::from_shape_fn((hidden, hidden), |(i, j)| mean.get(i).unwrap_or(&0.0) * mean.get(j).unwrap_or(&0.0));
    Ok((mean, products / f64::max(count, 1.0) - outer))
}

/// Pivots of a covariance, and the guess of each variable from them: `[n, pivots]` factors.
fn pivots(mut rest: Array2<f64>, wanted: usize) -> (Vec<usize>, Array2<f64>) {
    let n = rest.nrows();
    let (mut chosen, mut lower): (Vec<usize>, Array2<f64>) = (Vec::new(), Array2::zeros((n, wanted)));
    let mut first = f64::MIN_POSITIVE;
    for step in 0..wanted.min(n) {
        let left = (0..n).filter(|i| !chosen.contains(i)).map(|i| (i, rest.get((i, i)).copied().unwrap_or(0.0)));
        let Some((pivot, size)) = left.reduce(|best, other| if other.1 > best.1 { other } else { best }) else { break };
        chosen.push(pivot);
        first = f64::max(first, size);
        if size <= NOTHING * first {
            continue;
        }
        let column = rest.column(pivot).to_owned() / size.sqrt();
        for i in 0..n {
            let own = column.get(i).copied().unwrap_or(0.0);
            rest.row_mut(i).scaled_add(-own, &column);
        }
        lower.column_mut(step).assign(&column);
    }
    // x_i = sum of lower[i, .] e, and the pivots' own rows are a triangle: solved from the last column on.
    let mut guess = Array2::zeros((n, wanted));
    for i in 0..n {
        let mut row = lower.row(i).to_owned();
        for (step, pivot) in chosen.iter().enumerate().rev() {
            let diagonal = lower.get((*pivot, step)).copied().unwrap_or(0.0);
            let factor = if diagonal > 0.0 { row.get(step).copied().unwrap_or(0.0) / diagonal } else { 0.0 };
            row.scaled_add(-factor, &lower.row(*pivot));
            if let Some(place) = guess.get_mut((i, step)) {
                *place = factor;
            }
        }
    }
    (chosen, guess)
}

/// A network with a share of the hidden units taken out.
///
/// # Errors
/// The cell's state is no row of units, or nothing would be left or taken.
pub fn prune(weights: &Weights, history: &History, objective: &Objective, share: f64) -> Result<Weights> {
    let design = &weights.design;
    let specs = design.weights(&vec![0.0; design.outputs]);
    let hangs: Option<Vec<Hang>> = specs.iter().map(|spec| hang(design.cell, spec.name)).collect();
    let Some(hangs) = hangs else {
        let text = format!("the state of the cell `{}` is not a row of units, of which some could be left out", design.cell.name());
        return Err(Error::config("model", text)
            .help("rnn, gru, lstm, ct_lstm, gru_d and ode can be pruned; fit this one with a smaller --hidden, or quantise it"));
    };
    let hidden = design.hidden;
    let keep = count_of((f64_of_count(hidden) * (1.0 - share)).round());
    if keep == 0 || keep >= hidden {
        let text = format!("a share of {share} of {hidden} hidden units leaves {keep}");
        return Err(Error::config("model", text).help("--share is what is taken out: above 0 and below 1"));
    }
    let network = Network::new(weights).map_err(autograd)?;
    let (mean, covariance) = moments(&network, design, history, objective)?;

    let mut read = Array1::<f64>::zeros(hidden);
    for (values, _) in weights.values.iter().zip(&hangs).filter(|(_, hang)| hang.reads) {
        for (row, sum) in values.chunks_exact(values.len() / hidden).zip(&mut read) {
            *sum += row.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>();
        }
    }
    let read = read.mapv(|sum| sum.sqrt().max(1e-12));
    let at = |vector: &Array1<f64>, i: usize| vector.get(i).copied().unwrap_or(0.0);
    let weighted = Array2::from_shape_fn((hidden, hidden), |(i, j)| at(&read, i) * covariance.get((i, j)).unwrap_or(&0.0) * at(&read, j));
    let (chosen, guess) = pivots(weighted, keep);
    let mut order: Vec<usize> = (0..keep).collect();
    order.sort_by_key(|step| chosen.get(*step));
    let kept: Vec<usize> = order.iter().filter_map(|step| chosen.get(*step).copied()).collect();
    // Of each unit that goes: its guess from those that stay, in their own sizes, and what the guess lacks.
    let factor = |unit: usize, place: usize| -> f64 {
        let (Some(step), Some(stays)) = (order.get(place), kept.get(place)) else { return 0.0 };
        guess.get((unit, *step)).copied().unwrap_or(0.0) * at(&read, *stays) / at(&read, unit)
    };
    let lacks =
        |unit: usize| at(&mean, unit) - kept.iter().enumerate().map(|(place, stays)| factor(unit, place) * at(&mean, *stays)).sum::<f64>();
    let gone: Vec<usize> = (0..hidden).filter(|unit| !kept.contains(unit)).collect();

    let mut values = weights.values.clone();
    for (matrix, (spec, _)) in specs.iter().zip(&hangs).enumerate().filter(|(_, (_, hang))| hang.reads) {
        let columns = spec.shape.get(1).copied().unwrap_or(1);
        for unit in &gone {
            let row: Vec<f64> =
                weights.values.get(matrix).into_iter().flatten().skip(unit * columns).take(columns).map(|w| f64::from(*w)).collect();
            for (place, stays) in kept.iter().enumerate() {
                let factor = factor(*unit, place);
                let target = values.get_mut(matrix).and_then(|values| values.get_mut(stays * columns..(stays + 1) * columns));
                for (to, from) in target.unwrap_or_default().iter_mut().zip(&row) {
                    *to = f32_of(f64::from(*to) + factor * from);
                }
            }
            let lacks = lacks(*unit);
            for (column, from) in row.iter().enumerate() {
                let (bias, element) = bias_of(design, spec.name, column);
                let place = specs.iter().position(|other| other.name == bias).and_then(|bias| values.get_mut(bias)?.get_mut(element));
                if let Some(to) = place {
                    *to = f32_of(f64::from(*to) + lacks * from);
                }
            }
        }
    }
    let small = specs.iter().zip(&hangs).zip(&values).map(|((spec, hang), values)| shrunk(spec, *hang, values, hidden, &kept));
    Ok(Weights { design: Design { hidden: keep, ..design.clone() }, values: small.collect() })
}

/// The rows and columns that stay.
fn shrunk(spec: &Weight, hang: Hang, values: &[f32], hidden: usize, kept: &[usize]) -> Vec<f32> {
    let columns = spec.shape.last().copied().unwrap_or(1);
    let stays = |column: usize| hang.blocks == 0 || kept.contains(&(column % hidden));
    let rows = values.chunks_exact(columns).enumerate().filter(|(row, _)| !hang.reads || kept.contains(row));
    rows.flat_map(|(_, row)| row.iter().enumerate().filter(|(column, _)| stays(*column)).map(|(_, value)| *value)).collect()
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn the_guess_from_the_pivots_is_that_of_least_squares() {
        // Five variables of which two are sums of the others, one is small.
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let rows: Vec<[f64; 5]> = (0..2000)
            .map(|_| {
                let [a, b, c] = [0; 3].map(|_| random.random::<f64>() - 0.5);
                [a, b, 2.0 * a - b, 0.01 * c, 3.0 * b]
            })
            .collect();
        let covariance = Array2::from_shape_fn((5, 5), |(i, j)| rows.iter().map(|row| row[i] * row[j]).sum::<f64>() / 2000.0);
        let (chosen, guess) = pivots(covariance, 3);
        assert!(chosen.contains(&3), "what is small but told by nothing else stays before what is told twice: {chosen:?}");
        for row in &rows {
            for i in 0..5 {
                let guessed: f64 = chosen.iter().enumerate().map(|(step, pivot)| guess[[i, step]] * row[*pivot]).sum();
                assert!((guessed - row[i]).abs() < 1e-6, "{i}: {guessed} {}", row[i]);
            }
        }
    }

    #[test]
    fn a_unit_that_repeats_another_goes_without_a_trace() {
        let objective =
            Objective::Law { law: crate::fit::loss::LawKind::Mixture(2), min_gap: 1e-6, resolution: None, marks: 0, value: None };
        for cell in [Cell::Rnn, Cell::Gru, Cell::Lstm, Cell::CtLstm, Cell::GruD, Cell::Ode] {
            let design = Design { cell, features: 3, hidden: 4, outputs: 6, pace: 1.0, anchor: None, missing: Vec::new(), decaying: None };
            let mut random = ChaCha8Rng::seed_from_u64(9);
            let mut weights = Weights::random(design.clone(), &[0.1; 6], &mut random);
            let specs = design.weights(&[0.0; 6]);
            // Unit 3 gets the columns of unit 1, so that both always have the same value.
            for (spec, values) in specs.iter().zip(&mut weights.values) {
                let hang = hang(cell, spec.name).unwrap();
                let columns = *spec.shape.last().unwrap();
                if hang.blocks > 0 {
                    for row in values.chunks_exact_mut(columns) {
                        row.chunks_exact_mut(4).for_each(|block| block[3] = block[1]);
                    }
                }
            }
            let mut history = History { width: 3, ..History::default() };
            for key in 0..20 {
                history.keys.push(key * 10..key * 10 + 10);
                for i in 0..10 {
                    history.rows.extend([0; 3].map(|_| random.random::<f32>() * 2.0 - 1.0));
                    history.gaps_next.push(if i < 9 { random.random::<f64>() } else { f64::NAN });
                    history.parts.push(Part::Train);
                }
            }
            let small = prune(&weights, &history, &objective, 0.25).unwrap();
            assert_eq!(small.design.hidden, 3);
            assert!(small.count() < weights.count());
            let outputs = |weights: &Weights| {
                let mut all = Vec::new();
                for group in groups(&sequences(&history, &objective, Part::Train), None) {
                    let network = Network::new(weights).unwrap();
                    network.forward(&history, &group, &mut |_, outputs, _| all.extend_from_slice(outputs)).unwrap();
                }
                all
            };
            for (a, b) in outputs(&weights).iter().zip(outputs(&small)) {
                assert!((a - b).abs() < 1e-4, "{cell:?}: {a} {b}");
            }
        }
    }

    #[test]
    fn what_has_no_units_is_refused_and_so_is_a_share_that_leaves_nothing() {
        let history = History::default();
        let refusal = |cell, share| {
            let design = Design { cell, features: 3, hidden: 4, outputs: 1, pace: 1.0, anchor: None, missing: Vec::new(), decaying: None };
            let weights = Weights::random(design, &[0.1], &mut ChaCha8Rng::seed_from_u64(9));
            prune(&weights, &history, &Objective::Score, share).unwrap_err().to_string()
        };
        assert!(refusal(Cell::Attention, 0.5).contains("not a row of units"));
        assert!(refusal(Cell::Gru, 0.99).contains("leaves 0"));
        assert!(refusal(Cell::Gru, 0.01).contains("leaves 4"));
    }
}
