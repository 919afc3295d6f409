//! The plan: what will run, checked and bounded. Built from the file as written, all faults reported together.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::time::{EventTime, Gap, TimeUnit};
use crate::data::schema::EventSchema;
use crate::data::value::{Transform, ValueKind};
use crate::features::reasons::Asked;
use crate::features::recipe::{Cycle, Recipe};
use crate::link::registry::Schemas;
use crate::model::manifest::Manifest;
use crate::{decode, head, order, sink, source, state};

/// A checked pipeline.
#[derive(Clone, PartialEq)]
pub struct Plan {
    /// Name of the pipeline.
    pub name: String,
    /// Folder of the pipeline file; relative paths start here.
    pub folder: PathBuf,
    /// Where records come from.
    pub source: source::Settings,
    /// Events before this time are a backfill's: what is read from the topic leaves them out. The states of both depend on it, so it stays what the
    /// pipeline says where a command reads something else than its source.
    pub since: Option<EventTime>,
    /// How they are written.
    pub format: decode::Format,
    /// Where the schemas of records are found, if their format has any.
    pub schemas: Option<Schemas>,
    /// What is read from them: `[event]` plus every field the recipe needs (plus label and `[fit]` fields when planned for `fit`).
    pub schema: EventSchema,
    /// Event-time order and clock hygiene.
    pub order: order::Settings,
    /// Folder of the model package.
    pub package: PathBuf,
    /// The package's manifest and recipe; `None` when planned for `fit` or `generate`, which need no package.
    pub model: Option<(Manifest, Recipe)>,
    /// What becomes of the key states when a running stage takes another package.
    pub on_change: OnChange,
    /// Bounds of the key states.
    pub state: state::Settings,
    /// Where their snapshots go and how often one is taken; `None`: states are rebuilt by replaying.
    pub snapshots: Option<state::snapshot::Settings>,
    /// What is asked of the law.
    pub asks: head::Asks,
    /// Horizons as written (`1h`), for column names.
    pub horizon_names: Vec<String>,
    /// Distance between distributions of residuals from which on the law is said to have drifted.
    pub drift: f64,
    /// Reasons that forecasts name, if they do.
    pub reasons: Option<Asked>,
    /// Where forecasts go.
    pub sink: sink::Settings,
    /// `[sink] fields`: (output name, forecast field name) pairs in the order written; empty for all fields.
    pub sink_fields: Vec<(String, String)>,
    /// The second model that is run beside the first.
    pub shadow: Option<Box<ShadowPlan>>,
    /// How often outputs are made durable and positions committed.
    pub commit_every: Duration,
    /// What the sink promises.
    pub delivery: sink::Delivery,
    /// Whether Kafka records carry the position of their input record as a header.
    pub position_header: bool,
    /// Where dead letters go.
    pub dead_letter: sink::Settings,
    /// Where alarms are raised besides the log: a topic, or a file of lines.
    pub alarm: Option<sink::Settings>,
    /// Share of bad records above which the stage stops.
    pub max_bad_ratio: f64,
    /// Worker threads.
    pub lanes: usize,
    /// Most records a lane takes at once.
    pub max_batch: usize,
    /// How long a stop may take to drain and commit.
    pub stop_timeout: Duration,
    /// What `fit` trains.
    pub fit: FitPlan,
}

/// The `[shadow]` table, checked.
#[derive(Clone, PartialEq)]
pub struct ShadowPlan {
    /// The pipeline as it would be with the second package, but for its own sink.
    pub plan: Plan,
    /// Share of the keys that are scored, if not all.
    pub share: Option<f64>,
    /// Fields of forecasts, and the value from which on each is an alert.
    pub thresholds: Vec<(String, f64)>,
}

impl Plan {
    /// For a command that reads files in place of the topic: they hold events before `since` as well, and none are left out.
    pub fn take_all(&mut self) {
        if let source::Settings::Kafka(kafka) = &mut self.source {
            kafka.since = None;
        }
    }
}

impl fmt::Debug for Plan {
    /// Only what cannot hold a secret: names and places may come from the environment, client settings are passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("format", &self.format)
            .field("order", &self.order)
            .field("state", &self.state)
            .field("asks", &self.asks)
            .field("commit_every", &self.commit_every)
            .field("max_bad_ratio", &self.max_bad_ratio)
            .field("lanes", &self.lanes)
            .field("max_batch", &self.max_batch)
            .field("stop_timeout", &self.stop_timeout)
            .finish_non_exhaustive()
    }
}

/// What becomes of the key states when a running stage takes another package.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnChange {
    /// Hidden tensors are taken over; a package with others is refused.
    #[default]
    Carry,
    /// Hidden tensors begin anew.
    Reset,
    /// No package is taken.
    Fail,
}

/// The `[fit]` table, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct FitPlan {
    /// Fields used as numbers.
    pub numeric: Vec<String>,
    /// Fields used as categories.
    pub category: Vec<String>,
    /// Calendar cycles used.
    pub calendar: Vec<Cycle>,
    /// IANA time zone of the calendar.
    pub zone: String,
    /// Half-lives of decaying counts, and of decaying means of every numeric field.
    pub decay: Vec<String>,
    /// Unit of the law of time; `None`: chosen so that the median gap lies between 1 and the next larger unit.
    pub time_unit: Option<TimeUnit>,
    /// Width of a coarse clock tick.
    pub resolution: Option<Gap>,
    /// What is fitted.
    pub cell: Cell,
    /// Law that a network gives.
    pub law: Law,
    /// The law of the next value, if one is fitted.
    pub value: Option<ValuePlan>,
    /// Size of the recurrent state.
    pub hidden: usize,
    /// Mixture components.
    pub components: usize,
    /// Most passes over the training events.
    pub epochs: usize,
    /// Passes without improvement on the valid split before training stops.
    pub patience: usize,
    /// Step size of AdamW.
    pub learning_rate: f64,
    /// Seed of weights and shuffles.
    pub seed: u64,
    /// How events are split.
    pub split: Split,
}

