//! The files as a table of Delta Lake: once they have their names they are noted in `_delta_log`, each exactly once.
//!
//! What follows is of the [protocol](https://github.com/delta-io/delta/blob/master/PROTOCOL.md), writer version 2, and only what plain appends need:
//! a commit is an object `_delta_log/<20 digits>.json` that is created only if there is none; its lines are actions. With the `add` of each file goes, per
//! partition, a `txn`: the application `meantime/<pipeline>/partition-P` has come to version V, the offset up to which files are noted. Who finds the number
//! of his commit taken reads what was committed meanwhile, leaves out what is noted already, and takes the next number.
//!
//! The files and their names remain what exactly once rests on; the log only follows. If the process dies between a file's name and its commit, the next
//! one that takes over the partition notes it.
//!
//! A file that begins where it ends (rows without a record) does not move the offset: those at one offset are counted by a second application,
//! `.../from=<offset>`.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use serde_json::{Value, json};

use super::checkpoint;
use super::day::{COLUMN, Day};
use super::ledger::{Entry, Piece};
use super::name::{self, Name};
use crate::base::clock;
use crate::base::error::{Error, Kind, Result};
use crate::base::offset::{Offset, Partition};
use crate::link::objects::{Objects, Put};

/// Folder of the log; `verify` leaves it out.
pub const LOG: &str = "_delta_log";
/// Commits that may come first before one gives up.
const ATTEMPTS: usize = 1000;
/// What a table may ask of its writers, where it lists that by name, and plain appends need not care about.
const HARMLESS: [&str; 3] = ["appendOnly", "invariants", "deletionVectors"];

/// A commit of a partition: one file, or where they are by date any number.
#[derive(Clone, Debug)]
pub struct Noted {
    /// The partition.
    pub partition: Partition,
    /// Its name.
    pub name: Name,
    /// First record that it is not about.
    pub to: Offset,
    /// Its files with rows.
    pub files: Vec<Added>,
}

/// A file with rows.
#[derive(Clone, Debug)]
pub struct Added {
    path: String,
    day: Option<Day>,
    rows: u64,
    bytes: u64,
}

impl Added {
    /// The file of a commit that is one. Without rows it moves the offset and is nothing to read.
    pub fn of_partition(partition: Partition, name: Name, rows: u64, bytes: u64) -> Vec<Added> {
        let path = format!("{}/{name}", name::folder(partition));
        if rows == 0 { Vec::new() } else { vec![Added { path, day: None, rows, bytes }] }
    }

    /// The files by date of a commit.
    pub fn of_dates(entry: &Entry) -> Vec<Added> {
        let added = |piece: &Piece| Added { path: piece.path(), day: Some(piece.day), rows: piece.rows, bytes: piece.bytes };
        entry.pieces.iter().map(added).collect()
    }

    /// Values of the columns that the path has and the file has not.
    fn partition_values(&self) -> Value {
        self.day.map_or_else(|| json!({}), |day| json!({ COLUMN: day.date() }))
    }
}

/// A table.
pub struct Delta {
    objects: Arc<dyn Objects>,
    pipeline: String,
    schema: Value,
    /// Columns that folders are named by.
    by: Vec<&'static str>,
    /// Last commit that was read.
    version: Option<i64>,
    seen: Seen,
}

/// What the commits so far say.
#[derive(Debug, Default)]
pub struct Seen {
    /// Versions of applications.
    pub txns: BTreeMap<String, i64>,
    /// Whether there is a table: it has columns.
    pub has_table: bool,
}

impl Delta {
    /// Reads the log, if there is one already. `schema`: columns of the files; those by date have one more in their path.
    ///
    /// # Errors
    /// It cannot be read, asks more of its writers than appends, or has other columns.
    pub fn open(objects: Arc<dyn Objects>, pipeline: &str, schema: &Schema, by_date: bool) -> Result<Self> {
        let date = Field::new(COLUMN, DataType::Date32, true);
        let columns = schema.fields().iter().map(AsRef::as_ref).chain(Some(&date).filter(|_| by_date));
        let schema = json!({ "type": "struct", "fields": fields(columns)? });
        let by = if by_date { vec![COLUMN] } else { Vec::new() };
        let mut delta = Delta { objects, pipeline: pipeline.to_owned(), schema, by, version: None, seen: Seen::default() };
        delta.load()?;
        Ok(delta)
    }

    /// From the newest checkpoint on, or from the first commit.
    fn load(&mut self) -> Result<()> {
        let (mut commits, mut checkpoints) = (Vec::new(), Vec::new());
        for entry in self.objects.list(&format!("{LOG}/"))? {
            let Some((number, ending)) = entry.name.strip_prefix(LOG).and_then(|name| name.trim_start_matches('/').split_once('.')) else {
                continue;
            };
            let Ok(number) = number.parse::<i64>() else { continue };
            match ending {
                "json" => commits.push(number),
                "checkpoint.parquet" => checkpoints.push((number, entry)),
                _ => {}
            }
        }
        if let Some((number, entry)) = checkpoints.pop() {
            let (seen, protocol, metadata) = checkpoint::read(&self.objects, entry)?;
            self.seen = seen;
            for action in [protocol.map(|value| json!({ "protocol": value })), metadata.map(|value| json!({ "metaData": value }))] {
                self.take(&action.unwrap_or_default())?;
            }
            self.version = Some(number);
        } else if commits.first().is_some_and(|first| *first > 0) {
            return Err(self
                .refused("its first commits are gone, and of their checkpoint there is no kind that meantime reads")
                .help("make a classic checkpoint of the table, in one file, with the engine that removed them"));
        }
        self.refresh()
    }

