//! One lane in memory, the model step beside bare tract, and memory per key.

use std::time::Instant;

use meantime::base::offset::{Offset, Partition};
use meantime::base::time::TimeUnit;
use meantime::data::events::Events;
use meantime::data::input::Input;
use meantime::data::outputs::Outputs;
use meantime::data::rejected::Rejected;
use meantime::data::schema::{EventSchema, Field, FieldKind, TimeFormat};
use meantime::decode::Decoder;
use meantime::model::Memory;
use meantime::sink::json::RowEncoder;
use tract_onnx::prelude::*;

use super::package::{FEATURE_FLOATS, HIDDEN, Head, payment, stage, write};

const BATCH: u64 = 4096;

fn inputs(events: u64, keys: u64) -> Vec<Input> {
    let mut inputs = Vec::new();
    for start in (0..events).step_by(BATCH as usize) {
        let mut input = Input::default();
        for i in start..(start + BATCH).min(events) {
            let (key, payload) = payment(i, keys);
            input.records.push(Partition(0), Offset(i as i64), None, Some(key.as_bytes()), Some(payload.as_bytes()));
        }
        inputs.push(input);
    }
    inputs
}

/// Decode JSON, features, GRU, head, encode JSON; 100,000 keys, one thread.
pub fn lane() {
    println!(
        "\nlane alone: decode JSON + features + GRU (F {FEATURE_FLOATS}, H {HIDDEN}) + head + encode JSON, in memory, 100,000 keys, 1 thread"
    );
    let inputs = inputs(1_000_000, 100_000);
    for (head, name, goal) in
        [(Head::Score, "score", 300_000.0), (Head::Mixture, "log-normal mixture of 16, 3 quantiles, 2 horizons", 120_000.0)]
    {
        let folder = tempfile::tempdir().unwrap();
        let stage = stage(folder.path(), head, &[]);
        let mut best = 0f64;
        for _ in 0..3 {
            let mut lane = stage.lane().unwrap();
            lane.assign(Partition(0), Offset(0));
            let mut encoder = RowEncoder::new(&stage.layout, &stage.identity);
            let (mut bytes, mut total, mut events) = (Vec::new(), 0, 0);
            let start = Instant::now();
            for input in &inputs {
                lane.advance(input).unwrap();
                for row in 0..lane.forecasts.len() {
                    bytes.clear();
                    encoder.row(&lane.forecasts, row, &mut bytes);
                    total += bytes.len();
                }
                events += lane.forecasts.len();
            }
            assert!(events == 1_000_000 && total > 0);
            best = best.max(events as f64 / start.elapsed().as_secs_f64());
        }
        println!("  {name:<52} {best:>9.0} events/s   {:.2} x the goal of {goal}", best / goal);
    }
}

/// What reasons of surprises cost the lane: none, their parts, and columns of the event before, of no row and of all that have one. Alternating, best of 5.
pub fn reasons() {
    println!("\nreasons of surprises: the lane with the mixture head, 100,000 keys, 1 thread, alternating, best of 5");
    let inputs = inputs(300_000, 100_000);
    let folder = tempfile::tempdir().unwrap();
    let of = |reasons: &str| stage(folder.path(), Head::Mixture, &[reasons].map(str::to_owned));
    let stages = [
        ("none", stage(folder.path(), Head::Mixture, &[])),
        ("parts", of("reasons={above=0.0}")),
        ("columns, kept but of no row", of("reasons={above=1e9,surprise=\"columns\"}")),
        ("columns, of each row with an event before", of("reasons={above=0.0,surprise=\"columns\"}")),
    ];
    let mut best = [(f64::INFINITY, 0.0, 0); 4];
    for _ in 0..5 {
        for ((_, stage), best) in stages.iter().zip(&mut best) {
            let mut lane = stage.lane().unwrap();
            lane.assign(Partition(0), Offset(0));
            let (start, mut second) = (Instant::now(), 0);
            for input in &inputs {
                lane.advance(input).unwrap();
                second += lane.forecasts.surprise_time.iter().filter(|surprise| !surprise.is_nan()).count();
            }
            *best = (start.elapsed().as_secs_f64().min(best.0), lane.bytes_per_key().unwrap(), second);
        }
    }
    for ((name, stage), (seconds, bytes, second)) in stages.iter().zip(best) {
        let more = seconds - best[0].0;
        let subjects = stage.plan.reasons.as_ref().map_or(0, |asked| asked.reasons.len());
        println!(
            "  {name:<42} {:>6.2} us an event, {:>+6.2}, {:>+7.2} a row with an event before ({subjects} subjects), {bytes:>6.0} bytes a key",
            seconds * 1e6 / 300_000.0,
            more * 1e6 / 300_000.0,
            more * 1e6 / second as f64,
        );
    }
}

