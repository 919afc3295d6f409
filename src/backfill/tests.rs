use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use parquet::arrow::ArrowWriter;
use proptest::prelude::*;

use super::merge::{Merge, Place, Run};
use super::survey::survey;
use super::*;
use crate::base::time::TimeUnit;
use crate::data::schema::TimeFormat;

fn schema() -> EventSchema {
    EventSchema {
        key: "k".into(),
        time: "t".into(),
        time_format: TimeFormat::Unit(TimeUnit::Second),
        id: None,
        fields: Vec::new(),
        mark: None,
        label: None,
    }
}

fn settings(paths: Vec<PathBuf>, shards: u32, memory: u64, scratch: &std::path::Path) -> Settings {
    Settings {
        paths: paths.into_iter().map(Into::into).collect(),
        schema: schema(),
        fields: vec!["k".into(), "t".into(), "n".into()],
        query: None,
        positions: None,
        ties: None,
        until: None,
        shards,
        mine: (0, 1),
        epoch_rows: 1000,
        folders: Default::default(),
        memory,
        scratch: scratch.to_owned(),
    }
}

/// Rows (key, time, number) in one Parquet file.
fn write(path: &std::path::Path, rows: &[(String, Option<i64>, i64)]) {
    let keys: ArrayRef = Arc::new(rows.iter().map(|row| Some(row.0.clone())).collect::<StringArray>());
    let times: ArrayRef = Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>());
    let numbers: ArrayRef = Arc::new(rows.iter().map(|row| Some(row.2)).collect::<Int64Array>());
    let batch = RecordBatch::try_from_iter_with_nullable([("k", keys, true), ("t", times, true), ("n", numbers, true)]).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// The numbers in the order in which they are handed out, and the shards.
fn merged(settings: &Settings) -> (Vec<i64>, Vec<u32>) {
    let survey = survey(settings, &mut |_| {}).unwrap();
    let mut runs = Vec::new();
    for (i, file) in survey.files.iter().enumerate() {
        let Some((first, _)) = file.span else { continue };
        if file.sorted {
            runs.push(Run { order: (i, 0), first, place: Place::File(Box::new(file.clone())) });
        } else {
            let parts = sort::sort(file, &survey.reading, settings.memory, &settings.scratch, &i.to_string()).unwrap();
            runs.extend(parts.into_iter().enumerate().map(|(j, part)| Run {
                order: (i, j),
                first: part.first,
                place: Place::Part(part.path),
            }));
        }
    }
    let mut merge = Merge::new(survey.reading.clone(), runs);
    let (mut numbers, mut shards) = (Vec::new(), Vec::new());
    let mut last = merge::BLOCK;
    while let Some(block) = merge.block().unwrap() {
        assert_eq!(last, merge::BLOCK, "only the last block may be short");
        last = block.len();
        numbers.extend(block.rows.column_by_name("n").unwrap().as_primitive::<Int64Type>().values().iter().copied());
        shards.extend(block.shards.iter().copied());
    }
    (numbers, shards)
}

/// The order by its definition.
fn reference(files: &[Vec<(String, Option<i64>, i64)>]) -> Vec<i64> {
    let mut all = Vec::new();
    for (file, rows) in files.iter().enumerate() {
        let mut time = i64::MIN;
        for (row, (_, own, number)) in rows.iter().enumerate() {
            time = own.unwrap_or(time);
            all.push((time, file, row, *number));
        }
    }
    all.sort_unstable();
    all.into_iter().map(|(.., number)| number).collect()
}

