//! Exponential and logarithm of this crate's own: the C library's differ in the last bit between machines (it picks an
//! implementation by the CPU), and these vectorise, because they have no branch and no table.
//!
//! Only additions, multiplications and divisions of IEEE 754, never fused: the bits are the same everywhere.

use crate::base::number::f64_of;

/// ln 2 in two parts; the first has so few bits that its product with an exponent is exact (Cody and Waite, 1980).
const LN_2_HIGH: f64 = 0.693_147_180_369_123_8;
const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
/// 1.5 * 2^52: adding it rounds to an integer and leaves that integer in the lowest bits.
const ROUND: f64 = 6_755_399_441_055_744.0;
const MANTISSA_BITS: u32 = 52;
const BIAS: u64 = 1023;
/// Arguments outside give 0 or infinity; inside, the result is a normal number.
const LOWEST: f64 = -708.0;
const HIGHEST: f64 = 709.0;

/// (e^r - 1 - r) / r^2 on |r| <= ln 2 / 2, lowest power first: interpolated at Chebyshev nodes, e^r to 2e-17 relative.
const EXP: [f64; 10] = [
    0.500_000_000_000_000_1,
    0.166_666_666_666_666_69,
    4.166_666_666_662_382_4e-2,
    8.333_333_333_330_039e-3,
    1.388_888_891_736_708_1e-3,
    1.984_126_986_317_155_7e-4,
    2.480_152_210_578_682e-5,
    2.755_726_827_690_569_6e-6,
    2.762_020_159_103_154_7e-7,
    2.510_047_250_569_499_6e-8,
];

/// (2 artanh(s) - 2 s) / s^3 as a polynomial in s^2, lowest power first, for |s| <= 0.1716; 9e-18 absolute.
const LN: [f64; 7] = [
    0.666_666_666_666_667,
    0.399_999_999_998_988_9,
    0.285_714_286_262_539_1,
    0.222_222_110_893_681_24,
    0.181_828_924_333_645_64,
    0.153_316_116_945_700_9,
    0.146_178_074_928_038_47,
];

/// e^x for x in [-708, 709]; relative error below 4e-16. Garbage outside: the caller has clamped.
#[inline(always)]
pub(super) fn exp_inside(x: f64) -> f64 {
    let rounded = x * std::f64::consts::LOG2_E + ROUND;
    let power = rounded - ROUND;
    let rest = (x - power * LN_2_HIGH) - power * LN_2_LOW;
    // Estrin's scheme: Horner's would wait for itself ten times.
    let [c0, c1, c2, c3, c4, c5, c6, c7, c8, c9] = EXP;
    let square = rest * rest;
    let fourth = square * square;
    let low = (c0 + c1 * rest) + (c2 + c3 * rest) * square;
    let high = (c4 + c5 * rest) + (c6 + c7 * rest) * square;
    let p = (low + high * fourth) + (c8 + c9 * rest) * (fourth * fourth);
    let mantissa = 1.0 + (rest + square * p);
    mantissa * f64::from_bits(rounded.to_bits().wrapping_add(BIAS) << MANTISSA_BITS)
}

/// e^x for any x that is a number; 0 below -708, infinite above 709.
#[inline(always)]
pub(super) fn exp(x: f64) -> f64 {
    let inside = if x > LOWEST { x } else { LOWEST };
    let inside = if inside < HIGHEST { inside } else { HIGHEST };
    let e = exp_inside(inside);
    let e = if x < LOWEST { 0.0 } else { e };
    if x > HIGHEST { f64::INFINITY } else { e }
}

/// e^x for x <= 0, as the weights of a softmax need it.
#[inline(always)]
pub(super) fn exp_falling(x: f64) -> f64 {
    let e = exp_inside(if x > LOWEST { x } else { LOWEST });
    if x < LOWEST { 0.0 } else { e }
}

