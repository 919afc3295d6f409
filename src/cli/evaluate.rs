//! `meantime evaluate`: forecasts against what then happened, through the served path.

mod ahead;
mod filter;
mod shown;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hashbrown::HashMap;

use super::draft::Draft;
use super::history::History;
use super::progress::Progress;
use super::{PipelineArgs, files};
use crate::base::error::{Error, Kind, Result};
use crate::base::limits::MAX_BATCH;
use crate::base::number::{f64_of_count, index};
use crate::base::time::{EventTime, Gap};
use crate::data::events::Column;
use crate::data::input::Input;
use crate::data::law::HeadSpec;
use crate::evaluate::beginnings::{Beginnings, First};
use crate::evaluate::laws::Laws;
use crate::evaluate::next::Asked;
use crate::evaluate::report::Report;
use crate::evaluate::value::Values;
use crate::evaluate::{Batch, Evaluation, Settings, html, text};
use crate::pipeline::plan::Plan;
use crate::pipeline::unit;
use crate::pipeline::{self, Purpose};
use crate::run::{Lane, Stage};
use crate::source::{self, Polled};
use ahead::Ahead;
pub use filter::Subset;
use filter::{Filter, column_of};

/// Longest a poll of a topic waits.
const WAIT: Duration = Duration::from_millis(50);
/// Keys of which one is shown, if none is named: that with the most events.
const WATCHED: usize = 32;
/// Events of that key that are shown.
const SHOWN: usize = 40;
/// Steps of a watched key that are kept to look at its attention.
const STEPS: usize = 4096;
/// Values of a field that are named where none is the one that was asked for.
const VALUES: usize = 8;

/// Arguments of `evaluate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// What happened: Parquet or NDJSON files, patterns of them (in quotes), or a folder of them. By default the pipeline's own source; a topic is read from its first
    /// to its present end in a consumer group of its own.
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    from: Vec<String>,
    /// Only events from this time on count, such as 2018-07-01 or 2018-07-01T12:00:00Z; earlier ones still build up the states.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only events whose field has this value count; others still build up the states.
    #[arg(long = "where", value_name = "FIELD=VALUE")]
    only: Option<String>,
    /// Add the survival over the gap between each key's last event and the end of the data.
    #[arg(long)]
    open_gaps: bool,
    /// Key whose history is shown in the report, by default one with many events.
    #[arg(long)]
    key: Option<String>,
    /// Events, and keys, that are looked at per day when a score is ranked.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    k: u32,
    /// Judge the next so many events together: draws continuations from the law, each event fed back through features and model, at points among the events
    /// that count, and holds them against what came (optimal transport distance, temporal mean average precision).
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=1000))]
    next: Option<u32>,
    /// Continuations drawn at each point.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000), requires = "next")]
    paths: u32,
    /// Points at most.
    #[arg(long, value_name = "M", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000), requires = "next")]
    next_sample: u32,
    /// How far ahead events are matched, such as 7d; by default as long as half of the K events take on average.
    #[arg(long, value_name = "DURATION", requires = "next")]
    next_horizon: Option<String>,
    /// How far a drawn event may be from the one it is matched with; by default half of the mean gap.
    #[arg(long, value_name = "DURATION", requires = "next")]
    next_tolerance: Option<String>,
    /// Seed of the points and the continuations: the same seed draws the same.
    #[arg(long, default_value_t = 1, requires = "next")]
    seed: u64,
    /// Write the figures as JSON to this file; `-` for stdout, in place of the table.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a report with plots to this file: one page of HTML that needs nothing else.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Args {
    /// As `meantime evaluate PIPELINE --from FROM... --since SINCE --where ONLY`.
    #[must_use]
    pub fn of(pipeline: PipelineArgs, from: Vec<String>, since: Option<String>, only: Option<String>) -> Self {
        Args {
            pipeline,
            from,
            since,
            only,
            open_gaps: false,
            key: None,
            k: 100,
            next: None,
            paths: 10,
            next_sample: 500,
            next_horizon: None,
            next_tolerance: None,
            seed: 1,
            json: None,
            html: None,
        }
    }

    /// What `--next` asks for.
    fn asked(&self) -> Result<Option<Asked>> {
        let Some(events) = self.next else { return Ok(None) };
        let length = |name: &str, text: &Option<String>| {
            let parsed = text.clone().map(unit::Length::try_from).transpose();
            let parsed =
                parsed.map_err(|why| Error::new(Kind::Usage, "evaluate", format!("{name}: {why}")).help("write a duration such as 12h"))?;
            let gap = parsed.map(|length| Gap::from(length.value));
            match gap {
                Some(gap) if gap <= Gap::ZERO => {
                    Err(Error::new(Kind::Usage, "evaluate", format!("{name} is no length of time")).help("write a duration such as 12h"))
                }
                _ => Ok(gap),
            }
        };
        Ok(Some(Asked {
            events: index(events),
            paths: index(self.paths),
            points: index(self.next_sample),
            seed: self.seed,
            horizon: length("--next-horizon", &self.next_horizon)?,
            tolerance: length("--next-tolerance", &self.next_tolerance)?,
        }))
    }
}

