//! Outputs in Kafka against the input topic: two bits of memory an input record, everything read once.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value as Json;

use super::ledger::{Faults, Findings, Keyed, Ledger, Position, Rank};
use crate::backfill::manifest::Manifest;
use crate::base::error::{Error, Kind, Result};
use crate::base::offset::{Offset, Partition};
use crate::base::time::Gap;
use crate::cli::before::Sight;
use crate::cli::print;
use crate::cli::progress::Progress;
use crate::cli::summary::grouped;
use crate::link::kafka::Client;
use crate::link::objects::Folder;
use crate::pipeline::plan::Plan;
use crate::sink::kafka::audit::{self, Found, Origin, Spans};
use crate::sink::parquet::rows;
use crate::sink::{Delivery, Settings, letters};
use crate::source;

const STAGE: &str = "verify";

/// What was read and found.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Nothing is wrong.
    complete: bool,
    input: String,
    output: String,
    group: String,
    /// Input records that are not yet committed as done, counted in offsets.
    behind: u64,
    forecasts: u64,
    /// Forecasts, rows that say that a key is overdue and dead letters that stand in the files of a backfill; they are counted in the others as well.
    from_files: u64,
    /// Records of events before `since`, which need no output.
    before_since: u64,
    /// Rows that say that a key is overdue.
    overdue: u64,
    dead_letters: u64,
    /// Dead letters at the same place that came from other topics.
    dead_letters_of_others: u64,
    #[serde(flatten)]
    findings: Findings,
    /// Outputs that do not say which record they come from.
    unplaced: Faults,
    /// What a reader should know about the above.
    notes: Vec<String>,
}

/// Audits a pipeline from Kafka to Kafka.
pub fn verify(plan: &Plan, client: &Client, topic: &str, files: Option<&Path>, json: bool) -> Result<()> {
    let source::Settings::Kafka(input) = &plan.source else {
        return Err(Error::config(
            STAGE,
            "the outputs are in Kafka but the records are not: there are no committed offsets to compare with",
        )
        .help("verify a pipeline whose source is a Kafka topic"));
    };
    let files = files.map(|folder| Files::new(plan, folder)).transpose()?;
    // In this order a pipeline may go on meanwhile: what was committed before the ends of the outputs are known has its outputs below
    // them, and what lies below these ends was committed before the offsets are asked for again.
    let required = audit::committed(&input.client, &input.topic, &input.group)?;
    let outputs = audit::spans(client, topic)?;
    let dead = match &plan.dead_letter {
        Settings::Kafka { client, topic } => Some((client, topic, audit::spans(client, topic)?)),
        _ => None,
    };
    let allowed = audit::committed(&input.client, &input.topic, &input.group)?;
    let records = audit::spans(&input.client, &input.topic)?;
    if allowed.is_empty() && records.values().any(|(low, end)| low < end) {
        return Err(Error::config(STAGE, format!("the group `{}` has committed nothing of the topic `{}`", input.group, input.topic))
            .at(input.client.brokers.clone())
            .help("run the pipeline first, or name the group that it ran with: --set source.group=NAME"));
    }
    let mut audit = Audit::new(plan, &records, &required, &allowed)?;
    audit.report.input.clone_from(&input.topic);
    topic.clone_into(&mut audit.report.output);
    audit.report.group.clone_from(&input.group);

    let done: Spans = records
        .iter()
        .map(|(partition, (low, end))| (*partition, (*low, allowed.get(partition).map_or(*low, |next| (*next).min(*end)))))
        .collect();
    let total = [Some(&done), Some(&outputs), dead.as_ref().map(|(_, _, spans)| spans)].into_iter().flatten().map(length).sum();
    let mut progress = Progress::start("records", Some(total));
    let mut read = 0_u64;
    let mut step = move || {
        read += 1;
        if read.is_multiple_of(1000) {
            progress.at(read);
        }
    };
    let mut sight = input.since.map(|since| (since, Sight::new(&plan.schema, plan.schemas.as_ref())));
    audit::read(&input.client, &input.topic, &input.group, &done, &mut |found| {
        step();
        let event = match &mut sight {
            Some((since, sight)) => sight.look(found.at, found.recorded, found.key, found.payload)?.map(|(time, _)| (*since, time)),
            None => None,
        };
        match event {
            Some((since, time)) if time < since => audit.report.before_since += 1,
            _ => audit.ledger.record(found.at),
        }
        Ok(())
    })?;
    if let Some(files) = &files {
        audit.backfilled(files)?;
    }
    audit::read(client, topic, &input.group, &outputs, &mut |found| {
        step();
        audit.forecast(found);
        Ok(())
    })?;
    audit.deleted("output", &outputs);
    if let Some((client, topic, spans)) = &dead {
        audit::read(client, topic, &input.group, spans, &mut |found| {
            step();
            audit.letter(found, &input.topic);
            Ok(())
        })?;
        audit.deleted("dead-letter", spans);
    }
    audit.letters(&plan.dead_letter, &input.topic)?;
    audit.finish(plan)?.print(json)
}

