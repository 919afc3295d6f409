//! `meantime fit`: history -> model package.

mod compare;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::history::History;
use super::summary::grouped;
use super::{PipelineArgs, files};
use crate::base::clock;
use crate::base::error::{Error, Kind, Result};
use crate::base::number::f64_of_count;
use crate::fit::card::{number, ticks};
use crate::fit::history::Part;
use crate::fit::{self, Fitted, Step, Written};
use crate::pipeline::plan::Plan;
use crate::pipeline::{self, Purpose};
use crate::source::Settings;

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Marks on a bar.
const BAR: u64 = 1000;

/// Arguments of `fit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// History to learn from: Parquet or NDJSON files, patterns of them (in quotes), or a folder of them. By default the pipeline's own source, if that is files or
    /// a generated stream.
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    from: Vec<String>,
    /// Folder of the model package: a new one, an empty one, or an earlier package, which is replaced.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Most passes over the training events, over `fit.epochs`.
    #[arg(long)]
    epochs: Option<u32>,
    /// What is fitted, over `fit.cell`: a network, or a process known in closed form (the last four). `all` compares, as `--compare` does.
    #[arg(long, value_parser = [
        "all", "gru", "rnn", "lstm", "ct_lstm", "gru_d", "ode", "ssm", "linear_attention", "attention", "memory", "poisson", "gamma_poisson",
        "history", "hawkes",
    ])]
    cell: Option<String>,
    /// The law of time that a network gives, over `fit.law`.
    /// `intensity` with the cell `ct_lstm` is the neural Hawkes process.
    #[arg(long, value_parser = [
        "lognormal_mixture", "exponential", "weibull", "gompertz", "piecewise_constant", "gamma_poisson", "intensity",
    ])]
    law: Option<String>,
    /// Fit every cell to the same split, and the GRU with every law, and print one table; the package of the one with the best valid split is written, and
    /// a page with the table and a plot beside it.
    #[arg(long)]
    compare: bool,
    /// Size of the recurrent state, over `fit.hidden`.
    #[arg(long)]
    hidden: Option<u32>,
    /// Seed of weights and shuffles, over `fit.seed`.
    #[arg(long)]
    seed: Option<u64>,
    /// Version that the package gets: what forecasts name as `model_version`.
    #[arg(long, value_name = "TEXT", default_value = "1")]
    model_version: String,
}

/// Fits a package, writes it, and prints its figures to stdout.
///
/// # Errors
/// The pipeline or the folder is refused, the history cannot be read or learnt from, or the package cannot be written.
pub fn run(args: &Args) -> Result<()> {
    fit::check_folder(&args.out)?;
    let mut sets = args.pipeline.sets.clone();
    let mut over = |name: &str, value: Option<String>| sets.extend(value.map(|value| format!("fit.{name}={value}")));
    over("epochs", args.epochs.map(|value| value.to_string()));
    let cell = args.cell.clone().filter(|cell| cell != "all");
    if args.compare && cell.is_some() {
        return Err(Error::config("fit", "--compare fits every cell, and --cell names one").help("leave one of them out"));
    }
    over("cell", cell.clone());
    over("law", args.law.clone());
    over("hidden", args.hidden.map(|value| value.to_string()));
    over("seed", args.seed.map(|value| value.to_string()));
    let plan = pipeline::load(&args.pipeline.pipeline, &sets, Purpose::Fit)?;
    let source = history(&plan, &args.from)?;
    if args.compare || (args.cell.is_some() && cell.is_none()) {
        return compare::run(plan, &source, args);
    }
    let started = clock::tick();
    let mut watch = Watch::start();
    let mut fitted = one(&plan, &source, &mut watch)?;
    fitted.package.manifest.version.clone_from(&args.model_version);
    let written = fit::write(&fitted, &args.out)?;
    watch.stop();
    let mut out = io::stdout().lock();
    let served = plan.package.canonicalize().ok().zip(args.out.canonicalize().ok()).is_some_and(|(own, out)| own == out);
    summary(&mut out, args, &fitted, &written, started.elapsed())
        .and_then(|()| farewell(&mut out, args, served))
        .map_err(|e| Error::io("fit", std::path::Path::new("stdout"), e))
}

