//! What a schema expects and how to mend a value, in words.

use serde_json::Value as Json;

use super::{Kind, kind_name, kind_of, required};
use crate::pipeline::document::{Node, Value};
use crate::pipeline::unit::UNIT;

/// What a schema expects, in words.
pub(super) fn expected(schema: &Json) -> String {
    match schema.get(UNIT).and_then(Json::as_str) {
        Some("duration") => return "a duration with its unit such as \"5m\"".to_owned(),
        Some("size") => return "a size with its unit such as \"64MiB\"".to_owned(),
        Some(_) => return "an RFC 3339 time such as \"2018-06-01T00:00:00Z\"".to_owned(),
        None => {}
    }
    match kind_of(schema) {
        Kind::Choice(choices) => one_of(&choices),
        Kind::Union(options) if options.iter().all(|option| kind_name(option).is_some()) => "a table".to_owned(),
        Kind::Union(options) => options.iter().map(|option| expected(option)).collect::<Vec<_>>().join(" or "),
        Kind::Map(_) => "a table of names and values".to_owned(),
        Kind::Table => {
            let keys = required(schema);
            if keys.is_empty() { "a table".to_owned() } else { format!("a table with {}", keys.join(" and ")) }
        }
        Kind::List => "a list".to_owned(),
        Kind::Scalar(types) => {
            let name = |kind: &&str| match *kind {
                "string" => "text",
                "integer" => "an integer",
                "number" => "a number",
                _ => "true or false",
            };
            let mut text = types.iter().map(name).collect::<Vec<_>>().join(" or ");
            let bound = |name: &str| schema.get(name).filter(|bound| bound.is_number()).map(Json::to_string);
            match (bound("minimum"), bound("maximum"), bound("exclusiveMinimum"), bound("exclusiveMaximum")) {
                (Some(least), Some(most), _, _) => text.push_str(&format!(" from {least} to {most}")),
                (Some(least), None, _, _) => text.push_str(&format!(" of at least {least}")),
                (None, most, Some(above), below) => {
                    text.push_str(&format!(" above {above}"));
                    if let Some(most) = most {
                        text.push_str(&format!(" and at most {most}"));
                    }
                    if let Some(below) = below {
                        text.push_str(&format!(" and below {below}"));
                    }
                }
                (None, Some(most), None, _) => text.push_str(&format!(" of at most {most}")),
                _ => {}
            }
            text
        }
    }
}

/// One line that makes a scalar right.
pub(super) fn cure(schema: &Json, types: &[&str], node: &Node, path: &[&str]) -> String {
    let key = last(path);
    // A list's entry has a number for a key: only its value can be written.
    let line = |value: &str| {
        if key.bytes().all(|byte| byte.is_ascii_digit()) { format!("write {value}") } else { format!("write {key} = {value}") }
    };
    let given = schema.get("default").or_else(|| schema.pointer("/examples/0")).map(toml_text);
    let unit = schema.get(UNIT).and_then(Json::as_str);
    match (&node.value, unit) {
        (Value::Integer(number), Some("duration")) if *number >= 0 => line(&format!("\"{number}s\"")),
        (Value::Integer(number), Some("size")) if *number >= 0 => line(&format!("\"{number}B\"")),
        (_, Some("duration")) => line(&given.unwrap_or_else(|| "\"5m\"".to_owned())),
        (_, Some("size")) => line(&given.unwrap_or_else(|| "\"64MiB\"".to_owned())),
        (_, Some(_)) => line("\"2018-06-01T00:00:00Z\""),
        (Value::Integer(_) | Value::Float(_) | Value::Boolean(_), None) if types == ["string"] => line(&format!("\"{}\"", node.shown)),
        (Value::Text(text), None) if node.loose.is_none() && text.trim().parse::<f64>().is_ok() && !types.contains(&"boolean") => {
            format!("{} without quotes", line(text.trim()))
        }
        _ => match given {
            Some(given) => line(&given),
            None => format!("write {}", expected(schema)),
        },
    }
}

/// A line that sets a text.
pub(super) fn example(value: &str, path: &[&str]) -> String {
    let key = last(path);
    if key.bytes().all(|byte| byte.is_ascii_digit()) { format!("\"{value}\"") } else { format!("{key} = \"{value}\"") }
}

pub(super) fn last<'a>(path: &[&'a str]) -> &'a str {
    path.last().copied().unwrap_or_default()
}

/// `a`, or `one of a, b`.
pub(super) fn one_of(choices: &[&str]) -> String {
    let quoted: Vec<String> = choices.iter().map(|choice| format!("\"{choice}\"")).collect();
    match quoted.as_slice() {
        [only] => only.clone(),
        _ => format!("one of {}", quoted.join(", ")),
    }
}

/// A value as TOML writes it.
pub(super) fn toml_text(value: &Json) -> String {
    match value {
        Json::Object(entries) => {
            let entries: Vec<String> = entries.iter().map(|(key, value)| format!("{key} = {}", toml_text(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        Json::Array(items) => format!("[{}]", items.iter().map(toml_text).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}
