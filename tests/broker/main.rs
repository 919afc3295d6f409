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

mod fail_points;
mod hand_over;
mod harness;
mod kills;
mod model_change;
mod overdue;
mod pipelines;
mod restarts;
mod sinks;
mod sources;
mod trial;
mod wire;

/// The shared broker, or `None` where there is none and tests are skipped. `RUST_LOG` shows what edges and librdkafka log.
fn broker() -> Option<&'static harness::Broker> {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    }
    harness::broker(&[
        include_str!("sources.rs"),
        include_str!("sinks.rs"),
        include_str!("pipelines.rs"),
        include_str!("kills.rs"),
        include_str!("fail_points.rs"),
        include_str!("overdue.rs"),
        include_str!("model_change.rs"),
        include_str!("hand_over.rs"),
        include_str!("restarts.rs"),
    ])
}
