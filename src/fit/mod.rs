//! History to model package: reads what happened, derives the recipe, trains, and writes the step graph with its card. Autograd (candle)
//! lives only here.
//!
//! Reading order: `read` (history through the serving code), `split`, `clock`, `recipe`, `history` (what training sees), `baseline` (what has to be beaten),
//! `step` (what every fit ends in), `batch`, `ops` and `cell` (the networks, each written once to be trained and exported), `network`, `gru_window`, `loss`, `hazard` and `intensity`, `train`, `export`, `process`, `likelihood` and `hawkes` (what is known in
//! closed form), `report`, `golden`, `card`, `package`, `served`; then `units` and `prune`, `calibrate`, `conformal` and `cohorts`.

pub mod baseline;
pub mod batch;
pub mod calibrate;
pub mod card;
pub mod cell;
pub mod clock;
pub mod cohorts;
pub mod conformal;
pub mod export;
pub mod golden;
pub mod gru_window;
pub mod hawkes;
pub mod hazard;
pub mod history;
pub mod intensity;
pub mod likelihood;
pub mod loss;
pub mod network;
pub mod normal;
pub mod ops;
pub mod package;
pub mod process;
pub mod prune;
pub mod read;
pub mod recipe;
pub mod report;
pub mod served;
pub mod split;
pub mod step;
pub mod train;
pub mod units;
pub mod value;

#[cfg(test)]
mod tests;

pub use crate::model::write::check_folder;
pub use package::{Package, Written, write};
pub use report::Report;
pub use train::Progress;

use candle_core::{CpuStorage, Layout};

use self::baseline::Baseline;
use self::cell::Design;
use self::clock::{Clock, Coarse};
use self::export::Recurrent;
use self::history::{History, Part};
use self::intensity::Decaying;
use self::loss::{LawKind, Objective};
use self::process::Process;
use self::read::{Prepared, Seen};
use crate::base::error::{Error, Kind, Result};
use crate::base::number::f64_of_count;
use crate::base::time::TimeUnit;
use crate::data::law::{HeadSpec, LawSpec, ScoreLink};
use crate::data::schema::EventSchema;
use crate::features::recipe::{Recipe, Spec};
use crate::head::FARTHEST_PANEL;
use crate::model::manifest::{FORMAT, Manifest};
use crate::pipeline::plan::{Cell, Law, Plan};
use crate::source::Feed;

/// Fewest gaps (or labelled events) of the train split that are worth a fit.
const FEWEST: usize = 100;
/// The graph output that holds the parameters of a law.
const LAW: &str = "law";
/// The graph output that holds the logit of a score.
const LOGIT: &str = "logit";

/// What a fit is doing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Reading: records so far, and how many are left, if that is known.
    Reading(usize, Option<u64>),
    /// Training.
    Training(Progress),
    /// Computing the figures of all parts.
    Scoring,
}

/// A package, its figures, and the history it was made from, which `write` needs to check what it has written.
pub struct Fitted {
    /// The package.
    pub package: Package,
    /// The figures.
    pub report: Report,
    #[cfg(test)]
    step: Box<dyn step::Step>,
    schema: EventSchema,
    seen: Seen,
    prepared: Prepared,
}

impl Fitted {
    /// What the user should know beside the figures: where the law is no better than none, what the clock is like, which parameters ended on a bound.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        let beside = self.report.beside(matches!(self.package.manifest.head, HeadSpec::LognormalMixture(_)));
        beside.and_then(|beside| beside.text()).into_iter().chain(self.report.notes.iter().cloned())
    }
}

