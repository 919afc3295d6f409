//! A hand-over of files that know nothing of the topic: it begins with its first record that is not before `since`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::beginning;
use crate::backfill::murmur2;
use crate::base::error::{Error, Kind, Result};
use crate::base::fail_point::fail_point;
use crate::base::offset::{Offset, Partition};
use crate::base::time::EventTime;
use crate::cli::before::Sight;
use crate::cli::progress::Progress;
use crate::run::{Stage, hand_over};
use crate::sink::kafka::audit::{self, Found, Spans};
use crate::sink::parquet::audit::Audit;
use crate::source::KafkaSettings;
use crate::state::snapshot::{self, Snapshots};

const STAGE: &str = "backfill";
/// Records of a partition that are looked at, at least, to see that their keys belong there.
const LOOKED_AT: u64 = 10_000;

/// Finds where the live run begins in each partition, leaves the states of the files there, and commits it for the group. Returns what a reader should
/// know, one line a partition.
///
/// # Errors
/// As `HandOver::carry_out`.
pub fn carry_out(stage: &Stage, kafka: &KafkaSettings, place: &snapshot::Settings, done: &Audit) -> Result<Vec<String>> {
    let missing = || Error::internal(STAGE, "a hand-over by time without `since`, a model or snapshots");
    let since = kafka.since.ok_or_else(missing)?;
    let spans = audit::spans(&kafka.client, &kafka.topic)?;
    let sight = Sight::new(&stage.plan.schema, stage.plan.schemas.as_ref());
    let cuts = cuts(kafka, sight, since, &spans)?;
    let from = stage.snapshots()?.ok_or_else(missing)?;
    let to = Arc::new(Snapshots::open(&place.place, stage.plan.state_columns()?.ok_or_else(missing)?, &stage.identity.fingerprint)?);
    let mut lines = Vec::new();
    let mut commits = Vec::new();
    for (partition, cut) in &cuts {
        let end = done.partitions.get(partition).and_then(|tiles| tiles.newest.as_ref());
        let (_, keys) = hand_over(stage, (&from, &to), *partition, end, cut.at)?;
        let rows = end.map_or(Offset(0), |end| end.next);
        lines.push(format!(
            "partition {partition}: states of {keys} keys from {rows} rows, `run` begins at offset {}{}",
            cut.at,
            cut.why(spans.get(partition))
        ));
        commits.push((*partition, beginning(stage, cut.at)));
    }
    fail_point("hand_over.snapshots_stored");
    crate::source::kafka::hand_over::commit(kafka, &commits)?;
    Ok(lines)
}

/// Where the topic's part of a partition begins.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cut {
    /// First record that is not an event before the time; the end of the partition if there is none yet.
    at: Offset,
    /// Whether there is one.
    found: bool,
    /// Records that were looked at.
    seen: u64,
}

impl Cut {
    /// What is to be known of it besides.
    fn why(&self, span: Option<&(Offset, Offset)>) -> String {
        match span {
            Some((low, _)) if self.found && low.0 > 0 && *low == self.at => {
                "; the topic has no event before `since` any more: look that nothing is missing between it and the files".to_owned()
            }
            _ if !self.found => ", where the partition ends now".to_owned(),
            _ => String::new(),
        }
    }
}

fn cuts(kafka: &KafkaSettings, mut sight: Sight, since: EventTime, spans: &Spans) -> Result<BTreeMap<Partition, Cut>> {
    let width = u32::try_from(spans.len()).unwrap_or(u32::MAX);
    let mut cuts: BTreeMap<Partition, Cut> =
        spans.iter().map(|(partition, (_, end))| (*partition, Cut { at: *end, found: false, seen: 0 })).collect();
    let mut progress = Progress::start("records of the topic looked at", None);
    let mut seen = 0_u64;
    audit::scan(STAGE, &kafka.client, &kafka.topic, &kafka.group, spans, &mut |found| {
        seen += 1;
        if seen.is_multiple_of(1000) {
            progress.at(seen);
        }
        let Some(cut) = cuts.get_mut(&found.at.0) else { return Ok(false) };
        cut.note(found, sight.look(found.at, found.recorded, found.key, found.payload)?, since, width)
            .map_err(|error| error.at(format!("topic {}, partition {}, offset {}", kafka.topic, found.at.0, found.at.1)))
    })?;
    let _ = progress.stop();
    Ok(cuts)
}

