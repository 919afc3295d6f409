//! Starts over logs that end otherwise than in a record, and without what brokers have forgotten.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use serde_json::Value;

use super::broker;
use super::trial::{Trial, event};

#[test]
fn a_run_until_caught_up_ends_where_nothing_but_marks_and_aborted_records_is_left() {
    let Some(broker) = broker() else { return };
    let mut trial = Trial::new(broker, "tail", "exactly_once");
    trial.snapshots = true;
    broker.transaction(&trial.input, (0..200).map(|i| (0, event(i).1)), true);
    trial.finish();
    // Partition 1 holds nothing else.
    broker.transaction(&trial.input, (0..6).map(|i| (i % 2, "aborted".to_owned())), false);
    trial.finish();
    trial.finish();
    let ends: Vec<_> =
        broker.ends(&trial.input).into_iter().filter(|(_, (low, high))| high > low).map(|(p, (_, high))| (p, high)).collect();
    let committed: Vec<_> = broker.committed(&trial.output, &trial.input).into_iter().collect();
    assert_eq!(committed.iter().filter(|at| ends.contains(at)).count(), 2, "{committed:?} {ends:?}");
    // The next records are read from there.
    broker.transaction(&trial.input, (200..260).map(|i| (0, event(i).1)), true);
    trial.finish();
    trial.must_equal_an_undisturbed_run();
}

#[test]
fn a_group_whose_offsets_the_brokers_have_forgotten_is_told_what_to_do() {
    let Some(broker) = broker() else { return };
    let mut trial = Trial::new(broker, "forgotten", "exactly_once");
    (trial.snapshots, trial.named) = (true, false);
    broker.transaction(&trial.input, (0..200).map(|i| (0, event(i).1)), true);
    trial.finish();
    let rows = broker.read_all(&trial.output).len();
    let admin: AdminClient<DefaultClientContext> = broker.config().create().unwrap();
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(20)));
    meantime::link::kafka::block_on(admin.delete_groups(&[&trial.output], &options)).unwrap().into_iter().for_each(|deleted| {
        deleted.unwrap();
    });
    let output = trial.command(&["run", "--until-caught-up"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(78) && text.contains("--reset-offsets --to-offset 20"), "{text}");
    assert_eq!(broker.read_all(&trial.output).len(), rows, "nothing was emitted again");
}

#[test]
fn one_bad_record_whose_dead_letter_would_be_too_large_stops_nothing() {
    let Some(broker) = broker() else { return };
    let trial = Trial::new(broker, "large", "exactly_once");
    let bad = "\u{1}".repeat(300_000);
    let events = (20..400).map(event).chain([("c1".to_owned(), bad.clone())]);
    broker.produce(&trial.input, events);
    trial.finish();
    let letters = broker.read_all(&trial.dead);
    let letters: Vec<Value> = letters.iter().map(|row| serde_json::from_slice(row.payload.as_deref().unwrap()).unwrap()).collect();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["payload_bytes"], 300_000);
    assert!(bad.starts_with(letters[0]["payload"].as_str().unwrap()));
}
