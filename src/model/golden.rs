//! `golden.parquet`: events with the rows, states and outputs that the trainer computed for them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array, RecordBatch, UInt32Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Float32Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::manifest::Manifest;
use super::step::{Memory, Model};
use crate::base::error::{Error, Result};
use crate::base::number::u32_of;
use crate::base::time::Gap;
use crate::data::intensity::Intensities;
use crate::data::law::HeadSpec;
use crate::data::outputs::Outputs;

/// Largest difference allowed between the graph and what the trainer computed, absolute or relative to the value.
const TOLERANCE: f32 = 1e-4;

/// The golden events of a package, sorted as they are applied: key by key, each in time order, whatever order the file has.
#[derive(Clone, Debug)]
pub struct Golden {
    /// All columns: `key`, `event_time`, the recipe's fields, `x`, `state.<input>`, `outputs`.
    pub table: RecordBatch,
    /// Key of each event.
    pub keys: Vec<String>,
    /// Microseconds of each event.
    pub times: Vec<i64>,
    /// `[n, F]` expected feature rows.
    pub rows: Vec<f32>,
    /// Per state `[n, floats]`: expected after the event.
    pub states: Vec<Vec<f32>>,
    /// `[n, width]` expected head parameters after the event.
    pub outputs: Vec<f32>,
    /// Which row of the file each event is.
    pub places: Vec<usize>,
    /// Of a head of the kind `intensity`, where the file has them: a gap after each event `[n]`, and the expected intensities there `[n, marks]`.
    pub intensities: Option<(Vec<f32>, Vec<f32>)>,
}

/// How far the graph is from the golden events.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Mismatch {
    /// Largest difference of a head parameter.
    pub outputs: f32,
    /// Largest difference of a state.
    pub states: f32,
    /// Largest difference of an intensity, relative to the largest of them.
    pub intensities: f32,
}

