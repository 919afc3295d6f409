//! Exactly once to Parquet, on the program itself: killed at random moments, overtaken by another instance, run again.
//!
//! `MEANTIME_KILLS=200 cargo test --test it kills -- --nocapture` kills more often than the tests do by default and says how often.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::compute::{concat_batches, sort_to_indices, take_record_batch};
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use meantime::base::offset::Partition;
use meantime::link::objects::Place;
use meantime::sink::parquet::audit::{Tiles, audit};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const EVENTS: usize = 12_000;

/// A pipeline from a file of events to two folders of small Parquet files.
struct Job {
    folder: tempfile::TempDir,
    /// Records in the file.
    records: i64,
    /// `[sink] layout`.
    layout: &'static str,
    /// Whether a second model is run in shadow, to a folder of its own.
    shadow: bool,
}

impl Job {
    /// Events as generated, but for some that are out of order, late or malformed: there are held events and dead letters of two kinds.
    fn new() -> Job {
        Job::with_layout("partition")
    }

    fn with_layout(layout: &'static str) -> Job {
        let folder = tempfile::tempdir().unwrap();
        let events = folder.path().join("generated.ndjson");
        let (count, path) = (EVENTS.to_string(), events.to_str().unwrap());
        let output = Command::new(env!("CARGO_BIN_EXE_meantime"))
            .args(["generate", pipeline().to_str().unwrap(), "--events", &count, "--keys", "60", "--to", "file", "--out", path])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let mut lines: Vec<String> = std::fs::read_to_string(&events).unwrap().lines().map(str::to_owned).collect();
        for i in (0..lines.len() - 700).step_by(53) {
            let late = lines.remove(i);
            lines.insert(i + if i % 2 == 0 { 4 } else { 600 }, late);
        }
        for i in (0..lines.len()).step_by(97) {
            lines.insert(i, format!("not JSON {i}"));
        }
        std::fs::write(folder.path().join("events.ndjson"), lines.join("\n") + "\n").unwrap();
        let model = folder.path().join("model-2");
        std::fs::create_dir(&model).unwrap();
        for name in ["model.onnx", "features.toml"] {
            std::fs::copy(pipeline().join("model").join(name), model.join(name)).unwrap();
        }
        let manifest = std::fs::read_to_string(pipeline().join("model/model.toml")).unwrap();
        std::fs::write(model.join("model.toml"), manifest.replace("version = \"1\"", "version = \"2\"")).unwrap();
        Job { records: i64::try_from(lines.len()).unwrap(), folder, layout, shadow: false }
    }

    /// The program with the pipeline as arguments, writing below `out`.
    fn command(&self, command: &str, out: &str) -> Command {
        let (folder, layout) = (self.folder.path().display(), self.layout);
        let mut program = Command::new(env!("CARGO_BIN_EXE_meantime"));
        program.args([command, pipeline().to_str().unwrap()]);
        for set in [
            format!("source={{kind=\"file\",paths=[\"{folder}/events.ndjson\"]}}"),
            "order.lateness=30m".to_owned(),
            "order.late=dead_letter".to_owned(),
            format!(
                "sink={{kind=\"parquet\",path=\"{folder}/{out}/forecasts\",layout=\"{layout}\",roll_size=\"64KiB\",roll_every=\"10ms\",commit_every=\"2ms\"}}"
            ),
            // Other times than the forecasts': dead letters are also published between their files.
            format!("dead_letter={{kind=\"parquet\",path=\"{folder}/{out}/dead\",roll_every=\"14ms\",max_bad_ratio=0.5}}"),
            "run={lanes=1,max_batch=48}".to_owned(),
        ] {
            program.args(["--set", &set]);
        }
        if self.shadow {
            program.args(["--set", &format!("shadow={{model=\"{folder}/model-2\",path=\"{folder}/{out}/next\"}}")]);
        }
        program.stdout(Stdio::piped()).stderr(Stdio::piped());
        program
    }

