//! `[head]` of `model.toml`: what the model's outputs mean.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::value::ValueSpec;
use crate::base::time::TimeUnit;

/// What the head parameters are parameters of. The parameter vector of an event is the concatenation, along axis 1, of the
/// graph's outputs named in `outputs`, in that order. Formulas and sources of the laws: `head/`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum HeadSpec {
    /// Gap ~ mixture of log-normals: `components` weight logits, then as many means and log scales of ln(gap / time_unit).
    LognormalMixture(LawSpec),
    /// A constant hazard: ln of it, per `time_unit`.
    Exponential(LawSpec),
    /// Weibull: ln of the scale, in `time_unit`, and ln of the shape.
    Weibull(LawSpec),
    /// RMTPP: hazard exp(v + w gap); v, then w.
    Gompertz(LawSpec),
    /// A hazard that is constant between `edges`: ln of it in each of the `edges` + 1 bins.
    PiecewiseConstant(LawSpec),
    /// A Poisson rate of which a gamma law is known (Lomax): ln of its shape, ln of its rate in `time_unit`.
    GammaPoisson(LawSpec),
    /// Intensity of each mark: a base and `decays` exponentials. All bases, then all excitations and then all decays, those of a mark
    /// side by side; numbers as they are, per `time_unit`.
    Hawkes(LawSpec),
    /// Any intensity: `parameters` floats, of which the package's second graph, `intensity.onnx`, makes the intensity of each mark at any gap.
    Intensity(LawSpec),
    /// The probability that the arrived event is positive: one parameter.
    Score {
        /// The graph output, one of width 1.
        outputs: Vec<String>,
        /// What the output is.
        link: ScoreLink,
        /// How the probability is corrected; `meantime calibrate` fits it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        calibration: Option<Calibration>,
    },
}

/// What the package says of a law of the next event's time. The mark is independent of the gap, and has one logit per mark behind the
/// parameters of the time, but for `hawkes` and `intensity`, whose intensities are those of the marks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LawSpec {
    /// Graph outputs that are concatenated.
    pub outputs: Vec<String>,
    /// `lognormal_mixture`: number of mixture components, K.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub components: Option<usize>,
    /// `piecewise_constant`: ends of all bins but the last, in `time_unit`, ascending, the first above 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edges: Vec<f64>,
    /// `hawkes`: exponentials per mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decays: Option<usize>,
    /// `intensity`: floats that the second graph takes as `law`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<usize>,
    /// Unit in which gaps, densities and intensities are expressed.
    pub time_unit: TimeUnit,
    /// Gaps are not taken as smaller than this, in `time_unit` (a clock that ticks in seconds cannot tell less).
    pub min_gap: f64,
    /// Width of a clock tick in `time_unit`, where it is coarse (1 day): the likelihood of a gap is then the probability of
    /// [gap - resolution/2, gap + resolution/2], not a density.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<f64>,
    /// Names of the marks, in the order of their logits; empty without marks.
    #[serde(default)]
    pub marks: Vec<String>,
    /// The law of the next event's value in one field, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<ValueSpec>,
}

impl LawSpec {
    /// A law of these outputs, without marks, for a fine clock; what only some kinds have is left out.
    #[must_use]
    pub fn new(outputs: &[&str], time_unit: TimeUnit, min_gap: f64) -> Self {
        let outputs = outputs.iter().map(|name| (*name).to_owned()).collect();
        LawSpec {
            outputs,
            components: None,
            edges: Vec::new(),
            decays: None,
            parameters: None,
            time_unit,
            min_gap,
            resolution: None,
            marks: Vec::new(),
            value: None,
        }
    }
}

/// What a score output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScoreLink {
    /// ln(p / (1 - p)).
    Logit,
    /// p itself.
    Probability,
}

/// A map from the model's probability p to one that agrees with outcomes. It never decreases, so that ranks stay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Calibration {
    /// sigmoid(slope logit(p) + shift). Source: J. Platt, "Probabilistic outputs for support vector machines", 1999.
    Platt {
        /// Factor of the logit, above 0.
        slope: f64,
        /// Added to it.
        shift: f64,
    },
    /// Straight lines between points, level beyond them. Source: B. Zadrozny, C. Elkan, "Transforming classifier scores into accurate multiclass
    /// probability estimates", 2002.
    Isotonic {
        /// Probabilities of the model, rising.
        at: Vec<f64>,
        /// What each becomes, never falling, between 0 and 1.
        gives: Vec<f64>,
    },
}

impl Calibration {
    /// The corrected probability.
    #[must_use]
    pub fn apply(&self, p: f64) -> f64 {
        match self {
            Calibration::Platt { slope, shift } => {
                let logit = libm::log(p.max(f64::MIN_POSITIVE)) - libm::log1p(-p.min(1.0 - f64::EPSILON));
                1.0 / (1.0 + libm::exp(-(slope * logit + shift)))
            }
            Calibration::Isotonic { at, gives } => {
                let after = at.partition_point(|x| *x <= p);
                let point = |i: usize| at.get(i).copied().zip(gives.get(i).copied());
                match (after.checked_sub(1).and_then(point), point(after)) {
                    (Some((x0, y0)), Some((x1, y1))) => y0 + (y1 - y0) * ((p - x0) / (x1 - x0)),
                    (Some((_, y)), None) | (None, Some((_, y))) => y,
                    (None, None) => p,
                }
            }
        }
    }

