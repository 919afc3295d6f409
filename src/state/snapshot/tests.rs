use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::base::offset::{Offset, Partition};
use crate::base::time::EventTime;
use crate::data::events::{Column, Events};
use crate::data::flags::Flags;
use crate::data::held::{Held, WatermarkAt};
use crate::data::schema::{Field, FieldKind};
use crate::link::objects::{Folder, MemoryDisk, Objects};
use crate::state::{KeyStates, Slot, Watched};

const P: Partition = Partition(7);
const LAST: Offset = Offset(i64::MAX);

fn columns() -> Columns {
    let field = |name: &str, kind| Field { name: name.to_owned(), kind };
    // Names that are taken already must do no harm.
    let tensors = vec![("h".to_owned(), 3), ("key".to_owned(), 1), ("none".to_owned(), 0), ("law".to_owned(), 2)];
    Columns { tensors, aggregates: 2, fields: vec![field("time", FieldKind::Number), field("channel", FieldKind::Text)] }
}

fn empty() -> KeyStates {
    KeyStates::new(&[0.5; 6], 2, 3)
}

fn store(objects: &Arc<MemoryDisk>) -> Arc<Snapshots> {
    Arc::new(Snapshots::new(Arc::clone(objects) as Arc<dyn Objects>, columns(), "f00d"))
}

/// Numbers from a seed, any bits: also those of NaNs with a payload.
fn bits(seed: u64, at: u64) -> u64 {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ at.wrapping_mul(0xd1b5_4a32_d192_ed03);
    x ^= x >> 29;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = x ^ (x >> 32);
    if x.is_multiple_of(5) { x | 0x7ff0_0001_7f80_0001 } else { x }
}

fn key(number: u32) -> Vec<u8> {
    // Not all of them are UTF-8, and one is empty.
    if number == 0 { Vec::new() } else { [b"k\xff".as_slice(), &number.to_le_bytes()[..1 + number as usize % 4]].concat() }
}

/// What an event does: the key is interned, then all of its row may change.
fn change(states: &mut KeyStates, number: u32, seed: u64, most: usize) {
    let time = EventTime(bits(seed, 1) as i64);
    let (slot, _) = states.intern_within(&key(number), time, most, None);
    let meta = &mut states.metas.row_mut(slot)[0];
    meta.last = time;
    meta.events += 1;
    (meta.batch, meta.round) = (seed as u32, 3);
    for (i, value) in states.hidden.row_mut(slot).iter_mut().enumerate() {
        *value = f32::from_bits(bits(seed, 10 + i as u64) as u32);
    }
    for (i, value) in states.aggregates.row_mut(slot).iter_mut().enumerate() {
        *value = f64::from_bits(bits(seed, 20 + i as u64));
    }
    let after = Watched { offset: Offset(bits(seed, 30) as i64 >> 1), time, events: states.metas.row(slot)[0].events };
    let due = (0..3).map(|i| (bits(seed, 31 + i) & 1 == 0).then(|| EventTime(bits(seed, 35 + i) as i64)));
    states.timers.set(slot, after, due);
}

/// A state as something that can be compared bit for bit.
type Picture = BTreeMap<Vec<u8>, (i64, u64, Vec<u32>, Vec<u64>, String)>;

fn picture(states: &KeyStates) -> Picture {
    let row = |slot: u32| {
        let (slot, meta) = (Slot(slot), states.metas.row(Slot(slot))[0]);
        let hidden = states.hidden.row(slot).iter().map(|value| value.to_bits()).collect();
        let aggregates = states.aggregates.row(slot).iter().map(|value| value.to_bits()).collect();
        let timers: Vec<_> = states.timers.of(slot).collect();
        // Without a timer nothing is watched.
        let timers = if timers.is_empty() { String::new() } else { format!("{timers:?} {:?}", states.timers.watched(slot)) };
        (states.keys.key(slot).unwrap().to_vec(), (meta.last.0, meta.events, hidden, aggregates, timers))
    };
    (0..states.len() as u32).map(row).collect()
}

