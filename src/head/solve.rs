//! Quantiles of a mixture: bracketed root finding in u = ln(gap / unit).
//!
//! F is monotone and its log odds are nearly a straight line in u, so the step is Halley's on g(u) = ln(F / S) - ln(q / (1 - q)): cubic near
//! the root, and far out, where F itself is flat, it still knows the way. A step that leaves the bracket, or shrinks too slowly,
//! is replaced by bisection. Most steps are made on single-precision sums, which cost a quarter; the last ones are exact.

use super::mixture::{LANES, Mixture, Sums, total};
use super::normal::{INV_SQRT_2PI, coarse_tails, quantile};
use crate::base::number::f32_of;

/// Once a step is this many of the narrowest sigma, the next one would be below 1e-11 of it: the step is made and not checked.
const LAST_STEP: f64 = 2e-4;
/// The same for the coarse search, whose sums are good to 1e-6.
const LAST_COARSE_STEP: f64 = 2e-2;
/// Coarse steps at most; without success the exact search starts from wherever they led.
const COARSE_STEPS: usize = 12;
/// Exact steps at most: enough to bisect from 1e38 to nothing.
const STEPS: usize = 300;
/// Bracket width, relative to 1 + |u|, at which bisection ends.
const RELATIVE_WIDTH: f64 = 1e-14;
/// Components with less weight do not decide how long the steps may be; coarse sums leave them out.
const NEGLIGIBLE: f64 = 1e-6;

/// A probability whose quantile is wanted.
#[derive(Clone, Copy, Debug)]
struct Target {
    /// (1 - q) / q.
    odds_against: f64,
    /// The standard normal's quantile.
    z: f64,
}

/// A block of components in single precision, means relative to the mixture's.
#[derive(Clone, Copy, Debug)]
struct CoarseBlock {
    weight: [f32; LANES],
    mean: [f32; LANES],
    inverse: [f32; LANES],
}

/// Finds the same quantiles of one mixture after the other.
#[derive(Clone, Debug)]
pub(super) struct Solver {
    targets: Vec<Target>,
    coarse: Vec<CoarseBlock>,
    found: Vec<f64>,
}

/// Mean and standard deviation of a mixture, and its narrowest sigma.
struct Shape {
    mean: f64,
    deviation: f64,
    narrowest: f64,
}

impl Solver {
    /// For quantiles in (0, 1), ascending.
    pub(super) fn new(quantiles: &[f64]) -> Self {
        let targets = quantiles.iter().map(|q| Target { odds_against: (1.0 - q) / q, z: quantile(*q) }).collect();
        Solver { targets, coarse: Vec::new(), found: Vec::new() }
    }

    /// The quantiles' u, in the order of the targets, never falling.
    pub(super) fn quantiles(&mut self, mixture: &Mixture) -> &[f64] {
        self.found.clear();
        if self.targets.is_empty() {
            return &self.found;
        }
        let shape = shape(mixture);
        self.coarse.clear();
        self.coarse.extend(mixture.blocks().iter().map(|block| CoarseBlock {
            weight: block.weight.map(|w| if w < NEGLIGIBLE { 0.0 } else { f32_of(w) }),
            mean: block.mean.map(|m| f32_of(m - shape.mean)),
            inverse: block.inverse.map(f32_of),
        }));
        let mut last = f64::NEG_INFINITY;
        for target in &self.targets {
            let bracket = bracket(mixture, target.z, 1e-3 * shape.narrowest);
            let start = shape.mean + target.z * shape.deviation;
            let near = search(
                |u| coarse_sums(&self.coarse, u - shape.mean),
                target,
                Search { bracket, start, last_step: LAST_COARSE_STEP * shape.narrowest, steps: COARSE_STEPS },
            );
            let u =
                search(|u| mixture.sums(u), target, Search { bracket, start: near, last_step: LAST_STEP * shape.narrowest, steps: STEPS });
            // Two targets a rounding error apart must not change places.
            last = if u > last { u } else { last };
            self.found.push(last);
        }
        &self.found
    }
}

