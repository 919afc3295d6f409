//! `[head]` of `model.toml`: what the model's outputs mean.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::time::TimeUnit;

/// What the head parameters are parameters of. The parameter vector of an event is the concatenation, along axis 1, of the
/// graph's outputs named in `outputs`, in that order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum HeadSpec {
    /// Gap ~ mixture of log-normals: parameters are `components` weight logits, then as many means and log scales of
    /// ln(gap / time_unit), then one logit per mark (the mark is independent of the gap).
    LognormalMixture {
        /// Graph outputs that are concatenated.
        outputs: Vec<String>,
        /// Number of mixture components, K.
        components: usize,
        /// Unit in which gaps, densities and intensities are expressed.
        time_unit: TimeUnit,
        /// Gaps are not taken as smaller than this, in `time_unit` (a clock that ticks in seconds cannot tell less).
        min_gap: f64,
        /// Width of a clock tick in `time_unit`, where it is coarse (1 day): the likelihood of a gap is then the probability of
        /// [gap - resolution/2, gap + resolution/2], not a density.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resolution: Option<f64>,
        /// Names of the marks, in the order of their logits; empty without marks.
        #[serde(default)]
        marks: Vec<String>,
    },
    /// The probability that the arrived event is positive: one parameter.
    Score {
        /// The graph output, one of width 1.
        outputs: Vec<String>,
        /// What the output is.
        link: ScoreLink,
    },
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

impl HeadSpec {
    /// Graph outputs that make up the parameters.
    #[must_use]
    pub fn outputs(&self) -> &[String] {
        match self {
            HeadSpec::LognormalMixture { outputs, .. } | HeadSpec::Score { outputs, .. } => outputs,
        }
    }

    /// Floats per event.
    #[must_use]
    pub fn width(&self) -> usize {
        match self {
            HeadSpec::LognormalMixture { components, marks, .. } => 3 * components + marks.len(),
            HeadSpec::Score { .. } => 1,
        }
    }

    /// Names of the marks of the law.
    #[must_use]
    pub fn marks(&self) -> &[String] {
        match self {
            HeadSpec::LognormalMixture { marks, .. } => marks,
            HeadSpec::Score { .. } => &[],
        }
    }

    /// Whether it is a law of the next event's time.
    #[must_use]
    pub fn is_timed(&self) -> bool {
        matches!(self, HeadSpec::LognormalMixture { .. })
    }
}
