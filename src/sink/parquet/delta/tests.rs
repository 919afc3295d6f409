use std::path::Path;
use std::time::Duration;

use arrow::array::{ArrayRef, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Int32Type};
use parquet::arrow::ArrowWriter;

use super::super::local::Local;
use super::super::rolling::Pace;
use super::super::{Opening, ParquetForecasts, audit};
use super::*;
use crate::data::layout::Layout;
use crate::link::objects::{Folder, MemoryDisk, Place};
use crate::sink::contract::{commits, identity, sample};
use crate::sink::{Folders, ForecastSink, Sink};

const PACE: Pace = Pace { roll_bytes: u64::MAX, roll_every: Duration::from_secs(3600), lane: 0 };

fn schema() -> Schema {
    let marks = DataType::Struct(vec![Field::new("mark", DataType::Utf8, false)].into());
    Schema::new(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("time", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("marks", DataType::List(Arc::new(Field::new("item", marks, false))), true),
    ])
}

fn table(objects: &Arc<dyn Objects>) -> Delta {
    Delta::open(Arc::clone(objects), "cards", &schema(), false).unwrap()
}

fn file(partition: i32, from: i64, to: i64) -> Noted {
    named(partition, Name::first(Offset(from)), to, 10)
}

fn named(partition: i32, name: Name, to: i64, rows: u64) -> Noted {
    let files = Added::of_partition(Partition(partition), name, rows, 100);
    Noted { partition: Partition(partition), name, to: Offset(to), files }
}

/// Actions of all commits, which are numbered without a hole.
fn actions(objects: &dyn Objects) -> Vec<Value> {
    let names: Vec<String> = objects.list("_delta_log/").unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, (0..names.len()).map(|number| commit(number as i64)).collect::<Vec<_>>());
    let text = |name: &String| String::from_utf8(objects.get(name).unwrap().unwrap()).unwrap();
    names.iter().flat_map(|name| text(name).lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()).collect()
}

/// Paths of the files that are noted, in the order of the commits.
fn paths(objects: &dyn Objects) -> Vec<String> {
    actions(objects).iter().filter_map(|action| Some(action.get("add")?["path"].as_str()?.to_owned())).collect()
}

#[test]
fn the_first_commit_makes_the_table_and_each_file_is_noted_once() {
    let objects: Arc<dyn Objects> = Arc::new(MemoryDisk::new());
    let mut delta = table(&objects);
    delta.append(&[file(0, 0, 5), file(1, 0, 7)]).unwrap();
    delta.append(&[file(0, 0, 5), file(0, 5, 9), file(1, 0, 7)]).unwrap();
    delta.append(&[file(0, 5, 9)]).unwrap();
    let name = |partition: i32, from: i64| format!("partition-{partition}/from={from:020}.parquet");
    assert_eq!(paths(&*objects), [name(0, 0), name(1, 0), name(0, 5)]);
    let found = actions(&*objects);
    let only = |name: &str| {
        let some: Vec<&Value> = found.iter().filter_map(|action| action.get(name)).collect();
        assert_eq!(some.len(), 1, "{name}");
        some[0].clone()
    };
    assert_eq!(only("protocol"), json!({ "minReaderVersion": 1, "minWriterVersion": 2 }));
    let columns: Value = serde_json::from_str(only("metaData")["schemaString"].as_str().unwrap()).unwrap();
    let element = json!({ "type": "struct", "fields": [{ "name": "mark", "type": "string", "nullable": false, "metadata": {} }] });
    let marks = json!({ "type": "array", "elementType": element, "containsNull": false });
    assert_eq!(columns["fields"][2], json!({ "name": "marks", "type": marks, "nullable": true, "metadata": {} }));
    assert_eq!(columns["fields"][1]["type"], "timestamp");
    let add = found.iter().find_map(|action| action.get("add")).unwrap();
    assert_eq!((&add["size"], &add["stats"], &add["dataChange"]), (&json!(100), &json!("{\"numRecords\":10}"), &json!(true)));
    let versions: Vec<(&str, i64)> =
        found.iter().filter_map(|action| Some((action.get("txn")?["appId"].as_str()?, action["txn"]["version"].as_i64()?))).collect();
    assert_eq!(versions, [("meantime/cards/partition-0", 5), ("meantime/cards/partition-1", 7), ("meantime/cards/partition-0", 9)]);
    // Who opens the table later knows it all.
    assert_eq!(table(&objects).next(Partition(0)), Some(Name::first(Offset(9))));
    assert_eq!(table(&objects).next(Partition(7)), None);
}

