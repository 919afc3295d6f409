//! The law of the next value, from a history to forecasts, figures and refusals, by the program.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value as Json;

const PIPELINE: &str = r#"
name = "readings"
[source]
kind = "file"
paths = ["in.ndjson"]
[event]
key = "sensor"
time = { field = "ts", unit = "ms" }
[forecast]
quantiles = [0.1, 0.5, 0.9]
value_quantiles = [0.05, 0.5, 0.95]
[sink]
kind = "ndjson"
path = "-"
[dead_letter]
kind = "ndjson"
path = "dead.ndjson"
[fit]
value = "level"
value_components = 2
hidden = 8
components = 4
epochs = 12
patience = 12
learning_rate = 0.02
time_unit = "m"
"#;

fn normal(random: &mut ChaCha8Rng) -> f64 {
    (-2.0 * random.random::<f64>().max(1e-300).ln()).sqrt() * (std::f64::consts::TAU * random.random::<f64>()).cos()
}

/// Readings of 20 sensors, an autoregression; one in twenty is null.
fn records() -> Vec<Json> {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut all = Vec::new();
    for sensor in 0..20 {
        let (mut ts, mut off) = (1_700_000_000_000_i64, 0.0);
        for _ in 0..100 {
            off = 0.9 * off + normal(&mut random);
            let level = (random.random::<f64>() > 0.05).then_some(20.0 + off);
            all.push(serde_json::json!({ "sensor": format!("s{sensor}"), "ts": ts, "level": level }));
            #[allow(clippy::cast_possible_truncation)]
            let gap = (-60_000.0 * random.random::<f64>().max(1e-9).ln()) as i64;
            ts += gap + 1;
        }
    }
    all.sort_by_key(|record| record["ts"].as_i64());
    all
}

fn write(folder: &Path, records: &[Json]) {
    let mut file = std::fs::File::create(folder.join("in.ndjson")).unwrap();
    records.iter().for_each(|record| writeln!(file, "{record}").unwrap());
}

fn command(folder: &Path, arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_meantime")).current_dir(folder).args(arguments).output().unwrap()
}

