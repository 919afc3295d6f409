//! What librdkafka calls back: rebalances are noted for the control thread, results of commits for the lanes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};

use super::{STAGE, Shared};
use crate::link::kafka::{Bridge, Verdict, explain, verdict};

/// A rebalance that the control thread has to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rebalance {
    /// The group gives these partitions.
    Assign(Vec<i32>),
    /// The group takes these partitions.
    Revoke(Vec<i32>),
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

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let mut failed = result.err().filter(|error| error.rdkafka_error_code() != Some(Code::NoOffset));
        for element in offsets.elements_for_topic(&self.shared.topic) {
            match (element.error(), element.offset()) {
                (Ok(()), Offset::Offset(offset)) if failed.is_none() => self.shared.note_acked(element.partition(), offset),
                (Err(error), _) => failed = Some(error),
                _ => {}
            }
        }
        if let Some(error) = failed {
            if verdict(&error) == Verdict::Config {
                self.shared.fail(explain(STAGE, &self.shared.client, &self.shared.topic, "commit offsets", &error));
            } else {
                tracing::debug!(%error, "a commit failed and will be tried again");
            }
            self.shared.note_failed_commit();
        }
    }
}
