//! What every sink must hold to, as one suite that is run over each kind, and the rows it is run with.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::reader::ChunkReader;
use serde_json::Value as Json;

use super::memory::Store;
use super::{DeadLetterSink, Folders, ForecastSink, Settings, open_dead_letters, open_forecasts};
use crate::base::offset::{Offset, Partition};
use crate::base::time::EventTime;
use crate::data::commit::{Commit, Commits};
use crate::data::flags::Flags;
use crate::data::forecasts::{Forecasts, Identity, MarkChance, Named};
use crate::data::layout::Layout;
use crate::data::rejected::{Reason, Rejected};
use crate::link::objects::{Folder, MemoryDisk, Objects, Place};

/// The identity of the rows below.
pub fn identity() -> Identity {
    Identity {
        pipeline: "p".to_owned(),
        model: "m".to_owned(),
        model_version: "1".to_owned(),
        fingerprint: "f00d".to_owned(),
        marks: ["x", "ü", "a\"b"].map(str::to_owned).to_vec(),
        quantiles: vec![0.1, 0.5, 0.999],
        horizons: ["1h", "24h"].map(str::to_owned).to_vec(),
        reasons: ["gap", "R\"7"].map(str::to_owned).to_vec(),
        value_quantiles: Some(vec![0.05, 0.5]),
        ..Identity::default()
    }
}

/// Rows 0..n; row i is of partition i mod `partitions` and has offset i. Row 0 has nothing that a row may lack.
pub fn sample(n: usize, partitions: usize) -> Forecasts {
    let mut forecasts = Forecasts { marks_per_row: 2, reasons_per_row: 2, ..Forecasts::new(Arc::new(identity())) };
    for i in 0..n {
        let (absent, time) = (i == 0, EventTime(1_736_121_600_000_000 + i as i64 * 1_000_001));
        let number = |value: f64| if absent { f64::NAN } else { value };
        let later = |seconds: i64| (!absent).then_some(EventTime(time.0 + seconds * 1_000_000));
        forecasts.keys.push(format!("k{i}").as_bytes());
        forecasts.event_ids.push_option((!absent).then(|| format!("id-{i}")).as_deref().map(str::as_bytes));
        forecasts.event_times.push(time);
        forecasts.partitions.push(Partition((i % partitions) as i32));
        forecasts.offsets.push(Offset(i as i64));
        forecasts.n_events.push(i as u64 + 1);
        forecasts.gap_s.push(number(1.5 * i as f64));
        forecasts.surprise_time.push(number(0.25));
        forecasts.surprise_mark.push(number(0.5));
        forecasts.surprise_value.push(number(-1.25));
        forecasts.residual.push(number(3600.0));
        forecasts.residual_value.push(number(0.625));
        forecasts.score.push(0.125);
        forecasts.next_times[0].push(later(60));
        forecasts.next_times[1].push(later(3600));
        // Beyond the year 9999: written as if it never came to that.
        forecasts.next_times[2].push(Some(EventTime(i64::MAX)));
        forecasts.next_values[0].push(number(-2.5));
        forecasts.next_values[1].push(number(20.0));
        forecasts.p_never.push(1e-300);
        forecasts.p_within[0].push(0.75);
        forecasts.p_within[1].push(1.0);
        let p = |p: f32| if absent { f32::NAN } else { p };
        forecasts.next_marks.extend([MarkChance { mark: 2, p: p(0.5) }, MarkChance { mark: 1, p: p(0.25) }]);
        forecasts.reasons.extend(if absent { [Named::NONE; 2] } else { [Named { reason: 1, effect: 1.5 }, Named::NONE] });
        forecasts.intensity_now.push(number(1e16));
        forecasts.flags.push(if absent { Flags::NONE } else { Flags::LATE_CLAMPED.with(Flags::UNKNOWN_MARK) });
    }
    forecasts
}

