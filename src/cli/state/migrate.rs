//! `meantime state migrate`: the states of the present model as those of another.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::print;
use crate::backfill::survey::survey as look;
use crate::backfill::{Positions, Settings, feed};
use crate::base::clock;
use crate::base::error::{Error, Kind, Result};
use crate::base::offset::{Offset, Partition};
use crate::base::time::EventTime;
use crate::cli::run::execute;
use crate::cli::stop::Signals;
use crate::cli::summary::grouped;
use crate::cli::{PipelineArgs, files};
use crate::data::commit::Commits;
use crate::pipeline::{self, Purpose};
use crate::run::migrate::{self, Comparison, Goal, Move, Moved, Until};
use crate::run::{Sinks, Stage};
use crate::source::{self, Feed, Opening};
use crate::state::snapshot::{Found, Mode};

/// Arguments of `state migrate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The pipeline, with the package whose states there are now.
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The new model package: a folder, as seen from here or from the pipeline file.
    #[arg(long, value_name = "MODEL")]
    to: PathBuf,
    /// What becomes of the hidden tensors. By default they are carried if all of them have the same names and shapes in both models, and nothing is done if not.
    #[arg(long, value_enum)]
    mode: Option<Asked>,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// For --mode rebuild: Parquet files with the topic's records from the first on, or patterns of them in quotes. By default the pipeline's topic itself.
    #[arg(long, value_name = "GLOB", num_args = 1.., requires = "positions")]
    from: Vec<String>,
    /// Columns of these files that hold partition and offset of each record in the topic, such as `kafka_partition,kafka_offset`.
    #[arg(long, value_name = "PARTITION,OFFSET", requires = "from")]
    positions: Option<String>,
}

/// A mode, as an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Asked {
    /// Hidden tensors are taken over; names and shapes must be the same.
    Carry,
    /// Hidden tensors begin anew; last event times, counts, decaying statistics and held events are kept.
    Reset,
    /// History is taken through the new model, up to what is committed.
    Rebuild,
}

/// Migrates and prints what was done to stdout.
///
/// # Errors
/// A package is refused, states cannot be made another model's in the way that is asked for, or a place cannot be read or written to.
pub fn run(args: &Args) -> Result<()> {
    let asked = args.mode.map(|mode| match mode {
        Asked::Carry => Mode::Carry,
        Asked::Reset => Mode::Reset,
        Asked::Rebuild => Mode::Rebuild,
    });
    if !args.from.is_empty() && asked != Some(Mode::Rebuild) {
        return Err(Error::new(Kind::Usage, "state", "--from is for --mode rebuild").help("leave it out, or add --mode rebuild"));
    }
    let load = |pipeline: &PipelineArgs| Stage::load(pipeline::load(&pipeline.pipeline, &pipeline.sets, Purpose::Run)?);
    let new = args.pipeline.with_package(&args.to)?;
    let (from, to) = (load(&args.pipeline)?, load(&new)?);
    let comparison = Comparison::of(&from, &to)?;
    let mode = comparison.mode(asked)?;
    let committed = migrate::committed(&from.plan)?;
    print(&heading(&from, &to, &comparison, mode))?;
    if let Some(other) = other_fingerprint(&from, committed.as_ref()) {
        tracing::warn!(
            committed = other,
            pipeline = from.identity.fingerprint,
            "what is committed last was computed with another fingerprint than the pipeline has now"
        );
    }
    let moved = match mode {
        Mode::Rebuild => rebuild(args, &new, &from, committed)?,
        Mode::Carry | Mode::Reset => {
            let moves = migrate::survey(&from, &comparison, committed.as_ref(), None)?;
            if args.dry_run {
                moves.into_iter().map(|of| Moved { of, bytes: 0 }).collect()
            } else {
                moves.into_iter().map(|of| migrate::store(&from, &to, &comparison, mode, of)).collect::<Result<Vec<_>>>()?
            }
        }
    };
    print(&table(&moved, args.dry_run))?;
    if !args.dry_run {
        hold(&to, &moved)?;
    }
    print(&farewell(args, &moved))
}

/// Whether a start takes what was stored. An older migration to the same model may stand above it: it is not removed here, as a stage with that model may be at
/// work on it.
fn hold(to: &Stage, moved: &[Moved]) -> Result<()> {
    let Some(snapshots) = to.snapshots()? else { return Ok(()) };
    let mut above = Vec::new();
    for Moved { of, .. } in moved {
        for header in snapshots.above(of.partition, of.offset)? {
            if header.migrated.is_some() {
                above.push((of.partition, header));
                continue;
            }
            tracing::warn!(
                partition = %of.partition,
                stored = %of.offset,
                newer = header.offset,
                "a snapshot of an earlier run of this model is newer than the one that was stored: a start takes that"
            );
        }
    }
    if above.is_empty() {
        return Ok(());
    }
    let partitions: BTreeSet<Partition> = above.iter().map(|(partition, _)| *partition).collect();
    let partitions: Vec<String> = partitions.iter().map(Partition::to_string).collect();
    let files: Vec<String> = above.iter().flat_map(|(_, header)| [header.manifest(), header.file()]).collect();
    let place = to.plan.snapshots.as_ref().map(|settings| settings.place.to_string()).unwrap_or_default();
    let text = format!(
        "the snapshots were stored, but a start would not take those of partition {}: an older migration to the same model stands above them",
        partitions.join(", ")
    );
    Err(Error::new(Kind::Check, "state", text)
        .at(place)
        .help(format!("if what was stored now is to hold, remove there: {}", files.join(" "))))
}

