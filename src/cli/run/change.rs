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
                tracing::info!(before, now, "taking a new model package: draining and committing");
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
            ..plan.clone()
        };
        if rest != **old {
            return Err(
                Error::config("run", "more than the model package has changed in the pipeline file").help("restart the stage to take that")
            );
        }
        let next = Stage::load(plan)?;
        if next.identity.fingerprint == stage.identity.fingerprint {
            return Ok(None);
        }
        if old.snapshots.is_none() {
            return Err(Error::config("run", "without [state] snapshots there is nothing that a new package could go on from")
                .help("restart the stage: it rebuilds its states by replaying"));
        }
        mode(&Comparison::of(stage, &next)?, next.plan.on_change)?;
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
        match migrated(old, &new, &own) {
            Ok(moved) => {
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

fn migrated(old: &Stage, new: &Stage, own: &[Partition]) -> Result<usize> {
    let comparison = Comparison::of(old, new)?;
    let mode = mode(&comparison, new.plan.on_change)?;
    let committed = migrate::committed(&old.plan)?;
    let mut moves = migrate::survey(old, &comparison, committed.as_ref(), Some(own))?;
    let count = moves.len();
    moves.drain(..).try_for_each(|of| migrate::store(old, new, &comparison, mode, of).map(|_| ()))?;
    Ok(count)
}
