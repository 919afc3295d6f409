//! What was sent, as one side of a comparison.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::Span;
use crate::base::error::{Error, Result};
use crate::base::time::EventTime;
use crate::cli::parity;
use crate::data::field::{Field, moment};
use crate::data::forecasts::Forecasts;
use crate::data::layout::{FieldId, Layout};
use crate::evaluate::parity::Row;
use crate::pipeline::plan::Plan;

/// Rows that were sent, by the event that each is of.
pub struct Live {
    names: Identity,
    rows: HashMap<u64, Vec<f64>, FixedState>,
    /// How often an event has come: several at one time of one key without ids are told apart by their order.
    seen: (HashMap<u64, u32, FixedState>, HashMap<u64, u32, FixedState>),
    /// Model, version and fingerprint of each kind of row.
    pub models: std::collections::BTreeMap<(String, String, String), usize>,
}

/// Names of the fields that tell events apart.
struct Identity {
    key: Option<String>,
    id: Option<String>,
    time: Option<String>,
    kind: Option<String>,
    model: [Option<String>; 3],
    hasher: FixedState,
}

impl Live {
    /// Reads all rows of the span.
    ///
    /// # Errors
    /// They cannot be read, or do not say which event they are of.
    pub fn read(plan: &Plan, layout: &Layout, place: &str, fields: &[Field], span: Span) -> Result<Self> {
        let name = |id: FieldId| layout.fields.iter().find(|(_, field)| *field == id).map(|(name, _)| name.clone());
        let names = Identity {
            key: name(FieldId::Key),
            id: name(FieldId::EventId),
            time: name(FieldId::EventTime),
            kind: name(FieldId::Kind),
            model: [name(FieldId::Model), name(FieldId::ModelVersion), name(FieldId::Fingerprint)],
            hasher: FixedState::with_seed(1),
        };
        if names.time.is_none() || (names.id.is_none() && names.key.is_none()) {
            return Err(Error::config("replay", "the rows that the pipeline writes do not say which event each is of")
                .help("write event_time, and event_id or key: [sink] fields"));
        }
        let mut live = Live { names, rows: HashMap::default(), seen: Default::default(), models: Default::default() };
        parity::live(plan, place, &mut |row| live.take(&row, fields, span))?;
        Ok(live)
    }

    fn take(&mut self, row: &Row, fields: &[Field], span: Span) {
        let text = |name: &Option<String>| name.as_ref().and_then(|name| row.get(name)).map_or("", String::as_str);
        if text(&self.names.kind) == "overdue" {
            return;
        }
        let time = moment(text(&self.names.time));
        let known = self.names.hash(text(&self.names.key), text(&self.names.id), text(&self.names.time));
        let [model, version, fingerprint] = &self.names.model;
        let model = (text(model).to_owned(), text(version).to_owned(), text(fingerprint).to_owned());
        let identity = nth(&mut self.seen.0, &self.names.hasher, known);
        if time.is_some_and(|time| span.holds(time)) {
            *self.models.entry(model).or_insert(0) += 1;
            let values = fields.iter().map(|field| field.read(row.get(&field.name), time)).collect();
            self.rows.insert(identity, values);
        }
    }

    /// What was sent of a row's event; it is given once. To be called for every row, in order, so that repeats are counted.
    pub fn find(&mut self, forecasts: &Forecasts, row: usize) -> (u64, Option<Vec<f64>>) {
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let time = forecasts.event_times.get(row).copied().map_or_else(String::new, |time: EventTime| time.to_string());
        let key = self.names.key.as_ref().map_or_else(String::new, |_| text(Some(forecasts.keys.bytes_at(row))));
        let id = self
            .names
            .id
            .as_ref()
            .map_or_else(String::new, |_| forecasts.event_ids.get(row).map_or_else(|| "null".to_owned(), |id| text(Some(id))));
        let known = self.names.hash(&key, &id, &time);
        let identity = nth(&mut self.seen.1, &self.names.hasher, known);
        (identity, self.rows.remove(&identity))
    }

    /// Rows of which no event has come.
    pub fn left(&self) -> usize {
        self.rows.len()
    }
}

impl Identity {
    fn hash(&self, key: &str, id: &str, time: &str) -> u64 {
        self.hasher.hash_one((key, id, time))
    }
}

/// The hash of an event that has come so many times.
fn nth(seen: &mut HashMap<u64, u32, FixedState>, hasher: &FixedState, known: u64) -> u64 {
    let count = seen.entry(known).or_insert(0);
    *count += 1;
    hasher.hash_one((known, *count))
}
