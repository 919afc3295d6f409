//! The sinks of a lane whose forecasts and dead letters share one transaction.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::transactions::{self, Transactions};
use super::{Encode, Position};
use crate::base::error::Result;
use crate::base::offset::Partition;
use crate::data::commit::Commits;
use crate::data::forecasts::{Forecasts, Identity};
use crate::data::layout::Layout;
use crate::data::rejected::Rejected;
use crate::link::kafka::{Client, Instance, Membership};
use crate::sink::json::{RowEncoder, dead_letter as dead_letter_json};
use crate::sink::{DeadLetterSink, ForecastSink, Settings, Sink};

/// Topics by index, as `transactions::Opening::topics` has them.
const FORECASTS: u8 = 0;
const DEAD_LETTERS: u8 = 1;

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

/// A sink for forecasts, and one for dead letters if it is part of the same transactions.
pub type Pair = (Box<dyn ForecastSink>, Option<Box<dyn DeadLetterSink>>);

/// Opens the sinks of a lane. Dead letters share the transactions if they go to the same brokers; otherwise `None`: they need a sink of their own.
///
/// # Errors
/// As `Transactions::open`.
pub fn open_exactly_once(
    opening: Opening<'_>,
    (layout, identity): (&Layout, &Identity),
    (dead_letter, origin): (&Settings, &str),
) -> Result<Pair> {
    let Opening { client, forecasts, membership, instance, lane, header } = opening;
    let mut topics = vec![forecasts.to_owned()];
    if let Settings::Kafka { client: theirs, topic } = dead_letter
        && theirs.brokers == client.brokers
    {
        topics.push(topic.clone());
    }
    let shared = topics.len() > 1;
    let transactions = Transactions::open(transactions::Opening { client, topics, membership, instance, lane, header })?;
    let mut encoder = RowEncoder::new(layout, identity);
    let encode = Box::new(move |forecasts: &Forecasts, row: usize, out: &mut Vec<u8>| encoder.row(forecasts, row, out));
    let sink = ExactlyOnceForecasts { transactions: Arc::new(Mutex::new(transactions)), encode };
    let dead_letters = shared.then(|| {
        let origin = origin.to_owned();
        let encode = Box::new(move |rejected: &Rejected, row: usize, out: &mut Vec<u8>| dead_letter_json(rejected, row, &origin, out));
        Box::new(ExactlyOnceDeadLetters { transactions: Arc::clone(&sink.transactions), encode, written: 0 }) as Box<dyn DeadLetterSink>
    });
    Ok((Box::new(sink), dead_letters))
}

/// Forecasts; ends the epochs.
pub struct ExactlyOnceForecasts {
    transactions: Arc<Mutex<Transactions>>,
    encode: Encode<Forecasts>,
}

/// Dead letters, which ride in the forecasts' transactions.
pub struct ExactlyOnceDeadLetters {
    transactions: Arc<Mutex<Transactions>>,
    encode: Encode<Rejected>,
    written: u64,
}

/// Both sinks live on one thread; the lock is never contended.
fn lock(transactions: &Mutex<Transactions>) -> MutexGuard<'_, Transactions> {
    transactions.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ForecastSink for ExactlyOnceForecasts {
    fn write(&mut self, forecasts: &Forecasts) -> Result<()> {
        let mut transactions = lock(&self.transactions);
        let epoch = transactions.filling()?;
        for (row, (partition, offset)) in forecasts.partitions.iter().zip(&forecasts.offsets).enumerate() {
            let at = Position { overdue: forecasts.overdue_at(row), ..Position::of(*partition, *offset) };
            epoch.push(FORECASTS, at, forecasts.keys.get(row), |out| (self.encode)(forecasts, row, out));
        }
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

impl DeadLetterSink for ExactlyOnceDeadLetters {
    fn write(&mut self, rejected: &Rejected) -> Result<()> {
        let mut transactions = lock(&self.transactions);
        let epoch = transactions.filling()?;
        for (row, (partition, offset)) in rejected.partitions.iter().zip(&rejected.offsets).enumerate() {
            epoch.push(DEAD_LETTERS, Position::of(*partition, *offset), rejected.keys.get(row), |out| (self.encode)(rejected, row, out));
        }
        transactions.wrote(rejected.len());
        self.written = self.written.saturating_add(u64::try_from(rejected.len()).unwrap_or(0));
        Ok(())
    }
}

impl Sink for ExactlyOnceDeadLetters {
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
