use std::sync::Arc;

use rand::SeedableRng;
use rand::distr::{Distribution, Uniform as Draws};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::base::offset::{Offset, Partition};
use crate::data::flags::Flags;
use crate::data::forecasts::{Identity, MarkChance};

const HOUR: i64 = 3_600_000_000;

fn settings(coarse: bool) -> Settings {
    Settings {
        unit: Some(TimeUnit::Hour),
        min_gap: 1e-6 / 3600.0,
        coarse,
        joint: false,
        quantiles: vec![0.1, 0.5, 0.9],
        horizons: vec![("1h".to_owned(), Gap(HOUR))],
        marks: vec!["a".to_owned(), "b".to_owned()],
        value: None,
        k: 2,
    }
}

/// Gaps of a Poisson process of one event an hour and key, with forecasts of a rate of `rate`: marks a and b, three to one.
fn poisson(keys: usize, events: usize, rate: f64) -> (Forecasts, Vec<Option<u32>>) {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let unit = Draws::new(0.0_f64, 1.0).unwrap();
    let identity = Identity { quantiles: vec![0.1, 0.5, 0.9], horizons: vec!["1h".to_owned()], ..Identity::default() };
    let mut f = Forecasts { marks_per_row: 1, ..Forecasts::new(Arc::new(identity)) };
    let mut clocks = vec![0_i64; keys];
    let mut marks = Vec::new();
    for n in 0..keys * events {
        let key = (0..keys).min_by_key(|key| clocks[*key]).unwrap();
        let gap = -unit.sample(&mut random).ln();
        let first = clocks[key] == 0;
        clocks[key] += (gap * HOUR as f64) as i64;
        let now = clocks[key];
        f.keys.push(key.to_string().as_bytes());
        f.event_times.push(EventTime(now));
        f.partitions.push(Partition(0));
        f.offsets.push(Offset(n as i64));
        f.n_events.push(2);
        f.gap_s.push(if first { f64::NAN } else { gap * 3600.0 });
        f.residual.push(if first { f64::NAN } else { rate * gap });
        f.surprise_time.push(if first { f64::NAN } else { rate * gap - rate.ln() });
        let mark = u32::from(unit.sample(&mut random) > 0.75);
        f.surprise_mark.push(if first { f64::NAN } else { -[0.75_f64, 0.25][mark as usize].ln() });
        f.score.push(f64::NAN);
        for (column, q) in f.next_times.iter_mut().zip([0.1_f64, 0.5, 0.9]) {
            column.push(Some(EventTime(now + (-(1.0 - q).ln() / rate * HOUR as f64) as i64)));
        }
        f.p_within[0].push(1.0 - (-rate).exp());
        f.next_marks.push(MarkChance { mark: 0, p: 0.75 });
        f.flags.push(Flags::NONE);
        marks.push(Some(mark));
    }
    (f, marks)
}

fn evaluate(f: &Forecasts, marks: &[Option<u32>], coarse: bool) -> Report {
    let mut evaluation = Evaluation::new(settings(coarse));
    evaluation.add(&Batch { forecasts: f, marks, values: &[], labels: &[], counted: &vec![true; f.len()] });
    evaluation.close()
}

#[test]
fn a_true_law_is_found_to_be_one() {
    let (f, marks) = poisson(20, 1000, 1.0);
    let report = evaluate(&f, &marks, false);
    let time = report.time.unwrap();
    assert_eq!((report.events, report.keys, report.first, time.scored), (20_000, 20, 20, 19_980));
    assert!((time.nll - 1.0).abs() < 0.03 && time.nll >= time.constant_rate.unwrap() - 1e-9, "{time:?}");
    assert!(time.residuals.ks < time.residuals.ks_bound, "{:?}", time.residuals);
    for q in &time.quantiles {
        assert!((q.coverage - q.quantile).abs() < 0.01, "{q:?}");
    }
    let horizon = &time.horizons[0];
    assert!((horizon.mean_p - horizon.rate).abs() < 0.01 && (horizon.brier - horizon.brier_rate).abs() < 1e-3, "{horizon:?}");
    // The mean distance of Exp(1) from its median is ln 2.
    assert!((time.next_time.mae_s / 3600.0 - std::f64::consts::LN_2).abs() < 0.02, "{:?}", time.next_time);
    let marks = report.marks.unwrap();
    assert!((marks.accuracy - 0.75).abs() < 0.01 && (marks.log_loss - 0.5623).abs() < 0.01);
    assert_eq!((marks.by_mark[0].recall, marks.by_mark[1].recall), (1.0, 0.0));
    assert!(marks.by_mark.iter().all(|mark| mark.ks.unwrap() < mark.ks_bound));
    assert!(time.residuals.calibration.iter().all(|(p, share)| (p - share).abs() < 0.02));
}

