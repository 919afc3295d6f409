//! The JSON schema of the pipeline file, derived from the structs that read it.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::Value as Json;

use super::Written;

/// `[dead_letter]` needs no `kind`: without it, it is an NDJSON file.
pub(super) fn ndjson_without_kind(schema: &mut Schema) {
    let Some(Json::Array(kinds)) = schema.get_mut("oneOf") else { return };
    for kind in kinds.iter_mut().filter(|kind| kind.pointer("/properties/kind/const").is_some_and(|name| name == "ndjson")) {
        if let Some(Json::Array(required)) = kind.get_mut("required") {
            required.retain(|key| key != "kind");
        }
    }
}

/// TOML has no null: takes out of a schema that an optional value may be null.
fn without_null(schema: &mut Schema) {
    if schema.get("default").is_some_and(Json::is_null) {
        schema.remove("default");
    }
    if let Some(Json::Array(types)) = schema.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Json::Array(options)) = schema.get_mut("anyOf") {
        options.retain(|option| option.get("type").is_none_or(|kind| kind != "null"));
        if let [Json::Object(only)] = options.as_slice() {
            let only = only.clone();
            schema.remove("anyOf");
            for (key, value) in only {
                if schema.get(&key).is_none() {
                    schema.insert(key, value);
                }
            }
        }
    }
}

/// The JSON schema of the pipeline file, without references.
#[must_use]
pub fn schema() -> Schema {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.transforms.push(Box::new(RecursiveTransform(without_null)));
    });
    settings.into_generator().into_root_schema_for::<Written>()
}
