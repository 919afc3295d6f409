//! The golden events of a package through the served path: features first, then the graph, then the head.

use super::extremes;
use crate::base::error::{Error, Result};
use crate::base::offset::{Offset, Partition};
use crate::data::events::Events;
use crate::data::input::{Input, Table};
use crate::data::outputs::Outputs;
use crate::data::rejected::Rejected;
use crate::data::schema::{EventSchema, TimeFormat};
use crate::decode::Decoder;
use crate::features::recipe::Recipe;
use crate::features::{Context, Features};
use crate::model::Package;

/// Largest difference of a feature, absolute or relative.
const TOLERANCE: f32 = 1e-5;

/// Names that no field has.
const KEY: &str = " key";
const TIME: &str = " event_time";

/// Computes the feature rows of the golden events from their fields and compares them with those the trainer saw; then
/// changes the row of the last golden event of each key and asserts that the law it is scored against does not move.
/// That holds by the order in which `Model::steps` works, whatever the graph: it guards that order, not the package.
/// Before that the graph is stepped for every index that the recipe may make. Returns the number of events compared, 0 for a package without golden events.
///
/// # Errors
/// A feature differs, or a row of the past moves with the arrived mark: a leak.
pub fn check(package: &Package, recipe: &Recipe) -> Result<usize> {
    extremes::check(package, recipe)?;
    let Some(golden) = &package.golden else { return Ok(0) };
    let schema = EventSchema {
        key: KEY.to_owned(),
        time: TIME.to_owned(),
        time_format: TimeFormat::Rfc3339,
        id: None,
        fields: recipe.fields(),
        mark: None,
        label: None,
    };
    let place = package.folder.join("golden.parquet").display().to_string();
    let records = golden.records((KEY, TIME), schema.fields.iter().map(|field| field.name.as_str()))?;
    let input = Input { tables: vec![Table { partition: Partition(0), first: Offset(0), rows: records }], ..Input::default() };
    let (mut events, mut rejected) = (Events::new(&schema), Rejected::default());
    Decoder::new(&schema).decode(&input, &mut events, &mut rejected)?;
    if let Some(detail) = rejected.details.first() {
        return Err(Error::config("model", format!("a golden event cannot be decoded: {detail}")).at(place));
    }
    let features = Features::new(recipe, &schema)?;
    let width = features.width();
    let gaps = golden.gaps();
    let mut rows = Vec::new();
    features.rows(&events, Context { gaps: &gaps }, &mut rows);
    let mut aggregates = vec![0.0; features.aggregates()];
    for (row, (cells, gap)) in rows.chunks_exact_mut(width).zip(&gaps).enumerate() {
        if gap.is_none() {
            aggregates.fill(0.0);
        }
        features.decay(&events, row, *gap, &mut aggregates, cells);
    }
    for (i, (found, expected)) in rows.iter().zip(&golden.rows).enumerate() {
        let difference = (found - expected).abs() / expected.abs().max(1.0);
        if difference.is_nan() || difference > TOLERANCE {
            let (event, column) = (i / width.max(1), i % width.max(1));
            let text = format!("feature {column} of golden event {event}: the recipe gives {found}, golden.parquet says {expected}");
            return Err(Error::config("model", text).at(place).help("features.toml and the training code make different rows"));
        }
    }
    check_batches(package, &rows, &gaps)?;
    Ok(golden.len())
}

/// Scores the golden events one at a time and all at once: the law against which an event is scored must be that of its
/// past, so it may not depend on which other events are in the batch.
fn check_batches(package: &Package, rows: &[f32], gaps: &[Option<crate::base::time::Gap>]) -> Result<()> {
    let (Some(golden), true) = (&package.golden, package.manifest.head.is_timed()) else { return Ok(()) };
    let width = package.signature().features;
    let run = |rows: &[f32]| -> Result<Outputs> {
        let mut model = package.model()?;
        let mut memory = golden.memory(model.initial_hidden());
        let mut outputs = Outputs::default();
        model.steps(rows, gaps, &golden.occurrences(), &mut memory, &mut outputs)?;
        Ok(outputs)
    };
    let whole = run(rows)?;
    for last in golden.last_rows() {
        let mut changed = rows.to_vec();
        if let Some(row) = changed.get_mut(last * width..(last + 1) * width) {
            row.iter_mut().for_each(|cell| *cell += 1.0);
        }
        let moved = run(&changed)?;
        let at = last * whole.width..(last + 1) * whole.width;
        let same = whole
            .before
            .get(at.clone())
            .zip(moved.before.get(at))
            .is_some_and(|(a, b)| a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits()));
        if !same {
            return Err(Error::config(
                "model",
                format!("the law against which golden event {last} is scored moves when that event changes: a leak"),
            )
            .at(package.folder.display().to_string()));
        }
    }
    Ok(())
}
