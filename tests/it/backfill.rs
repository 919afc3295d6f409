//! Backfill, on the program itself: the same forecasts however the files are cut, ordered and shared out; the same bytes after any number of kills.
//!
//! `MEANTIME_KILLS=100 cargo test --test it backfill -- --nocapture` kills more often than the test does by default.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub const EVENTS: &str = "20000";

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn cards() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/cards")
}

pub fn generate(path: &Path, events: &str) {
    let pipeline = cards();
    let arguments = ["generate", pipeline.to_str().unwrap(), "--events", events, "--keys", "300", "--to", "file", "--out"];
    let output = Command::new(env!("CARGO_BIN_EXE_meantime")).args(arguments).arg(path).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

pub fn command(from: &[&str], to: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meantime"));
    command.arg("backfill").arg(cards()).arg("--from").args(from).arg("--to").arg(to);
    command.args(["--set", "dead_letter.max_bad_ratio=0.5", "--rows-per-file", "1000"]).args(more);
    command
}

pub fn backfill(from: &[&str], to: &Path, more: &[&str]) -> Output {
    command(from, to, more).output().unwrap()
}

pub fn read(path: &Path) -> RecordBatch {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let schema = builder.schema().clone();
    concat_batches(&schema, &builder.build().unwrap().map(Result::unwrap).collect::<Vec<_>>()).unwrap()
}

pub fn write(path: &Path, rows: &RecordBatch) {
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), rows.schema(), None).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
}

/// All files below a folder, by name from there.
pub fn files(folder: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder_of) = open.pop() {
        for entry in std::fs::read_dir(folder_of).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().display().to_string(), path);
            }
        }
    }
    found
}

/// Every forecast but for its partition and offset, as text, in the order of the rows' text.
fn forecasts(to: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for path in files(&to.join("forecasts")).values() {
        let rows = read(path);
        let schema = rows.schema();
        let names: Vec<usize> =
            (0..rows.num_columns()).filter(|i| !["partition", "offset"].contains(&schema.field(*i).name().as_str())).collect();
        let options = FormatOptions::default();
        let plain: Vec<ArrayRef> = names
            .iter()
            .map(|i| match rows.column(*i).data_type() {
                DataType::Timestamp(unit, _) => cast(rows.column(*i), &DataType::Timestamp(*unit, None)).unwrap(),
                _ => rows.column(*i).clone(),
            })
            .collect();
        let columns: Vec<ArrayFormatter<'_>> = plain.iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        all.extend(
            (0..rows.num_rows()).map(|row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|")),
        );
    }
    all.sort();
    all
}

