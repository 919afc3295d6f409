//! `meantime model prune`: takes a network that `fit` wrote back out of its graph, leaves hidden units out (`units`), trains what is left for a while if
//! that is wanted, and makes the files of the smaller package.

use std::path::Path;

use super::batch::Sequence;
use super::cell::{Design, HEAD, Weight};
use super::export::{Recurrent, step_graph};
use super::history::{History, Part};
use super::loss::{LawKind, Objective};
use super::network::Weights;
use super::split::{self, Held};
use super::step::{Forward, Step};
use super::{per_mean_gap, read, train, units};
use crate::base::error::{Error, Result};
use crate::base::time::TimeUnit;
use crate::data::law::HeadSpec;
use crate::features::recipe::Recipe;
use crate::model::manifest::Manifest;
use crate::model::tensors::Onnx;
use crate::model::write::{self, Files};
use crate::model::{self, Golden, to_parquet};
use crate::pipeline::plan::{Cell, Plan};
use crate::source::Feed;

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The package.
    pub folder: &'a Path,
    /// Share of the hidden units that is taken out.
    pub share: f64,
    /// Most passes over the train split afterwards.
    pub epochs: usize,
}

/// A smaller package that is not yet written.
pub struct Pruned {
    /// Its files; the card is that of the larger one.
    pub files: Files,
    /// Its manifest.
    pub manifest: Manifest,
    /// Hidden units before and after.
    pub hidden: [usize; 2],
    /// Weights before and after.
    pub weights: [usize; 2],
    /// Loss on the valid split (on train, where there is none) before, without the units, and after the passes; nats per event.
    pub losses: [f64; 3],
    /// Which split that is.
    pub part: Part,
    /// Passes made, and the one whose weights were kept (0: those before the first).
    pub passes: [usize; 2],
    /// What neither the choice of units nor the passes have seen.
    pub held: Held,
}

/// Reads the feed to its end and makes the smaller package. Changes nothing on disk.
///
/// # Errors
/// The graph is not one of `fit`; the history cannot be read or lacks what the package needs; training does not converge.
pub fn run(plan: &Plan, feed: &mut dyn Feed, request: &Request<'_>, progress: &mut dyn FnMut(super::Step)) -> Result<Pruned> {
    let package = model::Package::load(request.folder)?;
    let recipe = Recipe::load(&request.folder.join("features.toml"))?;
    let place = |e: Error| e.at(request.folder.display().to_string());
    let mut files = write::read(request.folder)?;
    let graph = files.get("model.onnx").map(Vec::as_slice).unwrap_or_default();
    let weights = weights_of(graph, &package.manifest, &recipe).map_err(place)?;
    let head = &package.manifest.head;
    let objective = objective(head).ok_or_else(|| foreign(&format!("a head of the kind {} is not trained", head.kind())))?;
    if matches!(head, HeadSpec::Score { calibration: Some(_), .. }) || head.law().is_some_and(|law| law.quantile_calibration.is_some()) {
        return Err(Error::config("model", "the package is calibrated, and a smaller network needs another calibration")
            .help("prune the package it was made from, then calibrate the smaller one"));
    }
    if package.cohorts().is_some() {
        return Err(Error::config("model", "the package has cohorts, whose states are those of the larger network")
            .help("prune the package it was made from, then find the cohorts of the smaller one"));
    }
    let unit = head.law().map_or(package.manifest.input.gap_unit, |law| law.time_unit);
    let seen = read::read(plan, feed, &mut |records, left| progress(super::Step::Reading(records, left)))?;
    let column = head.value().and_then(|value| plan.schema.field(&value.field));
    let prepared = read::prepare(&seen, &plan.schema, &recipe, unit, head.marks(), column)?;
    let history = &prepared.history;
    super::check_history(history, &objective, plan, &seen)?;
    let small = units::prune(&weights, history, &objective, request.share)?;
    let part = if train::mean_loss(&network(&small)?, history, &objective, Part::Valid)?.is_nan() { Part::Train } else { Part::Valid };
    let loss = |weights: &Weights| train::mean_loss(&network(weights)?, history, &objective, part);
    let mut losses = [loss(&weights)?, loss(&small)?, f64::NAN];
    let (mut last, mut passes) = (small, [0, 0]);
    if request.epochs > 0 {
        // A slope per mean gap is what can be trained: see `LawKind::Gompertz`.
        let (scaled, scale) = per_mean_gap(&objective, history);
        scale.into_iter().for_each(|scale| last.scale_output(1, 1.0 / scale));
        let options = train::Options {
            epochs: request.epochs,
            patience: plan.fit.patience,
            learning_rate: plan.fit.learning_rate,
            seed: plan.fit.seed,
        };
        let trained = train::go_on(history, &scaled, last, &options, &mut |at| progress(super::Step::Training(*at)))?;
        passes = [trained.epochs, trained.best_epoch];
        last = trained.weights;
        scale.into_iter().for_each(|scale| last.scale_output(1, scale));
    }
    losses[2] = loss(&last)?;
    progress(super::Step::Scoring);

    let hidden = [weights.design.hidden, last.design.hidden];
    let counts = [weights.count(), last.count()];
    let step = Recurrent::new(last, unit)?;
    let version = format!("{}-h{}", package.manifest.version, hidden[1]);
    let manifest = Manifest { version, states: step.states(), ..package.manifest.clone() };
    let output = head.outputs().first().cloned().unwrap_or_default();
    files.insert("model.onnx", step.graph(&output)?);
    files.insert("model.toml", manifest.to_toml()?.into_bytes());
    if let Some(golden) = &package.golden {
        files.insert("golden.parquet", by_trainer(golden, &step, &manifest, unit)?);
    }
    let held = split::held(&plan.fit.split, &seen);
    Ok(Pruned { files, manifest, hidden, weights: counts, losses, part, passes, held })
}

