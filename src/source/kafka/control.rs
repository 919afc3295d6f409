//! The thread that serves the consumer: group membership, rebalances, ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};

use super::lane::Order;
use super::watch::{Rebalance, Watch};
use super::{Bell, STAGE, Shared};
use super::{awake, committer};
use crate::base::clock;
use crate::base::error::{Error, Kind};
use crate::base::guard::guarded;
use crate::base::offset::{self as base, Partition};
use crate::data::commit;
use crate::link::kafka::{Verdict, committed, ends, explain, offsets, verdict};
use crate::source::start::overtaken;
use crate::source::{Assignment, OnMissing};

/// How long the thread sleeps in the consumer when nothing happens.
const PULSE: Duration = Duration::from_millis(100);
/// How often the ends of the partitions are asked for.
const LOOK: Duration = Duration::from_secs(2);
/// After this time without partitions it is said what is waited for.
const SILENCE: Duration = Duration::from_secs(2);
/// How long a topic may seem missing: brokers that start do not know all topics at once.
const MISSING: Duration = Duration::from_secs(30);
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(5);

/// What a lane tells the control thread.
pub(super) enum Note {
    /// The states of an offered partition (of this assignment) are recovered; records are wanted from this offset on.
    Start(i32, u64, i64),
    /// A revoked partition (of this term) has been let go.
    Released(i32, u64),
    /// A partition seems not to be there.
    Missing,
    /// The lane reads no more.
    Left,
}

/// The other end of a lane.
pub(super) struct LaneEnd {
    pub(super) orders: Sender<Order>,
    pub(super) bell: Arc<Bell>,
}

struct Held {
    term: u64,
    ours: Arc<AtomicBool>,
    /// Offset up to which the group had committed when the partition came.
    floor: i64,
}

/// State of the control thread.
pub(super) struct Control {
    consumer: Arc<BaseConsumer<Watch>>,
    shared: Arc<Shared>,
    on_missing: OnMissing,
    /// How long lanes may take to let go of partitions. The group gives a member up that takes longer than `max.poll.interval.ms` for a rebalance; the others
    /// go on with what they have meanwhile.
    drain: Duration,
    /// When the wait for the first partitions began, until they have come or it was said.
    expecting: Option<Instant>,
    /// States rest on events before `since`.
    prior: bool,
    /// Number of partitions of the topic at start.
    partitions: usize,
    lanes: Vec<LaneEnd>,
    notes: Receiver<Note>,
    held: BTreeMap<i32, Held>,
    /// Partitions that lanes have yet to let go, with their terms.
    waiting: BTreeSet<(i32, u64)>,
    /// Offered partitions with the number of their assignment, and from where they are to be read.
    started: BTreeMap<(i32, u64), i64>,
    term: u64,
    left: usize,
    /// A rebalance that could not be answered because the source had failed.
    unanswered: Option<Rebalance>,
    missing: Option<Instant>,
    looked: Option<Instant>,
    asked: Option<Instant>,
}

impl Control {
    pub(super) fn new(
        consumer: Arc<BaseConsumer<Watch>>,
        shared: Arc<Shared>,
        (on_missing, prior, drain): (OnMissing, bool, Duration),
        partitions: usize,
        lanes: Vec<LaneEnd>,
        notes: Receiver<Note>,
    ) -> Self {
        Control {
            consumer,
            shared,
            on_missing,
            drain,
            expecting: Some(clock::tick()),
            prior,
            partitions,
            lanes,
            notes,
            held: BTreeMap::new(),
            waiting: BTreeSet::new(),
            started: BTreeMap::new(),
            term: 0,
            left: 0,
            unanswered: None,
            missing: None,
            looked: None,
            asked: None,
        }
    }

    /// Runs until all lanes have left.
    pub(super) fn run(mut self) {
        let (consumer, shared) = (Arc::clone(&self.consumer), Arc::clone(&self.shared));
        let commits = std::thread::Builder::new().name("kafka-commit".to_owned());
        let commits = commits.spawn(move || {
            if let Err(error) = guarded(STAGE, "the thread that commits offsets", || committer::run(&consumer, &shared)) {
                shared.fail(error);
            }
        });
        if let Err(error) = &commits {
            self.fail(Error::internal(STAGE, format!("no thread for commits: {error}")));
        }
        let (shared, over) = (Arc::clone(&self.shared), Arc::new(AtomicBool::new(false)));
        let ended = Arc::clone(&over);
        let awake = std::thread::Builder::new().name("kafka-awake".to_owned());
        if let Err(error) = awake.spawn(move || awake::run(&shared, &|| ended.load(Ordering::Acquire))) {
            self.fail(Error::internal(STAGE, format!("no thread for the clock: {error}")));
        }
        while self.left < self.lanes.len() {
            self.serve(PULSE);
            self.say_what_is_waited_for();
            while self.unanswered.is_none() {
                match self.consumer.context().next() {
                    None => break,
                    Some(Rebalance::Assign(partitions)) => self.assign(partitions),
                    Some(Rebalance::Revoke(partitions)) => self.revoke(&partitions),
                }
            }
            if !self.shared.failed.load(Ordering::Acquire) {
                self.look();
                self.see_whether_finished();
            }
        }
        over.store(true, Ordering::Release);
        self.shared.desk.close();
        if commits.is_ok_and(|commits| commits.join().is_err()) {
            tracing::error!("the thread that commits offsets has panicked");
        }
        self.close();
    }

