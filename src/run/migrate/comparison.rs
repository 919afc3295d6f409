//! What two packages have in common, as far as states depend on it.

use std::collections::BTreeMap;

use super::super::stage::Stage;
use crate::base::error::{Error, Result};
use crate::data::law::{HeadSpec, LawSpec};
use crate::model::manifest::{Manifest, StateSpec};
use crate::pipeline::plan::Plan;
use crate::state::EventBefore;
use crate::state::snapshot::{Change, Mode, Part};

/// What becomes of the law that each key's last event has published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Law {
    /// Both heads read it alike: the next event is scored against it, as was published.
    Kept,
    /// The new head reads other parameters: the next event of each key has no surprise.
    Anew,
    /// The new head is no law of time.
    None,
}

/// What two packages of one pipeline have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// What keeps hidden tensors from being carried, a line each; empty: they can be.
    pub tensors: Vec<String>,
    /// Whether the new model has hidden tensors at all.
    pub stateful: bool,
    /// What becomes of the published law.
    pub law: Law,
    /// The event before is kept of each key for reasons, and none is known at first.
    pub event_before: bool,
    /// Names of the recipe's decaying statistics that go on, and of those that begin at 0.
    pub aggregates: (Vec<String>, Vec<String>),
    /// Fields that only the new pipeline reads: events that are held back do not have them.
    pub fields: Vec<String>,
    carry: Vec<Part>,
    reset: Vec<Part>,
    change: Change,
}

impl Comparison {
    /// Compares the stages of one pipeline with two packages.
    ///
    /// # Errors
    /// They have the same fingerprint, so that there is nothing to migrate; or a stage has no model.
    pub fn of(from: &Stage, to: &Stage) -> Result<Self> {
        if from.identity.fingerprint == to.identity.fingerprint {
            return Err(Error::config(
                "state",
                format!("both packages give the fingerprint {}: states need no change", to.identity.fingerprint),
            )
            .help(
                "the pipeline is to name the package whose states there are; if it names the new one already, add --set model.package=OLD",
            ));
        }
        let (old, new) = (model(&from.plan)?, model(&to.plan)?);
        let places = places(&old.0.states);
        let (mut tensors, mut carry, mut reset) = (Vec::new(), Vec::new(), Vec::new());
        for state in &new.0.states {
            let floats = state.floats();
            reset.push(Part::Anew { floats });
            match places.get(state.input.as_str()) {
                Some((known, from)) if known.shape == state.shape => carry.push(Part::Kept { from: *from, floats }),
                Some((known, _)) => tensors.push(format!("`{}` is {:?} before and {:?} now", state.input, known.shape, state.shape)),
                None => tensors.push(format!("`{}` {:?} is only in the new model", state.input, state.shape)),
            }
        }
        let known = |name: &str| new.0.states.iter().any(|state| state.input == name);
        let lost = old.0.states.iter().filter(|state| !known(&state.input));
        tensors.extend(lost.map(|state| format!("`{}` {:?} is only in the old model", state.input, state.shape)));
        let law = law(from, to, &old.0, &new.0);
        let width = new.0.head.width();
        let part = match law {
            Law::Kept => Some(Part::Kept { from: old.0.states.iter().map(StateSpec::floats).sum(), floats: width }),
            Law::Anew => Some(Part::Anew { floats: width }),
            Law::None => None,
        };
        carry.extend(part);
        reset.extend(part);
        // A step of the new model cannot be tried from where one of the old model began.
        let event_before = to.plan.event_before().map(|event| Part::Anew { floats: event.floats() });
        carry.extend(event_before);
        reset.extend(event_before);

        let (before, after) = (old.1.aggregates(), new.1.aggregates());
        let places: Vec<Option<usize>> = after.iter().map(|name| before.iter().position(|other| other == name)).collect();
        let (mut kept, mut anew) = (Vec::new(), Vec::new());
        for (name, place) in after.into_iter().zip(&places) {
            if place.is_some() { &mut kept } else { &mut anew }.push(name);
        }
        let read = &from.plan.schema.fields;
        let fields: Vec<Option<usize>> = to.plan.schema.fields.iter().map(|field| read.iter().position(|other| other == field)).collect();
        let unread = to.plan.schema.fields.iter().zip(&fields).filter(|(_, place)| place.is_none());
        let none = to.plan.event_before().into_iter().flat_map(EventBefore::none);
        let init = to.package.model()?.initial_hidden().iter().copied().chain(none).collect();
        let change = Change { hidden: Vec::new(), init, aggregates: places, timers: to.plan.asks.overdue.len(), fields: fields.clone() };
        Ok(Comparison {
            tensors,
            stateful: !new.0.states.is_empty(),
            event_before: event_before.is_some(),
            law,
            aggregates: (kept, anew),
            fields: unread.map(|(field, _)| field.name.clone()).collect(),
            carry,
            reset,
            change,
        })
    }

