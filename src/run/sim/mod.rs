//! The crash kit without machines: seeded runs of the real lane and worker over a simulated log, sinks and disk, with crashes, partitions
//! that move, processes that sleep while another takes over, sinks that fail and snapshots that are damaged. However it went, in the end
//! outputs, states and offsets are those of a run without faults, bit for bit.
//!
//! Nothing here depends on a clock or on threads, so a seed that fails is printed and `MEANTIME_SIM_SEED=N cargo test --lib run::sim` plays it
//! again. `MEANTIME_SIM_SEEDS=K` sets how many are tried.

mod feed;
mod log;
mod sinks;
mod world;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::counts::Counts;
use super::partition::Recovered;
use super::recover::recover;
use super::snapshots::{Cutters, Shelf};
use super::stage::{Stage, Stop};
use super::{lane::Lane, worker};
use crate::base::error::Result;
use crate::base::offset::{Offset, Partition};
use crate::base::time::{EventTime, Gap};
use crate::data::commit::{Commit, Tick};
use crate::data::events::Column;
use crate::data::input::Input;
use crate::link::objects::Objects;
use crate::pipeline::{self, Purpose};
use crate::sink::json::RowEncoder;
use crate::source::Assignment;
use crate::source::scripted::Record;
use crate::state::Slot;
use crate::state::snapshot::Snapshots;
use feed::SimFeed;
use log::Log;
use world::{Disk, Flavour, Of, Outputs, Process, World};

/// Seeds by default: some seconds in a development build.
const SEEDS: u64 = 2000;
/// Most processes with faults of a seed.
const FAULTY: usize = 10;

/// A package for the shadow: the same network under another version, so that its fingerprint and its rows are others.
static SECOND: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let (from, to) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/cards/model"), tempfile::tempdir().unwrap());
    for name in ["model.onnx", "features.toml"] {
        std::fs::copy(from.join(name), to.path().join(name)).unwrap();
    }
    let manifest = std::fs::read_to_string(from.join("model.toml")).unwrap();
    std::fs::write(to.path().join("model.toml"), manifest.replace("version = \"1\"", "version = \"2\"")).unwrap();
    to
});

/// Loading is the slow part, so it is done once.
static STAGES: LazyLock<Vec<Stage>> = LazyLock::new(|| {
    let stage = |sets: &[&str]| {
        let shadow = format!("shadow={{model=\"{}\",topic=\"cards-next\"}}", SECOND.path().display());
        let sets: Vec<&str> = sets.iter().copied().chain([shadow.as_str()]).collect();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/cards");
        // Epochs end when the sink says so: nothing depends on a clock.
        let always = ["sink.commit_every=1h", "dead_letter.max_bad_ratio=1"];
        let sets: Vec<String> = sets.iter().rev().chain(&always).map(|s| (*s).to_owned()).collect();
        Stage::load(pipeline::load(&folder, &sets, Purpose::Run).unwrap()).unwrap()
    };
    vec![
        stage(&[]),
        stage(&["order.lateness=30m"]),
        stage(&["shadow.sample=0.5", "order.lateness=30m"]),
        stage(&["order.lateness=1h", "order.late=dead_letter", "state.expiry=1d"]),
        stage(&["order.late=dead_letter", "state.expiry=1d"]),
        // Half of the keys.
        stage(&["state.max_keys=3", "state.when_full=evict"]),
        // The event before is part of the states.
        stage(&[
            "state.max_keys=3",
            "state.when_full=evict",
            "order.lateness=30m",
            "order.late=dead_letter",
            "state.expiry=1d",
            "reasons={top=3,above=1.0,surprise=\"columns\"}",
        ]),
        stage(&["forecast.overdue=[0.5, 0.9]"]),
        stage(&["forecast.overdue=[0.3]", "state.max_keys=3", "state.when_full=evict"]),
        stage(&[
            "forecast.overdue=[0.3, 0.6]",
            "order.lateness=30m",
            "order.late=dead_letter",
            "state.max_keys=4",
            "state.when_full=evict",
        ]),
    ]
});

/// A partition's states as text: keys with every bit of their state, and what event-time order remembers.
type Picture = BTreeMap<Partition, (Vec<String>, String)>;

