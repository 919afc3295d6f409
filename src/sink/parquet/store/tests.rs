use std::time::Duration;

use super::super::audit::audit_objects;
use super::super::{ParquetDeadLetters, ParquetForecasts, over_store};
use super::*;
use crate::data::commit::Commit;
use crate::data::forecasts::Forecasts;
use crate::data::layout::Layout;
use crate::data::rejected::{Reason, Rejected};
use crate::link::objects::cloud::of_double;
use crate::link::objects::double::{Double, Fault, KEY};
use crate::sink::contract::{commits, sample};
use crate::sink::{DeadLetterSink, ForecastSink, Sink};

fn open(s3: &Double) -> (ParquetForecasts, ParquetDeadLetters) {
    let objects: Arc<dyn Objects> = Arc::new(of_double(s3, "bucket", "out", KEY));
    let identity = crate::sink::contract::identity();
    over_store(&objects, (u64::MAX, Duration::from_secs(3600)), &Layout::full(&identity, true, true, true), &identity)
}

/// A sink that has taken over partition 0, where its files have come to.
fn running(s3: &Double) -> (ParquetForecasts, Option<Commit>) {
    let (mut sink, _) = open(s3);
    let found = sink.recover(Partition(0)).unwrap();
    sink.begin(Partition(0), found.as_ref().map_or(Offset(0), |commit| commit.next)).unwrap();
    (sink, found)
}

fn rows(offsets: std::ops::Range<i64>) -> Forecasts {
    let mut forecasts = sample(usize::try_from(offsets.end - offsets.start).unwrap(), 1);
    forecasts.offsets = offsets.map(Offset).collect();
    forecasts
}

fn name(from: i64) -> String {
    format!("out/partition-0/from={from:020}.parquet")
}

fn codes(s3: &Double) -> Vec<&'static str> {
    audit_objects(Arc::new(of_double(s3, "bucket", "out", KEY))).unwrap().faults.iter().map(super::super::audit::Fault::code).collect()
}

#[test]
fn of_two_writers_of_a_partition_the_second_to_publish_stops_and_leaves_nothing() {
    let s3 = Double::start("bucket");
    let (mut zombie, _) = running(&s3);
    zombie.write(&rows(0..3)).unwrap();
    let (mut heir, _) = running(&s3);
    heir.write(&rows(0..2)).unwrap();
    // Whatever the network does to the requests of the one, the other does not take its file for its own.
    s3.fail("PUT", Fault::DoneThenBusy);
    heir.end_epoch(&commits(1, 2), true).unwrap();
    s3.fail("PUT", Fault::DoneThenGone);
    let error = zombie.end_epoch(&commits(1, 3), true).unwrap_err();
    assert_eq!(error.kind, Kind::Retry);
    let text = error.to_string();
    assert!(text.contains("another instance") && text.contains("s3://bucket/out/partition-0/from=00000000000000000000.parquet"), "{text}");
    assert!(zombie.end_epoch(&commits(1, 3), true).is_err(), "after an error nothing of it gets a name");
    assert_eq!(zombie.durable().unwrap(), 0);
    heir.write(&rows(2..4)).unwrap();
    heir.end_epoch(&commits(1, 4), true).unwrap();
    assert_eq!(s3.objects().into_keys().collect::<Vec<_>>(), [name(0), name(2)]);
    assert_eq!(running(&s3).1, Some(Commit::at(Offset(4))));
    assert_eq!(codes(&s3), Vec::<&str>::new());
}

#[test]
fn footers_are_read_by_their_ends_and_nothing_else_of_a_file() {
    let s3 = Double::start("bucket");
    let (mut sink, _) = running(&s3);
    let mut from = 0;
    // Files that are longer than what is fetched of them.
    for to in [30_000, 30_001, 60_000, 60_010] {
        sink.write(&rows(from..to)).unwrap();
        sink.end_epoch(&commits(1, to), true).unwrap();
        from = to;
    }
    assert!(s3.objects().values().any(|bytes| bytes.len() > 200_000));
    let before = s3.requests().len();
    assert_eq!(running(&s3).1, Some(Commit::at(Offset(60_010))));
    let found = audit_objects(Arc::new(of_double(&s3, "bucket", "out", KEY))).unwrap();
    let tiles = &found.partitions[&Partition(0)];
    assert_eq!((found.faults.len(), tiles.files, tiles.rows, tiles.range), (0, 4, 60_010, Some((Offset(0), Offset(60_010)))));
    assert_eq!(tiles.bytes, s3.objects().values().map(|bytes| bytes.len() as u64).sum::<u64>());
    for (method, what, range) in &s3.requests()[before..] {
        assert!(method == "GET" && (!what.ends_with(".parquet") || range.as_deref() == Some("bytes=-65536")), "{method} {what} {range:?}");
    }
}

