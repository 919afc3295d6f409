use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;

use super::super::audit::{Audit, audit, audit_objects};
use super::super::{Opening, ParquetForecasts, by_date_over_store};
use super::*;
use crate::base::time::EventTime;
use crate::data::forecasts::Forecasts;
use crate::data::layout::Layout;
use crate::link::objects::{Folder, MemoryDisk, Place};
use crate::sink::contract::{commits, identity, sample};
use crate::sink::{Folders, ForecastSink, Sink};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: i64 = 86_400_000_000;
/// 2025-01-06T00:00:00Z.
const MONDAY: i64 = 1_736_121_600_000_000;

fn layout() -> Layout {
    Layout::full(&identity(), true, true, true)
}

fn opening(place: &Place, folders: Folders) -> Opening<'_> {
    Opening { place, roll_bytes: u64::MAX, roll_every: HOUR, lane: 0, delta: None, folders }
}

fn open(folder: &Path, folders: Folders) -> ParquetForecasts {
    ParquetForecasts::open(opening(&Place::Folder(folder.to_owned()), folders), &layout(), &identity()).unwrap()
}

fn take_over(sink: &mut dyn Sink) -> Result<Option<Commit>> {
    let found = sink.recover(Partition(0))?;
    sink.begin(Partition(0), found.as_ref().map_or(Offset(0), |commit| commit.next))?;
    Ok(found)
}

fn running(folder: &Path) -> ParquetForecasts {
    let mut sink = open(folder, Folders::Date);
    take_over(&mut sink).unwrap();
    sink
}

/// Rows of partition 0 with these offsets; the event of each is `hour(offset)` hours after Monday's beginning.
fn rows(offsets: std::ops::Range<i64>, hour: impl Fn(i64) -> i64) -> Forecasts {
    let mut forecasts = sample(offsets.clone().count(), 1);
    forecasts.event_times = offsets.clone().map(|offset| EventTime(MONDAY + hour(offset) * DAY / 24)).collect();
    forecasts.offsets = offsets.map(Offset).collect();
    forecasts
}

/// The offsets that readers see, by folder.
fn shown(objects: &dyn Objects) -> BTreeMap<String, Vec<i64>> {
    let mut found: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for entry in objects.list("").unwrap().into_iter().filter(|entry| !entry.name.starts_with(['_', '.'])) {
        let bytes = Bytes::from(objects.get(&entry.name).unwrap().unwrap());
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
        let offsets = found.entry(entry.name.split_once('/').unwrap().0.to_owned()).or_default();
        for batch in reader.map(std::result::Result::unwrap) {
            assert!(batch.column_by_name("event_date").is_none(), "engines make it of the folder's name");
            offsets.extend(batch.column_by_name("offset").unwrap().as_primitive::<Int64Type>().values());
        }
    }
    found
}

fn names(objects: &dyn Objects) -> Vec<String> {
    objects.list("").unwrap().into_iter().map(|entry| entry.name).collect()
}

fn audited(folder: &Path) -> Audit {
    audit(&Place::Folder(folder.to_owned())).unwrap()
}

fn codes(folder: &Path) -> Vec<&'static str> {
    audited(folder).faults.iter().map(super::super::audit::Fault::code).collect()
}

