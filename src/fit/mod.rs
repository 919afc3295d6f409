//! History to model package: reads what happened, derives the recipe, trains, and writes the step graph with its card. Autograd (candle)
//! lives only here.
//!
//! Reading order: `read` (history through the serving code), `split`, `recipe`, `history` (what training sees), `baseline` (what has to be beaten),
//! `batch`, `cell` and `window` (the network), `loss`, `train`, `report`, `export`, `golden`, `card`, `package`, `served`.

pub mod baseline;
pub mod batch;
pub mod card;
pub mod cell;
pub mod export;
pub mod golden;
pub mod history;
pub mod loss;
pub mod normal;
pub mod package;
pub mod read;
pub mod recipe;
pub mod report;
pub mod served;
pub mod split;
pub mod train;
pub mod window;

#[cfg(test)]
mod tests;

pub use package::{Package, Written, check_folder, write};
pub use report::Report;
pub use train::Progress;

use candle_core::{CpuStorage, Layout};

use self::baseline::Baseline;
use self::cell::Network;
use self::history::{History, Part};
use self::loss::Objective;
use self::read::{Prepared, Seen};
use crate::base::error::{Error, Kind, Result};
use crate::base::number::f64_of_count;
use crate::base::time::{Gap, TimeUnit};
use crate::data::law::{HeadSpec, LawSpec, ScoreLink};
use crate::data::schema::EventSchema;
use crate::model::manifest::{FORMAT, InputSpec, Manifest, StateSpec};
use crate::pipeline::plan::{FitPlan, Plan};
use crate::source::Feed;

/// Fewest gaps (or labelled events) of the train split that are worth a fit.
const FEWEST: usize = 100;
/// With a resolution, the smallest gap as a share of it: small enough for a gap of zero to be the tick that begins at zero.
const ZERO_GAP: f64 = 1e-6;
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
    schema: EventSchema,
    seen: Seen,
    prepared: Prepared,
}

/// Reads the feed to its end and fits a package to it. Changes nothing on disk.
///
/// # Errors
/// The source fails; the history is empty, too short, or its labels are not 0 and 1 or all alike; a field of `[fit]` cannot be used; training
/// does not converge to a number.
pub fn fit(plan: &Plan, feed: &mut dyn Feed, progress: &mut dyn FnMut(Step)) -> Result<Fitted> {
    check_plan(plan)?;
    let seen = read::read(plan, feed, &mut |records, left| progress(Step::Reading(records, left)))?;
    let unit = plan.fit.time_unit.unwrap_or_else(|| read::unit_of(&mut seen.train_gaps(TimeUnit::Second)));
    let marks = marks(plan, &seen);
    let clock = Clock::of(&plan.fit, seen.tick(), unit);
    let gaps = seen.train_gaps(unit);
    let facts = recipe::GapFacts { gaps: &gaps, unit, floor: clock.floor };
    let recipe = recipe::derive(&plan.fit, &plan.schema, &seen, &facts)?;
    let prepared = read::prepare(&seen, &plan.schema, &recipe, unit, &marks)?;
    let objective = match plan.schema.label {
        Some(_) => Objective::Score,
        None => {
            Objective::Law { components: plan.fit.components, min_gap: clock.min_gap, resolution: clock.resolution, marks: marks.len() }
        }
    };
    check_history(&prepared.history, &objective, plan, &seen)?;
    let (network, report) = learn(plan, &seen, &prepared.history, &objective, unit, progress)?;
    let package = assemble(plan, &seen, &prepared, &network, &report, head(&objective, unit, marks), recipe)?;
    Ok(Fitted { package, report, schema: plan.schema.clone(), seen, prepared })
}

fn learn(
    plan: &Plan,
    seen: &Seen,
    history: &History,
    objective: &Objective,
    unit: TimeUnit,
    progress: &mut dyn FnMut(Step),
) -> Result<(Network, Report)> {
    let baseline = Baseline::fit(history, objective, plan.fit.seed);
    let options = train::Options {
        hidden: plan.fit.hidden,
        epochs: plan.fit.epochs,
        patience: plan.fit.patience,
        learning_rate: plan.fit.learning_rate,
        seed: plan.fit.seed,
    };
    let trained = train::train(history, objective, &baseline.bias(), &options, &mut |at| progress(Step::Training(*at)))?;
    progress(Step::Scoring);
    let network = Network::new(&trained.weights).map_err(autograd)?;
    let parts =
        Part::SCORED.into_iter().map(|part| report::figures(&network, history, objective, &baseline, part)).collect::<Result<Vec<_>>>()?;
    let report = Report {
        keys: seen.keys,
        events: seen.events.len(),
        rejected: seen.rejected,
        parts,
        weights: trained.weights.len(),
        epochs: trained.epochs,
        best_epoch: trained.best_epoch,
        chosen_by: trained.chosen_by,
        time_unit: matches!(objective, Objective::Law { .. }).then_some(unit),
    };
    Ok((network, report))
}

fn assemble(
    plan: &Plan,
    seen: &Seen,
    prepared: &Prepared,
    network: &Network,
    report: &Report,
    head: HeadSpec,
    recipe: crate::features::recipe::Recipe,
) -> Result<Package> {
    let weights = network.weights().map_err(autograd)?;
    let output = head.outputs().first().cloned().unwrap_or_default();
    let golden = golden::table(network, seen, prepared, &plan.schema, &recipe)?;
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
        input: InputSpec { features: export::FEATURES.to_owned(), gap: None, gap_unit: TimeUnit::Second },
        states: vec![StateSpec {
            input: export::STATE.to_owned(),
            output: export::NEXT_STATE.to_owned(),
            shape: vec![weights.sizes.hidden],
            init: 0.0,
        }],
        head,
    };
    Ok(Package { manifest, recipe, graph: export::step_graph(&weights, &output), golden, card })
}

/// How gaps are floored and, for a coarse clock, how wide its tick is; all in the law's unit.
struct Clock {
    min_gap: f64,
    resolution: Option<f64>,
    /// Smallest gap whose logarithm is a feature.
    floor: f64,
}

impl Clock {
    fn of(fit: &FitPlan, tick: Gap, unit: TimeUnit) -> Self {
        match fit.resolution.map(|width| width.in_unit(unit)) {
            Some(width) => Clock { min_gap: width * ZERO_GAP, resolution: Some(width), floor: width * 0.5 },
            None => Clock { min_gap: tick.in_unit(unit), resolution: None, floor: tick.in_unit(unit) },
        }
    }
}

fn head(objective: &Objective, unit: TimeUnit, marks: Vec<String>) -> HeadSpec {
    match *objective {
        Objective::Law { components, min_gap, resolution, .. } => {
            HeadSpec::LognormalMixture(LawSpec { components: Some(components), resolution, marks, ..LawSpec::new(&[LAW], unit, min_gap) })
        }
        Objective::Score => HeadSpec::Score { outputs: vec![LOGIT.to_owned()], link: ScoreLink::Logit },
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
    if let Some(field) = plan.fit.numeric.iter().find(|field| plan.fit.category.contains(field)) {
        return Err(Error::config("fit", format!("field `{field}` is named both in [fit] numeric and in category")).help("choose one"));
    }
    let unread = plan.fit.numeric.iter().chain(&plan.fit.category).find(|field| plan.schema.field(field).is_none());
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
