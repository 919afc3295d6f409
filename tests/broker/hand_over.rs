//! From files to the topic while producers go on: a backfill hands over to a live run, by offsets and by a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int32Type, Int64Type};
use arrow::row::{RowConverter, SortField};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use super::broker;
use super::harness::{Broker, Row};
use super::trial::{Trial, event};

/// Most events of a trial.
const MOST: u64 = 30_000;
/// Events that are acknowledged before the next are sent.
const BATCH: u64 = 100;

type At = (i32, i64);

/// Sends events from `from` on all the time while `work` is done, each batch as soon as the one before is acknowledged. Returns how many there are.
fn while_producing(broker: &Broker, topic: &str, from: u64, event: fn(u64) -> (String, String), work: impl FnOnce()) -> u64 {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let producing = scope.spawn(|| {
            let mut next = from;
            loop {
                let last = done.load(Ordering::Acquire) || next + BATCH >= MOST;
                broker.produce(topic, (next..next + BATCH).map(event));
                next += BATCH;
                if last {
                    return next;
                }
            }
        });
        // Also when it fails: the thread must end.
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::Release);
        let events = producing.join().unwrap();
        worked.unwrap_or_else(|why| std::panic::resume_unwind(why));
        events
    })
}

/// Rows of events as a Parquet file; one that is no JSON is a row without anything. `positions`: with where each record stood.
fn write(path: &Path, rows: &[(At, Vec<u8>)], positions: bool) {
    let events: Vec<Value> = rows.iter().map(|(_, payload)| serde_json::from_slice(payload).unwrap_or(Value::Null)).collect();
    let text = |name: &str| -> ArrayRef { Arc::new(events.iter().map(|event| event[name].as_str()).collect::<StringArray>()) };
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("id", text("id")),
        ("card", text("card")),
        ("channel", text("channel")),
        ("mcc", text("mcc")),
        ("ts", Arc::new(events.iter().map(|event| event["ts"].as_i64()).collect::<Int64Array>())),
        ("amount", Arc::new(events.iter().map(|event| event["amount"].as_f64()).collect::<Float64Array>())),
    ];
    if positions {
        columns.push(("part", Arc::new(rows.iter().map(|((partition, _), _)| Some(*partition)).collect::<Int32Array>())));
        columns.push(("off", Arc::new(rows.iter().map(|((_, offset), _)| Some(*offset)).collect::<Int64Array>())));
    }
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Files of forecasts in a sink's folder, whatever its layout.
fn files(folder: &Path) -> Vec<PathBuf> {
    glob::glob(&format!("{}/*/partition-*.parquet", folder.display()))
        .unwrap()
        .chain(glob::glob(&format!("{}/partition-*/*.parquet", folder.display())).unwrap())
        .map(Result::unwrap)
        .collect()
}

/// The rows of all files below a sink's folder: position, id of the event, and the bits of all columns but `without`.
fn table(folder: &Path, without: &[&str]) -> Vec<(At, Option<String>, Vec<u8>)> {
    let mut batches = Vec::new();
    for file in files(folder) {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file).unwrap()).unwrap();
        batches.extend(reader.build().unwrap().map(Result::unwrap));
    }
    let all = concat_batches(&batches[0].schema(), &batches).unwrap();
    let names: Vec<String> = all.schema().fields().iter().map(|field| field.name().clone()).collect();
    let kept: Vec<&String> = names.iter().filter(|name| !without.contains(&name.as_str())).collect();
    assert_eq!(kept.len() + without.len(), names.len(), "{names:?}");
    let columns: Vec<ArrayRef> = kept.iter().map(|name| all.column_by_name(name).unwrap().clone()).collect();
    let converter = RowConverter::new(columns.iter().map(|column| SortField::new(column.data_type().clone())).collect()).unwrap();
    let bits = converter.convert_columns(&columns).unwrap();
    let partitions = all.column_by_name("partition").unwrap().as_primitive::<Int32Type>();
    let offsets = all.column_by_name("offset").unwrap().as_primitive::<Int64Type>();
    let ids = all.column_by_name("event_id").unwrap();
    let ids = arrow::compute::cast(ids, &arrow::datatypes::DataType::Utf8).unwrap();
    let ids = ids.as_string::<i32>();
    let at = |row: usize| (partitions.value(row), offsets.value(row));
    (0..all.num_rows()).map(|row| (at(row), Some(ids.value(row).to_owned()), bits.row(row).as_ref().to_vec())).collect()
}

fn position(row: &Row) -> At {
    let (partition, offset) = row.header("meantime-position").unwrap().split_once(':').unwrap();
    (partition.parse().unwrap(), offset.parse().unwrap())
}

