use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value as Json;

use super::*;
use crate::base::time::{Gap, TimeUnit};
use crate::data::schema::{EventSchema, TimeFormat};
use crate::link::kafka::Client;
use crate::pipeline::plan::{FitPlan, Split};
use crate::{decode, head, order, sink, state};

fn plan(name: &str, source: source::Settings) -> Plan {
    let ndjson = sink::Settings::Ndjson { path: PathBuf::from("-") };
    Plan {
        since: None,
        name: name.to_owned(),
        folder: PathBuf::new(),
        source,
        format: decode::Format::Json,
        schemas: None,
        schema: EventSchema {
            key: "card".to_owned(),
            time: "ts".to_owned(),
            time_format: TimeFormat::Unit(TimeUnit::Millisecond),
            id: None,
            fields: vec![],
            mark: None,
            label: None,
        },
        order: order::Settings { lateness: Gap::ZERO, max_future_skew: Gap::ZERO, late: order::Late::Clamp, timed: false },
        package: PathBuf::new(),
        model: None,
        on_change: Default::default(),
        state: state::Settings { max_keys: 1, when_full: state::WhenFull::Stop, expiry: None },
        snapshots: None,
        asks: head::Asks::default(),
        drift: 0.1,
        horizon_names: vec![],
        sink: ndjson.clone(),
        reasons: None,
        sink_fields: vec![],
        delivery: crate::sink::Delivery::AtLeastOnce,
        shadow: None,
        position_header: true,
        stop_timeout: std::time::Duration::from_secs(30),
        commit_every: std::time::Duration::from_secs(1),
        dead_letter: ndjson,
        alarm: None,
        max_bad_ratio: 0.0,
        lanes: 1,
        max_batch: 1,
        fit: FitPlan {
            cell: Default::default(),
            law: Default::default(),
            numeric: vec![],
            category: vec![],
            calendar: vec![],
            zone: "UTC".to_owned(),
            decay: vec![],
            time_unit: None,
            resolution: None,
            value: None,
            hidden: 1,
            components: 1,
            epochs: 1,
            patience: 1,
            learning_rate: 1.0,
            seed: 1,
            split: Split::Key,
        },
    }
}

fn files() -> source::Settings {
    source::Settings::File(source::FileSettings { paths: vec![] })
}

fn args(out: Option<PathBuf>) -> Args {
    Args { stream: None, events: 500, keys: 20, seed: 3, to: Target::File, out, partitions: 4 }
}

fn json_of(stream_kind: Stream) -> Vec<BTreeMap<String, Json>> {
    let settings = GenerateSettings { stream: stream_kind, events: 500, keys: 20, seed: 3 };
    let (mut generator, mut payload, mut key, mut found) = (stream(&settings), Vec::new(), Vec::new(), Vec::new());
    while generator.next_into(&mut payload, &mut key).is_some() {
        found.push(serde_json::from_slice(&payload).unwrap());
    }
    found
}

#[test]
fn the_stream_is_the_one_asked_for_then_that_of_the_source_then_the_one_called_like_the_pipeline() {
    let generated = source::Settings::Generate(GenerateSettings { stream: Stream::Visits, events: 1, keys: 1, seed: 1 });
    let with = |stream: &str| Args { stream: Some(stream.to_owned()), ..args(None) };
    assert_eq!(chosen(&plan("cards", generated.clone()), &with("telemetry")).unwrap(), Stream::Telemetry);
    assert_eq!(chosen(&plan("cards", generated), &args(None)).unwrap(), Stream::Visits);
    assert_eq!(chosen(&plan("cards", files()), &args(None)).unwrap(), Stream::Cards);
    let error = chosen(&plan("mine", files()), &args(None)).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("--stream"), "{error}");
}

#[test]
fn an_ndjson_file_holds_the_stream_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    for stream_kind in Stream::ALL {
        let path = folder.path().join(format!("new/{}.ndjson", stream_kind.name()));
        run(&plan(stream_kind.name(), files()), &args(Some(path.clone()))).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<BTreeMap<String, Json>> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines, json_of(stream_kind));
    }
    assert_eq!(fs::read_dir(folder.path().join("new")).unwrap().count(), 3, "nothing but the files");
}

#[test]
fn a_name_that_says_compressed_holds_the_same_lines_compressed() {
    let folder = tempfile::tempdir().unwrap();
    let written = |name: &str| {
        let path = folder.path().join(name);
        run(&plan("cards", files()), &args(Some(path.clone()))).unwrap();
        let mut lines = source::file::Lines::open(&path.clone().into()).unwrap();
        let (mut all, mut line) = (Vec::new(), Vec::new());
        while lines.next(&mut line).unwrap() {
            all.push(line.clone());
        }
        (all, fs::read(&path).unwrap())
    };
    let (plain, _) = written("a.ndjson");
    for (name, magic) in [("a.ndjson.gz", &[0x1f, 0x8b][..]), ("a.jsonl.ZST", &[0x28, 0xb5, 0x2f, 0xfd][..])] {
        let (lines, bytes) = written(name);
        assert!(bytes.starts_with(magic) && lines == plain, "{name}");
    }
}

/// A cell of a column as the JSON field of the same name has it.
fn cell(array: &dyn Array, row: usize) -> Json {
    use arrow::datatypes::DataType;
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).into(),
        DataType::Timestamp(..) => {
            let time = EventTime(array.as_primitive::<TimestampMicrosecondType>().value(row)).to_string();
            time.replace(".000000Z", "Z").into()
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_parquet_file_holds_the_same_values_as_typed_columns() {
    let folder = tempfile::tempdir().unwrap();
    for stream_kind in Stream::ALL {
        let path = folder.path().join(format!("{}.parquet", stream_kind.name()));
        run(&plan(stream_kind.name(), files()), &args(Some(path.clone()))).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap()).unwrap().build().unwrap();
        let mut rows = Vec::new();
        for batch in reader.map(|batch| batch.unwrap()) {
            let schema = batch.schema();
            for row in 0..batch.num_rows() {
                let cells = schema.fields().iter().zip(batch.columns()).map(|(field, array)| (field.name().clone(), cell(array, row)));
                rows.push(cells.collect::<BTreeMap<_, _>>());
            }
        }
        assert_eq!(rows, json_of(stream_kind));
    }
}

#[test]
fn a_file_without_events_still_has_columns() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cards.parquet");
    run(&plan("cards", files()), &Args { events: 0, ..args(Some(path.clone())) }).unwrap();
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap()).unwrap();
    assert_eq!((builder.schema().fields().len(), builder.metadata().file_metadata().num_rows()), (7, 0));
}

#[test]
fn what_cannot_be_done_is_said_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let ending = run(&plan("cards", files()), &args(Some(folder.path().join("cards.csv")))).unwrap_err();
    assert_eq!(ending.exit_code(), 2);
    let no_topic = run(&plan("cards", files()), &Args { to: Target::Kafka, ..args(None) }).unwrap_err();
    assert_eq!(no_topic.exit_code(), 2);
    let kafka = source::Settings::Kafka(source::KafkaSettings {
        client: Client { brokers: "127.0.0.1:1".to_owned(), ..Client::default() },
        topic: "cards".to_owned(),
        group: "g".to_owned(),
        on_missing: source::OnMissing::Rebuild,
        idle_after: None,
        instance: None,
        since: None,
    });
    let both = run(&plan("cards", kafka), &Args { to: Target::Kafka, ..args(Some(folder.path().join("a.ndjson"))) }).unwrap_err();
    assert_eq!(both.exit_code(), 2);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
