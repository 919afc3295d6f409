//! A mixture of normals in u = ln(gap / unit): sums over its components, in numbers and in logarithms.
//!
//! F(u) = sum_k w_k Phi((u - mu_k) / sigma_k), the law of Shchur, Bilos and Guennemann, "Intensity-Free Learning of Temporal Point
//! Processes", ICLR 2020. Components lie in blocks of `LANES`; each lane keeps its own sum and the lanes are added in one
//! order, so that vector instructions of any width may be used and the bits stay the same: `pulp` picks those of the processor that it runs on. What it is to
//! compile for them must be inlined into the call, so there is a type for each kind of sum (a closure's `call_once` is not inlined).

use pulp::{Arch, NullaryFnOnce};

use super::elementary::{exp, exp_falling, exp_inside, ln, ln_1p};
use super::normal::{INV_SQRT_2PI, LN_SQRT_2PI, ln_above, tails};

/// Components side by side.
pub(super) const LANES: usize = 4;
/// One number per component of a block.
pub(super) type Lanes = [f64; LANES];

/// Log scales are taken into this range: sigma from 0.0009 to 148.
const LOG_SCALE: (f64, f64) = (-7.0, 5.0);
/// Sums below this are no longer exact (`normal::tails` ends near 1e-307) and are taken in logarithms.
const TINY: f64 = 1e-280;
/// Intervals of z shorter than this are density times width: the difference of two tails would cancel, and the trapezoid's own
/// error is (z width)^2 / 12.
const NARROW: f64 = 1e-5;

/// `LANES` components. A block's unused lanes repeat the last component with weight 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    /// mu.
    pub(super) mean: Lanes,
    /// w.
    pub(super) weight: Lanes,
    /// 1 / sigma.
    pub(super) inverse: Lanes,
    /// w / sigma.
    pub(super) height: Lanes,
    logit: Lanes,
    log_scale: Lanes,
}

/// What a mixture is at one u.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sums {
    /// F(u).
    pub(super) below: f64,
    /// S(u) = 1 - F(u), not by subtraction where it is small.
    pub(super) above: f64,
    /// dF/du.
    pub(super) density: f64,
    /// d2F/du2.
    pub(super) slope: f64,
}

/// The mixture of one row; its memory is used again for the next.
#[derive(Clone, Debug)]
pub(super) struct Mixture {
    /// Vector instructions of this processor.
    pub(super) vectors: Arch,
    count: usize,
    blocks: Vec<Block>,
    /// Logarithm of the sum of e^logit.
    log_total: f64,
}

/// One component, for sums in logarithms.
struct Component {
    log_weight: f64,
    mean: f64,
    inverse: f64,
    log_scale: f64,
}

struct Weigh<'a>(&'a mut Mixture);

impl NullaryFnOnce for Weigh<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.0.weigh();
    }
}

struct At<'a>(&'a Mixture, f64);

impl NullaryFnOnce for At<'_> {
    type Output = Sums;

    #[inline(always)]
    fn call(self) -> Sums {
        self.0.sums_inlined(self.1)
    }
}

struct Below<'a>(&'a Mixture, f64);

impl NullaryFnOnce for Below<'_> {
    type Output = f64;

    #[inline(always)]
    fn call(self) -> f64 {
        self.0.below_inlined(self.1)
    }
}

struct Between<'a>(&'a Mixture, f64, f64);

impl NullaryFnOnce for Between<'_> {
    type Output = f64;

    #[inline(always)]
    fn call(self) -> f64 {
        self.0.between(self.1, self.2)
    }
}

/// The sum of the lanes, always in this order.
#[inline(always)]
pub(super) fn total([a, b, c, d]: Lanes) -> f64 {
    (a + b) + (c + d)
}

#[inline(always)]
fn probability(p: f64) -> f64 {
    if p < 1.0 { p } else { 1.0 }
}

impl Mixture {
    /// A mixture of `count` components, at least 1.
    pub(super) fn new(count: usize) -> Self {
        let zero = [0.0; LANES];
        let block = Block { mean: zero, weight: zero, inverse: zero, height: zero, logit: [f64::MIN; LANES], log_scale: zero };
        Mixture { vectors: Arch::new(), count, blocks: vec![block; count.div_ceil(LANES)], log_total: 0.0 }
    }

