//! Writes snapshots behind the lanes' backs: encodes, stores, merges long chains, and removes what is no longer needed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::encode::{Encoded, encode};
use super::found::Part;
use super::manifest::{FORMAT, Header, Kind, Manifest};
use super::merge::merge;
use super::store::Snapshots;
use super::{Boundary, MAX_DELTAS, retention};
use crate::base::clock;
use crate::base::error::{Error, Result};
use crate::base::fail_point::fail_point;
use crate::base::offset::{Offset, Partition};
use crate::data::held::Held;
use crate::state::KeyStates;
use crate::state::changes::Page;

/// Snapshots that wait for the writer; each may be as large as a partition's states.
const QUEUE: usize = 1;

/// A finished copy on its way to the store.
#[derive(Debug)]
pub(super) struct Job {
    pub partition: Partition,
    pub offset: Offset,
    /// Offset of the snapshot to build on; none: a full one.
    pub base: Option<Offset>,
    /// Keys of the whole state.
    pub keys: usize,
    pub note: String,
    pub held: Held,
    pub pages: Vec<Page>,
}

/// A snapshot that is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
    /// Full or delta.
    pub kind: Kind,
    /// Rows of its file.
    pub rows: u64,
    /// Bytes of its file.
    pub bytes: u64,
    /// How long encoding and storing took, without the wait for the writer.
    pub took: Duration,
}

/// The one writer of a process, for all its lanes.
#[derive(Debug)]
pub struct Writer(Mode);

#[derive(Debug)]
enum Mode {
    Thread { jobs: Sender<Order>, thread: JoinHandle<()> },
    Inline(Mutex<Work>),
}

struct Order {
    job: Box<Job>,
    reply: Sender<Result<Written>>,
}

impl Writer {
    /// A writer with its own thread.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(snapshots: Arc<Snapshots>) -> Result<Self> {
        let (jobs, orders) = bounded::<Order>(QUEUE);
        let mut work = Work::new(snapshots);
        let run = move || {
            for Order { job, reply } in orders {
                let written = work.write(*job);
                let tidy = written.as_ref().ok().map(|(_, manifest)| manifest.clone());
                // A lane that has let the partition go no longer listens.
                let _ = reply.send(written.map(|(written, _)| written));
                if let Some(manifest) = tidy {
                    work.tidy(&manifest);
                }
            }
        };
        let thread = std::thread::Builder::new().name("snapshots".to_owned()).spawn(run);
        let thread = thread.map_err(|e| Error::internal("state", format!("the writer of snapshots cannot be started: {e}")))?;
        Ok(Writer(Mode::Thread { jobs, thread }))
    }

    /// A writer that does its work in the caller's thread, so that a simulation is the same every time.
    #[must_use]
    pub fn inline(snapshots: Arc<Snapshots>) -> Self {
        Writer(Mode::Inline(Mutex::new(Work::new(snapshots))))
    }

    /// Waits for what has been handed over, and ends. A writer that is dropped instead goes on by itself for as long as the process lives;
    /// to be cut off in the middle harms nothing that is durable.
    pub fn close(self) {
        if let Mode::Thread { jobs, thread } = self.0 {
            drop(jobs);
            if thread.join().is_err() {
                tracing::error!("the writer of snapshots panicked; see the log above");
            }
        }
    }

    /// Hands a copy over; gives it back if there is no room.
    pub(super) fn submit(&self, job: Box<Job>) -> std::result::Result<Receiver<Result<Written>>, Box<Job>> {
        let (reply, outcome) = bounded(1);
        match &self.0 {
            Mode::Thread { jobs, .. } => match jobs.try_send(Order { job, reply }) {
                // A writer that has ended drops the order and with it the reply, which the cutter sees.
                Ok(()) => Ok(outcome),
                Err(TrySendError::Disconnected(_)) => Ok(outcome),
                Err(TrySendError::Full(order)) => Err(order.job),
            },
            Mode::Inline(work) => {
                let mut work = work.lock().unwrap_or_else(PoisonError::into_inner);
                let written = work.write(*job);
                if let Ok((_, manifest)) = &written {
                    work.tidy(manifest);
                }
                let _ = reply.send(written.map(|(written, _)| written));
                Ok(outcome)
            }
        }
    }

    /// Gives the writer time to take something from its queue.
    pub(super) fn wait_for_room(&self, most: Duration) {
        if matches!(self.0, Mode::Thread { .. }) {
            std::thread::sleep(most);
        }
    }
}

/// Stores whole states as a full snapshot, in the caller's thread. Older snapshots are left as they are.
///
/// # Errors
/// The place cannot be written to.
pub fn store(snapshots: Arc<Snapshots>, partition: Partition, boundary: Boundary, keys: &mut KeyStates) -> Result<Written> {
    keys.begin_copy(true);
    keys.copy_some(usize::MAX);
    let Boundary { offset, note, held } = boundary;
    let job = Job { partition, offset, base: None, keys: keys.len(), note, held, pages: keys.end_copy() };
    Ok(Work::new(snapshots).write(job)?.0)
}

/// What the writer does, and what it remembers so that it need not list the store every time.
#[derive(Debug)]
struct Work {
    snapshots: Arc<Snapshots>,
    catalogues: HashMap<Partition, Vec<Manifest>>,
}

impl Work {
    fn new(snapshots: Arc<Snapshots>) -> Self {
        Work { snapshots, catalogues: HashMap::new() }
    }

