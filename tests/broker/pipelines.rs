//! Whole pipelines on a real broker, through the program as a user runs it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use super::broker;
use super::harness::{Broker, Row};

fn meantime(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_meantime")).args(arguments).output().unwrap()
}

fn succeed(arguments: &[&str]) {
    let output = meantime(arguments);
    assert!(output.status.success(), "meantime {arguments:?}:\n{}", String::from_utf8_lossy(&output.stderr));
}

fn cards() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/cards")
}

/// The cards pipeline on topics of its own.
struct Pipeline {
    input: String,
    output: String,
    dead: String,
    sets: Vec<String>,
}

impl Pipeline {
    fn new(broker: &Broker, name: &str) -> Self {
        let topic = |suffix: &str| broker.topic(&format!("{name}-{suffix}"), 4);
        let (input, output, dead) = (topic("in"), topic("out"), topic("dead"));
        let sets = vec![
            format!("source.brokers={}", broker.address),
            format!("source.topic={input}"),
            format!("source.group={input}"),
            format!("sink.topic={output}"),
            format!("dead_letter.topic={dead}"),
        ];
        Pipeline { input, output, dead, sets }
    }

    fn arguments<'a>(&'a self, command: &'a [&'a str], folder: &'a str) -> Vec<&'a str> {
        let (name, options) = command.split_first().unwrap();
        let sets = self.sets.iter().flat_map(|set| ["--set", set.as_str()]);
        [name, folder].into_iter().chain(options.iter().copied()).chain(sets).collect()
    }

    fn run(&self, command: &[&str]) {
        succeed(&self.arguments(command, cards().to_str().unwrap()));
    }
}

/// Source position of an output row.
fn position(row: &Row) -> (i32, i64) {
    let (partition, offset) = row.header("meantime-position").unwrap().split_once(':').unwrap();
    (partition.parse().unwrap(), offset.parse().unwrap())
}

fn by_position(rows: &[Row]) -> BTreeMap<(i32, i64), &Row> {
    let all: BTreeMap<_, _> = rows.iter().map(|row| (position(row), row)).collect();
    assert_eq!(all.len(), rows.len(), "a position stands twice");
    all
}

fn json(row: &Row) -> Value {
    serde_json::from_slice(row.payload.as_deref().unwrap()).unwrap()
}

#[test]
fn every_input_offset_has_exactly_one_forecast_with_its_key_and_a_second_run_adds_nothing() {
    let Some(broker) = broker() else { return };
    let pipeline = Pipeline::new(broker, "whole");
    pipeline.run(&["generate", "--events", "30000", "--keys", "500", "--to", "kafka"]);
    pipeline.run(&["run", "--until-caught-up"]);
    let (input, output) = (broker.read_all(&pipeline.input), broker.read_all(&pipeline.output));
    assert_eq!(input.len(), 30_000);
    let forecasts = by_position(&output);
    for record in &input {
        let forecast = forecasts.get(&(record.partition, record.offset)).unwrap_or_else(|| panic!("no forecast for {}:{}", record.partition, record.offset));
        assert_eq!(forecast.key, record.key);
    }
    assert_eq!(output.len(), input.len());
    assert!(broker.read_all(&pipeline.dead).is_empty());
    pipeline.run(&["run", "--until-caught-up"]);
    assert_eq!(broker.read_all(&pipeline.output).len(), output.len());
}

