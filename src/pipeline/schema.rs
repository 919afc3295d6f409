//! What `decode` must read: the fields of `[event]` with those of the recipe, or of `[fit]`; and that the label stays out of the features.

use super::Purpose;
use super::build::Build;
use super::plan::{FitPlan, Split};
use super::written::{Clock, Event};
use crate::base::time::TimeUnit;
use crate::data::schema::{EventSchema, Field, FieldKind, RECORD_TIMESTAMP, TimeFormat};
use crate::features::recipe::Recipe;
use crate::model::manifest::Manifest;

/// The schema, if `[event]` is complete.
pub(super) fn event_schema(build: &mut Build<'_>, event: &Event, model: Option<&(Manifest, Recipe)>, fit: &FitPlan) -> Option<EventSchema> {
    roles(build, event);
    let mut fields: Vec<Field> = Vec::new();
    if let Some((_, recipe)) = model {
        for field in recipe.fields() {
            if event.label.as_ref() == Some(&field.name) {
                let label = format!("the recipe of the package reads {} as a feature", build.shown(&["event", "label"]));
                leak(build, &["event", "label"], label, "fit a model whose features leave the label out");
            }
            fields.push(field);
        }
    }
    if let Some(value) = model.and_then(|(manifest, _)| manifest.head.value()) {
        if event.label.as_ref() == Some(&value.field) {
            let label = format!("the package has a law of the value of {}", build.shown(&["event", "label"]));
            leak(build, &["event", "label"], label, "name the field that says how the event turned out");
        }
        value_field(build, &mut fields, &value.field);
    }
    if build.purpose == Purpose::Fit {
        fit_fields(build, event, fit, &mut fields);
    }
    let mark = event.mark.as_ref().map(|mark| add(build, &mut fields, mark, FieldKind::Text, &["event", "mark"]));
    let label = match (&event.label, build.purpose) {
        (Some(label), Purpose::Fit | Purpose::Evaluate | Purpose::Compare) => {
            Some(add(build, &mut fields, label, FieldKind::Number, &["event", "label"]))
        }
        _ => None,
    };
    if let (Split::Field(field), Purpose::Fit) = (&fit.split, build.purpose) {
        add(build, &mut fields, field, FieldKind::Text, &["fit", "split", "field"]);
    }
    let time = event.time.as_ref()?;
    let time_format = match time.unit? {
        Clock::S => TimeFormat::Unit(TimeUnit::Second),
        Clock::Ms => TimeFormat::Unit(TimeUnit::Millisecond),
        Clock::Us => TimeFormat::Unit(TimeUnit::Microsecond),
        Clock::Ns => TimeFormat::Unit(TimeUnit::Nanosecond),
        Clock::Rfc3339 => TimeFormat::Rfc3339,
    };
    Some(EventSchema { key: event.key.clone()?, time: time.field.clone()?, time_format, id: event.id.clone(), fields, mark, label })
}

/// One field cannot be two things that exclude each other.
fn roles(build: &mut Build<'_>, event: &Event) {
    let time = event.time.as_ref().and_then(|time| time.field.as_ref());
    if event.key.is_some() && event.key.as_ref() == time {
        conflict(build, &["event", "time", "field"], "the key is taken for the time", "another field than `key`");
    }
    let unit = event.time.as_ref().and_then(|time| time.unit);
    if time.is_some_and(|name| name == RECORD_TIMESTAMP) && unit.is_some_and(|unit| unit != Clock::Ms) {
        let label = format!("got {}, expected \"ms\"", build.shown(&["event", "time", "unit"]));
        let message = format!("`{RECORD_TIMESTAMP}`, the timestamp of the record itself, is in milliseconds");
        build.note("pipeline::bad_value", &["event", "time", "unit"], message, label, "write unit = \"ms\"");
    }
    let Some(label) = &event.label else { return };
    for (key, other) in [("key", event.key.as_ref()), ("time", time), ("mark", event.mark.as_ref())] {
        if other == Some(label) {
            let text = format!("got {}, which is also the {key}", build.shown(&["event", "label"]));
            leak(build, &["event", "label"], text, "name the field that says how the event turned out");
        }
    }
}

fn fit_fields(build: &mut Build<'_>, event: &Event, fit: &FitPlan, fields: &mut Vec<Field>) {
    for (key, names, kind) in [("numeric", &fit.numeric, FieldKind::Number), ("category", &fit.category, FieldKind::Text)] {
        for (i, name) in names.iter().enumerate() {
            let position = i.to_string();
            let path = ["fit", key, position.as_str()];
            if event.label.as_ref() == Some(name) {
                let text = format!("got {}, which is the label", build.shown(&path));
                leak(build, &path, text, "remove it: the label is what the score is fitted to");
                continue;
            }
            add(build, fields, name, kind, &path);
        }
    }
    if let Some(value) = &fit.value {
        if event.label.is_some() {
            let text = format!("got {}, and [event] names a label", build.shown(&["fit", "value"]));
            let help = "take `label` out of [event], or `value` out of [fit]";
            build.note("pipeline::no_law_of_value", &["fit", "value"], "a score is fitted, not a law", text, help);
        }
        add(build, fields, &value.field, FieldKind::Number, &["fit", "value"]);
    }
}

/// The field whose value the package forecasts: a number, whatever else reads it.
fn value_field(build: &mut Build<'_>, fields: &mut Vec<Field>, name: &str) {
    match fields.iter().find(|field| field.name == name) {
        Some(field) if field.kind == FieldKind::Number => {}
        Some(_) => {
            let message = format!("the model package has a law of the value of `{name}`, and its recipe reads `{name}` as text");
            let help = format!("write the package anew: {}", build.fit_command());
            build.note("pipeline::field_conflict", &build.package_key.clone(), message, "a field has one type", help);
        }
        None => fields.push(Field { name: name.to_owned(), kind: FieldKind::Number }),
    }
}

/// Position of a field that is read as `kind`; it is added if it is not yet there.
fn add(build: &mut Build<'_>, fields: &mut Vec<Field>, name: &str, kind: FieldKind, path: &[&str]) -> usize {
    if let Some(at) = fields.iter().position(|field| field.name == name) {
        if fields.get(at).is_some_and(|field| field.kind != kind) {
            let (this, other) = match kind {
                FieldKind::Text => ("text", "a number"),
                FieldKind::Number => ("a number", "text"),
            };
            let by = if build.purpose == Purpose::Fit { "[fit]" } else { "the model package" };
            let message = format!("the field is read as {this} here and as {other} by {by}");
            conflict(build, path, &message, "a field has one type");
        }
        return at;
    }
    fields.push(Field { name: name.to_owned(), kind });
    fields.len() - 1
}

fn conflict(build: &mut Build<'_>, path: &[&str], message: &str, wanted: &str) {
    let label = format!("got {}, expected {wanted}", build.shown(path));
    build.note("pipeline::field_conflict", path, message, label, "name another field");
}

fn leak(build: &mut Build<'_>, path: &[&str], label: String, help: &str) {
    build.note("pipeline::label_leak", path, "the label would be known before it happens", label, help);
}
