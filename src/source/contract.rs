//! What every feed must hold to, as one suite that is run over each kind of source.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Feed, Polled};
use crate::base::number::i64_of_count;
use crate::base::offset::{Offset, Partition};
use crate::data::commit::{Commit, Commits};
use crate::data::input::Input;

/// What came out of a feed: position and bytes (or, for rows of a table, their text).
pub type Seen = Vec<(Partition, Offset, Option<Vec<u8>>)>;

fn positions(input: &Input) -> Vec<(Partition, Offset)> {
    let records = &input.records;
    let mut found: Vec<_> = records.partitions.iter().copied().zip(records.offsets.iter().copied()).collect();
    assert_eq!((records.recorded.len(), records.keys.len(), records.payloads.len()), (found.len(), found.len(), found.len()));
    for table in &input.tables {
        found.extend((0..table.rows.num_rows()).map(|row| (table.partition, Offset(table.first.0 + i64_of_count(row)))));
    }
    found
}

fn contents(input: &Input) -> Vec<Option<Vec<u8>>> {
    let mut found: Vec<_> = input.records.payloads.iter().map(|payload| payload.map(<[u8]>::to_vec)).collect();
    for table in &input.tables {
        found.extend((0..table.rows.num_rows()).map(|row| Some(format!("{:?}", table.rows.slice(row, 1)).into_bytes())));
    }
    found
}

/// Reads a feed to its end with polls of at most `max` and checks everything a lane relies on.
pub fn read(feed: &mut dyn Feed, max: usize) -> Seen {
    let (mut input, mut next, mut seen) = (Input::default(), BTreeMap::<Partition, Offset>::new(), Vec::new());
    let mut committed = Commits::new();
    loop {
        input.clear();
        match feed.poll(max, Duration::from_millis(50), &mut input).unwrap() {
            Polled::Assigned(assignment) => {
                let partition = assignment.partition;
                assert!(input.is_empty(), "an assignment brings no records");
                assert!(next.insert(partition, Offset(i64::MIN)).is_none(), "a partition is assigned once");
                let start = assignment.start(None, None).unwrap();
                feed.start(partition, start.read_from, start.live_from).unwrap();
            }
            Polled::Quiet(partition, _) => assert!(next.contains_key(&partition), "only what was assigned is quiet"),
            Polled::Records => {
                assert!(!input.is_empty() && input.len() <= max, "{} records, at most {max} were asked for", input.len());
                assert!(input.records.is_empty() || input.tables.is_empty(), "a poll fills either part");
                for (partition, offset) in positions(&input) {
                    let expected = next.get_mut(&partition).expect("records come after the assignment of their partition");
                    assert!(offset >= *expected, "offsets ascend");
                    *expected = offset.next();
                    committed.insert(partition, Commit::at(offset.next()));
                }
                seen.extend(
                    positions(&input).into_iter().zip(contents(&input)).map(|((partition, offset), bytes)| (partition, offset, bytes)),
                );
                feed.commit(&committed).expect("what was handed out can be committed");
            }
            Polled::Idle => assert!(input.is_empty(), "an idle poll brings nothing"),
            Polled::Revoked(partition) => {
                assert!(next.remove(&partition).is_some(), "only what is assigned is revoked");
                feed.commit(&committed).expect("a revoked partition is committed before it is let go");
                feed.released(partition);
                committed.remove(partition);
            }
            Polled::Ended => break,
        }
    }
    assert!(input.is_empty(), "the end brings no records");
    for _ in 0..3 {
        assert_eq!(feed.poll(max, Duration::ZERO, &mut input).unwrap(), Polled::Ended, "the end stays the end");
    }
    assert!(matches!(feed.backlog(), None | Some(0)), "nothing waits behind the end");
    feed.close().unwrap();
    seen
}

/// Runs the suite: `open` gives a fresh feed over the same records each time; `expected` is how many there are.
pub fn check(mut open: impl FnMut() -> Box<dyn Feed>, expected: usize) {
    let whole = read(&mut *open(), 1 << 16);
    assert_eq!(whole.len(), expected);
    for max in [1, 7, 1000] {
        assert!(read(&mut *open(), max) == whole, "the size of a poll changes no record (max {max})");
    }
}

mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::path::PathBuf;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};
    use arrow::record_batch::RecordBatch;
    use parquet::arrow::ArrowWriter;

    use super::super::scripted::{Record, Scripted, Step};
    use super::super::{FileSettings, GenerateSettings, Opening, Settings, Stream, open};
    use super::*;

    fn first(settings: &Settings) -> Box<dyn Feed> {
        open(settings, &Opening { lanes: 1, ..Opening::default() }).unwrap().remove(0)
    }

    #[test]
    fn generated_streams_hold_to_the_contract() {
        for stream in Stream::ALL {
            let settings = Settings::Generate(GenerateSettings { stream, events: 1234, keys: 20, seed: 1 });
            check(|| first(&settings), 1234);
        }
    }

    #[test]
    fn ndjson_files_hold_to_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = ["a.ndjson", "b.json"].map(|name| folder.path().join(name)).into();
        for path in &paths {
            let mut file = File::create(path).unwrap();
            (0..600).for_each(|i| writeln!(file, "{{\"i\":{i}}}\n").unwrap());
        }
        check(|| first(&Settings::File(FileSettings { paths: paths.iter().cloned().map(Into::into).collect() })), 1200);
    }

    #[test]
    fn parquet_files_hold_to_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..9000));
        let batch = RecordBatch::try_from_iter([("n", column)]).unwrap();
        let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        check(|| first(&Settings::File(FileSettings { paths: vec![path.clone().into()] })), 9000);
    }

    #[test]
    fn scripts_hold_to_the_contract() {
        let record = |partition, offset| Record {
            partition: Partition(partition),
            offset: Offset(offset),
            payload: Some(format!("{partition}/{offset}").into_bytes()),
            ..Record::default()
        };
        let steps = vec![
            Step::Assign(Partition(0), Offset(0)),
            Step::Idle,
            Step::Records((0..20).map(|i| record(0, 2 * i)).collect()),
            Step::Assign(Partition(3), Offset(5)),
            Step::Records((5..15).flat_map(|i| [record(0, 100 + i), record(3, i)]).collect()),
            Step::Revoke(Partition(0)),
            Step::Records((15..20).map(|i| record(3, i)).collect()),
            Step::End,
        ];
        check(|| Box::new(Scripted::new(steps.clone()).0), 45);
    }

    #[test]
    fn lanes_beyond_the_first_have_nothing_to_do() {
        let settings = Settings::Generate(GenerateSettings { stream: Stream::Cards, events: 10, keys: 2, seed: 1 });
        let mut feeds = open(&settings, &Opening { lanes: 3, ..Opening::default() }).unwrap();
        let counts: Vec<_> = feeds.iter_mut().map(|feed| read(&mut **feed, 100).len()).collect();
        assert_eq!(counts, [10, 0, 0]);
    }
}
