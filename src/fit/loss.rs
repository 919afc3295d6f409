//! What training minimises, per event, with its exact gradient: likelihood of the next gap and mark, or of the label.
//!
//! The arithmetic is that of the served head: f64 from f32 parameters, log scales clamped to [-7, 5], gaps floored at `min_gap`, and with a
//! `resolution` the probability of the tick instead of a density. One fused operator gives loss and gradient in one pass over the
//! parameters; candle carries the gradient on through the network.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

use super::hazard;
use super::normal::{HALF_LN_2PI, ln_between, ln_density, ln_sum_exp};
use super::value::{Cost, cost};
use crate::base::number::{f32_of, f64_of_count, index};
use crate::data::value::ValueSpec;

/// Smallest and largest log scale, as in the served head.
pub const LOG_SCALE: (f64, f64) = (-7.0, 5.0);

/// A kind of law of the next gap; parameters as in `HeadSpec`.
#[derive(Clone, Debug, PartialEq)]
pub enum LawKind {
    /// Mixture of so many log-normals.
    Mixture(usize),
    /// Constant hazard.
    Exponential,
    /// Weibull.
    Weibull,
    /// Gompertz, as RMTPP has it. While it is trained, the slope is the parameter times this number: a slope per mean gap, not per unit, or a step of
    /// the optimiser that is small for one unit would be an explosion for gaps of thousands. 1 in what is written.
    Gompertz(f64),
    /// A hazard that is constant between these gaps.
    Piecewise(Vec<f64>),
    /// A Poisson rate with a gamma law.
    GammaPoisson,
    /// Intensities of so many marks, each with one decaying excitation. Only judged, not trained.
    Hawkes(usize),
}

impl LawKind {
    /// Parameters of the time.
    #[must_use]
    pub fn width(&self) -> usize {
        match self {
            LawKind::Mixture(components) => 3 * components,
            LawKind::Exponential => 1,
            LawKind::Weibull | LawKind::Gompertz(_) | LawKind::GammaPoisson => 2,
            LawKind::Piecewise(edges) => edges.len() + 1,
            LawKind::Hawkes(marks) => 3 * marks,
        }
    }
}

/// What the outputs of the network mean.
#[derive(Clone, Debug, PartialEq)]
pub enum Objective {
    /// The law's parameters, then `marks` logits (none for a Hawkes process).
    Law {
        /// Which law.
        law: LawKind,
        /// Gaps are not taken as smaller than this, in the law's unit.
        min_gap: f64,
        /// Width of a clock tick, in the law's unit.
        resolution: Option<f64>,
        /// Number of marks; 0 without marks.
        marks: usize,
        /// The law of the value, whose parameters come last.
        value: Option<ValueSpec>,
    },
    /// One logit: that the arrived event's label is 1.
    Score,
}

/// What is known about an event's outputs: what came next, or its label.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// Gap to the key's next event, in the law's unit; NaN where there is none or it does not count.
    pub gap: f64,
    /// Mark of the next event.
    pub mark: Option<u32>,
    /// Value of the next event; NaN where it is missing.
    pub value: f64,
    /// Label of this event, 0 or 1; NaN where it is unknown or does not count.
    pub label: f64,
}

impl Target {
    /// Nothing known: a row that does not count.
    pub const NONE: Target = Target { gap: f64::NAN, mark: None, value: f64::NAN, label: f64::NAN };
}

/// Negative log-likelihood of what is known, in nats (of the value also what is minimised in its place); `None` where nothing is known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Terms {
    /// Of the next gap.
    pub time: Option<f64>,
    /// Of the next mark.
    pub mark: Option<f64>,
    /// Of the next value.
    pub value: Option<Cost>,
    /// Of the label.
    pub label: Option<f64>,
}

impl Terms {
    /// All together, as it is minimised.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.time.unwrap_or(0.0) + self.mark.unwrap_or(0.0) + self.value.map_or(0.0, |cost| cost.minimised) + self.label.unwrap_or(0.0)
    }

    /// Whether the row counts.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.time.is_some() || self.label.is_some()
    }
}

