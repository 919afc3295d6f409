//! `meantime generate`: a seeded stream with a known law into a file or a topic.

mod typed;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use flate2::write::GzEncoder;

use self::typed::Typed;
use super::progress::Progress;
use crate::base::clock;
use crate::base::error::{Error, Kind, Result};
use crate::base::time::EventTime;
use crate::pipeline::plan::Plan;
use crate::source::generate::{MAX_KEYS, START, stream};
use crate::source::{self, GenerateSettings, Stream};

/// Events between two looks at the clock.
const STRIDE: u64 = 4096;

/// Arguments of `generate`, besides the pipeline.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Which stream. By default that of a `[source] kind = "generate"`, otherwise the one called like the pipeline.
    #[arg(long, value_parser = ["cards", "visits", "telemetry"])]
    pub stream: Option<String>,
    /// Events to generate.
    #[arg(long, default_value_t = 100_000)]
    pub events: u64,
    /// Keys to spread them over.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_KEYS)))]
    pub keys: u32,
    /// Seed: the same seed gives the same bytes on every machine.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Where to: a file, or the topic that the pipeline reads.
    #[arg(long, value_enum)]
    pub to: Target,
    /// With `--to file`: the file; `.parquet` has typed columns, `.ndjson`, `.jsonl` and `.json` a JSON object a line (with `.gz` or `.zst` behind it compressed), `-` is stdout.
    /// By default the stream's name with `.ndjson`. An existing file is replaced.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// With `--to kafka`: partitions of the topics that have to be created, the pipeline's input and what it writes to.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub partitions: i32,
}

/// Where generated events go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// A file.
    File,
    /// The topic that the pipeline reads.
    Kafka,
}

/// Generates the stream. Says on stderr what was written where; data go to stdout only with `--out -`.
///
/// # Errors
/// The pipeline has no stream, the file cannot be written, or the topic cannot be filled.
pub fn run(plan: &Plan, args: &Args) -> Result<()> {
    let settings = GenerateSettings { stream: chosen(plan, args)?, events: args.events, keys: args.keys, seed: args.seed };
    match args.to {
        Target::File => to_file(&settings, args.out.as_deref()),
        Target::Kafka => to_kafka(plan, &settings, args),
    }
}

fn chosen(plan: &Plan, args: &Args) -> Result<Stream> {
    let by_source = match &plan.source {
        source::Settings::Generate(settings) => Some(settings.stream),
        _ => None,
    };
    let by_argument = args.stream.as_deref().and_then(Stream::named);
    by_argument.or(by_source).or_else(|| Stream::named(&plan.name)).ok_or_else(|| {
        Error::new(Kind::Usage, "generate", format!("pipeline `{}` does not say which stream to generate", plan.name))
            .help("add --stream cards, --stream visits or --stream telemetry")
    })
}

/// How much was written, and up to which event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Done {
    events: u64,
    last: EventTime,
}

fn to_file(settings: &GenerateSettings, out: Option<&Path>) -> Result<()> {
    let path = out.map_or_else(|| PathBuf::from(format!("{}.ndjson", settings.stream.name())), Path::to_path_buf);
    if path.as_os_str() == "-" {
        let mut stdout = BufWriter::with_capacity(1 << 20, io::stdout().lock());
        let done = lines(settings, &mut stdout).and_then(|done| stdout.flush().map(|()| done));
        return done.map(|_| ()).map_err(|e| unwritable(Path::new("stdout"), e));
    }
    let kind = source::file::Kind::of(&path.clone().into()).map_err(|e| Error { kind: Kind::Usage, stage: "generate", ..e })?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(|e| Error::io("generate", folder, e))?;
    }
    // Under its own name the file is whole or not there at all.
    let temporary = temporary(&path);
    let written = match kind {
        source::file::Kind::Ndjson => write_lines(settings, &temporary, &path),
        source::file::Kind::Parquet => rows(settings, &temporary),
    };
    let renamed = written.and_then(|done| fs::rename(&temporary, &path).map(|()| done).map_err(|e| unwritable(&path, e)));
    if renamed.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    let done = renamed?;
    report(settings, &done, &path.display().to_string());
    Ok(())
}

fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tmp-{}", std::process::id()))
}

fn unwritable(path: &Path, source: io::Error) -> Error {
    Error::new(Kind::Unavailable, "generate", format!("cannot be written: {source}")).at(path.display().to_string()).caused_by(source)
}

fn report(settings: &GenerateSettings, done: &Done, place: &str) {
    let GenerateSettings { stream, keys, seed, .. } = settings;
    crate::tell!("generated {} {} events of {keys} keys (seed {seed}), {START} to {}, into {place}", done.events, stream.name(), done.last);
    if done.last > clock::now() {
        crate::tell!("note: the last events lie in the future; fewer events or more keys end earlier");
    }
}

