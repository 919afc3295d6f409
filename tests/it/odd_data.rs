//! Data that is odd but right: names that other columns have, keys that expire at once, files named twice, events out of order.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use parquet::arrow::ArrowWriter;

use super::program::{done, meantime, pipeline};

/// Events of 20 keys one after the other, some 200 s apart, as an accelerometer would name its fields.
fn events(count: u64) -> String {
    let mut text = String::new();
    for i in 0..count {
        let (key, n) = (i % 20, i / 20);
        let ts = 1_700_000_000_000 + n * 200_000 + key * 7_000 + (i * 7919 % 1000) * 100;
        writeln!(text, r#"{{"key":{key},"ts":{ts},"x":{},"outputs":"o{}","state.h":{n},"event_time":{}}}"#, i % 7, i % 3, i % 11).unwrap();
    }
    text
}

fn fit(folder: &Path, tables: &str, file: &str, out: &str) -> String {
    std::fs::write(folder.join("pipeline.toml"), pipeline("", tables)).unwrap();
    let at = |name: &str| folder.join(name).display().to_string();
    done(&["fit", &at(""), "--from", &at(file), "--out", &at(out)])
}

#[test]
fn fields_may_be_called_as_columns_of_golden_events_are() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("events.ndjson"), events(800)).unwrap();
    let tables = r#"
[fit]
numeric = ["x", "state.h", "event_time", "key"]
category = ["outputs"]
hidden = 4
epochs = 1
"#;
    let said = fit(folder.path(), tables, "events.ndjson", "model");
    assert!(said.contains("package:"), "{said}");
    done(&["check", folder.path().to_str().unwrap()]);
    done(&["model", "verify", folder.path().join("model").to_str().unwrap()]);
}

#[test]
fn keys_that_expire_after_their_first_event_can_be_fitted() {
    let folder = tempfile::tempdir().unwrap();
    // A quarter of an hour after its first event each key begins anew, and then comes every 100 s or so.
    let ts = |key: u64, n: u64| 1_700_000_000_000 + key * 7_000 + if n == 0 { 0 } else { 900_000 + n * 100_000 + n * 7919 % 40_000 };
    let lines = (0..800).map(|i| (i % 20, i / 20)).map(|(key, n)| format!("{{\"key\":{key},\"ts\":{}}}\n", ts(key, n)));
    std::fs::write(folder.path().join("events.ndjson"), lines.collect::<String>()).unwrap();
    for cell in ["gru", "gamma_poisson"] {
        let tables = format!("[state]\nexpiry = \"300s\"\n[fit]\ncell = \"{cell}\"\nhidden = 4\nepochs = 1\n");
        let said = fit(folder.path(), &tables, "events.ndjson", cell);
        assert!(said.contains("package:"), "{said}");
    }
}

#[test]
fn a_file_that_is_named_twice_is_taken_once_and_events_out_of_order_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("events.ndjson"), events(800)).unwrap();
    fit(folder.path(), "[fit]\ncell = \"poisson\"\n", "events.ndjson", "model");
    let figures = |from: &[&str]| {
        let output = meantime(&[&["evaluate", &at(""), "--json", "-", "--from"], from].concat());
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        ((report["events"].clone(), report["time"]["nll"].clone()), String::from_utf8(output.stderr).unwrap())
    };
    let (once, said) = figures(&[&at("events.ndjson")]);
    assert!(!said.contains("named twice"), "{said}");
    let (twice, said) = figures(&[&at("events.ndjson"), &at("*.ndjson")]);
    assert_eq!(once, twice);
    assert!(said.contains("1 of the files are named twice"), "{said}");

    let reversed: Vec<String> = events(800).lines().rev().map(str::to_owned).collect();
    std::fs::write(at("events.ndjson"), reversed.join("\n")).unwrap();
    let output = meantime(&["run", &at("")]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("flagged late_clamped       780  (earlier than its key's last event"), "{said}");
}

