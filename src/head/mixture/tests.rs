use proptest::prelude::*;

use super::*;
use crate::head::reference::{Reference, extreme, typical};

fn mixture(count: usize, row: &[f32]) -> Mixture {
    let mut mixture = Mixture::new(count);
    assert!(mixture.read(row));
    mixture
}

fn near(found: f64, expected: f64, relative: f64) -> bool {
    (found - expected).abs() <= relative * expected.abs()
}

const THREE: [f32; 9] = [2.0, -1.0, 0.5, -1.5, 0.25, 3.0, -0.5, 0.0, 0.75];

#[test]
fn three_components_agree_with_mpmath() {
    let m = mixture(3, &THREE);
    // gap, F, -ln S, -ln f, -ln of the interval of width 1/4, by mpmath with 40 digits
    for (gap, below, compensator, surprise, interval) in [
        (0.125_f64, 0.135_145_949_569_793_12, 0.145_194_514_112_749_23, -0.971_651_631_331_839_2, 0.784_045_910_816_322_5),
        (2.0, 0.835_907_947_107_138_6, 1.807_327_710_499_606_6, 4.100_277_064_041_704, 5.484_905_945_743_581),
        (1000.0, 0.994_311_146_715_063_6, 5.169_246_582_799_753, 12.021_665_389_068_098, 13.407_959_736_768_82),
        (1e9, 1.0, 39.843_089_943_505_45, 59.177_686_178_996_11, 60.563_980_540_116),
    ] {
        let u = gap.ln();
        let s = m.sums(u);
        assert!(near(s.below, below, 1e-15) && near(m.below(u), below, 1e-15), "F({gap}) = {}", s.below);
        assert!(near(m.compensator(&s, u), compensator, 1e-13), "-ln S({gap}) = {}", m.compensator(&s, u));
        assert!(near(u - m.ln_density(&s, u), surprise, 1e-13), "-ln f({gap}) = {}", u - m.ln_density(&s, u));
        let found = -m.ln_interval((gap - 0.125).ln(), (gap + 0.125).ln());
        // At 1e9 the interval's own ends are rounded: ln(gap + 0.125) - ln(gap - 0.125) keeps 7 digits.
        assert!(near(found, interval, if gap > 1e6 { 1e-7 } else { 1e-11 }), "interval at {gap}: {found}");
    }
}

#[test]
fn parameters_that_are_not_finite_are_refused() {
    for at in 0..9 {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut row = THREE;
            row[at] = bad;
            assert!(!Mixture::new(3).read(&row));
        }
    }
    assert!(!Mixture::new(3).read(&THREE[..8]));
}

