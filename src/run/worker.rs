//! A lane's thread: poll, advance, write, and commit what has become durable.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::bad_ratio::BadRatio;
use super::counts::Counts;
use super::lane::Lane;
use super::recover::recover;
use super::shadow::{Follower, Taken};
use super::snapshots::{Cutters, Last};
use super::stage::{Sinks, Stop};
use crate::base::clock;
use crate::base::error::Result;
use crate::base::fail_point::fail_point;
use crate::base::guard::guarded;
use crate::base::offset::{Offset, Partition};
use crate::data::commit::Commits;
use crate::data::input::Input;
use crate::data::rejected::Reason;
use crate::pipeline::plan::Plan;
use crate::source::{Assignment, Feed, Polled};

/// Longest a poll waits: how late a stop request is noticed.
const WAIT: Duration = Duration::from_millis(50);
/// How long the last snapshots may take when partitions are let go.
const LAST_SNAPSHOT: Duration = Duration::from_secs(10);

/// What one commit will make visible: offsets, and how many rows must be durable before.
struct Epoch {
    commits: Commits,
    forecasts: u64,
    dead_letters: u64,
    /// Of the shadow.
    shadow: u64,
    ended: Instant,
}

struct Worker<'a> {
    feed: Box<dyn Feed>,
    lane: Lane,
    /// The second model, where the sinks have a place for its forecasts.
    shadow: Option<Follower<'a>>,
    sinks: Sinks,
    bad: BadRatio,
    counts: &'a Counts,
    /// Epochs that have ended and wait for their rows to become durable, oldest first.
    waiting: VecDeque<Epoch>,
    /// Commits of the last epoch that was queued.
    queued: Commits,
    /// How far each partition is committed.
    committed: Commits,
    snapshots: Cutters<'a>,
    size: (usize, usize),
    /// Records have been taken in whose outputs the sinks do not have, because something failed between the two: no epoch may end here.
    torn: bool,
}

/// Runs a lane until its feed ends, a stop is requested, or something fails. What is done is flushed and committed before it returns,
/// also after an error of the source; after one in a lane or a sink what has been taken in since the last commit is done again by the next run.
pub fn run<'a>(
    plan: &Plan,
    feed: Box<dyn Feed>,
    (lane, shadow): (Lane, Option<Follower<'a>>),
    sinks: Sinks,
    snapshots: Cutters<'a>,
    stop: &Stop,
    counts: &'a Counts,
) -> Result<()> {
    let bad = BadRatio::new(plan.max_bad_ratio);
    let mut worker = Worker {
        feed,
        lane,
        shadow,
        sinks,
        bad,
        counts,
        waiting: VecDeque::new(),
        queued: Commits::new(),
        committed: Commits::new(),
        snapshots,
        size: (0, 0),
        torn: false,
    };
    let outcome = guarded("run", thread::current().name().unwrap_or("a lane"), || worker.work(plan, stop));
    if outcome.as_ref().is_ok_and(Result::is_ok) {
        // It has ended as it should.
    } else {
        // Before anything that may block.
        counts.partitions.note_failed();
        stop.request();
    }
    // After a panic nothing of it is used any more: what was not committed is done again.
    let outcome = outcome?;
    // What a feed that says where epochs end has handed out beyond the last end comes again.
    let inside = worker.feed.boundary() == Some(false);
    let committed = if worker.torn || inside { worker.commit_durable() } else { worker.commit_now() };
    if committed.is_ok() && outcome.is_ok() {
        let within = LAST_SNAPSHOT.min(plan.stop_timeout / 2);
        worker.settle_snapshots(None, within);
    }
    let closed = worker.close();
    outcome.and(committed).and(closed)
}

