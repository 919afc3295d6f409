//! The Delta log that a backfill writes, read by an implementation that knows nothing of meantime.
//!
//! Needs a Python with the package `deltalake` (1.x), named by `MEANTIME_DELTA`; without it the test says that it is left out.

use std::path::Path;
use std::process::{Command, Stdio};

/// Prints, of the table in the folder that is named first: rows, different positions, files, and each application's version.
const READ: &str = r#"
import os, sys, json, pyarrow as pa, pyarrow.dataset, deltalake
table = deltalake.DeltaTable(sys.argv[1])
rows = pa.table(table.to_pyarrow_table(columns=["partition", "offset", "event_time"])) if hasattr(table, "to_pyarrow_table") else None
places = set(zip(rows["partition"].to_pylist(), rows["offset"].to_pylist()))
apps = {app: table.transaction_version(app) for app in sys.argv[2:]}
by = table.metadata().partition_columns
pruned = []
if by:
    day = table.to_pyarrow_table(columns=by)[by[0]][0]
    part = table.to_pyarrow_dataset().to_table(filter=pyarrow.dataset.field(by[0]) == day)
    pruned = [part.num_rows, sum(time.date() == day.as_py() for time in rows["event_time"].to_pylist())]
print(json.dumps({"by": by, "pruned": pruned, "rows": rows.num_rows, "places": len(places), "files": len(table.file_uris()), "apps": apps,
                  "time": str(rows.schema.field("event_time").type)}))
if len(sys.argv) > 2:
    table.optimize.compact()
    print(deltalake.DeltaTable(sys.argv[1]).to_pyarrow_table(columns=["offset"]).num_rows)
    table.create_checkpoint()
# All has been read and written. What threads of these packages do while the interpreter is taken down is not what is tested: it aborts at times.
sys.stdout.flush()
os._exit(0)
"#;

fn meantime(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meantime"));
    let pipeline = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/cards");
    command.arg(arguments[0]).arg(pipeline).args(&arguments[1..]);
    command
}

#[test]
fn another_implementation_reads_what_a_backfill_noted_after_kills_and_goes_on_with_it() {
    let Some(python) = std::env::var_os("MEANTIME_DELTA").filter(|python| !python.is_empty()) else {
        eprintln!("LEFT OUT: MEANTIME_DELTA names no Python with the package deltalake");
        return;
    };
    for layout in ["partition", "date"] {
        read_by_another(&python, layout);
    }
}

fn read_by_another(python: &std::ffi::OsStr, layout: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (events, out, forecasts) = (path("events.parquet"), path("out"), path("out/forecasts"));
    assert!(meantime(&["generate", "--events", "20000", "--keys", "300", "--to", "file", "--out", &events]).status().unwrap().success());
    let run = || {
        let mut command =
            meantime(&["backfill", "--from", &events, "--to", &out, "--shards", "3", "--rows-per-file", "1000", "--delta", "--resume"]);
        command.args(["--set", "run.lanes=3", "--layout", layout]);
        command
    };
    // Killed when so many files are there, on three lanes that commit to one log.
    let there = || {
        let files = |of: &str| glob::glob(&format!("{forecasts}/{of}.parquet")).unwrap().count();
        files("partition-*/from=*") + files("event_date=*/partition-*")
    };
    for files in [1, 4, 7] {
        let mut child = run().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while there() < files && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let ended = run().output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let read = |apps: &[&str]| {
        let output = Command::new(python).args(["-c", READ, &forecasts]).args(apps).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let mut lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        (lines.next().unwrap(), lines.next())
    };
    let (told, compacted) = read(&["meantime/cards/partition-0", "meantime/cards/partition-1", "meantime/cards/partition-2"]);
    assert_eq!((&told["rows"], &told["places"], &told["files"]), (&20_000.into(), &20_000.into(), &there().into()), "{told}");
    if layout == "date" {
        assert_eq!(told["by"], serde_json::json!(["event_date"]));
        assert!(
            told["pruned"][0] == told["pruned"][1] && told["pruned"][0].as_u64().is_some_and(|rows| rows > 0 && rows < 20_000),
            "{told}"
        );
    }
    let versions: i64 = told["apps"].as_object().unwrap().values().map(|version| version.as_i64().unwrap()).sum();
    assert_eq!(versions, 20_000, "together the applications have come to the last record");
    assert!(told["time"].as_str().unwrap().contains("timestamp[us, tz=UTC]"), "{told}");
    assert_eq!(compacted, Some(20_000.into()));
    // The table was rewritten and has a checkpoint; our files are noted still, and not once more.
    let again = run().output().unwrap();
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(read(&[]).0["rows"], 20_000);
}
