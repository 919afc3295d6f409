//! What survives a process: the log's group, what sinks have made visible, the disk. And the processes that come and go in it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::log::Log;
use crate::base::error::{Error, Kind, Result};
use crate::base::offset::{Offset, Partition};
use crate::data::commit::Commit;
use crate::link::objects::{Entry, MemoryDisk, Objects, Put};

/// What the sinks promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Rows and offsets in one transaction.
    Transactions,
    /// Files whose names are taken once, each a commit of its partition.
    Folder,
    /// Rows may come again, offsets are committed by the source.
    AtLeastOnce,
}

/// Visible outputs by position: forecasts, dead letters, forecasts of the shadow.
pub type Outputs = [BTreeMap<(Partition, Offset), Vec<String>>; 3];

pub struct State {
    pub rng: ChaCha8Rng,
    /// What the consumer group has committed.
    pub group: BTreeMap<Partition, Commit>,
    /// Process that the group has given a partition to.
    pub owners: BTreeMap<Partition, u64>,
    /// How often each partition was given to someone.
    pub terms: BTreeMap<Partition, u64>,
    pub outputs: Outputs,
    pub violations: Vec<String>,
    processes: u64,
}

pub struct World {
    pub log: Log,
    pub flavour: Flavour,
    /// Whether a process that has lost a partition is kept from publishing; off only to show that this matters.
    pub fencing: bool,
    /// Snapshots of the shadow.
    pub shadows: MemoryDisk,
    /// Snapshots, and the files of the folder sink.
    pub snapshots: MemoryDisk,
    pub folder: MemoryDisk,
    state: Mutex<State>,
}

impl World {
    pub fn new(log: Log, flavour: Flavour, fencing: bool, seed: u64) -> Self {
        let state = State {
            rng: ChaCha8Rng::seed_from_u64(seed),
            group: BTreeMap::new(),
            owners: BTreeMap::new(),
            terms: BTreeMap::new(),
            outputs: Default::default(),
            violations: Vec::new(),
            processes: 0,
        };
        let [snapshots, folder, shadows] = [(); 3].map(|()| MemoryDisk::new());
        World { log, flavour, fencing, shadows, snapshots, folder, state: Mutex::new(state) }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn chance(&self, p: f64) -> bool {
        self.state().rng.random_bool(p)
    }

    /// A number from 0 up to, but without, `n`.
    pub fn below(&self, n: usize) -> usize {
        self.state().rng.random_range(0..n.max(1))
    }

    pub fn violation(&self, text: String) {
        self.state().violations.push(text);
    }

    /// The group's offset of a partition moves, which it never does backwards.
    pub fn commit(&self, partition: Partition, commit: &Commit) {
        let mut state = self.state();
        if let Some(before) = state.group.get(&partition).filter(|before| before.next > commit.next) {
            let text = format!("the group's offset of partition {partition} goes back from {} to {}", before.next, commit.next);
            state.violations.push(text);
        }
        state.group.insert(partition, commit.clone());
    }
}

type Other = Box<dyn FnOnce() + Send>;

/// A process: it dies at a seeded step, and everything of it fails from then on; or it sleeps at one while another goes on.
pub struct Process {
    pub id: u64,
    pub world: Arc<World>,
    /// Whether sinks and source may fail without a crash.
    pub faulty: bool,
    fuse: AtomicI64,
    dead: AtomicBool,
    sleep: AtomicI64,
    meanwhile: Mutex<Option<Other>>,
}

impl Process {
    /// One that dies at step `fuse`; never if that is negative.
    pub fn new(world: &Arc<World>, fuse: i64, faulty: bool) -> Self {
        let mut state = world.state();
        state.processes += 1;
        let id = state.processes;
        drop(state);
        let world = Arc::clone(world);
        Process {
            id,
            world,
            faulty,
            fuse: AtomicI64::new(fuse),
            dead: AtomicBool::new(false),
            sleep: AtomicI64::new(-1),
            meanwhile: Mutex::new(None),
        }
    }

