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
    // Ids that are shared, here the channel: the first event, or all of them.
    let explained = |more: &[&str]| {
        let shared = [&["why", cards, "atm", "--from", events, "--set", "event.id=\"channel\""][..], more].concat();
        text(&meantime(&shared, folder.path()).stdout).lines().filter(|line| *line == "forecast").count()
    };
    assert_eq!((explained(&[]), explained(&["--all"])), (1, 293), "the stream of seed 1 has 293 payments at an ATM");
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
    let made = meantime(&["generate", &visits, "--events", "500", "--keys", "20", "--to", "file", "--out", "visits.ndjson"], folder.path());
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let judged = |more: &[&str]| meantime(&[&["evaluate", &visits, "--from", "visits.ndjson"], more].concat(), folder.path());
    assert!(judged(&[]).status.success());
    let refused = judged(&["--set", "event.key=nobody"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && refused.stdout.is_empty(), "{text}");
    assert!(text.contains("none of 500 records could be used") && text.contains("missing_key") && text.contains("[event]"), "{text}");
}

#[test]
fn open_gaps_are_those_of_keys_whose_last_event_counts() {
    let folder = tempfile::tempdir().unwrap();
    let visits = pipelines().join("visits").display().to_string();
    let made =
        meantime(&["generate", &visits, "--events", "600", "--keys", "40", "--to", "file", "--out", "visits.parquet"], folder.path());
    assert!(made.status.success(), "{}", text(&made.stderr));
    let judged = |more: &[&str]| -> serde_json::Value {
        let arguments = [&["evaluate", &visits, "--from", "visits.parquet", "--open-gaps", "--json", "-"], more].concat();
        let output = meantime(&arguments, folder.path());
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let keys = |report: &serde_json::Value| report["time"]["open"]["keys"].as_u64().unwrap_or(0);
    let all = judged(&[]);
    assert_eq!(Some(keys(&all)), all["keys"].as_u64());
    // Every patient's last visit has one diagnosis.
    let codes: Vec<String> =
        all["marks"]["by_mark"].as_array().unwrap().iter().map(|mark| mark["mark"].as_str().unwrap().to_owned()).collect();
    let each: Vec<u64> = codes.iter().map(|code| keys(&judged(&["--where", &format!("diagnosis={code}")]))).collect();
    assert!(codes.len() > 3 && each.iter().sum::<u64>() == keys(&all) && each.iter().all(|own| *own < keys(&all)), "{codes:?} {each:?}");
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

#[test]
fn a_pipeline_that_is_named_without_a_folder_reads_the_files_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let shipped = std::fs::read_to_string(pipelines().join("visits/pipeline.toml")).unwrap();
    let (before, after) = shipped.split_once("[source]").unwrap();
    let after = &after[after.find("[event]").unwrap()..];
    let file = format!("{before}[source]\nkind = \"file\"\npaths = [\"in*.ndjson\"]\n\n{after}");
    std::fs::write(folder.path().join("pipeline.toml"), file).unwrap();
    std::fs::write(folder.path().join("in1.ndjson"), "{}\n").unwrap();
    let package = format!("model.package={}", pipelines().join("visits/model").display());
    let sets = ["--set", &package, "--set", "sink={kind=\"ndjson\",path=\"-\"}", "--set", "dead_letter={kind=\"ndjson\",path=\"dead\"}"];
    for named in ["pipeline.toml", "./pipeline.toml", "."] {
        let output = meantime(&[&["check", named, "--connect"][..], &sets].concat(), folder.path());
        assert!(output.status.success() && text(&output.stdout).contains("1 file readable, 3 bytes"), "{named}: {}", text(&output.stderr));
    }
}

#[test]
fn check_refuses_what_run_would_refuse_of_a_package() {
    let folder = tempfile::tempdir().unwrap();
    let visits = pipelines().join("visits");
    let shipped = |name: &str| std::fs::read(visits.join("model").join(name)).unwrap();
    let with = |changes: &[(&str, &[u8])], without: &[&str]| {
        let package = folder.path().join("model");
        let _ = std::fs::remove_dir_all(&package);
        std::fs::create_dir(&package).unwrap();
        for entry in std::fs::read_dir(visits.join("model")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if !without.contains(&name.as_str()) {
                std::fs::write(package.join(&name), shipped(&name)).unwrap();
            }
        }
        changes.iter().for_each(|(name, bytes)| std::fs::write(package.join(name), bytes).unwrap());
        let set = format!("model.package={}", package.display());
        let output = meantime(&["check", visits.to_str().unwrap(), "--set", &set], folder.path());
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, shown, said) = with(&[], &[]);
    assert!(code == Some(0) && shown.starts_with("ok: "), "{said}");
    let recipe = text(&shipped("features.toml"));
    let narrower = recipe.rsplit_once("[[column]]").unwrap().0.to_owned();
    let manifest = text(&shipped("model.toml"));
    let wider = manifest.replace("shape = [32]", "shape = [40]");
    assert_ne!(manifest, wider);
    for (changes, without, says) in [
        (vec![("model.onnx", &b"x"[..])], vec!["SHA256SUMS"], "model.onnx"),
        (vec![("model.onnx", b"x")], vec![], "SHA256SUMS"),
        (vec![("model.toml", wider.as_bytes())], vec!["SHA256SUMS"], "40"),
        (vec![("features.toml", narrower.as_bytes())], vec!["SHA256SUMS", "golden.parquet"], "floats"),
    ] {
        let (code, shown, said) = with(&changes, &without);
        assert!(code == Some(78) && said.contains(says) && !shown.contains("ok: "), "{says}: {code:?} {said}");
    }
}

#[test]
fn marks_of_another_field_than_the_packages_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let cards = pipelines().join("cards");
    let cards = cards.to_str().unwrap();
    let output = meantime(&["generate", cards, "--events", "900", "--keys", "40", "--to", "file", "--out", "in.parquet"], folder.path());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let source = format!("source={{kind=\"file\",paths=[\"{}\"]}}", folder.path().join("in.parquet").display());
    let sets = ["--set", &source, "--set", "event.format=parquet", "--set", "sink={kind=\"ndjson\",path=\"-\"}"];
    let sets = [&sets[..], &["--set", "dead_letter={kind=\"ndjson\",path=\"/dev/null\"}"]].concat();
    for (mark, told) in [("channel", false), ("mcc", true)] {
        let mark = format!("event.mark={mark}");
        for command in [&["run", cards, "--until-caught-up"][..], &["evaluate", cards]] {
            let output = meantime(&[command, &sets, &["--set", &mark]].concat(), folder.path());
            let said = text(&output.stderr);
            assert!(output.status.success() && said.contains("knows no mark of these events") == told, "{command:?} {mark}: {said}");
        }
    }
}

