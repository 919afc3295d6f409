//! The law of the next value, as training needs it: what is minimised, with its gradient, and the negative log-likelihood that is reported. Formulas
//! and the ranges that parameters are taken into are those of the served head (`head/value.rs`).

use super::baseline;
use super::history::{History, Part};
use super::loss::{LOG_SCALE, normals};
use crate::base::number::{count_of, f32_of, f64_of_count};
use crate::data::value::{ValueKind, ValueSpec};

/// A value so many scales off counts as if it were no farther, as in the served head.
const FARTHEST: f64 = 100.0;
/// The same for what is minimised: one absurd reading must not outweigh all others.
const LEARNT: f64 = 30.0;
/// Logarithms of the centre's scale, as in the served head.
const LOG: (f64, f64) = (-200.0, 200.0);
/// Smallest step between the quantiles that training starts at.
const STEP: f64 = 1e-3;

/// What a value costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// What is minimised: negative log-likelihood of z, or twice the mean pinball loss over the levels (Koenker and Bassett, "Regression Quantiles",
    /// Econometrica 1978; over many levels it becomes the continuous ranked probability score).
    pub minimised: f64,
    /// Negative log-likelihood of the value, in the field's unit.
    pub nll: f64,
}

/// Centre and ln of the scale of a row's law.
fn anchor(spec: &ValueSpec, parameters: &[f32]) -> (f64, f64) {
    match parameters {
        [.., centre, ln_scale] if spec.anchored => (f64::from(*centre), f64::from(*ln_scale).clamp(LOG.0, LOG.1)),
        _ => (spec.centre, spec.scale.ln()),
    }
}

/// The cost of a value under the parameters of one event, and the gradient of what is minimised, which is added to `gradient`. `None` where the value is
/// missing.
pub fn cost(spec: &ValueSpec, parameters: &[f32], value: f64, gradient: &mut [f32]) -> Option<Cost> {
    if !value.is_finite() {
        return None;
    }
    let (centre, ln_scale) = anchor(spec, parameters);
    let law = parameters.get(..spec.law_width())?;
    let z = ((spec.transform.apply(value) - centre) * (-ln_scale).exp()).clamp(-FARTHEST, FARTHEST);
    let near = z.clamp(-LEARNT, LEARNT);
    let components = spec.components.unwrap_or(1);
    let (minimised, of_z) = match spec.kind {
        ValueKind::Gaussian => {
            let minimised = normals(law, components, near, None, gradient);
            let unused = &mut vec![0.0; law.len()];
            (minimised, if z == near { minimised } else { normals(law, components, z, None, unused) })
        }
        ValueKind::Quantile => {
            let steps = Steps::of(law);
            (pinball(&spec.levels, &steps, near, gradient), -ln_density(&spec.levels, &steps.at, z))
        }
    };
    Some(Cost { minimised, nll: of_z + ln_scale + spec.transform.ln_stretch(value) })
}

/// Quantiles of a row.
struct Steps {
    at: Vec<f64>,
    /// Slope of each step by its parameter; that of the lowest quantile is 1.
    slopes: Vec<f64>,
}

impl Steps {
    fn of(law: &[f32]) -> Self {
        let (mut at, mut slopes, mut last) = (Vec::with_capacity(law.len()), Vec::with_capacity(law.len()), 0.0);
        for (i, parameter) in law.iter().enumerate() {
            let raw = f64::from(*parameter);
            let inside = raw.clamp(LOG_SCALE.0, LOG_SCALE.1);
            let step = if i == 0 { raw } else { inside.exp() };
            last += step;
            at.push(last);
            let free = if inside == raw { step } else { 0.0 };
            slopes.push(if i == 0 { 1.0 } else { free });
        }
        Steps { at, slopes }
    }
}