fn picture(lane: &Lane) -> Picture {
    let of = |state: &super::partition::PartitionState| {
        let keys = &state.keys;
        let row = |slot: u32| {
            let (slot, meta) = (Slot(slot), keys.metas.row(Slot(slot))[0]);
            let hidden: Vec<u32> = keys.hidden.row(slot).iter().map(|value| value.to_bits()).collect();
            let aggregates: Vec<u64> = keys.aggregates.row(slot).iter().map(|value| value.to_bits()).collect();
            let timers: Vec<_> = keys.timers.of(slot).map(|timer| (timer, keys.timers.watched(slot))).collect();
            format!("{:?} {:?} {} {hidden:?} {aggregates:?} {timers:?}", keys.keys.key(slot), meta.last, meta.events)
        };
        let mut rows: Vec<String> = (0..keys.len() as u32).map(row).collect();
        rows.sort();
        let held = state.order.export();
        let numbers: Vec<Vec<u64>> = held
            .events
            .columns
            .iter()
            .filter_map(Column::numbers)
            .map(|column| column.iter().map(|value| value.to_bits()).collect())
            .collect();
        (rows, format!("{held:?} {numbers:?}"))
    };
    lane.partitions().iter().map(|state| (state.partition, of(state))).collect()
}

fn take_in(lane: &mut Lane, records: &[Record]) {
    let mut input = Input::default();
    for r in records {
        input.records.push(r.partition, r.offset, r.recorded, r.key.as_deref(), r.payload.as_deref());
    }
    lane.advance(&input).unwrap();
}

/// What comes out of the shadow without faults, from where it began.
fn shadow_reference(stage: &Stage, log: &Log, committed: &BTreeMap<Partition, Commit>, outputs: &mut Outputs) {
    let Some(beside) = &stage.beside else { return };
    let mut encoder = RowEncoder::new(&beside.stage.layout, &beside.stage.identity);
    for (partition, commit) in committed {
        let Some(shadow) = &commit.note.shadow else { continue };
        assert_eq!(shadow.fingerprint, beside.fingerprint);
        let mut lane = beside.stage.lane().unwrap().sampling(beside.share);
        lane.take_over(Recovered { from: shadow.origin, ..Recovered::empty(*partition, shadow.origin) });
        let mut collect = |lane: &Lane| {
            for row in 0..lane.forecasts.len() {
                let mut json = Vec::new();
                encoder.row(&lane.forecasts, row, &mut json);
                let at = (lane.forecasts.partitions[row], lane.forecasts.offsets[row]);
                outputs[2].entry(at).or_default().push(String::from_utf8(json).unwrap());
            }
        };
        let records = log.records(*partition);
        let mut records = &records[records.partition_point(|record| record.offset < shadow.origin)..];
        for tick in commit.note.ticks.iter().filter(|tick| tick.at >= shadow.origin) {
            let (before, after) = records.split_at(records.partition_point(|record| record.offset < tick.at));
            take_in(&mut lane, before);
            collect(&lane);
            records = after;
            lane.follow(&[(*partition, *tick)], false).unwrap();
            collect(&lane);
        }
        take_in(&mut lane, records);
        collect(&lane);
    }
}

/// What comes out without faults. Ticks are no function of the log, so they are those that were committed.
fn reference(stage: &Stage, log: &Log, ticks: &BTreeMap<Partition, Vec<Tick>>) -> (Outputs, Picture) {
    let (mut outputs, mut states) = (Outputs::default(), Picture::new());
    let mut encoder = RowEncoder::new(&stage.layout, &stage.identity);
    let mut collect = |lane: &Lane| {
        for row in 0..lane.forecasts.len() {
            let mut json = Vec::new();
            encoder.row(&lane.forecasts, row, &mut json);
            let at = (lane.forecasts.partitions[row], lane.forecasts.offsets[row]);
            outputs[0].entry(at).or_default().push(String::from_utf8(json).unwrap());
        }
        for (kind, partition, offset, json) in sinks::letters(&lane.rejected) {
            outputs[kind].entry((partition, offset)).or_default().push(json);
        }
    };
    for partition in log.all() {
        let mut lane = stage.lane().unwrap();
        lane.assign(partition, Offset(0));
        let mut records = log.records(partition);
        for tick in ticks.get(&partition).into_iter().flatten() {
            let (before, after) = records.split_at(records.partition_point(|record| record.offset < tick.at));
            take_in(&mut lane, before);
            collect(&lane);
            records = after;
            if tick.time == EventTime::MAX { lane.finish() } else { lane.tick(partition, tick.time) }.unwrap();
            collect(&lane);
        }
        take_in(&mut lane, records);
        collect(&lane);
        lane.finish().unwrap();
        collect(&lane);
        states.append(&mut picture(&lane));
    }
    (outputs, states)
}

/// How the processes of a seed are set up.
#[derive(Clone, Copy)]
struct Setup {
    stage: &'static Stage,
    /// Whether there is a shadow: all that live at one time have one, or none has.
    shadow: bool,
    /// Whether a snapshot is begun at every epoch, or only when a partition is let go; without, there are none.
    snapshots: Option<bool>,
}

