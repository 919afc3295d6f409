//! A second model beside the first: the same records, forecasts to a place of its own, compared while they pass.
//!
//! # Design
//!
//! The shadow is a second [`Lane`] in the worker of the first, with its own plan (the pipeline's, with the other package), its own decoder, order, keys and
//! states. After the first lane has taken in a batch, and its rows have been handed to the sink, the shadow takes in the same records; a tick is noted by the
//! first lane, and the shadow follows it. The first lane knows nothing of all this. So its forecasts cannot depend on the shadow, and those of the shadow
//! are, like its own, a function of the records and the ticks.
//!
//! **Where it begins.** At the committed offset, with no key known; or from a snapshot of its fingerprint, one that `state migrate` has made or one of a run of
//! this model before. The note of every commit says from which offset on (its *origin*), so that a restart without a snapshot rebuilds the same states by
//! replaying from there. A start without that word in the note is a new beginning.
//!
//! **Exactly once.** In Kafka the shadow's rows are in the same transaction as the others and the offsets, so one offset holds for both. In folders each sink's
//! newest file says how far it has come. The shadow's files are closed right after the others, so theirs never says more: after a crash between the two
//! the shadow alone emits what is missing, while the first lane replays silently. The ticks of that stretch are in the note of the first one's file.
//! Where rows may come again after a crash, those of the shadow may too.
//!
//! **Snapshots** of the shadow lie in `shadow/` below those of the first model, with the fingerprint that a stage with this package has. Whoever looks for
//! states of a fingerprint looks in both places: so a shadow that becomes the first model goes on from its states, and so does a first model that
//! becomes a shadow.
//!
//! **A shadow that fails** (its graph, a bound, a panic) stands still: that is logged and counted, the word in the notes ends, and the first model goes on. Its sink
//! is no part of it: what cannot be written stops the stage, or one of two promises would be broken.

pub mod compare;
mod counts;
mod recover;

pub use compare::Judged;
pub use counts::ShadowCounts;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use super::counts::Counts;
use super::lane::Lane;
use super::snapshots::{Cutters, Last};
use crate::base::clock;
use crate::base::error::{Error, Result};
use crate::base::offset::{Offset, Partition};
use crate::data::commit::{Commit, Commits};
use crate::data::input::Input;
use crate::sink::ForecastSink;
use crate::source::Assignment;
use compare::Compare;

/// What the first lane has just taken in.
#[derive(Clone, Copy)]
pub enum Taken<'a> {
    /// Records.
    Records(&'a Input),
    /// Ticks, or the end of its input.
    Ticks {
        /// Whether it was the end.
        ended: bool,
    },
}

/// The shadow of one lane.
pub struct Follower<'a> {
    lane: Lane,
    snapshots: Cutters<'a>,
    /// Of its states.
    fingerprint: String,
    compare: Compare,
    failed: bool,
    bytes: usize,
    /// How far the rows have come in a sink that keeps that with them.
    own: Commits,
}

impl<'a> Follower<'a> {
    /// A shadow without partitions. `fingerprint` is that of its states.
    #[must_use]
    pub fn new(lane: Lane, snapshots: Cutters<'a>, fingerprint: String, compare: Compare) -> Self {
        Follower { lane, snapshots, fingerprint, compare, failed: false, bytes: 0, own: Commits::new() }
    }

    /// Takes a partition over, which the first lane emits from `live_from` on; `own` is how far the sink itself has come. Returns the first record that it
    /// needs, and tells the sink from where on rows come.
    ///
    /// # Errors
    /// Of the sink.
    pub fn take_over(
        &mut self,
        assignment: &Assignment,
        committed: Option<&Commit>,
        live_from: Offset,
        sink: &mut dyn ForecastSink,
        counts: &Counts,
    ) -> Result<Option<Offset>> {
        let partition = assignment.partition;
        let own = sink.recover(partition)?;
        if self.failed {
            return Ok(None);
        }
        let found = recover::recover(self, assignment, committed, live_from, (own.as_ref(), !sink.is_prompt()));
        let (recovered, base) = match found {
            Ok(found) => found,
            Err(error) => {
                self.fail(&error, sink, counts)?;
                return Ok(None);
            }
        };
        sink.begin(partition, recovered.live_from)?;
        self.snapshots.watch(partition, base);
        let from = recovered.included.last.map_or(recovered.from, |last| last.offset.min(recovered.from));
        self.lane.take_over(recovered);
        Ok(Some(from))
    }

