//! `meantime run`: the long-running stage.

mod change;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;

use super::stop::{Signals, overdue};
use super::watch::Watch;
use super::{PipelineArgs, health, http, summary};
use crate::base::clock;
use crate::base::error::{Error, Result};
use crate::pipeline::{self, Purpose};
use crate::run::{Calibration, Counts, Sinks, Stage, Stop, Tally};
use crate::sink;
use crate::source::{self, Feed};
use change::Change;

/// How often signals are looked for and progress is shown.
const TURN: Duration = Duration::from_millis(100);

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// End with exit code 0 once the end offsets seen at start are committed. Files and generated streams always end.
    #[arg(long)]
    until_caught_up: bool,
    /// Serve /metrics, /health/live and /health/ready there, such as 127.0.0.1:9464. Port 0 takes a free one and logs it.
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<String>,
}

/// Runs the pipeline until it ends or is told to stop; prints a summary to stderr.
///
/// # Errors
/// The pipeline or package is refused, the address of `--http` cannot be taken, the stage stops with an error, or a stop takes longer
/// than `stop_timeout`: then lanes may still be running, and the process should leave.
pub fn run(args: &Args) -> Result<()> {
    let counts = Arc::new(Counts::default());
    // Before anything is read: a SIGHUP that comes while the package is loaded asks for what the file names then, and must not end the process.
    let change = Change::listen(&args.pipeline, &counts)?;
    let plan = pipeline::load(&args.pipeline.pipeline, &args.pipeline.sets, Purpose::Run)?;
    let signals = Signals::listen()?;
    let server = match &args.http {
        Some(address) => {
            let bound = http::bind(address)?;
            let address = bound.address;
            let server = bound.serve(health::routes(&counts))?;
            tracing::info!(%address, "serving /metrics and /health");
            Some(server)
        }
        None => None,
    };
    let mut stage = Arc::new(Stage::load(plan)?);
    // A topic keeps offsets: there the file is gone on with.
    if !matches!(stage.plan.source, source::Settings::Kafka(_))
        && let Some(line) = sink::repeats(&stage.plan.sink)
    {
        tracing::warn!("{line}");
    }
    let mut lanes = stage.open(args.until_caught_up)?;
    for line in crate::source::cautions(&stage.plan.source, stage.plan.snapshot_every()) {
        tracing::warn!("{line}");
    }
    let (mut calibration, mut elapsed) = (Calibration::default(), Duration::ZERO);
    let outcome = loop {
        tracing::info!(pipeline = stage.plan.name, fingerprint = stage.identity.fingerprint, lanes = stage.plan.lanes, "running");
        let mut outcome = execute_changing(&stage, lanes, Arc::clone(&counts), &signals, None, Some(&change))?;
        calibration.merge(std::mem::take(&mut outcome.calibration));
        elapsed += outcome.elapsed;
        let next = outcome.next.take().filter(|_| outcome.ended.is_ok() && !signals.any());
        let Some(next) = next else { break Outcome { calibration, elapsed, ..outcome } };
        stage = change.made(&stage, next);
        lanes = stage.open(args.until_caught_up)?;
    };
    drop(server);
    let mut err = std::io::stderr().lock();
    let _ = writeln!(err, "{}", stage.plan.name)
        .and_then(|()| summary::write(&mut err, &outcome.counts, Some(&outcome.calibration), outcome.elapsed));
    outcome.ended
}

/// How a run ended.
pub struct Outcome {
    /// What happened.
    pub counts: Arc<Counts>,
    /// What the forecasts say of themselves.
    pub calibration: Calibration,
    /// How long it took.
    pub elapsed: Duration,
    /// The error that stopped it, if one did.
    pub ended: Result<()>,
    /// The stage that it was ended for.
    next: Option<Arc<Stage>>,
}

/// Runs a stage with progress and signal handling.
///
/// # Errors
/// No thread can be started; an error of the stage itself, or of a stop that takes too long, is in the outcome, beside the counts.
pub fn execute(
    stage: &Arc<Stage>,
    lanes: Vec<(Box<dyn Feed>, Sinks)>,
    counts: Arc<Counts>,
    signals: &Signals,
    total: Option<u64>,
) -> Result<Outcome> {
    execute_changing(stage, lanes, counts, signals, total, None)
}

/// As `execute`; ends when another package is to be taken.
fn execute_changing(
    stage: &Arc<Stage>,
    lanes: Vec<(Box<dyn Feed>, Sinks)>,
    counts: Arc<Counts>,
    signals: &Signals,
    total: Option<u64>,
    change: Option<&Change>,
) -> Result<Outcome> {
    let stop = Stop::default();
    let calibration = Arc::new(Mutex::new(Calibration::default()));
    let alarms = stage.alarms()?;
    let live = matches!(stage.plan.source, source::Settings::Kafka(_));
    let lanes = lanes
        .into_iter()
        .map(|(feed, sinks)| (feed, Tally::wrap(sinks, &calibration, &counts, alarms.as_ref(), (live, stage.plan.drift))))
        .collect();
    // A thread that can be left behind: a lane that hangs in a sink must not keep the process from ending in time.
    let (runner, (done, outcome)) = ((Arc::clone(stage), stop.clone(), Arc::clone(&counts)), crossbeam_channel::bounded(1));
    let spawned = thread::Builder::new().name("stage".to_owned()).spawn(move || {
        let (stage, stop, counts) = runner;
        // Nobody listens any more if the stop took too long.
        let _ = done.send(stage.run(lanes, &stop, &counts));
    });
    spawned.map_err(|e| Error::internal("run", "no thread for the stage").caused_by(e))?;
    let timeout = stage.plan.stop_timeout;
    let mut watch = Watch::start(total);
    let mut asked: Option<Instant> = None;
    let mut next: Option<Arc<Stage>> = None;
    let ended = loop {
        match outcome.recv_timeout(TURN) {
            Ok(ended) => break ended,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break Err(Error::internal("run", "the stage panicked; see the log above")),
        }
        if asked.is_none() && signals.any() {
            asked = Some(clock::tick());
            stop.request();
            tracing::info!(stop_timeout = ?timeout, "stopping: draining and committing; a second signal leaves at once");
        }
        if asked.is_none()
            && let Some(wanted) = change.and_then(|change| change.wanted(stage))
        {
            asked = Some(clock::tick());
            next = Some(wanted);
            stop.request();
        }
        if asked.is_some_and(|asked| asked.elapsed() >= timeout) {
            break Err(overdue(&counts, timeout));
        }
        watch.show(&counts);
    };
    let elapsed = watch.stop();
    let calibration = calibration.lock().map(|c| c.clone()).unwrap_or_default();
    Ok(Outcome { counts, calibration, elapsed, ended, next })
}
