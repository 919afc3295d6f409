//! `meantime calibrate`: corrects a score, or the quantiles of a law, by what happened after the model was fitted; finds cohorts that
//! new keys start from.

mod cohorts;
mod law;

use std::io::Write;
use std::path::{Path, PathBuf};

use super::{PipelineArgs, evaluate};
use crate::base::error::{Error, Kind, Result};
use crate::data::law::{Calibration, HeadSpec};
use crate::fit;
use crate::fit::calibrate::{Worth, check, isotonic, platt, worth};
use crate::pipeline::{self, Purpose};

/// Arguments of `calibrate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Events that the model was not fitted to, for a score with their labels: Parquet or NDJSON files, patterns of them (in quotes), or a folder of them. By default the pipeline's own source.
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    from: Vec<String>,
    /// Only events from this time on count; earlier ones still build up the states.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only events whose field has this value count; others still build up the states.
    #[arg(long = "where", value_name = "FIELD=VALUE")]
    only: Option<String>,
    /// How a score is corrected: two numbers (`platt`), any rising map (`isotonic`), or the one that is better on the later half of the events. The
    /// quantiles of a law have one way, conformal prediction.
    #[arg(long, default_value = "best", value_parser = ["best", "platt", "isotonic"])]
    method: String,
    /// Instead of correcting: find so many cohorts of keys by their first events, and let new keys start from the state of theirs. Cohorts change states,
    /// so find them before anything is corrected.
    #[arg(long, value_name = "K", conflicts_with = "method", value_parser = clap::value_parser!(u16).range(1..=1024))]
    cohorts: Option<u16>,
    /// Folder of the corrected package: a new one, an empty one, or an earlier package, which is replaced.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Relative differences of the log-loss of this size are chance.
const CHANCE: f64 = 1e-3;

/// Fits a calibration to scores with their labels.
type Method = fn(&[(f32, bool)]) -> Result<Calibration>;

/// Fits a calibration, prints what it is worth on events it was not fitted to, and writes the package with it.
///
/// # Errors
/// The package is calibrated already, [event] names no label for a score, outcomes are too few, or the package cannot be read or written.
pub fn run(args: &Args) -> Result<()> {
    fit::check_folder(&args.out)?;
    let plan = pipeline::load(&args.pipeline.pipeline, &args.pipeline.sets, Purpose::Evaluate)?;
    let wanted = evaluate::Args::of(args.pipeline.clone(), args.from.clone(), args.since.clone(), args.only.clone());
    if let Some(k) = args.cohorts {
        return cohorts::run(args, &wanted, usize::from(k));
    }
    if plan.model.as_ref().is_some_and(|(manifest, _)| manifest.head.is_timed()) { law::run(args, &wanted) } else { score(args, &wanted) }
}

fn score(args: &Args, wanted: &evaluate::Args) -> Result<()> {
    let (stage, mut scored) = evaluate::scored(wanted)?;
    let Some((manifest, _)) = &stage.plan.model else { return Err(Error::config("calibrate", "the pipeline names no model")) };
    let HeadSpec::Score { outputs, link, calibration: own } = &manifest.head else {
        return Err(Error::internal("calibrate", format!("the head `{}` is neither a law nor a score", manifest.head.kind())));
    };
    if own.is_some() {
        return Err(Error::config("calibrate", "the package is calibrated already").help("calibrate the package it was made from"));
    }
    if stage.plan.schema.label.is_none() {
        return Err(Error::config("calibrate", "[event] names no label, so there are no outcomes").help("set `label` in [event]"));
    }
    check(&scored)?;
    let half = scored.len() / 2;
    let (earlier, later) = scored.split_at(half);
    check(earlier).and_then(|()| check(later))?;
    let stdout = |e: std::io::Error| Error::io("calibrate", Path::new("stdout"), e);
    let mut out = std::io::stdout().lock();
    writeln!(out, "fitted to the earlier {} events, judged on the later {}", earlier.len(), later.len()).map_err(stdout)?;
    writeln!(out, "  {:<12}{:>12}{:>12}{:>20}", "method", "log-loss", "Brier", "calibration error").map_err(stdout)?;
    let mut show = |name: &str, worth: &Worth| {
        writeln!(out, "  {name:<12}{:>12.6}{:>12.6}{:>20.6}", worth.log_loss, worth.brier, worth.error).map_err(stdout)
    };
    let before = worth(later, None);
    show("as it is", &before)?;
    let methods: [(&str, Method); 2] = [("platt", platt), ("isotonic", isotonic)];
    let mut best: Option<(f64, &str, Method)> = None;
    for (name, method) in methods.into_iter().filter(|(name, _)| args.method == "best" || args.method == *name) {
        let found = worth(later, Some(&method(earlier)?));
        show(name, &found)?;
        if best.is_none_or(|(least, ..)| found.log_loss < least) {
            best = Some((found.log_loss, name, method));
        }
    }
    let Some((least, name, method)) = best else { return Err(Error::internal("calibrate", "no method was tried")) };
    if least > before.log_loss * (1.0 + CHANCE) {
        return Err(Error::new(Kind::Check, "calibrate", format!("{name} makes the later half worse: nothing was written")).help(
            "the scores may be right as they are, events too few for this method, or the stream has changed in between (--since, --where)",
        ));
    }
    // What is written may use all events.
    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
    let calibration = method(&scored)?;
    let mut manifest = manifest.clone();
    manifest.version = format!("{}-{name}", manifest.version);
    manifest.head = HeadSpec::Score { outputs: outputs.clone(), link: *link, calibration: Some(calibration) };
    fit::package::with_manifest(&stage.plan.package, &manifest, &args.out)?;
    writeln!(std::io::stdout(), "\n{name}, fitted to all {}: {}", scored.len(), args.out.display()).map_err(stdout)
}
