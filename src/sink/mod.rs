//! Forecasts and dead letters out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::error::Result;
use crate::base::offset::{Offset, Partition};
use crate::data::commit::{Commit, Commits};
use crate::data::forecasts::{Forecasts, Identity};
use crate::data::layout::Layout;
use crate::data::rejected::Rejected;
use crate::link::kafka::Client;
use crate::link::objects::Place;

pub mod alarm;
mod connect;
#[cfg(test)]
pub mod contract;
pub mod json;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod letters;
pub mod memory;
pub mod ndjson;
pub mod parquet;
pub mod void;

pub use connect::{check_connect, check_place, repeats};

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
    /// A folder of Parquet files, rolled by size and time.
    Parquet {
        /// The folder or bucket.
        place: Place,
        /// A file is closed when it has grown to about this many bytes.
        roll_bytes: u64,
        /// A file is closed when it has been open for this long.
        roll_every: Duration,
        /// Name of the pipeline, if the files are to be noted in a Delta log too.
        delta: Option<String>,
        /// Which folders the files of forecasts are in.
        folders: Folders,
    },
    /// One JSON object a line, to a file or to stdout (`-`).
    Ndjson {
        /// The file; `-` for stdout.
        path: PathBuf,
    },
}

/// Which folders the Parquet files of forecasts are in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Folders {
    /// One a partition: `partition-P/`.
    #[default]
    Partition,
    /// One a day, by the UTC date of the event's time, as Hive and the engines after it have them: `event_date=2026-11-25/`. Engines that are asked for
    /// some days leave the others unread.
    Date,
}

impl Settings {
    /// The file or folder of this machine, if it is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Settings::Kafka { .. } => None,
            Settings::Parquet { place, .. } => place.folder(),
            Settings::Ndjson { path } => Some(path),
        }
    }
}

/// What is promised when a stage is stopped in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Nothing is lost; after a crash some rows come again, with the same source position and the same bytes.
    AtLeastOnce,
    /// Rows and the offsets that cover them become visible together.
    ExactlyOnce,
}

/// What every sink does, whatever it takes. Timetable, on the lane's thread, per partition: `recover`, `begin`, then rows and epochs, then
/// `release`. For the sink as a whole: `write` (of the trait for its rows) any number of times; `end_epoch` when everything written so far belongs to
/// records below the given commits; note `written` then, and hold the offsets for committed once `durable` has come that far; `close`
/// once. `write`, `end_epoch` with force (or when `due`) and `close` may block on the edge (back-pressure), the others never do; an error
/// stops the lane and nothing above `durable` counts as written.
pub trait Sink: Send {
    /// How far this sink itself has made a partition's outputs visible. Sinks that do not keep offsets with their rows say `None`, and
    /// the source's committed offset holds.
    fn recover(&mut self, partition: Partition) -> Result<Option<Commit>> {
        let _ = partition;
        Ok(None)
    }
    /// The lane owns the partition now; rows follow that records from `from` on bring about.
    fn begin(&mut self, partition: Partition, from: Offset) -> Result<()> {
        let _ = (partition, from);
        Ok(())
    }
    /// The lane has let go of the partition, after a forced epoch. What is left of it, if it was lost before, is thrown away.
    fn release(&mut self, partition: Partition) -> Result<()> {
        let _ = partition;
        Ok(())
    }
    /// Rows handed in so far.
    fn written(&self) -> u64;
    /// Of the rows handed in, in their order, how many from the first on are known to be durable. Never goes back, never above `written`.
    fn durable(&mut self) -> Result<u64>;
    /// Whether the next `end_epoch` makes everything durable by itself: what must be durable before has to be so then. Changes only by the
    /// calls that change the sink, never by the time that passes between this one and the next.
    fn due(&self) -> bool {
        false
    }
    /// Whether an epoch's commit includes the source's offsets, so that nobody else is to commit them.
    fn keeps_offsets(&self) -> bool {
        false
    }
    /// Where the sink keeps offsets: those that have become visible since the last call.
    fn committed(&mut self) -> Result<Option<Commits>> {
        Ok(None)
    }
    /// Whether epochs become durable soon after they end, and not only when a file is rolled.
    fn is_prompt(&self) -> bool {
        true
    }
    /// Whether the epoch should end before more is written.
    fn is_full(&self) -> bool {
        false
    }
    /// Everything written so far, and all records below `commits`, are one epoch. Returns whether everything is durable now; a sink that rolls
    /// files says `false` until its files are closed, one that waits for acknowledgements until they have come; `force` waits.
    fn end_epoch(&mut self, commits: &Commits, force: bool) -> Result<bool>;
    /// Ends what is open and lets go. Rows after the last epoch are made durable where that does no harm, and thrown away where
    /// they would come twice.
    fn close(&mut self) -> Result<()>;
}

/// Takes forecasts.
pub trait ForecastSink: Sink {
    /// Takes rows; they need not be durable yet.
    fn write(&mut self, forecasts: &Forecasts) -> Result<()>;
}

/// Takes dead letters.
pub trait DeadLetterSink: Sink {
    /// Takes rejected records.
    fn write(&mut self, rejected: &Rejected) -> Result<()>;
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
        Settings::Parquet { place, roll_bytes, roll_every, delta, folders } => {
            let (roll_bytes, roll_every, delta, folders) = (*roll_bytes, *roll_every, delta.as_deref(), *folders);
            let opening = parquet::Opening { place, roll_bytes, roll_every, lane, delta, folders };
            Ok(Box::new(parquet::ParquetForecasts::open(opening, layout, identity)?))
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
            let encode =
                Box::new(move |rejected: &Rejected, row: usize, out: &mut Vec<u8>| json::bounded_dead_letter(rejected, row, &origin, out));
            Ok(Box::new(kafka::KafkaDeadLetters::open(client, topic, encode)?))
        }
        #[cfg(not(feature = "kafka"))]
        Settings::Kafka { topic, .. } => Err(connect::without_kafka(topic)),
        Settings::Parquet { place, roll_bytes, roll_every, delta, folders } => {
            let (roll_bytes, roll_every, delta, folders) = (*roll_bytes, *roll_every, delta.as_deref(), *folders);
            let opening = parquet::Opening { place, roll_bytes, roll_every, lane, delta, folders };
            Ok(Box::new(parquet::ParquetDeadLetters::open(opening, origin)?))
        }
        Settings::Ndjson { path } => Ok(Box::new(ndjson::NdjsonDeadLetters::open(path, origin)?)),
    }
}