fn network(weights: &Weights) -> Result<super::network::Network> {
    super::network::Network::new(weights).map_err(super::autograd)
}

/// Why a graph is not one whose units can be taken out.
fn foreign(why: &str) -> Error {
    Error::config("model", format!("{why}: which weights belong to a hidden unit is known of networks that `meantime fit` wrote, of no others"))
        .help("set single weights of it to zero and nothing is gained: steps and states stay as large. Train a smaller one, or use `meantime model quantize`")
}

/// Takes the weights back out of the graph that they were written into.
fn weights_of(graph: &[u8], manifest: &Manifest, recipe: &Recipe) -> Result<Weights> {
    let onnx = Onnx::of(graph)?;
    let cell = Cell::NETWORKS.into_iter().find(|cell| cell.name() == onnx.name());
    let cell = cell.ok_or_else(|| foreign(&format!("the graph `{}` is none of the cells", onnx.name())))?;
    if onnx.has_bytes() {
        return Err(Error::config("model", "the weights are whole numbers of eight bits")
            .help("prune the package it was made from, then quantise the smaller one"));
    }
    let hidden = onnx.constant(HEAD).and_then(|(shape, _)| shape.first().copied()).ok_or_else(|| foreign("the graph has no head"))?;
    let pace = manifest.input.gap.as_ref().map_or(Some(1.0), |gap| onnx.factor(gap)).ok_or_else(|| foreign("the gap is not scaled"))?;
    let anchor = manifest.head.value().filter(|value| value.anchored).and_then(|_| super::anchor(recipe));
    let design = Design {
        cell,
        features: recipe.width(),
        hidden,
        // The anchor of a value is taken from the row, behind what the network gives.
        outputs: manifest.head.width() - anchor.map_or(0, |_| 2),
        pace: f64::from(pace),
        missing: super::missing(recipe),
        anchor,
        decaying: None,
    };
    let taken = |spec: &Weight| match onnx.constant(spec.name) {
        Some((shape, values)) if shape == spec.shape => Ok(values),
        _ => Err(foreign(&format!("the graph has no constant `{}` of the shape {:?}", spec.name, spec.shape))),
    };
    let values = design.weights(&vec![0.0; design.outputs]).iter().map(taken).collect::<Result<_>>()?;
    let weights = Weights { design, values };
    let output = manifest.head.outputs().first().cloned().unwrap_or_default();
    // Same weights, same graph: only then nothing else is in it.
    if !Onnx::of(&step_graph(&weights, &output)?)?.same_graph(&onnx) {
        return Err(foreign("the graph is not the one that its weights make"));
    }
    Ok(weights)
}

/// What the head is trained for; `None` for heads that no network is trained for.
fn objective(head: &HeadSpec) -> Option<Objective> {
    let Some(law) = head.law() else { return Some(Objective::Score) };
    let kind = match head {
        HeadSpec::LognormalMixture(_) => LawKind::Mixture(law.components.unwrap_or(1)),
        HeadSpec::Exponential(_) => LawKind::Exponential,
        HeadSpec::Weibull(_) => LawKind::Weibull,
        HeadSpec::Gompertz(_) => LawKind::Gompertz(1.0),
        HeadSpec::PiecewiseConstant(_) => LawKind::Piecewise(law.edges.clone()),
        HeadSpec::GammaPoisson(_) => LawKind::GammaPoisson,
        HeadSpec::Hawkes(_) | HeadSpec::Intensity(_) | HeadSpec::Score { .. } => return None,
    };
    Some(Objective::Law { law: kind, min_gap: law.min_gap, resolution: law.resolution, marks: law.marks.len(), value: law.value.clone() })
}

/// `golden.parquet` for another network over the same events: what the trainer computes, not what the graph does.
fn by_trainer(golden: &Golden, step: &Recurrent, manifest: &Manifest, unit: TimeUnit) -> Result<Vec<u8>> {
    let gaps = golden.gaps();
    let mut history = History { width: golden.rows.len() / golden.len().max(1), rows: golden.rows.clone(), ..History::default() };
    history.parts = vec![Part::Train; golden.len()];
    history.gaps_next = gaps.iter().skip(1).map(|gap| gap.map_or(f64::NAN, |gap| gap.in_unit(unit))).chain([f64::NAN]).collect();
    let starts: Vec<usize> = gaps.iter().enumerate().filter(|(_, gap)| gap.is_none()).map(|(row, _)| row).collect();
    let ends = starts.iter().skip(1).copied().chain([golden.len()]);
    let (mut outputs, mut states) = (Vec::new(), vec![Vec::new(); manifest.states.len()]);
    for (start, end) in starts.iter().zip(ends) {
        step.forward(&history, &[Sequence { start: *start, len: end - start }], &mut |_, output, state| {
            outputs.extend_from_slice(output);
            let mut rest = state;
            for (spec, states) in manifest.states.iter().zip(&mut states) {
                let (own, after) = rest.split_at_checked(spec.floats()).unwrap_or_default();
                states.extend_from_slice(own);
                rest = after;
            }
        })?;
    }
    to_parquet(&golden.with(manifest, states, outputs)?)
}
