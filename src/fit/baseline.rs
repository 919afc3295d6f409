//! What a model has to beat, from the train split alone: the constant-rate law, the mixture that knows no history, and frequencies. The
//! mixture and the frequencies are also where training starts.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::hazard;
use super::history::{History, Part};
use super::intensity::Decaying;
use super::loss::{LawKind, Objective, Target};
use super::normal::{HALF_LN_2PI, ln_sum_exp};
use super::value;
use crate::base::number::{f32_of, f64_of_count, index};

/// Most gaps the mixture is fitted to; a longer history is thinned evenly.
const MOST_GAPS: usize = 50_000;
/// Components of the mixture beside a law that is none.
const COMPONENTS: usize = 16;
/// Passes of expectation maximisation.
const PASSES: usize = 80;
/// Narrowest component that training starts from, in ln(gap): a few per cent of the gap. From narrower ones it would not find out again.
const NARROWEST: f64 = 0.03;
/// Narrowest component of the reference, as narrow as a law can be: where gaps repeat, what is compared with it is as narrow as it can be too.
const NARROWEST_LAW: f64 = 0.000_911_882; // e^-7, see `loss::LOG_SCALE`

/// Laws and frequencies that use no history.
#[derive(Clone, Debug, PartialEq)]
pub struct Baseline {
    objective: Objective,
    /// Events per unit of time.
    rate: f64,
    /// Parameters of the mixture that is the reference, 3K.
    mixture: Vec<f32>,
    /// Parameters of the law that training starts at.
    start: Vec<f32>,
    /// Parameters of the law of the value, without its anchor.
    value: Vec<f32>,
    /// ln of the smoothed frequency of each mark.
    marks: Vec<f64>,
    /// Share of positive labels.
    share: f64,
}

impl Baseline {
    /// Fits all to the train split. `anchors` gives centre and ln of the scale of the value's law that an event publishes.
    #[must_use]
    pub fn fit(history: &History, objective: &Objective, anchors: &dyn Fn(usize) -> Option<(f64, f64)>, seed: u64) -> Self {
        let mut baseline = Baseline {
            objective: objective.clone(),
            rate: 1.0,
            mixture: Vec::new(),
            start: Vec::new(),
            value: Vec::new(),
            marks: Vec::new(),
            share: 0.5,
        };
        match objective {
            Objective::Law { law, min_gap, resolution, marks, value } => {
                baseline.value = value.as_ref().map(|value| value::start(value, history, anchors)).unwrap_or_default();
                let components = if let LawKind::Mixture(components) = law { *components } else { COMPONENTS };
                let (min_gap, resolution, marks) = (*min_gap, *resolution, *marks);
                let gaps: Vec<f64> = history.gaps_of(Part::Train).map(|gap| gap.max(min_gap)).collect();
                baseline.rate = f64_of_count(gaps.len().max(1)) / gaps.iter().sum::<f64>().max(f64::MIN_POSITIVE);
                let (begun, narrowed) = mixture(&gaps, components, resolution, seed);
                baseline.mixture = narrowed;
                baseline.start = match law {
                    LawKind::Mixture(_) => begun,
                    // An event of the tick that begins with the gap has, on average, seen half of it.
                    other => hazard::start(other, &gaps.iter().map(|gap| gap.max(0.25 * resolution.unwrap_or(0.0))).collect::<Vec<f64>>()),
                };
                let mut counts = vec![0.5; marks];
                for mark in history.marks_of(Part::Train) {
                    if let Some(count) = counts.get_mut(index(mark)) {
                        *count += 1.0;
                    }
                }
                let total: f64 = counts.iter().sum();
                baseline.marks = counts.iter().map(|count| (count / total).ln()).collect();
            }
            Objective::Score => {
                let (mut positive, mut all) = (0.5, 1.0);
                for label in history.labels_of(Part::Train) {
                    positive += label;
                    all += 1.0;
                }
                baseline.share = positive / all;
            }
        }
        baseline
    }

