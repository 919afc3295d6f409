use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::base::time::TimeUnit;
use crate::data::forecasts::{Identity, MarkChance};

const HOUR: i64 = 3_600_000_000;

fn mixture_spec(components: usize, resolution: Option<f64>, marks: &[&str]) -> HeadSpec {
    let marks = marks.iter().map(|m| (*m).to_owned()).collect();
    HeadSpec::LognormalMixture(LawSpec { components: Some(components), resolution, marks, ..LawSpec::new(&["law"], TimeUnit::Hour, 0.001) })
}

fn score_spec(link: ScoreLink) -> HeadSpec {
    HeadSpec::Score { outputs: vec!["p".to_owned()], link, calibration: None }
}

fn asks(marks: usize) -> Asks {
    Asks { quantiles: vec![0.1, 0.5, 0.9], horizons: vec![Gap(HOUR), Gap(24 * HOUR)], marks, ..Asks::default() }
}

fn empty(asks: &Asks) -> Forecasts {
    let identity = Identity {
        quantiles: asks.quantiles.clone(),
        horizons: asks.horizons.iter().map(|h| h.seconds().to_string()).collect(),
        ..Identity::default()
    };
    Forecasts::new(Arc::new(identity))
}

/// One forecast per (time, gap, mark, before, after).
type Row = (EventTime, Option<Gap>, Option<u32>, Vec<f32>, Vec<f32>);

fn forecasts(head: &mut Head, asks: &Asks, rows: &[Row], batch: usize) -> Forecasts {
    let mut into = empty(asks);
    for rows in rows.chunks(batch) {
        let times: Vec<_> = rows.iter().map(|r| r.0).collect();
        let gaps: Vec<_> = rows.iter().map(|r| r.1).collect();
        let marks: Vec<_> = rows.iter().map(|r| r.2).collect();
        let outputs = Outputs {
            width: head.width(),
            before: if head.scores_arrivals() { rows.iter().flat_map(|r| r.3.clone()).collect() } else { Vec::new() },
            after: rows.iter().flat_map(|r| r.4.clone()).collect(),
            kept: Vec::new(),
        };
        into.flags.resize(into.flags.len() + rows.len(), Flags::NONE);
        let arrivals = Arrivals { times: &times, gaps: &gaps, marks: &marks, values: &[] };
        head.forecasts(&arrivals, &outputs, &mut into);
        if head.scores_arrivals() {
            // What is tried is judged as what was published.
            let first = into.surprise_time.len() - rows.len();
            for (row, [time, mark, value]) in head.surprises(&arrivals, &outputs.before).into_iter().enumerate() {
                assert_eq!(time.to_bits(), into.surprise_time[first + row].to_bits());
                assert_eq!(mark.to_bits(), into.surprise_mark[first + row].to_bits());
                assert!(value.is_nan());
            }
        }
    }
    into
}

/// All columns a head fills, as bits.
fn bits(f: &Forecasts) -> Vec<Vec<u64>> {
    let numbers = |column: &Vec<f64>| column.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let mut all: Vec<Vec<u64>> =
        [&f.surprise_time, &f.surprise_mark, &f.residual, &f.score, &f.p_never, &f.intensity_now].into_iter().map(numbers).collect();
    all.extend(f.p_within.iter().map(numbers));
    all.extend(f.next_times.iter().map(|c| c.iter().map(|t| t.map_or(u64::MAX, |t| t.0 as u64)).collect()));
    all.push(f.next_marks.iter().map(|c| (u64::from(c.mark) << 32) | u64::from(c.p.to_bits())).collect());
    all.push(f.flags.iter().map(|flag| u64::from(flag.has(Flags::NOT_FINITE))).collect());
    all
}

/// One component at 1 h with sigma 1, marks a : b = 3 : 1.
fn simple() -> Vec<f32> {
    vec![0.0, 0.0, 0.0, 3.0_f32.ln(), 0.0]
}

