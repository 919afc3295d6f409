//! `meantime replay --diff`: the same events with two models, or with one and what was sent.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::HashMap;

use super::live::Live;
use super::past::Past;
use super::{ReplayArgs, Span};
use crate::base::error::{Error, Kind, Result};
use crate::base::offset::{Offset, Partition};
use crate::base::time::EventTime;
use crate::cli::PipelineArgs;
use crate::cli::draft::Draft;
use crate::cli::progress::Progress;
use crate::data::events::Column;
use crate::data::field::Field;
use crate::data::input::Input;
use crate::data::law::LawSpec;
use crate::evaluate::shift::report::{Report, Side};
use crate::evaluate::shift::{Pair, Settings, Shift, Units, text};
use crate::pipeline::plan::Plan;
use crate::pipeline::{self, Purpose};
use crate::run::{Lane, Stage};

/// Arguments of a comparison.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// With --diff: compare with what was sent instead of the pipeline's own package: a folder of Parquet files, or a topic on the brokers of the source.
    #[arg(long, value_name = "DIR|TOPIC", requires = "diff")]
    live: Option<String>,
    /// With --diff: an alert is a score of at least this, or another field: 0.9, or p_within_24h=0.5.
    #[arg(long, value_name = "[FIELD=]X", requires = "diff")]
    threshold: Option<String>,
    /// With --diff: keys that are named, those with the largest changes.
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// With --diff: write the figures as JSON to this file; `-` for stdout, in place of the table.
    #[arg(long, value_name = "FILE", requires = "diff")]
    json: Option<PathBuf>,
}

/// Compares and prints a table to stdout.
///
/// # Errors
/// A package is refused, the events or what was sent cannot be read, or no event is on both sides.
pub fn run(args: &ReplayArgs, span: Span) -> Result<()> {
    let (own, files) = (&args.source.pipeline, !args.source.from.is_empty());
    let other = args.model.as_deref().map(|model| own.with_package(model)).transpose()?;
    let (before, after) = match (&args.diffs.live, other) {
        (None, None) => {
            return Err(Error::new(Kind::Usage, "replay", "--diff compares two models, or one with what was sent")
                .help("add --model MODEL, or --live TOPIC"));
        }
        (Some(_), other) => (None, Model::load(&other.unwrap_or_else(|| own.clone()), files)?),
        (None, Some(other)) => (Some(Model::load(own, files)?), Model::load(&other, files)?),
    };
    let file = args.diffs.json.as_deref().filter(|path| *path != Path::new("-")).map(|path| Draft::new("replay", path)).transpose()?;
    let report = match (before, &args.diffs.live) {
        (Some(before), _) => of_two(args, span, before, after)?,
        (None, Some(live)) => of_live(args, span, live, after)?,
        (None, None) => return Err(Error::internal("replay", "nothing to compare")),
    };
    let stdout = |e: std::io::Error| Error::io("replay", Path::new("stdout"), e);
    let json = || serde_json::to_vec_pretty(&report).map_err(|e| Error::internal("replay", e.to_string()));
    let mut out = std::io::stdout().lock();
    match (args.diffs.json.is_some(), file) {
        (true, None) => out.write_all(&json()?).and_then(|()| writeln!(out)).map_err(stdout)?,
        (_, file) => {
            file.map_or(Ok(()), |file| file.finish(&json()?))?;
            out.write_all(text::text(&report).as_bytes()).map_err(stdout)?;
        }
    }
    if report.figures.events == 0 {
        return Err(Error::new(Kind::Check, "replay", "no event has a forecast on both sides")
            .help("look at --from, --live, --since, --until and --key"));
    }
    Ok(())
}

/// A model that events are taken through.
struct Model {
    stage: Stage,
    lane: Lane,
    fields: Vec<Field>,
    side: Side,
    /// Index of the label among the fields of events.
    label: Option<usize>,
}

