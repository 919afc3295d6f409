//! A change of the model on the real lane: what goes on is what would have been, or what a fresh model makes of right gaps.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::base::offset::{Offset, Partition};
use crate::data::commit::{Commit, Commits};
use crate::data::input::Input;
use crate::pipeline::{self, Purpose};
use crate::run::lane::Lane;
use crate::run::recover::recover;
use crate::run::snapshots::newest_below;
use crate::run::{Counts, Stage, Stop};
use crate::sink::json::RowEncoder;
use crate::source::generate::stream;
use crate::source::scripted::{Record, Scripted, Step};
use crate::source::{Assignment, Feed, GenerateSettings, OnMissing, Stream};
use crate::state::Slot;
use crate::state::snapshot::{Boundary, Cutter, Kind, Mode, Progress, Snapshots, Writer};

const P: Partition = Partition(0);

fn cards() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/cards")
}

/// The package of the cards as another version.
fn next_version(folder: &Path, version: &str, edit: impl Fn(&str, String) -> String) -> PathBuf {
    let to = folder.join(format!("model-{version}"));
    std::fs::create_dir_all(&to).unwrap();
    for name in ["model.onnx", "model.toml", "features.toml", "golden.parquet"] {
        let from = cards().join("model").join(name);
        if name.ends_with(".toml") {
            let text = std::fs::read_to_string(from).unwrap().replace("version = \"1\"", &format!("version = \"{version}\""));
            std::fs::write(to.join(name), edit(name, text)).unwrap();
        } else {
            std::fs::copy(from, to.join(name)).unwrap();
        }
    }
    to
}

fn stage(folder: &Path, package: Option<&Path>, more: &[&str]) -> Stage {
    let mut sets: Vec<String> = more.iter().map(|set| (*set).to_owned()).collect();
    sets.push(format!("state.snapshots={}", folder.join("snapshots").display()));
    sets.extend(package.map(|package| format!("model.package={}", package.display())));
    Stage::load(pipeline::load(&cards(), &sets, Purpose::Run).unwrap()).unwrap()
}

fn records(events: u64) -> Vec<Record> {
    let mut stream = stream(&GenerateSettings { stream: Stream::Cards, events, keys: 25, seed: 5 });
    let (mut payload, mut key, mut all) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        payload.clear();
        key.clear();
        if stream.next_into(&mut payload, &mut key).is_none() {
            return all;
        }
        let offset = Offset(all.len() as i64);
        all.push(Record { partition: P, offset, recorded: None, key: Some(key.clone()), payload: Some(payload.clone()) });
    }
}

fn input(records: &[Record]) -> Input {
    let mut input = Input::default();
    records.iter().for_each(|r| input.records.push(r.partition, r.offset, r.recorded, r.key.as_deref(), r.payload.as_deref()));
    input
}

/// Rows that records bring about, without the names of the model.
fn rows(stage: &Stage, lane: &mut Lane, records: &[Record]) -> Vec<String> {
    let mut encoder = RowEncoder::new(&stage.layout, &stage.identity);
    let mut rows = Vec::new();
    for chunk in records.chunks(97) {
        lane.advance(&input(chunk)).unwrap();
        for row in 0..lane.forecasts.len() {
            let mut json = Vec::new();
            encoder.row(&lane.forecasts, row, &mut json);
            let json = String::from_utf8(json).unwrap();
            assert!(json.contains(&stage.identity.fingerprint));
            rows.push(json.split(",\"model\":").next().unwrap().to_owned());
        }
    }
    rows
}

fn begun(stage: &Stage) -> Lane {
    let mut lane = stage.lane().unwrap();
    lane.assign(P, Offset(0));
    lane
}

/// Stores a snapshot of what the lane has, and says what it has committed.
fn cut(stage: &Stage, lane: &mut Lane) -> Commit {
    let snapshots = Arc::new(stage.snapshots().unwrap().unwrap());
    let fingerprint = stage.identity.fingerprint.clone();
    let state = lane.partitions_mut().first_mut().unwrap();
    let commit = state.boundary(&fingerprint).unwrap();
    let boundary = Boundary { offset: commit.next, note: commit.note.to_string(), held: state.order.export() };
    let (mut cutter, writer) = (Cutter::new(P, None), Writer::inline(snapshots));
    assert!(cutter.begin(&mut state.keys, boundary));
    assert!(matches!(cutter.settle(&mut state.keys, &writer, Duration::from_secs(9)), Progress::Done(_)));
    commit
}

