//! `model.toml`: what the graph's inputs and outputs are.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::error::{Error, Result};
use crate::base::time::TimeUnit;
use crate::data::law::HeadSpec;

/// The format number this build writes and the only one it reads.
pub const FORMAT: u32 = 1;

/// The file as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format number, 1.
    pub format: u32,
    /// Name of the model, copied to every forecast.
    pub name: String,
    /// Its version, copied to every forecast.
    pub version: String,
    /// The graph's inputs besides the states.
    pub input: InputSpec,
    /// The state tensors, in any order. None for a model without memory.
    #[serde(default, rename = "state")]
    pub states: Vec<StateSpec>,
    /// Graph output [B, n] that says how much weight an event gives to each of the last n places, the oldest first and itself last, for reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention: Option<String>,
    /// What the outputs mean.
    pub head: HeadSpec,
}

/// Inputs besides the states.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    /// Input that takes the feature row: f32 [B, F].
    pub features: String,
    /// Input that takes the gap since the key's last event: f32 [B, 1], 0 for a first event. For cells that decay between events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<String>,
    /// Unit of that gap.
    #[serde(default = "seconds")]
    pub gap_unit: TimeUnit,
}

fn seconds() -> TimeUnit {
    TimeUnit::Second
}

/// One state tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StateSpec {
    /// Graph input it is fed to: f32 [B, shape...].
    pub input: String,
    /// Graph output that gives its next value, of the same shape.
    pub output: String,
    /// Shape without the batch axis.
    pub shape: Vec<usize>,
    /// Value that every element has for a new key.
    #[serde(default)]
    pub init: f32,
}

impl StateSpec {
    /// Floats per key.
    #[must_use]
    pub fn floats(&self) -> usize {
        self.shape.iter().product()
    }
}

impl Manifest {
    /// Reads `model.toml`.
    ///
    /// # Errors
    /// The file is missing, is not TOML, has unknown or missing entries, or another format number.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("model", path, e))?;
        let manifest: Manifest = toml::from_str(&text)
            .map_err(|e| Error::config("model", format!("not a model manifest: {e}")).at(path.display().to_string()).caused_by(e))?;
        if manifest.format != FORMAT {
            return Err(Error::config("model", format!("format {} is not known; this build reads format {FORMAT}", manifest.format))
                .at(path.display().to_string()));
        }
        Ok(manifest)
    }

    /// The manifest as `model.toml`.
    ///
    /// # Errors
    /// Never for a manifest that was loaded or built by `fit`.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::internal("model", e.to_string()))
    }
}
