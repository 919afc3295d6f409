//! Forecasts and dead letters to a Kafka topic: at least once, each row with the position of the record it came from.
//!
//! The record key is the event's key (of a dead letter: the key the bad record had), hashed as the Java client does, so that topics of
//! equal width are partitioned alike. One header, [`POSITION`], holds `partition:offset` of the input record; after a crash a row may
//! come twice with the same position, and a reader that wants each once keeps the first.

use super::json::letter_key;
use super::{DeadLetterSink, ForecastSink, Sink};
use crate::base::error::Result;
use crate::base::offset::{Offset, Partition};
use crate::data::commit::Commits;
use crate::data::forecasts::Forecasts;
use crate::data::rejected::Rejected;
use crate::link::kafka::Client;

pub mod audit;
mod check;
mod epoch;
mod exactly_once;
mod fill;
mod outbox;
mod position;
mod transactions;

pub use check::check_connect;
pub use exactly_once::{ExactlyOnceForecasts, Opening, Riding, open_exactly_once};
pub use fill::{NextRecord, create_topic, fill_topic};
pub use outbox::{Outbox, producer_config};
pub use position::{POSITION, Position};

/// Writes row `usize` of a batch to the end of a buffer (which comes empty).
pub type Encode<T> = Box<dyn FnMut(&T, usize, &mut Vec<u8>) + Send>;

/// Forecasts to a topic.
pub struct KafkaForecasts {
    outbox: Outbox,
    encode: Encode<Forecasts>,
    row: Vec<u8>,
}

impl KafkaForecasts {
    /// Opens the topic for forecasts; `encode` makes the value of a row.
    ///
    /// # Errors
    /// As [`Outbox::open`].
    pub fn open(client: &Client, topic: &str, encode: Encode<Forecasts>) -> Result<Self> {
        Ok(KafkaForecasts { outbox: Outbox::open("sink", client, topic)?, encode, row: Vec::new() })
    }
}

impl ForecastSink for KafkaForecasts {
    fn write(&mut self, forecasts: &Forecasts) -> Result<()> {
        self.outbox.begin();
        for (row, at) in positions(&forecasts.partitions, &forecasts.offsets).enumerate() {
            let at = Position { overdue: forecasts.overdue_at(row), ..at };
            self.row.clear();
            (self.encode)(forecasts, row, &mut self.row);
            self.outbox.send(forecasts.keys.get(row), Some(at), &self.row)?;
        }
        self.outbox.serve()
    }
}

impl Sink for KafkaForecasts {
    fn written(&self) -> u64 {
        self.outbox.written()
    }

    fn durable(&mut self) -> Result<u64> {
        self.outbox.durable()
    }

    fn end_epoch(&mut self, _commits: &Commits, force: bool) -> Result<bool> {
        self.outbox.flush(force)
    }

    fn close(&mut self) -> Result<()> {
        self.outbox.flush(true).map(|_| ())
    }
}

/// Dead letters to a topic.
pub struct KafkaDeadLetters {
    outbox: Outbox,
    encode: Encode<Rejected>,
    row: Vec<u8>,
}

impl KafkaDeadLetters {
    /// Opens the topic for dead letters; `encode` makes the value of a row.
    ///
    /// # Errors
    /// As [`Outbox::open`].
    pub fn open(client: &Client, topic: &str, encode: Encode<Rejected>) -> Result<Self> {
        Ok(KafkaDeadLetters { outbox: Outbox::open("dead_letter", client, topic)?, encode, row: Vec::new() })
    }
}

impl DeadLetterSink for KafkaDeadLetters {
    fn write(&mut self, rejected: &Rejected) -> Result<()> {
        self.outbox.begin();
        for (row, at) in positions(&rejected.partitions, &rejected.offsets).enumerate() {
            self.row.clear();
            (self.encode)(rejected, row, &mut self.row);
            self.outbox.send(letter_key(rejected, row), Some(at), &self.row)?;
        }
        self.outbox.serve()
    }
}

impl Sink for KafkaDeadLetters {
    fn written(&self) -> u64 {
        self.outbox.written()
    }

    fn durable(&mut self) -> Result<u64> {
        self.outbox.durable()
    }

    fn end_epoch(&mut self, _commits: &Commits, force: bool) -> Result<bool> {
        self.outbox.flush(force)
    }

    fn close(&mut self) -> Result<()> {
        self.outbox.flush(true).map(|_| ())
    }
}

fn positions(partitions: &[Partition], offsets: &[Offset]) -> impl Iterator<Item = Position> {
    partitions.iter().zip(offsets).map(|(partition, offset)| Position::of(*partition, *offset))
}
