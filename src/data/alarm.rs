//! What people should look at, as it is sent to `[alarm]`.

use serde::Serialize;

/// One alarm. Its JSON form is a contract (`docs/operations.md`): fields are added, never changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alarm {
    /// What has happened: `drift`.
    pub kind: &'static str,
    /// The pipeline.
    pub pipeline: String,
    /// When it was noticed, by the clock on the wall, RFC 3339.
    pub time: String,
    /// Windows one after the other that have drifted by now.
    pub windows: u64,
    /// Events of a window.
    pub window_events: usize,
    /// Largest distance between the window's residuals and those from after the start.
    pub distance: f64,
    /// What an unchanged law passes with the probability `false_alarms`.
    pub bound: f64,
    /// How often an unchanged law would raise the alarm, per window.
    pub false_alarms: f64,
    /// Mean residual of the window: above 1, events come later than the law says.
    pub mean_residual: f64,
    /// Name of the model package.
    pub model: String,
    /// Its version.
    pub model_version: String,
    /// Hash of everything that key states depend on.
    pub fingerprint: String,
}
