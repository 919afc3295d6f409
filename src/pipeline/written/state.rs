//! The `[state]` table.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::defaults::default_max_keys;
use crate::pipeline::unit::Length;

/// The `[state]` table.
#[derive(Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Where snapshots of the key states go: a path, `file:///path` or `s3://bucket/prefix` (`gs://`, `az://`), each pipeline its own. Without it, states
    /// are rebuilt by replaying the topic from its first record.
    #[schemars(length(min = 1), example = &"/var/lib/meantime/cards")]
    pub snapshots: Option<String>,
    /// Time between two snapshots of a partition: about how much is replayed after a crash.
    #[schemars(extend("default" = "60s", "x-least" = "1s"))]
    pub snapshot_every: Option<Length>,
    /// Most keys one partition may hold; `when_full` says what happens when one more comes.
    #[serde(default = "default_max_keys")]
    #[schemars(range(min = 1, max = 4_000_000_000_u64))]
    pub max_keys: u64,
    /// What happens when a new key comes to a partition that holds `max_keys` keys.
    #[serde(default)]
    pub when_full: WhenFull,
    /// A key that was idle for longer starts anew with its next event. By default keys are kept for ever.
    #[schemars(extend("x-least" = "1s"))]
    pub expiry: Option<Length>,
    /// What to do at start about the states of events below the committed offset (Kafka), where no snapshot can be used. Not written it is `rebuild`, but the
    /// stage stops where the model has changed and the topic does not have its first records any more: see `meantime state migrate`.
    #[serde(default)]
    pub on_missing: OnMissing,
}

/// What happens when a new key comes to a partition that holds `max_keys` keys.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// The stage stops.
    #[default]
    Stop,
    /// The key whose last event is the oldest, by event time, is forgotten; it starts cold if it comes again.
    Evict,
}

/// What to do about missing states.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnMissing {
    /// Replay silently from the first record that the topic still has.
    #[default]
    Rebuild,
    /// Start with empty states: every key starts cold.
    StartEmpty,
    /// As `rebuild`, but stop if the beginning of a partition is already deleted.
    Fail,
}