/// Reads the feed to its end and fits a package to it. Changes nothing on disk.
///
/// # Errors
/// The source fails; the history is empty, too short, or its labels are not 0 and 1 or all alike; a field of `[fit]` cannot be used; training
/// does not converge to a number.
pub fn fit(plan: &Plan, feed: &mut dyn Feed, progress: &mut dyn FnMut(Step)) -> Result<Fitted> {
    check_plan(plan)?;
    let seen = read::read(plan, feed, &mut |records, left| progress(Step::Reading(records, left)))?;
    let coarse = Coarse::of(&seen);
    let unit = plan.fit.time_unit.unwrap_or_else(|| {
        let mut gaps = seen.train_gaps(TimeUnit::Second);
        if intensities(plan) { read::unit_of_mean(&gaps) } else { read::unit_of(&mut gaps) }
    });
    let marks = marks(plan, &seen);
    if plan.fit.cell == Cell::Hawkes && marks.len() > hawkes::MOST_MARKS {
        let text = format!(
            "{} marks: the process `hawkes` has an excitation for each pair of them, and at most {} marks",
            marks.len(),
            hawkes::MOST_MARKS
        );
        return Err(Error::new(Kind::Data, "fit", text).help("name a field of fewer values in [event] mark, or fit a network"));
    }
    let gaps = seen.train_gaps(unit);
    let longest = gaps.iter().copied().fold(0.0, f64::max);
    if intensities(plan) && longest > FARTHEST_PANEL {
        let name = unit.name();
        let text =
            format!("the longest gap is {longest:.0} `{name}`, and the law `intensity` is served as far as {FARTHEST_PANEL:.0} of them");
        let help = match plan.fit.time_unit {
            Some(_) => "take `time_unit` out of [fit]: the unit is then that of the mean gap",
            None => "its gaps are too unlike for intensities; fit law = \"lognormal_mixture\", or expire idle keys with [state] expiry",
        };
        return Err(Error::new(Kind::Data, "fit", text).help(help));
    }
    let (clock, note) = Clock::of(&plan.fit, seen.tick(), coarse, unit, &gaps);
    let notes: Vec<String> = note.into_iter().filter(|_| plan.schema.label.is_none()).collect();
    let value = plan.fit.value.as_ref().map(|value| recipe::value_spec(value, &plan.schema, &seen)).transpose()?;
    let facts = recipe::GapFacts { gaps: &gaps, unit, floor: clock.floor };
    let process = !plan.fit.cell.is_network();
    let recipe = match plan.fit.cell {
        cell if cell.is_network() => recipe::derive(&plan.fit, &plan.schema, &seen, &facts)?,
        Cell::Hawkes => recipe::of_marks(&plan.schema, &marks),
        _ => recipe::of_first(plan.fit.cell == Cell::Poisson),
    };
    let column = plan.fit.value.as_ref().and_then(|value| plan.schema.field(&value.field));
    let prepared = read::prepare(&seen, &plan.schema, &recipe, unit, &marks, column)?;
    if process && plan.schema.label.is_some() {
        return Err(Error::config(
            "fit",
            format!("the cell `{}` gives a law of time, and [event] names a label to be scored", plan.fit.cell.name()),
        )
        .help("take `label` out of [event], or fit a score with cell = \"gru\""));
    }
    let objective = match plan.schema.label {
        Some(_) => Objective::Score,
        None => Objective::Law {
            law: law_kind(plan, &gaps, clock.resolution, marks.len()),
            min_gap: clock.min_gap,
            resolution: clock.resolution,
            marks: marks.len(),
            value,
        },
    };
    check_history(&prepared.history, &objective, plan, &seen)?;
    let (step, mut report) = learn(plan, &seen, &prepared.history, &recipe, &objective, unit, progress)?;
    report.notes = [notes, report.notes].concat();
    let package = assemble(plan, &seen, &prepared, &*step, &report, head(&objective, unit, marks), recipe)?;
    Ok(Fitted {
        package,
        report,
        #[cfg(test)]
        step,
        schema: plan.schema.clone(),
        seen,
        prepared,
    })
}