fn length(spans: &Spans) -> u64 {
    spans.values().map(|(low, end)| u64::try_from(end.0.saturating_sub(low.0)).unwrap_or(0)).sum()
}

/// Name of a field in the output, if it is written.
fn name_of(plan: &Plan, field: &str) -> Option<String> {
    match plan.sink_fields.is_empty() {
        true => Some(field.to_owned()),
        false => plan.sink_fields.iter().find(|(_, of)| of == field).map(|(name, _)| name.clone()),
    }
}

/// The output folder of a backfill whose rows have positions in the topic.
struct Files {
    forecasts: PathBuf,
    dead_letters: PathBuf,
    names: rows::Names,
}

impl Files {
    /// Looks whether the rows of the folder can be counted with the topic's.
    fn new(plan: &Plan, folder: &Path) -> Result<Self> {
        let fault =
            |text: &str, help: &str| Err(Error::config(STAGE, text.to_owned()).at(folder.display().to_string()).help(help.to_owned()));
        // To look for a folder must not make it.
        let there = folder.is_dir().then(|| Folder::open(folder)).transpose()?;
        let Some(manifest) = there.map(|there| Manifest::read(&there)).transpose()?.flatten() else {
            return fault("there is no backfill in the folder", "name with --files what `meantime backfill` was given with --to");
        };
        if manifest.positions.is_none() {
            return fault(
                "the backfill's rows have no positions in the topic: their offsets count rows",
                "verify topic and files apart: leave --files out, then --set 'sink={kind=\"parquet\",path=\"DIR/forecasts\"}'",
            );
        }
        let (Some(partition), Some(offset)) = (name_of(plan, "partition"), name_of(plan, "offset")) else {
            return fault(
                "the rows do not say which records they come from: [sink] fields leaves out `partition` or `offset`",
                "add partition = \"partition\", offset = \"offset\" to [sink] fields and backfill again",
            );
        };
        let overdue = name_of(plan, "overdue").filter(|_| !plan.asks.overdue.is_empty());
        if overdue.is_none() && !plan.asks.overdue.is_empty() {
            return fault(
                "rows that say that a key is overdue look like forecasts: [sink] fields leaves out `overdue`",
                "add overdue = \"overdue\" to [sink] fields and backfill again",
            );
        }
        let (key, count) = (name_of(plan, "key"), name_of(plan, "n_events").filter(|_| plan.order.lateness > Gap(0)));
        let names = rows::Names { partition, offset, overdue, key, count };
        Ok(Files { forecasts: folder.join("forecasts"), dead_letters: folder.join("dead-letters"), names })
    }
}

struct Audit {
    ledger: Ledger,
    report: Report,
    /// Output names of `partition` and `offset`, where both are written.
    position: Option<(String, String)>,
    /// Output name of `overdue`, where keys may be.
    overdue: Option<String>,
    /// Output name of `n_events`, where that orders the forecasts of a key and not the offset.
    count: Option<String>,
    /// Events are held back, and forecasts do not say which event of its key each is.
    orderless: bool,
}

impl Audit {
    fn new(plan: &Plan, records: &Spans, required: &BTreeMap<Partition, Offset>, allowed: &BTreeMap<Partition, Offset>) -> Result<Self> {
        let name = |field: &str| name_of(plan, field);
        let held = plan.order.lateness > Gap(0);
        let count = name("n_events").filter(|_| held);
        let mut report = Report::default();
        let lines = records.iter().map(|(partition, (low, end))| {
            let of = |offsets: &BTreeMap<Partition, Offset>| offsets.get(partition).map_or(*low, |next| (*next).max(*low));
            let behind = end.0.saturating_sub(of(allowed).0);
            report.behind = report.behind.saturating_add(u64::try_from(behind).unwrap_or(0));
            if behind < 0 {
                report
                    .notes
                    .push(format!("partition {partition}: the committed offset {} is beyond the end {end} of the input", of(allowed)));
            }
            (*partition, (*low, of(required), of(allowed)))
        });
        let ledger = Ledger::new(lines.collect::<Vec<_>>())?;
        let overdue = name("overdue").filter(|_| !plan.asks.overdue.is_empty());
        Ok(Audit { ledger, report, position: name("partition").zip(name("offset")), overdue, orderless: held && count.is_none(), count })
    }

