use super::recipe::{Cycle, DecayScale, GapScale, NumericScale, Statistic};
use super::*;
use crate::base::offset::{Offset, Partition};
use crate::base::time::{EventTime, TimeUnit};
use crate::data::events::Column;
use crate::data::schema::{Field, FieldKind, TimeFormat};

fn schema() -> EventSchema {
    EventSchema {
        key: "k".into(),
        time: "t".into(),
        time_format: TimeFormat::Unit(TimeUnit::Second),
        id: None,
        fields: vec![Field { name: "amount".into(), kind: FieldKind::Number }, Field { name: "channel".into(), kind: FieldKind::Text }],
        mark: None,
        label: None,
    }
}

fn events(rows: &[(i64, f64, Option<&str>)]) -> Events {
    let mut events = Events::new(&schema());
    for (i, (time, amount, channel)) in rows.iter().enumerate() {
        events.partitions.push(Partition(0));
        events.offsets.push(Offset(i as i64));
        events.times.push(EventTime(*time));
        events.recorded.push(None);
        events.keys.push(b"k");
        events.ids.push_missing();
        events.flags.push(Default::default());
        if let [Column::Number(amounts), Column::Text(channels)] = &mut events.columns[..] {
            amounts.push(*amount);
            channels.push_option(channel.map(str::as_bytes));
        }
    }
    events
}

fn rows(columns: Vec<Spec>, events: &Events, gaps: &[Option<Gap>]) -> Vec<f32> {
    let features = Features::new(&Recipe { format: 1, columns }, &schema()).unwrap();
    let (mut out, mut aggregates) = (Vec::new(), vec![0.0; features.aggregates()]);
    features.rows(events, Context { gaps }, &mut out);
    for (row, cells) in out.chunks_exact_mut(features.width()).enumerate() {
        features.decay(events, row, gaps[row], &mut aggregates, cells);
    }
    out
}

fn numeric(scale: NumericScale, clip: Option<[f64; 2]>) -> Spec {
    Spec::Numeric { field: "amount".into(), scale, mean: 10.0, std: 2.0, clip, missing: -1.0, missing_flag: true }
}

