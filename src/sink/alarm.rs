//! Alarms to a topic or a file, from a thread of their own: a lane that notices something must never wait until it is written.
//!
//! Alarms are sent at least once as long as their place can be written; one that cannot be sent is logged, as all alarms are, and counted.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use super::Settings;
use crate::base::error::{Error, Result};
use crate::data::alarm::Alarm;
#[cfg(feature = "kafka")]
use crate::sink::kafka::Outbox;

/// Alarms that may wait to be written; a place that takes none for so long has other alarms.
const WAITING: usize = 64;

/// How long the last alarms may take to be written.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where alarms are raised. All that were raised are written, or given up after 5 s, when it is dropped.
#[derive(Debug)]
pub struct Alarms {
    raised: Option<Sender<Alarm>>,
    /// Says when everything is written.
    end: Receiver<()>,
    patience: Duration,
    lost: Arc<AtomicU64>,
}

enum Place {
    #[cfg(feature = "kafka")]
    Topic(Box<Outbox>),
    File(std::fs::File, std::path::PathBuf),
    Stdout,
}

impl Alarms {
    /// Opens the place and starts the thread that writes to it.
    ///
    /// # Errors
    /// The topic or file cannot be opened, it is a folder of Parquet files, or this build has no Kafka.
    pub fn open(settings: &Settings) -> Result<Self> {
        let place = match settings {
            #[cfg(feature = "kafka")]
            Settings::Kafka { client, topic } => Place::Topic(Box::new(Outbox::open("alarm", client, topic)?)),
            #[cfg(not(feature = "kafka"))]
            Settings::Kafka { topic, .. } => return Err(super::connect::without_kafka(topic)),
            Settings::Ndjson { path } if path.as_os_str() == "-" => Place::Stdout,
            Settings::Ndjson { path } => {
                let file = std::fs::OpenOptions::new().create(true).append(true).open(path).map_err(|e| Error::io("alarm", path, e))?;
                Place::File(file, path.clone())
            }
            Settings::Parquet { .. } => return Err(Error::internal("alarm", "alarms are not written to Parquet")),
        };
        let (raised, waiting) = bounded(WAITING);
        let lost = Arc::new(AtomicU64::default());
        let counter = Arc::clone(&lost);
        let (ended, end) = bounded(1);
        let write = move || {
            write_all(place, &waiting, &counter);
            // Who does not wait any more does not want to know.
            let _ = ended.send(());
        };
        let writer = thread::Builder::new().name("alarms".to_owned()).spawn(write);
        writer.map_err(|e| Error::internal("alarm", "no thread for alarms").caused_by(e))?;
        Ok(Alarms { raised: Some(raised), end, patience: PATIENCE, lost })
    }

    /// Raises an alarm; never waits.
    pub fn raise(&self, alarm: Alarm) {
        let Some(raised) = &self.raised else { return };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = raised.try_send(alarm) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Alarms that could not be written.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Alarms {
    fn drop(&mut self) {
        self.raised = None;
        // The thread ends when all is written, or by a panic, which is in the log. A process that is to stop does not wait longer for a place that takes nothing.
        if self.end.recv_timeout(self.patience) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!(waited = ?self.patience, "alarms that were raised last could not be sent, and are given up");
        }
    }
}

fn write_all(mut place: Place, waiting: &Receiver<Alarm>, lost: &AtomicU64) {
    for alarm in waiting {
        if let Err(error) = write(&mut place, &alarm) {
            lost.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%error, kind = alarm.kind, "an alarm could not be sent");
        }
    }
}

fn write(place: &mut Place, alarm: &Alarm) -> Result<()> {
    let mut line = serde_json::to_vec(alarm).map_err(|e| Error::internal("alarm", e.to_string()))?;
    match place {
        #[cfg(feature = "kafka")]
        Place::Topic(outbox) => {
            outbox.begin();
            outbox.send(Some(alarm.pipeline.as_bytes()), None, &line)?;
            outbox.flush(true).map(|_| ())
        }
        Place::File(file, path) => {
            line.push(b'\n');
            file.write_all(&line).and_then(|()| file.sync_data()).map_err(|e| Error::io("alarm", path, e))
        }
        Place::Stdout => {
            line.push(b'\n');
            std::io::stdout().lock().write_all(&line).map_err(|e| Error::io("alarm", std::path::Path::new("stdout"), e))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alarm(windows: u64) -> Alarm {
        Alarm {
            kind: "drift",
            pipeline: "cards".to_owned(),
            time: "2026-01-01T00:00:00Z".to_owned(),
            windows,
            window_events: 10_000,
            distance: 0.05,
            bound: 0.0276,
            false_alarms: 0.001,
            mean_residual: 1.25,
            model: "m".to_owned(),
            model_version: "1".to_owned(),
            fingerprint: "f00d".to_owned(),
        }
    }

    #[test]
    fn all_alarms_that_were_raised_are_in_the_file_when_it_is_let_go_and_later_ones_are_appended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("alarms.ndjson");
        for run in 0..2 {
            let alarms = Alarms::open(&Settings::Ndjson { path: path.clone() }).unwrap();
            (0..3).for_each(|i| alarms.raise(alarm(run * 3 + i)));
            assert_eq!(alarms.lost(), 0);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let windows: Vec<_> =
            text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["windows"].as_u64()).collect();
        assert_eq!(windows, (0..6).map(Some).collect::<Vec<_>>());
        assert!(
            text.starts_with(r#"{"kind":"drift","pipeline":"cards","time":"2026-01-01T00:00:00Z","windows":0,"window_events":10000,"#),
            "{text}"
        );
    }

    #[test]
    fn a_place_that_takes_nothing_holds_nobody() {
        let (never, end) = bounded(1);
        let (raised, waiting) = bounded(WAITING);
        drop(Alarms { raised: Some(raised), end, patience: Duration::from_millis(1), lost: Arc::default() });
        drop((never, waiting));
    }

    #[test]
    fn a_place_that_cannot_be_opened_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let error = Alarms::open(&Settings::Ndjson { path: folder.path().join("no/such/file") }).unwrap_err();
        assert!(error.to_string().contains("no/such/file"), "{error}");
    }
}
