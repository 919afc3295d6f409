//! `meantime check --connect`: is the topic there, and how far has the group come?

use std::time::Duration;

use super::STAGE;
use crate::base::error::Result;
use crate::link::kafka::Probe;
use crate::source::{KafkaSettings, OnMissing};

const POLICY: &str = "cleanup.policy";
const RETENTION_MS: &str = "retention.ms";
const RETENTION_BYTES: &str = "retention.bytes";
/// Retention should reach back over so many snapshots: some may fail, and a stage may be down for a while.
const INTERVALS: u32 = 4;

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

/// What of the topic's settings endangers the states that are rebuilt from it, one line each; nothing where they cannot be asked for.
/// `snapshot_every`: time between two snapshots, if there are any.
#[must_use]
pub fn cautions(settings: &KafkaSettings, snapshot_every: Option<Duration>) -> Vec<String> {
    let Ok(probe) = Probe::new(STAGE, &settings.client, None) else { return Vec::new() };
    let found = probe.settings(&settings.topic, &[POLICY, RETENTION_MS, RETENTION_BYTES]);
    judge(settings, &found, snapshot_every)
}

fn judge(settings: &KafkaSettings, found: &[(String, String)], snapshot_every: Option<Duration>) -> Vec<String> {
    let get = |name: &str| found.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
    let topic = &settings.topic;
    let policy = get(POLICY).unwrap_or("delete");
    let mut lines = Vec::new();
    if let Some(since) = settings.since {
        let but = match (snapshot_every, settings.on_missing) {
            (None, _) => Some("and the pipeline keeps none: set state.snapshots".to_owned()),
            (Some(_), OnMissing::Fail | OnMissing::StartEmpty) => None,
            (Some(_), _) => Some("and a start that finds none goes on without: with state.on_missing = \"fail\" it is refused".to_owned()),
        };
        lines.extend(but.map(|but| {
            format!("topic {topic}: the topic cannot give back states of events before source.since ({since}): they stand in snapshots only, {but}")
        }));
    }
    if policy.contains("compact") {
        lines.push(format!(
            "topic {topic}: {POLICY} is {policy}: a compacted topic cannot be replayed, for records that key states rest on vanish; use delete"
        ));
    }
    // Retention deletes nothing where the policy only compacts, and where states may start empty nothing rests on what it deletes.
    if !policy.contains("delete") || (snapshot_every.is_none() && settings.on_missing == OnMissing::StartEmpty) {
        return lines;
    }
    let bound = |name| get(name).and_then(|value| value.parse::<u64>().ok());
    let shown = humantime::format_duration;
    let reach = snapshot_every.map(|every| every.saturating_mul(INTERVALS));
    if let Some(kept) = bound(RETENTION_MS).map(Duration::from_millis) {
        match reach {
            None => lines.push(format!(
                "topic {topic}: {RETENTION_MS} keeps {}, but without snapshots key states rest on the whole topic: set state.snapshots",
                shown(kept)
            )),
            Some(reach) if kept < reach => lines.push(format!(
                "topic {topic}: {RETENTION_MS} keeps {}, less than {INTERVALS} times state.snapshot_every ({}): what a snapshot does not hold may be \
                 deleted before it is replayed",
                shown(kept),
                shown(reach)
            )),
            Some(_) => {}
        }
    }
    if let Some(bytes) = bound(RETENTION_BYTES) {
        lines.push(match reach {
            None => format!(
                "topic {topic}: {RETENTION_BYTES} keeps {bytes} bytes a partition, but without snapshots key states rest on the whole topic: set \
                 state.snapshots"
            ),
            Some(reach) => format!(
                "topic {topic}: {RETENTION_BYTES} keeps {bytes} bytes a partition; that should be more than comes within {INTERVALS} times \
                 state.snapshot_every ({})",
                shown(reach)
            ),
        });
    }
    lines
}

/// `1 broker`, `3 brokers`.
fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::kafka::Client;

    fn judged(found: &[(&str, &str)], every: Option<u64>, on_missing: OnMissing) -> Vec<String> {
        let settings = KafkaSettings {
            client: Client::default(),
            topic: "t".to_owned(),
            group: "g".to_owned(),
            on_missing,
            idle_after: None,
            instance: None,
            since: None,
        };
        let found: Vec<_> = found.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        judge(&settings, &found, every.map(Duration::from_secs))
    }

    #[test]
    fn states_that_only_snapshots_hold_are_named() {
        let settings = |on_missing| KafkaSettings {
            client: Client::default(),
            topic: "t".to_owned(),
            group: "g".to_owned(),
            on_missing,
            idle_after: None,
            instance: None,
            since: Some(crate::base::time::EventTime(1_767_225_600_000_000)),
        };
        let day = Some(Duration::from_secs(60));
        let lines = judge(&settings(OnMissing::Unsaid), &[], day);
        assert!(lines.len() == 1 && lines[0].contains("2026-01-01T00:00:00") && lines[0].contains("\"fail\""), "{lines:?}");
        assert!(judge(&settings(OnMissing::Fail), &[], day).is_empty());
        assert!(judge(&settings(OnMissing::Fail), &[], None)[0].contains("state.snapshots"));
    }

    #[test]
    fn what_endangers_states_is_named_and_nothing_else() {
        let quiet = [(POLICY, "delete"), (RETENTION_MS, "-1"), (RETENTION_BYTES, "-1")];
        assert!(judged(&quiet, None, OnMissing::Rebuild).is_empty());
        assert!(judged(&[], None, OnMissing::Rebuild).is_empty(), "what may not be asked for is not judged");
        let week = [(POLICY, "delete"), (RETENTION_MS, "604800000")];
        assert!(
            judged(&week, None, OnMissing::Rebuild)[0].contains("keeps 7days")
                && judged(&week, None, OnMissing::Fail)[0].contains("state.snapshots")
        );
        assert!(judged(&week, None, OnMissing::StartEmpty).is_empty());
        assert!(judged(&week, Some(60), OnMissing::Rebuild).is_empty());
        assert!(judged(&week, Some(86_400 * 2), OnMissing::StartEmpty)[0].contains("4 times state.snapshot_every (8days)"));
        let small = [(RETENTION_BYTES, "1000")];
        assert!(judged(&small, Some(60), OnMissing::Rebuild)[0].contains("1000 bytes a partition"));
        let compacted = [(POLICY, "compact"), (RETENTION_MS, "1")];
        let lines = judged(&compacted, None, OnMissing::Rebuild);
        assert!(lines.len() == 1 && lines[0].contains("cannot be replayed"), "{lines:?}");
        assert_eq!(judged(&[(POLICY, "compact,delete"), (RETENTION_MS, "1")], None, OnMissing::Rebuild).len(), 2);
    }
}
