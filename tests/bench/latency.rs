//! End-to-end latency: from a producer's `send` to a read_committed reader's hands, with the stage, or a bare transactional copy, between.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::harness::Broker;
use super::package::{Head, command, payment, write};

const KEYS: u64 = 10_000;
const PARTITIONS: i32 = 4;
/// Start of consumers, group membership, first transactions.
const START: Duration = Duration::from_secs(4);
/// Events that are sent but not counted, then those that are.
const SECONDS: (u64, u64) = (3, 10);
/// How long the last events may be under way.
const DRAIN: Duration = Duration::from_secs(5);

pub fn latency() {
    let Some(broker) = super::harness::broker(&[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let package = write(folder.path(), Head::Score);
    println!("\nLatency, send to read_committed reader, score head, {KEYS} keys, 4 partitions, 1 lane, all on the same machine");
    for (rate, every) in [(20_000, 20), (100_000, 20)] {
        let copy = trial(broker, rate, &format!("bare transactional copy, {every} ms"), |from, to| copying(broker, from, to, every));
        let once = trial(broker, rate, &format!("meantime, exactly once, {every} ms"), |from, to| {
            stage(broker, &package, from, to, &["sink.delivery=exactly_once".into(), format!("sink.commit_every={every}ms")])
        });
        println!("    p50 {:.2} x, p99 {:.2} x of the copy", once.0 / copy.0, once.1 / copy.1);
    }
    trial(broker, 20_000, "meantime, at least once", |from, to| stage(broker, &package, from, to, &["sink.delivery=at_least_once".into()]));
}

fn stage(broker: &Broker, package: &Path, from: &str, to: &str, more: &[String]) -> Child {
    command(broker, package, (from, to), more).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn copying(broker: &Broker, from: &str, to: &str, every: u64) -> Child {
    let arguments = ["transact", &broker.address, from, to, &every.to_string()];
    Command::new(std::env::current_exe().unwrap()).args(arguments).spawn().unwrap()
}

/// The measure: a copy in transactions of `every` milliseconds, until it is killed.
pub fn transact(brokers: &str, from: &str, to: &str, every: u64) -> ! {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    let consumer: BaseConsumer = config
        .clone()
        .set("group.id", format!("copy-{from}"))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    consumer.subscribe(&[from]).unwrap();
    let producer: ThreadedProducer<DefaultProducerContext> =
        config.set("transactional.id", format!("copy-{from}")).set("linger.ms", "1").create().unwrap();
    let long = Duration::from_secs(30);
    producer.init_transactions(long).unwrap();
    loop {
        producer.begin_transaction().unwrap();
        let deadline = Instant::now() + Duration::from_millis(every);
        let mut next = TopicPartitionList::new();
        while let left = deadline.saturating_duration_since(Instant::now())
            && !left.is_zero()
        {
            let Some(message) = consumer.poll(left) else { continue };
            let message = message.unwrap();
            producer.send(BaseRecord::to(to).key(message.key().unwrap()).payload(message.payload().unwrap())).unwrap();
            let offset = Offset::Offset(message.offset() + 1);
            if next.set_partition_offset(from, message.partition(), offset).is_err() {
                next.add_partition_offset(from, message.partition(), offset).unwrap();
            }
        }
        producer.send_offsets_to_transaction(&next, &consumer.group_metadata().unwrap(), long).unwrap();
        producer.commit_transaction(long).unwrap();
    }
}

/// Sends at a steady rate through what `start` starts; prints and returns the median and the 99th percentile in milliseconds.
fn trial(broker: &Broker, rate: u64, what: &str, start: impl FnOnce(&str, &str) -> Child) -> (f64, f64) {
    let (from, to) = (broker.topic("latency-in", PARTITIONS), broker.topic("latency-out", PARTITIONS));
    let mut between = start(&from, &to);
    let (skipped, all) = (rate * SECONDS.0, rate * (SECONDS.0 + SECONDS.1));
    let sent: Vec<AtomicU64> = (0..all).map(|_| AtomicU64::new(0)).collect();
    let (began, done) = (Instant::now(), AtomicBool::new(false));
    let now = || began.elapsed().as_micros() as u64;
    let mut latencies = std::thread::scope(|scope| {
        let reading = scope.spawn(|| read(broker, &to, &sent, skipped, &done, now));
        std::thread::sleep(START);
        send(broker, &from, rate, &sent, now);
        std::thread::sleep(DRAIN);
        done.store(true, Ordering::Relaxed);
        reading.join().unwrap()
    });
    Command::new("kill").arg(between.id().to_string()).status().unwrap();
    between.wait().unwrap();
    latencies.sort_unstable();
    let lost = (all - skipped) as usize - latencies.len();
    let at = |p: f64| latencies.get((latencies.len() as f64 * p) as usize).map_or(f64::NAN, |micros| *micros as f64 / 1000.0);
    let note = if lost > 0 { format!("  ({lost} had not arrived after {DRAIN:?})") } else { String::new() };
    println!("  {rate:>7} events/s  {what:<38} p50 {:>7.1} ms  p99 {:>7.1} ms  most {:>7.1} ms{note}", at(0.5), at(0.99), at(1.0 - 1e-9));
    (at(0.5), at(0.99))
}

fn send(broker: &Broker, topic: &str, rate: u64, sent: &[AtomicU64], now: impl Fn() -> u64) {
    let producer: ThreadedProducer<DefaultProducerContext> =
        broker.config().set("partitioner", "murmur2_random").set("linger.ms", "1").set("acks", "1").create().unwrap();
    let begin = now();
    for (i, place) in (0u64..).zip(sent) {
        let due = begin + i * 1_000_000 / rate;
        while now() < due {
            std::thread::sleep(Duration::from_micros(500));
        }
        let (key, payload) = payment(i, KEYS);
        // From when it was due: a producer that falls behind does not hide what its events have waited.
        place.store(due, Ordering::Relaxed);
        producer.send(BaseRecord::to(topic).key(&key).payload(&payload)).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
}

fn read(broker: &Broker, topic: &str, sent: &[AtomicU64], skipped: u64, done: &AtomicBool, now: impl Fn() -> u64) -> Vec<u64> {
    let consumer: BaseConsumer = broker
        .config()
        .set("group.id", "latency")
        .set("isolation.level", "read_committed")
        .set("fetch.queue.backoff.ms", "2")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    (0..PARTITIONS).for_each(|partition| list.add_partition_offset(topic, partition, Offset::Beginning).unwrap());
    consumer.assign(&list).unwrap();
    let mut latencies = Vec::with_capacity(sent.len());
    while !done.load(Ordering::Relaxed) {
        let Some(message) = consumer.poll(Duration::from_millis(50)) else { continue };
        let message = message.unwrap();
        let text = std::str::from_utf8(message.payload().unwrap()).unwrap();
        let place = text.find(r#""id":"p"#).unwrap() + 7;
        let i: u64 = text[place..place + 9].parse().unwrap();
        if i >= skipped {
            latencies.push(now().saturating_sub(sent[i as usize].load(Ordering::Relaxed)));
        }
    }
    latencies
}