    fn forecast(&mut self, found: &Found<'_>) {
        let Some((at, overdue)) = self.origin(found) else {
            self.report.forecasts += 1;
            return self.unplaced("forecast", found.at);
        };
        if let Some(quantile) = overdue {
            self.report.overdue += 1;
            return self.ledger.overdue(at, quantile);
        }
        self.report.forecasts += 1;
        let stands = || format!("forecast {}:{}", found.at.0, found.at.1);
        if self.ledger.output(at, &stands)
            && !self.orderless
            && let Some(key) = found.key
        {
            let rank = match &self.count {
                None => Some(Rank::Offset),
                Some(name) => found.payload.and_then(|payload| field(payload, name)).map(Rank::Count),
            };
            if let Some(rank) = rank {
                self.ledger.in_order(at, &Keyed { key, stands: Some(found.at), rank });
            }
        }
    }

    /// Where a forecast comes from, and the quantile that has passed if it says that: its header, or else the fields of the layout.
    fn origin(&self, found: &Found<'_>) -> Option<(Position, Option<f64>)> {
        match found.origin {
            Origin::At(at) => Some(((at.partition, at.offset), at.overdue)),
            Origin::Unreadable => None,
            Origin::Unnamed => {
                let (partition, offset) = self.position.as_ref()?;
                let payload = found.payload?;
                let row: Json = serde_json::from_slice(payload).ok()?;
                let partition = row.get(partition)?.as_i64().and_then(|partition| i32::try_from(partition).ok())?;
                let overdue = self.overdue.as_ref().and_then(|name| row.get(name)?.as_f64());
                Some(((Partition(partition), Offset(row.get(offset)?.as_i64()?)), overdue))
            }
        }
    }

    fn letter(&mut self, found: &Found<'_>, input: &str) {
        match found.payload.map(|payload| letters::position(payload, input)) {
            Some(Ok(Some(at))) => {
                self.report.dead_letters += 1;
                self.ledger.output(at, &|| format!("dead letter {}:{}", found.at.0, found.at.1));
            }
            Some(Ok(None)) => self.report.dead_letters_of_others += 1,
            _ => self.unplaced("dead letter", found.at),
        }
    }

    /// What a backfill has written.
    fn backfilled(&mut self, files: &Files) -> Result<()> {
        let (ledger, report) = (&mut self.ledger, &mut self.report);
        let (mut forecasts, mut late, mut without) = (0, 0, 0_u64);
        let (counted, orderless) = (self.count.is_some(), self.orderless);
        let rows = rows::positions(&files.forecasts, &files.names, &mut |row| match row.overdue {
            Some(quantile) => {
                late += 1;
                ledger.overdue(row.at, quantile);
            }
            None => {
                forecasts += 1;
                let rank = if counted { row.count.map(Rank::Count) } else { Some(Rank::Offset) };
                without += u64::from(row.key.is_none());
                if ledger.output(row.at, &|| "forecast in a file".to_owned())
                    && !orderless
                    && let (Some(key), Some(rank)) = (row.key, rank)
                {
                    ledger.in_order(row.at, &Keyed { key: key.as_bytes(), stands: None, rank });
                }
            }
        })?;
        let letters = rows::positions(&files.dead_letters, &rows::Names::of_dead_letters(), &mut |row| {
            ledger.output(row.at, &|| "dead letter in a file".to_owned());
        })?;
        if without > 0 && !orderless {
            report.notes.push(format!(
                "the order of {} forecasts in files was not checked: the files are by date, or their key is not written or no text",
                grouped(without)
            ));
        }
        report.forecasts += forecasts;
        report.overdue += late;
        report.dead_letters += letters;
        report.from_files = rows + letters;
        Ok(())
    }

    /// Dead letters that are in files.
    fn letters(&mut self, settings: &Settings, input: &str) -> Result<()> {
        let (ledger, mut letters) = (&mut self.ledger, 0_u64);
        let mut each = |at: Position| {
            letters += 1;
            ledger.output(at, &|| "dead letter".to_owned());
        };
        match settings {
            Settings::Kafka { .. } => {}
            Settings::Ndjson { path } if path.as_os_str() == "-" => {
                self.report.notes.push("dead letters went to stdout: a missing output may be one of them".to_owned());
            }
            Settings::Ndjson { path } => {
                let told = letters::ndjson(path, input, &mut each)?;
                self.report.dead_letters_of_others += told.foreign;
                if told.unreadable > 0 {
                    self.report.notes.push(format!("{} lines of {} are no dead letters", told.unreadable, path.display()));
                }
            }
            Settings::Parquet { place, .. } => self.report.dead_letters_of_others += letters::parquet(place, input, &mut each)?,
        }
        self.report.dead_letters += letters;
        Ok(())
    }

    fn unplaced(&mut self, what: &str, at: Position) {
        self.report.unplaced.note(|| format!("{what} {}:{}", at.0, at.1));
    }

