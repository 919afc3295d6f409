//! Forecasts and dead letters out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::error::{Error, Result};
use crate::data::forecasts::Forecasts;
use crate::data::rejected::Rejected;
use crate::link::kafka::Client;

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

/// Whether forecasts or dead letters can be written there, for `check --connect`; gives a line to print for each thing that was
/// found. Leaves nothing behind but the folders that `run` would make too.
///
/// # Errors
/// A folder cannot be made or written, a broker cannot be reached, a topic is missing or may not be written, or this build has no Kafka.
pub fn check_connect(settings: &Settings) -> Result<Vec<String>> {
    match settings {
        Settings::Parquet { path, .. } => {
            check_folder(path)?;
            Ok(vec![format!("folder {} is writable", path.display())])
        }
        Settings::Ndjson { path } if path == Path::new("-") => Ok(vec!["stdout".to_owned()]),
        Settings::Ndjson { path } => {
            if path.is_dir() {
                return Err(Error::config("sink", "it is a folder, a file is wanted")
                    .at(path.display().to_string())
                    .help("name a file in it"));
            }
            if path.exists() {
                std::fs::OpenOptions::new().append(true).open(path).map_err(|e| Error::io("sink", path, e))?;
            } else {
                // A relative path of one part has the empty parent, which means here.
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                check_folder(parent)?;
            }
            Ok(vec![format!("file {} is writable", path.display())])
        }
        Settings::Kafka { client, topic } => check_kafka(client, topic),
    }
}

/// Makes a folder and writes a file of no name in it, which is removed again.
fn check_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io("sink", folder, e))?;
    let probe = folder.join(format!(".meantime-check-{}", std::process::id()));
    std::fs::File::create_new(&probe).map_err(|e| Error::io("sink", folder, e))?;
    std::fs::remove_file(&probe).map_err(|e| Error::io("sink", &probe, e))
}

#[cfg(feature = "kafka")]
fn check_kafka(_client: &Client, topic: &str) -> Result<Vec<String>> {
    // JOIN: kafka::check_connect(client, topic)
    Err(Error::internal("sink", format!("the Kafka sink is not part of this build, so topic `{topic}` was not looked for")))
}

#[cfg(not(feature = "kafka"))]
fn check_kafka(_client: &Client, topic: &str) -> Result<Vec<String>> {
    Err(Error::config("sink", format!("this meantime was built without Kafka, but the sink is the topic `{topic}`"))
        .help("build it with the feature `kafka` (cargo build --features kafka), or write files"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_of_files_connects_where_its_folder_can_be_written_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er");
        let parquet = Settings::Parquet { path: path.clone(), roll_bytes: 1, roll_every: Duration::from_secs(1) };
        assert!(check_connect(&parquet).is_ok());
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
        assert!(check_connect(&Settings::Ndjson { path: path.join("out.ndjson") }).is_ok());
        assert!(check_connect(&Settings::Ndjson { path: path.clone() }).is_err(), "a folder is not a file");
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert!(check_connect(&Settings::Ndjson { path: folder.path().join("file/out.ndjson") }).is_err());
    }
}
