//! `[reasons]` as a user meets it: why a score is high, why an arrival was a surprise, in words that are the package's own.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::program::{done, meantime, pipeline};

const TABLES: &str = r#"
[fit]
numeric = ["amount", "noise"]
hidden = 4
epochs = 40
learning_rate = 0.02
"#;

/// Events whose label follows the amount, and nothing else.
fn events(path: &Path) {
    let mut text = String::new();
    for i in 0..6000_u32 {
        let (amount, noise) = (f64::from(i * 37 % 100) / 10.0, f64::from(i * 61 % 97));
        let label = u8::from(amount > 7.0);
        let time = 1_700_000_000_000_u64 + u64::from(i) * 60_000;
        writeln!(text, "{{\"key\":\"k{}\",\"ts\":{time},\"amount\":{amount},\"noise\":{noise},\"label\":{label}}}", i % 40).unwrap();
    }
    std::fs::write(path, text).unwrap();
}

fn rows(arguments: &[&str]) -> Vec<Value> {
    done(arguments).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_high_score_names_what_raised_it_and_reasons_change_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("pipeline.toml"), pipeline("label = \"label\"", TABLES)).unwrap();
    events(&folder.path().join("events.ndjson"));
    let pipeline = folder.path().display().to_string();
    let fitted = meantime(&["fit", &pipeline, "--from", &at("events.ndjson"), "--out", &at("model")]);
    assert!(fitted.status.success(), "{}", String::from_utf8_lossy(&fitted.stderr));
    std::fs::write(at("model/reasons.toml"), "[[reason]]\nsubject = \"amount\"\ncode = \"R07\"\ntext = \"The amount is high\"\n").unwrap();

    let plain = rows(&["run", &pipeline]);
    let with = ["--set", "reasons={top=2,above=0.8}"];
    let reasoned = rows(&[&["run", &pipeline], &with[..]].concat());
    let alone = rows(&[&["run", &pipeline, "--set", "run.max_batch=1"], &with[..]].concat());
    assert!(reasoned == alone, "reasons do not depend on the batch");
    let mut named = 0;
    for (row, plain) in reasoned.iter().zip(&plain) {
        let mut rest = row.as_object().unwrap().clone();
        let reasons = rest.remove("reasons").unwrap();
        assert_eq!(&Value::Object(rest), plain);
        let reasons = reasons.as_array().unwrap();
        if row["score"].as_f64().unwrap() < 0.8 {
            assert!(reasons.is_empty(), "{row}");
            continue;
        }
        named += 1;
        assert_eq!(reasons[0]["code"], "R07", "{row}");
        let effects: Vec<f64> = reasons.iter().map(|reason| reason["effect"].as_f64().unwrap()).collect();
        assert!(effects.len() <= 2 && effects[0] > 1.0 && effects.is_sorted_by(|a, b| a >= b) && effects.iter().all(|e| *e > 0.0), "{row}");
    }
    assert!(named > 1000, "{named} high scores");
    // Of a score they are by columns as it is, and there is no surprise.
    let refused = meantime(&["run", &pipeline, "--set", "reasons={surprise=\"columns\"}"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(78) && text.contains("a score has no surprise") && text.contains("remove surprise"), "{text}");
    // The wording goes with the package when it is fitted anew.
    let again = meantime(&["fit", &pipeline, "--from", &at("events.ndjson"), "--out", &at("model")]);
    assert!(again.status.success() && Path::new(&at("model/reasons.toml")).exists());
    std::fs::write(at("model/reasons.toml"), "[[reason]]\nsubject = \"amuont\"\n").unwrap();
    let refused = meantime(&[&["run", &pipeline], &with[..]].concat());
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(78) && text.contains("no subject \"amuont\""), "{text}");
}

#[test]
fn a_surprise_is_said_to_be_a_gap_out_of_place_a_value_out_of_place_or_a_rare_mark() {
    assert_eq!(of_surprises("visits"), ["gap is long", "gap is short", "mark is rare"]);
    assert_eq!(of_surprises("telemetry"), ["gap is long", "gap is short", "value is high", "value is low"]);
}

