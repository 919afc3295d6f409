//! Reads topics back for `meantime verify`: committed records only, from their first one to an end that is fixed at start.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use super::{POSITION, Position};
use crate::base::clock;
use crate::base::error::{Error, Kind, Result};
use crate::base::offset::{Offset, Partition};
use crate::base::time::EventTime;
use crate::link::kafka::{Bridge, Client, Probe, Verdict, ends, explain, recorded, verdict};

const STAGE: &str = "verify";
/// How long a broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the broker may take to end a transaction that was open at start; by then it has timed out (30 s), unless its owner is alive.
const OPEN: Duration = Duration::from_secs(45);
/// How long a topic may give nothing before its end.
const SILENCE: Duration = Duration::from_secs(60);

/// First offset of a partition and the one after the last that is read.
pub type Spans = BTreeMap<Partition, (Offset, Offset)>;

/// Where a record says that it comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Origin {
    /// It has no such header.
    Unnamed,
    /// The header is there and cannot be read.
    Unreadable,
    /// What the header says.
    At(Position),
}

/// A record as it stands in a topic.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Where it stands.
    pub at: (Partition, Offset),
    /// When the log took it in.
    pub recorded: Option<EventTime>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub payload: Option<&'a [u8]>,
    /// The header [`POSITION`].
    pub origin: Origin,
}

fn connect(stage: &'static str, client: &Client, group: Option<&str>, isolation: &str) -> Result<BaseConsumer<Bridge>> {
    let mut config: ClientConfig = client.config();
    config.set("isolation.level", isolation).set("enable.auto.commit", "false").set("enable.partition.eof", "true");
    config.set("auto.offset.reset", "error").set("queued.max.messages.kbytes", "65536").set("fetch.queue.backoff.ms", "5");
    if let Some(group) = group {
        config.set("group.id", group);
    }
    BaseConsumer::from_config_and_context(&config, Bridge::default())
        .map_err(|error| explain(stage, client, "", "set up a Kafka client", &error))
}

/// First and next offset of each partition, once all transactions that were open have ended: what was committed before the call lies below the ends.
///
/// # Errors
/// Unavailable if no broker answers; configuration if the topic is not there; retry if a transaction stays open.
pub fn spans(client: &Client, topic: &str) -> Result<Spans> {
    let probe = Probe::new(STAGE, client, None)?;
    let (_, width) = probe.topic(topic)?;
    let partitions: Vec<i32> = (0..).take(width).collect();
    let fault = |error: &KafkaError| explain(STAGE, client, topic, "read the offsets of the topic", error);
    let written = ends(&connect(STAGE, client, None, "read_uncommitted")?, topic, &partitions, PATIENCE).map_err(|error| fault(&error))?;
    let deadline = clock::tick() + OPEN;
    loop {
        let committed = probe.ends(topic, width)?;
        let open = written.iter().find(|(partition, _, end)| committed.iter().any(|(p, _, stable)| p == partition && stable < end));
        match open {
            None => return Ok(committed.into_iter().map(|(p, low, end)| (Partition(p), (Offset(low), Offset(end)))).collect()),
            Some(_) if clock::tick() < deadline => std::thread::sleep(Duration::from_millis(100)),
            Some((partition, _, end)) => {
                let text = format!("a transaction below offset {end} stays open");
                return Err(Error::new(Kind::Retry, STAGE, text)
                    .at(format!("topic {topic}, partition {partition}"))
                    .help("the broker aborts it after the `transaction.timeout.ms` of its producer; verify again then"));
            }
        }
    }
}