fn check(files: &[Vec<(String, Option<i64>, i64)>], shards: u32, memory: u64) {
    let folder = tempfile::tempdir().unwrap();
    let paths: Vec<PathBuf> = (0..files.len()).map(|i| folder.path().join(format!("{i}.parquet"))).collect();
    paths.iter().zip(files).for_each(|(path, rows)| write(path, rows));
    let (numbers, found) = merged(&settings(paths, shards, memory, folder.path()));
    assert_eq!(numbers, reference(files));
    let key_of: std::collections::BTreeMap<i64, &str> = files.iter().flatten().map(|(key, _, number)| (*number, key.as_str())).collect();
    for (number, shard) in numbers.iter().zip(found) {
        assert_eq!(shard, murmur2::partition(key_of[number].as_bytes(), shards));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn rows_come_in_the_order_of_time_file_and_row(
        lengths in prop::collection::vec(0_usize..60, 1..5), times in prop::collection::vec(prop::option::weighted(0.95, 0_i64..40), 300),
        sorted in prop::collection::vec(any::<bool>(), 5), shards in 1_u32..5, memory in prop_oneof![Just(1_u64), Just(1 << 30)],
    ) {
        let mut number = 0;
        let mut times = times.into_iter().cycle();
        let files: Vec<Vec<(String, Option<i64>, i64)>> = lengths.iter().zip(sorted).map(|(len, sorted)| {
            let mut own: Vec<Option<i64>> = times.by_ref().take(*len).collect();
            if sorted {
                own.sort_unstable();
            }
            own.into_iter().map(|time| { number += 1; (format!("key{}", number % 7), time, number) }).collect()
        }).collect();
        check(&files, shards, memory);
    }
}

#[test]
fn many_blocks_of_sorted_and_unsorted_files_are_merged() {
    let mut number = 0;
    let mut file = |rows: i64, time: &dyn Fn(i64) -> i64| -> Vec<(String, Option<i64>, i64)> {
        (0..rows)
            .map(|i| {
                number += 1;
                (format!("key{}", number % 101), Some(time(i)), number)
            })
            .collect()
    };
    // Two overlap, one begins later, one is in no order, one is all of one moment.
    let files = vec![
        file(30_000, &|i| i / 3),
        file(20_000, &|i| 2000 + i / 2),
        file(9_000, &|i| 50_000 + i),
        file(25_000, &|i| i * 7919 % 15_000),
        file(10_000, &|_| 5_000),
    ];
    check(&files, 3, 1);
    check(&files, 1, 1 << 30);
}

#[test]
fn files_of_two_kinds_or_types_are_refused_with_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write(&path("a.parquet"), &[("x".into(), Some(1), 1)]);
    std::fs::write(path("b.ndjson"), "{\"k\":\"x\",\"t\":1}\n").unwrap();
    let refusal = |paths: &[&str]| {
        survey(&settings(paths.iter().map(|name| path(name)).collect(), 1, 1, folder.path()), &mut |_| {}).unwrap_err().to_string()
    };
    assert!(refusal(&["a.parquet", "b.ndjson"]).contains("mixed"));
    assert!(refusal(&[]).contains("no files"));
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["1"]));
    let batch = RecordBatch::try_from_iter([("k", texts.clone()), ("t", texts.clone()), ("n", texts)]).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path("c.parquet")).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let text = refusal(&["a.parquet", "c.parquet"]);
    assert!(text.contains("column `t`") || text.contains("column `n`"), "{text}");
}

