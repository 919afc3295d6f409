//! Forecasts and dead letters out.

use std::path::PathBuf;
use std::time::Duration;

use crate::base::error::Result;
use crate::data::forecasts::{Forecasts, Identity};
use crate::data::layout::Layout;
use crate::data::rejected::Rejected;
use crate::link::kafka::Client;

#[cfg(test)]
pub mod contract;
mod connect;
pub mod json;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod memory;
pub mod ndjson;
pub mod parquet;

pub use connect::check_connect;

/// Where forecasts or dead letters go, as the plan has checked it.
#[derive(Clone, Debug, PartialEq)]
pub enum Settings {
    /// A Kafka topic, JSON values, the event's key as record key, the source position in the headers.
    Kafka {
        /// How to reach the cluster.
        client: Client,
        /// Topic to write.
        topic: String,
    },
    /// A folder of Parquet files, one sub-folder a partition, rolled by size and time.
    Parquet {
        /// The folder.
        path: PathBuf,
        /// A file is closed when it has grown to about this many bytes.
        roll_bytes: u64,
        /// A file is closed when it has been open for this long.
        roll_every: Duration,
    },
    /// One JSON object a line, to a file or to stdout (`-`).
    Ndjson {
        /// The file; `-` for stdout.
        path: PathBuf,
    },
}

/// Takes forecasts. Timetable, on the lane's thread: `write` any number of times; when an epoch ends note `written` beside its positions,
/// and commit them once `durable` has come that far; `flush` with force when that must be now (revocation, end); `close` once. `write`,
/// `flush(true)` and `close` may block on the edge (back-pressure), `durable` and `flush(false)` never do; an error stops the lane and
/// nothing above `durable` counts as written.
pub trait ForecastSink: Send {
    /// Takes rows; they need not be durable yet.
    fn write(&mut self, forecasts: &Forecasts) -> Result<()>;
    /// Rows handed in so far.
    fn written(&self) -> u64;
    /// Of the rows handed in, in their order, how many from the first on are known to be durable. Never goes back, never above `written`.
    fn durable(&mut self) -> Result<u64>;
    /// Makes what was written durable (acknowledged, synced) if the sink does so now. Returns whether **everything** written so far is
    /// durable. A sink that rolls files says `false` until its file is closed; `force` closes it now.
    fn flush(&mut self, force: bool) -> Result<bool>;
    /// Flushes with force and lets go.
    fn close(&mut self) -> Result<()>;
}

/// Takes dead letters; timetable as for `ForecastSink`.
pub trait DeadLetterSink: Send {
    /// Takes rejected records.
    fn write(&mut self, rejected: &Rejected) -> Result<()>;
    /// As `ForecastSink::written`.
    fn written(&self) -> u64;
    /// As `ForecastSink::durable`.
    fn durable(&mut self) -> Result<u64>;
    /// As `ForecastSink::flush`.
    fn flush(&mut self, force: bool) -> Result<bool>;
    /// Flushes with force and lets go.
    fn close(&mut self) -> Result<()>;
}

/// Opens the sink for forecasts of lane `lane`. Several lanes may write to one folder, file or topic, each its own partitions.
///
/// # Errors
/// The sink cannot be reached or made, or this build does not have that kind.
pub fn open_forecasts(settings: &Settings, layout: &Layout, identity: &Identity, lane: usize) -> Result<Box<dyn ForecastSink>> {
    match settings {
        #[cfg(feature = "kafka")]
        Settings::Kafka { client, topic } => {
            let mut encoder = json::RowEncoder::new(layout, identity);
            let encode = Box::new(move |forecasts: &Forecasts, row: usize, out: &mut Vec<u8>| encoder.row(forecasts, row, out));
            Ok(Box::new(kafka::KafkaForecasts::open(client, topic, encode)?))
        }
        #[cfg(not(feature = "kafka"))]
        Settings::Kafka { topic, .. } => Err(connect::without_kafka(topic)),
        Settings::Parquet { path, roll_bytes, roll_every } => {
            let place = parquet::Place { path, roll_bytes: *roll_bytes, roll_every: *roll_every, lane };
            Ok(Box::new(parquet::ParquetForecasts::open(place, layout, identity)?))
        }
        Settings::Ndjson { path } => Ok(Box::new(ndjson::NdjsonForecasts::open(path, layout, identity)?)),
    }
}

/// Opens the sink for dead letters of lane `lane`. `origin` says where the records come from: the topic or the files.
///
/// # Errors
/// As `open_forecasts`.
pub fn open_dead_letters(settings: &Settings, origin: &str, lane: usize) -> Result<Box<dyn DeadLetterSink>> {
    match settings {
        #[cfg(feature = "kafka")]
        Settings::Kafka { client, topic } => {
            let origin = origin.to_owned();
            let encode = Box::new(move |rejected: &Rejected, row: usize, out: &mut Vec<u8>| json::dead_letter(rejected, row, &origin, out));
            Ok(Box::new(kafka::KafkaDeadLetters::open(client, topic, encode)?))
        }
        #[cfg(not(feature = "kafka"))]
        Settings::Kafka { topic, .. } => Err(connect::without_kafka(topic)),
        Settings::Parquet { path, roll_bytes, roll_every } => {
            let place = parquet::Place { path, roll_bytes: *roll_bytes, roll_every: *roll_every, lane };
            Ok(Box::new(parquet::ParquetDeadLetters::open(place, origin)?))
        }
        Settings::Ndjson { path } => Ok(Box::new(ndjson::NdjsonDeadLetters::open(path, origin)?)),
    }
}
