//! `meantime backfill`: history in files through the pipeline, exactly once, in the order of event time.

mod hand_over;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::progress::Progress;
use super::query::QueryArgs;
use super::run::execute;
use super::stop::Signals;
use super::summary::{self, grouped};
use super::{PipelineArgs, files};
use crate::backfill::manifest::Manifest;
use crate::backfill::merge::BLOCK;
use crate::backfill::survey::{Survey, survey};
use crate::backfill::{Positions, Settings, feed};
use crate::base::clock;
use crate::base::error::{Error, Kind, Result};
use crate::base::time::EventTime;
use crate::features::reasons::Asked;
use crate::link::objects::Place;
use crate::link::query::WHERE;
use crate::pipeline::plan::Plan;
use crate::pipeline::unit::Size;
use crate::pipeline::{self, Purpose};
use crate::run::Stage;
use crate::sink::parquet::audit::audit;
use crate::sink::{self, Delivery};
use hand_over::HandOver;

/// Arguments of `backfill`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Parquet or NDJSON files (these also compressed, .gz or .zst), patterns of them in quotes, or a folder of them. They need not be in order; of rows of the same
    /// time those of the file that is named first come first.
    #[arg(long, value_name = "GLOB", num_args = 1.., required = true)]
    from: Vec<String>,
    #[command(flatten)]
    query: QueryArgs,
    /// Where to write: a folder, or `s3://bucket/prefix`, also gs:// and az:// (credentials and endpoint come from the AWS_, GOOGLE_ or AZURE_
    /// variables). There will be forecasts/ and dead-letters/ (Parquet, a sub-folder a shard, or see --layout), state/ (snapshots), backfill.json.
    #[arg(long, value_name = "DIR|URL")]
    to: String,
    /// Shards: keys are spread over them as Kafka spreads them over as many partitions. By default as many as there are lanes ([run] lanes).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    shards: Option<u32>,
    /// Do only part I of N of the shards, such as 0/4: those whose number divided by N leaves I. The machines that do the others need no word of each
    /// other, only the same folder.
    #[arg(long, value_name = "I/N")]
    shard: Option<String>,
    /// Columns of the files that hold partition and offset of each record in the topic, such as `kafka_partition,kafka_offset`: then shards are the topic's
    /// partitions, and rows are taken in the order of their offsets, as a live run takes them. Needs --shards: as many as the topic has partitions.
    #[arg(long, value_name = "PARTITION,OFFSET", requires = "shards")]
    positions: Option<String>,
    /// Column of numbers that orders rows of the same time, such as a running number, before the order in which they stand: for files that were shuffled.
    #[arg(long, value_name = "COLUMN", conflicts_with = "positions")]
    ties: Option<String>,
    /// At the end commit, for the pipeline's consumer group, the offsets up to which the files go, so that `meantime run` goes on there with the states that
    /// the backfill has left in [state] snapshots. The group must not have committed anything yet. Without --positions the files go up to `since` of
    /// [source], and keys must be spread over the topic's partitions by Kafka's default partitioner.
    #[arg(long)]
    hand_over: bool,
    /// Note the files of forecasts also in a log of Delta Lake, so that forecasts/ is a table for engines that read those.
    #[arg(long)]
    delta: bool,
    /// Which folders the files of forecasts are in: one a shard, or one a day, by the UTC date of the event's time, as Hive and the engines after it have
    /// them (forecasts/event_date=2026-11-25/).
    #[arg(long, value_name = "BY", default_value = "partition")]
    layout: sink::Folders,
    /// Go on with a backfill that was begun in the folder. The files it writes are those it would have written without the break.
    #[arg(long)]
    resume: bool,
    /// Rows of a file of output, about: all files end after so many rows times the number of shards, rounded up to 8,192.
    #[arg(long, value_name = "ROWS", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    rows_per_file: u64,
    /// Memory for sorting files that are not in order, such as 512MB.
    #[arg(long, value_name = "SIZE", default_value = "1GB")]
    memory_max: String,
    /// Where the sorted parts of such files are kept until the end; by default beside the output, or among the temporary files of this machine if that is
    /// a bucket.
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Backfills and prints a summary to stdout.
///
/// # Errors
/// The pipeline or package is refused, the files cannot be read or do not fit together, the folder holds something else, or the run fails.
pub fn run(args: &Args) -> Result<()> {
    let to = Place::parse(&args.to, Path::new(""))
        .map_err(|e| Error { kind: Kind::Usage, stage: "backfill", ..e }.at(format!("--to {}", args.to)))?;
    let mut plan = pipeline::load(&args.pipeline.pipeline, &args.pipeline.sets, Purpose::Backfill)?;
    let scratch = Scratch::of(args, &to)?;
    let settings = settings(args, &plan, scratch.path.clone())?;
    let mut progress = Progress::start("files looked at", u64::try_from(settings.paths.len()).ok());
    let mut looked = 0;
    let survey = survey(&settings, &mut |_| {
        looked += 1;
        progress.at(looked);
    })?;
    let _ = progress.stop();
    plan.lanes = feed::useful_lanes(&settings, plan.lanes);
    show(&settings, &survey, &plan, args, &to);
    if args.dry_run {
        return Ok(());
    }
    let target = args.hand_over.then(|| HandOver::new(&plan, &settings)).transpose()?;
    aim(&mut plan, &to, &settings, args.delta);
    let stage = Arc::new(Stage { hands_over: target.is_some(), ..Stage::load(plan)? });
    Manifest::of(&settings, &survey, &stage.identity.fingerprint, output(&stage.plan))
        .agree(&*to.open()?, args.resume || settings.mine.1 > 1)?;
    scratch.make()?;
    let feeds = feed::open(&settings, &survey, stage.plan.lanes)?;
    let lanes = feeds.into_iter().enumerate().map(|(lane, feed)| Ok((feed, stage.sinks(lane)?))).collect::<Result<Vec<_>>>()?;
    let signals = Signals::listen()?;
    let outcome = execute(&stage, lanes, Arc::default(), &signals, Some(survey.rows() - survey.later()));
    drop(scratch);
    let outcome = outcome?;
    outcome.ended?;
    let done = audit(&to.join("forecasts"))?;
    if signals.any() {
        let _ = summary::write(&mut std::io::stdout().lock(), &outcome.counts, Some(&outcome.calibration), outcome.elapsed);
        let rows: u64 = done.partitions.values().map(|tiles| tiles.rows).sum();
        return Err(Error::new(Kind::Retry, "backfill", format!("stopped by a signal: {} forecasts are in finished files", grouped(rows)))
            .at(to.to_string())
            .help("the same command with --resume goes on from there"));
    }
    if let Some(target) = target {
        target.carry_out(&stage, &done)?;
    }
    let rows: u64 = done.partitions.values().map(|tiles| tiles.rows).sum();
    let files: u64 = done.partitions.values().map(|tiles| tiles.files).sum();
    let mut out = std::io::stdout().lock();
    summary::write(&mut out, &outcome.counts, Some(&outcome.calibration), outcome.elapsed)
        .and_then(|()| farewell(&mut out, &to, rows, files))
        .map_err(|e| Error::io("backfill", Path::new("stdout"), e))
}

