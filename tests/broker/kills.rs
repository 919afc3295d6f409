//! Whole pipelines that are killed: the program at random moments, the broker, a zombie; and what `meantime verify` says afterwards.
//!
//! | variable | default | for the claim |
//! |---|---|---|
//! | `MEANTIME_KILLS`: kill -9 of an instance, per test | 8 | 200 |
//! | `MEANTIME_KILL_EVENTS`: events, per test | 60,000 | 2,000,000 |
//! | `MEANTIME_BROKER_KILLS`: kill -9 of the broker | 1 | 20 |
//! | `MEANTIME_KILL_SEED`: seed of the moments; a failed test prints it | 1 | |
//! | `MEANTIME_BIN`: the program, such as a release build | that of the test | |

use std::fs::{self};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use meantime::link::kafka as link;
use meantime::sink::kafka::{Position, audit};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use serde_json::Value;

use super::broker;
use super::harness::Broker;

use super::trial::*;
use super::wire::Wire;

/// Shortest and longest time from kill to kill.
const BETWEEN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(4000));
/// Longest time that a killed instance stays away.
const PAUSE: Duration = Duration::from_millis(500);
/// How long the input fills where the moments are not random.
const WHILE: Duration = Duration::from_secs(12);

fn kills() -> u64 {
    setting("MEANTIME_KILLS", 8)
}

fn events() -> u64 {
    setting("MEANTIME_KILL_EVENTS", 60_000)
}

/// Fills the input evenly up to a mark that the test moves on, so that whenever something is killed it is in the middle of its work.
struct Filling {
    upto: AtomicU64,
    last: u64,
    /// How long it takes in all.
    over: Duration,
}

impl Filling {
    fn run(&self, broker: &Broker, topic: &str) {
        let mut config = broker.config();
        config.set("partitioner", "murmur2_random").set("linger.ms", "5").set("enable.idempotence", "true");
        let producer: ThreadedProducer<DefaultProducerContext> = config.create().unwrap();
        let pause = self.over.mul_f64(50.0 / self.last as f64);
        let mut due = Instant::now();
        for i in 0..self.last {
            while i >= self.upto.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(2));
                due = Instant::now();
            }
            let (key, payload) = event(i);
            let mut record = BaseRecord::to(topic).key(&key).payload(&payload);
            while let Err((error, refused)) = producer.send(record) {
                assert_eq!(error.rdkafka_error_code(), Some(rdkafka::types::RDKafkaErrorCode::QueueFull), "{error}");
                std::thread::sleep(Duration::from_millis(1));
                record = refused;
            }
            if i % 50 == 49 {
                due += pause;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        }
        producer.flush(Duration::from_secs(120)).unwrap();
    }
}

/// Runs `test` while a producer fills the input within about the time `over`: `upto(part, of)` lets it go on to that share of all events.
/// Ends when all are written.
fn while_filling(trial: &Trial<'_>, events: u64, over: Duration, test: impl FnOnce(&dyn Fn(u64, u64))) {
    let producer = Filling { upto: AtomicU64::new(0), last: events, over };
    std::thread::scope(|scope| {
        scope.spawn(|| producer.run(trial.broker, &trial.input));
        // Also if the test panics the producer must come to its end.
        let all = AtEnd(&producer);
        test(&|part, of| producer.upto.store(events * part / of, Ordering::Release));
        drop(all);
    });
}

struct AtEnd<'a>(&'a Filling);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.upto.store(u64::MAX, Ordering::Release);
    }
}

