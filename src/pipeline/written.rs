//! The pipeline file as the user writes it: every table and key, its doc comment is the user's doc and the schema's text.
//!
//! This is the one place that names keys. The JSON schema in `schemas/` is derived from it, and `shape` checks a file against
//! that schema, so a key cannot be known to one and unknown to another. A key that must be there is an `Option` marked
//! `schemars(required)`: its absence is then a fault among others and not the end of reading. Nothing here derives `Debug`:
//! values may be secrets.

mod contract;
mod defaults;
mod outputs;
mod shadow;
mod state;

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::plan::{Cell, Law};
use super::unit::{Length, Moment};
use crate::base::time::TimeUnit;
use crate::data::value::{Transform, ValueKind};
use crate::features::recipe::Cycle;
pub use contract::schema;
use defaults::*;
pub use outputs::{Alarm, DeadLetter, Delivery, Sink};
pub use shadow::Shadow;
pub use state::{OnMissing, State, WhenFull};

/// A meantime pipeline: tables in the order an event travels. Values may come from the environment as `${NAME}`; `$${` is a literal `${`.
/// Relative paths start at the folder of this file.
#[derive(Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "meantime pipeline")]
pub struct Written {
    /// Name of the pipeline, for logs and for the default consumer group.
    #[schemars(required, length(min = 1), example = &"cards")]
    pub name: Option<String>,
    /// Where records come from.
    #[schemars(required)]
    pub source: Option<Source>,
    /// What a record is: its format and the fields that every pipeline needs.
    #[schemars(required)]
    pub event: Option<Event>,
    /// Event-time order and clock hygiene.
    #[serde(default)]
    pub order: Option<Order>,
    /// The model.
    #[serde(default)]
    pub model: Option<Model>,
    /// Bounds of the key states, and their snapshots.
    #[serde(default)]
    pub state: Option<State>,
    /// What is asked of the law of the next event.
    #[serde(default)]
    pub forecast: Option<Forecast>,
    /// Reasons that forecasts name; without this table none.
    #[serde(default)]
    pub reasons: Option<Reasons>,
    /// Where forecasts go.
    #[schemars(required)]
    pub sink: Option<Sink>,
    /// A second model that is run beside the first, on the same events; without this table none.
    #[serde(default)]
    pub shadow: Option<Shadow>,
    /// Where records go that cannot be used. Without this table: `dead-letters.ndjson` beside this file.
    #[serde(default)]
    pub dead_letter: Option<DeadLetter>,
    /// Where alarms are raised besides the log, such as that the law has drifted.
    #[serde(default)]
    pub alarm: Option<Alarm>,
    /// How the work is spread.
    #[serde(default)]
    pub run: Option<Run>,
    /// What `meantime fit` trains.
    #[serde(default)]
    pub fit: Option<Fit>,
}

/// A source of records.
#[derive(Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Source {
    /// A Kafka topic, read as a member of a consumer group.
    Kafka {
        /// Addresses of the brokers, `host:port` with commas between.
        #[schemars(required, length(min = 1), example = &"127.0.0.1:9092")]
        brokers: Option<String>,
        /// Topic to read.
        #[schemars(required, length(min = 1), example = &"cards")]
        topic: Option<String>,
        /// Consumer group whose offsets are committed. By default `meantime-` and the pipeline's name.
        #[schemars(length(min = 1))]
        group: Option<String>,
        /// Name of this process among those of the group, the same after a restart, such as the name of its pod: `"${HOSTNAME}"`. With it a restart
        /// within the session time-out moves no partition (static membership). By default the machine's name and a number, without that.
        #[schemars(length(min = 1))]
        instance: Option<String>,
        /// Events before this time are another run's, a backfill's: they are left out, without a forecast and without a dead letter. By default none are.
        #[schemars(example = &"2026-01-01T00:00:00Z")]
        since: Option<Moment>,
        /// Any librdkafka setting, such as `"security.protocol" = "SASL_SSL"`. Values are never printed.
        #[serde(default)]
        client: Client,
    },
    /// Parquet or NDJSON files, read once from beginning to end.
    File {
        /// Files or globs. They are read in the order of this list, those of one glob in the order of their names.
        #[schemars(required, length(min = 1), inner(length(min = 1)), example = ["history/*.parquet"])]
        paths: Option<Vec<String>>,
    },
    /// A seeded stream with a known law; no network, no files.
    Generate {
        /// Which stream.
        #[schemars(required, example = &"cards")]
        stream: Option<Stream>,
        /// Number of events.
        #[serde(default = "default_events")]
        #[schemars(range(min = 1))]
        events: u64,
        /// Number of keys.
        #[serde(default = "default_keys")]
        #[schemars(range(min = 1))]
        keys: u32,
        /// Seed: the same seed gives the same bytes on every machine.
        #[serde(default = "default_seed")]
        seed: u64,
    },
}

