//! The `[shadow]` table.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::defaults::default_sample;

/// The `[shadow]` table.
#[derive(Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shadow {
    /// Folder of the second model package. Its graph, state, recipe and head may be others than the first one's.
    #[schemars(required, length(min = 1), example = &"model-next")]
    pub model: Option<String>,
    /// Topic for its forecasts, where [sink] is a topic; on the same brokers, and in the same transactions.
    #[schemars(length(min = 1), example = &"cards-forecasts-next")]
    pub topic: Option<String>,
    /// Folder or file for its forecasts, where [sink] is one.
    #[schemars(length(min = 1), example = &"forecasts-next")]
    pub path: Option<String>,
    /// Share of the keys that it scores, always the same ones.
    #[serde(default = "default_sample")]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0))]
    pub sample: f64,
    /// Fields of forecasts with the value from which on each is an alert, such as `{ score = 0.9, p_within_1h = 0.5 }`: how often both models raise one,
    /// one of them or none is counted.
    #[serde(default)]
    pub thresholds: BTreeMap<String, f64>,
}
