//! The schemas in `schemas/` say what the code does.

use std::path::Path;

use meantime::data::forecasts::Identity;
use meantime::data::layout::Layout;
use meantime::data::rejected::Reason;
use serde_json::Value as Json;

fn read(name: &str) -> Json {
    serde_json::from_str(&std::fs::read_to_string(Path::new("schemas").join(name)).unwrap()).unwrap()
}

#[test]
fn the_schema_of_the_pipeline_file_is_the_one_in_the_code() {
    let path = "schemas/pipeline.v1.schema.json";
    let mut text = serde_json::to_string_pretty(&meantime::pipeline::written::schema()).unwrap();
    text.push('\n');
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    assert!(stored == text, "{path} is not what src/pipeline/written.rs says: run UPDATE_SCHEMAS=1 cargo test --test it schemas");
}

#[test]
fn every_key_of_the_pipeline_file_has_a_description() {
    fn walk(schema: &Json, path: &str, bare: &mut Vec<String>) {
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{key}");
            if key != "kind" && property["description"].as_str().is_none_or(str::is_empty) {
                bare.push(path.clone());
            }
            walk(property, &path, bare);
        }
        for union in ["oneOf", "anyOf"] {
            for option in schema[union].as_array().into_iter().flatten() {
                walk(option, path, bare);
            }
        }
    }
    let mut bare = Vec::new();
    walk(meantime::pipeline::written::schema().as_value(), "", &mut bare);
    assert!(bare.is_empty(), "{bare:?}");
}

#[test]
fn the_schema_of_forecasts_names_the_fields_of_the_full_layout_and_no_others() {
    let identity = Identity {
        quantiles: vec![0.025, 0.5, 0.999],
        horizons: vec!["1h".to_owned()],
        overdue: vec![1],
        reasons: vec!["gap".to_owned()],
        value_quantiles: Some(vec![0.5]),
        ..Identity::default()
    };
    let layout = Layout::full(&identity, true, true, true);
    let schema = read("forecast.v1.json");
    let mut named: Vec<&str> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    let mut written: Vec<&str> = layout.fields.iter().map(|(name, _)| name.as_str()).collect();
    written.retain(|name| !["next_time_q", "next_value_q", "p_within_"].iter().any(|prefix| name.starts_with(prefix)));
    named.sort_unstable();
    written.sort_unstable();
    assert_eq!(named, written);
    assert_eq!(schema["patternProperties"].as_object().unwrap().len(), 3);
}

#[test]
fn the_schema_of_dead_letters_names_every_reason() {
    let reasons: Vec<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
    assert_eq!(read("dead-letter.v1.json")["properties"]["reason"]["enum"], serde_json::json!(reasons));
}
