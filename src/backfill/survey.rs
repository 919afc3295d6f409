//! What is in the files: rows, bytes, columns, first and last time, and whether they are in order.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::Settings;
use super::chunk::{Turn, line_schema};
use super::columns::{Roles, common, plain};
use super::reader::{Reader, Reading};
use crate::base::error::{Error, Kind as ErrorKind, Result};
use crate::base::nearest::nearest;
use crate::base::time::EventTime;
use crate::data::schema::EventSchema;
use crate::link::file::Location;
use crate::link::query::{Bound, SELECT, WHERE};
use crate::source::file::{Kind, Rows};

/// Names of columns that an error lists.
const SHOWN: usize = 20;

/// A file.
#[derive(Clone, Debug, PartialEq)]
pub struct FileFacts {
    /// Where it is.
    pub path: Location,
    /// Rows that are taken, or lines that are not blank.
    pub rows: u64,
    /// Rows that are not, because the condition on them does not hold.
    pub excluded: u64,
    /// Bytes.
    pub bytes: u64,
    /// Rows that are not taken because their turn comes at or after the end that is set.
    pub later: u64,
    /// First and last turn, if it has any rows.
    pub span: Option<(Turn, Turn)>,
    /// Whether no row's turn is before that of the one above it.
    pub sorted: bool,
    /// Of all lines of an NDJSON file; of a Parquet file of keys and times, or places in the topic, and if it is on this machine of the footer: places, lengths
    /// and bounds of all columns.
    pub checksum: u32,
    /// The same without the footer: what is found again when it is read.
    pub seen: u32,
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
    /// Rows of all files that are taken.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows).sum()
    }

    /// Rows of all files that are not taken because the condition on them does not hold.
    #[must_use]
    pub fn excluded(&self) -> u64 {
        self.files.iter().map(|file| file.excluded).sum()
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

/// Looks at all files. Of Parquet files only key and time are read, and what a condition or computed columns need, of NDJSON files everything. `progress` hears of each file that is done.
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
    if lines && settings.positions.is_some() {
        return Err(Error::config("backfill", "--positions names columns, and NDJSON files have none").help("write the files as Parquet"));
    }
    if lines && settings.query.is_some() {
        return Err(Error::config("backfill", format!("{WHERE} and {SELECT} read columns, and NDJSON files have none"))
            .help("write the files as Parquet, or filter their lines before"));
    }
    let inputs = |wanted: &[String]| settings.query.as_ref().map_or_else(|| wanted.to_vec(), |query| query.inputs(wanted));
    let fields = inputs(&settings.fields);
    let raw = if lines { line_schema() } else { common_columns(settings, &fields)? };
    if let Some((option, name)) = settings.query.as_ref().and_then(|query| query.missing(&raw)) {
        return Err(unknown(settings, option, name));
    }
    let query = bind(settings, &raw, &settings.fields)?;
    // Those that come out.
    let columns = query.as_ref().map_or(&raw, Bound::columns);
    if !lines {
        complete(settings, columns)?;
    }
    let reading = Reading {
        schema: settings.schema.clone(),
        fields,
        columns: Arc::clone(&raw),
        query: query.clone(),
        lines,
        positions: settings.positions.clone(),
        ties: settings.ties.clone(),
        shards: settings.shards,
    };
    // Only what decides order and shard.
    let narrow = EventSchema { id: None, fields: Vec::new(), mark: None, label: None, ..settings.schema.clone() };
    let mut needed = vec![narrow.key.clone(), narrow.time.clone()];
    needed.extend(settings.positions.iter().flat_map(|positions| [positions.partition.clone(), positions.offset.clone()]));
    needed.extend(settings.ties.clone());
    for name in settings.positions.iter().flat_map(|positions| [&positions.partition, &positions.offset]) {
        if columns.field_with_name(name).is_err() {
            return Err(Error::config("backfill", format!("--positions {name}: no file has such a column")).help(near(settings, name)));
        }
    }
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
    let read = inputs(&needed);
    let few = raw.fields().iter().filter(|field| read.contains(field.name())).cloned().collect::<Vec<_>>();
    let few = if lines { raw } else { Arc::new(Schema::new(few)) };
    let query = bind(settings, &few, &needed)?;
    let looking = Reading { schema: narrow, fields: read, columns: few, query, ..reading.clone() };
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
    let mut facts = FileFacts { path: path.clone(), rows: 0, excluded: 0, bytes, later: 0, span: None, sorted: true, checksum: 0, seen: 0 };
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
    facts.excluded = reader.excluded();
    facts.seen = reader.checksum();
    facts.checksum = path.footer_checksum()?.rotate_left(1) ^ reader.checksum();
    Ok(facts)
}

