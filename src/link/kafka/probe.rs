//! Questions to a cluster that need neither a group nor a producer, and that never create a topic.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};

use super::explain::{Verdict, cause, create_help, explain, nearest, unreachable_help, verdict};
use super::{Bridge, Client};
use crate::base::clock;
use crate::base::error::{Error, Kind, Result};

/// How long a broker may take to answer at start.
const PATIENCE: Duration = Duration::from_secs(5);

impl ConsumerContext for Bridge {}

/// A connection for questions. A consumer does not let the broker create the topics it asks about, as a producer would.
pub struct Probe<'a> {
    stage: &'static str,
    client: &'a Client,
    consumer: BaseConsumer<Bridge>,
}

impl<'a> Probe<'a> {
    /// Connects; `group` only to ask for its committed offsets (the group is not joined).
    ///
    /// # Errors
    /// Configuration, if librdkafka refuses the settings.
    pub fn new(stage: &'static str, client: &'a Client, group: Option<&str>) -> Result<Self> {
        client.check(stage)?;
        let mut config = client.config();
        config.set("isolation.level", "read_committed");
        if let Some(group) = group {
            config.set("group.id", group).set("enable.auto.commit", "false");
        }
        let consumer = BaseConsumer::from_config_and_context(&config, Bridge::default())
            .map_err(|error| explain(stage, client, "", "set up a Kafka client", &error))?;
        Ok(Probe { stage, client, consumer })
    }

    /// Number of brokers and of partitions of a topic that must be there.
    ///
    /// # Errors
    /// Unavailable if no broker answers within 5 s; configuration if the topic is not there (with the nearest name) or not allowed.
    pub fn topic(&self, topic: &str) -> Result<(usize, usize)> {
        match self.look(topic)? {
            Some(found) => Ok(found),
            None => Err(self.missing(topic)),
        }
    }

    /// As `topic`, `None` if it is not there.
    ///
    /// # Errors
    /// As `topic`.
    pub fn look(&self, topic: &str) -> Result<Option<(usize, usize)>> {
        let deadline = clock::tick() + PATIENCE;
        loop {
            // Serves log lines and errors of the client, so that a time-out can say why.
            self.consumer.poll(Duration::ZERO);
            let left = deadline.saturating_duration_since(clock::tick()).max(Duration::from_millis(1));
            let metadata = self.consumer.fetch_metadata(Some(topic), left).map_err(|error| self.silent(topic, &error))?;
            let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
            let Some(error) = found.error() else { return Ok(Some((metadata.brokers().len(), found.partitions().len()))) };
            let error = KafkaError::MetadataFetch(error.into());
            match verdict(&error) {
                Verdict::Topic => return Ok(None),
                Verdict::Passing if left > Duration::from_millis(1) => std::thread::sleep(Duration::from_millis(50)),
                _ => return Err(explain(self.stage, self.client, topic, "use the topic", &error)),
            }
        }
    }

    /// Why there was no answer.
    fn silent(&self, topic: &str, error: &KafkaError) -> Error {
        // Errors of the connection wait in the queue until polled.
        for _ in 0..16 {
            self.consumer.poll(Duration::ZERO);
        }
        if verdict(error) != Verdict::Passing {
            return explain(self.stage, self.client, topic, "reach Kafka", error);
        }
        let (reason, refused) = self.consumer.context().trouble().unwrap_or_else(|| (cause(error), false));
        if refused {
            return explain(self.stage, self.client, topic, "log in to Kafka", &KafkaError::Global(Code::Authentication));
        }
        Error::new(Kind::Unavailable, self.stage, format!("no Kafka broker answers within {} s: {reason}", PATIENCE.as_secs()))
            .at(self.client.brokers.clone())
            .help(unreachable_help(self.client))
    }

    /// The error for a topic that is not there.
    fn missing(&self, topic: &str) -> Error {
        let error = Error::config(self.stage, format!("there is no topic `{topic}`")).at(self.client.brokers.clone());
        let all = self.consumer.fetch_metadata(None, PATIENCE).ok();
        let names = all.iter().flat_map(|all| all.topics()).map(|topic| topic.name());
        let create = create_help(self.client, topic);
        match nearest(topic, names.filter(|name| !name.starts_with("__"))) {
            Some(nearest) => error.help(format!("the nearest name is `{nearest}`; to create it: {create}")),
            None => error.help(format!("to create it: {create}")),
        }
    }