/// Reads the history and fits.
fn one(plan: &Plan, source: &Settings, watch: &mut Watch) -> Result<Fitted> {
    let mut history = History::open("fit", plan, source)?;
    fit::fit(plan, &mut *history.feed, &mut |step| watch.show(&step))
}

/// Where the history comes from.
pub(super) fn history(plan: &Plan, from: &[String]) -> Result<Settings> {
    if from.is_empty() {
        return match &plan.source {
            Settings::Kafka(_) => Err(Error::new(Kind::Usage, "fit", "the pipeline reads from Kafka, and `fit` reads files")
                .help("name Parquet or NDJSON files of the topic's history with --from")),
            other => Ok(other.clone()),
        };
    }
    Ok(Settings::File(files::named("fit", from)?))
}

fn summary(out: &mut dyn Write, args: &Args, fitted: &Fitted, written: &Written, elapsed: Duration) -> io::Result<()> {
    let (package, report) = (&fitted.package, &fitted.report);
    let count = |n: usize| grouped(u64::try_from(n).unwrap_or(u64::MAX));
    let folder = args.out.display();
    writeln!(
        out,
        "{}: {} events of {} keys, {:.0} s",
        package.manifest.name,
        count(report.events),
        count(report.keys),
        elapsed.as_secs_f64()
    )?;
    if report.rejected > 0 {
        writeln!(out, "{} records could not be used and were left out", count(report.rejected))?;
    }
    if let Some(unit) = report.time_unit {
        // Probabilities of ticks are no densities; where gaps are regular the fit takes them unasked.
        let of = match package.manifest.head.law().and_then(|law| law.resolution) {
            Some(width) => format!("of ticks of {} `{}`", ticks(width), unit.name()),
            None => format!("in `{}`", unit.name()),
        };
        writeln!(out, "\ngaps: negative log-likelihood, nats per event, {of}")?;
        writeln!(out, "  {:<6} {:>10} {:>10} {:>14} {:>14}", "split", "events", "model", "constant rate", "no history")?;
        for (figures, time) in report.parts.iter().filter_map(|figures| figures.time.map(|time| (figures, time))) {
            let cells = [time.nll, time.constant_rate, time.history_free].map(number);
            writeln!(out, "  {:<6} {:>10} {:>10} {:>14} {:>14}", figures.part.name(), count(figures.events), cells[0], cells[1], cells[2])?;
        }
    }
    if report.parts.iter().any(|figures| figures.mark.is_some()) {
        writeln!(out, "\nmarks: log-loss, nats per event")?;
        writeln!(out, "  {:<6} {:>10} {:>10} {:>14}", "split", "events", "model", "frequencies")?;
        for (figures, mark) in report.parts.iter().filter_map(|figures| figures.mark.map(|mark| (figures, mark))) {
            writeln!(
                out,
                "  {:<6} {:>10} {:>10} {:>14}",
                figures.part.name(),
                count(mark.events),
                number(mark.log_loss),
                number(mark.frequencies)
            )?;
        }
    }
    if report.parts.iter().any(|figures| figures.value.is_some()) {
        writeln!(out, "\nvalues: negative log-likelihood, nats per event, densities in the unit of the field")?;
        writeln!(out, "  {:<6} {:>10} {:>10} {:>14}", "split", "events", "model", "no history")?;
        for (figures, value) in report.parts.iter().filter_map(|figures| figures.value.map(|value| (figures, value))) {
            let cells = [value.nll, value.history_free].map(number);
            writeln!(out, "  {:<6} {:>10} {:>10} {:>14}", figures.part.name(), count(value.events), cells[0], cells[1])?;
        }
    }
    if report.parts.iter().any(|figures| figures.score.is_some()) {
        writeln!(out, "\nscore: log-loss in nats per event, average precision")?;
        writeln!(out, "  {:<6} {:>10} {:>10} {:>10} {:>10} {:>18}", "split", "events", "positive", "model", "share", "average precision")?;
        for (figures, score) in report.parts.iter().filter_map(|figures| figures.score.map(|score| (figures, score))) {
            let positive = format!("{:.3} %", score.positive * 100.0);
            let cells = [score.log_loss, score.share, score.average_precision].map(number);
            writeln!(
                out,
                "  {:<6} {:>10} {:>10} {:>10} {:>10} {:>18}",
                figures.part.name(),
                count(figures.events),
                positive,
                cells[0],
                cells[1],
                cells[2]
            )?;
        }
    }
    if report.epochs > 0 {
        writeln!(out, "\npass {} of {} made was the best on {}", report.best_epoch, report.epochs, report.chosen_by.name())?;
        if report.chosen_by == Part::Train {
            writeln!(
                out,
                "the valid split has no event that counts, so nothing stops it from learning the train split by heart: with few keys take split = \"time\" in [fit]"
            )?;
        }
    } else {
        writeln!(out, "\n{}", report.model)?;
    }
    for note in fitted.notes() {
        writeln!(out, "\nnote: {note}")?;
    }
    let off = written.mismatch.outputs.max(written.mismatch.states);
    writeln!(out, "the exported step is within {off:.0e} of the trainer on the golden events")?;
    if let Some(served) = written.served {
        let losses = [("gaps", served.time), ("marks", served.mark), ("values", served.value), ("label", served.label)];
        let losses: Vec<String> =
            losses.iter().filter(|(_, loss)| !loss.is_nan()).map(|(name, loss)| format!("{name} {loss:.6}")).collect();
        writeln!(out, "by the served path, {} split: {}", served.part.name(), losses.join(", "))?;
    }
    writeln!(out, "package: {folder} (figures and limits in {folder}/CARD.md)")
}

