//! One key's events with what the model thought between them.

use serde::Serialize;

/// A key's events.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct KeyHistory {
    /// The key.
    pub key: String,
    /// Its last events, at most so many as are plotted.
    pub events: Vec<Arrival>,
    /// Between them.
    pub curve: Vec<Moment>,
    /// Of a model with attention, the weight that each event gives to the last n events, the oldest first and itself last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attention: Vec<Vec<f32>>,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Arrival {
    /// When, in hours since the first one shown.
    pub hour: f64,
    /// When, as text.
    pub time: String,
    /// Surprise of its time in nats; NaN for a first one.
    pub surprise: f64,
    /// Its mark, if it has one that the model knows.
    pub mark: Option<String>,
}

/// A moment between two events.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Moment {
    /// When, in hours since the first event shown.
    pub hour: f64,
    /// Intensity, per unit of the law.
    pub intensity: f64,
    /// Probability that no event has come since the last one.
    pub survival: f64,
}
