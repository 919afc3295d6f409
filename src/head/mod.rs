//! Model outputs to laws of the next time and mark, and the surprise of the event that arrived.
//!
//! Each row is computed from that row alone, so that no batch changes a bit, and with this crate's own exponential and logarithm, so that no
//! machine does. Bad parameters (NaN, infinity) give empty fields and the flag `not_finite`, never a panic.
//!
//! A law is one file and one variant of `HeadSpec`; `law` says what every law can be asked, `columns` makes the forecast of it.

mod chances;
mod columns;
mod elementary;
mod exponential;
mod gamma_poisson;
mod gompertz;
mod hawkes;
mod law;
mod lognormal;
mod marks;
mod mixture;
mod normal;
mod piecewise;
#[cfg(test)]
mod reference;
mod score;
mod solve;
mod tabulated;
mod value;
mod weibull;

use std::collections::BTreeSet;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::base::error::{Error, Result};
use crate::base::limits::MAX_MARKS;
use crate::base::number::{index, u32_of};
use crate::base::time::{EventTime, Gap};
use crate::data::flags::Flags;
use crate::data::forecasts::Forecasts;
use crate::data::intensity::Intensities;
use crate::data::law::{Calibration, HeadSpec, LawSpec, LevelMap, ScoreLink};
use crate::data::outputs::Outputs;
use columns::{Clock, Columns, Timed};
use exponential::Exponential;
use gamma_poisson::GammaPoisson;
use gompertz::Gompertz;
use hawkes::Hawkes;
use law::Law;
use lognormal::LogNormals;
use piecewise::Piecewise;
pub use tabulated::LAST as FARTHEST_PANEL;
use tabulated::Tabulated;
use value::ValueLaw;
use weibull::Weibull;

/// Most components of a mixture, bins of a hazard, or decays of a mark.
pub const MAX_COMPONENTS: usize = 256;

/// What the pipeline asks of a law.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asks {
    /// Quantiles of the next event's time, ascending, each in (0, 1).
    pub quantiles: Vec<f64>,
    /// Those of them, by index, that are not to be written.
    pub unwritten: Vec<usize>,
    /// Those of them, by index, that make a key overdue when they pass without an event.
    pub overdue: Vec<usize>,
    /// Horizons.
    pub horizons: Vec<Gap>,
    /// How many of the likeliest next marks.
    pub marks: usize,
    /// Quantiles of the next event's value, ascending, each in (0, 1); none where the head has no law of it.
    pub value_quantiles: Vec<f64>,
}

impl Asks {
    /// Quantiles that are written, and those that make a key overdue.
    #[must_use]
    pub fn of_times(written: Vec<f64>, overdue: &[f64]) -> Self {
        let mut quantiles = written.clone();
        quantiles.extend(overdue.iter().filter(|q| !written.contains(q)));
        quantiles.sort_by(f64::total_cmp);
        let places = |wanted: &dyn Fn(&f64) -> bool| quantiles.iter().enumerate().filter(|(_, q)| wanted(q)).map(|(i, _)| i).collect();
        let (unwritten, overdue) = (places(&|q| !written.contains(q)), places(&|q| overdue.contains(q)));
        Asks { quantiles, unwritten, overdue, ..Asks::default() }
    }
}

/// The events whose forecasts are made, as columns of equal length.
#[derive(Clone, Copy, Debug)]
pub struct Arrivals<'a> {
    /// When each happened.
    pub times: &'a [EventTime],
    /// Gap since its key's last event; `None` for a first one.
    pub gaps: &'a [Option<Gap>],
    /// Its mark as an index into the head's marks; `None` without marks, or where it is missing or unknown.
    pub marks: &'a [Option<u32>],
    /// What it carries in the field whose value the head has a law of, NaN where that is missing; empty without such a law.
    pub values: &'a [f64],
}

