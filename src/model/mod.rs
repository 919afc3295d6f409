//! The model package: a step graph, its named state tensors, and the batches it is run in. tract lives only here.

mod attention;
mod golden;
mod graph;
pub mod intensity;
pub mod manifest;
pub mod onnx;
mod package;
mod rounds;
mod step;

pub use attention::Attention;
pub use golden::{Golden, Mismatch};
pub use graph::Signature;
pub use package::Package;
pub use rounds::Rounds;
pub use step::{Memory, Model};

#[cfg(test)]
mod tests;
