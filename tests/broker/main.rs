//! The Kafka edges against a real broker.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss
)]

mod harness;
mod sinks;
mod sources;

/// The shared broker, or `None` where there is none and tests are skipped.
fn broker() -> Option<&'static harness::Broker> {
    harness::broker(&[include_str!("sources.rs"), include_str!("sinks.rs")])
}