/// Next events drawn from laws, as columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Drawn {
    /// Floats per law.
    width: usize,
    /// Marks of the head.
    marks: usize,
    /// Gap of each, as the law's clock shows it; `None` if no event comes, or the row was not that of a law.
    pub gaps: Vec<Option<Gap>>,
    /// Mark of each, as an index into the head's marks.
    pub next_marks: Vec<Option<u32>>,
    /// Probability of every mark at that gap, as many a row as the head has marks; 0 where no event comes.
    pub chances: Vec<f32>,
}

impl Drawn {
    fn clear(&mut self) {
        self.gaps.clear();
        self.next_marks.clear();
        self.chances.clear();
    }
}

/// Turns outputs into forecasts. One per lane: it holds buffers that are used again.
#[derive(Debug)]
pub struct Head {
    kind: Kind,
    width: usize,
    marks: HashMap<Box<[u8]>, u32, FixedState>,
}

#[derive(Debug)]
enum Kind {
    Law(Box<dyn Timed>),
    Score(ScoreLink, Option<Calibration>),
}

impl Head {
    /// A head for a package's `[head]` and what the pipeline asks of it.
    ///
    /// # Errors
    /// Of configuration: a number of components, bins or decays, marks, a gap, a resolution, a quantile or a horizon that is out of its bounds, a mark that
    /// stands twice, or more next marks asked for than the head has. A score head has no law: it leaves the columns of asked
    /// quantiles and horizons empty.
    pub fn new(spec: &HeadSpec, asks: Asks) -> Result<Head> {
        Head::with(spec, asks, None)
    }

    /// As `new`, with what a head of the kind `intensity` asks.
    ///
    /// # Errors
    /// As `new`; or a head of that kind is given nobody to ask.
    pub fn with(spec: &HeadSpec, asks: Asks, intensities: Option<Box<dyn Intensities>>) -> Result<Head> {
        check_asks(spec, &asks)?;
        check(spec)?;
        let kind = match (spec, spec.law()) {
            (HeadSpec::Score { link, calibration, .. }, _) => Kind::Score(*link, calibration.clone()),
            (_, None) => return Err(Error::internal("head", "a head that is neither law nor score")),
            (_, Some(law)) => Kind::Law(timed(spec, law, &asks, intensities)?),
        };
        let marks = spec.marks().iter().enumerate().map(|(i, name)| (name.as_bytes().into(), u32_of(i))).collect();
        Ok(Head { kind, width: spec.width(), marks })
    }

    /// Floats per event that the head reads.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Whether it scores the arrived event against the law published before it, and so needs `Outputs::before`.
    #[must_use]
    pub fn scores_arrivals(&self) -> bool {
        matches!(self.kind, Kind::Law(_))
    }

    /// Whether it gives a law of the next value.
    #[must_use]
    pub fn has_value(&self) -> bool {
        matches!(&self.kind, Kind::Law(law) if law.has_value())
    }

    /// Whether it gives a law of the next mark.
    #[must_use]
    pub fn has_marks(&self) -> bool {
        !self.marks.is_empty()
    }

    /// Index of a mark among the head's marks.
    #[must_use]
    pub fn mark_index(&self, mark: &[u8]) -> Option<u32> {
        self.marks.get(mark).copied()
    }

    /// Log-odds of a score as the model gives it, before any calibration; `None` of a law, and of what is no number.
    #[must_use]
    pub fn log_odds(&self, row: &[f32]) -> Option<f64> {
        match (&self.kind, row) {
            (Kind::Score(link, _), [output]) => score::log_odds(*output, *link),
            _ => None,
        }
    }

    /// Hazard, per unit of the law, and compensator of a row of parameters at each gap after its event. Empty for a score, and for a row
    /// that is not that of a law.
    #[must_use]
    pub fn curve(&mut self, row: &[f32], gaps: &[Gap]) -> Vec<(f64, f64)> {
        match &mut self.kind {
            Kind::Law(law) => law.curve(row, gaps),
            Kind::Score(..) => Vec::new(),
        }
    }

