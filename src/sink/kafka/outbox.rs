//! A producer that knows how far its rows are acknowledged.
//!
//! Each `write` of a lane is a chunk. A row carries the number of its chunk's slot through librdkafka and back, where acknowledgements
//! are counted per slot; the rows before the first chunk with an open one are durable. So nothing is allocated or looked up per row,
//! and the lane commits while later rows are still under way.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientConfig, Statistics};

use super::{POSITION, Position};
use crate::base::error::{Error, Result};
use crate::link::kafka::{Bridge, Client, Probe, explain};

/// Most chunks that are told apart; further writes are added to the last one.
const SLOTS: usize = 1024;

/// Settings of a producer: first what a user may change, then the user's, then what delivery rests on.
#[must_use]
pub fn producer_config(client: &Client) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("compression.type", "lz4")
        // A lane hands its rows over in batches; waiting longer for more gains little.
        .set("linger.ms", "10")
        .set("batch.size", "1000000")
        // Rows under way should stay in the processor's cache: each is a few scattered allocations that several threads walk. With
        // 100,000 of them a row cost a quarter more. At a round trip of 20 ms this still lets 400,000 rows a second through.
        .set("batch.num.messages", "2000")
        .set("queue.buffering.max.messages", "12000")
        .set("queue.buffering.max.kbytes", "131072")
        // What a topic takes is the broker's decision.
        .set("message.max.bytes", "16777216")
        .set("message.timeout.ms", "300000")
        .set("reconnect.backoff.max.ms", "2000")
        .set("partitioner", "murmur2_random")
        .set("statistics.interval.ms", "0");
    let given = client.config();
    config.set_log_level(given.log_level);
    for name in ["client.id", "bootstrap.servers"].into_iter().chain(client.settings.keys().map(String::as_str)) {
        if let Some(value) = given.get(name) {
            config.set(name, value);
        }
    }
    config.set("acks", "all").set("enable.idempotence", "true");
    config
}

/// Counts what comes back.
struct Desk {
    bridge: Bridge,
    /// Acknowledged rows per slot.
    acked: Box<[AtomicU64]>,
    /// Acknowledgements heard, good or bad.
    heard: AtomicU64,
    failed: AtomicBool,
    failure: Mutex<Option<KafkaError>>,
    lost: AtomicU64,
}

impl ClientContext for Desk {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.bridge.line(level, facility, text);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.bridge.failed(&error, reason);
    }
}

impl ProducerContext for Desk {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, slot: usize) {
        self.heard.fetch_add(1, Ordering::Relaxed);
        match result {
            Ok(_) => {
                if let Some(acked) = self.acked.get(slot) {
                    acked.fetch_add(1, Ordering::Release);
                }
            }
            Err((error, _)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
                self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.clone());
                self.failed.store(true, Ordering::Release);
            }
        }
    }
}

/// Rows of one or more writes.
struct Chunk {
    slot: usize,
    sent: u64,
    /// Rows written when it ended.
    end: u64,
}

/// Sends rows to one topic, idempotently and acknowledged by all in-sync replicas. Rows are delivered in order per partition.
pub struct Outbox {
    stage: &'static str,
    client: Client,
    topic: String,
    producer: BaseProducer<Desk>,
    chunks: VecDeque<Chunk>,
    next_slot: usize,
    written: u64,
    durable: u64,
    position: Vec<u8>,
}

impl Outbox {
    /// Opens a topic that must be there: a topic that the broker would make for a misspelt name hides the mistake.
    ///
    /// # Errors
    /// Unavailable if no broker answers within 5 s; configuration for a refused client setting or a topic that is not there, with the
    /// nearest name and the command that creates it.
    pub fn open(stage: &'static str, client: &Client, topic: &str) -> Result<Self> {
        Probe::new(stage, client, None)?.topic(topic)?;
        let desk = Desk {
            bridge: Bridge::default(),
            acked: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            heard: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
            lost: AtomicU64::new(0),
        };
        let producer = BaseProducer::from_config_and_context(&producer_config(client), desk)
            .map_err(|error| explain(stage, client, topic, "open the producer", &error))?;
        Ok(Outbox {
            stage,
            client: client.clone(),
            topic: topic.to_owned(),
            producer,
            chunks: VecDeque::new(),
            next_slot: 0,
            written: 0,
            durable: 0,
            position: Vec::new(),
        })
    }

    /// Starts a chunk: the rows sent until the next `begin` become durable together.
    pub fn begin(&mut self) {
        if self.chunks.back().is_some_and(|chunk| chunk.sent == 0 || self.chunks.len() == SLOTS) {
            return;
        }
        self.chunks.push_back(Chunk { slot: self.next_slot, sent: 0, end: self.written });
        self.next_slot = (self.next_slot + 1) % SLOTS;
    }

