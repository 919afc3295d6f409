//! Anomalies in real metrics: a law of the next value, fitted to the beginnings of 24 series without a label, and its surprises scored by the rule of the
//! Numenta Anomaly Benchmark (Lavin and Ahmad, ICMLA 2015) beside those of two published detectors.
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::{cast, concat_batches, take};
use arrow::datatypes::{DataType, Float64Type, Int32Type, TimeUnit, TimestampMicrosecondType};
use meantime::base::offset::{Offset, Partition};
use meantime::data::input::{Input, Table};
use meantime::evaluate::unusual::Unusual;
use meantime::pipeline::{self, Purpose};
use meantime::run::Stage;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

const PIPELINE: &str = r#"
name = "nab"
[source]
kind = "file"
paths = ["series.parquet"]
[event]
format = "parquet"
key = "key"
time = { field = "event_time", unit = "us" }
[sink]
kind = "ndjson"
path = "/dev/null"
[dead_letter]
kind = "ndjson"
path = "dead.ndjson"
[fit]
value = "value"
value_components = 4
value_memory = 300
hidden = 16
components = 4
epochs = 30
split = { field = "split" }
"#;

/// Weights of a hit, a miss and a false alarm: the standard profile, and those that reward few false alarms and few misses.
const PROFILES: [(&str, [f64; 3]); 3] = [("standard", [1.0, 1.0, 0.11]), ("low FP", [1.0, 1.0, 0.22]), ("low FN", [1.0, 2.0, 0.11])];

fn data() -> Option<PathBuf> {
    let found = ["../shared/data/nab", "../../shared/data/nab"].map(|at| Path::new(env!("CARGO_MANIFEST_DIR")).join(at));
    let found = found.into_iter().find(|folder| folder.join("series.parquet").is_file());
    if found.is_none() {
        eprintln!("SKIPPED anomalies in real metrics: ../shared/data/nab is not there");
    }
    found
}