#[test]
fn a_law_gives_what_its_formulas_say() {
    let asks = asks(2);
    let mut head = Head::new(&mixture_spec(1, None, &["a", "b"]), asks.clone()).unwrap();
    assert!(head.scores_arrivals() && head.width() == 5);
    let time = EventTime(1_700_000_000_000_000);
    let f = forecasts(&mut head, &asks, &[(time, Some(Gap(HOUR)), Some(1), simple(), simple())], 1);
    let ln_sqrt_2pi = 0.5 * (2.0 * std::f64::consts::PI).ln();
    assert!((f.surprise_time[0] - ln_sqrt_2pi).abs() < 1e-15, "density of ln 1 = 0 over gap 1");
    assert!((f.residual[0] - 2.0_f64.ln()).abs() < 1e-15, "half of the law lies before its median");
    assert!((f.surprise_mark[0] - 4.0_f64.ln()).abs() < 1e-7);
    assert!(f.score[0].is_nan() && f.p_never[0] == 0.0);
    assert_eq!(f.next_times[1][0], Some(EventTime(time.0 + HOUR)));
    let q10 = (-1.281_551_565_544_600_5_f64).exp() * HOUR as f64;
    assert_eq!(f.next_times[0][0], Some(EventTime(time.0 + q10.round() as i64)));
    assert!((f.p_within[0][0] - 0.5).abs() < 1e-16);
    assert!((f.p_within[1][0] - 0.999_258_663_897_464_9).abs() < 1e-14, "Phi(ln 24)");
    let u = 0.001_f64.ln();
    let hazard = (-0.5 * u * u).exp() / (2.0 * std::f64::consts::PI).sqrt() / 0.001;
    assert!((f.intensity_now[0] / hazard - 1.0).abs() < 1e-9);
    assert_eq!(f.marks_per_row, 2);
    assert_eq!((f.next_marks[0].mark, f.next_marks[1].mark), (0, 1));
    assert!((f.next_marks[0].p - 0.75).abs() < 1e-6 && (f.next_marks[1].p - 0.25).abs() < 1e-6);
    assert!(f.flags[0].is_none());
}

#[test]
fn with_a_resolution_surprise_is_the_probability_of_the_clock_tick() {
    let asks = asks(0);
    let mut head = Head::new(&mixture_spec(1, Some(2.0), &[]), asks.clone()).unwrap();
    let row = vec![0.0_f32, 0.0, 0.0];
    let rows: Vec<Row> = [2, 0].iter().map(|hours| (EventTime(0), Some(Gap(hours * HOUR)), None, row.clone(), row.clone())).collect();
    let f = forecasts(&mut head, &asks, &rows, 2);
    // Phi(ln 3) - Phi(ln 1), and Phi(ln 1.001): the gap 0 is taken as min_gap.
    assert!((f.surprise_time[0] + 0.364_031_392_358_575_5_f64.ln()).abs() < 1e-14, "{}", f.surprise_time[0]);
    assert!((f.surprise_time[1] + 0.500_398_742_875_751_6_f64.ln()).abs() < 1e-14, "{}", f.surprise_time[1]);
    // The hazard is taken at half a tick, 1 h: its density there over one half.
    assert!((f.intensity_now[0] - 2.0 / (2.0 * std::f64::consts::PI).sqrt()).abs() < 1e-14);
    assert!(f.next_marks.is_empty() && f.surprise_mark[0].is_nan());
}

#[test]
fn a_first_event_has_no_surprise_and_no_fault() {
    let asks = asks(1);
    let mut head = Head::new(&mixture_spec(1, None, &["a", "b"]), asks.clone()).unwrap();
    let none = vec![f32::NAN; 5];
    let rows = [
        (EventTime(0), None, Some(0), none.clone(), simple()),
        (EventTime(0), Some(Gap(HOUR)), Some(0), none, simple()),
        (EventTime(0), None, Some(0), simple(), simple()),
    ];
    let f = forecasts(&mut head, &asks, &rows, 3);
    for row in 0..3 {
        assert!(f.surprise_time[row].is_nan() && f.surprise_mark[row].is_nan() && f.residual[row].is_nan());
        assert!(f.next_times[1][row].is_some() && f.flags[row].is_none());
    }
}

