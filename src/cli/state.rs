//! `meantime state ls|get|export|migrate`: look into the snapshots of a pipeline, and make them another model's.

mod migrate;

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::error::ArrowError;
use arrow::ipc::reader::FileReader;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use serde_json::{Value as Json, json};

use super::PipelineArgs;
use super::draft::Draft;
use crate::base::clock;
use crate::base::error::{Error, Kind, Result};
use crate::base::offset::{Offset, Partition};
use crate::base::time::EventTime;
use crate::data::events::{Column, Events};
use crate::link::objects::Place;
use crate::model::Package;
use crate::pipeline::plan::Plan;
use crate::pipeline::{self, Purpose};
use crate::state::snapshot::{Found, Header, KeyState, Listed, Snapshots};

/// The sub-commands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the snapshots of each partition, newest first, and whether each can be used; reads and checks every file.
    Ls {
        /// The pipeline.
        #[command(flatten)]
        pipeline: PipelineArgs,
    },
    /// Print what the newest snapshots hold of one key, as JSON.
    Get {
        /// The pipeline.
        #[command(flatten)]
        pipeline: PipelineArgs,
        /// The key, as it is in the records.
        #[arg(value_name = "KEY")]
        key: String,
    },
    /// Write the newest state of every partition as one table: all keys, Arrow IPC or Parquet.
    Export {
        /// The pipeline.
        #[command(flatten)]
        pipeline: PipelineArgs,
        /// A file that ends in .arrow or .parquet, for one partition; or a folder, which gets partition-P.arrow for each.
        #[arg(long, value_name = "FILE|DIR")]
        to: PathBuf,
        /// Only this partition.
        #[arg(long, value_name = "P")]
        partition: Option<i32>,
    },
    /// Make the key states those of another model: snapshots that a run with the other package goes on from.
    Migrate(migrate::Args),
}

/// Runs the sub-command.
///
/// # Errors
/// The pipeline is refused or names no place for snapshots, the place cannot be read, or what was asked for is not there.
pub fn run(command: &Command) -> Result<()> {
    match command {
        Command::Ls { pipeline } => {
            let (_, snapshots) = open(pipeline)?;
            print(&table(&snapshots.list()?, clock::now()))
        }
        Command::Get { pipeline, key } => {
            let (plan, snapshots) = open(pipeline)?;
            get(&plan, &snapshots, key)
        }
        Command::Export { pipeline, to, partition } => {
            let (_, snapshots) = open(pipeline)?;
            export(&snapshots, to, partition.map(Partition))
        }
        Command::Migrate(args) => migrate::run(args),
    }
}

fn open(args: &PipelineArgs) -> Result<(Plan, Snapshots)> {
    let plan = pipeline::load(&args.pipeline, &args.sets, Purpose::Run)?;
    let Some(settings) = &plan.snapshots else {
        return Err(Error::config("state", "the pipeline takes no snapshots").help("add snapshots = \"PATH or URL\" to [state]"));
    };
    // To look for snapshots must not make a folder for them.
    if let Place::Folder(path) = &settings.place
        && !path.is_dir()
    {
        return Err(Error::config("state", "there is no such folder: no snapshot has been taken yet").at(path.display().to_string()));
    }
    let fingerprint = plan.fingerprint(&Package::load(&plan.package)?.digest)?;
    let columns = plan.state_columns()?.ok_or_else(|| Error::internal("state", "the plan was made without a model"))?;
    let snapshots = Snapshots::open(&settings.place, columns, &fingerprint)?;
    Ok((plan, snapshots))
}

/// The list as a table for people.
fn table(listed: &[Listed], now: EventTime) -> String {
    let mut rows = vec![["partition", "offset", "age", "kind", "rows", "bytes", "fingerprint", "usable"].map(str::to_owned)];
    for snapshot in listed {
        let header = snapshot.manifest.as_ref().map(|manifest| &manifest.header);
        let of = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        rows.push([
            snapshot.partition.to_string(),
            snapshot.offset.to_string(),
            header.map_or_else(|| "-".to_owned(), |header| age(header.written, now)),
            snapshot.kind.to_string(),
            of(snapshot.manifest.as_ref().map(|manifest| manifest.rows)),
            of(snapshot.manifest.as_ref().map(|manifest| manifest.bytes)),
            header.map_or_else(|| "-".to_owned(), |header| header.fingerprint.clone()),
            usable(snapshot, header),
        ]);
    }
    let mut text = aligned(&rows);
    if listed.is_empty() {
        text.push_str("no snapshots\n");
    }
    text
}

/// Whether a snapshot can be used, and where it comes from if its states were another model's.
fn usable(snapshot: &Listed, header: Option<&Header>) -> String {
    let usable = snapshot.fault.as_ref().map_or_else(|| "yes".to_owned(), |fault| format!("no: {fault}"));
    match header.and_then(|header| header.migrated.as_ref()) {
        Some(migrated) => format!("{usable} ({} from {}, {})", migrated.mode, migrated.from, migrated.model),
        None => usable,
    }
}

/// Rows of cells, each column as wide as its widest cell.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// `2m 5s`: whole seconds.
fn age(written: EventTime, now: EventTime) -> String {
    let micros = u64::try_from(now.since(written).0).unwrap_or(0);
    humantime::format_duration(Duration::from_secs(micros / 1_000_000)).to_string()
}

