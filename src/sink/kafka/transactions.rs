//! Rows and offsets that become visible together: one transactional producer per lane, on a thread of its own.
//!
//! The lane fills an epoch. When it ends, the epoch with the offsets that cover it goes to the publisher, which in one transaction 1 begins;
//! 2 produces the rows; 3 sends the offsets, with the consumer's membership in its group, by which the broker fences a member that the group has left
//! behind (KIP-447); 4 flushes and commits. The lane meanwhile fills the next epoch; it waits only when that too is full.
//!
//! Errors as librdkafka classifies them. Retriable: the call is made again. Abortable: the transaction is aborted and the epoch sent again, the
//! same bytes, but for rows of partitions that have been lost meanwhile: those are their new owner's. Fatal: the stage ends; a
//! restart goes on at the last committed offset.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{Offset as KafkaOffset, Statistics, TopicPartitionList};

use super::POSITION;
use super::epoch::{Epoch, Sending};
use super::outbox::producer_config;
use crate::base::clock;
use crate::base::error::{Error, Kind, Result};
use crate::base::fail_point::fail_point;
use crate::base::guard::guarded;
use crate::base::offset::Partition;
use crate::data::commit::Commits;
use crate::link::kafka::{Bridge, Client, Instance, Membership, Probe, Verdict, explain, verdict};

const STAGE: &str = "sink";
/// An epoch is full with so many rows or bytes: the lane waits until the one before is published.
const FULL_ROWS: usize = 200_000;
const FULL_BYTES: usize = 64 << 20;
/// How long one call may take before it is made again.
const CALL: Duration = Duration::from_secs(10);
/// How long an epoch may take in all, with brokers that are away: as long as a row outside of transactions (`message.timeout.ms`).
const PATIENCE: Duration = Duration::from_secs(300);
/// Pause before a call is made again.
const PAUSE: Duration = Duration::from_millis(50);
/// The broker aborts a transaction that is older: nothing behind it is readable until then.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What lane and publisher share.
struct Shared {
    desk: Mutex<Desk>,
    changed: Condvar,
}

#[derive(Default)]
struct Desk {
    /// The epoch to be published next, or being published.
    given: Option<Epoch>,
    busy: bool,
    /// An empty epoch whose memory can be used again.
    spare: Option<Epoch>,
    /// Rows that are visible.
    durable: u64,
    /// Offsets that have become visible since they were last asked for.
    committed: Option<Commits>,
    error: Option<Error>,
    failed: bool,
    closed: bool,
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lane's end of its transactions.
pub struct Transactions {
    shared: Arc<Shared>,
    publisher: Option<JoinHandle<()>>,
    epoch: Epoch,
    written: u64,
    /// Commits of the last epoch that was handed over.
    handed: Commits,
    membership: Membership,
    /// The name is ours as long as we write under it.
    _instance: Arc<Instance>,
}

/// What transactions are opened with.
pub struct Opening<'a> {
    /// The cluster, which is that of the input.
    pub client: &'a Client,
    /// Topics by index: forecasts first.
    pub topics: Vec<String>,
    /// The consumer's membership in its group.
    pub membership: Membership,
    /// Stable name of this process; with the group and the lane it makes the transactional id, so that a restart aborts what its predecessor left open.
    pub instance: Arc<Instance>,
    /// Lane.
    pub lane: usize,
    /// Whether rows carry the header [`POSITION`].
    pub header: bool,
}

impl Transactions {
    /// Opens the topics and starts the publisher. A transaction that a predecessor of the same name has left open is aborted.
    ///
    /// # Errors
    /// Unavailable if no broker answers; configuration for a refused client setting, a topic that is not there, or no permission for transactions.
    pub fn open(opening: Opening<'_>) -> Result<Self> {
        let Opening { client, topics, membership, instance, lane, header } = opening;
        let id = format!("meantime-{}-{}-{lane}", membership.group(), instance.name());
        let probe = Probe::new(STAGE, client, None)?;
        topics.iter().try_for_each(|topic| probe.topic(topic).map(|_| ()))?;
        let mut config = producer_config(client);
        config
            .set("transactional.id", &id)
            .set("transaction.timeout.ms", TIMEOUT.as_millis().to_string())
            // A row cannot wait longer than its transaction.
            .set("message.timeout.ms", TIMEOUT.as_millis().to_string())
            // Success is known from the commit.
            .set("delivery.report.only.error", "true")
            .set("queue.buffering.max.messages", "100000");
        let topic = topics.first().cloned().unwrap_or_default();
        let producer = ThreadedProducer::from_config_and_context(&config, Hearing::default())
            .map_err(|error| explain(STAGE, client, &topic, "open the transactional producer", &error))?;
        let member = Arc::clone(&membership);
        let mut publisher =
            Publisher { client: client.clone(), topics, membership, header, producer, id, deadline: clock::tick() + PATIENCE };
        publisher.again("start transactions", |producer| producer.init_transactions(CALL))?;
        let shared = Arc::new(Shared { desk: Mutex::default(), changed: Condvar::new() });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("kafka-publish".to_owned()).spawn(move || publisher.run(&theirs));
        let thread = thread.map_err(|error| Error::internal(STAGE, "no thread for transactions").caused_by(error))?;
        Ok(Transactions {
            shared,
            publisher: Some(thread),
            epoch: Epoch::default(),
            written: 0,
            handed: Commits::new(),
            membership: member,
            _instance: instance,
        })
    }

