//! What holds for every law, whatever its parameters.

use proptest::prelude::*;
use rand::SeedableRng;
use rand::distr::{Distribution, Uniform};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::head::exponential::Exponential;
use crate::head::gamma_poisson::GammaPoisson;
use crate::head::gompertz::Gompertz;
use crate::head::hawkes::Hawkes;
use crate::head::lognormal::LogNormals;
use crate::head::piecewise::Piecewise;
use crate::head::weibull::Weibull;

/// Every kind of law, each with parameters such as training gives, drawn from `unit` numbers in 0..1.
fn laws(unit: &[f32]) -> Vec<Box<dyn Law>> {
    let between = |i: usize, low: f32, high: f32| low + (high - low) * unit[i % unit.len()];
    let mut all: Vec<(Box<dyn Law>, Vec<f32>)> = vec![
        (Box::new(Exponential::default()), vec![between(0, -5.0, 5.0)]),
        (Box::new(Weibull::default()), vec![between(1, -5.0, 5.0), between(2, -1.5, 1.5)]),
        (Box::new(Gompertz::default()), vec![between(3, -3.0, 3.0), between(4, -2.0, 2.0)]),
        (Box::new(Gompertz::default()), vec![between(5, -3.0, 3.0), 0.0]),
        (Box::new(Piecewise::new(&[0.5, 1.0, 4.0])), (0..4).map(|i| between(6 + i, -3.0, 2.0)).collect()),
        (Box::new(GammaPoisson::default()), vec![between(10, -1.0, 4.0), between(11, -4.0, 4.0)]),
        (Box::new(LogNormals::new(2, &[0.1, 0.5, 0.9])), vec![0.3, -0.3, between(12, -2.0, 2.0), between(13, -2.0, 2.0), -0.5, 0.4]),
    ];
    // Two marks with two decays each; one mark that is inhibited; one that dies out.
    let own: Vec<f32> = (0..10).map(|i| between(14 + i, 0.05, 3.0)).collect();
    all.push((Box::new(Hawkes::new(2, 2)), own));
    all.push((Box::new(Hawkes::new(1, 1)), vec![1.0, -between(15, 0.0, 1.0), between(16, 0.1, 3.0)]));
    all.push((Box::new(Hawkes::new(1, 1)), vec![0.0, between(17, 0.1, 3.0), between(18, 0.1, 3.0)]));
    all.into_iter()
        .map(|(mut law, row)| {
            assert_eq!(law.width(), row.len(), "{law:?}");
            assert!(law.read(&row), "{law:?} {row:?}");
            law
        })
        .collect()
}

fn near(found: f64, expected: f64, relative: f64) -> bool {
    (found - expected).abs() <= relative * expected.abs().max(1e-9)
}

