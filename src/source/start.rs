//! Where a partition starts: the one decision between the committed offset, snapshots, what the log still has, and `on_missing`.

use super::OnMissing;
use crate::base::error::{Error, Result};
use crate::base::offset::{Offset, Partition};
use crate::data::commit::Commit;

const STAGE: &str = "source";

/// What is known of a partition that a lane is to own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The partition.
    pub partition: Partition,
    /// How far the source knows it to be committed.
    pub committed: Option<Commit>,
    /// First offset that the log still has.
    pub low: Offset,
    /// Offset that the next record (of a committed transaction) will get, where that is known.
    pub high: Option<Offset>,
    /// The states rest on events that were never in the log: a backfill's, before `since`.
    pub prior: bool,
    /// What to do where states cannot be rebuilt from what is there.
    pub on_missing: OnMissing,
    /// Where this is, for errors: the topic, or the files.
    pub place: String,
    /// The consumer group, if there is one.
    pub group: Option<String>,
}

/// Where reading starts and where it becomes live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// First offset to read.
    pub read_from: Offset,
    /// First offset whose forecasts are emitted.
    pub live_from: Offset,
    /// Whether the states of the snapshot that was offered are to be loaded.
    pub snapshot: bool,
    /// Number of records that retention deleted before they were read.
    pub unread: i64,
}

impl Assignment {
    /// A partition that is always read whole: nothing is committed and nothing is ever deleted.
    #[must_use]
    pub fn whole(partition: Partition, place: &str) -> Self {
        Assignment {
            partition,
            committed: None,
            low: Offset(0),
            high: None,
            prior: false,
            on_missing: OnMissing::Rebuild,
            place: place.to_owned(),
            group: None,
        }
    }

    /// Decides. Records between the snapshot (or the first record there is) and the committed offset are replayed silently: the log is the
    /// changelog of the key states.
    ///
    /// # Errors
    /// Configuration, if the log ends before the committed offset, or `on_missing = "fail"` and what the states rest on is gone, was never in the log, or was
    /// never handed over.
    pub fn start(&self, committed: Option<Offset>, snapshot: Option<Offset>) -> Result<Start> {
        let low = self.low;
        let place = format!("{}, partition {}", self.place, self.partition);
        let Some(committed) = committed else {
            if self.on_missing == OnMissing::Fail && self.prior {
                let by = self.group.as_deref().map_or("the sink".to_owned(), |group| format!("group `{group}`"));
                let text = format!(
                    "{by} has committed nothing, and the states of events before `source.since` come with what a hand-over commits"
                );
                return Err(Error::config(STAGE, text).at(place).help(
                    "hand over first: meantime backfill ... --hand-over; or name the group that was handed to; or begin without what was before: \
                     state.on_missing = \"rebuild\"",
                ));
            }
            return Ok(Start { read_from: low, live_from: low, snapshot: false, unread: 0 });
        };
        if let Some(high) = self.high.filter(|high| committed > *high) {
            let by = self.group.as_deref().map_or("the sink".to_owned(), |group| format!("group `{group}`"));
            let text = format!("{by} has committed offset {committed}, but the log ends at {high}: the topic was made anew or cut");
            let reset = self.group.as_deref().map_or("start over with an empty output folder".to_owned(), |group| {
                format!(
                    "name another `source.group` and another `state.snapshots`, or start over: remove the snapshots, which are of the topic before, and \
                     kafka-consumer-groups.sh --group {group} --all-topics --reset-offsets --to-earliest --execute"
                )
            });
            return Err(Error::config(STAGE, text).at(place).help(reset));
        }
        let unread = low.0.saturating_sub(committed.0).max(0);
        let live_from = committed.max(low);
        // A snapshot that the log does not reach any more is no better than none, but for the partition that has committed exactly there.
        if let Some(snapshot) = snapshot.filter(|snapshot| *snapshot >= low || *snapshot == committed) {
            return Ok(Start { read_from: snapshot.max(low), live_from, snapshot: true, unread });
        }
        if self.on_missing == OnMissing::Fail && self.prior {
            let text = "no snapshot can be used, and the states of events before `source.since` stand in snapshots only";
            return Err(Error::config(STAGE, text).at(place).help(
                "bring the snapshots back; or backfill again and hand over to another group; or go on without what was before: state.on_missing = \
                 \"rebuild\" (states from what the topic has) or \"start_empty\"",
            ));
        }
        if self.on_missing == OnMissing::Fail && low > Offset(0) && committed > Offset(0) {
            let text = format!(
                "retention has deleted the records below offset {low}, which the key states up to the committed offset {committed} rest on, \
                 and there is no snapshot to start from"
            );
            return Err(Error::config(STAGE, text).at(place).help(
                "set `state.on_missing` to \"rebuild\" (states from what is left) or \"start_empty\" (every key starts cold), keep more of the topic, \
                 or set `state.snapshots`",
            ));
        }
        let read_from = if self.on_missing == OnMissing::StartEmpty { live_from } else { low };
        Ok(Start { read_from, live_from, snapshot: false, unread })
    }
}

