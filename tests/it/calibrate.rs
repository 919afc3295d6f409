//! `meantime calibrate` as a user meets it: a score that is too sure of itself, outcomes, a corrected package that is served.

use std::path::Path;
use std::process::{Command, Output};

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
