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
use crate::features::recipe::{Encoding, Recipe, Spec};
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
    let records = golden.records((KEY, TIME), schema.fields.iter().map(|field| field.name.as_str()));
    let records = records.map_err(|e| e.at(place.clone()))?;
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
            let text = format!("feature {column} of {}: the recipe gives {found}, golden.parquet says {expected}", golden.name(event));
            return Err(Error::config("model", text).at(place).help("features.toml and the training code make different rows"));
        }
    }
    check_batches(package, recipe, &rows, &gaps)?;
    Ok(golden.len())
}

/// Steps the golden events, and once more with the last row of every key changed: the law against which an event is scored must be that of its past.
fn check_batches(package: &Package, recipe: &Recipe, rows: &[f32], gaps: &[Option<crate::base::time::Gap>]) -> Result<()> {
    let (Some(golden), true) = (&package.golden, package.manifest.head.is_timed()) else { return Ok(()) };
    let mut run = |rows: &[f32]| -> Result<Outputs> {
        let mut model = package.model()?;
        let mut memory = golden.memory(model.initial_hidden());
        let mut outputs = Outputs::default();
        model.steps(rows, gaps, &golden.occurrences(), &mut memory, &mut outputs)?;
        Ok(outputs)
    };
    // An index is left as it is: an embedding bears no others than the recipe makes.
    let is_index = |spec: &Spec| matches!(spec, Spec::Category { encoding: Encoding::Index, .. });
    let changes: Vec<bool> = recipe.columns.iter().flat_map(|spec| std::iter::repeat_n(!is_index(spec), spec.width())).collect();
    match leak(&mut run, rows, &changes, &golden.last_rows().collect::<Vec<_>>())? {
        None => Ok(()),
        Some(last) => Err(Error::config(
            "model",
            format!("the law against which {} is scored moves when that event changes: a leak", golden.name(last)),
        )
        .at(package.folder.display().to_string())),
    }
}

