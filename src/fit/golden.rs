//! Golden events: a few keys from their first event on, with the rows, states and outputs that the trainer computed.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Float64Array, StringArray, TimestampMicrosecondArray};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use super::batch::Sequence;
use super::history::Part;
use super::read::{Prepared, Seen};
use super::step::Step;
use crate::base::error::{Error, Result};
use crate::base::number::{f32_of, index};
use crate::data::events::Column;
use crate::data::schema::EventSchema;
use crate::features::recipe::Recipe;
use crate::model::manifest::StateSpec;
use crate::model::{field_column, list_column};

/// Keys shown.
const KEYS: usize = 4;
/// Events shown of each.
const EVENTS: usize = 16;

/// The table of golden events: `key`, `event_time`, the fields that the recipe and the mark need, `x`, a column for each state, `outputs`; for a law with a second
/// graph also `tau`, the gap to the next event (of a last one as many units as the one before), and `lambda`, the intensities there. Key by key, in order of time.
///
/// # Errors
/// Never for a prepared history and its own network.
pub fn table(step: &dyn Step, seen: &Seen, prepared: &Prepared, schema: &EventSchema, recipe: &Recipe) -> Result<RecordBatch> {
    let history = &prepared.history;
    let shown = shown(seen, prepared);
    let (mut rows, mut x, mut states, mut outputs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut taus: Vec<f32> = Vec::new();
    for range in &shown {
        let sequence = Sequence { start: range.start, len: range.len() };
        step.forward(history, &[sequence], &mut |event, output, state| {
            rows.push(prepared.rows.get(event).map_or(0, |row| index(*row)));
            x.extend_from_slice(history.row(event));
            states.extend_from_slice(state);
            outputs.extend_from_slice(output);
            let gap = history.gaps_next.get(event).copied().filter(|gap| !gap.is_nan()).map(f32_of);
            taus.push(gap.or(taus.last().copied()).unwrap_or(1.0));
        })?;
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let keys: StringArray = rows.iter().map(|row| Some(text(seen.events.keys.bytes_at(*row)))).collect();
    let times: TimestampMicrosecondArray = rows.iter().map(|row| seen.events.times.get(*row).map(|time| time.0)).collect();
    let mut columns: Vec<(String, ArrayRef)> =
        vec![("key".to_owned(), Arc::new(keys)), ("event_time".to_owned(), Arc::new(times.with_timezone("UTC")))];
    let needed = recipe.fields();
    for (at, (field, column)) in schema.fields.iter().zip(&seen.events.columns).enumerate() {
        let wanted = needed.iter().any(|need| need.name == field.name) || schema.mark == Some(at);
        if !wanted {
            continue;
        }
        let array: ArrayRef = match column {
            Column::Number(values) => {
                Arc::new(rows.iter().map(|row| values.get(*row).copied().filter(|v| !v.is_nan())).collect::<Float64Array>())
            }
            Column::Text(values) => Arc::new(rows.iter().map(|row| values.get(*row).map(text)).collect::<StringArray>()),
        };
        columns.push((field_column(&field.name).into_owned(), array));
    }
    let fault = |e: ArrowError| Error::internal("fit", e.to_string()).caused_by(e);
    columns.push(("x".to_owned(), list_column(x, rows.len()).map_err(fault)?));
    let each: usize = step.states().iter().map(StateSpec::floats).sum();
    let mut start = 0;
    for state in step.states() {
        let own = start..start + state.floats();
        let values = states.chunks(each.max(1)).flat_map(|all| all.get(own.clone()).unwrap_or_default().iter().copied()).collect();
        columns.push((format!("state.{}", state.input), list_column(values, rows.len()).map_err(fault)?));
        start = own.end;
    }
    if let Some(intensities) = step.intensities(&outputs, &taus)? {
        columns.push(("tau".to_owned(), Arc::new(Float32Array::from(taus))));
        columns.push(("lambda".to_owned(), list_column(intensities, rows.len()).map_err(fault)?));
    }
    columns.push(("outputs".to_owned(), list_column(outputs, rows.len()).map_err(fault)?));
    RecordBatch::try_from_iter(columns).map_err(fault)
}

/// The first keys of the train split that have more than one event (any, if there are none), each cut to its first events. A key that expired
/// shows what came before.
fn shown(seen: &Seen, prepared: &Prepared) -> Vec<Range<usize>> {
    let slot = |event: usize| prepared.rows.get(event).and_then(|row| seen.slots.get(index(*row))).copied();
    let ranges = &prepared.history.keys;
    let first = |i: usize, range: &Range<usize>| match i.checked_sub(1).and_then(|before| ranges.get(before)) {
        Some(before) => slot(before.start) != slot(range.start),
        None => true,
    };
    let cut = |range: &Range<usize>| range.start..range.end.min(range.start + EVENTS);
    let train = |range: &Range<usize>| prepared.history.parts.get(range.start) == Some(&Part::Train);
    let mut found: Vec<Range<usize>> = ranges
        .iter()
        .enumerate()
        .filter(|(i, range)| first(*i, range) && range.len() > 1 && train(range))
        .map(|(_, r)| cut(r))
        .take(KEYS)
        .collect();
    if found.is_empty() {
        found = ranges.iter().enumerate().filter(|(i, range)| first(*i, range)).map(|(_, range)| cut(range)).take(KEYS).collect();
    }
    found
}
