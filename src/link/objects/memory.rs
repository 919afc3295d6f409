//! A disk in memory that can crash: for tests and simulations, as strict as the folder it stands for.
//!
//! It does what `Folder` does, step by step: write a temporary file, sync it, rename or link it, sync the names. At a crash, what was
//! not synced is lost, or kept, or torn, as the seed decides; the names since their last sync survive up to some point in their order.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Entry, Objects, Put, check_name};
use crate::base::error::{Error, Kind, Result};

/// A simulated disk. Clones of an `Arc` of it share it, as processes share a folder.
#[derive(Debug, Default)]
pub struct MemoryDisk {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    files: Vec<File>,
    /// Names as a running process sees them, and as they are on the disk.
    names: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    /// Changes of names since they were last synced; no file: removed.
    changes: Vec<(String, Option<usize>)>,
    skip_sync: bool,
    /// Steps until it crashes.
    fuse: Option<u64>,
    steps: u64,
    crashed: bool,
    failures: u32,
}

#[derive(Debug, Default)]
struct File {
    content: Vec<u8>,
    synced: bool,
}

impl MemoryDisk {
    /// An empty disk without faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Skips the sync of a file before its name is made, as a careless writer would: what a mutation test turns on to show that the
    /// sync matters.
    pub fn skip_sync(&self, skip: bool) {
        self.state().skip_sync = skip;
    }

    /// Crashes in the middle of a later operation: at the `steps`-th write, sync or change of a name from now on. Every operation from
    /// then on is an error, until `restart`.
    pub fn crash_after(&self, steps: u64) {
        self.state().fuse = Some(steps);
    }

    /// Lets the next `count` operations fail without doing anything.
    pub fn fail_next(&self, count: u32) {
        self.state().failures = count;
    }

    /// Steps so far: writes, syncs and changes of names. To learn how many crash points an operation has.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// The machine goes down, if it has not yet, and comes up again: what was not synced is lost, kept or torn, as `seed` decides.
    pub fn restart(&self, seed: u64) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut state = self.state();
        let changes = std::mem::take(&mut state.changes);
        let kept = rng.random_range(0..=changes.len());
        for (name, file) in changes.into_iter().take(kept) {
            match file {
                Some(file) => state.durable.insert(name, file),
                None => state.durable.remove(&name),
            };
        }
        for file in state.files.iter_mut().filter(|file| !file.synced) {
            match rng.random_range(0..3) {
                0 => file.content.clear(),
                1 => {
                    // The length may be there before the content is: a hole of zeros.
                    let torn = rng.random_range(0..=file.content.len());
                    file.content.iter_mut().skip(torn).for_each(|byte| *byte = 0);
                }
                _ => {
                    let torn = rng.random_range(0..=file.content.len());
                    file.content.truncate(torn);
                }
            }
            file.synced = true;
        }
        state.names = state.durable.clone();
        (state.crashed, state.fuse, state.failures) = (false, None, 0);
    }

    /// Works again with everything that was done: only the process that was writing has died.
    pub fn mend(&self) {
        let mut state = self.state();
        (state.crashed, state.fuse, state.failures) = (false, None, 0);
    }

    /// Flips one bit of an object on the disk. Says whether there was such a bit.
    pub fn flip_bit(&self, name: &str, bit: usize) -> bool {
        self.damage(name, |content| match content.get_mut(bit / 8) {
            Some(byte) => {
                *byte ^= 1 << (bit % 8);
                true
            }
            None => false,
        })
    }

    /// Cuts an object on the disk to its first `bytes` bytes. Says whether it was longer.
    pub fn tear(&self, name: &str, bytes: usize) -> bool {
        self.damage(name, |content| {
            let longer = content.len() > bytes;
            content.truncate(bytes);
            longer
        })
    }

    fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        let mut state = self.state();
        let file = state.names.get(name).copied();
        file.and_then(|file| state.files.get_mut(file)).is_some_and(|file| change(&mut file.content))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn operate(&self) -> Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        if state.crashed {
            return Err(crashed());
        }
        if state.failures > 0 {
            state.failures -= 1;
            return Err(Error::new(Kind::Retry, "objects", "the simulated disk does not answer"));
        }
        Ok(state)
    }
}

impl State {
    /// One step that a crash may come before.
    fn step(&mut self) -> Result<()> {
        self.steps += 1;
        match &mut self.fuse {
            Some(0) => {
                self.crashed = true;
                return Err(crashed());
            }
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(())
    }

    /// A file under no name yet, written and synced.
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.step()?;
        self.files.push(File { content: bytes.to_vec(), synced: false });
        let file = self.files.len() - 1;
        if !self.skip_sync {
            self.step()?;
            self.files.iter_mut().skip(file).for_each(|file| file.synced = true);
        }
        Ok(file)
    }

    /// Changes a name, and syncs the names.
    fn name(&mut self, name: &str, file: Option<usize>) -> Result<()> {
        self.step()?;
        match file {
            Some(file) => self.names.insert(name.to_owned(), file),
            None => self.names.remove(name),
        };
        self.changes.push((name.to_owned(), file));
        self.step()?;
        self.changes.clear();
        self.durable = self.names.clone();
        Ok(())
    }

    fn content(&self, name: &str) -> Option<&Vec<u8>> {
        self.names.get(name).and_then(|file| self.files.get(*file)).map(|file| &file.content)
    }
}

impl Objects for MemoryDisk {
    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<Put> {
        check_name(name)?;
        let mut state = self.operate()?;
        if state.names.contains_key(name) {
            return Ok(Put::Exists);
        }
        let file = state.write(bytes)?;
        state.name(name, Some(file))?;
        Ok(Put::Created)
    }

    fn put_new_file(&self, file: &std::fs::File, name: &str) -> Result<Put> {
        self.put_new(name, &super::content(file)?)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        check_name(name)?;
        let mut state = self.operate()?;
        let file = state.write(bytes)?;
        state.name(name, Some(file))
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.operate()?.content(name).cloned())
    }

    fn tail(&self, name: &str, most: usize) -> Result<Option<Vec<u8>>> {
        let state = self.operate()?;
        Ok(state.content(name).map(|content| content.iter().skip(content.len().saturating_sub(most)).copied().collect()))
    }

    fn range(&self, entry: &Entry, from: u64, length: usize) -> Result<Option<Vec<u8>>> {
        let (state, from) = (self.operate()?, usize::try_from(from).unwrap_or(usize::MAX));
        Ok(state.content(&entry.name).map(|content| content.iter().skip(from).take(length).copied().collect()))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        let state = self.operate()?;
        let below = state.names.iter().filter(|(name, _)| name.starts_with(prefix));
        let entry = |(name, file): (&String, &usize)| {
            let bytes = state.files.get(*file).map_or(0, |file| u64::try_from(file.content.len()).unwrap_or(u64::MAX));
            Entry { name: name.clone(), bytes, version: None }
        };
        Ok(below.map(entry).collect())
    }

    fn delete(&self, name: &str) -> Result<()> {
        let mut state = self.operate()?;
        if state.names.contains_key(name) { state.name(name, None) } else { Ok(()) }
    }

    fn rename(&self, from: &str, to: &str) -> Result<bool> {
        check_name(to)?;
        let mut state = self.operate()?;
        let Some(file) = state.names.get(from).copied() else { return Ok(false) };
        state.name(to, Some(file))?;
        state.name(from, None)?;
        Ok(true)
    }
}

impl fmt::Display for MemoryDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a disk in memory")
    }
}

fn crashed() -> Error {
    Error::new(Kind::Unavailable, "objects", "the simulated disk has crashed")
}