    /// Outputs of a network that ignores its input: where training starts. Of a law of intensities, the bias of their readout.
    #[must_use]
    pub fn bias(&self) -> Vec<f32> {
        match self.objective {
            Objective::Law { law: LawKind::Intensity { .. }, .. } if self.marks.is_empty() => Decaying::bias(std::iter::once(1.0)),
            Objective::Law { law: LawKind::Intensity { .. }, .. } => Decaying::bias(self.marks.iter().map(|ln| ln.exp())),
            Objective::Law { .. } => {
                let marks = self.marks.iter().map(|ln| f32_of(*ln));
                self.start.iter().copied().chain(marks).chain(self.value.iter().copied()).collect()
            }
            Objective::Score => vec![f32_of((self.share / (1.0 - self.share)).ln())],
        }
    }

    /// -ln of the constant-rate law at a gap: rate e^(-rate t), or the probability of the tick.
    #[must_use]
    pub fn constant_rate(&self, gap: f64) -> f64 {
        let Objective::Law { min_gap, resolution, .. } = self.objective else { return f64::NAN };
        let gap = gap.max(min_gap);
        match resolution {
            None => self.rate * gap - self.rate.ln(),
            Some(width) => {
                let low = (gap - 0.5 * width).max(0.0);
                self.rate * low - (-(-self.rate * (gap + 0.5 * width - low)).exp_m1()).ln()
            }
        }
    }

    /// -ln of the mixture without history at a gap.
    #[must_use]
    pub fn history_free(&self, gap: f64) -> f64 {
        let Objective::Law { min_gap, resolution, .. } = self.objective else { return f64::NAN };
        let law = Objective::Law { law: LawKind::Mixture(self.mixture.len() / 3), min_gap, resolution, marks: 0, value: None };
        let mut slope = vec![0f32; law.width()];
        law.row(&self.mixture, &Target { gap, ..Target::NONE }, &mut slope).total()
    }

    /// -ln of the law of the value without history at a value; `row` are the outputs of the event before it, of which it takes the anchor. NaN without a value.
    #[must_use]
    pub fn value(&self, value: f64, row: &[f32]) -> f64 {
        let Some(spec) = self.objective.value() else { return f64::NAN };
        let anchor = row.get(row.len().saturating_sub(spec.width() - spec.law_width())..).unwrap_or_default();
        let parameters = [&self.value, anchor].concat();
        value::cost(spec, &parameters, value, &mut vec![0.0; spec.width()]).map_or(f64::NAN, |cost| cost.nll)
    }

    /// -ln of the frequency of a mark; NaN for one that is not known.
    #[must_use]
    pub fn mark(&self, mark: u32) -> f64 {
        self.marks.get(index(mark)).map_or(f64::NAN, |ln| -ln)
    }

    /// -ln of the share of the label.
    #[must_use]
    pub fn label(&self, label: f64) -> f64 {
        -(label * self.share.ln() + (1.0 - label) * (1.0 - self.share).ln())
    }
}

#[derive(Clone, Copy, Debug)]
struct Component {
    ln_weight: f64,
    mean: f64,
    scale: f64,
}

impl Component {
    fn joint(&self, x: f64) -> f64 {
        let z = (x - self.mean) / self.scale;
        self.ln_weight - self.scale.ln() - 0.5 * z * z - HALF_LN_2PI
    }
}

