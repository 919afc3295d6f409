use std::fs::File;
use std::sync::Arc;

use super::*;
use crate::base::time::EventTime;
use crate::data::held::Held;
use crate::data::schema::{self, FieldKind};
use crate::state::KeyStates;
use crate::state::snapshot::{Boundary, Columns, Cutter, Progress, Writer};

fn columns() -> Columns {
    let fields = vec![schema::Field { name: "amount".to_owned(), kind: FieldKind::Number }];
    Columns { tensors: vec![("h".to_owned(), 2), ("law".to_owned(), 1)], aggregates: 1, fields }
}

/// A folder with two partitions, two snapshots each.
fn stored(folder: &Path) -> Arc<Snapshots> {
    let snapshots = Arc::new(Snapshots::open(&Place::Folder(folder.to_path_buf()), columns(), "f00d").unwrap());
    let writer = Writer::inline(Arc::clone(&snapshots));
    for partition in [Partition(0), Partition(1)] {
        let (mut states, mut cutter) = (KeyStates::new(&[0.0, 0.0, f32::NAN], 1, 0), Cutter::new(partition, None));
        for offset in 1..=2 {
            for i in 0..300 / offset {
                let slot = states.intern(format!("{partition}-card-{i}").as_bytes());
                let meta = &mut states.metas.row_mut(slot)[0];
                (meta.last, meta.events) = (EventTime(1_000_000 * i), meta.events + 1);
                states.hidden.row_mut(slot)[0] = offset as f32;
            }
            let mut events = Events { columns: vec![Column::Number(vec![7.5])], ..Events::default() };
            events.partitions.push(partition);
            events.offsets.push(Offset(offset - 1));
            events.times.push(EventTime(9_000_000));
            events.recorded.push(None);
            events.keys.push(format!("{partition}-card-1").as_bytes());
            events.ids.push(b"e-1");
            events.flags.push(Default::default());
            let boundary = Boundary { offset: Offset(offset), note: String::new(), held: Held { events, ..Held::default() } };
            assert!(cutter.begin(&mut states, boundary));
            let settled = cutter.settle(&mut states, &writer, Duration::from_secs(9));
            assert!(matches!(settled, Progress::Done(_)), "{settled:?}");
        }
    }
    snapshots
}

#[test]
fn the_list_says_of_each_snapshot_whether_it_can_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let snapshots = stored(folder.path());
    let full = folder.path().join("partition-1/00000000000000000001-full.arrow");
    let mut bytes = std::fs::read(&full).unwrap();
    bytes[777] ^= 1;
    std::fs::write(&full, bytes).unwrap();
    let text = table(&snapshots.list().unwrap(), EventTime(clock::now().0 + 125_000_000));
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["partition", "offset", "age", "kind", "rows", "bytes", "fingerprint", "usable"]);
    let usable = |partition: &str| lines.iter().filter(|line| line[0] == partition && line.contains(&"yes")).count();
    assert_eq!((usable("0"), lines.len()), (2, 5), "{text}");
    assert_eq!(usable("1"), 0, "a delta on a damaged base cannot be used either: {text}");
    assert!(text.contains("2m 5s") && text.contains("its check sum is"), "{text}");
    assert!(table(&[], EventTime(0)).ends_with("no snapshots\n"));
}

#[test]
fn a_key_is_shown_with_its_tensors_law_and_held_events() {
    let folder = tempfile::tempdir().unwrap();
    let snapshots = stored(folder.path());
    let found = snapshots.newest(Partition(1), Offset(i64::MAX)).unwrap().unwrap();
    let state = found.key(b"1-card-1").unwrap().unwrap();
    let json = shown("1-card-1", Partition(1), &found, &state, &["amount"]);
    let expected = json!({
        "key": "1-card-1", "partition": 1, "offset": 2, "last_event": "1970-01-01T00:00:01.000000Z", "n_events": 2,
        "tensors": { "h": [2.0, 0.0], "law": [null] }, "aggregates": [0.0], "overdue": [],
        "held": [{ "event_time": "1970-01-01T00:00:09.000000Z", "offset": 1, "event_id": "e-1", "fields": { "amount": 7.5 } }],
    });
    assert_eq!(json, expected);
}

#[test]
fn a_state_is_exported_as_one_table_a_partition_with_every_key_once() {
    let folder = tempfile::tempdir().unwrap();
    let snapshots = stored(&folder.path().join("snapshots"));
    let at = |name: &str| folder.path().join(name);
    export(&snapshots, &at("out"), None).unwrap();
    for name in ["out/partition-0.arrow", "out/partition-1.arrow"] {
        let reader = FileReader::try_new(File::open(at(name)).unwrap(), None).unwrap();
        assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 300);
    }
    let error = export(&snapshots, &at("one.parquet"), None).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    export(&snapshots, &at("one.parquet"), Some(Partition(1))).unwrap();
    let builder = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(File::open(at("one.parquet")).unwrap()).unwrap();
    let names: Vec<String> = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["key", "last_event", "events", "h", "law", "aggregates", "overdue", "held"]);
    assert_eq!(builder.build().unwrap().map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 300);
    assert_eq!(export(&snapshots, &at("none"), Some(Partition(9))).unwrap_err().exit_code(), 1);
}

#[test]
fn a_damaged_partition_fails_an_export_after_the_others_were_written_and_is_named_where_a_key_is_not_found() {
    let folder = tempfile::tempdir().unwrap();
    let snapshots = stored(&folder.path().join("snapshots"));
    let full = folder.path().join("snapshots/partition-1/00000000000000000001-full.arrow");
    std::fs::write(&full, b"torn").unwrap();
    let to = folder.path().join("out");
    let error = export(&snapshots, &to, None).unwrap_err();
    assert_eq!(error.exit_code(), 1);
    assert!(error.to_string().contains("no usable snapshot of partition 1"), "{error}");
    assert!(to.join("partition-0.arrow").exists() && !to.join("partition-1.arrow").exists());
    let one = export(&snapshots, &folder.path().join("one.arrow"), None).unwrap_err();
    assert_eq!(one.exit_code(), 2, "one file for two partitions, of which only one can be read, would look whole: {one}");
    let plan = pipeline::load(Path::new("tests/data/broken/good.toml"), &[], Purpose::Run).unwrap();
    let error = get(&plan, &snapshots, "1-card-1").unwrap_err().to_string();
    assert!(error.contains("partition 1 has none that can"), "{error}");
    get(&plan, &snapshots, "0-card-1").unwrap();
}