#[test]
fn a_mixture_keeps_nothing_of_the_row_before() {
    let mut used = mixture(3, &[5.0, 4.0, 3.0, 1e4, -1e4, 0.0, 5.0, -7.0, 1.0]);
    assert!(used.read(&THREE));
    assert_eq!(used.sums(0.3).density.to_bits(), mixture(3, &THREE).sums(0.3).density.to_bits());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn sums_agree_with_the_slow_reference((count, row) in typical(), u in -40.0_f64..40.0) {
        let (m, reference) = (mixture(count, &row), Reference::new(&row, count));
        let s = m.sums(u);
        for (name, found, expected) in [("F", s.below, reference.below(u)), ("S", s.above, reference.above(u)), ("f", s.density, reference.density(u))] {
            // The reference loses its smaller tail in the middle, where its power series is a difference.
            let ok = near(found, expected, 1e-11) || expected < 1e-290;
            prop_assert!(ok, "{name}({u}) = {found:e}, expected {expected:e}");
        }
        let scale: f64 = reference.0.iter().map(|(w, _, sigma)| w / (sigma * sigma)).sum();
        prop_assert!((s.slope - reference.slope(u)).abs() < 1e-13 * scale);
        prop_assert!((s.below - m.below(u)).abs() < 1e-15);
    }

    #[test]
    fn survival_starts_at_one_and_falls_and_the_compensator_rises((count, row) in prop_oneof![typical(), extreme()]) {
        let m = mixture(count, &row);
        let narrow = row.iter().all(|p| p.abs() <= 6.0) && row[2 * count..].iter().all(|scale| *scale < 1.6);
        let (mut survival, mut compensator) = (1.0, 0.0);
        for i in -700..=700 {
            let u = f64::from(i);
            let s = m.sums(u);
            let c = m.compensator(&s, u);
            prop_assert!((0.0..=1.0).contains(&s.above) && (0.0..=1.0).contains(&s.below) && (s.above + s.below - 1.0).abs() < 1e-14);
            prop_assert!(s.above <= survival + 1e-15, "S({u}) = {} after {survival}", s.above);
            prop_assert!(c.is_finite() && c >= 0.0 && c >= compensator * (1.0 - 1e-12), "at {u}: {c} after {compensator}");
            prop_assert!(m.ln_density(&s, u).is_finite());
            prop_assert!(m.ln_interval(u, u + 1e-3).is_finite() && m.ln_interval(f64::NEG_INFINITY, u).is_finite());
            if i == -700 && narrow {
                prop_assert!(s.above == 1.0 && c < 1e-300);
            }
            survival = s.above;
            compensator = c;
        }
    }

    #[test]
    fn the_density_integrates_to_one((count, row) in typical()) {
        let m = mixture(count, &row);
        // sigma <= 4.5 and |mu| <= 6: all but 1e-22 lies within 50. The trapezoid rule is exact far below sigma = 0.22.
        let sum: f64 = (-2500..=2500).map(|i| 0.02 * m.sums(f64::from(i) * 0.02).density).sum();
        prop_assert!((sum - 1.0).abs() < 1e-13, "{sum}");
    }

    #[test]
    fn interval_probabilities_sum_to_one((count, row) in typical(), width in 0.01_f64..3.0) {
        let m = mixture(count, &row);
        // Clock ticks k * width, each from half a tick before to half a tick after; the last one to the end of time.
        let mut sum = m.ln_interval(f64::NEG_INFINITY, (0.5 * width).ln()).exp();
        for k in 1..2000 {
            let gap = f64::from(k) * width;
            sum += m.ln_interval((gap - 0.5 * width).ln(), (gap + 0.5 * width).ln()).exp();
        }
        let end = (1999.5 * width).ln();
        sum += m.sums(end).above;
        prop_assert!((sum - 1.0).abs() < 1e-11, "{sum}");
    }

    #[test]
    fn an_interval_that_shrinks_becomes_density_times_width((count, row) in typical(), u in -8.0_f64..10.0, power in -12_i32..-5) {
        let m = mixture(count, &row);
        let (from, to) = (u, u + 10.0_f64.powi(power));
        let middle = 0.5 * (from + to);
        let expected = m.ln_density(&m.sums(middle), middle) + (to - from).ln();
        prop_assert!((m.ln_interval(from, to) - expected).abs() < 1e-7, "{} {expected}", m.ln_interval(from, to));
    }

    #[test]
    fn sums_in_logarithms_agree_with_sums_in_numbers((count, row) in typical(), u in -30.0_f64..30.0) {
        let m = mixture(count, &row);
        let s = m.sums(u);
        prop_assume!(s.above > TINY && s.density > TINY);
        let survival = m.log_sum(|c| ln_above((u - c.mean) * c.inverse));
        prop_assert!((survival - s.above.ln()).abs() < 1e-12 * (1.0 + survival.abs()));
        let z = |u: f64, c: &Component| (u - c.mean) * c.inverse;
        let density = m.log_sum(|c| -0.5 * z(u, c) * z(u, c) - c.log_scale - LN_SQRT_2PI);
        prop_assert!((density - s.density.ln()).abs() < 1e-12 * (1.0 + density.abs()));
        let strip = m.log_sum(|c| ln_strip(z(u, c), z(u + 0.3, c), 0.3 * c.inverse));
        prop_assert!((strip - m.ln_interval(u, u + 0.3)).abs() < 1e-10 * (1.0 + strip.abs()));
    }
}