/// Twice the mean over the levels of (p - [z < q]) (z - q), and its gradient.
fn pinball(levels: &[f64], steps: &Steps, z: f64, gradient: &mut [f32]) -> f64 {
    let weight = 2.0 / f64_of_count(levels.len().max(1));
    let (mut sum, mut by_above) = (0.0, 0.0);
    // A step moves all quantiles above it: from the highest one down.
    let all = levels.iter().zip(&steps.at).zip(steps.slopes.iter().zip(gradient));
    for ((level, q), (slope, into)) in all.rev() {
        let share = if z < *q { level - 1.0 } else { *level };
        sum += weight * share * (z - q);
        by_above -= weight * share;
        *into += f32_of(by_above * slope);
    }
    sum
}

/// ln of the density at z: straight lines between the quantiles, exponential tails that go on from the outermost ones.
fn ln_density(levels: &[f64], at: &[f64], z: f64) -> f64 {
    let ends: Vec<(f64, f64)> = levels.iter().copied().zip(at.iter().copied()).collect();
    let density = |pair: &[(f64, f64)]| match pair {
        [(p0, z0), (p1, z1)] => (p1 - p0) / (z1 - z0).max(f64::MIN_POSITIVE),
        _ => f64::NAN,
    };
    let mut pieces = ends.windows(2);
    match (ends.first(), ends.last()) {
        (Some((p, q)), _) if z < *q => {
            let density = pieces.next().map_or(f64::NAN, density);
            density.ln() - (q - z) * density / p
        }
        (_, Some((p, q))) if z >= *q => {
            let density = pieces.next_back().map_or(f64::NAN, density);
            density.ln() - (z - q) * density / (1.0 - p)
        }
        _ => pieces.find(|pair| pair.last().is_some_and(|(_, q)| z < *q)).map_or(f64::NAN, |pair| density(pair).ln()),
    }
}

