use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ConvertedType, LogicalType, TimeUnit as StoredUnit};

use super::*;
use crate::base::error::{Error, Kind};
use crate::base::time::EventTime;
use crate::data::commit::{LastRecord, Note, Tick};
use crate::data::rejected::Reason;
use crate::sink::contract::{self, commits, sample};
use parquet::file::metadata::KeyValue;

use super::local::{self, Local};
use super::target::Temporary;

const HOUR: Duration = Duration::from_secs(3600);

fn pace(roll_bytes: u64, roll_every: Duration) -> Pace {
    Pace { roll_bytes, roll_every, lane: 0 }
}

fn local(path: &Path) -> Box<dyn Target> {
    Box::new(Local::open(path).unwrap())
}

fn open(path: &Path, roll_bytes: u64, roll_every: Duration, forecasts: &Forecasts) -> ParquetForecasts {
    let layout = Layout::full(&forecasts.identity, true, true, true);
    ParquetForecasts::over(local(path), pace(roll_bytes, roll_every), &layout, &forecasts.identity)
}

/// As a lane does: recovers partitions 0.. and begins where the files have come to.
fn take_over(sink: &mut dyn Sink, partitions: i32) -> Vec<Option<Commit>> {
    let recover = |partition| {
        let found = sink.recover(partition).unwrap();
        sink.begin(partition, found.as_ref().map_or(Offset(0), |commit| commit.next)).unwrap();
        found
    };
    (0..partitions).map(Partition).map(recover).collect()
}

/// Rows of partition 0 with the given offsets.
fn rows(offsets: impl IntoIterator<Item = i64>) -> Forecasts {
    let offsets: Vec<Offset> = offsets.into_iter().map(Offset).collect();
    let mut forecasts = sample(offsets.len(), 1);
    forecasts.offsets = offsets;
    forecasts
}

/// A sink over partition 0 that was taken over, with files closed at every epoch's end that is forced.
fn running(path: &Path) -> ParquetForecasts {
    let mut sink = open(path, u64::MAX, HOUR, &sample(1, 1));
    take_over(&mut sink, 1);
    sink
}

/// A note in the footer of a file.
fn noted(path: &Path, key: &str) -> Option<String> {
    let metadata = local::footer(path).unwrap().unwrap();
    let notes = metadata.file_metadata().key_value_metadata().cloned().unwrap_or_default();
    notes.into_iter().find(|note| note.key == format!("meantime.{key}")).and_then(|note| note.value)
}

fn offsets(path: PathBuf) -> Vec<i64> {
    read(path).column_by_name("offset").unwrap().as_primitive::<Int64Type>().values().to_vec()
}

fn first(from: i64) -> String {
    format!("partition-0/from={from:020}.parquet")
}

fn audited(path: &Path) -> Result<audit::Audit> {
    audit::audit(&Place::Folder(path.to_owned()))
}

fn faults(path: &Path) -> Vec<String> {
    audited(path).unwrap().faults.iter().map(|fault| fault.code().to_owned()).collect()
}

/// Every file below a folder, hidden ones too, as paths from it.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()).into_iter().map(|inner| format!("{name}/{inner}")));
        } else {
            found.push(name);
        }
    }
    found.sort();
    found
}

fn read(path: PathBuf) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
    let batches: Vec<_> = reader.map(|batch| batch.unwrap()).collect();
    assert_eq!(batches.len(), 1);
    batches[0].clone()
}

