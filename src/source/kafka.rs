//! A Kafka topic as a source: one consumer in a group, a queue per partition, the partitions spread over the lanes.
//!
//! Who does what: librdkafka's threads fetch. Each lane takes records from the queues of its partitions; a thread of its own commits
//! what lanes have done. One control thread serves the consumer: it keeps the membership of the group alive, decides where a new partition starts, and at a rebalance
//! waits (bounded) until the lanes have let go of what is taken away. Nothing but noting the event happens in librdkafka's callback.
//!
//! Delivery is at least once: a position is committed after the lane says that everything below it is done, and what a crash leaves
//! uncommitted is read again. Records of aborted transactions are never seen.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::{Feed, KafkaSettings, Opening};
use crate::base::clock;
use crate::base::error::{Error, Result};
use crate::base::guard::guarded;
use crate::base::time::EventTime;
use crate::link::kafka::{Client, Probe, explain};

mod awake;
mod check;
mod committer;
mod control;
pub mod hand_over;
mod lane;
mod member;
mod watch;

pub use check::{cautions, check_connect};

use control::Control;
use lane::Lane;
use watch::Watch;

const STAGE: &str = "source";
/// After this time a member that was silent is taken for dead, unless the pipeline says otherwise.
const SESSION: Duration = Duration::from_secs(10);

/// How long a member may take for a rebalance, unless the pipeline says otherwise: librdkafka's `max.poll.interval.ms`.
const REBALANCE: Duration = Duration::from_secs(300);

/// Opens a topic: checks that it is there, joins the group and returns one feed per lane. Partition `p` belongs to lane `p % lanes`.
///
/// # Errors
/// Configuration for a refused client setting or a topic that is not there, unavailable if no broker answers within 5 s.
pub fn open(settings: &KafkaSettings, opening: &Opening) -> Result<Vec<Box<dyn Feed>>> {
    let client = &settings.client;
    let (ends, partitions) = survey(settings, opening.until_caught_up)?;
    let config = config(settings, opening);
    let session = config.get("session.timeout.ms").and_then(|text| text.parse().ok()).map_or(SESSION, Duration::from_millis);
    let drain = drain(config.get("max.poll.interval.ms"));
    let shared = Arc::new(Shared::new(settings, session, ends));
    let watch = Watch::new(Arc::clone(&shared));
    let consumer = BaseConsumer::from_config_and_context(&config, watch)
        .map_err(|error| explain(STAGE, client, &settings.topic, "open the consumer", &error))?;
    consumer.subscribe(&[&settings.topic]).map_err(|error| explain(STAGE, client, &settings.topic, "subscribe to the topic", &error))?;
    let consumer = Arc::new(consumer);
    let (notes, heard) = crossbeam_channel::unbounded();
    let lanes = opening.lanes.max(1);
    let runner = Arc::new(Runner { open: AtomicUsize::new(lanes), control: Mutex::new(None) });
    let mut ends_of_lanes = Vec::new();
    let mut feeds: Vec<Box<dyn Feed>> = Vec::new();
    for _ in 0..lanes {
        let (orders, received) = crossbeam_channel::unbounded();
        let bell = Arc::new(Bell::default());
        ends_of_lanes.push(control::LaneEnd { orders, bell: Arc::clone(&bell) });
        feeds.push(Box::new(Lane::new(Arc::clone(&consumer), Arc::clone(&shared), Arc::clone(&runner), received, notes.clone(), bell)));
    }
    let control = Control::new(
        consumer,
        Arc::clone(&shared),
        (settings.on_missing, settings.since.is_some(), drain),
        partitions,
        ends_of_lanes,
        heard,
    );
    let thread = std::thread::Builder::new().name("kafka-source".to_owned()).spawn(move || {
        // Lanes look for a failure each time they find nothing to do.
        if let Err(error) = guarded(STAGE, "the thread of the Kafka consumer", || control.run()) {
            shared.fail(error);
        }
    });
    match thread {
        Ok(handle) => *runner.control.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle),
        Err(error) => return Err(Error::internal(STAGE, "no thread for the Kafka consumer").caused_by(error)),
    }
    Ok(feeds)
}

/// How long lanes may take to let go of partitions: most of what the group allows for a rebalance, so that files can be closed on a slow store.
fn drain(max_poll_interval: Option<&str>) -> Duration {
    let allowed = max_poll_interval.and_then(|text| text.parse().ok()).map_or(REBALANCE, Duration::from_millis);
    allowed * 4 / 5
}

/// What is there: number of partitions, and if asked the end of each one that holds records.
fn survey(settings: &KafkaSettings, until_caught_up: bool) -> Result<(Option<BTreeMap<i32, i64>>, usize)> {
    let probe = Probe::new(STAGE, &settings.client, None)?;
    let (_, partitions) = probe.topic(&settings.topic)?;
    if !until_caught_up {
        return Ok((None, partitions));
    }
    let ends = probe.ends(&settings.topic, partitions)?;
    let ends = ends.into_iter().filter(|(_, low, high)| high > low).map(|(partition, _, high)| (partition, high)).collect();
    Ok((Some(ends), partitions))
}

