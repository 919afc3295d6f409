//! The figures of a fit, as values: per part of the history, beside what knows no history.

use super::baseline::Baseline;
use super::history::{History, Part};
use super::loss::Objective;
use super::step::Forward;
use super::train::evaluate;
use crate::base::error::Result;
use crate::base::number::f64_of_count;
use crate::base::time::TimeUnit;

/// Figures of one part. Losses are means per event in nats; NaN where the part has none.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// Which part.
    pub part: Part,
    /// Events scored in it.
    pub events: usize,
    /// Of the law of time, if that is what was fitted.
    pub time: Option<TimeFigures>,
    /// Of the law of marks.
    pub mark: Option<MarkFigures>,
    /// Of the law of the value.
    pub value: Option<ValueFigures>,
    /// Of the score.
    pub score: Option<ScoreFigures>,
}

/// Negative log-likelihood of the gaps, in nats per event, with gaps in the model's time unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimeFigures {
    /// The model.
    pub nll: f64,
    /// An exponential law at the train split's rate.
    pub constant_rate: f64,
    /// The mixture that knows no history.
    pub history_free: f64,
}

/// Log-loss of the marks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MarkFigures {
    /// Events whose mark the model knows.
    pub events: usize,
    /// The model.
    pub log_loss: f64,
    /// The train split's frequencies.
    pub frequencies: f64,
}

/// Negative log-likelihood of the values, in nats, densities in the field's unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValueFigures {
    /// Events with a value.
    pub events: usize,
    /// The model.
    pub nll: f64,
    /// The law that knows no history but, where the law is anchored, the key's mean and deviation.
    pub history_free: f64,
}

/// Quality of a score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreFigures {
    /// Share of positive labels.
    pub positive: f64,
    /// Log-loss of the model.
    pub log_loss: f64,
    /// Log-loss of the train split's share.
    pub share: f64,
    /// Average precision: mean precision over the positives, from the highest score down; a random order has the share of positives.
    pub average_precision: f64,
}

/// Nats by which a law is worse than the constant rate and not only as good; than the mixture, clearly; and from which on it is better than that.
const WORSE: f64 = 0.005;
const CLEARLY_WORSE: f64 = 0.05;
const HARDLY: f64 = 0.005;

/// How a law of time does beside what knows no history.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beside {
    /// On which part.
    pub part: Part,
    /// How.
    pub standing: Standing,
}

/// Better, as good, or worse.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Standing {
    /// Better than both.
    Better,
    /// As good as the mixture without history.
    HardlyBetter,
    /// Worse than what the `reference` names, with the loss of that.
    Worse {
        /// Whether the law is a mixture of log-normals.
        mixture: bool,
        /// What does better.
        reference: (f64, &'static str),
        /// Loss of the law.
        nll: f64,
    },
}

impl Beside {
    /// What to tell of it; nothing where it is better.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let part = self.part.name();
        match &self.standing {
            Standing::Better => None,
            Standing::HardlyBetter => Some(format!(
                "On the {part} split it is hardly better than the mixture without history: the past says little about the next gap."
            )),
            Standing::Worse { mixture, reference: (loss, name), nll } => {
                let why = if *mixture {
                    "it has learnt too little, or its train split by heart: give it more history or passes, or --compare"
                } else {
                    "the law has the wrong shape for these gaps: try law = \"lognormal_mixture\" or --compare"
                };
                Some(format!("On the {part} split it is worse than {name} ({nll:.4} against {loss:.4}): {why}."))
            }
        }
    }
}

/// All figures of a fit.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Keys in the history.
    pub keys: usize,
    /// Events in the history.
    pub events: usize,
    /// Records that could not be used.
    pub rejected: usize,
    /// Figures of train, valid and test.
    pub parts: Vec<Figures>,
    /// Weights of the network.
    pub weights: usize,
    /// What was fitted, in a sentence.
    pub model: String,
    /// Passes made; 0 where there are none.
    pub epochs: usize,
    /// Pass whose weights were kept.
    pub best_epoch: usize,
    /// Part that chose it.
    pub chosen_by: Part,
    /// What the user should know of clock and parameters: whole sentences.
    pub notes: Vec<String>,
    /// Unit of the gaps, if a law was fitted.
    pub time_unit: Option<TimeUnit>,
}

impl Report {
    /// Figures of a part.
    #[must_use]
    pub fn part(&self, part: Part) -> Option<&Figures> {
        self.parts.iter().find(|figures| figures.part == part)
    }