#[test]
fn the_footer_of_a_file_is_the_commit_that_it_made_visible() {
    let folder = tempfile::tempdir().unwrap();
    let forecasts = sample(10, 2);
    let mut sink = open(folder.path(), u64::MAX, HOUR, &forecasts);
    assert_eq!(take_over(&mut sink, 2), [None, None]);
    sink.write(&forecasts).unwrap();
    let note = Note {
        shadow: None,
        fingerprint: "f00d".to_owned(),
        last: Some(LastRecord { offset: Offset(11), checksum: 7 }),
        ticks: vec![Tick { at: Offset(9), time: EventTime(5) }],
        dropped: None,
    };
    let epoch: Commits = (0..2).map(|p| (Partition(p), Commit { next: Offset(12), note: note.clone() })).collect();
    assert!(!sink.end_epoch(&epoch, false).unwrap());
    assert_eq!((sink.written(), sink.durable().unwrap()), (10, 0));
    assert!(files(folder.path()).iter().all(|name| name.contains("/.from=") && !name.ends_with(".parquet")), "only hidden names so far");
    assert_eq!(open(folder.path(), 1, HOUR, &forecasts).recover(Partition(0)).unwrap(), None, "what has no name is not committed");
    assert!(sink.end_epoch(&epoch, true).unwrap());
    assert_eq!(sink.durable().unwrap(), 10);
    let names = ["partition-0/from=00000000000000000000.parquet", "partition-1/from=00000000000000000000.parquet"];
    assert_eq!(files(folder.path()), names);
    let notes = ["format", "from", "to", "note"].map(|key| noted(&folder.path().join(names[1]), key).unwrap());
    assert_eq!(notes, ["2", "0", "12", &note.to_string()]);
    let mut next = open(folder.path(), 1, HOUR, &forecasts);
    assert_eq!(next.recover(Partition(1)).unwrap(), Some(Commit { next: Offset(12), note }));
    assert_eq!(next.recover(Partition(7)).unwrap(), None);
}

#[test]
fn files_tile_the_records_whatever_rows_they_brought_about() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = running(folder.path());
    // Held events are released later than their records were taken in.
    sink.write(&rows([3, 1])).unwrap();
    sink.end_epoch(&commits(1, 6), true).unwrap();
    sink.write(&rows([2, 7, 4])).unwrap();
    sink.end_epoch(&commits(1, 8), true).unwrap();
    // Records without rows are done, too; nothing new is no file.
    sink.end_epoch(&commits(1, 20), false).unwrap();
    assert_eq!(files(folder.path()).len(), 2, "neither due nor forced");
    sink.end_epoch(&commits(1, 20), true).unwrap();
    sink.end_epoch(&commits(1, 20), true).unwrap();
    // The end of the input releases what was held; no record came, so the file begins where the last one ended, and the next one too.
    for row in [5, 6] {
        sink.write(&rows([row])).unwrap();
        sink.end_epoch(&commits(1, 20), true).unwrap();
    }
    sink.write(&rows([20])).unwrap();
    sink.end_epoch(&commits(1, 21), true).unwrap();
    sink.close().unwrap();
    let step = |step: u32| format!("partition-0/from={:020}.{step:05}.parquet", 20);
    let names = [first(0), first(6), first(8), step(1), step(2), first(20)];
    assert_eq!(files(folder.path()), names);
    let held: Vec<Vec<i64>> = [0, 1, 5, 3, 4].map(|i| offsets(folder.path().join(&names[i]))).into();
    assert_eq!(held, [vec![3, 1], vec![2, 7, 4], vec![5], vec![6], vec![20]]);
    let found = audited(folder.path()).unwrap();
    assert_eq!(found.faults, []);
    let tiles = &found.partitions[&Partition(0)];
    assert_eq!((tiles.files, tiles.without_rows, tiles.rows, tiles.range), (6, 1, 8, Some((Offset(0), Offset(21)))));
    let mut next = open(folder.path(), u64::MAX, HOUR, &sample(1, 1));
    assert_eq!(take_over(&mut next, 1), [Some(Commit::at(Offset(21)))]);
    next.write(&rows([22])).unwrap();
    next.end_epoch(&commits(1, 30), true).unwrap();
    assert_eq!(files(folder.path()).last().unwrap(), &first(21));
}

