//! The standard normal distribution: both tails and the density from one exponential.

use super::elementary::{exp_inside, ln, ln_1p};

/// 1 / sqrt(2 pi).
pub(super) const INV_SQRT_2PI: f64 = 0.398_942_280_401_432_7;
/// ln sqrt(2 pi).
pub(super) const LN_SQRT_2PI: f64 = 0.918_938_533_204_672_8;

/// Beyond this the tails stay as they are here, about 1e-307, so that nothing becomes subnormal; whoever needs the truth out there asks
/// `ln_above`.
const FAR: f64 = 37.5;

/// Mills' ratio over sqrt(2 pi), (1 - Phi(a)) e^(a^2/2) for a >= 0, as a ratio of polynomials, highest powers first,
/// odd and even in pairs.
/// Minimax (Remez) on [0, infinity) with 1/2 at 0 exactly: relative error 4.0e-16. All coefficients are positive, so nothing cancels.
const MILLS_ABOVE: [[f64; 2]; 5] = [
    [1.945_697_870_925_588_4e-6, 4.946_536_743_045_053e-5],
    [0.000_621_771_700_934_891_7, 0.004_979_685_568_036_266],
    [0.027_740_652_820_944_154, 0.110_961_058_009_891_4],
    [0.318_425_928_798_383_83, 0.634_154_611_537_198_2],
    [0.802_080_939_009_330_9, 0.5],
];
const MILLS_BELOW: [[f64; 2]; 5] = [
    [0.000_123_991_288_616_173_7, 0.001_563_427_667_227_991_9],
    [0.012_606_211_931_907_555, 0.071_084_300_987_237_75],
    [0.290_372_362_160_735_36, 0.864_642_654_211_828_2],
    [1.844_002_482_546_015_7, 2.684_864_990_943_27],
    [2.402_046_438_821_479_5, 1.0],
];
const MILLS_BELOW_LEADING: f64 = 4.877_141_297_151_421e-6;

/// Both tails at a point.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tails {
    /// e^(-z^2/2): the density times sqrt(2 pi).
    pub(super) kernel: f64,
    /// Phi(z).
    pub(super) below: f64,
    /// 1 - Phi(z), not by subtraction where it is small.
    pub(super) above: f64,
}

#[inline(always)]
fn mills(a: f64) -> f64 {
    // Even and odd powers apart: four short chains instead of two long ones.
    let square = a * a;
    let (mut p_even, mut p_odd, mut q_even, mut q_odd) = (0.0, 0.0, MILLS_BELOW_LEADING, 0.0);
    for (above, below) in MILLS_ABOVE.iter().zip(&MILLS_BELOW) {
        p_odd = p_odd * square + above[0];
        p_even = p_even * square + above[1];
        q_odd = q_odd * square + below[0];
        q_even = q_even * square + below[1];
    }
    (p_even + a * p_odd) / (q_even + a * q_odd)
}

/// Phi, 1 - Phi and the density's kernel; the smaller tail to 1e-13 relative up to |z| = 37.5, the larger to 3e-16.
#[inline(always)]
pub(super) fn tails(z: f64) -> Tails {
    let a = z.abs();
    let a = if a < FAR { a } else { FAR };
    let kernel = exp_inside(-0.5 * a * a);
    let small = kernel * mills(a);
    let large = 1.0 - small;
    let below = if z < 0.0 { small } else { large };
    let above = if z < 0.0 { large } else { small };
    Tails { kernel, below, above }
}

/// ln(1 - Phi(z)) for any z that is a number, infinities too.
pub(super) fn ln_above(z: f64) -> f64 {
    /// Powers of more would overflow in the ratio; the ratio's logarithm is nothing beside z^2 there.
    const RATIO_END: f64 = 1e20;
    if z <= 0.0 {
        ln_1p(-tails(z).below)
    } else if z < FAR {
        ln(tails(z).above)
    } else {
        ln(mills(if z < RATIO_END { z } else { RATIO_END })) - 0.5 * z * z
    }
}