fn meantime(folder: &Path, arguments: &[&str]) -> String {
    let output = command(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn rows(folder: &Path) -> Vec<Json> {
    meantime(folder, &["run", ".", "--until-caught-up"])
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_law_of_the_value_is_fitted_served_judged_and_never_sees_the_value_that_it_scores() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    std::fs::write(folder.join("pipeline.toml"), PIPELINE).unwrap();
    let records = records();
    write(folder, &records);
    let fitted = meantime(folder, &["fit", ".", "--out", "model"]);
    assert!(fitted.contains("values: negative log-likelihood") && fitted.contains("by the served path"), "{fitted}");
    assert!(meantime(folder, &["check", "."]).contains("quantiles of the value [0.05, 0.5, 0.95]"));

    let before = rows(folder);
    assert_eq!(before.len(), records.len());
    let names: Vec<&String> = before[0].as_object().unwrap().keys().collect();
    for name in ["surprise_value", "residual_value", "next_value_q05", "next_value_q50", "next_value_q95"] {
        assert!(names.iter().any(|own| *own == name), "{name} is not in {names:?}");
    }
    for (row, record) in before.iter().zip(&records) {
        assert_eq!(row["key"], record["sensor"]);
        let has = !row["gap_s"].is_null() && !record["level"].is_null();
        assert_eq!(row["surprise_value"].is_number(), has, "{row} {record}");
        assert_eq!(row["residual_value"].as_f64().is_some_and(|share| share > 0.0 && share < 1.0), has);
        let [low, middle, high] = ["next_value_q05", "next_value_q50", "next_value_q95"].map(|name| row[name].as_f64().unwrap());
        assert!(
            low < middle && middle < high && row["flags"].as_array().is_some_and(|flags| !flags.contains(&"not_finite".into())),
            "{row}"
        );
    }

    // Another value of one event: what was published before says of it what it says of that number, and nothing else of its own row moves but what is next.
    let at = (500..).find(|i| !records[*i]["level"].is_null() && !before[*i]["gap_s"].is_null()).unwrap();
    let mut changed = records.clone();
    changed[at]["level"] = (records[at]["level"].as_f64().unwrap() + 7.0).into();
    write(folder, &changed);
    let after = rows(folder);
    for name in ["surprise_time", "residual", "gap_s", "n_events"] {
        assert_eq!(before[at][name], after[at][name], "{name}");
    }
    assert_ne!(before[at]["surprise_value"], after[at]["surprise_value"]);
    assert_ne!(before[at]["next_value_q50"], after[at]["next_value_q50"]);
    for i in (0..records.len()).filter(|i| *i < at || records[*i]["sensor"] != records[at]["sensor"]) {
        assert_eq!(before[i], after[i], "row {i}");
    }
    // The value that was its law's median lies in the middle of that law, whatever it was in fact.
    let last = (0..at).rev().find(|i| records[*i]["sensor"] == records[at]["sensor"]).unwrap();
    changed[at]["level"] = before[last]["next_value_q50"].clone();
    write(folder, &changed);
    let middle = rows(folder)[at]["residual_value"].as_f64().unwrap();
    assert!((middle - 0.5).abs() < 1e-6, "{middle}");

    // Figures: the law of an autoregression with a normal step of deviation 1.
    write(folder, &records);
    let report: Json = serde_json::from_str(&meantime(folder, &["evaluate", ".", "--json", "-", "--html", "report.html"])).unwrap();
    let number = |path: &str| report.pointer(path).and_then(Json::as_f64).unwrap();
    assert!(number("/value/nll") < 1.75 && number("/value/nll") > 1.3, "{}", report["value"]);
    assert!(
        number("/value/mae") < 1.2 && number("/value/rmse") >= number("/value/mae") && number("/value/ks") < 0.15,
        "{}",
        report["value"]
    );
    for quantile in report["value"]["quantiles"].as_array().unwrap() {
        let [level, coverage] = ["quantile", "coverage"].map(|name| quantile[name].as_f64().unwrap());
        assert!((level - coverage).abs() < 0.1, "{quantile}");
    }
    let scored = records.iter().zip(&before).filter(|(record, row)| !record["level"].is_null() && !row["gap_s"].is_null()).count();
    assert_eq!(number("/value/scored"), f64::from(u32::try_from(scored).unwrap()));
    assert!(std::fs::read_to_string(folder.join("report.html")).unwrap().contains("Is the law of the value right?"));
    assert!(meantime(folder, &["evaluate", "."]).contains("value of `level` of the next event"));

    // Parquet has the same columns; what is in it is whole, and comes out again bit for bit.
    let parquet = "sink={ kind = \"parquet\", path = \"out\" }";
    meantime(folder, &["run", ".", "--until-caught-up", "--set", parquet]);
    meantime(folder, &["verify", ".", "--set", parquet]);
    meantime(folder, &["parity", ".", "--set", parquet, "--live", "out", "--files", "in.ndjson"]);

    // What a smaller package costs is told of the value as well.
    let table = meantime(folder, &["model", "prune", "model", "--out", "small", "--pipeline", "."]);
    assert!(table.contains("log-likelihood of the values, negative"), "{table}");

    // The same field read as text somewhere else, and quantiles of a value that the model knows nothing of.
    let refused = command(folder, &["check", ".", "--set", "event.mark=level"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("as a number by the model package"), "{text}");
    let manifest = std::fs::read_to_string(folder.join("model/model.toml")).unwrap();
    let without = manifest.split("[head.value]").next().unwrap().to_owned();
    std::fs::write(folder.join("model/model.toml"), without).unwrap();
    let refused = command(folder, &["check", "."]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("needs a law of the next event's value"), "{text}");
}

#[test]
fn cells_are_compared_by_the_value_as_well_and_intensities_have_none() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    std::fs::write(folder.join("pipeline.toml"), PIPELINE).unwrap();
    write(folder, &records());
    let table = meantime(folder, &["fit", ".", "--compare", "--epochs", "1", "--hidden", "4", "--out", "model"]);
    let heading = table.lines().find(|line| line.trim_start().starts_with("model ")).unwrap();
    assert_eq!(
        heading.split_whitespace().collect::<Vec<_>>(),
        ["model", "valid", "test", "marks", "value", "median", "off", "KS", "ns/event", "bytes/key"]
    );
    assert!(table.contains("best on the valid split, gaps, marks and values together") && !table.contains("intensity"), "{table}");
    let line = table.lines().find(|line| line.trim_start().starts_with("gru, exponential")).unwrap();
    let value: f64 = line.split_whitespace().nth(5).unwrap().parse().unwrap();
    assert!(value > 1.0 && value < 5.0, "{line}");

    let refused = command(folder, &["fit", ".", "--law", "intensity", "--out", "other"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("the law `intensity` has no law of the value beside it"), "{text}");
    assert!(!folder.join("other").exists());
}