fn learn(
    plan: &Plan,
    seen: &Seen,
    history: &History,
    recipe: &Recipe,
    objective: &Objective,
    unit: TimeUnit,
    progress: &mut dyn FnMut(Step),
) -> Result<(Box<dyn step::Step>, Report)> {
    let anchor = objective.value().filter(|value| value.anchored).and_then(|_| anchor(recipe));
    let anchors = |event: usize| match history.row(event).get(anchor?..) {
        Some([centre, ln_scale, ..]) => Some((f64::from(*centre), f64::from(*ln_scale))),
        _ => None,
    };
    let baseline = Baseline::fit(history, objective, &anchors, plan.fit.seed);
    let mut notes = Vec::new();
    let (step, trained): (Box<dyn step::Step>, _) = match plan.fit.cell {
        cell if cell.is_network() => {
            let options = train::Options {
                epochs: plan.fit.epochs,
                patience: plan.fit.patience,
                learning_rate: plan.fit.learning_rate,
                seed: plan.fit.seed,
            };
            let (scaled, scale) = per_mean_gap(objective, history);
            let design = Design {
                cell,
                features: history.width,
                hidden: plan.fit.hidden,
                outputs: scaled.trained_width(),
                pace: pace(history, objective),
                anchor,
                missing: missing(recipe),
                decaying: decaying(objective, history),
            };
            let mut trained = train::train(history, &scaled, design, &baseline.bias(), &options, &mut |at| progress(Step::Training(*at)))?;
            let facts = (trained.epochs, trained.best_epoch, trained.chosen_by);
            scale.into_iter().for_each(|scale| trained.weights.scale_output(1, scale));
            (Box::new(Recurrent::new(trained.weights, unit)?), facts)
        }
        cell => {
            let (process, ended) = process(cell, history, objective, plan.fit.components, unit, &mut |at| progress(Step::Training(at)));
            notes.extend(ended.and_then(|found| found.note(unit, &marks(plan, seen))));
            (Box::new(process), (0, 0, Part::Train))
        }
    };
    progress(Step::Scoring);
    let parts =
        Part::SCORED.into_iter().map(|part| report::figures(&*step, history, objective, &baseline, part)).collect::<Result<Vec<_>>>()?;
    let (epochs, best_epoch, chosen_by) = trained;
    let report = Report {
        keys: seen.keys,
        events: seen.events.len(),
        rejected: seen.rejected,
        parts,
        weights: step.weights(),
        model: step.describe(),
        epochs,
        best_epoch,
        chosen_by,
        notes,
        time_unit: matches!(objective, Objective::Law { .. }).then_some(unit),
    };
    Ok((step, report))
}

/// The objective to train with, and what its second output is to be multiplied by afterwards: see `LawKind::Gompertz`.
fn per_mean_gap(objective: &Objective, history: &History) -> (Objective, Option<f64>) {
    match objective {
        Objective::Law { law: LawKind::Gompertz(_), min_gap, resolution, marks, value } => {
            let scale = pace(history, objective);
            let law = LawKind::Gompertz(scale);
            (Objective::Law { law, min_gap: *min_gap, resolution: *resolution, marks: *marks, value: value.clone() }, Some(scale))
        }
        other => (other.clone(), None),
    }
}

/// The units that decay until the next event, of a law of intensities.
fn decaying(objective: &Objective, history: &History) -> Option<Decaying> {
    match objective {
        Objective::Law { law: LawKind::Intensity { units, marks }, .. } => {
            Some(Decaying { units: *units, marks: *marks, pace: pace(history, objective) })
        }
        _ => None,
    }
}

/// One over the mean gap of the train split.
fn pace(history: &History, objective: &Objective) -> f64 {
    let least = if let Objective::Law { min_gap, .. } = objective { *min_gap } else { f64::MIN_POSITIVE };
    let (count, sum) = history.gaps_of(Part::Train).fold((0.0, 0.0), |(count, sum), gap| (count + 1.0, sum + gap));
    f64::max(count, 1.0) / if sum > 0.0 { f64::max(sum, least) } else { 1.0 }
}

