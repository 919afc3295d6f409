//! Records in, positions back. A source is opened once and gives each lane a feed.

mod connect;
#[cfg(test)]
pub mod contract;
pub mod file;
pub mod generate;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod scripted;
mod start;

pub use connect::{cautions, check_connect};
pub use start::{Assignment, Start};

use std::collections::BTreeMap;

use std::time::Duration;

use crate::base::error::Result;
use crate::base::offset::{Offset, Partition};
use crate::base::time::EventTime;
use crate::data::commit::Commits;
use crate::data::input::Input;
use crate::link::file::Location;
use crate::link::kafka::{Client, Membership};

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
    /// A partition without records for so long is idle; `None`: never.
    pub idle_after: Option<Duration>,
    /// Stable name of this process among those of the group: static membership, and the root of its transactional ids.
    pub instance: Option<String>,
    /// Events before this time are left out: a backfill has taken them, and its states stand in a snapshot only.
    pub since: Option<EventTime>,
}

/// What to do about key states at start where no snapshot, or none that the log still reaches, is there to start from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnMissing {
    /// Not said: `Rebuild`, but where the model has changed since the commit and the beginning of the log is gone, `Fail`.
    #[default]
    Unsaid,
    /// Replay silently from the first record that the topic still has up to the committed offset.
    Rebuild,
    /// Start at the committed offset with empty states; every key starts cold.
    StartEmpty,
    /// As `Rebuild`, but stop with an error if retention has already deleted records that the states rest on.
    Fail,
}

/// Files.
#[derive(Clone, Debug, PartialEq)]
pub struct FileSettings {
    /// Files in the order in which they are read.
    pub paths: Vec<Location>,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Polled {
    /// `input` has been filled.
    Records,
    /// Nothing within the time given.
    Idle,
    /// A partition has had no record for a while and is read to its end: the clock on the wall says that event time has come so far.
    Quiet(Partition, EventTime),
    /// This lane is to own a partition: recover its states, then call `start`. Its records follow from then on.
    Assigned(Box<Assignment>),
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
/// stopped; `start` after each `Assigned`; `commit` (or `committed`) after the sink has made everything below durable; `released` after the
/// commit that follows a `Revoked`; `close` once at the end. Only `poll` may block, at most for `wait`; `commit` may block
/// as long as the broker needs. An error stops the lane.
pub trait Feed: Send {
    /// Waits up to `wait` for records and appends at most `max` of them to `input` (which the caller has cleared).
    fn poll(&mut self, max: usize, wait: Duration, input: &mut Input) -> Result<Polled>;
    /// Records of an assigned partition are wanted from `read_from` on; outputs are emitted from `live_from` on.
    fn start(&mut self, partition: Partition, read_from: Offset, live_from: Offset) -> Result<()>;
    /// Raises offsets over what follows in the log without being a record (marks of transactions): it is done as well.
    fn settle(&self, commits: &mut Commits) {
        let _ = commits;
    }
    /// Notes that all records below are done. Durable where the source can store it.
    fn commit(&mut self, commits: &Commits) -> Result<()>;
    /// Takes note that the sink has committed these offsets together with its rows.
    fn committed(&mut self, commits: &Commits) -> Result<()> {
        self.commit(commits)
    }
    /// Whether a partition that this lane has is not another one's already. One that is, is forgotten without a commit.
    fn owns(&self, partition: Partition) -> bool {
        let _ = partition;
        true
    }
    /// Whether an offset of the partition is known to be stored: only then does a snapshot say that there was one.
    fn has_stored(&self, partition: Partition) -> bool {
        let _ = partition;
        true
    }
    /// The membership in the consumer group, by which a sink commits offsets together with its rows; `None` where there is no group. From the
    /// call on the feed commits nothing itself.
    fn membership(&mut self) -> Option<Membership> {
        None
    }
    /// The lane has let go of a revoked partition.
    fn released(&mut self, partition: Partition);
    /// Whether an epoch ends behind what the last poll brought; `None` where the time decides. Where the feed decides, an epoch ends there and
    /// nowhere else, so that what is written is cut the same way every time.
    fn boundary(&self) -> Option<bool> {
        None
    }
    /// Whether the input goes on elsewhere when this feed has ended: what is held back is then not released.
    fn goes_on(&self) -> bool {
        false
    }
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

    fn start(&mut self, _partition: Partition, _read_from: Offset, _live_from: Offset) -> Result<()> {
        Ok(())
    }

    fn commit(&mut self, _commits: &Commits) -> Result<()> {
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
