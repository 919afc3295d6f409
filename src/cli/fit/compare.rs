//! `meantime fit --compare`: every cell and law on the same split, in one table.

use std::io::Write;
use std::path::Path;

use super::{Args, Watch, one};
use crate::base::error::{Error, Result};
use crate::cli::draft::Draft;
use crate::evaluate::html;
use crate::evaluate::text::span;
use crate::fit::card::number;
use crate::fit::history::Part;
use crate::fit::{self, Written};
use crate::pipeline::plan::{Cell, Law, Plan};
use crate::source::Settings;

/// Processes, and laws of a network of the plan's cell.
const PROCESSES: [Cell; 4] = [Cell::Poisson, Cell::GammaPoisson, Cell::History, Cell::Hawkes];
const LAWS: [Law; 6] = [Law::Exponential, Law::Weibull, Law::Gompertz, Law::GammaPoisson, Law::PiecewiseConstant, Law::Intensity];

/// What is compared, the simplest first: processes, a GRU with every law, the neural Hawkes process, and every network with the law of `[fit]`. A score has networks only.
fn all(plan: &Plan) -> Vec<(Cell, Law, String)> {
    let networks = Cell::NETWORKS.into_iter();
    if plan.schema.label.is_some() {
        return networks.map(|cell| (cell, plan.fit.law, cell.name().to_owned())).collect();
    }
    // A process has no law of the value.
    let processes = PROCESSES.into_iter().filter(|_| plan.fit.value.is_none()).map(|cell| (cell, Law::default(), cell.name().to_owned()));
    let named = |cell: Cell, law: Law| (cell, law, format!("{}, {}", cell.name(), law.name()));
    let laws = LAWS.into_iter().filter(|law| *law != plan.fit.law).map(|law| named(Cell::Gru, law));
    // The neural Hawkes process.
    let laws = laws.chain((plan.fit.law != Law::Intensity).then(|| named(Cell::CtLstm, Law::Intensity)));
    // Intensities have no law of the value beside them.
    let laws = laws.filter(|(_, law, _)| plan.fit.value.is_none() || *law != Law::Intensity);
    processes.chain(laws).chain(networks.map(|cell| named(cell, plan.fit.law))).collect()
}

/// A line of the table.
struct Line {
    name: String,
    /// Loss that chooses: of the gaps or of the labels, on the valid split.
    valid: f64,
    test: f64,
    /// Log-loss of the marks, or the average precision of the score.
    second: f64,
    /// Negative log-likelihood of the value, where the pipeline asks for a law of it.
    value: Option<f64>,
    served: Option<fit::served::Served>,
}

