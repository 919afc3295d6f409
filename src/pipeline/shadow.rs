//! `[shadow]`: the pipeline once more, with the second package and a sink of its own.

use super::Purpose;
use super::build::Build;
use super::plan::{Plan, ShadowPlan};
use super::schema;
use super::written::{self, Written};
use crate::base::nearest::nearest;
use crate::data::field::Field;
use crate::data::layout::Layout;
use crate::sink;

impl Build<'_> {
    /// Where the shadow's forecasts go: the same kind of place as those of the first model.
    pub(super) fn shadow_sink(&mut self, shadow: &written::Shadow, sink: Option<&sink::Settings>) -> Option<sink::Settings> {
        let (key, other, kind) = match sink? {
            sink::Settings::Kafka { .. } => ("topic", "path", "a topic"),
            sink::Settings::Parquet { .. } => ("path", "topic", "a folder of Parquet files"),
            sink::Settings::Ndjson { .. } => ("path", "topic", "a file"),
        };
        if self.find(&["shadow", other]).is_some() {
            let label = format!("got {}, but [sink] is {kind}", self.shown(&["shadow", other]));
            let message = "the shadow's forecasts go to the same kind of place as the others";
            self.note("pipeline::shadow_sink", &["shadow", other], message, label, format!("write {key} = \"...\" instead"));
            return None;
        }
        let own = if key == "topic" { &shadow.topic } else { &shadow.path };
        let Some(own) = own else {
            if self.is_absent(&["shadow", key]) {
                let label = format!("[sink] is {kind}, so the shadow needs one too");
                let help = format!("add {key} = \"...\" to [shadow]");
                self.note("pipeline::missing_key", &["shadow"], format!("`{key}` is missing in [shadow]"), label, help);
            }
            return None;
        };
        match sink? {
            sink::Settings::Kafka { client, .. } => Some(sink::Settings::Kafka { client: client.clone(), topic: own.clone() }),
            sink::Settings::Parquet { roll_bytes, roll_every, folders: layout, .. } => {
                let mut settings = self.parquet("shadow", Some(own), *roll_bytes, *roll_every);
                if let Some(sink::Settings::Parquet { folders, .. }) = &mut settings {
                    *folders = *layout;
                }
                settings
            }
            sink::Settings::Ndjson { .. } => self.ndjson("shadow", Some(own)),
        }
    }

    /// The plan of the shadow, beside that of the first model. What the pipeline asks and this model does not give is left out.
    pub(super) fn shadow(&mut self, written: &Written, shadow: &written::Shadow, sink: sink::Settings, first: &Plan) -> Option<ShadowPlan> {
        let key = std::mem::replace(&mut self.package_key, ["shadow", "model"]);
        let purpose = std::mem::replace(&mut self.purpose, Purpose::Shadow);
        let plan = self.shadow_plan(written, shadow, sink, first);
        (self.package_key, self.purpose) = (key, purpose);
        let plan = plan?;
        let thresholds = self.thresholds(shadow, first, &plan);
        Some(ShadowPlan { plan, share: (shadow.sample < 1.0).then_some(shadow.sample), thresholds })
    }

    fn shadow_plan(&mut self, written: &Written, shadow: &written::Shadow, sink: sink::Settings, first: &Plan) -> Option<Plan> {
        let package = self.folder.join(shadow.model.as_ref()?);
        let model = self.package(&package)?;
        let schema = schema::event_schema(self, written.event.as_ref()?, Some(&model), &first.fit)?;
        let (asks, horizon_names) = self.asks(written, Some(&model.0));
        let reasons = written.reasons.as_ref().and_then(|reasons| self.reasons(reasons, &package, Some(&model)));
        let sink_fields = self.sink_fields(written.sink.as_ref()?, &asks, &horizon_names, reasons.as_ref(), Some(&model));
        let model = Some(model);
        Some(Plan { package, model, schema, asks, horizon_names, reasons, sink, sink_fields, shadow: None, ..first.clone() })
    }

    /// Fields that alerts are taken on: numbers that both models give.
    fn thresholds(&mut self, shadow: &written::Shadow, first: &Plan, second: &Plan) -> Vec<(String, f64)> {
        let numbers = |plan: &Plan| {
            let plan = Plan { sink_fields: Vec::new(), ..plan.clone() };
            let layout: Layout = plan.layout(&plan.identity(""));
            Field::of(&layout).into_iter().map(|field| field.name).collect::<Vec<_>>()
        };
        let (one, other) = (numbers(first), numbers(second));
        let both: Vec<&str> = one.iter().filter(|name| other.contains(name)).map(String::as_str).collect();
        for name in shadow.thresholds.keys().filter(|name| !both.contains(&name.as_str())) {
            let path = ["shadow", "thresholds", name.as_str()];
            let help = match nearest(name, both.iter().copied()) {
                Some(guess) => format!("did you mean `{guess}`?"),
                None => format!("there are {}", both.join(", ")),
            };
            let label = format!("got {}", self.shown(&path));
            self.note("pipeline::unknown_field", &path, format!("`{name}` is no number that both models forecast"), label, help);
        }
        shadow.thresholds.iter().map(|(name, value)| (name.clone(), *value)).collect()
    }
}
