//! The law of the next event's value: a mixture of normals, or quantiles with straight lines between them, of z = (t(value) - centre) / scale.
//!
//! Quantiles: F is linear between neighbours (its density there their levels' difference over their distance), and falls off exponentially
//! outside, where the density goes on from that of the outermost piece: below the lowest quantile q of level p, F(z) = p e^((z - q) / b) with
//! b = p / density. So every value has a surprise.

use super::elementary::{exp, ln};
use super::law::{LOG, finite, logarithm};
use super::mixture::Mixture;
use super::solve::Solver;
use crate::data::value::{Transform, ValueKind, ValueSpec};

/// Beyond this many scales from the centre everything is equally far: tails of squares would make one absurd reading, the first after a thousand that were all 0,
/// outweigh every other in any mean.
const FARTHEST: f64 = 100.0;
/// Logarithms of steps between quantiles, as those of scales of a mixture.
const LOG_STEP: (f64, f64) = (-7.0, 5.0);

/// How surprising a value was, and which share of the law lay below it; NaN stands for null.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrived {
    pub(super) surprise: f64,
    pub(super) below: f64,
}

/// Nothing to say.
pub(super) const NO_VALUE: Arrived = Arrived { surprise: f64::NAN, below: f64::NAN };

/// The law of one row; its memory is used again for the next.
#[derive(Debug)]
pub(super) struct ValueLaw {
    width: usize,
    transform: Transform,
    anchored: bool,
    centre: f64,
    ln_scale: f64,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Gaussian(Mixture, Solver),
    Quantile(Steps),
}

/// Straight lines between quantiles.
#[derive(Debug)]
struct Steps {
    levels: Vec<f64>,
    /// z of each level.
    at: Vec<f64>,
    asked: Vec<f64>,
}

impl ValueLaw {
    /// For a checked package and these quantiles.
    pub(super) fn new(spec: &ValueSpec, quantiles: &[f64]) -> Self {
        let form = match spec.kind {
            ValueKind::Gaussian => Form::Gaussian(Mixture::new(spec.components.unwrap_or(1)), Solver::new(quantiles)),
            ValueKind::Quantile => {
                Form::Quantile(Steps { levels: spec.levels.clone(), at: vec![0.0; spec.levels.len()], asked: quantiles.to_vec() })
            }
        };
        ValueLaw {
            width: spec.width(),
            transform: spec.transform,
            anchored: spec.anchored,
            centre: spec.centre,
            ln_scale: ln(spec.scale),
            form,
        }
    }

    /// Floats of a row, at its end.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Takes the parameters of a row of that width. `false`, and the law is not to be used, if one is not finite.
    pub(super) fn read(&mut self, row: &[f32]) -> bool {
        if row.len() != self.width || !row.iter().all(|value| value.is_finite()) {
            return false;
        }
        let law = match (self.anchored, row) {
            (true, [law @ .., centre, ln_scale]) => {
                (self.centre, self.ln_scale) = (f64::from(*centre), logarithm(*ln_scale));
                law
            }
            (_, law) => law,
        };
        match &mut self.form {
            Form::Gaussian(mixture, _) => mixture.read(law),
            Form::Quantile(steps) => {
                let mut last = 0.0;
                for (i, (at, value)) in steps.at.iter_mut().zip(law).enumerate() {
                    let value = f64::from(*value);
                    last = if i == 0 { value } else { last + exp(value.clamp(LOG_STEP.0, LOG_STEP.1)) };
                    *at = last;
                }
                true
            }
        }
    }

    /// -ln of the density at a value, in the field's unit, and the law's share below it. A value that is not finite counts as missing.
    pub(super) fn arrived(&self, value: f64) -> Arrived {
        if !value.is_finite() {
            return NO_VALUE;
        }
        let z = (self.transform.apply(value) - self.centre) * exp(-self.ln_scale);
        let z = z.clamp(-FARTHEST, FARTHEST);
        let (ln_density, below) = match &self.form {
            Form::Gaussian(mixture, _) => {
                let sums = mixture.sums(z);
                (mixture.ln_density(&sums, z), sums.below)
            }
            Form::Quantile(steps) => steps.at(z),
        };
        let surprise = finite(self.ln_scale + self.transform.ln_stretch(value) - ln_density);
        Arrived { surprise, below: below.clamp(f64::MIN_POSITIVE, 1.0 - f64::EPSILON) }
    }

    /// Appends the value of each quantile to its column; NaN beyond all numbers.
    pub(super) fn quantiles(&mut self, into: &mut [Vec<f64>]) {
        let (transform, centre, scale) = (self.transform, self.centre, exp(self.ln_scale.min(LOG.1)));
        let push = |z: f64, column: &mut Vec<f64>| {
            let value = transform.invert(centre + scale * z);
            column.push(if value.is_finite() { value } else { f64::NAN });
        };
        match &mut self.form {
            Form::Gaussian(mixture, solver) => {
                into.iter_mut().zip(solver.quantiles(mixture)).for_each(|(column, z)| push(*z, column));
            }
            Form::Quantile(steps) => into.iter_mut().zip(&steps.asked).for_each(|(column, p)| push(steps.when(*p), column)),
        }
    }
}

impl Steps {
    /// The piece (levels and places of its ends) after the `place`-th quantile, the nearest one there is.
    fn piece(&self, place: usize) -> Option<[(f64, f64); 2]> {
        let place = place.clamp(1, self.at.len().saturating_sub(1).max(1));
        let end = |i: usize| self.levels.get(i).copied().zip(self.at.get(i).copied());
        Some([end(place - 1)?, end(place)?])
    }