/// Events of the shipped cards in a file, and the arguments that evaluate them.
fn cards_to_evaluate(folder: &Path) -> Vec<String> {
    let cards = pipelines().join("cards").display().to_string();
    let output = meantime(&["generate", &cards, "--events", "2000", "--keys", "40", "--to", "file", "--out", "in.parquet"], folder);
    assert!(output.status.success(), "{}", text(&output.stderr));
    ["evaluate", &cards, "--from", "in.parquet"].map(str::to_owned).to_vec()
}

#[test]
fn where_no_event_counts_evaluate_says_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let evaluate = cards_to_evaluate(folder.path());
    for (more, says) in [
        (&["--since", "2030-01-01"][..], &["there are 2000 events from 2025-01-06T"][..]),
        (&["--where", "foo=1"], &["none of them has a field `foo`"]),
        (&["--where", "channel=branch"], &["`channel` is ", "pos", "web"]),
        (&["--where", "channel=web", "--since", "2030-01-01"], &["`channel` is `web` only before --since"]),
    ] {
        let arguments: Vec<&str> = evaluate.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let output = meantime(&arguments, folder.path());
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(1) && output.stdout.is_empty(), "{more:?} {said}");
        assert!(said.contains("no event counts") && says.iter().all(|part| said.contains(part)), "{more:?} {said}");
    }
}

