//! The source alone: what is read, from where, and what is committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use meantime::base::error::{Error, Kind};
use meantime::base::offset::{Offset, Partition};
use meantime::data::commit::{Commit, Commits};
use meantime::data::input::Input;
use meantime::link::kafka::Client;
use meantime::source::kafka::{cautions, check_connect, open};
use meantime::source::{Assignment, Feed, KafkaSettings, OnMissing, Opening, Polled};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use crate::broker;
use crate::harness::Broker;

fn settings(broker: &Broker, topic: &str, group: &str, on_missing: OnMissing) -> KafkaSettings {
    KafkaSettings {
        client: broker.client(),
        topic: topic.to_owned(),
        group: group.to_owned(),
        on_missing,
        idle_after: None,
        instance: None,
        since: None,
    }
}

fn opening(lanes: usize, until_caught_up: bool) -> Opening {
    Opening { lanes, until_caught_up, ..Opening::default() }
}

/// What a lane saw, in its order.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Assigned { partition: i32, live_from: i64 },
    Record { partition: i32, offset: i64, payload: Vec<u8> },
    Revoked(i32),
}

/// Starts a partition as a stage without snapshots does; returns from where it is live.
fn start(feed: &mut dyn Feed, assignment: &Assignment) -> Result<i64, Error> {
    let start = assignment.start(assignment.committed.as_ref().map(|committed| committed.next), None)?;
    feed.start(assignment.partition, start.read_from, start.live_from)?;
    Ok(start.live_from.0)
}

/// Polls until there are `wanted` records.
fn fill(feed: &mut dyn Feed, wanted: usize, input: &mut Input) {
    let started = Instant::now();
    while input.len() < wanted {
        assert!(started.elapsed() < Duration::from_secs(30));
        if let Polled::Assigned(assignment) = feed.poll(wanted - input.len(), Duration::from_millis(100), input).unwrap() {
            start(feed, &assignment).unwrap();
        }
    }
}

/// Runs a lane as the pipeline would: it commits what it has taken every few polls, at a revocation and at the end.
fn drive(mut feed: Box<dyn Feed>, stop: &AtomicBool) -> Result<Vec<Seen>, Error> {
    let mut seen = Vec::new();
    let mut input = Input::default();
    let mut positions = Commits::new();
    let started = Instant::now();
    loop {
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "the lane did not end; it saw {:?}, committed {positions:?}",
            offsets(&seen).into_iter().map(|(p, o)| (p, o.len())).collect::<Vec<_>>()
        );
        if stop.load(Ordering::Relaxed) {
            break;
        }
        input.clear();
        match feed.poll(1000, Duration::from_millis(50), &mut input)? {
            Polled::Records => {
                let records = &input.records;
                for row in 0..records.len() {
                    positions.insert(records.partitions[row], Commit::at(records.offsets[row].next()));
                    seen.push(Seen::Record {
                        partition: records.partitions[row].0,
                        offset: records.offsets[row].0,
                        payload: records.payloads.bytes_at(row).to_vec(),
                    });
                }
                feed.commit(&positions)?;
            }
            Polled::Idle | Polled::Quiet(..) => feed.commit(&positions)?,
            Polled::Assigned(assignment) => {
                let live_from = start(&mut *feed, &assignment)?;
                seen.push(Seen::Assigned { partition: assignment.partition.0, live_from });
            }
            Polled::Revoked(partition) => {
                feed.commit(&positions)?;
                positions.remove(partition);
                feed.released(partition);
                seen.push(Seen::Revoked(partition.0));
            }
            Polled::Ended => break,
        }
    }
    feed.commit(&positions)?;
    feed.close()?;
    Ok(seen)
}

/// Runs all lanes of a source until they end.
fn read(settings: &KafkaSettings, lanes: usize) -> Result<Vec<Seen>, Error> {
    let feeds = open(settings, &opening(lanes, true))?;
    assert_eq!(feeds.len(), lanes);
    let never = AtomicBool::new(false);
    let parts = std::thread::scope(|scope| {
        let lanes = feeds.into_iter().map(|feed| scope.spawn(|| drive(feed, &never))).collect::<Vec<_>>();
        lanes.into_iter().map(|lane| lane.join().unwrap()).collect::<Vec<_>>()
    });
    parts.into_iter().try_fold(Vec::new(), |mut all, part| {
        all.extend(part?);
        Ok(all)
    })
}

