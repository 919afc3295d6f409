//! This process as a member of its consumer group, for sinks that commit offsets together with their rows.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};

use super::watch::Watch;
use super::{STAGE, Shared};
use crate::base::error::{Error, Kind, Result};
use crate::base::offset::Partition;
use crate::link::kafka::Group;

/// Does not keep the consumer open: the control thread must be the one that drops it.
pub(super) struct Member {
    pub(super) consumer: Weak<BaseConsumer<Watch>>,
    pub(super) shared: Arc<Shared>,
}

impl Group for Member {
    fn metadata(&self) -> Result<ConsumerGroupMetadata> {
        self.shared.awake.check(&self.shared.group)?;
        let consumer = self.consumer.upgrade();
        consumer.and_then(|consumer| consumer.group_metadata()).ok_or_else(|| {
            Error::new(Kind::Retry, STAGE, format!("this process is not a member of group `{}` any more", self.shared.group))
                .at(format!("topic {}", self.shared.topic))
                .help("start again: what was not committed is read again")
        })
    }

    fn term(&self, partition: Partition) -> Option<u64> {
        self.shared.ours().get(&partition.0).filter(|(_, ours)| ours.load(Ordering::Acquire)).map(|(term, _)| *term)
    }

    fn topic(&self) -> &str {
        &self.shared.topic
    }

    fn group(&self) -> &str {
        &self.shared.group
    }
}
