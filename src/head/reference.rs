//! The slow, obvious mixture that the tests compare with, and the parameters they try.

use proptest::prelude::*;

/// 1 - Phi(z): a power series in the middle, a continued fraction in the tail, the C library's exponential.
pub(super) fn above(z: f64) -> f64 {
    let density = (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
    if z < 0.0 {
        1.0 - above(-z)
    } else if z < 2.5 {
        let (mut term, mut sum) = (z, z);
        for n in 1..100 {
            term *= z * z / f64::from(2 * n + 1);
            sum += term;
        }
        0.5 - density * sum
    } else {
        density / (1..400).rev().fold(z, |rest, n| z + f64::from(n) / rest)
    }
}

/// Components as (weight, mean, sigma).
pub(super) struct Reference(pub(super) Vec<(f64, f64, f64)>);

impl Reference {
    pub(super) fn new(row: &[f32], count: usize) -> Self {
        let number = |i: usize| f64::from(row[i]);
        let highest = (0..count).map(number).fold(f64::MIN, f64::max);
        let sum: f64 = (0..count).map(|i| (number(i) - highest).exp()).sum();
        Reference(
            (0..count)
                .map(|i| ((number(i) - highest).exp() / sum, number(count + i), number(2 * count + i).clamp(-7.0, 5.0).exp()))
                .collect(),
        )
    }

    pub(super) fn below(&self, u: f64) -> f64 {
        self.0.iter().map(|(w, mu, sigma)| w * above((mu - u) / sigma)).sum()
    }

    pub(super) fn above(&self, u: f64) -> f64 {
        self.0.iter().map(|(w, mu, sigma)| w * above((u - mu) / sigma)).sum()
    }

    pub(super) fn density(&self, u: f64) -> f64 {
        let normal = |z: f64| (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
        self.0.iter().map(|(w, mu, sigma)| w * normal((u - mu) / sigma) / sigma).sum()
    }

    pub(super) fn slope(&self, u: f64) -> f64 {
        let normal = |z: f64| (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
        self.0.iter().map(|(w, mu, sigma)| -w * (u - mu) * normal((u - mu) / sigma) / sigma.powi(3)).sum()
    }
}

fn rows(
    logit: impl Strategy<Value = f32> + Clone,
    mean: impl Strategy<Value = f32> + Clone,
    scale: impl Strategy<Value = f32> + Clone,
) -> impl Strategy<Value = (usize, Vec<f32>)> {
    (1_usize..=20).prop_flat_map(move |count| {
        let part = (
            prop::collection::vec(logit.clone(), count),
            prop::collection::vec(mean.clone(), count),
            prop::collection::vec(scale.clone(), count),
        );
        part.prop_map(move |(logits, means, scales)| (count, [logits, means, scales].concat()))
    })
}

/// Parameters such as training gives.
pub(super) fn typical() -> impl Strategy<Value = (usize, Vec<f32>)> {
    rows(-5.0_f32..5.0, -4.0_f32..6.0, -1.5_f32..1.5)
}

/// Parameters such as training must not give: far apart, at the clamps and beyond, equal, dominated by one.
pub(super) fn extreme() -> impl Strategy<Value = (usize, Vec<f32>)> {
    let logit = prop_oneof![Just(0.0_f32), Just(1e30), Just(-1e30), Just(f32::MAX), Just(f32::MIN), -30.0_f32..30.0];
    let mean = prop_oneof![Just(0.0_f32), Just(1e4), Just(-1e4), Just(f32::MAX), Just(f32::MIN), -20.0_f32..20.0];
    let scale = prop_oneof![Just(-7.0_f32), Just(5.0), Just(-1e9), Just(1e9), Just(0.0), -8.0_f32..6.0];
    rows(logit, mean, scale)
}
