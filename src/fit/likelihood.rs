//! Maximum likelihood for the processes of `process`, from the train split, key by key from its first event on.

use super::hazard::{bins, edges};
use super::history::{History, Part};
use super::process::Kind;
use crate::base::number::{f64_of_count, index};

/// Rounds of expectation maximisation at most, and the relative change at which it ends.
const ROUNDS: usize = 500;
const SETTLED: f64 = 1e-6;

/// Gaps of each key that end in the train split.
fn gaps_by_key(history: &History) -> impl Iterator<Item = Vec<f64>> {
    history.keys.iter().map(|range| {
        let ends = range.clone().skip(1).filter(|event| history.parts.get(*event) == Some(&Part::Train));
        ends.filter_map(|event| history.gaps_next.get(event - 1).copied()).collect()
    })
}

/// The constant rate: events over time.
#[must_use]
pub fn poisson(history: &History) -> Kind {
    let (count, time) = history.gaps_of(Part::Train).fold((0.0, 0.0), |(count, time), gap| (count + 1.0, time + gap));
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
/// law of these means and mean logarithms is the next one.
#[must_use]
pub fn gamma_poisson(history: &History) -> Kind {
    let keys: Vec<(f64, f64)> =
        gaps_by_key(history).filter(|gaps| !gaps.is_empty()).map(|gaps| (f64_of_count(gaps.len()), gaps.iter().sum::<f64>())).collect();
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
        for gaps in gaps_by_key(history) {
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

/// An exponential Hawkes process. Expectation maximisation by the branching structure: each event of mark k came of the base or of an earlier event, in
/// proportion to what they add to its intensity (Veen and Schoenberg, "Estimation of Space-Time Branching Process Models", JASA 2008). Sums over
/// earlier events are carried along by mark: S of e^(-d age), and U of age e^(-d age).
#[must_use]
pub fn hawkes(history: &History, marks: &dyn Fn(usize) -> Option<usize>, count: usize) -> Kind {
    let rate = match poisson(history) {
        Kind::Poisson { log_rate } => log_rate.exp(),
        _ => 1.0,
    };
    let each = f64_of_count(count);
    let mut bases = vec![0.5 * rate / each; count];
    let mut decays = vec![2.0 * rate; count];
    let mut jumps: Vec<f64> = vec![0.5 * 2.0 * rate / each; count * count];
    for _ in 0..ROUNDS {
        let sums = expect(history, marks, count, &bases, &jumps, &decays);
        let mut change = 0.0_f64;
        let mut update = |old: &mut f64, new: f64| {
            if new.is_finite() && new >= 0.0 {
                change = change.max((new / f64::max(*old, 1e-12) - 1.0).abs() * f64::from(u8::from(new > 1e-9)));
                *old = new;
            }
        };
        for k in 0..count {
            let at = |values: &[f64], j: usize| values.get(k * count + j).copied().unwrap_or(0.0);
            let (from_others, weighted): (f64, f64) =
                (0..count).fold((0.0, 0.0), |(p, w), j| (p + at(&sums.caused, j), w + at(&sums.ages, j)));
            let before = decays.get(k).copied().unwrap_or(1.0);
            // Where a sequence ends the tail of each kernel is unseen: it counts as it is expected to be.
            let (unseen, unseen_age): (f64, f64) = (0..count).fold((0.0, 0.0), |(p, w), j| {
                let jump = at(&jumps, j);
                (p + jump / before * at(&sums.tails, j), w + jump / before * at(&sums.tail_ages, j))
            });
            if let Some(decay) = decays.get_mut(k) {
                // Events of one moment would draw it to infinity, and a mark that excites nothing to nowhere.
                update(decay, ((from_others + unseen) / (weighted + unseen_age).max(1e-300)).clamp(1e-4 * rate, 1e4 * rate));
            }
            let decay = decays.get(k).copied().unwrap_or(before);
            for j in 0..count {
                let seen = sums.events.get(j).copied().unwrap_or(0.0) - at(&sums.tails, j);
                if let Some(jump) = jumps.get_mut(k * count + j) {
                    update(jump, decay * at(&sums.caused, j) / seen.max(1e-300));
                }
            }
            if let Some(base) = bases.get_mut(k) {
                update(base, sums.alone.get(k).copied().unwrap_or(0.0) / sums.time.max(1e-300));
            }
        }
        if change < 1e-5 {
            break;
        }
    }
    Kind::Hawkes { bases, jumps, decays }
}

/// What the expectation step gives, by marks (rows: excited, columns: exciting).
struct Sums {
    /// Events that came of the base, by mark.
    alone: Vec<f64>,
    /// Events that came of earlier ones.
    caused: Vec<f64>,
    /// The sum of the ages of those earlier ones.
    ages: Vec<f64>,
    /// Sum over events of e^(-d (end - t)): the share of their kernels that is beyond the end.
    tails: Vec<f64>,
    /// Sum over events of the mean age beyond the end, times that share.
    tail_ages: Vec<f64>,
    /// Events that can excite, by mark.
    events: Vec<f64>,
    /// Time in which events were looked for.
    time: f64,
}

fn expect(history: &History, marks: &dyn Fn(usize) -> Option<usize>, count: usize, bases: &[f64], jumps: &[f64], decays: &[f64]) -> Sums {
    let square = || vec![0.0; count * count];
    let mut sums = Sums {
        alone: vec![0.0; count],
        caused: square(),
        ages: square(),
        tails: square(),
        tail_ages: square(),
        events: vec![0.0; count],
        time: 0.0,
    };
    // Of row k, column j: sums over earlier events of mark j, decaying as mark k does.
    let (mut s, mut u) = (square(), square());
    for range in &history.keys {
        s.fill(0.0);
        u.fill(0.0);
        let train = range.clone().take_while(|event| history.parts.get(*event) == Some(&Part::Train));
        let mut elapsed = 0.0;
        // (age at the end is not known before): times of the events, for their tails.
        let mut times: Vec<(f64, Option<usize>)> = Vec::new();
        for event in train {
            if event > range.start {
                let gap = history.gaps_next.get(event - 1).copied().unwrap_or(0.0);
                elapsed += gap;
                for (i, (s, u)) in s.iter_mut().zip(&mut u).enumerate() {
                    let fall = (-decays.get(i / count).copied().unwrap_or(1.0) * gap).exp();
                    *u = (*u + *s * gap) * fall;
                    *s *= fall;
                }
                if let Some(k) = marks(event) {
                    let own = k * count..(k + 1) * count;
                    let base = bases.get(k).copied().unwrap_or(0.0);
                    let parts = jumps.get(own.clone()).unwrap_or_default().iter().zip(s.get(own.clone()).unwrap_or_default());
                    let intensity = (base + parts.map(|(jump, s)| jump * s).sum::<f64>()).max(1e-300);
                    if let Some(alone) = sums.alone.get_mut(k) {
                        *alone += base / intensity;
                    }
                    for i in own {
                        let jump = jumps.get(i).copied().unwrap_or(0.0) / intensity;
                        if let (Some(caused), Some(ages), Some(s), Some(u)) =
                            (sums.caused.get_mut(i), sums.ages.get_mut(i), s.get(i), u.get(i))
                        {
                            *caused += jump * s;
                            *ages += jump * u;
                        }
                    }
                }
            }
            let mark = marks(event);
            times.push((elapsed, mark));
            if let Some(j) = mark {
                for k in 0..count {
                    if let Some(s) = s.get_mut(k * count + j) {
                        *s += 1.0;
                    }
                }
            }
        }
        sums.time += elapsed;
        for (time, mark) in times {
            let Some(j) = mark else { continue };
            if let Some(events) = sums.events.get_mut(j) {
                *events += 1.0;
            }
            for (k, decay) in decays.iter().enumerate() {
                let age = elapsed - time;
                let tail = (-decay * age).exp();
                let i = k * count + j;
                if let (Some(tails), Some(ages)) = (sums.tails.get_mut(i), sums.tail_ages.get_mut(i)) {
                    *tails += tail;
                    *ages += tail * (age + 1.0 / decay);
                }
            }
        }
    }
    sums
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
