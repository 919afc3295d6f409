//! One lane's end: takes records from the queues of its partitions, commits what is done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message;

use super::control::Note;
use super::member::Member;
use super::watch::{Watch, end_offset};
use super::{Bell, Runner, STAGE, Shared};
use crate::base::clock;
use crate::base::error::Result;
use crate::base::limits::{MAX_BATCH, MAX_BATCH_BYTES};
use crate::base::offset::{Offset, Partition};
use crate::base::time::{EventTime, Gap};
use crate::data::commit::Commits;
use crate::data::input::Input;
use crate::link::kafka::{Membership, Verdict, explain, recorded, verdict};
use crate::source::start::overtaken;
use crate::source::{Assignment, Feed, Handed, Polled};

/// Longest sleep while there is nothing to do: a lost wake-up costs no more than this.
const NAP: Duration = Duration::from_millis(50);
/// How long a lane waits for the acknowledgement of its last commit of a partition.
const LAST_COMMIT: Duration = Duration::from_secs(8);
/// Fewest records taken from one partition at a time when several have some.
const SLICE: usize = 256;

/// What the control thread tells a lane.
pub(super) enum Order {
    /// Recover the states of a partition and say where to read from. The number says which assignment this is.
    Offer(Box<Assignment>, u64),
    /// Own a partition.
    Take {
        /// Its number.
        partition: i32,
        /// Its records.
        queue: PartitionQueue<Watch>,
        /// First offset to read.
        read_from: i64,
        /// Committed offset; commits never go below it.
        floor: i64,
        /// Which assignment this is.
        term: u64,
        /// Turned to `false` when the partition is no longer ours to commit.
        ours: Arc<AtomicBool>,
    },
    /// Give a partition up.
    Give(i32),
}

/// A partition that this lane owns.
struct Owned {
    partition: i32,
    /// `None` once it is to be given up.
    queue: Option<PartitionQueue<Watch>>,
    /// Next offset to hand out. Lower ones, which librdkafka repeats in a rare race of a pause, are dropped.
    next: i64,
    /// All records below are done, as the lane has said.
    done: i64,
    /// What is noted beside that offset.
    note: String,
    floor: i64,
    /// Highest offset handed to the committer, and what was noted beside it.
    asked: i64,
    asked_note: String,
    /// The committer has been asked for more than had been committed: there is an acknowledgement to wait for.
    awaited: bool,
    /// When the last record was handed out, and when the ends were looked at that said last that it is idle.
    touched: Instant,
    quiet: Option<Instant>,
    /// End of the partition as last seen: all records below it have been handed out.
    end: i64,
    term: u64,
    ours: Arc<AtomicBool>,
}

impl Owned {
    /// Takes at most `max` records or `max_bytes` bytes. Returns the number of entries taken from the queue: fewer than `max` means empty.
    fn take(&mut self, shared: &Shared, max: usize, max_bytes: usize, input: &mut Input) -> Result<(usize, bool)> {
        let Some(queue) = &self.queue else { return Ok((0, false)) };
        let mut taken = 0;
        let mut missing = false;
        let mut handed = false;
        while taken < max && input.records.payloads.byte_len() < max_bytes {
            match queue.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => {
                    taken += 1;
                    let offset = message.offset();
                    if offset < self.next {
                        continue;
                    }
                    self.next = offset.saturating_add(1);
                    handed = true;
                    input.records.push(
                        Partition(self.partition),
                        Offset(offset),
                        recorded(message.timestamp()),
                        message.key(),
                        message.payload(),
                    );
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    taken += 1;
                    // The ends seen at start were seen before the first fetch.
                    let first = shared.ends.as_ref().and_then(|ends| ends.get(&self.partition).copied());
                    self.end = self.end.max(end_offset().or(first).unwrap_or(0));
                }
                Some(Err(error)) => {
                    taken += 1;
                    if matches!(error.rdkafka_error_code(), Some(Code::AutoOffsetReset | Code::OffsetOutOfRange)) {
                        return Err(overtaken(&shared.topic, self.partition, self.next));
                    }
                    match verdict(&error) {
                        Verdict::Passing => tracing::debug!(partition = self.partition, %error, "fetch failed and will be tried again"),
                        Verdict::Topic => missing = true,
                        // A record that cannot be fetched would be skipped by librdkafka: stop rather than lose it.
                        Verdict::Config | Verdict::Other => {
                            let doing = format!("read offset {} of partition {}", self.next, self.partition);
                            return Err(explain(STAGE, &shared.client, &shared.topic, &doing, &error));
                        }
                    }
                }
            }
        }
        if handed {
            self.touched = clock::tick();
        }
        Ok((taken, missing))
    }

    /// Offset to commit now, if it is not below what had been committed and the partition is ours.
    fn due(&self) -> Option<i64> {
        // Behind the last record that is done only control records of transactions follow: they are done with it.
        let reached = if self.done >= self.next { self.done.max(self.end) } else { self.done };
        (reached >= self.floor && self.ours.load(Ordering::Acquire)).then_some(reached)
    }
}