/// Kills instances at random moments while the input fills.
fn kill_at_random(trial: &Trial<'_>, instances: usize, kills: u64, events: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed());
    let names = &["a", "b"][..instances];
    let mut early = Vec::new();
    while_filling(trial, events, kills as u32 * (BETWEEN.1 + PAUSE) / 2, |upto| {
        upto(1, 1);
        let mut running: Vec<Instance> = names.iter().map(|name| trial.start(name)).collect();
        for kill in 0..kills {
            std::thread::sleep(random.random_range(BETWEEN.0..BETWEEN.1));
            let victim = random.random_range(0..instances);
            // One that has ended by itself was not killed: it must not have failed.
            if let Some(status) = running[victim].ended(Duration::ZERO) {
                early.push(format!("{} before kill {kill}: {status}", names[victim]));
            }
            running[victim].kill();
            std::thread::sleep(random.random_range(Duration::ZERO..PAUSE));
            running[victim] = trial.start(names[victim]);
        }
        running.into_iter().for_each(drop);
    });
    assert!(early.is_empty(), "seed {}: ended by themselves: {early:?}\n{}", seed(), trial.tails());
    trial.finish();
}

#[test]
fn kill_9_of_one_instance_at_random_moments_loses_nothing_and_repeats_nothing() {
    let Some(broker) = broker() else { return };
    let trial = Trial::new(broker, "kill1", "exactly_once");
    kill_at_random(&trial, 1, kills(), events());
    trial.must_be_complete(events());
    assert_eq!(trial.must_equal_an_undisturbed_run(), 0);
}

#[test]
fn kill_9_of_two_instances_at_random_moments_loses_nothing_and_repeats_nothing() {
    let Some(broker) = broker() else { return };
    let trial = Trial { snapshots: true, ..Trial::new(broker, "kill2", "exactly_once") };
    kill_at_random(&trial, 2, kills(), events());
    trial.must_be_complete(events());
    assert_eq!(trial.must_equal_an_undisturbed_run(), 0);
}

#[test]
fn at_least_once_never_loses_and_its_repeats_carry_the_same_bytes() {
    let Some(broker) = broker() else { return };
    let trial = Trial::new(broker, "least", "at_least_once");
    kill_at_random(&trial, 2, kills(), events());
    let (_, found) = trial.verify();
    println!("{}: {found}", trial.name);
    for kind in ["missing", "unknown", "out_of_order", "split_keys", "ahead", "unplaced"] {
        assert_eq!(found[kind]["count"], 0, "seed {}: {found}", seed());
    }
    assert_eq!((&found["records"], &found["behind"]), (&Value::from(events()), &Value::from(0)), "{found}");
    let repeats = trial.must_equal_an_undisturbed_run();
    assert!(found["repeated"]["count"].as_u64().unwrap() >= repeats, "dead letters may come again too: {found}");
    // The control of the tests above: the same kills do hit work that is under way, and `verify` sees it.
    assert!(repeats > 0 || kills() < 8, "no kill hit an open epoch; seed {}: {found}", seed());
    assert_eq!(found["complete"], repeats == 0 && found["repeated"]["count"] == 0, "{found}");
}

#[test]
fn a_zombie_that_wakes_after_another_has_taken_over_does_no_harm() {
    let Some(broker) = broker() else { return };
    let (trial, events) = (Trial::new(broker, "zombie", "exactly_once"), events());
    while_filling(&trial, events, WHILE, |upto| {
        upto(1, 4);
        let zombie = trial.start("a");
        trial.wait_committed(1);
        // The other one takes half of the partitions, the zombie sleeps in the middle of its work.
        let other = trial.start("b");
        upto(2, 4);
        std::thread::sleep(Duration::from_millis(1500));
        zombie.signal("-STOP");
        upto(3, 4);
        trial.wait_committed(events * 3 / 4);
        zombie.signal("-CONT");
        upto(4, 4);
        trial.wait_committed(events);
        // It has either stopped by itself or joined again, then it stops when told.
        let mut zombie = zombie;
        match zombie.ended(Duration::from_secs(3)) {
            None => zombie.stop(),
            Some(status) => assert!(matches!(status.code(), Some(75 | 69)), "{status}\n{}", tail(&zombie.log)),
        }
        other.stop();
    });
    trial.finish();
    trial.must_be_complete(events);
    assert_eq!(trial.must_equal_an_undisturbed_run(), 0);
}