    /// Why it cannot be used, if it cannot.
    #[must_use]
    pub fn fault(&self) -> Option<&'static str> {
        match self {
            Calibration::Platt { slope, shift } => (!(slope.is_finite() && *slope > 0.0 && shift.is_finite()))
                .then_some("the slope of a calibration must be above 0, the shift a number"),
            Calibration::Isotonic { at, gives } => {
                let rising = at.windows(2).all(|pair| matches!(pair, [a, b] if a < b));
                let steady = gives.windows(2).all(|pair| matches!(pair, [a, b] if a <= b));
                let within = at.iter().chain(gives).all(|p| (0.0..=1.0).contains(p));
                (at.len() < 2 || at.len() != gives.len() || !rising || !steady || !within).then_some(
                    "a calibration needs two or more points: `at` rising, `gives` never falling and as long, all between 0 and 1",
                )
            }
        }
    }
}

impl HeadSpec {
    /// The law of the next event's time; `None` for a score.
    #[must_use]
    pub fn law(&self) -> Option<&LawSpec> {
        match self {
            HeadSpec::LognormalMixture(law)
            | HeadSpec::Exponential(law)
            | HeadSpec::Weibull(law)
            | HeadSpec::Gompertz(law)
            | HeadSpec::PiecewiseConstant(law)
            | HeadSpec::GammaPoisson(law)
            | HeadSpec::Hawkes(law)
            | HeadSpec::Intensity(law) => Some(law),
            HeadSpec::Score { .. } => None,
        }
    }

    /// The name of the kind, as `model.toml` has it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            HeadSpec::LognormalMixture(_) => "lognormal_mixture",
            HeadSpec::Exponential(_) => "exponential",
            HeadSpec::Weibull(_) => "weibull",
            HeadSpec::Gompertz(_) => "gompertz",
            HeadSpec::PiecewiseConstant(_) => "piecewise_constant",
            HeadSpec::GammaPoisson(_) => "gamma_poisson",
            HeadSpec::Hawkes(_) => "hawkes",
            HeadSpec::Intensity(_) => "intensity",
            HeadSpec::Score { .. } => "score",
        }
    }

    /// What it is, in one line for people: `lognormal_mixture of 16 in h, resolution 1`.
    #[must_use]
    pub fn describe(&self) -> String {
        let Some(law) = self.law() else { return self.kind().to_owned() };
        let size = match self {
            HeadSpec::LognormalMixture(_) => format!(" of {}", law.components.unwrap_or_default()),
            HeadSpec::PiecewiseConstant(_) => format!(" in {} bins", law.edges.len() + 1),
            HeadSpec::Hawkes(_) => format!(" of {} decays a mark", law.decays.unwrap_or(1)),
            _ => String::new(),
        };
        let resolution = law.resolution.map(|width| format!(", resolution {width}")).unwrap_or_default();
        let value = law.value.as_ref().map(|value| format!("; {}", value.describe())).unwrap_or_default();
        format!("{}{size}, time in {}{resolution}{value}", self.kind(), law.time_unit.name())
    }

    /// Graph outputs that make up the parameters.
    #[must_use]
    pub fn outputs(&self) -> &[String] {
        match self {
            HeadSpec::Score { outputs, .. } => outputs,
            _ => self.law().map_or(&[], |law| &law.outputs),
        }
    }

    /// Floats per event: parameters of the time, logits of the marks, parameters of the value.
    #[must_use]
    pub fn width(&self) -> usize {
        self.event_width() + self.value().map_or(0, ValueSpec::width)
    }

    /// Those of time and marks, or of the score.
    #[must_use]
    pub fn event_width(&self) -> usize {
        let Some(law) = self.law() else { return 1 };
        let marks = law.marks.len();
        match self {
            HeadSpec::LognormalMixture(_) => 3 * law.components.unwrap_or_default() + marks,
            HeadSpec::Exponential(_) => 1 + marks,
            HeadSpec::Weibull(_) | HeadSpec::Gompertz(_) | HeadSpec::GammaPoisson(_) => 2 + marks,
            HeadSpec::PiecewiseConstant(_) => law.edges.len() + 1 + marks,
            HeadSpec::Hawkes(_) => marks.max(1) * (1 + 2 * law.decays.unwrap_or(1)),
            HeadSpec::Intensity(_) => law.parameters.unwrap_or_default(),
            HeadSpec::Score { .. } => 1,
        }
    }

    /// Names of the marks of the law.
    #[must_use]
    pub fn marks(&self) -> &[String] {
        self.law().map_or(&[], |law| &law.marks)
    }

    /// The law of the next event's value, if there is one.
    #[must_use]
    pub fn value(&self) -> Option<&ValueSpec> {
        self.law().and_then(|law| law.value.as_ref())
    }

    /// Whether it is a law of the next event's time.
    #[must_use]
    pub fn is_timed(&self) -> bool {
        self.law().is_some()
    }
}