/// Settings of the consumer: first what a user may change, then the user's, then what correctness rests on, last those of a test.
fn config(settings: &KafkaSettings, opening: &Opening) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("isolation.level", "read_committed")
        // A crashed member is noticed after this time; its partitions go to others (or to its restart) then.
        .set("session.timeout.ms", SESSION.as_millis().to_string())
        // Members learn of a rebalance with a heartbeat: this is about how long a partition rests while it moves.
        .set("heartbeat.interval.ms", "1000")
        // Per partition: enough to bridge a round trip of 20 ms at half a million records a second.
        .set("queued.min.messages", "10000")
        .set("queued.max.messages.kbytes", "32768")
        // The default of 1 s starves a fast lane each time its queue was full.
        .set("fetch.queue.backoff.ms", "5")
        .set("fetch.error.backoff.ms", "200")
        .set("reconnect.backoff.max.ms", "2000")
        .set("statistics.interval.ms", "0");
    let given = settings.client.config();
    config.set_log_level(given.log_level);
    for name in ["client.id", "bootstrap.servers"].into_iter().chain(settings.client.settings.keys().map(String::as_str)) {
        if let Some(value) = given.get(name) {
            config.set(name, value);
        }
    }
    config
        .set("group.id", &settings.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("partition.assignment.strategy", "cooperative-sticky")
        // Every partition is given its first offset here. If the log does not have an offset that is asked for, records were deleted
        // before they were read or the topic was made anew: that is an error, never a silent jump.
        .set("auto.offset.reset", "error");
    if let Some(instance) = &settings.instance {
        config.set("group.instance.id", instance);
    }
    for (name, value) in &opening.overrides {
        config.set(name, value);
    }
    config
}

/// The control thread, joined by the last lane that leaves.
struct Runner {
    open: AtomicUsize,
    control: Mutex<Option<JoinHandle<()>>>,
}

impl Runner {
    fn left(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            let handle = self.control.lock().unwrap_or_else(PoisonError::into_inner).take();
            if handle.is_some_and(|handle| handle.join().is_err()) {
                tracing::error!("the thread of the Kafka consumer has panicked");
            }
        }
    }
}

/// Wakes a lane that waits for records or orders.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    wake: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_one();
    }

    /// Waits until the bell has been rung since the last wait, at most for `limit`.
    fn wait(&self, limit: Duration) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut rung, _) = self.wake.wait_timeout_while(rung, limit, |rung| !*rung).unwrap_or_else(PoisonError::into_inner);
        *rung = false;
    }
}

/// What lanes and control know in common.
struct Shared {
    client: Client,
    topic: String,
    group: String,
    /// Ends of the partitions that held records at start; only where the source is to end there.
    ends: Option<BTreeMap<i32, i64>>,
    /// The group has committed all of `ends`.
    finished: AtomicBool,
    failed: AtomicBool,
    failure: Mutex<Option<Error>>,
    /// What lanes want committed.
    desk: committer::Desk,
    /// Offsets that the group coordinator has acknowledged.
    acked: Mutex<BTreeMap<i32, i64>>,
    acked_changed: Condvar,
    /// Next offset of each partition, as of a second or two ago.
    latest: Mutex<BTreeMap<i32, i64>>,
    /// When that was asked for: on the clock that never goes back, and on the wall.
    looked: Mutex<Option<(Instant, EventTime)>>,
    /// A partition without records for so long is idle.
    idle_after: Option<Duration>,
    /// Whether the process stands still.
    awake: awake::Awake,
    /// Partitions that this member holds, with the number of the assignment; the flag turns to `false` when one is no longer ours to commit.
    ours: Mutex<BTreeMap<i32, (u64, Arc<AtomicBool>)>>,
}

impl Shared {
    fn new(settings: &KafkaSettings, session: Duration, ends: Option<BTreeMap<i32, i64>>) -> Self {
        Shared {
            client: settings.client.clone(),
            topic: settings.topic.clone(),
            group: settings.group.clone(),
            ends,
            finished: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
            desk: committer::Desk::default(),
            acked: Mutex::new(BTreeMap::new()),
            acked_changed: Condvar::new(),
            latest: Mutex::new(BTreeMap::new()),
            looked: Mutex::new(None),
            idle_after: settings.idle_after,
            awake: awake::Awake::new(session),
            ours: Mutex::new(BTreeMap::new()),
        }
    }

    fn acked(&self) -> MutexGuard<'_, BTreeMap<i32, i64>> {
        self.acked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn looked(&self) -> MutexGuard<'_, Option<(Instant, EventTime)>> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn latest(&self) -> MutexGuard<'_, BTreeMap<i32, i64>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ours(&self) -> MutexGuard<'_, BTreeMap<i32, (u64, Arc<AtomicBool>)>> {
        self.ours.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_acked(&self, partition: i32, offset: i64) {
        let mut acked = self.acked();
        let entry = acked.entry(partition).or_insert(offset);
        *entry = (*entry).max(offset);
        drop(acked);
        self.acked_changed.notify_all();
    }

    /// Waits until `done` says so or the deadline has passed. Returns whether it said so.
    fn wait_acked(&self, deadline: Instant, done: impl Fn(&BTreeMap<i32, i64>) -> bool) -> bool {
        let mut acked = self.acked();
        loop {
            if done(&acked) {
                return true;
            }
            let left = deadline.saturating_duration_since(clock::tick());
            if left.is_zero() || self.failed.load(Ordering::Acquire) {
                return false;
            }
            acked = self.acked_changed.wait_timeout(acked, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Stops all lanes with this error; the first one counts.
    fn fail(&self, error: Error) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.failed.swap(true, Ordering::AcqRel) {
            *failure = Some(error);
        }
        drop(failure);
        self.acked_changed.notify_all();
    }

    /// The error, if there is one: to the first lane that asks as it is, to the others as a copy of its text.
    fn failure(&self) -> Option<Error> {
        if !self.failed.load(Ordering::Acquire) {
            return None;
        }
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let first = failure.take()?;
        let mut copy = Error::new(first.kind, first.stage, first.message.clone());
        copy.place.clone_from(&first.place);
        copy.help.clone_from(&first.help);
        *failure = Some(copy);
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_may_take_most_of_what_the_group_allows_to_let_go() {
        assert_eq!(drain(None), Duration::from_secs(240));
        assert_eq!(drain(Some("60000")), Duration::from_secs(48));
    }
}