#[test]
fn compressed_lines_are_read_and_put_in_order() {
    use std::io::Write;
    let folder = tempfile::tempdir().unwrap();
    let line = |t: i64| format!("{{\"k\":\"x{t}\",\"t\":{t}}}\n");
    let (plain, gz, zst) = (folder.path().join("a.ndjson"), folder.path().join("b.jsonl.gz"), folder.path().join("c.json.zst"));
    std::fs::write(&plain, [line(1), "\n".into(), line(7)].concat()).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(std::fs::File::create(&gz).unwrap(), flate2::Compression::fast());
    encoder.write_all([line(6), line(2), "broken\n".into()].concat().as_bytes()).unwrap();
    encoder.finish().unwrap();
    std::fs::write(&zst, zstd::encode_all([line(3), line(4)].concat().as_bytes(), 1).unwrap()).unwrap();
    let settings = settings(vec![plain, gz, zst], 1, 1, folder.path());
    let survey = survey(&settings, &mut |_| {}).unwrap();
    assert_eq!(survey.files.iter().map(|file| (file.rows, file.sorted)).collect::<Vec<_>>(), [(2, true), (3, false), (2, true)]);
    let feeds = feed::open(&settings, &survey, 1).unwrap();
    let mut feed = feeds.into_iter().next().unwrap();
    let (mut input, mut lines) = (crate::data::input::Input::default(), Vec::new());
    loop {
        match feed.poll(2, std::time::Duration::from_millis(50), &mut input).unwrap() {
            crate::source::Polled::Records => {
                lines.extend(input.records.payloads.iter().flatten().map(|line| String::from_utf8_lossy(line).into_owned()));
            }
            crate::source::Polled::Ended => break,
            _ => {}
        }
    }
    // What is broken follows the row before it.
    let expected = [line(1), line(2), "broken\n".into(), line(3), line(4), line(6), line(7)];
    assert_eq!(lines, expected.iter().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn with_a_column_for_ties_shuffled_files_come_in_the_order_of_time_and_number(
        times in prop::collection::vec(0_i64..12, 1..200), seed in any::<u64>(), memory in prop_oneof![Just(1_u64), Just(1 << 30)],
        // Neighbours beyond 2^53 are one and the same as floating-point numbers.
        base in prop_oneof![Just(-3_i64), Just(1 << 60), Just(i64::MIN), Just(1_764_000_000_000_000_000)],
    ) {
        use rand::SeedableRng;
        use rand::seq::SliceRandom;
        let mut rows: Vec<(String, Option<i64>, i64)> =
            times.iter().zip(base..).map(|(time, number)| (format!("k{}", number.rem_euclid(7)), Some(*time), number)).collect();
        let mut expected: Vec<(i64, i64)> = rows.iter().map(|(_, time, number)| (time.unwrap(), *number)).collect();
        expected.sort_unstable();
        rows.shuffle(&mut rand_chacha::ChaCha8Rng::seed_from_u64(seed));
        let folder = tempfile::tempdir().unwrap();
        let half = rows.len() / 2;
        let paths = vec![folder.path().join("a.parquet"), folder.path().join("b.parquet")];
        write(&paths[0], &rows[..half]);
        write(&paths[1], &rows[half..]);
        let settings = Settings { ties: Some("n".into()), ..settings(paths, 3, memory, folder.path()) };
        prop_assert_eq!(merged(&settings).0, expected.into_iter().map(|(_, number)| number).collect::<Vec<_>>());
    }
}

#[test]
fn lines_of_one_time_come_in_the_order_of_their_integers_and_a_fraction_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ndjson");
    let numbers = [1_i64 << 60, (1 << 60) + 2, (1 << 60) + 1, -5, 7];
    let line = |number: &str| format!("{{\"k\":\"a\",\"t\":1,\"n\":{number}}}\n");
    std::fs::write(&path, numbers.iter().map(|n| line(&n.to_string())).collect::<String>() + &line("8.0") + &line("null")).unwrap();
    let settings = Settings { ties: Some("n".into()), ..settings(vec![path.clone()], 1, 1 << 20, folder.path()) };
    let survey_of = |settings: &Settings| survey(settings, &mut |_| {});
    let survey = survey_of(&settings).unwrap();
    let mut feed = feed::open(&settings, &survey, 1).unwrap().remove(0);
    let mut input = crate::data::input::Input::default();
    while feed.poll(1000, std::time::Duration::from_secs(60), &mut input).unwrap() != crate::source::Polled::Ended {}
    let lines: Vec<String> = input.records.payloads.iter().flatten().map(|line| String::from_utf8(line.to_vec()).unwrap()).collect();
    let expected = ["-5", "7", "8.0", "1152921504606846976", "1152921504606846977", "1152921504606846978", "null"];
    assert_eq!(lines, expected.map(|number| line(number).trim_end().to_owned()));
    std::fs::write(&path, line("1.5")).unwrap();
    let error = survey_of(&settings).unwrap_err().to_string();
    assert!(error.contains("`1.5` is no integer"), "{error}");
}

