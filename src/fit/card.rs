//! `CARD.md`: what the model was fitted to, how well it does beside what knows no history, and where its limits are. It holds nothing that
//! changes from one run to the next (no dates, no durations), so that equal fits give equal files.

use std::fmt::Write;

use super::history::Part;
use super::report::{Figures, Report};
use crate::base::time::EventTime;
use crate::data::law::HeadSpec;
use crate::data::schema::EventSchema;
use crate::features::recipe::Recipe;
use crate::pipeline::plan::{FitPlan, Split};

/// What the card tells about.
pub struct Facts<'a> {
    /// Name of the model.
    pub name: &'a str,
    /// What the outputs mean.
    pub head: &'a HeadSpec,
    /// The columns.
    pub recipe: &'a Recipe,
    /// What was read.
    pub schema: &'a EventSchema,
    /// Options of the fit.
    pub fit: &'a FitPlan,
    /// First and last event time.
    pub span: Option<(EventTime, EventTime)>,
    /// The figures.
    pub report: &'a Report,
}

/// A loss as it is printed: `-` where there is none.
#[must_use]
pub fn number(value: f64) -> String {
    if value.is_nan() { "-".to_owned() } else { format!("{value:.4}") }
}

/// A width of ticks as it is printed: a clock's tick may be a tiny part of the unit.
#[must_use]
pub fn ticks(width: f64) -> String {
    if width < 1e-3 { format!("{width:.3e}") } else { width.to_string() }
}

/// The card as Markdown.
///
/// # Errors
/// Never: writing to a string cannot fail.
pub fn card(facts: &Facts<'_>) -> Result<String, std::fmt::Error> {
    let report = facts.report;
    let mut out = String::new();
    writeln!(out, "# {}\n", facts.name)?;
    match facts.head.law() {
        Some(law) => {
            let kind = match facts.head {
                HeadSpec::LognormalMixture(_) => format!("a mixture of {} log-normal laws of the gap", law.components.unwrap_or_default()),
                other => format!("a law of the kind `{}`", other.kind()),
            };
            write!(out, "When the next event of a key comes: {kind}, in `{}`", law.time_unit.name())?;
            if let Some(resolution) = law.resolution {
                write!(out, ", with the probability of a tick of {} {} instead of a density", ticks(resolution), law.time_unit.name())?;
            }
            if !law.marks.is_empty() {
                let together = matches!(facts.head, HeadSpec::Hawkes(_) | HeadSpec::Intensity(_));
                let when = if together { "given when" } else { "independent of when" };
                write!(out, "; and which of {} marks it carries ({when})", law.marks.len())?;
            }
            if let Some(value) = &law.value {
                write!(out, "; and the {}", value.describe())?;
            }
            writeln!(out, ".")?;
        }
        None => {
            let label = facts.schema.label.and_then(|label| facts.schema.fields.get(label)).map_or("label", |field| &field.name);
            writeln!(out, "The probability that the arrived event has `{label}` = 1.")?;
        }
    }
    writeln!(out, "\n{}", report.model)?;
    writeln!(out, "\n## Data\n")?;
    if let Some((first, last)) = facts.span {
        writeln!(out, "{} events of {} keys, {first} to {last}.", report.events, report.keys)?;
    }
    if report.rejected > 0 {
        writeln!(out, "{} records could not be used and were left out.", report.rejected)?;
    }
    let split = match &facts.fit.split {
        Split::Key => "by key: of the keys in byte order, of every five the fourth is valid and the fifth is test".to_owned(),
        Split::Time { .. } => "by time: train, then valid, then test".to_owned(),
        Split::Field(field) => format!("by the field `{field}`"),
    };
    writeln!(out, "Split {split}. Constants of the recipe come from the train split alone.")?;
    let fields: Vec<String> = facts.recipe.fields().into_iter().map(|field| format!("`{}`", field.name)).collect();
    let fields = if fields.is_empty() { "none but key and time".to_owned() } else { fields.join(", ") };
    writeln!(out, "Fields: {fields}.")?;
    writeln!(out, "\n## Figures\n")?;
    figures(&mut out, report)?;
    if report.epochs > 0 {
        writeln!(
            out,
            "\nChosen: pass {} of {} made, by the loss on {}. Seed {}, step size {}.",
            report.best_epoch,
            report.epochs,
            report.chosen_by.name(),
            facts.fit.seed,
            facts.fit.learning_rate
        )?;
    } else {
        writeln!(out, "\nFitted to the train split by maximum likelihood.")?;
    }
    writeln!(out, "\n## Limits\n")?;
    for limit in limits(facts) {
        writeln!(out, "- {limit}")?;
    }
    Ok(out)
}