fn get(plan: &Plan, snapshots: &Snapshots, key: &str) -> Result<()> {
    let mut without = Vec::new();
    for partition in snapshots.partitions()? {
        let Some(found) = snapshots.newest(partition, Offset(i64::MAX))? else {
            without.push(partition);
            continue;
        };
        if let Some(state) = found.key(key.as_bytes())? {
            let fields: Vec<&str> = plan.schema.fields.iter().map(|field| field.name.as_str()).collect();
            let shown = shown(key, partition, &found, &state, &fields);
            let text = serde_json::to_string_pretty(&shown).map_err(|e| Error::internal("state", e.to_string()))?;
            return print(&format!("{text}\n"));
        }
    }
    Err(unknown(key, &without))
}

/// No snapshot that can be used knows a key; `without` have none, and may be where it is.
fn unknown(key: &str, without: &[Partition]) -> Error {
    if without.is_empty() {
        return Error::new(Kind::Check, "state", format!("no usable snapshot knows the key `{key}`"))
            .help("`meantime state ls` lists the snapshots; an event since the newest one is not in it");
    }
    let text =
        format!("the key `{key}` is in no snapshot that can be used, and partition {} has none that can: it may be there", list(without));
    Error::new(Kind::Check, "state", text).help("`meantime state ls` says why")
}

/// `0, 2`.
fn list(partitions: &[Partition]) -> String {
    partitions.iter().map(Partition::to_string).collect::<Vec<_>>().join(", ")
}

/// A key's state as JSON; a number that is not one is null.
fn shown(key: &str, partition: Partition, found: &Found, state: &KeyState, fields: &[&str]) -> Json {
    let mut tensors = serde_json::Map::new();
    for (name, values) in &state.tensors {
        // As in the files: a tensor of the graph may be called as another part of the state.
        let name = if tensors.contains_key(name) { format!("state.{name}") } else { name.clone() };
        tensors.insert(name, json!(values));
    }
    json!({
        "key": key,
        "partition": partition.0,
        "offset": found.offset.0,
        "last_event": state.last.map(|time| time.to_string()),
        "n_events": state.events,
        "tensors": tensors,
        "aggregates": state.aggregates,
        "overdue": state.overdue.iter().map(|(_, due)| due.to_string()).collect::<Vec<_>>(),
        "held": (0..state.held.len()).map(|row| event(&state.held, row, fields)).collect::<Vec<_>>(),
    })
}

/// One held event.
fn event(events: &Events, row: usize, names: &[&str]) -> Json {
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let mut fields = serde_json::Map::new();
    for (name, column) in names.iter().zip(&events.columns) {
        let value = match column {
            Column::Number(values) => json!(values.get(row)),
            Column::Text(values) => json!(text(values.get(row))),
        };
        fields.insert((*name).to_owned(), value);
    }
    json!({
        "event_time": events.times.get(row).map(EventTime::to_string),
        "offset": events.offsets.get(row).map(|offset| offset.0),
        "event_id": text(events.ids.get(row)),
        "fields": fields,
    })
}

fn export(snapshots: &Snapshots, to: &Path, only: Option<Partition>) -> Result<()> {
    let all = snapshots.partitions()?;
    let wanted: Vec<Partition> = all.into_iter().filter(|partition| only.is_none_or(|only| *partition == only)).collect();
    let (mut found, mut without) = (Vec::new(), Vec::new());
    for partition in wanted {
        // One at a time in memory would mean to learn of a missing one after half of the work; their files are read below.
        match snapshots.newest(partition, Offset(i64::MAX))? {
            Some(snapshot) => found.push((partition, snapshot)),
            None => without.push(partition),
        }
    }
    if found.is_empty() {
        return Err(Error::new(Kind::Check, "state", "there is no usable snapshot to export").help("`meantime state ls` says why"));
    }
    let extension = to.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let is_file = matches!(extension, "arrow" | "parquet") && !to.is_dir();
    match found.as_slice() {
        _ if !is_file => {
            std::fs::create_dir_all(to).map_err(|e| Error::io("state", to, e))?;
            found.iter().try_for_each(|(partition, found)| write(found, &to.join(format!("partition-{partition}.arrow"))))?;
        }
        [(_, only)] if without.is_empty() => write(only, to)?,
        some => {
            let partitions = some.len() + without.len();
            return Err(Error::new(Kind::Usage, "state", format!("there are {partitions} partitions, and `{}` is one file", to.display()))
                .help("name a folder, or one of them with --partition"));
        }
    }
    if without.is_empty() {
        return Ok(());
    }
    let text = format!("the export is not whole: there is no usable snapshot of partition {}", list(&without));
    Err(Error::new(Kind::Check, "state", text).at(to.display().to_string()).help(
        "`meantime state ls` says why; the others were written. A file of such a partition that stands there is of an earlier export",
    ))
}

fn write(found: &Found, to: &Path) -> Result<()> {
    let draft = Draft::new("state", to)?;
    let bytes = found.merged()?;
    draft.finish(&if to.extension().is_some_and(|extension| extension == "parquet") { parquet_of(&bytes)? } else { bytes })?;
    print(&format!("{}: {} keys at offset {}\n", to.display(), found.keys, found.offset))
}

/// An Arrow IPC file as a Parquet file.
fn parquet_of(bytes: &[u8]) -> Result<Vec<u8>> {
    let arrow = |e: ArrowError| Error::internal("state", e.to_string()).caused_by(e);
    let failed = |e: ParquetError| Error::internal("state", e.to_string()).caused_by(e);
    let reader = FileReader::try_new(Cursor::new(bytes), None).map_err(arrow)?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), reader.schema(), Some(properties)).map_err(failed)?;
    for batch in reader {
        writer.write(&batch.map_err(arrow)?).map_err(failed)?;
    }
    writer.into_inner().map_err(failed)
}

fn print(text: &str) -> Result<()> {
    super::print("state", format_args!("{text}"))
}

#[cfg(test)]
mod tests;