#[test]
fn a_file_that_was_rewritten_at_its_length_is_told_from_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let checksum =
        |path: &PathBuf| survey(&settings(vec![path.clone()], 2, 1 << 20, folder.path()), &mut |_| {}).unwrap().files[0].checksum;
    let lines = folder.path().join("a.ndjson");
    let with = |mark: &str| {
        std::fs::write(&lines, format!("{{\"k\":\"a\",\"t\":1,\"m\":\"{mark}\"}}\n")).unwrap();
        checksum(&lines)
    };
    assert_eq!(with("pos"), with("pos"));
    assert_ne!(with("pos"), with("web"));
    let table = folder.path().join("a.parquet");
    let with = |key: &str, number: i64| {
        write(&table, &[("a".into(), Some(1), 1), (key.into(), Some(1), number), ("z".into(), Some(1), 9)]);
        (std::fs::metadata(&table).unwrap().len(), checksum(&table))
    };
    let (bytes, sum) = with("b", 5);
    assert_eq!((bytes, sum), with("b", 5));
    let (bytes_of_other_key, sum_of_other_key) = with("c", 5);
    assert_eq!(bytes, bytes_of_other_key);
    assert_ne!(sum, sum_of_other_key, "a key within the bounds of the column");
    let (bytes_of_other_number, sum_of_other_number) = with("b", 10);
    assert_eq!(bytes, bytes_of_other_number);
    assert_ne!(sum, sum_of_other_number, "the bounds of a column are in the footer");
}

