//! Equal output is the master test: however records are cut into batches, spread over partitions and lanes, or replayed, the
//! forecasts are the same bytes.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::partition::Recovered;
use super::*;
use crate::base::offset::{Offset, Partition};
use crate::base::time::EventTime;
use crate::data::commit::{Commit, Commits};
use crate::data::input::Input;
use crate::pipeline::{self, Purpose};
use crate::sink::json::RowEncoder;
use crate::sink::memory::Store;
use crate::sink::{ForecastSink, Sink};
use crate::source::generate::stream;
use crate::source::scripted::{Record, Scripted, Step};
use crate::source::{Feed, GenerateSettings, Polled, Stream};

mod reasons;
mod restart;

fn stage(sets: &[&str]) -> Stage {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/cards");
    let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
    Stage::load(pipeline::load(&folder, &sets, Purpose::Run).unwrap()).unwrap()
}

/// Generated records spread over `partitions` by their key.
fn records(events: u64, keys: u32, partitions: i32) -> Vec<Record> {
    let mut stream = stream(&GenerateSettings { stream: Stream::Cards, events, keys, seed: 3 });
    let (mut payload, mut key) = (Vec::new(), Vec::new());
    let mut next = vec![0i64; partitions as usize];
    let mut all = Vec::new();
    loop {
        payload.clear();
        key.clear();
        if stream.next_into(&mut payload, &mut key).is_none() {
            return all;
        }
        let partition = key.iter().map(|b| i32::from(*b)).sum::<i32>() % partitions;
        let offset = &mut next[partition as usize];
        all.push(record(partition, *offset, &key, &payload));
        *offset += 1;
    }
}

fn record(partition: i32, offset: i64, key: &[u8], payload: &[u8]) -> Record {
    Record {
        partition: Partition(partition),
        offset: Offset(offset),
        recorded: None,
        key: Some(key.to_vec()),
        payload: Some(payload.to_vec()),
    }
}