/// What is compared of a row: by position key, event time, gap and flags as text.
type Rows = BTreeMap<(i32, i64), (String, String, Option<f64>, Vec<String>)>;

fn expected(forecasts: &Forecasts) -> Rows {
    let row = |i: usize| {
        let gap = Some(forecasts.gap_s[i]).filter(|gap| !gap.is_nan());
        let key = String::from_utf8_lossy(forecasts.keys.bytes_at(i)).into_owned();
        let flags = forecasts.flags[i].names().map(str::to_owned).collect();
        ((forecasts.partitions[i].0, forecasts.offsets[i].0), (key, forecasts.event_times[i].to_string(), gap, flags))
    };
    (0..forecasts.len()).map(row).collect()
}

fn from_json<'a>(lines: impl Iterator<Item = &'a str>) -> Rows {
    let mut rows = Rows::new();
    for line in lines {
        let json: Json = serde_json::from_str(line).unwrap();
        let text = |name: &str| json[name].as_str().unwrap().to_owned();
        let flags = json["flags"].as_array().unwrap().iter().map(|flag| flag.as_str().unwrap().to_owned()).collect();
        let at = (i32::try_from(json["partition"].as_i64().unwrap()).unwrap(), json["offset"].as_i64().unwrap());
        assert!(rows.insert(at, (text("key"), text("event_time"), json["gap_s"].as_f64(), flags)).is_none(), "a row was written twice");
    }
    rows
}

fn from_parquet(folder: &Path) -> Rows {
    let mut rows = Rows::new();
    let paths = ["partition-*", "event_date=*"].map(|of| glob::glob(&format!("{}/{of}/*.parquet", folder.display())).unwrap());
    for path in paths.into_iter().flatten() {
        add(&mut rows, File::open(path.unwrap()).unwrap());
    }
    rows
}

/// What a store shows below a prefix.
fn from_store(store: &dyn Objects) -> Rows {
    let mut rows = Rows::new();
    for entry in store.list("").unwrap().into_iter().filter(|entry| !entry.name.starts_with('_')) {
        add(&mut rows, bytes::Bytes::from(store.get(&entry.name).unwrap().unwrap()));
    }
    rows
}

fn add(rows: &mut Rows, file: impl ChunkReader + 'static) {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    for batch in reader.map(Result::unwrap) {
        let column = |name: &str| batch.column_by_name(name).unwrap().clone();
        let (partitions, offsets, times, gaps) = (column("partition"), column("offset"), column("event_time"), column("gap_s"));
        let (keys, flags) = (column("key"), column("flags"));
        for i in 0..batch.num_rows() {
            let at = (partitions.as_primitive::<Int32Type>().value(i), offsets.as_primitive::<Int64Type>().value(i));
            let time = EventTime(times.as_primitive::<TimestampMicrosecondType>().value(i)).to_string();
            let gap = (!gaps.is_null(i)).then(|| gaps.as_primitive::<Float64Type>().value(i));
            let flags = flags.as_list::<i32>().value(i).as_string::<i32>().iter().flatten().map(str::to_owned).collect();
            let row = (keys.as_string::<i32>().value(i).to_owned(), time, gap, flags);
            assert!(rows.insert(at, row).is_none(), "a row was written twice");
        }
    }
}

/// Every partition below `partitions` done up to `next`.
pub fn commits(partitions: i32, next: i64) -> Commits {
    (0..partitions).map(|partition| (Partition(partition), Commit::at(Offset(next)))).collect()
}