#[test]
fn an_unknown_mark_has_no_surprise_but_its_time_has() {
    let asks = asks(0);
    let mut head = Head::new(&mixture_spec(1, None, &["a", "b"]), asks.clone()).unwrap();
    let row = |mark| (EventTime(0), Some(Gap(HOUR)), mark, simple(), simple());
    let f = forecasts(&mut head, &asks, &[row(None), row(Some(2))], 2);
    assert!(f.surprise_mark.iter().all(|s| s.is_nan()) && f.surprise_time.iter().all(|s| s.is_finite()));
    assert!(f.flags.iter().all(|flag| flag.is_none()));
}

#[test]
fn parameters_that_are_not_finite_empty_the_fields_they_concern() {
    let asks = asks(2);
    let mut head = Head::new(&mixture_spec(1, None, &["a", "b"]), asks.clone()).unwrap();
    let row = |before: Vec<f32>, after: Vec<f32>| (EventTime(0), Some(Gap(HOUR)), Some(0), before, after);
    let (mut time, mut mark) = (simple(), simple());
    time[1] = f32::NAN;
    mark[4] = f32::INFINITY;
    let rows = [row(simple(), time.clone()), row(simple(), mark.clone()), row(time, simple()), row(mark, simple())];
    let f = forecasts(&mut head, &asks, &rows, 4);
    assert!(f.flags.iter().all(|flag| flag.has(Flags::NOT_FINITE)));
    assert!(f.next_times[0][0].is_none() && f.p_within[0][0].is_nan() && f.p_never[0].is_nan() && f.intensity_now[0].is_nan());
    assert!(f.next_marks[..2].iter().all(|c| c.p.is_finite()), "marks of the first row are fine");
    assert!(f.next_marks[2..4].iter().all(|c| c.p.is_nan()) && f.next_times[0][1].is_some());
    assert!(f.surprise_time[2].is_nan() && f.residual[2].is_nan() && f.surprise_mark[2].is_finite());
    assert!(f.surprise_mark[3].is_nan() && f.surprise_time[3].is_finite());
    assert_eq!(f.next_marks.len(), 8);
}

#[test]
fn a_time_beyond_the_calendar_is_none() {
    let asks = asks(0);
    let mut head = Head::new(&mixture_spec(1, None, &[]), asks.clone()).unwrap();
    // e^14 h is 137 years, e^15 h 373; e^1000 is beyond all numbers, e^-1000 is at once.
    let row = |mean| (EventTime(0), None, None, vec![f32::NAN; 3], vec![0.0, mean, -7.0]);
    let f = forecasts(&mut head, &asks, &[row(14.0), row(15.0), row(1000.0), row(-1000.0)], 4);
    assert!(f.next_times[1][0].is_some());
    assert_eq!(f.next_times[1][1..], [None, None, Some(EventTime(0))]);
}

#[test]
fn a_score_fills_its_column_and_leaves_the_others_empty() {
    let asks = asks(0);
    let mut head = Head::new(&score_spec(ScoreLink::Logit), asks.clone()).unwrap();
    assert!(!head.scores_arrivals() && head.width() == 1);
    let row = |x| (EventTime(0), None, None, Vec::new(), vec![x]);
    let f = forecasts(&mut head, &asks, &[row(0.0), row(f32::NAN)], 2);
    assert_eq!(f.score[0], 0.5);
    assert!(f.score[1].is_nan() && f.flags[1].has(Flags::NOT_FINITE) && f.flags[0].is_none());
    for column in [&f.surprise_time, &f.surprise_mark, &f.residual, &f.p_never, &f.intensity_now, &f.p_within[0], &f.p_within[1]] {
        assert_eq!(column.iter().map(|v| v.is_nan()).collect::<Vec<_>>(), [true, true]);
    }
    assert!(f.next_times.iter().all(|column| *column == [None, None]) && f.next_marks.is_empty());
}

#[test]
fn marks_are_found_by_name() {
    let head = Head::new(&mixture_spec(1, None, &["pos", "web", ""]), asks(0)).unwrap();
    assert_eq!((head.mark_index(b"web"), head.mark_index(b""), head.mark_index(b"atm")), (Some(1), Some(2), None));
    assert!(head.has_marks() && !Head::new(&score_spec(ScoreLink::Logit), asks(0)).unwrap().has_marks());
}

