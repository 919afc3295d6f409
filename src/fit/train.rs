//! The training loop: AdamW on truncated windows, the norm of the gradient clipped, the step size lowered on a plateau, stopped when the valid
//! split no longer improves; the best weights are kept. Seeded: the same history and seed give the same bits.

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::autograd;
use super::batch::{Sequence, WINDOW, Window, groups, sequences, window};
use super::cell::Design;
use super::history::{History, Part};
use super::loss::{Objective, Target, Terms};
use super::network::{Network, Ran, Weights};
use super::step::Forward;
use crate::base::error::{Error, Kind, Result};
use crate::base::number::f64_of_count;

/// Largest norm of a gradient; a longer one is scaled down to it.
const MAX_NORM: f64 = 1.0;
/// Factor by which the step size falls on a plateau.
const SLOWER: f64 = 0.4;
/// Events that are scored together.
const SCORED: usize = 4096;
/// Smallest improvement of the valid loss that counts, in nats.
const WORTH: f64 = 1e-5;

/// How to train.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Most passes.
    pub epochs: usize,
    /// Passes without improvement before training stops.
    pub patience: usize,
    /// Step size at the start.
    pub learning_rate: f64,
    /// Seed of weights and shuffles.
    pub seed: u64,
}

/// How far training is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Pass, from 1.
    pub epoch: usize,
    /// Most passes.
    pub epochs: usize,
    /// Part of the pass that is done, 0 to 1.
    pub fraction: f64,
    /// Mean loss of this pass so far, nats per event.
    pub train: f64,
    /// Best loss on the valid split so far.
    pub best: Option<f64>,
}

/// What training gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// The best weights.
    pub weights: Weights,
    /// Passes made.
    pub epochs: usize,
    /// Pass with the best weights.
    pub best_epoch: usize,
    /// Loss that chose them, nats per event.
    pub best: f64,
    /// Split that chose them: valid, or train where no event is valid.
    pub chosen_by: Part,
}

/// Trains a network whose outputs start at `bias`.
///
/// # Errors
/// No event counts in the train split, or the loss is not finite.
pub fn train(
    history: &History,
    objective: &Objective,
    design: Design,
    bias: &[f32],
    options: &Options,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Trained> {
    let train = sequences(history, objective, Part::Train);
    if train.is_empty() {
        return Err(Error::new(Kind::Data, "fit", "no event of the train split can be learnt from"));
    }
    let valid = sequences(history, objective, Part::Valid);
    let chosen_by = if valid.is_empty() { Part::Train } else { Part::Valid };
    let mut random = ChaCha8Rng::seed_from_u64(options.seed);
    let weights = Weights::random(design, bias, &mut random);
    let network = Network::new(&weights).map_err(autograd)?;
    let settings = ParamsAdamW { lr: options.learning_rate, weight_decay: 1e-4, ..ParamsAdamW::default() };
    let mut optimiser = AdamW::new(network.variables(), settings).map_err(autograd)?;
    let events: usize = train.iter().map(|sequence| sequence.len).sum();
    let mut best = Trained { weights, epochs: 0, best_epoch: 0, best: f64::INFINITY, chosen_by };
    let mut since_slower = 0;
    for epoch in 1..=options.epochs {
        let mut seen = Mean::default();
        let mut done = 0;
        for group in groups(&train, Some(&mut random)) {
            pass(&network, history, objective, &group, &mut |loss, gradients, window| {
                clip(&network.variables(), gradients)?;
                optimiser.step(gradients)?;
                seen.add(loss, window.1);
                done += window.0;
                let fraction = f64_of_count(done) / f64_of_count(events.max(1));
                progress(&Progress {
                    epoch,
                    epochs: options.epochs,
                    fraction,
                    train: seen.mean(),
                    best: Some(best.best).filter(|b| b.is_finite()),
                });
                Ok(())
            })
            .map_err(autograd)?;
        }
        let loss = if valid.is_empty() { seen.mean() } else { mean_loss(&network, history, objective, Part::Valid)? };
        if !loss.is_finite() {
            return Err(Error::new(Kind::Data, "fit", format!("the loss is {loss} after pass {epoch}"))
                .help("lower fit.learning_rate, or look for absurd numbers in the fields of [fit]"));
        }
        best.epochs = epoch;
        if loss < best.best - WORTH {
            best = Trained { weights: network.weights().map_err(autograd)?, best: loss, best_epoch: epoch, ..best };
            since_slower = 0;
            continue;
        }
        since_slower += 1;
        if epoch - best.best_epoch >= options.patience {
            break;
        }
        if since_slower >= options.patience.div_ceil(3) {
            optimiser.set_learning_rate(optimiser.learning_rate() * SLOWER);
            since_slower = 0;
        }
    }
    Ok(best)
}

/// A weighted mean.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    sum: f64,
    count: f64,
}