#[test]
fn the_rows_of_an_epoch_are_in_the_folders_of_their_dates_and_its_commit_is_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let objects = Folder::as_it_is(folder.path());
    let mut sink = running(folder.path());
    // Around midnight, out of order, and one without a date that engines know.
    let mut forecasts = rows(0..7, |offset| [23, 24, 23, 25, 47, 48, 0][usize::try_from(offset).unwrap()]);
    forecasts.event_times[6] = EventTime(i64::MAX);
    sink.write(&forecasts).unwrap();
    assert_eq!(shown(&objects), BTreeMap::new(), "nothing is seen before the commit");
    let note = Note { fingerprint: "f00d".to_owned(), ..Note::default() };
    let commit = Commit { next: Offset(9), note };
    assert!(sink.end_epoch(&[(Partition(0), commit.clone())].into_iter().collect(), true).unwrap());
    let expected = [
        ("event_date=2025-01-06", vec![0, 2]),
        ("event_date=2025-01-07", vec![1, 3, 4]),
        ("event_date=2025-01-08", vec![5]),
        ("event_date=__HIVE_DEFAULT_PARTITION__", vec![6]),
    ];
    assert_eq!(shown(&objects), expected.clone().map(|(folder, offsets)| (folder.to_owned(), offsets)).into());
    let file = "partition-0-from-00000000000000000000-00000-00000.parquet";
    let commit_file = "_commits/partition-0/from=00000000000000000000.json".to_owned();
    let mut files = vec![commit_file.clone()];
    files.extend(expected.map(|(folder, _)| format!("{folder}/{file}")));
    assert_eq!(names(&objects), files);
    let text: serde_json::Value = serde_json::from_slice(&objects.get(&commit_file).unwrap().unwrap()).unwrap();
    assert_eq!((&text["from"], &text["to"], &text["files"][2]["rows"]), (&0.into(), &9.into(), &3.into()), "{text}");
    let mut paths: Vec<&str> = text["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    paths.sort_unstable();
    assert_eq!(paths, files[1..]);
    // Records that brought about no rows are committed, too.
    sink.end_epoch(&commits(1, 20), true).unwrap();
    sink.close().unwrap();
    let mut next = open(folder.path(), Folders::Date);
    assert_eq!(take_over(&mut next).unwrap(), Some(Commit::at(Offset(20))));
    next.write(&rows(20..21, |_| 1)).unwrap();
    next.end_epoch(&commits(1, 21), true).unwrap();
    assert_eq!(shown(&objects)["event_date=2025-01-06"], [0, 2, 20]);
    let found = audited(folder.path());
    let tiles = &found.partitions[&Partition(0)];
    assert_eq!((&found.faults[..], tiles.files, tiles.without_rows, tiles.rows, tiles.unfinished), (&[][..], 6, 1, 8, 0));
    assert_eq!((tiles.range, tiles.newest.clone()), (Some((Offset(0), Offset(21))), Some(Commit::at(Offset(21)))));
    assert_eq!(tiles.fingerprints, ["f00d".to_owned()].into());
}

/// Epochs of rows that fall on several dates, as a run would have them that starts where the last one died; whether it came to the end of them.
fn epochs(objects: &Arc<dyn Objects>, width: i64) -> Result<()> {
    // Few columns: there are many crashes.
    let few =
        Layout { fields: layout().fields.into_iter().filter(|(name, _)| ["offset", "event_time"].contains(&name.as_str())).collect() };
    let mut sink = by_date_over_store(objects, (u64::MAX, HOUR), &few, &identity());
    let mut from = take_over(&mut sink)?.map_or(0, |commit| commit.next.0);
    while from < 24 {
        let to = (from + width).min(24);
        sink.write(&rows(from..to, |offset| 20 + offset * 7 % 60))?;
        sink.end_epoch(&commits(1, to), true)?;
        from = to;
    }
    sink.close()
}

