//! Quantiles of a mixture: bracketed root finding in u = ln(gap / unit).
//!
//! F is monotone and its log odds are nearly a straight line in u, so the step is Halley's on g(u) = ln(F / S) - ln(q / (1 - q)): cubic near
//! the root, and far out, where F itself is flat, it still knows the way. A step that leaves the bracket, or shrinks too slowly,
//! is replaced by bisection. Most steps are made on single-precision sums, which cost a quarter; the last ones are exact.

use pulp::NullaryFnOnce;

use super::elementary::ln;
use super::mixture::{Block, LANES, Lanes, Mixture, Sums, total};
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
/// Components with less weight do not decide how long the last step may be: F does not show them.
const NEGLIGIBLE: f64 = 1e-14;
/// The same for the coarse search, whose sums leave them out.
const COARSE_NEGLIGIBLE: f64 = 1e-6;

/// A probability whose quantile is wanted.
#[derive(Clone, Copy, Debug)]
struct Target {
    /// (1 - q) / q.
    odds_against: f64,
    /// The standard normal's quantile.
    z: f64,
}

/// Components side by side in single precision: two blocks of the mixture.
const COARSE_LANES: usize = 2 * LANES;
type CoarseLanes = [f32; COARSE_LANES];

/// Components in single precision, means relative to the mixture's. Unused lanes have weight 0.
#[derive(Clone, Copy, Debug, Default)]
struct CoarseBlock {
    weight: CoarseLanes,
    mean: CoarseLanes,
    inverse: CoarseLanes,
}

/// Where a search gets its sums from.
trait Summed {
    fn at(&self, u: f64) -> Sums;
}

impl Summed for Mixture {
    #[inline(always)]
    fn at(&self, u: f64) -> Sums {
        self.sums_inlined(u)
    }
}

/// A mixture in single precision, and its mean.
struct Coarse<'a>(&'a [CoarseBlock], f64);

impl Summed for Coarse<'_> {
    #[inline(always)]
    fn at(&self, u: f64) -> Sums {
        coarse_sums(self.0, u - self.1)
    }
}

struct Solve<'a>(&'a mut Solver, &'a Mixture);

impl NullaryFnOnce for Solve<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.0.solve(self.1);
    }
}

/// A search under way for one target.
#[derive(Clone, Copy, Debug)]
struct Search {
    target: Target,
    /// Where the quantile is for certain.
    bracket: (f64, f64),
    /// Where it is as far as the sums so far can be trusted.
    low: f64,
    high: f64,
    u: f64,
    /// Size of the step that led to `u`; the width of the bracket after a bisection.
    before: f64,
    done: bool,
}

/// Finds the same quantiles of one mixture after the other. All targets of a row go one step together: while one waits for its logarithm
/// and its divisions the next one's sums are under way.
#[derive(Clone, Debug)]
pub(super) struct Solver {
    targets: Vec<Target>,
    searches: Vec<Search>,
    coarse: Vec<CoarseBlock>,
    /// sigma of every component.
    sigmas: Vec<Lanes>,
    found: Vec<f64>,
}

/// Mean and standard deviation of a mixture, and its narrowest sigma, also without the components that coarse sums leave out.
struct Shape {
    mean: f64,
    deviation: f64,
    narrowest: f64,
    coarse_narrowest: f64,
}

impl Solver {
    /// For quantiles in (0, 1), ascending.
    pub(super) fn new(quantiles: &[f64]) -> Self {
        let targets = quantiles.iter().map(|q| Target { odds_against: (1.0 - q) / q, z: quantile(*q) }).collect();
        Solver { targets, searches: Vec::new(), coarse: Vec::new(), sigmas: Vec::new(), found: Vec::new() }
    }

    /// The quantiles' u, in the order of the targets, never falling.
    pub(super) fn quantiles(&mut self, mixture: &Mixture) -> &[f64] {
        self.found.clear();
        if !self.targets.is_empty() {
            mixture.vectors.dispatch(Solve(self, mixture));
        }
        &self.found
    }