#[test]
fn what_is_out_of_bounds_is_refused_with_its_value() {
    let law = |components, min_gap, resolution, marks: Vec<String>| {
        HeadSpec::LognormalMixture(LawSpec {
            components: Some(components),
            resolution,
            marks,
            ..LawSpec::new(&["law"], TimeUnit::Hour, min_gap)
        })
    };
    let other = || LawSpec::new(&["law"], TimeUnit::Hour, 1e-3);
    let edges = |edges: &[f64]| HeadSpec::PiecewiseConstant(LawSpec { edges: edges.to_vec(), ..other() });
    let fine = || law(4, 1e-3, None, vec!["a".to_owned()]);
    let ask = |quantiles: &[f64], horizons: &[i64], marks| Asks {
        quantiles: quantiles.to_vec(),
        horizons: horizons.iter().map(|h| Gap(*h)).collect(),
        marks,
        ..Asks::default()
    };
    let many: Vec<String> = (0..=MAX_MARKS).map(|i| i.to_string()).collect();
    let cases = [
        (law(0, 1e-3, None, Vec::new()), ask(&[], &[], 0), "components = 0"),
        (law(257, 1e-3, None, Vec::new()), ask(&[], &[], 0), "components = 257"),
        (HeadSpec::LognormalMixture(other()), ask(&[], &[], 0), "components = 0"),
        (HeadSpec::Weibull(LawSpec { components: Some(3), ..other() }), ask(&[], &[], 0), "weibull has no `components`"),
        (HeadSpec::Exponential(LawSpec { decays: Some(1), ..other() }), ask(&[], &[], 0), "exponential has no `decays`"),
        (HeadSpec::Hawkes(LawSpec { decays: Some(0), ..other() }), ask(&[], &[], 0), "decays = 0"),
        (edges(&[]), ask(&[], &[], 0), "edges = 0"),
        (edges(&[0.0, 1.0]), ask(&[], &[], 0), "do not rise"),
        (edges(&[2.0, 1.0]), ask(&[], &[], 0), "do not rise"),
        (edges(&[1.0, f64::INFINITY]), ask(&[], &[], 0), "do not rise"),
        (law(4, 0.0, None, Vec::new()), ask(&[], &[], 0), "min_gap = 0"),
        (law(4, f64::INFINITY, None, Vec::new()), ask(&[], &[], 0), "min_gap = inf"),
        (law(4, f64::NAN, None, Vec::new()), ask(&[], &[], 0), "min_gap = NaN"),
        (law(4, 1.0, Some(0.0), Vec::new()), ask(&[], &[], 0), "resolution = 0"),
        (law(4, 1.0, Some(f64::NAN), Vec::new()), ask(&[], &[], 0), "resolution = NaN"),
        (law(4, 1.0, None, many), ask(&[], &[], 0), "4097 marks"),
        (law(4, 1.0, None, vec!["a".to_owned(), "a".to_owned()]), ask(&[], &[], 0), "`a` stands twice"),
        (fine(), ask(&[0.0], &[], 0), "quantile 0 "),
        (fine(), ask(&[1.0], &[], 0), "quantile 1 "),
        (fine(), ask(&[f64::NAN], &[], 0), "quantile NaN "),
        (fine(), ask(&[0.5, 0.5], &[], 0), "quantile 0.5 does not lie above"),
        (fine(), ask(&[0.9, 0.1], &[], 0), "quantile 0.1 does not lie above"),
        (fine(), ask(&[], &[0], 0), "horizon of 0 s"),
        (fine(), ask(&[], &[], 2), "2 next marks are asked for, the model has 1"),
        (score_spec(ScoreLink::Logit), ask(&[], &[], 1), "1 next marks are asked for, the model has 0"),
    ];
    for (spec, asks, expected) in cases {
        let error = Head::new(&spec, asks).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains(expected), "`{error}` does not say `{expected}`");
    }
    assert!(Head::new(&fine(), ask(&[0.1, 0.9], &[1], 1)).is_ok());
}