impl Mean {
    fn add(&mut self, mean: f64, count: usize) {
        self.sum += mean * f64_of_count(count);
        self.count += f64_of_count(count);
    }

    fn mean(&self) -> f64 {
        self.sum / self.count.max(1.0)
    }
}

/// Takes the loss of a window, its gradients, and how many events the window has and how many of them count.
type Update<'a> = dyn FnMut(f64, &mut GradStore, (usize, usize)) -> candle_core::Result<()> + 'a;

/// Runs a group window by window. `update` gets the loss, the gradients, and how many events the window has and how many of them count.
fn pass(
    network: &Network,
    history: &History,
    objective: &Objective,
    group: &[Sequence],
    update: &mut Update<'_>,
) -> candle_core::Result<()> {
    let mut state = initial(group.len(), network.state_floats())?;
    let mut from = 0;
    while let Some(window) = window(history, group, from)? {
        let targets = window.targets(history, objective, Part::Train);
        let counted = targets.iter().filter(|target| !target.gap.is_nan() || !target.label.is_nan()).count();
        let Ran { states, outputs } = run(network, &window, &state)?;
        if counted > 0 {
            let loss = network.mean_loss(&outputs, objective, targets)?;
            let mut gradients = loss.backward()?;
            let events = window.events.iter().flatten().count();
            update(f64::from(loss.to_scalar::<f32>()?), &mut gradients, (events, counted))?;
        }
        state = last_state(&states)?;
        from += WINDOW;
    }
    Ok(())
}

fn run(network: &Network, window: &Window, state: &Tensor) -> candle_core::Result<Ran> {
    network.window(&window.x, &window.gaps.affine(network.pace(), 0.0)?, &state.narrow(0, 0, window.rows)?)
}

fn initial(rows: usize, hidden: usize) -> candle_core::Result<Tensor> {
    Tensor::zeros((rows, hidden), DType::F32, &Device::Cpu)
}

fn last_state(states: &Tensor) -> candle_core::Result<Tensor> {
    states.narrow(0, states.dim(0)? - 1, 1)?.squeeze(0)?.detach().contiguous()
}

/// Scales the gradients so that their joint norm is at most `MAX_NORM`; a gradient that is not finite becomes zero.
fn clip(variables: &[Var], gradients: &mut GradStore) -> candle_core::Result<()> {
    let mut squares = 0.0;
    for variable in variables {
        if let Some(gradient) = gradients.get(variable) {
            squares += f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?);
        }
    }
    let norm = squares.sqrt();
    if norm <= MAX_NORM {
        return Ok(());
    }
    for variable in variables {
        if let Some(gradient) = gradients.remove(variable) {
            let scaled = if norm.is_finite() { gradient.affine(MAX_NORM / norm, 0.0)? } else { gradient.zeros_like()? };
            gradients.insert(variable, scaled);
        }
    }
    Ok(())
}

