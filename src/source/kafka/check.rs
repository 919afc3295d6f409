//! `meantime check --connect`: is the topic there, and how far has the group come?

use super::STAGE;
use crate::base::error::Result;
use crate::link::kafka::Probe;
use crate::source::KafkaSettings;

/// Asks the cluster about a source. Returns what it found, one line each.
///
/// # Errors
/// Unavailable if no broker answers within 5 s; configuration if a client setting is refused, the topic is not there (with the
/// nearest name), or the group may not be read.
pub fn check_connect(settings: &KafkaSettings) -> Result<Vec<String>> {
    let probe = Probe::new(STAGE, &settings.client, Some(&settings.group))?;
    let topic = &settings.topic;
    let (brokers, partitions) = probe.topic(topic)?;
    let ends = probe.ends(topic, partitions)?;
    let records = ends.iter().map(|(_, low, high)| high.saturating_sub(*low)).sum::<i64>();
    let mut lines = vec![format!("Kafka at {}: {}", settings.client.brokers, counted(brokers, "broker"))];
    lines.push(format!("topic {topic}: {}, offsets span {records} records", counted(partitions, "partition")));
    for (name, value) in probe.settings(topic, &["cleanup.policy", "retention.ms", "retention.bytes"]) {
        match (name.as_str(), value.as_str()) {
            ("cleanup.policy", policy) if policy.contains("compact") => lines.push(format!(
                "topic {topic}: cleanup.policy is {policy}; compaction deletes events, so key states rebuilt from this topic will differ: use delete"
            )),
            ("retention.ms" | "retention.bytes", "-1") | ("cleanup.policy", _) => {}
            _ => lines.push(format!(
                "topic {topic}: {name} is {value}; after a restart key states are rebuilt from what retention has left"
            )),
        }
    }
    let committed = probe.committed(topic, partitions)?;
    if committed.is_empty() {
        lines.push(format!("group {}: nothing committed yet, so it starts at the first record", settings.group));
    } else {
        let lag = ends.iter().map(|(partition, low, high)| {
            let from = committed.iter().find(|(other, ..)| other == partition).map_or(*low, |(_, offset, _)| (*offset).max(*low));
            high.saturating_sub(from).max(0)
        });
        let lag = lag.sum::<i64>();
        lines.push(format!("group {}: committed on {} of {partitions} partitions, lag {lag}", settings.group, committed.len()));
    }
    Ok(lines)
}

/// `1 broker`, `3 brokers`.
fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