    fn write(&mut self, job: Job) -> Result<(Written, Manifest)> {
        let (start, partition) = (clock::tick(), job.partition);
        let written = self.try_write(job);
        if written.is_err() {
            // What is there now is not known.
            self.catalogues.remove(&partition);
        }
        let manifest = written?;
        let Manifest { header, rows, bytes, .. } = &manifest;
        let (offset, took) = (Offset(header.offset), start.elapsed());
        Ok((Written { partition, offset, kind: header.kind, rows: *rows, bytes: *bytes, took }, manifest))
    }

    fn try_write(&mut self, job: Job) -> Result<Manifest> {
        let Job { partition, offset, base, keys, note, held, pages } = job;
        let snapshots = Arc::clone(&self.snapshots);
        let base = match base {
            None => None,
            Some(base) => Some(self.base(partition, base)?),
        };
        let header = Header {
            format: FORMAT,
            kind: if base.is_some() { Kind::Delta } else { Kind::Full },
            partition: partition.0,
            offset: offset.0,
            fingerprint: snapshots.fingerprint.clone(),
            base: base.as_ref().map(Manifest::as_base),
            keys: u64::try_from(keys).unwrap_or(u64::MAX),
            held: u64::try_from(held.events.len()).unwrap_or(u64::MAX),
            watermark: held.watermark,
            note,
            written: clock::now(),
            migrated: snapshots.migrated.clone().filter(|_| base.is_none()),
        };
        let encoded = encode(&snapshots.columns, &header, pages, &held.events)?;
        self.store(header, &encoded)
    }

    /// Stores file and manifest, the manifest last: only then does the snapshot count.
    fn store(&mut self, header: Header, encoded: &Encoded) -> Result<Manifest> {
        let (objects, partition) = (Arc::clone(&self.snapshots.objects), Partition(header.partition));
        let bytes = u64::try_from(encoded.bytes.len()).unwrap_or(u64::MAX);
        let manifest = Manifest { rows: encoded.rows, bytes, crc32c: crc32c::crc32c(&encoded.bytes), header };
        let text = serde_json::to_vec_pretty(&manifest).map_err(|e| Error::internal("state", e.to_string()))?;
        fail_point("snapshot.copied");
        if manifest.header.migrated.is_some() {
            // One of this name has other states, if states were migrated to the same model before: it must not count while its file is replaced.
            objects.delete(&manifest.header.manifest())?;
        }
        objects.put(&manifest.header.file(), &encoded.bytes)?;
        fail_point("snapshot.file_stored");
        objects.put(&manifest.header.manifest(), &text)?;
        fail_point("snapshot.manifest_stored");
        let catalogue = self.catalogue(partition)?;
        catalogue.retain(|other| other.header.manifest() != manifest.header.manifest());
        catalogue.push(manifest.clone());
        catalogue.sort_by_key(Manifest::order);
        Ok(manifest)
    }

    fn catalogue(&mut self, partition: Partition) -> Result<&mut Vec<Manifest>> {
        if !self.catalogues.contains_key(&partition) {
            let found = self.snapshots.catalogue(partition)?;
            self.catalogues.insert(partition, found);
        }
        self.catalogues.get_mut(&partition).ok_or_else(|| Error::internal("state", "a catalogue was just made sure of"))
    }

    /// The snapshot at `offset` that a delta can build on.
    fn base(&mut self, partition: Partition, offset: Offset) -> Result<Manifest> {
        let snapshots = Arc::clone(&self.snapshots);
        let catalogue = self.catalogue(partition)?;
        let usable = |manifest: &&Manifest| manifest.header.offset == offset.0 && snapshots.chain(catalogue, manifest).is_ok();
        catalogue.iter().find(usable).cloned().ok_or_else(|| {
            let text = format!("the snapshot of partition {partition} at {offset}, which the next one was to build on, is gone");
            Error::new(crate::base::error::Kind::Unavailable, "state", text).help("the next snapshot is a full one; nothing else is lost")
        })
    }

    /// Merges a chain that has become long, and removes what is no longer needed. What goes wrong here is logged and tried again after
    /// the next snapshot: every snapshot that there was is still there.
    fn tidy(&mut self, newest: &Manifest) {
        let partition = Partition(newest.header.partition);
        let tidied = self.merge_if_long(partition, newest).and_then(|()| {
            let snapshots = Arc::clone(&self.snapshots);
            retention::apply(&snapshots, partition, self.catalogue(partition)?)
        });
        if let Err(error) = tidied {
            self.catalogues.remove(&partition);
            tracing::warn!(%partition, %error, "snapshots could not be tidied up");
        }
    }

    fn merge_if_long(&mut self, partition: Partition, newest: &Manifest) -> Result<()> {
        let snapshots = Arc::clone(&self.snapshots);
        let catalogue = self.catalogue(partition)?;
        let Ok(chain) = snapshots.chain(catalogue, newest) else { return Ok(()) };
        let full = chain.last().map_or(0, |manifest| manifest.bytes);
        let deltas: u64 = chain.iter().rev().skip(1).map(|manifest| manifest.bytes).sum();
        if chain.len() <= MAX_DELTAS + 1 && deltas <= full {
            return Ok(());
        }
        let chain: Vec<Manifest> = chain.into_iter().cloned().collect();
        let mut parts = Vec::new();
        for manifest in chain {
            let bytes = snapshots.read(&manifest)?.map_err(super::decode::damaged)?;
            parts.push(Part { manifest, bytes });
        }
        let (header, merged) = merge(&snapshots.columns, &parts)?;
        drop(parts);
        let manifest = self.store(header, &merged)?;
        tracing::debug!(%partition, offset = manifest.header.offset, bytes = manifest.bytes, "snapshots merged");
        Ok(())
    }
}