/// Runs all sequences that have events scored in `part` and hands every such event with its outputs and terms to `each`.
///
/// # Errors
/// Never for a history and a network of the same widths.
pub fn evaluate(
    model: &dyn Forward,
    history: &History,
    objective: &Objective,
    part: Part,
    each: &mut dyn FnMut(usize, &[f32], Terms),
) -> Result<()> {
    for group in groups(&sequences(history, objective, part), None) {
        let mut scoring = Scoring { model, objective, events: Vec::new(), outputs: Vec::new(), targets: Vec::new(), fault: None };
        model.forward(history, &group, &mut |event, outputs, _| {
            if history.scored_in(event, objective) == Some(part) {
                scoring.add(event, outputs, history.target(event, objective, part), each);
            }
        })?;
        scoring.score(each);
        scoring.fault.map_or(Ok(()), Err)?;
    }
    Ok(())
}

/// Takes an event, its outputs and its terms.
type EachScored<'a> = dyn FnMut(usize, &[f32], Terms) + 'a;

/// Events that are scored together.
struct Scoring<'a> {
    model: &'a dyn Forward,
    objective: &'a Objective,
    events: Vec<usize>,
    outputs: Vec<f32>,
    targets: Vec<Target>,
    fault: Option<Error>,
}

impl Scoring<'_> {
    fn add(&mut self, event: usize, outputs: &[f32], target: Target, each: &mut EachScored<'_>) {
        self.events.push(event);
        self.outputs.extend_from_slice(outputs);
        self.targets.push(target);
        if self.events.len() >= SCORED {
            self.score(each);
        }
    }

    fn score(&mut self, each: &mut EachScored<'_>) {
        match self.model.terms(self.objective, &self.outputs, &self.targets) {
            Ok(terms) => {
                let rows = self.outputs.chunks_exact(self.objective.width());
                let counted = self.events.iter().zip(rows).zip(terms).filter(|(_, terms)| terms.counts());
                counted.for_each(|((event, outputs), terms)| each(*event, outputs, terms));
            }
            Err(fault) => self.fault = Some(fault),
        }
        self.events.clear();
        self.outputs.clear();
        self.targets.clear();
    }
}

/// Mean loss per event over a part, NaN if it has none.
///
/// # Errors
/// As `evaluate`.
pub fn mean_loss(model: &dyn Forward, history: &History, objective: &Objective, part: Part) -> Result<f64> {
    let (mut sum, mut count) = (0.0, 0usize);
    evaluate(model, history, objective, part, &mut |_, _, terms| {
        sum += terms.total();
        count += 1;
    })?;
    Ok(sum / f64_of_count(count))
}

/// Takes an event, its outputs and its state.
pub type Each<'a> = dyn FnMut(usize, &[f32], &[f32]) + 'a;

impl Forward for Network {
    fn forward(&self, history: &History, group: &[Sequence], each: &mut Each<'_>) -> Result<()> {
        forward(self, history, group, each).map_err(autograd)
    }

    fn terms(&self, objective: &Objective, outputs: &[f32], targets: &[Target]) -> Result<Vec<Terms>> {
        match Network::terms(self, outputs, objective, targets).map_err(autograd)? {
            Some(terms) => Ok(terms),
            None => Ok(objective.rows(outputs, targets)),
        }
    }
}

/// Runs a group without gradients and hands every event with its outputs and its state to `each`, in order of time within a key.
fn forward(network: &Network, history: &History, group: &[Sequence], each: &mut Each<'_>) -> candle_core::Result<()> {
    let mut state = initial(group.len(), network.state_floats())?;
    let mut from = 0;
    while let Some(window) = window(history, group, from)? {
        let Ran { states, outputs } = run(network, &window, &state)?;
        let values = outputs.flatten_all()?.to_vec1::<f32>()?;
        let hidden = states.flatten_all()?.to_vec1::<f32>()?;
        let rows = values.chunks_exact(outputs.dim(1)?).zip(hidden.chunks_exact(network.state_floats()));
        for (event, (outputs, state)) in window.events.iter().zip(rows) {
            if let Some(event) = event {
                each(*event, outputs, state);
            }
        }
        state = last_state(&states)?;
        from += WINDOW;
    }
    Ok(())
}
