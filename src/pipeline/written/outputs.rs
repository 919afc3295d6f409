//! `[sink]` and `[dead_letter]`: where forecasts and rejected records go.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Client;
use super::contract::ndjson_without_kind;
use super::defaults::*;
use crate::pipeline::unit::{Length, Size};
use crate::sink::Folders;

/// Where forecasts go.
#[derive(Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Sink {
    /// A Kafka topic: JSON values, the event's key as record key, the source position in the headers.
    Kafka {
        /// Addresses of the brokers. By default those of a Kafka source.
        #[schemars(length(min = 1))]
        brokers: Option<String>,
        /// Topic to write.
        #[schemars(required, length(min = 1), example = &"cards-forecasts")]
        topic: Option<String>,
        /// Any librdkafka setting. By default those of a Kafka source, if `brokers` too are those of the source.
        client: Option<Client>,
        /// How often outputs are made durable and positions committed.
        #[serde(default = "default_commit_every")]
        #[schemars(extend("x-least" = "1ms", "x-most" = "1h"))]
        commit_every: Length,
        /// The fields that are written and their names in the output: `{ id = "event_id", card = "key" }`. By default all.
        #[serde(default)]
        fields: BTreeMap<String, String>,
        /// What is promised when the stage is stopped in the middle. By default `exactly_once` where the input comes from the same brokers, otherwise
        /// `at_least_once`.
        delivery: Option<Delivery>,
        /// Whether each record carries the header `meantime-position`, the partition and offset of the input record: `meantime verify` and readers
        /// that drop repeats need it.
        #[serde(default = "default_true")]
        position_header: bool,
    },
    /// A folder of Parquet files, in sub-folders by partition or by date.
    Parquet {
        /// The folder: a path, `file:///path` or `s3://bucket/prefix` (`gs://`, `az://`).
        #[schemars(required, length(min = 1), example = &"forecasts")]
        path: Option<String>,
        /// A file is closed when it has about this size.
        #[serde(default = "default_roll_size")]
        #[schemars(extend("x-least" = "4KiB", "x-most" = "64GiB"))]
        roll_size: Size,
        /// A file is closed when it has been open for this long.
        #[serde(default = "default_roll_every")]
        #[schemars(extend("x-least" = "10ms"))]
        roll_every: Length,
        /// Whether the files are noted in a log of Delta Lake too, so that the folder is a table for engines that read those.
        #[serde(default)]
        delta: bool,
        /// Which folders the files are in.
        #[serde(default)]
        layout: Folders,
        /// How often outputs are made durable and positions committed.
        #[serde(default = "default_commit_every")]
        #[schemars(extend("x-least" = "1ms", "x-most" = "1h"))]
        commit_every: Length,
        /// The fields that are written and their names in the output: `{ id = "event_id", card = "key" }`. By default all.
        #[serde(default)]
        fields: BTreeMap<String, String>,
        /// What is promised when the stage is stopped in the middle.
        delivery: Option<Delivery>,
    },
    /// One JSON object a line.
    Ndjson {
        /// The file, which is appended to; `-` for stdout. A second run over files or a generated stream appends all rows again.
        #[schemars(required, length(min = 1), example = &"-")]
        path: Option<String>,
        /// How often outputs are made durable and positions committed.
        #[serde(default = "default_commit_every")]
        #[schemars(extend("x-least" = "1ms", "x-most" = "1h"))]
        commit_every: Length,
        /// The fields that are written and their names in the output: `{ id = "event_id", card = "key" }`. By default all.
        #[serde(default)]
        fields: BTreeMap<String, String>,
        /// What is promised when the stage is stopped in the middle.
        delivery: Option<Delivery>,
    },
}

impl Sink {
    /// How often outputs are made durable.
    #[must_use]
    pub fn commit_every(&self) -> &Length {
        match self {
            Sink::Kafka { commit_every, .. } | Sink::Parquet { commit_every, .. } | Sink::Ndjson { commit_every, .. } => commit_every,
        }
    }

