//! A change of the model, on the program itself, without network: stop, migrate, start; and two models compared on the same past.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value as Json;

const FIRST: usize = 2_500;
const ALL: usize = 4_000;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn cards() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/cards")
}

/// The package of the cards as version 2.
fn package(folder: &Path, name: &str, edit: impl Fn(String) -> String) -> PathBuf {
    let to = folder.join(name);
    std::fs::create_dir_all(&to).unwrap();
    for file in ["model.onnx", "features.toml"] {
        std::fs::copy(cards().join("model").join(file), to.join(file)).unwrap();
    }
    let manifest = std::fs::read_to_string(cards().join("model/model.toml")).unwrap().replace("version = \"1\"", "version = \"2\"");
    std::fs::write(to.join("model.toml"), edit(manifest)).unwrap();
    to
}

/// Events in two files, of which a first run knows only one.
struct Job {
    folder: tempfile::TempDir,
}

impl Job {
    fn new() -> Job {
        let folder = tempfile::tempdir().unwrap();
        let events = folder.path().join("events.ndjson");
        let (count, path) = (ALL.to_string(), events.to_str().unwrap());
        let output = Command::new(env!("CARGO_BIN_EXE_meantime"))
            .args(["generate", cards().to_str().unwrap(), "--events", &count, "--keys", "60", "--to", "file", "--out", path])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let all = std::fs::read_to_string(&events).unwrap();
        let lines: Vec<&str> = all.lines().collect();
        std::fs::write(folder.path().join("first.ndjson"), lines[..FIRST].join("\n") + "\n").unwrap();
        std::fs::write(folder.path().join("second.ndjson"), lines[FIRST..].join("\n") + "\n").unwrap();
        Job { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn meantime(&self, command: &[&str], files: &[&str], out: &str, more: &[&str]) -> Output {
        let folder = self.folder.path().display();
        let mut program = Command::new(env!("CARGO_BIN_EXE_meantime"));
        let paths: Vec<String> = files.iter().map(|file| format!("\"{folder}/{file}\"")).collect();
        program.args(command).arg(cards()).args(more).env_remove("MEANTIME_LOG");
        for set in [
            format!("source={{kind=\"file\",paths=[{}]}}", paths.join(",")),
            format!("sink={{kind=\"parquet\",path=\"{folder}/{out}/forecasts\"}}"),
            format!("dead_letter={{kind=\"ndjson\",path=\"{folder}/{out}-dead\"}}"),
            format!("state.snapshots=\"{folder}/{out}-state\""),
        ] {
            program.args(["--set", &set]);
        }
        program.output().unwrap()
    }

    fn succeed(&self, command: &[&str], files: &[&str], out: &str, more: &[&str]) -> (String, String) {
        let output = self.meantime(command, files, out, more);
        assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
        (text(&output.stdout), text(&output.stderr))
    }

    /// All forecasts of a run, by offset.
    fn rows(&self, out: &str) -> RecordBatch {
        let folder = self.path(out).join("forecasts/partition-0");
        let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let read = |path: &PathBuf| {
            let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(path).unwrap()).unwrap();
            let schema = reader.schema().clone();
            concat_batches(&schema, &reader.build().unwrap().map(Result::unwrap).collect::<Vec<_>>()).unwrap()
        };
        let all: Vec<RecordBatch> = files.iter().map(read).collect();
        let rows = concat_batches(&all[0].schema(), &all).unwrap();
        let offsets = rows.column_by_name("offset").unwrap().as_primitive::<Int64Type>().values().to_vec();
        assert!(offsets.windows(2).all(|pair| pair[0] < pair[1]), "each record once, in order");
        rows
    }
}

fn column(rows: &RecordBatch, name: &str) -> Vec<String> {
    let column = rows.column_by_name(name).unwrap();
    let texts = column.as_string::<i32>();
    (0..texts.len()).map(|row| texts.value(row).to_owned()).collect()
}

#[test]
fn stop_migrate_start_goes_on_as_if_nothing_had_changed_and_says_where_it_did() {
    let job = Job::new();
    let model = package(job.folder.path(), "model-2", |manifest| manifest);
    let model = model.to_str().unwrap();
    let next = format!("model.package=\"{model}\"");
    job.succeed(&["run"], &["first.ndjson"], "out", &[]);

    let (said, _) = job.succeed(&["state", "migrate"], &["first.ndjson"], "out", &["--to", model, "--dry-run"]);
    assert!(said.contains(", carry") && said.contains("hidden tensors: kept") && said.contains("nothing was written"), "{said}");
    let (listed, _) = job.succeed(&["state", "ls"], &["first.ndjson"], "out", &["--set", &next]);
    assert!(!listed.contains(" yes"), "{listed}");
    let (said, _) = job.succeed(&["state", "migrate"], &["first.ndjson"], "out", &["--to", model]);
    let row: Vec<&str> = said.lines().find(|line| line.starts_with("0 ")).unwrap().split_whitespace().collect();
    assert_eq!(row[..5], ["0", "2500", "2500", "60", "0"], "{said}");
    let (listed, _) = job.succeed(&["state", "ls"], &["first.ndjson"], "out", &["--set", &next]);
    assert!(listed.contains("yes (carry from ") && listed.contains("cards 1"), "{listed}");
    let again = job.meantime(&["state", "migrate"], &["first.ndjson"], "out", &["--to", model, "--set", &next]);
    assert_eq!(again.status.code(), Some(78), "{}", text(&again.stderr));

    let (_, log) = job.succeed(&["run"], &["first.ndjson", "second.ndjson"], "out", &["--set", &next]);
    assert!(log.contains("the model has changed") && log.contains("migrated (carry)"), "{log}");
    assert!(!log.contains("replayed silently"), "{log}");
    job.succeed(&["verify"], &["first.ndjson", "second.ndjson"], "out", &["--set", &next]);

    let rows = job.rows("out");
    let (fingerprints, versions) = (column(&rows, "fingerprint"), column(&rows, "model_version"));
    assert_eq!(rows.num_rows(), ALL);
    assert!(versions[..FIRST].iter().all(|version| version == "1") && versions[FIRST..].iter().all(|version| version == "2"));
    assert!(fingerprints[..FIRST].windows(2).all(|pair| pair[0] == pair[1]) && fingerprints[FIRST] != fingerprints[0]);
    job.succeed(&["run"], &["first.ndjson", "second.ndjson"], "undisturbed", &[]);
    let expected = job.rows("undisturbed");
    for (field, values) in expected.schema().fields().iter().zip(expected.columns()) {
        if !["fingerprint", "model_version"].contains(&field.name().as_str()) {
            assert!(rows.column_by_name(field.name()).unwrap() == values, "{} differs", field.name());
        }
    }

    // And back: the old model finds its own states of before, and replays what the new one has done since.
    std::fs::write(
        job.path("third.ndjson"),
        std::fs::read_to_string(job.path("second.ndjson")).unwrap().lines().last().unwrap().to_owned() + "\n",
    )
    .unwrap();
    let (_, log) = job.succeed(&["run"], &["first.ndjson", "second.ndjson", "third.ndjson"], "out", &[]);
    assert!(!log.contains("passed over"), "snapshots of the other model are no fault: {log}");
    assert!(log.contains("an earlier run of this model") && log.contains("1,500"), "{log}");
}

#[test]
fn without_snapshots_there_is_nothing_to_migrate_and_the_start_rebuilds() {
    let job = Job::new();
    let model = package(job.folder.path(), "model-2", |manifest| manifest);
    let next = format!("model.package=\"{}\"", model.display());
    job.succeed(&["run"], &["first.ndjson"], "out", &[]);
    assert!(!job.path("out-state/shadow").exists(), "there is no shadow, and no folder for its snapshots");
    std::fs::remove_dir_all(job.path("out-state")).unwrap();
    let output = job.meantime(&["state", "migrate"], &["first.ndjson"], "out", &["--to", model.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no usable snapshot of partition 0"), "{}", text(&output.stderr));
    // Ahead of time, from the pipeline's own source.
    let (said, _) = job.succeed(
        &["state", "migrate"],
        &["first.ndjson", "second.ndjson"],
        "out",
        &["--to", model.to_str().unwrap(), "--mode", "rebuild"],
    );
    let row: Vec<&str> = said.lines().find(|line| line.starts_with("0 ")).unwrap().split_whitespace().collect();
    assert_eq!(row[..4], ["0", "2500", "2500", "60"], "{said}");
    let (_, log) = job.succeed(&["run"], &["first.ndjson", "second.ndjson"], "out", &["--set", &next]);
    assert!(log.contains("migrated (rebuild)") && !log.contains("replayed silently"), "{log}");
    job.succeed(&["run"], &["first.ndjson", "second.ndjson"], "undisturbed", &["--set", &next]);
    let (found, expected) = (job.rows("out"), job.rows("undisturbed"));
    let tail = |rows: &RecordBatch| rows.slice(FIRST, ALL - FIRST).columns().to_vec();
    assert!(tail(&found) == tail(&expected), "a rebuilt state is that of the new model from the first record on");
}

#[test]
fn states_are_rebuilt_from_files_of_the_topic_up_to_what_is_committed() {
    let job = Job::new();
    let model = package(job.folder.path(), "model-2", |manifest| manifest);
    let next = format!("model.package=\"{}\"", model.display());
    job.succeed(&["run"], &["first.ndjson"], "out", &[]);
    // The same events as a table, each with its place; more than is committed, and some rows twice.
    let plain = job.path("plain.parquet");
    let arguments = ["--events", "4000", "--keys", "60", "--to", "file", "--out", plain.to_str().unwrap()];
    let output = Command::new(env!("CARGO_BIN_EXE_meantime")).arg("generate").arg(cards()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(&plain).unwrap()).unwrap();
    let schema = reader.schema().clone();
    let rows = concat_batches(&schema, &reader.build().unwrap().map(Result::unwrap).collect::<Vec<_>>()).unwrap();
    let whole = i64::try_from(rows.num_rows()).unwrap();
    let mut columns: Vec<(String, arrow::array::ArrayRef)> =
        schema.fields().iter().map(|field| field.name().clone()).zip(rows.columns().iter().cloned()).collect();
    columns.push(("kafka_partition".to_owned(), std::sync::Arc::new(arrow::array::Int32Array::from(vec![0; rows.num_rows()]))));
    columns.push(("kafka_offset".to_owned(), std::sync::Arc::new(arrow::array::Int64Array::from_iter_values(0..whole))));
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    for (name, from, len) in [("topic-0", 0, 2_000), ("topic-1", 1_900, 2_100)] {
        let file = std::fs::File::create(job.path(&format!("{name}.parquet"))).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, rows.schema(), None).unwrap();
        writer.write(&rows.slice(from, len)).unwrap();
        writer.close().unwrap();
    }
    let files = job.path("topic-*.parquet");
    let more = ["--to", model.to_str().unwrap(), "--mode", "rebuild", "--from", files.to_str().unwrap()];
    let places = ["--positions", "kafka_partition,kafka_offset"];
    let (said, _) = job.succeed(&["state", "migrate"], &["first.ndjson"], "out", &[&more[..], &places].concat());
    let row: Vec<&str> = said.lines().find(|line| line.starts_with("0 ")).unwrap().split_whitespace().collect();
    assert_eq!(row[..4], ["0", "2500", "2500", "60"], "{said}");
    // Again, from files that end earlier: what is stored now stands below what was stored before, and is not reported as if it held.
    let short = job.path("topic-0.parquet");
    let again = ["--to", model.to_str().unwrap(), "--mode", "rebuild", "--from", short.to_str().unwrap()];
    let output = job.meantime(&["state", "migrate"], &["first.ndjson"], "out", &[&again[..], &places].concat());
    let (said, error) = (text(&output.stdout), text(&output.stderr));
    let row: Vec<&str> = said.lines().find(|line| line.starts_with("0 ")).unwrap().split_whitespace().collect();
    assert_eq!((output.status.code(), &row[..4]), (Some(1), &["0", "2000", "2500", "60"][..]), "{said}{error}");
    assert!(
        error.contains("an older migration") && error.contains("00000000000000002500-full-") && !said.contains("stored. Stop"),
        "{error}"
    );
    let (_, log) = job.succeed(&["run"], &["first.ndjson", "second.ndjson"], "out", &["--set", &next]);
    assert!(log.contains("migrated (rebuild)") && !log.contains("replayed silently"), "{log}");
    job.succeed(&["run"], &["first.ndjson", "second.ndjson"], "undisturbed", &["--set", &next]);
    let tail = |rows: &RecordBatch| rows.slice(FIRST, ALL - FIRST).columns().to_vec();
    assert!(tail(&job.rows("out")) == tail(&job.rows("undisturbed")));
}

fn diff(job: &Job, more: &[&str]) -> Json {
    let mut arguments = vec!["--diff", "--json", "-"];
    arguments.extend_from_slice(more);
    let (said, _) = job.succeed(&["replay"], &["first.ndjson", "second.ndjson"], "out", &arguments);
    serde_json::from_str(&said).unwrap()
}

fn field<'a>(report: &'a Json, name: &str) -> &'a Json {
    report["fields"].as_array().unwrap().iter().find(|field| field["name"] == name).unwrap_or_else(|| panic!("{name}: {report}"))
}