fn held(seed: u64, count: u64) -> Held {
    let mut events = columns().no_events();
    for i in 0..count {
        let random = bits(seed, 100 + i);
        events.partitions.push(P);
        events.offsets.push(Offset(i as i64 * 3));
        events.times.push(EventTime(random as i64));
        events.recorded.push((random & 1 == 0).then_some(EventTime(5)));
        events.keys.push(&key((random % 50) as u32));
        events.ids.push_option((random & 2 == 0).then_some(b"id"));
        events.flags.push(Flags::from_bits(random as u8));
        if let [Column::Number(numbers), Column::Text(texts)] = events.columns.as_mut_slice() {
            numbers.push(f64::from_bits(bits(seed, 200 + i)));
            texts.push_option((random & 4 == 0).then_some(b"web\xfe"));
        }
    }
    let now = (count > 0).then_some(EventTime(seed as i64));
    Held { events, watermark: WatermarkAt { now, ahead: now.filter(|_| count > 2) } }
}

/// Held events as something that can be compared bit for bit.
fn shown(held: &Held) -> String {
    let Events { columns, .. } = &held.events;
    let numbers: Vec<u64> = columns[0].numbers().unwrap().iter().map(|value| value.to_bits()).collect();
    let rest = Events { columns: vec![columns[1].clone()], ..held.events.clone() };
    format!("{rest:?} {numbers:?} {:?}", held.watermark)
}

/// A lane's view of one partition: changes, cuts, and what each durable snapshot must be.
struct Lane {
    states: KeyStates,
    cutter: Cutter,
    writer: Writer,
    offset: i64,
    /// Most keys.
    most: usize,
    /// The moment of the cut under way, and those of snapshots that were confirmed.
    begun: Option<(i64, Picture, String)>,
    all: BTreeMap<i64, (Picture, String)>,
    confirmed: Vec<Written>,
    failed: usize,
}

impl Lane {
    fn new(snapshots: &Arc<Snapshots>) -> Self {
        Lane {
            states: empty(),
            cutter: Cutter::new(P, None),
            writer: Writer::inline(Arc::clone(snapshots)),
            offset: 0,
            most: usize::MAX,
            begun: None,
            all: BTreeMap::new(),
            confirmed: Vec::new(),
            failed: 0,
        }
    }

    fn change(&mut self, number: u32) {
        self.offset += 1;
        change(&mut self.states, number, self.offset as u64, self.most);
    }

    fn begin(&mut self) {
        let held = held(self.offset as u64, self.offset as u64 % 5);
        let moment = (self.offset, picture(&self.states), shown(&held));
        let boundary = Boundary { offset: Offset(self.offset), note: format!("note {}", self.offset), held };
        if self.cutter.begin(&mut self.states, boundary) {
            self.all.insert(moment.0, (moment.1.clone(), moment.2.clone()));
            self.begun = Some(moment);
        }
    }

    fn step(&mut self, rows: usize) {
        match self.cutter.step(&mut self.states, rows, &self.writer) {
            Progress::Done(written) => {
                let (offset, ..) = self.begun.take().unwrap();
                assert_eq!((written.partition, written.offset), (P, Offset(offset)));
                self.confirmed.push(written);
            }
            Progress::Failed(_) => self.failed += 1,
            _ => {}
        }
    }

    fn snapshot(&mut self) {
        self.begin();
        // Copied, handed over and written, and told.
        (0..3).for_each(|_| self.step(usize::MAX));
    }

    /// Whatever is found is the state of its moment, bit for bit.
    fn check(&self, snapshots: &Snapshots, at_most: Offset) -> Option<i64> {
        let found = snapshots.newest(P, at_most).unwrap()?;
        let offset = found.offset.0;
        assert!(offset <= at_most.0);
        assert_eq!(found.note, format!("note {offset}"));
        let (expected, waiting) = &self.all[&offset];
        for number in 0..8 {
            let known = found.key(&key(number)).unwrap().is_some_and(|state| state.last.is_some());
            assert_eq!(known, expected.contains_key(&key(number)), "key {number}");
        }
        let mut loaded = empty();
        let held = found.load(&mut loaded).unwrap();
        assert_eq!(&picture(&loaded), expected);
        assert_eq!(&shown(&held), waiting);
        Some(offset)
    }
}