fn card(offset: i64, key: &str, ts: i64, channel: &str) -> Record {
    let payload = format!(r#"{{"id":"e{offset}","card":"{key}","ts":{ts},"amount":10.5,"mcc":3,"channel":"{channel}"}}"#);
    record(0, offset, key.as_bytes(), payload.as_bytes())
}

fn input(records: &[Record]) -> Input {
    let mut input = Input::default();
    for r in records {
        input.records.push(r.partition, r.offset, r.recorded, r.key.as_deref(), r.payload.as_deref());
    }
    input
}

/// Rows as JSON with their positions, sorted.
fn run(stage: &Stage, chunks: &[&[Record]], live_from: i64) -> Vec<(i32, i64, String)> {
    let mut lane = stage.lane().unwrap();
    let mut encoder = RowEncoder::new(&stage.layout, &stage.identity);
    let mut rows = Vec::new();
    for partition in 0..8 {
        lane.assign(Partition(partition), Offset(live_from));
    }
    let mut collect = |lane: &Lane| {
        for row in 0..lane.forecasts.len() {
            let mut json = Vec::new();
            encoder.row(&lane.forecasts, row, &mut json);
            rows.push((lane.forecasts.partitions[row].0, lane.forecasts.offsets[row].0, String::from_utf8(json).unwrap()));
        }
    };
    for chunk in chunks {
        lane.advance(&input(chunk)).unwrap();
        collect(&lane);
    }
    lane.finish().unwrap();
    collect(&lane);
    rows.sort();
    rows
}

/// A field of a row.
fn field(row: &str, name: &str) -> serde_json::Value {
    serde_json::from_str::<serde_json::Value>(row).unwrap()[name].clone()
}

#[test]
fn batch_size_and_poll_boundaries_never_change_a_forecast() {
    for sets in [&[][..], &["order.lateness=30m"][..]] {
        let stage = stage(sets);
        let all = records(3_000, 40, 3);
        let whole = run(&stage, &[&all], 0);
        assert_eq!(whole.len(), all.len());
        for size in [1, 7, 256] {
            let chunks: Vec<&[Record]> = all.chunks(size).collect();
            assert_eq!(run(&stage, &chunks, 0), whole, "batches of {size}");
        }
    }
}

/// What lanes of one partition each give for the records, in the order of `run`.
fn apart(stage: &Stage, all: &[Record]) -> Vec<(i32, i64, String)> {
    let own = |partition| all.iter().filter(|r| r.partition.0 == partition).cloned().collect::<Vec<Record>>();
    let mut rows: Vec<_> = (0..3).flat_map(|partition| run(stage, &[&own(partition)], 0)).collect();
    rows.sort();
    rows
}

#[test]
fn the_number_of_partitions_per_lane_never_changes_a_forecast() {
    let stage = stage(&[]);
    let all = records(2_000, 30, 3);
    let together = run(&stage, &[&all], 0);
    assert_eq!(apart(&stage, &all), together);
}

#[test]
fn what_is_emitted_after_a_silent_replay_is_what_the_whole_run_would_have_emitted() {
    for sets in [&[][..], &["order.lateness=30m"][..]] {
        let stage = stage(sets);
        let all = records(2_000, 30, 1);
        let until = 1_234;
        let (before, _) = all.split_at(until);
        // What the first run had emitted when it had taken in all records below `until`.
        let mut lane = stage.lane().unwrap();
        lane.assign(Partition(0), Offset(0));
        lane.advance(&input(before)).unwrap();
        let emitted = lane.forecasts.len();
        let whole = run(&stage, &[&all], 0);
        let after = run(&stage, &[&all[..700], &all[700..1_300], &all[1_300..]], until as i64);
        assert_eq!(emitted + after.len(), whole.len());
        assert!(after.iter().all(|row| whole.contains(row)));
    }
}

#[test]
fn the_arrived_event_never_influences_its_own_surprise_of_time() {
    let stage = stage(&[]);
    let mut all: Vec<Record> = (0..20).map(|i| card(i, "c1", 1_700_000_000_000 + i * 5_000_000, "web")).collect();
    let before = run(&stage, &[&all], 0);
    all[12] = card(12, "c1", 1_700_000_000_000 + 12 * 5_000_000, "atm");
    let after = run(&stage, &[&all], 0);
    for name in ["surprise_time", "residual"] {
        assert_eq!(field(&before[12].2, name), field(&after[12].2, name), "{name} of the changed event");
        assert!(field(&before[12].2, name).is_number());
    }
    assert_ne!(field(&before[12].2, "surprise_mark"), field(&after[12].2, "surprise_mark"));
    assert_ne!(field(&before[13].2, "surprise_time"), field(&after[13].2, "surprise_time"), "the next event sees the change");
}

#[test]
fn a_late_event_is_clamped_and_flagged_or_becomes_a_dead_letter() {
    let all = [card(0, "c1", 1_700_000_000_000, "web"), card(1, "c1", 1_600_000_000_000, "web"), card(2, "c1", 1_700_000_060_000, "web")];
    let rows = run(&stage(&[]), &[&all], 0);
    assert_eq!(field(&rows[1].2, "gap_s"), 0.0);
    assert_eq!(field(&rows[1].2, "flags"), serde_json::json!(["late_clamped"]));
    assert_eq!(field(&rows[2].2, "gap_s"), 60.0);

    let strict = stage(&["order.late=dead_letter"]);
    let mut lane = strict.lane().unwrap();
    lane.assign(Partition(0), Offset(0));
    lane.advance(&input(&all)).unwrap();
    assert_eq!(lane.forecasts.offsets, [Offset(0), Offset(2)]);
    assert_eq!(lane.rejected.reasons[0].code(), "late");
    assert_eq!(lane.rejected.payloads.get(0), all[1].payload.as_deref());
    assert_eq!(lane.forecasts.gap_s[1], 60.0);
}

#[test]
fn a_time_far_after_its_record_is_a_dead_letter_and_leaves_the_key_alone() {
    let stage = stage(&[]);
    let mut lane = stage.lane().unwrap();
    lane.assign(Partition(0), Offset(0));
    let mut all =
        [card(0, "c1", 1_700_000_000_000, "web"), card(1, "c1", 4_000_000_000_000, "web"), card(2, "c1", 1_700_000_060_000, "web")];
    for record in &mut all {
        record.recorded = Some(crate::base::time::EventTime(1_700_000_100_000_000));
    }
    lane.advance(&input(&all)).unwrap();
    assert_eq!(lane.rejected.reasons[0].code(), "future_time");
    assert_eq!(lane.rejected.payloads.get(0), all[1].payload.as_deref());
    assert_eq!(lane.forecasts.gap_s[1], 60.0);
}

#[test]
fn a_key_idle_beyond_its_expiry_starts_anew_also_within_one_batch() {
    let stage = stage(&["state.expiry=1d"]);
    let day = 86_400_000;
    let all: Vec<Record> =
        [0, 1, 2, 2 * day, 2 * day + 1].iter().enumerate().map(|(i, t)| card(i as i64, "c1", 1_700_000_000_000 + t, "web")).collect();
    let together = run(&stage, &[&all], 0);
    let chunks: Vec<&[Record]> = all.chunks(1).collect();
    assert_eq!(run(&stage, &chunks, 0), together);
    assert_eq!(field(&together[3].2, "n_events"), 1);
    assert_eq!(field(&together[3].2, "flags"), serde_json::json!(["cold_start"]));
    // The law after the second first event is that after the first first event, but for the calendar.
    assert_eq!(field(&together[4].2, "n_events"), 2);
}

#[test]
fn where_keys_are_evicted_the_one_idle_longest_starts_cold_when_it_comes_again_also_within_one_batch() {
    let stage = stage(&["state.max_keys=2", "state.when_full=evict"]);
    // `c` takes the place of `b`, whose last event is older than that of `a`; `b` that of `a`; and `a` that of `c`.
    let all: Vec<Record> = ["b", "a", "a", "c", "a", "b", "b", "c", "a", "a"]
        .iter()
        .zip([0, 10, 20, 30, 25, 40, 50, 60, 70, 80])
        .enumerate()
        .map(|(i, (key, t))| card(i as i64, key, 1_700_000_000_000 + t * 1000, "web"))
        .collect();
    let together = run(&stage, &[&all], 0);
    let counts: Vec<u64> = together.iter().map(|row| field(&row.2, "n_events").as_u64().unwrap()).collect();
    assert_eq!(counts, [1, 1, 2, 1, 3, 1, 2, 2, 1, 2]);
    for (row, count) in together.iter().zip(&counts) {
        let cold = serde_json::json!(["cold_start"]);
        assert_eq!(field(&row.2, "flags") == cold, *count == 1, "{}", row.2);
    }
    let chunks: Vec<&[Record]> = all.chunks(1).collect();
    assert_eq!(run(&stage, &chunks, 0), together);
    // One that starts anew has nothing of the key whose place it takes.
    let alone = run(&self::stage(&[]), &[&[card(8, "a", 1_700_000_070_000, "web"), card(9, "a", 1_700_000_080_000, "web")]], 0);
    let all_but_fingerprint = |row: &str| row.split(",\"fingerprint\"").next().unwrap().to_owned();
    for (row, other) in together[8..].iter().zip(&alone) {
        assert_eq!(all_but_fingerprint(&row.2), all_but_fingerprint(&other.2));
    }
}

#[test]
fn the_bound_on_keys_is_of_each_partition_by_itself() {
    for sets in [&["state.max_keys=15"][..], &["state.max_keys=4", "state.when_full=evict"]] {
        let stage = stage(sets);
        let all = records(2_000, 30, 3);
        let together = run(&stage, &[&all], 0);
        assert_eq!(apart(&stage, &all), together);
    }
}

#[test]
fn evicted_keys_are_counted_and_no_more_are_kept_than_the_plan_allows() {
    let stage = stage(&["state.max_keys=5", "state.when_full=evict"]);
    let (ended, _, _, counts) = drive(&stage, vec![Step::Assign(Partition(0), Offset(0)), Step::Records(records(500, 20, 1)), Step::End]);
    ended.unwrap();
    let load = |count: &std::sync::atomic::AtomicU64| count.load(std::sync::atomic::Ordering::Relaxed);
    assert!(load(&counts.keys) == 5 && load(&counts.evicted) > 15, "{counts:?}");
}

#[test]
fn more_keys_than_the_plan_allows_are_an_error_that_says_so() {
    let stage = stage(&["state.max_keys=5"]);
    let mut lane = stage.lane().unwrap();
    lane.assign(Partition(0), Offset(0));
    let error = lane.advance(&input(&records(100, 20, 1))).unwrap_err();
    assert!(error.to_string().contains("max_keys"), "{error}");
}

#[test]
fn what_was_taken_in_when_a_lane_failed_is_not_committed() {
    let stage = stage(&["state.max_keys=15"]);
    let all = records(200, 20, 1);
    let steps =
        vec![Step::Assign(Partition(0), Offset(0)), Step::Records(all[..10].to_vec()), Step::Records(all[10..].to_vec()), Step::End];
    let (ended, store, handle, _) = drive(&stage, steps);
    assert!(ended.unwrap_err().to_string().contains("max_keys"));
    assert!(handle.committed(Partition(0)).is_none_or(|next| next <= Offset(10)));
    assert!(store.collected().forecasts.durable <= 10);
}

fn drive(stage: &Stage, steps: Vec<Step>) -> (crate::base::error::Result<()>, Store, crate::source::scripted::Handle, Counts) {
    drive_feed(stage, Scripted::new(steps))
}

fn drive_feed(
    stage: &Stage,
    (feed, handle): (Scripted, crate::source::scripted::Handle),
) -> (crate::base::error::Result<()>, Store, crate::source::scripted::Handle, Counts) {
    let store = Store::new();
    let sinks = Sinks {
        forecasts: Box::new(store.forecasts(&stage.layout, &stage.identity)),
        dead_letters: Box::new(store.dead_letters("cards")),
        shadow: None,
    };
    let counts = Counts::default();
    let ended = stage.run(vec![(Box::new(feed), sinks)], &Stop::default(), &counts);
    (ended, store, handle, counts)
}

#[test]
fn a_shadow_that_fails_is_counted_and_the_first_model_goes_on() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/cards");
    let model = tempfile::tempdir().unwrap();
    for name in ["model.onnx", "features.toml"] {
        std::fs::copy(folder.join("model").join(name), model.path().join(name)).unwrap();
    }
    let manifest = std::fs::read_to_string(folder.join("model/model.toml")).unwrap();
    std::fs::write(model.path().join("model.toml"), manifest.replace("version = \"1\"", "version = \"2\"")).unwrap();
    let shadow = format!("shadow={{model=\"{}\",topic=\"next\"}}", model.path().display());
    let mut plan = pipeline::load(&folder, &[shadow], Purpose::Run).unwrap();
    plan.shadow.as_mut().unwrap().plan.state.max_keys = 15;
    let stage = Stage::load(plan).unwrap();
    let beside = stage.beside.as_ref().unwrap();
    let all = records(400, 20, 1);
    let steps =
        vec![Step::Assign(Partition(0), Offset(0)), Step::Records(all[..10].to_vec()), Step::Records(all[10..].to_vec()), Step::End];
    let ((feed, handle), store, second) = (Scripted::new(steps), Store::new(), Store::new());
    let sinks = Sinks {
        forecasts: Box::new(store.forecasts(&stage.layout, &stage.identity)),
        dead_letters: Box::new(store.dead_letters("cards")),
        shadow: Some(Box::new(second.forecasts(&beside.stage.layout, &beside.stage.identity))),
    };
    let counts = Counts::default();
    stage.run(vec![(Box::new(feed), sinks)], &Stop::default(), &counts).unwrap();
    assert_eq!((store.collected().forecasts.durable, second.collected().forecasts.durable), (400, 10));
    assert_eq!(handle.committed(Partition(0)), Some(Offset(all.last().unwrap().offset.0 + 1)));
    let load = |count: &std::sync::atomic::AtomicU64| count.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((load(&counts.shadow.failed), load(&counts.shadow.forecasts), counts.shadow.judged().events), (1, 10, 10));
}