/// One instance has begun to give partitions away, and is cut off from the broker for longer than its session: what it was about to commit for them
/// reaches the broker when another one has long taken everything over.
fn cut_off_while_it_gives_partitions_away(named: bool) {
    if broker().is_none() || std::env::var_os("MEANTIME_KAFKA").is_some() {
        return; // Somebody else's broker has no listener behind our wire.
    }
    let wire = Wire::start();
    let (own, end) = Broker::start_behind(wire.port).unwrap();
    wire.to(end);
    let sets = vec!["source.client={\"session.timeout.ms\"=\"6000\"}".to_owned()];
    let trial = Trial { named, sets, ..Trial::new(&own, "wire", "exactly_once") };
    let events = events();
    // Names are given by address and group: without this both would have the first one of this machine, as no two have whose address is the same.
    let _first = (!named).then(|| link::Instance::of_machine(&own.address, &trial.output));
    while_filling(&trial, events, WHILE, |upto| {
        upto(1, 4);
        let mut far = trial.start_at("a", &format!("127.0.0.1:{}", wire.port));
        trial.wait_committed(1);
        upto(2, 4);
        let near = trial.start("b");
        while !fs::read_to_string(&far.log).unwrap_or_default().contains("partitions revoked") {
            assert!(far.ended(Duration::ZERO).is_none(), "{}", tail(&far.log));
            std::thread::yield_now();
        }
        wire.cut();
        upto(3, 4);
        trial.wait_committed(events * 3 / 4);
        wire.mend();
        upto(4, 4);
        trial.wait_committed(events);
        // It has either stopped by itself or joined again, then it stops when told.
        let ended = far.ended(Duration::from_secs(5));
        println!("{}: cut off, named {named}: {ended:?}", trial.name);
        match ended {
            None => far.stop(),
            Some(status) => assert!(matches!(status.code(), Some(75 | 69)), "{status}\n{}", tail(&far.log)),
        }
        near.stop();
    });
    trial.finish();
    trial.must_be_complete(events);
    assert_eq!(trial.must_equal_an_undisturbed_run(), 0);
}

#[test]
fn a_partition_of_the_network_while_partitions_are_given_away_loses_nothing_and_repeats_nothing() {
    cut_off_while_it_gives_partitions_away(false);
}

#[test]
fn the_same_under_static_members_loses_nothing_and_repeats_nothing() {
    cut_off_while_it_gives_partitions_away(true);
}

/// Kills the broker at random moments while two instances work. One that ends by itself must have asked for a restart by its exit code, and
/// gets it; returns how many did.
fn kill_the_broker(named: bool) -> Option<u64> {
    broker()?;
    if std::env::var_os("MEANTIME_KAFKA").is_some() {
        return None; // Somebody else's broker is not ours to kill.
    }
    let own = Broker::start().unwrap();
    let trial = Trial { named, ..Trial::new(&own, "broker", "exactly_once") };
    let (events, kills) = (events(), setting("MEANTIME_BROKER_KILLS", 1));
    let mut random = ChaCha8Rng::seed_from_u64(seed());
    let mut restarts = 0;
    while_filling(&trial, events, WHILE * kills as u32, |upto| {
        let mut running = ["a", "b"].map(|name| (name, trial.start(name)));
        upto(1, 1);
        trial.wait_committed(1);
        let mut look_after = || {
            for (name, instance) in &mut running {
                if let Some(status) = instance.ended(Duration::ZERO) {
                    assert!(matches!(status.code(), Some(75 | 69)), "ended by itself: {status}\n{}", tail(&instance.log));
                    restarts += 1;
                    *instance = trial.start(name);
                }
            }
        };
        for _ in 0..kills {
            look_after();
            std::thread::sleep(random.random_range(Duration::from_millis(500)..WHILE / 2));
            own.kill();
            std::thread::sleep(random.random_range(Duration::ZERO..Duration::from_secs(2)));
            own.restart();
        }
        trial.wait_committed_while(events, &mut look_after);
        running.into_iter().for_each(|(_, instance)| instance.stop());
    });
    trial.finish();
    trial.must_be_complete(events);
    assert_eq!(trial.must_equal_an_undisturbed_run(), 0);
    println!("{restarts} restarts after {kills} kills of the broker, named: {named}");
    Some(restarts)
}