#[test]
fn files_that_begin_where_they_end_are_told_apart() {
    let objects: Arc<dyn Objects> = Arc::new(MemoryDisk::new());
    let mut files = vec![file(0, 0, 5), file(0, 5, 5)];
    for step in [1, 2] {
        files.push(named(0, Name { from: Offset(5), step }, 5, 10));
    }
    files.push(named(0, Name { from: Offset(5), step: 3 }, 8, 0));
    files.push(file(0, 8, 9));
    for until in 1..=files.len() {
        table(&objects).append(&files[..until]).unwrap();
    }
    let found = paths(&*objects);
    // A file without rows is nothing to read.
    assert_eq!(found.len(), 5);
    assert_eq!(found[2], "partition-0/from=00000000000000000005.00001.parquet");
    assert_eq!(table(&objects).next(Partition(0)), Some(Name::first(Offset(9))));
}

#[test]
fn of_many_writers_each_notes_its_own_and_of_the_same_file_one() {
    let folder = tempfile::tempdir().unwrap();
    let objects: Arc<dyn Objects> = Arc::new(Folder::open(folder.path()).unwrap());
    std::thread::scope(|scope| {
        for writer in 0..6 {
            let objects = &objects;
            scope.spawn(move || {
                let mut delta = table(objects);
                for i in 0..10 {
                    // Partition 9 is written by all: zombies.
                    delta.append(&[file(writer, i, i + 1), file(9, i, i + 1)]).unwrap();
                }
            });
        }
    });
    let mut found = paths(&*objects);
    found.sort();
    let mut expected: Vec<String> =
        [0, 1, 2, 3, 4, 5, 9].iter().flat_map(|p| (0..10).map(move |i| format!("partition-{p}/from={i:020}.parquet"))).collect();
    expected.sort();
    assert_eq!(found, expected);
}

fn open(folder: &Path, delta: bool) -> ParquetForecasts {
    let mut sink =
        ParquetForecasts::over(Box::new(Local::open(folder).unwrap()), PACE, &Layout::full(&identity(), true, true, true), &identity());
    if delta {
        let table = Delta::open(Place::Folder(folder.to_owned()).open().unwrap(), "cards", &sink.schema(), false).unwrap();
        sink.rolling = sink.rolling.with_delta(Some(table));
    }
    sink
}

fn write(sink: &mut ParquetForecasts, from: i64) {
    let mut forecasts = sample(10, 2);
    forecasts.offsets.iter_mut().for_each(|offset| offset.0 += from);
    sink.write(&forecasts).unwrap();
    sink.end_epoch(&commits(2, from + 10), true).unwrap();
}

fn take_over(sink: &mut ParquetForecasts) -> crate::base::error::Result<()> {
    (0..2).map(Partition).try_for_each(|partition| {
        let found = sink.recover(partition)?;
        sink.begin(partition, found.map_or(Offset(0), |commit| commit.next))
    })
}

#[test]
fn what_was_written_before_or_by_a_process_that_died_is_noted_by_who_takes_over() {
    let folder = tempfile::tempdir().unwrap();
    let objects = Folder::open(folder.path()).unwrap();
    let mut sink = open(folder.path(), false);
    take_over(&mut sink).unwrap();
    write(&mut sink, 0);
    write(&mut sink, 10);
    let mut sink = open(folder.path(), true);
    take_over(&mut sink).unwrap();
    assert_eq!(paths(&objects).len(), 4);
    write(&mut sink, 20);
    assert_eq!(paths(&objects).len(), 6);
    let size = |path: &str| std::fs::metadata(folder.path().join(path)).unwrap().len();
    for add in actions(&objects).iter().filter_map(|action| action.get("add")) {
        assert_eq!(add["size"].as_u64().unwrap(), size(add["path"].as_str().unwrap()));
        assert_eq!(add["stats"], "{\"numRecords\":5}");
    }
    // The name was given, and the process died before its commit.
    let last = commit(objects.list("_delta_log/").unwrap().len() as i64 - 1);
    objects.delete(&last).unwrap();
    assert_eq!(paths(&objects).len(), 4);
    for _ in 0..2 {
        take_over(&mut open(folder.path(), true)).unwrap();
        assert_eq!(paths(&objects).len(), 6, "and nothing is noted twice");
    }
    assert_eq!(audit::audit(&Place::Folder(folder.path().to_owned())).unwrap().faults, [], "the log is no foreign file");
    // Somebody has removed what the next run would go on from.
    std::fs::remove_file(folder.path().join("partition-1/from=00000000000000000020.parquet")).unwrap();
    let error = take_over(&mut open(folder.path(), true)).unwrap_err();
    assert!(error.kind == Kind::Config && error.to_string().contains("VACUUM"), "{error}");
}