    /// Draws the next event of each row of parameters, one row after the other: its gap, and its mark given the gap. `uniform` gives numbers from [0, 1), each
    /// for the row of that place; a row asks for as many as it needs. Nothing of one row depends on the others. A score draws nothing.
    pub fn samples(&mut self, rows: &[f32], uniform: &mut dyn FnMut(usize) -> f64, into: &mut Drawn) {
        (into.width, into.marks) = (self.width, self.marks.len());
        into.clear();
        if let Kind::Law(law) = &mut self.kind {
            law.samples(rows, uniform, into);
        }
    }

    /// How far out each arrival is under a law that stands in its row, in nats: -ln of the density of its gap, of its mark's probability, of the density of its
    /// value, as `forecasts` gives them; NaN where there is none. Nothing of a score.
    ///
    /// # Panics
    /// If there is not one row a gap, a mark, and a value if the law has one: a defect of the caller.
    #[must_use]
    pub fn surprises(&mut self, arrivals: &Arrivals<'_>, rows: &[f32]) -> Vec<[f64; 3]> {
        let arrived = arrivals.gaps.len();
        assert!(rows.len() == arrived * self.width && arrivals.marks.len() == arrived, "one row of parameters per arrival");
        match &mut self.kind {
            Kind::Law(law) => {
                assert!(!law.has_value() || arrivals.values.len() == arrived, "a law of the value is given the values");
                law.surprises(arrivals, rows, self.width)
            }
            Kind::Score(..) => Vec::new(),
        }
    }

    /// Appends the head's columns for every arrival to `into`: `surprise_time`, `surprise_mark`, `surprise_value`, `residual`, `residual_value`, `score`,
    /// `next_times`, `next_values`, `p_never`, `p_within`, `next_marks` and `intensity_now`, NaN (or `None`) where it has none, so that all columns have the same length.
    /// Sets `marks_per_row`, and the flag `not_finite` among the last rows of `into.flags`, which the caller has pushed already; all other
    /// columns are the caller's. Next marks of a row that is not finite have `p` NaN.
    ///
    /// `outputs` has a row per arrival: `after`, and `before` if the head scores arrivals.
    ///
    /// # Panics
    /// If the columns do not have the lengths said above: a defect of the caller.
    pub fn forecasts(&mut self, arrivals: &Arrivals<'_>, outputs: &Outputs, into: &mut Forecasts) {
        let rows = arrivals.times.len();
        assert!(outputs.width == self.width && outputs.after.len() == rows * self.width, "one row of parameters per arrival");
        assert!(into.flags.len() >= rows, "the flags of the arrivals come before their forecasts");
        let flags = into.flags.len() - rows;
        let width = self.width;
        outputs.kept.iter().for_each(|row| add_flags(into, flags + index(*row), Flags::STATE_KEPT));
        match &mut self.kind {
            Kind::Law(law) => {
                assert!(outputs.before.len() == outputs.after.len(), "a law scores arrivals, so it is given the rows before them");
                assert!(arrivals.gaps.len() == rows && arrivals.marks.len() == rows, "arrivals are columns of equal length");
                assert!(!law.has_value() || arrivals.values.len() == rows, "a law of the value is given the values");
                law.forecasts(arrivals, outputs, into);
            }
            Kind::Score(link, calibration) => {
                into.marks_per_row = 0;
                for (row, output) in outputs.after.chunks_exact(width).enumerate() {
                    let score = output.first().and_then(|output| score::score(*output, *link));
                    let score = score.map(|p| calibration.as_ref().map_or(p, |calibration| calibration.apply(p)));
                    into.surprise_time.push(f64::NAN);
                    into.surprise_mark.push(f64::NAN);
                    into.surprise_value.push(f64::NAN);
                    into.residual.push(f64::NAN);
                    into.residual_value.push(f64::NAN);
                    into.score.push(score.unwrap_or(f64::NAN));
                    push_no_time(into);
                    push_no_value(into);
                    add_flags(into, flags + row, if score.is_some() { Flags::NONE } else { Flags::NOT_FINITE });
                }
            }
        }
    }
}