#[test]
fn the_audit_of_a_bucket_names_holes_and_foreign_objects() {
    let s3 = Double::start("bucket");
    let (mut sink, _) = running(&s3);
    for from in [0, 10, 20] {
        sink.write(&rows(from..from + 10)).unwrap();
        sink.end_epoch(&commits(1, from + 10), true).unwrap();
    }
    let whole = s3.objects();
    s3.put("out/.meantime-check-1", b"");
    assert_eq!(codes(&s3), Vec::<&str>::new());
    s3.put("out/_SUCCESS", b"");
    s3.put("out/partition-0/part-0.parquet", b"PAR1");
    assert_eq!(codes(&s3), ["foreign"; 2]);
    s3.remove("out/_SUCCESS");
    s3.remove("out/partition-0/part-0.parquet");
    s3.remove(&name(10));
    assert_eq!(codes(&s3), ["hole"]);
    // A file that is cut off, and one that is none at all: no run goes on from them either.
    for bytes in [&whole[&name(20)][..1000], b"", b"no Parquet file at all"] {
        s3.put(&name(20), bytes);
        assert_eq!(codes(&s3), ["foreign"]);
        let error = open(&s3).0.recover(Partition(0)).unwrap_err();
        assert_eq!(error.kind, Kind::Config);
        assert!(error.to_string().contains("cannot be read") && error.to_string().contains(&name(20)), "{error}");
    }
}

#[test]
fn after_a_crash_between_dead_letters_and_forecasts_no_dead_letter_comes_twice() {
    let s3 = Double::start("bucket");
    let letters = |offsets: &[i64]| {
        let mut rejected = Rejected::default();
        for offset in offsets {
            rejected.push((Partition(0), Offset(*offset)), Reason::Malformed, "x", None, Some(b"{"));
        }
        rejected
    };
    let (_, mut sink) = open(&s3);
    sink.begin(Partition(0), Offset(0)).unwrap();
    sink.write(&letters(&[2, 7])).unwrap();
    sink.end_epoch(&commits(1, 10), true).unwrap();
    // The forecasts of these records were not published: they are taken in again, and one more.
    let (_, mut sink) = open(&s3);
    sink.begin(Partition(0), Offset(0)).unwrap();
    sink.write(&letters(&[2, 7, 12])).unwrap();
    sink.end_epoch(&commits(1, 20), true).unwrap();
    assert_eq!((sink.written(), sink.durable().unwrap()), (3, 3));
    let store = Store::over(Arc::new(of_double(&s3, "bucket", "out", KEY)));
    let held: Vec<Vec<Offset>> =
        store.list(Partition(0)).unwrap().into_iter().map(|name| store.offsets(Partition(0), name).unwrap()).collect();
    assert_eq!(held, [vec![Offset(2), Offset(7)], vec![Offset(12)]]);
}

#[test]
fn settings_that_lead_nowhere_stop_the_sink_with_the_words_of_the_store() {
    let s3 = Double::start("bucket");
    for (bucket, key, says) in [("bucket", "somebody", "InvalidAccessKeyId"), ("nowhere", KEY, "NoSuchBucket")] {
        let objects: Arc<dyn Objects> = Arc::new(of_double(&s3, bucket, "out", key));
        let identity = crate::sink::contract::identity();
        let layout = Layout::full(&identity, true, true, true);
        let (mut sink, _) = over_store(&objects, (1, Duration::ZERO), &layout, &identity);
        let error = sink.recover(Partition(0)).unwrap_err();
        assert_eq!(error.kind, Kind::Config);
        assert!(error.to_string().contains(says), "{error}");
    }
}