/// A lane's feed.
pub(super) struct Lane {
    consumer: Option<Arc<BaseConsumer<Watch>>>,
    shared: Arc<Shared>,
    runner: Arc<Runner>,
    orders: Receiver<Order>,
    notes: Sender<Note>,
    bell: Arc<Bell>,
    owned: Vec<Owned>,
    /// Partitions whose states the lane is recovering, with the number of the assignment.
    offered: Vec<(Partition, u64)>,
    /// The sink commits the offsets.
    outside: bool,
    turn: usize,
}

impl Lane {
    pub(super) fn new(
        consumer: Arc<BaseConsumer<Watch>>,
        shared: Arc<Shared>,
        runner: Arc<Runner>,
        orders: Receiver<Order>,
        notes: Sender<Note>,
        bell: Arc<Bell>,
    ) -> Self {
        let consumer = Some(consumer);
        Lane { consumer, shared, runner, orders, notes, bell, owned: Vec::new(), offered: Vec::new(), outside: false, turn: 0 }
    }

    fn obey(&mut self) -> Option<Polled> {
        match self.orders.try_recv().ok()? {
            Order::Offer(assignment, term) => {
                self.offered.push((assignment.partition, term));
                Some(Polled::Assigned(assignment))
            }
            Order::Take { partition, queue, read_from, floor, term, ours } => {
                self.owned.retain(|owned| owned.partition != partition);
                self.owned.push(Owned {
                    partition,
                    queue: Some(queue),
                    next: read_from,
                    done: read_from,
                    note: String::new(),
                    floor,
                    asked: floor,
                    asked_note: String::new(),
                    awaited: false,
                    touched: clock::tick(),
                    quiet: None,
                    end: 0,
                    term,
                    ours,
                });
                self.obey()
            }
            Order::Give(partition) => {
                let owned = self.owned.iter_mut().find(|owned| owned.partition == partition)?;
                owned.queue = None;
                Some(Polled::Revoked(Partition(partition)))
            }
        }
    }

    /// Takes from the queues in turn, a slice each, until there is enough or all are empty.
    fn take(&mut self, max: usize, input: &mut Input) -> Result<bool> {
        let count = self.owned.len();
        if count == 0 {
            return Ok(false);
        }
        let max = max.min(MAX_BATCH);
        let slice = max.div_ceil(count).max(SLICE);
        let mut left = max;
        let mut empty = 0;
        while left > 0 && empty < count && input.records.payloads.byte_len() < MAX_BATCH_BYTES {
            self.turn = (self.turn + 1) % count;
            let Some(owned) = self.owned.get_mut(self.turn) else { break };
            let wanted = slice.min(left);
            let (taken, missing) = owned.take(&self.shared, wanted, MAX_BATCH_BYTES, input)?;
            if missing {
                // The control thread finds out whether the topic is gone or a broker is only starting.
                self.tell(Note::Missing);
            }
            empty = if taken < wanted { empty + 1 } else { 0 };
            left = left.saturating_sub(taken);
        }
        Ok(!input.records.is_empty())
    }

    /// A partition that has been idle for long enough, once for each time the ends of the log were looked at. The wall clock counts from that
    /// moment: what was written before has been handed out. While no broker answers nobody looks, and nothing is called idle.
    fn quiet(&mut self) -> Option<Polled> {
        let after = self.shared.idle_after?;
        let (looked, wall) = (*self.shared.looked())?;
        let latest = self.shared.latest();
        let owned = self.owned.iter_mut().find(|owned| {
            let done = latest.get(&owned.partition).is_some_and(|end| owned.next.max(owned.end) >= *end);
            owned.queue.is_some() && done && owned.quiet != Some(looked) && looked.saturating_duration_since(owned.touched) >= after
        })?;
        owned.quiet = Some(looked);
        let time = EventTime(wall.0.saturating_sub(Gap::from(after).0));
        Some(Polled::Quiet(Partition(owned.partition), time))
    }

    fn tell(&self, note: Note) {
        if self.notes.send(note).is_err() {
            tracing::debug!("the control thread of the Kafka consumer is gone");
        }
    }

    /// Hands what is done to the committer, without waiting.
    fn offer(&mut self) {
        if self.outside {
            return;
        }
        for owned in &mut self.owned {
            // A tick changes the note and not the offset.
            let news = |due: &i64| *due > owned.asked || (*due == owned.asked && !owned.note.is_empty() && owned.note != owned.asked_note);
            if let Some(due) = owned.due().filter(news) {
                self.shared.desk.ask(owned.partition, due, owned.note.clone(), &owned.ours);
                owned.asked = due;
                owned.awaited = true;
                owned.asked_note.clone_from(&owned.note);
            }
        }
    }