fn add_flags(into: &mut Forecasts, row: usize, flags: Flags) {
    if let Some(all) = into.flags.get_mut(row) {
        *all = all.with(flags);
    }
}

/// Appends a row without a law of time.
fn push_no_time(into: &mut Forecasts) {
    into.next_times.iter_mut().for_each(|column| column.push(None));
    into.p_within.iter_mut().for_each(|column| column.push(f64::NAN));
    into.p_never.push(f64::NAN);
    into.intensity_now.push(f64::NAN);
}

/// Appends a row without a law of the value.
fn push_no_value(into: &mut Forecasts) {
    into.next_values.iter_mut().for_each(|column| column.push(f64::NAN));
}

/// Checks a package's `[head]`, whatever is asked of it.
///
/// # Errors
/// Of configuration, as `Head::new`.
pub fn check(spec: &HeadSpec) -> Result<()> {
    if let HeadSpec::Score { calibration: Some(calibration), .. } = spec
        && let Some(fault) = calibration.fault()
    {
        return Err(Error::config("head", fault).help("in [head] of model.toml, mend `calibration`, or take it out"));
    }
    spec.law().map_or(Ok(()), |law| check_law(spec, law))
}

fn check_asks(spec: &HeadSpec, asks: &Asks) -> Result<()> {
    for (key, quantiles) in [("quantiles", &asks.quantiles), ("value_quantiles", &asks.value_quantiles)] {
        if let Some(q) = quantiles.iter().find(|q| !(**q > 0.0 && **q < 1.0)) {
            return Err(Error::config("head", format!("quantile {q} is not between 0 and 1"))
                .help(format!("write forecast.{key} such as [0.1, 0.5, 0.9]")));
        }
        if let Some((a, b)) = quantiles.iter().zip(quantiles.iter().skip(1)).find(|(a, b)| a >= b) {
            return Err(Error::config("head", format!("quantile {b} does not lie above the one before it, {a}"))
                .help(format!("write forecast.{key} in ascending order, each once")));
        }
    }
    if !asks.value_quantiles.is_empty() && spec.value().is_none() {
        return Err(Error::config("head", "quantiles of the next value are asked for, the model has no law of it")
            .help("take forecast.value_quantiles out, or fit a model with `value` in [fit]"));
    }
    if let Some(horizon) = asks.horizons.iter().find(|horizon| **horizon <= Gap::ZERO) {
        return Err(Error::config("head", format!("horizon of {} s is not above 0", horizon.seconds()))
            .help("write forecast.horizons such as [\"1h\", \"24h\"]"));
    }
    let known = spec.marks().len();
    if asks.marks > known {
        return Err(Error::config("head", format!("{} next marks are asked for, the model has {known}", asks.marks))
            .help(format!("set forecast.marks to at most {known}")));
    }
    Ok(())
}

/// The law of a package's head.
fn timed(spec: &HeadSpec, law: &LawSpec, asks: &Asks, intensities: Option<Box<dyn Intensities>>) -> Result<Box<dyn Timed>> {
    // Where quantiles were calibrated, the law is asked at another level.
    let calibration = law.quantile_calibration.as_ref();
    let asks = &Asks {
        quantiles: asks.quantiles.iter().map(|q| calibration.map_or(*q, |calibration| calibration.level(*q))).collect(),
        ..asks.clone()
    };
    fn of<L: Law + 'static>(own: L, law: &LawSpec, asks: &Asks) -> Box<dyn Timed> {
        let clock = Clock { unit: law.time_unit, min_gap: law.min_gap, resolution: law.resolution };
        let value = law.value.as_ref().map(|value| ValueLaw::new(value, &asks.value_quantiles));
        Box::new(Columns::new(own, clock, asks, law, value))
    }
    Ok(match spec {
        HeadSpec::Intensity(_) => {
            let source = intensities.ok_or_else(|| Error::internal("head", "a head of the kind intensity without its graph"))?;
            of(Tabulated::new(source, spec.event_width()), law, asks)
        }
        HeadSpec::LognormalMixture(_) => of(LogNormals::new(law.components.unwrap_or(1), &asks.quantiles), law, asks),
        HeadSpec::Weibull(_) => of(Weibull::default(), law, asks),
        HeadSpec::Gompertz(_) => of(Gompertz::default(), law, asks),
        HeadSpec::PiecewiseConstant(_) => of(Piecewise::new(&law.edges), law, asks),
        HeadSpec::GammaPoisson(_) => of(GammaPoisson::default(), law, asks),
        HeadSpec::Hawkes(_) => of(Hawkes::new(law.marks.len().max(1), law.decays.unwrap_or(1)), law, asks),
        HeadSpec::Exponential(_) | HeadSpec::Score { .. } => of(Exponential::default(), law, asks),
    })
}