#[test]
fn every_record_is_a_forecast_or_a_dead_letter_and_is_committed_when_durable() {
    let stage = stage(&["dead_letter.max_bad_ratio=0.5"]);
    let mut all = records(500, 20, 2);
    all[17].payload = Some(b"not json".to_vec());
    all[99].payload = None;
    let assign = |p| Step::Assign(Partition(p), Offset(0));
    let (ended, store, handle, counts) = drive(&stage, vec![assign(0), assign(1), Step::Records(all.clone()), Step::Idle, Step::End]);
    ended.unwrap();
    let found = store.collected();
    assert_eq!(found.forecasts.durable, 498);
    assert_eq!(found.dead_letters.durable, 2);
    for partition in [0, 1] {
        let last = all.iter().filter(|r| r.partition.0 == partition).map(|r| r.offset.0).max().unwrap();
        assert_eq!(handle.committed(Partition(partition)), Some(Offset(last + 1)));
    }
    assert_eq!(counts.dead_by_reason().collect::<Vec<_>>(), [("empty", 1), ("malformed", 1)]);
    assert!(handle.log().closed);
}

#[test]
fn a_partition_that_was_revoked_publishes_nothing_after_it_and_is_committed_before() {
    let stage = stage(&[]);
    let all = records(300, 20, 2);
    let (first, second) = all.split_at(150);
    let second: Vec<Record> = second.iter().filter(|r| r.partition.0 == 1).cloned().collect();
    let assign = |p| Step::Assign(Partition(p), Offset(0));
    let steps = vec![assign(0), assign(1), Step::Records(first.to_vec()), Step::Revoke(Partition(0)), Step::Records(second), Step::End];
    let (ended, store, handle, _) = drive(&stage, steps);
    ended.unwrap();
    assert_eq!(handle.log().released, [Partition(0)]);
    let last = first.iter().filter(|r| r.partition.0 == 0).map(|r| r.offset.0).max().unwrap();
    assert_eq!(handle.committed(Partition(0)), Some(Offset(last + 1)));
    assert!(store.collected().forecasts.written.iter().filter(|kept| kept.partition.0 == 0).all(|kept| kept.offset.0 <= last));
}