/// A lane of the stage as a start makes it, with this committed; the offset of its snapshot, and from where it reads.
fn restarted(stage: &Stage, commit: &Commit) -> (Lane, Offset, usize) {
    let mut lane = stage.lane().unwrap();
    let snapshots = stage.snapshots().unwrap().unwrap();
    let found = newest_below(&snapshots, P, commit).unwrap();
    let assignment = Assignment::whole(P, "topic");
    let (recovered, read_from, base) = recover(&assignment, Some(commit), found, &lane).unwrap();
    let from = base.expect("a snapshot of this fingerprint");
    assert_eq!(recovered.live_from, commit.next);
    lane.take_over(recovered);
    (lane, from, read_from.0 as usize)
}

fn migrated(from: &Stage, to: &Stage, mode: Mode, commit: &Commit) -> Vec<Moved> {
    let comparison = Comparison::of(from, to).unwrap();
    let commits: Commits = [(P, commit.clone())].into_iter().collect();
    let moves = survey(from, &comparison, Some(&commits), None).unwrap();
    moves.into_iter().map(|of| store(from, to, &comparison, mode, of).unwrap()).collect()
}

/// With held events, timers and decaying statistics in the states.
const RICH: [&str; 2] = ["order.lateness=3h", "forecast.overdue=[0.6, 0.9]"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn carried_to_the_same_package_under_another_version_forecasts_are_those_of_no_change(
        cut_at in 1usize..700, ran_on in 0usize..90, rich in any::<bool>()
    ) {
        let folder = tempfile::tempdir().unwrap();
        let sets = if rich { &RICH[..] } else { &[] };
        let package = next_version(folder.path(), "2", |_, text| text);
        let (one, two) = (stage(folder.path(), None, sets), stage(folder.path(), Some(&package), sets));
        prop_assert_ne!(&one.identity.fingerprint, &two.identity.fingerprint);
        let all = records(800);
        let mut old = begun(&one);
        rows(&one, &mut old, &all[..cut_at]);
        cut(&one, &mut old);
        // The old model goes on after its last snapshot: a crash, not a stop.
        let stop = (cut_at + ran_on).min(all.len() - 1);
        rows(&one, &mut old, &all[cut_at..stop]);
        let commit = old.commits().get(P).unwrap().clone();
        let moved = migrated(&one, &two, Mode::Carry, &commit);
        prop_assert_eq!(moved[0].of.offset, Offset(cut_at as i64));
        let (mut new, from, read_from) = restarted(&two, &commit);
        prop_assert_eq!(from, Offset(cut_at as i64));
        let silent = rows(&two, &mut new, &all[read_from..stop]);
        prop_assert!(silent.is_empty(), "what is committed is replayed silently: {silent:?}");
        prop_assert_eq!(new.size().0, old.size().0);
        prop_assert_eq!(rows(&two, &mut new, &all[stop..]), rows(&one, &mut old, &all[stop..]));
        let told = new.commits().get(P).unwrap().note.fingerprint.clone();
        prop_assert_eq!(&told, &two.identity.fingerprint);
        // And what the next snapshot holds of the new model is found by its next start.
        let commit = cut(&two, &mut new);
        prop_assert_eq!(restarted(&two, &commit).1, commit.next);
    }
}