/// A law of the next value that is to be fitted.
#[derive(Clone, Debug, PartialEq)]
pub struct ValuePlan {
    /// The field.
    pub field: String,
    /// Kind of law.
    pub kind: ValueKind,
    /// Normals of a `gaussian` one.
    pub components: usize,
    /// Levels of a `quantile` one.
    pub levels: Vec<f64>,
    /// Taken of the value first.
    pub transform: Transform,
    /// Readings after which one counts half in the key's own mean and deviation, about which the law is; `None`: about those of all keys.
    pub memory: Option<u32>,
}

/// What is fitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cell {
    /// A gated recurrent network.
    #[default]
    Gru,
    /// Elman's recurrent network.
    Rnn,
    /// Long short-term memory.
    Lstm,
    /// Continuous-time LSTM: memory decays between events, as in the neural Hawkes process.
    CtLstm,
    /// A diagonal state-space layer over irregular time.
    Ssm,
    /// Linear attention with decay over time.
    LinearAttention,
    /// Attention over the key's last 32 events.
    Attention,
    /// A transformer block with recurrent memory.
    Memory,
    /// A GRU for readings that are often missing.
    GruD,
    /// A GRU whose state follows a differential equation between events.
    Ode,
    /// A constant rate.
    Poisson,
    /// A rate for each key, learnt from its own events.
    GammaPoisson,
    /// The hazard of each key in bins, counted from its own gaps.
    History,
    /// An exponential Hawkes process over the marks.
    Hawkes,
}

impl Cell {
    /// Those that are trained: networks, which can give any law or a score.
    pub const NETWORKS: [Cell; 10] = [
        Cell::Rnn,
        Cell::Gru,
        Cell::Lstm,
        Cell::CtLstm,
        Cell::GruD,
        Cell::Ode,
        Cell::Ssm,
        Cell::LinearAttention,
        Cell::Attention,
        Cell::Memory,
    ];

    /// Whether it is trained.
    #[must_use]
    pub fn is_network(self) -> bool {
        Cell::NETWORKS.contains(&self)
    }

    /// What it is, at the beginning of a sentence.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Cell::Gru => "A GRU",
            Cell::Rnn => "A simple recurrent network",
            Cell::Lstm => "An LSTM",
            Cell::CtLstm => "A continuous-time LSTM",
            Cell::Ssm => "A diagonal state-space layer",
            Cell::LinearAttention => "Linear attention with decay",
            Cell::Attention => "Attention over the last 32 events",
            Cell::Memory => "A transformer block with recurrent memory",
            Cell::GruD => "A GRU-D",
            Cell::Ode => "An ODE-RNN",
            Cell::Poisson => "A Poisson process",
            Cell::GammaPoisson => "A gamma-Poisson process",
            Cell::History => "A history hazard",
            Cell::Hawkes => "A Hawkes process",
        }
    }

    /// Its name in the pipeline file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Cell::Gru => "gru",
            Cell::Rnn => "rnn",
            Cell::Lstm => "lstm",
            Cell::CtLstm => "ct_lstm",
            Cell::Ssm => "ssm",
            Cell::LinearAttention => "linear_attention",
            Cell::Attention => "attention",
            Cell::Memory => "memory",
            Cell::GruD => "gru_d",
            Cell::Ode => "ode",
            Cell::Poisson => "poisson",
            Cell::GammaPoisson => "gamma_poisson",
            Cell::History => "history",
            Cell::Hawkes => "hawkes",
        }
    }
}

/// The law of the next event's time that a network gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Law {
    /// A mixture of log-normals.
    #[default]
    LognormalMixture,
    /// A constant hazard until the next event.
    Exponential,
    /// Weibull.
    Weibull,
    /// The law of RMTPP: a hazard that rises or dies away exponentially.
    Gompertz,
    /// A hazard in bins of the gap, as many as `components`.
    PiecewiseConstant,
    /// A Poisson rate of which a gamma law is known.
    GammaPoisson,
    /// Any intensity of each mark, by units that decay between events, as many as `components`; with `ct_lstm` the neural Hawkes process.
    Intensity,
}

impl Law {
    /// Its name in the pipeline file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Law::LognormalMixture => "lognormal_mixture",
            Law::Exponential => "exponential",
            Law::Weibull => "weibull",
            Law::Gompertz => "gompertz",
            Law::PiecewiseConstant => "piecewise_constant",
            Law::GammaPoisson => "gamma_poisson",
            Law::Intensity => "intensity",
        }
    }
}

/// How history is split into train, valid and test.
#[derive(Clone, Debug, PartialEq)]
pub enum Split {
    /// By key: of the keys in byte order, of every five the fourth is valid and the fifth is test.
    Key,
    /// By time: events from `valid` on are valid, from `test` on test. Without dates: the last 20 % and the 20 % before.
    Time {
        /// First valid time.
        valid: Option<EventTime>,
        /// First test time.
        test: Option<EventTime>,
    },
    /// By a text field of each event that says `train`, `valid` or `test` (anything else: only states advance).
    Field(String),
}