#[test]
fn a_report_that_cannot_be_written_is_refused_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let evaluate = cards_to_evaluate(folder.path());
    for option in ["--html", "--json"] {
        let arguments: Vec<&str> = evaluate.iter().map(String::as_str).chain([option, "nowhere/report"]).collect();
        let output = meantime(&arguments, folder.path());
        assert!(output.status.code() == Some(78) && output.stdout.is_empty(), "{}", text(&output.stdout));
        assert!(text(&output.stderr).contains("nowhere/report"), "{}", text(&output.stderr));
    }
    let arguments: Vec<&str> = evaluate.iter().map(String::as_str).chain(["--json", "figures.json", "--html", "page.html"]).collect();
    let output = meantime(&arguments, folder.path());
    assert!(output.status.success() && text(&output.stdout).contains("cards"), "{}", text(&output.stderr));
    let figures: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.path().join("figures.json")).unwrap()).unwrap();
    assert!(figures["pipeline"] == "cards" && std::fs::read_to_string(folder.path().join("page.html")).unwrap().contains("</html>"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "no temporary file is left");
}

/// A command whose stdout is read for one line and then closed.
#[cfg(unix)]
fn read_for_one_line(arguments: &[&str], folder: &Path) -> (Option<i32>, String) {
    use std::io::{BufRead, Read};
    let mut child = Command::new(env!("CARGO_BIN_EXE_meantime"))
        .args(arguments)
        .current_dir(folder)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufReader::with_capacity(1, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(!line.is_empty());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

#[cfg(unix)]
#[test]
fn where_the_reader_of_stdout_has_gone_a_command_ends_quietly() {
    let folder = tempfile::tempdir().unwrap();
    let cards = pipelines().join("cards");
    let cards = cards.to_str().unwrap();
    // More than a pipe holds.
    let generate = ["generate", cards, "--events", "20000", "--keys", "2", "--to", "file", "--out"];
    assert_eq!(read_for_one_line(&[&generate[..], &["-"]].concat(), folder.path()), (Some(0), String::new()));
    assert!(meantime(&[&generate[..], &["in.ndjson"]].concat(), folder.path()).status.success());
    let replay = ["replay", cards, "--key", "c0000001", "--from", "in.ndjson"];
    let (code, said) = read_for_one_line(&replay, folder.path());
    assert!(code == Some(0) && !said.contains("error"), "{said}");
    let sets = ["--set", "sink={kind=\"ndjson\",path=\"-\"}", "--set", "dead_letter={kind=\"ndjson\",path=\"/dev/null\"}"];
    let source = format!("source={{kind=\"file\",paths=[\"{}\"]}}", folder.path().join("in.ndjson").display());
    let (code, said) = read_for_one_line(&[&["run", cards, "--set", &source][..], &sets].concat(), folder.path());
    assert!(code == Some(0) && said.contains("the reader of stdout has gone") && !said.contains("error:"), "{said}");
}

#[cfg(feature = "fit")]
#[test]
fn a_place_where_no_package_can_be_made_is_refused_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let visits = pipelines().join("visits").display().to_string();
    for out in ["/proc/model", "/proc/some/model", "file/model"] {
        // The history is not there: that it is not missed says that nothing was read.
        let output = meantime(&["fit", &visits, "--from", "missing.parquet", "--out", out], folder.path());
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains(out) && !said.contains("missing.parquet"), "{said}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "what is tried is removed");
}

#[test]
fn json_lines_that_were_sent_are_what_comes_out_of_the_files_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    cards_to_evaluate(folder.path());
    let cards = pipelines().join("cards");
    let cards = cards.to_str().unwrap();
    let source = format!("source={{kind=\"file\",paths=[\"{}\"]}}", folder.path().join("in.parquet").display());
    let sink = format!("sink={{kind=\"ndjson\",path=\"{}\"}}", folder.path().join("out.ndjson").display());
    let sets =
        ["--set", &source, "--set", "event.format=parquet", "--set", "dead_letter={kind=\"ndjson\",path=\"/dev/null\"}", "--set", &sink];
    let run = || meantime(&[&["run", cards][..], &sets].concat(), folder.path());
    let first = run();
    assert!(first.status.success() && !text(&first.stderr).contains("holds rows already"), "{}", text(&first.stderr));
    let parity = |live: &str| meantime(&[&["parity", cards, "--live", live, "--files", "."][..], &sets].concat(), folder.path());
    let sent = std::fs::read_to_string(folder.path().join("out.ndjson")).unwrap();
    std::fs::rename(folder.path().join("out.ndjson"), folder.path().join("_out.ndjson")).unwrap();
    let equal = parity("_out.ndjson");
    assert!(equal.status.success() && text(&equal.stdout).contains("2,000"), "{}{}", text(&equal.stdout), text(&equal.stderr));
    std::fs::write(folder.path().join("_changed"), sent.replacen("\"n_events\":7,", "\"n_events\":8,", 1)).unwrap();
    let other = parity("_changed");
    assert!(other.status.code() == Some(1) && text(&other.stderr).contains("1 rows differ"), "{}", text(&other.stderr));
    std::fs::write(folder.path().join("_torn"), &sent[..sent.len() - 9]).unwrap();
    assert!(text(&parity("_torn").stderr).contains("line 2000 is no JSON object"));
    let verified = meantime(&[&["verify", cards][..], &sets].concat(), folder.path());
    assert!(text(&verified.stderr).contains("meantime parity PIPELINE --live FILE"), "{}", text(&verified.stderr));
    // A second run appends all again, and says so.
    std::fs::write(folder.path().join("out.ndjson"), &sent).unwrap();
    let again = run();
    assert!(text(&again.stderr).contains("out.ndjson holds rows already"), "{}", text(&again.stderr));
    assert_eq!(std::fs::read_to_string(folder.path().join("out.ndjson")).unwrap().lines().count(), 4_000);
    // A place that is neither file, folder nor topic, where no broker answers.
    if cfg!(feature = "kafka") {
        let kafka = [&["parity", cards, "--live", "nonex", "--files", "in.parquet"][..], &["--set", "source.brokers=127.0.0.1:1"]].concat();
        let nowhere = text(&meantime(&kafka, folder.path()).stderr);
        assert!(nowhere.contains("error: parity: there is no file and no folder `nonex`, and no topic can be looked for"), "{nowhere}");
    }
}

#[test]
fn times_in_another_unit_than_the_pipeline_says_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let visits = pipelines().join("visits");
    let visits = visits.to_str().unwrap();
    let write = |name: &str, first: i64, step: i64| {
        let line = |i: i64| format!("{{\"patient\":\"p{}\",\"admitted\":{},\"age\":50}}\n", i % 3, first + i * step);
        std::fs::write(folder.path().join(name), (0..30).map(line).collect::<String>()).unwrap();
    };
    write("seconds.ndjson", 1_700_000_000, 86_400);
    write("milliseconds.ndjson", 1_700_000_000_000, 86_400_000);
    let sets = ["--set", "sink={kind=\"ndjson\",path=\"-\"}", "--set", "dead_letter={kind=\"ndjson\",path=\"/dev/null\"}"];
    for (name, unit, says) in [
        ("seconds", "ms", "in `s` it would be of 2023-11-14T22:13:20"),
        ("milliseconds", "s", "the unit is `s`, in `ms` it is 2023-12-13T22:13:20"),
        ("seconds", "s", ""),
        ("milliseconds", "ms", ""),
    ] {
        let source = format!("source={{kind=\"file\",paths=[\"{}\"]}}", folder.path().join(format!("{name}.ndjson")).display());
        let unit = format!("event.time={{field=\"admitted\",unit=\"{unit}\"}}");
        let output = meantime(&[&["run", visits, "--set", &source, "--set", &unit][..], &sets].concat(), folder.path());
        let said = text(&output.stderr);
        assert_eq!(
            (output.status.success(), said.contains("the unit is") || said.contains("it would be of")),
            (name != "milliseconds" || says.is_empty(), !says.is_empty()),
            "{said}"
        );
        assert!(said.contains(says), "{said}");
    }
}