    fn start(&self, out: &str) -> Child {
        self.command("run", out).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn run(&self, out: &str) -> Output {
        self.command("run", out).output().unwrap()
    }

    fn path(&self, out: &str, of: &str) -> PathBuf {
        self.folder.path().join(out).join(of)
    }

    /// What the files of partition 0 are about, after the audit has found no fault. Without a folder, nothing.
    fn tiles(&self, out: &str, of: &str) -> Tiles {
        let path = self.path(out, of);
        if !path.exists() {
            return Tiles::default();
        }
        let found = audit(&Place::Folder(path)).unwrap();
        assert_eq!(found.faults, [], "{of}");
        found.partitions.get(&Partition(0)).cloned().unwrap_or_default()
    }

    /// Rows of forecasts and of dead letters, each by offset.
    fn rows(&self, out: &str) -> [RecordBatch; 2] {
        ["forecasts", "dead"].map(|of| rows(&self.path(out, of)))
    }

    /// Names of all files below `out`.
    fn names(&self, out: &str) -> Vec<PathBuf> {
        let mut names: Vec<PathBuf> = ["forecasts", "dead"]
            .iter()
            .flat_map(|of| std::fs::read_dir(self.path(out, of).join("partition-0")).unwrap())
            .map(|entry| entry.unwrap().path())
            .collect();
        names.sort();
        names
    }

    /// Holds the finished output against an undisturbed run: the audit of the program is content, and every column has the same bits.
    fn compare(&self, out: &str, undisturbed: &[RecordBatch; 2]) {
        let verified = self.command("verify", out).arg("--json").output().unwrap();
        assert!(verified.status.success(), "{}", text(&verified.stderr));
        let said: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
        let forecasts = &said["sinks"][0]["partitions"][0];
        assert_eq!((&said["complete"], &forecasts["from"], &forecasts["to"]), (&true.into(), &0.into(), &self.records.into()), "{said}");
        for (found, expected) in self.rows(out).iter().zip(undisturbed) {
            assert_eq!(found.num_rows(), expected.num_rows(), "rows were lost, or are there twice");
            for (i, field) in expected.schema().fields().iter().enumerate() {
                assert_eq!(found.column(i).to_data(), expected.column(i).to_data(), "column {}", field.name());
            }
        }
    }
}

fn pipeline() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/cards")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Rows of partition 0, which is the only one.
fn rows(folder: &Path) -> RecordBatch {
    let mut batches = Vec::new();
    let mut schema = None;
    let paths = ["partition-0/from=*", "event_date=*/*"].map(|of| glob::glob(&format!("{}/{of}.parquet", folder.display())).unwrap());
    for path in paths.into_iter().flatten().map(Result::unwrap) {
        let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
        schema = Some(builder.schema().clone());
        batches.extend(builder.build().unwrap().map(Result::unwrap));
    }
    let all = concat_batches(&schema.unwrap(), &batches).unwrap();
    let order = sort_to_indices(all.column_by_name("offset").unwrap(), None, None).unwrap();
    take_record_batch(&all, &order).unwrap()
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn killed_at_any_moment_and_started_again_it_writes_every_row_once() {
    killed(&Job::new());
}

#[test]
fn by_date_too_killed_at_any_moment_and_started_again_it_writes_every_row_once() {
    killed(&Job::with_layout("date"));
}

fn killed(job: &Job) {
    let kills: u32 = std::env::var("MEANTIME_KILLS").map_or(20, |text| text.parse().unwrap()).min(200);
    let started = Instant::now();
    let output = job.run("whole");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let longest = started.elapsed();
    let undisturbed = job.rows("whole");
    let records = usize::try_from(job.records).unwrap();
    assert_eq!(undisturbed[0].num_rows() + undisturbed[1].num_rows(), records, "a record is a forecast or a dead letter");
    let mut reasons: Vec<&str> = undisturbed[1].column_by_name("reason").unwrap().as_string::<i32>().iter().flatten().collect();
    reasons.sort_unstable();
    reasons.dedup();
    assert_eq!(reasons, ["late", "malformed"]);
    let offsets = undisturbed[0].column_by_name("offset").unwrap().as_primitive::<Int64Type>().values();
    assert!(offsets.windows(2).all(|pair| pair[0] < pair[1]));
    job.compare("whole", &undisturbed);

    let mut draw = ChaCha8Rng::seed_from_u64(4);
    // Killed; of these, how many left unfinished files, and how many dead letters further than the forecasts.
    let (mut killed, mut unfinished, mut between, mut rounds) = (0, 0, 0, 0);
    while killed < kills {
        let out = format!("round-{rounds}");
        rounds += 1;
        loop {
            let mut child = job.start(&out);
            // The first run had to share the machine with other tests, too: half its time leaves most runs something to do.
            sleep(draw.random_range(Duration::ZERO..longest / 2));
            let ended = if killed < kills { child.try_wait().unwrap() } else { Some(child.wait().unwrap()) };
            if let Some(status) = ended {
                assert!(status.success(), "{status}");
                break;
            }
            // SIGKILL.
            child.kill().unwrap();
            if child.wait().unwrap().success() {
                break;
            }
            killed += 1;
            let (forecasts, dead) = (job.tiles(&out, "forecasts"), job.tiles(&out, "dead"));
            unfinished += u64::from(forecasts.unfinished + dead.unfinished > 0);
            between += u64::from(dead.range > forecasts.range);
        }
        job.compare(&out, &undisturbed);
        let hidden = job.tiles(&out, "forecasts").unfinished + job.tiles(&out, "dead").unfinished;
        assert_eq!(hidden, 0, "what the dead left is removed");
    }
    println!(
        "{killed} kills in {rounds} rounds of {records} records: {unfinished} left unfinished files, {between} dead letters without their forecasts"
    );
    assert!(unfinished > 0, "no kill came while something was written");
}

#[test]
fn a_shadow_that_is_killed_at_any_moment_writes_every_row_once_and_changes_nothing_of_the_first_model() {
    let mut job = Job::new();
    assert!(job.run("plain").status.success());
    let plain = job.rows("plain");
    job.shadow = true;
    let started = Instant::now();
    let output = job.run("whole");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let longest = started.elapsed();
    job.compare("whole", &plain);
    let next = |out: &str| rows(&job.path(out, "next"));
    let expected = next("whole");
    assert_eq!(expected.num_rows(), plain[0].num_rows());
    let mut draw = ChaCha8Rng::seed_from_u64(5);
    let (mut killed, mut behind, mut rounds) = (0, 0, 0);
    while killed < 12 {
        let out = format!("round-{rounds}");
        rounds += 1;
        loop {
            let mut child = job.start(&out);
            sleep(draw.random_range(Duration::ZERO..longest / 2));
            if let Some(status) = if killed < 12 { child.try_wait().unwrap() } else { Some(child.wait().unwrap()) } {
                assert!(status.success(), "{status}");
                break;
            }
            child.kill().unwrap();
            if child.wait().unwrap().success() {
                break;
            }
            killed += 1;
            let (first, shadow) =
                (job.tiles(&out, "forecasts").range.map_or(0, |(_, to)| to.0), job.tiles(&out, "next").range.map_or(0, |(_, to)| to.0));
            assert!(shadow <= first, "the shadow's files say more than the others: {shadow} {first}");
            behind += u32::from(shadow < first);
        }
        job.compare(&out, &plain);
        let found = next(&out);
        assert_eq!(found.num_rows(), expected.num_rows(), "rows were lost, or are there twice");
        assert!(found.columns() == expected.columns());
    }
    println!("{killed} kills in {rounds} rounds: {behind} between the files of the two models");
}

#[test]
fn an_instance_that_was_overtaken_while_it_was_stopped_ends_without_harm() {
    overtaken(&Job::new());
}

#[test]
fn by_date_too_an_instance_that_was_overtaken_while_it_was_stopped_ends_without_harm() {
    overtaken(&Job::with_layout("date"));
}

fn overtaken(job: &Job) {
    assert!(job.run("whole").status.success());
    let undisturbed = job.rows("whole");
    let mut overtaken = 0;
    for round in 0..3 {
        let out = format!("round-{round}");
        let mut zombie = job.start(&out);
        while job.tiles(&out, "forecasts").files == 0 && zombie.try_wait().unwrap().is_none() {
            sleep(Duration::from_millis(1));
        }
        signal(&zombie, "-STOP");
        let heir = job.run(&out);
        assert!(heir.status.success(), "{}", text(&heir.stderr));
        signal(&zombie, "-CONT");
        let status = zombie.wait().unwrap();
        assert!(status.success() || status.code() == Some(75), "{status}");
        overtaken += u32::from(!status.success());
        job.compare(&out, &undisturbed);
    }
    assert!(overtaken > 0, "each time it had already written everything");
}

#[test]
fn a_second_run_over_the_same_records_adds_nothing_and_other_records_are_refused() {
    let job = Job::new();
    assert!(job.run("out").status.success());
    let names = job.names("out");
    let output = job.run("out");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(job.names("out"), names);
    // More records: it goes on where it was.
    let events = job.folder.path().join("events.ndjson");
    let lines = std::fs::read_to_string(&events).unwrap();
    let last = lines.lines().last().unwrap();
    std::fs::write(&events, format!("{lines}{last}\n")).unwrap();
    assert!(job.run("out").status.success());
    assert_eq!(job.tiles("out", "forecasts").range.unwrap().1.0, job.records + 1);
    let names = job.names("out");
    // Fewer, or others.
    let fewer: String = lines.lines().take(500).map(|line| format!("{line}\n")).collect();
    for (text_of_file, why) in [(fewer, "end at record 500"), (lines.replace(last, "{}") + "{}\n", "is another one now")] {
        std::fs::write(&events, text_of_file).unwrap();
        let output = job.run("out");
        assert_eq!(output.status.code(), Some(78), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(why), "{}", text(&output.stderr));
        assert_eq!(job.names("out"), names);
    }
}

#[test]
fn verify_says_what_is_there_and_fails_with_the_first_place_that_is_wrong() {
    let job = Job::new();
    let verify = || job.command("verify", "out").output().unwrap();
    assert_eq!(verify().status.code(), Some(78), "nothing has been run yet");
    assert!(job.run("out").status.success());
    let fine = verify();
    assert!(fine.status.success(), "{}", text(&fine.stderr));
    assert!(text(&fine.stdout).matches("complete: the files tile their records").count() == 2, "{}", text(&fine.stdout));
    let names = job.names("out");
    let middle = names.iter().filter(|path| path.starts_with(job.path("out", "forecasts"))).nth(1).unwrap();
    std::fs::remove_file(middle).unwrap();
    std::fs::write(job.path("out", "forecasts").join("_SUCCESS"), "").unwrap();
    let broken = verify();
    assert_eq!(broken.status.code(), Some(1));
    let said = text(&broken.stderr);
    assert!(said.contains("foreign: ") && said.contains("_SUCCESS") && said.contains("1 more"), "{said}");
    assert!(text(&broken.stdout).contains("hole: partition 0, records "), "{}", text(&broken.stdout));
}