    fn deleted(&mut self, what: &str, spans: &Spans) {
        let cut: Vec<String> = spans.iter().filter(|(_, (low, _))| low.0 > 0).map(|(p, (low, _))| format!("{p} from {low}")).collect();
        if !cut.is_empty() {
            let note =
                format!("the {what} topic has deleted its first records (partition {}): their outputs count as missing", cut.join(", "));
            self.report.notes.push(note);
        }
    }

    fn finish(self, plan: &Plan) -> Result<Report> {
        let Audit { ledger, mut report, orderless, .. } = self;
        if report.forecasts > 0 && report.unplaced.count >= report.forecasts {
            return Err(Error::config(STAGE, "no forecast says which record it comes from")
                .at(format!("topic {}", report.output))
                .help("leave `position_header` of [sink] on, or write the position: fields = { partition = \"partition\", offset = \"offset\", ... }"));
        }
        report.findings = ledger.close();
        if orderless {
            let note =
                "the order of a key's forecasts was not checked: events are held back (`order.lateness`) and `n_events` is not written";
            report.notes.push(note.to_owned());
        }
        if report.findings.deleted > 0 {
            let note = format!("{} outputs are of records that the input topic has deleted", grouped(report.findings.deleted));
            report.notes.push(note);
        }
        let exactly_once = plan.delivery == Delivery::ExactlyOnce;
        if !exactly_once && report.findings.ahead.count > 0 {
            report
                .notes
                .push("outputs before their commit are usual with at_least_once while the pipeline runs or after a crash".to_owned());
        }
        if report.findings.split_keys.first.iter().any(|example| example.contains("(input")) {
            let note = "records of one key are in several partitions of the input, so that each has a state of a part of its events: let producers use the \
                        event's key as the record's key, or repartition the topic by it";
            report.notes.push(note.to_owned());
        }
        let found = &report.findings;
        let wrong = [&found.missing, &found.repeated, &found.unknown, &found.out_of_order, &found.split_keys, &report.unplaced];
        report.complete = wrong.iter().all(|faults| faults.count == 0) && !(exactly_once && found.ahead.count > 0);
        Ok(report)
    }
}

/// A whole number of a JSON object.
fn field(payload: &[u8], name: &str) -> Option<i64> {
    serde_json::from_slice::<Json>(payload).ok()?.get(name)?.as_i64()
}

impl Report {
    fn text(&self) -> String {
        let mut text = format!("{} -> {} as group {}\n", self.input, self.output, self.group);
        let found = &self.findings;
        let keys = if found.all_keys { "all keys".to_owned() } else { format!("a sample of {} keys", grouped(found.keys_checked)) };
        let behind = if self.behind > 0 { format!("  ({} offsets are not done yet)", grouped(self.behind)) } else { String::new() };
        let others = match self.dead_letters_of_others {
            0 => String::new(),
            others => format!("  (and {} of other topics)", grouped(others)),
        };
        let counts = [
            ("records done", format!("{}{behind}", grouped(found.records))),
            ("forecasts", grouped(self.forecasts)),
            ("  of all outputs in files", grouped(self.from_files)),
            ("before `since`", grouped(self.before_since)),
            ("overdue", grouped(self.overdue)),
            ("dead letters", format!("{}{others}", grouped(self.dead_letters))),
            ("order checked of", keys),
        ];
        let faults = [
            ("lost", &found.missing),
            ("repeated", &found.repeated),
            ("out of order", &found.out_of_order),
            ("key in two partitions", &found.split_keys),
            ("of no record", &found.unknown),
            ("before their commit", &found.ahead),
            ("without a position", &self.unplaced),
        ];
        let mut row = |name: &str, value: &str| {
            let _ = writeln!(text, "  {name:<26} {value}");
        };
        let shown = |name: &str| match name {
            "  of all outputs in files" => self.from_files > 0,
            "before `since`" => self.before_since > 0,
            _ => true,
        };
        counts.iter().filter(|(name, _)| shown(name)).for_each(|(name, value)| row(name, value));
        for (name, faults) in faults {
            let more = if faults.first.is_empty() { String::new() } else { format!("  first: {}", faults.first.join(", ")) };
            row(name, &format!("{}{more}", grouped(faults.count)));
        }
        self.notes.iter().for_each(|note| row("note", note));
        text
    }

    fn print(&self, json: bool) -> Result<()> {
        let text = match json {
            true => serde_json::to_string(self).map(|text| text + "\n").map_err(|e| Error::internal(STAGE, e.to_string()))?,
            false => self.text(),
        };
        let printed = print(STAGE, format_args!("{text}"));
        if self.complete {
            return printed;
        }
        Err(Error::new(Kind::Check, STAGE, "the outputs do not match the input one to one")
            .at(format!("topic {}", self.output))
            .help("the findings above name the first positions as partition:offset of the input"))
    }
}