fn read(path: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

fn texts(table: &RecordBatch, name: &str) -> StringArray {
    cast(table.column_by_name(name).unwrap(), &DataType::Utf8).unwrap().as_string::<i32>().clone()
}

fn numbers(table: &RecordBatch, name: &str) -> Vec<f64> {
    cast(table.column_by_name(name).unwrap(), &DataType::Float64).unwrap().as_primitive::<Float64Type>().values().to_vec()
}

fn micros(table: &RecordBatch, name: &str) -> Vec<i64> {
    let plain = cast(table.column_by_name(name).unwrap(), &DataType::Timestamp(TimeUnit::Microsecond, None)).unwrap();
    plain.as_primitive::<TimestampMicrosecondType>().values().to_vec()
}

/// One series in the order in which it was recorded.
#[derive(Default)]
struct Series {
    times: Vec<i64>,
    probation: Vec<bool>,
    /// First and last row of each window of anomalies, ascending.
    windows: Vec<(usize, usize)>,
}

/// All rows, series by series in the order of recording, and the series by name.
fn load(data: &Path) -> (RecordBatch, BTreeMap<String, Series>) {
    let table = read(&data.join("series.parquet"));
    let keys = texts(&table, "key");
    let rows = cast(table.column_by_name("row").unwrap(), &DataType::Int32).unwrap().as_primitive::<Int32Type>().values().to_vec();
    let mut order: Vec<u32> = (0..table.num_rows() as u32).collect();
    order.sort_by_key(|at| (keys.value(*at as usize).to_owned(), rows[*at as usize]));
    let order = arrow::array::UInt32Array::from(order);
    let columns: Vec<ArrayRef> = table.columns().iter().map(|column| take(column, &order, None).unwrap()).collect();
    let table = RecordBatch::try_new(table.schema(), columns).unwrap();
    let (keys, times) = (texts(&table, "key"), micros(&table, "event_time"));
    let probation = table.column_by_name("probation").unwrap().as_boolean().clone();
    let mut all: BTreeMap<String, Series> = BTreeMap::new();
    for (at, time) in times.into_iter().enumerate() {
        let own = all.entry(keys.value(at).to_owned()).or_default();
        own.times.push(time);
        own.probation.push(probation.value(at));
    }
    let windows = read(&data.join("windows.parquet"));
    let (keys, starts, ends) = (texts(&windows, "key"), micros(&windows, "window_start"), micros(&windows, "window_end"));
    for at in 0..windows.num_rows() {
        let own = all.get_mut(keys.value(at)).unwrap();
        let first = own.times.iter().position(|time| *time == starts[at]).unwrap();
        let last = own.times.iter().rposition(|time| *time == ends[at]).unwrap();
        own.windows.push((first, last));
        own.windows.sort_unstable();
    }
    (table, all)
}

/// What a detection at position y of a window earns: from 1 long before its end to -1 long after.
fn worth(y: f64) -> f64 {
    2.0 / (1.0 + (5.0 * y).exp()) - 1.0
}

/// The score of a detector at a threshold: 0 for one that never fires, 100 for one that hits each window at its first row and nothing else.
fn score(all: &BTreeMap<String, Series>, scores: &BTreeMap<String, Vec<f64>>, threshold: f64, [hit, miss, alarm]: [f64; 3]) -> f64 {
    let (mut earned, mut windows) = (0.0, 0.0);
    for (key, series) in all {
        let counts = |i: &usize| !series.probation[*i] && scores[key][*i] >= threshold;
        let detections: Vec<usize> = (0..series.times.len()).filter(counts).collect();
        for (first, last) in &series.windows {
            windows += 1.0;
            match detections.iter().find(|i| (first..=last).contains(i)) {
                Some(i) => earned += hit * worth(-((last + 1 - i) as f64) / (last + 1 - first) as f64) / worth(-1.0),
                None if (*first..=*last).all(|i| series.probation[i]) => {}
                None => earned -= miss,
            }
        }
        for i in detections {
            if series.windows.iter().any(|(first, last)| (*first..=*last).contains(&i)) {
                continue;
            }
            let passed = series.windows.iter().rev().find(|(_, last)| *last < i);
            let y = passed.map(|(first, last)| (i - last) as f64 / (last - first) as f64);
            earned += alarm * y.filter(|y| *y <= 3.0).map_or(-1.0, worth);
        }
    }
    100.0 * (earned + miss * windows) / (windows * (hit + miss))
}

/// The best score over thresholds, and its threshold.
fn best(all: &BTreeMap<String, Series>, scores: &BTreeMap<String, Vec<f64>>, profile: [f64; 3]) -> (f64, f64) {
    let counted = all.iter().flat_map(|(key, series)| scores[key].iter().zip(&series.probation));
    let mut highest: Vec<f64> = counted.filter(|(_, probation)| !**probation).map(|(score, _)| *score).collect();
    highest.sort_by(|a, b| b.total_cmp(a));
    let places = (0..60).map(|i| (10.0_f64 * 1.1_f64.powi(i)) as usize);
    let thresholds = places.filter_map(|place| highest.get(place).copied());
    thresholds.map(|threshold| (score(all, scores, threshold, profile), threshold)).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
}

/// Scores of one column of a table with key and row, which are in the order of `load`.
fn published(data: &Path, name: &str) -> BTreeMap<String, Vec<f64>> {
    let table = read(&data.join("reference_scores.parquet"));
    let (keys, rows, values) = (texts(&table, "key"), numbers(&table, "row"), numbers(&table, name));
    let mut all: BTreeMap<String, BTreeMap<usize, f64>> = BTreeMap::new();
    for at in 0..table.num_rows() {
        all.entry(keys.value(at).to_owned()).or_default().insert(rows[at] as usize, values[at]);
    }
    all.into_iter().map(|(key, rows)| (key, rows.into_values().collect())).collect()
}

/// The first 80 % of each probation are to learn from, the rest of it to stop by; all that is scored is only taken in.
fn history(table: &RecordBatch, all: &BTreeMap<String, Series>, path: &Path) {
    let keys = texts(table, "key");
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let split: StringArray = (0..table.num_rows())
        .map(|at| {
            let own = &all[keys.value(at)];
            let place = seen.entry(keys.value(at)).or_default();
            *place += 1;
            let probation = own.probation.iter().filter(|probation| **probation).count();
            Some(if 10 * *place <= 8 * probation {
                "train"
            } else if *place <= probation {
                "valid"
            } else {
                "other"
            })
        })
        .collect();
    let columns = ["key", "event_time", "value"].map(|name| (name, table.column_by_name(name).unwrap().clone()));
    let table = RecordBatch::try_from_iter(columns.into_iter().chain([("split", Arc::new(split) as ArrayRef)])).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), table.schema(), None).unwrap();
    writer.write(&table).unwrap();
    writer.close().unwrap();
}