/// Forecasts of one of the examples with these reasons.
fn forecasts(example: &str, reasons: &str) -> Vec<Value> {
    let pipeline = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines").join(example);
    let folder = tempfile::tempdir().unwrap();
    let dead = format!("dead_letter={{kind=\"ndjson\",path={:?}}}", folder.path().join("dead.ndjson"));
    let stream = format!("source={{kind=\"generate\",stream=\"{example}\",events=5000,keys=50,seed=3}}");
    let sink = "sink={kind=\"ndjson\",path=\"-\"}";
    rows(&["run", pipeline.to_str().unwrap(), "--set", &stream, "--set", sink, "--set", &dead, "--set", reasons])
}

#[test]
fn a_surprise_by_columns_names_fields_of_the_event_before_and_changes_nothing_else() {
    for (example, fields) in
        [("visits", &["age", "los_days", "diagnosis", "earlier los_days"][..]), ("telemetry", &["gap", "temperature", "status"][..])]
    {
        let parts = forecasts(example, "reasons={top=3,above=4.0}");
        let columns = forecasts(example, "reasons={top=3,above=4.0,surprise=\"columns\"}");
        let mut codes = std::collections::BTreeSet::new();
        assert_eq!(columns.len(), parts.len());
        for (row, parts) in columns.iter().zip(&parts) {
            let (mut one, mut other) = (row.as_object().unwrap().clone(), parts.as_object().unwrap().clone());
            let (reasons, by_parts) = (one.remove("reasons").unwrap(), other.remove("reasons").unwrap());
            assert_ne!(one.remove("fingerprint"), other.remove("fingerprint"), "the states are others");
            assert_eq!(one, other);
            let reasons = reasons.as_array().unwrap();
            assert!(reasons.is_empty() || !by_parts.as_array().unwrap().is_empty(), "{row}");
            assert!(reasons.len() <= 3 && reasons.iter().all(|reason| reason["effect"].as_f64().unwrap() > 0.0), "{row}");
            codes.extend(reasons.iter().map(|reason| reason["code"].as_str().unwrap().to_owned()));
        }
        let found = fields.iter().filter(|field| codes.contains(**field)).count();
        assert!(found > 0 && codes.iter().all(|code| !code.starts_with("gap is") && code != "mark is rare"), "{example}: {codes:?}");
    }
}

#[test]
fn columns_that_are_asked_for_over_older_snapshots_are_rebuilt_from_the_log_and_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let cards = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/cards").display().to_string();
    done(&["generate", &cards, "--events", "3000", "--keys", "40", "--to", "file", "--out", &at("all.ndjson")]);
    let all = std::fs::read_to_string(at("all.ndjson")).unwrap();
    let lines: Vec<&str> = all.lines().collect();
    std::fs::write(at("first.ndjson"), lines[..2_000].join("\n") + "\n").unwrap();
    std::fs::write(at("second.ndjson"), lines[2_000..].join("\n") + "\n").unwrap();
    let columns = "reasons={above=3.0,surprise=\"columns\"}";
    let run = |command: &[&str], files: &[&str], out: &str, reasons: &str| {
        let files: Vec<String> = files.iter().map(|file| format!("{:?}", at(file))).collect();
        let sets = [
            format!("source={{kind=\"file\",paths=[{}]}}", files.join(",")),
            format!("sink={{kind=\"parquet\",path={:?}}}", at(out)),
            format!("dead_letter={{kind=\"ndjson\",path={:?}}}", at("dead")),
            format!("state.snapshots={:?}", at(&format!("{out}-state"))),
            reasons.to_owned(),
        ];
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set.as_str()]).collect();
        let (command, more) = command.split_at(command.len().min(2));
        let output = meantime(&[command, &[cards.as_str()], more, &sets[..]].concat());
        let (said, log) = (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned());
        assert!(output.status.success(), "{log}");
        (said, log)
    };
    run(&["run"], &["first.ndjson"], "out", "reasons={above=3.0}");
    let (checked, _) = run(&["check"], &["first.ndjson"], "out", columns);
    assert!(checked.contains("by the event before, of which 73 floats a key are kept"), "{checked}");
    let (listed, _) = run(&["state", "ls"], &["first.ndjson"], "out", columns);
    assert!(listed.contains("no: its fingerprint is ") && !listed.contains(" yes"), "{listed}");
    let (_, log) = run(&["run"], &["first.ndjson", "second.ndjson"], "out", columns);
    assert!(log.contains("the model or the pipeline has changed since the last commit"), "{log}");
    assert!(log.contains("rebuilt by replaying the whole log silently"), "{log}");
    // From now on there are snapshots with the event before.
    let (listed, _) = run(&["state", "ls"], &["first.ndjson", "second.ndjson"], "out", columns);
    assert!(listed.contains(" yes"), "{listed}");
    let key = serde_json::from_str::<Value>(lines[2_999]).unwrap()["card"].as_str().unwrap().to_owned();
    let (state, _) = run(&["state", "get", &key], &["first.ndjson", "second.ndjson"], "out", columns);
    let state: Value = serde_json::from_str(&state).unwrap();
    assert_eq!(state["tensors"]["event_before"].as_array().unwrap().len(), 73, "{state}");
}

