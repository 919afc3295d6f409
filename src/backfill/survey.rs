//! What is in the files: rows, bytes, columns, first and last time, and whether they are in order.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

use super::Settings;
use super::chunk::{Turn, line_schema};
use super::reader::{Reader, Reading};
use crate::base::error::{Error, Kind as ErrorKind, Result};
use crate::base::time::EventTime;
use crate::data::schema::EventSchema;
use crate::link::file::Location;
use crate::source::file::{Kind, Rows};

/// A file.
#[derive(Clone, Debug, PartialEq)]
pub struct FileFacts {
    /// Where it is.
    pub path: Location,
    /// Rows, or lines that are not blank.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
    /// Rows that are not taken because their turn comes at or after the end that is set.
    pub later: u64,
    /// First and last turn, if it has any rows.
    pub span: Option<(Turn, Turn)>,
    /// Whether no row's turn is before that of the one above it.
    pub sorted: bool,
}

/// All files.
#[derive(Clone, Debug)]
pub struct Survey {
    /// In the order of the settings.
    pub files: Vec<FileFacts>,
    /// How they are read.
    pub reading: Reading,
}

impl Survey {
    /// Rows of all files.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows).sum()
    }

    /// Rows of all files that are not taken because they come at or after the end that is set.
    #[must_use]
    pub fn later(&self) -> u64 {
        self.files.iter().map(|file| file.later).sum()
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Files that must be sorted.
    pub fn unsorted(&self) -> impl Iterator<Item = &FileFacts> {
        self.files.iter().filter(|file| !file.sorted)
    }
}

/// Looks at all files. Of Parquet files only key and time are read, of NDJSON files everything. `progress` hears of each file that is done.
///
/// # Errors
/// There are no files, or of two kinds; one cannot be read, or its columns cannot be those of the others.
pub fn survey(settings: &Settings, progress: &mut dyn FnMut(&FileFacts)) -> Result<Survey> {
    let kinds = settings.paths.iter().map(Kind::of).collect::<Result<Vec<_>>>()?;
    let Some(kind) = kinds.first().copied() else {
        return Err(Error::config("backfill", "no files to read").help("name files, or patterns of them, with --from"));
    };
    if let Some((_, path)) = kinds.iter().zip(&settings.paths).find(|(other, _)| **other != kind) {
        return Err(Error::config("backfill", "Parquet and NDJSON files are mixed")
            .at(path.to_string())
            .help("backfill one kind at a time"));
    }
    let lines = kind == Kind::Ndjson;
    let columns = if lines { line_schema() } else { common_columns(settings)? };
    let reading = Reading {
        schema: settings.schema.clone(),
        fields: settings.fields.clone(),
        columns: Arc::clone(&columns),
        lines,
        positions: settings.positions.clone(),
        ties: settings.ties.clone(),
        shards: settings.shards,
    };
    if lines && settings.positions.is_some() {
        return Err(Error::config("backfill", "--positions names columns, and NDJSON files have none").help("write the files as Parquet"));
    }
    // Only what decides order and shard.
    let narrow = EventSchema { id: None, fields: Vec::new(), mark: None, label: None, ..settings.schema.clone() };
    let mut needed = vec![narrow.key.clone(), narrow.time.clone()];
    needed.extend(settings.positions.iter().flat_map(|positions| [positions.partition.clone(), positions.offset.clone()]));
    needed.extend(settings.ties.clone());
    if let Some(ties) = settings.ties.as_ref().filter(|_| !lines) {
        let fault = |text: String, help: &str| Err(Error::config("backfill", text).help(help.to_owned()));
        match columns.field_with_name(ties) {
            Err(_) => {
                return fault(
                    format!("--ties {ties}: no file has such a column"),
                    "name a column of numbers that orders rows of the same time",
                );
            }
            Ok(field) if !field.data_type().is_numeric() => {
                return fault(
                    format!("--ties {ties}: the column is {}", field.data_type()),
                    "name a column of numbers that orders rows of the same time",
                );
            }
            Ok(_) => {}
        }
    }
    let fields = columns.fields().iter().filter(|field| needed.contains(field.name())).cloned().collect::<Vec<_>>();
    let looking =
        Reading { schema: narrow, fields: needed, columns: if lines { columns } else { Arc::new(Schema::new(fields)) }, ..reading.clone() };
    let mut files = Vec::new();
    for path in &settings.paths {
        let facts = look(path, &looking, settings.until)?;
        progress(&facts);
        files.push(facts);
    }
    Ok(Survey { files, reading })
}

fn look(path: &Location, reading: &Reading, until: Option<EventTime>) -> Result<FileFacts> {
    let bytes = path.bytes()?;
    let mut facts = FileFacts { path: path.clone(), rows: 0, bytes, later: 0, span: None, sorted: true };
    let mut reader = Reader::open(path, reading)?;
    let mut last = Turn::FIRST;
    while let Some(chunk) = reader.chunk()? {
        facts.rows += u64::try_from(chunk.len()).unwrap_or(0);
        for turn in &chunk.turns {
            facts.sorted &= *turn >= last;
            last = *turn;
            facts.later += u64::from(until.is_some_and(|until| turn.at >= until.0));
            let (first, end) = facts.span.unwrap_or((*turn, *turn));
            facts.span = Some((first.min(*turn), end.max(*turn)));
        }
    }
    Ok(facts)
}

/// Columns that every chunk of Parquet files has: those that are read, each of a type that holds what any file has.
fn common_columns(settings: &Settings) -> Result<Arc<Schema>> {
    let mut columns: Vec<Field> = Vec::new();
    for path in &settings.paths {
        for field in Rows::columns(path, &settings.fields)? {
            let kind = plain(field.data_type());
            match columns.iter_mut().find(|known| known.name() == field.name()) {
                None => columns.push(Field::new(field.name(), kind, true)),
                Some(known) => {
                    let Some(both) = common(known.data_type(), &kind) else {
                        let text = format!("column `{}` is {kind} here and {} in the files before", field.name(), known.data_type());
                        return Err(Error::new(ErrorKind::Data, "backfill", text)
                            .at(path.to_string())
                            .help("write the files with one type for the column, or backfill them apart"));
                    };
                    *known = Field::new(field.name(), both, true);
                }
            }
        }
    }
    Ok(Arc::new(Schema::new(columns)))
}

/// The type without a dictionary.
fn plain(kind: &DataType) -> DataType {
    match kind {
        DataType::Dictionary(_, values) => plain(values),
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        other => other.clone(),
    }
}

/// A type that holds the values of both.
fn common(a: &DataType, b: &DataType) -> Option<DataType> {
    match (a, b) {
        (a, b) if a == b => Some(a.clone()),
        (DataType::Null, other) | (other, DataType::Null) => Some(other.clone()),
        (a, b) if a.is_integer() && b.is_integer() => Some(DataType::Int64),
        (a, b) if a.is_numeric() && b.is_numeric() => Some(DataType::Float64),
        (DataType::Timestamp(..) | DataType::Date32 | DataType::Date64, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64) => {
            Some(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))
        }
        _ => None,
    }
}