#[test]
fn the_scorer_gives_two_published_detectors_their_known_scores() {
    let Some(data) = data() else { return };
    let (_, all) = load(&data);
    for (name, thresholds, expected) in [
        ("windowed_gaussian", [1.0; 3], [24.3049, 6.8358, 31.8495]),
        ("numenta", [0.542_187_690_734_863_4, 0.575_195_503_234_863_6, 0.542_187_690_734_863_4], [66.4585, 59.3833, 70.8363]),
    ] {
        let scores = published(&data, name);
        for ((threshold, expected), (profile, weights)) in thresholds.into_iter().zip(expected).zip(PROFILES) {
            let found = score(&all, &scores, threshold, weights);
            assert!((found - expected).abs() < 5e-5, "{name}, {profile}: {found}");
        }
    }
}

#[test]
fn surprises_of_a_law_that_saw_no_label_find_more_than_a_windowed_gaussian() {
    let Some(data) = data() else { return };
    let (table, all) = load(&data);
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    std::fs::write(folder.join("pipeline.toml"), PIPELINE).unwrap();
    history(&table, &all, &folder.join("series.parquet"));
    let fit = Command::new(env!("CARGO_BIN_EXE_meantime")).current_dir(folder).args(["fit", ".", "--out", "model"]).output().unwrap();
    assert!(fit.status.success(), "{}", String::from_utf8_lossy(&fit.stderr));
    println!("{}", String::from_utf8_lossy(&fit.stdout));

    let stage = Stage::load(pipeline::load(folder, &[], Purpose::Run).unwrap()).unwrap();
    let mut lane = stage.lane().unwrap();
    lane.assign(Partition(0), Offset(0));
    let (mut unusual, mut scores) = (Unusual::default(), BTreeMap::<String, Vec<f64>>::new());
    for from in (0..table.num_rows()).step_by(4096) {
        let rows = table.slice(from, 4096.min(table.num_rows() - from));
        let input = Input { tables: vec![Table { partition: Partition(0), first: Offset(from as i64), rows }], ..Input::default() };
        lane.advance(&input).unwrap();
        let forecasts = &lane.forecasts;
        for row in 0..forecasts.len() {
            let key = String::from_utf8(forecasts.keys.bytes_at(row).to_vec()).unwrap();
            scores.entry(key).or_default().push(unusual.score(forecasts, row).unwrap_or(0.0));
        }
    }
    for (key, series) in &all {
        assert_eq!(scores[key].len(), series.times.len(), "{key}");
        assert!(scores[key].iter().all(|score| (0.0..=1.0).contains(score)));
    }
    for ((profile, weights), simple) in PROFILES.into_iter().zip([24.3049, 6.8358, 31.8495]) {
        let (found, threshold) = best(&all, &scores, weights);
        println!("{profile}: {found:.2} at the threshold {threshold:.6}; windowed_gaussian {simple}");
        assert!(found > simple + 10.0, "{profile}: {found}");
    }
}