impl Assignment {
    /// Reads all there is, whatever was committed and whatever `on_missing` asks of a run: to look at the past. Says so in the log where a run's states rest on more.
    #[must_use]
    pub fn all(&self) -> Start {
        let (partition, low) = (self.partition, self.low);
        if self.prior {
            tracing::warn!(%partition, "the states begin with what the topic has since `source.since`: what a run said after a hand-over rests on earlier events \
                as well, and is another (name files of the whole history with --from)");
        } else if low > Offset(0) {
            tracing::warn!(%partition, %low, "the topic does not have its first records any more: the states begin with what is left, and what a run said may \
                be another (name files of the whole history with --from)");
        }
        Start { read_from: low, live_from: low, snapshot: false, unread: 0 }
    }

    /// Refuses a start without a committed offset where a snapshot at `snapshot` says that there was one: everything would be emitted again.
    ///
    /// # Errors
    /// Configuration, where offsets are kept by a group and there is such a snapshot.
    pub fn check_not_forgotten(&self, snapshot: Option<Offset>) -> Result<()> {
        let (Some(group), Some(snapshot)) = (&self.group, snapshot) else { return Ok(()) };
        let (partition, topic) = (self.partition, self.place.strip_prefix("topic ").unwrap_or(&self.place));
        let text = format!(
            "group `{group}` has no committed offset, but there is a snapshot at offset {snapshot}: brokers forget the offsets of a group that was away for \
             `offsets.retention.minutes` (7 days), or the group is another one; going on without would emit the whole topic again"
        );
        Err(Error::config(STAGE, text).at(format!("{}, partition {partition}", self.place)).help(format!(
            "go on at the snapshot (what was emitted above it comes again: at most `snapshot_every`): kafka-consumer-groups.sh --bootstrap-server BROKER --group {group} \
             --topic {topic}:{partition} --reset-offsets --to-offset {snapshot} --execute (`meantime state ls PIPELINE` has the offsets of all partitions); or begin \
             anew: remove the snapshots, or name another `state.snapshots`"
        )))
    }
}

/// Refuses an input that ends at `end`, below what the sink already has: it is not the one that the sink's rows were made of.
pub(super) fn ended(what: &str, end: Offset, live_from: Offset, place: &str) -> Result<()> {
    if end >= live_from {
        return Ok(());
    }
    let text = format!("{what} at record {end}, but the sink has what came of all records below {live_from}: the input is another one now");
    Err(Error::config(STAGE, text)
        .at(place.to_owned())
        .help("give the sink an empty folder to start over, or give back the input it was made of"))
}