#[test]
fn all_files_are_closed_together_when_one_is_large_or_old_enough() {
    for (roll_bytes, roll_every) in [(u64::MAX, Duration::ZERO), (1, HOUR)] {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = open(folder.path(), roll_bytes, roll_every, &sample(1, 1));
        take_over(&mut sink, 4);
        assert!(!sink.due());
        for start in [0, 100] {
            let mut forecasts = sample(6, 3);
            forecasts.offsets.iter_mut().for_each(|offset| offset.0 += start);
            sink.write(&forecasts).unwrap();
            assert!(sink.due());
            assert!(sink.end_epoch(&commits(4, start + 100), false).unwrap());
            assert!(!sink.due());
        }
        let found = files(folder.path());
        assert_eq!(found.len(), 8, "{found:?}");
        assert!(found.iter().all(|name| name.ends_with(".parquet")), "{found:?}");
    }
}

#[test]
fn records_without_rows_become_due_by_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = open(folder.path(), u64::MAX, Duration::ZERO, &sample(1, 1));
    take_over(&mut sink, 1);
    // Never in an epoch that was not announced: what has to be durable before would not be.
    assert!(!sink.due());
    assert!(sink.end_epoch(&commits(1, 5), false).unwrap());
    assert_eq!(files(folder.path()), Vec::<String>::new());
    assert!(sink.due());
    assert!(sink.end_epoch(&commits(1, 5), false).unwrap());
    assert_eq!(files(folder.path()), [first(0)]);
    assert_eq!(noted(&folder.path().join(first(0)), "to").unwrap(), "5");
}

#[test]
fn of_two_writers_of_a_partition_the_second_to_publish_stops_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut zombie = running(folder.path());
    zombie.write(&rows([0, 1, 2])).unwrap();
    let mut heir = running(folder.path());
    heir.write(&rows([0, 1])).unwrap();
    heir.end_epoch(&commits(1, 2), true).unwrap();
    heir.write(&rows([2, 3])).unwrap();
    heir.end_epoch(&commits(1, 4), true).unwrap();
    let mut published = files(folder.path());
    published.retain(|name| !name.contains("/."));
    let error = zombie.end_epoch(&commits(1, 3), true).unwrap_err();
    assert_eq!(error.kind, Kind::Retry);
    assert!(error.to_string().contains("another instance") && error.to_string().contains(&first(0)), "{error}");
    assert_eq!(zombie.durable().unwrap(), 0);
    assert!(zombie.end_epoch(&commits(1, 3), true).is_err(), "after an error nothing of it gets a name, not even an empty file");
    zombie.close().unwrap();
    assert_eq!(files(folder.path()), published);
    assert_eq!(offsets(folder.path().join(first(0))), [0, 1]);
    // Once started again it goes on where the other has come to.
    assert_eq!(take_over(&mut open(folder.path(), 1, HOUR, &sample(1, 1)), 1), [Some(Commit::at(Offset(4)))]);
}

#[test]
fn a_writer_whose_temporary_file_was_swept_away_stops() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = running(folder.path());
    sink.write(&rows([0])).unwrap();
    fs::remove_file(folder.path().join(files(folder.path()).remove(0))).unwrap();
    assert_eq!(sink.end_epoch(&commits(1, 1), true).unwrap_err().kind, Kind::Unavailable);
    assert_eq!(files(folder.path()), Vec::<String>::new());
}

#[test]
fn rows_after_the_last_epoch_are_thrown_away_by_release_and_close() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = running(folder.path());
    sink.write(&rows([0])).unwrap();
    sink.end_epoch(&commits(1, 1), true).unwrap();
    sink.write(&rows([1])).unwrap();
    sink.release(Partition(0)).unwrap();
    assert!(sink.write(&rows([2])).is_err(), "the partition is another lane's now");
    sink.close().unwrap();
    let mut sink = running(folder.path());
    sink.write(&rows([1, 2])).unwrap();
    sink.close().unwrap();
    assert_eq!(files(folder.path()), [first(0)]);
}

/// Dead letters of partition 0.
fn letters(offsets: impl IntoIterator<Item = i64>) -> Rejected {
    let mut rejected = Rejected::default();
    for offset in offsets {
        rejected.push((Partition(0), Offset(offset)), Reason::Malformed, "x", None, Some(format!("{offset}").as_bytes()));
    }
    rejected
}