    /// Output names and the forecast fields they stand for.
    #[must_use]
    pub fn fields(&self) -> &BTreeMap<String, String> {
        match self {
            Sink::Kafka { fields, .. } | Sink::Parquet { fields, .. } | Sink::Ndjson { fields, .. } => fields,
        }
    }
}

/// A promise of a sink.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Every forecast is written; after a crash some are written again. Each carries its source position, so that a reader can drop repeats.
    AtLeastOnce,
    /// Forecasts and the offsets that cover them become visible together: nothing is lost and nothing comes twice, whatever crashes.
    ExactlyOnce,
}

/// Where alarms are raised: one JSON object each.
#[derive(Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Alarm {
    /// A Kafka topic.
    Kafka {
        /// Addresses of the brokers. By default those of a Kafka source.
        #[schemars(length(min = 1))]
        brokers: Option<String>,
        /// Topic to write.
        #[schemars(required, length(min = 1), example = &"cards-alarms")]
        topic: Option<String>,
        /// Any librdkafka setting. By default those of a Kafka source, if `brokers` too are those of the source.
        client: Option<Client>,
    },
    /// One JSON object a line, appended.
    Ndjson {
        /// The file; `-` for stdout.
        #[schemars(required, length(min = 1), example = &"alarms.ndjson")]
        path: Option<String>,
    },
}

/// Where records go that cannot be used. Without `kind`: `ndjson`.
#[derive(Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[schemars(transform = ndjson_without_kind)]
pub enum DeadLetter {
    /// A Kafka topic.
    Kafka {
        /// Addresses of the brokers. By default those of a Kafka source.
        #[schemars(length(min = 1))]
        brokers: Option<String>,
        /// Topic to write.
        #[schemars(required, length(min = 1), example = &"cards-dead")]
        topic: Option<String>,
        /// Any librdkafka setting. By default those of a Kafka source, if `brokers` too are those of the source.
        client: Option<Client>,
        /// Share of bad records above which the stage stops: then the schema is wrong, not the data. Fewer than ten that are not half of what came are
        /// not judged, so that one bad record does not fail a short file; with 0 the first one is.
        #[serde(default = "default_max_bad_ratio")]
        #[schemars(range(min = 0.0, max = 1.0))]
        max_bad_ratio: f64,
    },
    /// A folder of Parquet files.
    Parquet {
        /// The folder: a path, `file:///path` or `s3://bucket/prefix` (`gs://`, `az://`).
        #[schemars(required, length(min = 1), example = &"dead-letters")]
        path: Option<String>,
        /// A file is closed when it has about this size.
        #[serde(default = "default_roll_size")]
        #[schemars(extend("x-least" = "4KiB", "x-most" = "64GiB"))]
        roll_size: Size,
        /// A file is closed when it has been open for this long.
        #[serde(default = "default_roll_every")]
        #[schemars(extend("x-least" = "10ms"))]
        roll_every: Length,
        /// Share of bad records above which the stage stops: then the schema is wrong, not the data. Fewer than ten that are not half of what came are
        /// not judged, so that one bad record does not fail a short file; with 0 the first one is.
        #[serde(default = "default_max_bad_ratio")]
        #[schemars(range(min = 0.0, max = 1.0))]
        max_bad_ratio: f64,
    },
    /// One JSON object a line.
    Ndjson {
        /// The file; `-` for stdout.
        #[serde(default = "default_dead_letters")]
        #[schemars(length(min = 1))]
        path: String,
        /// Share of bad records above which the stage stops: then the schema is wrong, not the data. Fewer than ten that are not half of what came are
        /// not judged, so that one bad record does not fail a short file; with 0 the first one is.
        #[serde(default = "default_max_bad_ratio")]
        #[schemars(range(min = 0.0, max = 1.0))]
        max_bad_ratio: f64,
    },
}
