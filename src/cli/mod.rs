//! One file per command; here only what they share.

pub mod generate;
pub mod progress;
