//! `meantime check`: every fault of the file, the model package and the schema at once; with `--connect` also broker, topics and sink.

use std::fmt::Write as _;
use std::path::Path;

use super::print;
use crate::base::error::{Error, Result};
use crate::data::schema::{RECORD_KEY, RECORD_TIMESTAMP, TimeFormat};
use crate::decode::{self, Format};
use crate::link::registry::{Schemas, Written};
use crate::pipeline::plan::Plan;
use crate::pipeline::{self, Purpose};
use crate::run::Stage;
use crate::{sink, source};

/// Checks a pipeline file (or the folder that holds one), loads its model package as `run` does, and prints a summary of its plan to stdout. `connect`:
/// also looks whether source, sink, dead letters and the place of snapshots can be reached.
///
/// # Errors
/// All faults of the pipeline in one error; then what is wrong with the package's graph, sums or golden events and, with `connect`, everything that
/// cannot be reached, in one error.
pub fn run(pipeline: &Path, sets: &[String], connect: bool) -> Result<()> {
    let plan = pipeline::load(pipeline, sets, Purpose::Run)?;
    let mut faults: Vec<Error> = package(&plan).err().into_iter().collect();
    faults.extend(schema_file(&plan).err());
    let word = if faults.is_empty() { "ok: " } else { "" };
    let mut text = format!("{word}{}\n{}", pipeline::file_of(pipeline).display(), summary(&plan));
    if connect {
        connections(&plan, &mut text, &mut faults);
    }
    let printed = print("check", format_args!("{text}"));
    told(faults).and(printed)
}

/// What `run` does with the package before its first record: graphs, sums, golden events, and widths against the recipe; the same of the shadow.
fn package(plan: &Plan) -> Result<()> {
    let stage = Stage::load(plan.clone())?;
    stage.lane()?;
    stage.beside.iter().try_for_each(|beside| beside.stage.lane().map(|_| ()).map_err(|error| error.at("[shadow]")))
}

/// Asks source, sink, dead letters and the place of snapshots in turn, and goes on after a fault.
fn connections(plan: &Plan, text: &mut String, faults: &mut Vec<Error>) {
    let mut asked = vec![
        ("source", source::check_connect(&plan.source)),
        ("sink", sink::check_connect(&plan.sink)),
        ("dead letters", sink::check_connect(&plan.dead_letter)),
    ];
    let snapshots = plan.snapshots.as_ref().map(|settings| sink::check_place(&settings.place, false));
    asked.extend(snapshots.map(|answer| ("snapshots", answer.map_err(|error| Error { stage: "state", ..error }))));
    asked.extend(registry(plan).map(|answer| ("schemas", answer)));
    asked.extend(plan.shadow.iter().map(|shadow| ("shadow", sink::check_connect(&shadow.plan.sink))));
    asked.extend(plan.alarm.iter().map(|alarm| ("alarms", sink::check_connect(alarm))));
    for (name, answer) in asked {
        match answer {
            Ok(lines) => {
                lines.iter().for_each(|line| {
                    let _ = writeln!(text, "  {name} reached: {line}");
                });
                if name == "source" {
                    source::cautions(&plan.source, plan.snapshot_every()).iter().for_each(|line| {
                        let _ = writeln!(text, "  {name} warning: {line}");
                    });
                }
            }
            Err(error) => faults.push(error),
        }
    }
}

/// Whether the schema in a file has what is read.
fn schema_file(plan: &Plan) -> Result<()> {
    match &plan.schemas {
        Some(Schemas::File(written)) => complete(plan, written, "the schema of [event]"),
        _ => Ok(()),
    }
}

/// Asks the registry for the newest schema of the topic, by the name that serializers give it.
fn registry(plan: &Plan) -> Option<Result<Vec<String>>> {
    let (Some(Schemas::Registry(registry)), source::Settings::Kafka(kafka)) = (&plan.schemas, &plan.source) else { return None };
    let subject = format!("{}-value", kafka.topic);
    Some(registry.latest(&subject).and_then(|found| match found {
        Some(written) => {
            complete(plan, &written, &format!("the newest schema of `{subject}`")).map(|()| vec![format!("`{subject}` has all fields")])
        }
        None => Ok(vec![format!("it has no subject `{subject}`, so what records look like is not known before they come")]),
    }))
}

/// Whether a schema has all fields that are read; those of the record itself are in none.
fn complete(plan: &Plan, written: &Written, what: &str) -> Result<()> {
    let names = plan.field_names();
    let fields: Vec<&str> = names.iter().map(String::as_str).filter(|name| ![RECORD_KEY, RECORD_TIMESTAMP].contains(name)).collect();
    let missing = decode::missing(written, &fields).map_err(|why| Error::config("check", format!("{what} cannot be used: {why}")))?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::config("check", format!("{what} has no {}", missing.join(", ")))
        .help("a field within another is named by its path, as in a.b"))
}

