//! The pipeline file: as written, and as the plan that runs.

pub mod plan;