    /// At step `step` it sleeps, and `other` happens.
    pub fn sleep_at(&self, step: i64, other: Other) {
        self.sleep.store(step, Ordering::Relaxed);
        *self.meanwhile.lock().unwrap_or_else(PoisonError::into_inner) = Some(other);
    }

    /// A step that a crash may come before.
    pub fn step(&self) -> Result<()> {
        if self.dead.load(Ordering::Relaxed) {
            return Err(dead());
        }
        if self.fuse.fetch_sub(1, Ordering::Relaxed) == 0 {
            self.die();
            return Err(dead());
        }
        if self.sleep.fetch_sub(1, Ordering::Relaxed) == 0 {
            let other = self.meanwhile.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(other) = other {
                other();
            }
        }
        Ok(())
    }

    /// A step at which the edge may say no.
    pub fn try_step(&self, what: &str) -> Result<()> {
        self.step()?;
        if self.faulty && self.world.chance(0.004) {
            return Err(Error::new(Kind::Unavailable, "sim", format!("{what} does not answer")));
        }
        Ok(())
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    fn die(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    pub fn owns(&self, partition: Partition) -> bool {
        self.world.state().owners.get(&partition) == Some(&self.id)
    }

    /// Which time it is that someone has the partition, if it is this process.
    pub fn term(&self, partition: Partition) -> Option<u64> {
        if self.owns(partition) { self.world.state().terms.get(&partition).copied() } else { None }
    }
}

pub fn dead() -> Error {
    Error::new(Kind::Unavailable, "sim", "the process is dead")
}

pub fn fenced(what: &str) -> Error {
    Error::new(Kind::Unavailable, "sim", format!("{what}: another process has taken over"))
}

/// A process's view of a disk: a crash may come in the middle of an operation.
pub struct Disk {
    pub process: Arc<Process>,
    pub of: Of,
}

/// What is on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    Snapshots,
    Shadows,
    Folder,
}

impl Disk {
    fn disk(&self) -> &MemoryDisk {
        match self.of {
            Of::Snapshots => &self.process.world.snapshots,
            Of::Shadows => &self.process.world.shadows,
            Of::Folder => &self.process.world.folder,
        }
    }

    /// A write: four steps of the disk, each of which the crash may come before.
    fn write<T>(&self, run: impl FnOnce(&MemoryDisk) -> Result<T>) -> Result<T> {
        self.process.step()?;
        let left = self.process.fuse.load(Ordering::Relaxed);
        if (0..4).contains(&left) {
            self.disk().crash_after(left.unsigned_abs());
        } else if left >= 0 {
            self.process.fuse.fetch_sub(4, Ordering::Relaxed);
        }
        if self.of != Of::Folder && self.process.faulty && self.process.world.chance(0.02) {
            return Err(Error::new(Kind::Unavailable, "sim", "the disk does not answer"));
        }
        let done = run(self.disk());
        if (0..4).contains(&left) {
            // Also where the operation had fewer steps than were left.
            self.process.die();
            return Err(dead());
        }
        done
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a simulated disk")
    }
}

impl std::fmt::Display for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a simulated disk")
    }
}

impl Objects for Disk {
    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<Put> {
        self.write(|disk| disk.put_new(name, bytes))
    }

    fn put_new_file(&self, file: &std::fs::File, name: &str) -> Result<Put> {
        self.write(|disk| disk.put_new_file(file, name))
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.write(|disk| disk.put(name, bytes))
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.process.step()?;
        self.disk().get(name)
    }

    fn tail(&self, name: &str, most: usize) -> Result<Option<Vec<u8>>> {
        self.process.step()?;
        self.disk().tail(name, most)
    }

    fn range(&self, entry: &Entry, from: u64, length: usize) -> Result<Option<Vec<u8>>> {
        self.process.step()?;
        self.disk().range(entry, from, length)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        self.process.step()?;
        self.disk().list(prefix)
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.write(|disk| disk.delete(name))
    }

    fn rename(&self, from: &str, to: &str) -> Result<bool> {
        self.write(|disk| disk.rename(from, to))
    }
}