#[test]
fn a_column_for_ties_that_is_not_there_or_holds_texts_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    write(&path, &[("a".into(), Some(1), 1)]);
    for (name, says) in [("m", "no file has such a column"), ("k", "the column is Utf8")] {
        let settings = Settings { ties: Some(name.into()), ..settings(vec![path.clone()], 1, 1 << 20, folder.path()) };
        let error = survey(&settings, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn columns_of_positions_that_no_file_has_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    write(&path, &[("a".into(), Some(1), 1)]);
    let positions = Some(Positions { partition: "n".into(), offset: "b".into() });
    let settings = Settings { positions, ..settings(vec![path], 1, 1 << 20, folder.path()) };
    let error = survey(&settings, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("--positions b: no file has such a column"), "{error}");
}

#[test]
fn only_rows_before_an_end_are_handed_out_and_the_others_are_counted() {
    use std::time::Duration;

    use crate::base::time::EventTime;
    use crate::data::input::Input;
    use crate::source::Polled;

    let folder = tempfile::tempdir().unwrap();
    let paths = vec![folder.path().join("a.parquet"), folder.path().join("b.parquet")];
    // A row without a time goes with the one before it.
    let rows = |rows: &[(Option<i64>, i64)]| -> Vec<(String, Option<i64>, i64)> {
        rows.iter().map(|(time, number)| (format!("k{number}"), *time, *number)).collect()
    };
    write(&paths[0], &rows(&[(Some(1), 0), (None, 1), (Some(9), 2), (Some(10), 3), (None, 4), (Some(30), 5)]));
    write(&paths[1], &rows(&[(Some(20), 6), (Some(2), 7), (Some(9), 8), (Some(11), 9)]));
    for (until, expected, later) in [(Some(10), vec![0, 1, 2, 7, 8], 5), (Some(0), vec![], 10), (None, (0..10).collect(), 0)] {
        let until = until.map(|seconds| EventTime(seconds * 1_000_000));
        let settings = Settings { until, ..settings(paths.clone(), 1, 1 << 20, folder.path()) };
        let survey = survey(&settings, &mut |_| {}).unwrap();
        assert_eq!((survey.rows(), survey.later()), (10, later));
        let mut feed = feed::open(&settings, &survey, 1).unwrap().remove(0);
        let mut numbers = Vec::new();
        loop {
            let mut input = Input::default();
            match feed.poll(1000, Duration::from_secs(60), &mut input).unwrap() {
                Polled::Ended => break,
                _ => numbers.extend(
                    input
                        .tables
                        .iter()
                        .flat_map(|table| table.rows.column_by_name("n").unwrap().as_primitive::<Int64Type>().values().to_vec()),
                ),
            }
        }
        numbers.sort_unstable();
        assert_eq!(numbers, expected);
    }
}

#[cfg(feature = "sql")]
mod query {
    use super::*;
    use crate::link::query::Query;

    fn asked(filter: Option<&str>, select: Option<&str>) -> Option<Query> {
        Query::parse("backfill", filter, select).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]

        #[test]
        fn rows_come_as_those_of_files_that_were_filtered_by_hand(
            files in prop::collection::vec(prop::collection::vec((0_u8..5, prop::option::weighted(0.9, 0_i64..40)), 0..60), 1..4),
            divisor in 2_i64..5, memory in prop_oneof![Just(1_u64), Just(1 << 30)], shards in 1_u32..4,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let (mut all, mut few, mut excluded) = (Vec::new(), Vec::new(), 0);
            let mut number = 0;
            for (i, file) in files.iter().enumerate() {
                let mut rows: Vec<(String, Option<i64>, i64)> = Vec::new();
                for (key, time) in file {
                    number += 1;
                    rows.push((format!("k{key}"), *time, number));
                }
                all.push(folder.path().join(format!("all-{i}.parquet")));
                write(&all[i], &rows);
                let before = rows.len();
                rows.retain(|(key, _, number)| number % divisor != 0 && key != "k3");
                excluded += (before - rows.len()) as u64;
                rows.iter_mut().for_each(|(_, time, number)| (*time, *number) = (time.map(|time| time / 2), *number * 10));
                few.push(folder.path().join(format!("few-{i}.parquet")));
                write(&few[i], &rows);
            }
            let query = asked(Some(&format!("n % {divisor} <> 0 AND k <> 'k3'")), Some("t / 2 AS t, n * 10 AS n"));
            let all = Settings { query, ..settings(all, shards, memory, folder.path()) };
            let few = settings(few, shards, memory, folder.path());
            let (asked, by_hand) = (survey(&all, &mut |_| {}).unwrap(), survey(&few, &mut |_| {}).unwrap());
            prop_assert_eq!((asked.rows(), asked.excluded()), (by_hand.rows(), excluded));
            for (asked, by_hand) in asked.files.iter().zip(&by_hand.files) {
                prop_assert_eq!((asked.rows, asked.span, asked.sorted), (by_hand.rows, by_hand.span, by_hand.sorted));
            }
            prop_assert_eq!(merged(&all), merged(&few));
        }
    }

    #[test]
    fn what_the_files_do_not_have_is_refused_with_what_they_have() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        write(&path, &[("a".into(), Some(1), 1)]);
        for (filter, select, says) in [
            (Some("nn > 1"), None, "--where: no file has a column `nn`"),
            (Some("k = a"), None, "they have k, n, t (a text stands in 'single quotes'"),
            (None, Some("tt + 1 AS t"), "--select: no file has a column `tt`"),
        ] {
            let settings = Settings { query: asked(filter, select), ..settings(vec![path.clone()], 1, 1 << 20, folder.path()) };
            let error = survey(&settings, &mut |_| {}).unwrap_err().to_string();
            assert!(error.contains(says), "{says}: {error}");
        }
        let lines = folder.path().join("a.ndjson");
        std::fs::write(&lines, "{\"k\": \"a\", \"t\": 1}\n").unwrap();
        let settings = Settings { query: asked(Some("k = 'a'"), None), ..settings(vec![lines], 1, 1 << 20, folder.path()) };
        let error = survey(&settings, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("NDJSON files have none"), "{error}");
    }

    #[test]
    fn a_column_within_a_column_and_one_of_other_width_are_read_as_the_pipeline_reads_them() {
        use arrow::array::{Float64Array, StructArray};
        use arrow::datatypes::{DataType, Field};

        let folder = tempfile::tempdir().unwrap();
        let paths = vec![folder.path().join("a.parquet"), folder.path().join("b.parquet")];
        for (path, numbers) in paths.iter().zip([
            Arc::new(Int64Array::from(vec![Some(5), None, Some(20)])) as ArrayRef,
            Arc::new(Float64Array::from(vec![Some(5.5), Some(4.0), None])),
        ]) {
            let inner = StructArray::new(vec![Arc::new(Field::new("size", numbers.data_type().clone(), true))].into(), vec![numbers], None);
            let columns: [(&str, ArrayRef); 4] = [
                ("k", Arc::new(StringArray::from(vec!["a", "b", "c"]))),
                ("t", Arc::new(Int64Array::from(vec![1, 2, 3]))),
                ("n", Arc::new(Int64Array::from(vec![1, 2, 3]))),
                ("body", Arc::new(inner)),
            ];
            assert!(matches!(columns[3].1.data_type(), DataType::Struct(_)));
            let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();
            let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
            writer.write(&batch).unwrap();
            writer.close().unwrap();
        }
        // The column is one of fractions in all files, since it is in one: 5 / 2 is 2.5 in both.
        let query = asked(Some("body.size / 2 > 2.2"), Some("CAST(body.size * 2 AS BIGINT) + n * 100 AS n"));
        let settings = Settings { query, ..settings(paths, 1, 1 << 20, folder.path()) };
        assert_eq!(survey(&settings, &mut |_| {}).unwrap().excluded(), 3);
        assert_eq!(merged(&settings).0, [110, 111, 340]);
    }
}