/// The columns of values that may be missing, each with the column that says so.
fn missing(recipe: &Recipe) -> Vec<(usize, usize)> {
    let mut start = 0;
    let mut found = Vec::new();
    for spec in &recipe.columns {
        if let Spec::Numeric { missing_flag: true, .. } = spec {
            found.push((start, start + 1));
        }
        start += spec.width();
    }
    found
}

/// The first of the columns of the feature row that are the anchor of a law of the value: mean and ln of the deviation, behind the deviation.
fn anchor(recipe: &Recipe) -> Option<usize> {
    let mut start = 0;
    for spec in &recipe.columns {
        if let Spec::Deviation { .. } = spec {
            return Some(start + 1);
        }
        start += spec.width();
    }
    None
}

/// The process that the train split is likeliest under, and where parameters of a Hawkes process ended.
fn process(
    cell: Cell,
    history: &History,
    objective: &Objective,
    bins: usize,
    unit: TimeUnit,
    progress: &mut dyn FnMut(Progress),
) -> (Process, Option<hawkes::Found>) {
    let (marks, resolution, floor) = match objective {
        Objective::Law { marks, resolution, min_gap, .. } => (*marks, *resolution, *min_gap),
        Objective::Score => (0, None, 0.0),
    };
    let mut ended = None;
    let kind = match cell {
        Cell::GammaPoisson => likelihood::gamma_poisson(history, floor),
        Cell::History => likelihood::history(history, bins, resolution),
        Cell::Hawkes => {
            // Events of one tick are, on average, half of its half apart.
            let floor = resolution.map_or(floor, |width| 0.25 * width);
            let found = hawkes::fit(history, &|event| likelihood::mark_of(history, event), marks.max(1), floor, progress);
            let kind = found.kind.clone();
            ended = Some(found);
            kind
        }
        _ => likelihood::poisson(history, floor),
    };
    let marks = if cell == Cell::Hawkes || marks == 0 { Vec::new() } else { likelihood::frequencies(history, marks) };
    (Process { kind, marks, unit, width: history.width }, ended)
}

/// Whether a law of intensities is fitted.
fn intensities(plan: &Plan) -> bool {
    plan.fit.law == Law::Intensity && plan.fit.cell.is_network() && plan.schema.label.is_none()
}

/// The law that the cell gives.
fn law_kind(plan: &Plan, gaps: &[f64], resolution: Option<f64>, marks: usize) -> LawKind {
    let edges = || LawKind::Piecewise(hazard::edges(gaps, plan.fit.components, resolution));
    match (plan.fit.cell, plan.fit.law) {
        (Cell::Poisson, _) => LawKind::Exponential,
        (Cell::GammaPoisson, _) => LawKind::GammaPoisson,
        (Cell::History, _) => edges(),
        (Cell::Hawkes, _) => LawKind::Hawkes(marks.max(1)),
        // The units of a neural Hawkes process are its own state.
        (Cell::CtLstm, Law::Intensity) => LawKind::Intensity { units: plan.fit.hidden, marks: marks.max(1) },
        (_, Law::Intensity) => LawKind::Intensity { units: plan.fit.components, marks: marks.max(1) },
        (_, Law::Exponential) => LawKind::Exponential,
        (_, Law::GammaPoisson) => LawKind::GammaPoisson,
        (_, Law::PiecewiseConstant) => edges(),
        (_, Law::LognormalMixture) => LawKind::Mixture(plan.fit.components),
        (_, Law::Weibull) => LawKind::Weibull,
        (_, Law::Gompertz) => LawKind::Gompertz(1.0),
    }
}