    /// Once, if the group does not give partitions for a while after the start.
    fn say_what_is_waited_for(&mut self) {
        if self.expecting.is_some_and(|since| since.elapsed() >= SILENCE) {
            self.expecting = None;
            let (group, session) = (&self.shared.group, self.shared.awake.session());
            tracing::info!(group, topic = self.shared.topic, session_timeout = ?session,
                "waiting for the group to give partitions: one that has died is waited for until its session ends, one that gives some away until they are committed");
        }
    }

    /// Serves the consumer once and hears what lanes say.
    fn serve(&mut self, wait: Duration) {
        match self.consumer.poll(wait) {
            None => {}
            // All partitions have queues of their own. A record here would be lost.
            Some(Ok(_)) => self.fail(Error::internal(STAGE, "a record came outside of the queue of its partition")),
            Some(Err(error)) => self.trouble(&error),
        }
        while let Ok(note) = self.notes.try_recv() {
            match note {
                Note::Released(partition, term) => {
                    self.waiting.remove(&(partition, term));
                }
                Note::Missing => {
                    self.missing.get_or_insert_with(clock::tick);
                }
                Note::Start(partition, term, from) => {
                    self.started.insert((partition, term), from);
                }
                Note::Left => self.left += 1,
            }
        }
    }

    fn trouble(&mut self, error: &KafkaError) {
        if let KafkaError::PartitionEOF(_) = error {
            return;
        }
        if error.rdkafka_error_code() == Some(Code::AutoOffsetReset) {
            self.fail(overtaken(&self.shared.topic, -1, -1));
            return;
        }
        match (verdict(error), error) {
            (Verdict::Passing, _) => self.consumer.context().bridge.passing(&error.to_string()),
            (Verdict::Topic, _) => {
                self.missing.get_or_insert_with(clock::tick);
            }
            (Verdict::Config, _) | (_, KafkaError::MessageConsumptionFatal(_)) => {
                self.fail(explain(STAGE, &self.shared.client, &self.shared.topic, "read the topic", error));
            }
            (Verdict::Other, _) => tracing::warn!(%error, "the Kafka consumer reports an error and goes on"),
        }
    }

    fn fail(&self, error: Error) {
        self.shared.fail(error);
        self.ring();
    }

    fn ring(&self) {
        self.lanes.iter().for_each(|lane| lane.bell.ring());
    }

    /// Finds out what is known of partitions; tries as long as brokers are only away.
    fn known(&mut self, partitions: &[i32]) -> Option<Vec<Assignment>> {
        let mut beyond: u32 = 0;
        loop {
            match self.look_up(partitions) {
                Ok(known) => {
                    // After a failover the end may lag for a moment behind what was committed.
                    if beyond < 20 && known.iter().any(|known| known.committed.as_ref().map(|c| c.next) > known.high) {
                        beyond += 1;
                    } else {
                        return Some(known);
                    }
                }
                Err(error) if matches!(verdict(&error), Verdict::Passing | Verdict::Topic) => {
                    self.consumer.context().bridge.passing(&error.to_string());
                }
                Err(error) => {
                    self.fail(explain(STAGE, &self.shared.client, &self.shared.topic, "find where the partitions start", &error));
                    return None;
                }
            }
            self.serve(PULSE);
            if self.left == self.lanes.len() || self.shared.failed.load(Ordering::Acquire) {
                return None;
            }
        }
    }

    fn look_up(&self, partitions: &[i32]) -> KafkaResult<Vec<Assignment>> {
        let topic = &self.shared.topic;
        let committed = committed(&self.consumer, topic, partitions, REQUEST)?;
        let commit = |(partition, next, note): (i32, i64, String)| {
            (partition, commit::Commit { next: base::Offset(next), note: commit::Note::read(&note).unwrap_or_default() })
        };
        let mut committed = committed.into_iter().map(commit).collect::<BTreeMap<_, _>>();
        let ends = ends(&self.consumer, topic, partitions, REQUEST)?;
        let known = |(partition, low, high)| Assignment {
            partition: Partition(partition),
            committed: committed.remove(&partition),
            low: base::Offset(low),
            high: Some(base::Offset(high)),
            prior: self.prior,
            on_missing: self.on_missing,
            place: format!("topic {topic}"),
            group: Some(self.shared.group.clone()),
        };
        Ok(ends.into_iter().map(known).collect())
    }