    /// Sends a row, with the position of its input record where it has one. Waits while librdkafka's queue is full.
    ///
    /// # Errors
    /// As `durable`, or if librdkafka refuses the row.
    pub fn send(&mut self, key: Option<&[u8]>, at: Option<Position>, value: &[u8]) -> Result<()> {
        if self.chunks.is_empty() {
            self.begin();
        }
        let Some(chunk) = self.chunks.back_mut() else { return Err(Error::internal(self.stage, "a row outside of a chunk")) };
        let mut record = BaseRecord::with_opaque_to(&self.topic, chunk.slot).payload(value);
        if let Some(at) = at {
            self.position.clear();
            at.write(&mut self.position);
            record = record.headers(OwnedHeaders::new_with_capacity(1).insert(Header { key: POSITION, value: Some(&self.position) }));
        }
        record.key = key;
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err((error, refused)) if error.rdkafka_error_code() == Some(Code::QueueFull) => {
                    // Not `poll(1 ms)`: below a whole millisecond rdkafka would spin until it is over.
                    if !serve_once(&self.producer) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    failure(&self.producer, self.stage, &self.client, &self.topic)?;
                    record = refused;
                }
                Err((error, _)) => {
                    let doing = match at {
                        Some(at) => format!("write the row of record {}:{} ({} bytes)", at.partition, at.offset, value.len()),
                        None => format!("write a record of {} bytes", value.len()),
                    };
                    return Err(fatal(&self.producer, explain(self.stage, &self.client, &self.topic, &doing, &error)));
                }
            }
        }
        self.written += 1;
        chunk.sent += 1;
        chunk.end = self.written;
        Ok(())
    }

    /// Takes in the acknowledgements that have come, without waiting.
    ///
    /// # Errors
    /// If a row could not be delivered within `message.timeout.ms` or the broker refused it: nothing above `durable` is safe then.
    pub fn serve(&mut self) -> Result<()> {
        let desk = self.producer.context();
        while serve_once(&self.producer) {}
        failure(&self.producer, self.stage, &self.client, &self.topic)?;
        while let Some(chunk) = self.chunks.front() {
            let Some(acked) = desk.acked.get(chunk.slot) else { break };
            if acked.load(Ordering::Acquire) < chunk.sent {
                break;
            }
            acked.store(0, Ordering::Release);
            self.durable = chunk.end;
            self.chunks.pop_front();
        }
        Ok(())
    }

    /// Rows sent.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Rows from the first on that are acknowledged without a gap, counted in whole chunks. Does not wait.
    ///
    /// # Errors
    /// As `serve`.
    pub fn durable(&mut self) -> Result<u64> {
        self.serve()?;
        Ok(self.durable)
    }

    /// Whether all rows are acknowledged; with `force` sends what lingers and waits until they are.
    ///
    /// # Errors
    /// As `serve`.
    pub fn flush(&mut self, force: bool) -> Result<bool> {
        self.serve()?;
        while force && self.durable < self.written {
            // A time-out here only means that the broker is slow or away; the rows themselves time out after `message.timeout.ms`.
            match self.producer.flush(Duration::from_millis(200)) {
                Ok(()) => {}
                Err(error) if error.rdkafka_error_code() == Some(Code::OperationTimedOut) => {}
                Err(error) => return Err(explain(self.stage, &self.client, &self.topic, "flush the producer", &error)),
            }
            self.serve()?;
        }
        Ok(self.durable == self.written)
    }
}

/// Takes in one batch of acknowledgements if there is one.
fn serve_once(producer: &BaseProducer<Desk>) -> bool {
    let heard = || producer.context().heard.load(Ordering::Relaxed);
    let before = heard();
    producer.poll(Duration::ZERO);
    heard() != before
}

/// The error for rows that were not delivered, if there are any.
fn failure(producer: &BaseProducer<Desk>, stage: &'static str, client: &Client, topic: &str) -> Result<()> {
    let desk = producer.context();
    if !desk.failed.load(Ordering::Acquire) {
        return Ok(());
    }
    let found = desk.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let error = found.unwrap_or(KafkaError::MessageProduction(Code::Fail));
    let lost = desk.lost.load(Ordering::Relaxed);
    let rows = if lost == 1 { "a row".to_owned() } else { format!("{lost} rows") };
    Err(fatal(producer, explain(stage, client, topic, &format!("deliver {rows}"), &error)))
}

/// Adds what made the producer unusable, if something did.
fn fatal(producer: &BaseProducer<Desk>, error: Error) -> Error {
    match producer.client().fatal_error() {
        Some((_, text)) => error.caused_by(text),
        None => error,
    }
}