/// All of them as one.
fn told(faults: Vec<Error>) -> Result<()> {
    // One broker may be behind all three: what it says is told once.
    let mut said: Vec<String> = faults.iter().map(ToString::to_string).collect();
    said.dedup();
    match faults.into_iter().next() {
        None => Ok(()),
        Some(first) if said.len() == 1 => Err(first),
        Some(first) => Err(Error::new(first.kind, "check", "not everything is right, or can be reached").with_report(said.join("\n\n"))),
    }
}

/// A few lines that say what would run. Client settings are not among them.
fn summary(plan: &Plan) -> String {
    let fields = if plan.sink_fields.is_empty() { "all fields".to_owned() } else { count(plan.sink_fields.len(), "field") };
    let every = humantime::format_duration(plan.commit_every);
    let mut rows = vec![
        ("source", source_line(plan)),
        ("event", event_line(plan)),
        ("model", model_line(plan)),
        ("forecast", forecast_line(plan)),
        ("reasons", reasons_line(plan)),
        ("sink", format!("{}, {fields}, every {every}", sink_line(&plan.sink))),
        ("dead letters", format!("{}, at most {} of the records", sink_line(&plan.dead_letter), plan.max_bad_ratio)),
        ("alarms", plan.alarm.as_ref().map_or_else(|| "in the log only".to_owned(), sink_line)),
        ("run", format!("{}, at most {} records at once", count(plan.lanes, "lane"), plan.max_batch)),
    ];
    if let Some(shadow) = &plan.shadow {
        let keys = shadow.share.map_or_else(|| "all keys".to_owned(), |share| format!("{} % of the keys", share * 100.0));
        rows.insert(6, ("shadow", format!("{}; {keys}, {}", model_line(&shadow.plan), sink_line(&shadow.plan.sink))));
    }
    rows.iter().fold(String::new(), |mut text, (name, line)| {
        let _ = writeln!(text, "  {name:<13}{line}");
        text
    })
}

fn source_line(plan: &Plan) -> String {
    match &plan.source {
        source::Settings::Kafka(kafka) => {
            let since = kafka.since.map(|since| format!(", events since {since}")).unwrap_or_default();
            format!("kafka topic `{}` at {}, group `{}`{since}", kafka.topic, kafka.client.brokers, kafka.group)
        }
        source::Settings::File(files) => count(files.paths.len(), "file"),
        source::Settings::Generate(generate) => {
            let stream = match generate.stream {
                source::Stream::Cards => "cards",
                source::Stream::Visits => "visits",
                source::Stream::Telemetry => "telemetry",
            };
            format!("generated {stream}: {} events of {} keys, seed {}", generate.events, generate.keys, generate.seed)
        }
    }
}

fn event_line(plan: &Plan) -> String {
    let schema = &plan.schema;
    let format = match plan.format {
        Format::Json => "json",
        Format::Avro => "avro",
        Format::Parquet => "parquet",
    };
    let unit = match schema.time_format {
        TimeFormat::Unit(unit) => unit.name(),
        TimeFormat::Rfc3339 => "rfc3339",
    };
    let mut line = format!("{format}, key `{}`, time `{}` ({unit})", schema.key, schema.time);
    if let Some(mark) = schema.mark.and_then(|mark| schema.fields.get(mark)) {
        let _ = write!(line, ", mark `{}`", mark.name);
    }
    if let Some(id) = &schema.id {
        let _ = write!(line, ", id `{id}`");
    }
    let others: Vec<&str> = schema.fields.iter().map(|field| field.name.as_str()).collect();
    if !others.is_empty() {
        let _ = write!(line, ", reads {}", others.join(", "));
    }
    line
}

fn model_line(plan: &Plan) -> String {
    let Some((manifest, recipe)) = &plan.model else { return "none".to_owned() };
    let floats: usize = manifest.states.iter().map(crate::model::manifest::StateSpec::floats).sum();
    let marks = match (manifest.head.is_timed(), manifest.head.marks().len()) {
        (false, _) => String::new(),
        (true, 0) => ", no marks".to_owned(),
        (true, marks) => format!(", {}", count(marks, "mark")),
    };
    let head = format!("{}{marks}", manifest.head.describe());
    let width = count(recipe.width(), "feature");
    format!("{} {}: {width}, {} of state a key, head {head}", manifest.name, manifest.version, count(floats, "float"))
}

fn forecast_line(plan: &Plan) -> String {
    if plan.model.as_ref().is_some_and(|(manifest, _)| !manifest.head.is_timed()) {
        return "the score of each event".to_owned();
    }
    let horizons = if plan.horizon_names.is_empty() { "none".to_owned() } else { plan.horizon_names.join(", ") };
    let values = match &plan.asks.value_quantiles {
        none if none.is_empty() => String::new(),
        values => format!(", quantiles of the value {values:?}"),
    };
    let quantiles = |wanted: &dyn Fn(&usize) -> bool| -> Vec<f64> {
        plan.asks.quantiles.iter().enumerate().filter(|(place, _)| wanted(place)).map(|(_, quantile)| *quantile).collect()
    };
    let overdue = match quantiles(&|place| plan.asks.overdue.contains(place)) {
        none if none.is_empty() => String::new(),
        overdue => format!(", a row when a key is overdue at {overdue:?}"),
    };
    let written = quantiles(&|place| !plan.asks.unwritten.contains(place));
    format!("quantiles {written:?}, horizons {horizons}, {}{values}{overdue}", count(plan.asks.marks, "next mark"))
}