impl Setup {
    fn shelf(self, process: &Arc<Process>) -> Option<Shelf> {
        let every = if self.snapshots? { Duration::ZERO } else { Duration::from_secs(86_400) };
        let disk: Arc<dyn Objects> = Arc::new(Disk { process: Arc::clone(process), of: Of::Snapshots });
        let columns = self.stage.plan.state_columns().unwrap()?;
        Some(Shelf::inline(Arc::new(Snapshots::new(disk, columns, &self.stage.identity.fingerprint)), every))
    }

    fn shadow_shelf(self, process: &Arc<Process>) -> Option<Shelf> {
        let every = if self.snapshots? { Duration::ZERO } else { Duration::from_secs(86_400) };
        let disk: Arc<dyn Objects> = Arc::new(Disk { process: Arc::clone(process), of: Of::Shadows });
        let beside = self.stage.beside.as_ref()?;
        let columns = beside.stage.plan.state_columns().unwrap()?;
        Some(Shelf::inline(Arc::new(Snapshots::new(disk, columns, &beside.fingerprint)), every))
    }

    /// Runs a process from its start to its end or its death. One that may sleep is overtaken by others meanwhile.
    fn process(self, world: &Arc<World>, waiting: Vec<Partition>, faulty: bool, may_sleep: bool) -> Result<()> {
        let fuse = if faulty && world.chance(0.7) { world.below(250) as i64 } else { -1 };
        let process = Arc::new(Process::new(world, fuse, faulty));
        if faulty && may_sleep && world.chance(0.3) {
            let world = Arc::clone(world);
            let step = world.below(150) as i64;
            let taken: Vec<Partition> = waiting.iter().copied().filter(|_| world.chance(0.7)).collect();
            let other = move || {
                for _ in 0..=world.below(2) {
                    let faulty = world.chance(0.7);
                    // How it ends is its own affair.
                    let _ = self.process(&world, taken.clone(), faulty, false);
                }
            };
            process.sleep_at(step, Box::new(other));
        }
        let polls = if faulty && world.chance(0.7) { world.below(30) as u32 } else { u32::MAX };
        let (stop, counts) = (Stop::default(), Counts::default());
        let shelf = self.shelf(&process);
        // Rows that may come again were released in the order that a lost tick made, and come in another one then.
        let quiet = world.flavour == Flavour::Transactions || self.stage.plan.order.lateness == Gap::ZERO;
        let feed = SimFeed::new(Arc::clone(&process), stop.clone(), waiting, polls, quiet);
        let sinks = sinks::open(&process, self.stage, self.shadow);
        let second = self.shadow_shelf(&process);
        let beside = self.stage.beside.as_ref().filter(|_| self.shadow);
        let follower = beside.map(|beside| beside.follower(Cutters::new(second.as_ref()))).transpose()?;
        let lanes = (self.stage.lane()?, follower);
        let ended = worker::run(&self.stage.plan, Box::new(feed), lanes, sinks, Cutters::new(shelf.as_ref()), &stop, &counts);
        assert!(counts.shadow.failed.load(Ordering::Relaxed) == 0 || process.is_dead(), "a shadow has failed");
        if process.is_dead() && world.chance(0.7) {
            // The machine goes down with it; where a write was cut off in the middle that is what has happened.
            let seed = world.below(usize::MAX) as u64;
            world.snapshots.restart(seed);
            world.shadows.restart(seed);
            world.folder.restart(seed);
        } else {
            world.snapshots.mend();
            world.shadows.mend();
            world.folder.mend();
        }
        ended
    }

    /// The states that a process would find, at the end of everything.
    fn recovered(self, world: &Arc<World>) -> Picture {
        let process = Arc::new(Process::new(world, -1, false));
        let shelf = self.shelf(&process);
        let mut cutters = Cutters::new(shelf.as_ref());
        let mut lane = self.stage.lane().unwrap();
        let mut starts = Vec::new();
        for partition in world.log.all() {
            let committed = committed(world, partition).unwrap();
            let found = cutters.find(partition, Some(&committed)).unwrap();
            let assignment = Assignment { committed: Some(committed.clone()), ..Assignment::whole(partition, "simulation") };
            let (recovered, read_from, _) = recover(&assignment, Some(&committed), found, &lane).unwrap();
            starts.push(format!("{partition}: from {read_from} with {:?} to {committed:?}", recovered.included.ticks));
            lane.take_over(recovered);
            let records = world.log.records(partition);
            take_in(&mut lane, &records[records.partition_point(|record| record.offset < read_from)..]);
        }
        lane.finish().unwrap();
        let again: Vec<_> = lane.forecasts.offsets.iter().chain(&lane.rejected.offsets).collect();
        assert!(again.is_empty(), "{again:?} was emitted before; {starts:#?}");
        picture(&lane)
    }
}

fn committed(world: &World, partition: Partition) -> Option<Commit> {
    match world.flavour {
        Flavour::Folder => sinks::look(&world.folder, 0, partition).unwrap().1,
        _ => world.state().group.get(&partition).cloned(),
    }
}