#[test]
fn reset_is_a_fresh_hidden_state_with_right_gaps_counts_and_statistics() {
    for sets in [&RICH[..], &[]] {
        let folder = tempfile::tempdir().unwrap();
        let package = next_version(folder.path(), "2", |_, text| text);
        let (one, two) = (stage(folder.path(), None, sets), stage(folder.path(), Some(&package), sets));
        let all = records(600);
        let mut old = begun(&one);
        rows(&one, &mut old, &all[..400]);
        let commit = cut(&one, &mut old);
        migrated(&one, &two, Mode::Reset, &commit);
        let (mut new, _, read_from) = restarted(&two, &commit);
        // The same by hand: 32 floats are the tensor, what follows is the law.
        let keys = &mut old.partitions_mut()[0].keys;
        for slot in 0..keys.len() as u32 {
            keys.touch(Slot(slot));
            keys.hidden.row_mut(Slot(slot))[..32].fill(0.0);
        }
        let (expected, found) = (rows(&one, &mut old, &all[400..]), rows(&two, &mut new, &all[read_from..]));
        assert_eq!(found, expected);
        let counted = found.iter().filter(|row| !row.contains("\"n_events\":1,") && row.contains("\"residual\":"));
        assert!(
            counted.clone().count() > 100 && counted.clone().all(|row| !row.contains("\"gap_s\":null")),
            "{:?}",
            counted.clone().next()
        );
        // Not what the old model would have said.
        let mut undisturbed = begun(&one);
        rows(&one, &mut undisturbed, &all[..400]);
        assert_ne!(rows(&one, &mut undisturbed, &all[400..]), found);
    }
}

#[test]
fn a_law_that_the_new_head_reads_otherwise_is_not_scored_and_new_statistics_begin_at_0() {
    let folder = tempfile::tempdir().unwrap();
    // Another unit makes other numbers of the same outputs; another half-life another statistic.
    let package = next_version(folder.path(), "2", |name, text| match name {
        "model.toml" => text.replace("time_unit = \"h\"", "time_unit = \"m\""),
        _ => text.replacen("half_life = \"6h\"", "half_life = \"8h\"", 1).replace("half_life = \"7d\"", "half_life = \"168h\""),
    });
    std::fs::remove_file(package.join("golden.parquet")).unwrap();
    let (one, two) = (stage(folder.path(), None, &[]), stage(folder.path(), Some(&package), &[]));
    let comparison = Comparison::of(&one, &two).unwrap();
    assert_eq!((comparison.law, comparison.tensors.len()), (Law::Anew, 0));
    assert_eq!(comparison.aggregates.1, ["count, half-life 8h"]);
    assert_eq!(comparison.aggregates.0.len(), 5, "24h and 1d are the same: {:?}", comparison.aggregates);
    let all = records(600);
    let mut old = begun(&one);
    rows(&one, &mut old, &all[..400]);
    let commit = cut(&one, &mut old);
    migrated(&one, &two, Mode::Carry, &commit);
    let (mut new, _, read_from) = restarted(&two, &commit);
    let (before, after) = (&old.partitions()[0].keys, &new.partitions()[0].keys);
    for slot in 0..before.len() as u32 {
        let own = after.keys.find(before.keys.key(Slot(slot)).unwrap()).unwrap();
        assert_eq!(after.hidden.row(own)[..32], before.hidden.row(Slot(slot))[..32]);
        assert!(after.hidden.row(own)[32..].iter().all(|value| value.is_nan()));
        let (old, new) = (before.aggregates.row(Slot(slot)), after.aggregates.row(own));
        assert_eq!((new[0], &new[1..]), (0.0, &old[1..]));
    }
    let found = rows(&two, &mut new, &all[read_from..]);
    let mut seen = std::collections::BTreeSet::new();
    for row in found {
        let json: serde_json::Value = serde_json::from_str(&format!("{row}}}")).unwrap();
        let first = seen.insert(json["key"].as_str().unwrap().to_owned());
        assert!(json["gap_s"].is_number() || json["n_events"] == 1);
        assert_eq!(json["surprise_time"].is_number(), !first, "{json}");
        assert_eq!(json["flags"].as_array().unwrap().len(), usize::from(json["n_events"] == 1), "{json}");
    }
}