    /// How the law of time does beside what knows no history, on the test split or, where that has no events, on the valid one. `mixture` says whether the law is
    /// itself a mixture of log-normals.
    #[must_use]
    pub fn beside(&self, mixture: bool) -> Option<Beside> {
        let of = |part: Part| self.part(part).filter(|figures| figures.events > 0);
        let figures = of(Part::Test).or_else(|| of(Part::Valid))?;
        let time = figures.time?;
        let reference = if time.nll > time.constant_rate + WORSE {
            (time.constant_rate, "the constant rate")
        } else {
            (time.history_free, "the mixture without history")
        };
        let worse = time.nll > time.constant_rate + WORSE || time.nll > time.history_free + CLEARLY_WORSE;
        let standing = match worse {
            true => Standing::Worse { mixture, reference, nll: time.nll },
            false if time.nll > time.history_free - HARDLY => Standing::HardlyBetter,
            false => Standing::Better,
        };
        Some(Beside { part: figures.part, standing })
    }
}

/// Figures of one part, by the trainer's forward pass.
///
/// # Errors
/// Never for a history and a network of the same widths.
pub fn figures(model: &dyn Forward, history: &History, objective: &Objective, baseline: &Baseline, part: Part) -> Result<Figures> {
    let mut events = 0;
    let (mut nll, mut constant_rate, mut history_free) = (0.0, 0.0, 0.0);
    let (mut marks, mut mark_loss, mut frequencies) = (0, 0.0, 0.0);
    let (mut values, mut value_nll, mut value_free) = (0, 0.0, 0.0);
    let (mut label_loss, mut share, mut scored) = (0.0, 0.0, Vec::new());
    evaluate(model, history, objective, part, &mut |event, outputs, terms| {
        events += 1;
        let target = history.target(event, objective, part);
        if let Some(time) = terms.time {
            nll += time;
            constant_rate += baseline.constant_rate(target.gap);
            history_free += baseline.history_free(target.gap);
        }
        if let (Some(loss), Some(mark)) = (terms.mark, target.mark) {
            marks += 1;
            mark_loss += loss;
            frequencies += baseline.mark(mark);
        }
        if let Some(cost) = terms.value {
            values += 1;
            value_nll += cost.nll;
            value_free += baseline.value(target.value, outputs);
        }
        if let (Some(loss), Some(logit)) = (terms.label, outputs.first()) {
            label_loss += loss;
            share += baseline.label(target.label);
            scored.push((*logit, target.label > 0.5));
        }
    })?;
    let n = f64_of_count(events);
    let of = |sum: f64| sum / n;
    let timed = matches!(objective, Objective::Law { .. });
    Ok(Figures {
        part,
        events,
        time: timed.then(|| TimeFigures { nll: of(nll), constant_rate: of(constant_rate), history_free: of(history_free) }),
        mark: (!history.marks_next.is_empty() && timed && marks > 0).then(|| MarkFigures {
            events: marks,
            log_loss: mark_loss / f64_of_count(marks),
            frequencies: frequencies / f64_of_count(marks),
        }),
        value: (values > 0).then(|| ValueFigures {
            events: values,
            nll: value_nll / f64_of_count(values),
            history_free: value_free / f64_of_count(values),
        }),
        score: (!timed).then(|| ScoreFigures {
            positive: f64_of_count(scored.iter().filter(|(_, positive)| *positive).count()) / n,
            log_loss: of(label_loss),
            share: of(share),
            average_precision: average_precision(&mut scored),
        }),
    })
}

/// Sum over thresholds of (recall gained) x (precision there); equal scores share a threshold. NaN without positives. Sorts its argument.
pub fn average_precision(scored: &mut [(f32, bool)]) -> f64 {
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    let positives = f64_of_count(scored.iter().filter(|(_, positive)| *positive).count());
    let (mut seen, mut found, mut sum) = (0.0, 0.0, 0.0);
    for ties in scored.chunk_by(|a, b| a.0 == b.0) {
        let gained = f64_of_count(ties.iter().filter(|(_, positive)| *positive).count());
        seen += f64_of_count(ties.len());
        found += gained;
        sum += gained * found / seen;
    }
    sum / positives
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn average_precision_has_the_values_of_its_definition() {
        let mut perfect = [(0.9, true), (0.1, false), (0.8, true)];
        assert_eq!(average_precision(&mut perfect), 1.0);
        let mut mixed = [(0.9, true), (0.8, false), (0.7, true), (0.6, false)];
        assert!((average_precision(&mut mixed) - (1.0 + 2.0 / 3.0) / 2.0).abs() < 1e-12);
        let mut tied = [(0.5, true), (0.5, false), (0.5, false), (0.5, false)];
        assert_eq!(average_precision(&mut tied), 0.25);
    }
}