/// Expectation maximisation for a mixture of normals of ln(gap), started at slices of the sorted gaps: to start training from, and as the reference. Gaps of a
/// coarse clock are first spread evenly over their tick.
fn mixture(gaps: &[f64], components: usize, resolution: Option<f64>, seed: u64) -> (Vec<f32>, Vec<f32>) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let every = gaps.len().div_ceil(MOST_GAPS).max(1);
    let mut logs: Vec<f64> = gaps
        .iter()
        .step_by(every)
        .map(|gap| match resolution {
            Some(width) => {
                let low = (gap - 0.5 * width).max(0.0);
                (low + (gap + 0.5 * width - low) * random.random::<f64>().max(1e-3)).ln()
            }
            None => gap.ln(),
        })
        .collect();
    let mut parts = of_all(&mut logs, components);
    let begun = parameters(&parts);
    // Only what would go on if it could.
    if parts.iter().any(|part| part.scale <= NARROWEST) {
        maximised(&logs, &mut parts, NARROWEST_LAW);
    }
    (begun, parameters(&parts))
}

/// Expectation maximisation for a mixture of normals of these numbers, thinned evenly if there are many.
pub(super) fn of_normals(numbers: Vec<f64>, components: usize) -> Vec<f32> {
    let every = numbers.len().div_ceil(MOST_GAPS).max(1);
    parameters(&of_all(&mut numbers.into_iter().step_by(every).collect::<Vec<f64>>(), components))
}

/// The mixture of numbers, which it sorts.
fn of_all(logs: &mut [f64], components: usize) -> Vec<Component> {
    logs.sort_by(f64::total_cmp);
    let spread = moments(logs).1.max(NARROWEST);
    let slice = logs.len().div_ceil(components).max(1);
    let mut parts: Vec<Component> = logs
        .chunks(slice)
        .map(|chunk| {
            let (mean, scale) = moments(chunk);
            Component { ln_weight: 0.0, mean, scale: scale.max(spread / f64_of_count(components)).max(NARROWEST) }
        })
        .collect();
    let overall = Component { ln_weight: 0.0, mean: moments(logs).0, scale: spread };
    parts.resize(components, overall);
    let even = -f64_of_count(components).ln();
    parts.iter_mut().for_each(|part| part.ln_weight = even);
    maximised(logs, &mut parts, NARROWEST);
    parts
}

/// The passes, from where the components are.
fn maximised(logs: &[f64], parts: &mut [Component], narrowest: f64) {
    for _ in 0..PASSES {
        let mut sums = vec![(1e-9f64, 0.0f64, 0.0f64); parts.len()];
        for x in logs {
            let joints: Vec<f64> = parts.iter().map(|part| part.joint(*x)).collect();
            let total = ln_sum_exp(joints.iter().copied());
            for ((sum, joint), part) in sums.iter_mut().zip(&joints).zip(parts.iter()) {
                let share = (joint - total).exp();
                let from_mean = x - part.mean;
                *sum = (sum.0 + share, sum.1 + share * from_mean, sum.2 + share * from_mean * from_mean);
            }
        }
        let all: f64 = sums.iter().map(|sum| sum.0).sum();
        for (part, (weight, first, second)) in parts.iter_mut().zip(sums) {
            let shift = first / weight;
            part.ln_weight = (weight / all).max(1e-6).ln();
            part.scale = (second / weight - shift * shift).max(0.0).sqrt().max(narrowest);
            part.mean += shift;
        }
    }
}

/// Logits of the weights, means, logarithms of the scales.
fn parameters(parts: &[Component]) -> Vec<f32> {
    let column = |value: fn(&Component) -> f64| parts.iter().map(move |part| f32_of(value(part))).collect::<Vec<f32>>();
    [column(|part| part.ln_weight), column(|part| part.mean), column(|part| part.scale.ln())].concat()
}