/// Moments over all components.
fn shape(mixture: &Mixture) -> Shape {
    let mut mean = [0.0; LANES];
    for block in mixture.blocks() {
        for (sum, (weight, m)) in mean.iter_mut().zip(block.weight.iter().zip(&block.mean)) {
            *sum += weight * m;
        }
    }
    let mean = total(mean);
    let (mut square, mut steepest) = ([0.0; LANES], [0.0; LANES]);
    for block in mixture.blocks() {
        let lanes = block.weight.iter().zip(block.mean.iter().zip(&block.inverse));
        for ((square, steepest), (weight, (m, inverse))) in square.iter_mut().zip(&mut steepest).zip(lanes) {
            let (sigma, off) = (1.0 / inverse, m - mean);
            *square += weight * (sigma * sigma + off * off);
            let inverse = if *weight < NEGLIGIBLE { 0.0 } else { *inverse };
            *steepest = if inverse > *steepest { inverse } else { *steepest };
        }
    }
    let steepest = steepest.iter().fold(0.0, |a: f64, b| a.max(*b));
    Shape { mean, deviation: total(square).sqrt(), narrowest: 1.0 / steepest }
}

/// Smallest and largest quantile of any component, with some room for rounding: at the one every component, and so the mixture, has at most q
/// below it, at the other at least q.
fn bracket(mixture: &Mixture, z: f64, room: f64) -> (f64, f64) {
    let (mut low, mut high) = ([f64::INFINITY; LANES], [f64::NEG_INFINITY; LANES]);
    for block in mixture.blocks() {
        for ((low, high), (mean, inverse)) in low.iter_mut().zip(&mut high).zip(block.mean.iter().zip(&block.inverse)) {
            let u = mean + z / inverse;
            *low = if u < *low { u } else { *low };
            *high = if u > *high { u } else { *high };
        }
    }
    let low = low.iter().fold(f64::INFINITY, |a, b| a.min(*b));
    let high = high.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
    (low - room, high + room)
}

/// What one search starts from and when it ends.
struct Search {
    bracket: (f64, f64),
    start: f64,
    last_step: f64,
    steps: usize,
}

fn search(sums: impl Fn(f64) -> Sums, target: &Target, Search { bracket: (mut low, mut high), start, last_step, steps }: Search) -> f64 {
    let mut u = if start >= low && start <= high { start } else { 0.5 * low + 0.5 * high };
    let mut before = high - low;
    for _ in 0..steps {
        let (excess, step) = step(&sums(u), target);
        if excess < 0.0 {
            low = u;
        } else {
            high = u;
        }
        let size = step.abs();
        if size <= last_step {
            return (u + step).max(low).min(high);
        }
        let next = u + step;
        if next >= low && next <= high && size <= 0.5 * before {
            before = size;
            u = next;
        } else {
            u = 0.5 * low + 0.5 * high;
            before = high - low;
            if before <= RELATIVE_WIDTH * (1.0 + u.abs()) {
                return u;
            }
        }
    }
    u
}

/// g at a point, and Halley's step from there: with g' = f / (F S) and k = g'' / g' = f'/f - f (S - F) / (F S), Newton's step n = -g / g'
/// becomes n / (1 + n k / 2). Not finite where F, S or f is 0.
#[inline(always)]
fn step(sums: &Sums, target: &Target) -> (f64, f64) {
    let excess = super::elementary::ln(sums.below / sums.above * target.odds_against);
    let spread = sums.below * sums.above;
    let newton = -excess * spread / sums.density;
    let bend = sums.slope / sums.density - sums.density * (sums.above - sums.below) / spread;
    let correction = 1.0 + 0.5 * newton * bend;
    let correction = if correction > 0.5 { correction } else { 0.5 };
    let correction = if correction < 2.0 { correction } else { 2.0 };
    (excess, newton / correction)
}

/// `Mixture::sums` to about 1e-6.
fn coarse_sums(blocks: &[CoarseBlock], u: f64) -> Sums {
    let u = f32_of(u);
    let (mut below, mut above, mut density, mut slope) = ([0.0; LANES], [0.0; LANES], [0.0; LANES], [0.0; LANES]);
    for block in blocks {
        let sums = below.iter_mut().zip(&mut above).zip(density.iter_mut().zip(&mut slope));
        let lanes = block.weight.iter().zip(block.mean.iter().zip(&block.inverse));
        for (((below, above), (density, slope)), (weight, (mean, inverse))) in sums.zip(lanes) {
            let z = (u - mean) * inverse;
            let (kernel, phi, rest) = coarse_tails(z);
            let d = weight * inverse * kernel;
            *below += weight * phi;
            *above += weight * rest;
            *density += d;
            *slope += d * (z * inverse);
        }
    }
    let sum = |[a, b, c, d]: [f32; LANES]| f64::from((a + b) + (c + d));
    Sums { below: sum(below), above: sum(above), density: sum(density) * INV_SQRT_2PI, slope: -sum(slope) * INV_SQRT_2PI }
}

#[cfg(test)]
mod tests;