impl Model {
    fn load(arguments: &PipelineArgs, files: bool) -> Result<Self> {
        let mut plan = pipeline::load(&arguments.pipeline, &arguments.sets, Purpose::Compare)?;
        // As it would be written into forecasts: what is asked here for the comparison does not change it.
        let own = plan.clone();
        super::aim(&mut plan, files);
        plan.reasons = None;
        let timed = plan.model.as_ref().is_some_and(|(manifest, _)| manifest.head.is_timed());
        if timed && let Err(at) = plan.asks.quantiles.binary_search_by(|q| q.total_cmp(&0.5)) {
            plan.asks.quantiles.insert(at, 0.5);
            plan.asks.unwritten.iter_mut().filter(|i| **i >= at).for_each(|i| *i += 1);
        }
        let label = plan.schema.label;
        let stage = Stage::load(plan)?;
        let identity = &stage.identity;
        let manifest = &stage.package.manifest;
        let side = Side {
            name: format!("{} {}", identity.model, identity.model_version),
            head: manifest.head.describe(),
            fingerprint: own.fingerprint(&stage.package.digest)?,
        };
        let full = Plan { sink_fields: Vec::new(), ..(*stage.plan).clone() };
        let fields = Field::of(&full.layout(identity));
        Ok(Model { lane: stage.lane()?, fields, side, label, stage })
    }

    fn law(&self) -> Option<&LawSpec> {
        self.stage.package.manifest.head.law()
    }

    fn take(&mut self, input: &Input) -> Result<()> {
        let partitions = input.records.partitions.iter().copied().chain(input.tables.iter().map(|table| table.partition));
        for partition in partitions {
            if !self.lane.partitions().iter().any(|state| state.partition == partition) {
                self.lane.assign(partition, Offset(0));
            }
        }
        self.lane.advance(input)
    }

    fn label(&self, row: usize) -> f64 {
        let labels = self.label.and_then(|label| self.lane.arrived().columns.get(label)).and_then(Column::numbers);
        labels.and_then(|labels| labels.get(row)).copied().unwrap_or(f64::NAN)
    }

    fn values(&self, fields: &[Field], units: Units, row: usize) -> Vec<f64> {
        fields.iter().map(|field| units.convert(field.id, field.value(&self.lane.forecasts, row))).collect()
    }
}

/// Fields that both sides have and that can be compared, and those that only one has.
struct Common {
    before: Vec<Field>,
    after: Vec<Field>,
    only_before: Vec<String>,
    only_after: Vec<String>,
}

impl Common {
    /// Fields are the same if they have the same place in the contract, whatever the output calls them: quantiles and horizons by the name there, as the two
    /// may be asked for different ones.
    fn of(before: &[(String, Field)], after: &[(String, Field)], units: Units) -> Common {
        let mut common = Common { before: Vec::new(), after: Vec::new(), only_before: Vec::new(), only_after: Vec::new() };
        for (name, field) in before {
            match after.iter().find(|(other, _)| other == name) {
                Some((_, other)) if units.has(field.id) => {
                    common.before.push(field.clone());
                    common.after.push(other.clone());
                }
                Some(_) => {}
                None => common.only_before.push(field.name.clone()),
            }
        }
        let only = after.iter().filter(|(name, _)| !before.iter().any(|(other, _)| other == name));
        common.only_after.extend(only.map(|(_, field)| field.name.clone()));
        common
    }
}

fn named(fields: &[Field]) -> Vec<(String, Field)> {
    fields.iter().map(|field| (field.name.clone(), field.clone())).collect()
}

fn threshold(args: &ReplayArgs, fields: &[Field]) -> Result<Option<(usize, f64)>> {
    let Some(text) = &args.diffs.threshold else { return Ok(None) };
    let (name, value) = text.split_once('=').unwrap_or(("score", text));
    let fault = |text: String, help: String| Err(Error::new(Kind::Usage, "replay", text).help(help));
    let Some(value) = value.trim().parse::<f64>().ok().filter(|value| value.is_finite()) else {
        return fault(format!("--threshold {text} is not a number"), "write 0.9, or p_within_24h=0.5".to_owned());
    };
    match fields.iter().position(|field| field.name == name.trim()) {
        Some(at) => Ok(Some((at, value))),
        None => {
            let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
            fault(
                format!("both sides have no field `{name}` that an alert could rest on"),
                format!("name one of {}: --threshold FIELD=X", names.join(", ")),
            )
        }
    }
}