#[test]
fn a_compressed_file_that_is_cut_off_is_said_to_be_that() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("events.ndjson"), events(800)).unwrap();
    fit(folder.path(), "[fit]\ncell = \"poisson\"\n", "events.ndjson", "model");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(events(800).as_bytes()).unwrap();
    let whole = encoder.finish().unwrap();
    for (name, bytes) in [
        ("cut.ndjson.gz", &whole[..whole.len() / 2]),
        ("plain.ndjson.gz", events(800).as_bytes()),
        ("cut.ndjson.zst", &zstd::encode_all(events(800).as_bytes(), 1).unwrap()[..500]),
    ] {
        std::fs::write(at(name), bytes).unwrap();
        let output = meantime(&["evaluate", &at(""), "--from", &at(name)]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && said.contains("the file cannot be unpacked") && said.contains(name), "{said}");
    }
}

#[test]
fn a_field_that_no_event_has_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("events.ndjson"), events(800)).unwrap();
    fit(folder.path(), "[fit]\nnumeric = [\"x\"]\nhidden = 4\nepochs = 1\n", "events.ndjson", "model");
    let quiet = meantime(&["run", &at("")]);
    assert!(!String::from_utf8_lossy(&quiet.stderr).contains("no event so far has these fields"));
    std::fs::write(at("events.ndjson"), events(800).replace("\"x\":", "\"y\":")).unwrap();
    let output = meantime(&["run", &at("")]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("no event so far has these fields") && said.contains("fields=\"x\""), "{said}");
    // A table says itself which columns it has: that is told once.
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((0..800).map(|i| i % 20)));
    let times: ArrayRef = Arc::new(Int64Array::from_iter_values((0..800).map(|i| 1_700_000_000_000 + i * 60_000)));
    let rows = RecordBatch::try_from_iter([("key", keys), ("ts", times)]).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(at("events.parquet")).unwrap(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    let output = meantime(&["evaluate", &at(""), "--from", &at("events.parquet")]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("no file has this column") && !said.contains("no event so far has"), "{said}");
}

#[test]
fn a_fit_says_of_what_its_likelihoods_are_and_what_did_not_stop_it() {
    let folder = tempfile::tempdir().unwrap();
    let beat = |key: &str, i: i64| format!("{{\"key\":\"{key}\",\"ts\":{}}}\n", 1_700_000_000_000 + i * 60_000);
    // A heartbeat: all gaps are the same to the last digit.
    let regular: String = (0..600).map(|i| beat(&format!("k{}", i % 6), i / 6)).collect();
    std::fs::write(folder.path().join("events.ndjson"), regular).unwrap();
    let said = fit(folder.path(), "[fit]\ntime_unit = \"s\"\nhidden = 4\nepochs = 1\n", "events.ndjson", "beats");
    assert!(said.contains("nats per event, of ticks of 1 `s`") && !said.contains("by heart: with few keys"), "{said}");
    let single: String = (0..300).map(|i| beat("a", i * i)).collect();
    std::fs::write(folder.path().join("events.ndjson"), single).unwrap();
    let said = fit(folder.path(), "[fit]\ntime_unit = \"s\"\nhidden = 4\nepochs = 1\n", "events.ndjson", "single");
    assert!(said.contains("nats per event, in `s`") && said.contains("by heart: with few keys take split = \"time\""), "{said}");
}

#[test]
fn what_evaluate_cannot_mean_is_refused_and_a_key_that_is_not_there_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("events.ndjson"), events(800)).unwrap();
    fit(folder.path(), "[fit]\ncell = \"poisson\"\n", "events.ndjson", "model");
    for (options, says) in [
        (&["--html", "-"][..], "--html is written to a file"),
        (&["--k", "0"], "0 is not in 1.."),
        (&["--next", "2", "--next-horizon", "0s"], "--next-horizon is no length of time"),
    ] {
        let output = meantime(&[&["evaluate", &at("")], options].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains(says), "{:?} {said}", output.status);
    }
    let output = meantime(&["evaluate", &at(""), "--key", "nobody"]);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("no law of this key to show"));
}
