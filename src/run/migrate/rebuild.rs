//! States of the new model, made by taking history through it ahead of time: what a start without a snapshot would do, before it has to be done.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::super::stage::{Sinks, Stage};
use super::moves::provenance;
use crate::base::error::{Error, Kind, Result};
use crate::base::number::i64_of_count;
use crate::base::offset::{Offset, Partition};
use crate::data::commit::{Commit, Commits};
use crate::data::input::{Input, Table};
use crate::sink::void::Void;
use crate::source::{Assignment, Feed, Handed, OnMissing, Polled};
use crate::state::snapshot::Mode;

/// Where the history ends that is taken in, for all lanes of a run.
#[derive(Debug)]
pub struct Goal {
    commits: Commits,
    /// Rows are those of files: they show neither ticks nor the last record's checksum.
    files: bool,
    /// First record that was taken in of each partition, and whether its end has been reached.
    seen: Mutex<BTreeMap<Partition, (Option<Offset>, bool)>>,
}

impl Goal {
    /// Up to what is committed. `files`: history is read from files, which may end earlier.
    ///
    /// # Errors
    /// Nothing is committed; from files, where moments were recorded at which the clock on the wall had moved a partition on.
    pub fn new(commits: Commits, files: bool) -> Result<Arc<Self>> {
        let ahead: Commits =
            commits.iter().filter(|(_, commit)| commit.next > Offset(0)).map(|(partition, commit)| (partition, commit.clone())).collect();
        if ahead.is_empty() {
            return Err(Error::config("state", "the pipeline has committed nothing: there are no states to rebuild")
                .help("point [model] package at the new model and start it"));
        }
        if files
            && let Some((partition, _)) = ahead.iter().find(|(_, commit)| !commit.note.ticks.is_empty() || commit.note.dropped.is_some())
        {
            let text =
                format!("partition {partition} was idle at times ([order] idle_after), which is noted with its commits and not in files");
            return Err(Error::config("state", text).help("rebuild from the topic (leave --from out), or use --mode carry or reset"));
        }
        let seen = Mutex::new(ahead.iter().map(|(partition, _)| (partition, (None, false))).collect());
        Ok(Arc::new(Goal { commits: ahead, files, seen }))
    }

    /// The partitions, with where each is to end.
    pub fn ends(&self) -> impl Iterator<Item = (Partition, Offset)> {
        self.commits.iter().map(|(partition, commit)| (partition, end(commit)))
    }

    /// First record that was taken in of each partition that had any.
    #[must_use]
    pub fn begun(&self) -> BTreeMap<Partition, Offset> {
        self.seen().iter().filter_map(|(partition, (first, _))| Some((*partition, (*first)?))).collect()
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<Partition, (Option<Offset>, bool)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_reached(&self) -> bool {
        self.seen().values().all(|(_, reached)| *reached)
    }

    /// Records of a partition were handed out, of which `first` and `last` are the outermost. Returns how many offsets from `first` on are to be taken in.
    fn note(&self, partition: Partition, first: Offset, last: Offset) -> Result<i64> {
        let Some(commit) = self.commits.get(partition) else { return Ok(0) };
        let end = end(commit);
        let mut seen = self.seen();
        let Some((begun, reached)) = seen.get_mut(&partition) else { return Ok(0) };
        if !*reached && first >= end && !self.files && commit.note.last.is_some() {
            let text = format!("the record at offset {}, the last one below what was committed, is not there any more", end.0 - 1);
            return Err(Error::config("state", text)
                .at(format!("partition {partition}"))
                .help("the log was made anew, cut or compacted since"));
        }
        begun.get_or_insert(first);
        *reached |= last.next() >= end;
        Ok(end.0.saturating_sub(first.0).max(0))
    }
}

/// After the last record: behind it only marks of transactions follow, which no replay sees.
fn end(commit: &Commit) -> Offset {
    commit.note.last.map_or(commit.next, |last| last.offset.next().min(commit.next))
}

/// A feed that ends at the goal.
pub struct Until {
    inner: Box<dyn Feed>,
    goal: Arc<Goal>,
}

impl Until {
    /// Cuts a feed off at the goal.
    #[must_use]
    pub fn new(inner: Box<dyn Feed>, goal: &Arc<Goal>) -> Self {
        Until { inner, goal: Arc::clone(goal) }
    }