/// Writes lines, compressed if the `name` that the file will have says so: who reads it goes by that.
fn write_lines(settings: &GenerateSettings, path: &Path, name: &Path) -> Result<Done> {
    let file = File::create(path).map_err(|e| Error::io("generate", path, e))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let ending = name.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    let mut write = || match ending.as_deref() {
        Some("gz") => {
            let mut out = GzEncoder::new(&mut out, flate2::Compression::default());
            let done = lines(settings, &mut out)?;
            out.finish().map(|_| done)
        }
        Some("zst") => {
            let mut out = zstd::Encoder::new(&mut out, zstd::DEFAULT_COMPRESSION_LEVEL)?;
            let done = lines(settings, &mut out)?;
            out.finish().map(|_| done)
        }
        _ => lines(settings, &mut out),
    };
    let done = write().map_err(|e| unwritable(path, e))?;
    let file = out.into_inner().map_err(|e| unwritable(path, e.into_error()))?;
    file.sync_all().map_err(|e| unwritable(path, e))?;
    Ok(done)
}

fn lines(settings: &GenerateSettings, out: &mut dyn Write) -> io::Result<Done> {
    let (mut generator, mut payload, mut key) = (stream(settings), Vec::new(), Vec::new());
    let mut progress = Progress::start("events", Some(settings.events));
    let mut done = Done { events: 0, last: START };
    while let Some(time) = generator.next_into(&mut payload, &mut key) {
        payload.push(b'\n');
        out.write_all(&payload)?;
        done = Done { events: done.events + 1, last: time };
        if done.events.is_multiple_of(STRIDE) {
            progress.at(done.events);
        }
    }
    let _ = progress.stop();
    Ok(done)
}

fn rows(settings: &GenerateSettings, path: &Path) -> Result<Done> {
    let file = File::create(path).map_err(|e| Error::io("generate", path, e))?;
    let mut typed = Typed::new(settings.stream, file).map_err(|e| unwritable(path, e))?;
    let mut progress = Progress::start("events", Some(settings.events));
    let mut done = Done { events: 0, last: START };
    for event in stream(settings) {
        typed.push(&event).map_err(|e| unwritable(path, e))?;
        done = Done { events: done.events + 1, last: event.time() };
        if done.events.is_multiple_of(STRIDE) {
            progress.at(done.events);
        }
    }
    let file = typed.finish().map_err(|e| unwritable(path, e))?;
    file.sync_all().map_err(|e| unwritable(path, e))?;
    let _ = progress.stop();
    Ok(done)
}

/// The topic that the pipeline reads.
fn topic(plan: &Plan) -> Result<&source::KafkaSettings> {
    match &plan.source {
        source::Settings::Kafka(settings) => Ok(settings),
        _ => Err(Error::new(Kind::Usage, "generate", format!("pipeline `{}` reads no topic", plan.name))
            .help("use --to file, or give the pipeline a [source] with kind = \"kafka\"")),
    }
}

fn to_kafka(plan: &Plan, settings: &GenerateSettings, args: &Args) -> Result<()> {
    let kafka = topic(plan)?;
    if args.out.is_some() {
        return Err(Error::new(Kind::Usage, "generate", "--out names a file, but --to kafka writes to the pipeline's topic"));
    }
    let (mut generator, mut events, mut last) = (stream(settings), 0_u64, START);
    let mut progress = Progress::start("events", Some(settings.events));
    let mut next = |payload: &mut Vec<u8>, key: &mut Vec<u8>| {
        let time = generator.next_into(payload, key)?;
        (events, last) = (events + 1, time);
        if events.is_multiple_of(STRIDE) {
            progress.at(events);
        }
        Some(time)
    };
    create_outputs(plan, args.partitions)?;
    let filled = fill(kafka, args.partitions, &mut next);
    let _ = progress.stop();
    report(settings, &Done { events: filled?, last }, &format!("topic {}", kafka.topic));
    Ok(())
}

/// Writes the next payload and key into empty buffers and says when the event happened.
type Next<'a> = &'a mut (dyn FnMut(&mut Vec<u8>, &mut Vec<u8>) -> Option<EventTime> + 'a);

/// Makes the topics that the pipeline writes to and that are not there: a run never does, so that a misspelt name is an error, but who fills a topic to try a
/// pipeline wants them all.
#[cfg(feature = "kafka")]
fn create_outputs(plan: &Plan, partitions: i32) -> Result<()> {
    let shadow = plan.shadow.as_ref().map(|shadow| &shadow.plan.sink);
    for settings in [Some(&plan.sink), Some(&plan.dead_letter), plan.alarm.as_ref(), shadow].into_iter().flatten() {
        if let crate::sink::Settings::Kafka { client, topic } = settings {
            crate::sink::kafka::create_topic(client, topic, partitions)?;
        }
    }
    Ok(())
}

#[cfg(not(feature = "kafka"))]
fn create_outputs(_plan: &Plan, _partitions: i32) -> Result<()> {
    Ok(())
}

#[cfg(feature = "kafka")]
fn fill(kafka: &source::KafkaSettings, partitions: i32, next: Next<'_>) -> Result<u64> {
    crate::sink::kafka::fill_topic(&kafka.client, &kafka.topic, partitions, next)
}

#[cfg(not(feature = "kafka"))]
fn fill(kafka: &source::KafkaSettings, _partitions: i32, _next: Next<'_>) -> Result<u64> {
    Err(Error::config("generate", "this build has no Kafka")
        .at(format!("topic {}", kafka.topic))
        .help("build with the default features, or use --to file"))
}

#[cfg(test)]
mod tests;
