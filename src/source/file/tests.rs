use std::fs;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;

use super::*;

fn parquet(path: &Path, rows: std::ops::Range<i64>) {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.clone()));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(rows.map(|i| format!("k{i}"))));
    let batch = RecordBatch::try_from_iter([("n", numbers), ("k", texts)]).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn open(paths: Vec<PathBuf>, fields: &[&str]) -> Result<FileFeed> {
    let fields = fields.iter().map(|field| (*field).to_owned()).collect();
    let paths = paths.into_iter().map(Location::from).collect();
    FileFeed::open(&FileSettings { paths }, &Opening { lanes: 1, fields, ..Opening::default() })
}

fn refused(result: Result<FileFeed>) -> String {
    result.err().unwrap().to_string()
}

fn poll(feed: &mut FileFeed, max: usize) -> (Polled, Input) {
    let mut input = Input::default();
    let polled = feed.poll(max, Duration::ZERO, &mut input).unwrap();
    (polled, input)
}

#[test]
fn rows_are_numbered_over_all_files_and_read_by_column() {
    let folder = tempfile::tempdir().unwrap();
    let paths = [("a.parquet", 0..10), ("empty.parquet", 0..0), ("b.pq", 10..13)].map(|(name, rows)| {
        let path = folder.path().join(name);
        parquet(&path, rows);
        path
    });
    let mut feed = open(paths.to_vec(), &["n", "absent"]).unwrap();
    assert_eq!(feed.backlog(), Some(13));
    let first = paths[0].display().to_string();
    assert_eq!(poll(&mut feed, 4).0, Polled::Assigned(Box::new(super::super::Assignment::whole(Partition(0), &first))));
    let mut sizes = Vec::new();
    loop {
        let (polled, input) = poll(&mut feed, 4);
        if polled == Polled::Ended {
            break;
        }
        let table = &input.tables[0];
        assert_eq!(table.rows.schema().fields().len(), 1);
        let numbers = table.rows.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
        for (i, number) in numbers.values().iter().enumerate() {
            assert_eq!(*number, table.first.0 + i as i64);
        }
        sizes.push(numbers.len());
    }
    assert_eq!(sizes, [4, 4, 2, 3]);
    assert_eq!(feed.backlog(), Some(0));
}

#[test]
fn a_file_without_any_of_the_fields_still_gives_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    parquet(&path, 0..5);
    let mut feed = open(vec![path], &["absent"]).unwrap();
    poll(&mut feed, 10);
    assert_eq!(poll(&mut feed, 10).1.len(), 5);
}

#[test]
fn lines_are_numbered_over_all_files_and_blank_ones_are_counted_but_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a.ndjson"), folder.path().join("b.jsonl"));
    fs::write(&a, "{\"a\":1}\n\n  \r\n{\"a\":2}").unwrap();
    fs::write(&b, "\nnot json\n").unwrap();
    let mut feed = open(vec![a, b], &[]).unwrap();
    assert_eq!(feed.backlog(), None);
    poll(&mut feed, 10);
    let mut found = Vec::new();
    loop {
        let (polled, input) = poll(&mut feed, 10);
        if polled == Polled::Ended {
            break;
        }
        for (offset, payload) in input.records.offsets.iter().zip(input.records.payloads.iter()) {
            found.push((offset.0, String::from_utf8(payload.unwrap().to_vec()).unwrap()));
        }
        assert!(input.records.recorded.iter().all(Option::is_none));
    }
    let expected = [(0, "{\"a\":1}"), (3, "{\"a\":2}"), (5, "not json")].map(|(offset, text)| (offset, text.to_owned()));
    assert_eq!(found, expected);
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("fake.parquet"), "{}").unwrap();
    fs::write(path("a.csv"), "a\n1\n").unwrap();
    fs::create_dir(path("folder.parquet")).unwrap();
    for name in ["missing.ndjson", "missing.parquet", "fake.parquet", "a.csv", "folder.parquet"] {
        let text = refused(open(vec![path(name)], &[]));
        assert!(text.contains(name), "{text}");
    }
    assert!(refused(open(vec![], &[])).contains("no files"));
}