#[test]
fn an_error_of_the_source_keeps_what_was_done_before() {
    let stage = stage(&[]);
    let all = records(200, 20, 1);
    let steps = vec![Step::Assign(Partition(0), Offset(0)), Step::Records(all), Step::Fail("the broker is gone".into())];
    let (ended, store, handle, _) = drive(&stage, steps);
    assert!(ended.unwrap_err().to_string().contains("the broker is gone"));
    assert_eq!(store.collected().forecasts.durable, 200);
    assert_eq!(handle.committed(Partition(0)), Some(Offset(200)));
}

#[test]
fn an_error_in_the_lane_commits_no_record_whose_forecast_was_not_written() {
    let stage = stage(&["state.max_keys=12"]);
    let all = records(200, 20, 1);
    let (few, many) = all.split_at(10);
    let steps = vec![Step::Assign(Partition(0), Offset(0)), Step::Records(few.to_vec()), Step::Records(many.to_vec()), Step::End];
    let (ended, store, handle, _) = drive(&stage, steps);
    assert!(ended.unwrap_err().to_string().contains("max_keys"));
    let committed = handle.committed(Partition(0)).map_or(0, |next| next.0);
    let durable = store.collected().forecasts.durable;
    assert!(committed <= durable as i64, "committed {committed}, but only {durable} forecasts are there");
}