/// One mixture component at one gap.
#[derive(Clone, Copy, Debug, Default)]
struct Component {
    /// Weight logit plus log-likelihood of the gap under the component.
    joint: f64,
    /// Weight logit.
    logit: f64,
    /// Derivative of the log-likelihood by the mean.
    by_mean: f64,
    /// Derivative of the log-likelihood by the log scale.
    by_scale: f64,
}

impl Objective {
    /// Outputs per event.
    #[must_use]
    pub fn width(&self) -> usize {
        self.event_width() + self.value().map_or(0, ValueSpec::width)
    }

    /// Those of time and marks, or of the score.
    fn event_width(&self) -> usize {
        match self {
            Objective::Law { law: law @ LawKind::Hawkes(_), .. } => law.width(),
            Objective::Law { law, marks, .. } => law.width() + marks,
            Objective::Score => 1,
        }
    }

    /// The law of the value, if there is one.
    #[must_use]
    pub fn value(&self) -> Option<&ValueSpec> {
        if let Objective::Law { value, .. } = self { value.as_ref() } else { None }
    }

    /// Outputs of the network: all but the anchor of a value, which is taken from the features.
    #[must_use]
    pub fn trained_width(&self) -> usize {
        self.event_width() + self.value().map_or(0, ValueSpec::law_width)
    }

    /// Negative log-likelihood of `target` under the parameters of one event, and its gradient by them, which is added to `gradient`.
    /// Both slices have `width()` elements.
    pub fn row(&self, parameters: &[f32], target: &Target, gradient: &mut [f32]) -> Terms {
        let mut terms = Terms::default();
        match self {
            Objective::Law { law, min_gap, resolution, value, .. } => {
                if target.gap.is_nan() {
                    return terms;
                }
                let (events, of_value) = parameters.split_at(self.event_width());
                let (by_events, by_value) = gradient.split_at_mut(self.event_width());
                let (time, marks) = events.split_at(law.width());
                let (by_time, by_marks) = by_events.split_at_mut(law.width());
                let gap = target.gap.max(*min_gap);
                terms.time = match law {
                    LawKind::Mixture(components) => Some(mixture(time, *components, gap, *resolution, by_time)),
                    LawKind::Hawkes(marks) => {
                        let (loss, of_marks) = hawkes(time, *marks, gap, *resolution);
                        terms.mark = target.mark.filter(|_| *marks > 1).and_then(|mark| of_marks.get(index(mark)).copied());
                        Some(loss)
                    }
                    other => hazard::loss(other, time, gap, *resolution, by_time),
                };
                if let Some(mark) = target.mark.filter(|_| !marks.is_empty()) {
                    terms.mark = cross_entropy(marks, index(mark), by_marks);
                }
                terms.value = value.as_ref().and_then(|value| cost(value, of_value, target.value, by_value));
            }
            Objective::Score => {
                if let (Some(logit), Some(slope), false) = (parameters.first(), gradient.first_mut(), target.label.is_nan()) {
                    let logit = f64::from(*logit);
                    // ln(1 + e^-|l|) + max(l, 0) - y l: the stable form of the binary cross entropy.
                    terms.label = Some((-logit.abs()).exp().ln_1p() + logit.max(0.0) - target.label * logit);
                    *slope += f32_of(1.0 / (1.0 + (-logit).exp()) - target.label);
                }
            }
        }
        terms
    }
}

/// -ln f(gap) of a log-normal mixture (with a resolution: -ln of the tick's probability), and its gradient.
/// f(t) = sum_k w_k N(ln t; m_k, s_k) / t (Shchur, Bilos, Guennemann, "Intensity-Free Learning of Temporal Point Processes", 2020, eq. 2).
fn mixture(parameters: &[f32], components: usize, gap: f64, resolution: Option<f64>, gradient: &mut [f32]) -> f64 {
    let ln_gap = gap.ln();
    let ends = resolution.map(|width| ((gap - 0.5 * width).max(0.0).ln(), (gap + 0.5 * width).ln()));
    normals(parameters, components, ln_gap, ends, gradient) + if resolution.is_none() { ln_gap } else { 0.0 }
}