#[test]
fn a_stage_that_goes_on_after_a_restart_forecasts_as_if_it_had_never_stopped() {
    let Some(broker) = broker() else { return };
    let (once, twice) = (Pipeline::new(broker, "once"), Pipeline::new(broker, "twice"));
    let line = |i: i64| {
        let key = format!("c{}", i % 37);
        let payload = format!(r#"{{"id":"e{i}","card":"{key}","ts":{},"amount":{}.5,"mcc":3,"channel":"web"}}"#, 1_735_000_000_000 + i * 60_000, i % 90);
        (key, payload)
    };
    broker.produce(&once.input, (0..4000).map(line));
    once.run(&["run", "--until-caught-up"]);
    for part in [0..1500, 1500..2600, 2600..4000] {
        broker.produce(&twice.input, part.map(line));
        twice.run(&["run", "--until-caught-up"]);
    }
    let (whole, parts) = (broker.read_all(&once.output), broker.read_all(&twice.output));
    let (whole, parts) = (by_position(&whole), by_position(&parts));
    assert_eq!(whole.len(), 4000);
    assert_eq!(parts.len(), 4000);
    for (position, row) in whole {
        assert_eq!(parts[&position].payload, row.payload, "{position:?}");
    }
}

#[test]
fn ten_kinds_of_broken_records_lose_nothing_and_each_dead_letter_says_why() {
    let Some(broker) = broker() else { return };
    let pipeline = Pipeline::new(broker, "broken");
    let far = 4_000_000_000_000i64;
    let broken: [(&str, String); 10] = [
        ("malformed", "not json at all".into()),
        ("malformed", r#"{"id":"x","card":"c1","ts":1735000000000"#.into()),
        ("malformed", "[1,2,3]".into()),
        ("missing_key", r#"{"id":"x","ts":1735000000000,"amount":1,"channel":"web"}"#.into()),
        ("missing_key", r#"{"id":"x","card":null,"ts":1735000000000}"#.into()),
        ("missing_time", r#"{"id":"x","card":"c1","amount":1}"#.into()),
        ("wrong_type", r#"{"id":"x","card":"c1","ts":"yesterday"}"#.into()),
        ("wrong_type", r#"{"id":"x","card":"c1","ts":1735000000000,"amount":"many"}"#.into()),
        ("time_out_of_range", r#"{"id":"x","card":"c1","ts":99999999999999999}"#.into()),
        ("future_time", format!(r#"{{"id":"x","card":"c1","ts":{far}}}"#)),
    ];
    let records = (0..5000usize).map(|i| {
        let key = format!("c{}", i % 50);
        match i % 100 {
            7 => (key, broken[i / 100 % 10].1.clone()),
            _ => (key.clone(), format!(r#"{{"id":"e{i}","card":"{key}","ts":{},"amount":2,"mcc":"5","channel":"pos"}}"#, 1_735_000_000_000 + i as i64 * 1000)),
        }
    });
    broker.produce(&pipeline.input, records);
    let folder = cards();
    let mut arguments = pipeline.arguments(&["run", "--until-caught-up"], folder.to_str().unwrap());
    arguments.extend(["--set", "dead_letter.max_bad_ratio=0.05"]);
    succeed(&arguments);
    let (input, output, dead) = (broker.read_all(&pipeline.input), broker.read_all(&pipeline.output), broker.read_all(&pipeline.dead));
    let covered: BTreeSet<_> = output.iter().chain(&dead).map(position).collect();
    assert_eq!(covered, input.iter().map(|row| (row.partition, row.offset)).collect());
    assert_eq!(output.len() + dead.len(), 5000);
    assert_eq!(dead.len(), 50);
    let records: BTreeMap<_, _> = input.iter().map(|row| ((row.partition, row.offset), row)).collect();
    for letter in &dead {
        let value = json(letter);
        let original = records[&position(letter)];
        let text = String::from_utf8(original.payload.clone().unwrap()).unwrap();
        let expected = broken.iter().find(|(_, payload)| *payload == text).unwrap().0;
        assert_eq!(value["reason"], expected, "{value}");
        assert_eq!(value["payload"], text);
        assert_eq!(value["topic"], pipeline.input.as_str());
        assert_eq!((value["partition"].as_i64(), value["offset"].as_i64()), (Some(original.partition.into()), Some(original.offset)));
    }
}

#[test]
fn an_unreachable_broker_and_a_misspelt_topic_have_their_exit_codes() {
    let Some(broker) = broker() else { return };
    let pipeline = Pipeline::new(broker, "codes");
    let folder = cards();
    let mut arguments = pipeline.arguments(&["run", "--until-caught-up"], folder.to_str().unwrap());
    let mut elsewhere = arguments.clone();
    elsewhere.extend(["--set", "source.brokers=127.0.0.1:9"]);
    assert_eq!(meantime(&elsewhere).status.code(), Some(69));
    let misspelt = format!("source.topic={}x", pipeline.input);
    arguments.extend(["--set", &misspelt]);
    let output = meantime(&arguments);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&pipeline.input), "the nearest name is given");
}
