//! `meantime replay` and `meantime why`: past events of one key once more, with what the model saw and said; or all of them, with two models.

mod diff;
mod live;
mod past;

use std::io::Write;
use std::path::{Path, PathBuf};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use serde_json::{Map, Value, json};

use super::PipelineArgs;
use super::query::QueryArgs;
use crate::base::error::{Error, Kind, Result};
use crate::base::offset::{Offset, Partition};
use crate::base::time::EventTime;
use crate::data::events::Events;
use crate::data::input::{Input, Table};
use crate::data::rejected::Rejected;
use crate::data::schema::EventSchema;
use crate::decode::Decoder;
use crate::features::reasons::{Reason, Wording};
use crate::features::recipe::Recipe;
use crate::pipeline::plan::Plan;
use crate::pipeline::unit::Moment;
use crate::pipeline::{self, Purpose};
use crate::run::{Effect, Lane, Stage};
use crate::sink::json::RowEncoder;
use past::Past;

/// Reasons that are shown.
const REASONS: usize = 5;

/// Where past events are read from.
#[derive(Debug, clap::Args)]
pub struct From {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Parquet or NDJSON files, patterns of them in quotes, or a folder of them. By default the pipeline's own source; a topic is read from its first to its present end in a
    /// consumer group of its own.
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    from: Vec<String>,
    #[command(flatten)]
    query: QueryArgs,
}

/// Arguments of `replay`.
#[derive(Debug, clap::Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    source: From,
    /// The key, as it is in the records. With --diff only its events are compared.
    #[arg(long, required_unless_present = "diff")]
    key: Option<String>,
    /// Show, or compare, only events from this time on, such as 2026-03-01 or 2026-03-01T12:00:00Z; earlier ones still build up the states.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Stop after events of this time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Another model package: a folder, as seen from here or from the pipeline file. By default the pipeline's own.
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Compare the forecasts of the pipeline's own package, or those that were sent (--live), with those of --model: all events, as a table.
    #[arg(long)]
    diff: bool,
    #[command(flatten)]
    diffs: diff::Args,
}

/// Arguments of `why`.
#[derive(Debug, clap::Args)]
pub struct WhyArgs {
    #[command(flatten)]
    source: From,
    /// The event's id: what its field of [event] id holds.
    #[arg(value_name = "EVENT_ID")]
    event: String,
    /// Explain every event with this id, of whatever key, which takes reading all there is. By default the first that is read.
    #[arg(long)]
    all: bool,
}

/// Prints each event of a key as one JSON object a line: its forecast, its features by name, and the parameters of the law it published.
///
/// # Errors
/// The pipeline or package is refused, the events cannot be read, or the key has none.
pub fn replay(args: &ReplayArgs) -> Result<()> {
    let span = Span { since: moment("replay", "since", args.since.as_ref())?, until: moment("replay", "until", args.until.as_ref())? };
    if args.diff {
        return diff::run(args, span);
    }
    let Some(key) = &args.key else {
        return Err(Error::new(Kind::Usage, "replay", "--key is missing").help("name a key, or compare all with --diff"));
    };
    let replay = Replay::new(&args.source, args.model.as_deref())?;
    let mut out = std::io::stdout().lock();
    let mut shown = 0_usize;
    replay.each(key.as_bytes(), &mut |moment| {
        let time = moment.lane.forecasts.event_times.first().copied().unwrap_or_default();
        if span.until.is_some_and(|until| time > until) {
            return Ok(false);
        }
        if span.holds(time) {
            shown += 1;
            writeln!(out, "{}", moment.json()?).map_err(|e| Error::io("replay", Path::new("stdout"), e))?;
        }
        Ok(true)
    })?;
    if shown == 0 {
        return Err(Error::new(Kind::Check, "replay", format!("key `{key}` has no event there")).help("keys are compared byte by byte"));
    }
    Ok(())
}

/// Explains an event: its features, what the law before it said, and which of its features moved the outcome how far.
///
/// # Errors
/// As `replay`; no event has that id, or the pipeline names none.
pub fn why(args: &WhyArgs) -> Result<()> {
    let replay = Replay::new(&args.source, None)?;
    if replay.stage.plan.schema.id.is_none() {
        return Err(Error::config("why", "the pipeline names no field with the events' ids")
            .help("set [event] id, or look at the key with `meantime replay`"));
    }
    let keys = replay.keys_of(args.event.as_bytes(), args.all)?;
    if keys.is_empty() {
        return Err(Error::new(Kind::Check, "why", format!("no event has the id `{}`", args.event)).help("ids are compared byte by byte"));
    }
    let mut texts = Vec::new();
    for key in keys {
        replay.each(&key, &mut |moment| {
            if moment.lane.forecasts.event_ids.get(0) == Some(args.event.as_bytes()) {
                texts.push(moment.explained()?);
            }
            Ok(args.all || texts.is_empty())
        })?;
    }
    if texts.is_empty() {
        return Err(Error::new(Kind::Check, "why", "the event became no forecast: it came too late, or cannot be used"));
    }
    std::io::stdout().lock().write_all(texts.join("\n").as_bytes()).map_err(|e| Error::io("why", Path::new("stdout"), e))
}