/// A generated stream.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Card payments: daily-rhythm renewal with bursts of fraud and a label.
    Cards,
    /// Hospital visits: self-exciting readmissions with ten diagnosis marks.
    Visits,
    /// Device telemetry: heartbeats with drift and outages.
    Telemetry,
}

/// Any librdkafka setting by name.
pub type Client = BTreeMap<String, Setting>;

/// Value of a client setting: text, an integer or a boolean; librdkafka takes all of them as text.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Setting {
    /// Text.
    Text(String),
    /// An integer.
    Integer(i64),
    /// A boolean.
    Boolean(bool),
}

impl Setting {
    /// As librdkafka takes it.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Setting::Text(text) => text.clone(),
            Setting::Integer(number) => number.to_string(),
            Setting::Boolean(yes) => yes.to_string(),
        }
    }
}

impl JsonSchema for Setting {
    fn schema_name() -> Cow<'static, str> {
        "Setting".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer", "boolean"] })
    }
}

/// The `[event]` table.
#[derive(Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// How records are written.
    #[serde(default)]
    pub format: Format,
    /// Of records in Avro that are bare datums: the file with their schema, beside this file.
    #[schemars(length(min = 1), example = &"payment.avsc")]
    pub schema: Option<String>,
    /// Of records in Avro that begin with the number of their schema: the registry that knows it.
    pub registry: Option<Registry>,
    /// Field that says to whom or what the event happened: text or an integer. Events of one key share a state. `a.b` is the field `b` of the
    /// field `a`, here and wherever a field is named; `$key` is the key of the Kafka record itself, `$timestamp` its timestamp in `ms`.
    #[schemars(required, length(min = 1), example = &"card")]
    pub key: Option<String>,
    /// Field that says when it happened, and its unit.
    #[schemars(required, extend("examples" = [{ "field": "ts", "unit": "ms" }]))]
    pub time: Option<Time>,
    /// Field that says what kind of event it is: text. The law then also gives the likeliest next marks.
    #[schemars(length(min = 1))]
    pub mark: Option<String>,
    /// Field that is copied to the forecast as `event_id`.
    #[schemars(length(min = 1))]
    pub id: Option<String>,
    /// Field that says how the event turned out: 1 or true for positive, 0 or false otherwise. `fit`, `evaluate` and `calibrate` read it; it is never a feature.
    #[schemars(length(min = 1))]
    pub label: Option<String>,
}

/// A format of records.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON object a record.
    #[default]
    Json,
    /// One Avro datum a record of a topic.
    Avro,
    /// Columns of a Parquet file.
    Parquet,
}

/// A schema registry.
#[derive(Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// Its address, or several with commas, which are tried in turn.
    #[schemars(required, length(min = 1), example = &"http://127.0.0.1:8081")]
    pub url: Option<String>,
    /// User name, where it asks for one.
    pub username: Option<String>,
    /// Password; take it from the environment: `"${REGISTRY_PASSWORD}"`. It is never printed.
    pub password: Option<String>,
}

/// Event time.
#[derive(Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Time {
    /// The field.
    #[schemars(required, length(min = 1), example = &"ts")]
    pub field: Option<String>,
    /// Unit since 1970, or `rfc3339` for text such as `2026-01-31T12:00:00.5Z`.
    #[schemars(required, example = &"ms")]
    pub unit: Option<Clock>,
}

/// How a time is written.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// Seconds since 1970.
    S,
    /// Milliseconds since 1970.
    Ms,
    /// Microseconds since 1970.
    Us,
    /// Nanoseconds since 1970.
    Ns,
    /// RFC 3339 text.
    Rfc3339,
}

/// The `[order]` table.
#[derive(Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// How long an event waits for earlier ones of its key.
    #[serde(default = "default_lateness")]
    #[schemars(extend("x-most" = "30d"))]
    pub lateness: Length,
    /// How far an event time may lie after the time at which the log took its record in; beyond it the record is a dead letter.
    #[serde(default = "default_future_skew")]
    pub max_future_skew: Length,
    /// What to do with an event that is earlier than its key's last one.
    #[serde(default)]
    pub late: Late,
    /// A partition of a Kafka topic that has had no record for so long counts as idle: the clock on the wall, less this, takes the place of event
    /// times for what waits (`lateness`) and who is overdue. Left out, only records move time on.
    #[schemars(extend("x-least" = "1s", "x-most" = "30d"))]
    pub idle_after: Option<Length>,
}

/// What to do with a late event.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Late {
    /// Take it at the last one's time (gap 0) and flag it `late_clamped`.
    #[default]
    Clamp,
    /// Make it a dead letter `late`.
    DeadLetter,
}