impl Cut {
    /// Takes a record into account; says whether more of its partition are wanted.
    fn note(&mut self, found: &Found<'_>, event: Option<(EventTime, &[u8])>, since: EventTime, width: u32) -> Result<bool> {
        self.seen += 1;
        if let Some((_, key)) = event {
            let home = murmur2::partition(key, width);
            if i64::from(home) != i64::from(found.at.0.0) {
                let key = String::from_utf8_lossy(key).into_owned();
                let text = format!(
                    "key `{key}` stands here, and Kafka's default partitioner (murmur2 of the event's key) puts it into partition {home}"
                );
                return Err(Error::new(Kind::Data, STAGE, text).help(
                    "the files' keys are spread by murmur2, so this partition would get the states of other keys: write the topic with that partitioner and \
                     the event's key as record key, or hand over files that have positions: --positions PARTITION,OFFSET",
                ));
            }
        }
        // A record that cannot be used is for the live run to tell of.
        if !self.found && event.is_none_or(|(time, _)| time >= since) {
            (self.at, self.found) = (found.at.1, true);
        }
        Ok(!self.found || self.seen < LOOKED_AT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::kafka::audit::Origin;

    fn cut(records: &[Option<i64>]) -> (Cut, usize) {
        let mut cut = Cut { at: Offset(100), found: false, seen: 0 };
        let mut wanted = 0;
        for (offset, time) in (40..).zip(records) {
            let found = Found { at: (Partition(0), Offset(offset)), recorded: None, key: None, payload: None, origin: Origin::Unnamed };
            wanted += 1;
            if !cut.note(&found, time.map(|time| (EventTime(time), b"k".as_slice())), EventTime(10), 1).unwrap() {
                break;
            }
        }
        (cut, wanted)
    }

    #[test]
    fn it_is_the_first_record_that_is_not_an_event_before_the_time() {
        let at = |records: &[Option<i64>]| (cut(records).0.at.0, cut(records).0.found);
        assert_eq!(at(&[Some(1), Some(9), Some(10), Some(2), Some(11)]), (42, true));
        assert_eq!(at(&[Some(1), None, Some(10)]), (41, true), "what cannot be read is a dead letter of the live run");
        assert_eq!(at(&[Some(1), Some(9)]), (100, false));
        assert_eq!(at(&[]), (100, false));
        let many = vec![Some(10); 20_000];
        assert_eq!(cut(&many).1, 10_000, "then enough keys were seen");
    }

    #[test]
    fn a_key_in_another_partition_than_murmur2_says_is_refused() {
        let found = Found { at: (Partition(3), Offset(0)), recorded: None, key: None, payload: None, origin: Origin::Unnamed };
        let note = |partition: i32| {
            let found = Found { at: (Partition(partition), Offset(0)), ..found };
            Cut { at: Offset(9), found: false, seen: 0 }.note(&found, Some((EventTime(1), b"foobar")), EventTime(10), 4)
        };
        let home = murmur2::partition(b"foobar", 4).cast_signed();
        assert!(note(home).unwrap());
        let error = note((home + 1) % 4).unwrap_err();
        assert!(error.to_string().contains("`foobar`") && error.to_string().contains(&format!("partition {home}")), "{error}");
    }

    #[test]
    fn what_cannot_be_judged_is_said() {
        let span = (Offset(5), Offset(9));
        let cut = |at, found| Cut { at: Offset(at), found, seen: 1 };
        assert!(cut(5, true).why(Some(&span)).contains("look that nothing is missing"));
        assert_eq!(cut(6, true).why(Some(&span)), "");
        assert_eq!(cut(0, true).why(Some(&(Offset(0), Offset(9)))), "");
        assert!(cut(9, false).why(Some(&span)).contains("ends now"));
    }
}
