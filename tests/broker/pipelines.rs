//! Whole pipelines on a real broker, through the program as a user runs it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, StringArray};
use arrow::datatypes::{Int32Type, Int64Type};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
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
        let forecast = forecasts
            .get(&(record.partition, record.offset))
            .unwrap_or_else(|| panic!("no forecast for {}:{}", record.partition, record.offset));
        assert_eq!(forecast.key, record.key);
    }
    assert_eq!(output.len(), input.len());
    assert!(broker.read_all(&pipeline.dead).is_empty());
    pipeline.run(&["run", "--until-caught-up"]);
    assert_eq!(broker.read_all(&pipeline.output).len(), output.len());
}

#[test]
fn what_ran_live_and_what_is_backfilled_from_files_is_the_same_bit_for_bit() {
    let Some(broker) = broker() else { return };
    let pipeline = Pipeline::new(broker, "parity");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (table, lines) = (path("events.parquet"), path("events.ndjson"));
    let events = ["--events", "20000", "--keys", "300", "--to"];
    pipeline.run(&[&["generate"], &events[..], &["kafka"]].concat());
    pipeline.run(&[&["generate"], &events[..], &["file", "--out", &table]].concat());
    pipeline.run(&[&["generate"], &events[..], &["file", "--out", &lines]].concat());
    pipeline.run(&["run", "--until-caught-up"]);
    // Numbers of a table and of JSON texts, live and from files, in any number of shards.
    for files in [&table, &lines] {
        pipeline.run(&["parity", "--live", &pipeline.output, "--files", files]);
    }
    pipeline.run(&["backfill", "--from", &table, "--to", &path("filled"), "--shards", "3"]);
    pipeline.run(&["parity", "--live", &path("filled"), "--files", &lines]);
    // The topic itself can be judged and looked into, and ends where it ended.
    let (of_topic, of_files) = (path("topic.json"), path("files.json"));
    pipeline.run(&["evaluate", "--json", &of_topic]);
    pipeline.run(&["evaluate", "--json", &of_files, "--from", &lines]);
    let figures = |file: &str| -> Value { serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap() };
    let (topic, files) = (figures(&of_topic), figures(&of_files));
    assert_eq!((&topic["events"], &topic["keys"]), (&20_000.into(), &300.into()));
    assert_eq!(topic["time"]["quantiles"], files["time"]["quantiles"]);
    let replayed = |more: &[&str]| {
        let command = [&["replay", "--key", "c0000011"], more].concat();
        let output = meantime(&pipeline.arguments(&command, cards().to_str().unwrap()));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).unwrap();
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["surprise_time"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(replayed(&[]), replayed(&["--from", &lines]));
    let output = meantime(
        &pipeline
            .arguments(&["parity", "--live", &pipeline.output, "--files", &table, "--set", "state.expiry=2h"], cards().to_str().unwrap()),
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("likely cause"), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Records of a topic below the given offsets as a Parquet file, with their partition and offset, as a connector writes them.
fn export(rows: &[Row], until: &BTreeMap<i32, i64>, path: &str) {
    let wanted: Vec<(&Row, Value)> = rows.iter().filter(|row| row.offset < until[&row.partition]).map(|row| (row, json(row))).collect();
    let text = |name: &str| -> ArrayRef { Arc::new(wanted.iter().map(|(_, event)| event[name].as_str()).collect::<StringArray>()) };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("part", Arc::new(wanted.iter().map(|(row, _)| Some(row.partition)).collect::<Int32Array>())),
        ("off", Arc::new(wanted.iter().map(|(row, _)| Some(row.offset)).collect::<Int64Array>())),
        ("id", text("id")),
        ("card", text("card")),
        ("channel", text("channel")),
        ("ts", Arc::new(wanted.iter().map(|(_, event)| event["ts"].as_i64()).collect::<Int64Array>())),
        ("mcc", Arc::new(wanted.iter().map(|(_, event)| event["mcc"].as_i64()).collect::<Int64Array>())),
        ("amount", Arc::new(wanted.iter().map(|(_, event)| event["amount"].as_f64()).collect::<Float64Array>())),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn a_live_run_goes_on_where_a_backfill_of_the_topics_files_ends_and_nothing_is_scored_twice_or_never() {
    let Some(broker) = broker() else { return };
    let (handed, whole) = (Pipeline::new(broker, "handed"), Pipeline::new(broker, "handed-whole"));
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    // Some events are held back over the border.
    let events = |pipeline: &mut Pipeline| pipeline.sets.push("order.lateness=2h".to_owned());
    let (mut handed, mut whole) = (handed, whole);
    [&mut handed, &mut whole].into_iter().for_each(events);
    for pipeline in [&handed, &whole] {
        pipeline.run(&["generate", "--events", "12000", "--keys", "200", "--to", "kafka"]);
    }
    whole.run(&["run", "--until-caught-up"]);
    let expected =
        by_position(&broker.read_all(&whole.output)).into_iter().map(|(at, row)| (at, row.payload.clone())).collect::<BTreeMap<_, _>>();

    let rows = broker.read_all(&handed.input);
    let until: BTreeMap<i32, i64> = broker.ends(&handed.input).into_iter().map(|(p, (_, end))| (p, end * (3 + i64::from(p)) / 8)).collect();
    export(&rows, &until, &path("first.parquet"));
    handed.sets.push(format!("state.snapshots={}", path("snapshots")));
    let files = path("first.parquet");
    let filled = path("filled");
    let arguments = [
        "backfill",
        "--from",
        &files,
        "--to",
        &filled,
        "--shards",
        "4",
        "--positions",
        "part,off",
        "--hand-over",
        "--rows-per-file",
        "1000",
    ];
    handed.run(&arguments);
    assert_eq!(broker.committed(&handed.input, &handed.input), until);
    handed.run(&["run", "--until-caught-up"]);

    let sink = format!("sink={{kind=\"parquet\",path=\"{filled}/forecasts\"}}");
    succeed(&["verify", cards().to_str().unwrap(), "--set", &sink]);
    let live =
        by_position(&broker.read_all(&handed.output)).into_iter().map(|(at, row)| (at, row.payload.clone())).collect::<BTreeMap<_, _>>();
    let filled = backfilled(&folder.path().join("filled/forecasts"));
    assert_eq!(live.len() + filled.len(), expected.len(), "every event once");
    assert!(!filled.is_empty() && live.keys().all(|at| !filled.contains(at)));
    assert!(live.keys().any(|(partition, offset)| *offset < until[partition]), "some events were held back over the border");
    for (at, payload) in &live {
        assert!(expected[at] == *payload, "{at:?} is not what a whole run says");
    }
    // A second hand-over to a group that has run is refused.
    let again = path("again");
    let arguments = ["backfill", "--from", &files, "--to", &again, "--shards", "4", "--positions", "part,off", "--hand-over"];
    let output = meantime(&handed.arguments(&arguments, cards().to_str().unwrap()));
    assert_eq!(output.status.code(), Some(78), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Positions of the forecasts in Parquet files.
fn backfilled(folder: &Path) -> BTreeSet<(i32, i64)> {
    let mut found = BTreeSet::new();
    for partition in std::fs::read_dir(folder).unwrap() {
        for file in std::fs::read_dir(partition.unwrap().path()).unwrap() {
            let reader =
                ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(file.unwrap().path()).unwrap()).unwrap().build().unwrap();
            for batch in reader.map(Result::unwrap) {
                let partitions = batch.column_by_name("partition").unwrap().as_primitive::<Int32Type>().clone();
                let offsets = batch.column_by_name("offset").unwrap().as_primitive::<Int64Type>().clone();
                for at in partitions.values().iter().copied().zip(offsets.values().iter().copied()) {
                    assert!(found.insert(at), "{at:?} stands twice");
                }
            }
        }
    }
    found
}

#[test]
fn a_stage_that_goes_on_after_a_restart_forecasts_as_if_it_had_never_stopped() {
    let Some(broker) = broker() else { return };
    let (once, twice) = (Pipeline::new(broker, "once"), Pipeline::new(broker, "twice"));
    let line = |i: i64| {
        let key = format!("c{}", i % 37);
        let payload = format!(
            r#"{{"id":"e{i}","card":"{key}","ts":{},"amount":{}.5,"mcc":3,"channel":"web"}}"#,
            1_735_000_000_000 + i * 60_000,
            i % 90
        );
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
            _ => (
                key.clone(),
                format!(
                    r#"{{"id":"e{i}","card":"{key}","ts":{},"amount":2,"mcc":"5","channel":"pos"}}"#,
                    1_735_000_000_000 + i as i64 * 1000
                ),
            ),
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