    fn assigned(&self, mut assignment: Box<Assignment>) -> Result<Polled> {
        let commit = self.goal.commits.get(assignment.partition);
        if assignment.low > Offset(0) && commit.is_some() {
            let text = format!("the records below offset {} are gone: history is not whole", assignment.low);
            return Err(Error::config("state", text)
                .at(format!("{}, partition {}", assignment.place, assignment.partition))
                .help("name files that hold it: --from FILES --positions PARTITION,OFFSET; or use --mode carry or reset"));
        }
        assignment.on_missing = OnMissing::Rebuild;
        // Everything below is replayed silently, and with it what was noted: ticks, and the record that must be found last. Rows of files have no such notes.
        assignment.committed = commit.filter(|_| !self.goal.files).map(|commit| {
            let mut commit = commit.clone();
            commit.next = end(&commit);
            // The states that are noted with it are another model's, which is why this is done.
            commit.note.fingerprint.clear();
            commit
        });
        Ok(Polled::Assigned(assignment))
    }

    fn cut(&self, input: &mut Input) -> Result<()> {
        let taken = std::mem::take(input);
        let records = &taken.records;
        for (row, (partition, offset)) in records.partitions.iter().zip(&records.offsets).enumerate() {
            if self.goal.note(*partition, *offset, *offset)? > 0 {
                let recorded = records.recorded.get(row).copied().flatten();
                input.records.push(*partition, *offset, recorded, records.keys.get(row), records.payloads.get(row));
            }
        }
        for table in taken.tables {
            let rows = table.rows.num_rows();
            let last = Offset(table.first.0.saturating_add(i64_of_count(rows)).saturating_sub(1));
            let wanted = usize::try_from(self.goal.note(table.partition, table.first, last)?).unwrap_or(usize::MAX).min(rows);
            if wanted > 0 {
                input.tables.push(Table { rows: table.rows.slice(0, wanted), ..table });
            }
        }
        Ok(())
    }
}

impl Feed for Until {
    fn poll(&mut self, max: usize, wait: Duration, input: &mut Input) -> Result<Polled> {
        if self.goal.is_reached() {
            return Ok(Polled::Ended);
        }
        match self.inner.poll(max, wait, input)? {
            Polled::Records => {
                self.cut(input)?;
                Ok(if input.is_empty() { Polled::Idle } else { Polled::Records })
            }
            Polled::Assigned(assignment) => self.assigned(assignment),
            Polled::Revoked(partition) => {
                Err(Error::new(Kind::Retry, "state", format!("partition {partition} was taken away by the group")).help("run it again"))
            }
            Polled::Quiet(..) => Ok(Polled::Idle),
            other => Ok(other),
        }
    }

    fn start(&mut self, partition: Partition, read_from: Offset, live_from: Offset) -> Result<()> {
        self.inner.start(partition, read_from, live_from)
    }

    fn commit(&mut self, commits: &Commits) -> Result<()> {
        self.inner.commit(commits)
    }

    fn released(&mut self, partition: Partition) {
        self.inner.released(partition);
    }

    fn goes_on(&self) -> bool {
        true
    }

    fn backlog(&self) -> Option<u64> {
        None
    }

    fn handed(&self, note: &mut dyn FnMut(Handed)) {
        self.inner.handed(note);
    }

    fn close(&mut self) -> Result<()> {
        self.inner.close()
    }
}

/// Sinks that keep nothing, and in `to` the mark that its snapshots are made of `from`'s past.
pub fn sinks(from: &Stage, to: &mut Stage) -> impl FnMut() -> Sinks + use<> {
    to.migrated = Some(provenance(from, Mode::Rebuild));
    || Sinks { forecasts: Box::new(Void::default()), dead_letters: Box::new(Void::default()), shadow: None }
}