fn notes(units: Units) -> Vec<String> {
    let mut notes = Vec::new();
    if !units.has(crate::data::layout::FieldId::SurpriseTime) {
        notes.push("likelihoods of time are not compared: the clocks of the two laws tick differently ([head] resolution)".to_owned());
    }
    notes
}

fn report(
    args: &ReplayArgs,
    pipeline: String,
    sides: (Side, Side),
    common: &Common,
    shift: Shift,
    missing: (usize, usize),
    notes: Vec<String>,
) -> Report {
    Report {
        pipeline,
        before: sides.0,
        after: sides.1,
        since: args.since.clone(),
        until: args.until.clone(),
        key: args.key.clone(),
        only_before: common.only_before.clone(),
        only_after: common.only_after.clone(),
        events_only_before: missing.0,
        events_only_after: missing.1,
        notes,
        figures: shift.close(),
    }
}

fn fields_read(models: &[&Model]) -> Vec<String> {
    let mut fields: Vec<String> = Vec::new();
    for name in models.iter().flat_map(|model| model.stage.plan.field_names()) {
        if !fields.contains(&name) {
            fields.push(name);
        }
    }
    fields
}

type Place = (Partition, Offset);

/// A forecast that waits for that of the other model.
struct Waiting {
    key: Box<[u8]>,
    time: EventTime,
    label: f64,
    values: Vec<f64>,
}

/// Events through two models at once.
fn of_two(args: &ReplayArgs, span: Span, mut before: Model, mut after: Model) -> Result<Report> {
    let units = Units::between(before.law(), after.law());
    let common = Common::of(&named(&before.fields), &named(&after.fields), units);
    let mut shift =
        Shift::new(Settings { fields: common.before.clone(), threshold: threshold(args, &common.before)?, top: args.diffs.top });
    let past = Past::new(&before.stage.plan, fields_read(&[&before, &after]), &args.source)?;
    let mut waiting: [HashMap<Place, Waiting>; 2] = [HashMap::new(), HashMap::new()];
    let mut progress = Progress::start("events", None);
    let mut read = 0_usize;
    let mut pairs = |before: &Model, after: &Model, shift: &mut Shift| {
        let [first, second] = &mut waiting;
        collect(before, &common.before, Units::SAME, (args, span), first, second, &mut |place, one, other| add(shift, place, one, other));
        collect(after, &common.after, units, (args, span), second, first, &mut |place, one, other| add(shift, place, other, one));
    };
    past.read(span.until, &mut |input| {
        before.take(&input)?;
        after.take(&input)?;
        pairs(&before, &after, &mut shift);
        read += input.len();
        progress.at(u64::try_from(read).unwrap_or(u64::MAX));
        Ok(true)
    })?;
    before.lane.finish()?;
    after.lane.finish()?;
    pairs(&before, &after, &mut shift);
    let _ = progress.stop();
    let [first, second] = &waiting;
    let name = before.stage.plan.name.clone();
    Ok(report(args, name, (before.side, after.side), &common, shift, (first.len(), second.len()), notes(units)))
}

/// Takes the model's last forecasts: those whose counterpart has come are handed on with it, the others wait.
fn collect(
    model: &Model,
    fields: &[Field],
    units: Units,
    (args, span): (&ReplayArgs, Span),
    own: &mut HashMap<Place, Waiting>,
    others: &mut HashMap<Place, Waiting>,
    pair: &mut dyn FnMut(Place, &Waiting, &Waiting),
) {
    let forecasts = &model.lane.forecasts;
    for (row, (time, place)) in forecasts.event_times.iter().zip(forecasts.partitions.iter().zip(&forecasts.offsets)).enumerate() {
        let key = forecasts.keys.bytes_at(row);
        if !span.holds(*time) || args.key.as_ref().is_some_and(|wanted| wanted.as_bytes() != key) {
            continue;
        }
        let place = (*place.0, *place.1);
        let values = model.values(fields, units, row);
        let waiting = Waiting { key: key.into(), time: *time, label: model.label(row), values };
        match others.remove(&place) {
            Some(other) => pair(place, &waiting, &other),
            None => {
                own.insert(place, waiting);
            }
        }
    }
}

