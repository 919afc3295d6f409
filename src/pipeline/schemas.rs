//! Where the schemas of records are: a file, or a registry.

use std::sync::Arc;

use super::build::Build;
use super::written::{Event, Format};
use crate::link::registry::{Registry, Schemas, Written};

/// What `[event]` says of it, for the formats that have schemas.
pub(super) fn schemas(build: &mut Build<'_>, event: &Event) -> Option<Schemas> {
    if event.format != Format::Avro {
        for (key, given) in [("schema", event.schema.is_some()), ("registry", event.registry.is_some())] {
            if given {
                let path = ["event", key];
                let label = "format is another one";
                build.note("pipeline::not_supported", &path, "only Avro has schemas", label, "write format = \"avro\", or remove it");
            }
        }
        return None;
    }
    if !cfg!(feature = "avro") {
        let help = "build with the feature `avro`, which is one of the default ones";
        build.note("pipeline::not_built", &["event", "format"], "this build does not read Avro", "got \"avro\"", help);
        return None;
    }
    match (&event.schema, &event.registry) {
        (Some(_), Some(_)) => {
            let label = "there is a file with the schema as well";
            let help =
                "keep `registry` if records begin with the number of their schema, as serializers of a registry write them; else `schema`";
            build.note(
                "pipeline::conflict",
                &["event", "registry"],
                "records are of a registry's schemas, or of one in a file",
                label,
                help,
            );
            None
        }
        (None, None) => {
            let help = "add registry = { url = \"http://127.0.0.1:8081\" }, or schema = \"event.avsc\" if records are bare datums";
            build.note(
                "pipeline::missing_key",
                &["event"],
                "Avro is read by a schema, and none is named",
                "neither `registry` nor `schema`",
                help,
            );
            None
        }
        (None, Some(registry)) => {
            let urls: Vec<String> =
                registry.url.as_ref()?.split(',').map(|url| url.trim().to_owned()).filter(|url| !url.is_empty()).collect();
            if urls.is_empty() || urls.iter().any(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
                let label = format!("got {}", build.shown(&["event", "registry", "url"]));
                let help = "write http://host:port or https://host, several with commas";
                build.note("pipeline::bad_value", &["event", "registry", "url"], "this is no address of a registry", label, help);
                return None;
            }
            let user = registry.username.clone().map(|name| (name, registry.password.clone().unwrap_or_default()));
            Some(Schemas::Registry(Arc::new(Registry::new(&urls, user))))
        }
        (Some(file), None) => {
            let path = build.folder.join(file);
            match std::fs::read_to_string(&path) {
                Ok(text) => usable(build, Written { text, references: Vec::new() }),
                Err(error) => {
                    let label = format!("{}: {error}", build.shown(&["event", "schema"]));
                    let help = "paths are relative to the folder of the pipeline file";
                    build.note("pipeline::no_files", &["event", "schema"], "the schema cannot be read", label, help);
                    None
                }
            }
        }
    }
}

/// The schema, if it is one.
fn usable(build: &mut Build<'_>, written: Written) -> Option<Schemas> {
    match crate::decode::missing(&written, &[]) {
        Ok(_) => Some(Schemas::File(Arc::new(written))),
        Err(why) => {
            let help = "it is JSON such as {\"type\": \"record\", \"name\": \"Payment\", \"fields\": [{\"name\": \"card\", \"type\": \"string\"}]}";
            let label = build.shown(&["event", "schema"]);
            build.note("pipeline::bad_value", &["event", "schema"], format!("the schema cannot be used: {why}"), label, help);
            None
        }
    }
}
