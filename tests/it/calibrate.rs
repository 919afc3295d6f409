//! `meantime calibrate` as a user meets it: a score that is too sure of itself, or a law whose quantiles are wrong, what then happened, a corrected package
//! that is served.

use std::path::Path;

use meantime::base::number::{f64_of, i64_of};
use rand::{Rng, SeedableRng};

use super::program::{meantime, pipeline};

const TABLES: &str = r#"
[fit]
numeric = ["amount"]
hidden = 4
epochs = 4
"#;

/// Events whose label follows the amount; `odds` turns how surely. Numbers of a fixed walk, no randomness.
fn events(path: &Path, odds: f64) {
    let mut text = String::new();
    let mut walk = 0.5_f64;
    for i in 0..6000_u32 {
        walk = (walk * 3.99 * (1.0 - walk)).clamp(0.001, 0.999);
        let amount = f64::from(i * 37 % 100) / 10.0;
        let p = 1.0 / (1.0 + (-(amount - 5.0) * odds).exp());
        // The logistic map lies by the arcsine law: this makes it even.
        let even = 2.0 / std::f64::consts::PI * walk.sqrt().asin();
        let label = u8::from(even < p);
        text.push_str(&format!(
            "{{\"key\":\"k{}\",\"ts\":{},\"amount\":{amount},\"label\":{label}}}\n",
            i % 40,
            1_700_000_000_000_u64 + u64::from(i) * 60_000
        ));
    }
    std::fs::write(path, text).unwrap();
}

#[test]
fn a_score_that_is_too_sure_is_corrected_and_served() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(folder.path().join("pipeline.toml"), pipeline("label = \"label\"", TABLES)).unwrap();
    events(&folder.path().join("events.ndjson"), 3.0);
    events(&folder.path().join("later.ndjson"), 0.4);
    let pipeline = folder.path().display().to_string();
    let fitted = meantime(&["fit", &pipeline, "--from", &at("events.ndjson"), "--out", &at("model")]);
    assert!(fitted.status.success(), "{}", String::from_utf8_lossy(&fitted.stderr));
    let loss = |sets: &[&str]| -> f64 {
        let judged = meantime(&[&["evaluate", &pipeline, "--from", &at("later.ndjson"), "--json", "-"], sets].concat());
        assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stderr));
        let report: serde_json::Value = serde_json::from_slice(&judged.stdout).unwrap();
        report["score"]["log_loss"].as_f64().unwrap()
    };
    let before = loss(&[]);
    let corrected = format!("model.package={}", at("corrected"));
    for method in ["platt", "isotonic", "best"] {
        let given = meantime(&["calibrate", &pipeline, "--from", &at("later.ndjson"), "--method", method, "--out", &at("corrected")]);
        assert!(given.status.success(), "{}", String::from_utf8_lossy(&given.stderr));
        let after = loss(&["--set", &corrected]);
        assert!(after < before - 0.02, "{method}: {after} {before}");
    }
    let again = meantime(&["calibrate", &pipeline, "--set", &corrected, "--from", &at("later.ndjson"), "--out", &at("twice")]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("calibrated already"), "{}", String::from_utf8_lossy(&again.stderr));
    assert!(!folder.path().join("twice").exists());
}

const LAWS: &str = r#"
name = "laws"
[source]
kind = "file"
paths = ["a.ndjson"]
[event]
format = "json"
key = "key"
time = { field = "ts", unit = "us" }
[model]
package = "model"
[forecast]
quantiles = [0.1, 0.5, 0.9]
horizons = ["1h"]
[sink]
kind = "ndjson"
path = "-"
[dead_letter]
kind = "ndjson"
path = "dead.ndjson"
[fit]
time_unit = "h"
"#;

/// Self-exciting events, hours: intensity 0.3 + 1.6 sum of e^-(2 age), by thinning (Ogata 1981).
fn self_exciting(path: &Path, seed: u64) {
    on_clock(path, seed, 1);
}