    #[inline(always)]
    fn solve(&mut self, mixture: &Mixture) {
        // Loops throughout: closures would not be compiled for the same vectors.
        self.sigmas.clear();
        for block in mixture.blocks() {
            let mut sigmas = [0.0; LANES];
            for (sigma, inverse) in sigmas.iter_mut().zip(&block.inverse) {
                *sigma = 1.0 / inverse;
            }
            self.sigmas.push(sigmas);
        }
        let shape = shape(mixture, &self.sigmas);
        self.coarse.clear();
        for pair in mixture.blocks().chunks(2) {
            self.coarse.push(coarse(pair, shape.mean));
        }
        self.searches.clear();
        for target in &self.targets {
            let bracket = bracket(mixture, &self.sigmas, target.z, 1e-3 * shape.narrowest);
            self.searches.push(Search::new(*target, bracket, shape.mean + target.z * shape.deviation));
        }
        search(&Coarse(&self.coarse, shape.mean), &mut self.searches, LAST_COARSE_STEP * shape.coarse_narrowest, COARSE_STEPS);
        // The exact search starts where the coarse one ended, but does not trust what it thought of the bracket.
        for search in &mut self.searches {
            *search = Search::new(search.target, search.bracket, search.u);
        }
        search(mixture, &mut self.searches, LAST_STEP * shape.narrowest, STEPS);
        let mut last = f64::NEG_INFINITY;
        for search in &self.searches {
            // Two targets a rounding error apart must not change places.
            last = if search.u > last { search.u } else { last };
            self.found.push(last);
        }
    }
}

/// One or two blocks in single precision.
#[inline(always)]
fn coarse(blocks: &[Block], mean: f64) -> CoarseBlock {
    let mut coarse = CoarseBlock::default();
    let (weights, _) = coarse.weight.as_chunks_mut::<LANES>();
    let (means, _) = coarse.mean.as_chunks_mut::<LANES>();
    let (inverses, _) = coarse.inverse.as_chunks_mut::<LANES>();
    for (block, (weights, (means, inverses))) in blocks.iter().zip(weights.iter_mut().zip(means.iter_mut().zip(inverses))) {
        for (to, weight) in weights.iter_mut().zip(&block.weight) {
            *to = if *weight < COARSE_NEGLIGIBLE { 0.0 } else { f32_of(*weight) };
        }
        for (to, m) in means.iter_mut().zip(&block.mean) {
            *to = f32_of(*m - mean);
        }
        for (to, inverse) in inverses.iter_mut().zip(&block.inverse) {
            *to = f32_of(*inverse);
        }
    }
    coarse
}

/// Moments over all components.
#[inline(always)]
fn shape(mixture: &Mixture, sigmas: &[Lanes]) -> Shape {
    let mut mean = [0.0; LANES];
    for block in mixture.blocks() {
        for (sum, (weight, m)) in mean.iter_mut().zip(block.weight.iter().zip(&block.mean)) {
            *sum += weight * m;
        }
    }
    let mean = total(mean);
    let mut square = [0.0; LANES];
    let (mut narrowest, mut coarse_narrowest) = ([f64::INFINITY; LANES], [f64::INFINITY; LANES]);
    for (block, sigmas) in mixture.blocks().iter().zip(sigmas) {
        let lanes = block.weight.iter().zip(block.mean.iter().zip(sigmas));
        let shapes = square.iter_mut().zip(narrowest.iter_mut().zip(&mut coarse_narrowest));
        for ((square, (narrowest, coarse)), (weight, (m, sigma))) in shapes.zip(lanes) {
            let off = m - mean;
            *square += weight * (sigma * sigma + off * off);
            *narrowest = if *weight > NEGLIGIBLE && sigma < narrowest { *sigma } else { *narrowest };
            *coarse = if *weight > COARSE_NEGLIGIBLE && sigma < coarse { *sigma } else { *coarse };
        }
    }
    let smallest = |lanes: Lanes| lanes.iter().fold(f64::INFINITY, |a, b| a.min(*b));
    Shape { mean, deviation: total(square).sqrt(), narrowest: smallest(narrowest), coarse_narrowest: smallest(coarse_narrowest) }
}