/// Evaluates and prints a table to stdout.
///
/// # Errors
/// The pipeline or package is refused, the history cannot be read, or a report cannot be written.
pub fn run(args: &Args) -> Result<()> {
    if args.html.as_deref() == Some(Path::new("-")) {
        return Err(Error::new(Kind::Usage, "evaluate", "--html is written to a file").help("name one: --html report.html"));
    }
    let (stage, filter, history) = opened(args)?;
    let draft = |path: &Option<PathBuf>| {
        path.as_deref().filter(|path| *path != Path::new("-")).map(|path| Draft::new("evaluate", path)).transpose()
    };
    let (table, page) = (draft(&args.json)?, draft(&args.html)?);
    let report = Watcher::new(&stage, &filter, args)?.watch(history, args.open_gaps)?;
    let json = |report: &Report| serde_json::to_vec_pretty(report).map_err(|e| Error::internal("evaluate", e.to_string()));
    let stdout = |e: std::io::Error| Error::io("evaluate", Path::new("stdout"), e);
    let mut out = std::io::stdout().lock();
    // Files first: they are wanted also where nobody reads on.
    let only_json = args.json.is_some() && table.is_none();
    if let Some(table) = table {
        table.finish(&json(&report)?)?;
    }
    if let (Some(page), Some(path)) = (page, &args.html) {
        page.finish(html::page(&report).as_bytes())?;
        crate::tell!("report: {}", path.display());
    }
    match only_json {
        true => out.write_all(&json(&report)?).and_then(|()| writeln!(out)).map_err(stdout),
        false => text::write(&mut out, &report).map_err(stdout),
    }
}

/// The figures, without printing them. `subset` narrows what counts further than `args` do.
///
/// # Errors
/// As `run`.
pub fn report(args: &Args, subset: Option<Subset>) -> Result<Report> {
    let (stage, filter, history) = opened(args)?;
    let filter = Filter { subset, ..filter };
    Watcher::new(&stage, &filter, args)?.watch(history, false)
}

/// Scores of the events that count, each with its label, and the stage that gave them. `from`, `since` and `only` as the arguments of `evaluate`.
///
/// # Errors
/// As `run`.
pub fn scored(args: &Args) -> Result<(Stage, Vec<(f32, bool)>)> {
    let (stage, filter, history) = opened(args)?;
    let mut watcher = Watcher::new(&stage, &filter, args)?;
    watcher.read(history)?;
    let scored = watcher.evaluation.scored().to_vec();
    Ok((stage, scored))
}