fn farewell(out: &mut dyn std::io::Write, to: &Place, rows: u64, files: u64) -> std::io::Result<()> {
    writeln!(out, "{} forecasts in {} files in {}", grouped(rows), grouped(files), to.join("forecasts"))
}

/// Folder for sorted parts, removed at the end. It is no other process's, wherever it is made: several may share a machine and `--scratch`. What a crash
/// leaves there is of no use to the next run, which sorts anew.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn of(args: &Args, to: &Place) -> Result<Scratch> {
        let part = args.shard.as_deref().map(part).transpose()?.unwrap_or((0, 1));
        let own = format!("meantime-sorting-{}-{}", std::process::id(), clock::now().0);
        let path = match (&args.scratch, to.folder()) {
            (Some(folder), _) => folder.join(own),
            // One a shard: what a crash has left is found again and removed.
            (None, Some(folder)) => folder.join(format!(".sorting-{}-{}", part.0, part.1)),
            (None, None) => std::env::temp_dir().join(own),
        };
        Ok(Scratch { path })
    }

    fn make(&self) -> Result<()> {
        std::fs::create_dir_all(&self.path).map_err(|e| Error::io("backfill", &self.path, e))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // That it cannot be removed, or was not made, is no reason to fail.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn settings(args: &Args, plan: &Plan, scratch: PathBuf) -> Result<Settings> {
    let paths = files::named("backfill", &args.from)?.paths;
    let size = Size::try_from(args.memory_max.clone()).map_err(|why| {
        Error::new(Kind::Usage, "backfill", format!("--memory-max {}: {why}", args.memory_max)).help("write 512MB or 2GiB")
    })?;
    let positions = args.positions.as_deref().map(|names| {
        let columns = names.split_once(',').map(|(partition, offset)| (partition.trim().to_owned(), offset.trim().to_owned()));
        let columns = columns.filter(|(partition, offset)| !partition.is_empty() && !offset.is_empty());
        columns.map(|(partition, offset)| Positions { partition, offset }).ok_or_else(|| {
            Error::new(Kind::Usage, "backfill", format!("--positions {names} is not two names of columns"))
                .help("write --positions kafka_partition,kafka_offset")
        })
    });
    let positions = positions.transpose()?;
    if let (Some(_), Some(since)) = (&positions, plan.since) {
        let text = format!("the topic's part begins at a time ({since}, `since` of [source]), and --positions hands over by offsets");
        return Err(Error::config("backfill", text).help("leave one of the two out"));
    }
    let mut fields = plan.field_names();
    fields.extend(positions.iter().flat_map(|positions| [positions.partition.clone(), positions.offset.clone()]));
    if let Some(ties) = args.ties.as_ref().filter(|ties| !fields.contains(ties)) {
        fields.push(ties.clone());
    }
    let mine = args.shard.as_deref().map(part).transpose()?.unwrap_or((0, 1));
    let shards = args.shards.unwrap_or_else(|| u32::try_from(plan.lanes).unwrap_or(1));
    if mine.1 > shards {
        let text = format!("--shard {}/{} of {shards} shards leaves some machines without any", mine.0, mine.1);
        return Err(Error::new(Kind::Usage, "backfill", text).help("give more --shards, at least one a machine"));
    }
    let query = args.query.query("backfill", &fields)?;
    if args.hand_over && positions.is_some() && query.as_ref().is_some_and(|query| query.filter().is_some()) {
        let text = format!("{WHERE} leaves out records of the topic, and those after the last that is taken would be taken live");
        return Err(Error::new(Kind::Usage, "backfill", text).help("leave out one of --where, --positions and --hand-over"));
    }
    Ok(Settings {
        paths,
        schema: plan.schema.clone(),
        query,
        fields,
        positions,
        ties: args.ties.clone(),
        until: plan.since,
        shards,
        mine,
        epoch_rows: args.rows_per_file.saturating_mul(u64::from(shards)),
        folders: args.layout,
        memory: size.bytes,
        scratch,
    })
}

