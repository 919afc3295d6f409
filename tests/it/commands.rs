//! The program as a user runs it, without network.

use std::path::Path;
use std::process::{Command, Output};

fn meantime(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_meantime")).args(arguments).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn pipelines() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines")
}

#[test]
fn the_demo_ends_with_calibrated_forecasts_in_parquet_for_every_stream() {
    for stream in ["cards", "visits", "telemetry"] {
        let folder = tempfile::tempdir().unwrap();
        let output = meantime(&["demo", "--pipeline", stream, "--events", "40000", "--keys", "400"], folder.path());
        let shown = text(&output.stdout);
        assert!(output.status.success(), "{}", text(&output.stderr));
        for (name, nominal) in [("q10", 0.1), ("q50", 0.5), ("q90", 0.9)] {
            let line = shown.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_else(|| panic!("{shown}"));
            let share: f64 = line.split_whitespace().last().unwrap().parse().unwrap();
            assert!((share - nominal).abs() <= 0.03, "{stream} {name}: {share}\n{shown}");
        }
        let files = std::fs::read_dir(folder.path().join("meantime-demo/forecasts/partition-0")).unwrap();
        assert!(files.filter_map(Result::ok).any(|file| file.path().extension().is_some_and(|e| e == "parquet")));
    }
}

#[test]
fn the_shipped_packages_are_small_and_pass_every_check() {
    for name in ["cards", "visits", "telemetry"] {
        let package = pipelines().join(name).join("model");
        let bytes: u64 = std::fs::read_dir(&package).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes < 200_000, "{name}: {bytes} bytes");
        let output = meantime(&["model", "verify", package.to_str().unwrap()], &package);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains("bit-identical"), "{}", text(&output.stdout));
    }
}

#[test]
fn a_pipeline_chooses_its_output_fields_and_names() {
    let folder = tempfile::tempdir().unwrap();
    let cards = pipelines().join("cards");
    let output = meantime(
        &[
            "run",
            cards.to_str().unwrap(),
            "--set",
            "source={kind=\"generate\",stream=\"cards\",events=100,keys=5,seed=1}",
            "--set",
            "sink={kind=\"ndjson\",path=\"-\",fields={id=\"event_id\",card=\"key\",when=\"next_time_q50\"}}",
            "--set",
            "dead_letter={kind=\"ndjson\",path=\"/dev/null\"}",
        ],
        folder.path(),
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines = text(&output.stdout);
    assert_eq!(lines.lines().count(), 100);
    for line in lines.lines() {
        let row: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        let mut names: Vec<&str> = row.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["card", "id", "when"]);
    }
}

#[test]
fn usage_and_configuration_faults_have_their_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(meantime(&["frobnicate"], folder.path()).status.code(), Some(2));
    assert_eq!(meantime(&["run", "nowhere.toml"], folder.path()).status.code(), Some(78));
    assert_eq!(meantime(&["model", "verify", "nowhere"], folder.path()).status.code(), Some(1));
    assert_eq!(meantime(&["model", "inspect", "nowhere"], folder.path()).status.code(), Some(78));
    let help = text(&meantime(&["--help"], folder.path()).stdout);
    for command in ["demo", "generate", "fit", "run", "backfill", "evaluate", "parity", "check", "verify", "model", "state"] {
        assert!(help.contains(command), "{help}");
    }
}

#[test]
fn the_past_of_a_key_comes_out_as_it_was_and_an_event_can_be_explained() {
    let folder = tempfile::tempdir().unwrap();
    let cards = pipelines().join("cards");
    let cards = cards.to_str().unwrap();
    let events = folder.path().join("events.parquet");
    let events = events.to_str().unwrap();
    let output = meantime(&["generate", cards, "--events", "3000", "--keys", "40", "--to", "file", "--out", events], folder.path());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let source = format!("source={{kind=\"file\",paths=[\"{events}\"]}}");
    let sets = ["--set", &source, "--set", "event.format=parquet", "--set", "dead_letter={kind=\"ndjson\",path=\"/dev/null\"}"];
    let run = [&["run", cards, "--set", "sink={kind=\"ndjson\",path=\"-\"}"][..], &sets].concat();
    let whole = text(&meantime(&run, folder.path()).stdout);
    let own: Vec<&str> = whole.lines().filter(|line| line.contains("\"key\":\"c0000007\"")).collect();
    assert!(own.len() > 20);
    // From named files, and from the pipeline's own.
    let itself = [&["--set", "sink={kind=\"ndjson\",path=\"-\"}"][..], &sets].concat();
    for from in [&["--from", events][..], &itself] {
        let output = meantime(&[&["replay", cards, "--key", "c0000007"], from].concat(), folder.path());
        let lines = text(&output.stdout);
        assert!(output.status.success() && lines.lines().count() == own.len(), "{}", text(&output.stderr));
        for (line, expected) in lines.lines().zip(&own) {
            let (line, expected): (serde_json::Value, serde_json::Value) =
                (serde_json::from_str(line).unwrap(), serde_json::from_str(expected).unwrap());
            for field in ["event_id", "n_events", "surprise_time", "surprise_mark", "next_time_q90", "p_within_24h", "next_marks"] {
                assert_eq!(line[field], expected[field], "{field}");
            }
            assert!(line["features"]["amount (standardised)"].is_number() || line["features"].as_object().unwrap().len() > 5, "{line}");
        }
    }
    let last: serde_json::Value = serde_json::from_str(own[own.len() - 1]).unwrap();
    let id = last["event_id"].as_str().unwrap();
    let shown = text(&meantime(&["why", cards, id, "--from", events], folder.path()).stdout);
    for part in ["forecast", "features", "reasons: median gap", "channel = ", "surprise_time"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    for (arguments, says) in [
        (&["why", cards, "nobody", "--from", events][..], "no event has the id"),
        (&["replay", cards, "--key", "nobody", "--from", events], "has no event there"),
    ] {
        let output = meantime(arguments, folder.path());
        assert!(output.status.code() == Some(1) && text(&output.stderr).contains(says), "{}", text(&output.stderr));
    }
}

#[test]
fn history_of_which_no_record_can_be_used_is_an_error_that_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let visits = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/visits").display().to_string();
    let made =
        meantime(&["generate", &visits, "--events", "500", "--keys", "20", "--to", "file", "--out", "visits.ndjson"], folder.path());
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let judged = |more: &[&str]| meantime(&[&["evaluate", &visits, "--from", "visits.ndjson"], more].concat(), folder.path());
    assert!(judged(&[]).status.success());
    let refused = judged(&["--set", "event.key=nobody"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && refused.stdout.is_empty(), "{text}");
    assert!(text.contains("none of 500 records could be used") && text.contains("missing_key") && text.contains("[event]"), "{text}");
}

#[test]
fn a_package_that_is_named_from_the_wrong_folder_is_refused_with_the_rule() {
    let folder = tempfile::tempdir().unwrap();
    let visits = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/visits").display().to_string();
    std::fs::create_dir(folder.path().join("mine")).unwrap();
    std::fs::copy(Path::new(&visits).join("model/model.toml"), folder.path().join("mine/model.toml")).unwrap();
    let refused = meantime(&["check", &visits, "--set", "model.package=mine"], folder.path());
    let text: String = String::from_utf8_lossy(&refused.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(refused.status.code() == Some(78) && text.contains("relative to its folder"), "{text}");
}