#[test]
fn files_by_date_are_noted_with_the_value_of_their_column_however_often_and_late() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::Folder(folder.path().to_owned());
    let objects = Folder::open(folder.path()).unwrap();
    let open = |delta: Option<&str>| {
        let (roll_bytes, roll_every, folders) = (u64::MAX, Duration::from_secs(3600), Folders::Date);
        let opening = Opening { place: &place, roll_bytes, roll_every, lane: 0, delta, folders };
        ParquetForecasts::open(opening, &Layout::full(&identity(), true, true, true), &identity()).unwrap()
    };
    let write = |sink: &mut ParquetForecasts, from: i64| {
        let mut forecasts = sample(10, 2);
        forecasts.offsets.iter_mut().for_each(|offset| offset.0 += from);
        // Each partition has rows of two days, and of a time without a date.
        forecasts.event_times.iter_mut().zip(0..).for_each(|(time, row)| time.0 += row / 4 * 86_400_000_000);
        forecasts.event_times[9].0 = i64::MAX;
        sink.write(&forecasts).unwrap();
        sink.end_epoch(&commits(2, from + 10), true).unwrap();
    };
    let mut sink = open(None);
    take_over(&mut sink).unwrap();
    write(&mut sink, 0);
    for _ in 0..2 {
        let mut sink = open(Some("cards"));
        take_over(&mut sink).unwrap();
        assert_eq!(paths(&objects).len(), 6, "what was there before is noted once");
    }
    let mut sink = open(Some("cards"));
    take_over(&mut sink).unwrap();
    write(&mut sink, 10);
    let last = commit(objects.list("_delta_log/").unwrap().len() as i64 - 1);
    objects.delete(&last).unwrap();
    take_over(&mut open(Some("cards"))).unwrap();
    let found = actions(&objects);
    let adds: Vec<&Value> = found.iter().filter_map(|action| action.get("add")).collect();
    assert_eq!(adds.len(), 12);
    let (mut rows, mut values) = (0, std::collections::BTreeMap::<String, u32>::new());
    for add in adds {
        let path = add["path"].as_str().unwrap();
        let value = &add["partitionValues"]["event_date"];
        assert_eq!(path.split('/').next().unwrap(), format!("event_date={}", value.as_str().unwrap_or("__HIVE_DEFAULT_PARTITION__")));
        assert_eq!(add["size"].as_u64().unwrap(), std::fs::metadata(folder.path().join(path)).unwrap().len());
        *values.entry(value.to_string()).or_default() += 1;
        rows += serde_json::from_str::<Value>(add["stats"].as_str().unwrap()).unwrap()["numRecords"].as_u64().unwrap();
    }
    assert_eq!(rows, 20);
    assert_eq!(
        values,
        [("\"2025-01-06\"".to_owned(), 4), ("\"2025-01-07\"".to_owned(), 4), ("\"2025-01-08\"".to_owned(), 2), ("null".to_owned(), 2)]
            .into()
    );
    let metadata = found.iter().find_map(|action| action.get("metaData")).unwrap();
    assert_eq!(metadata["partitionColumns"], json!(["event_date"]));
    let columns: Value = serde_json::from_str(metadata["schemaString"].as_str().unwrap()).unwrap();
    assert_eq!(columns["fields"].as_array().unwrap().last().unwrap()["type"], "date");
    assert_eq!(audit::audit(&place).unwrap().faults, [], "the log is no foreign file");
    let refused = Delta::open(place.open().unwrap(), "cards", &sink.schema(), false).err().unwrap();
    assert!(refused.to_string().contains("partitioned by event_date"), "{refused}");
    // Here a run goes on from its commits: VACUUM may remove what other files hold the rows of.
    std::fs::remove_dir_all(folder.path().join("event_date=2025-01-07")).unwrap();
    assert!(take_over(&mut open(Some("cards"))).is_ok());
}

/// A table that another engine has made: its first commit.
fn made(protocol: Value, columns: Value, partitions: Value) -> Result<Delta> {
    let objects: Arc<dyn Objects> = Arc::new(MemoryDisk::new());
    let schema_text = json!({ "type": "struct", "fields": columns }).to_string();
    let metadata = json!({ "metaData": { "id": "x", "schemaString": schema_text, "partitionColumns": partitions } });
    objects.put(&commit(0), format!("{}\n{metadata}\n", json!({ "protocol": protocol })).as_bytes()).unwrap();
    Delta::open(objects, "cards", &schema(), false)
}