#[test]
fn shards_batches_lanes_and_the_order_of_the_files_change_no_forecast() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole.parquet");
    generate(&whole, EVENTS);
    let rows = read(&whole);
    // The same rows: in three files of their order, and in two of none.
    for (i, (from, to)) in [(0, 9_000), (9_000, 9_100), (9_100, rows.num_rows())].into_iter().enumerate() {
        write(&folder.path().join(format!("sorted-{i}.parquet")), &rows.slice(from, to - from));
    }
    let mut places: Vec<u32> = (0..u32::try_from(rows.num_rows()).unwrap()).collect();
    places.shuffle(&mut ChaCha8Rng::seed_from_u64(1));
    let shuffled = take_record_batch(&rows, &UInt32Array::from(places)).unwrap();
    write(&folder.path().join("shuffled-0.parquet"), &shuffled.slice(0, 7_000));
    write(&folder.path().join("shuffled-1.parquet"), &shuffled.slice(7_000, rows.num_rows() - 7_000));
    let lines = folder.path().join("lines.ndjson");
    generate(&lines, EVENTS);

    let path = |name: &str| folder.path().join(name).display().to_string();
    let mut first: Option<Vec<String>> = None;
    for (name, from, more) in [
        ("one", "whole.parquet", &["--shards", "1"][..]),
        ("two", "sorted-*.parquet", &["--shards", "2", "--set", "run.lanes=2"]),
        ("seven", "shuffled-*.parquet", &["--shards", "7", "--set", "run.lanes=3", "--memory-max", "300KiB"]),
        ("small", "sorted-*.parquet", &["--shards", "3", "--set", "run.max_batch=1"]),
        ("lines", "lines.ndjson", &["--shards", "2"]),
    ] {
        let to = folder.path().join(name);
        let output = backfill(&[&path(from)], &to, more);
        assert!(output.status.success(), "{name}: {}", text(&output.stderr));
        let found = forecasts(&to);
        assert_eq!(found.len(), rows.num_rows(), "{name}");
        match &first {
            None => first = Some(found),
            Some(first) => assert!(*first == found, "{name} differs"),
        }
        assert!(!to.join(".sorting-0-1").exists());
    }
    // What came out of shards in one order is what comes out of the files in the other, and a changed value is found.
    let parity = |live: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meantime"));
        command.arg("parity").arg(cards()).args(["--live", &path(live), "--files", &path("shuffled-*.parquet"), "--json"]).args(more);
        let output = command.output().unwrap();
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
        (output.status.code(), said)
    };
    let (code, said) = parity("two", &[]);
    assert_eq!((code, &said["equal"], &said["different"]), (Some(0), &rows.num_rows().into(), &0.into()), "{said}");
    let (code, said) = parity("two", &["--set", "state.expiry=3h"]);
    assert_eq!(code, Some(1));
    assert_eq!(said["first"][0]["field"], "fingerprint", "{said}");
    // Two machines that know nothing of each other do what one does.
    let (whole, parts) = (folder.path().join("seven"), folder.path().join("parts"));
    for part in ["0/2", "1/2"] {
        let output = backfill(&[&path("shuffled-*.parquet")], &parts, &["--shards", "7", "--shard", part, "--set", "run.lanes=1"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    same_files(&whole, &parts);
}

pub fn same_files(expected: &Path, found: &Path) {
    let of =
        |folder: &Path| files(&folder.join("forecasts")).into_iter().chain(files(&folder.join("dead-letters"))).collect::<BTreeMap<_, _>>();
    let (expected, found) = (of(expected), of(found));
    assert_eq!(expected.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>());
    assert!(expected.len() > 5);
    for (name, path) in &expected {
        assert!(std::fs::read(path).unwrap() == std::fs::read(&found[name]).unwrap(), "{name} has other bytes");
    }
}

/// Events with some lines that are no JSON.
fn broken_events(folder: &Path, events: &str) -> String {
    let path = folder.join("events.ndjson");
    generate(&path, events);
    let mut lines: Vec<String> = std::fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
    for i in (0..lines.len()).step_by(97) {
        lines.insert(i, format!("not JSON {i}"));
    }
    std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    path.display().to_string()
}

#[test]
fn killed_at_any_moment_and_resumed_it_writes_the_same_bytes() {
    killed(&[]);
}

#[test]
fn by_date_too_killed_at_any_moment_and_resumed_it_writes_the_same_bytes() {
    killed(&["--layout", "date"]);
}

fn killed(layout: &[&str]) {
    let kills: usize = std::env::var("MEANTIME_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(12);
    let folder = tempfile::tempdir().unwrap();
    let from = broken_events(folder.path(), "60000");
    let whole = folder.path().join("whole");
    let state = ["--set", "state.snapshots=ignored", "--set", "state.snapshot_every=1s"];
    let started = std::time::Instant::now();
    let output = backfill(&[&from], &whole, &[&["--shards", "3"], layout].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let takes = started.elapsed();
    assert!(files(&whole.join("dead-letters")).len() > 3);

    let mut random = ChaCha8Rng::seed_from_u64(7);
    let (mut killed, mut rounds, mut resumed) = (0, 0, BTreeSet::new());
    while killed < kills {
        // With and without snapshots, on one lane and on two.
        let to = folder.path().join(format!("killed-{rounds}"));
        let mut more = [&["--shards", "3", "--resume"], layout].concat();
        more.extend(if rounds % 2 == 0 { &state[..] } else { &[] });
        more.extend(if rounds % 3 == 0 { &["--set", "run.lanes=2"][..] } else { &["--set", "run.lanes=1"] });
        for _ in 0..3 {
            let mut child = command(&[&from], &to, &more).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(takes.mul_f64(random.random_range(0.1..0.9)).max(Duration::from_millis(5)));
            if child.try_wait().unwrap().is_none() {
                child.kill().unwrap();
                killed += 1;
            }
            child.wait().unwrap();
            resumed.insert(files(&to.join("forecasts")).keys().filter(|name| name.contains("/from=")).count());
        }
        let output = backfill(&[&from], &to, &more);
        assert!(output.status.success(), "{}", text(&output.stderr));
        same_files(&whole, &to);
        rounds += 1;
    }
    println!("{killed} kills in {rounds} rounds; files that were there at a kill: {resumed:?}");
    assert!(resumed.len() > 2, "no kill fell between two files: {resumed:?}");
}

/// The days of the events in the rows of a file.
fn days(rows: &RecordBatch) -> BTreeSet<String> {
    let times = rows.column_by_name("event_time").unwrap();
    let DataType::Timestamp(unit, _) = times.data_type() else { panic!("no time") };
    let times = cast(&cast(times, &DataType::Timestamp(*unit, None)).unwrap(), &DataType::Date32).unwrap();
    let options = FormatOptions::default();
    let shown = ArrayFormatter::try_new(&times, &options).unwrap();
    (0..rows.num_rows()).map(|row| shown.value(row).to_string()).collect()
}

#[test]
fn by_date_each_row_is_in_the_folder_of_its_day_and_no_row_differs() {
    let folder = tempfile::tempdir().unwrap();
    let from = broken_events(folder.path(), EVENTS);
    let (whole, dated) = (folder.path().join("whole"), folder.path().join("dated"));
    for (to, more) in [(&whole, &["--shards", "3"][..]), (&dated, &["--shards", "3", "--layout", "date"])] {
        let output = backfill(&[&from], to, more);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let mut found = BTreeSet::new();
    for (name, path) in files(&dated.join("forecasts")) {
        let Some(day) = name.strip_prefix("event_date=").and_then(|rest| rest.split_once('/')).map(|(day, _)| day.to_owned()) else {
            assert!(name.starts_with("_commits/partition-") && name.ends_with(".json"), "{name}");
            continue;
        };
        assert_eq!(days(&read(&path)), [day.clone()].into(), "{name}");
        found.insert(day);
    }
    assert!(found.len() > 3, "{found:?}");
    let all: BTreeSet<String> = files(&whole.join("forecasts")).values().flat_map(|path| days(&read(path))).collect();
    assert_eq!(found, all);
    std::fs::rename(dated.join("forecasts/_commits"), folder.path().join("_commits")).unwrap();
    assert!(forecasts(&whole) == forecasts(&dated));
    std::fs::rename(folder.path().join("_commits"), dated.join("forecasts/_commits")).unwrap();
    // What others make of it.
    let sink = format!("sink={{kind=\"parquet\",path=\"{}\"}}", dated.join("forecasts").display());
    let program = |command: &str, more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_meantime")).arg(command).arg(cards()).args(more).output().unwrap();
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
        (output.status.code(), said)
    };
    let (code, said) = program("verify", &["--json", "--set", &sink]);
    assert_eq!((code, &said["complete"]), (Some(0), &true.into()), "{said}");
    let parity = ["--json", "--live", dated.to_str().unwrap(), "--files", &from, "--set", "dead_letter.max_bad_ratio=0.5"];
    let (code, said) = program("parity", &parity);
    assert_eq!((code, said["equal"].to_string(), &said["different"]), (Some(0), EVENTS.to_owned(), &0.into()), "{said}");
    // A place keeps its layout.
    let other = backfill(&[&from], &dated, &["--shards", "3", "--resume"]);
    assert_eq!(other.status.code(), Some(78));
    assert!(text(&other.stderr).contains("--layout date"), "{}", text(&other.stderr));
    // Two machines that know nothing of each other do what one does.
    let parts = folder.path().join("parts");
    for part in ["1/2", "0/2"] {
        let output = backfill(&[&from], &parts, &["--shards", "3", "--shard", part, "--layout", "date"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    same_files(&dated, &parts);
    // Killed between any two steps of a commit.
    if cfg!(debug_assertions) {
        for point in meantime::base::fail_point::FILES {
            let to = folder.path().join(point);
            let more = ["--shards", "3", "--layout", "date", "--resume"];
            let died = command(&[&from], &to, &more).env("MEANTIME_FAIL_POINT", point).output().unwrap();
            assert!(!died.status.success(), "{point} was not passed");
            let seen = files(&to.join("forecasts")).into_keys().filter(|name| name.starts_with("event_date=")).count();
            assert_eq!(seen == 0, ["files.staged", "files.committed"].contains(&point), "{point}: {seen} files where readers look");
            let output = backfill(&[&from], &to, &more);
            assert!(output.status.success(), "{point}: {}", text(&output.stderr));
            same_files(&dated, &to);
        }
    }
}

#[test]
fn what_does_not_go_on_with_what_is_there_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let events = folder.path().join("events.parquet");
    generate(&events, EVENTS);
    let (from, to) = (events.display().to_string(), folder.path().join("out"));
    let shown = text(&backfill(&[&from], &to, &["--shards", "4", "--dry-run"]).stderr);
    assert!(shown.contains("20,000 rows") && shown.contains("4 of 4") && shown.contains("in order"), "{shown}");
    assert!(!to.exists(), "a dry run leaves nothing");
    assert!(backfill(&[&from], &to, &["--shards", "2"]).status.success());
    for (more, code, says) in [
        (&["--shards", "2"][..], 78, "--resume"),
        (&["--shards", "3", "--resume"], 78, "begun with 2 shards"),
        (&["--shards", "2", "--resume", "--set", "state.expiry=9d"], 78, "pipeline or the model has changed"),
        (&["--shards", "2", "--shard", "2/2"], 2, "I/N"),
        (&["--shards", "2", "--memory-max", "lots"], 2, "512MB"),
    ] {
        let output = backfill(&[&from], &to, more);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(says), "{says}: {}", text(&output.stderr));
    }
    // What is complete stays as it is.
    let before: Vec<Vec<u8>> = files(&to).values().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(backfill(&[&from], &to, &["--shards", "2", "--resume"]).status.success());
    assert_eq!(before, files(&to).values().map(|path| std::fs::read(path).unwrap()).collect::<Vec<_>>());
    let stranger = folder.path().join("stranger");
    std::fs::create_dir(&stranger).unwrap();
    std::fs::write(stranger.join("letter.txt"), "mine").unwrap();
    let output = backfill(&[&from], &stranger, &[]);
    assert!(text(&output.stderr).contains("no backfill"), "{}", text(&output.stderr));
    let missing = backfill(&["nowhere/*.parquet"], &to, &[]);
    assert_eq!(missing.status.code(), Some(78));
}

#[test]
fn another_output_or_a_rewritten_file_is_refused_and_no_sorted_part_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let (lines, out, scratch) = (folder.path().join("lines.ndjson"), folder.path().join("out"), folder.path().join("scratch"));
    generate(&lines, "400");
    let before = std::fs::read_to_string(&lines).unwrap();
    // Not in order: they are sorted aside.
    let mut turned: Vec<&str> = before.lines().collect();
    turned.reverse();
    let turned = turned.join("\n") + "\n";
    std::fs::write(&lines, &turned).unwrap();
    let part = |shard: &str, more: &[&str]| {
        let arguments = ["--shards", "2", "--shard", shard, "--scratch", scratch.to_str().unwrap()];
        let output = backfill(&[lines.to_str().unwrap()], &out, &[&arguments, more].concat());
        (output.status.code(), text(&output.stderr))
    };
    let (code, said) = part("0/2", &[]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0, "nothing stays in a folder that others use too");
    for (more, says) in [
        ("forecast.quantiles=[0.2, 0.8]", "quantiles of [forecast] was `0.1, 0.5, 0.9` when it was begun, now it is `0.2, 0.8`"),
        ("event.id=\"channel\"", "id of [event] was `id` when it was begun, now it is `channel`"),
        ("forecast.marks=1", "marks of [forecast] was `3` when it was begun, now it is `1`"),
    ] {
        let (code, said) = part("1/2", &["--set", more]);
        assert_eq!(code, Some(78), "{said}");
        assert!(said.split_whitespace().collect::<Vec<_>>().join(" ").contains(says), "{says}: {said}");
    }
    std::fs::write(&lines, turned.replacen("\"pos\"", "\"web\"", 1)).unwrap();
    let (code, said) = part("1/2", &[]);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("has been replaced by another of the same size"), "{said}");
    std::fs::write(&lines, &turned).unwrap();
    let (code, said) = part("1/2", &[]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn verify_names_shards_that_have_no_file_and_knows_whether_they_have_rows() {
    let folder = tempfile::tempdir().unwrap();
    let (all, one, out) = (folder.path().join("all.ndjson"), folder.path().join("one.ndjson"), folder.path().join("out"));
    generate(&all, "2000");
    let verify = |to: &Path| {
        let sink = format!("sink={{kind=\"parquet\",path=\"{}\"}}", to.join("forecasts").display());
        let output = Command::new(env!("CARGO_BIN_EXE_meantime")).arg("verify").arg(cards()).args(["--set", &sink]).output().unwrap();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    assert!(backfill(&[all.to_str().unwrap()], &out, &["--shards", "3"]).status.success());
    let (code, said) = verify(&out);
    assert!(code == Some(0) && !said.contains("no file"), "{said}");
    std::fs::remove_dir_all(out.join("forecasts/partition-1")).unwrap();
    let (code, said) = verify(&out);
    assert!(code == Some(1) && said.contains("partition 1 of the backfill has no file: of 2,000 rows the files have"), "{said}");
    // One key is in one shard.
    let lines = std::fs::read_to_string(&all).unwrap();
    let card = lines.lines().next().unwrap().split("\"card\":").nth(1).unwrap().split(',').next().unwrap().to_owned();
    let few: Vec<&str> = lines.lines().filter(|line| line.contains(&card)).collect();
    std::fs::write(&one, few.join("\n") + "\n").unwrap();
    let out = folder.path().join("one");
    assert!(backfill(&[one.to_str().unwrap()], &out, &["--shards", "3"]).status.success());
    let (code, said) = verify(&out);
    assert!(code == Some(0) && said.contains("it has no rows, all") && said.contains("complete: the files tile"), "{said}");
}

#[test]
fn stopped_by_a_signal_it_is_not_done_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (all, out) = (folder.path().join("all.ndjson"), folder.path().join("out"));
    generate(&all, "60000");
    let from = all.to_str().unwrap();
    let files = |to: &Path| files(&to.join("forecasts")).len();
    let mut child = command(&[from], &out, &["--shards", "2"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while !out.join("forecasts").is_dir() || files(&out) < 4 {
        assert!(child.try_wait().unwrap().is_none(), "it came to its end before it was told to stop");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(75) && said.contains("stopped by a signal") && said.contains("--resume"), "{said}");
    let sink = format!("sink={{kind=\"parquet\",path=\"{}\"}}", out.join("forecasts").display());
    let verify = || Command::new(env!("CARGO_BIN_EXE_meantime")).arg("verify").arg(cards()).args(["--set", &sink]).output().unwrap();
    let verified = verify();
    let said = text(&verified.stderr);
    assert!(verified.status.code() == Some(1) && said.contains("of 60,000 rows the files have"), "{said}");
    let output = backfill(&[from], &out, &["--shards", "2", "--resume"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let verified = verify();
    assert!(verified.status.success(), "{}", text(&verified.stderr));
}
