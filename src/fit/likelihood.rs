//! Maximum likelihood for the processes of `process`, from the train split, key by key from its first event on. That of the Hawkes process: `hawkes`.

use super::hazard::{bins, edges};
use super::history::{History, Part};
use super::process::Kind;
use crate::base::number::{f64_of_count, index};

/// Rounds of expectation maximisation at most, and the relative change at which it ends.
const ROUNDS: usize = 500;
const SETTLED: f64 = 1e-6;

/// Gaps of each key that end in the train split, none below `floor`.
fn gaps_by_key(history: &History, floor: f64) -> impl Iterator<Item = Vec<f64>> {
    history.keys.iter().map(move |range| {
        let ends = range.clone().skip(1).filter(|event| history.parts.get(*event) == Some(&Part::Train));
        ends.filter_map(|event| history.gaps_next.get(event - 1).map(|gap| gap.max(floor))).collect()
    })
}

/// The constant rate: events over time. Gaps below `floor` are taken as that long, as they are where the law is judged.
#[must_use]
pub fn poisson(history: &History, floor: f64) -> Kind {
    let (count, time) = history.gaps_of(Part::Train).fold((0.0, 0.0), |(count, time), gap| (count + 1.0, time + gap.max(floor)));
    Kind::Poisson { log_rate: (count / f64::max(time, f64::MIN_POSITIVE)).ln() }
}

/// ln of the gamma function's derivative: Stirling's series, after a few steps of psi(x) = psi(x + 1) - 1 / x.
fn digamma(mut x: f64) -> f64 {
    let mut sum = 0.0;
    while x < 8.0 {
        sum -= 1.0 / x;
        x += 1.0;
    }
    let y = 1.0 / (x * x);
    sum + x.ln() - 0.5 / x - y * (1.0 / 12.0 - y * (1.0 / 120.0 - y / 252.0))
}

/// The law of the keys' rates. Expectation maximisation: given shape and rate, each key's own rate has the law Gamma(shape + n, rate + T); the gamma
/// law of these means and mean logarithms is the next one. Gaps below `floor` are taken as that long: a key whose events all come at once would have a rate
/// without bound, and the law of all rates none that a number can hold.
#[must_use]
pub fn gamma_poisson(history: &History, floor: f64) -> Kind {
    let keys: Vec<(f64, f64)> = gaps_by_key(history, floor)
        .filter(|gaps| !gaps.is_empty())
        .map(|gaps| (f64_of_count(gaps.len()), gaps.iter().sum::<f64>()))
        .collect();
    let (count, time) = keys.iter().fold((0.0, 0.0), |(n, t), key| (n + key.0, t + key.1));
    let (mut shape, mut rate) = (1.0, f64::max(time, 1e-300) / f64::max(count, 1.0));
    let number = f64_of_count(keys.len().max(1));
    for _ in 0..ROUNDS {
        let (mut mean, mut ln_mean) = (0.0, 0.0);
        for (n, t) in &keys {
            mean += (shape + n) / (rate + t) / number;
            ln_mean += (digamma(shape + n) - (rate + t).ln()) / number;
        }
        // ln shape - psi(shape) = ln mean - mean ln; Newton's steps for ln shape.
        let wanted = (mean.ln() - ln_mean).max(1e-12);
        let mut next: f64 = shape;
        for _ in 0..50 {
            let slope = 1.0 - next * (digamma(next * 1.0001) - digamma(next / 1.0001)) / (next * (1.0001 - 1.0 / 1.0001));
            let step = ((next.ln() - digamma(next) - wanted) / slope).clamp(-1.0, 1.0);
            next *= (-step).exp();
            if step.abs() < 1e-10 {
                break;
            }
        }
        let next = next.clamp(1e-3, 1e6);
        let change = (next / shape - 1.0).abs();
        (shape, rate) = (next, next / mean);
        if change < SETTLED {
            break;
        }
    }
    Kind::GammaPoisson { shape, rate }
}

/// Bins with about as many gaps each; what a key begins with weighs as many gaps as makes the train split likeliest.
#[must_use]
pub fn history(history: &History, number: usize, resolution: Option<f64>) -> Kind {
    let all: Vec<f64> = history.gaps_of(Part::Train).collect();
    let edges = edges(&all, number, resolution);
    let (counts, exposures) = bins(&edges, &all);
    let share =
        |values: &[f64], weight: f64| values.iter().map(|value| (value / f64_of_count(all.len().max(1))) * weight).collect::<Vec<f64>>();
    let mut best = (f64::INFINITY, 1.0);
    for weight in [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 300.0, 1000.0] {
        let (begin_counts, begin_exposures) = (share(&counts, weight), share(&exposures, weight));
        let mut loss = 0.0;
        for gaps in gaps_by_key(history, 0.0) {
            let (mut own_counts, mut own_exposures) = (begin_counts.clone(), begin_exposures.clone());
            for gap in gaps {
                let (ended, spent) = bins(&edges, &[gap]);
                for (((count, exposure), end), time) in own_counts.iter_mut().zip(&mut own_exposures).zip(ended).zip(spent) {
                    let hazard = f64::max(*count, 1e-12) / *exposure;
                    loss += hazard * time - end * hazard.ln();
                    *count += end;
                    *exposure += time;
                }
            }
        }
        if loss < best.0 {
            best = (loss, weight);
        }
    }
    // A bin in which no gap has ended yet must not be impossible.
    let counts = share(&counts, best.1).into_iter().map(|count| count.max(1e-6)).collect();
    Kind::History { counts, exposures: share(&exposures, best.1), edges }
}

/// The mark that a one-hot row says; 0 where rows have one column.
#[must_use]
pub fn mark_of(history: &History, event: usize) -> Option<usize> {
    let row = history.row(event);
    if row.len() == 1 { Some(0) } else { row.iter().position(|x| *x > 0.5) }
}

/// ln of the smoothed frequencies of the marks of the train split.
#[must_use]
pub fn frequencies(history: &History, marks: usize) -> Vec<f64> {
    let mut counts = vec![0.5; marks];
    for mark in history.marks_of(Part::Train) {
        if let Some(count) = counts.get_mut(index(mark)) {
            *count += 1.0;
        }
    }
    let total: f64 = counts.iter().sum();
    counts.iter().map(|count| (count / total).ln()).collect()
}