#[derive(Clone, Debug)]
enum Act {
    Change(u32),
    Begin,
    Step(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![12 => (0u32..40).prop_map(Act::Change), 1 => Just(Act::Begin), 5 => (1usize..12).prop_map(Act::Step)];
    prop::collection::vec(act, 1..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_cut_is_the_state_of_its_moment_whatever_happens_while_it_is_copied(acts in acts(), most in prop_oneof![Just(usize::MAX), 1usize..25]) {
        let disk = Arc::new(MemoryDisk::new());
        let snapshots = store(&disk);
        let mut lane = Lane { most, ..Lane::new(&snapshots) };
        for act in acts {
            match act {
                Act::Change(key) => lane.change(key),
                Act::Begin => lane.begin(),
                Act::Step(rows) => lane.step(rows),
            }
        }
        for _ in 0..50 {
            lane.step(1);
        }
        prop_assert_eq!(lane.failed, 0);
        let newest = lane.confirmed.last().map(|written| written.offset.0);
        prop_assert_eq!(lane.check(&snapshots, LAST), newest);
        for written in &lane.confirmed {
            // Older ones may be gone by now; what is still there is right.
            lane.check(&snapshots, written.offset);
        }
        // A lane that goes on from what it has loaded takes a delta, and that is right as well.
        let Some(found) = snapshots.newest(P, LAST).unwrap() else { return Ok(()) };
        let mut second = Lane { all: lane.all.clone(), offset: found.offset.0, most, cutter: Cutter::new(P, Some(found.offset)), ..Lane::new(&snapshots) };
        found.load(&mut second.states).unwrap();
        second.change(3);
        second.change(77);
        second.snapshot();
        prop_assert_eq!(second.confirmed[0].kind, Kind::Delta);
        prop_assert!(second.confirmed[0].rows <= 2 + 2 + 5, "only what has changed, was forgotten, and is held");
        prop_assert_eq!(second.check(&snapshots, LAST), Some(second.offset));
    }

    #[test]
    fn a_damaged_snapshot_is_passed_over_for_an_older_one(
        counts in prop::collection::vec(1u32..30, 2..6), which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), how in 0..3
    ) {
        let disk = Arc::new(MemoryDisk::new());
        let snapshots = store(&disk);
        let mut lane = Lane::new(&snapshots);
        for count in counts {
            (0..count).for_each(|i| lane.change(i * 7 % 30));
            lane.snapshot();
        }
        let newest = lane.check(&snapshots, LAST).unwrap();
        let at_newest = format!("{newest:020}");
        let entries = disk.list("").unwrap();
        let victim = which.get(&entries);
        match how {
            0 => prop_assert!(disk.flip_bit(&victim.name, at.index(victim.bytes as usize * 8))),
            1 => prop_assert!(disk.tear(&victim.name, at.index(victim.bytes as usize))),
            _ => disk.delete(&victim.name).unwrap(),
        }
        let found = lane.check(&snapshots, LAST);
        let offset = manifest::parse(&victim.name).unwrap().offset;
        // A flipped bit in the time of writing or in white space of a manifest hurts nothing; every other damage is noticed.
        if victim.name.ends_with(".arrow") || how > 0 {
            prop_assert!(disk.list("").unwrap().len() < entries.len() || snapshots.list().unwrap().iter().any(|listed| listed.fault.is_some()));
            let only = entries.iter().filter(|entry| entry.name.contains(&at_newest)).count() == 2;
            prop_assert!(!(only && offset.0 == newest && found == Some(newest)), "a damaged snapshot was taken");
        }
    }

    #[test]
    fn a_crash_at_any_step_leaves_every_confirmed_snapshot_usable(steps in 0u64..80, seed in any::<u64>()) {
        let disk = Arc::new(MemoryDisk::new());
        prop_assert!(survives(&disk, steps, seed));
    }
}

/// Whether the newest confirmed snapshot is found after a crash; what is found is checked bit for bit.
fn survives(disk: &Arc<MemoryDisk>, steps: u64, seed: u64) -> bool {
    let snapshots = store(disk);
    let mut lane = Lane::new(&snapshots);
    disk.crash_after(steps);
    for round in 0..12 {
        (0..5).for_each(|i| lane.change(round * 3 + i));
        lane.snapshot();
    }
    disk.restart(seed);
    let found = lane.check(&snapshots, LAST);
    found >= lane.confirmed.last().map(|written| written.offset.0)
}

#[test]
fn without_the_sync_before_the_rename_confirmed_snapshots_are_lost() {
    let lost = (0..200).filter(|seed| {
        let disk = Arc::new(MemoryDisk::new());
        disk.skip_sync(true);
        !survives(&disk, 20 + seed % 40, *seed)
    });
    assert!(lost.count() > 20, "the simulated disk must be able to show what the sync is for");
}

#[test]
fn long_chains_are_merged_and_two_chains_are_kept() {
    let disk = Arc::new(MemoryDisk::new());
    let snapshots = store(&disk);
    let mut lane = Lane::new(&snapshots);
    (0..200).for_each(|i| lane.change(i));
    lane.snapshot();
    for round in 0..40 {
        lane.change(round);
        lane.snapshot();
        assert_eq!(lane.check(&snapshots, LAST), Some(lane.offset));
    }
    let kinds = |kind| lane.confirmed.iter().filter(|written| written.kind == kind).count();
    assert_eq!((kinds(Kind::Full), kinds(Kind::Delta)), (1, 40), "a lane writes one full snapshot, all others are merged behind its back");
    let listed = snapshots.list().unwrap();
    assert!(listed.iter().all(|listed| listed.fault.is_none()), "{listed:#?}");
    assert_eq!(listed.iter().filter(|listed| listed.kind == Kind::Full).count(), 2);
    assert!(listed.len() <= 2 * (MAX_DELTAS + 2), "{}", listed.len());
}

#[test]
fn forgotten_keys_stay_forgotten_through_deltas_and_merges() {
    let disk = Arc::new(MemoryDisk::new());
    let snapshots = store(&disk);
    let mut lane = Lane { most: 20, ..Lane::new(&snapshots) };
    (0..20).for_each(|i| lane.change(i));
    lane.snapshot();
    for round in 0..40 {
        // Some come back, some come and go between two snapshots.
        (0..1 + round % 7).for_each(|i| lane.change(round * 3 % 50 + i));
        lane.snapshot();
        assert_eq!((lane.states.len(), lane.check(&snapshots, LAST)), (20, Some(lane.offset)));
    }
    assert_eq!(lane.confirmed.iter().filter(|written| written.kind == Kind::Full).count(), 1, "a delta says what was forgotten");
    // Each file has every key at most once, and no more forgotten keys than slots.
    assert!(lane.confirmed.iter().all(|written| written.rows <= 20 + 20 + 5));
}

#[test]
fn nothing_is_written_when_nothing_was_taken_in_and_a_failure_makes_the_next_one_full() {
    let disk = Arc::new(MemoryDisk::new());
    let snapshots = store(&disk);
    let mut lane = Lane::new(&snapshots);
    lane.change(1);
    lane.snapshot();
    lane.snapshot();
    assert_eq!(lane.confirmed.len(), 1);
    lane.change(2);
    disk.fail_next(1);
    lane.snapshot();
    assert_eq!((lane.confirmed.len(), lane.failed), (1, 1));
    assert_eq!(lane.check(&snapshots, LAST), Some(1));
    lane.change(3);
    lane.snapshot();
    assert_eq!(lane.confirmed.last().unwrap().kind, Kind::Full);
    assert_eq!(lane.check(&snapshots, LAST), Some(3));
}

#[test]
fn an_unreachable_store_is_an_error_and_not_the_absence_of_snapshots() {
    let disk = Arc::new(MemoryDisk::new());
    let snapshots = store(&disk);
    let mut lane = Lane::new(&snapshots);
    lane.change(1);
    lane.snapshot();
    disk.fail_next(1);
    assert!(snapshots.newest(P, LAST).is_err());
    assert!(snapshots.newest(P, Offset(0)).unwrap().is_none(), "none is at or below offset 0");
    assert!(snapshots.newest(Partition(8), LAST).unwrap().is_none());
}

#[test]
fn snapshots_of_another_fingerprint_are_not_used_and_the_newest_of_them_are_kept() {
    let disk = Arc::new(MemoryDisk::new());
    let snapshots = store(&disk);
    let other = Arc::new(Snapshots::new(Arc::clone(&disk) as Arc<dyn Objects>, columns(), "beef"));
    let mut old = Lane::new(&other);
    (0..30).for_each(|i| old.change(i));
    old.snapshot();
    assert!(snapshots.newest(P, LAST).unwrap().is_none());
    let mut lane = Lane::new(&snapshots);
    for round in 0..30 {
        (0..20).for_each(|i| lane.change(round + i));
        lane.snapshot();
    }
    assert_eq!(lane.check(&snapshots, LAST), Some(lane.offset));
    assert_eq!(old.check(&other, LAST), Some(30), "a pipeline that is taken back finds its states");
    let faults = snapshots.list().unwrap().into_iter().filter_map(|listed| listed.fault).collect::<Vec<_>>();
    assert_eq!(faults, ["its fingerprint is beef, the pipeline's is f00d"]);
}

#[test]
fn after_a_rewind_new_snapshots_take_the_place_of_old_ones_at_higher_offsets() {
    let disk = Arc::new(MemoryDisk::new());
    let snapshots = store(&disk);
    let mut old = Lane { offset: 100_000, ..Lane::new(&snapshots) };
    for round in 0..30 {
        (0..20).for_each(|i| old.change(round + i));
        old.snapshot();
    }
    let mut lane = Lane::new(&snapshots);
    for round in 0..30 {
        (0..20).for_each(|i| lane.change(round + i));
        lane.snapshot();
        assert_eq!(lane.check(&snapshots, Offset(lane.offset)), Some(lane.offset));
    }
    assert_eq!(lane.failed, 0);
    assert_eq!(lane.check(&snapshots, LAST), Some(lane.offset), "those of before the rewind are gone by now");
}

#[test]
fn a_threaded_writer_stores_behind_the_lane_and_settles_on_demand() {
    let folder = tempfile::tempdir().unwrap();
    let objects: Arc<dyn Objects> = Arc::new(Folder::open(folder.path()).unwrap());
    let snapshots = Arc::new(Snapshots::new(objects, columns(), "f00d"));
    let mut lane = Lane { writer: Writer::start(Arc::clone(&snapshots)).unwrap(), ..Lane::new(&snapshots) };
    for round in 0..20 {
        (0..300).for_each(|i| lane.change(i * round % 900));
        lane.begin();
        let settled = lane.cutter.settle(&mut lane.states, &lane.writer, Duration::from_secs(60));
        assert!(matches!(settled, Progress::Done(_)), "{settled:?}");
    }
    let last = lane.offset;
    let writer = std::mem::replace(&mut lane.writer, Writer::inline(Arc::clone(&snapshots)));
    writer.close();
    assert_eq!(lane.check(&snapshots, LAST), Some(last));
}

#[test]
fn one_key_is_found_in_the_newest_file_that_knows_it() {
    let disk = Arc::new(MemoryDisk::new());
    let snapshots = store(&disk);
    let mut lane = Lane::new(&snapshots);
    (0..40).for_each(|i| lane.change(i));
    lane.snapshot();
    lane.change(5);
    lane.snapshot();
    let found = snapshots.newest(P, LAST).unwrap().unwrap();
    let state = found.key(&key(5)).unwrap().unwrap();
    assert_eq!(state.events, 2);
    let names: Vec<(&str, usize)> = state.tensors.iter().map(|(name, values)| (name.as_str(), values.len())).collect();
    assert_eq!(names, [("h", 3), ("key", 1), ("none", 0), ("law", 2)]);
    assert_eq!(found.key(&key(6)).unwrap().unwrap().events, 1);
    assert_eq!(found.key(b"nobody").unwrap(), None);
}

/// The states that the fixture of format 1 was made from.
fn fixture(lane: &mut Lane) {
    (0..200).for_each(|i| lane.change(i));
    lane.snapshot();
    (0..3).for_each(|i| lane.change(i * 13));
    lane.snapshot();
}

#[test]
fn snapshots_of_format_1_can_be_read_for_ever() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/snapshots/v1");
    if std::env::var_os("WRITE_SNAPSHOT_FIXTURE").is_some() {
        let objects: Arc<dyn Objects> = Arc::new(Folder::open(&folder).unwrap());
        fixture(&mut Lane::new(&Arc::new(Snapshots::new(objects, columns(), "f00d"))));
    }
    // The same acts say what must be read; only the bytes are old.
    let mut lane = Lane::new(&store(&Arc::new(MemoryDisk::new())));
    fixture(&mut lane);
    let objects: Arc<dyn Objects> = Arc::new(Folder::open(&folder).unwrap());
    let stored = Snapshots::new(objects, columns(), "f00d");
    assert_eq!(stored.list().unwrap().len(), 2);
    assert_eq!(lane.check(&stored, LAST), Some(203));
    assert_eq!(lane.check(&stored, Offset(202)), Some(200));
}
