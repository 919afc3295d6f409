//! The thread that commits. librdkafka does not report the result of an asynchronous commit to clients that use its event interface, as
//! rdkafka does, so commits are synchronous and on a thread of their own: lanes never wait for one but at a revocation or at the end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use super::watch::Watch;
use super::{STAGE, Shared};
use crate::link::kafka::{Verdict, explain, verdict};

/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// Offsets that lanes want committed, the newest of each partition.
#[derive(Default)]
pub(super) struct Desk {
    wanted: Mutex<Wanted>,
    changed: Condvar,
}

#[derive(Default)]
struct Wanted {
    offsets: BTreeMap<i32, Want>,
    closed: bool,
}

struct Want {
    offset: i64,
    /// Noted beside the offset.
    note: String,
    /// Whether the partition is still ours to commit.
    ours: Arc<AtomicBool>,
}

impl Desk {
    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a commit and returns at once.
    pub(super) fn ask(&self, partition: i32, offset: i64, note: String, ours: &Arc<AtomicBool>) {
        self.wanted().offsets.insert(partition, Want { offset, note, ours: Arc::clone(ours) });
        self.changed.notify_one();
    }

    /// Lets the thread end; what is still wanted is not committed.
    pub(super) fn close(&self) {
        self.wanted().closed = true;
        self.changed.notify_one();
    }

    /// Waits for something to commit; `None` once closed.
    fn next(&self) -> Option<BTreeMap<i32, Want>> {
        let wanted = self.wanted();
        let idle = |wanted: &mut Wanted| wanted.offsets.is_empty() && !wanted.closed;
        let mut wanted = self.changed.wait_while(wanted, idle).unwrap_or_else(PoisonError::into_inner);
        (!wanted.closed).then(|| std::mem::take(&mut wanted.offsets))
    }

    /// Puts back what could not be committed, unless something newer is wanted by now, and waits a little.
    fn again(&self, failed: BTreeMap<i32, Want>) {
        let mut wanted = self.wanted();
        for (partition, want) in failed {
            wanted.offsets.entry(partition).or_insert(want);
        }
        let (wanted, _) = self.changed.wait_timeout_while(wanted, PAUSE, |wanted| !wanted.closed).unwrap_or_else(PoisonError::into_inner);
        drop(wanted);
    }
}

/// Commits until the desk is closed.
pub(super) fn run(consumer: &BaseConsumer<Watch>, shared: &Shared) {
    while let Some(mut wants) = shared.desk.next() {
        // A partition that was given up or lost belongs to somebody else.
        wants.retain(|_, want| want.ours.load(Ordering::Acquire));
        if wants.is_empty() {
            continue;
        }
        match commit(consumer, &shared.topic, &wants) {
            Ok(()) => wants.iter().for_each(|(partition, want)| shared.note_acked(*partition, want.offset)),
            Err(error) if verdict(&error) == Verdict::Config => {
                shared.fail(explain(STAGE, &shared.client, &shared.topic, "commit offsets", &error));
                shared.desk.again(wants);
            }
            Err(error) => {
                tracing::debug!(%error, "a commit failed and will be tried again");
                shared.desk.again(wants);
            }
        }
    }
}

fn commit(consumer: &BaseConsumer<Watch>, topic: &str, wants: &BTreeMap<i32, Want>) -> KafkaResult<()> {
    let mut list = TopicPartitionList::new();
    for (partition, want) in wants {
        list.add_partition_offset(topic, *partition, Offset::Offset(want.offset))?;
    }
    for mut element in list.elements() {
        if let Some(want) = wants.get(&element.partition()) {
            element.set_metadata(&want.note);
        }
    }
    consumer.commit(&list, CommitMode::Sync)
}
