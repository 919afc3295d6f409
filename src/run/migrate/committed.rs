//! How far a pipeline has come, asked from outside: nobody's membership is touched, and it may be running.

use crate::base::error::Result;
use crate::data::commit::Commits;
#[cfg(feature = "kafka")]
use crate::data::commit::{Commit, Note};
use crate::pipeline::plan::Plan;
use crate::sink;
use crate::sink::parquet::audit::audit;
use crate::source;

/// What is committed of each partition; `None` where neither sink nor source keeps that: then every run begins at the first record.
///
/// # Errors
/// The sink's folder or the broker cannot be read.
pub fn committed(plan: &Plan) -> Result<Option<Commits>> {
    if let sink::Settings::Parquet { place, .. } = &plan.sink {
        if place.folder().is_some_and(|folder| !folder.is_dir()) {
            return Ok(Some(Commits::new()));
        }
        let found = audit(place)?.partitions;
        return Ok(Some(found.into_iter().filter_map(|(partition, tiles)| Some((partition, tiles.newest?))).collect()));
    }
    match &plan.source {
        #[cfg(feature = "kafka")]
        source::Settings::Kafka(kafka) => {
            use crate::base::offset::{Offset, Partition};
            let probe = crate::link::kafka::Probe::new("state", &kafka.client, Some(&kafka.group))?;
            let (_, partitions) = probe.topic(&kafka.topic)?;
            let found = probe.committed(&kafka.topic, partitions)?;
            let commit = |(partition, next, note): (i32, i64, String)| {
                (Partition(partition), Commit { next: Offset(next), note: Note::read(&note).unwrap_or_default() })
            };
            Ok(Some(found.into_iter().map(commit).collect()))
        }
        #[cfg(not(feature = "kafka"))]
        source::Settings::Kafka(_) => Ok(None),
        source::Settings::File(_) | source::Settings::Generate(_) => Ok(None),
    }
}
