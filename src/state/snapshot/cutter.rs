//! One partition's snapshots as its lane takes them: when to copy, when to hand over, what the next one builds on.

use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError};

use super::writer::{Job, Writer, Written};
use crate::base::clock;
use crate::base::error::{Error, Kind, Result};
use crate::base::offset::{Offset, Partition};
use crate::data::held::Held;
use crate::state::KeyStates;

/// The moment a snapshot is of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Boundary {
    /// Every record below it has been taken in, none from it on.
    pub offset: Offset,
    /// Kept with the snapshot and given back when it is found; meaningless here.
    pub note: String,
    /// What `Order::export` gave at this moment.
    pub held: Held,
}

/// What became of the snapshot under way.
#[derive(Debug)]
pub enum Progress {
    /// There is none.
    Idle,
    /// Rows are still to be copied, or the writer has no room yet.
    Copying,
    /// The writer has it.
    Writing,
    /// It is durable. Told once.
    Done(Written),
    /// It could not be stored; the next one will be full. Told once.
    Failed(Error),
}

/// Takes the snapshots of one partition. Kept by the lane beside the partition's key states.
#[derive(Debug)]
pub struct Cutter {
    partition: Partition,
    /// Offset of the last durable snapshot, which the next one may build on.
    base: Option<Offset>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Idle,
    Copying(Box<Job>),
    Copied(Box<Job>),
    Writing(Receiver<Result<Written>>),
}

impl Cutter {
    /// A cutter for a partition; `base` is the offset of the snapshot that its states were loaded from, if they were.
    #[must_use]
    pub fn new(partition: Partition, base: Option<Offset>) -> Self {
        Cutter { partition, base, stage: Stage::Idle }
    }

    /// Whether `begin` would begin.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Idle)
    }

    /// Offset of the newest snapshot that this partition is known to have.
    #[must_use]
    pub fn base(&self) -> Option<Offset> {
        self.base
    }

    /// Begins a snapshot of this moment. Does nothing, and says so with `false`, while another one is under way (if the writer is
    /// behind, snapshots become rarer, not more), or if nothing was taken in since the last one.
    pub fn begin(&mut self, keys: &mut KeyStates, boundary: Boundary) -> bool {
        if !self.is_idle() || self.base == Some(boundary.offset) {
            return false;
        }
        keys.begin_copy(self.base.is_none());
        let Boundary { offset, note, held } = boundary;
        let job = Job { partition: self.partition, offset, base: self.base, keys: keys.len(), note, held, pages: Vec::new() };
        self.stage = Stage::Copying(Box::new(job));
        true
    }

    /// Goes on with the snapshot under way: copies up to `rows` rows, or hands the copy over, or asks how the writer is doing.
    /// With a threaded writer it never blocks.
    pub fn step(&mut self, keys: &mut KeyStates, rows: usize, writer: &Writer) -> Progress {
        match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Idle => Progress::Idle,
            Stage::Copying(mut job) => {
                if !keys.copy_some(rows) {
                    self.stage = Stage::Copying(job);
                    return Progress::Copying;
                }
                job.pages = keys.end_copy();
                self.hand_over(job, writer)
            }
            Stage::Copied(job) => self.hand_over(job, writer),
            Stage::Writing(reply) => match reply.try_recv() {
                Ok(outcome) => self.conclude(outcome),
                Err(TryRecvError::Empty) => {
                    self.stage = Stage::Writing(reply);
                    Progress::Writing
                }
                Err(TryRecvError::Disconnected) => self.conclude(Err(gone())),
            },
        }
    }

    /// Finishes the snapshot under way, blocking up to `within`: `Done`, `Failed`, or `Idle` if there was none. When the time is up that
    /// is a failure here; the writer may still finish it, and whoever takes the partition over then finds it.
    pub fn settle(&mut self, keys: &mut KeyStates, writer: &Writer, within: Duration) -> Progress {
        let start = clock::tick();
        loop {
            let left = within.saturating_sub(start.elapsed());
            match self.step(keys, usize::MAX, writer) {
                Progress::Writing => {
                    let Stage::Writing(reply) = &self.stage else { continue };
                    let outcome = reply.recv_timeout(left).unwrap_or_else(|_| Err(late(within)));
                    self.stage = Stage::Idle;
                    return self.conclude(outcome);
                }
                Progress::Copying if left.is_zero() => {
                    self.stage = Stage::Idle;
                    return self.conclude(Err(late(within)));
                }
                Progress::Copying => writer.wait_for_room(left.min(Duration::from_millis(10))),
                settled => return settled,
            }
        }
    }

    fn hand_over(&mut self, job: Box<Job>, writer: &Writer) -> Progress {
        match writer.submit(job) {
            Ok(reply) => {
                self.stage = Stage::Writing(reply);
                Progress::Writing
            }
            Err(job) => {
                self.stage = Stage::Copied(job);
                Progress::Copying
            }
        }
    }

    fn conclude(&mut self, outcome: Result<Written>) -> Progress {
        match outcome {
            Ok(written) => {
                self.base = Some(written.offset);
                Progress::Done(written)
            }
            Err(error) => {
                // What this one held back from the next delta is lost with it.
                self.base = None;
                Progress::Failed(error)
            }
        }
    }
}

fn gone() -> Error {
    Error::internal("state", "the writer of snapshots has ended")
}

fn late(within: Duration) -> Error {
    Error::new(Kind::Unavailable, "state", format!("a snapshot was not stored within {within:?}"))
        .help("the partition will be replayed from an older one; look at the place that snapshots go to")
}