    /// Reads the commits that have come since.
    fn refresh(&mut self) -> Result<()> {
        loop {
            let number = self.version.map_or(0, |version| version + 1);
            let Some(bytes) = self.objects.get(&commit(number))? else { return Ok(()) };
            for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
                let action = serde_json::from_slice(line).map_err(|e| self.refused(&format!("commit {number} cannot be read: {e}")))?;
                self.take(&action)?;
            }
            self.version = Some(number);
        }
    }

    fn take(&mut self, action: &Value) -> Result<()> {
        if let Some(txn) = action.get("txn")
            && let (Some(app), Some(version)) = (txn.get("appId").and_then(Value::as_str), txn.get("version").and_then(Value::as_i64))
        {
            self.seen.txns.insert(app.to_owned(), version);
        }
        if let Some(protocol) = action.get("protocol") {
            let asked = protocol.get("minWriterVersion").and_then(Value::as_i64).unwrap_or(i64::MAX);
            let features = protocol.get("writerFeatures").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let other = features.iter().filter_map(Value::as_str).find(|feature| !HARMLESS.contains(feature));
            if let Some(feature) = other.filter(|_| asked == 7) {
                return Err(self.refused(&format!("it asks of its writers to know `{feature}`")).help("name an empty folder"));
            }
            if asked > 2 && asked != 7 {
                return Err(self.refused(&format!("it asks for writers of version {asked}")).help("name an empty folder"));
            }
        }
        if let Some(metadata) = action.get("metaData") {
            self.compare(metadata)?;
            self.seen.has_table = true;
        }
        Ok(())
    }

    /// Whether our rows fit the table.
    fn compare(&self, metadata: &Value) -> Result<()> {
        let theirs = metadata.get("partitionColumns").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if theirs.iter().filter_map(Value::as_str).collect::<Vec<_>>() != self.by {
            let said = |columns: String, none: bool| if none { "not partitioned".to_owned() } else { format!("partitioned by {columns}") };
            let own = said(self.by.join(", "), self.by.is_empty());
            let its = said(theirs.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "), theirs.is_empty());
            return Err(self
                .refused(&format!("it is {its}, and the files are {own}"))
                .help("name an empty folder, or write the other layout"));
        }
        let text = metadata.get("schemaString").and_then(Value::as_str).unwrap_or_default();
        let theirs: Value = serde_json::from_str(text).map_err(|e| self.refused(&format!("its columns cannot be read: {e}")))?;
        let of = |schema: &Value| -> BTreeMap<String, Value> {
            let fields = schema.get("fields").and_then(Value::as_array).cloned().unwrap_or_default();
            fields.into_iter().filter_map(|field| Some((field.get("name")?.as_str()?.to_owned(), without_metadata(field)))).collect()
        };
        let (ours, theirs) = (of(&self.schema), of(&theirs));
        if let Some((name, _)) =
            ours.iter().find(|(name, field)| theirs.get(*name).is_none_or(|other| other.get("type") != field.get("type")))
        {
            let text = format!("it has no column `{name}` of the type that the pipeline writes");
            return Err(self.refused(&text).help("name an empty folder, or write what the table has: [sink] fields"));
        }
        let needed = theirs.iter().find(|(name, field)| !ours.contains_key(*name) && field.get("nullable") == Some(&Value::Bool(false)));
        if let Some((name, _)) = needed {
            return Err(self.refused(&format!("its column `{name}` must have a value, and the pipeline does not write it")));
        }
        Ok(())
    }

    fn refused(&self, why: &str) -> Error {
        Error::config("sink", format!("the table cannot be appended to: {why}")).at(format!("{}/{LOG}", self.objects))
    }

    fn app(&self, partition: Partition) -> String {
        format!("meantime/{}/{}", self.pipeline, name::folder(partition))
    }

    /// Name of the first file of a partition that is not noted; `None` if none is.
    #[must_use]
    pub fn next(&self, partition: Partition) -> Option<Name> {
        let app = self.app(partition);
        let from = Offset(*self.seen.txns.get(&app)?);
        let step = self.seen.txns.get(&step_app(&app, from)).and_then(|step| u32::try_from(*step).ok()).unwrap_or(0);
        Some(Name { from, step })
    }

    /// Bytes of the finished files of a partition.
    ///
    /// # Errors
    /// The place cannot be read.
    pub fn sizes(&self, partition: Partition) -> Result<BTreeMap<Name, u64>> {
        let folder = format!("{}/", name::folder(partition));
        let entries = self.objects.list(&folder)?;
        Ok(entries.iter().filter_map(|entry| Some((Name::read(entry.name.strip_prefix(&folder)?)?, entry.bytes))).collect())
    }

    /// Notes the files that are not noted yet, in one commit. Files of a partition stand in the order of their names.
    ///
    /// # Errors
    /// The log cannot be read or written, or the table has been changed into one that cannot be appended to.
    pub fn append(&mut self, files: &[Noted]) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let fresh: Vec<&Noted> = files.iter().filter(|file| self.next(file.partition).is_none_or(|next| file.name >= next)).collect();
            if fresh.is_empty() {
                return Ok(());
            }
            let number = self.version.map_or(0, |version| version + 1);
            let actions = self.actions(&fresh);
            let lines: String = actions.iter().map(|action| format!("{action}\n")).collect();
            if self.objects.put_new(&commit(number), lines.as_bytes())? == Put::Created {
                actions.iter().try_for_each(|action| self.take(action))?;
                self.version = Some(number);
                return Ok(());
            }
            self.refresh()?;
        }
        Err(Error::new(Kind::Retry, "sink", format!("of {ATTEMPTS} commits to the table another one came first each time"))
            .at(format!("{}/{LOG}", self.objects)))
    }

    fn actions(&self, files: &[&Noted]) -> Vec<Value> {
        let now = clock::now().0.div_euclid(1000);
        let mut actions = vec![json!({ "commitInfo": {
            "timestamp": now, "operation": "WRITE", "operationParameters": { "mode": "Append" }, "isBlindAppend": true,
            "engineInfo": concat!("meantime/", env!("CARGO_PKG_VERSION")),
        }})];
        if !self.seen.has_table {
            actions.push(json!({ "protocol": { "minReaderVersion": 1, "minWriterVersion": 2 } }));
            actions.push(json!({ "metaData": {
                "id": identity(), "name": self.pipeline, "format": { "provider": "parquet", "options": {} },
                "schemaString": self.schema.to_string(), "partitionColumns": self.by, "configuration": {}, "createdTime": now,
            }}));
        }
        let mut ends: BTreeMap<Partition, Name> = BTreeMap::new();
        for file in files {
            ends.insert(file.partition, file.name.after(file.to));
            for added in &file.files {
                actions.push(json!({ "add": {
                    "path": added.path, "partitionValues": added.partition_values(), "size": added.bytes,
                    "modificationTime": now, "dataChange": true, "stats": json!({ "numRecords": added.rows }).to_string(),
                }}));
            }
        }
        for (partition, end) in ends {
            let app = self.app(partition);
            actions.push(json!({ "txn": { "appId": app, "version": end.from.0, "lastUpdated": now } }));
            if end.step > 0 {
                actions.push(json!({ "txn": { "appId": step_app(&app, end.from), "version": end.step, "lastUpdated": now } }));
            }
        }
        actions
    }
}