    fn lane_of(&self, partition: i32) -> Option<(usize, &LaneEnd)> {
        let lane = usize::try_from(partition).unwrap_or(0) % self.lanes.len();
        self.lanes.get(lane).map(|end| (lane, end))
    }

    /// Lets the lanes recover the states of the partitions; returns the offsets from which they want to read, or `None` if they have left.
    fn recovered(&mut self, known: Vec<Assignment>) -> Option<BTreeMap<i32, i64>> {
        self.started.clear();
        let mut asked = BTreeSet::new();
        for assignment in known {
            self.term += 1;
            let (partition, term) = (assignment.partition.0, self.term);
            if let Some((_, end)) = self.lane_of(partition)
                && end.orders.send(Order::Offer(Box::new(assignment), term)).is_ok()
            {
                end.bell.ring();
                asked.insert((partition, term));
            }
        }
        while !asked.iter().all(|asked| self.started.contains_key(asked)) {
            self.serve(Duration::from_millis(5));
            if self.left > 0 || self.shared.failed.load(Ordering::Acquire) {
                return None;
            }
        }
        Some(std::mem::take(&mut self.started).into_iter().map(|((partition, _), from)| (partition, from)).collect())
    }

    /// The group gives partitions: their queues are split off before the first fetch, so that no record goes astray.
    fn assign(&mut self, partitions: Vec<i32>) {
        if !partitions.is_empty() {
            self.expecting = None;
        }
        let Some(known) = self.known(&partitions) else {
            self.unanswered = Some(Rebalance::Assign(partitions));
            return;
        };
        let floors: BTreeMap<i32, Option<i64>> =
            known.iter().map(|known| (known.partition.0, known.committed.as_ref().map(|committed| committed.next.0))).collect();
        let Some(starts) = self.recovered(known) else {
            self.unanswered = Some(Rebalance::Assign(partitions));
            return;
        };
        let mut list = TopicPartitionList::new();
        let mut orders = Vec::new();
        for (partition, read_from) in starts {
            let committed = floors.get(&partition).copied().flatten();
            let Some((lane, end)) = self.lane_of(partition) else { continue };
            let Some(mut queue) = self.consumer.split_partition_queue(&self.shared.topic, partition) else {
                self.fail(Error::internal(STAGE, format!("no queue for partition {partition} of topic {}", self.shared.topic)));
                self.unanswered = Some(Rebalance::Assign(partitions));
                return;
            };
            let bell = Arc::clone(&end.bell);
            queue.set_nonempty_callback(move || bell.ring());
            if let Err(error) = list.add_partition_offset(&self.shared.topic, partition, Offset::Offset(read_from)) {
                self.fail(explain(STAGE, &self.shared.client, &self.shared.topic, "take a partition", &error));
                self.unanswered = Some(Rebalance::Assign(partitions));
                return;
            }
            self.term += 1;
            let ours = Arc::new(AtomicBool::new(true));
            let floor = committed.unwrap_or(read_from);
            if let Some(committed) = committed {
                self.shared.note_acked(partition, committed);
            }
            self.shared.ours().insert(partition, (self.term, Arc::clone(&ours)));
            self.held.insert(partition, Held { term: self.term, ours: Arc::clone(&ours), floor });
            orders.push((lane, Order::Take { partition, queue, read_from, floor, term: self.term, ours }));
        }
        if let Err(error) = self.consumer.incremental_assign(&list) {
            self.fail(Error::new(Kind::Retry, STAGE, format!("librdkafka did not take the assignment: {error}")).help("start again"));
            return;
        }
        for (lane, order) in orders {
            if let Some(end) = self.lanes.get(lane) {
                // A lane that has left drops its end; the partition is revoked when the others have left too.
                if end.orders.send(order).is_ok() {
                    end.bell.ring();
                }
            }
        }
        self.looked = None;
    }

