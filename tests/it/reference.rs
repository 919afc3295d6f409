//! `docs/pipeline.md`: every key of the pipeline file, written from the schema in the code.

use std::fmt::Write as _;

use serde_json::Value as Json;

const PATH: &str = "docs/pipeline.md";
/// The order in which an event travels; what is not named here comes last.
const TABLES: [&str; 14] =
    ["source", "event", "order", "model", "state", "forecast", "reasons", "sink", "dead_letter", "alarm", "shadow", "run", "fit", "name"];

#[test]
fn the_reference_of_the_pipeline_file_says_what_the_code_does() {
    let schema = meantime::pipeline::written::schema();
    let text = reference(schema.as_value());
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        std::fs::write(PATH, &text).unwrap();
    }
    let stored = std::fs::read_to_string(PATH).unwrap_or_default();
    assert!(stored == text, "{PATH} is not what src/pipeline/written.rs says: run UPDATE_SCHEMAS=1 cargo test --test it reference");
}

fn reference(schema: &Json) -> String {
    let mut text = String::from(
        "# The pipeline file\n\n\
         `pipeline.toml`, one table for each part of the way of an event. This page is written from the code, as is `schemas/pipeline.v1.schema.json`,\n\
         which gives editors completion and checks. `meantime check PIPELINE` says everything that is wrong with a file at once, `--connect` also what is\n\
         missing on the brokers; `--set sink.topic=other` changes a value for one run. Whole files: [cards](../pipelines/cards/pipeline.toml),\n\
         [visits](../pipelines/visits/pipeline.toml), [telemetry](../pipelines/telemetry/pipeline.toml).\n\n",
    );
    writeln!(text, "{}\n", schema["description"].as_str().unwrap()).unwrap();
    let tables = schema["properties"].as_object().unwrap();
    let known = TABLES.iter().filter(|name| **name != "name").map(|name| (*name, &tables[*name]));
    let others = tables.iter().filter(|(name, _)| !TABLES.contains(&name.as_str())).map(|(name, table)| (name.as_str(), table));
    writeln!(text, "`name` (required): {}\n", line(tables["name"]["description"].as_str().unwrap())).unwrap();
    for (name, table) in known.chain(others) {
        let is_required = schema["required"].as_array().unwrap().iter().any(|required| required == name);
        writeln!(text, "## `[{name}]`{}\n", if is_required { " (required)" } else { "" }).unwrap();
        writeln!(text, "{}\n", table["description"].as_str().unwrap()).unwrap();
        match table["oneOf"].as_array() {
            None => rows(&mut text, table),
            Some(kinds) => {
                for kind in kinds {
                    let of = kind["properties"]["kind"]["const"].as_str().unwrap();
                    writeln!(text, "### `kind = \"{of}\"`\n\n{}\n", kind["description"].as_str().unwrap()).unwrap();
                    rows(&mut text, kind);
                }
            }
        }
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// A table of keys: those that must be there first.
fn rows(text: &mut String, table: &Json) {
    text.push_str("| key | value | if left out | what |\n|---|---|---|---|\n");
    let required: Vec<&str> = table["required"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    let keys = table["properties"].as_object().unwrap().iter().filter(|(key, _)| *key != "kind");
    let (first, rest): (Vec<_>, Vec<_>) = keys.partition(|(key, _)| required.contains(&key.as_str()));
    for (key, property) in first.into_iter().chain(rest) {
        let left_out = match (&property["default"], required.contains(&key.as_str())) {
            (_, true) => "required".to_owned(),
            (Json::Null, _) => String::new(),
            (default, _) => format!("`{}`", toml(default)),
        };
        let about = line(property["description"].as_str().unwrap());
        let choices = choices(property).into_iter().map(|(name, about)| format!("<br>`{name}`: {about}")).collect::<String>();
        writeln!(text, "| `{key}` | {} | {left_out} | {about}{choices} |", value(property)).unwrap();
    }
    text.push('\n');
}

/// What may be written.
fn value(property: &Json) -> String {
    if let Some(inner) = property["properties"].as_object() {
        let keys: Vec<String> = inner.iter().map(|(key, property)| format!("{key} = {}", value(property).replace('`', ""))).collect();
        return format!("`{{ {} }}`", keys.join(", "));
    }
    if let Some(items) = property.get("items") {
        return format!("list of {}", plural(&value(items)));
    }
    let written = choices(property).into_iter().map(|(name, _)| format!("`\"{name}\"`")).collect::<Vec<_>>().join(", ");
    let others = property["anyOf"].as_array().into_iter().flatten().filter(|other| other["properties"].is_object()).map(value);
    let all: Vec<String> = Some(written).filter(|written| !written.is_empty()).into_iter().chain(others).collect();
    if !all.is_empty() {
        return all.join(", ");
    }
    let kind = match (property["x-unit"].as_str(), property["type"].as_str()) {
        (Some("duration"), _) => "length of time",
        (Some("size"), _) => "size",
        (Some("time"), _) => "RFC 3339 time",
        (_, Some("integer")) => "integer",
        (_, Some("number")) => "number",
        (_, Some("boolean")) => "true or false",
        (_, Some("object")) => "table",
        _ => "text",
    };
    let bound = |names: &[&str]| {
        names.iter().find_map(|name| property.get(*name)).map(|bound| bound.as_str().map_or(bound.to_string(), str::to_owned))
    };
    match (bound(&["x-least", "minimum", "exclusiveMinimum"]), bound(&["x-most", "maximum", "exclusiveMaximum"])) {
        (Some(least), Some(most)) => format!("{kind}, {least} to {most}"),
        (Some(least), None) if least != "0" && least != "0.0" => format!("{kind}, at least {least}"),
        (None, Some(most)) => format!("{kind}, at most {most}"),
        _ => kind.to_owned(),
    }
}

/// The words that may be written, each with what it means.
fn choices(property: &Json) -> Vec<(String, String)> {
    let options = ["oneOf", "anyOf"].iter().flat_map(|union| property[*union].as_array().into_iter().flatten());
    options
        .flat_map(|option| match option["const"].as_str() {
            Some(name) => vec![(name.to_owned(), line(option["description"].as_str().unwrap_or_default()))],
            None => choices(option),
        })
        .collect()
}

fn plural(value: &str) -> String {
    match value {
        "text" => "texts".to_owned(),
        "number" => "numbers".to_owned(),
        "length of time" => "lengths of time".to_owned(),
        other => other.replacen("number,", "numbers,", 1),
    }
}

fn toml(value: &Json) -> String {
    match value {
        Json::Object(object) if object.is_empty() => "{}".to_owned(),
        other => other.to_string().replace("\",\"", "\", \"").replace(",0", ", 0"),
    }
}

/// A description on one line, fit for a table.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
