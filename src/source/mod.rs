//! Records in, positions back. A source is opened once and gives each lane a feed.

mod connect;
#[cfg(test)]
pub mod contract;
pub mod file;
pub mod generate;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod scripted;

pub use connect::check_connect;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::error::Result;
use crate::base::offset::{Offset, Partition};
use crate::data::input::Input;
use crate::data::positions::Positions;
use crate::link::kafka::Client;

/// Where records come from, as the plan has checked it.
#[derive(Clone, Debug, PartialEq)]
pub enum Settings {
    /// A Kafka topic, read as a member of a consumer group.
    Kafka(KafkaSettings),
    /// Parquet or NDJSON files, read once from beginning to end as partition 0.
    File(FileSettings),
    /// A seeded stream with a known law.
    Generate(GenerateSettings),
}

/// A Kafka topic.
#[derive(Clone, Debug, PartialEq)]
pub struct KafkaSettings {
    /// How to reach the cluster.
    pub client: Client,
    /// Topic to read.
    pub topic: String,
    /// Consumer group whose offsets are committed.
    pub group: String,
    /// What to do on start where records below the committed offset are needed to rebuild key states.
    pub on_missing: OnMissing,
}

/// What to do about key states at start while there are no snapshots: all of them come from the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnMissing {
    /// Replay silently from the first record that the topic still has up to the committed offset.
    #[default]
    Rebuild,
    /// Start at the committed offset with empty states; every key starts cold.
    StartEmpty,
    /// As `Rebuild`, but stop with an error if retention has already deleted the beginning of a partition.
    Fail,
}

/// Files.
#[derive(Clone, Debug, PartialEq)]
pub struct FileSettings {
    /// Files in the order in which they are read.
    pub paths: Vec<PathBuf>,
}

/// Which generated stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Card payments: daily-rhythm renewal with bursts of fraud and a label.
    Cards,
    /// Hospital visits: self-exciting readmissions with ten diagnosis marks.
    Visits,
    /// Device telemetry: heartbeats with drift and outages.
    Telemetry,
}

/// A generated stream.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateSettings {
    /// Which.
    pub stream: Stream,
    /// Number of events.
    pub events: u64,
    /// Number of keys.
    pub keys: u32,
    /// Seed: the same seed gives the same bytes on every machine.
    pub seed: u64,
}

/// What a poll brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// `input` has been filled.
    Records,
    /// Nothing within the time given.
    Idle,
    /// This lane now owns a partition. Records from the next polls on belong to it. What comes below
    /// `live_from` is silent replay: states advance, nothing is emitted.
    Assigned {
        /// The partition.
        partition: Partition,
        /// First offset whose forecasts are to be emitted.
        live_from: Offset,
    },
    /// The partition is to be given up: commit what is done, then call `released`. No more records of it follow.
    Revoked(Partition),
    /// There will be no more records: the files are read, or the end offsets seen at start are reached.
    Ended,
}

/// How far a source has handed a partition out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handed {
    /// The partition.
    pub partition: Partition,
    /// All records below it have been handed out; right after the assignment this is where reading begins.
    pub next: Offset,
    /// Offset that the log will give next, as last heard; `None` where that is not known.
    pub end: Option<Offset>,
}

/// One lane's end of a source. Timetable, all on the lane's thread: `poll` until it says `Ended` or the lane is
/// stopped; `commit` after the sink has made everything below the positions durable; `released` after the commit
/// that follows a `Revoked`; `close` once at the end. Only `poll` may block, at most for `wait`; `commit` may block
/// as long as the broker needs. An error stops the lane.
pub trait Feed: Send {
    /// Waits up to `wait` for records and appends at most `max` of them to `input` (which the caller has cleared).
    fn poll(&mut self, max: usize, wait: Duration, input: &mut Input) -> Result<Polled>;
    /// Notes that all records below the positions are done. Durable where the source can store it.
    fn commit(&mut self, positions: &Positions) -> Result<()>;
    /// The lane has let go of a revoked partition.
    fn released(&mut self, partition: Partition);
    /// Records that are known to be waiting, for progress; `None` where the source cannot know.
    fn backlog(&self) -> Option<u64>;
    /// Tells `note` how far each partition of this lane has been handed out and where its log ends, for lag and health. Never blocks.
    fn handed(&self, _note: &mut dyn FnMut(Handed)) {}
    /// Leaves the source; what was not committed will be read again.
    fn close(&mut self) -> Result<()>;
}

/// How a source is to be opened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Opening {
    /// Number of lanes, at least 1; as many feeds are returned.
    pub lanes: usize,
    /// End once the end offsets seen at start are committed (Kafka; the others always end).
    pub until_caught_up: bool,
    /// Fields that `decode` will ask for; lets a Parquet file be read by column.
    pub fields: Vec<String>,
    /// Extra client settings for tests, over those of the pipeline.
    pub overrides: BTreeMap<String, String>,
}

/// Opens a source: one feed for each of `opening.lanes` (at least one). Files and generated streams are one partition, so their first feed gets
/// everything and the others end at once.
///
/// # Errors
/// A file, the broker or the topic cannot be reached or read, or this build does not have that kind of source.
pub fn open(settings: &Settings, opening: &Opening) -> Result<Vec<Box<dyn Feed>>> {
    let first: Box<dyn Feed> = match settings {
        #[cfg(feature = "kafka")]
        Settings::Kafka(settings) => return kafka::open(settings, opening),
        #[cfg(not(feature = "kafka"))]
        Settings::Kafka(settings) => return Err(connect::without_kafka(&settings.topic)),
        Settings::File(settings) => Box::new(file::FileFeed::open(settings, opening)?),
        Settings::Generate(settings) => Box::new(generate::GenerateFeed::open(settings)?),
    };
    let others = (1..opening.lanes).map(|_| Box::new(NoRecords) as Box<dyn Feed>);
    Ok(std::iter::once(first).chain(others).collect())
}

/// The feed of a lane that gets no partition.
struct NoRecords;

impl Feed for NoRecords {
    fn poll(&mut self, _max: usize, _wait: Duration, _input: &mut Input) -> Result<Polled> {
        Ok(Polled::Ended)
    }

    fn commit(&mut self, _positions: &Positions) -> Result<()> {
        Ok(())
    }

    fn released(&mut self, _partition: Partition) {}

    fn backlog(&self) -> Option<u64> {
        Some(0)
    }

    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}
