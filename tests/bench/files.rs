//! Backfill from zstd Parquet to zstd Parquet, beside one lane that has the same rows in memory.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use meantime::base::offset::{Offset, Partition};
use meantime::data::input::{Input, Table};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::package::{FEATURE_FLOATS, HIDDEN, Head, stage, write};

const ROWS: u64 = 2_000_000;
const BATCH: u64 = 8192;

/// The payments of `payment`, as a table; keys in a scrambled order.
fn table(from: u64, keys: u64) -> RecordBatch {
    let rows = from..(from + BATCH).min(ROWS);
    let card = |i: u64| format!("c{:07}", (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20) % keys);
    let texts = |of: &dyn Fn(u64) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.clone().map(of))) };
    let times = rows.clone().map(|i| 1_735_000_000_000 + 37 * i as i64);
    let amounts = rows.clone().map(|i| (i * 7 % 400) as f64 + (i * 31 % 100) as f64 / 100.0);
    RecordBatch::try_from_iter([
        ("id", texts(&|i| format!("p{i:09}"))),
        ("card", texts(&card)),
        ("ts", Arc::new(Int64Array::from_iter_values(times)) as ArrayRef),
        ("amount", Arc::new(Float64Array::from_iter_values(amounts)) as ArrayRef),
        ("mcc", texts(&|i| (i * 13 % 20).to_string())),
        ("channel", texts(&|i| ["pos", "web", "atm"][i as usize % 3].to_owned())),
    ])
    .unwrap()
}

fn store(path: &Path, tables: &[RecordBatch]) {
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), tables[0].schema(), Some(properties)).unwrap();
    tables.iter().for_each(|table| writer.write(table).unwrap());
    writer.close().unwrap();
}

/// Rows a second of a lane that takes the tables from memory and whose forecasts are dropped.
fn in_memory(tables: &[RecordBatch], head: Head) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let mut lane = stage(folder.path(), head, &[]).lane().unwrap();
    lane.assign(Partition(0), Offset(0));
    let (start, mut rows) = (Instant::now(), 0);
    for table in tables {
        let mut input = Input::default();
        input.tables.push(Table { partition: Partition(0), first: Offset(rows as i64), rows: table.clone() });
        lane.advance(&input).unwrap();
        rows += lane.forecasts.len();
    }
    assert_eq!(rows as u64, ROWS);
    rows as f64 / start.elapsed().as_secs_f64()
}

/// Rows a second of `meantime backfill` from start to end of the process, as one lane.
fn backfill(folder: &Path, file: &Path, package: &Path, more: &[&str]) -> f64 {
    let to = tempfile::tempdir_in(folder).unwrap();
    let pipeline = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/pipeline/pipeline.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_meantime"));
    command.arg("backfill").arg(pipeline).arg("--from").arg(file).arg("--to").arg(to.path().join("out"));
    command.args(["--set", &format!("model.package={}", package.display()), "--set", "run.max_batch=8192"]).args(more);
    let start = Instant::now();
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ROWS as f64 / start.elapsed().as_secs_f64()
}

/// Backfill beside the lane alone.
pub fn files() {
    println!(
        "\nbackfill, zstd Parquet to zstd Parquet, GRU (F {FEATURE_FLOATS}, H {HIDDEN}), {ROWS} rows over 100,000 keys, one lane, whole process, beside a lane\n\
         that has the same rows in memory and drops its forecasts; alternating, best of 3"
    );
    let tables: Vec<RecordBatch> = (0..ROWS).step_by(BATCH as usize).map(|from| table(from, 100_000)).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("payments.parquet");
    store(&file, &tables);
    // All of the sink's fields but those that are renamed for other engines.
    let whole = "sink={kind=\"kafka\",topic=\"bench-scores\"}";
    let asks = "forecast={quantiles=[0.1,0.5,0.9],horizons=[\"1h\",\"24h\"]}";
    for (head, name, more) in [
        (Head::Score, "score", vec!["--set", whole]),
        (Head::Mixture, "log-normal mixture of 16, 3 quantiles, 2 horizons", vec!["--set", whole, "--set", asks]),
    ] {
        let package = write(folder.path(), head);
        let (mut lane, mut both) = (0f64, 0f64);
        for _ in 0..3 {
            lane = lane.max(in_memory(&tables, head));
            both = both.max(backfill(folder.path(), &file, &package, &more));
        }
        println!("  {name:<52} lane {lane:>9.0} rows/s   backfill {both:>9.0} rows/s   {:.2} (goal 0.80)", both / lane);
    }
}
