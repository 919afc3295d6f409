//! Files against themselves: whether they tile the records that they are about. Only names and footers are read.

use std::fmt;

use serde_json::{Value as Json, json};

use crate::backfill::manifest::Manifest;
use crate::base::error::{Error, Kind, Result};
use crate::base::offset::Partition;
use crate::cli::print;
use crate::cli::summary::grouped;
use crate::link::objects::Place;
use crate::sink::parquet::audit::{Audit, Fault, audit};

/// Audits the folder of forecasts, and that of dead letters if there is one (of those there may be none at all, and they end early). Prints what
/// it found to stdout.
///
/// # Errors
/// A folder or file cannot be read, or (kind `Check`) something is lost, twice or foreign: then the error names the first such place.
pub fn verify(forecasts: &Place, dead_letters: Option<&Place>, json: bool) -> Result<()> {
    let mut audits = vec![("forecasts", forecasts, audit(forecasts)?)];
    if let Some(place) = dead_letters.filter(|place| place.folder().is_none_or(|folder| folder.exists())) {
        audits.push(("dead letters", place, audit(place)?));
    }
    let absent = match audits.first() {
        Some((_, place, audit)) => Absent::of(place, audit)?,
        None => None,
    };
    let text = if json { as_json(&audits, absent.as_ref()).to_string() + "\n" } else { as_table(&audits, absent.as_ref()) };
    let printed = print("verify", format_args!("{text}"));
    let faults: Vec<&Fault> = audits.iter().flat_map(|(_, _, audit)| &audit.faults).collect();
    if let Some(first) = faults.first() {
        let more = if faults.len() > 1 { format!("; {} more, see above", faults.len() - 1) } else { String::new() };
        return Err(Error::new(Kind::Check, "verify", format!("the output is not complete: {first}{more}")).at(forecasts.to_string()));
    }
    if audits.iter().all(|(name, _, audit)| *name != "forecasts" || audit.partitions.values().all(|tiles| tiles.files == 0)) {
        return Err(Error::new(Kind::Check, "verify", "there is no finished file yet").at(forecasts.to_string()));
    }
    if let Some(absent) = absent.filter(|absent| absent.is_fault()) {
        return Err(Error::new(Kind::Check, "verify", format!("the output is not complete: {absent}"))
            .at(forecasts.to_string())
            .help("finish the backfill, or compute what was lost: run it again as it was begun, with --resume"));
    }
    // What was found counts, also where nobody reads it.
    printed
}

/// What a backfill has not written: shards that have no file at all, or rows behind the last files. No file knows of them, but what the backfill was begun with does.
struct Absent {
    shards: Vec<u32>,
    /// Rows that the backfill takes; rows that the files are about, if that is known.
    rows: (u64, Option<u64>),
}

impl Absent {
    /// `None` if the folder is not that of a backfill, or if nothing is absent.
    fn of(forecasts: &Place, audit: &Audit) -> Result<Option<Self>> {
        let Some(objects) = forecasts.parent().map(|place| place.open_as_it_is()).transpose()? else { return Ok(None) };
        let Some(begun) = Manifest::read(&*objects)? else { return Ok(None) };
        let has_files = |shard: &u32| {
            let tiles = i32::try_from(*shard).ok().and_then(|shard| audit.partitions.get(&Partition(shard)));
            tiles.is_some_and(|tiles| tiles.files > 0)
        };
        let shards: Vec<u32> = (0..begun.shards).filter(|shard| !has_files(shard)).collect();
        // Offsets count the rows of a shard, unless they are places in a topic.
        let ends = audit.partitions.values().filter_map(|tiles| tiles.range).map(|(_, to)| u64::try_from(to.0).unwrap_or(0));
        let found: Option<u64> = begun.positions.is_none().then(|| ends.sum());
        let all = begun.files.iter().map(|file| file.rows).sum::<u64>().saturating_sub(begun.later.unwrap_or(0));
        // Where it is not known how many are left to a topic, files of all shards must do.
        let is_short = begun.later.is_some() && found.is_some_and(|found| found < all);
        Ok((!shards.is_empty() || is_short).then_some(Absent { shards, rows: (all, found) }))
    }

