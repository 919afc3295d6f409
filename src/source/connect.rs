//! `check --connect`: whether a source can be read.

use std::time::Duration;

use super::Settings;
#[cfg(not(feature = "kafka"))]
use crate::base::error::Error;
use crate::base::error::Result;

/// Whether the source can be reached, for `check --connect`; gives a line to print for each thing that was found.
///
/// # Errors
/// A file cannot be opened, a broker cannot be reached, a topic is missing or may not be read, or this build has no Kafka.
pub fn check_connect(settings: &Settings) -> Result<Vec<String>> {
    match settings {
        Settings::File(files) => {
            let mut bytes = 0;
            for path in &files.paths {
                bytes += path.bytes()?;
            }
            let count = files.paths.len();
            Ok(vec![format!("{count} {} readable, {bytes} bytes", if count == 1 { "file" } else { "files" })])
        }
        Settings::Generate(generate) => Ok(vec![format!("generated, {} events of {} keys", generate.events, generate.keys)]),
        #[cfg(feature = "kafka")]
        Settings::Kafka(kafka) => super::kafka::check_connect(kafka),
        #[cfg(not(feature = "kafka"))]
        Settings::Kafka(kafka) => Err(without_kafka(&kafka.topic)),
    }
}

/// What about the source endangers key states, for `check --connect` and the start of a run: a line each. `snapshot_every`: time between
/// two snapshots, if there are any.
#[must_use]
pub fn cautions(settings: &Settings, snapshot_every: Option<Duration>) -> Vec<String> {
    match settings {
        #[cfg(feature = "kafka")]
        Settings::Kafka(kafka) => super::kafka::cautions(kafka, snapshot_every),
        _ => {
            // Files do not go away by themselves.
            let _ = snapshot_every;
            Vec::new()
        }
    }
}

#[cfg(not(feature = "kafka"))]
pub fn without_kafka(topic: &str) -> Error {
    Error::config("source", "this meantime was built without Kafka, but the source is a topic")
        .at(format!("topic {topic}"))
        .help("build it with the default features, or read files with `kind = \"file\"`")
}

#[cfg(test)]
mod tests {
    use super::super::FileSettings;
    use super::*;

    #[test]
    fn a_file_source_connects_if_every_file_can_be_opened() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("a.ndjson");
        std::fs::write(&there, "{}\n").unwrap();
        let lines = check_connect(&Settings::File(FileSettings { paths: vec![there.clone().into()] })).unwrap();
        assert_eq!(lines, ["1 file readable, 3 bytes"]);
        let error =
            check_connect(&Settings::File(FileSettings { paths: vec![there.into(), folder.path().join("b.ndjson").into()] })).unwrap_err();
        assert!(error.to_string().contains("b.ndjson"), "{error}");
    }
}