/// Smallest and largest quantile of any component, with some room for rounding: at the one every component, and so the mixture, has at most q
/// below it, at the other at least q.
#[inline(always)]
fn bracket(mixture: &Mixture, sigmas: &[Lanes], z: f64, room: f64) -> (f64, f64) {
    let (mut low, mut high) = ([f64::INFINITY; LANES], [f64::NEG_INFINITY; LANES]);
    for (block, sigmas) in mixture.blocks().iter().zip(sigmas) {
        for ((low, high), (mean, sigma)) in low.iter_mut().zip(&mut high).zip(block.mean.iter().zip(sigmas)) {
            let u = mean + z * sigma;
            *low = if u < *low { u } else { *low };
            *high = if u > *high { u } else { *high };
        }
    }
    let low = low.iter().fold(f64::INFINITY, |a, b| a.min(*b));
    let high = high.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
    (low - room, high + room)
}

impl Search {
    #[inline(always)]
    fn new(target: Target, bracket: (f64, f64), start: f64) -> Self {
        let (low, high) = bracket;
        let u = if start >= low && start <= high { start } else { 0.5 * low + 0.5 * high };
        Search { target, bracket, low, high, u, before: high - low, done: false }
    }

    /// Goes from `u`, where the sums are `sums`, to the next point.
    #[inline(always)]
    fn advance(&mut self, sums: &Sums, last_step: f64) {
        let (excess, step) = step(sums, &self.target);
        let (u, size, next) = (self.u, step.abs(), self.u + step);
        if excess < 0.0 {
            self.low = u;
        } else {
            self.high = u;
        }
        let (low, high) = (self.low, self.high);
        if size <= last_step {
            self.u = next.max(low).min(high);
            self.done = true;
        } else if next >= low && next <= high && size <= 0.5 * self.before {
            self.u = next;
            self.before = size;
        } else {
            self.u = 0.5 * low + 0.5 * high;
            self.before = high - low;
            self.done = self.before <= RELATIVE_WIDTH * (1.0 + u.abs());
        }
    }
}

/// Advances all searches until their steps are at most `last_step` long, `steps` times at most.
#[inline(always)]
fn search(sums: &impl Summed, searches: &mut [Search], last_step: f64, steps: usize) {
    for _ in 0..steps {
        let mut open = false;
        for search in searches.iter_mut() {
            if search.done {
                continue;
            }
            search.advance(&sums.at(search.u), last_step);
            open |= !search.done;
        }
        if !open {
            break;
        }
    }
}

/// g at a point, and Halley's step from there: with g' = f / (F S) and k = g'' / g' = f'/f - f (S - F) / (F S), Newton's step n = -g / g'
/// becomes n / (1 + n k / 2). Not finite where F, S or f is 0.
#[inline(always)]
fn step(sums: &Sums, target: &Target) -> (f64, f64) {
    let excess = ln(sums.below / sums.above * target.odds_against);
    let spread = sums.below * sums.above;
    let newton = -excess * spread / sums.density;
    let bend = sums.slope / sums.density - sums.density * (sums.above - sums.below) / spread;
    let correction = 1.0 + 0.5 * newton * bend;
    let correction = if correction > 0.5 { correction } else { 0.5 };
    let correction = if correction < 2.0 { correction } else { 2.0 };
    (excess, newton / correction)
}

/// `Mixture::sums` to about 1e-6.
#[inline(always)]
fn coarse_sums(blocks: &[CoarseBlock], u: f64) -> Sums {
    let u = f32_of(u);
    let (mut below, mut above, mut density, mut slope) =
        ([0.0; COARSE_LANES], [0.0; COARSE_LANES], [0.0; COARSE_LANES], [0.0; COARSE_LANES]);
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
    let sum = |[a, b, c, d, e, f, g, h]: CoarseLanes| f64::from(((a + e) + (b + f)) + ((c + g) + (d + h)));
    Sums { below: sum(below), above: sum(above), density: sum(density) * INV_SQRT_2PI, slope: -sum(slope) * INV_SQRT_2PI }
}

#[cfg(test)]
mod tests;