#[test]
fn too_many_bad_records_stop_the_stage_but_all_of_them_are_dead_letters() {
    let stage = stage(&["dead_letter.max_bad_ratio=0.01"]);
    let mut all = records(2_000, 20, 1);
    for record in all.iter_mut().step_by(20) {
        record.payload = Some(b"{".to_vec());
    }
    let (ended, store, handle, _) = drive(&stage, vec![Step::Assign(Partition(0), Offset(0)), Step::Records(all), Step::End]);
    let error = ended.unwrap_err();
    assert_eq!(error.exit_code(), 1);
    assert!(error.to_string().contains("max_bad_ratio"), "{error}");
    let found = store.collected();
    let committed = handle.committed(Partition(0)).unwrap().0 as usize;
    assert_eq!(found.forecasts.durable + found.dead_letters.durable, committed, "nothing is lost below the commit");
}

#[test]
fn a_restart_from_a_snapshot_goes_on_with_the_same_bytes() {
    for (lateness, most) in [("0s", 40), ("30m", 40), ("0s", 7), ("30m", 7)] {
        let folder = tempfile::tempdir().unwrap();
        let most = format!("state.max_keys={most}");
        let lateness = format!("order.lateness={lateness}");
        let place = format!("state.snapshots={}", folder.path().display());
        let stage = stage(&[&lateness, &place, "state.snapshot_every=1s", &most, "state.when_full=evict"]);
        let all = records(3_000, 40, 1);
        let assign = |p| Step::Assign(Partition(0), Offset(p));
        let (ended, whole, _, _) =
            drive(&self::stage(&[&lateness, &most, "state.when_full=evict"]), vec![assign(0), Step::Records(all.clone()), Step::End]);
        ended.unwrap();
        let whole = whole.collected().forecasts.written;
        let mut found: Vec<_> = Vec::new();
        for (run, cut) in [(0_usize, 1_000_usize), (1_000, 1_700), (1_700, 3_000)] {
            // Records below the committed offset are there as well: replay reads what the snapshot does not hold, and only that.
            let mut steps = vec![assign(run as i64), Step::Records(all[..cut].to_vec())];
            if cut < all.len() {
                steps.push(Step::Revoke(Partition(0)));
            }
            let (ended, store, handle, counts) = drive(&stage, steps);
            ended.unwrap();
            assert_eq!(handle.committed(Partition(0)), Some(Offset(cut as i64)));
            assert!(run == 0 || counts.replayed.load(std::sync::atomic::Ordering::Relaxed) < run as u64, "states came from a snapshot");
            found.extend(store.collected().forecasts.written);
        }
        assert_eq!(found, whole, "{lateness} {most}");
    }
}

