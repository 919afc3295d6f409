use std::cell::Cell;

use proptest::prelude::*;

use super::*;
use crate::head::reference::{extreme, typical};

const LEVELS: [f64; 7] = [1e-6, 0.05, 0.1, 0.5, 0.9, 0.99, 1.0 - 1e-9];

fn mixture(count: usize, row: &[f32]) -> Mixture {
    let mut mixture = Mixture::new(count);
    assert!(mixture.read(row));
    mixture
}

#[test]
fn one_component_has_the_quantiles_of_a_normal() {
    for (mean, log_scale) in [(0.0_f32, 0.0_f32), (3.5, -2.0), (-1e4, 5.0), (1e4, -7.0)] {
        let m = mixture(1, &[1e30, mean, log_scale]);
        let mut solver = Solver::new(&LEVELS);
        for (u, q) in solver.quantiles(&m).iter().zip(LEVELS) {
            let expected = f64::from(mean) + quantile(q) * f64::from(log_scale).exp();
            assert!((u - expected).abs() <= 1e-11 * f64::from(log_scale).exp() + 1e-14 * expected.abs(), "{q}: {u} is not {expected}");
        }
    }
}

#[test]
fn a_narrow_component_of_little_weight_decides_a_far_quantile() {
    // 1e-9 of 1.03e-7: only the second component reaches there, and it is 160,000 times narrower than the first.
    let m = mixture(2, &[0.0, -16.087_39, -1e4, 0.0, 5.0, -7.0]);
    let u = Solver::new(&[1.0 - 1e-9]).quantiles(&m)[0];
    assert!((m.sums(u).above - 1e-9).abs() < 1e-15, "{u}: {}", m.sums(u).above);
}

#[test]
fn the_median_between_two_distant_halves_lies_between_them() {
    let m = mixture(2, &[0.0, 0.0, -1e4, 1e4, -7.0, -7.0]);
    let median = Solver::new(&[0.5]).quantiles(&m)[0];
    assert!((-1e4..=1e4).contains(&median));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_quantile_of_what_lies_below_a_gap_is_the_gap((count, row) in typical(), u in -5.0_f64..7.0) {
        let m = mixture(count, &row);
        let s = m.sums(u);
        prop_assume!(s.below > 1e-9 && s.above > 1e-9);
        let found = Solver::new(&[s.below]).quantiles(&m)[0];
        // Where hardly any density is, F says where u is only to its own rounding.
        let tolerance = 1e-9 * u.abs().max(1e-3) + 1e-15 / s.density;
        prop_assert!((found - u).abs() <= tolerance, "{found} is not {u}, off by {:e} of {tolerance:e}", found - u);
    }

    #[test]
    fn quantiles_are_ascending_and_are_quantiles_for_any_parameters((count, row) in prop_oneof![typical(), extreme()]) {
        let m = mixture(count, &row);
        let mut solver = Solver::new(&LEVELS);
        let found = solver.quantiles(&m);
        prop_assert!(found.windows(2).all(|w| w[0] <= w[1]), "{found:?}");
        for (u, q) in found.iter().zip(LEVELS) {
            prop_assert!(u.is_finite());
            let room = 1e-9 * (1e-3 + u.abs());
            prop_assert!(m.below(u - room) <= q + 1e-14 && m.below(u + room) >= q - 1e-14, "{u} is not the quantile {q}: F = {}", m.below(*u));
        }
    }

    #[test]
    fn the_bits_are_the_same_whatever_vectors_the_processor_has((count, row) in prop_oneof![typical(), extreme()], u in -40.0_f64..40.0) {
        let wide = mixture(count, &row);
        let mut narrow = Mixture::new(count);
        narrow.vectors = pulp::Arch::Scalar;
        prop_assert!(narrow.read(&row));
        let bits = |m: &Mixture| {
            let Sums { below, above, density, slope } = m.sums(u);
            let mut all = vec![below, above, density, slope, m.below(u), m.ln_interval(u, u + 0.7)];
            all.extend(Solver::new(&LEVELS).quantiles(m));
            all.into_iter().map(f64::to_bits).collect::<Vec<_>>()
        };
        prop_assert_eq!(bits(&wide), bits(&narrow));
    }
}

#[test]
fn exact_sums_are_few() {
    // A speed budget that no clock has to measure: exact sums are what a quantile costs.
    let (mut exact, mut coarse, mut solved) = (0, 0, 0);
    for seed in 0..200_u32 {
        let part = |from: f32, width: f32, salt: u32| -> Vec<f32> {
            (0..16_u32).map(|i| from + width * ((seed * 977 + i * 131 + salt * 53) % 1009) as f32 / 1009.0).collect()
        };
        let m = mixture(16, &[part(-2.0, 4.0, 1), part(-3.0, 7.0, 2), part(-1.0, 2.0, 3)].concat());
        let mut solver = Solver::new(&[0.1, 0.5, 0.9]);
        solver.quantiles(&m);
        let shape = shape(&m, &solver.sigmas);
        let mut searches: Vec<Search> = Vec::new();
        for target in &solver.targets {
            let bracket = bracket(&m, &solver.sigmas, target.z, 1e-3 * shape.narrowest);
            searches.push(Search::new(*target, bracket, shape.mean + target.z * shape.deviation));
        }
        let counted = Counted(Coarse(&solver.coarse, shape.mean), Cell::new(0));
        search(&counted, &mut searches, LAST_COARSE_STEP * shape.coarse_narrowest, COARSE_STEPS);
        coarse += counted.1.get();
        for search in &mut searches {
            *search = Search::new(search.target, search.bracket, search.u);
        }
        let counted = Counted(&m, Cell::new(0));
        search(&counted, &mut searches, LAST_STEP * shape.narrowest, STEPS);
        exact += counted.1.get();
        assert!(searches.iter().all(|search| search.done));
        solved += searches.len();
    }
    assert!(exact * 10 <= solved * 11 && coarse <= solved * 3, "{exact} exact and {coarse} coarse sums for {solved} quantiles");
}

/// Sums, and how often they were asked for.
struct Counted<S>(S, Cell<usize>);

impl<S: Summed> Summed for Counted<S> {
    fn at(&self, u: f64) -> Sums {
        self.1.set(self.1.get() + 1);
        self.0.at(u)
    }
}

impl Summed for &Mixture {
    fn at(&self, u: f64) -> Sums {
        self.sums(u)
    }
}
