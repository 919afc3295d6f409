//! `meantime parity`: what was sent against what comes out when the files are taken again, bit for bit.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::reader::ChunkReader;
use serde_json::Value;

use super::progress::Progress;
use super::query::QueryArgs;
use super::replay::moment;
use super::summary::grouped;
use super::{PipelineArgs, files, print};
use crate::backfill::Settings;
use crate::backfill::chunk::input_of;
use crate::backfill::feed::runs;
use crate::backfill::merge::Merge;
use crate::backfill::survey::survey;
use crate::base::error::{Error, Kind, Result};
use crate::base::number::i64_of_count;
use crate::base::offset::{Offset, Partition};
use crate::base::time::EventTime;
use crate::evaluate::parity::{Findings, Names, Parity, Row, Side, of_json, of_table};
use crate::link::objects::Place;
use crate::pipeline::plan::Plan;
use crate::pipeline::{self, Purpose};
use crate::run::Stage;
use crate::sink;
use crate::sink::json::RowEncoder;
#[cfg(feature = "kafka")]
use crate::source;

/// Arguments of `parity`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// What was sent: a folder of Parquet files (of `run` or `backfill`), `s3://bucket/prefix` (`gs://`, `az://`), a file of JSON lines (of the sink `ndjson`), or the
    /// name of a topic on the brokers of the pipeline's source.
    #[arg(long, value_name = "DIR|URL|FILE|TOPIC")]
    live: String,
    /// The same events as files: Parquet or NDJSON, patterns of them in quotes, or a folder of them.
    #[arg(long, value_name = "GLOB", num_args = 1.., required = true)]
    files: Vec<String>,
    #[command(flatten)]
    query: QueryArgs,
    /// Column of numbers that orders rows of the same time in the files, where they do not stand in the order in which they were sent.
    #[arg(long, value_name = "COLUMN")]
    ties: Option<String>,
    /// Compare only events from this time on, such as 2026-03-01 or 2026-03-01T12:00:00Z; earlier ones still build up the states.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Compare only events before this time, such as those before a new model was taken.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Print the findings to stdout as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Compares and prints what was found to stdout.
///
/// # Errors
/// Something differs or is missing (exit code 1); something cannot be read.
pub fn run(args: &Args) -> Result<()> {
    let mut plan = pipeline::load(&args.pipeline.pipeline, &args.pipeline.sets, Purpose::Backfill)?;
    plan.take_all();
    let scratch = tempfile::tempdir().map_err(|e| Error::io("parity", &std::env::temp_dir(), e))?;
    let mut fields = plan.field_names();
    if let Some(ties) = args.ties.as_ref().filter(|ties| !fields.contains(ties)) {
        fields.push(ties.clone());
    }
    let settings = Settings {
        query: args.query.query("parity", &fields)?,
        ties: args.ties.clone(),
        ..Settings::whole(files::named_by("parity", "--files", &args.files)?.paths, plan.schema.clone(), fields, scratch.path().to_owned())
    };
    let stage = Stage::load(plan)?;
    let Some(names) = Names::new(&stage.layout) else {
        return Err(Error::config("parity", "the rows that the pipeline writes cannot be told apart")
            .help("write event_id, or key and event_time: [sink] fields"));
    };
    let span = [("since", &args.since), ("until", &args.until)].map(|(option, text)| moment("parity", option, text.as_ref()));
    let [since, until] = span;
    let mut parity = Parity::new(names).within(since?, until?).ok_or_else(|| {
        Error::config("parity", "the rows that the pipeline writes do not say when their events were")
            .help("write event_time: [sink] fields")
    })?;
    loop {
        live(&stage.plan, &args.live, &mut |row| parity.take(Side::Live, &row))?;
        recomputed(&stage, &args.live, &settings, &mut parity)?;
        if !parity.end() {
            break;
        }
    }
    let findings = parity.findings();
    let text = if args.json { serde_json::json!(findings).to_string() + "\n" } else { shown(&findings) };
    let printed = print("parity", format_args!("{text}"));
    if findings.equal_in_all() {
        return printed;
    }
    let text = format!(
        "{} rows differ, {} are only live, {} only in the files",
        grouped_of(findings.different),
        grouped_of(findings.only_live),
        grouped_of(findings.only_files)
    );
    Err(Error::new(Kind::Check, "parity", text))
}