    /// Waits (bounded) until everything due of the partitions that `which` picks is committed.
    fn wait_committed(&self, which: impl Fn(&Owned) -> bool) {
        if self.outside {
            return;
        }
        let due = self.owned.iter().filter(|owned| owned.awaited && which(owned));
        let due = due.filter_map(|owned| Some((owned.partition, owned.due()?))).collect::<Vec<_>>();
        let all = |acked: &BTreeMap<i32, i64>| due.iter().all(|(partition, due)| acked.get(partition) >= Some(due));
        if !due.is_empty() && !self.shared.wait_acked(clock::tick() + LAST_COMMIT, all) {
            tracing::warn!("the last offsets could not be committed; their records will be read again");
        }
    }

    fn leave(&mut self) {
        if self.consumer.is_some() {
            self.owned.clear();
            self.offered.clear();
            while self.orders.try_recv().is_ok() {}
            // The control thread must hold the last reference: only it can close the consumer.
            self.consumer = None;
            self.tell(Note::Left);
            self.runner.left();
        }
    }
}

impl Feed for Lane {
    fn poll(&mut self, max: usize, wait: Duration, input: &mut Input) -> Result<Polled> {
        let mut deadline = None;
        loop {
            if let Some(error) = self.shared.failure() {
                return Err(error);
            }
            if let Some(polled) = self.obey() {
                return Ok(polled);
            }
            if self.shared.finished.load(Ordering::Acquire) {
                return Ok(Polled::Ended);
            }
            if let Some(quiet) = self.quiet() {
                return Ok(quiet);
            }
            if self.take(max, input)? {
                return Ok(Polled::Records);
            }
            // The end of a partition may be due without a record.
            self.offer();
            let now = clock::tick();
            let left = deadline.get_or_insert(now + wait).saturating_duration_since(now);
            if left.is_zero() {
                return Ok(Polled::Idle);
            }
            self.bell.wait(left.min(NAP));
        }
    }

    fn start(&mut self, partition: Partition, read_from: Offset, _live_from: Offset) -> Result<()> {
        if let Some(index) = self.offered.iter().position(|(offered, _)| *offered == partition) {
            let (_, term) = self.offered.swap_remove(index);
            self.tell(Note::Start(partition.0, term, read_from.0));
        }
        Ok(())
    }

    fn settle(&self, commits: &mut Commits) {
        for owned in &self.owned {
            if let Some(commit) = commits.get_mut(Partition(owned.partition))
                && commit.next.0 >= owned.next
            {
                commit.next = commit.next.max(Offset(owned.end));
            }
        }
    }

    fn commit(&mut self, commits: &Commits) -> Result<()> {
        for owned in &mut self.owned {
            if let Some(commit) = commits.get(Partition(owned.partition)) {
                // What was not handed out cannot be done, whatever a commit says.
                owned.done = owned.done.max(commit.next.0.min(owned.next));
                owned.note = commit.note.to_string();
            }
        }
        self.offer();
        self.wait_committed(|owned| owned.queue.is_none());
        Ok(())
    }

    fn committed(&mut self, commits: &Commits) -> Result<()> {
        for owned in &mut self.owned {
            if let Some(commit) = commits.get(Partition(owned.partition)) {
                owned.done = owned.done.max(commit.next.0);
                owned.asked = owned.asked.max(commit.next.0);
                self.shared.note_acked(owned.partition, commit.next.0);
            }
        }
        Ok(())
    }

    fn owns(&self, partition: Partition) -> bool {
        self.owned.iter().all(|owned| owned.partition != partition.0 || owned.ours.load(Ordering::Acquire))
    }

    fn has_stored(&self, partition: Partition) -> bool {
        self.shared.acked().contains_key(&partition.0)
    }

    fn membership(&mut self) -> Option<Membership> {
        self.outside = true;
        let consumer = Arc::downgrade(self.consumer.as_ref()?);
        Some(Arc::new(Member { consumer, shared: Arc::clone(&self.shared) }))
    }

    fn released(&mut self, partition: Partition) {
        let given = self.owned.iter().position(|owned| owned.partition == partition.0 && owned.queue.is_none());
        if let Some(given) = given {
            let owned = self.owned.swap_remove(given);
            self.tell(Note::Released(owned.partition, owned.term));
        }
    }

    fn backlog(&self) -> Option<u64> {
        let latest = self.shared.latest();
        self.owned.iter().filter(|owned| owned.queue.is_some()).try_fold(0_u64, |sum, owned| {
            let waiting = latest.get(&owned.partition)?.saturating_sub(owned.next).max(0);
            Some(sum.saturating_add(u64::try_from(waiting).unwrap_or(0)))
        })
    }

    fn handed(&self, note: &mut dyn FnMut(Handed)) {
        let latest = self.shared.latest();
        for owned in &self.owned {
            let next = owned.next.max(owned.end);
            // What has been handed out is newer than what was heard a second ago.
            let end = latest.get(&owned.partition).map(|end| Offset((*end).max(next)));
            note(Handed { partition: Partition(owned.partition), next: Offset(next), end });
        }
    }

    fn close(&mut self) -> Result<()> {
        self.offer();
        self.wait_committed(|_| true);
        self.leave();
        Ok(())
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.leave();
    }
}
