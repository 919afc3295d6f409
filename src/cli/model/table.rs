//! Two packages side by side: what a smaller one costs and what it saves.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::seconds;
use crate::base::error::{Error, Result};
use crate::base::number::u64_of_count;
use crate::cli::evaluate::{self, Subset};
use crate::cli::{PipelineArgs, summary::grouped};
use crate::model::{Package, write};

/// Keys side by side in the steps that are timed.
const BATCH: usize = 256;
/// Turns in which two packages are timed, and batches of a turn, one by one: the fastest is the one that nothing else on the machine came into.
const TURNS: usize = 10;
const BATCHES: usize = 50;

/// The events that packages are judged by.
#[derive(Clone, Debug, clap::Args)]
pub struct Judged {
    /// Events to judge by: Parquet or NDJSON files, or patterns of them (in quotes). By default the pipeline's own source.
    #[arg(long, value_name = "GLOB", num_args = 1.., requires = "pipeline")]
    pub from: Vec<String>,
    /// Only events from this time on count; earlier ones still build up the states.
    #[arg(long, value_name = "TIME", requires = "pipeline")]
    pub since: Option<String>,
    /// Only events whose field has this value count; others still build up the states.
    #[arg(long = "where", value_name = "FIELD=VALUE", requires = "pipeline")]
    pub only: Option<String>,
    /// Change a value of the pipeline file. May be given several times.
    #[arg(long = "set", value_name = "A.B=VALUE", requires = "pipeline")]
    pub sets: Vec<String>,
}

/// What is known of one package.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Losses and the like, with their names; none without events.
    pub quality: Vec<(&'static str, f64)>,
    /// Nanoseconds an event of the fastest batch that was stepped.
    pub ns: f64,
    /// Bytes of `model.onnx` with all of its weights.
    pub graph: u64,
    /// Bytes of recurrent state and published law a key.
    pub state: usize,
}

/// The figures of two packages, the larger one first; events through the path that serves, if there is a pipeline.
///
/// # Errors
/// A package or the pipeline is refused, or the events cannot be read.
pub fn both(folders: [&Path; 2], pipeline: Option<&PathBuf>, judged: &Judged, subset: Option<&Subset>) -> Result<[Figures; 2]> {
    let packages = [Package::load(folders[0])?, Package::load(folders[1])?];
    let mut ns = [f64::INFINITY; 2];
    // In turns: what else the machine does falls on both.
    for _ in 0..TURNS {
        for (ns, package) in ns.iter_mut().zip(&packages) {
            *ns = ns.min(seconds(package, BATCH, BATCHES, Duration::ZERO)? * 1e9);
        }
    }
    let figures = |folder: &Path, package: &Package, ns: f64| -> Result<Figures> {
        Ok(Figures {
            quality: pipeline.map_or_else(|| Ok(Vec::new()), |pipeline| quality(folder, pipeline, judged, subset.cloned()))?,
            ns,
            graph: u64_of_count(write::read(folder)?.get("model.onnx").map_or(0, Vec::len)),
            state: 4 * package.model()?.initial_hidden().len(),
        })
    };
    Ok([figures(folders[0], &packages[0], ns[0])?, figures(folders[1], &packages[1], ns[1])?])
}

/// What forecasts of the package in `folder` are worth.
fn quality(folder: &Path, pipeline: &Path, judged: &Judged, subset: Option<Subset>) -> Result<Vec<(&'static str, f64)>> {
    let mut sets = judged.sets.clone();
    sets.push(format!("model.package={}", absolute(folder)?.display()));
    let args = PipelineArgs { pipeline: pipeline.to_path_buf(), sets };
    let args = evaluate::Args::of(args, judged.from.clone(), judged.since.clone(), judged.only.clone());
    let report = evaluate::report(&args, subset)?;
    let mut quality = Vec::new();
    if let Some(time) = &report.time {
        quality.extend([("log-likelihood of the gaps, negative", time.nll), ("KS of the residuals", time.residuals.ks)]);
    }
    quality.extend(report.marks.as_ref().map(|marks| ("log-loss of the marks", marks.log_loss)));
    quality.extend(report.value.as_ref().map(|value| ("log-likelihood of the values, negative", value.nll)));
    if let Some(score) = &report.score {
        quality.extend([("log-loss of the labels", score.log_loss), ("average precision", score.average_precision)]);
    }
    Ok(quality)
}

/// Where a folder is, whatever folder a pipeline is in.
fn absolute(folder: &Path) -> Result<PathBuf> {
    std::path::absolute(folder).map_err(|e| Error::io("model", folder, e))
}

/// The rows of the table: name, before, after.
fn rows(before: &Figures, after: &Figures) -> Vec<[String; 3]> {
    let row = |name: &str, before: String, after: String| [name.to_owned(), before, after];
    let pairs = before.quality.iter().zip(&after.quality);
    let mut rows: Vec<_> = pairs.map(|((name, before), (_, after))| row(name, format!("{before:.4}"), format!("{after:.4}"))).collect();
    let share = |before: f64, after: f64| format!("{:.0} %", 100.0 * after / before);
    let bytes = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let floats = |count: usize| crate::base::number::f64_of_count(count);
    rows.push(row("ns an event, fastest batch of 256", format!("{:.0}", before.ns), format!("{:.0}", after.ns)));
    let (graph, small) = (usize::try_from(before.graph).unwrap_or(usize::MAX), usize::try_from(after.graph).unwrap_or(usize::MAX));
    let smaller = format!("{} ({})", grouped(after.graph), share(floats(graph), floats(small)));
    rows.push(row("bytes of model.onnx", grouped(before.graph), smaller));
    rows.push(row("bytes a key, state and law", grouped(bytes(before.state)), grouped(bytes(after.state))));
    rows
}

/// The table for a terminal.
#[must_use]
pub fn text(before: &Figures, after: &Figures) -> String {
    let mut out = format!("  {:<40}{:>14}{:>18}\n", "", "before", "after");
    for [name, before, after] in rows(before, after) {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "  {name:<40}{before:>14}{after:>18}");
    }
    out
}

/// The table for the card, without what changes from one run to the next.
#[must_use]
pub fn markdown(before: &Figures, after: &Figures) -> String {
    let mut out = "| | before | after |\n|---|---:|---:|\n".to_owned();
    for [name, before, after] in rows(before, after).iter().filter(|[name, ..]| !name.starts_with("ns ")) {
        let _ = writeln!(out, "| {name} | {before} | {after} |");
    }
    out
}