/// What a law without history starts training at, from the values of the train split about their centres; `anchors` gives the centre and ln of the scale
/// that an event publishes.
#[must_use]
pub fn start(spec: &ValueSpec, history: &History, anchors: &dyn Fn(usize) -> Option<(f64, f64)>) -> Vec<f32> {
    let of = |(event, value): (usize, f64)| {
        let (centre, ln_scale) = if spec.anchored { anchors(event)? } else { (spec.centre, spec.scale.ln()) };
        let z = (spec.transform.apply(value) - centre) * (-ln_scale).exp();
        z.is_finite().then(|| z.clamp(-LEARNT, LEARNT))
    };
    let mut all: Vec<f64> = history.values_of(Part::Train).filter_map(of).collect();
    match spec.kind {
        ValueKind::Gaussian => baseline::of_normals(all, spec.components.unwrap_or(1)),
        ValueKind::Quantile => {
            all.sort_by(f64::total_cmp);
            let quantile = |p: &f64| all.get(count_of(p * f64_of_count(all.len()))).copied().unwrap_or(0.0);
            let at: Vec<f64> = spec.levels.iter().map(quantile).collect();
            let steps = at.windows(2).map(|pair| if let [a, b] = pair { (b - a).max(STEP).ln() } else { 0.0 });
            at.first().copied().into_iter().chain(steps).map(f32_of).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::value::Transform;

    fn specs() -> Vec<ValueSpec> {
        let of = |kind, transform, anchored| ValueSpec {
            kind,
            field: "v".into(),
            transform,
            centre: if anchored { 0.0 } else { 0.4 },
            scale: if anchored { 1.0 } else { 1.5 },
            anchored,
            components: (kind == ValueKind::Gaussian).then_some(2),
            levels: if kind == ValueKind::Gaussian { Vec::new() } else { vec![0.1, 0.35, 0.5, 0.8] },
        };
        [
            of(ValueKind::Gaussian, Transform::Identity, false),
            of(ValueKind::Gaussian, Transform::Log1p, true),
            of(ValueKind::Quantile, Transform::Identity, true),
            of(ValueKind::Quantile, Transform::Log1p, false),
        ]
        .to_vec()
    }

    fn parameters(spec: &ValueSpec) -> Vec<f32> {
        (0..spec.width()).map(|i| ((i * 7 + 3) % 11) as f32 * 0.13 - 0.6).collect()
    }

    #[test]
    fn the_gradient_is_the_slope_of_what_is_minimised() {
        for spec in specs() {
            let parameters = parameters(&spec);
            for value in [-40.0, -3.0, -0.2, 0.05, 0.9, 2.0, 17.0, 1e5] {
                let mut gradient = vec![0f32; spec.width()];
                cost(&spec, &parameters, value, &mut gradient).unwrap();
                let unused = &mut vec![0f32; spec.width()];
                // The anchor is no output of the network.
                for i in 0..spec.law_width() {
                    let mut at = |step: f32| {
                        let mut moved = parameters.clone();
                        moved[i] += step;
                        (cost(&spec, &moved, value, unused).unwrap().minimised, f64::from(moved[i]))
                    };
                    let ((up, x1), (down, x0)) = (at(1e-3), at(-1e-3));
                    let (slope, given) = ((up - down) / (x1 - x0), f64::from(gradient[i]));
                    assert!((slope - given).abs() < 3e-4 * slope.abs().max(1.0), "{spec:?} {value} parameter {i}: {slope} is not {given}");
                }
                assert!(gradient.iter().skip(spec.law_width()).all(|slope| *slope == 0.0));
            }
        }
    }

    #[test]
    fn the_likelihood_is_that_of_the_served_head() {
        use crate::base::time::{EventTime, Gap, TimeUnit};
        use crate::data::flags::Flags;
        use crate::data::forecasts::Forecasts;
        use crate::data::law::{HeadSpec, LawSpec};
        use crate::data::outputs::Outputs;
        use crate::head::{Arrivals, Asks, Head};
        for spec in specs() {
            let head = HeadSpec::Exponential(LawSpec { value: Some(spec.clone()), ..LawSpec::new(&["law"], TimeUnit::Hour, 1e-3) });
            let mut served = Head::new(&head, Asks::default()).unwrap();
            let parameters = parameters(&spec);
            let row = [&[0.0][..], &parameters].concat();
            for value in [-1e9, -3.0, 0.05, 0.9, 2.0, 17.0, 1e5] {
                let mut into = Forecasts { flags: vec![Flags::NONE], ..Forecasts::default() };
                let arrivals = Arrivals { times: &[EventTime(0)], gaps: &[Some(Gap(1))], marks: &[None], values: &[value] };
                served.forecasts(
                    &arrivals,
                    &Outputs { width: row.len(), before: row.clone(), after: row.clone(), kept: Vec::new() },
                    &mut into,
                );
                let given = cost(&spec, &parameters, value, &mut vec![0.0; spec.width()]).unwrap().nll;
                let found = into.surprise_value[0];
                assert!((found - given).abs() < 1e-9 * given.abs().max(1.0), "{spec:?} {value}: {found} is not {given}");
            }
        }
    }

    #[test]
    fn a_missing_value_costs_nothing_and_absurd_ones_something_finite() {
        for spec in specs() {
            for fill in [-80.0f32, 0.0, 80.0] {
                let parameters = vec![fill; spec.width()];
                let mut gradient = vec![0f32; spec.width()];
                assert_eq!(cost(&spec, &parameters, f64::NAN, &mut gradient), None);
                assert!(gradient.iter().all(|slope| *slope == 0.0));
                for value in [-1e30, 0.0, 1e30] {
                    let cost = cost(&spec, &parameters, value, &mut gradient).unwrap();
                    assert!(cost.minimised.is_finite() && !cost.nll.is_nan(), "{spec:?} {fill} {value} {cost:?}");
                    assert!(gradient.iter().all(|slope| slope.is_finite()), "{spec:?} {fill} {value}");
                }
            }
        }
    }
}