#[test]
fn a_mark_that_depends_on_the_gap_is_not_judged_by_the_gaps_that_end_with_it() {
    // Two Poisson processes of one key: the gap says nothing here, but of a joint law nobody knows that.
    let (f, marks) = poisson(20, 100, 1.0);
    let mut evaluation = Evaluation::new(Settings { joint: true, ..settings(false) });
    evaluation.add(&Batch { forecasts: &f, marks: &marks, values: &[], labels: &[], counted: &vec![true; f.len()] });
    let report = evaluation.close();
    assert!(report.marks.as_ref().unwrap().by_mark.iter().all(|mark| mark.ks.is_none() && mark.log_loss > 0.0));
    let mut shown = Vec::new();
    text::write(&mut shown, &report).unwrap();
    let shown = String::from_utf8(shown).unwrap();
    assert!(!shown.contains(" *") && shown.contains("KS by mark is left out"), "{shown}");
}

#[test]
fn a_key_counts_if_its_last_event_does() {
    let (f, marks) = poisson(3, 5, 1.0);
    let counted: Vec<bool> = (0..f.len()).map(|row| f.keys.bytes_at(row) != b"1" || row < 4).collect();
    let mut evaluation = Evaluation::new(settings(false));
    evaluation.add(&Batch { forecasts: &f, marks: &marks, values: &[], labels: &[], counted: &counted });
    assert_eq!(["0", "1", "2", "3"].map(|key| evaluation.counts(key.as_bytes())), [true, false, true, false]);
}

#[test]
fn a_wrong_law_is_caught() {
    let (f, marks) = poisson(20, 500, 2.0);
    let time = evaluate(&f, &marks, false).time.unwrap();
    assert!(time.residuals.ks > 0.2 && (time.residuals.mean - 2.0).abs() < 0.1, "{:?}", time.residuals.ks);
    assert!(time.nll > time.constant_rate.unwrap() + 0.2);
    assert!(time.quantiles.iter().all(|q| q.coverage < q.quantile), "{:?}", time.quantiles);
}

#[test]
fn a_true_law_of_a_coarse_clock_is_found_to_be_one_by_what_its_head_says() {
    use crate::data::law::{HeadSpec, LawSpec};
    // Poisson events of one a day, and a log-normal law, shown in whole days.
    let day = 24 * HOUR;
    let horizons = [("1d", day), ("2d", 2 * day), ("36h", 36 * HOUR)].map(|(name, micros)| (name.to_owned(), Gap(micros))).to_vec();
    let spec = || LawSpec { resolution: Some(24.0), ..LawSpec::new(&["law"], TimeUnit::Hour, 24e-6) };
    let mut random = ChaCha8Rng::seed_from_u64(9);
    let unit = Draws::new(0.0_f64, 1.0).unwrap();
    let normal = |random: &mut ChaCha8Rng| {
        let (u, v): (f64, f64) = (unit.sample(random).max(1e-300), unit.sample(random));
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    };
    let exponential = HeadSpec::Exponential(spec());
    let log_normal = HeadSpec::LognormalMixture(LawSpec { components: Some(1), ..spec() });
    for (head, row) in [(exponential, vec![-(24.0_f32.ln())]), (log_normal, vec![0.0, 3.8, -0.3])] {
        let asks = crate::head::Asks { horizons: horizons.iter().map(|(_, gap)| *gap).collect(), ..Default::default() };
        let n = 20_000;
        let gaps: Vec<Option<Gap>> = (0..=n)
            .map(|i| {
                let days = match row.len() {
                    1 => -unit.sample(&mut random).max(1e-300).ln(),
                    _ => (3.8 + (-0.3_f64).exp() * normal(&mut random)).exp() / 24.0,
                };
                (i > 0).then_some(Gap(days.round() as i64 * day))
            })
            .collect();
        let times: Vec<EventTime> = gaps
            .iter()
            .scan(0, |now, gap| {
                *now += gap.map_or(0, |gap| gap.0);
                Some(EventTime(*now))
            })
            .collect();
        let laws: Vec<f32> = times.iter().flat_map(|_| row.clone()).collect();
        let outputs = crate::data::outputs::Outputs { width: row.len(), before: laws.clone(), after: laws, kept: Vec::new() };
        let identity = Identity { horizons: horizons.iter().map(|(name, _)| name.clone()).collect(), ..Identity::default() };
        let mut f = Forecasts::new(Arc::new(identity));
        for (i, (time, gap)) in times.iter().zip(&gaps).enumerate() {
            f.keys.push(b"k");
            f.event_times.push(*time);
            f.partitions.push(Partition(0));
            f.offsets.push(Offset(i as i64));
            f.gap_s.push(gap.map_or(f64::NAN, |gap| gap.seconds()));
            f.flags.push(Flags::NONE);
        }
        let arrivals = crate::head::Arrivals { times: &times, gaps: &gaps, marks: &vec![None; n + 1], values: &[] };
        crate::head::Head::new(&head, asks).unwrap().forecasts(&arrivals, &outputs, &mut f);
        let settings = Settings { quantiles: Vec::new(), horizons: horizons.clone(), marks: Vec::new(), ..settings(true) };
        let mut evaluation = Evaluation::new(settings);
        evaluation.add(&Batch { forecasts: &f, marks: &[], values: &[], labels: &[], counted: &[] });
        let time = evaluation.close().time.unwrap();
        assert!(time.residuals.ks < time.residuals.ks_bound, "{head:?} {}", time.residuals.ks);
        for horizon in &time.horizons {
            assert!((horizon.mean_p - horizon.rate).abs() < 0.01, "{head:?} {horizon:?}");
        }
    }
}