impl Golden {
    /// Reads the file; `Ok(None)` if there is none.
    ///
    /// # Errors
    /// It is not Parquet, a column is missing, or a column has another type or width than the manifest says.
    pub fn load(path: &Path, manifest: &Manifest, features: usize) -> Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        let fault = |text: String| Error::config("model", text).at(path.display().to_string());
        let file = File::open(path).map_err(|e| Error::io("model", path, e))?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(ParquetRecordBatchReaderBuilder::build);
        let reader = reader.map_err(|e| fault(format!("not a Parquet file: {e}")))?;
        let batches: Vec<RecordBatch> = reader.collect::<std::result::Result<_, _>>().map_err(|e| fault(e.to_string()))?;
        let schema = batches.first().map(RecordBatch::schema).ok_or_else(|| fault("it holds no events".to_owned()))?;
        let table = concat_batches(&schema, &batches).map_err(|e| fault(e.to_string()))?;
        let (table, places) = sorted(table).map_err(&fault)?;
        let floats = |name: &str, width: usize| floats(&table, name, width).map_err(&fault);
        let mut states = Vec::new();
        for state in &manifest.states {
            states.push(floats(&format!("state.{}", state.input), state.floats())?);
        }
        let column = |name: &str, kind: DataType| column(&table, name, &kind).map_err(&fault);
        let (keys, times) = (keys(&table).map_err(&fault)?, times(&table).map_err(&fault)?);
        let (rows, outputs) = (floats("x", features)?, floats("outputs", manifest.head.width())?);
        let second = table.column_by_name("tau").filter(|_| matches!(manifest.head, HeadSpec::Intensity(_)));
        let intensities = match second {
            None => None,
            Some(_) => {
                let taus = column("tau", DataType::Float32)?.as_primitive::<Float32Type>().values().to_vec();
                Some((taus, floats("lambda", manifest.head.marks().len().max(1))?))
            }
        };
        Ok(Some(Golden { keys, times, rows, states, outputs, places, intensities, table }))
    }

    /// The events as a table of records: these columns for key and time, and the fields by their names.
    ///
    /// # Errors
    /// A field has no column.
    pub fn records<'a>(&self, (key, time): (&str, &str), fields: impl Iterator<Item = &'a str>) -> Result<RecordBatch> {
        let roles = [("key".into(), key), ("event_time".into(), time)].into_iter();
        let mut columns = Vec::new();
        for (column, name) in roles.chain(fields.map(|name| (field_column(name), name))) {
            let values = self.table.column_by_name(&column).ok_or_else(|| {
                Error::config("model", format!("there is no column `{column}`, of the field `{name}` that features.toml reads")).help(
                    "write the fields that the recipe reads into golden.parquet, as they came, so that the rows can be made from them",
                )
            })?;
            columns.push((name, Arc::clone(values)));
        }
        RecordBatch::try_from_iter(columns).map_err(|e| Error::internal("model", e.to_string()).caused_by(e))
    }

    /// Number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Gap of each event since its key's previous row.
    #[must_use]
    pub fn gaps(&self) -> Vec<Option<Gap>> {
        let before = std::iter::once(None).chain(self.keys.iter().zip(&self.times).map(Some));
        self.keys
            .iter()
            .zip(&self.times)
            .zip(before)
            .map(|((key, time), before)| before.filter(|(k, _)| *k == key).map(|(_, t)| Gap(time - t)))
            .collect()
    }

    /// How often each row's key has occurred before.
    #[must_use]
    pub fn occurrences(&self) -> Vec<u32> {
        let mut seen = BTreeMap::new();
        self.keys
            .iter()
            .map(|key| {
                let n = seen.entry(key).or_insert(0u32);
                *n += 1;
                *n - 1
            })
            .collect()
    }

    /// States for the golden keys, all at `init`.
    #[must_use]
    pub fn memory(&self, init: &[f32]) -> impl Memory + use<> {
        GoldenMemory::new(&self.keys, init)
    }

    /// The last row of each key.
    pub fn last_rows(&self) -> impl Iterator<Item = usize> {
        let next = self.keys.iter().skip(1).map(Some).chain([None]);
        self.keys.iter().zip(next).enumerate().filter(|(_, (key, next))| *next != Some(*key)).map(|(row, _)| row)
    }

    /// What the event is called: by its row in the file.
    #[must_use]
    pub fn name(&self, row: usize) -> String {
        let key = self.keys.get(row).map_or("", String::as_str);
        format!("golden event {} (key `{key}`)", self.places.get(row).copied().unwrap_or(row))
    }

    /// The same events with other states (`[n, floats]` each, in the manifest's order) and outputs.
    ///
    /// # Errors
    /// Never for as many floats as the events and the manifest say.
    pub fn with(&self, manifest: &Manifest, states: Vec<Vec<f32>>, outputs: Vec<f32>) -> Result<RecordBatch> {
        let names: Vec<String> = manifest.states.iter().map(|state| format!("state.{}", state.input)).collect();
        let schema = self.table.schema();
        let kept = schema.fields().iter().zip(self.table.columns());
        let kept = kept.filter(|(field, _)| field.name() != "outputs" && !names.contains(field.name()));
        let mut columns: Vec<(String, ArrayRef)> = kept.map(|(field, column)| (field.name().clone(), Arc::clone(column))).collect();
        let fault = |e: ArrowError| Error::internal("model", e.to_string()).caused_by(e);
        for (name, values) in names.into_iter().zip(states).chain(std::iter::once(("outputs".to_owned(), outputs))) {
            columns.push((name, list_column(values, self.len()).map_err(fault)?));
        }
        RecordBatch::try_from_iter(columns).map_err(fault)
    }

    /// The same events with the states and outputs that this model gives.
    ///
    /// # Errors
    /// The graph fails to run.
    pub fn by(&self, model: &mut Model, manifest: &Manifest) -> Result<RecordBatch> {
        let mut memory = GoldenMemory::new(&self.keys, model.initial_hidden());
        let (width, gaps) = (model.signature().features, self.gaps());
        let mut states = vec![Vec::new(); manifest.states.len()];
        let (mut all, mut outputs) = (Vec::new(), Outputs::default());
        // One by one: a round would not show the states in between.
        for (row, (x, gap)) in self.rows.chunks_exact(width).zip(&gaps).enumerate() {
            model.steps(x, &[*gap], &[0], &mut OneRow { memory: &mut memory, row }, &mut outputs)?;
            all.extend_from_slice(&outputs.after);
            let mut rest = &*memory.hidden(row);
            for (spec, states) in manifest.states.iter().zip(&mut states) {
                let (own, after) = rest.split_at_checked(spec.floats()).unwrap_or_default();
                states.extend_from_slice(own);
                rest = after;
            }
        }
        self.with(manifest, states, all)
    }

    /// Steps the golden events and compares.
    ///
    /// # Errors
    /// The graph gives NaN or infinity on a golden event, or differs by more than `TOLERANCE`.
    pub fn check(&self, model: &mut Model) -> Result<Mismatch> {
        let mut memory = GoldenMemory::new(&self.keys, model.initial_hidden());
        let mut found = Outputs::default();
        model.steps(&self.rows, &self.gaps(), &self.occurrences(), &mut memory, &mut found)?;
        let outputs = self.worst(&found.after, &self.outputs, "head output", found.width, 0)?;
        // The last row of a key shows its state.
        let mut states = 0f32;
        for row in self.last_rows() {
            let hidden = memory.hidden(row).to_vec();
            let mut start = 0;
            for expected in &self.states {
                let floats = expected.len() / self.len().max(1);
                let (have, want) = (hidden.get(start..start + floats), expected.get(row * floats..(row + 1) * floats));
                states = states.max(self.worst(have.unwrap_or_default(), want.unwrap_or_default(), "state", floats, row)?);
                start += floats;
            }
        }
        let intensities = self.check_intensities(model)?;
        Ok(Mismatch { outputs, states, intensities })
    }

    /// Asks the second graph for the laws of the golden events.
    fn check_intensities(&self, model: &mut Model) -> Result<f32> {
        let (Some((taus, expected)), Some(graph)) = (&self.intensities, &mut model.intensity) else { return Ok(0.0) };
        let mut found = Vec::new();
        graph.at(&self.outputs, &(0..u32_of(taus.len())).collect::<Vec<_>>(), taus, &mut found)?;
        let largest = expected.iter().fold(f32::MIN_POSITIVE, |largest, lambda| largest.max(*lambda));
        let scaled = |values: &[f32]| values.iter().map(|lambda| lambda / largest).collect::<Vec<_>>();
        self.worst(&scaled(&found), &scaled(expected), "intensity, by the largest of them,", graph.marks(), 0)
    }

    /// The largest difference between floats of events from row `first` on, `width` of each.
    fn worst(&self, found: &[f32], expected: &[f32], what: &str, width: usize, first: usize) -> Result<f32> {
        let mut worst = 0f32;
        let place = |i: usize| format!("{what} {} of {}", i % width.max(1), self.name(first + i / width.max(1)));
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            if !found.is_finite() {
                return Err(Error::config("model", format!("{} is {found}", place(i))));
            }
            let difference = (found - expected).abs() / expected.abs().max(1.0);
            if difference.is_nan() || difference > TOLERANCE {
                return Err(Error::config("model", format!("{}: the graph gives {found}, golden.parquet says {expected}", place(i)))
                    .help("the graph and the golden events come from different trainings: export both again"));
            }
            worst = worst.max(difference);
        }
        Ok(worst)
    }
}