#[test]
fn kill_9_of_the_broker_in_the_middle_loses_nothing_repeats_nothing_and_stops_nobody() {
    if let Some(restarts) = kill_the_broker(false) {
        assert_eq!(restarts, 0);
    }
}

/// A static member whose broker is away for longer than its session may fence itself when it comes back
/// (confluentinc/librdkafka#3437). It then ends with 75 and goes on when started again.
#[test]
fn kill_9_of_the_broker_under_static_members_loses_nothing_and_repeats_nothing() {
    kill_the_broker(true);
}

#[test]
fn sigterm_in_the_middle_hands_over_cleanly() {
    let Some(broker) = broker() else { return };
    let (trial, events) = (Trial::new(broker, "term", "exactly_once"), events());
    while_filling(&trial, events, WHILE, |upto| {
        upto(1, 3);
        let first = trial.start("a");
        trial.wait_committed(events / 8);
        let second = trial.start("b");
        upto(2, 3);
        std::thread::sleep(Duration::from_millis(1500));
        first.stop();
        upto(3, 3);
        trial.wait_committed(events);
        second.stop();
    });
    // Everything is done: nothing is left for a third one.
    trial.must_be_complete(events);
    assert_eq!(trial.must_equal_an_undisturbed_run(), 0);
}

/// Copies the committed forecasts of a trial into a new topic: `change` says how often a row is written.
fn copied(trial: &Trial<'_>, change: impl Fn(&audit::Found<'_>) -> usize, header: bool) -> String {
    let (client, topic) = (trial.broker.client(), trial.broker.topic("copy", 4));
    let producer: ThreadedProducer<DefaultProducerContext> = trial.broker.config().create().unwrap();
    let spans = audit::spans(&client, &trial.output).unwrap();
    audit::read(&client, &trial.output, &trial.output, &spans, &mut |found| {
        let audit::Origin::At(Position { partition, offset, .. }) = found.origin else { panic!("no position at {:?}", found.at) };
        let position = format!("{partition}:{offset}");
        for _ in 0..change(found) {
            let mut record = BaseRecord::to(&topic).key(found.key.unwrap()).payload(found.payload.unwrap()).partition(found.at.0.0);
            if header {
                let value = Some(position.as_bytes());
                let header = rdkafka::message::Header { key: "meantime-position", value };
                record = record.headers(rdkafka::message::OwnedHeaders::new().insert(header));
            }
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        Ok(())
    })
    .unwrap();
    producer.flush(Duration::from_secs(30)).unwrap();
    topic
}

#[test]
fn verify_names_what_is_lost_and_what_comes_twice_and_reads_positions_from_header_or_fields() {
    let Some(broker) = broker() else { return };
    let mut trial = Trial::new(broker, "verify", "exactly_once");
    let count = 4000;
    // Records of an aborted transaction, and the marks of transactions, are no records.
    broker.transaction(&trial.input, (0..50).map(|i| (0, event(i).1)), false);
    broker.produce(&trial.input, (0..count).map(event));
    // Of cards of their own: a key in two partitions is a fault.
    broker.transaction(&trial.input, (0..50).map(|i| (1, event(i * 2).1.replace("\"card\":\"c", "\"card\":\"t"))), true);
    trial.finish();
    trial.must_be_complete(count + 50);
    let group = trial.output.clone();
    let verify = |trial: &Trial<'_>, more: &[&str]| {
        let set = format!("source.group={group}");
        // The group was already set to the name of the output; the last one counts.
        let mut command = trial.command(&["verify", "--json"]);
        command.args(["--set", &set]).args(more).output().unwrap()
    };
    let json = |output: &Output| -> Value {
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
    };
    let (original, at) = (trial.output.clone(), |found: &audit::Found<'_>, p, o| match found.origin {
        audit::Origin::At(at) => (at.partition.0, at.offset.0) == (p, o),
        _ => false,
    });

    // Without the header the fields say the same.
    let fields = copied(&trial, |_| 1, false);
    let header_only = copied(&trial, |found| usize::from(!at(found, 1, 100)) + usize::from(at(found, 2, 40)), true);
    trial.output = fields;
    let output = verify(&trial, &[]);
    assert!(output.status.success(), "{}", json(&output));
    trial.output = header_only;
    let output = verify(&trial, &[]);
    let found = json(&output);
    assert_eq!(output.status.code(), Some(1), "{found}");
    assert_eq!((&found["missing"]["count"], &found["missing"]["first"][0]), (&Value::from(1), &Value::from("1:100")), "{found}");
    assert_eq!(found["repeated"]["count"], 1, "{found}");
    assert!(found["repeated"]["first"][0].as_str().unwrap().starts_with("2:40 (forecast "), "{found}");
    assert_eq!(found["out_of_order"]["count"], 0, "{found}");

    // Neither header nor fields: it says how to get them.
    trial.output = broker.topic("bare", 1);
    broker.produce(&trial.output, [("k".to_owned(), "{}".to_owned())]);
    let output = verify(&trial, &[]);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("position_header"), "{}", String::from_utf8_lossy(&output.stderr));

    // A group that never ran.
    trial.output = original;
    assert_eq!(verify(&trial, &["--set", "source.group=nobody"]).status.code(), Some(78));
}