/// The laws that count, at most `most` of them, with what came of each, when the data ended, and the stage that gave them.
///
/// # Errors
/// As `run`.
pub fn laws(args: &Args, most: usize) -> Result<(Stage, Laws, EventTime)> {
    let (stage, filter, history) = opened(args)?;
    let mut watcher = Watcher::new(&stage, &filter, args)?;
    watcher.laws = Some(Laws::new(stage.plan.model.as_ref().map_or(0, |(manifest, _)| manifest.head.width()), most));
    watcher.read(history)?;
    let (laws, end) = (watcher.laws.take(), watcher.end);
    laws.map(|laws| (stage, laws, end)).ok_or_else(|| Error::internal("evaluate", "the laws were not kept"))
}

/// The first `events` events of at most `most` keys that begin with an event that counts, and the stage that was given them.
///
/// # Errors
/// As `run`.
pub fn beginnings(args: &Args, events: usize, most: usize) -> Result<(Stage, Beginnings)> {
    let (stage, filter, history) = opened(args)?;
    let mut watcher = Watcher::new(&stage, &filter, args)?;
    watcher.beginnings = Some(Beginnings::new(events, most));
    watcher.read(history)?;
    let beginnings = watcher.beginnings.take();
    beginnings.map(|beginnings| (stage, beginnings)).ok_or_else(|| Error::internal("evaluate", "the beginnings were not kept"))
}

/// What is to be evaluated.
fn opened(args: &Args) -> Result<(Stage, Filter, History)> {
    let since =
        args.since.clone().map(unit::Moment::try_from).transpose().map_err(|why| {
            Error::new(Kind::Usage, "evaluate", format!("--since: {why}")).help("write 2018-07-01 or 2018-07-01T12:00:00Z")
        })?;
    let since = since.map(|moment| moment.value);
    let mut plan = pipeline::load(&args.pipeline.pipeline, &args.pipeline.sets, Purpose::Evaluate)?;
    let only = args.only.as_deref().map(|only| column_of(&mut plan, only)).transpose()?;
    aim(&mut plan, args)?;
    let stage = Stage::load(plan)?;
    let history = History::open("evaluate", &stage.plan, &stage.plan.source)?;
    Ok((stage, Filter { since, only, subset: None }, history))
}

/// Points the plan at what is to be evaluated.
fn aim(plan: &mut Plan, args: &Args) -> Result<()> {
    if !args.from.is_empty() {
        plan.source = source::Settings::File(files::named("evaluate", &args.from)?);
    } else if let source::Settings::Kafka(kafka) = &mut plan.source {
        kafka.group = format!("{}-evaluate-{}", kafka.group, std::process::id());
        kafka.instance = None;
        kafka.idle_after = None;
    }
    plan.lanes = 1;
    // Nobody is told who is overdue, and the errors of the median want a median.
    plan.asks.overdue.clear();
    plan.order.timed = false;
    if let Some((manifest, _)) = plan.model.as_ref().filter(|(manifest, _)| manifest.head.is_timed()) {
        let valued = manifest.head.value().is_some();
        for quantiles in [Some(&mut plan.asks.quantiles), valued.then_some(&mut plan.asks.value_quantiles)].into_iter().flatten() {
            if let Err(at) = quantiles.binary_search_by(|q| q.total_cmp(&0.5)) {
                quantiles.insert(at, 0.5);
            }
        }
        if plan.schema.mark.is_some() && !manifest.head.marks().is_empty() {
            plan.asks.marks = plan.asks.marks.max(1);
        }
    }
    Ok(())
}

/// One event of a watched key, with the law it has published.
struct Law {
    time: EventTime,
    surprise: f64,
    mark: Option<u32>,
    parameters: Vec<f32>,
}

/// What an event was stepped with: its feature row and gap.
type Stepped = (Vec<f32>, Option<Gap>);