/// The table key by key, in the order of their first rows, each in order of time; and which row of the file each row is.
fn sorted(table: RecordBatch) -> std::result::Result<(RecordBatch, Vec<usize>), String> {
    let (keys, times) = (keys(&table)?, times(&table)?);
    let ranks = ranks(&keys);
    let mut order: Vec<(usize, i64, usize)> = ranks.iter().zip(times).enumerate().map(|(row, (rank, time))| (*rank, time, row)).collect();
    if order.is_sorted() {
        let places = (0..order.len()).collect();
        return Ok((table, places));
    }
    order.sort_unstable();
    let places: Vec<usize> = order.into_iter().map(|(_, _, row)| row).collect();
    let rows: UInt32Array = places.iter().map(|row| Some(u32_of(*row))).collect();
    let table = arrow::compute::take_record_batch(&table, &rows).map_err(|e| e.to_string())?;
    Ok((table, places))
}

/// The number of each row's key: keys are counted in the order of their first rows.
fn ranks(keys: &[String]) -> Vec<usize> {
    let mut known: BTreeMap<&str, usize> = BTreeMap::new();
    keys.iter()
        .map(|key| {
            let next = known.len();
            *known.entry(key).or_insert(next)
        })
        .collect()
}

fn column(table: &RecordBatch, name: &str, kind: &DataType) -> std::result::Result<ArrayRef, String> {
    let column = table.column_by_name(name).ok_or_else(|| format!("there is no column `{name}`"))?;
    arrow::compute::cast(column, kind).map_err(|e| format!("column `{name}`: {e}"))
}

