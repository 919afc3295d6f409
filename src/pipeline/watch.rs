//! Reasons and alarms of the plan, and that no two outputs are one place.

use std::path::Path;

use super::Purpose;
use super::build::Build;
use super::snapshots;
use super::written;
use crate::base::limits::MAX_STATE_FLOATS;
use crate::base::number::index;
use crate::data::law::HeadSpec;
use crate::features::reasons::{Asked, Wording};
use crate::features::recipe::Recipe;
use crate::model::manifest::Manifest;
use crate::{sink, source};

impl Build<'_> {
    /// What `[reasons]` asks for, with the package's own wording.
    pub fn reasons(&mut self, written: &written::Reasons, package: &Path, model: Option<&(Manifest, Recipe)>) -> Option<Asked> {
        let (manifest, recipe) = model?;
        let path = ["reasons", "above"];
        let score = matches!(manifest.head, HeadSpec::Score { .. });
        if let Some(above) = written.above
            && score
            && above >= 1.0
        {
            let label = format!("got {}, expected less than 1", self.shown(&path));
            self.note("pipeline::out_of_range", &path, "no score comes to that", label, "write above = 0.9");
        }
        let path = ["reasons", "surprise"];
        // Of a shadow what its model does not give is left out.
        if score && self.purpose != Purpose::Shadow && self.find(&path).is_some() {
            let label = format!("got {}, but the model's head gives a score", self.shown(&path));
            let help = "remove surprise: the reasons of a score are by the recipe's columns as it is";
            self.note("pipeline::not_supported", &path, "a score has no surprise", label, help);
        }
        let event_before = !score && written.surprise == written::SurpriseBy::Columns;
        let floats = snapshots::event_before(manifest, recipe).floats();
        if event_before && floats > MAX_STATE_FLOATS {
            let label = format!("it would keep {floats} more floats of each key; allowed are {MAX_STATE_FLOATS}");
            self.note("pipeline::out_of_range", &path, "the model's state is too large for that", label, "write surprise = \"parts\"");
        }
        let wording = match Wording::load(package, recipe) {
            Ok(wording) => wording,
            Err(error) => {
                let help = "write the subjects as they are listed, or remove the file";
                self.note("pipeline::bad_package", &["reasons"], error.to_string(), "asked for here", help);
                return None;
            }
        };
        // -ln 0.01.
        let above = written.above.unwrap_or(if score { 0.5 } else { 4.605_170_185_988_091 });
        Some(Asked { reasons: wording.reasons(recipe, score || event_before), top: index(written.top), event_before, above })
    }

    /// Where `[alarm]` raises alarms.
    pub fn alarm(&mut self, alarm: &written::Alarm, source: Option<&written::Source>) -> Option<sink::Settings> {
        match alarm {
            written::Alarm::Kafka { brokers, topic, client } => {
                let client = self.sink_client("alarm", brokers.as_ref(), client.as_ref(), source);
                Some(sink::Settings::Kafka { client: client?, topic: topic.clone()? })
            }
            written::Alarm::Ndjson { path } => self.ndjson("alarm", path.as_deref()),
        }
    }

    /// Source, sink, dead letters and alarms are four places.
    pub fn distinct(&mut self, source: Option<&source::Settings>, outputs: &[(&str, Option<&sink::Settings>)]) {
        for (i, (table, settings)) in outputs.iter().enumerate() {
            if let (Some(source::Settings::Kafka(kafka)), Some(sink::Settings::Kafka { client, topic })) = (source, settings)
                && kafka.topic == *topic
                && kafka.client.brokers == client.brokers
            {
                let path = [*table, "topic"];
                let label = format!("got {}, which [source] reads", self.shown(&path));
                self.note("pipeline::same_topic", &path, "the pipeline would read what it writes", label, "name another topic");
            }
            for (other, earlier) in outputs.iter().take(i) {
                if let Some(key) = same_place(*earlier, *settings) {
                    let label = format!("[{other}] writes there too: {}", self.shown(&[other, key]));
                    let help = format!("give [{table}] another {key}");
                    let what = if *table == "dead_letter" {
                        "forecasts and dead letters would be mixed"
                    } else {
                        "different outputs would be mixed"
                    };
                    self.note("pipeline::same_place", &[table, key], what, label, help);
                }
            }
        }
    }
}

/// The key that says so, if two outputs are one place.
fn same_place(one: Option<&sink::Settings>, other: Option<&sink::Settings>) -> Option<&'static str> {
    match (one?, other?) {
        (sink::Settings::Kafka { client: a, topic: s }, sink::Settings::Kafka { client: b, topic: t }) => {
            (s == t && a.brokers == b.brokers).then_some("topic")
        }
        (sink::Settings::Parquet { place: s, .. }, sink::Settings::Parquet { place: t, .. }) => (s == t).then_some("path"),
        (one, other) => one.path().filter(|path| Some(*path) == other.path()).map(|_| "path"),
    }
}