fn reasons_line(plan: &Plan) -> String {
    let Some(asked) = &plan.reasons else { return "none".to_owned() };
    let score = plan.model.as_ref().is_some_and(|(manifest, _)| !manifest.head.is_timed());
    let from = if score { format!("scores from {}", asked.above) } else { format!("surprises from {:.1} nats", asked.above) };
    // Of a surprise those that the package can have.
    let (marks, value) =
        plan.model.as_ref().map_or((true, true), |(manifest, _)| (!manifest.head.marks().is_empty(), manifest.head.value().is_some()));
    let can = |subject: &str| match subject {
        "mark is rare" => marks,
        "value is low" | "value is high" => value,
        _ => true,
    };
    let codes: Vec<&str> = asked.reasons.iter().filter(|reason| can(&reason.subject)).map(|reason| reason.code.as_str()).collect();
    let before = plan
        .event_before()
        .map_or_else(String::new, |event| format!(", by the event before, of which {} a key are kept", count(event.floats(), "float")));
    format!("at most {} of {}, for {from}{before}", asked.top, codes.join(", "))
}

fn sink_line(settings: &sink::Settings) -> String {
    match settings {
        sink::Settings::Kafka { client, topic } => format!("kafka topic `{topic}` at {}", client.brokers),
        sink::Settings::Parquet { place, folders: sink::Folders::Date, .. } => format!("parquet in {place}, by date"),
        sink::Settings::Parquet { place, .. } => format!("parquet in {place}"),
        sink::Settings::Ndjson { path } if path == Path::new("-") => "ndjson on stdout".to_owned(),
        sink::Settings::Ndjson { path } => format!("ndjson in {}", path.display()),
    }
}

/// `1 lane`, `2 lanes`.
fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::objects::Place;
    use crate::state::snapshot::Settings as Snapshots;

    fn broken(name: &str) -> std::path::PathBuf {
        Path::new("tests/data/broken").join(name)
    }

    #[test]
    fn the_summary_says_what_would_run() {
        let plan = pipeline::load(&broken("good.toml"), &["source.client.sasl.password=hidden".to_owned()], Purpose::Run).unwrap();
        let text = summary(&plan);
        assert!(!text.contains("hidden"), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_broken_file_is_an_error_of_the_configuration() {
        let error = run(&broken("good.toml"), &["sink.topc=x".to_owned(), "run.lanes=0".to_owned()], false).unwrap_err();
        let report = error.to_string();
        assert_eq!(error.exit_code(), 78);
        assert!(report.contains("did you mean `topic`?") && report.ends_with("2 faults in tests/data/broken/good.toml"), "{report}");
    }

    #[test]
    fn to_connect_is_to_open_files_and_to_write_folders_and_tells_all_that_cannot_be_reached() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("in.ndjson"), "{}\n").unwrap();
        let mut plan = pipeline::load(&broken("good.toml"), &[], Purpose::Run).unwrap();
        plan.source = source::Settings::File(source::FileSettings { paths: vec![at("in.ndjson").into()] });
        let second = std::time::Duration::from_secs(1);
        plan.sink = sink::Settings::Parquet {
            place: Place::Folder(at("out")),
            roll_bytes: 1,
            roll_every: second,
            delta: None,
            folders: sink::Folders::Partition,
        };
        plan.dead_letter = sink::Settings::Ndjson { path: at("dead.ndjson") };
        plan.snapshots = Some(Snapshots { place: Place::Folder(at("snapshots")), every: second });
        let (mut text, mut faults) = (String::new(), Vec::new());
        connections(&plan, &mut text, &mut faults);
        told(faults).unwrap();
        assert!(text.contains("source reached: 1 file readable, 3 bytes") && text.contains("sink reached: folder"), "{text}");
        assert!(text.contains("snapshots reached: folder") && text.contains("snapshots is writable"), "{text}");
        assert!(!at("dead.ndjson").exists(), "a check writes nothing");
        assert_eq!(std::fs::read_dir(at("snapshots")).unwrap().count(), 0);

        std::fs::remove_file(at("in.ndjson")).unwrap();
        std::fs::write(at("file"), "").unwrap();
        plan.sink = sink::Settings::Ndjson { path: at("file/out.ndjson") };
        plan.snapshots = Some(Snapshots { place: Place::Folder(at("file/snapshots")), every: second });
        let mut faults = Vec::new();
        connections(&plan, &mut text, &mut faults);
        let report = told(faults).unwrap_err().to_string();
        assert!(report.contains("in.ndjson") && report.contains("file"), "{report}");
        assert!(report.contains("state: ") && report.contains("file/snapshots"), "{report}");
    }
}