/// -ln of the density of a mixture of normals at x, or of its probability between two ends, and its gradient. Weight logits, means, log scales.
pub(super) fn normals(parameters: &[f32], components: usize, x: f64, ends: Option<(f64, f64)>, gradient: &mut [f32]) -> f64 {
    let (logits, rest) = parameters.split_at(components);
    let (means, scales) = rest.split_at(components);
    let parts: Vec<Component> = logits
        .iter()
        .zip(means.iter().zip(scales))
        .map(|(logit, (mean, scale))| {
            let (logit, mean, raw) = (f64::from(*logit), f64::from(*mean), f64::from(*scale));
            let scale = raw.clamp(LOG_SCALE.0, LOG_SCALE.1);
            let inverse = (-scale).exp();
            let free = if scale == raw { 1.0 } else { 0.0 };
            match ends {
                None => {
                    let z = (x - mean) * inverse;
                    Component {
                        joint: logit - scale - 0.5 * z * z - HALF_LN_2PI,
                        logit,
                        by_mean: z * inverse,
                        by_scale: free * (z * z - 1.0),
                    }
                }
                Some((low, high)) => {
                    let (low, high) = ((low - mean) * inverse, (high - mean) * inverse);
                    let ln_p = ln_between(low, high);
                    // Density at either end over the probability between them.
                    let at_low = if low.is_finite() { (ln_density(low) - ln_p).exp() } else { 0.0 };
                    let at_high = (ln_density(high) - ln_p).exp();
                    let low = if low.is_finite() { low } else { 0.0 };
                    Component {
                        joint: logit + ln_p,
                        logit,
                        by_mean: (at_low - at_high) * inverse,
                        by_scale: free * (low * at_low - high * at_high),
                    }
                }
            }
        })
        .collect();
    let joint = ln_sum_exp(parts.iter().map(|part| part.joint));
    let total = ln_sum_exp(parts.iter().map(|part| part.logit));
    let (by_logits, rest) = gradient.split_at_mut(components);
    let (by_means, by_scales) = rest.split_at_mut(components);
    for (part, (by_logit, (by_mean, by_scale))) in parts.iter().zip(by_logits.iter_mut().zip(by_means.iter_mut().zip(by_scales))) {
        let share = (part.joint - joint).exp();
        *by_logit += f32_of((part.logit - total).exp() - share);
        *by_mean -= f32_of(share * part.by_mean);
        *by_scale -= f32_of(share * part.by_scale);
    }
    total - joint
}

/// -ln f(gap) of a Hawkes process between two events (with a resolution: -ln of the tick's probability), and -ln of each mark's share of the intensity at
/// the gap. lambda_k = mu_k + e_k e^(-d_k gap).
fn hawkes(parameters: &[f32], marks: usize, gap: f64, resolution: Option<f64>) -> (f64, Vec<f64>) {
    let at = |i: usize| parameters.get(i).map_or(0.0, |value| f64::from(*value));
    let each = |k: usize| (at(k), at(marks + k), at(2 * marks + k));
    let compensator = |tau: f64| -> f64 {
        (0..marks).map(each).map(|(mu, e, d)| mu * tau + if d > 0.0 { e * -(-d * tau).exp_m1() / d } else { e * tau }).sum()
    };
    let intensities: Vec<f64> = (0..marks).map(each).map(|(mu, e, d)| (mu + e * (-d * gap).exp()).max(1e-300)).collect();
    let all: f64 = intensities.iter().sum();
    let loss = match resolution {
        None => compensator(gap) - all.ln(),
        Some(width) => {
            let (low, high) = (compensator((gap - 0.5 * width).max(0.0)), compensator(gap + 0.5 * width));
            low - (-(low - high).exp_m1()).max(1e-300).ln()
        }
    };
    (loss, intensities.iter().map(|own| (all / own).ln()).collect())
}