fn any_row(width: usize) -> impl Strategy<Value = Row> {
    let number = || {
        prop_oneof![
            8 => -4.0_f32..4.0,
            1 => prop_oneof![Just(1e30_f32), Just(-1e30), Just(1e4), Just(-1e4), Just(f32::MAX), Just(f32::MIN)],
        ]
    };
    let special = prop_oneof![20 => Just(None), 1 => (0..width, prop_oneof![Just(f32::NAN), Just(f32::INFINITY)]).prop_map(Some)];
    let params = (prop::collection::vec(number(), width), special).prop_map(|(mut row, special)| {
        if let Some((at, value)) = special {
            row[at] = value;
        }
        row
    });
    let before = prop_oneof![9 => params.clone(), 1 => Just(vec![f32::NAN; width])];
    let time = EventTime::MIN.0..=EventTime::MAX.0;
    (time, prop::option::weighted(0.9, 0_i64..1_000_000 * HOUR), prop::option::of(0_u32..4), before, params)
        .prop_map(|(time, gap, mark, before, after)| (EventTime(time), gap.map(Gap), mark, before, after))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn no_batch_changes_a_bit_of_any_row(rows in prop::collection::vec(any_row(3 * 5 + 3), 1..30), batch in 1_usize..12, resolution in prop::option::of(0.1_f64..24.0)) {
        let asks = asks(2);
        let spec = mixture_spec(5, resolution, &["a", "b", "c"]);
        let whole = forecasts(&mut Head::new(&spec, asks.clone()).unwrap(), &asks, &rows, rows.len());
        let parts = forecasts(&mut Head::new(&spec, asks.clone()).unwrap(), &asks, &rows, batch);
        prop_assert_eq!(bits(&whole), bits(&parts));
        for (i, row) in rows.iter().enumerate() {
            let alone = forecasts(&mut Head::new(&spec, asks.clone()).unwrap(), &asks, std::slice::from_ref(row), 1);
            let columns: Vec<Vec<u64>> = bits(&whole).iter().map(|c| {
                let per_row = c.len() / rows.len();
                c[i * per_row..(i + 1) * per_row].to_vec()
            }).collect();
            prop_assert_eq!(columns, bits(&alone));
        }
    }

    #[test]
    fn nothing_leaves_that_is_not_finite_unless_it_is_null_for_a_reason(rows in prop::collection::vec(any_row(3 * 5 + 3), 1..30), resolution in prop::option::of(0.1_f64..24.0)) {
        let asks = asks(3);
        let spec = mixture_spec(5, resolution, &["a", "b", "c"]);
        let f = forecasts(&mut Head::new(&spec, asks.clone()).unwrap(), &asks, &rows, 7);
        for (i, (_, gap, mark, before, after)) in rows.iter().enumerate() {
            let scored = gap.is_some() && !before.iter().all(|v| v.is_nan());
            let (time, marks) = before.split_at(15);
            let fine = |part: &[f32]| part.iter().all(|v| v.is_finite());
            let known = mark.is_some_and(|m| m < 3);
            prop_assert_eq!(f.surprise_time[i].is_finite(), scored && fine(time));
            prop_assert_eq!(f.residual[i].is_finite(), scored && fine(time));
            prop_assert!(f.residual[i].is_nan() || f.residual[i] >= 0.0);
            prop_assert_eq!(f.surprise_mark[i].is_finite(), scored && fine(marks) && known);
            prop_assert!(![f.surprise_time[i], f.residual[i], f.surprise_mark[i]].iter().any(|v| v.is_infinite()));
            let fine_law = fine(&after[..15]);
            prop_assert_eq!(f.intensity_now[i].is_finite() && f.intensity_now[i] >= 0.0, fine_law);
            prop_assert_eq!(f.p_never[i] == 0.0, fine_law);
            for column in &f.p_within {
                prop_assert_eq!((0.0..=1.0).contains(&column[i]), fine_law);
                prop_assert_eq!(column[i].is_nan(), !fine_law);
            }
            let times: Vec<_> = f.next_times.iter().map(|c| c[i].unwrap_or(EventTime(i64::MAX))).collect();
            prop_assert!(times.windows(2).all(|w| w[0] <= w[1]) && times[0] >= rows[i].0, "{times:?}");
            let chances: &[MarkChance] = &f.next_marks[3 * i..3 * i + 3];
            let sum: f64 = chances.iter().map(|c| f64::from(c.p)).sum();
            prop_assert_eq!(sum <= 1.0 && sum > 0.999_999, fine(&after[15..]));
            let flagged = (scored && !fine(before)) || !fine(after);
            prop_assert_eq!(f.flags[i].has(Flags::NOT_FINITE), flagged);
        }
    }
}