/// The `[model]` table.
#[derive(Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Folder of the model package.
    #[serde(default = "default_package")]
    #[schemars(length(min = 1))]
    pub package: String,
    /// What becomes of the key states when a running stage is told to take another package (SIGHUP). It needs `snapshots` in [state].
    #[serde(default)]
    pub on_change: OnChange,
}

/// What becomes of the key states when a running stage takes another package.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnChange {
    /// Hidden tensors are taken over; a package whose tensors have other names or shapes is refused.
    #[default]
    Carry,
    /// Hidden tensors begin anew; what does not depend on the model is kept.
    Reset,
    /// No package is taken while running.
    Fail,
}

/// The `[forecast]` table.
#[derive(Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Forecast {
    /// Quantiles of the time of the next event, ascending, each between 0 and 1.
    #[schemars(extend("default" = [0.1, 0.5, 0.9]), length(max = 32))]
    pub quantiles: Option<Vec<Share>>,
    /// Quantiles of the value of the next event, where the model has a law of it, ascending. By default those of the time.
    #[schemars(length(max = 32))]
    pub value_quantiles: Option<Vec<Share>>,
    /// The forecast says how likely an event is within each of these.
    #[serde(default)]
    #[schemars(length(max = 32), extend("x-least" = "1us"))]
    pub horizons: Vec<Length>,
    /// A key of which no event has come when one of these quantiles of its law passes is overdue, and a row of the kind `overdue` says so. Ascending.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub overdue: Vec<Share>,
    /// From which distance on the residuals of 10,000 events count as unlike those from after the start, so that the law is said to have drifted: between
    /// their distribution functions, 0 (the same) to 1. Times that are a third longer or shorter than the law has them are about 0.1 apart. Never less than 0.0276, which
    /// chance passes once in a thousand times.
    #[schemars(extend("default" = 0.1))]
    pub drift: Option<Share>,
    /// How many of the likeliest next marks. By default 3 where `[event] mark` is named (all where the model knows fewer), otherwise 0.
    #[schemars(range(max = 64))]
    pub marks: Option<u32>,
}

/// The `[reasons]` table.
#[derive(Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reasons {
    /// Most reasons a forecast.
    #[serde(default = "default_top")]
    #[schemars(range(min = 1, max = 16))]
    pub top: u32,
    /// Only forecasts whose score is at least this, by default 0.5; or, of a law, whose time and mark were together at least so many nats out, by default
    /// 4.6 (one event in a hundred). Of a score each costs a step of the model a subject of the recipe.
    #[schemars(range(min = 0.0))]
    pub above: Option<f64>,
    /// What the reasons of a surprise are about, where the model is a law of time.
    #[serde(default)]
    pub surprise: SurpriseBy,
}

/// What the reasons of a surprise are about.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SurpriseBy {
    /// What was out of place in the event that came: its gap, its mark, its value.
    #[default]
    Parts,
    /// Which fields of the event before led the law to expect something else, by the recipe's columns. Each costs a step of the model a subject of the recipe,
    /// and the event before is kept of each key: states without it are rebuilt.
    Columns,
}

/// A share: above 0 and below 1.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Share(pub f64);

impl JsonSchema for Share {
    fn schema_name() -> Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1 })
    }
}

impl Default for DeadLetter {
    fn default() -> Self {
        DeadLetter::Ndjson { path: default_dead_letters(), max_bad_ratio: default_max_bad_ratio() }
    }
}

impl DeadLetter {
    /// Share of bad records above which the stage stops.
    #[must_use]
    pub fn max_bad_ratio(&self) -> f64 {
        match self {
            DeadLetter::Kafka { max_bad_ratio, .. }
            | DeadLetter::Parquet { max_bad_ratio, .. }
            | DeadLetter::Ndjson { max_bad_ratio, .. } => *max_bad_ratio,
        }
    }
}

/// The `[run]` table.
#[derive(Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Worker threads; partitions are spread over them.
    #[serde(default = "default_lanes")]
    #[schemars(range(min = 1, max = 256))]
    pub lanes: u32,
    /// Most records a lane takes at once.
    #[serde(default = "default_max_batch")]
    #[schemars(range(min = 1, max = 65_536))]
    pub max_batch: u32,
    /// How long SIGTERM or Ctrl-C may take to drain and commit; what is not committed then is read again at the next start.
    #[serde(default = "default_stop_timeout")]
    #[schemars(extend("x-least" = "1s", "x-most" = "1h"))]
    pub stop_timeout: Length,
}

