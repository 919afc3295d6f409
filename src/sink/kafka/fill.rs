//! Fills a topic from a generator: `meantime generate --to kafka`, tests and the bench.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::outbox::Outbox;
use crate::base::clock;
use crate::base::error::{Error, Kind, Result};
use crate::base::time::EventTime;
use crate::link::kafka::{Bridge, Client, Probe, block_on, explain};

const STAGE: &str = "generate";
/// Records between two looks at the acknowledgements.
const CHUNK: usize = 4096;

/// Fills payload and key of the next record and returns its event's time; `None` after the last one.
pub type NextRecord<'a> = dyn FnMut(&mut Vec<u8>, &mut Vec<u8>) -> Option<EventTime> + 'a;

/// Creates a topic with `partitions` partitions if it is not there, and writes records to it until `next` returns `None` (payload
/// and key come to it empty). The record's own timestamp is the time of writing, not the event's:
/// retention would delete a record with an old one. Returns the number of records, all acknowledged.
///
/// # Errors
/// Unavailable if no broker answers; configuration if the topic cannot be created; as [`Outbox::durable`] for lost records.
pub fn fill_topic(client: &Client, topic: &str, partitions: i32, next: &mut NextRecord<'_>) -> Result<u64> {
    create_topic(client, topic, partitions)?;
    let mut outbox = Outbox::open(STAGE, client, topic)?;
    let (mut payload, mut key) = (Vec::new(), Vec::new());
    loop {
        outbox.begin();
        for _ in 0..CHUNK {
            payload.clear();
            key.clear();
            if next(&mut payload, &mut key).is_none() {
                outbox.flush(true)?;
                return Ok(outbox.written());
            }
            outbox.send(Some(&key), None, &payload)?;
        }
        outbox.serve()?;
    }
}

/// Creates a topic unless it is there, with the broker's own replication factor, and waits until it can be used.
///
/// # Errors
/// Unavailable if no broker answers; configuration if the broker refuses to create it.
pub fn create_topic(client: &Client, topic: &str, partitions: i32) -> Result<()> {
    let probe = Probe::new(STAGE, client, None)?;
    if let Some((_, found)) = probe.look(topic)? {
        if usize::try_from(partitions) != Ok(found) {
            tracing::info!(topic, partitions = found, "the topic is there already and keeps its partitions");
        }
        return Ok(());
    }
    let fault = |error: &KafkaError| explain(STAGE, client, topic, "create the topic", error);
    let admin = AdminClient::from_config_and_context(&client.config(), Bridge::default()).map_err(|error| fault(&error))?;
    let wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)));
    let answers = block_on(admin.create_topics([&wanted], &options)).map_err(|error| fault(&error))?;
    for answer in answers {
        match answer {
            Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(fault(&KafkaError::Global(code))),
        }
    }
    let deadline = clock::tick() + Duration::from_secs(10);
    while probe.look(topic)?.is_none() {
        if clock::tick() > deadline {
            return Err(Error::new(Kind::Retry, STAGE, format!("topic `{topic}` was created, but no broker shows it"))
                .at(client.brokers.clone())
                .help("start again in a moment"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