#[test]
fn two_models_are_compared_on_the_same_events() {
    let job = Job::new();
    let same = package(job.folder.path(), "model-2", |manifest| manifest);
    // Read as minutes what was learnt in hours: every time of the next event comes sixty times as soon.
    let sooner = package(job.folder.path(), "model-m", |manifest| manifest.replace("time_unit = \"h\"", "time_unit = \"m\""));

    let report = diff(&job, &["--model", same.to_str().unwrap(), "--threshold", "p_within_1h=0.5"]);
    assert_eq!((&report["events"], &report["events_only_before"], &report["events_only_after"]), (&ALL.into(), &0.into(), &0.into()));
    for field in report["fields"].as_array().unwrap() {
        assert_eq!(
            (&field["ks"], &field["mean_absolute_change"], &field["before"]),
            (&0.0.into(), &0.0.into(), &field["after"]),
            "{field}"
        );
    }
    assert_eq!(report["top"], Json::Array(Vec::new()));
    assert_eq!(report["likelihood"]["time"]["change"], 0.0);
    assert_eq!((&report["decisions"]["new_alerts"], &report["decisions"]["lost_alerts"]), (&0.into(), &0.into()));
    assert_ne!(report["before"]["fingerprint"], report["after"]["fingerprint"]);

    let report = diff(&job, &["--model", sooner.to_str().unwrap(), "--threshold", "p_within_1h=0.5", "--top", "3"]);
    let median = field(&report, "next_time_q50");
    let ratio = median["before"]["mean"].as_f64().unwrap() / median["after"]["mean"].as_f64().unwrap();
    assert!((ratio - 60.0).abs() < 0.01 && median["ks"].as_f64().unwrap() > 0.5, "{median}");
    assert!(field(&report, "p_within_1h")["psi"].as_f64().unwrap() > 1.0 && median["psi"].is_null(), "{report}");
    let top = report["top"].as_array().unwrap();
    assert!(report["ranked_by"] == "p_within_1h" && top.len() == 3, "{report}");
    assert!(report["decisions"]["new_alerts"].as_u64().unwrap() > 1000 && report["decisions"]["lost_alerts"] == 0, "{report}");
    // In the same unit, a law that is off by such a factor is far less likely.
    let time = &report["likelihood"]["time"];
    assert!(time["change"].as_f64().unwrap() > 0.5 && time["events"] == ALL - 60, "{time}");
    let evaluated = job.meantime(&["evaluate"], &["first.ndjson", "second.ndjson"], "out", &["--json", "-"]);
    let evaluated: Json = serde_json::from_slice(&evaluated.stdout).unwrap();
    let nll = evaluated["time"]["nll"].as_f64().unwrap();
    assert!((time["before"].as_f64().unwrap() - nll).abs() < 1e-9, "{time} {nll}");

    // A span, and one key; as a table.
    let rows = {
        job.succeed(&["run"], &["first.ndjson", "second.ndjson"], "out", &[]);
        job.rows("out")
    };
    let times = rows.column_by_name("event_time").unwrap().as_primitive::<TimestampMicrosecondType>().values().to_vec();
    let (since, until) = (rfc3339(times[1000]), rfc3339(times[2999]));
    let span = diff(&job, &["--model", sooner.to_str().unwrap(), "--since", &since, "--until", &until]);
    let inside = times.iter().filter(|time| (times[1000]..=times[2999]).contains(time)).count();
    assert_eq!(span["events"], inside);
    let key = column(&rows, "key")[1500].clone();
    let of_key = column(&rows, "key").iter().filter(|other| **other == key).count();
    let only = diff(&job, &["--model", sooner.to_str().unwrap(), "--key", &key]);
    assert_eq!((&only["events"], &only["top"][0]["key"]), (&of_key.into(), &Json::from(key.clone())));
    let (table, _) = job.succeed(&["replay"], &["first.ndjson", "second.ndjson"], "out", &["--diff", "--model", sooner.to_str().unwrap()]);
    for part in ["next_time_q50 (s)", "negative log-likelihood", "keys that change most, by next_time_q50", "cards 2", "after"] {
        assert!(table.contains(part), "{part}: {table}");
    }
}