#[test]
fn replay_and_why_tell_the_columns_that_the_run_has_told() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let cards = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/cards").display().to_string();
    done(&["generate", &cards, "--events", "2000", "--keys", "20", "--to", "file", "--out", &at("all.ndjson")]);
    let source = format!("source={{kind=\"file\",paths=[{:?}]}}", at("all.ndjson"));
    let dead = format!("dead_letter={{kind=\"ndjson\",path={:?}}}", at("dead"));
    let columns = ["--set", "reasons={above=3.0,surprise=\"columns\"}"];
    let sets = [&columns[..], &["--set", &source, "--set", &dead, "--set", "sink={kind=\"ndjson\",path=\"-\"}"]].concat();
    let told = rows(&[&["run", &cards], &sets[..]].concat());
    let last = told.iter().rfind(|row| !row["reasons"].as_array().unwrap().is_empty()).unwrap();
    let key = last["key"].as_str().unwrap();
    let own: Vec<&Value> = told.iter().filter(|row| row["key"] == key).collect();
    let from = ["--from", &at("all.ndjson")];
    let replayed = rows(&[&["replay", &cards, "--key", key], &columns[..], &from[..]].concat());
    assert_eq!(replayed.len(), own.len());
    assert!(replayed.iter().zip(own).all(|(replayed, own)| replayed["reasons"] == own["reasons"]));
    let why = done(&[&["why", &cards, last["event_id"].as_str().unwrap()], &columns[..], &from[..]].concat());
    let line = why.lines().find(|line| line.starts_with("  reasons ")).unwrap();
    assert!(line.ends_with(&last["reasons"].to_string()), "{line} {last}");
}

/// Runs one of the examples with reasons, sees that they are what the surprise is made of, and returns which there were.
fn of_surprises(example: &str) -> Vec<String> {
    let found = forecasts(example, "reasons={top=3,above=4.0}");
    let mut codes = std::collections::BTreeSet::new();
    for row in &found {
        let of = |name: &str| row[name].as_f64();
        let tail = |share: f64| -(2.0 * share.min(1.0 - share)).ln();
        let time = of("residual").map_or(0.0, |z| tail((-z).exp()));
        let whole = time.max(0.0) + of("residual_value").map_or(0.0, tail) + of("surprise_mark").unwrap_or(0.0);
        let reasons = row["reasons"].as_array().unwrap();
        if whole < 3.999 {
            assert!(reasons.is_empty(), "{row}");
        } else if whole > 4.001 {
            let sum: f64 = reasons.iter().map(|reason| reason["effect"].as_f64().unwrap()).sum();
            assert!((sum - whole).abs() < 1e-4 * whole, "{row}");
        }
        codes.extend(reasons.iter().map(|reason| reason["code"].as_str().unwrap().to_owned()));
    }
    codes.into_iter().collect()
}