/// A span of event time, both ends included.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    since: Option<EventTime>,
    until: Option<EventTime>,
}

impl Span {
    fn holds(&self, time: EventTime) -> bool {
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time <= until)
    }
}

/// The time that an option names.
///
/// # Errors
/// It is none.
pub(super) fn moment(command: &'static str, option: &str, text: Option<&String>) -> Result<Option<EventTime>> {
    let read =
        text.cloned().map(Moment::try_from).transpose().map_err(|why| {
            Error::new(Kind::Usage, command, format!("--{option}: {why}")).help("write 2026-03-01 or 2026-03-01T12:00:00Z")
        })?;
    Ok(read.map(|moment| moment.value))
}

/// A pipeline whose past is looked at.
struct Replay {
    stage: Stage,
    recipe: Recipe,
    wording: Wording,
    past: Past,
}

/// An event that the lane has just taken.
struct Seen<'a> {
    lane: &'a mut Lane,
    recipe: &'a Recipe,
    wording: &'a Wording,
    encoder: RowEncoder,
    /// Hidden floats of its key before it.
    before: Vec<f32>,
}

impl Replay {
    fn new(from: &From, model: Option<&Path>) -> Result<Self> {
        let arguments = match model {
            Some(model) => from.pipeline.with_package(model)?,
            None => from.pipeline.clone(),
        };
        let mut plan = pipeline::load(&arguments.pipeline, &arguments.sets, Purpose::Backfill)?;
        aim(&mut plan, !from.from.is_empty());
        let past = Past::new(&plan, plan.field_names(), from)?;
        let Some((_, recipe)) = plan.model.clone() else { return Err(Error::internal("replay", "the plan was made without a model")) };
        let wording = Wording::load(&plan.package, &recipe)?;
        Ok(Replay { stage: Stage::load(plan)?, recipe, wording, past })
    }

    /// The keys of the events with an id, in the order in which they are read: of the first, or of all of them.
    fn keys_of(&self, id: &[u8], all: bool) -> Result<Vec<Vec<u8>>> {
        let mut decoder = Narrow::new(&self.stage.plan);
        let mut found: Vec<Vec<u8>> = Vec::new();
        self.past.read(None, &mut |input| {
            let events = decoder.decode(&input)?;
            for row in (0..events.len()).filter(|row| events.ids.get(*row) == Some(id)) {
                let key = events.keys.bytes_at(row);
                if !found.iter().any(|known| known == key) {
                    found.push(key.to_vec());
                }
            }
            Ok(all || found.is_empty())
        })?;
        found.truncate(if all { usize::MAX } else { 1 });
        Ok(found)
    }