    /// The components, in blocks.
    pub(super) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Takes the parameters of a row: `3 * count` floats, weight logits, then means, then log scales. `false`, and the mixture is not to be
    /// used, if one of them is not finite.
    pub(super) fn read(&mut self, row: &[f32]) -> bool {
        let mut parts = row.chunks_exact(self.count);
        let (Some(logits), Some(means), Some(log_scales)) = (parts.next(), parts.next(), parts.next()) else { return false };
        let mut finite = true;
        for part in [logits, means, log_scales] {
            for value in part {
                finite &= value.is_finite();
            }
        }
        if !finite {
            return false;
        }
        let parts = logits.chunks(LANES).zip(means.chunks(LANES)).zip(log_scales.chunks(LANES));
        for (block, ((logits, means), log_scales)) in self.blocks.iter_mut().zip(parts) {
            fill(&mut block.logit, logits, |_| f64::MIN);
            fill(&mut block.mean, means, |last| last);
            fill(&mut block.log_scale, log_scales, |last| last);
        }
        self.vectors.dispatch(Weigh(self));
        true
    }

    /// Weights and scales from logits and log scales.
    #[inline(always)]
    fn weigh(&mut self) {
        let mut highest = [f64::MIN; LANES];
        for block in &self.blocks {
            for (h, logit) in highest.iter_mut().zip(&block.logit) {
                *h = if *logit > *h { *logit } else { *h };
            }
        }
        let highest = highest.iter().fold(f64::MIN, |a, b| a.max(*b));
        let mut sum = [0.0; LANES];
        for block in &mut self.blocks {
            for ((weight, logit), sum) in block.weight.iter_mut().zip(&block.logit).zip(&mut sum) {
                *weight = exp_falling(*logit - highest);
                *sum += *weight;
            }
            for (inverse, log_scale) in block.inverse.iter_mut().zip(&mut block.log_scale) {
                let s = if *log_scale > LOG_SCALE.0 { *log_scale } else { LOG_SCALE.0 };
                let s = if s < LOG_SCALE.1 { s } else { LOG_SCALE.1 };
                *log_scale = s;
                *inverse = exp_inside(-s);
            }
        }
        let sum = total(sum);
        for block in &mut self.blocks {
            for ((weight, height), inverse) in block.weight.iter_mut().zip(&mut block.height).zip(&block.inverse) {
                *weight /= sum;
                *height = *weight * inverse;
            }
        }
        self.log_total = highest + ln(sum);
    }

    /// F, S, density and its slope at a finite u.
    pub(super) fn sums(&self, u: f64) -> Sums {
        self.vectors.dispatch(At(self, u))
    }

    #[inline(always)]
    pub(super) fn sums_inlined(&self, u: f64) -> Sums {
        let (mut below, mut above, mut density, mut slope) = ([0.0; LANES], [0.0; LANES], [0.0; LANES], [0.0; LANES]);
        for block in &self.blocks {
            let sums = below.iter_mut().zip(&mut above).zip(density.iter_mut().zip(&mut slope));
            let lanes = block.weight.iter().zip(&block.height).zip(block.mean.iter().zip(&block.inverse));
            for (((below, above), (density, slope)), ((weight, height), (mean, inverse))) in sums.zip(lanes) {
                let z = (u - mean) * inverse;
                let t = tails(z);
                let d = height * t.kernel;
                *below += weight * t.below;
                *above += weight * t.above;
                *density += d;
                *slope += d * (z * inverse);
            }
        }
        // The weights sum to 1 only up to rounding; the smaller side keeps its digits and the larger is its complement.
        let (below, above) = (total(below), total(above));
        let (below, above) = if below < above { (below, 1.0 - below) } else { (1.0 - above, above) };
        Sums { below, above, density: total(density) * INV_SQRT_2PI, slope: -total(slope) * INV_SQRT_2PI }
    }

    /// F(u) alone, at a finite u.
    pub(super) fn below(&self, u: f64) -> f64 {
        self.vectors.dispatch(Below(self, u))
    }

    #[inline(always)]
    fn below_inlined(&self, u: f64) -> f64 {
        let mut below = [0.0; LANES];
        for block in &self.blocks {
            for ((below, weight), (mean, inverse)) in below.iter_mut().zip(&block.weight).zip(block.mean.iter().zip(&block.inverse)) {
                *below += weight * tails((u - mean) * inverse).below;
            }
        }
        probability(total(below))
    }

    /// -ln S(u), the compensator; `sums` are those at u. Finite and not negative for finite u.
    pub(super) fn compensator(&self, sums: &Sums, u: f64) -> f64 {
        if sums.above < TINY {
            -self.log_sum(|c| ln_above((u - c.mean) * c.inverse))
        } else if sums.below < 0.5 {
            0.0 - ln_1p(-sums.below)
        } else {
            0.0 - ln(sums.above)
        }
    }