#[test]
fn dead_letters_in_files_count_as_outputs() {
    let Some(broker) = broker() else { return };
    let trial = Trial::new(broker, "letters", "exactly_once");
    broker.produce(&trial.input, (0..3000).map(event));
    let folder = tempfile::tempdir().unwrap();
    for (turn, kind) in ["ndjson", "parquet"].into_iter().enumerate() {
        let place = folder.path().join(format!("dead.{kind}"));
        let pipeline = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/cards/pipeline.toml")).unwrap();
        let before = pipeline.split("[dead_letter]").next().unwrap();
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/cards/model");
        let before = before.replace("package = \"model\"", &format!("package = \"{}\"", model.display()));
        let output = broker.topic("letters-out", 4);
        let text = format!("{before}\n[dead_letter]\nkind = \"{kind}\"\npath = \"{}\"\nmax_bad_ratio = 0.01\n", place.display());
        let file = folder.path().join(format!("{turn}.toml"));
        fs::write(&file, text).unwrap();
        let run = |arguments: &[&str]| {
            let mut command = Command::new(program());
            command.arg(arguments[0]).arg(&file).args(&arguments[1..]);
            for set in [
                format!("source.brokers={}", broker.address),
                format!("source.topic={}", trial.input),
                format!("source.group={output}"),
                format!("sink.topic={output}"),
            ] {
                command.args(["--set", &set]);
            }
            command.output().unwrap()
        };
        let ran = run(&["run", "--until-caught-up"]);
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let found: Value = serde_json::from_slice(&run(&["verify", "--json"]).stdout).unwrap();
        assert_eq!((&found["complete"], &found["dead_letters"]), (&Value::from(true), &Value::from(3)), "{kind}: {found}");
        // Without them three records have no output.
        if place.is_dir() { fs::remove_dir_all(&place) } else { fs::remove_file(&place) }.unwrap();
        let found: Value = serde_json::from_slice(&run(&["verify", "--json"]).stdout).unwrap();
        assert_eq!(found["missing"]["count"], 3, "{kind}: {found}");
    }
}