fn heading(from: &Stage, to: &Stage, comparison: &Comparison, mode: Mode) -> String {
    let name = |stage: &Stage| {
        let identity = &stage.identity;
        format!("{} {} ({})", identity.model, identity.model_version, identity.fingerprint)
    };
    let mut text = format!("{}: {} -> {}, {mode}\n", from.plan.name, name(from), name(to));
    for line in comparison.lines(mode) {
        text.push_str(&format!("  {line}\n"));
    }
    text
}

/// A fingerprint that was committed and is not that of the stage.
fn other_fingerprint<'a>(stage: &Stage, committed: Option<&'a Commits>) -> Option<&'a str> {
    let mut fingerprints = committed.into_iter().flat_map(Commits::iter).map(|(_, commit)| commit.note.fingerprint.as_str());
    fingerprints.find(|fingerprint| !fingerprint.is_empty() && *fingerprint != stage.identity.fingerprint)
}

fn table(moved: &[Moved], dry: bool) -> String {
    let mut rows = vec![["partition", "offset", "committed", "keys", "held", "bytes"].map(str::to_owned)];
    for Moved { of, bytes } in moved {
        let committed = of.committed.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
        let bytes = if dry { "-".to_owned() } else { bytes.to_string() };
        rows.push([of.partition.to_string(), of.offset.to_string(), committed, of.keys.to_string(), of.held.to_string(), bytes]);
    }
    super::aligned(&rows)
}

fn farewell(args: &Args, moved: &[Moved]) -> String {
    if args.dry_run {
        return "nothing was written: --dry-run\n".to_owned();
    }
    let behind: i64 = moved.iter().filter_map(|moved| Some(moved.of.committed?.0 - moved.of.offset.0)).sum();
    let behind = match behind {
        ..=0 => String::new(),
        n => format!(
            " (the first start replays the {} offsets between snapshots and commits through it)",
            grouped(u64::try_from(n).unwrap_or(0))
        ),
    };
    format!("{} snapshots stored. Stop the stage, name {} in [model] package, start it{behind}.\n", moved.len(), args.to.display())
}

/// Takes history through the new model.
fn rebuild(args: &Args, new: &PipelineArgs, from: &Stage, committed: Option<Commits>) -> Result<Vec<Moved>> {
    let Some(committed) = committed else {
        return Err(Error::config(
            "state",
            "the pipeline keeps no offsets, so every run begins at its first record: there is nothing to rebuild ahead of time",
        )
        .help("point [model] package at the new model and start it"));
    };
    if let Some(since) = from.plan.since {
        let text = format!("the states rest on events before {since} (`since` of [source]), which the topic does not give");
        return Err(Error::config("state", text)
            .help("backfill with the new package and hand over to another group (docs/backfill.md); or use --mode carry or reset"));
    }
    let goal = Goal::new(committed.clone(), !args.from.is_empty())?;
    let mut plan = pipeline::load(&new.pipeline, &new.sets, if args.from.is_empty() { Purpose::Run } else { Purpose::Backfill })?;
    // Bad records were judged when they came first.
    plan.max_bad_ratio = 1.0;
    plan.alarm = None;
    // Nothing is explained, but what reasons need is part of the states.
    plan.reasons.iter_mut().for_each(|asked| asked.above = f64::INFINITY);
    if plan.snapshots.is_none() {
        return Err(Error::config("state", "the pipeline takes no snapshots")
            .help("add snapshots = \"PATH or URL\" to [state]; without them a start rebuilds by itself"));
    }
    if let Some(settings) = plan.snapshots.as_mut() {
        settings.every = std::time::Duration::MAX;
    }
    let partitions = partitions(&plan.source, &goal)?;
    if args.dry_run {
        let source = if args.from.is_empty() { "the pipeline's own source".to_owned() } else { args.from.join(" ") };
        print(&format!("history of {} partitions would be read from {source}\n", goal.ends().count()))?;
        let of = |(partition, offset)| Move { partition, offset, committed: committed.next(partition), keys: 0, held: 0 };
        return Ok(goal.ends().map(of).map(|of| Moved { of, bytes: 0 }).collect());
    }
    let scratch = tempfile::tempdir().map_err(|e| Error::io("state", &std::env::temp_dir(), e))?;
    let (feeds, lanes, total): (Vec<Box<dyn Feed>>, usize, Option<u64>) = if args.from.is_empty() {
        if let source::Settings::Kafka(kafka) = &mut plan.source {
            kafka.group = format!("{}-rebuild-{}", kafka.group, std::process::id());
            kafka.instance = None;
            kafka.idle_after = None;
        }
        let opening = Opening { lanes: plan.lanes, until_caught_up: true, fields: plan.field_names(), ..Opening::default() };
        (source::open(&plan.source, &opening)?, plan.lanes, None)
    } else {
        let settings = settings(args, &plan, partitions, scratch.path().to_owned())?;
        let survey = look(&settings, &mut |_| {})?;
        let lanes = feed::useful_lanes(&settings, plan.lanes);
        (feed::open(&settings, &survey, lanes)?, lanes, Some(survey.rows()))
    };
    plan.lanes = lanes;
    let mut stage = Stage::load(plan)?;
    let mut sinks = migrate::sinks(from, &mut stage);
    let lanes: Vec<(Box<dyn Feed>, Sinks)> =
        feeds.into_iter().map(|feed| (Box::new(Until::new(feed, &goal)) as Box<dyn Feed>, sinks())).collect();
    let stage = Arc::new(stage);
    let signals = Signals::listen()?;
    let began = clock::now();
    execute(&stage, lanes, Arc::default(), &signals, total)?.ended?;
    if signals.any() {
        return Err(Error::new(
            Kind::Interrupted,
            "state",
            "the rebuild was stopped; snapshots of a part of the history are of no use to a start and may stay",
        ));
    }
    let begun = goal.begun();
    for (partition, first) in begun.iter().filter(|(_, first)| **first > Offset(0)) {
        tracing::warn!(%partition, %first, "history begins above offset 0: what came before is not in the states");
    }
    rebuilt(&stage, &goal, &committed, began)
}