#[test]
fn events_before_since_are_left_out_without_a_word_in_any_order_of_offsets() {
    const SINCE: i64 = 1_735_000_000_000;
    let times = [-7_200_000, 0, -1, 60_000, 30_000, -60_000, 90_000];
    let mut all: Vec<Record> = (0_i64..).zip(times).map(|(i, time)| card(i, &format!("c{}", i % 2), SINCE + time, "pos")).collect();
    all.push(record(0, 7, b"c0", b"not JSON"));
    let later: Vec<Record> = all.iter().filter(|record| ![0, 2, 5].contains(&record.offset.0)).cloned().collect();
    for lateness in ["0s", "1h"] {
        let order = format!("order.lateness={lateness}");
        let sets = [&order, "dead_letter.max_bad_ratio=0.5"];
        let stage_since = stage(&[&sets[..], &["source.since=2024-12-24T00:26:40Z"]].concat());
        assert_ne!(stage_since.identity.fingerprint, stage(&sets).identity.fingerprint);
        let bare = |rows: Vec<(i32, i64, String)>| -> Vec<(i64, serde_json::Value)> {
            let value = |row: &str| {
                let mut value: serde_json::Value = serde_json::from_str(row).unwrap();
                value.as_object_mut().unwrap().remove("fingerprint");
                value
            };
            rows.iter().map(|(_, offset, row)| (*offset, value(row))).collect()
        };
        let expected = bare(run(&stage(&sets), &[&later], 0));
        assert_eq!(expected.len(), 4);
        assert_eq!(bare(run(&stage_since, &[&all], 0)), expected, "{lateness}");
        assert_eq!(bare(run(&stage_since, &all.chunks(1).collect::<Vec<_>>(), 0)), expected, "one by one, {lateness}");
        let steps = vec![Step::Assign(Partition(0), Offset(0)), Step::Records(all.clone()), Step::End];
        let (ended, store, handle, counts) = drive(&stage_since, steps);
        ended.unwrap();
        let load = |count: &std::sync::atomic::AtomicU64| count.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!((load(&counts.before_since), load(&counts.forecasts), counts.dead_letters()), (3, 4, 1));
        assert_eq!(store.collected().dead_letters.written.len(), 1);
        assert_eq!(handle.committed(Partition(0)), Some(Offset(8)), "they are done as well");
        let steps = vec![Step::Assign(Partition(0), Offset(4)), Step::Records(all.clone()), Step::End];
        let (ended, _, _, counts) = drive(&stage_since, steps);
        ended.unwrap();
        assert_eq!(load(&counts.before_since), 1, "what is replayed silently was counted before");
    }
}