#[test]
fn after_a_crash_between_dead_letters_and_forecasts_no_dead_letter_comes_twice() {
    let folder = tempfile::tempdir().unwrap();
    let start = |from: i64| {
        let mut sink = ParquetDeadLetters::over(local(folder.path()), pace(u64::MAX, HOUR), "cards");
        sink.recover(Partition(0)).unwrap();
        sink.begin(Partition(0), Offset(from)).unwrap();
        sink
    };
    let mut sink = start(0);
    sink.write(&letters([2])).unwrap();
    sink.end_epoch(&commits(1, 10), true).unwrap();
    // The forecasts of [0, 10) are there as well. No dead letters among the next ten records: no file.
    sink.end_epoch(&commits(1, 20), true).unwrap();
    // Records up to 30 were taken in: 25 was malformed, and held event 15 turned out to be late. Then the process died, the forecasts' commit is 20.
    sink.write(&letters([25, 15])).unwrap();
    sink.end_epoch(&commits(1, 30), true).unwrap();
    drop(sink);
    // The same records again, cut into other batches, and then new ones; event 18 turns out to be late only now.
    let mut sink = start(20);
    sink.write(&letters([25])).unwrap();
    sink.end_epoch(&commits(1, 27), true).unwrap();
    assert_eq!((sink.written(), sink.durable().unwrap()), (1, 1), "what was dropped is durable: it has been since before the crash");
    sink.write(&letters([15, 33, 18])).unwrap();
    assert!(sink.end_epoch(&commits(1, 40), true).unwrap());
    assert_eq!((sink.written(), sink.durable().unwrap()), (4, 4));
    assert_eq!(files(folder.path()), [first(0), first(10), first(30)]);
    let all: Vec<Vec<i64>> = [0, 10, 30].map(|from| offsets(folder.path().join(first(from)))).into();
    assert_eq!(all, [vec![2], vec![25, 15], vec![33, 18]]);
    assert_eq!(faults(folder.path()), Vec::<String>::new());
    // Also where the pipeline was changed meanwhile and other records are dead letters now, nothing stops.
    let mut sink = start(35);
    sink.write(&letters([36])).unwrap();
    sink.end_epoch(&commits(1, 37), true).unwrap();
    assert_eq!(noted(&folder.path().join(first(40)), "to").unwrap(), "40");
}

#[test]
fn two_writers_of_dead_letters_meet_at_the_same_name() {
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        let mut sink = ParquetDeadLetters::over(local(folder.path()), pace(u64::MAX, HOUR), "cards");
        sink.begin(Partition(0), Offset(0)).unwrap();
        sink
    };
    let (mut zombie, mut heir) = (start(), start());
    heir.end_epoch(&commits(1, 50), true).unwrap();
    zombie.write(&letters([60])).unwrap();
    zombie.end_epoch(&commits(1, 70), true).unwrap();
    heir.write(&letters([60])).unwrap();
    assert_eq!(heir.end_epoch(&commits(1, 65), true).unwrap_err().kind, Kind::Retry, "else 60 would be there twice");
}

/// Writes a file as other programs or versions might.
fn strange(path: &Path, notes: &[(&str, &str)]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(File::create(path).unwrap(), columns::dead_letter_schema(), None).unwrap();
    for (key, value) in notes {
        writer.append_key_value_metadata(KeyValue::new(format!("meantime.{key}"), (*value).to_owned()));
    }
    writer.close().unwrap();
}

fn recovered(path: &Path) -> Result<Option<Commit>> {
    open(path, 1, HOUR, &sample(1, 1)).recover(Partition(0))
}