/// Mean and standard deviation; zeros for nothing.
#[must_use]
pub fn moments(values: &[f64]) -> (f64, f64) {
    let n = f64_of_count(values.len().max(1));
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / n;
    (mean, variance.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(gaps: &[f64]) -> History {
        let n = gaps.len() + 1;
        let gaps_next = gaps.iter().copied().chain([f64::NAN]).collect();
        History { width: 0, keys: std::iter::once(0..n).collect(), gaps_next, parts: vec![Part::Train; n], ..History::default() }
    }

    fn mean(values: impl Iterator<Item = f64>) -> f64 {
        let values: Vec<f64> = values.collect();
        values.iter().sum::<f64>() / values.len() as f64
    }

    #[test]
    fn exponential_gaps_give_the_entropy_of_the_exponential_law() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let gaps: Vec<f64> = (0..20_000).map(|_| -(1.0 - random.random::<f64>()).ln() / 2.0).collect();
        let objective = Objective::Law { law: LawKind::Mixture(8), min_gap: 1e-9, resolution: None, marks: 0, value: None };
        let baseline = Baseline::fit(&history(&gaps), &objective, &|_| None, 1);
        let entropy = 1.0 - 2f64.ln();
        assert!((mean(gaps.iter().map(|gap| baseline.constant_rate(*gap))) - entropy).abs() < 0.02);
        assert!((mean(gaps.iter().map(|gap| baseline.history_free(*gap))) - entropy).abs() < 0.02);
    }

    #[test]
    fn coarse_gaps_are_given_probabilities_of_their_ticks() {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        let gaps: Vec<f64> = (0..20_000).map(|_| (-(1.0 - random.random::<f64>()).ln() * 3.0).round()).collect();
        let objective = Objective::Law { law: LawKind::Mixture(4), min_gap: 1e-9, resolution: Some(1.0), marks: 0, value: None };
        let baseline = Baseline::fit(&history(&gaps), &objective, &|_| None, 1);
        let total = |law: &dyn Fn(f64) -> f64| (0..200).map(|day| (-law(f64::from(day))).exp()).sum::<f64>();
        assert!((total(&|gap| baseline.constant_rate(gap)) - 1.0).abs() < 1e-9);
        assert!((total(&|gap| baseline.history_free(gap)) - 1.0).abs() < 1e-3);
        let (rate, free) = (mean(gaps.iter().map(|g| baseline.constant_rate(*g))), mean(gaps.iter().map(|g| baseline.history_free(*g))));
        assert!((rate - free).abs() < 0.03, "{rate} {free}");
    }

    #[test]
    fn a_handful_of_equal_gaps_gives_finite_parameters() {
        for gaps in [vec![], vec![2.0], vec![2.0; 5]] {
            let (begun, reference) = mixture(&gaps, 8, None, 0);
            assert!(begun.iter().chain(&reference).all(|v| v.is_finite()), "{gaps:?}");
            assert_eq!((begun.len(), reference.len()), (24, 24));
        }
    }

    #[test]
    fn the_reference_is_as_narrow_as_what_it_is_compared_with_where_gaps_repeat() {
        // Ten, a hundred and a thousand seconds, to the tenth of a per cent: a mixture that may be e^-7 wide knows nearly all of them.
        let mut random = ChaCha8Rng::seed_from_u64(4);
        let gaps: Vec<f64> = (0..6000).map(|i| 10f64.powi(1 + i % 3) * (0.001 * (random.random::<f64>() - 0.5)).exp()).collect();
        let objective = Objective::Law { law: LawKind::Mixture(4), min_gap: 1e-6, resolution: None, marks: 0, value: None };
        let baseline = Baseline::fit(&history(&gaps), &objective, &|_| None, 1);
        let found = mean(gaps.iter().map(|gap| baseline.history_free(*gap)));
        // ln 3 + mean ln gap + ln of a normal of width e^-7 (whose own spread, 0.0003, adds 0.05).
        let law = 3f64.ln() + 100f64.ln() - 7.0 + HALF_LN_2PI + 0.05;
        assert!((found - law).abs() < 0.02, "{found} {law}");
        let narrow = |parameters: &[f32]| parameters[8..].iter().copied().fold(f32::INFINITY, f32::min);
        assert!(narrow(&baseline.start) > -3.6 && narrow(&baseline.mixture) < -6.9, "training starts wide");
    }
}
