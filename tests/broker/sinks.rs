//! The sinks, and source and sink together while the broker crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use meantime::base::error::Kind;
use meantime::base::offset::{Offset, Partition};
use meantime::base::time::EventTime;
use meantime::data::commit::{Commit, Commits};
use meantime::data::forecasts::Forecasts;
use meantime::data::input::Input;
use meantime::data::rejected::{Reason, Rejected};
use meantime::sink::kafka::{KafkaDeadLetters, KafkaForecasts, POSITION, check_connect, fill_topic};
use meantime::sink::{DeadLetterSink, ForecastSink, Sink};
use meantime::source::kafka::open;
use meantime::source::{KafkaSettings, OnMissing, Opening, Polled};

use crate::broker;
use crate::harness::Broker;

/// Rows of one input partition.
fn forecasts(partition: i32, offsets: std::ops::Range<i64>) -> Forecasts {
    let mut rows = Forecasts::default();
    for offset in offsets {
        rows.keys.push(format!("key-{}", offset % 37).as_bytes());
        rows.event_times.push(EventTime(offset));
        rows.partitions.push(Partition(partition));
        rows.offsets.push(Offset(offset));
    }
    rows
}

fn value(rows: &Forecasts, row: usize, buffer: &mut Vec<u8>) {
    buffer.extend_from_slice(format!("{{\"offset\":{}}}", rows.offsets[row]).as_bytes());
}

/// The Java client's murmur2, from Apache Kafka's `Utils.murmur2`.
fn murmur2(data: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c_u32 ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (place, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * place);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    (hash ^ (hash >> 15)) as i32
}

#[test]
fn every_acknowledged_row_is_there_with_key_value_and_position_where_java_would_put_it() {
    assert_eq!(murmur2(b"21"), -973_932_308, "the test's own reference, from Kafka's UtilsTest");
    let Some(broker) = broker() else { return };
    let topic = broker.topic("sink", 4);
    let mut sink = KafkaForecasts::open(&broker.client(), &topic, Box::new(value)).unwrap();
    let mut last = 0;
    for batch in 0..100 {
        sink.write(&forecasts(batch % 3, i64::from(batch) * 100..i64::from(batch) * 100 + 100)).unwrap();
        let durable = sink.durable().unwrap();
        assert!(last <= durable && durable <= sink.written(), "{last} {durable} {}", sink.written());
        last = durable;
    }
    assert_eq!(sink.written(), 10_000);
    assert!(sink.end_epoch(&Commits::new(), true).unwrap());
    assert_eq!(sink.durable().unwrap(), 10_000);
    sink.close().unwrap();

    let rows = broker.read_all(&topic);
    assert_eq!(rows.len(), 10_000);
    let mut offsets = BTreeSet::new();
    for row in &rows {
        let (partition, offset) = row.header(POSITION).unwrap().split_once(':').unwrap();
        let offset: i64 = offset.parse().unwrap();
        assert_eq!(partition, ((offset / 100) % 3).to_string());
        let key = row.key.as_deref().unwrap();
        assert_eq!(key, format!("key-{}", offset % 37).as_bytes());
        assert_eq!(row.payload.as_deref().unwrap(), format!("{{\"offset\":{offset}}}").as_bytes());
        assert_eq!(row.partition, (murmur2(key) & 0x7fff_ffff) % 4);
        assert!(offsets.insert(offset), "offset {offset} twice");
    }
    // Rows of one key keep their order.
    let mut last: BTreeMap<&[u8], i64> = BTreeMap::new();
    for row in &rows {
        let offset: i64 = row.header(POSITION).unwrap().split_once(':').unwrap().1.parse().unwrap();
        let before = last.insert(row.key.as_deref().unwrap(), offset);
        assert!(before.is_none_or(|before| before < offset));
    }
}

#[test]
fn durable_catches_up_without_a_flush() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("durable", 2);
    let mut sink = KafkaForecasts::open(&broker.client(), &topic, Box::new(value)).unwrap();
    for batch in 0..3_000 {
        sink.write(&forecasts(0, batch..batch + 1)).unwrap();
    }
    let started = Instant::now();
    while sink.durable().unwrap() < 3_000 {
        assert!(started.elapsed() < Duration::from_secs(20), "{}", sink.durable().unwrap());
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(sink.end_epoch(&Commits::new(), false).unwrap());
}

#[test]
fn dead_letters_keep_their_key_if_they_have_one() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("dead", 1);
    let mut rejected = Rejected::default();
    rejected.push((Partition(2), Offset(7)), Reason::Malformed, "not JSON", Some(b"k"), Some(b"{"));
    rejected.push((Partition(3), Offset(8)), Reason::Empty, "no payload", None, None);
    let encode = |rows: &Rejected, row: usize, buffer: &mut Vec<u8>| buffer.extend_from_slice(rows.reasons[row].code().as_bytes());
    let mut sink = KafkaDeadLetters::open(&broker.client(), &topic, Box::new(encode)).unwrap();
    sink.write(&rejected).unwrap();
    sink.close().unwrap();
    let rows = broker.read_all(&topic);
    let found = rows.iter().map(|row| (row.key.as_deref(), row.payload.as_deref().unwrap(), row.header(POSITION).unwrap()));
    let found = found.collect::<BTreeSet<_>>();
    assert_eq!(found, BTreeSet::from([(Some(&b"k"[..]), &b"malformed"[..], "2:7"), (None, b"empty", "3:8")]));
}