#[test]
fn residuals_of_a_coarse_clock_are_spread_over_their_tick() {
    // Gaps of a geometric law: 1, 2, 3.. ticks with probability 1/2, 1/4, 1/8..; the law gives tick i the interval from 1 - 2^-(i-1) to 1 - 2^-i.
    let mut evaluation = Evaluation::new(Settings { quantiles: Vec::new(), horizons: Vec::new(), marks: Vec::new(), ..settings(true) });
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let unit = Draws::new(0.0_f64, 1.0).unwrap();
    let mut f = Forecasts::default();
    for n in 0..20_000 {
        let tick = (-unit.sample(&mut random).log2()).ceil().max(1.0);
        f.keys.push(b"k");
        f.event_times.push(EventTime(n));
        f.partitions.push(Partition(0));
        f.offsets.push(Offset(n));
        f.gap_s.push(tick);
        f.surprise_time.push(tick * std::f64::consts::LN_2);
        // The middle of the tick's interval.
        f.residual.push(-(1.5 * 0.5_f64.powf(tick)).ln());
        f.flags.push(Flags::NONE);
    }
    evaluation.add(&Batch { forecasts: &f, marks: &[], values: &[], labels: &[], counted: &vec![true; f.len()] });
    let time = evaluation.close().time.unwrap();
    assert!(time.residuals.ks < time.residuals.ks_bound, "{:?}", time.residuals);
    assert!(time.constant_rate.is_none());
}

#[test]
fn what_does_not_count_still_ends_the_law_before_it() {
    let (f, marks) = poisson(5, 400, 1.0);
    let half = f.event_times[f.len() / 2];
    let counted: Vec<bool> = f.event_times.iter().map(|time| *time < half).collect();
    let mut evaluation = Evaluation::new(settings(false));
    evaluation.add(&Batch { forecasts: &f, marks: &marks, values: &[], labels: &[], counted: &counted });
    let report = evaluation.close();
    let time = report.time.unwrap();
    assert_eq!(report.events, counted.iter().filter(|counted| **counted).count());
    // All counted laws have ended within the data: as many are judged as there are.
    assert!(time.quantiles.iter().all(|q| q.laws == report.events), "{:?}", time.quantiles);
}

#[test]
fn batches_change_no_figure_and_the_page_holds_all_plots() {
    let (f, marks) = poisson(7, 200, 1.3);
    let whole = evaluate(&f, &marks, false);
    let mut evaluation = Evaluation::new(settings(false));
    for row in 0..f.len() {
        let keep: Vec<bool> = (0..f.len()).map(|other| other == row).collect();
        let mut one = f.clone();
        one.retain(&keep);
        evaluation.add(&Batch { forecasts: &one, marks: &marks[row..=row], values: &[], labels: &[], counted: &[true] });
    }
    assert_eq!(evaluation.close(), whole);
    let page = html::page(&whole);
    assert_eq!(page.matches("<svg").count(), 4, "calibration, PIT, QQ, one horizon");
    assert!(!page.contains("NaN") && !page.contains("<script") && !page.contains("http"));
}