/// The same on a clock of such ticks, microseconds.
fn on_clock(path: &Path, seed: u64, tick: i64) {
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let mut rows: Vec<(i64, u32)> = Vec::new();
    for key in 0..40 {
        let (mut time, mut excited) = (0.0_f64, 0.0_f64);
        while time < 250.0 {
            let bound = 0.3 + excited;
            let step = -(1.0 - random.random::<f64>()).ln() / bound;
            (time, excited) = (time + step, excited * (-2.0 * step).exp());
            if random.random::<f64>() * bound < 0.3 + excited {
                excited += 1.6;
                rows.push(((1_700_000_000_000_000 + i64_of(time * 3.6e9)) / tick * tick, key));
            }
        }
    }
    rows.sort_unstable();
    let lines: String = rows.iter().map(|(time, key)| format!("{{\"key\":\"k{key}\",\"ts\":{time}}}\n")).collect();
    std::fs::write(path, lines).unwrap();
}

#[test]
fn a_law_that_is_wrong_covers_what_it_says_after_calibration_and_a_right_one_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(folder.path().join("pipeline.toml"), LAWS).unwrap();
    for (seed, name) in ["a.ndjson", "b.ndjson", "c.ndjson"].into_iter().enumerate() {
        self_exciting(&folder.path().join(name), seed as u64);
    }
    let pipeline = folder.path().display().to_string();
    let done = |arguments: &[&str]| -> String {
        let output = meantime(arguments);
        assert!(output.status.success(), "{arguments:?} {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    for (cell, right) in [("poisson", false), ("hawkes", true)] {
        done(&["fit", &pipeline, "--from", &at("a.ndjson"), "--cell", cell, "--out", &at("model")]);
        let report = |package: &str| -> serde_json::Value {
            let set = format!("model.package={}", at(package));
            serde_json::from_str(&done(&["evaluate", &pipeline, "--from", &at("c.ndjson"), "--json", "-", "--set", &set])).unwrap()
        };
        let coverage = |report: &serde_json::Value| [0, 1, 2].map(|i| report["time"]["quantiles"][i]["coverage"].as_f64().unwrap());
        let shown = done(&["calibrate", &pipeline, "--from", &at("b.ndjson"), "--out", &at("corrected")]);
        assert!(shown.contains("median width from 0.1 to 0.9") && shown.contains("KS"), "{shown}");
        let (before, after) = (report("model"), report("corrected"));
        let off = |report: &serde_json::Value| {
            let all = coverage(report);
            [0.1, 0.5, 0.9].iter().zip(all).map(|(q, covered)| (q - covered).abs()).fold(0.0, f64::max)
        };
        assert!(off(&after) < 0.015, "{cell}: {:?}\n{shown}", coverage(&after));
        assert_eq!(off(&before) < 0.02, right, "{cell}: {:?}", coverage(&before));
        for same in ["nll", "residuals"] {
            assert_eq!(before["time"][same], after["time"][same], "{cell}");
        }
        let manifest = std::fs::read_to_string(folder.path().join("corrected/model.toml")).unwrap();
        let manifest: toml::Value = toml::from_str(&manifest).unwrap();
        assert_eq!(manifest["version"].as_str(), Some("1-conformal"));
        let map = |name: &str| -> Vec<f64> {
            let list = manifest["head"]["quantile_calibration"][name].as_array().unwrap();
            list.iter().map(|value| value.as_float().unwrap()).collect()
        };
        if right {
            assert!(map("at").iter().zip(map("gives")).all(|(asked, level)| (asked - level).abs() < 0.03), "{manifest}");
        }
        // The horizon holds the quantiles that its probability says.
        let set = format!("model.package={}", at("corrected"));
        let source = format!("source={{kind=\"file\",paths=[\"{}\"]}}", at("c.ndjson"));
        let rows = done(&["run", &pipeline, "--set", &set, "--set", &source]);
        assert!(rows.lines().count() > 5000);
        for line in rows.lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let hours = |field: &str| {
                let time = |value: &serde_json::Value| chrono::DateTime::parse_from_rfc3339(value.as_str().unwrap()).unwrap();
                f64_of((time(&row[field]) - time(&row["event_time"])).num_microseconds().unwrap()) / 3.6e9
            };
            let within = row["p_within_1h"].as_f64().unwrap();
            for (field, q) in [("next_time_q10", 0.1), ("next_time_q50", 0.5), ("next_time_q90", 0.9)] {
                let (hours, sure) = (hours(field), (within - q).abs() > 1e-4);
                assert!(!sure || (hours <= 1.0) == (within >= q), "{line}");
            }
        }
        done(&["model", "verify", &at("corrected")]);
    }
    let refused = |arguments: &[&str]| String::from_utf8(meantime(arguments).stderr).unwrap();
    let set = format!("model.package={}", at("corrected"));
    let again = refused(&["calibrate", &pipeline, "--set", &set, "--from", &at("b.ndjson"), "--out", &at("twice")]);
    assert!(again.contains("calibrated already"), "{again}");
    let method = refused(&["calibrate", &pipeline, "--from", &at("b.ndjson"), "--method", "platt", "--out", &at("twice")]);
    assert!(method.contains("one of scores"), "{method}");
    assert!(!folder.path().join("twice").exists());
}