    /// Takes the events of a key one by one, until `each` has seen enough.
    fn each(&self, key: &[u8], each: &mut dyn FnMut(&mut Seen<'_>) -> Result<bool>) -> Result<()> {
        let mut decoder = Narrow::new(&self.stage.plan);
        let mut lane = self.stage.lane()?;
        let encoder = RowEncoder::new(&self.stage.layout, &self.stage.identity);
        let mut assigned: Vec<Partition> = Vec::new();
        self.past.read(None, &mut |input| {
            for one in decoder.only(&input, key)? {
                let partition = one
                    .records
                    .partitions
                    .first()
                    .copied()
                    .or_else(|| one.tables.first().map(|table| table.partition))
                    .unwrap_or(Partition(0));
                if !assigned.contains(&partition) {
                    lane.assign(partition, Offset(0));
                    assigned.push(partition);
                }
                let before = lane.hidden_of(key).unwrap_or_else(|| lane.initial_hidden()).to_vec();
                lane.advance(&one)?;
                // An event that is held back for its lateness comes with a later one.
                if !lane.forecasts.is_empty()
                    && !each(&mut Seen { lane: &mut lane, recipe: &self.recipe, wording: &self.wording, encoder: encoder.clone(), before })?
                {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }
}

/// Takes out what only a live run needs. `files`: these are read in place of the source.
fn aim(plan: &mut Plan, files: bool) {
    if files {
        plan.take_all();
    }
    plan.asks.overdue.clear();
    plan.order.timed = false;
    // One event after the other: nothing is held back, for the key's own are taken in the order in which they are read.
    plan.lanes = 1;
}

/// Finds key and id of records, and no more.
struct Narrow {
    decoder: Decoder,
    events: Events,
    rejected: Rejected,
}

impl Narrow {
    fn new(plan: &Plan) -> Self {
        let schema = EventSchema { fields: Vec::new(), mark: None, label: None, ..plan.schema.clone() };
        Narrow { decoder: Decoder::of(&schema, plan.schemas.as_ref()), events: Events::new(&schema), rejected: Rejected::default() }
    }

    fn decode(&mut self, input: &Input) -> Result<&Events> {
        self.events.clear();
        self.rejected.clear();
        self.decoder.decode(input, &mut self.events, &mut self.rejected)?;
        Ok(&self.events)
    }

    /// The records of one key, each as an input of its own.
    fn only(&mut self, input: &Input, key: &[u8]) -> Result<Vec<Input>> {
        self.decode(input)?;
        let events = &self.events;
        let places = events.partitions.iter().zip(&events.offsets).enumerate();
        let own: Vec<(Partition, Offset)> =
            places.filter(|(row, _)| events.keys.bytes_at(*row) == key).map(|(_, (p, o))| (*p, *o)).collect();
        let mut all = Vec::new();
        for at in own {
            let mut one = Input::default();
            let records = &input.records;
            one.records.lines = records.lines;
            if let Some(row) = records.partitions.iter().zip(&records.offsets).position(|(p, o)| (*p, *o) == at) {
                one.records.push(
                    at.0,
                    at.1,
                    records.recorded.get(row).copied().flatten(),
                    records.keys.get(row),
                    records.payloads.get(row),
                );
            }
            for table in input.tables.iter().filter(|table| table.partition == at.0) {
                let row = usize::try_from(at.1.0 - table.first.0).ok().filter(|row| *row < table.rows.num_rows());
                one.tables.extend(row.map(|row| Table { partition: at.0, first: at.1, rows: single(&table.rows, row) }));
            }
            all.push(one);
        }
        Ok(all)
    }
}

fn single(rows: &RecordBatch, row: usize) -> RecordBatch {
    let keep = BooleanArray::from((0..rows.num_rows()).map(|other| other == row).collect::<Vec<bool>>());
    filter_record_batch(rows, &keep).unwrap_or_else(|_| rows.slice(row, 1))
}

impl Seen<'_> {
    fn object(&mut self) -> Result<Map<String, Value>> {
        let mut bytes = Vec::new();
        self.encoder.row(&self.lane.forecasts, 0, &mut bytes);
        serde_json::from_slice(&bytes).map_err(|e| Error::internal("replay", format!("a row that is no JSON: {e}")))
    }

    fn features(&self) -> Vec<(String, f32)> {
        let names = self.recipe.columns.iter().flat_map(crate::features::recipe::Spec::names);
        names.zip(self.lane.arrived().rows.iter().copied()).collect()
    }

    fn json(&mut self) -> Result<Value> {
        let mut object = self.object()?;
        let features: Map<String, Value> = self.features().into_iter().map(|(name, value)| (name, json!(value))).collect();
        object.insert("features".to_owned(), Value::Object(features));
        object.insert(
            "parameters".to_owned(),
            json!(self.lane.arrived().laws.after.iter().take(self.lane.arrived().laws.width).collect::<Vec<_>>()),
        );
        Ok(Value::Object(object))
    }

    fn explained(&mut self) -> Result<String> {
        let object = self.object()?;
        let mut lines = vec!["forecast".to_owned()];
        lines.extend(object.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| format!("  {name:<20} {value}")));
        lines.push("features".to_owned());
        lines.extend(self.features().iter().map(|(name, value)| format!("  {value:>12.5}  {name}")));
        let reasons = self.reasons()?;
        if let Some((unit, effects)) = reasons {
            lines
                .push(format!("reasons: {unit} with the feature, over that without it (its columns set to 0, the state before as it was)"));
            lines.extend(effects.iter().take(REASONS).map(|(subject, effect)| format!("  x {:<10.4} {subject}", effect.exp())));
        }
        Ok(lines.join("\n") + "\n")
    }

    /// How each subject of the recipe moves the outcome: by grouped occlusion, the farthest first.
    #[allow(clippy::type_complexity)]
    fn reasons(&mut self) -> Result<Option<(&'static str, Vec<(String, f64)>)>> {
        let (row, gap) = {
            let arrived = self.lane.arrived();
            (arrived.rows.get(..self.recipe.width()).unwrap_or_default().to_vec(), arrived.gaps.first().copied().flatten())
        };
        // Also of a law: here its outcome is the median gap, which the recipe's subjects move.
        let reasons = self.wording.reasons(self.recipe, true);
        let mut rows = row.clone();
        for reason in &reasons {
            rows.extend(row.iter().enumerate().map(|(place, value)| if reason.places.contains(&place) { 0.0 } else { *value }));
        }
        let effects = self.lane.try_rows(&self.before, &rows, gap)?;
        let mut effects = effects.into_iter();
        let Some(Some(whole)) = effects.next() else { return Ok(None) };
        let unit = match whole {
            Effect::LogOdds(_) => "odds of the score",
            Effect::LogMedian(_) => "median gap until the next event",
        };
        let told = |reason: &Reason| {
            if reason.text == reason.subject { reason.text.clone() } else { format!("{} ({})", reason.text, reason.code) }
        };
        let mut moved: Vec<(String, f64)> =
            reasons.iter().zip(effects).filter_map(|(reason, without)| Some((told(reason), whole.value() - without?.value()))).collect();
        moved.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
        Ok(Some((unit, moved)))
    }
}