/// Forecasts in the topic by position, as JSON without `without`; none stands twice.
fn topic(trial: &Trial<'_>, without: &[&str]) -> BTreeMap<At, Value> {
    let mut all = BTreeMap::new();
    for row in trial.broker.read_all(&trial.output) {
        let mut json: Value = serde_json::from_slice(row.payload.as_deref().unwrap()).unwrap();
        without.iter().for_each(|name| assert!(json.as_object_mut().unwrap().remove(*name).is_some(), "{name}"));
        assert!(all.insert(position(&row), json).is_none(), "{:?} stands twice", position(&row));
    }
    all
}

/// A run that nothing disturbs over the whole topic, with these options, as topic and as files.
fn references<'a>(trial: &Trial<'a>, sets: &[String]) -> (Trial<'a>, PathBuf) {
    let whole = || Trial { sets: sets.to_vec(), ..trial.undisturbed() };
    let into_topic = whole();
    into_topic.finish();
    let mut into_files = whole();
    let folder = trial.logs.path().join("whole");
    into_files.sets.push(format!("sink={{kind=\"parquet\",path=\"{}\"}}", folder.display()));
    into_files.finish();
    (into_topic, folder)
}

fn run(trial: &Trial<'_>, arguments: &[&str]) -> std::process::Output {
    trial.command(arguments).output().unwrap()
}

