use std::fs::{self, File};
use std::path::PathBuf;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ConvertedType, LogicalType, TimeUnit as StoredUnit};

use super::*;
use crate::base::error::Kind;
use crate::data::rejected::Reason;
use crate::sink::contract::sample;

const HOUR: Duration = Duration::from_secs(3600);

fn place(path: &Path, roll_bytes: u64, roll_every: Duration) -> Place<'_> {
    Place { path, roll_bytes, roll_every, lane: 0 }
}

fn open(path: &Path, roll_bytes: u64, roll_every: Duration, forecasts: &Forecasts) -> ParquetForecasts {
    let layout = Layout::full(&forecasts.identity, true, true, true);
    ParquetForecasts::open(place(path, roll_bytes, roll_every), &layout, &forecasts.identity).unwrap()
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
fn files_are_named_by_partition_and_first_offset_and_the_footer_says_what_is_in_them() {
    let folder = tempfile::tempdir().unwrap();
    let forecasts = sample(10, 2);
    let mut sink = open(folder.path(), u64::MAX, HOUR, &forecasts);
    sink.write(&forecasts).unwrap();
    assert!(!sink.end_epoch(&Commits::new(), false).unwrap());
    assert_eq!((sink.written(), sink.durable().unwrap()), (10, 0));
    assert!(files(folder.path()).iter().all(|name| name.contains("/.from=") && !name.ends_with(".parquet")), "only hidden names so far");
    assert!(sink.end_epoch(&Commits::new(), true).unwrap());
    assert_eq!(sink.durable().unwrap(), 10);
    let names = ["partition-0/from=00000000000000000000.parquet", "partition-1/from=00000000000000000001.parquet"];
    assert_eq!(files(folder.path()), names);
    let notes = ["format", "from", "to", "fingerprint"].map(|key| rolling::noted(&folder.path().join(names[1]), key).unwrap());
    assert_eq!(notes, ["1", "1", "10", "f00d"]);
}

#[test]
fn events_that_were_released_late_still_lie_between_from_and_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut forecasts = sample(4, 1);
    forecasts.offsets = [7, 9, 3, 8].map(Offset).to_vec();
    let mut sink = open(folder.path(), u64::MAX, HOUR, &forecasts);
    sink.write(&forecasts).unwrap();
    sink.close().unwrap();
    let path = folder.path().join("partition-0/from=00000000000000000003.parquet");
    assert_eq!(rolling::noted(&path, "to").unwrap(), "10");
    let offsets = read(path).column_by_name("offset").unwrap().as_primitive::<Int64Type>().values().to_vec();
    assert_eq!(offsets, [7, 9, 3, 8]);
}

#[test]
fn all_files_are_rolled_together_when_one_is_large_or_old_enough() {
    for (roll_bytes, roll_every) in [(u64::MAX, Duration::ZERO), (1, HOUR)] {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = open(folder.path(), roll_bytes, roll_every, &sample(1, 1));
        for start in [0, 100] {
            let mut forecasts = sample(6, 3);
            forecasts.offsets.iter_mut().for_each(|offset| offset.0 += start);
            sink.write(&forecasts).unwrap();
            assert!(sink.end_epoch(&Commits::new(), false).unwrap());
        }
        let found = files(folder.path());
        assert_eq!(found.len(), 6, "{found:?}");
        assert!(found.iter().all(|name| name.ends_with(".parquet")), "{found:?}");
    }
}

#[test]
fn columns_have_the_types_that_readers_expect() {
    let folder = tempfile::tempdir().unwrap();
    let forecasts = sample(10, 1);
    let mut sink = open(folder.path(), u64::MAX, HOUR, &forecasts);
    sink.write(&forecasts).unwrap();
    sink.close().unwrap();
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
    let forecasts = sample(4, 1);
    let mut sink = open(&path, u64::MAX, HOUR, &forecasts);
    sink.write(&forecasts).unwrap();
    fs::remove_dir_all(&path).unwrap();
    let error = sink.end_epoch(&Commits::new(), true).unwrap_err();
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
    fs::create_dir(&partition).unwrap();
    // The sink will write to the device that is always full.
    let temporary = format!(".from={:020}.parquet.tmp-{}-0", 0, std::process::id());
    std::os::unix::fs::symlink("/dev/full", partition.join(temporary)).unwrap();
    let forecasts = sample(4, 1);
    let mut sink = open(folder.path(), u64::MAX, HOUR, &forecasts);
    let error = sink.write(&forecasts).and_then(|()| sink.end_epoch(&Commits::new(), true)).unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.to_string().contains("partition-0"), "{error}");
    assert_eq!(files(folder.path()), Vec::<String>::new());
}

#[test]
fn a_sink_that_is_dropped_without_close_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let forecasts = sample(4, 2);
    let mut sink = open(folder.path(), u64::MAX, HOUR, &forecasts);
    sink.write(&forecasts).unwrap();
    assert_eq!(files(folder.path()).len(), 2);
    drop(sink);
    assert_eq!(files(folder.path()), Vec::<String>::new());
}

#[test]
fn dead_letters_keep_their_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = ParquetDeadLetters::open(place(folder.path(), u64::MAX, HOUR), "cards").unwrap();
    let mut rejected = Rejected::default();
    rejected.push((Partition(4), Offset(9)), Reason::Malformed, "not UTF-8", None, Some(&[0xff, 0]));
    rejected.push((Partition(4), Offset(11)), Reason::Empty, "no payload", Some(b"k"), None);
    sink.write(&rejected).unwrap();
    assert!(sink.end_epoch(&Commits::new(), true).unwrap());
    let path = folder.path().join("partition-4/from=00000000000000000009.parquet");
    assert_eq!((rolling::noted(&path, "to").unwrap(), rolling::noted(&path, "fingerprint")), ("12".to_owned(), None));
    let batch = read(path);
    let column = |name: &str| batch.column_by_name(name).unwrap();
    assert_eq!(column("payload").as_binary::<i32>().value(0), [0xff, 0]);
    assert!(column("payload").is_null(1) && column("key").is_null(0));
    assert_eq!(column("reason").as_string::<i32>().value(1), "empty");
    assert_eq!(column("topic").as_string::<i32>().value(0), "cards");
}