/// Offsets per partition in the order in which they were seen.
fn offsets(seen: &[Seen]) -> BTreeMap<i32, Vec<i64>> {
    let mut offsets: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    for seen in seen {
        if let Seen::Record { partition, offset, .. } = seen {
            offsets.entry(*partition).or_default().push(*offset);
        }
    }
    offsets
}

fn live_from(seen: &[Seen]) -> BTreeMap<i32, i64> {
    let assigned = seen.iter().filter_map(|seen| match seen {
        Seen::Assigned { partition, live_from } => Some((*partition, *live_from)),
        _ => None,
    });
    assigned.collect()
}

fn ends(broker: &Broker, topic: &str) -> BTreeMap<i32, i64> {
    broker.ends(topic).into_iter().filter(|(_, (low, high))| high > low).map(|(partition, (_, high))| (partition, high)).collect()
}

fn numbered(records: usize) -> impl Iterator<Item = (String, String)> {
    (0..records).map(|n| (format!("key-{}", n % 101), format!("{n}")))
}

#[test]
fn two_lanes_read_every_offset_of_four_partitions_once_and_in_order() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("once", 4);
    broker.produce(&topic, numbered(40_000));
    let settings = settings(broker, &topic, &topic, OnMissing::Rebuild);
    let ends = ends(broker, &topic);
    assert_eq!(ends.len(), 4, "{ends:?}");

    let seen = read(&settings, 2).unwrap();
    assert!(live_from(&seen).values().all(|live_from| *live_from == 0), "{:?}", live_from(&seen));
    for (partition, offsets) in offsets(&seen) {
        assert_eq!(offsets, (0..ends[&partition]).collect::<Vec<_>>(), "partition {partition}");
    }
    let payloads = seen.iter().filter_map(|seen| if let Seen::Record { payload, .. } = seen { Some(payload.clone()) } else { None });
    assert_eq!(payloads.collect::<BTreeSet<_>>().len(), 40_000);
    assert_eq!(broker.committed(&topic, &topic), ends);

    // A second run has nothing to do; a third replays silently what is below the committed offsets.
    read(&settings, 1).unwrap();
    assert_eq!(broker.committed(&topic, &topic), ends);
    broker.produce(&topic, numbered(4_000));
    let more = self::ends(broker, &topic);
    let again = read(&settings, 3).unwrap();
    assert_eq!(live_from(&again), ends);
    for (partition, offsets) in offsets(&again) {
        assert_eq!(offsets, (0..more[&partition]).collect::<Vec<_>>(), "partition {partition}");
    }
    assert_eq!(broker.committed(&topic, &topic), more);
}

#[test]
fn a_stage_goes_on_where_it_has_committed() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("resume", 1);
    broker.produce(&topic, numbered(5_000));
    let settings = settings(broker, &topic, &topic, OnMissing::StartEmpty);
    let mut feed = open(&settings, &opening(1, false)).unwrap().pop().unwrap();
    let mut input = Input::default();
    fill(&mut *feed, 1_200, &mut input);
    assert_eq!(input.len(), 1_200, "a poll gives no more than was asked for");
    assert!(input.records.recorded.iter().all(|time| time.is_some_and(|time| time.0 > 1_500_000_000_000_000)));
    // 1,200 records were handed out, 700 are done.
    let mut positions = Commits::new();
    positions.insert(Partition(0), Commit::at(Offset(700)));
    feed.commit(&positions).unwrap();
    feed.close().unwrap();
    drop(feed);
    assert_eq!(broker.committed(&topic, &topic), BTreeMap::from([(0, 700)]));

    let seen = read(&settings, 1).unwrap();
    assert_eq!(live_from(&seen), BTreeMap::from([(0, 700)]));
    assert_eq!(offsets(&seen), BTreeMap::from([(0, (700..5_000).collect())]));
}