/// The z with Phi(z) = p, for p in (0, 1), by bisection: for tables, not for rows.
pub(super) fn quantile(p: f64) -> f64 {
    if p > 0.5 {
        return -quantile(1.0 - p);
    }
    let target = ln(p);
    let (mut low, mut high) = (-40.0, 0.0);
    for _ in 0..64 {
        let middle = 0.5 * (low + high);
        if ln_above(-middle) < target {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// Beyond this the coarse tails stay as they are here, about 2e-28.
const COARSE_FAR: f32 = 11.0;
const COARSE_ROUND: f32 = 12_582_912.0;
/// As in `elementary`, to 4e-7 relative.
const COARSE_EXP: [f32; 4] = [0.008_357_248, 0.041_834_14, 0.166_666_31, 0.499_997_47];
/// As `MILLS_ABOVE` and `MILLS_BELOW`, to 1.7e-6 relative.
const COARSE_ABOVE: [f32; 4] = [0.021_782_683, 0.138_482_66, 0.393_494_5, 0.499_999_17];
const COARSE_BELOW: [f32; 4] = [0.347_1, 1.041_958_1, 1.584_800_6, 1.0];
const COARSE_BELOW_LEADING: f32 = 0.054_601_18;

/// (kernel, Phi, 1 - Phi) to about 3e-6 relative and a quarter of the price, to find where the exact ones are worth computing.
#[inline(always)]
pub(super) fn coarse_tails(z: f32) -> (f32, f32, f32) {
    let a = z.abs();
    let a = if a < COARSE_FAR { a } else { COARSE_FAR };
    let x = -0.5 * a * a;
    let rounded = x * std::f32::consts::LOG2_E + COARSE_ROUND;
    let rest = x - (rounded - COARSE_ROUND) * std::f32::consts::LN_2;
    let mut e = 0.0;
    for c in &COARSE_EXP {
        e = e * rest + c;
    }
    let e = 1.0 + (rest + rest * rest * e);
    let kernel = e * f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    let (mut p, mut q) = (0.0, COARSE_BELOW_LEADING);
    for (above, below) in COARSE_ABOVE.iter().zip(&COARSE_BELOW) {
        p = p * a + above;
        q = q * a + below;
    }
    let small = kernel * p / q;
    let large = 1.0 - small;
    if z < 0.0 { (kernel, small, large) } else { (kernel, large, small) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 - Phi(z) by mpmath, 20 digits.
    const ABOVE: [(f64, f64); 13] = [
        (0.0, 0.5),
        (0.01, 0.496_010_643_685_368_4),
        (0.5, 0.308_537_538_725_986_9),
        (1.0, 0.158_655_253_931_457_05),
        (1.5, 0.066_807_201_268_858_07),
        (2.5, 0.006_209_665_325_776_135),
        (4.0, 0.000_031_671_241_833_119_92),
        (6.0, 9.865_876_450_376_98e-10),
        (8.25, 7.919_726_314_642_477e-17),
        (12.0, 1.776_482_112_077_679e-33),
        (20.0, 2.753_624_118_606_233_7e-89),
        (30.0, 4.906_713_927_148_187e-198),
        (37.0, 5.725_571_222_524_577e-300),
    ];

    #[test]
    fn tails_agree_with_mpmath_down_to_1e_300() {
        for (z, expected) in ABOVE {
            let right = tails(z);
            let left = tails(-z);
            assert!((right.above / expected - 1.0).abs() < 2e-13, "at {z}: {:e}", right.above);
            assert_eq!((right.above, right.below), (left.below, left.above));
            if z < 4.0 {
                assert!((right.above - expected).abs() < 4e-16, "at {z}: {:e}", right.above - expected);
                assert!((right.below - (1.0 - expected)).abs() < 4e-16);
            }
        }
    }

    #[test]
    fn the_kernel_is_the_density_up_to_its_constant() {
        for i in -370..=370 {
            let z = f64::from(i) * 0.1;
            assert!((tails(z).kernel / (-0.5 * z * z).exp() - 1.0).abs() < 2e-13, "at {z}");
        }
    }

    #[test]
    fn tails_fall_and_sum_to_one() {
        let mut last = 1.0;
        for i in -4000..=4000 {
            let t = tails(f64::from(i) * 0.01);
            assert!(t.above <= last + 1e-16 && t.above > 0.0 && (t.below + t.above - 1.0).abs() <= 3e-16);
            last = t.above;
        }
    }

    #[test]
    fn the_logarithm_of_the_tail_goes_on_where_the_tail_ends() {
        for (z, expected) in [
            (-3.0, -0.001_350_809_964_748_193_8),
            (-1.0, -0.172_753_779_023_449_9),
            (0.5, -1.175_911_761_593_618_6),
            (10.0, -53.231_285_150_512_47),
            (37.4, -703.921_322_883_264_4),
            (37.6, -711.426_648_670_776_2),
            (50.0, -1_254.831_361_139_42),
            (1000.0, -500_007.826_694_812_2),
            (1e8, -5_000_000_000_000_019.0),
            (1e20, -5e39),
            (1e41, -5e81),
        ] {
            assert!((ln_above(z) / expected - 1.0).abs() < 1e-14, "at {z}: {}", ln_above(z));
        }
        assert_eq!(ln_above(f64::INFINITY), f64::NEG_INFINITY);
        assert!(ln_above(f64::NEG_INFINITY).abs() < 1e-300);
    }

    #[test]
    fn quantiles_agree_with_mpmath() {
        for (p, expected) in [
            (0.5, 0.0),
            (0.1, -1.281_551_565_544_600_5),
            (0.9, 1.281_551_565_544_600_5),
            (0.025, -1.959_963_984_540_054_2),
            (0.999, 3.090_232_306_167_813_5),
            (1e-9, -5.997_807_015_007_687),
            (1e-100, -21.273_453_560_965_324),
        ] {
            assert!((quantile(p) - expected).abs() < 1e-13, "{p}: {}", quantile(p));
        }
    }

    #[test]
    fn coarse_tails_are_near_the_exact_ones() {
        for i in -1_090..=1_090 {
            let z = i as f32 * 0.01;
            let exact = tails(f64::from(z));
            let (kernel, below, above) = coarse_tails(z);
            for (coarse, exact) in [(kernel, exact.kernel), (below, exact.below), (above, exact.above)] {
                assert!((f64::from(coarse) / exact - 1.0).abs() < 2e-5, "at {z}: {coarse:e} {exact:e}");
            }
        }
        assert!(coarse_tails(f32::NAN).0 > 0.0);
    }
}