fn add(shift: &mut Shift, place: Place, before: &Waiting, after: &Waiting) {
    use std::hash::BuildHasher;
    let hash = foldhash::fast::FixedState::with_seed(1).hash_one((place.0.0, place.1.0));
    let (key, time, label) = (&before.key, before.time, before.label);
    shift.add(Pair { key, time, hash, label, before: &before.values, after: &after.values });
}

/// Events through one model, against what was sent.
fn of_live(args: &ReplayArgs, span: Span, place: &str, mut after: Model) -> Result<Report> {
    let own = &args.source.pipeline;
    // The rows have the names that the pipeline gives them, and the units of the package that it names.
    let plan = pipeline::load(&own.pipeline, &own.sets, Purpose::Compare)?;
    let identity = Arc::new(plan.identity(""));
    let layout = plan.layout(&identity);
    let full = Plan { sink_fields: Vec::new(), ..plan.clone() }.layout(&identity);
    let law = plan.model.as_ref().and_then(|(manifest, _)| manifest.head.law());
    let units = Units::between(law, after.law());
    let sent: Vec<(String, Field)> = Field::of(&layout)
        .into_iter()
        .filter_map(|field| Some((full.fields.iter().find(|(_, id)| *id == field.id)?.0.clone(), field)))
        .collect();
    let common = Common::of(&sent, &named(&after.fields), units);
    let mut shift =
        Shift::new(Settings { fields: common.before.clone(), threshold: threshold(args, &common.before)?, top: args.diffs.top });
    let mut live = Live::read(&plan, &layout, place, &common.before, span)?;
    let past = Past::new(&after.stage.plan, fields_read(&[&after]), &args.source)?;
    let mut progress = Progress::start("events", None);
    let (mut read, mut alone) = (0_usize, 0_usize);
    let mut pairs = |model: &Model, shift: &mut Shift| {
        let forecasts = &model.lane.forecasts;
        for (row, time) in forecasts.event_times.iter().enumerate() {
            let (hash, sent) = live.find(forecasts, row);
            let key = forecasts.keys.bytes_at(row);
            if !span.holds(*time) || args.key.as_ref().is_some_and(|wanted| wanted.as_bytes() != key) {
                continue;
            }
            match sent {
                Some(before) => {
                    let values = model.values(&common.after, units, row);
                    shift.add(Pair { key, time: *time, hash, label: model.label(row), before: &before, after: &values });
                }
                None => alone += 1,
            }
        }
    };
    past.read(span.until, &mut |input| {
        after.take(&input)?;
        pairs(&after, &mut shift);
        read += input.len();
        progress.at(u64::try_from(read).unwrap_or(u64::MAX));
        Ok(true)
    })?;
    after.lane.finish()?;
    pairs(&after, &mut shift);
    let _ = progress.stop();
    let mut said = notes(units);
    if live.models.len() > 1 {
        let models: Vec<String> =
            live.models.iter().map(|((name, version, fingerprint), rows)| format!("{name} {version} {fingerprint}: {rows}")).collect();
        said.push(format!("what was sent is of {} models: {}", models.len(), models.join("; ")));
    }
    let of = live.models.iter().max_by_key(|(_, rows)| **rows).map(|(model, _)| model.clone()).unwrap_or_default();
    let sent = Side { name: format!("{} {}, as sent to {place}", of.0, of.1), head: String::new(), fingerprint: of.2 };
    Ok(report(args, plan.name.clone(), (sent, after.side), &common, shift, (live.left(), alone), said))
}
