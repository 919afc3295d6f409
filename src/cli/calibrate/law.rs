//! `meantime calibrate` for a law of time: at which levels it has to be asked for its quantiles.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use super::Args;
use crate::base::error::{Error, Kind, Result};
use crate::base::number::{f64_of_count, i64_of};
use crate::base::time::{EventTime, Gap};
use crate::cli::evaluate;
use crate::data::flags::Flags;
use crate::data::forecasts::Forecasts;
use crate::data::intensity::Intensities;
use crate::data::law::{HeadSpec, LevelMap};
use crate::data::outputs::Outputs;
use crate::evaluate::laws::Law;
use crate::evaluate::text::span;
use crate::fit;
use crate::fit::conformal::{self, Outcome};
use crate::head::{Arrivals, Asks, Head};
use crate::run::Stage;

/// Laws that are kept at most: coverage is then known to about a thousandth.
const MOST: usize = 400_000;
/// Differences of this size are chance.
const CHANCE: f64 = 0.02;
/// Laws whose quantiles are computed at once.
const BATCH: usize = 4096;

/// The golden section.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// A law with its parameters.
type Published<'a> = (&'a Law, &'a [f32]);

/// Fits the levels, prints what they are worth on laws they were not fitted to, and writes the package with them.
pub(super) fn run(args: &Args, wanted: &evaluate::Args) -> Result<()> {
    if args.method != "best" {
        return Err(Error::new(Kind::Usage, "calibrate", format!("--method {} is one of scores, and the model gives a law", args.method))
            .help("leave --method out: quantiles are corrected by conformal prediction"));
    }
    let (stage, laws, end) = evaluate::laws(wanted, MOST)?;
    let Some((manifest, _)) = &stage.plan.model else { return Err(Error::config("calibrate", "the pipeline names no model")) };
    if manifest.head.law().is_some_and(|law| law.quantile_calibration.is_some()) {
        return Err(Error::config("calibrate", "the package is calibrated already").help("calibrate the package it was made from"));
    }
    let mut all: Vec<Published<'_>> = laws.iter().collect();
    all.sort_by_key(|(law, _)| law.at);
    let (earlier, later) = all.split_at(all.len() / 2);
    let asked = &stage.plan.asks.quantiles;
    let of_earlier = outcomes(&stage, earlier, end)?;
    let map = conformal::fit(&of_earlier, asked)?;
    let of_later = outcomes(&stage, later, end)?;
    let of_all: Vec<Outcome> = of_earlier.iter().chain(&of_later).copied().collect();

    let stdout = |e: std::io::Error| Error::io("calibrate", Path::new("stdout"), e);
    let mut out = std::io::stdout().lock();
    let sampled = if laws.every() > 1 { format!(" (one law in {} is looked at)", laws.every()) } else { String::new() };
    writeln!(out, "fitted to the earlier {} laws, judged on the later {}{sampled}", earlier.len(), later.len()).map_err(stdout)?;
    writeln!(out, "  {:<40}{:>12}{:>12}{:>12}", "events that came by the quantile", "as it is", "calibrated", "its level")
        .map_err(stdout)?;
    let before = times(&stage, &manifest.head, later)?;
    let after = times(&stage, &with(&manifest.head, Some(map.clone())), later)?;
    for (at, q) in asked.iter().enumerate() {
        let covered = |times: &[Vec<Option<EventTime>>]| coverage(later, times.get(at).map(Vec::as_slice).unwrap_or_default(), end);
        let name = format!("  {q}");
        writeln!(out, "  {name:<40}{:>12.4}{:>12.4}{:>12.4}", covered(&before), covered(&after), map.level(*q)).map_err(stdout)?;
    }
    if let (Some(low), Some(high), true) = (asked.first(), asked.last(), asked.len() > 1) {
        let name = format!("median width from {low} to {high}");
        writeln!(out, "  {name:<40}{:>12}{:>12}", span(width(&before)), span(width(&after))).map_err(stdout)?;
    }
    let name = "largest difference at any level (KS)";
    let (raw, corrected) = (conformal::distance(&of_later, None), conformal::distance(&of_later, Some(&map)));
    writeln!(out, "  {name:<40}{raw:>12.4}{corrected:>12.4}").map_err(stdout)?;
    if corrected > raw + CHANCE {
        return Err(Error::new(
            Kind::Check,
            "calibrate",
            "the levels that the earlier half teaches are worse for the later half than none: nothing was written",
        )
        .help("the stream has changed in between: fit the model anew, or calibrate with what is like the present (--since, --where)"));
    }

    // What is written may use all events.
    let mut manifest = manifest.clone();
    manifest.version.push_str("-conformal");
    manifest.head = with(&manifest.head, Some(conformal::fit(&of_all, asked)?));
    fit::package::with_manifest(&stage.plan.package, &manifest, &args.out)?;
    writeln!(out, "\nfitted to all {}: {} (version {})", all.len(), args.out.display(), manifest.version).map_err(stdout)
}

