//! The stage in operation: its HTTP answers, and what signals do. Unix only, as the stage's containers are.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value as Json;

/// Longest that anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running stage over a generated stream that does not end by itself.
struct Stage {
    child: Child,
    log: BufReader<ChildStderr>,
    seen: String,
}

impl Stage {
    fn start(folder: &Path, sink: &str, more: &[&str]) -> Stage {
        let cards = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/cards");
        let mut command = Command::new(env!("CARGO_BIN_EXE_meantime"));
        command.arg("run").arg(cards).args(["--set", "source={kind=\"generate\",stream=\"cards\",events=1000000000,keys=50,seed=1}"]);
        command.args(["--set", sink, "--set"]).arg(format!("dead_letter={{kind=\"ndjson\",path=\"{}\"}}", folder.join("dead").display()));
        command.args(more).env_remove("MEANTIME_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Stage { child, log, seen: String::new() }
    }

    /// Reads the log up to a line that holds `text`, and returns that line.
    fn wait_for(&mut self, text: &str) -> String {
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

    /// Waits for the end and returns how it ended and the rest of the log.
    fn end(&mut self) -> (ExitStatus, String) {
        self.log.read_to_string(&mut self.seen).unwrap();
        (self.child.wait().unwrap(), self.seen.clone())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "it never came about that {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Status, head and body of a GET.
fn get(address: &str, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_owned(), body.to_owned())
}

fn ndjson(path: &Path) -> String {
    format!("sink={{kind=\"ndjson\",path=\"{}\"}}", path.display())
}

/// The port that `--http 127.0.0.1:0` has logged.
fn address(line: &str) -> String {
    let at = line.find("127.0.0.1:").unwrap();
    line[at..].chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect()
}

fn metric(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series}\n{text}")).parse().unwrap()
}

#[test]
fn a_running_stage_serves_metrics_and_health() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = Stage::start(folder.path(), &ndjson(&folder.path().join("out")), &["--http", "127.0.0.1:0"]);
    let address = address(&stage.wait_for("serving /metrics"));
    stage.wait_for("partition assigned");
    until("the stage is ready", || get(&address, "/health/ready").0 == 200);
    let (_, head, body) = get(&address, "/health/ready");
    assert!(head.contains("Content-Type: application/json"), "{head}");
    assert_eq!(serde_json::from_str::<Json>(&body).unwrap()["partitions"]["0"]["state"], "live");
    assert_eq!(get(&address, "/health/live").0, 200);
    until("forecasts are counted", || metric(&get(&address, "/metrics").2, "meantime_forecasts_total{kind=\"forecast\"}") > 0.0);
    let (status, head, text) = get(&address, "/metrics");
    assert_eq!(status, 200);
    assert!(head.contains("Content-Type: application/openmetrics-text; version=1.0.0"), "{head}");
    let events = metric(&text, "meantime_events_total");
    assert_eq!(metric(&text, "meantime_keys"), 50.0);
    assert!(metric(&text, "meantime_state_bytes") > 0.0);
    assert!(metric(&text, "meantime_step_seconds_count") > 0.0);
    assert!(metric(&text, "meantime_rounds_total") > 0.0);
    assert_eq!(metric(&text, "meantime_rounds_total"), metric(&text, "meantime_round_size_count"));
    assert!(metric(&text, "meantime_round_size_sum") >= events, "every event is stepped once; events are counted after their step");
    assert_eq!(metric(&text, "meantime_partition_state{partition=\"0\",state=\"live\"}"), 1.0);
    let lag = metric(&text, "meantime_lag_records{partition=\"0\"}");
    assert!((0.0..1e9).contains(&lag) && lag + events + 100_000.0 >= 1e9, "{lag} of a billion, {events} taken in");
    until("a commit is timed", || metric(&get(&address, "/metrics").2, "meantime_commit_seconds_count") > 0.0);
    assert_eq!(get(&address, "/").0, 404);
    stage.signal("TERM");
    assert!(stage.end().0.success());
}

#[test]
fn a_port_in_use_stops_the_run_before_the_stage_starts() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let out = folder.path().join("out");
    let mut stage = Stage::start(folder.path(), &ndjson(&out), &["--http", &address]);
    let (status, log) = stage.end();
    assert_eq!(status.code(), Some(78), "{log}");
    assert!(log.contains("the port is in use") && log.contains(&address), "{log}");
    assert!(!out.exists());
}

/// Offsets of whole rows; panics on a torn line.
fn offsets_of_lines(path: &Path) -> Vec<i64> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n'), "the last line is torn");
    text.lines().map(|line| serde_json::from_str::<Json>(line).unwrap()["offset"].as_i64().unwrap()).collect()
}

