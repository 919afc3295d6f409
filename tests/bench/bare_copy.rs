//! The yardstick: every record of one topic to another, as fast as plain rdkafka does it at least once, with the producer settings of
//! the stage's own sink.

use std::time::Duration;

use meantime::link::kafka::Client;
use meantime::sink::kafka::producer_config;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

pub fn copy(brokers: &str, from: &str, to: &str) {
    let client = Client { brokers: brokers.to_owned(), ..Client::default() };
    let consumer: BaseConsumer = client
        .config()
        .set("group.id", to)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "true")
        .set("queued.min.messages", "500000")
        .create()
        .unwrap();
    let producer: ThreadedProducer<DefaultProducerContext> = producer_config(&client).create().unwrap();
    let metadata = consumer.fetch_metadata(Some(from), Duration::from_secs(10)).unwrap();
    let mut open = metadata.topics()[0].partitions().len();
    consumer.subscribe(&[from]).unwrap();
    while open > 0 {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let mut record = BaseRecord::to(to).key(message.key().unwrap()).payload(message.payload().unwrap());
                while let Err((_, back)) = producer.send(record) {
                    std::thread::sleep(Duration::from_millis(1));
                    record = back;
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    consumer.commit_consumer_state(CommitMode::Sync).unwrap();
}