/// The first of the last rows of the keys whose law before it moves when these rows change, in the columns that may. One run for all keys will do, as none of
/// them has a part in another's state.
fn leak(run: &mut dyn FnMut(&[f32]) -> Result<Outputs>, rows: &[f32], changes: &[bool], lasts: &[usize]) -> Result<Option<usize>> {
    let width = changes.len();
    let whole = run(rows)?;
    let mut changed = rows.to_vec();
    for last in lasts {
        let row = changed.get_mut(last * width..(last + 1) * width).unwrap_or_default();
        row.iter_mut().zip(changes).filter(|(_, changes)| **changes).for_each(|(cell, _)| *cell += 1.0);
    }
    let moved = run(&changed)?;
    let law = |outputs: &Outputs, row: usize| -> Vec<u32> {
        let own = outputs.before.get(row * outputs.width..(row + 1) * outputs.width).unwrap_or_default();
        own.iter().map(|value| value.to_bits()).collect()
    };
    Ok(lasts.iter().copied().find(|last| law(&whole, *last) != law(&moved, *last)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array};

    use super::*;
    use crate::model::to_parquet;

    /// The shipped package of cards with other golden events, made from its own.
    fn checked(change: impl Fn(&RecordBatch) -> RecordBatch) -> (crate::base::error::Result<usize>, usize) {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/cards/model");
        let recipe = Recipe::load(&own.join("features.toml")).unwrap();
        let shipped = Package::load(&own).unwrap().golden.unwrap();
        let folder = tempfile::tempdir().unwrap();
        for name in ["model.onnx", "model.toml", "features.toml"] {
            std::fs::copy(own.join(name), folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join("golden.parquet"), to_parquet(&change(&shipped.table)).unwrap()).unwrap();
        (Package::load(folder.path()).and_then(|package| check(&package, &recipe)), shipped.len())
    }

    fn with_column(table: &RecordBatch, name: &str, values: ArrayRef) -> RecordBatch {
        let schema = table.schema();
        let columns = schema.fields().iter().zip(table.columns());
        RecordBatch::try_from_iter(columns.map(|(field, column)| {
            let column = if field.name() == name { Arc::clone(&values) } else { Arc::clone(column) };
            (field.name().clone(), column)
        }))
        .unwrap()
    }

    /// Rows in the order in which events come: keys among each other.
    fn by_time(table: &RecordBatch) -> RecordBatch {
        let order = arrow::compute::sort_to_indices(table.column_by_name("event_time").unwrap(), None, None).unwrap();
        arrow::compute::take_record_batch(table, &order).unwrap()
    }

    #[test]
    fn golden_events_may_come_in_order_of_time_and_a_difference_is_told_by_its_row_of_the_file() {
        let keys = |table: &RecordBatch| {
            table.column_by_name("key").unwrap().as_string::<i32>().iter().flatten().map(str::to_owned).collect::<Vec<_>>()
        };
        let (found, events) = checked(|table| {
            let mixed = by_time(table);
            assert_ne!(keys(&mixed), keys(table), "keys come among each other");
            mixed
        });
        assert_eq!(found.unwrap(), events);
        // Two fields swapped between events: the sixth row of the file is told, whichever event of its key that is.
        let (found, _) = checked(|table| {
            let mixed = by_time(table);
            let amounts = mixed.column_by_name("amount").unwrap();
            let others: UInt32Array = (0..u32::try_from(mixed.num_rows()).unwrap()).map(|row| if row == 5 { 6 } else { row }).collect();
            with_column(&mixed, "amount", arrow::compute::take(amounts, &others, None).unwrap())
        });
        let said = found.unwrap_err().to_string();
        assert!(said.contains("of golden event 5 (key `"), "{said}");
    }

    #[test]
    fn a_field_without_a_column_in_the_golden_events_is_named() {
        let (found, _) = checked(|table| {
            let at = table.schema().index_of("amount").unwrap();
            let left: Vec<usize> = (0..table.num_columns()).filter(|column| *column != at).collect();
            table.project(&left).unwrap()
        });
        let said = found.unwrap_err().to_string();
        assert!(said.contains("there is no column `amount`") && said.contains("golden.parquet"), "{said}");
    }

    #[test]
    fn a_leak_is_found_in_two_runs_however_many_keys_there_are_and_indices_are_left() {
        let keys = 1_200;
        let rows: Vec<f32> = (0..2 * keys).flat_map(|row| [row as f32, 7.0]).collect();
        let lasts: Vec<usize> = (0..keys).map(|key| 2 * key + 1).collect();
        let mut runs = 0;
        // The law before an event is what came before it; of one event in the middle it is what came with it.
        let mut found = |leaks: Option<usize>| {
            runs = 0;
            let mut run = |rows: &[f32]| {
                runs += 1;
                assert!(rows.chunks(2).all(|row| row[1] == 7.0), "the second column is one of indices");
                let own = |row: usize| rows[2 * if leaks == Some(row) || row == 0 { row } else { row - 1 }];
                Ok(Outputs { width: 1, before: (0..2 * keys).map(own).collect(), after: vec![0.0; 2 * keys], kept: Vec::new() })
            };
            let found = leak(&mut run, &rows, &[true, false], &lasts).unwrap();
            assert_eq!(runs, 2);
            found
        };
        assert_eq!(found(None), None);
        assert_eq!(found(Some(601)), Some(601));
    }

    #[test]
    fn golden_events_of_many_keys_are_compared() {
        let (found, events) = checked(|table| {
            let copies = (0..20).map(|copy| {
                let keys = table.column_by_name("key").unwrap().as_string::<i32>();
                let keys: StringArray = keys.iter().map(|key| Some(format!("{}-{copy}", key.unwrap()))).collect();
                with_column(table, "key", Arc::new(keys))
            });
            arrow::compute::concat_batches(&table.schema(), &copies.collect::<Vec<_>>()).unwrap()
        });
        assert_eq!(found.unwrap(), 20 * events);
    }
}