#[test]
fn a_stage_that_has_nothing_new_to_commit_ends_at_once() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("nothing-new", 1);
    broker.produce(&topic, numbered(100));
    let settings = settings(broker, &topic, &topic, OnMissing::StartEmpty);
    read(&settings, 1).unwrap();
    let mut feed = open(&settings, &opening(1, false)).unwrap().pop().unwrap();
    let mut input = Input::default();
    let started = Instant::now();
    let mut assigned = false;
    while !assigned && started.elapsed() < Duration::from_secs(30) {
        if let Polled::Assigned(assignment) = feed.poll(10, Duration::from_millis(100), &mut input).unwrap() {
            start(&mut *feed, &assignment).unwrap();
            assigned = true;
        }
    }
    assert!(assigned);
    // The partition is taken over, and is then committed as far as it was.
    for _ in 0..10 {
        feed.poll(10, Duration::from_millis(50), &mut input).unwrap();
        feed.commit(&Commits::new()).unwrap();
    }
    let closing = Instant::now();
    feed.close().unwrap();
    assert!(closing.elapsed() < Duration::from_secs(4), "{:?}", closing.elapsed());
}

#[test]
fn a_position_above_what_was_handed_out_is_not_committed() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("above", 1);
    broker.produce(&topic, numbered(100));
    let mut feed = open(&settings(broker, &topic, &topic, OnMissing::Rebuild), &opening(1, false)).unwrap().pop().unwrap();
    let mut input = Input::default();
    fill(&mut *feed, 40, &mut input);
    let mut positions = Commits::new();
    positions.insert(Partition(0), Commit::at(Offset(99)));
    feed.commit(&positions).unwrap();
    feed.close().unwrap();
    drop(feed);
    assert_eq!(broker.committed(&topic, &topic), BTreeMap::from([(0, 40)]));
}

#[test]
fn control_records_of_transactions_count_as_read_and_aborted_records_are_not_seen() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("control", 3);
    broker.transaction(&topic, (0..50).map(|n| (n % 2, format!("{n}"))), true);
    broker.transaction(&topic, (0..10).map(|_| (1, "aborted".to_owned())), false);
    // Partition 2 holds nothing but an aborted transaction.
    broker.transaction(&topic, [(2, "aborted".to_owned())], false);
    let ends = ends(broker, &topic);
    assert_eq!(ends, BTreeMap::from([(0, 26), (1, 37), (2, 2)]));

    let seen = read(&settings(broker, &topic, &topic, OnMissing::Rebuild), 2).unwrap();
    assert_eq!(offsets(&seen), BTreeMap::from([(0, (0..25).collect()), (1, (0..25).collect())]));
    assert_eq!(broker.committed(&topic, &topic), ends);
}

#[test]
fn a_running_stage_shows_no_lag_behind_the_control_records_of_a_transaction() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("lag", 1);
    broker.transaction(&topic, (0..20).map(|n| (0, format!("{n}"))), true);
    let feeds = open(&settings(broker, &topic, &topic, OnMissing::Rebuild), &opening(1, false)).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let lanes = feeds.into_iter().map(|feed| scope.spawn(|| drive(feed, &stop))).collect::<Vec<_>>();
        for last in [21, 42] {
            let started = Instant::now();
            while broker.committed(&topic, &topic).get(&0) != Some(&last) && started.elapsed() < Duration::from_secs(20) {
                std::thread::sleep(Duration::from_millis(100));
            }
            assert_eq!(broker.committed(&topic, &topic).get(&0), Some(&last));
            if last == 21 {
                broker.transaction(&topic, (20..40).map(|n| (0, format!("{n}"))), true);
            }
        }
        stop.store(true, Ordering::Relaxed);
        lanes.into_iter().for_each(|lane| assert_eq!(offsets(&lane.join().unwrap().unwrap())[&0].len(), 40));
    });
}

#[test]
fn an_empty_topic_is_caught_up_at_once() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("empty", 2);
    let started = Instant::now();
    assert_eq!(offsets(&read(&settings(broker, &topic, &topic, OnMissing::Rebuild), 1).unwrap()), BTreeMap::new());
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

