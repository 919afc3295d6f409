use std::path::Path;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::super::local::Local;
use super::*;
use crate::base::offset::Offset;
use crate::base::time::EventTime;

const MICROS: i64 = 86_400_000_000;

/// Spreads batches of numbers over days, and gives back each file's day, part and numbers.
fn spread(folder: &Path, batches: impl Iterator<Item = (i64, std::ops::Range<i64>)>) -> Vec<(Day, u32, Vec<i64>)> {
    let form = Form::new(Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)])));
    let target = Local::open(folder).unwrap();
    let bench = Bench { target: &target, form: &form, partition: Partition(0), name: Name::first(Offset(0)), lane: 0 };
    let mut spread = Spread::default();
    for (day, numbers) in batches {
        let batch = RecordBatch::try_new(form.schema.clone(), vec![Arc::new(Int64Array::from_iter_values(numbers))]).unwrap();
        spread.write(&bench, Day::of(EventTime(day * MICROS)), batch).unwrap();
        assert!(spread.open.len() <= OPEN && spread.waiting_rows < WAITING);
    }
    assert!(spread.bytes() > 0 && spread.memory() > 0);
    let pieces = spread.end(&bench).unwrap();
    let read = |piece: &Piece| {
        let path = folder.join("partition-0").join(piece.staged());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), piece.bytes);
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
        let numbers: Vec<i64> = reader.flat_map(|batch| batch.unwrap().column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
        assert_eq!(numbers.len() as u64, piece.rows);
        (piece.day, piece.slice.part, numbers)
    };
    let found = pieces.iter().map(read).collect();
    assert_eq!(std::fs::read_dir(folder.join("partition-0")).unwrap().count(), pieces.len(), "no draft is left");
    found
}

#[test]
fn dates_in_order_get_one_file_each_however_many_there_are() {
    for width in [400, 3_000, 40_000] {
        let folder = tempfile::tempdir().unwrap();
        // Two batches a day; the second comes beside the first of the next day.
        let days = 200_000 / width;
        let found = spread(
            folder.path(),
            (0..days)
                .flat_map(|day| [(day, 2 * day * width), (day - 1, (2 * day - 1) * width)])
                .filter_map(|(day, from)| (day >= 0).then_some((day, from..from + width))),
        );
        assert_eq!(found.len() as i64, days, "{width}");
        for (day, (of, part, numbers)) in found.into_iter().enumerate() {
            assert_eq!((of, part), (Day::of(EventTime(day as i64 * MICROS)), 0));
            let first = 2 * day as i64 * width;
            let last = if day as i64 == days - 1 { first + width } else { first + 2 * width };
            assert!(numbers.into_iter().eq(first..last), "{width}: the rows of a date in their order");
        }
    }
}

#[test]
fn dates_in_no_order_get_few_files_and_each_row_is_in_one() {
    let folder = tempfile::tempdir().unwrap();
    // Key after key, each over all dates.
    let (days, rounds, width) = (50, 60, 100);
    let found = spread(folder.path(), (0..days * rounds).map(|i| (i % days, i * width..(i + 1) * width)));
    let waits = (days * rounds * width) as usize / WAITING + 2;
    assert!(found.len() <= days as usize * waits, "{} files", found.len());
    let mut last = None;
    let mut all = Vec::new();
    for (day, part, numbers) in found {
        let next = (day, part, numbers[0]);
        assert!(
            last.is_none_or(|last: (Day, u32, i64)| last < next && (last.0 != day || last.2 < next.2)),
            "files sort as their rows came"
        );
        last = Some(next);
        assert!(numbers.iter().all(|n| Day::of(EventTime(n / width % days * MICROS)) == day));
        all.extend(numbers);
    }
    all.sort_unstable();
    assert!(all.into_iter().eq(0..days * rounds * width));
}

#[test]
fn the_same_rows_give_the_same_files_and_a_dropped_spread_leaves_no_draft() {
    let hashes = |folder: &Path| {
        spread(folder, (0..20).map(|day| (day, day * 10..day * 10 + 10)));
        let entries = std::fs::read_dir(folder.join("partition-0")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert_eq!(hashes(a.path()), hashes(b.path()), "the names hold the hash of the content");
    // Done again where it is already: nothing more.
    assert_eq!(hashes(a.path()), hashes(b.path()));
}