    /// The epoch that is being filled.
    ///
    /// # Errors
    /// The publisher has failed, or this end is closed.
    pub fn filling(&mut self) -> Result<&mut Epoch> {
        if self.publisher.is_none() {
            return Err(Error::internal(STAGE, "used after close"));
        }
        Ok(&mut self.epoch)
    }

    /// Notes rows that were added.
    pub fn wrote(&mut self, rows: usize) {
        self.written = self.written.saturating_add(u64::try_from(rows).unwrap_or(u64::MAX));
    }

    /// Rows handed in.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Whether no more should be added before the epoch ends.
    pub fn is_full(&self) -> bool {
        self.epoch.len() >= FULL_ROWS || self.epoch.byte_len() >= FULL_BYTES
    }

    /// Rows that are visible.
    ///
    /// # Errors
    /// The publisher has failed.
    pub fn durable(&mut self) -> Result<u64> {
        let mut desk = self.shared.desk();
        check(&mut desk)?;
        Ok(desk.durable)
    }

    /// Offsets that have become visible since the last call.
    ///
    /// # Errors
    /// The publisher has failed.
    pub fn committed(&mut self) -> Result<Option<Commits>> {
        let mut desk = self.shared.desk();
        check(&mut desk)?;
        Ok(desk.committed.take())
    }

    /// Hands the epoch over if the publisher is free or the epoch is full; with `force` waits until everything is visible. Returns whether it is.
    ///
    /// # Errors
    /// The publisher has failed.
    pub fn end_epoch(&mut self, commits: &Commits, force: bool) -> Result<bool> {
        let wait = force || self.is_full();
        let mut desk = self.shared.desk();
        check(&mut desk)?;
        while wait && desk.busy {
            desk = self.shared.changed.wait(desk).unwrap_or_else(PoisonError::into_inner);
            check(&mut desk)?;
        }
        if desk.busy {
            return Ok(false);
        }
        if self.epoch.len() > 0 || *commits != self.handed {
            self.handed.clone_from(commits);
            self.epoch.commits.clone_from(commits);
            let term = |(partition, _)| Some((partition, self.membership.term(partition)?));
            self.epoch.terms = commits.iter().filter_map(term).collect();
            let next = desk.spare.take().unwrap_or_default();
            desk.given = Some(std::mem::replace(&mut self.epoch, next));
            desk.busy = true;
            self.shared.changed.notify_all();
        }
        while force && desk.busy {
            desk = self.shared.changed.wait(desk).unwrap_or_else(PoisonError::into_inner);
            check(&mut desk)?;
        }
        Ok(!desk.busy)
    }

    /// A partition was let go: what it committed is nobody's business here any more. Rows of it are left only where it was lost; they are another's to write, even if
    /// it comes back before the epoch ends.
    pub fn release(&mut self, partition: Partition) {
        self.handed.remove(partition);
        self.epoch.forget(partition);
        self.shared.desk().committed.iter_mut().for_each(|commits| commits.remove(partition));
    }

    /// Lets the publisher end. Rows of an epoch that has not ended are thrown away: their records will be read again.
    pub fn close(&mut self) {
        let Some(publisher) = self.publisher.take() else { return };
        self.shared.desk().closed = true;
        self.shared.changed.notify_all();
        if publisher.join().is_err() {
            tracing::error!("the thread that publishes transactions has panicked");
        }
    }
}

impl Drop for Transactions {
    fn drop(&mut self) {
        self.close();
    }
}

fn check(desk: &mut Desk) -> Result<()> {
    if !desk.failed {
        return Ok(());
    }
    Err(desk.error.take().unwrap_or_else(|| Error::new(Kind::Retry, STAGE, "transactions have failed before").help("start again")))
}

/// Hears what the client reports: log lines, and rows that a broker will never take.
#[derive(Default)]
struct Hearing {
    bridge: Bridge,
    /// The first of them: the error, and the topic that it was for.
    refused: Mutex<Option<(KafkaError, String)>>,
}