/// `I/N`.
fn part(text: &str) -> Result<(u32, u32)> {
    let parts = text.split_once('/').and_then(|(i, n)| Some((i.trim().parse().ok()?, n.trim().parse().ok()?)));
    parts.filter(|(i, n)| i < n).ok_or_else(|| {
        Error::new(Kind::Usage, "backfill", format!("--shard {text} is not I/N with I below N"))
            .help("write 0/4, 1/4, 2/4 and 3/4 on four machines")
    })
}

/// Points the plan at the output.
fn aim(plan: &mut Plan, to: &Place, settings: &Settings, delta: bool) {
    plan.source = crate::source::Settings::File(crate::source::FileSettings { paths: settings.paths.clone() });
    // Files end where the feed says so, and nowhere else.
    // History is no reason for an alarm today.
    plan.alarm = None;
    let parquet = |folder: &str, delta: Option<String>, folders: sink::Folders| {
        let place = to.join(folder);
        sink::Settings::Parquet { place, roll_bytes: u64::MAX, roll_every: Duration::MAX, delta, folders }
    };
    plan.sink = parquet("forecasts", delta.then(|| plan.name.clone()), settings.folders);
    plan.dead_letter = parquet("dead-letters", None, sink::Folders::default());
    plan.delivery = Delivery::ExactlyOnce;
    // Where offsets are counted by shard, snapshots of a topic's partitions have their own place.
    if let Some(snapshots) = plan.snapshots.as_mut().filter(|_| settings.positions.is_none()) {
        snapshots.place = to.join("state");
    }
}