/// Microseconds as an argument.
fn rfc3339(micros: i64) -> String {
    chrono::DateTime::from_timestamp_micros(micros).unwrap().to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

#[test]
fn a_model_is_compared_with_what_was_sent() {
    let job = Job::new();
    let other = package(job.folder.path(), "model-m", |manifest| manifest.replace("time_unit = \"h\"", "time_unit = \"m\""));
    job.succeed(&["run"], &["first.ndjson"], "out", &[]);
    let sent = job.path("out").join("forecasts");
    let sent = sent.to_str().unwrap();
    let own = diff(&job, &["--live", sent]);
    assert_eq!((&own["events"], &own["events_only_before"], &own["events_only_after"]), (&FIRST.into(), &0.into(), &(ALL - FIRST).into()));
    assert!(own["fields"].as_array().unwrap().iter().all(|field| field["mean_absolute_change"] == 0.0 && field["ks"] == 0.0), "{own}");
    assert!(own["before"]["name"].as_str().unwrap().starts_with("cards 1, as sent to"), "{own}");
    let (two, live) =
        (diff(&job, &["--model", other.to_str().unwrap()]), diff(&job, &["--model", other.to_str().unwrap(), "--live", sent]));
    assert_eq!(live["events"], FIRST);
    assert!(field(&live, "next_time_q50")["ks"].as_f64().unwrap() > 0.5 && field(&two, "next_time_q50")["ks"].as_f64().unwrap() > 0.5);

    // Heads that have different fields: what both have is compared, the rest is named.
    let score = job.meantime(&["replay"], &["first.ndjson"], "out", &["--diff"]);
    assert_eq!(score.status.code(), Some(2), "{}", text(&score.stderr));
    let bad = job.meantime(&["replay"], &["first.ndjson"], "out", &["--diff", "--live", sent, "--threshold", "score=0.5"]);
    assert_eq!(bad.status.code(), Some(2));
    assert!(text(&bad.stderr).contains("p_within_24h"), "{}", text(&bad.stderr));
}

#[test]
fn models_with_different_heads_are_compared_in_what_both_have() {
    let job = Job::new();
    // The same graph without its marks: a law of 24 parameters of the 27 would not fit, so the marks become components that hardly count.
    let model = package(job.folder.path(), "model-9", |manifest| {
        manifest.replace("components = 8", "components = 9").replace("marks = [\"pos\", \"web\", \"atm\"]", "marks = []")
    });
    let report = diff(&job, &["--model", model.to_str().unwrap()]);
    let only: Vec<&str> = report["only_before"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(only, ["surprise_mark"], "{report}");
    assert_eq!((&report["only_after"], &report["events"]), (&Json::Array(Vec::new()), &ALL.into()));
    assert!(field(&report, "next_time_q50")["ks"].as_f64().unwrap() > 0.1);
    assert!(report["likelihood"]["mark"].is_null());
}

/// A stage that runs until it is told to stop.
struct Running {
    child: std::process::Child,
    log: std::io::BufReader<std::process::ChildStderr>,
    seen: String,
}

impl Running {
    fn wait_for(&mut self, text: &str) -> String {
        use std::io::BufRead;
        loop {
            let mut line = String::new();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "the log ended before `{text}`:\n{}", self.seen);
            self.seen.push_str(&line);
            if line.contains(text) {
                return line;
            }
        }
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn metrics(address: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn metric(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
    line.split_whitespace().last().unwrap().parse().unwrap()
}

#[cfg(unix)]
#[test]
fn a_sighup_that_comes_before_the_pipeline_has_been_read_does_not_end_the_process() {
    use std::io::Write;
    let job = Job::new();
    let pipe = job.path("pipeline.toml");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let written = std::fs::read_to_string(cards().join("pipeline.toml")).unwrap();
    let (folder, model) = (job.folder.path().display(), cards().join("model"));
    let sets = [
        format!("source={{kind=\"file\",paths=[\"{folder}/first.ndjson\"]}}"),
        format!("sink={{kind=\"parquet\",path=\"{folder}/forecasts\"}}"),
        format!("dead_letter={{kind=\"ndjson\",path=\"{folder}/dead\"}}"),
        format!("model.package=\"{}\"", model.display()),
    ];
    let mut program = Command::new(env!("CARGO_BIN_EXE_meantime"));
    program.arg("run").arg(&pipe).args(sets.iter().flat_map(|set| ["--set", set.as_str()])).stderr(std::process::Stdio::piped());
    let child = program.spawn().unwrap();
    let id = child.id().to_string();
    // To open a pipe for writing is to wait until it is opened for reading. It is read again because of the signal, if the run has not ended until then.
    std::thread::spawn(move || {
        let mut first = true;
        while let Ok(mut file) = std::fs::OpenOptions::new().write(true).open(&pipe) {
            if std::mem::take(&mut first) {
                assert!(Command::new("kill").args(["-HUP", &id]).status().unwrap().success());
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            let _ = file.write_all(written.as_bytes());
            drop(file);
            // Else the same reader might be given it twice.
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    });
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{:?} {}", output.status, text(&output.stderr));
}

#[test]
fn a_running_stage_takes_a_new_package_at_sighup_and_refuses_a_broken_one() {
    let folder = tempfile::tempdir().unwrap();
    let model = package(folder.path(), "model", |manifest| manifest);
    let place = folder.path().display();
    let sets = [
        "source={kind=\"generate\",stream=\"cards\",events=1000000000,keys=50,seed=1}".to_owned(),
        format!("sink={{kind=\"parquet\",path=\"{place}/forecasts\",roll_every=\"100ms\",commit_every=\"20ms\"}}"),
        format!("dead_letter={{kind=\"ndjson\",path=\"{place}/dead\"}}"),
        format!("state.snapshots=\"{place}/state\""),
        format!("model.package=\"{}\"", model.display()),
    ];
    let with_sets = |command: &str| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_meantime"));
        program.arg(command).arg(cards()).env_remove("MEANTIME_LOG");
        for set in &sets {
            program.args(["--set", set]);
        }
        program
    };
    let mut child = with_sets("run")
        .args(["--http", "127.0.0.1:0"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let log = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut stage = Running { child, log, seen: String::new() };
    let line = stage.wait_for("serving /metrics");
    let address = line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    stage.wait_for("running");
    let until = |least: u64| {
        let started = std::time::Instant::now();
        while metric(&metrics(&address), "meantime_forecasts_total{kind=\"forecast\"}") < least {
            assert!(started.elapsed() < std::time::Duration::from_secs(60));
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    until(5_000);
    stage.signal("HUP");
    stage.wait_for("the model package has not changed");

    let manifest = std::fs::read_to_string(model.join("model.toml")).unwrap();
    std::fs::write(model.join("model.toml"), "this is no manifest").unwrap();
    stage.signal("HUP");
    stage.wait_for("is refused, the old one goes on");
    std::fs::write(model.join("model.toml"), manifest.replace("version = \"2\"", "version = \"3\"")).unwrap();
    stage.signal("HUP");
    stage.wait_for("states migrated");
    stage.wait_for("migrated (carry)");
    let done = metric(&metrics(&address), "meantime_forecasts_total{kind=\"forecast\"}");
    until(done + 5_000);
    let text_of = metrics(&address);
    for (outcome, count) in [("taken", 1), ("refused", 1)] {
        assert_eq!(metric(&text_of, &format!("meantime_model_changes_total{{outcome=\"{outcome}\"}}")), count);
    }
    assert_eq!(metric(&text_of, "meantime_keys"), 50);
    stage.signal("TERM");
    assert!(stage.child.wait().unwrap().success());
    let verified = with_sets("verify").output().unwrap();
    assert!(verified.status.success(), "{}", text(&verified.stderr));

    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder.path().join("forecasts/partition-0")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut versions: Vec<String> = Vec::new();
    for path in files {
        for rows in ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(path).unwrap()).unwrap().build().unwrap() {
            versions.extend(column(&rows.unwrap(), "model_version"));
        }
    }
    versions.dedup();
    assert_eq!(versions, ["2", "3"], "the version changes once");
}

#[cfg(feature = "fit")]
#[test]
fn a_shadow_changes_nothing_of_the_first_model_and_is_promoted_with_its_states() {
    let job = Job::new();
    // Another graph, other state tensors and another law.
    let (model, history) = (job.path("model-next"), job.path("events.ndjson"));
    let fitted = Command::new(env!("CARGO_BIN_EXE_meantime"))
        .args(["fit", cards().to_str().unwrap(), "--from", history.to_str().unwrap(), "--out", model.to_str().unwrap()])
        .args(["--set", "fit.cell=\"gamma_poisson\""])
        .output()
        .unwrap();
    assert!(fitted.status.success(), "{}", text(&fitted.stderr));
    let (next, beside) = (format!("model.package=\"{}\"", model.display()), job.path("shadow/forecasts"));
    let shadow = format!("shadow={{model=\"{}\",path=\"{}\",thresholds={{p_within_1h=0.5}}}}", model.display(), beside.display());
    let both = ["first.ndjson", "second.ndjson"];

    // Two runs with the shadow, so that its states go over a restart.
    let all = std::fs::read_to_string(job.path("first.ndjson")).unwrap();
    let start: Vec<&str> = all.lines().take(1_000).collect();
    std::fs::write(job.path("start.ndjson"), start.join("\n") + "\n").unwrap();
    let (_, log) = job.succeed(&["run"], &["start.ndjson"], "out", &["--set", &shadow]);
    assert!(
        log.contains("the shadow begins") && log.contains("shadow                     1,000 forecasts, 1,000 of them compared"),
        "{log}"
    );
    assert!(log.contains("nll of time") && log.contains("alerts by p_within_1h"), "{log}");
    let (_, log) = job.succeed(&["run"], &["first.ndjson"], "out", &["--set", &shadow]);
    assert!(log.contains("snapshot of the shadow loaded"), "{log}");

    job.succeed(&["run"], &["first.ndjson"], "plain", &[]);
    assert!(job.rows("out").columns() == job.rows("plain").columns(), "the first model's forecasts are those of a run without a shadow");
    job.succeed(&["run"], &both, "second", &["--set", &next]);
    let expected = job.rows("second");
    assert!(job.rows("shadow").columns() == expected.slice(0, FIRST).columns(), "the shadow's are those of a run of its model alone");

    // Its folder is audited by itself.
    let (said, _) = job.succeed(&["verify"], &["first.ndjson"], "out", &["--set", &shadow, "--shadow"]);
    assert!(said.contains(&beside.display().to_string()) && said.contains("complete: the files tile"), "{said}");
    let none = job.meantime(&["verify"], &["first.ndjson"], "out", &["--shadow"]);
    assert!(none.status.code() == Some(78) && text(&none.stderr).contains("has no [shadow]"), "{}", text(&none.stderr));

    // Promoted: only the package is another one. The shadow that is named still is what runs now.
    let (_, log) = job.succeed(&["run"], &both, "out", &["--set", &shadow, "--set", &next]);
    assert!(log.contains("of a snapshot of an earlier run of this model") && log.contains("no shadow is run"), "{log}");
    assert!(!log.contains("replayed silently"), "{log}");
    let rest = |rows: RecordBatch| rows.slice(FIRST, ALL - FIRST);
    assert!(
        rest(job.rows("out")).columns() == rest(expected).columns(),
        "from the promotion on they are those that the shadow would have written"
    );
    job.succeed(&["verify"], &both, "out", &["--set", &next]);

    // A shadow that names another kind of place is refused.
    let wrong =
        job.meantime(&["check"], &["first.ndjson"], "out", &["--set", &format!("shadow={{model=\"{}\",topic=\"t\"}}", model.display())]);
    assert!(wrong.status.code() == Some(78) && text(&wrong.stderr).contains("the same kind of place"), "{}", text(&wrong.stderr));
}

#[test]
fn a_sampled_shadow_scores_all_events_of_some_keys_and_none_of_the_others() {
    let job = Job::new();
    let model = package(job.folder.path(), "model-2", |manifest| manifest);
    let beside = job.path("shadow/forecasts");
    let shadow = format!("shadow={{model=\"{}\",path=\"{}\",sample=0.5}}", model.display(), beside.display());
    job.succeed(&["run"], &["first.ndjson"], "plain", &[]);
    let (_, log) = job.succeed(&["run"], &["first.ndjson"], "out", &["--set", &shadow]);
    assert!(job.rows("out").columns() == job.rows("plain").columns());
    let (all, own) = (column(&job.rows("out"), "key"), column(&job.rows("shadow"), "key"));
    let sampled: std::collections::BTreeSet<&String> = own.iter().collect();
    assert!((10..50).contains(&sampled.len()), "{}", sampled.len());
    assert_eq!(all.iter().filter(|key| sampled.contains(key)).count(), own.len(), "all events of a key or none: {log}");
}