impl ClientContext for Hearing {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.bridge.line(level, facility, text);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.bridge.failed(&error, reason);
    }
}

impl ProducerContext for Hearing {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, row)) = result
            && verdict(error) == Verdict::Config
        {
            let refused = || (error.clone(), row.topic().to_owned());
            self.refused.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(refused);
        }
    }
}

/// The thread's side.
struct Publisher {
    client: Client,
    topics: Vec<String>,
    membership: Membership,
    header: bool,
    /// With a thread that serves delivery reports: an abort waits for those of the rows that it drops, and does not serve them itself.
    producer: ThreadedProducer<Hearing>,
    id: String,
    deadline: Instant,
}

/// How a call ended that did not succeed.
enum Trouble {
    /// The transaction must be aborted and the epoch sent again.
    Abort(KafkaError),
    /// The stage must end.
    End(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::End(error)
    }
}

impl Publisher {
    fn run(mut self, shared: &Shared) {
        loop {
            let mut desk = shared.desk();
            while desk.given.is_none() && !desk.closed {
                // Errors of the client are heard, and the connection is kept in order, also while there is nothing to publish.
                desk = shared.changed.wait_timeout(desk, Duration::from_millis(500)).unwrap_or_else(PoisonError::into_inner).0;
                if desk.given.is_none() {
                    drop(desk);
                    self.producer.poll(Duration::ZERO);
                    desk = shared.desk();
                }
            }
            let Some(mut epoch) = desk.given.take() else { return };
            drop(desk);
            // A lane that waits for it would wait for ever.
            let published =
                guarded(STAGE, "the thread that publishes transactions", || self.publish(&epoch)).and_then(|published| published);
            let mut desk = shared.desk();
            match published {
                Ok(commits) => {
                    desk.durable = desk.durable.saturating_add(u64::try_from(epoch.len()).unwrap_or(0));
                    let newest = desk.committed.get_or_insert_default();
                    // What was lost since is no news: the lane may have the partition anew.
                    let is_ours = |partition: Partition| self.membership.term(partition).as_ref() == epoch.terms.get(&partition);
                    let news = commits.iter().filter(|(partition, _)| is_ours(*partition));
                    news.for_each(|(partition, commit)| newest.insert(partition, commit.clone()));
                    epoch.clear();
                    desk.spare = Some(epoch);
                }
                Err(error) => {
                    desk.error = Some(error);
                    desk.failed = true;
                }
            }
            desk.busy = false;
            let ended = desk.failed;
            drop(desk);
            shared.changed.notify_all();
            if ended {
                return;
            }
        }
    }