#[test]
fn a_crash_at_any_step_shows_no_row_that_is_not_committed_and_none_twice() {
    let all: BTreeSet<i64> = (0..24).collect();
    let steps = {
        let disk = Arc::new(MemoryDisk::new());
        epochs(&(Arc::clone(&disk) as Arc<dyn Objects>), 10).unwrap();
        disk.steps()
    };
    assert!(steps > 60, "{steps}");
    let (mut moved_later, mut before) = (0, 0);
    for step in 0..steps {
        // The process alone, and the machine; and the one that comes after cuts its epochs otherwise, or is killed as well.
        for (seed, widths) in [(None, [10, 10]), (None, [7, 10]), (Some(step), [10, 3]), (Some(step + 99), [3, 11])] {
            let disk = Arc::new(MemoryDisk::new());
            let objects: Arc<dyn Objects> = disk.clone();
            let again = |seed: Option<u64>| seed.map_or_else(|| disk.mend(), |seed| disk.restart(seed));
            for (i, width) in [10].into_iter().chain(widths).enumerate() {
                if i < 2 {
                    disk.crash_after(if i == 0 { step } else { step / 2 });
                }
                let ended = epochs(&objects, width);
                again(seed);
                let ledger = Ledger::over(Arc::clone(&objects));
                let committed = ledger
                    .names(Partition(0))
                    .unwrap()
                    .last()
                    .map_or(0, |name| ledger.entry(Partition(0), *name).unwrap().footer.commit.next.0);
                let seen: Vec<i64> = shown(&*objects).into_values().flatten().collect();
                let different: BTreeSet<i64> = seen.iter().copied().collect();
                assert_eq!(seen.len(), different.len(), "twice at step {step}");
                assert!(different.iter().all(|offset| *offset < committed), "not committed at step {step}");
                moved_later += usize::from(different.len() < usize::try_from(committed).unwrap());
                before += usize::from(committed == 0);
                assert!(audit_objects(Arc::clone(&objects)).unwrap().faults.is_empty(), "step {step}: what is not moved yet is no fault");
                if i == 2 {
                    ended.unwrap();
                }
            }
            let seen: BTreeSet<i64> = shown(&*objects).into_values().flatten().collect();
            assert_eq!(seen, all, "step {step}");
            assert!(!names(&*objects).iter().any(|name| name.ends_with(".staged")), "step {step}: {:?}", names(&*objects));
        }
    }
    assert!(moved_later > 20 && before > 20, "the crashes fell on both sides of a commit: {moved_later}, {before}");
}

#[test]
fn of_two_writers_of_a_partition_the_second_to_commit_stops_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let objects = Folder::as_it_is(folder.path());
    let mut zombie = running(folder.path());
    zombie.write(&rows(0..3, |offset| 10 * offset)).unwrap();
    let mut heir = running(folder.path());
    heir.write(&rows(0..2, |offset| 10 * offset)).unwrap();
    heir.end_epoch(&commits(1, 2), true).unwrap();
    let (before, files) = (shown(&objects), names(&objects));
    let error = zombie.end_epoch(&commits(1, 3), true).unwrap_err();
    assert_eq!(error.kind, Kind::Retry);
    assert!(error.to_string().contains("another instance") && error.to_string().contains("from=00000000000000000000.json"), "{error}");
    assert!(zombie.end_epoch(&commits(1, 3), true).is_err(), "after an error nothing of it is committed");
    zombie.close().unwrap();
    assert_eq!((shown(&objects), names(&objects)), (before, files.into_iter().filter(|name| !name.contains(".tmp-")).collect()));
    // The heir goes on, and so does the zombie once it is started again. An attempt of the same content is not taken for a file of its own.
    heir.write(&rows(2..4, |_| 30)).unwrap();
    let mut late = running(folder.path());
    late.write(&rows(2..4, |_| 30)).unwrap();
    heir.end_epoch(&commits(1, 4), true).unwrap();
    assert_eq!(late.end_epoch(&commits(1, 4), true).unwrap_err().kind, Kind::Retry);
    assert_eq!(take_over(&mut open(folder.path(), Folders::Date)).unwrap(), Some(Commit::at(Offset(4))));
    assert_eq!(shown(&objects).into_values().flatten().collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!((codes(folder.path()), names(&objects).len()), (vec![], 4));
}