/// Fits all, prints the table to stdout as it grows, writes the package with the best valid split, and a page with a plot beside it.
///
/// # Errors
/// The first fit fails; the package or the page cannot be written.
pub fn run(mut plan: Plan, source: &Settings, args: &Args) -> Result<()> {
    let score = plan.schema.label.is_some();
    let page = args.out.with_extension("compare.html");
    if let Some(folder) = page.parent() {
        std::fs::create_dir_all(folder).map_err(|e| Error::io("fit", folder, e))?;
    }
    let plotted = Draft::new("fit", &page)?;
    let draft = tempfile::tempdir().map_err(|e| Error::io("fit", &std::env::temp_dir(), e))?;
    let stdout = |e: std::io::Error| Error::io("fit", Path::new("stdout"), e);
    let mut out = std::io::stdout();
    let what = if score { "log-loss of the labels" } else { "negative log-likelihood of the gaps" };
    let valued = !score && plan.fit.value.is_some();
    let heads = [Some("valid"), Some("test"), Some(if score { "AP" } else { "marks" }), valued.then_some("value")];
    let heads = heads.into_iter().flatten().chain(["median off", "KS", "ns/event", "bytes/key"]);
    let title = format!("{what}, nats per event; the last four by the served path on the test split");
    let heading = format!("  {:<38}{}", "model", heads.map(|head| format!("{head:>12}")).collect::<String>());
    writeln!(out, "{title}\n{heading}").map_err(stdout)?;
    let mut best: Option<(f64, fit::Fitted, String)> = None;
    let mut lines = Vec::new();
    let mut unit = None;
    for (cell, law, name) in all(&plan) {
        (plan.fit.cell, plan.fit.law) = (cell, law);
        let mut watch = Watch::start();
        let outcome = one(&plan, source, &mut watch).and_then(|fitted| Ok((fit::write(&fitted, &draft.path().join("model"))?, fitted)));
        watch.stop();
        let (Written { served, .. }, fitted) = match outcome {
            Ok(found) => found,
            // What is wrong with the history is wrong for all; what one law cannot do the others may.
            Err(error) if best.is_none() => return Err(error),
            Err(error) => {
                writeln!(out, "  {name:<38}  left out: {}", error.message).map_err(stdout)?;
                continue;
            }
        };
        // Laws of intensities may have another unit than the rest.
        let shift = *unit.get_or_insert_with(|| ln_unit(&fitted)) - ln_unit(&fitted);
        let loss = |wanted: Part| {
            let figures = fitted.report.part(wanted);
            let time = figures.and_then(|figures| figures.time).map(|time| time.nll - shift);
            time.or(figures.and_then(|figures| figures.score).map(|score| score.log_loss)).unwrap_or(f64::NAN)
        };
        let marks = |wanted: Part| fitted.report.part(wanted).and_then(|figures| figures.mark).map_or(f64::NAN, |mark| mark.log_loss);
        let value = |wanted: Part| fitted.report.part(wanted).and_then(|figures| figures.value).map_or(f64::NAN, |value| value.nll);
        let precision = fitted.report.part(Part::Test).and_then(|figures| figures.score).map_or(f64::NAN, |score| score.average_precision);
        let second = if score { precision } else { marks(Part::Test) };
        let of_value = valued.then(|| value(Part::Test));
        let line = Line { name: name.clone(), valid: loss(Part::Valid), test: loss(Part::Test), second, value: of_value, served };
        writeln!(out, "{}", shown(&line)).map_err(stdout)?;
        // Without a valid split the train split must do.
        let part = if line.valid.is_nan() { Part::Train } else { Part::Valid };
        let loss = loss(part) + [marks(part), value(part)].into_iter().filter(|more| !more.is_nan()).sum::<f64>();
        lines.push(line);
        if best.as_ref().is_none_or(|(least, ..)| loss < *least) {
            best = Some((loss, fitted, name));
        }
    }
    let Some((_, mut fitted, name)) = best else { return Err(Error::internal("fit", "nothing was compared")) };
    fitted.package.manifest.version.clone_from(&args.model_version);
    fit::write(&fitted, &args.out)?;
    let table = lines.iter().map(shown).collect::<Vec<_>>().join("\n");
    let text = html::comparison(&plan.name, &format!("{title}\n{heading}\n{table}"), what, &points(&lines));
    plotted.finish(text.as_bytes())?;
    let by = match (score, valued) {
        (true, _) => "labels",
        (false, true) => "gaps, marks and values together",
        (false, false) => "gaps and marks together",
    };
    writeln!(out, "\nbest on the valid split, {by}: {name}").map_err(stdout)?;
    for note in fitted.notes() {
        writeln!(out, "note: {note}").map_err(stdout)?;
    }
    writeln!(out, "package: {0} (figures and limits in {0}/CARD.md)", args.out.display()).map_err(stdout)?;
    writeln!(out, "plot: {}", page.display()).map_err(stdout)
}

/// ln of the seconds of the unit in which densities are: added to a negative log-likelihood it makes that one per second. 0 of scores, and of ticks, which have
/// probabilities.
fn ln_unit(fitted: &fit::Fitted) -> f64 {
    let law = fitted.package.manifest.head.law().filter(|law| law.resolution.is_none());
    law.map_or(0.0, |law| law.time_unit.seconds().ln())
}

/// Cost and loss of each model with a served figure.
fn points(lines: &[Line]) -> Vec<(f64, f64, String)> {
    lines.iter().filter_map(|line| Some((line.served?.ns, line.test, line.name.clone()))).collect()
}

fn shown(line: &Line) -> String {
    let off = |value: f64| if value.is_nan() { "-".to_owned() } else { span(value) };
    let whole = |value: f64| if value.is_nan() { "-".to_owned() } else { format!("{value:.0}") };
    let served = line.served;
    let first = [Some(number(line.valid)), Some(number(line.test)), Some(number(line.second)), line.value.map(number)];
    let cells = [
        off(served.map_or(f64::NAN, |served| served.error_s)),
        number(served.map_or(f64::NAN, |served| served.ks)),
        whole(served.map_or(f64::NAN, |served| served.ns)),
        served.map_or_else(|| "-".to_owned(), |served| served.bytes.to_string()),
    ];
    let cells = first.into_iter().flatten().chain(cells);
    format!("  {:<38}{}", line.name, cells.map(|cell| format!("{cell:>12}")).collect::<String>())
}