fn assemble(
    plan: &Plan,
    seen: &Seen,
    prepared: &Prepared,
    step: &dyn step::Step,
    report: &Report,
    head: HeadSpec,
    recipe: Recipe,
) -> Result<Package> {
    let output = head.outputs().first().cloned().unwrap_or_default();
    let golden = golden::table(step, seen, prepared, &plan.schema, &recipe)?;
    let facts = card::Facts {
        name: &plan.name,
        head: &head,
        recipe: &recipe,
        schema: &plan.schema,
        fit: &plan.fit,
        span: read::span(seen),
        report,
    };
    let card = card::card(&facts).map_err(|e| Error::internal("fit", e.to_string()))?;
    let manifest = Manifest {
        format: FORMAT,
        name: plan.name.clone(),
        version: "1".to_owned(),
        input: step.input(),
        states: step.states(),
        attention: step.attention(),
        head,
    };
    Ok(Package { manifest, recipe, graph: step.graph(&output)?, intensity: step.intensity_graph()?, golden, card })
}

fn head(objective: &Objective, unit: TimeUnit, marks: Vec<String>) -> HeadSpec {
    match objective {
        Objective::Law { law, min_gap, resolution, value, .. } => {
            let spec = LawSpec { resolution: *resolution, marks, value: value.clone(), ..LawSpec::new(&[LAW], unit, *min_gap) };
            match law {
                LawKind::Mixture(components) => HeadSpec::LognormalMixture(LawSpec { components: Some(*components), ..spec }),
                LawKind::Exponential => HeadSpec::Exponential(spec),
                LawKind::Weibull => HeadSpec::Weibull(spec),
                LawKind::Gompertz(_) => HeadSpec::Gompertz(spec),
                LawKind::Piecewise(edges) => HeadSpec::PiecewiseConstant(LawSpec { edges: edges.clone(), ..spec }),
                LawKind::GammaPoisson => HeadSpec::GammaPoisson(spec),
                LawKind::Hawkes(_) => HeadSpec::Hawkes(spec),
                LawKind::Intensity { .. } => HeadSpec::Intensity(LawSpec { parameters: Some(law.width()), ..spec }),
            }
        }
        Objective::Score => HeadSpec::Score { outputs: vec![LOGIT.to_owned()], link: ScoreLink::Logit, calibration: None },
    }
}

/// The marks of the law, most frequent in the train split first; none for a score.
fn marks(plan: &Plan, seen: &Seen) -> Vec<String> {
    let field = plan.schema.mark.filter(|_| plan.schema.label.is_none()).and_then(|mark| plan.schema.fields.get(mark));
    let found = field.map(|field| recipe::frequent(&field.name, seen, &plan.schema, 1)).unwrap_or_default();
    found.into_iter().take(crate::base::limits::MAX_MARKS).collect()
}

/// Refuses what cannot mean what the user wants.
fn check_plan(plan: &Plan) -> Result<()> {
    let label = plan.schema.label.and_then(|label| plan.schema.fields.get(label)).map(|field| &field.name);
    if let Some(label) = label
        && plan.fit.numeric.iter().chain(&plan.fit.category).any(|field| field == label)
    {
        return Err(Error::config("fit", format!("the label `{label}` is also named as a feature: the score would only repeat it"))
            .help("take it out of [fit] numeric and category"));
    }
    if let Some(value) = plan.fit.value.as_ref().filter(|value| plan.fit.category.contains(&value.field)) {
        return Err(Error::config("fit", format!("field `{}` is named both as the value and in category", value.field))
            .help("a law of a value is one of numbers: take it out of category"));
    }
    if let Some(field) = plan.fit.numeric.iter().find(|field| plan.fit.category.contains(field)) {
        return Err(Error::config("fit", format!("field `{field}` is named both in [fit] numeric and in category")).help("choose one"));
    }
    if let Some(value) = plan.fit.value.as_ref().filter(|_| intensities(plan)) {
        let text = format!("the law `intensity` has no law of the value beside it, and [fit] value names `{}`", value.field);
        return Err(
            Error::config("fit", text).help("take `value` out of [fit], or name another law of time, such as \"lognormal_mixture\"")
        );
    }
    let value = plan.fit.value.as_ref().map(|value| &value.field);
    let unread = plan.fit.numeric.iter().chain(&plan.fit.category).chain(value).find(|field| plan.schema.field(field).is_none());
    if let Some(field) = unread {
        let known = plan.schema.fields.iter().map(|known| known.name.as_str());
        let nearest = known.max_by(|a, b| strsim::jaro_winkler(a, field).total_cmp(&strsim::jaro_winkler(b, field)));
        let error = Error::config("fit", format!("[fit] names the field `{field}`, which the pipeline does not read"));
        return Err(match nearest {
            Some(nearest) => error.help(format!("the nearest field that is read is `{nearest}`")),
            None => error,
        });
    }
    Ok(())
}

