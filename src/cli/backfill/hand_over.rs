//! The end of a backfill as the beginning of a live run.

#[cfg(feature = "kafka")]
mod by_time;

use crate::backfill::Settings;
use crate::base::error::{Error, Result};
use crate::pipeline::plan::Plan;
use crate::run::Stage;
use crate::sink::parquet::audit::Audit;
use crate::source;
use crate::state::snapshot;

/// What is handed over to.
pub struct HandOver {
    topic: source::Settings,
    /// The place of the pipeline's snapshots.
    snapshots: snapshot::Settings,
    /// The files do not say where their rows stood in the topic: their time decides.
    by_time: bool,
}

impl HandOver {
    /// Looks whether there is something to hand over to, before any work is done.
    ///
    /// # Errors
    /// The pipeline reads no topic or keeps no snapshots; the topic has other partitions than the shards; the group has committed something; this
    /// machine does only some of the shards; neither positions nor `since` say where the files end.
    pub fn new(plan: &Plan, settings: &Settings) -> Result<Self> {
        let fault = |text: &str, help: &str| Err(Error::config("backfill", text.to_owned()).help(help.to_owned()));
        if settings.mine.1 > 1 {
            return fault(
                "--hand-over needs all shards on one machine",
                "leave --hand-over out; when all parts are done, run it once more with --resume --hand-over and without --shard",
            );
        }
        let Some(snapshots) = plan.snapshots.clone() else {
            return fault("the pipeline keeps no snapshots, so there is nothing that a live run could go on from", "set [state] snapshots");
        };
        let by_time = settings.positions.is_none();
        if by_time && plan.since.is_none() {
            return fault(
                "nothing says where the files end and the topic begins",
                "name the columns with partition and offset of each row: --positions PARTITION,OFFSET; or, for files without them, the first event time \
                 that is the topic's: since = \"2026-01-01T00:00:00Z\" in [source]",
            );
        }
        if by_time && !plan.asks.overdue.is_empty() {
            return fault(
                "a key that is overdue is named with the position of its last event, and rows of files have none in the topic",
                "take [forecast] overdue out, or hand over files that have positions: --positions PARTITION,OFFSET",
            );
        }
        #[cfg(feature = "kafka")]
        if let source::Settings::Kafka(kafka) = &plan.source {
            source::kafka::hand_over::check(kafka, settings.shards)?;
            return Ok(HandOver { topic: plan.source.clone(), snapshots, by_time });
        }
        let _ = (settings.shards, snapshots, by_time);
        fault("the pipeline's source is no topic, so there is no live run to hand over to", "name the topic in [source]")
    }

    /// Leaves states where the live run looks for them, if they are not there already, and commits for the group where it begins.
    ///
    /// # Errors
    /// The broker refuses; the topic does not reach from where the files end, or has its keys in other partitions; the snapshots cannot be written.
    pub fn carry_out(&self, stage: &Stage, done: &Audit) -> Result<()> {
        #[cfg(feature = "kafka")]
        {
            let source::Settings::Kafka(kafka) = &self.topic else { return Err(Error::internal("backfill", "no topic to hand over to")) };
            let lines =
                if self.by_time { by_time::carry_out(stage, kafka, &self.snapshots, done)? } else { by_position(stage, kafka, done)? };
            lines.iter().for_each(|line| crate::tell!("  {line}"));
        }
        #[cfg(not(feature = "kafka"))]
        let _ = (stage, done, &self.topic, &self.snapshots, self.by_time);
        Ok(())
    }
}

/// Commits for the group how far the files of each partition go; their snapshots are where they belong.
#[cfg(feature = "kafka")]
fn by_position(stage: &Stage, kafka: &source::KafkaSettings, done: &Audit) -> Result<Vec<String>> {
    crate::base::fail_point::fail_point("hand_over.snapshots_stored");
    let ends = done.partitions.iter().filter_map(|(partition, tiles)| Some((*partition, tiles.range?.1)));
    source::kafka::hand_over::commit(kafka, &ends.map(|(partition, next)| (partition, beginning(stage, next))).collect::<Vec<_>>())
}

#[cfg(feature = "kafka")]
fn beginning(stage: &Stage, next: crate::base::offset::Offset) -> crate::data::commit::Commit {
    use crate::data::commit::{Commit, Note};
    Commit { next, note: Note { fingerprint: stage.identity.fingerprint.clone(), ..Note::default() } }
}