    /// The mode that is asked for, or else `carry` if that loses nothing.
    ///
    /// # Errors
    /// `carry` is asked for, or nothing, and hidden tensors differ: the text says how, and what is possible.
    pub fn mode(&self, asked: Option<Mode>) -> Result<Mode> {
        match asked {
            Some(mode) if mode != Mode::Carry => return Ok(mode),
            _ if self.tensors.is_empty() => return Ok(Mode::Carry),
            _ => {}
        }
        let text = format!("hidden tensors cannot be carried: {}", self.tensors.join("; "));
        Err(Error::config("state", text).help(
            "possible are --mode reset (hidden tensors begin anew; times of last events, counts, decaying statistics and held events are kept) and --mode rebuild \
             (history is taken through the new model)",
        ))
    }

    /// What becomes of each key.
    #[must_use]
    pub fn change(&self, mode: Mode) -> Change {
        let hidden = if mode == Mode::Carry { &self.carry } else { &self.reset };
        Change { hidden: hidden.clone(), ..self.change.clone() }
    }

    /// What is kept and what is not, for people: one line each.
    #[must_use]
    pub fn lines(&self, mode: Mode) -> Vec<String> {
        if mode == Mode::Rebuild {
            return vec!["everything is what the new model makes of the whole history".to_owned()];
        }
        let mut lines = vec!["last event times, counts of events, held events, watermark and recorded ticks: kept".to_owned()];
        lines.push(match mode {
            _ if !self.stateful => "hidden tensors: the new model has none".to_owned(),
            Mode::Carry => "hidden tensors: kept".to_owned(),
            _ => "hidden tensors: anew".to_owned(),
        });
        let (kept, anew) = &self.aggregates;
        if !kept.is_empty() {
            lines.push(format!("decaying statistics kept: {}", kept.join("; ")));
        }
        if !anew.is_empty() {
            lines.push(format!("decaying statistics that begin at 0: {}", anew.join("; ")));
        }
        match self.law {
            Law::Kept => {
                lines.push("the next event of each key is scored against the law that the old model has published for it".to_owned())
            }
            Law::Anew => lines.push("the next event of each key has no surprise and no residual: the heads read different laws".to_owned()),
            Law::None => {}
        }
        if self.event_before && self.law == Law::Kept {
            lines
                .push("reasons by columns: none of the next event of each key, whose event before was stepped by the old model".to_owned());
        }
        if self.change.timers > 0 {
            lines.push(
                "overdue: timers stay those of the forecasts that the old model has published, until the key's next event".to_owned(),
            );
        }
        lines
    }
}

fn model(plan: &Plan) -> Result<&(Manifest, crate::features::recipe::Recipe)> {
    plan.model.as_ref().ok_or_else(|| Error::internal("state", "the plan was made without a model"))
}

/// Each state by its input, with its first float.
fn places(states: &[StateSpec]) -> BTreeMap<&str, (&StateSpec, usize)> {
    let mut at = 0;
    states
        .iter()
        .map(|state| {
            let from = at;
            at += state.floats();
            (state.input.as_str(), (state, from))
        })
        .collect()
}

fn law(from: &Stage, to: &Stage, old: &Manifest, new: &Manifest) -> Law {
    let Some(after) = new.head.law() else { return Law::None };
    let same = old.head.law().is_some_and(|before| old.head.kind() == new.head.kind() && parameters(before) == parameters(after));
    // What the second graph makes of the parameters is its own.
    let graph = |stage: &Stage| std::fs::read(stage.package.folder.join("intensity.onnx")).ok();
    let alike = !matches!(new.head, HeadSpec::Intensity(_)) || graph(from) == graph(to);
    if same && alike { Law::Kept } else { Law::Anew }
}

/// What says how parameters are read: not the names of the outputs that they come from, nor how a clock is judged.
fn parameters(law: &LawSpec) -> LawSpec {
    LawSpec { outputs: Vec::new(), min_gap: 0.0, resolution: None, ..law.clone() }
}