#[test]
fn a_run_goes_on_from_no_file_that_it_does_not_understand() {
    let whole = [("format", "2"), ("from", "3"), ("to", "9"), ("note", "meantime1 fp=f00d")];
    let cases: [(&[(&str, &str)], &str); 7] = [
        (&[("format", "1"), ("from", "3"), ("to", "9")], "earlier meantime"),
        (&[("format", "3"), ("from", "3"), ("to", "9")], "format 3"),
        (&[], "another program"),
        (&[("format", "2"), ("from", "4"), ("to", "9"), ("note", "meantime1")], "renamed"),
        (&[("format", "2"), ("from", "3"), ("to", "2"), ("note", "meantime1")], "meantime.to"),
        (&[("format", "2"), ("from", "3"), ("to", "9"), ("note", "other")], "meantime.note"),
        (&[("format", "2"), ("to", "9"), ("note", "meantime1")], "meantime.from"),
    ];
    for (notes, why) in cases {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(first(3));
        strange(&path, notes);
        let error = recovered(folder.path()).unwrap_err();
        assert_eq!(error.kind, Kind::Config);
        assert!(error.to_string().contains(why) && error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert_eq!(faults(folder.path()), ["foreign"]);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(first(3));
    strange(&path, &whole);
    assert_eq!(recovered(folder.path()).unwrap().unwrap().next, Offset(9));
    let bytes = fs::read(&path).unwrap();
    for length in [0, 3, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).unwrap();
        let error: Error = recovered(folder.path()).unwrap_err();
        assert!(error.to_string().contains("cannot be read") && error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert_eq!(faults(folder.path()), ["foreign"]);
    }
}

#[test]
fn a_run_goes_on_from_no_file_of_another_pipeline_but_from_one_that_names_none() {
    for folders in [Folders::Partition, Folders::Date] {
        let home = tempfile::tempdir().unwrap();
        let place = crate::link::objects::Place::Folder(home.path().to_path_buf());
        let opened = |pipeline: &str| {
            let identity = Identity { pipeline: pipeline.to_owned(), ..contract::identity() };
            let opening = Opening { place: &place, roll_bytes: u64::MAX, roll_every: HOUR, lane: 0, delta: None, folders };
            ParquetForecasts::open(opening, &Layout::full(&identity, true, true, true), &identity).unwrap()
        };
        let written = |pipeline: &str, from: i64| {
            let mut sink = opened(pipeline);
            let found = sink.recover(Partition(0))?;
            sink.begin(Partition(0), Offset(from))?;
            sink.write(&rows(from..from + 2)).unwrap();
            assert!(sink.end_epoch(&commits(1, from + 2), true).unwrap());
            sink.close().unwrap();
            Ok::<_, Error>(found.map(|commit| commit.next))
        };
        // Without a name, as earlier versions wrote it.
        assert_eq!(written("", 0).unwrap(), None);
        assert_eq!(written("visits", 2).unwrap(), Some(Offset(2)));
        for error in [opened("pay").recover(Partition(0)).unwrap_err(), opened("pay").begin(Partition(0), Offset(4)).unwrap_err()] {
            let text = error.to_string();
            assert!(
                error.kind == Kind::Config && text.contains("`visits`") && text.contains("`pay`") && text.contains("empty folder"),
                "{text}"
            );
        }
        assert_eq!(written("visits", 4).unwrap(), Some(Offset(4)), "the refusal has changed nothing");
        assert_eq!(opened("").recover(Partition(0)).unwrap().map(|commit| commit.next), Some(Offset(6)));
        assert_eq!(faults(home.path()), [""; 0]);
        // What an earlier version mixed is found.
        assert_eq!(written("", 6).unwrap(), Some(Offset(6)));
        assert_eq!(written("pay", 8).unwrap(), Some(Offset(8)));
        assert_eq!(faults(home.path()), ["foreign"]);
    }
}

#[test]
fn records_that_retention_deleted_are_a_hole_that_the_files_admit() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = running(folder.path());
    sink.write(&rows([0])).unwrap();
    sink.end_epoch(&commits(1, 10), true).unwrap();
    let mut sink = open(folder.path(), 1, HOUR, &sample(1, 1));
    sink.recover(Partition(0)).unwrap();
    sink.begin(Partition(0), Offset(15)).unwrap();
    sink.write(&rows([15])).unwrap();
    sink.end_epoch(&commits(1, 16), true).unwrap();
    assert_eq!(files(folder.path()), [first(0), first(10)], "the name is still the fence");
    let found = audited(folder.path()).unwrap();
    assert_eq!(found.faults.len(), 1);
    assert!(found.faults[0].to_string().contains("records 10 to 15") && found.faults[0].code() == "deleted", "{}", found.faults[0]);
}

#[test]
fn the_audit_names_holes_overlaps_and_foreign_files() {
    let tile = |from: i64, to: i64| {
        let (from, to) = (from.to_string(), to.to_string());
        move |path: &Path| strange(path, &[("format", "2"), ("from", &from), ("to", &to), ("note", "meantime1 fp=aa")])
    };
    let made = |tiles: &[(i64, i64)]| {
        let folder = tempfile::tempdir().unwrap();
        for (from, to) in tiles {
            tile(*from, *to)(&folder.path().join(first(*from)));
        }
        folder
    };
    let folder = made(&[(0, 5), (5, 9), (9, 20)]);
    assert_eq!(faults(folder.path()), Vec::<String>::new());
    fs::remove_file(folder.path().join(first(5))).unwrap();
    let found = audited(folder.path()).unwrap().faults;
    assert_eq!(found.len(), 1);
    assert!(found[0].to_string().contains("partition 0, records 5 to 9 are in no file"), "{}", found[0]);

    let found = audited(made(&[(0, 5), (4, 9), (9, 20)]).path()).unwrap().faults;
    assert_eq!(found.len(), 1);
    assert!(found[0].to_string().contains("records 4 to 5 are in two files"), "{}", found[0]);
    assert_eq!(faults(made(&[(0, 20), (4, 9), (20, 21)]).path()), ["overlap"], "one inside another");

    let folder = made(&[(0, 5)]);
    let step = |n: u32| folder.path().join(format!("partition-0/from={:020}.{n:05}.parquet", 5));
    tile(5, 5)(&folder.path().join(first(5)));
    tile(5, 8)(&step(2));
    assert_eq!(faults(folder.path()), ["missing"]);
    tile(5, 5)(&step(1));
    assert_eq!(faults(folder.path()), Vec::<String>::new());

    let folder = made(&[(0, 5)]);
    for name in ["partition-0/part-0.parquet", "partition-0/from=5.parquet", "partition-01", "_SUCCESS", ".DS_Store"] {
        fs::write(folder.path().join(name), "x").unwrap();
    }
    let own = Temporary::of(Name::first(Offset(5)), 0, 0).to_string();
    fs::write(folder.path().join("partition-0").join(own), "x").unwrap();
    assert_eq!(faults(folder.path()), ["foreign"; 4]);
    assert_eq!(audited(folder.path()).unwrap().partitions[&Partition(0)].unfinished, 1);
    assert!(audited(&folder.path().join("nowhere")).is_err());
}

#[test]
fn columns_have_the_types_that_readers_expect() {
    let folder = tempfile::tempdir().unwrap();
    let forecasts = sample(10, 1);
    let mut sink = open(folder.path(), u64::MAX, HOUR, &forecasts);
    take_over(&mut sink, 1);
    sink.write(&forecasts).unwrap();
    sink.end_epoch(&commits(1, 10), true).unwrap();
    let path = folder.path().join("partition-0/from=00000000000000000000.parquet");
    let batch = read(path.clone());
    let kind = |name: &str| batch.schema().field_with_name(name).unwrap().data_type().clone();
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    for (name, expected) in [
        ("kind", DataType::Utf8),
        ("key", DataType::Utf8),
        ("event_id", DataType::Utf8),
        ("event_time", utc.clone()),
        ("partition", DataType::Int32),
        ("offset", DataType::Int64),
        ("n_events", DataType::Int64),
        ("gap_s", DataType::Float64),
        ("next_time_q50", utc),
        ("p_within_24h", DataType::Float64),
        ("fingerprint", DataType::Utf8),
    ] {
        assert_eq!(kind(name), expected, "{name}");
    }
    let column = |name: &str| batch.column_by_name(name).unwrap();
    assert!(column("gap_s").is_null(0) && column("event_id").is_null(0) && column("next_time_q99_9").is_null(1));
    let chances = column("next_marks").as_list::<i32>().value(1);
    assert_eq!(chances.as_struct().column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["a\"b", "ü"]);
    let reasons = column("reasons").as_list::<i32>();
    assert_eq!(
        (reasons.value_length(0), reasons.value(1).as_struct().column(0).as_string::<i32>().value(0).to_owned()),
        (0, "R\"7".to_owned())
    );
    let flags = column("flags").as_list::<i32>();
    assert_eq!((flags.value_length(0), flags.value(1).as_string::<i32>().value(1).to_owned()), (0, "unknown_mark".to_owned()));
    // What other readers go by is the file's own schema, not Arrow's note in it.
    let metadata = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().metadata().clone();
    let group = metadata.row_group(0);
    let stored = |name: &str| group.columns().iter().find(|column| column.column_path().string() == name).unwrap();
    assert!(matches!(stored("key").compression(), Compression::ZSTD(_)));
    assert_eq!(stored("key").column_descr().converted_type(), ConvertedType::UTF8);
    let instant = LogicalType::Timestamp(parquet::basic::TimestampType { is_adjusted_to_u_t_c: true, unit: StoredUnit::MICROS });
    assert_eq!(stored("event_time").column_descr().logical_type_ref(), Some(&instant));
}

#[test]
fn a_folder_that_vanished_is_an_error_with_the_path_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let mut sink = running(&path);
    sink.write(&rows(0..4)).unwrap();
    fs::remove_dir_all(&path).unwrap();
    let error = sink.end_epoch(&commits(1, 4), true).unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.to_string().contains("partition-0"), "{error}");
    assert_eq!(sink.durable().unwrap(), 0);
    assert!(!path.exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_with_the_path_and_leaves_nothing_under_a_final_name() {
    let folder = tempfile::tempdir().unwrap();
    let partition = folder.path().join("partition-0");
    let mut sink = running(folder.path());
    fs::create_dir(&partition).unwrap();
    // The sink will write to the device that is always full.
    let temporary = sink.rolling.temporary(Name::first(Offset(0)));
    std::os::unix::fs::symlink("/dev/full", partition.join(temporary)).unwrap();
    let error = sink.write(&rows(0..4)).and_then(|()| sink.end_epoch(&commits(1, 4), true)).unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.to_string().contains("partition-0"), "{error}");
    assert!(sink.end_epoch(&commits(1, 4), true).is_err(), "the rows are lost to this sink: no later file may leave them out");
    assert_eq!(files(folder.path()), Vec::<String>::new());
}