    /// ln of the density, and F.
    fn at(&self, z: f64) -> (f64, f64) {
        let place = self.at.partition_point(|at| *at <= z);
        let Some([(p0, z0), (p1, z1)]) = self.piece(place) else { return (f64::MIN, f64::NAN) };
        // Steps may vanish beside large numbers.
        let density = (p1 - p0) / (z1 - z0).max(f64::MIN_POSITIVE);
        if place == 0 {
            let fall = (z0 - z) * density / p0;
            (ln(density) - fall, p0 * exp(-fall))
        } else if place == self.at.len() {
            let fall = (z - z1) * density / (1.0 - p1);
            (ln(density) - fall, 1.0 - (1.0 - p1) * exp(-fall))
        } else {
            (ln(density), p0 + (z - z0) * density)
        }
    }

    /// The z with F(z) = p.
    fn when(&self, p: f64) -> f64 {
        let place = self.levels.partition_point(|level| *level <= p);
        let Some([(p0, z0), (p1, z1)]) = self.piece(place) else { return f64::NAN };
        let per_level = (z1 - z0) / (p1 - p0);
        if place == 0 {
            z0 + p0 * per_level * ln(p / p0)
        } else if place == self.at.len() {
            z1 - (1.0 - p1) * per_level * ln((1.0 - p) / (1.0 - p1))
        } else {
            z0 + (p - p0) * per_level
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ASKED: [f64; 5] = [0.001, 0.1, 0.5, 0.9, 0.995];

    fn spec(kind: ValueKind, transform: Transform, anchored: bool) -> ValueSpec {
        let gaussian = kind == ValueKind::Gaussian;
        let constants = if anchored { (0.0, 1.0) } else { (3.0, 2.0) };
        ValueSpec {
            kind,
            field: "v".to_owned(),
            transform,
            centre: constants.0,
            scale: constants.1,
            anchored,
            components: gaussian.then_some(2),
            levels: if gaussian { Vec::new() } else { vec![0.05, 0.3, 0.5, 0.9] },
        }
    }

    fn specs() -> Vec<ValueSpec> {
        let both =
            |kind| [Transform::Identity, Transform::Log1p].map(|transform| [spec(kind, transform, false), spec(kind, transform, true)]);
        [ValueKind::Gaussian, ValueKind::Quantile].into_iter().flat_map(both).flatten().collect()
    }

    /// The law of a row, and its quantiles.
    fn law(spec: &ValueSpec, row: &[f32]) -> (ValueLaw, Vec<f64>) {
        let mut law = ValueLaw::new(spec, &ASKED);
        assert!(law.read(row));
        let mut columns = vec![Vec::new(); ASKED.len()];
        law.quantiles(&mut columns);
        (law, columns.concat())
    }

    #[test]
    fn one_normal_is_the_normal_law_in_the_unit_of_the_field() {
        let spec = ValueSpec { components: Some(1), ..spec(ValueKind::Gaussian, Transform::Identity, false) };
        let (law, quantiles) = law(&spec, &[7.0, 0.5, 0.0]);
        // z has mean 0.5 and deviation 1, so the value 4 and 2.
        let arrived = law.arrived(6.0);
        let density = (-0.5_f64).exp() / (2.0 * (2.0 * std::f64::consts::PI).sqrt());
        assert!((arrived.surprise + density.ln()).abs() < 1e-12 && (arrived.below - 0.841_344_746_068_543).abs() < 1e-12, "{arrived:?}");
        assert!((quantiles[2] - 4.0).abs() < 1e-9 && (quantiles[3] - 4.0 - 2.0 * 1.281_551_565_544_6).abs() < 1e-9, "{quantiles:?}");
    }

    #[test]
    fn what_is_missing_or_no_number_has_no_surprise_and_absurd_values_have_a_finite_one() {
        for spec in specs() {
            let (law, _) = law(&spec, &vec![0.25; spec.width()]);
            for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                let arrived = law.arrived(value);
                assert!(arrived.surprise.is_nan() && arrived.below.is_nan());
            }
            for value in [f64::MAX, f64::MIN, 1e30, -1e30] {
                let arrived = law.arrived(value);
                assert!(arrived.surprise.is_finite() && arrived.below > 0.0 && arrived.below < 1.0, "{spec:?} {value} {arrived:?}");
            }
            let mut law = ValueLaw::new(&spec, &[]);
            assert!(!law.read(&vec![f32::NAN; spec.width()]) && !law.read(&[]));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn quantiles_rise_and_the_law_gives_them_their_levels(row in prop::collection::vec(-2.0f32..2.0, 8)) {
            for spec in specs() {
                let (law, quantiles) = law(&spec, &row[..spec.width()]);
                prop_assert!(quantiles.windows(2).all(|pair| pair[0] <= pair[1]), "{:?} {:?}", spec, quantiles);
                for (p, value) in ASKED.iter().zip(&quantiles) {
                    let below = law.arrived(*value).below;
                    prop_assert!((below - p).abs() < 1e-6, "{:?} {}: {}", spec, p, below);
                }
            }
        }

        #[test]
        fn the_density_integrates_to_the_share_below(row in prop::collection::vec(-1.0f32..1.0, 8)) {
            for spec in specs() {
                let (law, quantiles) = law(&spec, &row[..spec.width()]);
                // Even steps of t(v): in even steps of v a few would hold everything.
                let (from, to) = (spec.transform.apply(quantiles[0]), spec.transform.apply(quantiles[4]));
                const STEPS: usize = 4_000;
                let at = |i: f64| spec.transform.invert(from + i * (to - from) / STEPS as f64);
                let part = |i: f64| (-law.arrived(at(i + 0.5)).surprise).exp() * (at(i + 1.0) - at(i));
                let sum: f64 = (0..STEPS).map(|i| part(i as f64)).sum();
                prop_assert!((sum - 0.994).abs() < 2e-3, "{:?}: {}", spec, sum);
            }
        }
    }
}
