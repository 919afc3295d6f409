//! The only place that knows the order of the stages: source, decode, order, features, model, head, sink.

mod bad_ratio;
mod golden;
mod lane;
mod partition;
mod recover;
mod stage;
mod tally;
mod worker;

pub use golden::check as check_golden;
pub use lane::Lane;
pub use stage::{Counts, Sinks, Stage, Stop};
pub use tally::{Calibration, Tally};

#[cfg(test)]
mod tests;