    /// Makes an epoch visible; returns the offsets that have become so with it.
    fn publish(&mut self, epoch: &Epoch) -> Result<Commits> {
        self.deadline = clock::tick() + PATIENCE;
        loop {
            match self.attempt(epoch) {
                Ok(commits) => return Ok(commits),
                Err(Trouble::End(error)) => return Err(error),
                Err(Trouble::Abort(error)) => {
                    tracing::warn!(%error, "the transaction is aborted and its rows are sent again");
                    if clock::tick() >= self.deadline {
                        return Err(self.explain("commit the transaction", &error));
                    }
                    match self.call("abort the transaction", |producer| producer.abort_transaction(CALL)) {
                        Ok(()) | Err(Trouble::Abort(_)) => {}
                        Err(Trouble::End(error)) => return Err(error),
                    }
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    /// One transaction.
    fn attempt(&mut self, epoch: &Epoch) -> std::result::Result<Commits, Trouble> {
        // Membership first, ownership after it: what is ours then was ours in that generation. A partition that was lost and came back is not what it was.
        let metadata = self.membership.metadata()?;
        let ours = |partition: Partition| self.membership.term(partition).is_some_and(|term| epoch.terms.get(&partition) == Some(&term));
        let commits: Commits =
            epoch.commits.iter().filter(|(partition, _)| ours(*partition)).map(|(partition, commit)| (partition, commit.clone())).collect();
        if commits.is_empty() {
            return Ok(commits);
        }
        self.call("begin a transaction", Producer::begin_transaction)?;
        fail_point("commit.begun");
        for row in epoch.iter().filter(|row| commits.get(row.at.partition).is_some()) {
            self.send(&row)?;
        }
        fail_point("commit.rows_sent");
        let mut list = TopicPartitionList::new();
        for (partition, commit) in commits.iter() {
            let added = list.add_partition_offset(self.membership.topic(), partition.0, KafkaOffset::Offset(commit.next.0));
            added.map_err(|error| self.explain("note an offset", &error))?;
        }
        for mut element in list.elements() {
            if let Some(commit) = commits.get(Partition(element.partition())) {
                element.set_metadata(commit.note.to_string());
            }
        }
        self.call("send offsets to the transaction", |producer| producer.send_offsets_to_transaction(&list, &metadata, CALL))?;
        fail_point("commit.offsets_sent");
        self.call("commit the transaction", |producer| producer.commit_transaction(CALL))?;
        fail_point("commit.visible");
        Ok(commits)
    }

    fn send(&self, row: &Sending<'_>) -> std::result::Result<(), Trouble> {
        let topic = self.topics.get(usize::from(row.topic)).map_or("", String::as_str);
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).payload(row.value);
        record.key = row.key;
        if self.header {
            let mut position = Vec::with_capacity(32);
            row.at.write(&mut position);
            record = record.headers(OwnedHeaders::new_with_capacity(1).insert(Header { key: POSITION, value: Some(&position) }));
        }
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, refused)) if error.rdkafka_error_code() == Some(Code::QueueFull) => {
                    self.producer.poll(Duration::ZERO);
                    std::thread::sleep(Duration::from_millis(1));
                    record = refused;
                }
                Err((error, _)) if matches!(error.rdkafka_error_code(), Some(Code::MessageSizeTooLarge)) => {
                    let doing = format!("write the row of record {}:{} ({} bytes)", row.at.partition, row.at.offset, row.value.len());
                    return Err(Trouble::End(explain(STAGE, &self.client, topic, &doing, &error)));
                }
                Err((error, _)) => return Err(self.judge("write a row", error)),
            }
        }
    }

    /// Makes a call of the transaction's protocol, again as long as librdkafka says that this helps.
    fn call(&self, doing: &str, call: impl Fn(&ThreadedProducer<Hearing>) -> KafkaResult<()>) -> std::result::Result<(), Trouble> {
        loop {
            match call(&self.producer) {
                Ok(()) => return Ok(()),
                Err(error) if is_retriable(&error) && clock::tick() < self.deadline => {
                    tracing::debug!(%error, doing, "will be tried again");
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(self.judge(doing, error)),
            }
        }
    }

    /// As `call`, where there is nothing to abort.
    fn again(&mut self, doing: &str, call: impl Fn(&ThreadedProducer<Hearing>) -> KafkaResult<()>) -> Result<()> {
        self.call(doing, call).map_err(|trouble| match trouble {
            Trouble::Abort(error) => self.explain(doing, &error),
            Trouble::End(error) => error,
        })
    }

    fn judge(&self, doing: &str, error: KafkaError) -> Trouble {
        if let Some((code, text)) = self.producer.client().fatal_error() {
            let fenced = matches!(code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch | Code::InvalidProducerIdMapping);
            let error = if fenced {
                Error::new(Kind::Retry, STAGE, format!("another writes as `{}` now, or the broker has ended its transaction: this one stops", self.id))
                    .at(self.client.brokers.clone())
                    .help("start again; nothing is lost and nothing is written twice. If it happens at each start, two instances have one name: give each its own `source.instance`")
            } else {
                self.explain(doing, &error)
            };
            return Trouble::End(error.caused_by(text));
        }
        // Sent again under a new membership it would be accepted, although another member may have committed the same meanwhile.
        if matches!(error.rdkafka_error_code(), Some(Code::FencedInstanceId | Code::UnknownMemberId)) {
            let text = format!("the group `{}` has taken this process for dead: this one stops", self.membership.group());
            return Trouble::End(
                Error::new(Kind::Retry, STAGE, text)
                    .at(self.client.brokers.clone())
                    .help("start again; nothing is lost and nothing is written twice")
                    .caused_by(error),
            );
        }
        // Sent again it would be refused again.
        let refused = self.producer.context().refused.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((refused, topic)) = refused {
            return Trouble::End(explain(STAGE, &self.client, &topic, "deliver a row", &refused));
        }
        match &error {
            KafkaError::Transaction(cause) if cause.txn_requires_abort() => Trouble::Abort(error),
            // Librdkafka refuses calls once the transaction has failed; the abort clears it.
            _ if matches!(
                error.rdkafka_error_code(),
                Some(Code::State | Code::PurgeQueue | Code::PurgeInflight | Code::MessageTimedOut)
            ) =>
            {
                Trouble::Abort(error)
            }
            _ => Trouble::End(self.explain(doing, &error)),
        }
    }

    fn explain(&self, doing: &str, error: &KafkaError) -> Error {
        explain(STAGE, &self.client, self.topics.first().map_or("", String::as_str), doing, error)
    }
}

fn is_retriable(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(cause) => cause.is_retriable(),
        other => matches!(other.rdkafka_error_code(), Some(Code::OperationTimedOut)),
    }
}