/// The `[fit]` table.
#[derive(Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fit {
    /// Fields used as numbers.
    #[serde(default)]
    #[schemars(inner(length(min = 1)))]
    pub numeric: Vec<String>,
    /// Fields used as categories.
    #[serde(default)]
    #[schemars(inner(length(min = 1)))]
    pub category: Vec<String>,
    /// Calendar cycles used.
    #[serde(default)]
    pub calendar: Vec<Cycle>,
    /// IANA time zone of the calendar.
    #[serde(default = "default_zone")]
    pub zone: String,
    /// Half-lives of decaying counts, and of decaying means of every numeric field.
    #[serde(default)]
    #[schemars(extend("x-least" = "1ms"))]
    pub decay: Vec<Length>,
    /// Unit of the law of time. By default chosen so that the median gap (of those above 0, if half of all are 0) lies between 1 and the next larger unit.
    pub time_unit: Option<TimeUnit>,
    /// Width of a coarse clock tick, such as `"1d"` for dates: likelihoods are then probabilities of the tick, not densities. By default taken from the gaps where they are
    /// whole days, hours or minutes and often 0, see docs/laws.md.
    #[schemars(extend("x-least" = "1us"))]
    pub resolution: Option<Length>,
    /// What is fitted: a network (`gru`, `rnn`, `lstm`, `ct_lstm`, `gru_d`, `ode`, `ssm`, `linear_attention`, `attention`, `memory`), or a process known in closed form (`poisson`, `gamma_poisson`, `history`, `hawkes`).
    #[serde(default)]
    pub cell: Cell,
    /// The law of time that a network gives; processes have their own.
    #[serde(default)]
    pub law: Law,
    /// Field whose next value is forecast too: the network then also gives a law of it.
    #[schemars(length(min = 1))]
    pub value: Option<String>,
    /// The law of the value: `gaussian` (a mixture of normals) or `quantile` (quantiles with straight lines between them).
    #[serde(default)]
    pub value_law: ValueKind,
    /// Normals of a `gaussian` law of the value.
    #[serde(default = "default_value_components")]
    #[schemars(range(min = 1, max = 256))]
    pub value_components: u32,
    /// Levels of a `quantile` law of the value, ascending.
    #[serde(default = "default_value_levels")]
    #[schemars(length(min = 2, max = 256))]
    pub value_levels: Vec<Share>,
    /// Taken of the value first: `log1p`, sign(v) ln(1 + |v|), for values over several orders of magnitude.
    #[serde(default)]
    pub value_transform: Transform,
    /// The law is one about the key's own mean, in its own standard deviations, both of which forget: after so many readings one counts half. For keys that
    /// have different levels or units. Left out, mean and deviation are those of all keys.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub value_memory: Option<u32>,
    /// Size of the recurrent state.
    #[serde(default = "default_hidden")]
    #[schemars(range(min = 1, max = 1024))]
    pub hidden: u32,
    /// Components of the mixture, bins of a hazard, or units of an intensity.
    #[serde(default = "default_components")]
    #[schemars(range(min = 1, max = 256))]
    pub components: u32,
    /// Most passes over the training events.
    #[serde(default = "default_epochs")]
    #[schemars(range(min = 1, max = 10_000))]
    pub epochs: u32,
    /// Passes without improvement on the valid split before training stops.
    #[serde(default = "default_patience")]
    #[schemars(range(min = 1, max = 10_000))]
    pub patience: u32,
    /// Step size of AdamW.
    #[serde(default = "default_learning_rate")]
    #[schemars(extend("exclusiveMinimum" = 0), range(max = 1.0))]
    pub learning_rate: f64,
    /// Seed of weights and shuffles.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// How history is split into train, valid and test.
    #[serde(default)]
    pub split: Split,
}

/// A split of history.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub enum Split {
    /// `key`: of every five keys in byte order the fourth is valid and the fifth test. `time`: the last 20 % of the events are test, the 20 % before valid.
    Named(SplitName),
    /// By time: events from `valid` on are valid, those from `test` on are test.
    Time {
        /// The two dates.
        time: SplitTimes,
    },
    /// By a text field that says `train`, `valid` or `test`.
    Field {
        /// The field.
        #[schemars(length(min = 1))]
        field: String,
    },
}

impl Default for Split {
    fn default() -> Self {
        Split::Named(SplitName::Key)
    }
}

/// A split that needs no more than its name.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SplitName {
    /// By key.
    Key,
    /// By time.
    Time,
}

/// Dates of a split by time.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitTimes {
    /// First valid time, such as `"2018-06-01T00:00:00Z"`.
    #[schemars(required, extend("examples" = ["2018-06-01T00:00:00Z"]))]
    pub valid: Option<Moment>,
    /// First test time.
    #[schemars(required, extend("examples" = ["2018-07-01T00:00:00Z"]))]
    pub test: Option<Moment>,
}