/// The head with a calibration of its quantiles.
fn with(head: &HeadSpec, calibration: Option<LevelMap>) -> HeadSpec {
    let mut head = head.clone();
    if let Some(law) = head.law_mut() {
        law.quantile_calibration = calibration;
    }
    head
}

/// At which levels events came, and the data ended. A law that is none (numbers that are not finite) is left out.
///
/// On a coarse clock an event came somewhere within its tick. Its level is drawn from the tick's share of the law, as for the residuals: else all would be those of
/// whole ticks, and so would be the quantiles.
fn outcomes(stage: &Stage, laws: &[Published<'_>], end: EventTime) -> Result<Vec<Outcome>> {
    let mut lane = stage.lane()?;
    let mut outcomes = Vec::with_capacity(laws.len());
    let spec = stage.plan.model.as_ref().and_then(|(manifest, _)| manifest.head.law());
    let half = spec.and_then(|law| Some(Gap(i64_of(0.5 * law.resolution? * law.time_unit.seconds() * 1e6)))).unwrap_or(Gap::ZERO);
    for (at, (law, parameters)) in laws.iter().enumerate() {
        let gaps = [law.came.unwrap_or(end), end].map(|time| time.since(law.at).max(Gap::ZERO));
        let [came, end] = gaps;
        let curve = lane.curve(parameters, &[Gap(came.0.saturating_sub(half.0)).max(Gap::ZERO), Gap(came.0.saturating_add(half.0)), end]);
        if let [(_, low), (_, high), (_, end)] = curve[..] {
            let level = |compensator: f64| -(-compensator).exp_m1();
            // Multiples of the golden section lie as evenly as draws would on average, and are the same in every run.
            let drawn = level(low) + (f64_of_count(at + 1) * GOLDEN).fract() * (level(high) - level(low));
            outcomes.push(Outcome { came: law.came.map(|_| drawn), end: level(end) });
        }
    }
    Ok(outcomes)
}

/// The times of the asked quantiles, a column each, by the head that serves.
fn times(stage: &Stage, head: &HeadSpec, laws: &[Published<'_>]) -> Result<Vec<Vec<Option<EventTime>>>> {
    let intensity = stage.package.model()?.intensity.take().map(|graph| Box::new(graph) as Box<dyn Intensities>);
    let asks = Asks { quantiles: stage.plan.asks.quantiles.clone(), ..Asks::default() };
    let mut served = Head::with(head, asks, intensity)?;
    let mut columns: Vec<Vec<Option<EventTime>>> = vec![Vec::with_capacity(laws.len()); stage.plan.asks.quantiles.len()];
    for batch in laws.chunks(BATCH) {
        let after: Vec<f32> = batch.iter().flat_map(|(_, parameters)| parameters.iter().copied()).collect();
        let outputs = Outputs { width: head.width(), before: vec![f32::NAN; after.len()], after, kept: Vec::new() };
        let mut forecasts = Forecasts { flags: vec![Flags::NONE; batch.len()], ..Forecasts::new(Arc::clone(&stage.identity)) };
        let times: Vec<EventTime> = batch.iter().map(|(law, _)| law.at).collect();
        // Nothing is scored here: only what comes next is asked for.
        let (gaps, marks, values) = (vec![None; batch.len()], vec![None; batch.len()], vec![f64::NAN; batch.len()]);
        let arrivals = Arrivals { times: &times, gaps: &gaps, marks: &marks, values: &values };
        served.forecasts(&arrivals, &outputs, &mut forecasts);
        for (column, times) in columns.iter_mut().zip(&forecasts.next_times) {
            column.extend(times);
        }
    }
    Ok(columns)
}

/// Of the laws whose quantile lies within the data: the share whose event came by it.
fn coverage(laws: &[Published<'_>], times: &[Option<EventTime>], end: EventTime) -> f64 {
    let within = laws.iter().zip(times).filter_map(|((law, _), time)| Some((law, (*time)?))).filter(|(_, time)| *time <= end);
    let (count, came) =
        within.fold((0, 0), |(count, came), (law, time)| (count + 1, came + usize::from(law.came.is_some_and(|came| came <= time))));
    f64_of_count(came) / f64_of_count(count)
}

/// Median of the seconds between the first and the last quantile, where there are both.
fn width(times: &[Vec<Option<EventTime>>]) -> f64 {
    let (Some(low), Some(high)) = (times.first(), times.last()) else { return f64::NAN };
    let mut widths: Vec<f64> = low.iter().zip(high).filter_map(|(low, high)| Some((*high)?.since((*low)?).seconds())).collect();
    widths.sort_by(f64::total_cmp);
    widths.get(widths.len() / 2).copied().unwrap_or(f64::NAN)
}
