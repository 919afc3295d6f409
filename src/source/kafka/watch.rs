//! What librdkafka calls back: rebalances are noted for the control thread, ends of partitions for the lanes.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Statistics, TopicPartitionList};

use super::Shared;
use crate::link::kafka::Bridge;

/// A rebalance that the control thread has to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rebalance {
    /// The group gives these partitions.
    Assign(Vec<i32>),
    /// The group takes these partitions.
    Revoke(Vec<i32>),
}

thread_local! {
    /// Offset of the partition end that this thread is being told of. `KafkaError::PartitionEOF`, which follows on the same thread, has
    /// the partition only; the text given to `ClientContext::error` has the offset.
    static END: Cell<Option<i64>> = const { Cell::new(None) };
}

/// The offset of the end that `poll` on this thread has just reported.
pub(super) fn end_offset() -> Option<i64> {
    END.take()
}

/// Reads `... reached end of partition at offset 42 (HighwaterMark 42)`. Another wording gives `None`, which costs no more than a
/// committed offset that stays below trailing control records of transactions.
fn end_in(reason: &str) -> Option<i64> {
    let (_, rest) = reason.split_once("reached end of partition at offset ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The consumer's context.
pub(super) struct Watch {
    pub(super) bridge: Bridge,
    /// From now on nobody reads the notes: rebalances are answered in the callback.
    pub(super) closing: AtomicBool,
    shared: Arc<Shared>,
    noted: Mutex<VecDeque<Rebalance>>,
}

impl Watch {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Watch { bridge: Bridge::default(), closing: AtomicBool::new(false), shared, noted: Mutex::new(VecDeque::new()) }
    }

    fn noted(&self) -> MutexGuard<'_, VecDeque<Rebalance>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest rebalance that waits for an answer.
    pub(super) fn next(&self) -> Option<Rebalance> {
        self.noted().pop_front()
    }
}

impl ClientContext for Watch {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.bridge.line(level, facility, text);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(Code::PartitionEOF) {
            END.set(end_in(reason));
            return;
        }
        self.bridge.failed(&error, reason);
    }
}

impl ConsumerContext for Watch {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let assign = code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Acquire) {
            // librdkafka waits for this answer before the consumer can close; while it closes, either call lets go of everything.
            let answered = if assign { consumer.incremental_assign(partitions) } else { consumer.incremental_unassign(partitions) };
            if let Err(error) = answered {
                tracing::debug!(%error, "rebalance while closing");
            }
            return;
        }
        let numbers = partitions.elements_for_topic(&self.shared.topic).iter().map(|element| element.partition()).collect();
        self.noted().push_back(if assign { Rebalance::Assign(numbers) } else { Rebalance::Revoke(numbers) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_of_an_end_is_read_from_its_text() {
        let text = "Fetch from broker 1 reached end of partition at offset 12277 (HighwaterMark 12280)";
        assert_eq!(end_in(text), Some(12277));
        assert_eq!(end_in("Fetch from broker 1 failed at offset 3"), None);
    }
}
