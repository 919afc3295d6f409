//! From the file as written to the plan: defaults, paths, and the checks that need more than one key. Faults are noted, never returned.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Purpose;
use super::document::{Document, Node, Value};
use super::fault::{Faults, Place};
use super::plan::{OnChange, Plan};
use super::schema;
use super::schemas;
use super::settings;
use super::snapshots;
use super::written::{self, Written};
use crate::base::nearest::nearest;
use crate::base::number::index;
use crate::base::time::Gap;
use crate::data::forecasts::Identity;
use crate::data::layout::Layout;
use crate::features::reasons::Asked;
use crate::features::recipe::Recipe;
use crate::link::kafka::Client;
use crate::link::objects;
use crate::model::manifest::Manifest;
use crate::{decode, head, sink, source};

/// Distance of residuals that counts as drift where the pipeline says nothing: daily rhythms that a law misses come to about half of it.
const DRIFT: f64 = 0.1;
/// Client settings that meantime sets itself: name, the key that sets it, whether for consumers only.
const OWNED: [(&str, &str, bool); 6] = [
    ("bootstrap.servers", "brokers", false),
    ("metadata.broker.list", "brokers", false),
    ("group.id", "group", true),
    ("enable.auto.commit", "commit_every", true),
    ("auto.commit.interval.ms", "commit_every", true),
    ("enable.auto.offset.store", "commit_every", true),
];

/// What is known while a plan is built.
pub(super) struct Build<'a> {
    /// The file as a tree, for places and for how values may be shown.
    pub document: &'a Document,
    /// Where faults are noted.
    pub faults: &'a mut Faults,
    /// Folder of the pipeline file.
    pub folder: &'a Path,
    /// The pipeline as the user named it, for advice.
    pub file: String,
    /// What the plan is for.
    pub purpose: Purpose,
    /// The key that names the package that is looked at.
    pub package_key: [&'static str; 2],
}

