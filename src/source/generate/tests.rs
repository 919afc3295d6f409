use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::*;
use crate::base::time::Gap;

fn settings(stream: Stream, events: u64, keys: u32, seed: u64) -> GenerateSettings {
    GenerateSettings { stream, events, keys, seed }
}

fn digest(settings: &GenerateSettings) -> String {
    let (mut generator, mut hash, mut payload, mut key) = (stream(settings), Sha256::new(), Vec::new(), Vec::new());
    while generator.next_into(&mut payload, &mut key).is_some() {
        hash.update(&payload);
        hash.update(b"\n");
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Largest distance between the empirical distribution of residuals and Exp(1).
fn kolmogorov_smirnov(mut residuals: Vec<f64>) -> f64 {
    residuals.sort_by(f64::total_cmp);
    let n = residuals.len() as f64;
    let distance = |(i, r): (usize, &f64)| {
        let p = 1.0 - (-r).exp();
        (p - i as f64 / n).max((i as f64 + 1.0) / n - p)
    };
    residuals.iter().enumerate().map(distance).fold(0.0, f64::max)
}

fn passes(residuals: Vec<f64>) {
    assert_eq!(residuals.len(), 20_000);
    let bound = 1.63 / (residuals.len() as f64).sqrt();
    let distance = kolmogorov_smirnov(residuals);
    assert!(distance < bound, "distance {distance}, bound {bound}");
}

/// The first `per_key` residuals of each of `keys` keys: taking the first n of the stream instead would favour short gaps.
fn first_of_each(keys: usize, per_key: usize, mut next: impl FnMut() -> Option<(u32, f64)>) -> Vec<f64> {
    let mut found: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    let mut complete = 0;
    while complete < keys {
        if let Some((key, residual)) = next() {
            let list = found.entry(key).or_default();
            if list.len() < per_key {
                list.push(residual);
                complete += usize::from(list.len() == per_key);
            }
        }
    }
    found.into_values().flatten().collect()
}

#[test]
fn the_same_seed_gives_these_bytes_on_every_machine() {
    let digests = Stream::ALL.map(|stream| digest(&settings(stream, 20_000, 300, 7)));
    assert_eq!(digests, ["7c5025ea67b914b2", "fa17016c1c2927df", "78c76cbd5e1ea4bf"]);
    for stream in Stream::ALL {
        assert_eq!(digest(&settings(stream, 2000, 50, 3)), digest(&settings(stream, 2000, 50, 3)));
        assert_ne!(digest(&settings(stream, 2000, 50, 3)), digest(&settings(stream, 2000, 50, 4)));
    }
}

#[test]
fn a_stream_is_in_order_of_time_has_unique_ids_and_the_number_of_events_asked_for() {
    for (stream_kind, id) in [(Stream::Cards, "id"), (Stream::Visits, "visit"), (Stream::Telemetry, "id")] {
        let (mut last, mut ids, mut keys) = (START, BTreeSet::new(), BTreeSet::new());
        let mut generator = stream(&settings(stream_kind, 30_000, 100, 5));
        let (mut payload, mut key) = (Vec::new(), Vec::new());
        while let Some(time) = generator.next_into(&mut payload, &mut key) {
            assert!(time >= last);
            last = time;
            let json: serde_json::Value = serde_json::from_slice(&payload).unwrap();
            assert!(ids.insert(json[id].as_str().unwrap().to_owned()), "{json}");
            keys.insert(key.clone());
        }
        assert_eq!((ids.len(), keys.len()), (30_000, 100));
        assert!(payload.is_empty() && key.is_empty());
    }
}

#[test]
fn a_record_says_in_json_what_the_event_is() {
    let lines = Stream::ALL.map(|stream_kind| {
        let (mut payload, mut key) = (Vec::new(), Vec::new());
        stream(&settings(stream_kind, 1, 10, 1)).next_into(&mut payload, &mut key).unwrap();
        String::from_utf8(payload).unwrap()
    });
    let fields = |line: &str| serde_json::from_str::<BTreeMap<String, serde_json::Value>>(line).unwrap().into_keys().collect::<Vec<_>>();
    assert_eq!(fields(&lines[0]), ["amount", "card", "channel", "fraud", "id", "mcc", "ts"]);
    assert_eq!(fields(&lines[1]), ["admitted", "age", "diagnosis", "los_days", "patient", "visit"]);
    assert_eq!(fields(&lines[2]), ["battery", "device", "id", "status", "temperature", "ts"]);
    let visit = stream(&settings(Stream::Visits, 1, 10, 1)).next().unwrap();
    assert!(lines[1].contains(&format!("\"admitted\":\"{}\"", visit.time().to_string().replace(".000000", ""))), "{}", lines[1]);
    let payment = stream(&settings(Stream::Cards, 1, 10, 1)).next().unwrap();
    assert!(lines[0].contains(&format!("\"ts\":{},", payment.time().0 / 1000)), "{}", lines[0]);
}

#[test]
fn residuals_of_genuine_payments_are_exponential() {
    let mut cards = cards::Cards::new(400, 11);
    let rhythm = cards::Rhythm::default();
    let mut last: BTreeMap<u32, EventTime> = BTreeMap::new();
    passes(first_of_each(400, 50, || {
        let payment = cards.next_payment()?;
        if payment.fraud {
            return None;
        }
        let before = last.insert(payment.card, payment.time)?;
        Some((payment.card, rhythm.residual(cards.class(payment.card)?, before, payment.time)))
    }));
}

#[test]
fn the_density_of_the_next_payment_integrates_to_what_survival_loses() {
    let rhythm = cards::Rhythm::default();
    let last = START.after(Gap(5 * 3_600_000_000 + 17));
    for class in cards::CLASSES {
        let mut sum = 0.0;
        for minute in 0..(48 * 60) {
            // Midpoint rule; hours are whole numbers of minutes but for the 17 us.
            sum += 60.0 * rhythm.density(class, last, last.after(Gap(minute * 60_000_000 + 30_000_000)));
        }
        let lost = 1.0 - rhythm.survival(class, last, last.after(Gap(48 * 3_600_000_000)));
        assert!((sum - lost).abs() < 1e-5, "{sum} {lost}");
    }
}

#[test]
fn operational_time_and_its_inverse_agree_and_a_day_is_a_day() {
    let rhythm = cards::Rhythm::default();
    assert!((cards::PROFILE.iter().sum::<f64>() - 24.0).abs() < 1e-12);
    for seconds in [0.0, 1.0, 3599.0, 3600.0, 50_000.0, 86_399.5, 86_400.0, 1e7 + 0.25] {
        assert!((rhythm.seconds(rhythm.operational(seconds)) - seconds).abs() < 1e-6, "{seconds}");
    }
    assert!((rhythm.operational(3.0 * 86_400.0) - 3.0 * 86_400.0).abs() < 1e-6);
}

#[test]
fn residuals_of_visits_are_exponential_by_a_slow_sum_over_all_earlier_visits() {
    let mut visits = visits::Visits::new(200, 12);
    let mut history: BTreeMap<u32, Vec<(f64, usize)>> = BTreeMap::new();
    passes(first_of_each(200, 100, || {
        let visit = visits.next_visit()?;
        let frailty = visits.frailty(visit.patient)?;
        let past = history.entry(visit.patient).or_default();
        let now = visit.time.since(START).seconds() / 86_400.0;
        let last = past.last().map_or(0.0, |(time, _)| *time);
        let children = |mark: usize| visits::CHILDREN[mark].iter().sum::<f64>();
        let excited: f64 = past
            .iter()
            .map(|(time, mark)| children(*mark) * ((-visits::DECAY * (last - time)).exp() - (-visits::DECAY * (now - time)).exp()))
            .sum();
        past.push((now, visit.diagnosis));
        Some((visit.patient, frailty * visits::BASE.iter().sum::<f64>() * (now - last) + excited))
    }));
}

#[test]
fn the_closed_forms_of_the_visit_law_agree_with_each_other() {
    let mut law = visits::Law::new(2.5);
    law.visit(3, 4.0);
    law.visit(0, 1.5);
    let total = |days: f64| law.intensities(days).iter().sum::<f64>();
    let integral: f64 = (0..20_000).map(|i| 0.001 * total((f64::from(i) + 0.5) * 0.001)).sum();
    assert!((integral - law.compensator(20.0)).abs() < 1e-7);
    assert!((law.log_intensity(4, 2.0).unwrap() - law.intensities(2.0)[4].ln()).abs() < 1e-12);
    assert_eq!(law.log_intensity(10, 2.0), None);
}

#[test]
fn diagnoses_follow_the_intensities() {
    let mut visits = visits::Visits::new(50, 13);
    let mut laws: BTreeMap<u32, (visits::Law, f64)> = BTreeMap::new();
    let (mut expected, mut found, n) = ([0.0; visits::MARKS], [0.0; visits::MARKS], 40_000);
    for _ in 0..n {
        let visit = visits.next_visit().unwrap();
        let now = visit.time.since(START).seconds() / 86_400.0;
        let frailty = visits.frailty(visit.patient).unwrap();
        let (law, last) = laws.entry(visit.patient).or_insert_with(|| (visits::Law::new(frailty), 0.0));
        let intensities = law.intensities(now - *last);
        let total = intensities.iter().sum::<f64>();
        expected.iter_mut().zip(intensities).for_each(|(sum, intensity)| *sum += intensity / total);
        found[visit.diagnosis] += 1.0;
        law.visit(visit.diagnosis, now - *last);
        *last = now;
    }
    for (expected, found) in expected.iter().zip(found) {
        // Four standard deviations of a count.
        assert!((expected - found).abs() < 4.0 * expected.sqrt(), "{expected} {found}");
    }
}

#[test]
fn residuals_of_heartbeats_are_exponential() {
    let mut telemetry = telemetry::Telemetry::new(200, 14);
    let mut last: BTreeMap<u32, EventTime> = BTreeMap::new();
    passes(first_of_each(200, 100, || {
        let beat = telemetry.next_beat()?;
        let before = last.insert(beat.device, beat.time)?;
        let period = telemetry.device(beat.device)?.period(before);
        Some((beat.device, -telemetry::survival(period, beat.time.since(before).seconds()).ln()))
    }));
}

#[test]
fn a_boot_follows_an_outage_and_nothing_else_does() {
    let mut telemetry = telemetry::Telemetry::new(50, 15);
    let mut last: BTreeMap<u32, EventTime> = BTreeMap::new();
    let (mut boots, n) = (0, 50_000);
    for _ in 0..n {
        let beat = telemetry.next_beat().unwrap();
        assert!((0..=100).contains(&beat.battery) && (-2000..12_000).contains(&beat.temperature), "{beat:?}");
        let before = last.insert(beat.device, beat.time);
        boots += u32::from(beat.status == telemetry::Status::Boot);
        if let (Some(before), true) = (before, beat.status != telemetry::Status::Boot) {
            let period = telemetry.device(beat.device).unwrap().period(before);
            assert!(beat.time.since(before).seconds() < 1.06 * period);
        }
    }
    let share = f64::from(boots) / f64::from(n);
    assert!((share - telemetry::OUTAGE).abs() < 0.001, "{share}");
}

#[test]
fn fraud_is_rare_comes_in_bursts_on_the_web_and_is_dear() {
    let mut cards = cards::Cards::new(2000, 16);
    let (mut fraud, mut web, mut amount, mut genuine) = (0.0, 0.0, 0.0, 0.0);
    let (mut last, mut gaps) = (BTreeMap::new(), Vec::new());
    let n = 300_000;
    for _ in 0..n {
        let payment = cards.next_payment().unwrap();
        if payment.fraud {
            fraud += 1.0;
            web += f64::from(u8::from(payment.channel == 1));
            amount += payment.cents as f64;
            if let Some(before) = last.insert(payment.card, payment.time) {
                gaps.push(payment.time.since(before).seconds());
            }
        } else {
            genuine += payment.cents as f64;
        }
    }
    // A burst has 3 + 3 payments on average and every thousandth genuine payment starts one.
    let share = fraud / f64::from(n);
    assert!((0.004..0.008).contains(&share), "{share}");
    assert!((web / fraud - 0.9).abs() < 0.03);
    assert!(amount / fraud > 2.0 * genuine / (f64::from(n) - fraud));
    gaps.sort_by(f64::total_cmp);
    assert!(gaps[gaps.len() / 2] < 600.0);
}

#[test]
fn channels_are_chances() {
    for habit in [cards::Habit::Shops, cards::Habit::Web, cards::Habit::Cash] {
        for hour in 0..24 {
            assert!((cards::channels(habit, hour).iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
    }
}

#[test]
fn a_million_events_of_ten_thousand_keys_end_long_before_november_2026() {
    for (stream_kind, per_key) in [(Stream::Cards, 100), (Stream::Visits, 100), (Stream::Telemetry, 100)] {
        let last = stream(&settings(stream_kind, 300 * per_key, 300, 1)).last().unwrap().time();
        assert!(last < EventTime(1_780_000_000_000_000), "{stream_kind:?} {last}");
    }
}

#[test]
fn a_feed_without_keys_is_refused() {
    let error = GenerateFeed::open(&settings(Stream::Cards, 1, 0, 1)).unwrap_err();
    assert_eq!(error.exit_code(), 78);
}