#[test]
fn statistics_keep_their_numbers_when_a_deviation_comes_or_goes() {
    let folder = tempfile::tempdir().unwrap();
    // Three floats for three, so that the graph takes both.
    let with = next_version(folder.path(), "2", |name, text| match name {
        "model.toml" => text,
        _ => {
            let (from, to) = (text.find("[[column]]\nkind = \"is_first\"").unwrap(), text.find("[[column]]\nkind = \"category\"").unwrap());
            let deviation = "[[column]]\nkind = \"deviation\"\nfield = \"amount\"\nmemory = 50\n\n";
            format!("{}{deviation}{}", &text[..from], &text[to..])
        }
    });
    std::fs::remove_file(with.join("golden.parquet")).unwrap();
    let all = records(600);
    for added in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (plain, more) = (stage(folder.path(), None, &[]), stage(folder.path(), Some(&with), &[]));
        let (one, two) = if added { (&plain, &more) } else { (&more, &plain) };
        let comparison = Comparison::of(one, two).unwrap();
        assert_eq!((comparison.aggregates.0.len(), comparison.aggregates.1.len()), (6, if added { 3 } else { 0 }));
        let mut old = begun(one);
        rows(one, &mut old, &all[..400]);
        let commit = cut(one, &mut old);
        migrated(one, two, Mode::Carry, &commit);
        let (mut new, _, read_from) = restarted(two, &commit);
        let (before, after) = (&old.partitions()[0].keys, &new.partitions()[0].keys);
        for slot in 0..before.len() as u32 {
            let own = after.keys.find(before.keys.key(Slot(slot)).unwrap()).unwrap();
            let (old, new) = (before.aggregates.row(Slot(slot)), after.aggregates.row(own));
            let (deviation, kept, was) = if added { (&new[..3], &new[3..], old) } else { (&old[..3], new, &old[3..]) };
            assert_eq!(kept, was, "the decaying statistics are those of before");
            assert_eq!(deviation.iter().all(|number| *number == 0.0), added, "a new deviation begins at 0: {deviation:?}");
        }
        assert!(!rows(two, &mut new, &all[read_from..]).is_empty());
    }
}

#[test]
fn tensors_that_differ_are_named_with_what_is_possible() {
    let folder = tempfile::tempdir().unwrap();
    let package = next_version(folder.path(), "2", |_, text| text);
    let (one, mut two) = (stage(folder.path(), None, &[]), stage(folder.path(), Some(&package), &[]));
    let error = Comparison::of(&one, &one).unwrap_err();
    assert!(error.to_string().contains("--set model.package=OLD"), "{error}");
    let mut plan = (*two.plan).clone();
    let state = &mut plan.model.as_mut().unwrap().0.states[0];
    state.shape = vec![4, 8];
    two.plan = Arc::new(plan);
    let comparison = Comparison::of(&one, &two).unwrap();
    for asked in [None, Some(Mode::Carry)] {
        let error = comparison.mode(asked).unwrap_err();
        assert_eq!(error.exit_code(), 78);
        let text = error.to_string();
        assert!(
            text.contains("`h` is [32] before and [4, 8] now") && text.contains("--mode reset") && text.contains("--mode rebuild"),
            "{text}"
        );
    }
    assert_eq!(comparison.mode(Some(Mode::Reset)).unwrap(), Mode::Reset);
}