#[test]
fn calibrated_quantiles_of_a_coarse_clock_lie_between_its_ticks() {
    const HOUR: i64 = 3_600_000_000;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(folder.path().join("pipeline.toml"), LAWS).unwrap();
    for (seed, name) in ["a.ndjson", "b.ndjson"].into_iter().enumerate() {
        on_clock(&folder.path().join(name), seed as u64, HOUR);
    }
    let pipeline = folder.path().display().to_string();
    let done = |arguments: &[&str]| -> String {
        let output = meantime(arguments);
        assert!(output.status.success(), "{arguments:?} {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    // The clock is found to be one of hours.
    let fitted = done(&["fit", &pipeline, "--cell", "poisson", "--out", &at("model")]);
    assert!(fitted.contains("of ticks of 1 `h`") && fitted.contains("note: Nearly all gaps are whole multiples of 1h"), "{fitted}");
    let shown = done(&["calibrate", &pipeline, "--from", &at("b.ndjson"), "--out", &at("corrected")]);
    let line = shown.lines().find(|line| line.contains("(KS)")).unwrap();
    let numbers: Vec<f64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(numbers[0] > 0.15 && numbers[1] < 0.04, "{shown}");
    let set = format!("model.package={}", at("corrected"));
    let rows = done(&["run", &pipeline, "--set", &set]);
    let on_ticks = |field: &str| {
        let time = |line: &str| {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            chrono::DateTime::parse_from_rfc3339(row[field].as_str().unwrap()).unwrap().timestamp_micros()
        };
        // One that lies on a tick may be a microsecond off.
        rows.lines().filter(|line| (time(line) + 1).rem_euclid(HOUR) <= 2).count()
    };
    for field in ["next_time_q10", "next_time_q50", "next_time_q90"] {
        assert!(on_ticks(field) * 10 < rows.lines().count(), "{field}: {} of {}", on_ticks(field), rows.lines().count());
    }
}

/// A model from elsewhere: its state is a running mean of ln(1 + gap), its law exponential around it. It does not look at what an event says of itself.
fn running_mean(folder: &Path) {
    let mut graph = meantime::model::onnx::Graph::new("running-mean");
    graph.input("x", &[3]);
    graph.input("h", &[1]);
    graph.constant("w", &[3, 1], &[0.2, 0.0, 0.0]);
    graph.constant("keep", &[1], &[0.8]);
    graph.constant("minus", &[1], &[-1.0]);
    graph.node("MatMul", &["x", "w"], &["xw"], &[]);
    graph.node("Mul", &["h", "keep"], &["kept"], &[]);
    graph.node("Add", &["xw", "kept"], &["h_next"], &[]);
    graph.node("Mul", &["h_next", "minus"], &["law"], &[]);
    graph.output("law", &[1]);
    graph.output("h_next", &[1]);
    std::fs::create_dir(folder).unwrap();
    std::fs::write(folder.join("model.onnx"), graph.to_bytes()).unwrap();
    let manifest = r#"
format = 1
name = "running-mean"
version = "1"
[input]
features = "x"
[[state]]
input = "h"
output = "h_next"
shape = [1]
[head]
kind = "exponential"
outputs = ["law"]
time_unit = "s"
min_gap = 0.001
"#;
    std::fs::write(folder.join("model.toml"), manifest).unwrap();
    let recipe = r#"
format = 1
[[column]]
kind = "gap"
unit = "s"
scale = "log1p"
[[column]]
kind = "category"
field = "what"
vocabulary = ["slow", "fast"]
encoding = "one_hot"
"#;
    std::fs::write(folder.join("features.toml"), recipe).unwrap();
}

#[test]
fn new_keys_that_start_from_their_cohort_are_better_known_from_the_first_event_on() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let pipeline = LAWS.replace("unit = \"us\"", "unit = \"ms\"");
    std::fs::write(folder.path().join("pipeline.toml"), pipeline).unwrap();
    running_mean(&folder.path().join("model"));
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(3);
    let mut rows: Vec<(i64, u32, &str)> = Vec::new();
    for key in 0..400 {
        let slow = random.random::<bool>();
        let mut time = 1.7e9 + 500.0 * f64::from(key);
        for event in 0..10 {
            // Only the first event says of which kind its key is.
            rows.push((
                i64_of(time * 1e3),
                key,
                if event > 0 {
                    "other"
                } else if slow {
                    "slow"
                } else {
                    "fast"
                },
            ));
            time -= if slow { 5000.0 } else { 20.0 } * (1.0 - random.random::<f64>()).ln();
        }
    }
    rows.sort_unstable();
    let lines: String =
        rows.iter().map(|(time, key, what)| format!("{{\"key\":\"k{key}\",\"ts\":{time},\"what\":\"{what}\"}}\n")).collect();
    std::fs::write(folder.path().join("events.ndjson"), lines).unwrap();
    let (pipeline, events) = (folder.path().display().to_string(), at("events.ndjson"));
    let done = |arguments: &[&str]| -> String {
        let output = meantime(arguments);
        assert!(output.status.success(), "{arguments:?} {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = done(&["calibrate", &pipeline, "--from", &events, "--cohorts", "2", "--out", &at("cohorts")]);
    let figures: Vec<f64> =
        shown.lines().find(|line| line.contains("all of these")).unwrap().split_whitespace().filter_map(|w| w.parse().ok()).collect();
    assert!(figures[1] < figures[0] - 0.5, "{shown}");
    assert!(done(&["model", "verify", &at("cohorts")]).contains("bit-identical"));
    let set = format!("model.package={}", at("cohorts"));
    let source = format!("source={{kind=\"file\",paths=[\"{events}\"]}}");
    let run = |more: &[&str]| done(&[&["run", &pipeline, "--set", &source], more].concat());
    let whole = run(&["--set", &set]);
    // One event at a time, or thousands: the same bytes. A first event is still a cold start.
    assert_eq!(whole, run(&["--set", &set, "--set", "run.max_batch=1"]));
    assert_eq!(whole.matches("cold_start").count(), 400);
    let field = |text: &str, key: &str, name: &str| -> serde_json::Value {
        let line = text.lines().find(|line| line.contains(&format!("\"key\":\"{key}\"")) && line.contains("cold_start")).unwrap();
        serde_json::from_str::<serde_json::Value>(line).unwrap()[name].clone()
    };
    let plain = run(&[]);
    assert_ne!(field(&whole, "k7", "next_time_q50"), field(&plain, "k7", "next_time_q50"));
    assert_ne!(field(&whole, "k7", "fingerprint"), field(&plain, "k7", "fingerprint"), "states of the one are none of the other");
    assert_eq!(field(&whole, "k7", "model_version"), "1-cohorts2");
    // What was sent is what comes out of the files again, key by key as well.
    let replayed = done(&["replay", &pipeline, "--set", &set, "--from", &events, "--key", "k7"]);
    let first: serde_json::Value = serde_json::from_str(replayed.lines().next().unwrap()).unwrap();
    assert_eq!(first["next_time_q50"], field(&whole, "k7", "next_time_q50"));

    let refused = |arguments: &[&str]| String::from_utf8(meantime(arguments).stderr).unwrap();
    let again = refused(&["calibrate", &pipeline, "--set", &set, "--from", &events, "--cohorts", "2", "--out", &at("no")]);
    assert!(again.contains("has cohorts already"), "{again}");
    let many = refused(&["calibrate", &pipeline, "--from", &events, "--cohorts", "100", "--out", &at("no")]);
    assert!(many.contains("100 cohorts need at least 3000"), "{many}");
    // A changed file is refused, and cohorts of another width.
    let file = folder.path().join("cohorts/cohorts.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("state = [", "state = [1.0, ")).unwrap();
    assert!(refused(&["model", "verify", &at("cohorts")]).contains("SHA256SUMS"));
    std::fs::remove_file(folder.path().join("cohorts/SHA256SUMS")).unwrap();
    assert!(refused(&["model", "verify", &at("cohorts")]).contains("a state of 2; needed are 3 and 1"));
    assert!(!folder.path().join("no").exists());
}

#[test]
fn a_package_with_a_law_of_the_value_is_calibrated_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/telemetry").display().to_string();
    let done = |arguments: &[&str]| {
        let output = meantime(arguments);
        assert!(output.status.success(), "{arguments:?} {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    done(&["generate", &shipped, "--events", "8000", "--keys", "200", "--to", "file", "--out", &at("events.parquet")]);
    let calibrated = done(&["calibrate", &shipped, "--from", &at("events.parquet"), "--out", &at("calibrated")]);
    assert!(calibrated.contains("-conformal"), "{calibrated}");
    let set = format!("model.package={}", at("calibrated"));
    let figures = done(&["evaluate", &shipped, "--from", &at("events.parquet"), "--set", &set]);
    assert!(figures.contains("value of `temperature` of the next event"), "{figures}");
    // Cohorts are worth something or not: both are answers.
    let cohorts = meantime(&["calibrate", &shipped, "--from", &at("events.parquet"), "--cohorts", "2", "--out", &at("cohorts")]);
    let (table, said) = (String::from_utf8(cohorts.stdout).unwrap(), String::from_utf8(cohorts.stderr).unwrap());
    assert!(table.contains("all of these"), "{table} {said}");
    assert!(cohorts.status.success() || (cohorts.status.code() == Some(1) && said.contains("no likelier")), "{said}");
}

#[test]
fn a_score_that_its_calibration_makes_worse_later_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(folder.path().join("pipeline.toml"), pipeline("label = \"label\"", TABLES)).unwrap();
    events(&folder.path().join("events.ndjson"), 0.4);
    let pipeline = folder.path().display().to_string();
    let fitted = meantime(&["fit", &pipeline, "--from", &at("events.ndjson"), "--out", &at("model")]);
    assert!(fitted.status.success(), "{}", String::from_utf8_lossy(&fitted.stderr));
    // The earlier half is much surer than the score, the later one is hardly more than chance.
    let half = |name: &str, odds: f64, half: usize| {
        events(&folder.path().join(name), odds);
        let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
        text.lines().skip(3000 * half).take(3000).map(|line| format!("{line}\n")).collect::<String>()
    };
    std::fs::write(folder.path().join("turned.ndjson"), half("sure.ndjson", 3.0, 0) + &half("chance.ndjson", 0.05, 1)).unwrap();
    for method in ["platt", "isotonic", "best"] {
        let given = meantime(&["calibrate", &pipeline, "--from", &at("turned.ndjson"), "--method", method, "--out", &at("worse")]);
        let said = String::from_utf8_lossy(&given.stderr).into_owned();
        assert!(given.status.code() == Some(1) && said.contains("makes the later half worse: nothing was written"), "{method}: {said}");
        assert!(!folder.path().join("worse").exists());
    }
}