/// -ln softmax(logits)[mark] and its gradient; `None` if there is no such mark.
fn cross_entropy(logits: &[f32], mark: usize, gradient: &mut [f32]) -> Option<f64> {
    let own = f64::from(*logits.get(mark)?);
    let total = ln_sum_exp(logits.iter().map(|logit| f64::from(*logit)));
    for (i, (logit, slope)) in logits.iter().zip(gradient).enumerate() {
        let truth = if i == mark { 1.0 } else { 0.0 };
        *slope += f32_of((f64::from(*logit) - total).exp() - truth);
    }
    Some(total - own)
}

/// The mean loss over the rows that count, as an operator on `parameters` `[n, width]`: its result is a scalar.
pub struct MeanLoss {
    objective: Objective,
    targets: Vec<Target>,
    /// Gradient of the mean by the parameters, from the forward pass.
    gradient: OnceLock<Vec<f32>>,
}

impl MeanLoss {
    /// `targets` has one entry per row of the parameters.
    #[must_use]
    pub fn new(objective: Objective, targets: Vec<Target>) -> Self {
        MeanLoss { objective, targets, gradient: OnceLock::new() }
    }
}

impl CustomOp1 for MeanLoss {
    fn name(&self) -> &'static str {
        "mean_loss"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let parameters = super::contiguous(storage, layout)?;
        let width = self.objective.width();
        let mut gradient = vec![0f32; parameters.len()];
        let (mut sum, mut count) = (0.0, 0usize);
        for ((row, slope), target) in parameters.chunks_exact(width).zip(gradient.chunks_exact_mut(width)).zip(&self.targets) {
            let terms = self.objective.row(row, target, slope);
            if terms.counts() {
                sum += terms.total();
                count += 1;
            }
        }
        let mean = 1.0 / f64_of_count(count.max(1));
        gradient.iter_mut().for_each(|slope| *slope *= f32_of(mean));
        self.gradient.set(gradient).map_err(|_| candle_core::Error::Msg("a loss is computed once".to_owned()))?;
        Ok((CpuStorage::F32(vec![f32_of(sum * mean)]), Shape::from(())))
    }

    fn bwd(&self, parameters: &Tensor, _loss: &Tensor, upstream: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let gradient = self.gradient.get().ok_or_else(|| candle_core::Error::Msg("backward before forward".to_owned()))?;
        let upstream = f64::from(upstream.to_scalar::<f32>()?);
        Ok(Some(Tensor::from_slice(gradient, parameters.shape(), parameters.device())?.affine(upstream, 0.0)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::value::{Transform, ValueKind};

    fn laws() -> Vec<Objective> {
        let of = |law, min_gap, resolution, marks| Objective::Law { law, min_gap, resolution, marks, value: None };
        let mut all = vec![
            of(LawKind::Mixture(3), 0.01, None, 4),
            of(LawKind::Mixture(3), 0.01, Some(1.0), 0),
            of(LawKind::Mixture(1), 1e-6, Some(1e-3), 2),
            Objective::Score,
        ];
        let value = ValueSpec {
            kind: ValueKind::Gaussian,
            field: "v".into(),
            transform: Transform::Identity,
            centre: 1.0,
            scale: 2.0,
            anchored: false,
            components: Some(2),
            levels: Vec::new(),
        };
        all.push(Objective::Law { law: LawKind::Mixture(2), min_gap: 0.01, resolution: None, marks: 3, value: Some(value) });
        let edges = vec![0.03, 0.9, 5.0];
        for law in [
            LawKind::Exponential,
            LawKind::Weibull,
            LawKind::Gompertz(1.0),
            LawKind::Gompertz(0.3),
            LawKind::Piecewise(edges),
            LawKind::GammaPoisson,
        ] {
            all.push(of(law.clone(), 0.01, None, 2));
            all.push(of(law, 0.01, Some(0.5), 0));
        }
        all
    }

    fn parameters(objective: &Objective) -> Vec<f32> {
        (0..objective.width()).map(|i| ((i * 7 + 3) % 11) as f32 * 0.21 - 0.9).collect()
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_loss() {
        for objective in laws() {
            let parameters = parameters(&objective);
            let timed = matches!(&objective, Objective::Law { law, .. } if !matches!(law, LawKind::Mixture(_)));
            // Losses of hazards grow with the gap: beyond some gaps single precision cannot tell their slope.
            for gap in [0.0, 0.02, 0.4, 1.0, 7.0, 300.0].into_iter().filter(|gap| !timed || *gap < 10.0) {
                let target = Target { gap, mark: Some(1), label: 1.0, value: 0.7 };
                let mut gradient = vec![0f32; objective.width()];
                objective.row(&parameters, &target, &mut gradient);
                let mut unused = vec![0f32; objective.width()];
                for i in 0..parameters.len() {
                    let mut at = |step: f32| {
                        let mut moved = parameters.clone();
                        moved[i] += step;
                        (objective.row(&moved, &target, &mut unused).total(), f64::from(moved[i]))
                    };
                    let ((up, x1), (down, x0)) = (at(1e-3), at(-1e-3));
                    let slope = (up - down) / (x1 - x0);
                    let given = f64::from(gradient[i]);
                    assert!(
                        (slope - given).abs() < 2e-4 * slope.abs().max(1.0),
                        "{objective:?} gap {gap} parameter {i}: {slope} is not {given}"
                    );
                }
            }
        }
    }

    #[test]
    fn one_component_is_the_log_normal_law() {
        let objective = Objective::Law { law: LawKind::Mixture(1), min_gap: 1e-9, resolution: None, marks: 0, value: None };
        let (gap, mean, scale) = (2.5f64, 0.3f64, 0.7f64);
        let z = (gap.ln() - mean) / scale;
        let density = (-0.5 * z * z).exp() / (gap * scale * (2.0 * std::f64::consts::PI).sqrt());
        let given = objective.row(&[5.0, mean as f32, scale.ln() as f32], &Target { gap, ..Target::NONE }, &mut [0.0; 3]);
        assert!((given.time.unwrap() + density.ln()).abs() < 1e-6);
        assert_eq!(given.mark, None);
    }

    #[test]
    fn the_ticks_of_a_coarse_clock_have_probability_one_together() {
        let objective = Objective::Law { law: LawKind::Mixture(2), min_gap: 0.0, resolution: Some(1.0), marks: 0, value: None };
        let parameters = [0.3, -0.2, 1.0, 2.0, -0.5, 0.1];
        let total: f64 = (0..2000)
            .map(|day| (-objective.row(&parameters, &Target { gap: f64::from(day), ..Target::NONE }, &mut [0.0; 6]).total()).exp())
            .sum();
        assert!((total - 1.0).abs() < 1e-6, "{total}");
    }

    #[test]
    fn absurd_parameters_and_gaps_give_finite_losses() {
        for objective in laws() {
            for value in [-80.0f32, 0.0, 80.0] {
                for gap in [0.0, 1e-9, 1e9] {
                    let mut gradient = vec![0f32; objective.width()];
                    let terms = objective.row(
                        &vec![value; objective.width()],
                        &Target { gap, mark: Some(0), label: 0.0, ..Target::NONE },
                        &mut gradient,
                    );
                    assert!(terms.total().is_finite(), "{objective:?} {value} {gap}");
                    assert!(gradient.iter().all(|slope| !slope.is_nan()), "{objective:?} {value} {gap}");
                }
            }
        }
    }

    #[test]
    fn a_row_without_a_target_does_not_count() {
        for objective in laws() {
            let mut gradient = vec![0f32; objective.width()];
            assert!(!objective.row(&parameters(&objective), &Target::NONE, &mut gradient).counts());
            assert!(gradient.iter().all(|slope| *slope == 0.0));
        }
    }
}