/// What to do with the package, which the pipeline names or does not.
fn farewell(out: &mut dyn Write, args: &Args, served: bool) -> io::Result<()> {
    let before = if served { "" } else { "name it in [model] package of the pipeline, then " };
    writeln!(out, "next:    {before}meantime run {}", args.pipeline.pipeline.display())?;
    // What it asks of forecasts may be of another kind of head: quantiles of a score, a score of a law.
    let fits = args.pipeline.with_package(&args.out).and_then(|own| pipeline::load(&own.pipeline, &own.sets, Purpose::Run));
    match fits {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = error.report.clone().unwrap_or_else(|| error.to_string());
            writeln!(
                out,
                "\nbut first change the pipeline, which asks for what this package does not give, or cannot run for another reason:\n\n{text}"
            )
        }
    }
}

/// Shows how far the fit is: a bar on a terminal, a line every ten seconds elsewhere.
pub(super) struct Watch {
    bar: Option<ProgressBar>,
    started: Instant,
    last_line: Option<Instant>,
}

impl Watch {
    pub(super) fn start() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(BAR);
            bar.set_style(
                ProgressStyle::with_template("{bar:30} {percent:>3}% {msg} ETA {eta}").unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar
        });
        Watch { bar, started: clock::tick(), last_line: None }
    }

    /// Passes are counted as if all were made; stopping early only makes it end sooner than it says.
    pub(super) fn show(&mut self, step: &Step) {
        let (share, text) = match step {
            Step::Reading(records, Some(left)) => {
                let all = f64_of_count(*records) + f64_of_count(usize::try_from(*left).unwrap_or(usize::MAX));
                (f64_of_count(*records) / all.max(1.0), format!("reading: {records} records"))
            }
            Step::Reading(records, None) => (0.0, format!("reading: {records} records")),
            Step::Training(at) => {
                let best = at.best.map(|best| format!(", best {best:.4}")).unwrap_or_default();
                let share = (f64_of_count(at.epoch) - 1.0 + at.fraction) / f64_of_count(at.epochs.max(1));
                (share, format!("pass {}/{}: loss {:.4}{best}", at.epoch, at.epochs, at.train))
            }
            Step::Scoring => (1.0, "computing the figures".to_owned()),
        };
        if let Some(bar) = &self.bar {
            bar.set_position(
                u64::try_from(crate::base::number::i64_of(share * f64_of_count(usize::try_from(BAR).unwrap_or(0)))).unwrap_or(0),
            );
            bar.set_message(text);
        } else if self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
            self.last_line = Some(clock::tick());
            tracing::info!(done = format!("{:.0}%", share * 100.0), seconds = self.started.elapsed().as_secs(), "{text}");
        }
    }

    pub(super) fn stop(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