/// The error for an offset that the log does not have any more while the stage runs.
#[cfg(feature = "kafka")]
pub(super) fn overtaken(topic: &str, partition: i32, next: i64) -> Error {
    Error::new(
        crate::base::error::Kind::Retry,
        STAGE,
        format!("the log does not have offset {next}: retention overtook the stage, or the topic was made anew or cut"),
    )
    .at(format!("topic {topic}, partition {partition}"))
    .help("start again: it goes on at the first record there is, and says how many it has missed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(committed: Option<i64>, low: i64, high: i64, on_missing: OnMissing, snapshot: Option<i64>) -> Result<Start> {
        let assignment = Assignment {
            low: Offset(low),
            high: Some(Offset(high)),
            on_missing,
            group: Some("g".to_owned()),
            ..Assignment::whole(Partition(3), "topic t")
        };
        assignment.start(committed.map(Offset), snapshot.map(Offset))
    }

    fn from(read_from: i64, live_from: i64, unread: i64) -> Start {
        Start { read_from: Offset(read_from), live_from: Offset(live_from), snapshot: false, unread }
    }

    #[test]
    fn without_a_committed_offset_a_partition_is_live_from_its_first_record() {
        for on_missing in [OnMissing::Rebuild, OnMissing::StartEmpty, OnMissing::Fail] {
            assert_eq!(start(None, 7, 90, on_missing, None).unwrap(), from(7, 7, 0));
        }
    }

    #[test]
    fn states_that_rest_on_files_are_not_begun_without_them_where_that_is_refused() {
        let begun = |on_missing, committed: Option<i64>| {
            let group = Some("g".to_owned());
            let assignment =
                Assignment { prior: true, high: Some(Offset(90)), on_missing, group, ..Assignment::whole(Partition(3), "topic t") };
            assignment.start(committed.map(Offset), None)
        };
        let refused = begun(OnMissing::Fail, None).unwrap_err().to_string();
        assert!(refused.contains("group `g` has committed nothing") && refused.contains("--hand-over"), "{refused}");
        assert!(begun(OnMissing::Fail, Some(50)).unwrap_err().to_string().contains("no snapshot can be used"));
        assert_eq!(begun(OnMissing::Rebuild, None).unwrap(), from(0, 0, 0));
        // To look at the past is no start.
        let looked =
            Assignment { prior: true, low: Offset(7), on_missing: OnMissing::Fail, ..Assignment::whole(Partition(3), "topic t") }.all();
        assert_eq!(looked, from(7, 7, 0));
    }

    #[test]
    fn rebuild_replays_from_the_first_record_and_is_live_at_the_committed_offset() {
        assert_eq!(start(Some(50), 0, 90, OnMissing::Rebuild, None).unwrap(), from(0, 50, 0));
        assert_eq!(start(Some(50), 20, 90, OnMissing::Rebuild, None).unwrap(), from(20, 50, 0));
        assert_eq!(start(Some(90), 0, 90, OnMissing::Rebuild, None).unwrap(), from(0, 90, 0));
    }

    #[test]
    fn a_snapshot_shortens_the_replay_whatever_on_missing_says() {
        for on_missing in [OnMissing::Rebuild, OnMissing::StartEmpty, OnMissing::Fail] {
            assert_eq!(start(Some(50), 20, 90, on_missing, Some(40)).unwrap(), Start { snapshot: true, ..from(40, 50, 0) });
            assert_eq!(start(Some(50), 60, 90, on_missing, Some(50)).unwrap(), Start { snapshot: true, ..from(60, 60, 10) });
        }
        assert_eq!(start(Some(50), 45, 90, OnMissing::Rebuild, Some(40)).unwrap(), from(45, 50, 0), "records after the snapshot are gone");
        assert!(start(Some(50), 45, 90, OnMissing::Fail, Some(40)).is_err());
    }

    #[test]
    fn start_empty_replays_nothing() {
        assert_eq!(start(Some(50), 20, 90, OnMissing::StartEmpty, None).unwrap(), from(50, 50, 0));
    }

    #[test]
    fn records_deleted_before_they_were_read_are_counted() {
        assert_eq!(start(Some(50), 60, 90, OnMissing::Rebuild, None).unwrap(), from(60, 60, 10));
        assert_eq!(start(Some(50), 60, 90, OnMissing::StartEmpty, None).unwrap(), from(60, 60, 10));
    }

    #[test]
    fn fail_refuses_a_log_whose_beginning_is_gone() {
        let error = start(Some(50), 20, 90, OnMissing::Fail, None).unwrap_err();
        assert_eq!(error.exit_code(), 78);
        assert!(error.to_string().contains("state.on_missing"), "{error}");
        assert_eq!(start(Some(50), 0, 90, OnMissing::Fail, None).unwrap(), from(0, 50, 0));
    }

    #[test]
    fn states_of_a_backfill_are_in_snapshots_only() {
        let start = |on_missing, committed: Option<i64>, snapshot: Option<i64>| {
            let assignment = Assignment { prior: true, on_missing, high: Some(Offset(90)), ..Assignment::whole(Partition(3), "topic t") };
            assignment.start(committed.map(Offset), snapshot.map(Offset))
        };
        let error = start(OnMissing::Fail, Some(0), None).unwrap_err();
        assert!(error.exit_code() == 78 && error.to_string().contains("source.since"), "{error}");
        assert_eq!(start(OnMissing::Fail, Some(0), Some(0)).unwrap(), Start { snapshot: true, ..from(0, 0, 0) });
        assert_eq!(start(OnMissing::Unsaid, Some(50), None).unwrap(), from(0, 50, 0));
    }

    #[test]
    fn an_offset_that_the_group_has_forgotten_is_told_from_one_that_never_was() {
        let of = |group: Option<&str>| Assignment { group: group.map(str::to_owned), ..Assignment::whole(Partition(3), "topic t") };
        of(Some("g")).check_not_forgotten(None).unwrap();
        of(None).check_not_forgotten(Some(Offset(40))).unwrap();
        let error = of(Some("g")).check_not_forgotten(Some(Offset(40))).unwrap_err();
        assert_eq!(error.exit_code(), 78);
        for part in ["--group g --topic t:3 --reset-offsets --to-offset 40", "state.snapshots", "partition 3"] {
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn a_log_that_ends_before_the_committed_offset_is_an_error_always() {
        for on_missing in [OnMissing::Rebuild, OnMissing::StartEmpty, OnMissing::Fail] {
            let error = start(Some(91), 0, 90, on_missing, None).unwrap_err();
            assert!(error.to_string().contains("made anew"), "{error}");
        }
    }
}