/// Reads everything; the error with which that ends.
fn read_again(settings: &Settings, survey: &survey::Survey) -> crate::base::error::Result<usize> {
    let mut merge = Merge::new(survey.reading.clone(), feed::runs(settings, survey)?);
    let mut rows = 0;
    while let Some(block) = merge.block()? {
        rows += block.len();
    }
    Ok(rows)
}

#[test]
fn a_file_that_is_not_what_it_was_when_it_was_looked_at_is_an_error_and_no_end_and_no_loop() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let rows = |n: i64, key: &str| -> Vec<(String, Option<i64>, i64)> { (0..n).map(|i| (key.to_owned(), Some(i), i)).collect() };
    let turned = |n: i64| -> Vec<(String, Option<i64>, i64)> { rows(n, "k").into_iter().rev().collect() };
    for memory in [1_u64 << 30, 1] {
        for first in [rows(30_000, "k"), turned(30_000)] {
            write(&path, &first);
            let settings = settings(vec![path.clone()], 2, memory, folder.path());
            let survey = survey(&settings, &mut |_| {}).unwrap();
            assert_eq!(read_again(&settings, &survey).unwrap(), 30_000);
            for (changed, says) in [(rows(20_000, "k"), "20000 rows"), (rows(30_000, "other"), "keys or times are other ones")] {
                write(&path, &changed);
                let fault = read_again(&settings, &survey).unwrap_err().to_string();
                assert!(fault.contains("the file has changed while it was read") && fault.contains(says), "{fault}");
            }
            // Out of order where it was not.
            write(&path, &turned(30_000));
            if survey.files[0].sorted {
                let fault = read_again(&settings, &survey).unwrap_err().to_string();
                assert!(fault.contains("rows that were in order are not any more"), "{fault}");
            }
        }
    }
}