fn figures(out: &mut String, report: &Report) -> std::fmt::Result {
    let each = |of: &dyn Fn(&Figures) -> Option<Vec<String>>| -> Vec<(Part, usize, Vec<String>)> {
        report.parts.iter().filter_map(|figures| of(figures).map(|cells| (figures.part, figures.events, cells))).collect()
    };
    let mut table = |title: String, heads: &[&str], rows: Vec<(Part, usize, Vec<String>)>| -> std::fmt::Result {
        if rows.is_empty() {
            return Ok(());
        }
        writeln!(out, "{title}\n\n| split | events | {} |\n|---|---:|{}", heads.join(" | "), "---:|".repeat(heads.len()))?;
        for (part, events, cells) in rows {
            writeln!(out, "| {} | {events} | {} |", part.name(), cells.join(" | "))?;
        }
        writeln!(out)
    };
    let unit = report.time_unit.map_or("", |unit| unit.name());
    table(
        format!("Negative log-likelihood of the gaps, nats per event, gaps in `{unit}`, first event of a key left out. Lower is better."),
        &["model", "constant rate", "mixture without history"],
        each(&|figures| figures.time.map(|t| [t.nll, t.constant_rate, t.history_free].map(number).to_vec())),
    )?;
    table(
        "Log-loss of the next mark, nats per event.".to_owned(),
        &["model", "frequencies"],
        each(&|figures| figures.mark.map(|m| [m.log_loss, m.frequencies].map(number).to_vec())),
    )?;
    table(
        "Negative log-likelihood of the next value, nats per event, densities in the unit of the field.".to_owned(),
        &["model", "without history"],
        each(&|figures| figures.value.map(|v| [v.nll, v.history_free].map(number).to_vec())),
    )?;
    table(
        "The score. Log-loss in nats per event; a random order has the share of positives as its average precision.".to_owned(),
        &["positive", "log-loss", "log-loss of the share", "average precision"],
        each(&|figures| {
            figures.score.map(|s| {
                let mut cells = vec![format!("{:.3} %", s.positive * 100.0)];
                cells.extend([s.log_loss, s.share, s.average_precision].map(number));
                cells
            })
        }),
    )
}

fn limits(facts: &Facts<'_>) -> Vec<String> {
    let mut limits = vec![
        "Made for streams like the one above: other keys, other rates or other clocks need a new fit.".to_owned(),
        "The first event of a key has no law before it; what comes next after it is a law for a key without history.".to_owned(),
    ];
    if facts.report.part(Part::Test).is_none_or(|figures| figures.events == 0) {
        limits.push("There was no test split: the figures above are not those of data it has never seen.".to_owned());
    }
    let beside = facts.report.beside(matches!(facts.head, HeadSpec::LognormalMixture(_)));
    limits.extend(beside.and_then(|beside| beside.text()));
    limits.extend(facts.report.notes.iter().cloned());
    if facts.report.epochs > 0 && facts.report.chosen_by == Part::Train {
        limits.push("There was no valid split: nothing stopped it from learning the train split by heart.".to_owned());
    }
    if let Some(law) = facts.head.law() {
        limits.push(format!("Gaps below {:.3e} {} are taken as that long.", law.min_gap, law.time_unit.name()));
    }
    limits
}