    /// Takes in what the first lane has taken in, hands its rows to the sink, and compares them with those of the first.
    ///
    /// # Errors
    /// Of the sink; one of the shadow itself ends the shadow and nothing else.
    pub fn take(&mut self, taken: Taken<'_>, first: &Lane, sink: &mut dyn ForecastSink, counts: &Counts) -> Result<()> {
        if self.failed {
            return Ok(());
        }
        let began = clock::tick();
        let lane = &mut self.lane;
        // Whatever state a panic leaves the lane in, it is not used any more.
        let stepped = catch_unwind(AssertUnwindSafe(|| match taken {
            Taken::Records(input) => lane.advance(input),
            Taken::Ticks { ended } => lane.follow(&first.ticks, ended),
        }));
        if let Err(error) = stepped.unwrap_or_else(|_| Err(Error::internal("shadow", "the model panicked; see the log above"))) {
            return self.fail(&error, sink, counts);
        }
        let forecasts = &self.lane.forecasts;
        if !forecasts.is_empty() {
            sink.write(forecasts)?;
        }
        let counted = &counts.shadow;
        counted.steps.observe_time(began.elapsed());
        counted.note_rows(forecasts.len() - forecasts.count_overdue(), forecasts.count_overdue());
        counted.note_without_law(self.lane.without_law());
        counted.note_rejected(&self.lane.rejected, &first.rejected);
        self.compare.take(&first.forecasts, forecasts, counted);
        let (_, bytes) = self.lane.size();
        counted.note_bytes(bytes, self.bytes);
        self.bytes = bytes;
        Ok(())
    }

    /// From here on there is no shadow.
    fn fail(&mut self, error: &Error, sink: &mut dyn ForecastSink, counts: &Counts) -> Result<()> {
        tracing::error!(%error, "the shadow has failed and is not run any more; the first model goes on");
        self.failed = true;
        counts.shadow.failed.fetch_add(1, Ordering::Relaxed);
        counts.shadow.note_bytes(0, self.bytes);
        self.bytes = 0;
        let own: Vec<Partition> = self.lane.partitions().iter().map(|state| state.partition).collect();
        own.into_iter().try_for_each(|partition| sink.release(partition))
    }

    /// All rows so far are of the epoch that the first lane has just ended; `whole`: its sink has made everything visible by that.
    ///
    /// # Errors
    /// Of the sink.
    pub fn end_epoch(&mut self, sink: &mut dyn ForecastSink, whole: bool) -> Result<()> {
        let commits = self.commits();
        sink.end_epoch(&commits, whole)?;
        if whole {
            self.own = commits;
        }
        Ok(())
    }

    fn commits(&self) -> Commits {
        let fingerprint = &self.lane.forecasts.identity.fingerprint;
        let live = self.lane.partitions().iter().filter(|_| !self.failed);
        live.filter_map(|state| Some((state.partition, state.own_commit(fingerprint)?))).collect()
    }

    /// Notes with the commits of the first lane that there is a shadow, and what its states rest on.
    pub fn mark(&self, commits: &mut Commits) {
        for state in self.lane.partitions().iter().filter(|_| !self.failed) {
            if let Some(commit) = commits.get_mut(state.partition) {
                commit.note.shadow = state.shadowing().cloned();
            }
        }
    }

    /// As `Cutters::begin`.
    pub fn begin_snapshots(&mut self, committed: &Commits, prompt: bool, stored: &dyn Fn(Partition) -> bool) {
        if !self.failed {
            self.snapshots.begin(&mut self.lane, if prompt { committed } else { &self.own }, prompt, stored);
        }
    }

    /// As `Cutters::step`.
    pub fn step_snapshots(&mut self, counts: &Counts) {
        if !self.failed {
            self.snapshots.step(&mut self.lane, counts);
        }
    }

    /// As `Cutters::settle`.
    pub fn settle_snapshots(&mut self, committed: &Commits, prompt: bool, last: &Last<'_>) {
        if !self.failed {
            self.snapshots.settle(&mut self.lane, if prompt { committed } else { &self.own }, last);
        }
    }

    /// Forgets a partition.
    ///
    /// # Errors
    /// Of the sink.
    pub fn release(&mut self, partition: Partition, sink: &mut dyn ForecastSink) -> Result<()> {
        self.snapshots.forget(partition);
        self.lane.release(partition);
        sink.release(partition)
    }
}
