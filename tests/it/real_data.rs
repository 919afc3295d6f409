//! Features on real payments, against a slow reference that is written from the definitions, row by row.
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use meantime::base::time::{EventTime, Gap, TimeUnit};
use meantime::data::events::Events;
use meantime::data::input::Input;
use meantime::data::rejected::Rejected;
use meantime::data::schema::{EventSchema, TimeFormat};
use meantime::decode::Decoder;
use meantime::features::recipe::Recipe;
use meantime::features::{Context, Features};
use meantime::source::{self, FileSettings, Opening, Polled, Settings};

const RECIPE: &str = r#"
format = 1
[[column]]
kind = "gap"
unit = "h"
scale = "log1p"
first = -1.0
[[column]]
kind = "is_first"
[[column]]
kind = "numeric"
field = "amount"
scale = "standardise"
mean = 50.0
std = 40.0
clip = [0.0, 400.0]
[[column]]
kind = "category"
field = "scenario"
vocabulary = ["0", "1", "2"]
encoding = "one_hot"
unknown = true
[[column]]
kind = "calendar"
cycle = "hour"
[[column]]
kind = "calendar"
cycle = "weekday"
zone = "Europe/Berlin"
[[column]]
kind = "decay"
statistic = "count"
half_life = "1d"
[[column]]
kind = "decay"
statistic = "mean"
field = "amount"
half_life = "7d"
"#;

/// The first rows of a file through the source and the decoder; `None`, loudly, where the data are not there.
fn events(schema: &EventSchema, rows: usize) -> Option<Events> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/fraud-handbook/transactions-2018-04.parquet");
    if !path.is_file() {
        eprintln!("SKIPPED features on real payments: {} is not there", path.display());
        return None;
    }
    let names = [&schema.key, &schema.time].into_iter().chain(schema.fields.iter().map(|field| &field.name)).cloned().collect();
    let opening = Opening { lanes: 1, fields: names, ..Opening::default() };
    let mut feed = source::open(&Settings::File(FileSettings { paths: vec![path.into()] }), &opening).unwrap().remove(0);
    let (mut decoder, mut events, mut rejected) = (Decoder::new(schema), Events::new(schema), Rejected::default());
    while events.len() < rows {
        let mut input = Input::default();
        match feed.poll(8192, Duration::ZERO, &mut input).unwrap() {
            Polled::Records => decoder.decode(&input, &mut events, &mut rejected).unwrap(),
            Polled::Ended => break,
            _ => {}
        }
    }
    assert!(rejected.is_empty());
    Some(events)
}

#[test]
fn recipe_columns_agree_with_a_slow_reference_on_real_payments() {
    let recipe: Recipe = toml::from_str(RECIPE).unwrap();
    let schema = EventSchema {
        key: "key".into(),
        time: "event_time".into(),
        time_format: TimeFormat::Rfc3339,
        id: None,
        fields: recipe.fields(),
        mark: None,
        label: None,
    };
    let Some(events) = events(&schema, 60_000) else { return };
    let n = events.len();
    let amounts = events.columns[0].numbers().unwrap();
    let scenarios = events.columns[1].texts().unwrap();

    let mut history: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
    let mut gaps = Vec::new();
    let mut earlier = Vec::new();
    for row in 0..n {
        let own = history.entry(events.keys.get(row).unwrap().to_vec()).or_default();
        gaps.push(own.last().map(|last| events.times[row].since(events.times[*last])));
        earlier.push(own.clone());
        own.push(row);
    }
    let features = Features::new(&recipe, &schema).unwrap();
    let mut rows = Vec::new();
    features.rows(&events, Context { gaps: &gaps }, &mut rows);
    let mut aggregates: BTreeMap<&[u8], Vec<f64>> = BTreeMap::new();
    for (row, cells) in rows.chunks_exact_mut(features.width()).enumerate() {
        let own = aggregates.entry(events.keys.get(row).unwrap()).or_insert_with(|| vec![0.0; features.aggregates()]);
        features.decay(&events, row, gaps[row], own, cells);
    }

    for (row, cells) in rows.chunks_exact(features.width()).enumerate() {
        let time = events.times[row];
        let gap_h = gaps[row].map(|gap: Gap| gap.in_unit(TimeUnit::Hour));
        let scenario = scenarios.get(row).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or("");
        let part =
            |micros: i64, period: i64, shift: i64| std::f64::consts::TAU * (micros + shift).rem_euclid(period) as f64 / period as f64;
        let (day, hour) = (86_400_000_000i64, 3_600_000_000i64);
        // April 2018: Berlin is two hours ahead; 1970-01-01 was a Thursday.
        let (hour_angle, week_angle) = (part(time.0, day, 0), part(time.0, 7 * day, 3 * day + 2 * hour));
        let age_d = |other: usize| time.since(events.times[other]).seconds() / 86_400.0;
        let count: f64 = earlier[row].iter().map(|other| (-age_d(*other)).exp2()).sum();
        let weights: f64 = earlier[row].iter().map(|other| (-age_d(*other) / 7.0).exp2()).sum();
        let sum: f64 = earlier[row].iter().map(|other| (-age_d(*other) / 7.0).exp2() * amounts[*other]).sum();
        let expected = [
            gap_h.map_or(-1.0, |gap| (1.0 + gap).ln()),
            f64::from(u8::from(gap_h.is_none())),
            (amounts[row].clamp(0.0, 400.0) - 50.0) / 40.0,
            f64::from(u8::from(scenario == "0")),
            f64::from(u8::from(scenario == "1")),
            f64::from(u8::from(scenario == "2")),
            f64::from(u8::from(!["0", "1", "2"].contains(&scenario))),
            hour_angle.sin(),
            hour_angle.cos(),
            week_angle.sin(),
            week_angle.cos(),
            count,
            if weights > 0.0 { sum / weights } else { 0.0 },
        ];
        for (column, (found, expected)) in cells.iter().zip(expected).enumerate() {
            let difference = (f64::from(*found) - expected).abs();
            assert!(difference <= 2e-6 * expected.abs().max(1.0), "row {row}, float {column}: {found} instead of {expected}");
        }
    }
    assert!(n >= 60_000 && events.times[0] > EventTime(0));
}