#[test]
fn a_migrated_snapshot_stands_beside_the_one_it_was_made_of_and_says_where_it_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let package = next_version(folder.path(), "2", |_, text| text);
    let (one, two) = (stage(folder.path(), None, &[]), stage(folder.path(), Some(&package), &[]));
    let all = records(300);
    let mut old = begun(&one);
    rows(&one, &mut old, &all[..200]);
    let commit = cut(&one, &mut old);
    let of = |stage: &Stage| {
        let listed = stage.snapshots().unwrap().unwrap().list().unwrap();
        listed.into_iter().filter(|listed| listed.fault.is_none()).collect::<Vec<_>>()
    };
    // Twice, the second time in another mode: the last one holds.
    for mode in [Mode::Reset, Mode::Carry] {
        migrated(&one, &two, mode, &commit);
        let (old, new) = (of(&one), of(&two));
        assert_eq!((old.len(), new.len()), (1, 1), "each finds its own");
        assert_eq!((old[0].offset, new[0].offset, new[0].kind), (Offset(200), Offset(200), Kind::Full));
        let told = new[0].manifest.as_ref().unwrap().header.migrated.clone().unwrap();
        assert_eq!((told.from.as_str(), told.mode, told.model.as_str()), (one.identity.fingerprint.as_str(), mode, "cards 1"));
        assert!(old[0].manifest.as_ref().unwrap().header.migrated.is_none());
    }
    let (mut new, from, read_from) = restarted(&two, &commit);
    assert_eq!(from, Offset(200));
    rows(&two, &mut new, &all[read_from..]);
    // Deltas build on a migrated snapshot as on any other.
    let snapshots = Arc::new(two.snapshots().unwrap().unwrap());
    let state = new.partitions_mut().first_mut().unwrap();
    let commit = state.boundary(&two.identity.fingerprint).unwrap();
    let boundary = Boundary { offset: commit.next, note: commit.note.to_string(), held: state.order.export() };
    let (mut cutter, writer) = (Cutter::new(P, Some(from)), Writer::inline(snapshots));
    assert!(cutter.begin(&mut state.keys, boundary));
    match cutter.settle(&mut state.keys, &writer, Duration::from_secs(9)) {
        Progress::Done(written) => assert_eq!(written.kind, Kind::Delta),
        other => panic!("{other:?}"),
    }
    assert_eq!(restarted(&two, &commit).1, commit.next);
    assert_eq!(of(&one).len(), 1, "who goes back finds the states from before");
}

#[test]
fn models_that_never_ran_cost_no_snapshot_of_those_that_did() {
    let folder = tempfile::tempdir().unwrap();
    let one = stage(folder.path(), None, &[]);
    let all = records(300);
    let mut old = begun(&one);
    rows(&one, &mut old, &all[..200]);
    let commit = cut(&one, &mut old);
    let tried: Vec<Stage> = ["2", "3", "4", "5"]
        .iter()
        .map(|version| stage(folder.path(), Some(&next_version(folder.path(), version, |_, text| text)), &[]))
        .collect();
    tried.iter().for_each(|two| drop(migrated(&one, two, Mode::Carry, &commit)));
    // The last of them runs, and its writer tidies up.
    let two = tried.last().unwrap();
    let (mut new, _, read_from) = restarted(two, &commit);
    rows(two, &mut new, &all[read_from..]);
    cut(two, &mut new);
    let usable = |stage: &Stage| stage.snapshots().unwrap().unwrap().newest(P, Offset(i64::MAX)).unwrap().is_some();
    assert!(usable(&one) && usable(two));
    assert_eq!(tried[..3].iter().filter(|stage| usable(stage)).count(), 1, "the store stays bounded");
}

#[test]
fn rebuilt_states_are_those_of_a_silent_replay_by_the_new_model() {
    let folder = tempfile::tempdir().unwrap();
    let package = next_version(folder.path(), "2", |name, text| match name {
        "model.toml" => text,
        _ => text.replace("half_life = \"6h\"", "half_life = \"1h\""),
    });
    std::fs::remove_file(package.join("golden.parquet")).unwrap();
    let (one, mut two) = (stage(folder.path(), None, &RICH), stage(folder.path(), Some(&package), &RICH));
    let all = records(500);
    let mut old = begun(&one);
    rows(&one, &mut old, &all[..350]);
    let commit = old.commits().get(P).unwrap().clone();
    let goal = Goal::new([(P, commit.clone())].into_iter().collect(), false).unwrap();
    // The log has gone on since.
    let (feed, _) = Scripted::new(vec![
        Step::Assign(P, Offset(0)),
        Step::Records(all[..120].to_vec()),
        Step::Idle,
        Step::Records(all[120..].to_vec()),
        Step::End,
    ]);
    let mut sinks = sinks(&one, &mut two);
    let lanes = vec![(Box::new(Until::new(Box::new(feed), &goal)) as Box<dyn Feed>, sinks())];
    two.run(lanes, &Stop::default(), &Counts::default()).unwrap();
    let listed = two.snapshots().unwrap().unwrap().list().unwrap();
    let header = &listed[0].manifest.as_ref().unwrap().header;
    assert_eq!((header.offset, header.migrated.as_ref().unwrap().mode), (350, Mode::Rebuild));
    two.migrated = None;
    let (mut new, from, read_from) = restarted(&two, &commit);
    assert_eq!(from, Offset(350));
    let mut replayed = two.lane().unwrap();
    replayed.assign(P, Offset(350));
    assert!(rows(&two, &mut replayed, &all[..350]).is_empty());
    assert_eq!(rows(&two, &mut new, &all[read_from..]), rows(&two, &mut replayed, &all[350..]));
}

