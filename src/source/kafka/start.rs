//! Where a partition starts: the one decision between the committed offset, what the log still has, and `on_missing`.

use super::STAGE;
use crate::base::error::{Error, Kind, Result};
use crate::source::OnMissing;

/// What is known of a partition that has been assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// Its number.
    pub(super) partition: i32,
    /// Offset up to which the group has committed.
    pub(super) committed: Option<i64>,
    /// First offset that the log still has.
    pub(super) low: i64,
    /// Offset that the next record (of a committed transaction) will get.
    pub(super) high: i64,
}

/// Where reading starts and where it becomes live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    /// First offset to read.
    pub(super) read_from: i64,
    /// First offset whose forecasts are emitted.
    pub(super) live_from: i64,
    /// Number of records that retention deleted before this group had read them.
    pub(super) unread: i64,
}

/// Decides. Records below the committed offset are replayed silently, because key states live nowhere else.
///
/// # Errors
/// Configuration, if the log ends before the committed offset, or `on_missing = "fail"` and its beginning is gone.
pub(super) fn start(known: Known, on_missing: OnMissing, topic: &str, group: &str) -> Result<Start> {
    let Known { partition, committed, low, high } = known;
    let place = format!("topic {topic}, partition {partition}");
    let Some(committed) = committed else {
        return Ok(Start { read_from: low, live_from: low, unread: 0 });
    };
    if committed > high {
        let text = format!("group `{group}` has committed offset {committed}, but the log ends at {high}: the topic was made anew or cut");
        let reset = format!("kafka-consumer-groups.sh --group {group} --topic {topic} --reset-offsets --to-earliest --execute");
        return Err(Error::config(STAGE, text).at(place).help(format!("name another `source.group`, or start over: {reset}")));
    }
    if on_missing == OnMissing::Fail && low > 0 && committed > 0 {
        let text = format!(
            "retention has deleted the records below offset {low}, which the key states up to the committed offset {committed} rest on"
        );
        return Err(Error::config(STAGE, text).at(place).help(
            "set `state.on_missing` to \"rebuild\" (states from what is left) or \"start_empty\" (every key starts cold), or keep more of the topic",
        ));
    }
    let live_from = committed.max(low);
    let read_from = if on_missing == OnMissing::StartEmpty { live_from } else { low };
    Ok(Start { read_from, live_from, unread: low.saturating_sub(committed).max(0) })
}

/// The error for an offset that the log does not have any more while the stage runs.
pub(super) fn overtaken(topic: &str, partition: i32, next: i64) -> Error {
    Error::new(
        Kind::Retry,
        STAGE,
        format!("the log does not have offset {next}: retention overtook the stage, or the topic was made anew or cut"),
    )
    .at(format!("topic {topic}, partition {partition}"))
    .help("start again: it goes on at the first record there is, and says how many it has missed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(committed: Option<i64>, low: i64, high: i64) -> Known {
        Known { partition: 3, committed, low, high }
    }

    fn from(read_from: i64, live_from: i64, unread: i64) -> Start {
        Start { read_from, live_from, unread }
    }

    #[test]
    fn without_a_committed_offset_a_partition_is_live_from_its_first_record() {
        for on_missing in [OnMissing::Rebuild, OnMissing::StartEmpty, OnMissing::Fail] {
            assert_eq!(start(known(None, 7, 90), on_missing, "t", "g").unwrap(), from(7, 7, 0));
        }
    }

    #[test]
    fn rebuild_replays_from_the_first_record_and_is_live_at_the_committed_offset() {
        assert_eq!(start(known(Some(50), 0, 90), OnMissing::Rebuild, "t", "g").unwrap(), from(0, 50, 0));
        assert_eq!(start(known(Some(50), 20, 90), OnMissing::Rebuild, "t", "g").unwrap(), from(20, 50, 0));
        assert_eq!(start(known(Some(90), 0, 90), OnMissing::Rebuild, "t", "g").unwrap(), from(0, 90, 0));
    }

    #[test]
    fn start_empty_replays_nothing() {
        assert_eq!(start(known(Some(50), 20, 90), OnMissing::StartEmpty, "t", "g").unwrap(), from(50, 50, 0));
    }

    #[test]
    fn records_deleted_before_they_were_read_are_counted() {
        assert_eq!(start(known(Some(50), 60, 90), OnMissing::Rebuild, "t", "g").unwrap(), from(60, 60, 10));
        assert_eq!(start(known(Some(50), 60, 90), OnMissing::StartEmpty, "t", "g").unwrap(), from(60, 60, 10));
    }

    #[test]
    fn fail_refuses_a_log_whose_beginning_is_gone() {
        let error = start(known(Some(50), 20, 90), OnMissing::Fail, "t", "g").unwrap_err();
        assert_eq!(error.exit_code(), 78);
        assert!(error.to_string().contains("state.on_missing"), "{error}");
        assert_eq!(start(known(Some(50), 0, 90), OnMissing::Fail, "t", "g").unwrap(), from(0, 50, 0));
    }

    #[test]
    fn a_log_that_ends_before_the_committed_offset_is_an_error_always() {
        for on_missing in [OnMissing::Rebuild, OnMissing::StartEmpty, OnMissing::Fail] {
            let error = start(known(Some(91), 0, 90), on_missing, "t", "g").unwrap_err();
            assert!(error.to_string().contains("made anew"), "{error}");
        }
    }
}