/// Runs the suite over one sink; `read` gives what others can see. `once`: what was written after the last epoch comes again, and is thrown away.
fn check(sink: &mut dyn ForecastSink, once: bool, read: impl Fn() -> Rows) {
    let forecasts = sample(1000, 4);
    let mut all = expected(&forecasts);
    for partition in (0..4).map(Partition) {
        assert_eq!(sink.recover(partition).unwrap(), None, "nothing has been written yet");
        sink.begin(partition, Offset(0)).unwrap();
    }
    assert!(sink.end_epoch(&commits(4, 0), true).unwrap(), "nothing is durable as long as nothing was written");
    assert_eq!((sink.written(), sink.durable().unwrap()), (0, 0));
    sink.write(&forecasts).unwrap();
    assert_eq!(sink.written(), 1000);
    assert!(sink.durable().unwrap() <= 1000);
    let whole = sink.end_epoch(&commits(4, 1000), false).unwrap();
    assert_eq!(whole, sink.durable().unwrap() == 1000, "an epoch's end says whether everything is durable");
    assert!(sink.end_epoch(&commits(4, 1000), true).unwrap(), "a forced epoch makes everything durable");
    assert_eq!(sink.durable().unwrap(), 1000);
    assert_eq!(read(), all);
    if once {
        for partition in (0..4).map(Partition) {
            assert_eq!(sink.recover(partition).unwrap(), Some(Commit::at(Offset(1000))), "rows and offset become visible together");
        }
    }
    // One partition goes, another lane's; the others go on.
    sink.release(Partition(3)).unwrap();
    let mut forecasts = sample(1000, 3);
    for start in [1000, 2000] {
        forecasts.offsets.iter_mut().for_each(|offset| offset.0 = start + offset.0 % 1000);
        all.extend(expected(&forecasts));
        sink.write(&forecasts).unwrap();
    }
    sink.write(&Forecasts::new(forecasts.identity.clone())).unwrap();
    assert!(sink.end_epoch(&commits(3, 3000), true).unwrap());
    assert_eq!((sink.written(), sink.durable().unwrap()), (3000, 3000));
    assert_eq!(read(), all);
    forecasts.offsets.iter_mut().for_each(|offset| offset.0 += 1000);
    sink.write(&forecasts).unwrap();
    if !once {
        all.extend(expected(&forecasts));
    }
    sink.close().unwrap();
    assert_eq!(read(), all, "close throws away what comes again, and flushes what does not");
    assert!(sink.durable().unwrap() <= sink.written());
    sink.close().unwrap();
    assert_eq!(read(), all, "a second close does nothing");
    assert!(sink.write(&forecasts).is_err(), "nothing is written after close");
}

fn rejected(n: i64) -> Rejected {
    let mut rejected = Rejected::default();
    for i in 0..n {
        rejected.push((Partition((i % 2) as i32), Offset(i)), Reason::Malformed, "not JSON", None, Some(format!("{i}").as_bytes()));
    }
    rejected
}

fn check_dead_letters(sink: &mut dyn DeadLetterSink, count: impl Fn() -> usize) {
    for partition in (0..2).map(Partition) {
        assert_eq!(sink.recover(partition).unwrap(), None);
        sink.begin(partition, Offset(0)).unwrap();
    }
    sink.write(&rejected(10)).unwrap();
    assert!(sink.end_epoch(&commits(2, 10), true).unwrap());
    assert_eq!((count(), sink.written(), sink.durable().unwrap()), (10, 10, 10));
    let mut more = rejected(20);
    more.offsets.iter_mut().for_each(|offset| offset.0 += 10);
    sink.write(&more).unwrap();
    assert!(sink.end_epoch(&commits(2, 30), true).unwrap());
    sink.close().unwrap();
    sink.close().unwrap();
    assert_eq!((count(), sink.durable().unwrap()), (30, 30));
    assert!(sink.write(&more).is_err(), "nothing is written after close");
}

fn full() -> Layout {
    Layout::full(&identity(), true, true, true)
}

#[test]
fn memory_holds_to_the_contract() {
    let store = Store::new();
    let mut sink = store.forecasts(&full(), &identity());
    check(&mut sink, false, || from_json(store.collected().forecasts.written.iter().map(|kept| kept.json.as_str())));
    assert_eq!(store.collected().forecasts.closed, 1);
    check_dead_letters(&mut store.dead_letters("t"), || store.collected().dead_letters.written.len());
}