#[test]
fn figures_of_values_are_those_of_their_law() {
    // Logistic values under the logistic law: F = u, density u (1 - u), quantile ln(q / (1 - q)).
    let quantiles = [0.1_f64, 0.5, 0.9];
    let identity = Identity { value_quantiles: Some(quantiles.to_vec()), ..Identity::default() };
    let mut f = Forecasts::new(Arc::new(identity));
    let mut random = ChaCha8Rng::seed_from_u64(9);
    let unit = Draws::new(0.0_f64, 1.0).unwrap();
    let mut values = Vec::new();
    for n in 0..20_000 {
        let (u, first, missing) = (unit.sample(&mut random), n < 2, n % 10 == 9);
        f.keys.push(if n % 2 == 0 { b"a" } else { b"b" });
        f.event_times.push(EventTime(n));
        f.gap_s.push(if first { f64::NAN } else { 1.0 });
        let residual = if first { f64::NAN } else { -unit.sample(&mut random).ln() };
        f.residual.push(residual);
        f.surprise_time.push(residual);
        let scored = |value: f64| if first || missing { f64::NAN } else { value };
        f.surprise_value.push(scored(-(u * (1.0 - u)).ln()));
        f.residual_value.push(scored(u));
        values.push(if missing { f64::NAN } else { (u / (1.0 - u)).ln() });
        f.next_values.iter_mut().zip(quantiles).for_each(|(column, q)| column.push((q / (1.0 - q)).ln()));
        f.flags.push(Flags::NONE);
    }
    let of = Values { field: "v".to_owned(), quantiles: quantiles.to_vec() };
    let settings = Settings { quantiles: Vec::new(), horizons: Vec::new(), marks: Vec::new(), value: Some(of), ..settings(false) };
    let mut evaluation = Evaluation::new(settings);
    evaluation.add(&Batch { forecasts: &f, marks: &[], values: &values, labels: &[], counted: &vec![true; f.len()] });
    let report = evaluation.close();
    let value = report.value.clone().unwrap();
    assert_eq!((value.scored, value.missing), (17_998, 2_000));
    // The entropy of the logistic law is 2, the mean distance from its median 2 ln 2, its deviation pi / sqrt 3.
    assert!((value.nll - 2.0).abs() < 0.02 && (value.mae - 2.0 * std::f64::consts::LN_2).abs() < 0.03, "{value:?}");
    assert!((value.rmse - std::f64::consts::PI / 3.0_f64.sqrt()).abs() < 0.04 && value.ks < value.ks_bound, "{value:?}");
    assert!(value.quantiles.iter().all(|q| (q.quantile - q.coverage).abs() < 0.01), "{value:?}");
    let page = html::page(&report);
    assert!(page.contains("Is the law of the value right?") && !page.contains("NaN"));
    let mut text = Vec::new();
    text::write(&mut text, &report).unwrap();
    assert!(String::from_utf8(text).unwrap().contains("value of `v` of the next event (17998 values"));
}

#[test]
fn labelled_events_of_a_law_are_ranked_by_how_unusual_they_were() {
    let mut f = Forecasts::default();
    let mut random = ChaCha8Rng::seed_from_u64(4);
    let unit = Draws::new(0.0_f64, 1.0).unwrap();
    let mut labels = Vec::new();
    for n in 0..6_000 {
        // The surprises of key b are ten times those of key a: only within a key they say anything.
        let (b, odd) = (n % 2 == 1, n > 400 && n % 301 == 0);
        f.keys.push(if b { b"b" } else { b"a" });
        f.event_times.push(EventTime(n));
        f.gap_s.push(1.0);
        let scale = if b { 10.0 } else { 1.0 };
        f.surprise_time.push(scale * unit.sample(&mut random));
        f.surprise_value.push(if odd { 3.0 * scale } else { 0.0 });
        f.flags.push(Flags::NONE);
        labels.push(f64::from(u8::from(odd)));
    }
    let mut evaluation = Evaluation::new(Settings { quantiles: Vec::new(), horizons: Vec::new(), marks: Vec::new(), ..settings(false) });
    evaluation.add(&Batch { forecasts: &f, marks: &[], values: &[], labels: &labels, counted: &vec![true; f.len()] });
    let report = evaluation.close();
    let ranked = report.score.clone().unwrap();
    assert!(ranked.positive == 18 && ranked.average_precision > 0.95, "{ranked:?}");
    let mut text = Vec::new();
    text::write(&mut text, &report).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("unusual: surprise against the label") && !text.contains("Brier   "), "{text}");
}

#[test]
fn the_best_constant_rate_is_judged_with_the_gaps_that_the_law_is_judged_with() {
    let (f, marks) = poisson(5, 400, 1.0);
    let mut evaluation = Evaluation::new(Settings { min_gap: 0.5, ..settings(false) });
    evaluation.add(&Batch { forecasts: &f, marks: &marks, values: &[], labels: &[], counted: &vec![true; f.len()] });
    let taken: Vec<f64> = f.gap_s.iter().filter(|gap| !gap.is_nan()).map(|gap| (gap / 3600.0).max(0.5)).collect();
    let mean = taken.iter().sum::<f64>() / taken.len() as f64;
    let found = evaluation.close().time.unwrap().constant_rate.unwrap();
    assert!((found - (1.0 + mean.ln())).abs() < 1e-9, "{found} {mean}");
}