#[test]
fn partitions_that_move_between_two_members_are_emitted_once_and_stop_when_revoked() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("move", 4);
    let settings = settings(broker, &topic, &topic, OnMissing::StartEmpty);
    let (stop_a, stop_b, done) = (AtomicBool::new(false), AtomicBool::new(false), Arc::new(AtomicBool::new(false)));
    let (a, b) = std::thread::scope(|scope| {
        let writer = Arc::clone(&done);
        let topic = &topic;
        scope.spawn(move || {
            for batch in 0.. {
                broker.produce(topic, (0..50).map(|n| (format!("key-{n}"), format!("{batch}-{n}"))));
                if writer.load(Ordering::Relaxed) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let (settings, stop_a, stop_b) = (&settings, &stop_a, &stop_b);
        let a = open(settings, &opening(2, false)).unwrap();
        let a = a.into_iter().map(|feed| scope.spawn(move || drive(feed, stop_a))).collect::<Vec<_>>();
        std::thread::sleep(Duration::from_millis(1500));
        let b = open(settings, &opening(1, false)).unwrap();
        let b = b.into_iter().map(|feed| scope.spawn(move || drive(feed, stop_b))).collect::<Vec<_>>();
        std::thread::sleep(Duration::from_secs(5));
        stop_b.store(true, Ordering::Relaxed);
        let b = b.into_iter().flat_map(|lane| lane.join().unwrap().unwrap()).collect::<Vec<_>>();
        std::thread::sleep(Duration::from_secs(4));
        done.store(true, Ordering::Relaxed);
        std::thread::sleep(Duration::from_secs(1));
        stop_a.store(true, Ordering::Relaxed);
        (a.into_iter().map(|lane| lane.join().unwrap().unwrap()).collect::<Vec<_>>(), b)
    });
    let moved = a.iter().flatten().filter(|seen| matches!(seen, Seen::Revoked(_))).count();
    assert_eq!(moved, 2, "the second member takes two of four partitions");
    assert_eq!(live_from(&b).len(), 2);
    assert!(!offsets(&b).is_empty());

    for lane in a.iter().chain([&b]) {
        let mut owned = BTreeSet::new();
        for seen in lane {
            match seen {
                Seen::Assigned { partition, .. } => assert!(owned.insert(*partition)),
                Seen::Revoked(partition) => assert!(owned.remove(partition)),
                Seen::Record { partition, .. } => {
                    assert!(owned.contains(partition), "a record of partition {partition} after it was revoked")
                }
            }
        }
    }
    // Nobody crashed and every revocation was committed: each offset was seen once, by one of them.
    let mut all: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    for (partition, offsets) in a.iter().chain([&b]).flat_map(|lane| offsets(lane)) {
        all.entry(partition).or_default().extend(offsets);
    }
    all.values_mut().for_each(|offsets| offsets.sort_unstable());
    for (partition, end) in ends(broker, &topic) {
        assert_eq!(all[&partition], (0..end).collect::<Vec<_>>(), "partition {partition}");
    }
}

#[test]
fn a_log_whose_beginning_is_gone_is_refused_only_with_fail() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("deleted", 1);
    broker.produce(&topic, numbered(1_000));
    broker.commit(&topic, &topic, 0, 600);
    let admin: AdminClient<DefaultClientContext> = broker.config().create().unwrap();
    let mut below = TopicPartitionList::new();
    below.add_partition_offset(&topic, 0, KafkaOffset::Offset(300)).unwrap();
    meantime::link::kafka::block_on(admin.delete_records(&below, &AdminOptions::new())).unwrap();

    let error = read(&settings(broker, &topic, &topic, OnMissing::Fail), 1).unwrap_err();
    assert_eq!(error.kind, Kind::Config, "{error}");
    assert!(error.to_string().contains("below offset 300"), "{error}");
    let seen = read(&settings(broker, &topic, &topic, OnMissing::Rebuild), 1).unwrap();
    assert_eq!(live_from(&seen), BTreeMap::from([(0, 600)]));
    assert_eq!(offsets(&seen), BTreeMap::from([(0, (300..1_000).collect())]));
}

#[test]
fn a_committed_offset_beyond_the_log_is_an_error() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("beyond", 1);
    broker.produce(&topic, numbered(10));
    broker.commit(&topic, &topic, 0, 5_000);
    let mut feed = open(&settings(broker, &topic, &topic, OnMissing::Rebuild), &opening(1, false)).unwrap().pop().unwrap();
    let started = Instant::now();
    let error = loop {
        assert!(started.elapsed() < Duration::from_secs(30));
        if let Polled::Assigned(assignment) = feed.poll(10, Duration::from_millis(100), &mut Input::default()).unwrap() {
            break start(&mut *feed, &assignment).unwrap_err();
        }
    };
    assert_eq!(error.kind, Kind::Config, "{error}");
    assert!(error.to_string().contains("5000") && error.to_string().contains("--reset-offsets"), "{error}");
    feed.close().unwrap();
}