#[test]
fn a_sink_that_is_dropped_without_close_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let forecasts = sample(4, 2);
    let mut sink = open(folder.path(), u64::MAX, HOUR, &forecasts);
    take_over(&mut sink, 2);
    sink.write(&forecasts).unwrap();
    assert_eq!(files(folder.path()).len(), 2);
    drop(sink);
    assert_eq!(files(folder.path()), Vec::<String>::new());
}

#[test]
fn dead_letters_keep_their_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = ParquetDeadLetters::over(local(folder.path()), pace(u64::MAX, HOUR), "cards");
    sink.begin(Partition(4), Offset(9)).unwrap();
    let mut rejected = Rejected::default();
    rejected.push((Partition(4), Offset(9)), Reason::Malformed, "not UTF-8", None, Some(&[0xff, 0]));
    rejected.push((Partition(4), Offset(11)), Reason::Empty, "no payload", Some(b"k"), None);
    sink.write(&rejected).unwrap();
    assert!(sink.end_epoch(&commits(5, 12), true).unwrap());
    let path = folder.path().join("partition-4/from=00000000000000000009.parquet");
    assert_eq!(noted(&path, "to").unwrap(), "12");
    let batch = read(path);
    let column = |name: &str| batch.column_by_name(name).unwrap();
    assert_eq!(column("payload").as_binary::<i32>().value(0), [0xff, 0]);
    assert!(column("payload").is_null(1) && column("key").is_null(0));
    assert_eq!(column("reason").as_string::<i32>().value(1), "empty");
    assert_eq!(column("topic").as_string::<i32>().value(0), "cards");
}