/// Point processes whose law is known: by the served path, each file under its true law and under that of the others.
#[cfg(feature = "fit")]
mod known_laws {
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use meantime::base::time::TimeUnit;
    use meantime::data::law::{HeadSpec, LawSpec};
    use meantime::fit::process::{Kind, Process};
    use meantime::fit::step::Step;
    use meantime::model::manifest::Manifest;

    const PIPELINE: &str = r#"
name = "known"
[source]
kind = "file"
paths = ["none.parquet"]
[event]
format = "parquet"
key = "key"
time = { field = "event_time", unit = "us" }
[model]
package = "model"
[sink]
kind = "ndjson"
path = "/dev/null"
[dead_letter]
kind = "ndjson"
path = "dead.ndjson"
[fit]
time_unit = "h"
split = { field = "split" }
"#;

    fn data() -> Option<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/tpp-synthetic");
        if !folder.is_dir() {
            eprintln!("SKIPPED the processes with a known law: {} is not there", folder.display());
            return None;
        }
        Some(folder)
    }

    fn package(folder: &Path, kind: Kind) {
        let process = Process { kind, marks: Vec::new(), unit: TimeUnit::Hour, width: 1 };
        let law = LawSpec::new(&["law"], TimeUnit::Hour, 1e-9);
        let head = match process.kind {
            Kind::Hawkes { .. } => HeadSpec::Hawkes(law),
            _ => HeadSpec::Exponential(law),
        };
        let manifest = Manifest {
            format: 1,
            name: "known".into(),
            version: "1".into(),
            input: process.input(),
            states: process.states(),
            attention: None,
            head,
        };
        let model = folder.join("model");
        std::fs::create_dir_all(&model).unwrap();
        std::fs::write(folder.join("pipeline.toml"), PIPELINE).unwrap();
        std::fs::write(model.join("model.onnx"), process.graph("law").unwrap()).unwrap();
        std::fs::write(model.join("model.toml"), manifest.to_toml().unwrap()).unwrap();
        std::fs::write(model.join("features.toml"), "format = 1\n[[column]]\nkind = \"constant\"\nvalue = 1.0\n").unwrap();
    }

    fn meantime(arguments: &[&str]) -> Vec<u8> {
        let output = Command::new(env!("CARGO_BIN_EXE_meantime")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Negative log-likelihood and KS distance of a file's events.
    fn judged(folder: &Path, file: &Path) -> (f64, f64) {
        let shown = meantime(&["evaluate", folder.to_str().unwrap(), "--from", file.to_str().unwrap(), "--json", "-"]);
        let report: serde_json::Value = serde_json::from_slice(&shown).unwrap();
        let number = |path: &str| report.pointer(path).and_then(serde_json::Value::as_f64).unwrap();
        (number("/time/nll"), number("/time/residuals/ks"))
    }

    #[test]
    fn true_laws_give_the_known_likelihoods_to_six_decimals_and_wrong_ones_are_caught() {
        let Some(data) = data() else { return };
        let folder = tempfile::tempdir().unwrap();
        let hawkes = Kind::Hawkes { bases: vec![0.2], jumps: vec![0.8], decays: vec![1.0] };
        for (kind, own, nll, other, caught) in [
            (Kind::Poisson { log_rate: 0.0 }, "poisson", 0.995_094, "hawkes1", 0.2),
            (hawkes, "hawkes1", 0.497_910, "self_correcting", 0.15),
        ] {
            package(folder.path(), kind);
            let (found, ks) = judged(folder.path(), &data.join(format!("{own}.parquet")));
            assert!((found - nll).abs() < 6e-7 && ks <= 0.0053, "{own}: {found:.7} is not {nll}, KS {ks}");
            let (worse, ks) = judged(folder.path(), &data.join(format!("{other}.parquet")));
            assert!(worse.is_finite() && ks >= caught, "{own} law on {other}: {worse}, KS {ks}");
        }
    }

    #[test]
    fn a_fitted_hawkes_process_finds_the_true_one() {
        let Some(data) = data() else { return };
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pipeline.toml"), PIPELINE).unwrap();
        let (model, file) = (folder.path().join("model"), data.join("hawkes1.parquet"));
        let arguments = [
            "fit",
            folder.path().to_str().unwrap(),
            "--from",
            file.to_str().unwrap(),
            "--cell",
            "hawkes",
            "--out",
            model.to_str().unwrap(),
        ];
        let shown = String::from_utf8(meantime(&arguments)).unwrap();
        let line = shown.lines().find(|line| line.contains("Hawkes")).unwrap();
        let found: Vec<f64> = line.split(['[', ']']).filter_map(|part| part.parse().ok()).collect();
        for (found, truth) in found.iter().zip([0.2, 0.8, 1.0]) {
            assert!((found / truth - 1.0).abs() < 0.05, "{line}");
        }
        assert_eq!(found.len(), 3, "{line}");
        let (nll, ks) = judged(folder.path(), &file);
        assert!((nll - 0.497_910).abs() < 2e-3 && ks < 0.01, "{nll} {ks}");
    }
}
