//! The only place that knows the order of the stages: source, decode, order, features, model, head, sink.

mod bad_ratio;
mod board;
mod counts;
mod exposition;
mod extremes;
mod golden;
mod hand_over;
mod lane;
pub mod migrate;
mod overdue;
mod partition;
mod pulse;
mod recover;
mod shadow;
mod snapshots;
mod stage;
mod tally;
mod trust;
mod worker;

pub use board::{Partitions, Replay, Standing};
pub use counts::Counts;
pub use exposition::{CONTENT_TYPE, Exposition};
pub use golden::check as check_golden;
pub use hand_over::hand_over;
pub use lane::{Arrived, Effect, Lane, Pick, Point, mix};
pub use pulse::{Pulse, Pulses};
pub use shadow::compare::{Alerts, Differences, Losses, PARTS};
pub use shadow::{Judged, ShadowCounts};
pub use stage::{Beside, Sinks, Stage, Stop};
pub use tally::{Calibration, Raise, Tally};
pub use trust::{Drift, Reading, Trust};

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