/// Integral by Simpson's rule over even steps: so many that the steepest of these laws, a Weibull of shape 4.5 far beyond its scale, keeps six digits.
fn simpson(f: impl Fn(f64) -> f64, from: f64, to: f64) -> f64 {
    let steps = 4000;
    let h = (to - from) / f64::from(steps);
    let inner: f64 = (1..steps).map(|i| f(from + h * f64::from(i)) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
    (f(from) + inner + f(to)) * h / 3.0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn survival_is_one_at_zero_and_falls_and_nothing_is_nan(unit in prop::collection::vec(0.0_f32..1.0, 24)) {
        for law in laws(&unit) {
            prop_assert_eq!(law.compensator(Time::of(0.0)), 0.0);
            prop_assert_eq!(law.below(Time::of(0.0)), 0.0);
            let mut last = 0.0;
            for i in -60..120 {
                let time = Time::of(1.3_f64.powi(i));
                let point = law.at(time);
                prop_assert!(point.compensator >= last * (1.0 - 1e-12) && point.compensator.is_finite(), "{:?} at {}", law, time.tau);
                prop_assert!(point.ln_density.is_finite() && law.hazard(time).is_finite() && law.hazard(time) >= 0.0);
                prop_assert!((0.0..=1.0).contains(&law.below(time)));
                last = point.compensator;
            }
            prop_assert!((0.0..=1.0).contains(&law.p_never()));
            prop_assert!(last <= law.total() * (1.0 + 1e-9) , "{:?}: {} above {}", law, last, law.total());
        }
    }

    #[test]
    fn the_compensator_is_the_integral_of_the_hazard_and_the_interval_that_of_the_density(unit in prop::collection::vec(0.0_f32..1.0, 24)) {
        for law in laws(&unit) {
            // Bins have steps at 0.5, 1 and 4: none inside.
            for (from, to) in [(0.1, 0.45), (0.55, 0.95), (1.05, 3.5), (4.1, 6.0)] {
                let rise = law.compensator(Time::of(to)) - law.compensator(Time::of(from));
                let area = simpson(|tau| law.ln_hazard(Time::of(tau)).exp(), from, to);
                prop_assert!((rise - area).abs() <= 1e-6 * area.max(1e-3), "{:?} in {}..{}: {} is not {}", law, from, to, rise, area);
                let interval = law.ln_interval(Time::of(from), Time::of(to)).exp();
                let mass = simpson(|tau| law.at(Time::of(tau)).ln_density.exp(), from, to);
                prop_assert!((interval - mass).abs() <= 1e-6 * mass.max(1e-3), "{:?} in {}..{}: {} is not {}", law, from, to, interval, mass);
                let below = law.below(Time::of(to)) - law.below(Time::of(from));
                prop_assert!((below - mass).abs() <= 1e-6 * mass.max(1e-3));
            }
        }
    }

    #[test]
    fn the_gap_of_a_compensator_is_found_again(unit in prop::collection::vec(0.0_f32..1.0, 24), target in 1e-6_f64..30.0) {
        for law in laws(&unit) {
            let tau = law.when(target);
            if target < law.total() {
                prop_assert!(tau.is_finite() && near(law.compensator(Time::of(tau)), target, 1e-9), "{:?}: {} gives {}", law, target, tau);
            } else {
                prop_assert_eq!(tau, f64::INFINITY);
            }
            prop_assert_eq!(law.when(0.0), 0.0);
        }
    }

    #[test]
    fn quantiles_do_not_fall_and_are_never_exactly_where_the_law_dies_out(unit in prop::collection::vec(0.0_f32..1.0, 24)) {
        for mut law in laws(&unit) {
            let targets = [0.1_f64, 0.5, 0.9].map(|q| -(-q).ln_1p());
            let mut found = Vec::new();
            law.quantiles(&targets, &mut found);
            prop_assert!(found.is_sorted() && found.len() == 3);
            for (tau, target) in found.iter().zip(targets) {
                if tau.is_finite() {
                    prop_assert!(near(law.compensator(Time::of(*tau)), target, 1e-9), "{:?}", law);
                } else {
                    prop_assert!((-target).exp() <= law.p_never() * (1.0 + 1e-12));
                }
            }
        }
    }

    #[test]
    fn parameters_of_any_size_give_numbers_or_are_refused(row in prop::collection::vec(
        prop_oneof![Just(f32::MAX), Just(f32::MIN), Just(0.0_f32), Just(1e30_f32), Just(-1e30_f32), Just(1e-40_f32), -50.0_f32..50.0], 12
    )) {
        for mut law in laws(&[0.5]) {
            let width = law.width();
            if !law.read(&row[..width]) {
                continue;
            }
            for tau in [1e-12, 1e-3, 1.0, 1e3, 1e12] {
                let (time, later) = (Time::of(tau), Time::of(tau * 1.5));
                let point = law.at(time);
                prop_assert!(point.ln_density.is_finite() && point.compensator.is_finite() && point.compensator >= 0.0, "{:?} at {}", law, tau);
                prop_assert!(law.ln_interval(time, later).is_finite() && law.ln_interval(time, later) <= 0.0, "{:?} at {}", law, tau);
                prop_assert!(law.hazard(time) >= 0.0 && law.hazard(time).is_finite() && (0.0..=1.0).contains(&law.below(time)));
            }
            let mut quantiles = Vec::new();
            law.quantiles(&[0.1, 0.7, 2.3], &mut quantiles);
            prop_assert!(quantiles.is_sorted() && quantiles.iter().all(|tau| *tau >= 0.0), "{:?}: {:?}", law, quantiles);
            prop_assert!((0.0..=1.0).contains(&law.p_never()));
        }
    }
}

#[test]
fn samples_of_each_law_pass_ks_against_its_survival() {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let uniform = Uniform::new(0.0_f64, 1.0).unwrap();
    for law in laws(&[0.2, 0.9, 0.4, 0.7, 0.6]) {
        // By thinning (Lewis and Shedler 1979; Ogata 1981): candidates of the hazard's largest value in steps of a hundredth, which shares nothing
        // with the inverse of the compensator.
        let mut gaps: Vec<f64> = Vec::new();
        let (mut tried, step) = (0, 0.01_f64);
        while tried < 4000 {
            tried += 1;
            let found = (0..300).find_map(|i| {
                let (mut tau, end) = (step * f64::from(i), step * f64::from(i + 1));
                let bound =
                    (0..=4).map(|j| law.hazard(Time::of((end - step * f64::from(j) / 4.0).max(1e-9)))).fold(0.0, f64::max) * 1.2 + 1e-9;
                loop {
                    tau += -uniform.sample(&mut random).ln() / bound;
                    if tau >= end {
                        return None;
                    }
                    if uniform.sample(&mut random) * bound <= law.hazard(Time::of(tau)) {
                        return Some(tau);
                    }
                }
            });
            gaps.push(found.unwrap_or(f64::INFINITY));
        }
        // Beyond 3 all are "later": the largest distance is looked for below.
        let off = distance(&*law, gaps);
        assert!(off < 1.95 / f64::from(tried).sqrt(), "{law:?}: {off}");
    }
}

/// Largest distance between the law of gaps, infinite ones among them, and what the law says; 1.95 / sqrt n is passed by 1 in 1000.
fn distance(law: &dyn Law, mut gaps: Vec<f64>) -> f64 {
    gaps.sort_by(f64::total_cmp);
    let n = gaps.len() as f64;
    gaps.iter().enumerate().filter(|(_, tau)| tau.is_finite()).fold(0.0_f64, |d, (i, tau)| {
        let f = law.below(Time::of(*tau));
        d.max((f - i as f64 / n).abs()).max((f - (i + 1) as f64 / n).abs())
    })
}

#[test]
fn drawn_gaps_of_each_law_pass_ks_against_its_survival() {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let uniform = Uniform::new(0.0_f64, 1.0).unwrap();
    for law in laws(&[0.2, 0.9, 0.4, 0.7, 0.6]) {
        let gaps: Vec<f64> = (0..8000).map(|_| law.sample(&mut || uniform.sample(&mut random))).collect();
        let never = gaps.iter().filter(|tau| tau.is_infinite()).count() as f64 / 8000.0;
        assert!((never - law.p_never()).abs() < 0.02, "{law:?}: {never}");
        let off = distance(&*law, gaps);
        assert!(off < 1.95 / 8000_f64.sqrt(), "{law:?}: {off}");
    }
}

#[test]
fn the_closed_forms_have_the_values_of_their_formulas() {
    let read = |mut law: Box<dyn Law>, row: &[f32]| {
        assert!(law.read(row));
        law
    };
    let at = Time::of(2.0);
    let exponential = read(Box::<Exponential>::default(), &[0.5]);
    assert!(
        near(exponential.compensator(at), 2.0 * 0.5_f64.exp(), 1e-15)
            && near(exponential.at(at).ln_density, 0.5 - 2.0 * 0.5_f64.exp(), 1e-15)
    );
    let weibull = read(Box::<Weibull>::default(), &[0.5, 0.25]);
    let (s, k) = (0.5_f64.exp(), 0.25_f64.exp());
    assert!(near(weibull.compensator(at), (2.0 / s).powf(k), 1e-14));
    assert!(near(weibull.hazard(at), k / s * (2.0 / s).powf(k - 1.0), 1e-14));
    let gompertz = read(Box::<Gompertz>::default(), &[0.5, -0.25]);
    assert!(near(gompertz.compensator(at), 0.5_f64.exp() * (1.0 - (-0.5_f64).exp()) / 0.25, 1e-14));
    assert!(near(gompertz.p_never(), (-(0.5_f64.exp()) / 0.25).exp(), 1e-14));
    let piecewise = read(Box::new(Piecewise::new(&[0.5, 1.5])), &[0.0, 1.0, -1.0]);
    assert_eq!(
        (piecewise.ln_hazard(Time::of(0.5)), piecewise.ln_hazard(Time::of(1.5))),
        (0.0, 1.0),
        "an edge belongs to the bin that it ends"
    );
    assert_eq!((piecewise.ln_hazard(Time::of(0.0)), piecewise.ln_hazard(Time::of(1.500_001))), (0.0, -1.0));
    assert!(near(piecewise.compensator(at), 0.5 + 1.0_f64.exp() + 0.5 * (-1.0_f64).exp(), 1e-15));
    let gamma = read(Box::<GammaPoisson>::default(), &[1.0, 0.5]);
    assert!(near(gamma.below(at), 1.0 - (1.0 + 2.0 / 0.5_f64.exp()).powf(-(1.0_f64.exp())), 1e-14));
    let hawkes = read(Box::new(Hawkes::new(1, 1)), &[0.5, 0.75, 0.5]);
    assert!(near(hawkes.compensator(at), 1.0 + 0.75 / 0.5 * (1.0 - (-1.0_f64).exp()), 1e-15));
    let mut intensities = Vec::new();
    let two = read(Box::new(Hawkes::new(2, 1)), &[0.5, 0.25, 1.0, 2.0, 0.5, 0.25]);
    assert!(two.intensities(at, &mut intensities));
    assert!(near(intensities[0], 0.5 + (-1.0_f64).exp(), 1e-15) && near(intensities[1], 0.25 + 2.0 * (-0.5_f64).exp(), 1e-15));
}

#[test]
fn intensities_below_zero_are_refused() {
    for row in [[-0.1, 1.0, 1.0], [0.5, -0.6, 1.0], [0.5, 1.0, -1.0], [f32::NAN, 1.0, 1.0], [0.5, f32::INFINITY, 1.0]] {
        assert!(!Hawkes::new(1, 1).read(&row), "{row:?}");
    }
    assert!(Hawkes::new(1, 1).read(&[0.5, -0.5, 1.0]));
}