impl Build<'_> {
    /// The plan, if there was enough to make one; it counts only if there is no fault.
    pub fn plan(&mut self, written: &Written) -> Option<Plan> {
        let name = written.name.clone();
        let source = written.source.as_ref().and_then(|source| self.source(source, written));
        let package = self.folder.join(written.model.as_ref().map_or("model", |model| model.package.as_str()));
        let model = if !matches!(self.purpose, Purpose::Fit | Purpose::Generate) { self.package(&package) } else { None };
        let fit = self.fit(written.fit.as_ref());
        let event = written.event.as_ref();
        let schema = event.and_then(|event| schema::event_schema(self, event, model.as_ref(), &fit));
        let format = match event.map(|event| event.format).unwrap_or_default() {
            written::Format::Json => decode::Format::Json,
            written::Format::Avro => decode::Format::Avro,
            written::Format::Parquet => decode::Format::Parquet,
        };
        if written.order.as_ref().is_some_and(|order| order.idle_after.is_some())
            && !matches!(written.source, Some(written::Source::Kafka { .. }) | None)
        {
            let path = ["order", "idle_after"];
            let label = format!("got {}", self.shown(&path));
            let message = "only a Kafka topic can be idle: a file has an end";
            self.note("pipeline::not_supported", &path, message, label, "remove idle_after, or read from a topic");
        }
        if event.is_some() {
            self.format_and_source(format, written.source.as_ref());
        }
        let schemas = event.and_then(|event| schemas::schemas(self, event));
        let (asks, horizon_names) = self.asks(written, model.as_ref().map(|(manifest, _)| manifest));
        let reasons = written.reasons.as_ref().and_then(|reasons| self.reasons(reasons, &package, model.as_ref()));
        let sink = written.sink.as_ref().and_then(|sink| self.sink(sink, written.source.as_ref(), &written.name));
        let dead = written.dead_letter.clone().unwrap_or_default();
        let dead_faulty = self.find(&["dead_letter"]).is_some_and(|node| matches!(node.value, Value::Faulty));
        let dead_letter = if dead_faulty { None } else { self.dead_letter(&dead, written.source.as_ref()) };
        let alarm = written.alarm.as_ref().and_then(|alarm| self.alarm(alarm, written.source.as_ref()));
        let shadow_sink = written.shadow.as_ref().and_then(|shadow| self.shadow_sink(shadow, sink.as_ref()));
        let outputs = [("sink", &sink), ("dead_letter", &dead_letter), ("alarm", &alarm), ("shadow", &shadow_sink)];
        self.distinct(source.as_ref(), &outputs.map(|(table, settings)| (table, settings.as_ref())));
        let delivery = written.sink.as_ref().map_or(sink::Delivery::AtLeastOnce, |sink| self.delivery(sink, written.source.as_ref()));
        let position_header = !matches!(written.sink, Some(written::Sink::Kafka { position_header: false, .. }));
        let sink_fields = written
            .sink
            .as_ref()
            .map(|sink| self.sink_fields(sink, &asks, &horizon_names, reasons.as_ref(), model.as_ref()))
            .unwrap_or_default();
        let run = written.run.as_ref();
        let since = match &source {
            Some(source::Settings::Kafka(kafka)) => kafka.since,
            _ => None,
        };
        let plan = Plan {
            name: name?,
            folder: self.folder.to_path_buf(),
            source: source?,
            since,
            format,
            schemas,
            schema: schema?,
            order: settings::order(written.order.as_ref(), !asks.overdue.is_empty()),
            package,
            model,
            on_change: match written.model.as_ref().map(|model| model.on_change).unwrap_or_default() {
                written::OnChange::Carry => OnChange::Carry,
                written::OnChange::Reset => OnChange::Reset,
                written::OnChange::Fail => OnChange::Fail,
            },
            state: settings::state(written.state.as_ref()),
            snapshots: written.state.as_ref().and_then(|state| snapshots::settings(self, state)),
            asks,
            horizon_names,
            drift: written.forecast.as_ref().and_then(|forecast| forecast.drift).map_or(DRIFT, |distance| distance.0),
            reasons,
            sink: sink?,
            sink_fields,
            delivery,
            position_header,
            shadow: None,
            commit_every: written.sink.as_ref()?.commit_every().value,
            dead_letter: dead_letter?,
            alarm,
            max_bad_ratio: dead.max_bad_ratio(),
            lanes: run.map_or(1, |run| index(run.lanes)),
            max_batch: run.map_or(4096, |run| index(run.max_batch)),
            stop_timeout: run.map_or(Duration::from_secs(30), |run| run.stop_timeout.value),
            fit,
        };
        // What is wrong with the pipeline would be told once more of the shadow.
        let shadow = match (&written.shadow, shadow_sink) {
            (Some(shadow), Some(sink)) if self.purpose == Purpose::Run && self.faults.is_empty() => {
                self.shadow(written, shadow, sink, &plan)
            }
            _ => None,
        };
        Some(Plan { shadow: shadow.map(Box::new), ..plan })
    }

    /// The node at a path.
    pub fn find(&self, path: &[&str]) -> Option<&Node> {
        self.document.find(path)
    }

    /// Whether a key was left out, as opposed to being faulty or in a part of the file that could not be read.
    pub fn is_absent(&self, path: &[&str]) -> bool {
        self.document.broken.is_empty() && self.find(path).is_none()
    }

    /// Notes a fault at a path.
    pub fn note(
        &mut self,
        code: &'static str,
        path: &[&str],
        message: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) {
        let place: Place = self.document.place(path);
        self.faults.note(code, place, message, label, help);
    }

    /// A value as the user wrote it.
    pub fn shown(&self, path: &[&str]) -> String {
        self.document.shown(path)
    }

    fn source(&mut self, source: &written::Source, written: &Written) -> Option<source::Settings> {
        match source {
            written::Source::Kafka { brokers, topic, group, instance, since, client } => {
                self.own_settings("source", client);
                let client = client_of(brokers.as_ref(), client);
                let on_missing = match written.state.as_ref().map(|state| state.on_missing).unwrap_or_default() {
                    _ if self.is_absent(&["state", "on_missing"]) => source::OnMissing::Unsaid,
                    written::OnMissing::Rebuild => source::OnMissing::Rebuild,
                    written::OnMissing::StartEmpty => source::OnMissing::StartEmpty,
                    written::OnMissing::Fail => source::OnMissing::Fail,
                };
                let group = match group {
                    Some(group) => Some(group.clone()),
                    None => written.name.as_ref().map(|name| format!("meantime-{name}")),
                };
                let instance = instance.clone();
                Some(source::Settings::Kafka(source::KafkaSettings {
                    client: client?,
                    topic: topic.clone()?,
                    group: group?,
                    on_missing,
                    idle_after: written.order.as_ref().and_then(|order| order.idle_after.as_ref()).map(|length| length.value),
                    instance,
                    since: since.as_ref().map(|since| since.value),
                }))
            }
            written::Source::File { paths } => {
                let paths = paths.as_ref()?;
                let files = paths.iter().enumerate().flat_map(|(i, pattern)| self.files(i, pattern)).map(Into::into).collect();
                Some(source::Settings::File(source::FileSettings { paths: files }))
            }
            written::Source::Generate { stream, events, keys, seed } => {
                let stream = match (*stream)? {
                    written::Stream::Cards => source::Stream::Cards,
                    written::Stream::Visits => source::Stream::Visits,
                    written::Stream::Telemetry => source::Stream::Telemetry,
                };
                Some(source::Settings::Generate(source::GenerateSettings { stream, events: *events, keys: *keys, seed: *seed }))
            }
        }
    }

    /// The files a glob stands for, by name.
    fn files(&mut self, i: usize, pattern: &str) -> Vec<PathBuf> {
        let position = i.to_string();
        let path = ["source", "paths", position.as_str()];
        if !self.is_local(pattern, &path) {
            return Vec::new();
        }
        // The folder is a path and no pattern, whatever its name. That of a file named without one is empty, and a slash after it would be the root of
        // the disk; what is absolute stays as it is.
        let whole = Path::new(&glob::Pattern::escape(&self.folder.to_string_lossy())).join(pattern);
        let whole = whole.to_string_lossy();
        let found = match glob::glob(&whole) {
            Ok(found) => found,
            Err(error) => {
                let label = format!("{}: {}", self.shown(&path), error.msg);
                self.note(
                    "pipeline::bad_value",
                    &path,
                    "this is not a pattern for files",
                    label,
                    "`*` stands for any part of a name, `**` for any folders",
                );
                return Vec::new();
            }
        };
        let mut files: Vec<PathBuf> = found.filter_map(Result::ok).filter(|path| path.is_file()).collect();
        files.sort();
        if files.is_empty() && self.purpose == Purpose::Run {
            let help = "relative paths start at the folder of the pipeline file";
            self.note("pipeline::no_files", &path, "no file matches", format!("{} matches nothing", self.shown(&path)), help);
        }
        files
    }

    /// Whether a path is on this machine; object stores come later.
    fn is_local(&mut self, text: &str, path: &[&str]) -> bool {
        if !text.contains("://") {
            return true;
        }
        let label = format!("got {}, expected a path of the file system", self.shown(path));
        self.note(
            "pipeline::not_supported_yet",
            path,
            "not supported yet: object stores and other URLs",
            label,
            "write a path on this machine",
        );
        false
    }

    /// Notes client settings that are not the user's to set.
    fn own_settings(&mut self, table: &str, settings: &written::Client) {
        for name in settings.keys() {
            if let Some((_, key, _)) = OWNED.iter().find(|(owned, _, consumer)| owned == name && (table == "source" || !consumer)) {
                let path = [table, "client", name.as_str()];
                let message = format!("the client setting `{name}` is not for the user to set");
                self.note("pipeline::reserved_setting", &path, message, format!("`{key}` sets it"), format!("remove it and use `{key}`"));
            }
        }
    }

    /// The client of a sink: its own, or what it leaves out taken from a Kafka source. Settings go with the brokers they are
    /// meant for: credentials of one cluster are not sent to another.
    pub(super) fn sink_client(
        &mut self,
        table: &str,
        brokers: Option<&String>,
        settings: Option<&written::Client>,
        source: Option<&written::Source>,
    ) -> Option<Client> {
        let none = written::Client::new();
        let (source_brokers, source_settings) = match source {
            Some(written::Source::Kafka { brokers, client, .. }) => (brokers.as_ref(), client),
            _ => (None, &none),
        };
        let kafka_source = matches!(source, Some(written::Source::Kafka { .. }));
        if brokers.is_none() && !kafka_source && source.is_some() && self.is_absent(&[table, "brokers"]) {
            let message = format!("`brokers` is missing in [{table}]");
            let label = "the source is not Kafka, so there are none to take over";
            self.note("pipeline::missing_key", &[table], message, label, "add brokers = \"127.0.0.1:9092\"");
        }
        let same = brokers.is_none() || brokers == source_brokers;
        let inherited = if same { source_settings } else { &none };
        if let Some(settings) = settings {
            self.own_settings(table, settings);
        }
        client_of(brokers.or(source_brokers), settings.unwrap_or(inherited))
    }

    fn sink(&mut self, sink: &written::Sink, source: Option<&written::Source>, name: &Option<String>) -> Option<sink::Settings> {
        match sink {
            written::Sink::Kafka { brokers, topic, client, .. } => {
                let client = self.sink_client("sink", brokers.as_ref(), client.as_ref(), source);
                Some(sink::Settings::Kafka { client: client?, topic: topic.clone()? })
            }
            written::Sink::Parquet { path, roll_size, roll_every, delta, layout, .. } => {
                let mut settings = self.parquet("sink", path.as_deref(), roll_size.bytes, roll_every.value);
                let noted = name.as_ref().filter(|_| *delta);
                if let Some(sink::Settings::Parquet { delta, folders, .. }) = &mut settings {
                    (*delta, *folders) = (noted.cloned(), *layout);
                }
                settings
            }
            written::Sink::Ndjson { path, .. } => self.ndjson("sink", path.as_deref()),
        }
    }

    fn dead_letter(&mut self, dead: &written::DeadLetter, source: Option<&written::Source>) -> Option<sink::Settings> {
        match dead {
            written::DeadLetter::Kafka { brokers, topic, client, .. } => {
                let client = self.sink_client("dead_letter", brokers.as_ref(), client.as_ref(), source);
                Some(sink::Settings::Kafka { client: client?, topic: topic.clone()? })
            }
            written::DeadLetter::Parquet { path, roll_size, roll_every, .. } => {
                self.parquet("dead_letter", path.as_deref(), roll_size.bytes, roll_every.value)
            }
            written::DeadLetter::Ndjson { path, .. } => self.ndjson("dead_letter", Some(path)),
        }
    }

    pub(super) fn parquet(
        &mut self,
        table: &str,
        path: Option<&str>,
        roll_bytes: u64,
        roll_every: std::time::Duration,
    ) -> Option<sink::Settings> {
        let path_of = [table, "path"];
        match objects::Place::parse(path?, self.folder) {
            Ok(place) => Some(sink::Settings::Parquet { place, roll_bytes, roll_every, delta: None, folders: sink::Folders::default() }),
            Err(error) => {
                let label = format!("got {}: {}", self.shown(&path_of), error.message);
                self.note("pipeline::bad_value", &path_of, "this is no place for Parquet files", label, error.help.unwrap_or_default());
                None
            }
        }
    }

    pub(super) fn ndjson(&mut self, table: &str, path: Option<&str>) -> Option<sink::Settings> {
        let path = path?;
        let local = self.is_local(path, &[table, "path"]);
        let path = if path == "-" { PathBuf::from(path) } else { self.folder.join(path) };
        local.then_some(sink::Settings::Ndjson { path })
    }

    fn format_and_source(&mut self, format: decode::Format, source: Option<&written::Source>) {
        if matches!(self.find(&["event", "format"]), Some(Node { value: Value::Faulty, .. })) {
            return;
        }
        let parquet = format == decode::Format::Parquet;
        let place = ["event", "format"];
        if format == decode::Format::Avro && !matches!(source, Some(written::Source::Kafka { .. }) | None) {
            let help = "write format = \"json\" or \"parquet\", or read a topic: [source] kind = \"kafka\"";
            self.note("pipeline::format_source", &place, "Avro is a format of the records of a topic only", "this source gives none", help);
            return;
        }
        match source {
            Some(written::Source::Kafka { .. } | written::Source::Generate { .. }) if parquet => {
                let label = "this source gives JSON records";
                let help = "write format = \"json\", or read files: [source] kind = \"file\"";
                self.note("pipeline::format_source", &place, "Parquet is a format of files only", label, help);
            }
            Some(written::Source::File { paths: Some(paths) }) => {
                let other = |pattern: &String| match Path::new(pattern).extension()?.to_string_lossy().to_lowercase().as_str() {
                    "parquet" if !parquet => Some("parquet"),
                    "ndjson" | "jsonl" | "json" if parquet => Some("json"),
                    _ => None,
                };
                // The first is enough: the format is one for all files.
                if let Some((i, other)) = paths.iter().enumerate().find_map(|(i, pattern)| Some((i, other(pattern)?))) {
                    let position = i.to_string();
                    let path = ["source", "paths", position.as_str()];
                    let label = format!("got {}", self.shown(&path));
                    let expected = if parquet { "parquet" } else { "json" };
                    let message = format!("the files are not what [event] format says, which is \"{expected}\"");
                    self.note("pipeline::format_source", &path, message, label, format!("write format = \"{other}\" in [event]"));
                }
            }
            _ => {}
        }
    }

    pub(super) fn asks(&mut self, written: &Written, manifest: Option<&Manifest>) -> (head::Asks, Vec<String>) {
        let forecast = written.forecast.as_ref();
        let timed = manifest.is_none_or(|manifest| manifest.head.is_timed());
        let head_marks = manifest.map(|manifest| manifest.head.marks().len());
        let lenient = matches!(self.purpose, Purpose::Compare | Purpose::Shadow);
        let mark_named = written.event.as_ref().is_some_and(|event| event.mark.is_some());
        let asked_marks = forecast.and_then(|forecast| forecast.marks);

        let quantiles: Vec<f64> = match forecast.and_then(|forecast| forecast.quantiles.as_ref()) {
            Some(shares) => shares.iter().map(|share| share.0).collect(),
            None if timed => vec![0.1, 0.5, 0.9],
            None => Vec::new(),
        };
        let watched: Vec<f64> = forecast.map(|forecast| forecast.overdue.iter().map(|share| share.0).collect()).unwrap_or_default();
        let of_values = self.value_quantiles(forecast, manifest, &quantiles);
        for (key, values) in [("quantiles", &quantiles), ("value_quantiles", &of_values), ("overdue", &watched)] {
            if !values.is_sorted_by(|a, b| a < b) {
                let mut sorted = values.clone();
                sorted.sort_by(f64::total_cmp);
                sorted.dedup();
                let path = ["forecast", key];
                let label = format!("got {}, expected each above the one before", self.shown(&path));
                self.note("pipeline::unsorted", &path, "the quantiles are not ascending", label, format!("write {key} = {sorted:?}"));
            }
        }

        let mut names: Vec<String> = Vec::new();
        let mut horizons: Vec<Gap> = Vec::new();
        for (i, horizon) in forecast.map(|forecast| forecast.horizons.as_slice()).unwrap_or_default().iter().enumerate() {
            // Names become names of columns.
            let name: String = horizon.text.chars().filter(|c| !c.is_whitespace()).collect();
            let gap = Gap::from(horizon.value);
            if names.contains(&name) || horizons.contains(&gap) {
                let position = i.to_string();
                let path = ["forecast", "horizons", position.as_str()];
                let label = format!("got {} again", self.shown(&path));
                self.note("pipeline::duplicate", &path, "a horizon stands twice", label, "remove one of the two");
            }
            names.push(name);
            horizons.push(gap);
        }
        if !timed && lenient {
            return (head::Asks::default(), Vec::new());
        }
        if !timed {
            for (key, asked) in [
                ("quantiles", forecast.is_some_and(|f| f.quantiles.is_some())),
                ("horizons", !horizons.is_empty()),
                ("overdue", !watched.is_empty()),
                ("drift", forecast.is_some_and(|f| f.drift.is_some())),
            ] {
                if asked {
                    let message = format!("`{key}` needs a law of the next event's time; the model gives a score only");
                    let help = format!("remove {key}, or fit a model without `label` in [event]");
                    self.note("pipeline::no_law_of_time", &["forecast", key], message, "asked for here", help);
                }
            }
        }

        let marks_path = ["forecast", "marks"];
        let unnamed = self.is_absent(&["event", "mark"]);
        if unnamed && asked_marks.is_some_and(|marks| marks > 0) {
            let label = format!("got {}, but [event] names no mark", self.shown(&marks_path));
            self.note(
                "pipeline::no_marks",
                &marks_path,
                "there are no marks to forecast",
                label,
                "add mark = \"...\" to [event], or write marks = 0",
            );
        }
        let known = head_marks.unwrap_or(usize::MAX);
        let asked = asked_marks.map(index);
        if lenient {
            // What there is, is given.
        } else if known == 0 && mark_named && timed {
            let label = "the head of the model package has no marks";
            let help = format!("remove mark, or fit a model with it: {}", self.fit_command());
            self.note("pipeline::no_marks", &["event", "mark"], "the model knows no marks", label, help);
        } else if let Some(asked) = asked
            && asked > known
            && !unnamed
        {
            let label = format!("got {asked}, the model knows {known}");
            self.note(
                "pipeline::out_of_range",
                &marks_path,
                "more marks are asked for than there are",
                label,
                format!("write marks = {known}"),
            );
        }
        let marks = asked.unwrap_or(if mark_named { 3 } else { 0 }).min(known);
        (head::Asks { horizons, marks, value_quantiles: of_values, ..head::Asks::of_times(quantiles, &watched) }, names)
    }

    /// Quantiles of the value: as asked, or those of the time, where the model has a law of it.
    fn value_quantiles(&mut self, forecast: Option<&written::Forecast>, manifest: Option<&Manifest>, of_times: &[f64]) -> Vec<f64> {
        let asked = forecast.and_then(|forecast| forecast.value_quantiles.as_ref());
        let valued = manifest.is_some_and(|manifest| manifest.head.value().is_some());
        if asked.is_some_and(|asked| !asked.is_empty()) && manifest.is_some() && !valued {
            let message = "`value_quantiles` needs a law of the next event's value; the model has none";
            let help = "remove value_quantiles, or fit a model with `value` in [fit]";
            self.note("pipeline::no_law_of_value", &["forecast", "value_quantiles"], message, "asked for here", help);
        }
        match asked {
            Some(shares) => shares.iter().map(|share| share.0).collect(),
            None if valued => of_times.to_vec(),
            None => Vec::new(),
        }
    }

    pub(super) fn sink_fields(
        &mut self,
        sink: &written::Sink,
        asks: &head::Asks,
        horizons: &[String],
        reasons: Option<&Asked>,
        model: Option<&(Manifest, Recipe)>,
    ) -> Vec<(String, String)> {
        let identity = Identity {
            quantiles: asks.quantiles.clone(),
            unwritten: asks.unwritten.clone(),
            overdue: asks.overdue.clone(),
            horizons: horizons.to_vec(),
            reasons: reasons.iter().flat_map(|asked| &asked.reasons).map(|reason| reason.code.clone()).collect(),
            value_quantiles: Some(asks.value_quantiles.clone()),
            ..Identity::default()
        };
        let any = Layout::full(&identity, true, true, true);
        // A package that cannot be read says nothing about which fields there are.
        let given = model.map_or_else(
            || any.clone(),
            |(manifest, _)| {
                let valued = manifest.head.value().is_some();
                let identity = Identity { value_quantiles: identity.value_quantiles.clone().filter(|_| valued), ..identity.clone() };
                super::identity::full_layout(&identity, &manifest.head, asks.marks)
            },
        );
        let mut fields: Vec<(Place, String, String)> = Vec::new();
        for (out, field) in sink.fields() {
            let path = ["sink", "fields", out.as_str()];
            fields.push((self.document.place(&path), out.clone(), field.clone()));
            if matches!(sink, written::Sink::Parquet { layout: sink::Folders::Date, .. }) && sink::parquet::is_date_column(out) {
                let label = format!("got a field called `{out}`");
                let message = "engines make a column of this name of the folders' names";
                self.note("pipeline::reserved_name", &path, message, label, "give the field another name");
            }
            if given.find(field).is_some() {
                continue;
            }
            if matches!(self.purpose, Purpose::Compare | Purpose::Shadow) && any.find(field).is_some() {
                fields.pop();
                continue;
            }
            let names: Vec<&str> = given.fields.iter().map(|(name, _)| name.as_str()).collect();
            let from_environment = self.find(&path).is_some_and(|node| node.loose.is_some());
            let help = match nearest(field, names.iter().copied()) {
                Some(guess) if !from_environment => format!("did you mean \"{guess}\"?"),
                _ => format!("there are {}", names.join(", ")),
            };
            let label = format!("got {}", self.shown(&path));
            let message = if any.find(field).is_some() { "the model does not give this field" } else { "a forecast has no such field" };
            self.note("pipeline::unknown_field", &path, message, label, help);
        }
        fields.sort();
        fields.into_iter().map(|(_, out, field)| (out, field)).collect()
    }

    /// The command that makes a model package.
    pub fn fit_command(&self) -> String {
        format!("meantime fit {} --from HISTORY --out FOLDER", self.file)
    }
}

fn client_of(brokers: Option<&String>, settings: &written::Client) -> Option<Client> {
    let settings = settings.iter().map(|(name, value)| (name.clone(), value.text())).collect();
    Some(Client { brokers: brokers?.clone(), settings })
}