#[test]
fn a_calibration_moves_quantiles_and_probabilities_together_and_nothing_else() {
    let levels = LevelMap { at: vec![0.1, 0.5, 0.9], gives: vec![0.25, 0.6, 0.97] };
    let law =
        |calibration: Option<LevelMap>| LawSpec { quantile_calibration: calibration, ..LawSpec::new(&["law"], TimeUnit::Hour, 0.001) };
    let mixture = |law: LawSpec| HeadSpec::LognormalMixture(LawSpec { components: Some(1), ..law });
    type Of = fn(LawSpec) -> HeadSpec;
    let specs: [(Of, Vec<f32>); 4] = [
        (mixture, vec![0.0, 0.3, -0.2]),
        (HeadSpec::Exponential, vec![-1.0]),
        (HeadSpec::Weibull, vec![0.4, 0.2]),
        // Dies out: an event comes with a probability of 1 - e^-2.
        (HeadSpec::Gompertz, vec![0.0, -0.5]),
    ];
    for (of, row) in specs {
        let asks = Asks { horizons: Vec::new(), ..asks(0) };
        let rows = [(EventTime(0), Some(Gap(HOUR)), None, row.clone(), row.clone())];
        let plain = forecasts(&mut Head::new(&of(law(None)), asks.clone()).unwrap(), &asks, &rows, 1);
        let moved = forecasts(&mut Head::new(&of(law(Some(levels.clone()))), asks.clone()).unwrap(), &asks, &rows, 1);
        for (a, b) in
            [(&plain.surprise_time, &moved.surprise_time), (&plain.residual, &moved.residual), (&plain.intensity_now, &moved.intensity_now)]
        {
            assert_eq!(a, b);
        }
        // The law at the levels that the map gives is the calibrated one at those that are asked for.
        let at_levels = Asks { quantiles: levels.gives.clone(), ..asks.clone() };
        let asked = forecasts(&mut Head::new(&of(law(None)), at_levels.clone()).unwrap(), &at_levels, &rows, 1);
        assert_eq!(moved.next_times, asked.next_times);
        assert_ne!(moved.next_times, plain.next_times);
        // A horizon that ends at a quantile has its probability.
        let ends: Vec<(f64, EventTime)> =
            asks.quantiles.iter().zip(&moved.next_times).filter_map(|(q, column)| Some((*q, column[0]?))).collect();
        assert!(ends.len() >= 2, "{:?}", moved.next_times);
        let horizons = Asks { horizons: ends.iter().map(|(_, time)| Gap(time.0)).collect(), ..asks.clone() };
        let within = forecasts(&mut Head::new(&of(law(Some(levels.clone()))), horizons.clone()).unwrap(), &horizons, &rows, 1);
        for ((q, _), column) in ends.iter().zip(&within.p_within) {
            assert!((column[0] - q).abs() < 1e-5, "{q} {column:?}");
        }
        let never = 1.0 - levels.probability(1.0 - plain.p_never[0]);
        assert!((moved.p_never[0] - never).abs() < 1e-12 && (plain.p_never[0] > 0.0) == (moved.p_never[0] > 0.0));
    }
    let wrong = mixture(law(Some(LevelMap { at: vec![0.5], gives: vec![2.0] })));
    assert!(Head::new(&wrong, asks(0)).unwrap_err().to_string().contains("quantile_calibration"));
}