#[test]
fn a_table_that_is_not_ours_is_appended_to_if_it_fits_and_refused_if_not() {
    let plain = json!({ "minReaderVersion": 1, "minWriterVersion": 2 });
    let mut ours = fields(schema().fields().iter().map(AsRef::as_ref)).unwrap();
    ours[0]["metadata"] = json!({ "comment": "the card" });
    let with = |more: Value| json!(ours.iter().cloned().chain([more]).collect::<Vec<_>>());
    let none = || json!([]);
    assert!(made(plain.clone(), json!(ours), none()).is_ok());
    assert!(made(plain.clone(), with(json!({ "name": "more", "type": "long", "nullable": true, "metadata": {} })), none()).is_ok());
    let vectors = json!({ "minReaderVersion": 3, "minWriterVersion": 7, "writerFeatures": ["appendOnly", "deletionVectors"] });
    assert!(made(vectors, json!(ours), none()).is_ok());
    let refused = |made: Result<Delta>, says: &str| {
        let error = made.err().unwrap();
        assert!(error.kind == Kind::Config && error.to_string().contains(says), "{error}");
    };
    refused(made(plain.clone(), with(json!({ "name": "more", "type": "long", "nullable": false, "metadata": {} })), none()), "`more`");
    refused(made(plain.clone(), json!(ours[1..]), none()), "`key`");
    let mut other = ours.clone();
    other[1]["type"] = json!("string");
    refused(made(plain.clone(), json!(other), none()), "`time`");
    refused(made(plain, json!(ours), json!(["key"])), "partitioned");
    refused(made(json!({ "minWriterVersion": 4 }), json!(ours), none()), "version 4");
    refused(made(json!({ "minWriterVersion": 7, "writerFeatures": ["columnMapping"] }), json!(ours), none()), "`columnMapping`");
}

/// A checkpoint with one action a row, as other engines write them.
fn checkpoint(app: &str, version: i64) -> Vec<u8> {
    let schema_text = json!({ "type": "struct", "fields": fields(schema().fields().iter().map(AsRef::as_ref)).unwrap() }).to_string();
    let only = |row: usize| Some(NullBuffer::from((0..3).map(|i| i == row).collect::<Vec<_>>()));
    let column = |name: &str, array: ArrayRef| (Arc::new(Field::new(name, array.data_type().clone(), true)), array);
    let of = |row: usize, columns: Vec<(Arc<Field>, ArrayRef)>| -> ArrayRef {
        let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        Arc::new(StructArray::new(fields.into(), arrays, only(row)))
    };
    let txn = of(
        0,
        vec![column("appId", Arc::new(StringArray::from(vec![app; 3]))), column("version", Arc::new(Int64Array::from(vec![version; 3])))],
    );
    let protocol = of(
        1,
        vec![
            column("minReaderVersion", Arc::new(Int32Array::from(vec![1; 3]))),
            column("minWriterVersion", Arc::new(Int32Array::from(vec![2; 3]))),
        ],
    );
    let empty = || Some(Vec::<Option<i32>>::new());
    let columns: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>((0..3).map(|_| empty())));
    let metadata =
        of(2, vec![column("schemaString", Arc::new(StringArray::from(vec![schema_text; 3]))), column("partitionColumns", columns)]);
    let batch =
        RecordBatch::try_from_iter_with_nullable([("txn", txn, true), ("protocol", protocol, true), ("metaData", metadata, true)]).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn where_the_first_commits_are_gone_their_checkpoint_tells() {
    let objects: Arc<dyn Objects> = Arc::new(MemoryDisk::new());
    let mut delta = table(&objects);
    for i in 0..4 {
        delta.append(&[file(0, i, i + 1)]).unwrap();
    }
    (0..2).for_each(|number| objects.delete(&commit(number)).unwrap());
    let refused = Delta::open(Arc::clone(&objects), "cards", &schema(), false).err().unwrap();
    assert!(refused.to_string().contains("checkpoint"), "{refused}");
    objects.put("_delta_log/00000000000000000001.checkpoint.parquet", &checkpoint("meantime/cards/partition-3", 77)).unwrap();
    let mut delta = table(&objects);
    assert_eq!(delta.next(Partition(3)), Some(Name::first(Offset(77))), "of the checkpoint");
    assert_eq!(delta.next(Partition(0)), Some(Name::first(Offset(4))), "of the commits after it");
    delta.append(&[file(0, 3, 4), file(0, 4, 5), file(3, 70, 77)]).unwrap();
    let last = String::from_utf8(objects.get(&commit(4)).unwrap().unwrap()).unwrap();
    assert_eq!(last.matches("\"add\"").count(), 1);
    assert!(!last.contains("metaData"), "the table is there already");
}

#[test]
fn columns_without_a_place_in_a_table_are_refused() {
    let schema = Schema::new(vec![Field::new("x", DataType::UInt64, false)]);
    assert!(Delta::open(Arc::new(MemoryDisk::new()), "cards", &schema, false).is_err());
    let columns = super::super::columns::Columns::new(&Layout::full(&identity(), true, true, true), &identity());
    assert!(Delta::open(Arc::new(MemoryDisk::new()), "cards", &columns.schema(), true).is_ok());
}
