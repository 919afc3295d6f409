//! Offsets that a backfill commits for a group which has never run: a live run then goes on where the files end.

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::base::error::{Error, Kind, Result};
use crate::base::offset::Partition;
use crate::data::commit::Commit;
use crate::link::kafka::{Bridge, Probe, explain};
use crate::source::KafkaSettings;

const STAGE: &str = "backfill";

/// Whether the topic has so many partitions, and the group has committed nothing of it.
///
/// # Errors
/// As above, or the broker does not answer.
pub fn check(settings: &KafkaSettings, shards: u32) -> Result<()> {
    let probe = Probe::new(STAGE, &settings.client, Some(&settings.group))?;
    let (_, partitions) = probe.topic(&settings.topic)?;
    if usize::try_from(shards).ok() != Some(partitions) {
        return Err(Error::config(STAGE, format!("the topic has {partitions} partitions, --shards says {shards}"))
            .at(format!("topic {}", settings.topic))
            .help(format!("give --shards {partitions}")));
    }
    untouched(&probe, settings, partitions)
}

fn untouched(probe: &Probe<'_>, settings: &KafkaSettings, partitions: usize) -> Result<()> {
    let committed = probe.committed(&settings.topic, partitions)?;
    match committed.first() {
        None => Ok(()),
        Some((partition, next, _)) => {
            let text = format!("the group `{}` has committed offset {next} of partition {partition}: it has run already", settings.group);
            Err(Error::config(STAGE, text)
                .at(format!("topic {}", settings.topic))
                .help("hand over to another group: --set source.group=NAME, and give `run` the same"))
        }
    }
}

/// Commits. Returns what a reader should know, one line a partition.
///
/// # Errors
/// The topic begins above an offset (records between are gone) or ends below it (another topic); the group has committed something
/// meanwhile, or has members; the broker does not answer.
pub fn commit(settings: &KafkaSettings, commits: &[(Partition, Commit)]) -> Result<Vec<String>> {
    let probe = Probe::new(STAGE, &settings.client, Some(&settings.group))?;
    let topic = &settings.topic;
    let (_, partitions) = probe.topic(topic)?;
    untouched(&probe, settings, partitions)?;
    let spans = probe.ends(topic, partitions)?;
    let mut lines = Vec::new();
    let mut list = TopicPartitionList::new();
    let fault = |error: &rdkafka::error::KafkaError| explain(STAGE, &settings.client, topic, "commit the offsets of the hand-over", error);
    for (partition, commit) in commits {
        let Some((_, low, high)) = spans.iter().find(|(other, ..)| *other == partition.0) else {
            return Err(Error::config(STAGE, format!("the topic has no partition {partition}")).at(format!("topic {topic}")));
        };
        let next = commit.next.0;
        if next < *low {
            let text = format!(
                "the files end at offset {next} of partition {partition}, but the topic begins at {low}: the records between are gone"
            );
            return Err(Error::new(Kind::Data, STAGE, text).at(format!("topic {topic}")).help("add files that hold them"));
        }
        if next > *high {
            let text =
                format!("the files go to offset {next} of partition {partition}, but the topic ends at {high}: they are of another topic");
            return Err(Error::config(STAGE, text).at(format!("topic {topic}")).help("name the topic that the files were written from"));
        }
        list.add_partition_offset(topic, partition.0, Offset::Offset(next)).map_err(|error| fault(&error))?;
        lines.push(format!("partition {partition}: files to offset {next}, {} records of the topic are left for `run`", high - next));
    }
    for mut element in list.elements() {
        if let Some((_, commit)) = commits.iter().find(|(partition, _)| partition.0 == element.partition()) {
            element.set_metadata(commit.note.to_string());
        }
    }
    let mut config = settings.client.config();
    config.set("group.id", &settings.group).set("enable.auto.commit", "false");
    let consumer: BaseConsumer<Bridge> =
        BaseConsumer::from_config_and_context(&config, Bridge::default()).map_err(|error| fault(&error))?;
    consumer.commit(&list, CommitMode::Sync).map_err(|error| fault(&error))?;
    Ok(lines)
}