fn check_law(spec: &HeadSpec, law: &LawSpec) -> Result<()> {
    let fault = |text: String, help: &str| Err(Error::config("head", text).help(format!("in [head] of model.toml, {help}")));
    let (kind, min_gap, marks) = (spec.kind(), law.min_gap, &law.marks);
    let owners = [
        ("components", law.components.is_some(), matches!(spec, HeadSpec::LognormalMixture(_))),
        ("edges", !law.edges.is_empty(), matches!(spec, HeadSpec::PiecewiseConstant(_))),
        ("decays", law.decays.is_some(), matches!(spec, HeadSpec::Hawkes(_))),
        ("parameters", law.parameters.is_some(), matches!(spec, HeadSpec::Intensity(_))),
    ];
    if let Some((name, ..)) = owners.iter().find(|(_, given, own)| *given && !own) {
        return fault(format!("a head of the kind {kind} has no `{name}`"), "take it out");
    }
    let sizes = [
        ("components", law.components.unwrap_or_default(), matches!(spec, HeadSpec::LognormalMixture(_))),
        ("edges", law.edges.len(), matches!(spec, HeadSpec::PiecewiseConstant(_))),
        ("decays", law.decays.unwrap_or(1), true),
        ("parameters", law.parameters.unwrap_or_default().min(MAX_COMPONENTS), matches!(spec, HeadSpec::Intensity(_))),
    ];
    if let Some((name, size, _)) = sizes.iter().find(|(_, size, own)| *own && !(1..=MAX_COMPONENTS).contains(size)) {
        return fault(format!("{name} = {size}; allowed are 1 to {MAX_COMPONENTS}"), "set it to what the graph gives");
    }
    let rising = law.edges.windows(2).all(|pair| matches!(pair, [a, b] if a < b)) && law.edges.first().is_none_or(|edge| *edge > 0.0);
    if !rising || law.edges.iter().any(|edge| !edge.is_finite()) {
        return fault(format!("edges = {:?} do not rise from above 0", law.edges), "write them in ascending order, without 0");
    }
    if let Some(text) = law.quantile_calibration.as_ref().and_then(LevelMap::fault) {
        return fault(text.to_owned(), "mend quantile_calibration, or take it out");
    }
    if !(min_gap > 0.0 && min_gap.is_finite()) {
        return fault(
            format!("min_gap = {min_gap} is not above 0 and finite"),
            "set min_gap to the smallest gap the clock can tell, in time_unit",
        );
    }
    if let Some(width) = law.resolution
        && !(width > 0.0 && width.is_finite())
    {
        return fault(
            format!("resolution = {width} is not above 0 and finite"),
            "set resolution to the width of a clock tick, in time_unit, or leave it out",
        );
    }
    if let Some(text) = law.value.as_ref().and_then(|value| value.fault(MAX_COMPONENTS)) {
        return fault(text, "mend [head.value]");
    }
    if marks.len() > MAX_MARKS {
        return fault(format!("{} marks; at most {MAX_MARKS} are allowed", marks.len()), "join rare marks into one");
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = marks.iter().find(|mark| !seen.insert(mark.as_str())) {
        return fault(format!("mark `{twice}` stands twice"), "name each mark once");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
