//! `meantime calibrate` as a user meets it: a score that is too sure of itself, or a law whose quantiles are wrong, what then happened, a corrected package
//! that is served.

use std::path::Path;
use std::process::{Command, Output};

use rand::{Rng, SeedableRng};

fn meantime(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_meantime")).args(arguments).output().unwrap()
}

const PIPELINE: &str = r#"
name = "scored"
[source]
kind = "file"
paths = ["events.ndjson"]
[event]
format = "json"
key = "key"
time = { field = "ts", unit = "ms" }
label = "label"
[model]
package = "model"
[sink]
kind = "ndjson"
path = "-"
[dead_letter]
kind = "ndjson"
path = "dead.ndjson"
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
    std::fs::write(folder.path().join("pipeline.toml"), PIPELINE).unwrap();
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
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let mut rows: Vec<(u64, u32)> = Vec::new();
    for key in 0..40 {
        let (mut time, mut excited) = (0.0_f64, 0.0_f64);
        while time < 250.0 {
            let bound = 0.3 + excited;
            let step = -(1.0 - random.random::<f64>()).ln() / bound;
            (time, excited) = (time + step, excited * (-2.0 * step).exp());
            if random.random::<f64>() * bound < 0.3 + excited {
                excited += 1.6;
                rows.push((1_700_000_000_000_000 + (time * 3.6e9) as u64, key));
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
                (time(&row[field]) - time(&row["event_time"])).num_microseconds().unwrap() as f64 / 3.6e9
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
