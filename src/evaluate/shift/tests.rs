use super::*;
use crate::base::time::Gap;
use crate::base::time::TimeUnit;
use crate::data::law::LawSpec;
use proptest::prelude::*;

fn field(name: &str, id: FieldId) -> Field {
    Field { name: name.to_owned(), id }
}

fn pair<'a>(key: &'a str, hash: u64, before: &'a [f64], after: &'a [f64], label: f64) -> Pair<'a> {
    Pair { key: key.as_bytes(), time: EventTime(0).after(Gap(hash as i64)), hash, label, before, after }
}

#[test]
fn decisions_losses_and_means_are_those_counted_by_hand() {
    let fields = vec![field("score", FieldId::Score), field("surprise_time", FieldId::SurpriseTime)];
    let mut shift = Shift::new(Settings { fields, threshold: Some((0, 0.5)), top: 2 });
    shift.add(pair("a", 1, &[0.4, 1.0], &[0.6, 2.0], 1.0));
    shift.add(pair("b", 2, &[0.9, f64::NAN], &[0.1, 5.0], 0.0));
    shift.add(pair("c", 3, &[0.5, 3.0], &[0.5, 2.5], f64::NAN));
    let figures = shift.close();
    let decisions = figures.decisions.unwrap();
    assert_eq!((decisions.alerts_before, decisions.alerts_after, decisions.new_alerts, decisions.lost_alerts), (2, 2, 1, 1));
    let time = figures.likelihood.time.unwrap();
    assert_eq!((time.events, time.before, time.after, time.change), (2, 2.0, 2.25, 0.25));
    assert!((time.standard_error - (0.75_f64 / 2.0_f64.sqrt())).abs() < 1e-12);
    let label = figures.likelihood.label.unwrap();
    assert!((label.before - (-(0.4_f64.ln()) - 0.1_f64.ln()) / 2.0).abs() < 1e-12 && label.after < label.before);
    let score = &figures.fields[0];
    assert!((score.mean_absolute_change.unwrap() - 1.0 / 3.0).abs() < 1e-12 && score.psi.is_some());
    assert_eq!((figures.fields[1].before.values, figures.fields[1].after.values, figures.fields[1].psi), (2, 3, None));
    let top: Vec<&str> = figures.top.iter().map(|key| key.key.as_str()).collect();
    assert_eq!((figures.ranked_by.as_deref(), top), (Some("score"), vec!["b", "a"]));
}

#[test]
fn densities_are_put_into_one_unit_and_coarse_clocks_are_not_mixed() {
    let law = |unit, resolution| LawSpec { resolution, ..LawSpec::new(&["o"], unit, 0.001) };
    let (hours, seconds) = (law(TimeUnit::Hour, None), law(TimeUnit::Second, None));
    let units = Units::between(Some(&hours), Some(&seconds));
    // Exponential of one an hour, at 1 h: density per hour e^-1, per second e^-1 / 3600.
    let converted = units.convert(FieldId::SurpriseTime, 1.0 + 3600.0_f64.ln());
    assert!((converted - 1.0).abs() < 1e-12, "{converted}");
    assert!((units.convert(FieldId::IntensityNow, 1.0 / 3600.0) - 1.0).abs() < 1e-12);
    assert!(!Units::between(Some(&hours), Some(&law(TimeUnit::Hour, Some(1.0)))).has(FieldId::SurpriseTime));
    let days = Units::between(Some(&law(TimeUnit::Hour, Some(24.0))), Some(&law(TimeUnit::Day, Some(1.0))));
    assert_eq!(days.convert(FieldId::SurpriseTime, 2.0), 2.0);
}

proptest! {
    #[test]
    fn the_keys_named_are_those_of_the_largest_changes(
        events in prop::collection::vec((0u8..12, -50i32..50), 1..120), top in 1usize..6
    ) {
        let mut shift = Shift::new(Settings { fields: vec![field("score", FieldId::Score)], threshold: None, top });
        let mut largest = std::collections::BTreeMap::<String, i32>::new();
        for (i, (key, change)) in events.iter().enumerate() {
            let key = format!("k{key}");
            shift.add(pair(&key, i as u64, &[0.0], &[f64::from(*change)], f64::NAN));
            let of = largest.entry(key).or_insert(0);
            *of = (*of).max(change.abs());
        }
        let mut expected: Vec<i32> = largest.into_values().filter(|change| *change > 0).collect();
        expected.sort_unstable_by(|a, b| b.cmp(a));
        expected.truncate(top);
        let found: Vec<i32> = shift.close().top.iter().map(|key| key.change.abs() as i32).collect();
        prop_assert_eq!(found, expected);
    }
}