#[test]
fn what_a_committer_did_not_move_is_moved_by_who_takes_over_and_found_by_the_audit() {
    let folder = tempfile::tempdir().unwrap();
    let objects: Arc<dyn Objects> = Arc::new(Folder::as_it_is(folder.path()));
    let mut sink = running(folder.path());
    sink.write(&rows(0..4, |offset| 20 + offset * 3)).unwrap();
    sink.end_epoch(&commits(1, 4), true).unwrap();
    let whole = shown(&*objects);
    let entry = Ledger::over(Arc::clone(&objects)).entry(Partition(0), Name::first(Offset(0))).unwrap();
    assert_eq!(entry.pieces.len(), 2);
    let staged = format!("_commits/partition-0/{}", entry.pieces[1].staged());
    objects.rename(&entry.pieces[1].path(), &staged).unwrap();
    // Of an attempt that lost, and of one that may yet be committed.
    let other = |from: i64| format!("_commits/partition-0/from={from:020}.2025-01-06.00000.0123456789abcdef.staged");
    [0, 4].iter().for_each(|from| objects.put(&other(*from), b"x").unwrap());
    let found = audited(folder.path());
    assert_eq!((found.faults.len(), found.partitions[&Partition(0)].unfinished), (0, 3));
    assert_eq!(take_over(&mut open(folder.path(), Folders::Date)).unwrap(), Some(Commit::at(Offset(4))));
    assert_eq!(shown(&*objects), whole);
    let mut left = names(&*objects);
    left.retain(|name| name.ends_with(".staged"));
    assert_eq!(left, [other(4)]);
    // Once the name is committed it is of an attempt that lost.
    let mut sink = running(folder.path());
    sink.end_epoch(&commits(1, 5), true).unwrap();
    assert!(!names(&*objects).contains(&other(4)));
}

#[test]
fn the_audit_names_files_that_are_gone_or_foreign_and_lets_old_dates_go() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = running(folder.path());
    for from in [0, 4, 8] {
        sink.write(&rows(from..from + 4, |offset| 24 * (offset % 3))).unwrap();
        sink.end_epoch(&commits(1, from + 4), true).unwrap();
    }
    let file = |day: &str, from: i64| folder.path().join(format!("event_date={day}/partition-0-from-{from:020}-00000-00000.parquet"));
    assert_eq!(codes(folder.path()), Vec::<&str>::new());
    for foreign in ["_SUCCESS", "event_date=2025-01-07/part-0.parquet", "event_date=tomorrow/x.parquet", "partition-0/from=1.parquet"] {
        fs::create_dir_all(folder.path().join(foreign).parent().unwrap()).unwrap();
        fs::write(folder.path().join(foreign), "x").unwrap();
    }
    fs::copy(file("2025-01-07", 0), file("2025-01-07", 99)).unwrap();
    assert_eq!(codes(folder.path()), ["foreign"; 5]);
    for foreign in ["_SUCCESS", "event_date=2025-01-07/part-0.parquet", "event_date=tomorrow/x.parquet", "partition-0/from=1.parquet"] {
        fs::remove_file(folder.path().join(foreign)).unwrap();
    }
    fs::remove_file(file("2025-01-07", 99)).unwrap();
    let kept = fs::read(file("2025-01-07", 4)).unwrap();
    fs::remove_file(file("2025-01-07", 4)).unwrap();
    assert_eq!(codes(folder.path()), ["missing"]);
    fs::write(file("2025-01-07", 4), &kept[1..]).unwrap();
    assert_eq!(codes(folder.path()), ["missing"]);
    fs::write(file("2025-01-07", 4), &kept).unwrap();
    // Retention: the oldest date goes as a whole; not one in the middle.
    fs::remove_dir_all(folder.path().join("event_date=2025-01-06")).unwrap();
    assert_eq!((codes(folder.path()), audited(folder.path()).partitions[&Partition(0)].retired), (vec![], 3));
    fs::remove_dir_all(folder.path().join("event_date=2025-01-07")).unwrap();
    fs::create_dir_all(folder.path().join("event_date=2025-01-06")).unwrap();
    fs::write(folder.path().join("event_date=2025-01-06/partition-0-from-00000000000000000000-00000-00000.parquet"), "").unwrap();
    assert_eq!(codes(folder.path()), ["missing"; 6]);
    // A commit in the middle.
    fs::remove_file(folder.path().join("_commits/partition-0/from=00000000000000000004.json")).unwrap();
    assert!(codes(folder.path()).contains(&"hole"));
}