/// Damages some file of a snapshot: a bit, or the rest of it.
fn damage(world: &World) {
    let disk = if world.chance(0.5) { &world.snapshots } else { &world.shadows };
    let all = disk.list("").unwrap();
    let Some(entry) = all.get(world.below(all.len())).filter(|entry| entry.bytes > 0) else { return };
    let bytes = entry.bytes as usize;
    if world.chance(0.7) {
        disk.flip_bit(&entry.name, world.below(bytes * 8));
    } else {
        disk.tear(&entry.name, world.below(bytes));
    }
}

fn check(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let stage = &STAGES[rng.random_range(0..STAGES.len())];
    let flavour = [Flavour::Transactions, Flavour::Folder, Flavour::AtLeastOnce][rng.random_range(0..3)];
    let snapshots = [Some(true), Some(true), Some(false), None][rng.random_range(0..4)];
    let mut setup = Setup { stage, shadow: false, snapshots };
    let log = Log::generate(&mut rng);
    let shadow_from = [0, 0, rng.random_range(1..6), usize::MAX][rng.random_range(0..4)];
    let world = Arc::new(World::new(log, flavour, mutation() != Some("fencing"), rng.random()));
    world.folder.skip_sync(mutation() == Some("sync"));
    for number in 0..=world.below(FAULTY) {
        setup.shadow = number >= shadow_from;
        // How it ends is its own affair.
        let _ = setup.process(&world, world.log.all(), true, true);
        if world.chance(0.1) {
            damage(&world);
        }
    }
    // One that is left alone comes to the end, and a start at the end brings nothing.
    setup.shadow = shadow_from < usize::MAX;
    for _ in 0..2 {
        setup.process(&world, world.log.all(), false, false).unwrap();
    }
    let violations = std::mem::take(&mut world.state().violations);
    assert!(violations.is_empty(), "{violations:#?}");
    let mut outputs = std::mem::take(&mut world.state().outputs);
    let ticks = world.log.all().into_iter().map(|partition| (partition, committed(&world, partition).map_or(Vec::new(), |c| c.note.ticks)));
    let (mut expected, states) = reference(stage, &world.log, &ticks.collect());
    let commits = world.log.all().into_iter().filter_map(|partition| Some((partition, committed(&world, partition)?))).collect();
    shadow_reference(stage, &world.log, &commits, &mut expected);
    for partition in world.log.all() {
        assert_eq!(
            committed(&world, partition).map(|commit| commit.next),
            Some(world.log.end(partition)),
            "committed offset of {partition}"
        );
        if flavour == Flavour::Folder {
            let rows = [0, 2].into_iter().flat_map(|kind| sinks::look(&world.folder, kind, partition).unwrap().0);
            for (kind, partition, offset, json) in rows {
                outputs[kind].entry((partition, offset)).or_default().push(json);
            }
        }
    }
    for (kind, (mut found, mut expected)) in outputs.into_iter().zip(expected).enumerate() {
        let repeats = flavour == Flavour::AtLeastOnce || (flavour == Flavour::Folder && kind == 1);
        if repeats {
            // What has arrived of a lost attempt may be any of its rows.
            for rows in found.values_mut().chain(expected.values_mut()) {
                rows.sort();
                rows.dedup();
            }
            // A tick that was lost with its attempt may have said so of a key whose next event was only late.
            let overdue =
                |at, row: &String| row.starts_with(r#"{"kind":"overdue""#) && !expected.get(at).is_some_and(|rows| rows.contains(row));
            found.iter_mut().for_each(|(at, rows)| rows.retain(|row| !overdue(at, row)));
        }
        for at in found.keys().chain(expected.keys()) {
            assert_eq!(
                found.get(at),
                expected.get(at),
                "{flavour:?}: {} at {at:?}",
                ["forecast", "dead letter", "forecast of the shadow"][kind]
            );
        }
    }
    assert_eq!(setup.recovered(&world), states, "states");
}

/// What is turned off to see that the kit notices: `fencing`, the `sync` of a file before it gets its name, or what is done about rows of partitions that were lost and came
/// back: before their epoch ends (`release`), or while it waits to be published (`terms`).
fn mutation() -> Option<&'static str> {
    static M: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("MEANTIME_SIM_MUTATION").ok());
    M.as_deref()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

#[test]
fn whatever_fails_outputs_states_and_offsets_are_those_of_a_run_without_faults() {
    if let Some(seed) = number("MEANTIME_SIM_SEED") {
        return check(seed);
    }
    let seeds = number("MEANTIME_SIM_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let worker = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            if std::panic::catch_unwind(|| check(seed)).is_err() {
                next.store(seeds, Ordering::Relaxed);
                panic!("seed {seed} fails: MEANTIME_SIM_SEED={seed} cargo test --lib run::sim");
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(4);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}
