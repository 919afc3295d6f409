use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::file::properties::WriterProperties;

use super::*;
use crate::link::objects::{Folder, MemoryDisk};

/// A file of several row groups with a wide column.
fn table(rows: i64) -> Vec<u8> {
    let wide: ArrayRef = Arc::new(StringArray::from_iter_values((0..rows).map(|i| format!("{i:0200}"))));
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows).map(|i| i * 7919 % 100_003)));
    let batch = RecordBatch::try_from_iter([("wide", wide), ("n", numbers)]).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(3000)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

fn numbers(chunks: &Chunks) -> std::result::Result<Vec<i64>, String> {
    let builder = match chunks.metadata() {
        Some(metadata) => {
            let metadata = ArrowReaderMetadata::try_new(metadata, ArrowReaderOptions::new()).unwrap();
            ParquetRecordBatchReaderBuilder::new_with_metadata(chunks.clone(), metadata)
        }
        None => ParquetRecordBatchReaderBuilder::try_new(chunks.clone()).map_err(|e| e.to_string())?,
    };
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["n"]);
    let mut found = Vec::new();
    for batch in builder.with_projection(mask).with_batch_size(1000).build().map_err(|e| e.to_string())? {
        found.extend(batch.map_err(|e| e.to_string())?.column(0).as_primitive::<Int64Type>().values().iter().copied());
    }
    Ok(found)
}

fn only(store: Arc<dyn Objects>) -> Location {
    let entry = store.list("").unwrap().remove(0);
    Location::Object(store, entry)
}

#[test]
fn a_file_is_read_the_same_wherever_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = table(10_000);
    std::fs::write(folder.path().join("a.parquet"), &bytes).unwrap();
    let disk = MemoryDisk::new();
    disk.put("a.parquet", &bytes).unwrap();
    let expected: Vec<i64> = (0..10_000).map(|i| i * 7919 % 100_003).collect();
    for location in
        [Location::from(folder.path().join("a.parquet")), only(Arc::new(Folder::open(folder.path()).unwrap())), only(Arc::new(disk))]
    {
        assert_eq!(location.bytes().unwrap(), bytes.len() as u64);
        assert_eq!(numbers(&location.chunks().unwrap()).unwrap(), expected);
        let mut whole = Vec::new();
        location.read().unwrap().read_to_end(&mut whole).unwrap();
        assert_eq!(whole, bytes);
    }
}

#[test]
fn what_is_no_file_is_told() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Location::from(folder.path().to_owned()).bytes().unwrap_err().to_string().contains("a folder, not a file"));
    assert!(Location::from(folder.path().join("none")).read().is_err());
    let disk = MemoryDisk::new();
    disk.put("a.parquet", b"not Parquet, but long enough").unwrap();
    let error = only(Arc::new(disk)).chunks().err().unwrap();
    assert!(error.kind == Kind::Data && error.to_string().contains("a.parquet"), "{error}");
}

#[cfg(feature = "cloud")]
mod bucket {
    use super::*;
    use crate::link::objects::cloud::of_double;
    use crate::link::objects::double::{Double, Fault, KEY};

    fn location(s3: &Double) -> Location {
        only(Arc::new(of_double(s3, "bucket", "", KEY)))
    }

    fn text(location: &Location) -> String {
        let mut text = String::new();
        location.read().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn of_an_object_only_the_columns_that_are_read_are_fetched_each_once() {
        let s3 = Double::start("bucket");
        let bytes = table(10_000);
        s3.put("a.parquet", &bytes);
        let location = location(&s3);
        s3.fail("GET", Fault::Busy);
        let before = s3.requests().len();
        assert_eq!(numbers(&location.chunks().unwrap()).unwrap().len(), 10_000);
        let fetched: Vec<String> = s3.requests()[before..].iter().filter_map(|(.., range)| range.clone()).collect();
        // The footer, and of each of the four row groups one column.
        assert_eq!(fetched.len(), 5, "{fetched:?}");
        let range = |text: &String| text.strip_prefix("bytes=").and_then(|text| text.split_once('-')).map(|(a, b)| (a.parse(), b.parse()));
        let bytes_of = |text: &String| match range(text) {
            Some((Ok::<usize, _>(from), Ok::<usize, _>(to))) => to - from + 1,
            _ => 0,
        };
        assert!(fetched.iter().map(bytes_of).sum::<usize>() < bytes.len() / 3, "{fetched:?} of {}", bytes.len());
    }

    #[test]
    fn an_object_that_is_replaced_while_it_is_read_is_an_error() {
        let s3 = Double::start("bucket");
        s3.put("a.parquet", &table(10_000));
        let tables = location(&s3);
        s3.put("a.parquet", &table(10_000));
        let chunks = tables.chunks().unwrap();
        assert!(numbers(&chunks).is_err());
        let error = chunks.fault().unwrap();
        assert!(error.kind == Kind::Retry && error.to_string().contains("replaced since it was listed"), "{error}");
        s3.remove("a.parquet");
        s3.put("b.ndjson", &b"{}\n".repeat(5_000_000));
        let lines = location(&s3);
        assert_eq!(text(&lines), "{}\n".repeat(5_000_000), "in more than one window");
        let mut reading = lines.read().unwrap();
        let mut some = [0; 10];
        reading.read_exact(&mut some).unwrap();
        s3.put("b.ndjson", &b"[]\n".repeat(5_000_000));
        let error = reading.read_to_end(&mut Vec::new()).unwrap_err();
        assert!(lines.fault(error).to_string().contains("replaced"));
    }
}
