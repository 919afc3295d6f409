//! `[alarm]` as a user meets it: events come twice as fast from some day on, and a line says so.

use std::fmt::Write as _;

use super::program::{meantime, pipeline};

const TABLES: &str = r#"
[alarm]
kind = "ndjson"
path = "alarms.ndjson"
[fit]
cell = "poisson"
"#;

/// Events of 20 keys one after the other, by exponential gaps of 60 s; from event `faster` on of 30 s.
fn events(count: u32, faster: u32) -> String {
    let (mut text, mut state) = (String::new(), 1_u64);
    let mut clocks = [1_700_000_000_000.0_f64; 20];
    for i in 0..count {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let even = ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        let clock = &mut clocks[i as usize % 20];
        *clock += -even.ln() * if i >= faster { 30_000.0 } else { 60_000.0 };
        writeln!(text, "{{\"key\":\"k{}\",\"ts\":{}}}", i % 20, clock.round()).unwrap();
    }
    text
}

#[test]
fn a_stream_that_has_changed_raises_an_alarm_and_one_that_has_not_raises_none() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("pipeline.toml"), pipeline("", TABLES)).unwrap();
    std::fs::write(at("events.ndjson"), events(45_000, u32::MAX)).unwrap();
    let pipeline = folder.path().display().to_string();
    let fitted = meantime(&["fit", &pipeline, "--from", at("events.ndjson").to_str().unwrap(), "--out", at("model").to_str().unwrap()]);
    assert!(fitted.status.success(), "{}", String::from_utf8_lossy(&fitted.stderr));
    let run = || {
        let output = meantime(&["run", &pipeline]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = std::fs::read_to_string(at("alarms.ndjson")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<serde_json::Value>>()
    };
    assert!(run().is_empty(), "an unchanged stream");
    std::fs::write(at("events.ndjson"), events(80_000, 45_000)).unwrap();
    let alarms = run();
    let first = alarms.first().expect("an alarm");
    assert_eq!((first["kind"].as_str(), first["pipeline"].as_str(), first["windows"].as_u64()), (Some("drift"), Some("tested"), Some(1)));
    assert!(first["distance"].as_f64() > first["bound"].as_f64() && first["mean_residual"].as_f64().unwrap() < 0.9, "{first}");
    assert_eq!(
        alarms.iter().map(|alarm| alarm["windows"].as_u64().unwrap()).collect::<Vec<_>>(),
        [1, 2],
        "windows 3 of a drift is no line of its own"
    );
    // What cannot be one place is refused before anything runs.
    let mixed = meantime(&["check", &pipeline, "--set", "alarm.path=dead.ndjson"]);
    assert_eq!(mixed.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&mixed.stderr).contains("give [alarm] another path"), "{}", String::from_utf8_lossy(&mixed.stderr));
}