#[test]
fn a_log_that_was_made_anew_is_an_error_and_not_other_forecasts() {
    let stage = stage(&[]);
    let all = records(300, 20, 1);
    let (_, _, handle, _) = drive(&stage, vec![Step::Assign(Partition(0), Offset(0)), Step::Records(all.clone()), Step::End]);
    let note = handle.log().commits.last().unwrap().get(Partition(0)).unwrap().note.clone();
    for (change, expected) in [(false, None), (true, Some("another one"))] {
        let mut again = all.clone();
        if change {
            again[299].payload = again[17].payload.clone();
        }
        let mut lane = stage.lane().unwrap();
        let recovered = Recovered { note: note.clone(), ..Recovered::empty(Partition(0), Offset(300)) };
        lane.take_over(recovered);
        let outcome = lane.advance(&input(&again)).map_err(|error| error.to_string());
        match expected {
            None => outcome.unwrap(),
            Some(text) => assert!(outcome.clone().unwrap_err().contains(text), "{outcome:?}"),
        }
    }
    let mut lane = stage.lane().unwrap();
    lane.take_over(Recovered { note, ..Recovered::empty(Partition(0), Offset(300)) });
    let error = lane.advance(&input(&[&all[..200], &[record(0, 500, b"k", b"{}")]].concat())).unwrap_err();
    assert!(error.to_string().contains("not there any more"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn any_cut_into_polls_gives_the_same_bytes(cuts in prop::collection::vec(1usize..200, 1..30), seed in 0u64..5, evict: bool) {
        let sets = ["order.lateness=10m", "state.max_keys=4", "state.when_full=evict"];
        let stage = stage(if evict { &sets } else { &sets[..1] });
        let all = records(600 + seed, 15, 2);
        let whole = run(&stage, &[&all], 0);
        let (mut rest, mut chunks) = (&all[..], Vec::new());
        for cut in cuts {
            let (head, tail) = rest.split_at(cut.min(rest.len()));
            chunks.push(head);
            rest = tail;
        }
        chunks.push(rest);
        prop_assert_eq!(run(&stage, &chunks, 0), whole);
    }
}

#[test]
fn the_board_follows_a_partition_from_its_replay_to_its_last_commit() {
    let stage = stage(&[]);
    let all = records(300, 20, 1);
    let steps = vec![
        Step::Assign(Partition(0), Offset(120)),
        Step::Assign(Partition(1), Offset(0)),
        Step::Records(all),
        Step::Revoke(Partition(1)),
        Step::End,
    ];
    let (ended, _, _, counts) = drive(&stage, steps);
    ended.unwrap();
    let board = counts.partitions.standings();
    assert_eq!(board.keys().collect::<Vec<_>>(), [&Partition(0)], "partition 1 was let go");
    let standing = &board[&Partition(0)];
    assert!(standing.is_live() && standing.last_event_time.is_some());
    assert_eq!((standing.start, standing.live_from), (Some(Offset(0)), Offset(120)));
    assert_eq!((standing.next, standing.committed, standing.uncommitted()), (Some(Offset(300)), Some(Offset(300)), None));
    assert_eq!(counts.partitions.restores.read().count, 1, "partition 1 had nothing to restore");
    assert_eq!(counts.replayed.load(std::sync::atomic::Ordering::Relaxed), 120);
    assert_eq!(counts.rounds.read().sum, 300.0, "every event is stepped once, replayed ones too");
    assert!(counts.steps.read().count > 0 && counts.commits.read().count > 0);
    assert_eq!(counts.pulses.longest_silence(), None, "the lane has ended");
}
