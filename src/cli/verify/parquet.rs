//! Files against themselves: whether they tile the records that they are about. Only names and footers are read.

use serde_json::{Value as Json, json};

use crate::base::error::{Error, Kind, Result};
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
    let text = if json { as_json(&audits).to_string() + "\n" } else { as_table(&audits) };
    let printed = print("verify", format_args!("{text}"));
    let faults: Vec<&Fault> = audits.iter().flat_map(|(_, _, audit)| &audit.faults).collect();
    if let Some(first) = faults.first() {
        let more = if faults.len() > 1 { format!("; {} more, see above", faults.len() - 1) } else { String::new() };
        return Err(Error::new(Kind::Check, "verify", format!("the output is not complete: {first}{more}")).at(forecasts.to_string()));
    }
    if audits.iter().all(|(name, _, audit)| *name != "forecasts" || audit.partitions.values().all(|tiles| tiles.files == 0)) {
        return Err(Error::new(Kind::Check, "verify", "there is no finished file yet").at(forecasts.to_string()));
    }
    // What was found counts, also where nobody reads it.
    printed
}

type Audits<'a> = [(&'a str, &'a Place, Audit)];

fn as_table(audits: &Audits<'_>) -> String {
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
        let verdict = if audit.faults.is_empty() { "complete: the files tile their records, no hole, no overlap" } else { "not complete" };
        lines.push(format!("  {verdict}"));
    }
    lines.join("\n") + "\n"
}

fn as_json(audits: &Audits<'_>) -> Json {
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
    json!({ "complete": audits.iter().all(|(_, _, audit)| audit.faults.is_empty()), "sinks": sinks })
}