    /// The group takes partitions: the lanes finish and commit first, but not for ever, and not if they are lost already.
    fn revoke(&mut self, partitions: &[i32]) {
        let lost = self.consumer.assignment_lost();
        tracing::info!(?partitions, lost, "partitions revoked");
        for partition in partitions {
            let Some(held) = self.held.get(partition) else { continue };
            if lost {
                held.ours.store(false, Ordering::Release);
            }
            let lane = usize::try_from(*partition).unwrap_or(0) % self.lanes.len();
            if let Some(end) = self.lanes.get(lane)
                && end.orders.send(Order::Give(*partition)).is_ok()
            {
                end.bell.ring();
                self.waiting.insert((*partition, held.term));
            }
        }
        let deadline = clock::tick() + self.drain;
        while !self.waiting.is_empty() && self.left < self.lanes.len() && clock::tick() < deadline {
            self.serve(Duration::from_millis(10));
        }
        if !self.waiting.is_empty() && self.left < self.lanes.len() {
            tracing::warn!(partitions = ?self.waiting, waited = ?self.drain, "lanes did not let go in time; what they still do is not committed");
        }
        self.waiting.clear();
        self.let_go(partitions);
    }

    fn let_go(&mut self, partitions: &[i32]) {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            if let Some(held) = self.held.remove(partition) {
                held.ours.store(false, Ordering::Release);
                self.shared.ours().remove(partition);
            }
            list.add_partition(&self.shared.topic, *partition);
        }
        if let Err(error) = self.consumer.incremental_unassign(&list) {
            tracing::warn!(%error, "librdkafka did not take the revocation");
        }
    }

    /// Every two seconds: how far the partitions reach, and whether a topic that seemed missing is there.
    fn look(&mut self) {
        let now = clock::tick();
        if self.looked.is_some_and(|looked| now.duration_since(looked) < LOOK) {
            return;
        }
        self.looked = Some(now);
        let wall = clock::now();
        let held = self.held.keys().copied().collect::<Vec<_>>();
        if let Ok(latest) = offsets(&self.consumer, &self.shared.topic, &held, Offset::End, Duration::from_secs(1)) {
            *self.shared.latest() = latest;
            *self.shared.looked() = Some((now, wall));
        }
        let Some(since) = self.missing else { return };
        let Ok(metadata) = self.consumer.fetch_metadata(Some(&self.shared.topic), Duration::from_secs(1)) else { return };
        let code = metadata.topics().iter().find(|topic| topic.name() == self.shared.topic).and_then(|topic| topic.error());
        match code.map(|code| KafkaError::MetadataFetch(code.into())) {
            None => self.missing = None,
            Some(error) if verdict(&error) == Verdict::Topic && now.duration_since(since) > MISSING => {
                self.fail(explain(STAGE, &self.shared.client, &self.shared.topic, "read the topic", &error));
            }
            Some(_) => {}
        }
    }

    /// The source has ended when the group, that is all its members together, has committed the ends seen at start.
    fn see_whether_finished(&mut self) {
        let Some(ends) = &self.shared.ends else { return };
        let now = clock::tick();
        if self.shared.finished.load(Ordering::Acquire) || self.asked.is_some_and(|asked| now.duration_since(asked) < PULSE) {
            return;
        }
        let acked = self.shared.acked();
        let ours_done = self.held.iter().all(|(partition, held)| {
            let reached = acked.get(partition).copied().unwrap_or(held.floor).max(held.floor);
            ends.get(partition).is_none_or(|end| reached >= *end)
        });
        drop(acked);
        if !ours_done {
            return;
        }
        self.asked = Some(now);
        let all = (0..).take(self.partitions).collect::<Vec<i32>>();
        let Ok(committed) = committed(&self.consumer, &self.shared.topic, &all, Duration::from_secs(1)) else { return };
        let committed = committed.into_iter().map(|(partition, next, _)| (partition, next)).collect::<BTreeMap<_, _>>();
        if ends.iter().all(|(partition, end)| committed.get(partition) >= Some(end)) {
            self.shared.finished.store(true, Ordering::Release);
            self.ring();
        }
    }

    /// Leaves the group. Every rebalance must be answered, or librdkafka would wait for ever.
    fn close(mut self) {
        self.consumer.context().closing.store(true, Ordering::Release);
        let waiting = self.unanswered.take().into_iter().chain(std::iter::from_fn(|| self.consumer.context().next()));
        for rebalance in waiting.collect::<Vec<_>>() {
            match rebalance {
                Rebalance::Assign(partitions) => {
                    let mut list = TopicPartitionList::new();
                    partitions.iter().for_each(|partition| {
                        list.add_partition(&self.shared.topic, *partition);
                    });
                    if let Err(error) = self.consumer.incremental_assign(&list) {
                        tracing::debug!(%error, "assignment while closing");
                    }
                }
                Rebalance::Revoke(partitions) => self.let_go(&partitions),
            }
        }
        // A consumer that owns nothing would close without leaving the group (librdkafka 2.12), and the others would wait for it until its
        // session times out; unsubscribing leaves.
        self.consumer.unsubscribe();
        // The lanes and the committer have dropped their references: this is the last one, and dropping it closes the consumer.
        drop(self.consumer);
    }
}