    /// ln dF/du; `sums` are those at u. Finite for finite u.
    pub(super) fn ln_density(&self, sums: &Sums, u: f64) -> f64 {
        if sums.density < TINY {
            self.log_sum(|c| {
                let z = (u - c.mean) * c.inverse;
                -0.5 * z * z - c.log_scale - LN_SQRT_2PI
            })
        } else {
            ln(sums.density)
        }
    }

    /// ln(F(to) - F(from)), not positive, for `from` < `to`; `from` may be -infinity.
    pub(super) fn ln_interval(&self, from: f64, to: f64) -> f64 {
        let width = to - from;
        let p = self.vectors.dispatch(Between(self, from, to));
        if p < TINY {
            self.log_sum(|c| ln_strip((from - c.mean) * c.inverse, (to - c.mean) * c.inverse, width * c.inverse)).min(0.0)
        } else {
            ln(p)
        }
    }

    /// F(to) - F(from). Each component takes the difference on the side of its smaller tail, and density times width where the two points nearly coincide.
    #[inline(always)]
    fn between(&self, from: f64, to: f64) -> f64 {
        let mut sum = [0.0; LANES];
        let width = to - from;
        for block in &self.blocks {
            let lanes = block.weight.iter().zip(block.mean.iter().zip(&block.inverse));
            for (sum, (weight, (mean, inverse))) in sum.iter_mut().zip(lanes) {
                let (z_from, z_to) = ((from - mean) * inverse, (to - mean) * inverse);
                let (a, b) = (tails(z_from), tails(z_to));
                let difference = if z_from > 0.0 { a.above - b.above } else { b.below - a.below };
                let z_width = width * inverse;
                let strip = 0.5 * (a.kernel + b.kernel) * INV_SQRT_2PI * z_width;
                *sum += weight * if z_width * (1.0 + z_from.abs()) < NARROW { strip } else { difference };
            }
        }
        probability(total(sum))
    }

    /// ln of the sum of weight times e^term, one component at a time.
    fn log_sum(&self, term: impl Fn(&Component) -> f64) -> f64 {
        let (mut highest, mut sum) = (f64::NEG_INFINITY, 0.0);
        for component in self.components() {
            let value = component.log_weight + term(&component);
            if value > highest {
                sum = sum * exp(highest - value) + 1.0;
                highest = value;
            } else if value > f64::NEG_INFINITY {
                sum += exp(value - highest);
            }
        }
        // A law that gives nothing at all to a point cannot be told from one that gives e^-1e300; the latter is finite.
        if highest == f64::NEG_INFINITY { f64::MIN } else { highest + ln(sum) }
    }

    fn components(&self) -> impl Iterator<Item = Component> {
        let lanes = |block: &'_ Block| {
            let Block { mean, inverse, logit, log_scale, .. } = *block;
            logit.into_iter().zip(mean).zip(inverse.into_iter().zip(log_scale))
        };
        self.blocks.iter().flat_map(lanes).take(self.count).map(|((logit, mean), (inverse, log_scale))| Component {
            log_weight: logit - self.log_total,
            mean,
            inverse,
            log_scale,
        })
    }
}

/// Fills lanes from the parameters of a block; missing ones with `rest` of the last.
fn fill(lanes: &mut Lanes, values: &[f32], rest: impl Fn(f64) -> f64) {
    if let Ok(values) = <&[f32; LANES]>::try_from(values) {
        *lanes = values.map(f64::from);
        return;
    }
    *lanes = [rest(values.last().map_or(0.0, |last| f64::from(*last))); LANES];
    for (lane, value) in lanes.iter_mut().zip(values) {
        *lane = f64::from(*value);
    }
}

/// ln(Phi(to) - Phi(from)) for `from` < `to`, `width` apart, however far out.
fn ln_strip(from: f64, to: f64, width: f64) -> f64 {
    let (near, far) = if from > 0.0 { (from, to) } else { (-to, -from) };
    if near < 0.0 {
        // The strip holds 0: no tail is small.
        return ln(tails(to).below - tails(from).below);
    }
    let (ln_near, ln_far) = (ln_above(near), ln_above(far));
    let fall = ln_near - ln_far;
    if fall < NARROW {
        let middle = near + 0.5 * width;
        ln(width) - 0.5 * middle * middle - LN_SQRT_2PI
    } else {
        ln_near + ln_1p(-exp(-fall))
    }
}

#[cfg(test)]
mod tests;