#[test]
fn a_row_that_the_broker_refuses_is_an_error_with_what_to_do() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("large", 1);
    let encode = |_: &Forecasts, _: usize, buffer: &mut Vec<u8>| {
        // Does not compress: larger than the broker's default of 1 MiB.
        let mut noise = 1_u32;
        buffer.extend((0..3_000_000).map(|_| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8
        }));
    };
    let mut sink = KafkaForecasts::open(&broker.client(), &topic, Box::new(encode)).unwrap();
    sink.write(&forecasts(0, 0..1)).unwrap();
    let error = sink.end_epoch(&Commits::new(), true).unwrap_err();
    assert_eq!(error.kind, Kind::Config, "{error}");
    assert!(error.to_string().contains("max.message.bytes") && error.to_string().contains(&topic), "{error}");
    assert!(sink.durable().is_err(), "the failure stays");
}

#[test]
fn a_misspelt_output_topic_is_refused_and_not_created() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("forecasts", 1);
    let wrong = topic.replace("forecasts", "forcasts");
    for _ in 0..2 {
        let error = KafkaForecasts::open(&broker.client(), &wrong, Box::new(value)).err().unwrap();
        assert_eq!(error.kind, Kind::Config);
        let help = error.help.unwrap();
        assert!(help.contains(&topic) && help.contains("--create"), "{help}");
    }
    assert!(check_connect(&broker.client(), &topic).unwrap().join("\n").contains("1 partition"));
}

#[test]
fn a_topic_is_created_and_filled() {
    let Some(broker) = broker() else { return };
    let topic = format!("fill-{}", std::process::id());
    let mut left = 20_000_u32;
    let mut next = |payload: &mut Vec<u8>, key: &mut Vec<u8>| {
        left = left.checked_sub(1)?;
        payload.extend_from_slice(format!("{{\"n\":{left}}}").as_bytes());
        key.extend_from_slice(format!("{}", left % 100).as_bytes());
        Some(EventTime(0))
    };
    assert_eq!(fill_topic(&broker.client(), &topic, 4, &mut next).unwrap(), 20_000);
    let rows = broker.read_all(&topic);
    assert_eq!(rows.len(), 20_000);
    assert_eq!(rows.iter().map(|row| row.partition).collect::<BTreeSet<_>>().len(), 4);
}

/// Copies a topic as the pipeline would, through source and sink, and commits what is durable.
fn copy(broker: &Broker, from: &str, to: &str, mut midway: impl FnMut(u64)) {
    let settings = KafkaSettings {
        client: broker.client(),
        topic: from.to_owned(),
        group: from.to_owned(),
        on_missing: OnMissing::StartEmpty,
        idle_after: None,
        instance: None,
        since: None,
    };
    let opening = Opening { lanes: 1, until_caught_up: true, ..Opening::default() };
    let mut feed = open(&settings, &opening).unwrap().pop().unwrap();
    let mut sink = KafkaForecasts::open(&broker.client(), to, Box::new(value)).unwrap();
    let (mut input, mut rows) = (Input::default(), Forecasts::default());
    let (mut taken, mut epochs) = (Commits::new(), std::collections::VecDeque::new());
    let started = Instant::now();
    loop {
        assert!(started.elapsed() < Duration::from_secs(120), "the copy did not end");
        input.clear();
        match feed.poll(500, Duration::from_millis(20), &mut input).unwrap() {
            Polled::Records => {
                rows.clear();
                for row in 0..input.records.len() {
                    rows.keys.push_from(&input.records.keys, row);
                    rows.event_times.push(EventTime(0));
                    rows.partitions.push(input.records.partitions[row]);
                    rows.offsets.push(input.records.offsets[row]);
                    taken.insert(input.records.partitions[row], Commit::at(input.records.offsets[row].next()));
                }
                sink.write(&rows).unwrap();
                epochs.push_back((sink.written(), taken.clone()));
                midway(sink.written());
            }
            Polled::Revoked(partition) => {
                sink.end_epoch(&Commits::new(), true).unwrap();
                feed.commit(&taken).unwrap();
                taken.remove(partition);
                feed.released(partition);
            }
            Polled::Ended => break,
            Polled::Assigned(assignment) => {
                let start = assignment.start(assignment.committed.as_ref().map(|c| c.next), None).unwrap();
                feed.start(assignment.partition, start.read_from, start.live_from).unwrap();
            }
            Polled::Idle | Polled::Quiet(..) => {}
        }
        let durable = sink.durable().unwrap();
        while epochs.front().is_some_and(|(written, _)| *written <= durable) {
            feed.commit(&epochs.pop_front().unwrap().1).unwrap();
        }
    }
    sink.close().unwrap();
    feed.close().unwrap();
}

#[test]
fn a_crash_of_the_broker_in_the_middle_loses_nothing() {
    let Some(_) = broker() else { return };
    if std::env::var("MEANTIME_KAFKA").is_ok() {
        return; // Only a broker of its own may be killed.
    }
    let broker = Broker::start().unwrap();
    let (from, to) = (broker.topic("crash-in", 4), broker.topic("crash-out", 4));
    broker.produce(&from, (0..60_000).map(|n| (format!("key-{}", n % 997), format!("{n}"))));
    let mut crashed = false;
    std::thread::scope(|scope| {
        copy(&broker, &from, &to, |written| {
            if written > 20_000 && !crashed {
                crashed = true;
                broker.kill();
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_secs(2));
                    broker.restart();
                });
            }
        });
    });
    assert!(crashed);
    let ends = broker.ends(&from).into_iter().map(|(partition, (_, end))| (partition, end)).collect::<BTreeMap<_, _>>();
    assert_eq!(broker.committed(&from, &from), ends);
    let wanted = ends.iter().flat_map(|(partition, end)| (0..*end).map(move |offset| format!("{partition}:{offset}")));
    let wanted = wanted.collect::<BTreeSet<_>>();
    assert_eq!(wanted.len(), 60_000);
    let rows = broker.read_all(&to);
    let found = rows.iter().map(|row| row.header(POSITION).unwrap().to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(found, wanted);
}