struct Watcher<'a> {
    stage: &'a Stage,
    filter: &'a Filter,
    lane: Lane,
    evaluation: Evaluation,
    ahead: Option<Ahead>,
    key: Option<Vec<u8>>,
    histories: HashMap<Vec<u8>, Vec<Law>>,
    /// Feature rows and gaps of the watched keys, of a model with attention.
    steps: Option<HashMap<Vec<u8>, Vec<Stepped>>>,
    rejected: usize,
    /// The first of them, and why.
    example: Option<String>,
    rows: usize,
    /// Of these, events that count; when the first one of all was, and some values of the field by which they are chosen.
    counted: usize,
    first: EventTime,
    values: BTreeSet<String>,
    end: EventTime,
    laws: Option<Laws>,
    beginnings: Option<Beginnings>,
}

impl<'a> Watcher<'a> {
    fn new(stage: &'a Stage, filter: &'a Filter, args: &Args) -> Result<Self> {
        let plan = &stage.plan;
        let head = plan.model.as_ref().map(|(manifest, _)| &manifest.head);
        let law = head.and_then(HeadSpec::law);
        let settings = Settings {
            unit: law.map(|law| law.time_unit),
            min_gap: law.map_or(0.0, |law| law.min_gap),
            coarse: law.is_some_and(|law| law.resolution.is_some()),
            joint: matches!(head, Some(HeadSpec::Hawkes(_) | HeadSpec::Intensity(_))),
            quantiles: plan.asks.quantiles.clone(),
            horizons: plan.horizon_names.iter().cloned().zip(plan.asks.horizons.iter().copied()).collect(),
            marks: law.map(|law| law.marks.clone()).unwrap_or_default(),
            value: law
                .and_then(|law| law.value.as_ref())
                .map(|value| Values { field: value.field.clone(), quantiles: plan.asks.value_quantiles.clone() }),
            k: index(args.k),
        };
        let mut lane = stage.lane()?;
        let ahead = args.asked()?.map(|asked| Ahead::new(&mut lane, filter, asked)).transpose()?;
        Ok(Watcher {
            stage,
            filter,
            lane,
            ahead,
            evaluation: Evaluation::new(settings),
            key: args.key.as_ref().map(|key| key.as_bytes().to_vec()),
            histories: HashMap::new(),
            steps: stage.package.manifest.attention.as_ref().map(|_| HashMap::new()),
            rejected: 0,
            example: None,
            rows: 0,
            counted: 0,
            first: EventTime(i64::MAX),
            values: BTreeSet::new(),
            end: EventTime(i64::MIN),
            laws: None,
            beginnings: None,
        })
    }

    /// Runs the whole feed through the lane.
    fn watch(mut self, history: History, open_gaps: bool) -> Result<Report> {
        let seconds = self.read(history)?;
        self.close(seconds, open_gaps)
    }

    /// Takes in the feed to its end; gives the seconds that took.
    fn read(&mut self, mut history: History) -> Result<f64> {
        let feed = &mut history.feed;
        let mut progress = Progress::start("events", feed.backlog());
        let mut input = Input::default();
        let mut read = 0;
        loop {
            input.clear();
            match feed.poll(self.stage.plan.max_batch.min(MAX_BATCH), WAIT, &mut input)? {
                Polled::Records => {
                    self.lane.advance(&input)?;
                    self.take();
                    // A topic has ended when its group, which is nobody else's, has committed its end.
                    feed.commit(&self.lane.commits())?;
                    read += input.len();
                    progress.at(u64::try_from(read).unwrap_or(u64::MAX));
                }
                Polled::Assigned(assignment) => {
                    let start = assignment.all();
                    self.lane.assign(assignment.partition, start.live_from);
                    feed.start(assignment.partition, start.read_from, start.live_from)?;
                }
                Polled::Revoked(partition) => {
                    return Err(Error::new(Kind::Unavailable, "evaluate", format!("partition {partition} was taken away by the group"))
                        .help("run it again"));
                }
                Polled::Idle | Polled::Quiet(..) => feed.commit(&self.lane.commits())?,
                Polled::Ended => break,
            }
        }
        self.lane.finish()?;
        self.take();
        feed.close()?;
        let elapsed = progress.stop();
        match &self.example {
            _ if self.rows > 0 => {}
            Some(example) => {
                let text = format!("none of {read} records could be used; the first: {example}");
                return Err(Error::new(Kind::Data, "evaluate", text).help("see which fields [event] of the pipeline names"));
            }
            None => return Err(Error::new(Kind::Data, "evaluate", "there is no record").help("name files with history in them")),
        }
        if self.counted == 0 && self.filter.subset.is_none() {
            return Err(self.nothing_counts());
        }
        if let Some(example) = &self.example {
            tracing::warn!(records = self.rejected, first = %example, "records could not be used");
        }
        Ok(elapsed.as_secs_f64())
    }