#[test]
fn a_history_that_is_not_the_one_that_was_committed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut one = stage(folder.path(), None, &[]);
    let all = records(100);
    let mut lane = begun(&one);
    rows(&one, &mut lane, &all[..50]);
    let commits: Commits = [(P, lane.commits().get(P).unwrap().clone())].into_iter().collect();
    let mut other = all.clone();
    other[49].payload = all[48].payload.clone();
    let without: Vec<Record> = all.iter().filter(|record| record.offset != Offset(49)).cloned().collect();
    for (log, says) in [(other, "is another one now"), (without, "is not there any more")] {
        let goal = Goal::new(commits.clone(), false).unwrap();
        let (feed, _) = Scripted::new(vec![Step::Assign(P, Offset(0)), Step::Records(log), Step::End]);
        let mut sinks = sinks(&stage(folder.path(), None, &[]), &mut one);
        let error =
            one.run(vec![(Box::new(Until::new(Box::new(feed), &goal)), sinks())], &Stop::default(), &Counts::default()).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    assert!(Goal::new(Commits::new(), false).unwrap_err().to_string().contains("committed nothing"));
}

#[test]
fn a_new_model_without_states_and_without_history_does_not_start_unless_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let two = stage(folder.path(), None, &[]);
    let lane = two.lane().unwrap();
    let mut commit = Commit::at(Offset(50));
    commit.note.fingerprint = "0123456789abcdef".to_owned();
    let start = |on_missing, low, commit: &Commit| {
        let assignment = Assignment { low: Offset(low), high: Some(Offset(90)), on_missing, ..Assignment::whole(P, "topic cards") };
        recover(&assignment, Some(commit), None, &lane).map(|(_, read_from, _)| read_from)
    };
    for on_missing in [OnMissing::Unsaid, OnMissing::Fail] {
        let error = start(on_missing, 20, &commit).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.exit_code(), 78);
        for part in
            ["0123456789abcdef", two.identity.fingerprint.as_str(), "offset 20", "state migrate", "on_missing = \"rebuild\"", "go back"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(start(on_missing, 0, &commit).unwrap(), Offset(0), "the whole log is there: it is replayed");
    }
    assert_eq!(start(OnMissing::Rebuild, 20, &commit).unwrap(), Offset(20));
    assert_eq!(start(OnMissing::StartEmpty, 20, &commit).unwrap(), Offset(50));
    // The same model: as ever.
    commit.note.fingerprint = two.identity.fingerprint.clone();
    assert_eq!(start(OnMissing::Unsaid, 20, &commit).unwrap(), Offset(20));
}

#[test]
fn partitions_without_a_usable_snapshot_are_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let package = next_version(folder.path(), "2", |_, text| text);
    let (one, two) = (stage(folder.path(), None, &[]), stage(folder.path(), Some(&package), &[]));
    let mut lane = begun(&one);
    rows(&one, &mut lane, &records(100));
    let commit = cut(&one, &mut lane);
    let comparison = Comparison::of(&one, &two).unwrap();
    let commits: Commits = [(P, commit), (Partition(3), Commit::at(Offset(9)))].into_iter().collect();
    let error = survey(&one, &comparison, Some(&commits), None).unwrap_err();
    assert!(error.to_string().contains("no usable snapshot of partition 3"), "{error}");
    // A snapshot above what is committed belongs to an attempt that was lost.
    let early: Commits = [(P, Commit::at(Offset(60)))].into_iter().collect();
    assert!(survey(&one, &comparison, Some(&early), None).is_err());
    assert_eq!(survey(&one, &comparison, None, None).unwrap().len(), 1, "where nobody knows what is committed it is the newest");
    let snapshots: Snapshots = two.snapshots().unwrap().unwrap();
    assert!(snapshots.newest(P, Offset(i64::MAX)).unwrap().is_none());
}