    /// First and next offset of each partition, as a reader of committed records sees them.
    ///
    /// # Errors
    /// As `topic`.
    pub fn ends(&self, topic: &str, partitions: usize) -> Result<Vec<(i32, i64, i64)>> {
        let partitions = (0..).take(partitions).collect::<Vec<i32>>();
        // Of a topic that was just created not every broker knows yet that it leads a partition.
        let answer = self.patiently(|patience| ends(&self.consumer, topic, &partitions, patience));
        answer.map_err(|error| explain(self.stage, self.client, topic, "read the offsets of the topic", &error))
    }

    /// Committed offset of each partition that has one, with the metadata noted beside it.
    ///
    /// # Errors
    /// As `topic`; configuration if the group may not be read.
    pub fn committed(&self, topic: &str, partitions: usize) -> Result<Vec<(i32, i64, String)>> {
        let partitions = (0..).take(partitions).collect::<Vec<i32>>();
        // A cluster that has never had a group makes room for the first one when it is asked about it, and refuses until it has.
        let answer = self.patiently(|patience| committed(&self.consumer, topic, &partitions, patience));
        answer.map_err(|error| explain(self.stage, self.client, topic, "read the committed offsets", &error))
    }

    /// Asks again for 5 s as long as a broker says that this passes.
    fn patiently<T>(&self, ask: impl Fn(Duration) -> KafkaResult<T>) -> KafkaResult<T> {
        let deadline = clock::tick() + PATIENCE;
        loop {
            match ask(PATIENCE) {
                Err(error) if verdict(&error) == Verdict::Passing && clock::tick() < deadline => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                answer => return answer,
            }
        }
    }

    /// Settings of the topic by name; empty where this user may not describe them.
    #[must_use]
    pub fn settings(&self, topic: &str, names: &[&str]) -> Vec<(String, String)> {
        let Ok(admin) = AdminClient::from_config_and_context(&self.client.config(), Bridge::default()) else { return Vec::new() };
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        let Ok(answers) = block_on(admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options)) else { return Vec::new() };
        let entries = answers.into_iter().flatten().flat_map(|answer| answer.entries);
        entries.filter(|entry| names.contains(&entry.name.as_str())).filter_map(|entry| Some((entry.name, entry.value?))).collect()
    }
}

/// First and next offset of partitions in two requests per broker.
///
/// # Errors
/// If a partition did not answer or the request failed.
pub fn ends<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    patience: Duration,
) -> KafkaResult<Vec<(i32, i64, i64)>> {
    let low = offsets(consumer, topic, partitions, Offset::Beginning, patience)?;
    let high = offsets(consumer, topic, partitions, Offset::End, patience)?;
    Ok(low.into_iter().filter_map(|(partition, low)| Some((partition, low, *high.get(&partition)?))).collect())
}

/// One end of each partition. A time of -1 or -2 asks for an end of the log (Kafka protocol, ListOffsets).
///
/// # Errors
/// If a partition did not answer or the request failed.
pub fn offsets<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    which: Offset,
    patience: Duration,
) -> KafkaResult<std::collections::BTreeMap<i32, i64>> {
    let mut asked = TopicPartitionList::new();
    for partition in partitions {
        asked.add_partition_offset(topic, *partition, which)?;
    }
    if partitions.is_empty() {
        return Ok(std::collections::BTreeMap::new());
    }
    let told = consumer.offsets_for_times(asked, patience)?;
    told.elements()
        .into_iter()
        .map(|element| {
            element.error()?;
            match element.offset() {
                Offset::Offset(offset) => Ok((element.partition(), offset)),
                _ => Err(KafkaError::OffsetFetch(Code::NoOffset)),
            }
        })
        .collect()
}

/// Committed offsets of the consumer's group, with the metadata noted beside each.
///
/// # Errors
/// If the request failed or the group may not be read.
pub fn committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    patience: Duration,
) -> KafkaResult<Vec<(i32, i64, String)>> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let mut asked = TopicPartitionList::new();
    for partition in partitions {
        asked.add_partition(topic, *partition);
    }
    let told = consumer.committed_offsets(asked, patience)?;
    let mut found = Vec::new();
    for element in told.elements() {
        element.error()?;
        if let Offset::Offset(offset) = element.offset() {
            found.push((element.partition(), offset, element.metadata().to_owned()));
        }
    }
    Ok(found)
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on this thread. The admin calls of rdkafka are futures and need nothing but a wake-up.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