fn grouped_of(count: usize) -> String {
    grouped(u64::try_from(count).unwrap_or(u64::MAX))
}

fn shown(findings: &Findings) -> String {
    let mut lines = vec![format!("equal, bit for bit   {}", grouped_of(findings.equal))];
    for (name, count) in [
        ("different", findings.different),
        ("only live", findings.only_live),
        ("only in the files", findings.only_files),
        ("overdue, not compared", findings.overdue),
    ] {
        if count > 0 || name == "different" {
            lines.push(format!("{name:<20} {}", grouped_of(count)));
        }
    }
    for difference in &findings.first {
        lines.push(format!("  {}", difference.event));
        lines.push(format!("    {}: live {}, recomputed {}", difference.field, difference.live, difference.recomputed));
        lines.push(format!("    likely cause: {}", difference.cause));
    }
    lines.extend(findings.missing.iter().map(|text| format!("  {text}")));
    lines.join("\n") + "\n"
}

/// Every row that was sent to a folder, a bucket or a topic.
///
/// # Errors
/// It cannot be read, or holds something else.
pub fn live(plan: &Plan, place: &str, take: &mut dyn FnMut(Row)) -> Result<()> {
    let (folder, url) = (Path::new(place), place.contains("://"));
    if folder.is_dir() || url {
        let mut paths = Vec::new();
        let objects = if url { Some(Place::parse(place, Path::new(""))?.open()?) } else { None };
        match &objects {
            Some(objects) => paths.extend(objects.list("")?.into_iter().map(|entry| entry.name).filter(|name| is_forecasts(name))),
            None => parquet_files(folder, &mut paths)?,
        }
        if paths.is_empty() {
            return Err(Error::config("parity", "the folder holds no Parquet file")
                .at(place.to_owned())
                .help("name the folder of the forecasts"));
        }
        for path in paths {
            match &objects {
                Some(objects) => rows(Bytes::from(objects.get(&path)?.unwrap_or_default()), &format!("{objects}/{path}"), take)?,
                None => rows(File::open(&path).map_err(|e| Error::io("parity", Path::new(&path), e))?, &path, take)?,
            }
        }
        return Ok(());
    }
    if folder.is_file() {
        return lines(folder, take);
    }
    match &plan.source {
        #[cfg(feature = "kafka")]
        source::Settings::Kafka(kafka) => topic(kafka, place, take),
        _ => Err(Error::config(
            "parity",
            "there is no such folder or file, and the pipeline reads no topic whose brokers could be asked for one",
        )
        .at(place.to_owned())
        .help("name the folder with the forecasts' Parquet files, or the file with their JSON lines")),
    }
}

/// The rows of a file of JSON lines.
fn lines(path: &Path, take: &mut dyn FnMut(Row)) -> Result<()> {
    let io = |e: std::io::Error| Error::io("parity", path, e);
    for (at, line) in BufReader::new(File::open(path).map_err(io)?).split(b'\n').enumerate() {
        let line = line.map_err(io)?;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let Ok(Value::Object(object)) = serde_json::from_slice(&line) else {
            let text = format!("line {} is no JSON object", at + 1);
            return Err(Error::new(Kind::Data, "parity", text)
                .at(path.display().to_string())
                .help("name the file that the sink `ndjson` wrote, or a folder of Parquet files"));
        };
        take(of_json(&object));
    }
    Ok(())
}

/// The rows of a file.
fn rows(file: impl ChunkReader + 'static, place: &str, take: &mut dyn FnMut(Row)) -> Result<()> {
    let broken = |e: String| Error::new(Kind::Data, "parity", format!("not a readable Parquet file: {e}")).at(place.to_owned());
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.build()).map_err(|e| broken(e.to_string()))?;
    for batch in reader {
        of_table(&batch.map_err(|e| broken(e.to_string()))?).into_iter().for_each(&mut *take);
    }
    Ok(())
}