#[test]
fn a_place_has_one_layout_and_no_run_goes_on_in_the_other() {
    for (first, second) in [(Folders::Date, Folders::Partition), (Folders::Partition, Folders::Date)] {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = open(folder.path(), first);
        take_over(&mut sink).unwrap();
        sink.write(&rows(0..1, |_| 0)).unwrap();
        sink.end_epoch(&commits(1, 1), true).unwrap();
        let error = take_over(&mut open(folder.path(), second)).unwrap_err();
        assert!(
            error.kind == Kind::Config && error.to_string().contains("by date") && error.to_string().contains("by partition"),
            "{error}"
        );
        assert!(take_over(&mut open(folder.path(), first)).is_ok());
    }
}

#[test]
fn a_field_that_would_be_called_as_the_date_is_refused() {
    let place = Place::Folder(tempfile::tempdir().unwrap().path().to_owned());
    let named =
        |name: &str| Layout { fields: layout().fields.into_iter().take(3).map(|(_, field)| (name.to_owned(), field)).take(1).collect() };
    let refused = ParquetForecasts::open(opening(&place, Folders::Date), &named("Event_Date"), &identity()).err().unwrap();
    assert!(refused.to_string().contains("Event_Date"), "{refused}");
    assert!(ParquetForecasts::open(opening(&place, Folders::Partition), &named("event_date"), &identity()).is_ok());
}

fn entry() -> Entry {
    let slice = Slice { partition: Partition(2), name: Name { from: Offset(7), step: 1 }, part: 3 };
    let piece = Piece { day: Day::of(EventTime(MONDAY)), slice, rows: 5, bytes: 99, sha256: "ab".repeat(32) };
    Entry::new(Offset(7), Offset(8), &Commit::at(Offset(9)), vec![piece])
}

#[test]
fn a_commit_is_read_as_it_is_written_and_no_other_is() {
    let name = Name { from: Offset(7), step: 1 };
    let bytes = entry().bytes().unwrap();
    assert_eq!(Entry::read(Partition(2), name, &bytes), Ok(entry()));
    let refused = |partition, name, text: &str| Entry::read(Partition(partition), name, text.as_bytes()).unwrap_err();
    let text = String::from_utf8(bytes).unwrap();
    assert!(refused(2, Name::first(Offset(8)), &text).contains("renamed"));
    assert!(refused(3, name, &text).contains("partition-2"));
    for (old, new, why) in [
        ("\"format\": 1", "\"format\": 2", "newer"),
        ("\"to\": 9", "\"to\": 6", "ends before"),
        ("meantime1", "other", "note"),
        ("2025-01-06", "2025-1-6", "name"),
        ("\"rows\": 5,", "", "rows"),
        ("{", "", "no commit"),
    ] {
        assert!(text.contains(old), "{old}: {text}");
        let why_not = refused(2, name, &text.replacen(old, new, 1));
        assert!(why_not.contains(why), "{why}: {why_not}");
    }
    let staged = entry().pieces[0].staged();
    assert_eq!((lying(&staged), lying(&file(name))), (Some(Lying::Staged(name)), Some(Lying::Commit(name))));
    for other in [staged.replace("2025", "25"), staged.replace(".staged", ""), "from=7.json".to_owned(), format!(".{staged}")] {
        assert_eq!(lying(&other), None, "{other}");
    }
}

proptest! {
    #[test]
    fn no_cut_of_a_commit_is_taken_for_one(cut in 0usize..200) {
        let bytes = entry().bytes().unwrap();
        let cut = cut.min(bytes.len() - 2);
        let read = Entry::read(Partition(2), Name { from: Offset(7), step: 1 }, &bytes[..cut]);
        prop_assert!(read.is_err());
    }
}
