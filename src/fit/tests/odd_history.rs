//! History that is out of the ordinary: constants, ties, zeros, too many marks.

use super::*;

#[test]
fn what_the_train_split_has_not_shown_enters_no_further_than_what_it_has() {
    let mut plan = plan(&[("amount", FieldKind::Number), ("fee", FieldKind::Number), ("rare", FieldKind::Number)], None, None);
    plan.fit.epochs = 1;
    plan.fit.numeric = vec!["amount".into(), "fee".into(), "rare".into()];
    plan.fit.decay = vec!["1h".into()];
    plan.fit.time_unit = Some(TimeUnit::Minute);
    let rows = alternating(60, 8);
    let mut columns: Vec<(&str, ArrayRef)> =
        ["ts", "key", "amount"].into_iter().map(|name| (name, Arc::clone(rows.column_by_name(name).unwrap()))).collect();
    columns.push(("fee", Arc::new(Float64Array::from(vec![0.0; rows.num_rows()]))));
    // One event of the train split: too few for its quantiles.
    let rare = (0..rows.num_rows()).map(|row| if row == 700 { 1e6 } else { 3.0 });
    columns.push(("rare", Arc::new(rare.collect::<Float64Array>())));
    let recipe = fitted(&plan, RecordBatch::try_from_iter(columns).unwrap()).unwrap().package.recipe;
    let spread = |column: &Spec| matches!(column, Spec::Numeric { field, clip: Some([low, high]), .. } if field == "rare" && low < high);
    assert!(recipe.columns.iter().any(spread), "{recipe:?}");
    let schema = plan.schema.clone();
    let features = crate::features::Features::new(&recipe, &schema).unwrap();
    let row = |gap: f64, numbers: [f64; 3]| {
        let mut events = crate::data::events::Events::new(&schema);
        events.partitions.push(Partition(0));
        events.offsets.push(Offset(0));
        events.times.push(crate::base::time::EventTime(0));
        for (column, number) in events.columns.iter_mut().zip(numbers) {
            let crate::data::events::Column::Number(column) = column else { panic!() };
            column.push(number);
        }
        let gaps = [Some(Gap((gap * 60e6) as i64))];
        let mut out = Vec::new();
        features.rows(&events, crate::features::Context { gaps: &gaps }, &mut out);
        features.decay(&events, 0, gaps[0], &mut vec![1e6; features.aggregates()], &mut out);
        out
    };
    let usual = row(5.0, [25.0, 0.0, 3.0]);
    // A month without events, where the longest gap was a quarter of an hour, or a microsecond; a fee where there never was one.
    for (gap, numbers) in
        [(43_200.0, [25.0, 0.0, 3.0]), (1e-7, [25.0, 0.0, 3.0]), (5.0, [1e12, 250_000.0, 1e12]), (5.0, [-1e12, -3.0, -1e12])]
    {
        let row = row(gap, numbers);
        assert!(row.iter().all(|cell| cell.abs() < 25.0), "{gap} {numbers:?}: {row:?} {recipe:?}");
        let changed = row.iter().zip(&usual).filter(|(one, other)| one != other).count();
        assert!(changed <= 4, "{row:?}");
    }
    let names: Vec<String> = recipe.columns.iter().flat_map(|column| column.names()).collect();
    assert!(
        !names.iter().any(|name| name.contains("mean of fee")) && names.iter().any(|name| name.contains("mean of amount")),
        "{names:?}"
    );
    assert_eq!(row(5.0, [25.0, 250_000.0, 3.0]), usual, "of a constant nothing enters");
}