/// JSON to columns alone, the bench's payments: least time per record.
pub fn decode() {
    println!("\ndecode alone: JSON to columns, 1 thread, least of 200 runs");
    let field = |name: &str, kind| Field { name: name.to_owned(), kind };
    let schema = EventSchema {
        key: "card".to_owned(),
        time: "ts".to_owned(),
        time_format: TimeFormat::Unit(TimeUnit::Millisecond),
        id: Some("id".to_owned()),
        fields: vec![field("amount", FieldKind::Number), field("mcc", FieldKind::Text), field("channel", FieldKind::Text)],
        mark: None,
        label: None,
    };
    let input = inputs(BATCH, 100_000).remove(0);
    let (mut decoder, mut events, mut rejected) = (Decoder::new(&schema), Events::new(&schema), Rejected::default());
    let mut best = f64::INFINITY;
    for _ in 0..200 {
        events.clear();
        let start = Instant::now();
        decoder.decode(&input, &mut events, &mut rejected).unwrap();
        best = best.min(start.elapsed().as_secs_f64());
    }
    assert!(events.len() as u64 == BATCH && rejected.is_empty());
    let bytes = input.records.payloads.byte_len() as f64;
    println!("  {:>6.0} ns per record of {:.0} bytes   {:.0} MB/s", best * 1e9 / BATCH as f64, bytes / BATCH as f64, bytes / best / 1e6);
}

struct Flat(Vec<f32>);

impl Memory for Flat {
    fn hidden(&mut self, row: usize) -> &mut [f32] {
        &mut self.0[row * HIDDEN..(row + 1) * HIDDEN]
    }
}

/// The model step (gather, run, scatter) beside the same graph run bare in tract, by batch size. Bare tract is told, as the step tells it, that
/// a batch is not empty: without that it takes three times as long and would be a soft measure.
pub fn step() {
    println!("\nmodel step beside bare tract, score head, 1 thread, alternating, best of 9");
    println!("  {:>6} {:>12} {:>12} {:>7}", "batch", "step ns", "bare ns", "ratio");
    let folder = tempfile::tempdir().unwrap();
    let package = meantime::model::Package::load(&write(folder.path(), Head::Score)).unwrap();
    let plan = tract_onnx::onnx().model_for_path(package.folder.join("model.onnx")).unwrap().into_typed().unwrap();
    plan.symbols.all_symbols().iter().for_each(|batch| plan.symbols.add_assertion(format!("{batch} >= 1")).unwrap());
    let plan = plan.into_optimized().unwrap().into_runnable().unwrap();
    for size in [64usize, 256, 512] {
        let rows: Vec<f32> = (0..size * FEATURE_FLOATS).map(|i| (i as f32 * 0.1).sin()).collect();
        let (mut model, mut memory, mut outputs) = (package.model().unwrap(), Flat(vec![0.0; size * HIDDEN]), Outputs::default());
        let (gaps, first) = (vec![None; size], vec![0; size]);
        let mut state = plan.spawn().unwrap();
        let x = Tensor::from_shape(&[size, FEATURE_FLOATS], &rows).unwrap().into_tvalue();
        let h = Tensor::from_shape(&[size, HIDDEN], &vec![0f32; size * HIDDEN]).unwrap().into_tvalue();
        let (mut ours, mut bare) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..9 {
            ours = ours.min(time(size, || model.steps(&rows, &gaps, &first, &mut memory, &mut outputs).unwrap()));
            bare = bare.min(time(size, || drop(state.run(tvec![x.clone(), h.clone()]).unwrap())));
        }
        println!("  {size:>6} {ours:>12.0} {bare:>12.0} {:>7.2}", ours / bare);
    }
}

/// ns per row of a call, over about 60 ms.
fn time(rows: usize, mut call: impl FnMut()) -> f64 {
    let (start, mut calls) = (Instant::now(), 0);
    while start.elapsed().as_millis() < 60 {
        call();
        calls += 1;
    }
    start.elapsed().as_secs_f64() * 1e9 / (calls * rows) as f64
}

/// State bytes at 1,000,000 keys, as the lane counts them and as the system sees them.
pub fn memory() {
    println!("\nmemory at 1,000,000 keys, score head, H {HIDDEN}: bytes per key over state bytes + key bytes");
    let folder = tempfile::tempdir().unwrap();
    let stage = stage(folder.path(), Head::Score, &[]);
    let mut lane = stage.lane().unwrap();
    lane.assign(Partition(0), Offset(0));
    let (before, keys) = (resident(), 1_000_000u64);
    let mut input = Input::default();
    for start in (0..keys).step_by(BATCH as usize) {
        input.clear();
        for i in start..(start + BATCH).min(keys) {
            let key = format!("c{i:07}");
            let payload = format!(r#"{{"id":"p{i}","card":"{key}","ts":{},"amount":1,"mcc":1,"channel":"pos"}}"#, 1_735_000_000_000u64 + i);
            input.records.push(Partition(0), Offset(i as i64), None, Some(key.as_bytes()), Some(payload.as_bytes()));
        }
        lane.advance(&input).unwrap();
    }
    let bare = (HIDDEN * 4 + 8) as f64;
    let (counted, grown) = (lane.bytes_per_key().unwrap(), (resident() - before) as f64 / keys as f64);
    println!("  counted  {counted:>6.1} bytes  {:.2} x {bare}", counted / bare);
    println!("  resident {grown:>6.1} bytes  {:.2} x {bare}   (growth of the process, buffers included)", grown / bare);
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}
