//! `meantime check --connect`: can the topic of a sink be written?

use crate::base::error::Result;
use crate::link::kafka::{Client, Probe};

/// Asks the cluster about a topic that a sink writes. Returns what it found, one line each.
///
/// # Errors
/// Unavailable if no broker answers within 5 s; configuration if a client setting is refused or the topic is not there (with the
/// nearest name and the command that creates it).
pub fn check_connect(client: &Client, topic: &str) -> Result<Vec<String>> {
    let probe = Probe::new("sink", client, None)?;
    let (_, partitions) = probe.topic(topic)?;
    let mut lines = vec![format!("topic {topic}: {partitions} partition{}", if partitions == 1 { "" } else { "s" })];
    for (name, value) in probe.settings(topic, &["cleanup.policy", "max.message.bytes", "min.insync.replicas"]) {
        match name.as_str() {
            "cleanup.policy" if value.contains("compact") => {
                lines.push(format!("topic {topic}: cleanup.policy is {value}; compaction keeps the last row per key only"));
            }
            "cleanup.policy" => {}
            _ => lines.push(format!("topic {topic}: {name} is {value}")),
        }
    }
    Ok(lines)
}
