//! A topic-to-topic copy in the fastest plain rdkafka way: what the client and the broker give when nothing is computed. The measure
//! that the whole pipeline is held against in the same run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use meantime::link::kafka::Client;
use meantime::sink::kafka::producer_config;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// Copies what a topic holds now, key and payload, at least once: all is acknowledged before the positions are committed, once. (With a
/// flush every 100 ms it would be a quarter slower, and a yardstick has to be the fastest.) `lanes` threads with a producer each, set up
/// as the sink's. Returns the number of messages and the seconds from the first message to the last acknowledgement.
pub fn copy(brokers: &str, from: &str, to: &str, lanes: usize) -> (u64, f64) {
    let client = Client { brokers: brokers.to_owned(), ..Client::default() };
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("group.id", format!("bare-copy-{}", std::process::id()))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("queued.min.messages", "10000")
        .set("fetch.queue.backoff.ms", "5");
    let consumer: Arc<BaseConsumer> = Arc::new(config.create().unwrap());
    let metadata = consumer.fetch_metadata(Some(from), Duration::from_secs(10)).unwrap();
    let partitions = metadata.topics()[0].partitions().len() as i32;
    let mut assignment = TopicPartitionList::new();
    let mut total = 0;
    for partition in 0..partitions {
        let (low, high) = consumer.fetch_watermarks(from, partition, Duration::from_secs(10)).unwrap();
        total += (high - low) as u64;
        assignment.add_partition_offset(from, partition, Offset::Offset(low)).unwrap();
    }
    let queues = (0..partitions).map(|partition| consumer.split_partition_queue(from, partition).unwrap()).collect::<Vec<_>>();
    let mut shares = (0..lanes).map(|_| Vec::new()).collect::<Vec<_>>();
    queues.into_iter().enumerate().for_each(|(place, queue)| shares[place % lanes].push(queue));
    consumer.assign(&assignment).unwrap();
    let (taken, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let started = Instant::now();
    std::thread::scope(|scope| {
        let running = shares
            .into_iter()
            .map(|queues| {
                let producer: BaseProducer = producer_config(&client).create().unwrap();
                let (consumer, taken) = (&consumer, &taken);
                scope.spawn(move || {
                    let mut positions = BTreeMap::new();
                    while taken.load(Ordering::Relaxed) < total {
                        let mut count = 0;
                        for queue in &queues {
                            for _ in 0..500 {
                                let Some(message) = queue.poll(Duration::ZERO) else { break };
                                let message = message.unwrap();
                                positions.insert(message.partition(), message.offset() + 1);
                                let mut record = BaseRecord::to(to).payload(message.payload().unwrap());
                                record.key = message.key();
                                while let Err((error, refused)) = producer.send(record) {
                                    assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
                                    producer.poll(Duration::ZERO);
                                    std::thread::sleep(Duration::from_micros(500));
                                    record = refused;
                                }
                                count += 1;
                            }
                        }
                        taken.fetch_add(count, Ordering::Relaxed);
                        producer.poll(Duration::ZERO);
                        if count == 0 {
                            std::thread::sleep(Duration::from_millis(1));
                        }
                    }
                    commit(consumer, &producer, from, &positions);
                })
            })
            .collect::<Vec<_>>();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert!(consumer.poll(Duration::from_millis(20)).is_none());
            }
        });
        running.into_iter().for_each(|lane| lane.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
    (total, started.elapsed().as_secs_f64())
}

fn commit(consumer: &BaseConsumer, producer: &BaseProducer, topic: &str, positions: &BTreeMap<i32, i64>) {
    producer.flush(Duration::from_secs(60)).unwrap();
    let mut list = TopicPartitionList::new();
    positions.iter().for_each(|(partition, next)| list.add_partition_offset(topic, *partition, Offset::Offset(*next)).unwrap());
    if list.count() > 0 {
        consumer.commit(&list, CommitMode::Sync).unwrap();
    }
}