#[test]
fn every_column_kind_writes_what_its_formula_says() {
    let events = events(&[(0, 12.0, Some("web")), (3_600_000_000, f64::NAN, Some("fax")), (3_600_000_000, -1e300, None)]);
    let gaps = [None, Some(Gap(3_600_000_000)), Some(Gap(0))];
    let words = vec!["pos".to_owned(), "web".to_owned()];
    let category = |encoding, unknown| Spec::Category { field: "channel".into(), vocabulary: words.clone(), encoding, unknown };
    let gap = |scale| Spec::Gap { unit: TimeUnit::Second, scale, mean: 1.0, std: 2.0, floor: 0.5, longest: None, first: -9.0 };

    let check = |spec: Spec, expected: &[f64]| {
        let got = rows(vec![Spec::Constant { value: 7.0 }, spec.clone()], &events, &gaps);
        let got: Vec<f32> = got.chunks_exact(1 + spec.width()).flat_map(|row| row[1..].to_vec()).collect();
        let expected: Vec<f32> = expected.iter().map(|v| *v as f32).collect();
        assert_eq!(got, expected, "{spec:?}");
    };
    check(gap(GapScale::Raw), &[-9.0, 3600.0, 0.0]);
    check(gap(GapScale::Log1p), &[-9.0, 3601f64.ln(), 0.0]);
    check(gap(GapScale::LogStandard), &[-9.0, (3600f64.ln() - 1.0) / 2.0, (0.5f64.ln() - 1.0) / 2.0]);
    let bounded = |scale| Spec::Gap { unit: TimeUnit::Second, scale, mean: 1.0, std: 2.0, floor: 0.5, longest: Some(99.0), first: -9.0 };
    check(bounded(GapScale::Raw), &[-9.0, 99.0, 0.0]);
    check(bounded(GapScale::Log1p), &[-9.0, 100f64.ln(), 0.0]);
    check(bounded(GapScale::LogStandard), &[-9.0, (99f64.ln() - 1.0) / 2.0, (0.5f64.ln() - 1.0) / 2.0]);
    check(Spec::IsFirst {}, &[1.0, 0.0, 0.0]);
    check(numeric(NumericScale::Identity, Some([-5.0, 11.0])), &[11.0, 0.0, -1.0, 1.0, -5.0, 0.0]);
    check(numeric(NumericScale::Standardise, None), &[1.0, 0.0, -1.0, 1.0, f64::from(f32::MIN), 0.0]);
    check(numeric(NumericScale::Log1p, None), &[13f64.ln(), 0.0, -1.0, 1.0, -(1e300f64.ln_1p()), 0.0]);
    check(category(Encoding::OneHot, true), &[0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
    check(category(Encoding::OneHot, false), &[0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    check(category(Encoding::Index, true), &[1.0, 2.0, 2.0]);
    check(category(Encoding::Index, false), &[1.0, -1.0, -1.0]);
    check(Spec::Calendar { cycle: Cycle::Hour, zone: "UTC".into() }, &{
        let (s, c) = (std::f64::consts::TAU / 24.0).sin_cos();
        [0.0, 1.0, s, c, s, c]
    });
}

#[test]
fn an_infinite_number_is_a_missing_one() {
    let events = events(&[(0, f64::INFINITY, None), (1, f64::NEG_INFINITY, None), (2, f64::NAN, None)]);
    let gaps = [None, Some(Gap(1)), Some(Gap(1))];
    for scale in [NumericScale::Identity, NumericScale::Log1p, NumericScale::Standardise] {
        for clip in [None, Some([-5.0, 11.0])] {
            assert_eq!(rows(vec![numeric(scale, clip)], &events, &gaps), [-1.0, 1.0, -1.0, 1.0, -1.0, 1.0], "{scale:?} {clip:?}");
        }
    }
}

#[test]
fn decaying_columns_agree_with_their_closed_form_and_do_not_see_the_event_itself() {
    let half_life = 3600.0;
    let times = [0i64, 10, 1800, 1800, 9000, 90_000];
    let amounts = [5.0, f64::NAN, 2.0, -4.0, 8.0, 1.0];
    let table: Vec<_> = times.iter().zip(amounts).map(|(t, a)| (t * 1_000_000, a, None)).collect();
    let gaps: Vec<_> = std::iter::once(None).chain(times.windows(2).map(|w| Some(Gap((w[1] - w[0]) * 1_000_000)))).collect();
    let spec = |statistic| Spec::Decay { field: Some("amount".into()), statistic, half_life: "1h".into(), scale: DecayScale::Identity };
    let got = rows(vec![spec(Statistic::Count), spec(Statistic::Sum), spec(Statistic::Mean)], &events(&table), &gaps);
    for (i, row) in got.chunks_exact(3).enumerate() {
        let weight = |j: usize| (-((times[i] - times[j]) as f64) / half_life).exp2();
        let count: f64 = (0..i).map(weight).sum();
        let sum: f64 = (0..i).filter(|j| !amounts[*j].is_nan()).map(|j| weight(j) * amounts[j]).sum();
        let known: f64 = (0..i).filter(|j| !amounts[*j].is_nan()).map(weight).sum();
        let mean = if known > 0.0 { sum / known } else { 0.0 };
        for (got, expected) in row.iter().zip([count, sum, mean]) {
            assert!((f64::from(*got) - expected).abs() <= 1e-6 * expected.abs().max(1.0), "event {i}: {row:?}");
        }
    }
}

#[test]
fn a_deviation_is_that_from_the_earlier_readings_and_mean_and_spread_are_those_after_it() {
    let readings = [10.0, 12.0, f64::NAN, 11.0, 14.0];
    let events = events(&readings.iter().enumerate().map(|(i, v)| (i as i64, *v, None)).collect::<Vec<_>>());
    let gaps: Vec<_> = (0..5).map(|i| (i > 0).then_some(Gap(1))).collect();
    let spec = Spec::Deviation { field: "amount".into(), transform: crate::data::value::Transform::Identity, memory: 2, floor: 0.01 };
    let got = rows(vec![spec, Spec::Constant { value: 7.0 }], &events, &gaps);
    // The slow way: weights 2^(-age / 2) over all readings so far.
    let moments = |upto: usize| {
        let known: Vec<f64> = readings[..upto].iter().copied().filter(|v| !v.is_nan()).collect();
        let weight = |i: usize| 0.5_f64.powf((known.len() - 1 - i) as f64 / 2.0);
        let all: f64 = (0..known.len()).map(weight).sum();
        let mean = known.iter().enumerate().map(|(i, v)| weight(i) * v).sum::<f64>() / all;
        let variance = known.iter().enumerate().map(|(i, v)| weight(i) * (v - mean) * (v - mean)).sum::<f64>() / all;
        (mean, (variance + (0.1 * mean / all).powi(2) + 1e-4).sqrt())
    };
    for (row, cells) in got.chunks(4).enumerate() {
        let (mean, spread) = moments(row + 1);
        let deviation = if row == 0 || readings[row].is_nan() { 0.0 } else { (readings[row] - moments(row).0) / moments(row).1 };
        for (cell, expected) in cells.iter().zip([deviation, mean, spread.ln(), 7.0]) {
            assert!((f64::from(*cell) - expected).abs() < 1e-6 * expected.abs().max(1.0), "row {row}: {cells:?} {expected}");
        }
    }
}
