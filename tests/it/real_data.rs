//! Features on real payments, against a slow reference that is written from the definitions, row by row.
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use meantime::base::time::{EventTime, Gap, TimeUnit};
use meantime::data::events::Events;
use meantime::data::input::Input;
use meantime::data::rejected::Rejected;
use meantime::data::schema::{EventSchema, TimeFormat};
use meantime::decode::Decoder;
use meantime::features::recipe::Recipe;
use meantime::features::{Context, Features};
use meantime::source::{self, FileSettings, Opening, Polled, Settings};

const RECIPE: &str = r#"
format = 1
[[column]]
kind = "gap"
unit = "h"
scale = "log1p"
first = -1.0
[[column]]
kind = "is_first"
[[column]]
kind = "numeric"
field = "amount"
scale = "standardise"
mean = 50.0
std = 40.0
clip = [0.0, 400.0]
[[column]]
kind = "category"
field = "scenario"
vocabulary = ["0", "1", "2"]
encoding = "one_hot"
unknown = true
[[column]]
kind = "calendar"
cycle = "hour"
[[column]]
kind = "calendar"
cycle = "weekday"
zone = "Europe/Berlin"
[[column]]
kind = "decay"
statistic = "count"
half_life = "1d"
[[column]]
kind = "decay"
statistic = "mean"
field = "amount"
half_life = "7d"
"#;

/// The first rows of a file through the source and the decoder; `None`, loudly, where the data are not there.
fn events(schema: &EventSchema, rows: usize) -> Option<Events> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/fraud-handbook/transactions-2018-04.parquet");
    if !path.is_file() {
        eprintln!("SKIPPED features on real payments: {} is not there", path.display());
        return None;
    }
    let names = [&schema.key, &schema.time].into_iter().chain(schema.fields.iter().map(|field| &field.name)).cloned().collect();
    let opening = Opening { lanes: 1, fields: names, ..Opening::default() };
    let mut feed = source::open(&Settings::File(FileSettings { paths: vec![path] }), &opening).unwrap().remove(0);
    let (mut decoder, mut events, mut rejected) = (Decoder::new(schema), Events::new(schema), Rejected::default());
    while events.len() < rows {
        let mut input = Input::default();
        match feed.poll(8192, Duration::ZERO, &mut input).unwrap() {
            Polled::Records => decoder.decode(&input, &mut events, &mut rejected),
            Polled::Ended => break,
            _ => {}
        }
    }
    assert!(rejected.is_empty());
    Some(events)
}

#[test]
fn recipe_columns_agree_with_a_slow_reference_on_real_payments() {
    let recipe: Recipe = toml::from_str(RECIPE).unwrap();
    let schema = EventSchema {
        key: "key".into(),
        time: "event_time".into(),
        time_format: TimeFormat::Rfc3339,
        id: None,
        fields: recipe.fields(),
        mark: None,
        label: None,
    };
    let Some(events) = events(&schema, 60_000) else { return };
    let n = events.len();
    let amounts = events.columns[0].numbers().unwrap();
    let scenarios = events.columns[1].texts().unwrap();

    let mut history: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
    let mut gaps = Vec::new();
    let mut earlier = Vec::new();
    for row in 0..n {
        let own = history.entry(events.keys.get(row).unwrap().to_vec()).or_default();
        gaps.push(own.last().map(|last| events.times[row].since(events.times[*last])));
        earlier.push(own.clone());
        own.push(row);
    }
    let features = Features::new(&recipe, &schema).unwrap();
    let mut rows = Vec::new();
    features.rows(&events, Context { gaps: &gaps }, &mut rows);
    let mut aggregates: BTreeMap<&[u8], Vec<f64>> = BTreeMap::new();
    for (row, cells) in rows.chunks_exact_mut(features.width()).enumerate() {
        let own = aggregates.entry(events.keys.get(row).unwrap()).or_insert_with(|| vec![0.0; features.aggregates()]);
        features.decay(&events, row, gaps[row], own, cells);
    }

    for (row, cells) in rows.chunks_exact(features.width()).enumerate() {
        let time = events.times[row];
        let gap_h = gaps[row].map(|gap: Gap| gap.in_unit(TimeUnit::Hour));
        let scenario = scenarios.get(row).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or("");
        let part = |micros: i64, period: i64, shift: i64| std::f64::consts::TAU * (micros + shift).rem_euclid(period) as f64 / period as f64;
        let (day, hour) = (86_400_000_000i64, 3_600_000_000i64);
        // April 2018: Berlin is two hours ahead; 1970-01-01 was a Thursday.
        let (hour_angle, week_angle) = (part(time.0, day, 0), part(time.0, 7 * day, 3 * day + 2 * hour));
        let age_d = |other: usize| time.since(events.times[other]).seconds() / 86_400.0;
        let count: f64 = earlier[row].iter().map(|other| (-age_d(*other)).exp2()).sum();
        let weights: f64 = earlier[row].iter().map(|other| (-age_d(*other) / 7.0).exp2()).sum();
        let sum: f64 = earlier[row].iter().map(|other| (-age_d(*other) / 7.0).exp2() * amounts[*other]).sum();
        let expected = [
            gap_h.map_or(-1.0, |gap| (1.0 + gap).ln()),
            f64::from(u8::from(gap_h.is_none())),
            (amounts[row].clamp(0.0, 400.0) - 50.0) / 40.0,
            f64::from(u8::from(scenario == "0")),
            f64::from(u8::from(scenario == "1")),
            f64::from(u8::from(scenario == "2")),
            f64::from(u8::from(!["0", "1", "2"].contains(&scenario))),
            hour_angle.sin(),
            hour_angle.cos(),
            week_angle.sin(),
            week_angle.cos(),
            count,
            if weights > 0.0 { sum / weights } else { 0.0 },
        ];
        for (column, (found, expected)) in cells.iter().zip(expected).enumerate() {
            let difference = (f64::from(*found) - expected).abs();
            assert!(difference <= 2e-6 * expected.abs().max(1.0), "row {row}, float {column}: {found} instead of {expected}");
        }
    }
    assert!(n >= 60_000 && events.times[0] > EventTime(0));
}
