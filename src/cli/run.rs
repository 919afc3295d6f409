//! `meantime run`: the long-running stage.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::PipelineArgs;
use super::summary::{self, Watch};
use crate::base::error::{Error, Kind, Result};
use crate::pipeline::{self, Purpose};
use crate::run::{Calibration, Counts, Sinks, Stage, Stop, Tally};
use crate::source::Feed;

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// End with exit code 0 once the end offsets seen at start are committed. Files and generated streams always end.
    #[arg(long)]
    until_caught_up: bool,
}

/// Runs the pipeline until it ends or is told to stop; prints a summary to stderr.
///
/// # Errors
/// The pipeline or package is refused, or the stage stops with an error.
pub fn run(args: &Args) -> Result<()> {
    let plan = pipeline::load(&args.pipeline.pipeline, &args.pipeline.sets, Purpose::Run)?;
    let stage = Stage::load(plan)?;
    let lanes = stage.open(args.until_caught_up)?;
    tracing::info!(pipeline = stage.plan.name, fingerprint = stage.identity.fingerprint, lanes = stage.plan.lanes, "running");
    let outcome = execute(&stage, lanes, None)?;
    let mut err = std::io::stderr().lock();
    let _ = writeln!(err, "{}", stage.plan.name)
        .and_then(|()| summary::write(&mut err, &outcome.counts, Some(&outcome.calibration), outcome.elapsed));
    outcome.ended
}

/// How a run ended.
pub struct Outcome {
    /// What happened.
    pub counts: Counts,
    /// What the forecasts say of themselves.
    pub calibration: Calibration,
    /// How long it took.
    pub elapsed: Duration,
    /// The error that stopped it, if one did.
    pub ended: Result<()>,
}

/// Runs a stage with progress and signal handling.
///
/// # Errors
/// Signals cannot be handled; an error of the stage itself is in the outcome, beside the counts.
pub fn execute(stage: &Stage, lanes: Vec<(Box<dyn Feed>, Sinks)>, total: Option<u64>) -> Result<Outcome> {
    let (stop, counts) = (Stop::default(), Counts::default());
    let calibration = Arc::new(Mutex::new(Calibration::default()));
    let lanes = lanes.into_iter().map(|(feed, sinks)| (feed, Tally::wrap(sinks, &calibration))).collect();
    let signals = Signals::listen()?;
    let done = AtomicBool::new(false);
    let (ended, elapsed) = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut watch = Watch::start(total);
            while !done.load(Ordering::Acquire) {
                if signals.count() > 0 {
                    stop.request();
                }
                watch.show(&counts);
                thread::park_timeout(Duration::from_millis(100));
            }
            watch.stop()
        });
        let ended = stage.run(lanes, &stop, &counts);
        done.store(true, Ordering::Release);
        watcher.thread().unpark();
        (ended, watcher.join().unwrap_or_default())
    });
    let calibration = calibration.lock().map(|c| c.clone()).unwrap_or_default();
    Ok(Outcome { counts, calibration, elapsed, ended })
}

/// SIGTERM and Ctrl-C: the first asks to stop, a second one leaves at once with 130.
struct Signals(Arc<AtomicUsize>);

impl Signals {
    fn listen() -> Result<Self> {
        let (count, second) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let failed = |e: std::io::Error| Error::new(Kind::Internal, "run", format!("signals cannot be handled: {e}"));
        for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
            // In this order: the shutdown acts only on the signal after the one that armed it.
            signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&second)).map_err(failed)?;
            signal_hook::flag::register(signal, Arc::clone(&second)).map_err(failed)?;
            signal_hook::flag::register_usize(signal, Arc::clone(&count), 1).map_err(failed)?;
        }
        Ok(Signals(count))
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}
