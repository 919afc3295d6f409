//! The end of a backfill as the beginning of a live run.

use crate::backfill::Settings;
use crate::base::error::{Error, Result};
use crate::pipeline::plan::Plan;
use crate::run::Stage;
use crate::sink::parquet::audit::Audit;
use crate::source;

/// Whether there is something to hand over to, before any work is done.
///
/// # Errors
/// The pipeline reads no topic or keeps no snapshots; the topic has other partitions than the shards; the group has committed something; this
/// machine does only some of the shards.
pub fn check(plan: &Plan, settings: &Settings) -> Result<()> {
    let fault = |text: &str, help: &str| Err(Error::config("backfill", text.to_owned()).help(help.to_owned()));
    if settings.mine.1 > 1 {
        return fault("--hand-over needs all shards on one machine", "leave --shard out");
    }
    if plan.snapshots.is_none() {
        return fault("the pipeline keeps no snapshots, so there is nothing that a live run could go on from", "set [state] snapshots");
    }
    #[cfg(feature = "kafka")]
    if let source::Settings::Kafka(kafka) = &plan.source {
        return source::kafka::hand_over::check(kafka, settings.shards);
    }
    #[cfg(not(feature = "kafka"))]
    let _ = settings.shards;
    fault("the pipeline's source is no topic, so there is no live run to hand over to", "name the topic in [source]")
}

/// Commits for the group how far the files of each partition go.
///
/// # Errors
/// The broker refuses, or the topic does not reach from where the files end.
pub fn commit(stage: &Stage, topic: &source::Settings, done: &Audit) -> Result<()> {
    #[cfg(feature = "kafka")]
    {
        use crate::base::offset::Partition;
        use crate::data::commit::{Commit, Note};
        let source::Settings::Kafka(kafka) = topic else { return Err(Error::internal("backfill", "no topic to hand over to")) };
        let note = || Note { fingerprint: stage.identity.fingerprint.clone(), ..Note::default() };
        let ends = done.partitions.iter().filter_map(|(partition, tiles)| Some((*partition, tiles.range?.1)));
        let commits: Vec<(Partition, Commit)> = ends.map(|(partition, next)| (partition, Commit { next, note: note() })).collect();
        for line in source::kafka::hand_over::commit(kafka, &commits)? {
            eprintln!("  {line}");
        }
    }
    #[cfg(not(feature = "kafka"))]
    let _ = (stage, topic, done);
    Ok(())
}