impl Worker<'_> {
    fn work(&mut self, plan: &Plan, stop: &Stop) -> Result<()> {
        let mut input = Input::default();
        let mut epoch_start = clock::tick();
        let pulse = self.counts.pulses.start();
        while !stop.is_requested() {
            pulse.beat();
            input.clear();
            let polled = self.feed.poll(plan.max_batch, WAIT.min(plan.commit_every), &mut input)?;
            if polled != Polled::Records {
                self.note_read();
            }
            match polled {
                Polled::Records => {
                    let records = input.len();
                    let began = clock::tick();
                    self.torn = true;
                    self.lane.advance(&input)?;
                    self.counts.steps.observe_time(began.elapsed());
                    self.deliver(records, Taken::Records(&input))?;
                }
                Polled::Idle => {
                    // Nothing to do but to see what has become durable.
                }
                Polled::Quiet(partition, time) => {
                    self.torn = true;
                    self.lane.tick(partition, time)?;
                    self.deliver(0, Taken::Ticks { ended: false })?;
                }
                Polled::Assigned(assignment) => self.take_over(&assignment)?,
                Polled::Revoked(partition) => self.let_go(partition)?,
                Polled::Ended if self.feed.goes_on() => return self.bad.check(true),
                Polled::Ended => {
                    self.torn = true;
                    self.lane.finish()?;
                    self.deliver(0, Taken::Ticks { ended: true })?;
                    return self.bad.check(true);
                }
            }
            let boundary = self.feed.boundary();
            if boundary.unwrap_or_else(|| epoch_start.elapsed() >= plan.commit_every || self.sinks.forecasts.is_full()) {
                epoch_start = clock::tick();
                self.note_read();
                self.note_partitions();
                self.end_epoch(boundary.is_some())?;
                self.commit_durable()?;
                let prompt = self.sinks.forecasts.is_prompt();
                let stored = |partition| self.feed.has_stored(partition);
                self.snapshots.begin(&mut self.lane, &self.committed, prompt, &stored);
                if let Some(shadow) = &mut self.shadow {
                    shadow.begin_snapshots(&self.committed, prompt, &stored);
                }
            }
            self.snapshots.step(&mut self.lane, self.counts);
            if let Some(shadow) = &mut self.shadow {
                shadow.step_snapshots(self.counts);
            }
        }
        Ok(())
    }

    /// Hands the lane's last outputs to the sinks, and what it has taken in to the shadow.
    fn deliver(&mut self, records: usize, taken: Taken<'_>) -> Result<()> {
        // Before the sinks may block: what a stop that takes too long leaves behind is named from this.
        self.note_partitions();
        let (forecasts, rejected) = (&self.lane.forecasts, &self.lane.rejected);
        if !forecasts.is_empty() {
            self.sinks.forecasts.write(forecasts)?;
        }
        if !rejected.is_empty() {
            self.sinks.dead_letters.write(rejected)?;
        }
        if let Some((shadow, sink)) = self.shadow.as_mut().zip(self.sinks.shadow.as_mut()) {
            shadow.take(taken, &self.lane, &mut **sink, self.counts)?;
        }
        self.torn = false;
        let records = records.saturating_sub(self.lane.known);
        for reason in &rejected.reasons {
            if let Some((_, count)) = Reason::ALL.iter().zip(&self.counts.dead).find(|(r, _)| *r == reason) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.counts.records.fetch_add(u64_of(records), Ordering::Relaxed);
        let overdue = forecasts.count_overdue();
        self.counts.forecasts.fetch_add(u64_of(forecasts.len() - overdue), Ordering::Relaxed);
        self.counts.overdue.fetch_add(u64_of(overdue), Ordering::Relaxed);
        self.counts.evicted.fetch_add(u64_of(self.lane.evicted), Ordering::Relaxed);
        self.counts.before_since.fetch_add(u64_of(self.lane.left_out), Ordering::Relaxed);
        self.counts.replayed.fetch_add(u64_of(self.lane.replayed), Ordering::Relaxed);
        self.bad.add(u64_of(records), u64_of(rejected.len()), || example(&self.lane));
        self.counts.rounds.absorb(self.lane.round_sizes());
        self.note_size();
        self.bad.check(false)
    }

    /// Changes the shared counts by what this lane's size has changed.
    fn note_size(&mut self) {
        let (keys, bytes) = self.lane.size();
        let update = |count: &std::sync::atomic::AtomicU64, new: usize, old: usize| {
            count.fetch_add(u64_of(new), Ordering::Relaxed);
            count.fetch_sub(u64_of(old), Ordering::Relaxed);
        };
        update(&self.counts.keys, keys, self.size.0);
        update(&self.counts.bytes, bytes, self.size.1);
        self.size = (keys, bytes);
        if let Some(backlog) = self.feed.backlog() {
            self.counts.backlog.store(backlog, Ordering::Relaxed);
        }
    }

    /// Tells the lane how far its partitions are read: behind the last record there may be something in the log that is none. Only where all that was
    /// handed out has been taken in.
    fn note_read(&mut self) {
        let lane = &mut self.lane;
        self.feed.handed(&mut |handed| lane.read_to(handed.partition, handed.next));
    }

    /// Tells the board how far the partitions have come. Everything that was handed out has been taken in when this is called.
    fn note_partitions(&self) {
        let board = &self.counts.partitions;
        self.feed.handed(&mut |handed| {
            let latest = self.lane.latest().find(|(partition, _)| *partition == handed.partition);
            board.note_progress(handed.partition, handed.next, latest.and_then(|(_, time)| time));
            if let Some(end) = handed.end {
                board.note_end(handed.partition, end);
            }
        });
    }

    fn note_committed(&mut self, commits: &Commits, ended: Option<Instant>) {
        if let Some(ended) = ended {
            self.counts.commits.observe_time(ended.elapsed());
        }
        commits.iter().for_each(|(partition, commit)| self.committed.insert(partition, commit.clone()));
        commits.iter().for_each(|(partition, commit)| self.counts.partitions.note_committed(partition, commit.next));
    }

    /// Recovers a partition: what is committed, where to read from, and with what states.
    fn take_over(&mut self, assignment: &Assignment) -> Result<()> {
        let partition = assignment.partition;
        // From here on: loading a snapshot is part of what a restore takes.
        self.counts.partitions.note_assigned(partition, None, assignment.committed.as_ref().map_or(Offset(0), |commit| commit.next));
        // A sink that keeps offsets with its rows knows better than the source.
        let committed = self.sinks.forecasts.recover(partition)?.or_else(|| assignment.committed.clone());
        self.sinks.dead_letters.recover(partition)?;
        fail_point("recover.committed_known");
        if committed.is_none() {
            assignment.check_not_forgotten(self.snapshots.left_over(partition)?)?;
        }
        let found = self.snapshots.find(partition, committed.as_ref())?;
        let (recovered, read_from, base) = recover(assignment, committed.as_ref(), found, &self.lane)?;
        if recovered.lacks_history(committed.as_ref().map(|committed| committed.next), assignment.prior) {
            self.counts.incomplete_starts.fetch_add(1, Ordering::Relaxed);
        }
        fail_point("recover.states_loaded");
        self.snapshots.watch(partition, base);
        self.sinks.dead_letters.begin(partition, recovered.live_from)?;
        self.sinks.forecasts.begin(partition, recovered.live_from)?;
        fail_point("recover.sinks_begun");
        let live_from = recovered.live_from;
        let mut read_from = read_from;
        if let Some((shadow, sink)) = self.shadow.as_mut().zip(self.sinks.shadow.as_mut()) {
            let needed = shadow.take_over(assignment, committed.as_ref(), live_from, &mut **sink, self.counts)?;
            read_from = needed.map_or(read_from, |needed| needed.min(read_from));
        }
        tracing::info!(%partition, %read_from, %live_from, "partition assigned");
        self.counts.partitions.note_start(partition, recovered.from, live_from);
        self.lane.take_over(recovered);
        if let Some(committed) = committed {
            self.committed.insert(partition, committed.clone());
            self.queued.insert(partition, committed);
        }
        self.note_size();
        self.feed.start(partition, read_from, live_from)?;
        fail_point("recover.reading");
        Ok(())
    }

    /// Commits a partition for the last time and forgets it. One that is another's already is only forgotten: a file of it that got its name now would be in the
    /// other one's way.
    fn let_go(&mut self, partition: Partition) -> Result<()> {
        if self.feed.owns(partition) {
            self.commit_now()?;
            fail_point("release.committed");
            self.settle_snapshots(Some(partition), LAST_SNAPSHOT);
        } else {
            tracing::warn!(%partition, "the partition is another one's by now: what was taken in since the last commit is done there");
            self.snapshots.forget(partition);
            self.waiting.iter_mut().for_each(|epoch| epoch.commits.remove(partition));
        }
        if let Some((shadow, sink)) = self.shadow.as_mut().zip(self.sinks.shadow.as_mut()) {
            shadow.release(partition, &mut **sink)?;
        }
        fail_point("release.snapshot_taken");
        self.lane.release(partition);
        self.committed.remove(partition);
        self.queued.remove(partition);
        self.sinks.forecasts.release(partition)?;
        self.sinks.dead_letters.release(partition)?;
        self.feed.released(partition);
        self.note_size();
        fail_point("release.forgotten");
        self.counts.partitions.note_released(partition);
        tracing::info!(%partition, "partition released");
        Ok(())
    }

    /// Takes the last snapshots of a partition, or of all.
    fn settle_snapshots(&mut self, only: Option<Partition>, within: Duration) {
        let stored = |partition| self.feed.has_stored(partition);
        let last = Last { only, within, stored: &stored, counts: self.counts };
        self.snapshots.settle(&mut self.lane, &self.committed, &last);
        if let Some(shadow) = &mut self.shadow {
            shadow.settle_snapshots(&self.committed, self.sinks.forecasts.is_prompt(), &last);
        }
    }

    /// Everything taken in so far becomes one epoch. Dead letters first: once the forecasts' epoch is visible nobody looks back.
    fn end_epoch(&mut self, force: bool) -> Result<()> {
        // Before the sinks do anything: closing files is part of what a commit takes.
        let ended = clock::tick();
        let mut commits = self.lane.commits();
        self.feed.settle(&mut commits);
        if let Some(shadow) = &self.shadow {
            shadow.mark(&mut commits);
        }
        for state in self.lane.partitions().iter().filter(|state| state.stands_as_committed()) {
            // What was noted there is not noted anew, for a model that has done nothing yet.
            if let (Some(commit), Some(before)) = (commits.get_mut(state.partition), self.committed.get(state.partition)) {
                commit.note.clone_from(&before.note);
            }
        }
        let whole = force || self.sinks.forecasts.due();
        self.sinks.dead_letters.end_epoch(&commits, whole)?;
        self.sinks.forecasts.end_epoch(&commits, force)?;
        if let Some((shadow, sink)) = self.shadow.as_mut().zip(self.sinks.shadow.as_mut()) {
            shadow.end_epoch(&mut **sink, whole)?;
        }
        if commits != self.queued {
            let (forecasts, dead_letters) = (self.sinks.forecasts.written(), self.sinks.dead_letters.written());
            let shadow = self.sinks.shadow.as_ref().map_or(0, |sink| sink.written());
            self.queued.clone_from(&commits);
            self.waiting.push_back(Epoch { commits, forecasts, dead_letters, shadow, ended });
        }
        Ok(())
    }

    /// Commits the newest epoch whose rows are all durable.
    fn commit_durable(&mut self) -> Result<()> {
        if self.sinks.forecasts.keeps_offsets() {
            let Some(commits) = self.sinks.forecasts.committed()? else { return Ok(()) };
            self.feed.committed(&commits)?;
            let covers = |epoch: &Epoch| epoch.commits.iter().all(|(p, commit)| commits.get(p).is_none_or(|done| commit.next <= done.next));
            // The oldest has waited longest: what is told is how long a row may wait.
            let oldest = self.waiting.front().filter(|epoch| covers(epoch)).map(|epoch| epoch.ended);
            while self.waiting.front().is_some_and(covers) {
                self.waiting.pop_front();
            }
            self.note_committed(&commits, oldest);
            return Ok(());
        }
        let (forecasts, dead_letters) = (self.sinks.forecasts.durable()?, self.sinks.dead_letters.durable()?);
        let shadow = self.sinks.shadow.as_mut().map_or(Ok(0), |sink| sink.durable())?;
        let mut newest = None;
        let oldest = self.waiting.front().map(|epoch| epoch.ended);
        let done = |epoch: &Epoch| epoch.forecasts <= forecasts && epoch.dead_letters <= dead_letters && epoch.shadow <= shadow;
        while self.waiting.front().is_some_and(done) {
            newest = self.waiting.pop_front();
        }
        match newest {
            Some(epoch) => {
                self.feed.commit(&epoch.commits)?;
                self.note_committed(&epoch.commits, oldest);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Makes everything durable and commits it.
    fn commit_now(&mut self) -> Result<()> {
        self.note_partitions();
        self.end_epoch(true)?;
        self.commit_durable()
    }

    fn close(&mut self) -> Result<()> {
        let forecasts = self.sinks.forecasts.close();
        let dead_letters = self.sinks.dead_letters.close();
        let shadow = self.sinks.shadow.as_mut().map_or(Ok(()), |sink| sink.close());
        let feed = self.feed.close();
        forecasts.and(dead_letters).and(shadow).and(feed)
    }
}

fn u64_of(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// Position, reason and detail of the last rejected record.
fn example(lane: &Lane) -> String {
    let rejected = &lane.rejected;
    match (rejected.partitions.last(), rejected.offsets.last(), rejected.reasons.last(), rejected.details.last()) {
        (Some(partition), Some(offset), Some(reason), Some(detail)) => {
            format!("partition {partition}, offset {offset}: {}: {detail}", reason.code())
        }
        _ => String::new(),
    }
}