/// Whether an object of this name is a finished file of forecasts.
fn is_forecasts(name: &str) -> bool {
    name.ends_with(".parquet") && !name.split('/').any(|part| part.starts_with(['.', '_']) || part == "dead-letters" || part == "state")
}

#[cfg(feature = "kafka")]
fn topic(kafka: &source::KafkaSettings, topic: &str, take: &mut dyn FnMut(Row)) -> Result<()> {
    use crate::link::kafka::Probe;
    use crate::sink::kafka::audit;
    let looked = Probe::new("parity", &kafka.client, None).and_then(|probe| probe.look(topic));
    let looked = looked.map_err(|error| Error {
        message: format!("there is no file and no folder `{topic}`, and no topic can be looked for: {}", error.message),
        ..error
    });
    if looked?.is_none() {
        return Err(Error::config("parity", format!("there is no file, no folder and no topic `{topic}`"))
            .at(format!("here, and at {}", kafka.client.brokers))
            .help("name the folder with the forecasts' Parquet files, the file with their JSON lines, or the topic of the forecasts"));
    }
    let own = |error: Error| Error { stage: "parity", ..error };
    let spans = audit::spans(&kafka.client, topic).map_err(own)?;
    audit::read(&kafka.client, topic, &kafka.group, &spans, &mut |found| {
        let object = found.payload.and_then(|payload| serde_json::from_slice::<Value>(payload).ok());
        let Some(Value::Object(object)) = object else {
            let text = format!("the record at {}:{} is no JSON object", found.at.0, found.at.1);
            return Err(Error::new(Kind::Data, "parity", text).at(format!("topic {topic}")).help("name the topic of the forecasts"));
        };
        take(of_json(&object));
        Ok(())
    })
}

/// Finished Parquet files below a folder, those of a sub-folder in the order of their names.
fn parquet_files(folder: &Path, into: &mut Vec<String>) -> Result<()> {
    let io = |e: std::io::Error| Error::io("parity", folder, e);
    let mut entries = std::fs::read_dir(folder)
        .map_err(io)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(io)?;
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(['.', '_']) || name == "dead-letters" || name == "state" {
            continue;
        }
        if path.is_dir() {
            parquet_files(&path, into)?;
        } else if name.ends_with(".parquet") {
            into.push(path.display().to_string());
        }
    }
    Ok(())
}

/// Whether a recomputed row is one that `live` is to have: where `since` parts a backfill from a topic, each has its own.
fn is_wanted(plan: &Plan, live: &str, time: EventTime) -> bool {
    let backfilled = Path::new(live).is_dir() && !matches!(plan.sink, sink::Settings::Parquet { .. });
    plan.since.is_none_or(|since| (time < since) == backfilled)
}

/// Takes the files through a lane, and every row that comes out and that `live` is to have.
fn recomputed(stage: &Stage, live: &str, settings: &Settings, parity: &mut Parity) -> Result<()> {
    let survey = survey(settings, &mut |_| {})?;
    let mut progress = Progress::start("rows", Some(survey.rows()));
    let mut merge = Merge::new(survey.reading.clone(), runs(settings, &survey)?);
    let mut lane = stage.lane()?;
    lane.assign(Partition(0), Offset(0));
    let mut encoder = RowEncoder::new(&stage.layout, &stage.identity);
    let (mut next, mut bytes) = (0, Vec::new());
    loop {
        let block = merge.block()?;
        match &block {
            Some(block) => {
                lane.advance(&input_of(&[(0, Offset(next), block.rows.clone())], survey.reading.lines))?;
                next += i64_of_count(block.len());
            }
            None => lane.finish()?,
        }
        for (row, time) in lane.forecasts.event_times.iter().enumerate() {
            if !is_wanted(&stage.plan, live, *time) {
                continue;
            }
            bytes.clear();
            encoder.row(&lane.forecasts, row, &mut bytes);
            let object: serde_json::Map<String, Value> =
                serde_json::from_slice(&bytes).map_err(|e| Error::internal("parity", format!("a row that is no JSON: {e}")))?;
            parity.take(Side::Recomputed, &of_json(&object));
        }
        progress.at(u64::try_from(next).unwrap_or(0));
        if block.is_none() {
            let _ = progress.stop();
            return Ok(());
        }
    }
}