/// Refuses a history that nothing can be learnt from.
fn check_history(history: &History, objective: &Objective, plan: &Plan, seen: &Seen) -> Result<()> {
    let fault = |text: String, help: &str| Err(Error::new(Kind::Data, "fit", text).help(help));
    match objective {
        Objective::Law { .. } => {
            let gaps = history.gaps_of(Part::Train).count();
            if gaps < FEWEST {
                let text = format!(
                    "{gaps} gaps in the train split, of {} events of {} keys; at least {FEWEST} are needed",
                    seen.events.len(),
                    seen.keys
                );
                return fault(
                    text,
                    "give more history with --from, or check [event] key: if nearly every event has its own key there are no gaps",
                );
            }
            if !plan.fit.cell.is_network() && history.gaps_of(Part::Train).all(|gap| gap <= 0.0) {
                let text = format!(
                    "all {gaps} gaps of the train split are 0, every event of a key at the same time: the process `{}` has no rate",
                    plan.fit.cell.name()
                );
                return fault(text, "check [event] time and its unit, and [order] late: late events are taken at the time of the last one");
            }
            let values = history.values_of(Part::Train).count();
            if let Some(value) = objective.value().filter(|_| values < FEWEST) {
                let text = format!(
                    "{values} events of the train split follow another of their key and have a number in `{}`; at least {FEWEST} are needed",
                    value.field
                );
                return fault(text, "give more history with --from, or check the field's name");
            }
        }
        Objective::Score => {
            let name = plan.schema.label.and_then(|label| plan.schema.fields.get(label)).map_or("label", |field| &field.name);
            if let Some(other) = history.labels.iter().find(|label| !label.is_nan() && **label != 0.0 && **label != 1.0) {
                return fault(
                    format!("label `{name}` is {other} in some event; it must be 0 or 1, false or true"),
                    "name another field in [event] label",
                );
            }
            let known: Vec<f64> = history.labels_of(Part::Train).collect();
            if known.len() < FEWEST {
                let text = format!("{} events of the train split have a label `{name}`; at least {FEWEST} are needed", known.len());
                return fault(text, "give more history with --from, or check the field's name");
            }
            let positive: f64 = known.iter().sum();
            if positive == 0.0 || positive == f64_of_count(known.len()) {
                let text = format!("label `{name}` is the same in all {} labelled events of the train split", known.len());
                return fault(text, "a score needs events of both kinds: give more history, or check the field");
            }
        }
    }
    Ok(())
}

/// A fault of the autograd library: shapes that do not fit, which only a defect can cause.
pub(crate) fn autograd(error: candle_core::Error) -> Error {
    Error::internal("fit", format!("training stopped: {error}")).caused_by(error)
}

/// The f32 values of a tensor that lies in one piece.
pub(crate) fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    let values = storage.as_slice::<f32>()?;
    layout
        .contiguous_offsets()
        .and_then(|(from, to)| values.get(from..to))
        .ok_or_else(|| candle_core::Error::Msg("the tensor does not lie in one piece".to_owned()))
}
