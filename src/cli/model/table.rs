//! Two packages side by side: what a smaller one costs and what it saves.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::seconds;
use crate::base::error::{Error, Result};
use crate::cli::evaluate::{self, Subset};
use crate::cli::{PipelineArgs, summary::grouped};
use crate::model::Package;

/// Keys side by side in the steps that are timed.
const BATCH: usize = 256;

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
    /// Nanoseconds of a step an event.
    pub ns: f64,
    /// Bytes of `model.onnx`.
    pub graph: u64,
    /// Bytes of recurrent state and published law a key.
    pub state: usize,
}

/// The figures of the package in `folder`; its events through the path that serves, if there is a pipeline.
///
/// # Errors
/// The package or the pipeline is refused, or the events cannot be read.
pub fn figures(folder: &Path, pipeline: Option<&PathBuf>, judged: &Judged, subset: Option<Subset>) -> Result<Figures> {
    let package = Package::load(folder)?;
    let mut quality = Vec::new();
    if let Some(pipeline) = pipeline {
        let mut sets = judged.sets.clone();
        sets.push(format!("model.package={}", absolute(folder)?.display()));
        let args = PipelineArgs { pipeline: pipeline.clone(), sets };
        let args = evaluate::Args::of(args, judged.from.clone(), judged.since.clone(), judged.only.clone());
        let report = evaluate::report(&args, subset)?;
        if let Some(time) = &report.time {
            quality.extend([("log-likelihood of the gaps, negative", time.nll), ("KS of the residuals", time.residuals.ks)]);
        }
        quality.extend(report.marks.as_ref().map(|marks| ("log-loss of the marks", marks.log_loss)));
        if let Some(score) = &report.score {
            quality.extend([("log-loss of the labels", score.log_loss), ("average precision", score.average_precision)]);
        }
    }
    let path = folder.join("model.onnx");
    Ok(Figures {
        quality,
        ns: seconds(&package, BATCH)? * 1e9,
        graph: std::fs::metadata(&path).map_err(|e| Error::io("model", &path, e))?.len(),
        state: 4 * package.model()?.initial_hidden().len(),
    })
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
    rows.push(row("ns an event, step in batches of 256", format!("{:.0}", before.ns), format!("{:.0}", after.ns)));
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
