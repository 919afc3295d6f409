//! The model package: a step graph, its named state tensors, and the batches it is run in. tract lives only here.

mod attention;
pub mod cohorts;
mod eval;
mod external;
mod golden;
mod graph;
pub mod intensity;
pub mod manifest;
pub mod onnx;
mod package;
mod probes;
pub mod quantize;
mod rounds;
mod step;
mod sums;
pub mod tensors;
pub mod write;

pub use attention::Attention;
pub use golden::{Golden, Mismatch, field_column, list_column, to_parquet};
pub use graph::Signature;
pub use package::Package;
pub use probes::Probes;
pub use rounds::Rounds;
pub use step::{Memory, Model};

#[cfg(test)]
mod tests;
