//! Live runs into a bucket: killed, overtaken, run again; their files as a table of Delta Lake.

use std::process::Child;

use arrow::array::RecordBatch;
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use super::double::Dialect;
use super::*;

/// A pipeline from a file of events to small files.
struct Job<'a> {
    double: &'a Double,
    folder: tempfile::TempDir,
    /// Records in the file.
    records: i64,
}

impl<'a> Job<'a> {
    fn new(double: &'a Double) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let events = folder.path().join("generated.ndjson");
        generate(double, &events);
        let text = std::fs::read_to_string(&events).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        (0..lines.len()).step_by(97).for_each(|i| lines.insert(i, "not JSON"));
        std::fs::write(folder.path().join("events.ndjson"), lines.join("\n") + "\n").unwrap();
        Job { double, folder, records: i64::try_from(lines.len()).unwrap() }
    }

    /// The program with everything of it below `to`.
    fn command(&self, command: &str, to: &str) -> Command {
        let folder = self.folder.path().display();
        let mut program = program(self.double, command);
        for set in [
            format!("source={{kind=\"file\",paths=[\"{folder}/events.ndjson\"]}}"),
            format!(
                "sink={{kind=\"parquet\",path=\"{to}/forecasts\",roll_size=\"256KiB\",roll_every=\"200ms\",commit_every=\"2ms\",delta=true}}"
            ),
            format!("dead_letter={{kind=\"parquet\",path=\"{to}/dead\",roll_every=\"300ms\",max_bad_ratio=0.5}}"),
            format!("state.snapshots=\"{to}/state\""),
            "state.snapshot_every=\"1s\"".to_owned(),
            "run={lanes=1,max_batch=64}".to_owned(),
        ] {
            program.args(["--set", &set]);
        }
        program
    }

    fn start(&self, to: &str) -> Child {
        self.command("run", to).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// The audit of the program is content, each file is noted once, and every column has the bits of the folder.
    fn compare(&self, url: &str, name: &str, folder: &Path) {
        let verified = self.command("verify", &format!("{url}/{name}")).arg("--json").output().unwrap();
        ran(&verified);
        let told: Value = serde_json::from_slice(&verified.stdout).unwrap();
        let forecasts = &told["sinks"][0]["partitions"][0];
        assert_eq!((&told["complete"], &forecasts["from"], &forecasts["to"]), (&true.into(), &0.into(), &self.records.into()), "{told}");
        let files = of_bucket(self.double, &format!("{name}/"));
        for of in ["forecasts/", "dead/"] {
            let (found, expected) = (rows(&files, of), rows(&of_folder(folder), of));
            assert_eq!(found.num_rows(), expected.num_rows(), "{of}: rows were lost, or are there twice");
            for (i, field) in expected.schema().fields().iter().enumerate() {
                assert_eq!(found.column(i).to_data(), expected.column(i).to_data(), "{of} {}", field.name());
            }
        }
        self.noted(name, &files);
    }

    /// The table has each file of forecasts once, and the partition is noted up to its end.
    fn noted(&self, name: &str, files: &BTreeMap<String, Vec<u8>>) {
        let (mut added, mut versions) = (Vec::new(), BTreeMap::new());
        for (object, bytes) in self.double.objects() {
            if !(object.starts_with(&format!("{name}/forecasts/_delta_log/")) && object.ends_with(".json")) {
                continue;
            }
            for action in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let action: Value = serde_json::from_slice(action).unwrap();
                if let Some(path) = action["add"]["path"].as_str() {
                    added.push(format!("forecasts/{}", path.replace("%3D", "=")));
                }
                if let Some(application) = action["txn"]["appId"].as_str() {
                    versions.insert(application.to_owned(), action["txn"]["version"].as_i64().unwrap());
                }
            }
        }
        added.sort();
        let there: Vec<&String> = files.keys().filter(|name| name.starts_with("forecasts/")).collect();
        assert_eq!(added.iter().collect::<Vec<_>>(), there);
        assert_eq!(versions.into_iter().collect::<Vec<_>>(), [("meantime/cards/partition-0".to_owned(), self.records)]);
    }
}

/// The rows of the files below a folder, by partition and offset.
fn rows(files: &BTreeMap<String, Vec<u8>>, below: &str) -> RecordBatch {
    let mut batches = Vec::new();
    for (_, bytes) in files.iter().filter(|(name, _)| name.starts_with(below)) {
        let builder = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes.clone())).unwrap();
        batches.extend(builder.build().unwrap().map(Result::unwrap));
    }
    let all = concat_batches(&batches[0].schema(), &batches).unwrap();
    let by = ["partition", "offset"].map(|name| SortColumn { values: all.column_by_name(name).unwrap().clone(), options: None });
    take_record_batch(&all, &lexsort_to_indices(&by, None).unwrap()).unwrap()
}

fn count(double: &Double, name: &str) -> usize {
    of_bucket(double, &format!("{name}/forecasts/")).len()
}

#[test]
fn a_live_run_that_is_killed_leaves_every_row_and_every_note_of_the_table_once() {
    let mut killed = 0;
    for (round, dialect) in Dialect::ALL.into_iter().enumerate() {
        let double = Double::speaking(dialect, "bucket");
        let (job, url) = (Job::new(&double), format!("{}://bucket", dialect.scheme()));
        let (whole, to) = (job.folder.path().join("whole"), format!("{url}/live"));
        ran(&job.command("run", whole.to_str().unwrap()).output().unwrap());
        for files in [1, 2 + 2 * round, 5 + 3 * round] {
            let mut child = job.start(&to);
            while count(&double, "live") < files && child.try_wait().unwrap().is_none() {
                std::thread::yield_now();
            }
            child.kill().unwrap();
            killed += usize::from(!child.wait().unwrap().success());
        }
        double.fail("PUT", Fault::DoneThenGone);
        double.fail("PUT", Fault::DoneThenBusy);
        ran(&job.command("run", &to).output().unwrap());
        job.compare(&url, "live", &whole);
        // Once more there is nothing to do.
        let files = count(&double, "live");
        ran(&job.command("run", &to).output().unwrap());
        assert_eq!(count(&double, "live"), files);
        job.compare(&url, "live", &whole);
    }
    assert!(killed > 4, "only {killed} were killed");
}

#[test]
fn an_instance_that_was_overtaken_in_a_bucket_ends_without_harm() {
    let mut overtaken = 0;
    for dialect in Dialect::ALL {
        let double = Double::speaking(dialect, "bucket");
        let (job, url) = (Job::new(&double), format!("{}://bucket", dialect.scheme()));
        let (whole, to) = (job.folder.path().join("whole"), format!("{url}/live"));
        ran(&job.command("run", whole.to_str().unwrap()).output().unwrap());
        let mut zombie = job.start(&to);
        while count(&double, "live") < 1 && zombie.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        let signal = |name: &str| assert!(Command::new("kill").args([name, &zombie.id().to_string()]).status().unwrap().success());
        signal("-STOP");
        ran(&job.command("run", &to).output().unwrap());
        signal("-CONT");
        let status = zombie.wait().unwrap();
        assert!(status.success() || status.code() == Some(75), "{status}");
        overtaken += u32::from(!status.success());
        job.compare(&url, "live", &whole);
    }
    assert!(overtaken > 0, "each time it had already written everything");
}
