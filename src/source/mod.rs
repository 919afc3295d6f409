//! Records in, positions back. A source is opened once and gives each lane a feed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::error::{Error, Result};
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

/// Whether the source can be reached, for `check --connect`; gives a line to print for each thing that was found.
///
/// # Errors
/// A file cannot be opened, a broker cannot be reached, a topic is missing or may not be read, or this build has no Kafka.
pub fn check_connect(settings: &Settings) -> Result<Vec<String>> {
    match settings {
        Settings::File(files) => {
            let mut bytes = 0;
            for path in &files.paths {
                let size = std::fs::File::open(path).and_then(|file| file.metadata()).map_err(|e| Error::io("source", path, e))?.len();
                bytes += size;
            }
            let count = files.paths.len();
            Ok(vec![format!("{count} {} readable, {bytes} bytes", if count == 1 { "file" } else { "files" })])
        }
        Settings::Generate(generate) => Ok(vec![format!("generated, {} events of {} keys", generate.events, generate.keys)]),
        Settings::Kafka(kafka) => check_kafka(kafka),
    }
}

#[cfg(feature = "kafka")]
fn check_kafka(settings: &KafkaSettings) -> Result<Vec<String>> {
    // JOIN: kafka::check_connect(settings)
    Err(Error::internal("source", format!("the Kafka source is not part of this build, so topic `{}` was not looked for", settings.topic)))
}

#[cfg(not(feature = "kafka"))]
fn check_kafka(settings: &KafkaSettings) -> Result<Vec<String>> {
    Err(Error::config("source", format!("this meantime was built without Kafka, but the source is the topic `{}`", settings.topic))
        .help("build it with the feature `kafka` (cargo build --features kafka), or read files"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_source_connects_if_every_file_can_be_opened() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("a.ndjson");
        std::fs::write(&there, "{}\n").unwrap();
        let lines = check_connect(&Settings::File(FileSettings { paths: vec![there.clone()] })).unwrap();
        assert_eq!(lines, ["1 file readable, 3 bytes"]);
        let error = check_connect(&Settings::File(FileSettings { paths: vec![there, folder.path().join("b.ndjson")] })).unwrap_err();
        assert!(error.to_string().contains("b.ndjson"), "{error}");
    }
}