fn step_app(app: &str, from: Offset) -> String {
    format!("{app}/from={from}")
}

fn commit(number: i64) -> String {
    format!("{LOG}/{number:020}.json")
}

/// A random UUID: the keys of a hash map come from the operating system's random numbers.
fn identity() -> String {
    let (a, b) = (RandomState::new().hash_one(0), RandomState::new().hash_one(1));
    let (time, node) = (a & 0xffff_ffff_ffff_0fff | 0x4000, b & 0x3fff_ffff_ffff_ffff | 0x8000_0000_0000_0000);
    format!("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", time >> 32, time >> 16 & 0xffff, time & 0xffff, node >> 48, node & 0xffff_ffff_ffff)
}

/// What other writers note about a column says nothing of its type.
fn without_metadata(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            object.into_iter().filter(|(name, _)| name != "metadata").map(|(name, value)| (name, without_metadata(value))).collect()
        }
        Value::Array(values) => values.into_iter().map(without_metadata).collect(),
        other => other,
    }
}

fn fields<'a>(fields: impl Iterator<Item = &'a Field>) -> Result<Vec<Value>> {
    let field = |field: &Field| -> Result<Value> {
        let kind = kind(field.data_type())?;
        Ok(json!({ "name": field.name(), "type": kind, "nullable": field.is_nullable(), "metadata": {} }))
    };
    fields.map(field).collect()
}

/// The type of a column as Delta calls it.
fn kind(of: &DataType) -> Result<Value> {
    Ok(match of {
        DataType::Utf8 => json!("string"),
        DataType::Binary => json!("binary"),
        DataType::Boolean => json!("boolean"),
        DataType::Int32 => json!("integer"),
        DataType::Int64 => json!("long"),
        DataType::Float32 => json!("float"),
        DataType::Float64 => json!("double"),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => json!("timestamp"),
        DataType::Date32 => json!("date"),
        DataType::List(item) => json!({ "type": "array", "elementType": kind(item.data_type())?, "containsNull": item.is_nullable() }),
        DataType::Struct(inner) => json!({ "type": "struct", "fields": fields(inner.iter().map(AsRef::as_ref))? }),
        other => return Err(Error::internal("sink", format!("a column of the type {other} has no place in a Delta table"))),
    })
}

#[cfg(test)]
mod tests;