#[test]
fn a_misspelt_topic_is_answered_with_the_nearest_name_and_not_created() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("payments", 1);
    let wrong = topic.replace("payments", "paymetns");
    let error = open(&settings(broker, &wrong, "g", OnMissing::Rebuild), &opening(1, false)).err().unwrap();
    assert_eq!(error.kind, Kind::Config);
    assert!(error.help.as_ref().unwrap().contains(&topic), "{error}");
    let again = check_connect(&settings(broker, &wrong, "g", OnMissing::Rebuild)).unwrap_err();
    assert_eq!(again.kind, Kind::Config, "asking for a topic must not create it: {again}");
}

#[test]
fn check_names_partitions_and_lag() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("check", 2);
    broker.produce(&topic, numbered(100));
    let settings = settings(broker, &topic, &topic, OnMissing::Rebuild);
    let before = check_connect(&settings).unwrap().join("\n");
    assert!(before.contains("2 partitions") && before.contains("nothing committed yet"), "{before}");
    read(&settings, 1).unwrap();
    let after = check_connect(&settings).unwrap().join("\n");
    assert!(after.contains("committed on 2 of 2 partitions, lag 0"), "{after}");
}

#[test]
fn cautions_name_what_a_topic_deletes_although_states_rest_on_it() {
    let Some(broker) = broker() else { return };
    let topic = |name: &str, configs: &[(&str, &str)]| {
        let topic = format!("{name}-{}", std::process::id());
        let new = NewTopic { config: configs.to_vec(), ..NewTopic::new(&topic, 1, TopicReplication::Fixed(1)) };
        let admin: AdminClient<DefaultClientContext> = broker.config().create().unwrap();
        meantime::link::kafka::block_on(admin.create_topics([&new], &AdminOptions::new())).unwrap()[0].clone().unwrap();
        settings(broker, &topic, &topic, OnMissing::Rebuild)
    };
    let kept = topic("kept", &[("retention.ms", "-1")]);
    assert_eq!(cautions(&kept, None), [] as [String; 0]);
    let compacted = topic("compacted", &[("cleanup.policy", "compact")]);
    assert!(cautions(&compacted, None).join("\n").contains("cleanup.policy is compact"));
    let hour = topic("hour", &[("retention.ms", "3600000")]);
    assert!(cautions(&hour, None).join("\n").contains("set state.snapshots"));
    assert_eq!(cautions(&hour, Some(Duration::from_secs(60))), [] as [String; 0]);
    assert!(cautions(&hour, Some(Duration::from_secs(1200))).join("\n").contains("keeps 1h, less than 4 times"));
}

#[test]
fn a_broker_that_does_not_answer_is_unavailable_within_ten_seconds() {
    // Needs no broker: nobody listens on port 1.
    let client = Client { brokers: "127.0.0.1:1".to_owned(), ..Client::default() };
    let settings = KafkaSettings {
        client,
        topic: "t".to_owned(),
        group: "g".to_owned(),
        on_missing: OnMissing::Rebuild,
        idle_after: None,
        instance: None,
        since: None,
    };
    let started = Instant::now();
    let error = open(&settings, &opening(1, false)).err().unwrap();
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
    assert_eq!(error.exit_code(), 69);
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}
