//! The recipe and the rows it makes: `[n, F]` floats for a whole batch, column by column.
//!
//! A row describes the arrived event as it enters the step: its gap, its fields, the calendar, and decaying statistics
//! of the key's **earlier** events (left-limit: this event is not among them).

mod calendar;
mod columns;
mod decay;
mod deviation;
pub mod reasons;
pub mod recipe;

use chrono_tz::Tz;
use hashbrown::HashMap;

use crate::base::error::{Error, Result};
use crate::base::time::Gap;
use crate::data::events::Events;
use crate::data::schema::EventSchema;
use recipe::{Encoding, Recipe, Spec};

/// Feature rows for one recipe over one schema.
#[derive(Debug)]
pub struct Features {
    width: usize,
    aggregates: usize,
    columns: Vec<Prepared>,
}

/// A column with everything looked up: where it writes to, and which field it reads.
#[derive(Debug)]
struct Prepared {
    /// First float of the row that it writes.
    at: usize,
    /// Index of its field in `Events::columns`.
    field: usize,
    /// First of its aggregates.
    aggregate: usize,
    spec: Spec,
    zone: Tz,
    vocabulary: HashMap<Vec<u8>, usize, foldhash::fast::FixedState>,
    half_life_s: f64,
}

/// What the lane knows of each event besides its fields.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Gap since the key's last event, never negative; `None` for a first one.
    pub gaps: &'a [Option<Gap>],
}

impl Features {
    /// Prepares a recipe.
    ///
    /// # Errors
    /// A field of the recipe is not in the schema, or has another type there.
    pub fn new(recipe: &Recipe, schema: &EventSchema) -> Result<Self> {
        recipe.check()?;
        let mut columns = Vec::new();
        let (mut at, mut aggregates) = (0, 0);
        for spec in &recipe.columns {
            let field = match spec.field() {
                None => 0,
                Some(wanted) => match schema.field(&wanted.name) {
                    Some(index) if schema.fields.get(index).is_some_and(|field| field.kind == wanted.kind) => index,
                    Some(_) => return Err(Error::config("features", format!("field `{}` is read with two types", wanted.name))),
                    None => {
                        return Err(Error::config(
                            "features",
                            format!("the recipe needs field `{}`, which the pipeline does not read", wanted.name),
                        ));
                    }
                },
            };
            let mut vocabulary = HashMap::with_hasher(foldhash::fast::FixedState::with_seed(1));
            if let Spec::Category { vocabulary: words, .. } = spec {
                vocabulary.extend(words.iter().enumerate().map(|(i, word)| (word.clone().into_bytes(), i)));
            }
            let zone = if let Spec::Calendar { zone, .. } = spec { zone.parse().unwrap_or(Tz::UTC) } else { Tz::UTC };
            let half_life_s = match spec {
                Spec::Decay { half_life, .. } => humantime::parse_duration(half_life).map_or(f64::NAN, |d| d.as_secs_f64()),
                _ => f64::NAN,
            };
            columns.push(Prepared { at, field, aggregate: aggregates, spec: spec.clone(), zone, vocabulary, half_life_s });
            at += spec.width();
            aggregates += spec.aggregates().len();
        }
        Ok(Features { width: at, aggregates, columns })
    }

    /// Floats per row, F.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Numbers the recipe keeps per key.
    #[must_use]
    pub fn aggregates(&self) -> usize {
        self.aggregates
    }

    /// Writes the rows of all events to `rows` (cleared first): `[n, F]`, row-major, everything but the columns of
    /// earlier events, which need the key's aggregates and are added by `decay`.
    pub fn rows(&self, events: &Events, context: Context<'_>, rows: &mut Vec<f32>) {
        rows.clear();
        rows.resize(events.len() * self.width, 0.0);
        for column in &self.columns {
            column.write(events, context, self.width, rows);
        }
    }

    /// Adds the columns of earlier events (`decay`, `deviation`) of one event to its row and takes the event into the key's aggregates. To be called in
    /// the order of each key's events. `aggregates` are the key's, all 0 for a first event.
    pub fn decay(&self, events: &Events, row: usize, gap: Option<Gap>, aggregates: &mut [f64], out: &mut [f32]) {
        for column in &self.columns {
            column.decay(events, row, gap, aggregates, out);
            column.deviation(events, row, gap, aggregates, out);
        }
    }
}

impl Prepared {
    fn unknown(&self) -> f32 {
        match &self.spec {
            Spec::Category { encoding: Encoding::Index, unknown: true, vocabulary, .. } => {
                crate::base::number::f32_of(crate::base::number::f64_of_count(vocabulary.len()))
            }
            _ => -1.0,
        }
    }
}

#[cfg(test)]
mod tests;
