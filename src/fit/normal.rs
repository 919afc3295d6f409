//! The normal law in log space: what the likelihood of a coarse gap needs without cancelling in the tails.

use std::f64::consts::{FRAC_1_SQRT_2, LN_2};

use candle_core::cpu::erf::erfc_f64;

/// ln(2 pi) / 2.
pub const HALF_LN_2PI: f64 = 0.918_938_533_204_672_8;
/// Beyond this many standard deviations the asymptotic series of the tail is used; `erfc` underflows near 37.
const FAR: f64 = 25.0;

/// ln of the normal density at `z`.
#[must_use]
pub fn ln_density(z: f64) -> f64 {
    -0.5 * z * z - HALF_LN_2PI
}

/// ln of the probability of a standard normal value above `z`. Abramowitz and Stegun 26.2.12 for the far tail.
#[must_use]
pub fn ln_above(z: f64) -> f64 {
    if z > FAR {
        let r = 1.0 / (z * z);
        return ln_density(z) - z.ln() + (-r * (1.0 - 3.0 * r * (1.0 - 5.0 * r))).ln_1p();
    }
    if z < -1.0 {
        // The complement is small: ln(1 - small) keeps the digits that ln(0.99...) would lose.
        return (-0.5 * erfc_f64(-z * FRAC_1_SQRT_2)).ln_1p();
    }
    erfc_f64(z * FRAC_1_SQRT_2).ln() - LN_2
}

/// ln of the probability of a standard normal value in `[low, high]`, `low < high`; `low` may be minus infinity.
///
/// Both ends are taken from the tail they lie in, so that the difference does not cancel: where the interval is so narrow that it
/// still would, density times width at its middle is exact to the digits that are left.
#[must_use]
pub fn ln_between(low: f64, high: f64) -> f64 {
    let (low, high) = if low + high < 0.0 { (-high, -low) } else { (low, high) };
    let middle = 0.5 * (low + high);
    if (high - low) * (1.0 + middle.abs()) < 1e-6 {
        return ln_density(middle) + (high - low).ln();
    }
    if high.is_infinite() {
        return ln_above(low);
    }
    let (above_low, above_high) = (ln_above(low), ln_above(high));
    above_low + (-(above_high - above_low).exp()).ln_1p()
}

/// ln of the sum of exponentials; minus infinity for nothing.
#[must_use]
pub fn ln_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let most = values.clone().fold(f64::NEG_INFINITY, f64::max);
    if most == f64::NEG_INFINITY {
        return most;
    }
    most + values.map(|v| (v - most).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64, tolerance: f64) {
        assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "{a} is not {b}");
    }

    #[test]
    fn tails_have_the_published_values() {
        // ln Q(z), from 50-digit evaluations of erfc.
        for (z, ln_q) in [
            (0.0, -std::f64::consts::LN_2),
            (1.0, -1.841_021_645_009_263_8),
            (5.0, -15.064_998_393_988_726),
            (10.0, -53.231_285_150_512_46),
            (-1.0, -0.172_753_779_023_449_9),
        ] {
            close(ln_above(z), ln_q, 1e-12);
        }
    }

    #[test]
    fn the_far_tail_joins_the_near_one() {
        close(ln_above(FAR + 1e-9), ln_above(FAR - 1e-9), 1e-9);
        assert!(ln_above(1e4).is_finite() && ln_above(1e4) < -4.9e7);
    }

    #[test]
    fn an_interval_is_the_same_from_either_tail_and_never_cancels() {
        close(ln_between(-1.0, 1.0), 0.682_689_492_137_085_9_f64.ln(), 1e-12);
        close(ln_between(f64::NEG_INFINITY, 0.0), 0.5_f64.ln(), 1e-12);
        close(ln_between(-9.0, -8.0), ln_between(8.0, 9.0), 1e-14);
        for middle in [0.0, 3.0, -12.0, 40.0, 300.0] {
            let width = 1e-3 / (1.0 + f64::abs(middle));
            close(ln_between(middle - width, middle + width), ln_density(middle) + (2.0 * width).ln(), 1e-5);
            let width = 1e-9;
            close(ln_between(middle - width, middle + width), ln_density(middle) + (2.0 * width).ln(), 1e-6);
        }
    }
}