fn keys(table: &RecordBatch) -> std::result::Result<Vec<String>, String> {
    let keys = column(table, "key", &DataType::Utf8)?;
    Ok(keys.as_string::<i32>().iter().map(|key| key.unwrap_or_default().to_owned()).collect())
}

fn times(table: &RecordBatch) -> std::result::Result<Vec<i64>, String> {
    let times = column(table, "event_time", &DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None))?;
    match (0..times.len()).find(|row| times.is_null(*row)) {
        Some(row) => Err(format!("golden event {row} has no `event_time`")),
        None => Ok(times.as_primitive::<TimestampMicrosecondType>().values().to_vec()),
    }
}

fn floats(table: &RecordBatch, name: &str, width: usize) -> std::result::Result<Vec<f32>, String> {
    let column = table.column_by_name(name).ok_or_else(|| format!("there is no column `{name}`"))?;
    let (values, n) = match column.data_type() {
        DataType::FixedSizeList(..) => (column.as_fixed_size_list().values(), column.len()),
        DataType::List(_) => (column.as_list::<i32>().values(), column.len()),
        other => return Err(format!("column `{name}` must be a list of {width} f32, found {other}")),
    };
    let values = arrow::compute::cast(values, &DataType::Float32).map_err(|e| format!("column `{name}`: {e}"))?;
    let values = values.as_primitive::<Float32Type>().values().to_vec();
    if values.len() != n * width {
        return Err(format!("column `{name}` must hold {width} floats a row; it holds {} in {n} rows", values.len()));
    }
    Ok(values)
}

/// The column of golden events that holds a field: of the field's name, or `field.NAME` where that is another column's.
#[must_use]
pub fn field_column(name: &str) -> Cow<'_, str> {
    let taken = matches!(name, "key" | "event_time" | "x" | "outputs" | "tau" | "lambda")
        || name.starts_with("state.")
        || name.starts_with("field.");
    if taken { format!("field.{name}").into() } else { name.into() }
}

/// `[n, width]` floats as a column of lists of one length.
///
/// # Errors
/// Never for floats that are a whole number of rows.
pub fn list_column(values: Vec<f32>, n: usize) -> std::result::Result<ArrayRef, ArrowError> {
    let width = i32::try_from(values.len() / n.max(1)).unwrap_or(i32::MAX);
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    Ok(Arc::new(FixedSizeListArray::try_new(item, width, Arc::new(Float32Array::from(values)), None)?))
}

/// The bytes of `golden.parquet`.
///
/// # Errors
/// Never for a table of golden events.
pub fn to_parquet(table: &RecordBatch) -> Result<Vec<u8>> {
    let fault = |e: parquet::errors::ParquetError| Error::internal("model", e.to_string()).caused_by(e);
    let level = ZstdLevel::try_new(9).map_err(fault)?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, table.schema(), Some(properties)).map_err(fault)?;
    writer.write(table).map_err(fault)?;
    writer.close().map_err(fault)?;
    Ok(bytes)
}

/// The state of one row's key.
struct OneRow<'a> {
    memory: &'a mut GoldenMemory,
    row: usize,
}

impl Memory for OneRow<'_> {
    fn hidden(&mut self, _row: usize) -> &mut [f32] {
        self.memory.hidden(self.row)
    }
}

/// States of the golden keys.
struct GoldenMemory {
    slots: Vec<usize>,
    hidden: Vec<Vec<f32>>,
}

impl GoldenMemory {
    fn new(keys: &[String], init: &[f32]) -> Self {
        let slots = ranks(keys);
        let known = slots.iter().max().map_or(0, |last| last + 1);
        GoldenMemory { hidden: vec![init.to_vec(); known], slots }
    }
}

impl Memory for GoldenMemory {
    fn hidden(&mut self, row: usize) -> &mut [f32] {
        let slot = self.slots.get(row).copied().unwrap_or_default();
        self.hidden.get_mut(slot).map(Vec::as_mut_slice).unwrap_or_default()
    }
}
