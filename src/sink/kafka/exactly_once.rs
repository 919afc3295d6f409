//! The sinks of a lane whose forecasts and dead letters share one transaction.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::epoch::Epoch;
use super::transactions::{self, Transactions};
use super::{Encode, Position};
use crate::base::error::Result;
use crate::base::offset::Partition;
use crate::data::commit::Commits;
use crate::data::forecasts::{Forecasts, Identity};
use crate::data::layout::Layout;
use crate::data::rejected::Rejected;
use crate::link::kafka::{Client, Instance, Membership};
use crate::sink::json::{RowEncoder, bounded_dead_letter as dead_letter_json, letter_key};
use crate::sink::{DeadLetterSink, ForecastSink, Settings, Sink};

/// The topic that is always there, as `transactions::Opening::topics` has it.
const FORECASTS: u8 = 0;

/// What the sinks of one lane are opened with.
pub struct Opening<'a> {
    /// The cluster, which is that of the input.
    pub client: &'a Client,
    /// Topic of the forecasts.
    pub forecasts: &'a str,
    /// The consumer's membership in its group.
    pub membership: Membership,
    /// Stable name of this process.
    pub instance: Arc<Instance>,
    /// Lane.
    pub lane: usize,
    /// Whether rows carry the position of their input record.
    pub header: bool,
}

/// A sink for forecasts; one for dead letters if it is part of the same transactions; and one for the forecasts of a second model, if there is one.
pub type Shared = (Box<dyn ForecastSink>, Option<Box<dyn DeadLetterSink>>, Option<Box<dyn ForecastSink>>);

/// Opens the sinks of a lane. `shadow` is the topic of a second model. Dead letters share the transactions if they go to the same brokers; otherwise `None`: they need a sink of their own.
///
/// # Errors
/// As `Transactions::open`.
pub fn open_exactly_once(
    opening: Opening<'_>,
    (layout, identity): (&Layout, &Identity),
    (dead_letter, origin): (&Settings, &str),
    shadow: Option<(&str, &Layout, &Identity)>,
) -> Result<Shared> {
    let Opening { client, forecasts, membership, instance, lane, header } = opening;
    let mut topics = vec![forecasts.to_owned()];
    if let Settings::Kafka { client: theirs, topic } = dead_letter
        && theirs.brokers == client.brokers
    {
        topics.push(topic.clone());
    }
    let shared = (topics.len() > 1).then(|| next(&topics, 1));
    let second = shadow.map(|(topic, layout, identity)| {
        topics.push(topic.to_owned());
        (next(&topics, 1), RowEncoder::new(layout, identity))
    });
    let transactions = Transactions::open(transactions::Opening { client, topics, membership, instance, lane, header })?;
    let mut encoder = RowEncoder::new(layout, identity);
    let encode = Box::new(move |forecasts: &Forecasts, row: usize, out: &mut Vec<u8>| encoder.row(forecasts, row, out));
    let sink = ExactlyOnceForecasts { transactions: Arc::new(Mutex::new(transactions)), encode };
    let shadow = second.map(|(topic, mut encoder)| {
        let encode = Box::new(move |forecasts: &Forecasts, row: usize, out: &mut Vec<u8>| encoder.row(forecasts, row, out));
        let transactions = Arc::clone(&sink.transactions);
        Box::new(Riding { transactions, topic, encode: encode as Encode<Forecasts>, written: 0 }) as Box<dyn ForecastSink>
    });
    let dead_letters = shared.map(|topic| {
        let origin = origin.to_owned();
        let encode = Box::new(move |rejected: &Rejected, row: usize, out: &mut Vec<u8>| dead_letter_json(rejected, row, &origin, out));
        let transactions = Arc::clone(&sink.transactions);
        Box::new(Riding { transactions, topic, encode: encode as Encode<Rejected>, written: 0 }) as Box<dyn DeadLetterSink>
    });
    Ok((Box::new(sink), dead_letters, shadow))
}

