//! `meantime fit --compare`: every cell and law on the same split, in one table.

use std::io::Write;
use std::path::Path;

use super::{Args, Watch, one};
use crate::base::error::{Error, Result};
use crate::evaluate::text::span;
use crate::fit::card::number;
use crate::fit::history::Part;
use crate::fit::{self, Written};
use crate::pipeline::plan::{Cell, Law, Plan};
use crate::source::Settings;

/// What is compared, the simplest first.
const ALL: [(Cell, Law, &str); 10] = [
    (Cell::Poisson, Law::Exponential, "poisson"),
    (Cell::GammaPoisson, Law::GammaPoisson, "gamma_poisson"),
    (Cell::History, Law::PiecewiseConstant, "history"),
    (Cell::Hawkes, Law::Exponential, "hawkes"),
    (Cell::Gru, Law::Exponential, "gru, exponential"),
    (Cell::Gru, Law::Weibull, "gru, weibull"),
    (Cell::Gru, Law::Gompertz, "gru, gompertz (RMTPP)"),
    (Cell::Gru, Law::GammaPoisson, "gru, gamma_poisson"),
    (Cell::Gru, Law::PiecewiseConstant, "gru, piecewise_constant"),
    (Cell::Gru, Law::LognormalMixture, "gru, lognormal_mixture"),
];

/// A line of the table.
struct Line {
    name: &'static str,
    valid: f64,
    test: f64,
    mark: f64,
    served: Option<fit::served::Served>,
}

/// Fits all, prints the table to stdout as it grows, and writes the package with the best valid split.
///
/// # Errors
/// The pipeline fits a score; one of the fits fails; the package cannot be written.
pub fn run(mut plan: Plan, source: &Settings, args: &Args) -> Result<()> {
    if plan.schema.label.is_some() {
        return Err(Error::config("fit", "--compare compares laws of time, and [event] names a label to be scored")
            .help("take `label` out of [event]"));
    }
    let draft = tempfile::tempdir().map_err(|e| Error::io("fit", &std::env::temp_dir(), e))?;
    let stdout = |e: std::io::Error| Error::io("fit", Path::new("stdout"), e);
    let mut out = std::io::stdout();
    let heads = ["valid", "test", "marks", "median off", "KS", "ns/event", "bytes/key"];
    writeln!(out, "negative log-likelihood of the gaps, nats per event; the last five by the served path on the test split")
        .map_err(stdout)?;
    writeln!(out, "  {:<26}{}", "model", heads.map(|head| format!("{head:>12}")).concat()).map_err(stdout)?;
    let mut best: Option<(f64, fit::Fitted, &str)> = None;
    for (cell, law, name) in ALL {
        (plan.fit.cell, plan.fit.law) = (cell, law);
        let mut watch = Watch::start();
        let outcome = one(&plan, source, &mut watch).and_then(|fitted| Ok((fit::write(&fitted, &draft.path().join("model"))?, fitted)));
        watch.stop();
        let (Written { served, .. }, fitted) = match outcome {
            Ok(found) => found,
            // What is wrong with the history is wrong for all; what one law cannot do the others may.
            Err(error) if best.is_none() => return Err(error),
            Err(error) => {
                writeln!(out, "  {name:<26}  failed: {}", error.message).map_err(stdout)?;
                continue;
            }
        };
        let part = |part: Part| fitted.report.part(part);
        let nll = |wanted: Part| part(wanted).and_then(|figures| figures.time).map_or(f64::NAN, |time| time.nll);
        let mark = part(Part::Test).and_then(|figures| figures.mark).map_or(f64::NAN, |mark| mark.log_loss);
        let line = Line { name, valid: nll(Part::Valid), test: nll(Part::Test), mark, served };
        writeln!(out, "{}", shown(&line)).map_err(stdout)?;
        // Without a valid split the train split must do.
        let chosen_by = if line.valid.is_nan() { nll(Part::Train) } else { line.valid };
        let marks = part(Part::Valid).and_then(|figures| figures.mark).map_or(0.0, |mark| mark.log_loss);
        let loss = chosen_by + if marks.is_nan() { 0.0 } else { marks };
        if best.as_ref().is_none_or(|(least, ..)| loss < *least) {
            best = Some((loss, fitted, name));
        }
    }
    let Some((_, fitted, name)) = best else { return Err(Error::internal("fit", "nothing was compared")) };
    fit::write(&fitted, &args.out)?;
    writeln!(out, "\nbest on the valid split, gaps and marks together: {name}").map_err(stdout)?;
    writeln!(out, "package: {0} (figures and limits in {0}/CARD.md)", args.out.display()).map_err(stdout)
}

fn shown(line: &Line) -> String {
    let off = |value: f64| if value.is_nan() { "-".to_owned() } else { span(value) };
    let whole = |value: f64| if value.is_nan() { "-".to_owned() } else { format!("{value:.0}") };
    let served = line.served;
    let cells = [
        number(line.valid),
        number(line.test),
        number(line.mark),
        off(served.map_or(f64::NAN, |served| served.error_s)),
        number(served.map_or(f64::NAN, |served| served.ks)),
        whole(served.map_or(f64::NAN, |served| served.ns)),
        served.map_or_else(|| "-".to_owned(), |served| served.bytes.to_string()),
    ];
    format!("  {:<26}{}", line.name, cells.map(|cell| format!("{cell:>12}")).concat())
}