/// What is asked of the rows, over columns that the files have.
fn bind(settings: &Settings, columns: &SchemaRef, wanted: &[String]) -> Result<Option<Bound>> {
    settings.query.as_ref().map(|query| query.bind(columns, wanted)).transpose()
}

/// Holds the files to what the pipeline reads: key and time must be there; of anything else it is said that no file has it, since a value that is always
/// missing is no error, but hardly what is meant.
fn complete(settings: &Settings, columns: &SchemaRef) -> Result<()> {
    let is_there = |name: &str| columns.field_with_name(name).is_ok();
    for (role, name) in [("key", &settings.schema.key), ("time", &settings.schema.time)] {
        if !is_there(name) {
            let folders = settings.paths.iter().any(|path| path.to_string().contains(&format!("/{name}=")));
            let help = if folders {
                format!("columns that stand in the names of folders only, as `{name}=...` does, are not read: write it into the files")
            } else {
                near(settings, name)
            };
            return Err(Error::config("backfill", format!("no file has a column `{name}`, the {role} of [event]")).help(help));
        }
    }
    for name in settings.schema.id.iter().chain(settings.schema.fields.iter().map(|field| &field.name)).filter(|name| !is_there(name)) {
        tracing::warn!(column = name, help = near(settings, name), "no file has this column: its value is missing in every row");
    }
    Ok(())
}

/// What a column may be called instead.
fn near(settings: &Settings, name: &str) -> String {
    let known = known(settings);
    match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            let more = known.len().saturating_sub(SHOWN);
            let shown = known.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
            if more > 0 { format!("they have {shown} and {more} more") } else { format!("they have {shown}") }
        }
    }
}

/// The columns of all files.
fn known(settings: &Settings) -> std::collections::BTreeSet<String> {
    let mut known = std::collections::BTreeSet::new();
    for path in &settings.paths {
        // What cannot be read has been said before.
        Rows::columns(path, &[]).unwrap_or_default().iter().for_each(|field| paths(field, "", &mut known));
    }
    known
}

/// A column that no file has.
fn unknown(settings: &Settings, option: &str, name: &str) -> Error {
    let help = near(settings, name);
    Error::new(ErrorKind::Usage, "backfill", format!("{option}: no file has a column `{name}`"))
        .help(format!("{help} (a text stands in 'single quotes', capital letters count)"))
}

/// The paths of a column and of those within it.
fn paths(field: &Field, above: &str, found: &mut std::collections::BTreeSet<String>) {
    let path = if above.is_empty() { field.name().clone() } else { format!("{above}.{}", field.name()) };
    if let DataType::Struct(inner) = field.data_type() {
        inner.iter().for_each(|field| paths(field, &path, found));
    } else {
        found.insert(path);
    }
}

/// Columns that are read of every Parquet file, each of a type that holds what any file has.
fn common_columns(settings: &Settings, fields: &[String]) -> Result<SchemaRef> {
    let roles = Roles::of(&settings.schema, settings.ties.as_deref());
    let mut columns: Vec<Field> = Vec::new();
    for path in &settings.paths {
        for field in Rows::columns(path, fields)? {
            let (name, kind) = (field.name(), plain(field.data_type()));
            match columns.iter_mut().find(|known| known.name() == name) {
                None => columns.push(Field::new(name, kind, true)),
                Some(known) => {
                    // Expressions are asked of what stands in the files.
                    let text = roles.is_text(name).then_some(settings.query.is_none());
                    let Some(both) = common(known.data_type(), &kind, text) else {
                        let text = format!("column `{name}` is {kind} here and {} in the files before", known.data_type());
                        return Err(Error::new(ErrorKind::Data, "backfill", text)
                            .at(path.to_string())
                            .help("write the files with one type for the column, or backfill them apart"));
                    };
                    *known = Field::new(name, both, true);
                }
            }
        }
    }
    Ok(Arc::new(Schema::new(columns)))
}