    /// Says what there is, where none of it counts.
    fn nothing_counts(&self) -> Error {
        let (first, last) = (self.first, self.end);
        let mut there = vec![format!("there are {} events from {first} to {last}", self.rows)];
        if let Some((column, value)) = &self.filter.only {
            let field = self.stage.plan.schema.fields.get(*column).map_or("", |field| field.name.as_str());
            let values = self.values.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            there.push(match (self.values.is_empty(), self.values.contains(value)) {
                (true, _) => format!("none of them has a field `{field}`"),
                (false, true) => format!("`{field}` is `{value}` only before --since"),
                (false, false) => format!("`{field}` is {values}{}", if self.values.len() < VALUES { "" } else { " or another" }),
            });
        }
        Error::new(Kind::Data, "evaluate", "no event counts")
            .at(there.join("; "))
            .help("choose others with --since and --where, or leave these out")
    }

    fn close(mut self, seconds: f64, open_gaps: bool) -> Result<Report> {
        if open_gaps {
            self.add_open_gaps();
        }
        let history = self.history()?;
        if let (Some(key), None) = (&self.key, &history) {
            tracing::warn!(key = %String::from_utf8_lossy(key), "there is no law of this key to show: it has no event, or the model gives a score");
        }
        let marks = self.stage.plan.model.as_ref().map(|(manifest, _)| manifest.head.marks()).unwrap_or_default();
        let ahead = self.ahead.take();
        let next = ahead.map(|ahead| ahead.close(&mut self.lane, self.evaluation.mean_gap_s(), self.end, marks)).transpose()?;
        let identity = &self.stage.identity;
        let head = self.stage.plan.model.as_ref().map(|(manifest, _)| manifest.head.describe()).unwrap_or_default();
        let found = self.evaluation.close();
        if found.not_finite > 0 && found.not_finite == found.events {
            return Err(Error::new(Kind::Data, "evaluate", format!("the model gave no number for any of {} events", found.events))
                .help("`meantime model verify` looks at the package; a score is to lie between 0 and 1: is its link `logit`?"));
        }
        Ok(Report {
            pipeline: self.stage.plan.name.clone(),
            model: identity.model.clone(),
            model_version: identity.model_version.clone(),
            head,
            rejected: self.rejected,
            keys: self.lane.size().0,
            seconds,
            events_per_s: f64_of_count(self.rows) / seconds,
            next,
            history,
            ..found
        })
    }

