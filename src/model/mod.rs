//! The model package: a step graph, its named state tensors, and the batches it is run in. tract lives only here.

pub mod manifest;
pub mod onnx;