    /// Whether rows of theirs are known to be in no file.
    fn is_fault(&self) -> bool {
        self.rows.1.is_some_and(|found| found < self.rows.0)
    }
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.shards.is_empty() {
            let shards = self.shards.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            write!(f, "partition {shards} of the backfill has no file: ")?;
        }
        match self.rows {
            (_, None) => f.write_str("it has no rows, or they are missing; offsets are places in a topic and do not tell"),
            (all, Some(found)) if found < all => write!(
                f,
                "of {} rows the files have {}; the backfill has not come to its end, or files were lost",
                grouped(all),
                grouped(found)
            ),
            (all, Some(_)) => write!(f, "it has no rows, all {} are in the others", grouped(all)),
        }
    }
}

type Audits<'a> = [(&'a str, &'a Place, Audit)];

fn as_table(audits: &Audits<'_>, absent: Option<&Absent>) -> String {
    let mut lines = Vec::new();
    for (name, place, audit) in audits {
        lines.push(format!("{name} in {place}"));
        let columns = ["partition", "files", "without rows", "rows", "MiB", "from", "to", "unfinished"];
        lines.push(columns.map(|column| format!("{column:>14}")).concat());
        for (partition, tiles) in &audit.partitions {
            let (from, to) = tiles.range.map_or_else(Default::default, |(from, to)| (from.to_string(), to.to_string()));
            let numbers = [tiles.files, tiles.without_rows, tiles.rows, tiles.bytes >> 20].map(grouped);
            let [files, without_rows, rows, bytes] = numbers;
            let cells = [partition.to_string(), files, without_rows, rows, bytes, from, to, grouped(tiles.unfinished)];
            lines.push(cells.map(|cell| format!("{cell:>14}")).concat());
        }
        lines.extend(audit.faults.iter().map(|fault| format!("  {fault}")));
        let retired: u64 = audit.partitions.values().map(|tiles| tiles.retired).sum();
        if retired > 0 {
            lines.push(format!("  {} files are of dates before all that are here: taken for removed on purpose", grouped(retired)));
        }
        let absent = absent.filter(|_| *name == "forecasts");
        lines.extend(absent.map(|absent| format!("  {absent}")));
        let verdict = if audit.faults.is_empty() && !absent.is_some_and(Absent::is_fault) {
            "complete: the files tile their records, no hole, no overlap"
        } else {
            "not complete"
        };
        lines.push(format!("  {verdict}"));
    }
    lines.join("\n") + "\n"
}

fn as_json(audits: &Audits<'_>, absent: Option<&Absent>) -> Json {
    let sinks: Vec<Json> = audits
        .iter()
        .map(|(name, place, audit)| {
            let partitions: Vec<Json> = audit
                .partitions
                .iter()
                .map(|(partition, tiles)| {
                    json!({
                        "partition": partition.0, "files": tiles.files, "without_rows": tiles.without_rows, "rows": tiles.rows, "bytes": tiles.bytes,
                        "from": tiles.range.map(|(from, _)| from.0), "to": tiles.range.map(|(_, to)| to.0),
                        "fingerprints": tiles.fingerprints, "unfinished": tiles.unfinished, "retired": tiles.retired,
                    })
                })
                .collect();
            let faults: Vec<Json> = audit.faults.iter().map(|fault| json!({ "code": fault.code(), "text": fault.to_string() })).collect();
            json!({ "rows_of": name, "path": place.to_string(), "partitions": partitions, "faults": faults })
        })
        .collect();
    let complete = audits.iter().all(|(_, _, audit)| audit.faults.is_empty()) && !absent.is_some_and(Absent::is_fault);
    json!({ "complete": complete, "sinks": sinks, "absent": absent.map(|absent| &absent.shards) })
}