/// ln x; -infinity for 0, NaN below. Error below one unit in the last place.
///
/// With m = x / 2^k in [sqrt 1/2, sqrt 2), f = m - 1 and s = f / (2 + f): ln m = 2 artanh s, in which the leading terms are
/// taken from f itself, so that nothing is lost near 1 (as in Sun's fdlibm).
#[inline(always)]
pub(super) fn ln(x: f64) -> f64 {
    const SQRT_HALF_BITS: u64 = 0x3FE6_A09E_667F_3BCD;
    const TWO_POW_54: f64 = 18_014_398_509_481_984.0;
    if x.is_nan() || x < 0.0 {
        return f64::NAN;
    }
    if x == 0.0 {
        return f64::NEG_INFINITY;
    }
    if x == f64::INFINITY {
        return x;
    }
    let (x, offset) = if x < f64::MIN_POSITIVE { (x * TWO_POW_54, -54.0) } else { (x, 0.0) };
    let power = x.to_bits().wrapping_sub(SQRT_HALF_BITS).cast_signed() >> MANTISSA_BITS;
    let m = f64::from_bits(x.to_bits().wrapping_sub((power << MANTISSA_BITS).cast_unsigned()));
    let k = f64_of(power) + offset;
    let f = m - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    let [c0, c1, c2, c3, c4, c5, c6] = LN;
    let square = z * z;
    let p = (c0 + c1 * z) + (c2 + c3 * z) * square + ((c4 + c5 * z) + c6 * square) * (square * square);
    let half_square = 0.5 * f * f;
    k * LN_2_HIGH - ((half_square - (s * (half_square + z * p) + k * LN_2_LOW)) - f)
}

/// ln(1 + x) for x > -1 without loss near 0 (Goldberg 1991, theorem 4).
pub(super) fn ln_1p(x: f64) -> f64 {
    let sum = 1.0 + x;
    if sum == 1.0 { x } else { ln(sum) * (x / (sum - 1.0)) }
}

/// e^x - 1 without loss near 0 (Kahan; in Higham, *Accuracy and Stability of Numerical Algorithms*, 2002, section 1.14).
pub(super) fn exp_m1(x: f64) -> f64 {
    let e = exp(x);
    if e == 1.0 {
        x
    } else if !(0.25..=4.0).contains(&e) {
        e - 1.0
    } else {
        (e - 1.0) * (x / ln(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, expected: f64, relative: f64) {
        assert!((found - expected).abs() <= relative * expected.abs(), "{found:e} is not {expected:e}");
    }

    #[test]
    fn exp_agrees_with_the_c_library_over_its_whole_range() {
        for i in -70_800..70_900 {
            let x = f64::from(i) * 0.01 + 0.001_7;
            near(exp(x), x.exp(), 5e-16);
            if x < 0.0 {
                assert_eq!(exp_falling(x), exp(x));
            }
        }
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn exp_ends_in_zero_and_infinity() {
        assert_eq!((exp(-1e300), exp(f64::NEG_INFINITY), exp_falling(-708.1)), (0.0, 0.0, 0.0));
        assert_eq!((exp(1e300), exp(f64::INFINITY)), (f64::INFINITY, f64::INFINITY));
        assert!(exp(-708.0) > 0.0 && exp(709.0).is_finite());
    }

    #[test]
    fn ln_agrees_with_the_c_library_from_subnormal_to_largest() {
        let mut x = 5e-324;
        while x < 1e308 {
            near(ln(x), x.ln(), 4e-16);
            x *= 1.7;
        }
        for i in -2000..2000 {
            let x = 1.0 + f64::from(i) * 1e-7;
            near(ln(x), x.ln(), 4e-16);
        }
        assert_eq!((ln(0.0), ln(f64::INFINITY), ln(1.0)), (f64::NEG_INFINITY, f64::INFINITY, 0.0));
        assert!(ln(-1.0).is_nan() && ln(f64::NAN).is_nan());
    }

    #[test]
    fn ln_1p_keeps_small_arguments() {
        for x in [1e-300, -1e-300, 1e-17, 3e-9, -3e-9, -0.5, 0.7, -0.999] {
            near(ln_1p(x), x.ln_1p(), 1e-15);
        }
    }

    #[test]
    fn exp_m1_keeps_small_arguments() {
        for i in -3000..3000 {
            let x = f64::from(i) * 0.003_7 + 1e-5;
            near(exp_m1(x), x.exp_m1(), 4e-15);
        }
        for x in [1e-300, -1e-300, 1e-17, 3e-9, -3e-9] {
            near(exp_m1(x), x.exp_m1(), 1e-15);
        }
        assert_eq!((exp_m1(f64::NEG_INFINITY), exp_m1(f64::INFINITY), exp_m1(0.0)), (-1.0, f64::INFINITY, 0.0));
    }
}