#[test]
fn ndjson_files_hold_to_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out/forecasts.ndjson");
    let mut sink = open_forecasts(&Settings::Ndjson { path: path.clone() }, &full(), &identity(), 0).unwrap();
    check(&mut *sink, false, || from_json(std::fs::read_to_string(&path).unwrap().lines()));
    let path = folder.path().join("dead.ndjson");
    let mut sink = open_dead_letters(&Settings::Ndjson { path: path.clone() }, "t", 0).unwrap();
    check_dead_letters(&mut *sink, || std::fs::read_to_string(&path).unwrap().lines().count());
}

#[test]
fn parquet_folders_hold_to_the_contract() {
    for (roll_bytes, roll_every) in [(1 << 30, Duration::from_secs(3600)), (1, Duration::ZERO)] {
        let folder = tempfile::tempdir().unwrap();
        let settings = |name: &str, folders| {
            let place = Place::Folder(folder.path().join(name));
            Settings::Parquet { place, roll_bytes, roll_every, delta: None, folders }
        };
        for (name, folders) in [("forecasts", Folders::Partition), ("by-date", Folders::Date)] {
            let mut sink = open_forecasts(&settings(name, folders), &full(), &identity(), 0).unwrap();
            check(&mut *sink, true, || from_parquet(&folder.path().join(name)));
        }
        let mut sink = open_dead_letters(&settings("dead", Folders::Date), "t", 0).unwrap();
        check_dead_letters(&mut *sink, || {
            let paths = glob::glob(&format!("{}/dead/partition-*/*.parquet", folder.path().display())).unwrap();
            let rows = |path: std::path::PathBuf| {
                ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().metadata().file_metadata().num_rows()
            };
            usize::try_from(paths.map(|path| rows(path.unwrap())).sum::<i64>()).unwrap()
        });
    }
}

/// Runs both suites over files in a store; `at` gives a part of it by name.
fn check_store(at: &dyn Fn(&str) -> Arc<dyn Objects>) {
    for (i, pace) in [(1 << 30, Duration::from_secs(3600)), (1, Duration::ZERO)].into_iter().enumerate() {
        let store = at(&format!("forecasts-{i}"));
        let (mut sink, _) = super::parquet::over_store(&store, pace, &full(), &identity());
        check(&mut sink, true, || from_store(&*store));
        let store = at(&format!("by-date-{i}"));
        check(&mut super::parquet::by_date_over_store(&store, pace, &full(), &identity()), true, || from_store(&*store));
        let store = at(&format!("dead-{i}"));
        let (_, mut sink) = super::parquet::over_store(&store, pace, &full(), &identity());
        check_dead_letters(&mut sink, || {
            let rows = |name: &str| {
                let bytes = bytes::Bytes::from(store.get(name).unwrap().unwrap());
                ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().metadata().file_metadata().num_rows()
            };
            usize::try_from(store.list("").unwrap().iter().map(|entry| rows(&entry.name)).sum::<i64>()).unwrap()
        });
    }
}

#[test]
fn parquet_files_in_a_store_hold_to_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    check_store(&|name| Arc::new(Folder::open(&folder.path().join(name)).unwrap()));
    check_store(&|_| Arc::new(MemoryDisk::new()));
}

#[cfg(feature = "cloud")]
#[test]
fn parquet_files_in_a_bucket_hold_to_the_contract_over_http_that_fails_now_and_then() {
    use crate::link::objects::cloud::of_double;
    use crate::link::objects::double::{Double, Fault, KEY};
    let s3 = Double::start("bucket");
    check_store(&|name| {
        for (method, fault) in [("PUT", Fault::Busy), ("PUT", Fault::DoneThenBusy), ("PUT", Fault::DoneThenGone), ("GET", Fault::Busy)] {
            s3.fail(method, fault);
        }
        Arc::new(of_double(&s3, "bucket", name, KEY))
    });
}