    /// Takes the lane's last output into account.
    fn take(&mut self) {
        if let Some(ahead) = &mut self.ahead {
            ahead.take(&mut self.lane);
        }
        let (forecasts, arrived) = (&self.lane.forecasts, self.lane.arrived());
        let rejected = &self.lane.rejected;
        self.rejected += rejected.len();
        if let (None, Some(reason), Some(detail)) = (&self.example, rejected.reasons.first(), rejected.details.first()) {
            self.example = Some(format!("{}: {detail}", reason.code()));
        }
        self.rows += forecasts.len();
        let times = &forecasts.event_times;
        let counts = |(row, time): (usize, &EventTime)| self.filter.counts(row, *time, forecasts.keys.bytes_at(row), arrived.columns);
        let counted: Vec<bool> = times.iter().enumerate().map(counts).collect();
        let labels = self.stage.plan.schema.label.and_then(|label| arrived.columns.get(label)).and_then(Column::numbers);
        let batch =
            Batch { forecasts, marks: arrived.marks, values: arrived.values, labels: labels.unwrap_or_default(), counted: &counted };
        self.evaluation.add(&batch);
        self.counted += counted.iter().filter(|counts| **counts).count();
        if let Some((column, _)) = self.filter.only.as_ref().filter(|_| self.counted == 0)
            && let Some(column) = arrived.columns.get(*column)
        {
            for row in 0..times.len() {
                if self.values.len() >= VALUES {
                    break;
                }
                self.values.extend(match column {
                    Column::Text(texts) => texts.get(row).map(|text| String::from_utf8_lossy(text).chars().take(40).collect()),
                    Column::Number(numbers) => numbers.get(row).filter(|number| !number.is_nan()).map(ToString::to_string),
                });
            }
        }
        self.first = times.iter().copied().fold(self.first, EventTime::min);
        self.end = times.iter().copied().fold(self.end, EventTime::max);
        let (width, features) = (arrived.laws.width, arrived.rows.len() / times.len().max(1));
        for (row, time) in times.iter().enumerate() {
            let key = forecasts.keys.bytes_at(row);
            let parameters = arrived.laws.after.get(row * width..(row + 1) * width).unwrap_or_default();
            if let Some(laws) = &mut self.laws {
                laws.add(key, *time, counted.get(row) == Some(&true), parameters);
            }
            if let Some(beginnings) = &mut self.beginnings {
                let event = First {
                    time: *time,
                    gap: arrived.gaps.get(row).copied().flatten(),
                    mark: arrived.marks.get(row).copied().flatten(),
                    value: arrived.values.get(row).copied().unwrap_or(f64::NAN),
                    label: labels.and_then(|labels| labels.get(row)).copied().unwrap_or(f64::NAN),
                };
                let x = arrived.rows.get(row * features..(row + 1) * features).unwrap_or_default();
                beginnings.add(key, event, counted.get(row) == Some(&true), x);
            }
            let watched = match &self.key {
                Some(own) => own == key,
                None => self.histories.len() < WATCHED || self.histories.contains_key(key),
            };
            if !watched {
                continue;
            }
            let laws = self.histories.entry_ref(key).or_default();
            if laws.len() >= SHOWN {
                laws.remove(0);
            }
            if let Some(steps) = &mut self.steps {
                let own = steps.entry_ref(key).or_default();
                if own.len() >= STEPS {
                    own.drain(..STEPS / 2);
                }
                let features = arrived.rows.len() / times.len().max(1);
                let row_of = arrived.rows.get(row * features..(row + 1) * features).unwrap_or_default();
                own.push((row_of.to_vec(), arrived.gaps.get(row).copied().flatten()));
            }
            laws.push(Law {
                time: *time,
                surprise: forecasts.surprise_time.get(row).copied().unwrap_or(f64::NAN),
                mark: arrived.marks.get(row).copied().flatten(),
                parameters: parameters.to_vec(),
            });
        }
    }

    fn add_open_gaps(&mut self) {
        let mut open = Vec::new();
        let counts = |key: &[u8]| self.evaluation.counts(key);
        self.lane.open_laws(&mut |own| open.extend(counts(own.key).then(|| (own.last, own.law.to_vec()))));
        for (last, law) in open {
            // An event at the very end leaves no gap.
            let gap = self.end.since(last);
            let compensator =
                if gap > Gap::ZERO { self.lane.curve(&law, &[gap]).first().map(|(_, compensator)| *compensator) } else { Some(0.0) };
            self.evaluation.add_open(compensator.unwrap_or(f64::NAN));
        }
    }
}