fn succeed(trial: &Trial<'_>, arguments: &[&str]) -> String {
    let output = run(trial, arguments);
    assert!(output.status.success(), "{arguments:?}:\n{}\n{}", String::from_utf8_lossy(&output.stderr), trial.tails());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The first attempt dies when the states are stored and nothing is committed yet. Returns what the next one is told besides.
fn dies_before_its_commit(trial: &Trial<'_>, arguments: &[&str]) -> &'static [&'static str] {
    // A program without debug assertions has no such points.
    if std::env::var_os("MEANTIME_BIN").is_some() {
        return &[];
    }
    let output = trial.command(arguments).env("MEANTIME_FAIL_POINT", "hand_over.snapshots_stored").output().unwrap();
    assert!(!output.status.success() && output.status.code().is_none(), "{output:?}");
    assert!(trial.broker.committed(&trial.output, &trial.input).is_empty());
    &["--resume"]
}

/// A live run that is stopped and started again; both times it has done `some` records more when it is stopped.
fn live_twice(trial: &Trial<'_>, begun: u64, some: u64) {
    for turn in 1..=2 {
        let instance = trial.start("a");
        trial.wait_committed(begun + turn * some);
        instance.stop();
    }
}

fn complete(trial: &Trial<'_>, more: &[&str]) -> Value {
    let output = run(trial, &[&["verify", "--json"], more].concat());
    let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert!(output.status.success() && found["complete"] == true, "{found}\n{}", trial.tails());
    found
}

fn by_offsets(name: &str, layout: &str) {
    const FIRST: u64 = 3_000;
    let Some(broker) = broker() else { return };
    let mut trial = Trial::new(broker, name, "exactly_once");
    trial.snapshots = true;
    trial.sets.push("order.lateness=10m".to_owned());
    let whole_sets = trial.sets.clone();
    broker.produce(&trial.input, (0..FIRST).map(event));
    let file = trial.logs.path().join("export.parquet");
    let filled = trial.logs.path().join("filled");
    let (from, to) = (file.to_str().unwrap(), filled.to_str().unwrap());
    let events = while_producing(broker, &trial.input, FIRST, event, || {
        let rows = broker.read_all(&trial.input);
        let ends: BTreeMap<i32, i64> =
            broker.ends(&trial.input).into_iter().map(|(p, (_, end))| (p, end * (3 + i64::from(p)) / 8)).collect();
        let rows: Vec<(At, Vec<u8>)> = rows
            .into_iter()
            .filter(|row| row.offset < ends[&row.partition])
            .map(|row| ((row.partition, row.offset), row.payload.unwrap()))
            .collect();
        write(&file, &rows, true);
        let shards = ["--shards", "4", "--positions", "part,off", "--hand-over", "--rows-per-file", "1000", "--layout", layout];
        let arguments = [&["backfill", "--from", from, "--to", to], &shards[..]].concat();
        let resume = dies_before_its_commit(&trial, &arguments);
        succeed(&trial, &[&arguments[..], resume].concat());
        assert_eq!(broker.committed(&trial.output, &trial.input), ends);
        live_twice(&trial, rows.len() as u64, 500);
    });
    trial.finish();
    let found = complete(&trial, &["--files", to]);
    assert_eq!((&found["records"], &found["behind"]), (&Value::from(events), &Value::from(0)), "{found}");
    let (_, alone) = trial.verify();
    assert_eq!(alone["missing"]["count"], found["from_files"], "without the files theirs are missing: {alone}");

    let (in_topic, in_files) = (topic(&trial, &[]), table(&filled.join("forecasts"), &[]));
    let (whole, whole_files) = references(&trial, &whole_sets);
    let expected = topic(&whole, &[]);
    let expected_bits: BTreeMap<At, Vec<u8>> = table(&whole_files, &[]).into_iter().map(|(at, _, bits)| (at, bits)).collect();
    assert_eq!(in_topic.len() + in_files.len(), expected.len());
    assert!(in_files.len() > 500 && in_topic.len() > 1000, "{} {}", in_files.len(), in_topic.len());
    in_topic.iter().for_each(|(at, row)| assert_eq!(row, &expected[at], "{at:?}"));
    for (at, _, bits) in &in_files {
        assert!(!in_topic.contains_key(at) && expected_bits[at] == *bits, "{at:?}");
    }
    // By offsets: where events are held back their numbers count, and that of a key's first event is no fault, as one that has expired begins anew.
    let by_offsets = ["verify", "--json", "--files", to, "--set", "order.lateness=0s"];
    let found: Value = serde_json::from_slice(&run(&trial, &by_offsets).stdout).unwrap();
    assert_eq!(found["out_of_order"]["count"], 0, "{found}");
    if layout == "partition" {
        rows_in_the_reverse_order_are_named(&trial, &filled, &by_offsets);
    }
    // Only a backfill's folder, with rows that say where they come from.
    let output = run(&trial, &["verify", "--files", trial.logs.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(78));
    let fields = "sink.fields={id=\"event_id\"}";
    let output = run(&trial, &["verify", "--files", to, "--set", fields]);
    assert!(output.status.code() == Some(78) && String::from_utf8_lossy(&output.stderr).contains("leaves out `partition`"), "{output:?}");
}

/// Rows of a partition in the reverse order: every key that has several of them is named.
fn rows_in_the_reverse_order_are_named(trial: &Trial<'_>, filled: &Path, verify: &[&str]) {
    let mut files = files(&filled.join("forecasts"));
    files.retain(|path| path.parent().is_some_and(|folder| folder.ends_with("partition-3")));
    let read = |path: &PathBuf| ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
    let batches: Vec<RecordBatch> = files.iter().flat_map(read).map(Result::unwrap).collect();
    let rows = concat_batches(&batches[0].schema(), &batches).unwrap();
    let back = arrow::array::UInt32Array::from_iter_values((0..rows.num_rows() as u32).rev());
    files.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    let mut writer = ArrowWriter::try_new(File::create(&files[0]).unwrap(), rows.schema(), None).unwrap();
    writer.write(&arrow::compute::take_record_batch(&rows, &back).unwrap()).unwrap();
    writer.close().unwrap();
    let output = run(trial, verify);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.code() == Some(1) && found["out_of_order"]["count"].as_u64() > Some(0), "{found}");
    assert_eq!((&found["missing"]["count"], &found["repeated"]["count"]), (&0.into(), &0.into()), "{found}");
}

#[test]
fn by_offsets_while_producers_go_on_every_event_is_forecast_once_and_as_in_one_run() {
    by_offsets("hand-offsets", "partition");
}

#[test]
fn by_offsets_from_folders_by_date_too() {
    by_offsets("hand-offsets-date", "date");
}

/// First event that is the topic's.
const CUT: u64 = 5_000;
/// How far around it events are sent in another order; less than the 997 between two events of a key.
const MIXED: u64 = 400;

/// Event `i` of a stream in which some around the cut come in the reverse order, and some from there on cannot be used.
fn mixed(i: u64) -> (String, String) {
    let i = if (CUT - MIXED..CUT + MIXED).contains(&i) { 2 * CUT - 1 - i } else { i };
    if i % 1000 != 13 || i >= CUT {
        return event(i);
    }
    let (key, _) = event(i);
    let payload = format!(r#"{{"id":"e{i}","card":"{key}","ts":{},"amount":2.5,"mcc":"1","channel":"web"}}"#, time(i));
    (key, payload)
}

/// Time of event `i`, in milliseconds.
fn time(i: u64) -> u64 {
    1_735_000_000_000 + i * 1700
}

fn by_time(name: &str, lateness: &str, layout: &str, parts: &[&str]) {
    let Some(broker) = broker() else { return };
    let mut trial = Trial::new(broker, name, "exactly_once");
    trial.snapshots = true;
    trial.sets.push(format!("order.lateness={lateness}"));
    let whole_sets = trial.sets.clone();
    let since = chrono::DateTime::from_timestamp_millis(time(CUT) as i64).unwrap().to_rfc3339();
    broker.produce(&trial.input, (0..CUT + 2 * MIXED).map(mixed));
    // Everything before the cut, and some of what is the topic's: in two files, one of them in no order.
    let rows = |range: std::ops::Range<u64>| -> Vec<(At, Vec<u8>)> { range.map(|i| ((0, 0), mixed(i).1.into_bytes())).collect() };
    let (old, new) = (trial.logs.path().join("old.parquet"), trial.logs.path().join("new.parquet"));
    write(&old, &rows(0..3_000), false);
    write(&new, &rows(3_000..CUT + MIXED), false);
    let filled = trial.logs.path().join("filled");
    let (from, to) = ([old.to_str().unwrap(), new.to_str().unwrap()], filled.to_str().unwrap());
    let fill = |more: &[&str]| {
        run(&trial, &[&["backfill", "--from", from[0], from[1], "--to", to, "--rows-per-file", "1000", "--hand-over"], more].concat())
    };
    let set = format!("source.since={since}");
    for (more, why) in [(&["--shards", "4"][..], "since = "), (&["--shards", "3", "--set", &set], "--shards 4")] {
        let output = fill(more);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(78) && text.contains(why), "{text}");
    }
    trial.sets.push(set);
    let events = while_producing(broker, &trial.input, CUT + 2 * MIXED, mixed, || {
        let fill = ["backfill", "--from", from[0], from[1], "--to", to, "--rows-per-file", "1000", "--shards", "4", "--layout", layout];
        // Several machines do their parts, and one of them hands over.
        for part in parts {
            succeed(&trial, &[&fill[..], &["--shard", part]].concat());
        }
        let begun: &[&str] = if parts.is_empty() { &[] } else { &["--resume"] };
        let resume = dies_before_its_commit(&trial, &[&fill[..], &["--hand-over"], begun].concat());
        let resume = if resume.is_empty() { begun } else { resume };
        let said = succeed(&trial, &[&fill[..], &["--hand-over"], resume].concat());
        assert!(said.contains(&format!("{MIXED} rows from then on are left to the topic")), "{said}");
        let begun: i64 = broker.committed(&trial.output, &trial.input).values().sum();
        assert!((1..=CUT as i64).contains(&begun), "{said}");
        live_twice(&trial, begun as u64, 1_000);
    });
    trial.finish();
    let found = complete(&trial, &[]);
    assert_eq!((&found["before_since"], &found["records"]), (&Value::from(CUT), &Value::from(events - CUT)), "{found}");

    let same = ["fingerprint"];
    let (in_topic, in_files) = (topic(&trial, &same), table(&filled.join("forecasts"), &["fingerprint", "partition", "offset"]));
    let (whole, whole_files) = references(&trial, &whole_sets);
    let expected = topic(&whole, &same);
    let expected_bits: BTreeMap<Option<String>, Vec<u8>> =
        table(&whole_files, &["fingerprint", "partition", "offset"]).into_iter().map(|(_, id, bits)| (id, bits)).collect();
    assert_eq!((in_files.len() as u64, in_topic.len() + in_files.len()), (CUT, expected.len()));
    in_topic.iter().for_each(|(at, row)| assert_eq!(row, &expected[at], "{at:?}"));
    let mut ids: Vec<_> = in_files.iter().map(|(_, id, _)| id.clone()).collect();
    ids.extend(in_topic.values().map(|row| row["event_id"].as_str().map(str::to_owned)));
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), expected.len(), "every event has one forecast");
    succeed(&trial, &["parity", "--live", filled.join("forecasts").to_str().unwrap(), "--files", from[0], from[1]]);
    for (at, id, bits) in &in_files {
        assert!(expected_bits[id] == *bits, "{at:?} {id:?}");
    }
    // Without the snapshots a start would not know the keys any more, and the topic cannot tell it.
    std::fs::rename(trial.logs.path().join("snapshots"), trial.logs.path().join("elsewhere")).unwrap();
    let output = run(&trial, &["run", "--until-caught-up", "--set", "state.on_missing=fail"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(78) && text.contains("`source.since` stand in snapshots only"), "{text}");
    let output = run(&trial, &["verify", "--files", to]);
    assert!(output.status.code() == Some(78) && String::from_utf8_lossy(&output.stderr).contains("no positions"), "{output:?}");
}

#[test]
fn by_time_files_without_positions_hand_over_to_a_topic_that_holds_more_and_less_than_they() {
    by_time("hand-time", "0s", "partition", &[]);
}

#[test]
fn by_time_events_that_are_held_back_at_the_end_of_the_files_are_theirs() {
    by_time("hand-time-held", "10m", "date", &["0/2", "1/2"]);
}
