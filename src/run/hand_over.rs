//! The states at the end of a backfill as those that a live run begins with.

use std::sync::Arc;

use super::partition::Recovered;
use super::snapshots::newest_below;
use super::stage::Stage;
use crate::base::error::{Error, Kind, Result};
use crate::base::offset::{Offset, Partition};
use crate::data::commit::{Commit, Note};
use crate::state::snapshot::{self, Boundary, Snapshots, Written};

/// Stores the states that `stage`, a backfill whose offsets count rows, has left of a partition as a snapshot of the topic's partition at offset `at`.
/// `end`: how far the backfill's output goes, `None` if it has had no row: then the states are empty. Events that were held back to the end are in the
/// output already, so they are taken in here without a word. Returns also how many keys there are.
///
/// # Errors
/// There is no snapshot where the output ends, or the place cannot be written to.
pub fn hand_over(
    stage: &Stage,
    (from, to): (&Snapshots, &Arc<Snapshots>),
    partition: Partition,
    end: Option<&Commit>,
    at: Offset,
) -> Result<(Written, usize)> {
    let mut lane = stage.lane()?;
    match end {
        None => lane.assign(partition, Offset(0)),
        Some(end) => {
            let found = newest_below(from, partition, end)?.filter(|found| found.offset == end.next).ok_or_else(|| {
                Error::new(
                    Kind::Retry,
                    "backfill",
                    format!("there is no snapshot where the files of partition {partition} end, at row {}", end.next),
                )
                .help("a snapshot was lost or could not be stored (see the log): run the backfill again with --resume --hand-over")
            })?;
            // No record follows that could be recognised.
            let included = Note { last: None, ..Note::read(&found.note).unwrap_or_default() };
            let (mut order, mut keys) = lane.empty_states();
            order.restore(found.load(&mut keys)?);
            let note = Note { last: None, ..end.note.clone() };
            lane.take_over(Recovered {
                partition,
                from: end.next,
                live_from: end.next,
                note,
                included,
                states: Some((order, keys)),
                live_ticks: 0,
            });
            lane.finish()?;
        }
    }
    let fingerprint = stage.identity.fingerprint.clone();
    let state = lane.partitions_mut().first_mut().ok_or_else(|| Error::internal("backfill", "a lane without its partition"))?;
    // Moments of the backfill's end are none of the topic's.
    let boundary = Boundary { offset: at, note: Note { fingerprint, ..Note::default() }.to_string(), held: state.order.export() };
    let keys = state.keys.len();
    Ok((snapshot::store(Arc::clone(to), partition, boundary, &mut state.keys)?, keys))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::data::input::Input;
    use crate::pipeline::{self, Purpose};
    use crate::run::Lane;
    use crate::sink::json::RowEncoder;
    use crate::source::generate::stream;
    use crate::source::{GenerateSettings, Stream};
    use serde_json::Value;

    const P: Partition = Partition(0);

    fn input(payloads: &[Vec<u8>], first: i64) -> Input {
        let mut input = Input::default();
        for (payload, offset) in payloads.iter().zip(first..) {
            input.records.push(P, Offset(offset), None, None, Some(payload));
        }
        input
    }

    fn rows(stage: &Stage, lane: &Lane, to: &mut Vec<Value>) {
        let mut encoder = RowEncoder::new(&stage.layout, &stage.identity);
        for row in 0..lane.forecasts.len() {
            let mut json = Vec::new();
            encoder.row(&lane.forecasts, row, &mut json);
            let mut json: Value = serde_json::from_slice(&json).unwrap();
            json.as_object_mut().unwrap().remove("offset").unwrap();
            to.push(json);
        }
    }

    fn payloads() -> Vec<Vec<u8>> {
        let mut stream = stream(&GenerateSettings { stream: Stream::Cards, events: 1_500, keys: 30, seed: 5 });
        let mut all = Vec::new();
        let (mut payload, mut key) = (Vec::new(), Vec::new());
        while stream.next_into(&mut payload, &mut key).is_some() {
            all.push(payload.clone());
            payload.clear();
            key.clear();
        }
        all
    }

    #[test]
    fn a_live_run_goes_on_with_the_states_of_the_files_whenever_their_last_snapshot_was_cut() {
        let all = payloads();
        let (old, new) = all.split_at(900);
        for (lateness, released) in [("0s", false), ("6h", false), ("6h", true)] {
            let folder = tempfile::tempdir().unwrap();
            let sets = [format!("order.lateness={lateness}"), format!("state.snapshots={}", folder.path().join("rows").display())];
            let cards = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/cards");
            let stage = Stage::load(pipeline::load(&cards, &sets, Purpose::Run).unwrap()).unwrap();
            let (mut whole, mut parts) = (Vec::new(), Vec::new());
            let mut lane = stage.lane().unwrap();
            lane.assign(P, Offset(0));
            lane.advance(&input(&all, 0)).unwrap();
            rows(&stage, &lane, &mut whole);
            lane.finish().unwrap();
            rows(&stage, &lane, &mut whole);

            // The files, with a snapshot at their end before or after what is held back was released.
            let from = stage.snapshots().unwrap().unwrap();
            let mut lane = stage.lane().unwrap();
            lane.assign(P, Offset(0));
            lane.advance(&input(old, 0)).unwrap();
            rows(&stage, &lane, &mut parts);
            let cut = |lane: &mut Lane| {
                let state = lane.partitions_mut().first_mut().unwrap();
                let commit = state.boundary(&stage.identity.fingerprint).unwrap();
                let boundary = Boundary { offset: commit.next, note: commit.note.to_string(), held: state.order.export() };
                assert_eq!(boundary.held.events.is_empty(), lateness == "0s" || released);
                snapshot::store(Arc::new(stage.snapshots().unwrap().unwrap()), P, boundary, &mut state.keys).unwrap();
            };
            if !released {
                cut(&mut lane);
            }
            lane.finish().unwrap();
            rows(&stage, &lane, &mut parts);
            if released {
                cut(&mut lane);
            }
            let end = lane.commits().get(P).unwrap().clone();
            assert_eq!(parts.len(), old.len());

            let place = crate::link::objects::Place::Folder(folder.path().join("topic"));
            let to = || Snapshots::open(&place, stage.plan.state_columns().unwrap().unwrap(), &stage.identity.fingerprint).unwrap();
            let (written, keys) = hand_over(&stage, (&from, &Arc::new(to())), P, Some(&end), Offset(77)).unwrap();
            assert!(written.offset == Offset(77) && keys == 30, "{written:?}");
            let found = newest_below(&to(), P, &Commit::at(Offset(77))).unwrap().unwrap();
            assert_eq!((found.offset, found.held(), found.keys), (Offset(77), 0, 30));
            let (mut order, mut states) = lane.empty_states();
            order.restore(found.load(&mut states).unwrap());
            let recovered = Recovered { from: Offset(77), states: Some((order, states)), ..Recovered::empty(P, Offset(77)) };
            lane.take_over(recovered);
            lane.advance(&input(new, 77)).unwrap();
            rows(&stage, &lane, &mut parts);
            lane.finish().unwrap();
            rows(&stage, &lane, &mut parts);
            let by_id = |rows: &mut Vec<Value>| rows.sort_by_key(|row| row["event_id"].as_str().unwrap().to_owned());
            by_id(&mut whole);
            by_id(&mut parts);
            assert!(whole == parts, "{lateness} {released}");

            // Not where the files end: somebody has lost the last one.
            let later = Commit { next: end.next.next(), ..end.clone() };
            let error = hand_over(&stage, (&from, &Arc::new(to())), P, Some(&later), Offset(78)).unwrap_err();
            assert!(error.to_string().contains("--resume"), "{error}");
        }
    }

    #[test]
    fn a_partition_without_rows_begins_with_empty_states_that_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let cards = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/cards");
        let sets = [format!("state.snapshots={}", folder.path().display())];
        let stage = Stage::load(pipeline::load(&cards, &sets, Purpose::Run).unwrap()).unwrap();
        let place = || stage.snapshots().unwrap().unwrap();
        let (_, keys) = hand_over(&stage, (&place(), &Arc::new(place())), P, None, Offset(5)).unwrap();
        let found = newest_below(&place(), P, &Commit::at(Offset(5))).unwrap().unwrap();
        assert_eq!((keys, found.offset, found.keys), (0, Offset(5), 0));
    }
}