/// Committed offset of each partition that has one. Waits while a transaction that commits one is open.
///
/// # Errors
/// Unavailable if no broker answers or a transaction stays open; configuration if the group may not be read.
pub fn committed(client: &Client, topic: &str, group: &str) -> Result<BTreeMap<Partition, Offset>> {
    let probe = Probe::new(STAGE, client, Some(group))?;
    let (_, width) = probe.topic(topic)?;
    let deadline = clock::tick() + OPEN;
    loop {
        match probe.committed(topic, width) {
            Ok(found) => return Ok(found.into_iter().map(|(p, next, _)| (Partition(p), Offset(next))).collect()),
            // Such as a coordinator that has just moved.
            Err(error) if error.kind == Kind::Unavailable && clock::tick() < deadline => std::thread::sleep(Duration::from_millis(200)),
            Err(error) => return Err(error),
        }
    }
}

/// Hands every committed record of `spans` to `each`, those of a partition in their order. The group is neither joined nor changed.
///
/// # Errors
/// A record cannot be read; the topic gives nothing for a minute before its end; what `each` says.
pub fn read(client: &Client, topic: &str, group: &str, spans: &Spans, each: &mut dyn FnMut(&Found<'_>) -> Result<()>) -> Result<()> {
    scan(STAGE, client, topic, group, spans, &mut |found| each(found).map(|()| true))
}

/// As `read`, for a command of this name; `each` says whether more of the record's partition are wanted.
///
/// # Errors
/// As `read`.
pub fn scan(
    stage: &'static str,
    client: &Client,
    topic: &str,
    group: &str,
    spans: &Spans,
    each: &mut dyn FnMut(&Found<'_>) -> Result<bool>,
) -> Result<()> {
    let mut open: BTreeMap<Partition, Offset> =
        spans.iter().filter(|(_, (low, end))| low < end).map(|(partition, (_, end))| (*partition, *end)).collect();
    if open.is_empty() {
        return Ok(());
    }
    let consumer = connect(stage, client, Some(group), "read_committed")?;
    let fault = |error: &KafkaError| explain(stage, client, topic, "read the topic", error);
    let mut list = TopicPartitionList::new();
    for (partition, (low, end)) in spans {
        if low < end {
            list.add_partition_offset(topic, partition.0, KafkaOffset::Offset(low.0)).map_err(|error| fault(&error))?;
        }
    }
    consumer.assign(&list).map_err(|error| fault(&error))?;
    let mut heard: Instant = clock::tick();
    while !open.is_empty() {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                heard = clock::tick();
                let at = (Partition(message.partition()), Offset(message.offset()));
                // No entry: records that were fetched before their partition was paused.
                let Some(end) = open.get(&at.0).copied() else { continue };
                let more = at.1 < end && each(&found(&message, at))?;
                if !more || at.1.next() >= end {
                    open.remove(&at.0);
                    let mut done = TopicPartitionList::new();
                    done.add_partition(topic, at.0.0);
                    consumer.pause(&done).map_err(|error| fault(&error))?;
                }
            }
            // The last offsets below an end may be marks of transactions, which no reader sees.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                heard = clock::tick();
                open.remove(&Partition(partition));
            }
            Some(Err(error)) if verdict(&error) == Verdict::Passing => {}
            Some(Err(error)) => return Err(fault(&error)),
            None => {}
        }
        if heard.elapsed() > SILENCE {
            let waiting = open.iter().map(|(partition, end)| format!("{partition} to {end}")).collect::<Vec<_>>().join(", ");
            let why = consumer.context().trouble().map_or_else(|| "no records come".to_owned(), |(why, _)| why);
            return Err(Error::new(Kind::Unavailable, stage, format!("the topic could not be read to its end: {why}"))
                .at(format!("topic {topic} on {}, partitions {waiting}", client.brokers))
                .help("try again when the brokers answer"));
        }
    }
    Ok(())
}

fn found<'a>(message: &'a BorrowedMessage<'_>, at: (Partition, Offset)) -> Found<'a> {
    let header = message.headers().and_then(|headers| headers.iter().find(|header| header.key == POSITION));
    let origin = match header {
        None => Origin::Unnamed,
        Some(header) => Position::read(header.value.unwrap_or_default()).map_or(Origin::Unreadable, Origin::At),
    };
    Found { at, recorded: recorded(message.timestamp()), key: message.key(), payload: message.payload(), origin }
}
