//! The figures of a comparison, as they are printed and written.

use serde::Serialize;

/// A whole report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Name of the pipeline.
    pub pipeline: String,
    /// What there was.
    pub before: Side,
    /// What comes out.
    pub after: Side,
    /// Only events from this time on.
    pub since: Option<String>,
    /// Only events up to this time.
    pub until: Option<String>,
    /// Only events of this key.
    pub key: Option<String>,
    /// Fields that only one side has.
    pub only_before: Vec<String>,
    /// Fields that only the other has.
    pub only_after: Vec<String>,
    /// Events of which only one side has a forecast.
    pub events_only_before: usize,
    /// Events of which only the other has one.
    pub events_only_after: usize,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// The figures.
    #[serde(flatten)]
    pub figures: Figures,
}

/// Who has made forecasts.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Side {
    /// Model and version, or where what was sent was read.
    pub name: String,
    /// Kind of head; empty where it is not known.
    pub head: String,
    /// Fingerprint; empty where it is not known.
    pub fingerprint: String,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Events that both sides have a forecast of.
    pub events: usize,
    /// Of these, events that quantiles and distances are of.
    pub sampled: usize,
    /// Mean losses.
    pub likelihood: Likelihood,
    /// Alerts, where a threshold was given.
    pub decisions: Option<Decisions>,
    /// Each field that both sides have.
    pub fields: Vec<FieldShift>,
    /// The field that keys are ranked by.
    pub ranked_by: Option<String>,
    /// Keys with the largest changes, the largest first.
    pub top: Vec<TopKey>,
}

/// Mean losses in nats per event; less is better.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Likelihood {
    /// Negative log-likelihood of the times of events, in the time unit of the model before.
    pub time: Option<Gain>,
    /// Of their marks.
    pub mark: Option<Gain>,
    /// Log loss of the score, where labels are known.
    pub label: Option<Gain>,
}

/// A loss on both sides, over the events that have it on both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gain {
    /// How many.
    pub events: usize,
    /// Mean before.
    pub before: f64,
    /// Mean after.
    pub after: f64,
    /// After less before: below 0 is better.
    pub change: f64,
    /// Standard error of the change, as if events were independent.
    pub standard_error: f64,
}

/// Alerts at a threshold.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Decisions {
    /// The field.
    pub field: String,
    /// From this value on there is an alert.
    pub threshold: f64,
    /// Events with a value on both sides.
    pub events: usize,
    /// Alerts before.
    pub alerts_before: usize,
    /// Alerts after.
    pub alerts_after: usize,
    /// Alerts that there were none before.
    pub new_alerts: usize,
    /// Alerts that there are none any more.
    pub lost_alerts: usize,
}

/// How a field has moved.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FieldShift {
    /// Its name.
    pub name: String,
    /// Its unit, if it has one.
    pub unit: String,
    /// Its distribution before.
    pub before: Spread,
    /// And after.
    pub after: Spread,
    /// Mean of |after - before| over events that have both.
    pub mean_absolute_change: Option<f64>,
    /// Kolmogorov and Smirnov's distance of the two.
    pub ks: Option<f64>,
    /// Population stability index; of probabilities only.
    pub psi: Option<f64>,
}

/// A distribution.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Values there are.
    pub values: usize,
    /// Their mean.
    pub mean: Option<f64>,
    /// Quantile 0.05.
    pub q05: Option<f64>,
    /// Quantile 0.25.
    pub q25: Option<f64>,
    /// Median.
    pub q50: Option<f64>,
    /// Quantile 0.75.
    pub q75: Option<f64>,
    /// Quantile 0.95.
    pub q95: Option<f64>,
}

/// A key with its largest change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TopKey {
    /// The key.
    pub key: String,
    /// The event at which it changes most.
    pub event_time: String,
    /// Value before.
    pub before: f64,
    /// Value after.
    pub after: f64,
    /// The difference, or of a time ln of the ratio.
    pub change: f64,
}
