//! SIGHUP: takes a new model package without ending the process. Lanes drain and commit as at a stop, states are migrated, and lanes start again with the new
//! package at the committed offsets. So a crash at any moment finds what a stop, a migration and a start would have left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::error::{Error, Result};
use crate::base::offset::Partition;
use crate::cli::PipelineArgs;
use crate::pipeline::plan::{OnChange, Plan};
use crate::pipeline::{self, Purpose};
use crate::run::migrate::{self, Comparison};
use crate::run::{Counts, Stage};
use crate::state::snapshot::Mode;

/// Whether another package is wanted, and how it is taken.
pub struct Change {
    pipeline: PipelineArgs,
    asked: Arc<AtomicBool>,
    counts: Arc<Counts>,
}

impl Change {
    /// Listens for SIGHUP, where there is such a signal.
    ///
    /// # Errors
    /// The operating system refuses the handler.
    pub fn listen(pipeline: &PipelineArgs, counts: &Arc<Counts>) -> Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        #[cfg(unix)]
        signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::clone(&asked))
            .map_err(|e| Error::internal("run", format!("signals cannot be handled: {e}")))?;
        Ok(Change { pipeline: pipeline.clone(), asked, counts: Arc::clone(counts) })
    }

    /// The stage with the package that the pipeline names now, if someone has asked and it can be taken. One that cannot is logged and counted.
    #[must_use]
    pub fn wanted(&self, stage: &Stage) -> Option<Arc<Stage>> {
        if !self.asked.swap(false, Ordering::AcqRel) {
            return None;
        }
        match self.judged(stage) {
            Ok(Some(next)) => {
                let (before, now) = (&stage.identity.fingerprint, &next.identity.fingerprint);
                let shadow = next.beside.as_ref().map(|beside| &beside.stage.identity.fingerprint);
                match (promotes(stage, &next), before == now) {
                    (true, _) => tracing::info!(before, now, "promoting the shadow: draining and committing"),
                    (false, true) => tracing::info!(shadow, "taking another shadow, or none: draining and committing"),
                    (false, false) => tracing::info!(before, now, "taking a new model package: draining and committing"),
                }
                Some(Arc::new(next))
            }
            Ok(None) => {
                tracing::info!(fingerprint = stage.identity.fingerprint, "SIGHUP: the model package has not changed");
                None
            }
            Err(error) => {
                self.refuse(stage, &error);
                None
            }
        }
    }

    fn judged(&self, stage: &Stage) -> Result<Option<Stage>> {
        let plan = pipeline::load(&self.pipeline.pipeline, &self.pipeline.sets, Purpose::Run)?;
        let old = &stage.plan;
        // What follows from the package, and what only `fit` reads.
        let rest = Plan {
            package: old.package.clone(),
            model: old.model.clone(),
            schema: old.schema.clone(),
            asks: old.asks.clone(),
            reasons: old.reasons.clone(),
            on_change: old.on_change,
            fit: old.fit.clone(),
            shadow: old.shadow.clone(),
            ..plan.clone()
        };
        if rest != **old {
            return Err(
                Error::config("run", "more than the model package has changed in the pipeline file").help("restart the stage to take that")
            );
        }
        let next = Stage::load(plan)?;
        if next.identity.fingerprint == stage.identity.fingerprint {
            let print = |stage: &Stage| stage.beside.as_ref().map(|beside| beside.fingerprint.clone());
            let same = next.plan.shadow == old.shadow && print(&next) == print(stage);
            return Ok((!same).then_some(next));
        }
        if old.snapshots.is_none() {
            return Err(Error::config("run", "without [state] snapshots there is nothing that a new package could go on from")
                .help("restart the stage: it rebuilds its states by replaying"));
        }
        let comparison = Comparison::of(stage, &next)?;
        if !promotes(stage, &next) || next.plan.on_change == OnChange::Fail {
            mode(&comparison, next.plan.on_change)?;
        } else if self.counts.shadow.failed.load(Ordering::Relaxed) > 0 {
            return Err(Error::config("run", "the package is that of the shadow, which has failed: its states are behind").help(
                "look at its error in the log; to take the package all the same remove [shadow] first, then change [model] package",
            ));
        }
        Ok(Some(next))
    }

    /// The lanes of the old stage have ended: migrates the states of the partitions that they owned. Gives the stage that goes on: the new one, or the old one
    /// if that fails.
    #[must_use]
    pub fn made(&self, old: &Arc<Stage>, new: Arc<Stage>) -> Arc<Stage> {
        let board = &self.counts.partitions;
        let own: Vec<Partition> = board.standings().into_keys().collect();
        own.iter().for_each(|partition| board.note_released(*partition));
        self.counts.keys.store(0, Ordering::Relaxed);
        self.counts.bytes.store(0, Ordering::Relaxed);
        if old.identity.fingerprint == new.identity.fingerprint {
            self.counts.shadow.clear();
            return new;
        }
        match migrated(old, &new, &own) {
            Ok((moved, promoted)) => {
                if promoted > 0 {
                    tracing::info!(partitions = promoted, "the states of the shadow are those of the first model now");
                }
                self.counts.shadow.clear();
                tracing::info!(snapshots = moved, model = new.identity.model, version = new.identity.model_version, "states migrated");
                self.counts.models_taken.fetch_add(1, Ordering::Relaxed);
                self.counts.trust.clear();
                new
            }
            Err(error) => {
                self.refuse(old, &error);
                Arc::clone(old)
            }
        }
    }

    fn refuse(&self, stage: &Stage, error: &Error) {
        self.counts.models_refused.fetch_add(1, Ordering::Relaxed);
        let text = error.report.clone().unwrap_or_else(|| error.to_string());
        tracing::error!(
            model = stage.identity.model,
            version = stage.identity.model_version,
            "the new model package is refused, the old one goes on: {text}"
        );
    }
}

fn mode(comparison: &Comparison, on_change: OnChange) -> Result<Mode> {
    match on_change {
        OnChange::Carry => comparison.mode(Some(Mode::Carry)),
        OnChange::Reset => Ok(Mode::Reset),
        OnChange::Fail => {
            Err(Error::config("run", "[model] on_change = \"fail\": a new package is not taken while running").help("stop, migrate, start"))
        }
    }
}

/// Whether the new model is the shadow of the old one, with states of all keys.
fn promotes(old: &Stage, new: &Stage) -> bool {
    old.beside.as_ref().is_some_and(|beside| beside.fingerprint == new.identity.fingerprint)
}

/// Makes states of the new model, but for partitions whose states its shadow has; returns how many of each there are.
fn migrated(old: &Stage, new: &Stage, own: &[Partition]) -> Result<(usize, usize)> {
    let comparison = Comparison::of(old, new)?;
    let committed = migrate::committed(&old.plan)?;
    let there = if promotes(old, new) { migrate::shadowed(new, committed.as_ref(), own)? } else { Vec::new() };
    let left: Vec<Partition> = own.iter().copied().filter(|partition| !there.contains(partition)).collect();
    if left.is_empty() && !there.is_empty() {
        return Ok((0, there.len()));
    }
    let mode = mode(&comparison, new.plan.on_change)?;
    let mut moves = migrate::survey(old, &comparison, committed.as_ref(), Some(&left))?;
    let count = moves.len();
    moves.drain(..).try_for_each(|of| migrate::store(old, new, &comparison, mode, of).map(|_| ()))?;
    Ok((count, there.len()))
}
