//! Backfills from and to a bucket, on the program itself: a small object store on a port of this machine takes the requests.

#[path = "../../src/link/objects/double.rs"]
#[allow(dead_code, reason = "unit tests use more of it")]
mod double;

#[cfg(unix)]
mod live;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use double::{Dialect, Double, Fault};

const EVENTS: &str = "12000";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn cards() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/cards")
}

fn program(s3: &Double, command: &str) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_meantime"));
    program.arg(command).arg(cards()).envs(s3.environment()).env("NO_PROXY", "127.0.0.1");
    program
}

fn generate(s3: &Double, path: &Path) {
    let arguments = ["--events", EVENTS, "--keys", "200", "--to", "file", "--out"];
    let output = program(s3, "generate").args(arguments).arg(path).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

fn backfill(s3: &Double, from: &str, to: &str) -> Command {
    let mut command = program(s3, "backfill");
    command.args(["--from", from, "--to", to, "--shards", "3", "--rows-per-file", "1000"]);
    command.args(["--set", "dead_letter.max_bad_ratio=0.5", "--set", "state.snapshots=ignored", "--set", "state.snapshot_every=1s"]);
    command
}

fn ran(output: &Output) {
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// Files of forecasts and dead letters below a folder, by name from there.
fn of_folder(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for path in glob::glob(&format!("{}/*/partition-*/*.parquet", folder.display())).unwrap().map(Result::unwrap) {
        found.insert(path.strip_prefix(folder).unwrap().display().to_string(), std::fs::read(&path).unwrap());
    }
    found
}

/// The same of a prefix of the bucket.
fn of_bucket(s3: &Double, prefix: &str) -> BTreeMap<String, Vec<u8>> {
    let below = |name: String| name.strip_prefix(prefix).map(str::to_owned);
    let named = s3.objects().into_iter().filter_map(|(name, bytes)| Some((below(name)?, bytes)));
    named.filter(|(name, _)| name.ends_with(".parquet")).collect()
}

/// The forecasts: dead letters name the files that they came from.
fn forecasts(files: BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    files.into_iter().filter(|(name, _)| name.starts_with("forecasts/")).collect()
}

fn same(expected: &BTreeMap<String, Vec<u8>>, found: &BTreeMap<String, Vec<u8>>) {
    assert_eq!(expected.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>());
    assert!(expected.len() > 5 && expected == found, "a file has other bytes");
}

/// Events in two files of a folder and of the bucket, and what a backfill of the former writes to a folder.
fn history(s3: &Double, folder: &Path) -> (String, BTreeMap<String, Vec<u8>>) {
    let events = folder.join("events.ndjson");
    generate(s3, &events);
    let lines: Vec<String> = std::fs::read_to_string(&events).unwrap().lines().map(str::to_owned).collect();
    let (first, second) = lines.split_at(lines.len() / 2);
    for (name, lines) in [("history/a.ndjson", first), ("history/b.ndjson", second)] {
        let mut text = lines.join("\n") + "\n";
        text.insert_str(0, "not JSON\n");
        std::fs::create_dir_all(folder.join("history")).unwrap();
        std::fs::write(folder.join(name), &text).unwrap();
        s3.put(name, text.as_bytes());
    }
    s3.put("history/deep/other.ndjson", b"of no concern\n");
    let from = folder.join("history/*.ndjson").display().to_string();
    let to = folder.join("whole");
    ran(&backfill(s3, &from, to.to_str().unwrap()).output().unwrap());
    (from, of_folder(&to))
}

#[test]
fn a_bucket_gets_and_gives_the_same_bytes_as_a_folder() {
    for dialect in Dialect::ALL {
        gets_and_gives(&Double::speaking(dialect, "bucket"));
    }
}

fn gets_and_gives(s3: &Double) {
    let url = |path: &str| format!("{}://bucket/{path}", s3.dialect.scheme());
    let (from, to) = (url("history/*.ndjson"), url("out"));
    let folder = tempfile::tempdir().unwrap();
    let (local, expected) = history(s3, folder.path());
    for (method, fault) in [("PUT", Fault::DoneThenBusy), ("GET", Fault::Busy), ("PUT", Fault::Busy)] {
        s3.fail(method, fault);
    }
    ran(&backfill(s3, &from, &to).output().unwrap());
    let whole = of_bucket(s3, "out/");
    assert_eq!(expected.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>());
    same(&forecasts(expected), &forecasts(whole.clone()));
    // By date, in a folder and in the bucket, where the answers of some requests are lost.
    let dated = folder.path().join("dated");
    ran(&backfill(s3, &local, dated.to_str().unwrap()).args(["--layout", "date"]).output().unwrap());
    for (method, fault) in [("PUT", Fault::DoneThenGone), ("PUT", Fault::DoneThenBusy), ("DELETE", Fault::Busy)] {
        s3.fail(method, fault);
    }
    let mut by_date = backfill(s3, &from, &url("dated"));
    ran(&by_date.args(["--layout", "date"]).output().unwrap());
    let below = |name: &String| name.strip_prefix("dated/forecasts/").map(str::to_owned);
    let found: BTreeMap<String, Vec<u8>> = s3.objects().into_iter().filter_map(|(name, bytes)| Some((below(&name)?, bytes))).collect();
    for (name, bytes) in &found {
        assert!(std::fs::read(dated.join("forecasts").join(name)).unwrap() == *bytes, "{name} has other bytes");
    }
    let there =
        glob::glob(&format!("{}/forecasts/**/*.*", dated.display())).unwrap().filter(|path| path.as_ref().unwrap().is_file()).count();
    assert!(found.keys().any(|name| name.starts_with("event_date=")) && found.len() == there, "{:?}", found.keys());
    let dated_sink = format!("sink={{kind=\"parquet\",path=\"{}\"}}", url("dated/forecasts"));
    let verify_dated = program(s3, "verify").args(["--set", &dated_sink]).output().unwrap();
    ran(&verify_dated);
    let names = s3.objects();
    assert!(names.contains_key("out/backfill.json") && names.keys().any(|name| name.starts_with("out/state/")));

    // Begun already; resumed there is nothing to do; with other input it is refused.
    let again = backfill(s3, &from, &to).output().unwrap();
    assert_eq!(again.status.code(), Some(78));
    assert!(text(&again.stderr).contains("--resume"), "{}", text(&again.stderr));
    ran(&backfill(s3, &from, &to).arg("--resume").output().unwrap());
    same(&whole, &of_bucket(s3, "out/"));

    // What others make of it.
    let sink = |path: &str| format!("sink={{kind=\"parquet\",path=\"{path}\"}}");
    let verified = program(s3, "verify").args(["--json", "--set", &sink(&url("out/forecasts"))]).output().unwrap();
    ran(&verified);
    let told: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!((&told["complete"], &told["sinks"][0]["path"]), (&true.into(), &url("out/forecasts").into()), "{told}");
    let parity = program(s3, "parity").args(["--json", "--live", &to, "--files", &url("history/?.ndjson")]).output().unwrap();
    ran(&parity);
    let told: serde_json::Value = serde_json::from_slice(&parity.stdout).unwrap();
    assert_eq!((&told["equal"], &told["different"]), (&EVENTS.parse::<u64>().unwrap().into(), &0.into()), "{told}");
    let evaluated = |from: &str| {
        let report = folder.path().join("report.json");
        ran(&program(s3, "evaluate").args(["--json", report.to_str().unwrap(), "--from", from]).output().unwrap());
        let told: serde_json::Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
        assert_eq!(told["rejected"], 2);
        ["events", "keys", "rejected"].map(|name| told[name].to_string()).join(" ") + &told["time"]["nll"].to_string()
    };
    assert_eq!(evaluated(&from), evaluated(&local));

    let connected = program(s3, "check").args(["--connect", "--set", &sink(&url("live"))]).output().unwrap();
    assert!(text(&connected.stdout).contains(&format!("bucket {} is writable", url("live"))), "{}", text(&connected.stdout));
    assert!(!s3.objects().keys().any(|name| name.starts_with("live/")), "a check leaves nothing");

    s3.put("out/forecasts/partition-1/part-0.parquet", b"of another program");
    let verified = program(s3, "verify").args(["--set", &sink(&url("out/forecasts"))]).output().unwrap();
    assert_eq!(verified.status.code(), Some(1));
    assert!(text(&verified.stderr).contains("its name is none that meantime gives"), "{}", text(&verified.stderr));
}

#[test]
fn killed_at_any_moment_and_resumed_it_leaves_the_same_objects() {
    let s3 = Double::start("bucket");
    let folder = tempfile::tempdir().unwrap();
    history(&s3, folder.path());
    ran(&backfill(&s3, "s3://bucket/history/*.ndjson", "s3://bucket/whole").output().unwrap());
    let expected = of_bucket(&s3, "whole/");
    let mut files = Vec::new();
    for round in 0..4 {
        let to = format!("s3://bucket/out-{round}");
        let command = || backfill(&s3, "s3://bucket/history/*.ndjson", &to);
        let mut child = command().arg("--resume").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Killed when so many files are there, wherever the process is then.
        let there = || of_bucket(&s3, &format!("out-{round}/")).len();
        while there() < 1 + 3 * round && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        files.push(there());
        ran(&command().arg("--resume").output().unwrap());
        same(&expected, &of_bucket(&s3, &format!("out-{round}/")));
    }
    assert!(files.iter().any(|count| *count < expected.len()), "no kill fell before the end: {files:?}");
}

#[test]
fn what_cannot_be_reached_or_has_changed_is_told() {
    let s3 = Double::start("bucket");
    let folder = tempfile::tempdir().unwrap();
    history(&s3, folder.path());
    let from = "s3://bucket/history/*.ndjson";
    let refused = |command: &mut Command, code: i32, says: &str| {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(says), "{says}: {}", text(&output.stderr));
    };
    refused(backfill(&s3, from, "s3://bucket/out").env("AWS_ACCESS_KEY_ID", "somebody"), 78, "InvalidAccessKeyId");
    refused(&mut backfill(&s3, from, "s3://nowhere/out"), 78, "NoSuchBucket");
    refused(&mut backfill(&s3, "s3://nowhere/history/*.ndjson", "s3://bucket/out"), 78, "NoSuchBucket");
    refused(&mut backfill(&s3, "s3://bucket/history/*.parquet", "s3://bucket/out"), 78, "there is no such file");
    refused(&mut backfill(&s3, from, "abfss://bucket/out"), 2, "az://");
    refused(&mut backfill(&s3, from, "s3://bucket/history"), 78, "holds something that is no backfill");
    assert!(!s3.objects().keys().any(|name| name.starts_with("out")), "nothing was written");
    // The same bytes written anew are another object: whoever wrote it may have meant other rows.
    ran(&backfill(&s3, from, "s3://bucket/out").output().unwrap());
    let bytes = s3.objects()["history/b.ndjson"].clone();
    s3.put("history/b.ndjson", &bytes);
    refused(backfill(&s3, from, "s3://bucket/out").arg("--resume"), 78, "replaced by another of the same size");
}