#[test]
fn reasons_by_columns_go_on_from_a_snapshot_and_begin_anew_with_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let sets = ["reasons={top=3,above=2.0,surprise=\"columns\"}"];
    let package = next_version(folder.path(), "2", |_, text| text);
    let (one, two) = (stage(folder.path(), None, &sets), stage(folder.path(), Some(&package), &sets));
    let all = records(900);
    let (first, rest) = all.split_at(400);
    let mut lane = begun(&one);
    rows(&one, &mut lane, first);
    let commit = cut(&one, &mut lane);
    let undisturbed = rows(&one, &mut lane, rest);
    let (mut again, _, read_from) = restarted(&one, &commit);
    assert_eq!(rows(&one, &mut again, &all[read_from..]), undisturbed, "the event before is in the snapshot");
    let has_reasons = |row: &String| row.contains("\"reasons\":[{");
    assert!(undisturbed.iter().filter(|row| has_reasons(row)).count() > 50);

    // Of another model only the first event of each key has none: the one before it was stepped by the old model.
    let comparison = Comparison::of(&one, &two).unwrap();
    assert!(
        comparison.event_before
            && comparison.lines(Mode::Carry).iter().any(|line| line.starts_with("reasons by columns: none of the next"))
    );
    migrated(&one, &two, Mode::Carry, &commit);
    let (mut carried, _, read_from) = restarted(&two, &commit);
    let carried = rows(&two, &mut carried, &all[read_from..]);
    let (mut seen, mut lost) = (std::collections::BTreeSet::new(), 0);
    for (row, expected) in carried.iter().zip(&undisturbed) {
        if seen.insert(serde_json::from_str::<serde_json::Value>(&format!("{row}}}")).unwrap()["key"].to_string()) {
            assert!(!has_reasons(row), "{row}");
            lost += usize::from(has_reasons(expected));
        } else {
            assert_eq!(row, expected);
        }
    }
    assert!(carried.len() == undisturbed.len() && lost > 0);
}

#[test]
fn reasons_by_columns_that_are_turned_on_or_off_ask_for_states_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, columns) = (stage(folder.path(), None, &[]), stage(folder.path(), None, &["reasons={surprise=\"columns\"}"]));
    let parts = stage(folder.path(), None, &["reasons={surprise=\"parts\"}"]);
    assert_eq!(plain.identity.fingerprint, parts.identity.fingerprint, "parts need nothing of the states");
    let all = records(300);
    for (from, to) in [(&plain, &columns), (&columns, &plain)] {
        let mut lane = begun(from);
        rows(from, &mut lane, &all);
        let commit = cut(from, &mut lane);
        assert_ne!(from.identity.fingerprint, to.identity.fingerprint);
        let found = newest_below(&to.snapshots().unwrap().unwrap(), P, &commit).unwrap();
        assert!(found.is_none(), "no state of another shape is loaded");
        let start = |low| {
            let assignment = Assignment { low: Offset(low), on_missing: OnMissing::Unsaid, ..Assignment::whole(P, "topic cards") };
            recover(&assignment, Some(&commit), None, &to.lane().unwrap()).map(|(_, read_from, _)| read_from)
        };
        assert_eq!(start(0).unwrap(), Offset(0), "they are rebuilt");
        let refused = start(20).unwrap_err().to_string();
        assert!(refused.contains("the model or the pipeline has changed") && refused.contains("the pipeline file as it was"), "{refused}");
        // Asked for while the stage runs, they are what they were.
        let moved = migrated(from, to, Comparison::of(from, to).unwrap().mode(None).unwrap(), &commit);
        assert_eq!(moved.len(), 1);
        let (lane, from, _) = restarted(to, &commit);
        assert_eq!((from, lane.size().0), (commit.next, 25));
    }
}