/// The snapshots that this rebuild has stored since it began: those of an older migration are none of its own.
fn rebuilt(stage: &Stage, goal: &Goal, committed: &Commits, began: EventTime) -> Result<Vec<Moved>> {
    let snapshots = stage.snapshots()?.ok_or_else(|| Error::internal("state", "a rebuild without a place for snapshots"))?;
    let own = |found: &Found| {
        found.migrated().is_some_and(|migrated| migrated.mode == Mode::Rebuild) && found.written().is_some_and(|written| written >= began)
    };
    let (mut moved, mut without) = (Vec::new(), Vec::new());
    for (partition, end) in goal.ends() {
        let mut found = snapshots.newest(partition, end)?;
        while let Some(other) = found.as_ref().filter(|found| !own(found)) {
            let below = Offset(other.offset.0.saturating_sub(1));
            found = if other.offset > Offset(0) { snapshots.newest(partition, below)? } else { None };
        }
        let Some(found) = found else {
            without.push(partition.to_string());
            continue;
        };
        let of = Move { partition, offset: found.offset, committed: committed.next(partition), keys: found.keys, held: found.held() };
        moved.push(Moved { of, bytes: found.bytes });
    }
    if !without.is_empty() {
        return Err(Error::new(
            Kind::Check,
            "state",
            format!("partition {} got no snapshot: no record of it was read", without.join(", ")),
        )
        .help("look at the log above; history has to hold records of every partition"));
    }
    Ok(moved)
}

/// Partitions of the topic, or of what is committed.
fn partitions(source: &source::Settings, goal: &Goal) -> Result<u32> {
    #[cfg(feature = "kafka")]
    if let source::Settings::Kafka(kafka) = source {
        let (_, partitions) = crate::link::kafka::Probe::new("state", &kafka.client, None)?.topic(&kafka.topic)?;
        return Ok(u32::try_from(partitions).unwrap_or(u32::MAX));
    }
    let _ = source;
    let last = goal.ends().map(|(Partition(partition), _)| partition).max().unwrap_or(0);
    Ok(u32::try_from(last).unwrap_or(0).saturating_add(1))
}

fn settings(args: &Args, plan: &crate::pipeline::plan::Plan, shards: u32, scratch: PathBuf) -> Result<Settings> {
    let names = args.positions.as_deref().unwrap_or_default();
    let columns = names.split_once(',').map(|(partition, offset)| (partition.trim().to_owned(), offset.trim().to_owned()));
    let columns = columns.filter(|(partition, offset)| !partition.is_empty() && !offset.is_empty());
    let Some((partition, offset)) = columns else {
        return Err(Error::new(Kind::Usage, "state", format!("--positions {names} is not two names of columns"))
            .help("write --positions kafka_partition,kafka_offset"));
    };
    let mut fields = plan.field_names();
    fields.extend([partition.clone(), offset.clone()]);
    let paths = files::named("state", &args.from)?.paths;
    let positions = Some(Positions { partition, offset });
    Ok(Settings { positions, shards, ..Settings::whole(paths, plan.schema.clone(), fields, scratch) })
}