/// What decides, beside the states, what is written: files of one folder are written by one pipeline.
fn output(plan: &Plan) -> BTreeMap<String, String> {
    let numbers = |numbers: &[f64]| numbers.iter().map(f64::to_string).collect::<Vec<_>>().join(", ");
    let written = plan.asks.quantiles.iter().enumerate().filter(|(i, _)| !plan.asks.unwritten.contains(i)).map(|(_, q)| *q);
    let reasons = |asked: &Asked| {
        format!("top {}, above {}{}", asked.top, asked.above, if asked.event_before { ", by the event before" } else { "" })
    };
    let fields = plan.sink_fields.iter().map(|(field, name)| format!("{name} = {field}")).collect::<Vec<_>>().join(", ");
    [
        ("id of [event]", plan.schema.id.clone().unwrap_or_default()),
        ("quantiles of [forecast]", numbers(&written.collect::<Vec<_>>())),
        ("horizons of [forecast]", plan.horizon_names.join(", ")),
        ("marks of [forecast]", plan.asks.marks.to_string()),
        ("value_quantiles of [forecast]", numbers(&plan.asks.value_quantiles)),
        ("fields of [sink]", fields),
        ("[reasons]", plan.reasons.as_ref().map(reasons).unwrap_or_default()),
    ]
    .map(|(what, value)| (what.to_owned(), value))
    .into()
}

fn show(settings: &Settings, survey: &Survey, plan: &Plan, args: &Args, to: &Place) {
    let span = survey
        .files
        .iter()
        .filter_map(|file| file.span.map(|(first, last)| (first.at, last.at)))
        .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
    let unsorted = survey.unsorted().count();
    let mine = settings.shards().count();
    crate::tell!("backfill of {}", plan.name);
    crate::tell!("  files    {}, {} rows, {} MB", survey.files.len(), grouped(survey.rows()), grouped(survey.bytes() / 1_000_000));
    if let Some(query) = &settings.query {
        for (name, text) in [("where", query.filter()), ("select", query.select())] {
            text.iter().for_each(|text| crate::tell!("  {name:<8} {text}"));
        }
        if query.filter().is_some() {
            crate::tell!("  excluded {} rows by {WHERE}", grouped(survey.excluded()));
        }
    }
    if let Some((first, last)) = span {
        // What stands before the first time that can be read has none.
        let first = if first == i64::MIN { "records whose time cannot be read".to_owned() } else { EventTime(first).to_string() };
        crate::tell!("  time     {first} to {}", EventTime(last));
    }
    if let Some(until) = settings.until {
        crate::tell!("  until    {until}: {} rows from then on are left to the topic", grouped(survey.later()));
    }
    let order = match unsorted {
        0 => "all files are in order: they are merged as they are".to_owned(),
        n => format!(
            "{n} of {} files are not in order: they are sorted in parts of {} in {}",
            survey.files.len(),
            args.memory_max,
            settings.scratch.display()
        ),
    };
    crate::tell!("  order    {order}");
    crate::tell!("  shards   {mine} of {}, on {} lanes", settings.shards, plan.lanes);
    let by = if settings.folders == sink::Folders::Date { ", forecasts by date" } else { "" };
    crate::tell!("  output   {to}, files end {}{by}", every(settings.epoch_rows));
    let resuming = match &plan.snapshots {
        Some(snapshots) => format!("from snapshots, one every {} s at the end of a file", snapshots.every.as_secs()),
        None => "by replaying silently; [state] snapshots makes it faster".to_owned(),
    };
    crate::tell!("  resume   {resuming}");
    for file in survey.unsorted().take(5) {
        crate::tell!("  unsorted {} ({} rows)", file.path, grouped(file.rows));
    }
}

/// When files end: rows are handed out in whole blocks.
fn every(rows: u64) -> String {
    let block = u64::try_from(BLOCK).unwrap_or(u64::MAX);
    let whole =
        if rows.is_multiple_of(block) || rows < block { String::new() } else { format!(", at the end of a block of {}", grouped(block)) };
    format!("every {} rows of all shards{whole}", grouped(rows.max(block)))
}

#[cfg(test)]
mod tests {
    use super::every;

    #[test]
    fn it_is_said_when_files_really_end() {
        assert_eq!(every(1_000), "every 8,192 rows of all shards");
        assert_eq!(every(16_384), "every 16,384 rows of all shards");
        assert_eq!(every(10_000), "every 10,000 rows of all shards, at the end of a block of 8,192");
    }
}