/// Index of the last of these topics.
fn next(topics: &[String], less: usize) -> u8 {
    u8::try_from(topics.len() - less).unwrap_or(u8::MAX)
}

/// Forecasts; ends the epochs.
pub struct ExactlyOnceForecasts {
    transactions: Arc<Mutex<Transactions>>,
    encode: Encode<Forecasts>,
}

/// Dead letters, or the forecasts of a second model, which ride in the forecasts' transactions.
pub struct Riding<T> {
    transactions: Arc<Mutex<Transactions>>,
    topic: u8,
    encode: Encode<T>,
    written: u64,
}

/// All sinks live on one thread; the lock is never contended.
fn lock(transactions: &Mutex<Transactions>) -> MutexGuard<'_, Transactions> {
    transactions.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ForecastSink for ExactlyOnceForecasts {
    fn write(&mut self, forecasts: &Forecasts) -> Result<()> {
        let mut transactions = lock(&self.transactions);
        push(transactions.filling()?, FORECASTS, forecasts, &mut self.encode);
        transactions.wrote(forecasts.len());
        Ok(())
    }
}

impl Sink for ExactlyOnceForecasts {
    fn release(&mut self, partition: Partition) -> Result<()> {
        lock(&self.transactions).release(partition);
        Ok(())
    }

    fn written(&self) -> u64 {
        lock(&self.transactions).written()
    }

    fn durable(&mut self) -> Result<u64> {
        lock(&self.transactions).durable()
    }

    fn due(&self) -> bool {
        true
    }

    fn is_full(&self) -> bool {
        lock(&self.transactions).is_full()
    }

    fn keeps_offsets(&self) -> bool {
        true
    }

    fn committed(&mut self) -> Result<Option<Commits>> {
        lock(&self.transactions).committed()
    }

    fn end_epoch(&mut self, commits: &Commits, force: bool) -> Result<bool> {
        lock(&self.transactions).end_epoch(commits, force)
    }

    fn close(&mut self) -> Result<()> {
        lock(&self.transactions).close();
        Ok(())
    }
}

impl DeadLetterSink for Riding<Rejected> {
    fn write(&mut self, rejected: &Rejected) -> Result<()> {
        let mut transactions = lock(&self.transactions);
        let epoch = transactions.filling()?;
        for (row, (partition, offset)) in rejected.partitions.iter().zip(&rejected.offsets).enumerate() {
            epoch.push(self.topic, Position::of(*partition, *offset), letter_key(rejected, row), |out| (self.encode)(rejected, row, out));
        }
        transactions.wrote(rejected.len());
        self.written = self.written.saturating_add(u64::try_from(rejected.len()).unwrap_or(0));
        Ok(())
    }
}

impl ForecastSink for Riding<Forecasts> {
    fn write(&mut self, forecasts: &Forecasts) -> Result<()> {
        let mut transactions = lock(&self.transactions);
        push(transactions.filling()?, self.topic, forecasts, &mut self.encode);
        transactions.wrote(forecasts.len());
        self.written = self.written.saturating_add(u64::try_from(forecasts.len()).unwrap_or(0));
        Ok(())
    }
}

fn push(epoch: &mut Epoch, topic: u8, forecasts: &Forecasts, encode: &mut Encode<Forecasts>) {
    for (row, (partition, offset)) in forecasts.partitions.iter().zip(&forecasts.offsets).enumerate() {
        let at = Position { overdue: forecasts.overdue_at(row), ..Position::of(*partition, *offset) };
        epoch.push(topic, at, forecasts.keys.get(row), |out| encode(forecasts, row, out));
    }
}

impl<T> Sink for Riding<T> {
    fn written(&self) -> u64 {
        self.written
    }

    /// Durable with the forecasts' epoch, of which they are part: nothing has to be waited for before it.
    fn durable(&mut self) -> Result<u64> {
        Ok(self.written)
    }

    fn end_epoch(&mut self, _commits: &Commits, _force: bool) -> Result<bool> {
        Ok(true)
    }

    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}