/// Events of 25 keys at these gaps (ms), drawn for each event.
fn drawn(events: usize, mut gap: impl FnMut(&mut ChaCha8Rng) -> i64) -> RecordBatch {
    let mut random = ChaCha8Rng::seed_from_u64(21);
    let mut rows: Vec<(i64, String)> = Vec::new();
    for key in 0..25 {
        let mut time = 1_699_999_200_000;
        for _ in 0..events {
            rows.push((time, format!("k{key}")));
            time += gap(&mut random);
        }
    }
    rows.sort();
    let columns: [(&str, ArrayRef); 2] = [
        ("ts", Arc::new(rows.iter().map(|r| Some(r.0)).collect::<Int64Array>())),
        ("key", Arc::new(rows.iter().map(|r| Some(r.1.clone())).collect::<StringArray>())),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

#[test]
fn gaps_tied_at_the_longest_have_a_likelihood_with_a_bound_and_a_history_that_is_served() {
    let exponential = |random: &mut ChaCha8Rng| -3000e3 * random.random::<f64>().max(1e-9).ln();
    let capped = drawn(80, |random| exponential(random).min(3600e3) as i64);
    let hours = drawn(80, |random| random.random_range(1..=3) * 3_600_000);
    for (rows, cell, resolution) in [
        (&capped, Cell::Gru, None),
        (&capped, Cell::History, None),
        (&hours, Cell::History, Some(Gap(3_600_000_000))),
        (&hours, Cell::Gru, Some(Gap(3_600_000_000))),
    ] {
        let mut plan = plan(&[], None, None);
        (plan.fit.cell, plan.fit.law, plan.fit.resolution, plan.fit.components) = (cell, Law::PiecewiseConstant, resolution, 16);
        plan.fit.epochs = 40;
        let whole = fitted(&plan, rows.clone()).unwrap_or_else(|e| panic!("{cell:?} {resolution:?}: {e}"));
        let time = whole.report.part(Part::Valid).unwrap().time.unwrap();
        match resolution {
            // Edges between the ticks tell them apart.
            Some(_) => assert!(time.nll > 3.0_f64.ln() - 0.01 && time.nll < time.constant_rate - 0.35, "{cell:?} {time:?}"),
            // That three in ten are exactly at the cap can be told by no bin but the last.
            None => assert!(time.nll > time.constant_rate - 1.0 && time.nll < time.constant_rate + 0.05, "{cell:?} {time:?}"),
        }
        let folder = tempfile::tempdir().unwrap();
        let served = write(&whole, &folder.path().join("model")).unwrap_or_else(|e| panic!("{cell:?} {resolution:?}: {e}")).served.unwrap();
        let test = whole.report.part(Part::Test).unwrap().time.unwrap();
        assert!((served.time - test.nll).abs() < 1e-4, "{cell:?} {served:?} {test:?}");
    }
}

#[test]
fn dates_are_taken_as_days_unasked_and_the_law_is_that_of_their_ticks() {
    const DAY: i64 = 86_400_000;
    // Half of the gaps are 0, the others up to five days; the clock of the second shows a time of the day as well.
    let mut days = |random: &mut ChaCha8Rng| if random.random::<bool>() { 0 } else { random.random_range(1..=5) * DAY };
    let fine = |random: &mut ChaCha8Rng| random.random_range(1..=5 * DAY);
    for (rows, cell, width) in [
        (drawn(80, &mut days), Cell::Poisson, Some(1.0)),
        (drawn(80, &mut days), Cell::Gru, Some(1.0)),
        (drawn(80, &mut days), Cell::Hawkes, Some(1.0)),
        (drawn(80, fine), Cell::Poisson, None),
    ] {
        let mut plan = plan(&[], None, None);
        (plan.fit.cell, plan.fit.epochs) = (cell, 6);
        let whole = fitted(&plan, rows.clone()).unwrap();
        assert_eq!(whole.report.time_unit, Some(TimeUnit::Day));
        assert_eq!(whole.package.manifest.head.law().unwrap().resolution, width, "{cell:?}");
        let time = whole.report.part(Part::Test).unwrap().time.unwrap();
        assert!(time.nll < time.constant_rate + 0.01, "{cell:?} {time:?}");
        let Some(_) = width else { continue };
        let note = "the law is one of ticks of 1d";
        assert!(
            whole.report.notes.iter().any(|found| found.contains(note)) && whole.package.card.contains(note),
            "{:?}",
            whole.report.notes
        );
        // What the user names is what is taken.
        plan.fit.resolution = Some(Gap(3_600_000_000));
        let asked = fitted(&plan, rows).unwrap();
        assert!((asked.package.manifest.head.law().unwrap().resolution.unwrap() - 1.0 / 24.0).abs() < 1e-12);
        assert!(!asked.package.card.contains("multiples"));
    }
}

#[test]
fn a_constant_rate_is_as_good_as_the_constant_rate_also_where_gaps_are_below_the_clocks_tick() {
    // Two in five gaps are 0, and the others are at most 20 ticks.
    let rows = drawn(80, |random| if random.random::<f64>() < 0.4 { 0 } else { random.random_range(1..=20) });
    let mut plan = plan(&[], None, None);
    plan.fit.cell = Cell::Poisson;
    let whole = fitted(&plan, rows).unwrap();
    for figures in &whole.report.parts {
        let time = figures.time.unwrap();
        assert!((time.nll - time.constant_rate).abs() < 1e-6, "{figures:?}");
    }
}

#[test]
fn keys_whose_events_all_come_at_once_have_a_rate_that_a_number_can_hold() {
    // Nine in ten gaps are 0, so that many keys have no other.
    let mut key = 0;
    let rows = drawn(20, |random| {
        key += 1;
        if (key / 20) % 10 == 0 { random.random_range(1..100_000_000) } else { 0 }
    });
    for cell in [Cell::GammaPoisson, Cell::Poisson, Cell::History, Cell::Hawkes] {
        let mut plan = plan(&[], None, None);
        plan.fit.cell = cell;
        let whole = fitted(&plan, rows.clone()).unwrap_or_else(|e| panic!("{cell:?}: {e}"));
        let folder = tempfile::tempdir().unwrap();
        let served = write(&whole, &folder.path().join("model")).unwrap_or_else(|e| panic!("{cell:?}: {e}")).served.unwrap();
        assert!(served.time.is_finite(), "{cell:?} {served:?}");
    }
}

#[test]
fn a_law_of_the_wrong_shape_says_so_in_the_card() {
    // Gaps of a second or of days, and a Gompertz law, that has one scale.
    let rows = drawn(60, |random| {
        let exponential = -random.random::<f64>().max(1e-9).ln();
        (if random.random::<bool>() { exponential * 1e3 } else { exponential * 3e8 }) as i64
    });
    let mut plan = plan(&[], None, None);
    (plan.fit.cell, plan.fit.law, plan.fit.epochs) = (Cell::Gru, Law::Exponential, 2);
    let whole = fitted(&plan, rows.clone()).unwrap();
    let wrong = "it is worse than the ";
    assert!(
        whole.package.card.contains(wrong) && whole.package.card.contains("has the wrong shape for these gaps: try law"),
        "{}",
        whole.package.card
    );
    assert!(!whole.package.card.contains("the past says little"));
    plan.fit.law = Law::LognormalMixture;
    let whole = fitted(&plan, rows).unwrap();
    assert!(whole.package.card.contains("the past says little") && !whole.package.card.contains(wrong), "{}", whole.package.card);
}

#[test]
fn gaps_that_are_all_zero_are_refused_in_words_by_what_has_a_rate() {
    for cell in [Cell::Poisson, Cell::GammaPoisson, Cell::History, Cell::Hawkes] {
        let mut plan = plan(&[], None, None);
        plan.fit.cell = cell;
        let text = refusal(&plan, drawn(40, |_| 0));
        assert!(text.contains("are 0, every event of a key at the same time") && text.contains(cell.name()), "{text}");
    }
}

#[test]
fn more_marks_than_pairs_can_be_fitted_for_are_refused_by_name() {
    let mut plan = plan(&[("what", FieldKind::Text)], Some(0), None);
    plan.fit.cell = Cell::Hawkes;
    let rows = alternating(40, 4);
    let many: ArrayRef = Arc::new((0..rows.num_rows()).map(|row| Some(format!("m{}", row % 300))).collect::<StringArray>());
    let columns = ["ts", "key"].into_iter().map(|name| (name, Arc::clone(rows.column_by_name(name).unwrap()))).chain([("what", many)]);
    let text = refusal(&plan, RecordBatch::try_from_iter(columns).unwrap());
    assert!(text.contains("marks: the process `hawkes`") && text.contains("at most 256 marks"), "{text}");
}

#[test]
fn intensities_of_bursts_are_in_the_unit_of_the_mean_gap_and_served_as_fitted() {
    // Seven in ten gaps are nothing, the others about three hours: in microseconds, the unit of the median, panels would end after four seconds.
    let bursts = |random: &mut ChaCha8Rng| {
        let long = -1e7 * random.random::<f64>().max(1e-9).ln();
        if random.random::<f64>() < 0.7 { 0 } else { long as i64 }
    };
    let mut plan = plan(&[], None, None);
    (plan.fit.cell, plan.fit.law, plan.fit.epochs) = (Cell::CtLstm, Law::Intensity, 2);
    let whole = fitted(&plan, drawn(60, bursts)).unwrap();
    assert_eq!(whole.report.time_unit, Some(TimeUnit::Minute));
    let note = "More than half of all gaps are 0, so the law is one of ticks of 0.001 s";
    assert!(whole.report.notes.iter().any(|found| found.contains(note)), "{:?}", whole.report.notes);
    let folder = tempfile::tempdir().unwrap();
    let served = write(&whole, &folder.path().join("model")).unwrap().served.unwrap();
    let test = whole.report.part(Part::Test).unwrap().time.unwrap();
    assert!((served.time - test.nll).abs() < 1e-4 * test.nll.abs().max(1.0), "{served:?} {test:?}");
    plan.fit.time_unit = Some(TimeUnit::Microsecond);
    let text = refusal(&plan, drawn(60, bursts));
    assert!(text.contains("is served as far as 4194304 of them") && text.contains("take `time_unit` out of [fit]"), "{text}");
}