/// "forecasts written" of the summary.
fn written(log: &str) -> usize {
    let line = log.lines().find(|line| line.contains("forecasts written")).unwrap_or_else(|| panic!("{log}"));
    line.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

#[test]
fn sigterm_ends_with_0_and_every_line_that_was_written_is_whole() {
    for signal in ["TERM", "INT"] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let mut stage = Stage::start(folder.path(), &ndjson(&out), &[]);
        until("there are rows", || std::fs::metadata(&out).is_ok_and(|file| file.len() > 100_000));
        stage.signal(signal);
        let (status, log) = stage.end();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.contains("stopping: draining and committing"), "{log}");
        let offsets = offsets_of_lines(&out);
        assert_eq!(offsets.len(), written(&log));
        assert!(offsets.iter().copied().eq(0..i64::try_from(offsets.len()).unwrap()), "no hole and no repeat");
    }
}

fn parquet_files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            parquet_files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "parquet") {
            found.push(path);
        }
    }
}

#[test]
fn sigterm_closes_parquet_files_that_hold_every_row_once() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let sink = format!("sink={{kind=\"parquet\",path=\"{}\",roll_every=\"300ms\"}}", out.display());
    let mut stage = Stage::start(folder.path(), &sink, &[]);
    let files = || {
        let mut found = Vec::new();
        parquet_files(&out, &mut found);
        found
    };
    until("a file is closed", || files().len() > 1);
    stage.signal("TERM");
    let (status, log) = stage.end();
    assert_eq!(status.code(), Some(0), "{log}");
    let (mut offsets, mut rows) = (BTreeSet::new(), 0);
    for file in files() {
        for batch in ParquetRecordBatchReaderBuilder::try_new(File::open(&file).unwrap()).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let column = batch.column_by_name("offset").unwrap();
            let column = column.as_any().downcast_ref::<arrow::array::Int64Array>().unwrap();
            rows += column.len();
            offsets.extend(column.iter().flatten());
        }
    }
    assert_eq!((rows, offsets.len()), (written(&log), rows));
    assert_eq!((offsets.first().copied(), offsets.last().copied()), (Some(0), Some(i64::try_from(rows).unwrap() - 1)));
}

/// A stage that hangs in its sink: nobody reads the pipe.
fn hanging(folder: &Path, stop_timeout: &str) -> Stage {
    let timeout = format!("run.stop_timeout={stop_timeout}");
    let mut stage = Stage::start(folder, "sink={kind=\"ndjson\",path=\"-\"}", &["--set", &timeout, "--http", "127.0.0.1:0"]);
    let address = address(&stage.wait_for("serving /metrics"));
    let (mut last, mut still) = (0.0, 0);
    until("the pipe is full", || {
        // Timed before its rows are written.
        let batches = metric(&get(&address, "/metrics").2, "meantime_step_seconds_count");
        still = if batches > 0.0 && batches == last { still + 1 } else { 0 };
        last = batches;
        still > 20
    });
    stage
}

#[test]
fn a_stop_that_takes_too_long_ends_with_75_and_says_what_will_be_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = hanging(folder.path(), "1s");
    let asked = Instant::now();
    stage.signal("TERM");
    let (status, log) = stage.end();
    assert_eq!(status.code(), Some(75), "{log}");
    assert!(asked.elapsed() >= Duration::from_secs(1));
    assert!(log.contains("longer than stop_timeout = 1s; not committed: partition 0: offsets "), "{log}");
    assert!(log.contains("read again at the next start"), "{log}");
}

#[test]
fn a_second_signal_leaves_at_once_with_130() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = hanging(folder.path(), "1h");
    stage.signal("TERM");
    stage.wait_for("stopping: draining and committing");
    stage.signal("TERM");
    assert_eq!(stage.end().0.code(), Some(130));
}

#[test]
fn the_docs_name_every_metric_with_its_type_unit_and_labels_and_no_other() {
    let docs = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).unwrap();
    let rows: Vec<String> = docs.lines().filter(|line| line.starts_with("| `meantime_")).map(str::to_owned).collect();
    for metric in meantime::base::metrics::ALL {
        let labels = if metric.labels.is_empty() { String::new() } else { format!("{{{}}}", metric.labels.join(",")) };
        let start = format!("| `{}{labels}` | {} | {} | ", metric.name, metric.kind.name(), metric.unit);
        assert!(rows.iter().any(|row| row.starts_with(&start)), "no row starts with: {start}");
    }
    assert_eq!(rows.len(), meantime::base::metrics::ALL.len());
}
