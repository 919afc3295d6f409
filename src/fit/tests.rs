//! A whole fit on streams with a known law: from a feed to a package on disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::base::offset::{Offset, Partition};
use crate::base::time::Gap;
use crate::data::commit::Commits;
use crate::data::input::{Input, Table};
use crate::data::intensity::Intensities;
use crate::data::schema::{EventSchema, Field, FieldKind, TimeFormat};
use crate::pipeline::plan::{Cell, FitPlan, Law, Split};
use crate::source::Polled;
use crate::{decode, order, sink, source, state};

mod odd_history;

/// A feed of one table.
struct OneTable(Option<RecordBatch>);

impl Feed for OneTable {
    fn poll(&mut self, _max: usize, _wait: Duration, input: &mut Input) -> Result<Polled> {
        Ok(match self.0.take() {
            None => Polled::Ended,
            Some(rows) => {
                input.tables.push(Table { partition: Partition(0), first: Offset(0), rows });
                Polled::Records
            }
        })
    }
    fn start(&mut self, _: crate::base::offset::Partition, _: crate::base::offset::Offset, _: crate::base::offset::Offset) -> Result<()> {
        Ok(())
    }

    fn commit(&mut self, _commits: &Commits) -> Result<()> {
        Ok(())
    }
    fn released(&mut self, _partition: Partition) {}
    fn backlog(&self) -> Option<u64> {
        None
    }
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Events of 25 keys whose gaps alternate between 10 s and 1000 s (times a factor near 1), with the mark and the label saying which comes next.
fn alternating(events: usize, seed: u64) -> RecordBatch {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut rows: Vec<(i64, String, i64, &str, f64, f64)> = Vec::new();
    for key in 0..25 {
        let (mut time, mut long) = (1_700_000_000.0 + f64::from(key), random.random::<bool>());
        for _ in 0..events {
            let next_long = !long;
            let amount = if random.random::<f64>() < 0.1 { 500.0 } else { 20.0 + 10.0 * random.random::<f64>() };
            let label = f64::from(u8::from(amount > 100.0));
            rows.push((
                (time * 1e3) as i64,
                format!("k{key}"),
                key as i64,
                if next_long { "before_long" } else { "before_short" },
                amount,
                label,
            ));
            long = next_long;
            time += if long { 1000.0 } else { 10.0 } * (0.9 + 0.2 * random.random::<f64>());
        }
    }
    rows.sort_by_key(|row| (row.0, row.2));
    let columns: [(&str, ArrayRef); 5] = [
        ("ts", Arc::new(rows.iter().map(|r| Some(r.0)).collect::<Int64Array>())),
        ("key", Arc::new(rows.iter().map(|r| Some(r.1.clone())).collect::<StringArray>())),
        ("what", Arc::new(rows.iter().map(|r| Some(r.3)).collect::<StringArray>())),
        ("amount", Arc::new(rows.iter().map(|r| Some(r.4)).collect::<Float64Array>())),
        ("label", Arc::new(rows.iter().map(|r| Some(r.5)).collect::<Float64Array>())),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn plan(fields: &[(&str, FieldKind)], mark: Option<usize>, label: Option<usize>) -> Plan {
    let schema = EventSchema {
        key: "key".into(),
        time: "ts".into(),
        time_format: TimeFormat::Unit(TimeUnit::Millisecond),
        id: None,
        fields: fields.iter().map(|(name, kind)| Field { name: (*name).into(), kind: *kind }).collect(),
        mark,
        label,
    };
    Plan {
        since: None,
        name: "test".into(),
        folder: PathBuf::new(),
        source: source::Settings::File(source::FileSettings { paths: Vec::new() }),
        format: decode::Format::Parquet,
        schemas: None,
        schema,
        order: order::Settings { lateness: Gap::ZERO, max_future_skew: Gap(1), late: order::Late::Clamp, timed: false },
        package: PathBuf::new(),
        model: None,
        on_change: Default::default(),
        state: state::Settings { max_keys: 1000, when_full: state::WhenFull::Stop, expiry: None },
        snapshots: None,
        asks: crate::head::Asks::default(),
        horizon_names: Vec::new(),
        drift: 0.1,
        sink: sink::Settings::Ndjson { path: "-".into() },
        reasons: None,
        sink_fields: Vec::new(),
        delivery: crate::sink::Delivery::AtLeastOnce,
        shadow: None,
        position_header: true,
        stop_timeout: std::time::Duration::from_secs(30),
        commit_every: Duration::from_secs(1),
        dead_letter: sink::Settings::Ndjson { path: "-".into() },
        alarm: None,
        max_bad_ratio: 0.0,
        lanes: 1,
        max_batch: 1024,
        fit: FitPlan {
            cell: Default::default(),
            law: Default::default(),
            numeric: Vec::new(),
            category: Vec::new(),
            calendar: Vec::new(),
            zone: "UTC".into(),
            decay: Vec::new(),
            time_unit: None,
            resolution: None,
            value: None,
            hidden: 8,
            components: 4,
            epochs: 25,
            patience: 25,
            learning_rate: 0.02,
            seed: 7,
            split: Split::Key,
        },
    }
}

fn fitted(plan: &Plan, rows: RecordBatch) -> Result<Fitted> {
    fit(plan, &mut OneTable(Some(rows)), &mut |_| {})
}

fn refusal(plan: &Plan, rows: RecordBatch) -> String {
    fitted(plan, rows).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn a_fit_beats_what_knows_no_history_and_its_package_loads_and_matches() {
    let plan = plan(&[("what", FieldKind::Text)], Some(0), None);
    let whole = fitted(&plan, alternating(60, 1)).unwrap();
    let report = &whole.report;
    assert_eq!(report.time_unit, Some(TimeUnit::Second));
    for part in Part::SCORED {
        let figures = report.part(part).unwrap();
        let (time, mark) = (figures.time.unwrap(), figures.mark.unwrap());
        assert_eq!(figures.events, 59 * if part == Part::Train { 15 } else { 5 });
        assert!(time.nll < time.history_free - 0.4 && time.history_free < time.constant_rate, "{part:?} {time:?}");
        assert!(mark.log_loss < 0.3 && mark.frequencies > 0.6, "{part:?} {mark:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model");
    let written = write(&whole, &out).unwrap();
    assert!(written.mismatch.outputs <= package::TOLERANCE && written.mismatch.states <= package::TOLERANCE);
    let (served, test) = (written.served.unwrap(), report.part(Part::Test).unwrap());
    assert_eq!((served.part, served.events), (Part::Test, test.events));
    assert!((served.time - test.time.unwrap().nll).abs() < 1e-5 && (served.mark - test.mark.unwrap().log_loss).abs() < 1e-5, "{served:?}");
    let loaded = crate::model::Package::load(&out).unwrap();
    assert_eq!(loaded.golden.as_ref().unwrap().len(), 64);
    let sizes: Vec<usize> = (0..=10).map(|power| 1 << power).chain([3, 5, 7, 100, 1000]).collect();
    loaded.check_batches(&sizes).unwrap();
    assert!(whole.package.card.contains("| test |"), "{}", whole.package.card);
    let bytes: u64 = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes < 200_000, "{bytes}");
}

#[test]
fn a_score_finds_what_the_label_follows() {
    let mut plan = plan(&[("amount", FieldKind::Number), ("label", FieldKind::Number)], None, Some(1));
    plan.fit.numeric = vec!["amount".into()];
    let whole = fitted(&plan, alternating(60, 2)).unwrap();
    let (package, report) = (&whole.package, &whole.report);
    let score = report.part(Part::Test).unwrap().score.unwrap();
    assert!(score.average_precision > 0.95 && score.log_loss < 0.5 * score.share, "{score:?}");
    assert_eq!(package.manifest.head.width(), 1);
    let folder = tempfile::tempdir().unwrap();
    let served = write(&whole, &folder.path().join("model")).unwrap().served.unwrap();
    assert!((served.label - score.log_loss).abs() < 1e-5 && served.events == 300, "{served:?}");
}

#[test]
fn the_same_seed_gives_the_same_package_and_another_one_does_not() {
    let mut plan = plan(&[("what", FieldKind::Text)], Some(0), None);
    plan.fit.epochs = 2;
    let rows = alternating(30, 3);
    let (one, two) = (fitted(&plan, rows.clone()).unwrap(), fitted(&plan, rows.clone()).unwrap());
    assert_eq!((&one.package, &one.report), (&two.package, &two.report));
    plan.fit.seed = 8;
    assert_ne!(one.package.graph, fitted(&plan, rows).unwrap().package.graph);
}

#[test]
fn a_law_of_a_coarse_clock_is_one_of_probabilities() {
    let mut plan = plan(&[], None, None);
    plan.fit.resolution = Some(Gap(100_000_000));
    plan.fit.time_unit = Some(TimeUnit::Second);
    let whole = fitted(&plan, alternating(40, 4)).unwrap();
    let time = whole.report.part(Part::Test).unwrap().time.unwrap();
    assert!(time.nll >= 0.0 && time.nll < time.history_free, "{time:?}");
    let folder = tempfile::tempdir().unwrap();
    let served = write(&whole, &folder.path().join("model")).unwrap().served.unwrap();
    assert!((served.time - time.nll).abs() < 1e-5, "{served:?}");
    assert!(whole.package.manifest.head.law().is_some_and(|law| law.resolution == Some(100.0)));
}

#[test]
fn history_that_cannot_be_learnt_from_is_refused_with_the_reason() {
    let law = plan(&[], None, None);
    assert!(refusal(&law, alternating(60, 1).slice(0, 0)).contains("no event"));
    assert!(refusal(&law, alternating(3, 1)).contains("at least 100 are needed"));
    let mut score = plan(&[("amount", FieldKind::Number), ("label", FieldKind::Number)], None, Some(1));
    score.fit.numeric = vec!["amout".into()];
    assert!(refusal(&score, alternating(10, 1)).contains("the nearest field that is read is `amount`"));
    score.fit.numeric = vec!["label".into()];
    assert!(refusal(&score, alternating(10, 1)).contains("also named as a feature"));
    score.fit.numeric.clear();
    score.schema.label = Some(0);
    assert!(refusal(&score, alternating(60, 1)).contains("it must be 0 or 1"));
    let mut field = plan(&[("what", FieldKind::Text)], None, None);
    field.fit.split = Split::Field("what".into());
    assert!(refusal(&field, alternating(60, 1)).contains("never says `train`; it says [\"before_long\", \"before_short\"]"));
}

#[test]
fn a_folder_that_is_no_package_is_left_alone_and_a_package_is_replaced() {
    let mut plan = plan(&[], None, None);
    plan.fit.epochs = 1;
    let package = fitted(&plan, alternating(30, 5)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("deep").join("model");
    write(&package, &out).unwrap();
    write(&package, &out).unwrap();
    std::fs::write(out.join("thesis.tex"), "ten years of work").unwrap();
    let error = write(&package, &out).unwrap_err().to_string();
    assert!(error.contains("thesis.tex"), "{error}");
    assert_eq!(std::fs::read_dir(out.parent().unwrap()).unwrap().count(), 1, "nothing is left beside the package");
}

#[test]
fn a_split_by_time_scores_an_event_where_it_happened() {
    let mut plan = plan(&[], None, None);
    plan.fit.epochs = 1;
    plan.fit.split = Split::Time { valid: None, test: None };
    let counts: Vec<usize> = fitted(&plan, alternating(50, 6)).unwrap().report.parts.iter().map(|figures| figures.events).collect();
    // 25 first events have no law before them; they lie in the train split.
    assert_eq!(counts, [725, 250, 250]);
}

#[test]
fn the_recipe_has_the_columns_the_plan_names_with_constants_of_the_train_split() {
    let mut plan = plan(&[("amount", FieldKind::Number), ("what", FieldKind::Text)], Some(1), None);
    plan.fit.epochs = 1;
    plan.fit.numeric = vec!["amount".into()];
    plan.fit.decay = vec!["1h".into()];
    let recipe = fitted(&plan, alternating(40, 8)).unwrap().package.recipe;
    let kinds: Vec<&str> = recipe.columns.iter().map(|column| column.kind()).collect();
    assert_eq!(kinds, ["gap", "gap", "is_first", "numeric", "numeric", "category", "decay", "decay"], "the mark is a feature unasked");
    let crate::features::recipe::Spec::Numeric { mean, std, clip, missing_flag, .. } = &recipe.columns[3] else { panic!("{recipe:?}") };
    // A tenth are 500, the others uniform in 20..30.
    assert!((mean - 72.5).abs() < 15.0 && (std - 142.0).abs() < 25.0 && clip.unwrap()[1] == 500.0 && !missing_flag, "{recipe:?}");
}

#[test]
fn every_cell_and_law_gives_a_package_that_serves_what_was_fitted() {
    for (cell, law) in [
        (Cell::Poisson, Law::default()),
        (Cell::GammaPoisson, Law::default()),
        (Cell::History, Law::default()),
        (Cell::Hawkes, Law::default()),
        (Cell::Rnn, Law::LognormalMixture),
        (Cell::Lstm, Law::LognormalMixture),
        (Cell::CtLstm, Law::Exponential),
        (Cell::Ssm, Law::LognormalMixture),
        (Cell::LinearAttention, Law::LognormalMixture),
        (Cell::Attention, Law::LognormalMixture),
        (Cell::Memory, Law::LognormalMixture),
        (Cell::GruD, Law::LognormalMixture),
        (Cell::Ode, Law::LognormalMixture),
        (Cell::Gru, Law::Exponential),
        (Cell::Gru, Law::Weibull),
        (Cell::Gru, Law::Gompertz),
        (Cell::Gru, Law::PiecewiseConstant),
        (Cell::Gru, Law::GammaPoisson),
        (Cell::CtLstm, Law::Intensity),
        (Cell::Gru, Law::Intensity),
    ] {
        for (marked, resolution) in [(false, None), (true, None), (false, Some(Gap(1_000_000)))] {
            let mark = marked.then_some(0);
            let fields: &[(&str, FieldKind)] = if marked { &[("what", FieldKind::Text)] } else { &[] };
            let mut plan = plan(fields, mark, None);
            (plan.fit.cell, plan.fit.law, plan.fit.epochs, plan.fit.resolution) = (cell, law, 3, resolution);
            plan.fit.time_unit = Some(TimeUnit::Minute);
            let whole = fitted(&plan, alternating(40, 4)).unwrap_or_else(|e| panic!("{cell:?} {law:?} {mark:?}: {e}"));
            let time = whole.report.part(Part::Test).unwrap().time.unwrap();
            assert!(time.nll.is_finite(), "{cell:?} {law:?}: {time:?}");
            let folder = tempfile::tempdir().unwrap();
            let written = write(&whole, &folder.path().join("model")).unwrap_or_else(|e| panic!("{cell:?} {law:?} {mark:?}: {e}"));
            let served = written.served.unwrap();
            assert!((served.time - time.nll).abs() < 1e-4 * time.nll.abs().max(1.0), "{cell:?} {law:?}: {served:?} {time:?}");
            match cell {
                Cell::Poisson => assert!((time.nll - time.constant_rate).abs() < 1e-4 * time.nll.abs().max(1.0), "{time:?}"),
                // Gaps that alternate are no renewal: a network sees it with any law that can move.
                Cell::Gru if law == Law::Weibull || law == Law::GammaPoisson => assert!(time.nll < time.constant_rate, "{law:?} {time:?}"),
                _ => {}
            }
        }
    }
}

/// Counts what is asked.
#[derive(Debug)]
struct Counted(Box<dyn Intensities>, Arc<AtomicUsize>);

impl Intensities for Counted {
    fn marks(&self) -> usize {
        self.0.marks()
    }

    fn at(&mut self, laws: &[f32], of: &[u32], taus: &[f32], into: &mut Vec<f32>) -> Result<()> {
        self.1.fetch_add(taus.len(), Ordering::Relaxed);
        self.0.at(laws, of, taus, into)
    }
}

/// Events of 30 keys, each with its own level, whose reading is an autoregression: 0.9 of what it was off the level, and a normal step of deviation 1. One in
/// twenty has no reading. Gaps are a minute or, not regular, exponential with that mean.
fn readings(events: usize, regular: bool, spread: f64, seed: u64) -> RecordBatch {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut rows: Vec<(i64, String, Option<f64>)> = Vec::new();
    for key in 0..30 {
        let (mut time, mut off) = (1_700_000_000_000.0 + f64::from(key) * 60_000.0, 0.0);
        let level = 20.0 + spread * f64::from(key % 7);
        for _ in 0..events {
            let normal = (-2.0 * random.random::<f64>().max(1e-300).ln()).sqrt() * (std::f64::consts::TAU * random.random::<f64>()).cos();
            off = 0.9 * off + normal;
            rows.push((time as i64, format!("k{key}"), (random.random::<f64>() > 0.05).then_some(level + off)));
            time += if regular { 60_000.0 } else { -60_000.0 * random.random::<f64>().max(1e-9).ln() };
        }
    }
    rows.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    let columns: [(&str, ArrayRef); 3] = [
        ("ts", Arc::new(rows.iter().map(|r| Some(r.0)).collect::<Int64Array>())),
        ("key", Arc::new(rows.iter().map(|r| Some(r.1.clone())).collect::<StringArray>())),
        ("reading", Arc::new(rows.iter().map(|r| r.2).collect::<Float64Array>())),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn value_plan(kind: crate::data::value::ValueKind, memory: Option<u32>) -> Plan {
    let mut plan = plan(&[("reading", FieldKind::Number)], None, None);
    plan.fit.value = Some(crate::pipeline::plan::ValuePlan {
        field: "reading".into(),
        kind,
        components: 2,
        levels: vec![0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98],
        transform: Default::default(),
        memory,
    });
    plan
}

/// Of a normal law of deviation 1: ln(2 pi e) / 2.
const ENTROPY: f64 = 1.418_938_5;

#[test]
fn a_law_of_the_value_comes_near_the_true_one_and_is_served_as_it_was_trained() {
    use crate::data::value::ValueKind;
    for (kind, memory, spread) in
        [(ValueKind::Gaussian, None, 0.0), (ValueKind::Quantile, None, 0.0), (ValueKind::Gaussian, Some(200), 5.0)]
    {
        let plan = value_plan(kind, memory);
        let whole = fitted(&plan, readings(120, false, spread, 11)).unwrap();
        let test = whole.report.part(Part::Test).unwrap();
        let (time, value) = (test.time.unwrap(), test.value.unwrap());
        assert!(value.nll < ENTROPY + 0.25 && value.nll > ENTROPY - 0.1, "{kind:?} {memory:?} {value:?}");
        assert!(value.history_free > value.nll + 0.3, "{kind:?} {value:?}");
        assert!(time.nll < time.constant_rate + 0.1, "{time:?}");
        let folder = tempfile::tempdir().unwrap();
        let served = write(&whole, &folder.path().join("model")).unwrap().served.unwrap();
        assert!((served.value - value.nll).abs() < 1e-4 && (served.time - time.nll).abs() < 1e-4, "{served:?}");
        assert_eq!(whole.package.manifest.head.value().unwrap().anchored, memory.is_some());
        assert!(
            whole.package.card.contains("value of `reading`") && whole.package.card.contains("Negative log-likelihood of the next value")
        );
    }
}

#[test]
fn a_neural_hawkes_process_integrates_while_training_what_it_serves() {
    for (marked, resolution) in [(true, None), (false, Some(Gap(30_000_000)))] {
        let fields: &[(&str, FieldKind)] = if marked { &[("what", FieldKind::Text)] } else { &[] };
        let mut plan = plan(fields, marked.then_some(0), None);
        (plan.fit.cell, plan.fit.law, plan.fit.epochs, plan.fit.resolution) = (Cell::CtLstm, Law::Intensity, 6, resolution);
        plan.fit.time_unit = Some(TimeUnit::Minute);
        let whole = fitted(&plan, alternating(60, 4)).unwrap();
        let time = whole.report.part(Part::Test).unwrap().time.unwrap();
        assert!(time.nll < time.constant_rate, "{time:?}");
        if marked {
            // What comes next depends on when: the mark given the time, and the time with it.
            let mark = whole.report.part(Part::Test).unwrap().mark.unwrap();
            assert!(mark.log_loss < mark.frequencies, "{mark:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("model");
        let written = write(&whole, &out).unwrap();
        assert!(written.mismatch.intensities <= package::TOLERANCE, "{:?}", written.mismatch);
        let sums = std::fs::read_to_string(out.join("SHA256SUMS")).unwrap();
        assert!(sums.contains("  intensity.onnx\n"), "{sums}");
        let package = crate::model::Package::load(&out).unwrap();
        package.check_batches(&[1, 2, 7, 64, 600]).unwrap();

        // The integral of every golden event, once by the trainer's rule and once by the served panels.
        let golden = package.golden.as_ref().unwrap();
        let (taus, _) = golden.intensities.as_ref().unwrap();
        let graph: Box<dyn Intensities> = Box::new(package.model().unwrap().intensity.unwrap());
        let mut head = crate::head::Head::with(&package.manifest.head, crate::head::Asks::default(), Some(graph)).unwrap();
        let width = package.manifest.head.width();
        let objective = Objective::Law {
            law: LawKind::Intensity { units: width / 4, marks: 1 + usize::from(marked) },
            min_gap: 1e-9,
            resolution: None,
            marks: 0,
            value: None,
        };
        for (law, tau) in golden.outputs.chunks_exact(width).zip(taus) {
            let gap = Gap((f64::from(*tau) * 60e6) as i64);
            let [(hazard, compensator)] = head.curve(law, &[gap])[..] else { panic!("no law") };
            let target = loss::Target { gap: gap.in_unit(TimeUnit::Minute), ..loss::Target::NONE };
            let trained = whole.step.terms(&objective, law, &[target]).unwrap()[0].time.unwrap();
            let served = compensator - hazard.ln();
            assert!((trained - served).abs() < 1e-4 * trained.abs().max(1.0), "{trained} {served} at {tau}");
        }
        // What two laws an event cost: far from the 400 intensities of panels that are not chosen.
        let count = Arc::new(AtomicUsize::new(0));
        let graph: Box<dyn Intensities> = Box::new(Counted(Box::new(package.model().unwrap().intensity.unwrap()), Arc::clone(&count)));
        let asks = crate::head::Asks { quantiles: vec![0.1, 0.5, 0.9], ..crate::head::Asks::default() };
        let mut head = crate::head::Head::with(&package.manifest.head, asks, Some(graph)).unwrap();
        let n = taus.len();
        let outputs =
            crate::data::outputs::Outputs { width, before: golden.outputs.clone(), after: golden.outputs.clone(), kept: Vec::new() };
        let (times, gaps) = (
            vec![crate::base::time::EventTime(0); n],
            taus.iter().map(|tau| Some(Gap((f64::from(*tau) * 60e6) as i64))).collect::<Vec<_>>(),
        );
        let arrivals = crate::head::Arrivals { times: &times, gaps: &gaps, marks: &vec![None; n], values: &[] };
        let mut forecasts =
            crate::data::forecasts::Forecasts { flags: vec![Default::default(); n], next_times: vec![Vec::new(); 3], ..Default::default() };
        head.forecasts(&arrivals, &outputs, &mut forecasts);
        let each = count.load(Ordering::Relaxed) / n;
        eprintln!("{each} intensities an event");
        assert!(each < 250, "{each}");
        // A changed second graph is noticed.
        let mut bytes = std::fs::read(out.join("intensity.onnx")).unwrap();
        let last = bytes.len() / 2;
        bytes[last] ^= 1;
        std::fs::write(out.join("intensity.onnx"), bytes).unwrap();
        assert!(crate::model::Package::load(&out).is_err());
    }
}

#[test]
fn a_perfectly_regular_stream_has_a_law_of_ticks_that_does_not_drown_that_of_the_value() {
    let plan = value_plan(crate::data::value::ValueKind::Gaussian, None);
    let whole = fitted(&plan, readings(120, true, 0.0, 12)).unwrap();
    let test = whole.report.part(Part::Test).unwrap();
    let (time, value) = (test.time.unwrap(), test.value.unwrap());
    assert!(time.nll >= 0.0 && time.nll < 0.05, "{time:?}");
    assert!(value.nll < ENTROPY + 0.25, "{value:?}");
    // All times are whole seconds, and whole minutes apart.
    assert_eq!(whole.package.manifest.head.law().unwrap().resolution, Some(1.0 / 60.0));
    let folder = tempfile::tempdir().unwrap();
    let served = write(&whole, &folder.path().join("model")).unwrap().served.unwrap();
    assert!((served.value - value.nll).abs() < 1e-4 && (served.time - time.nll).abs() < 1e-4, "{served:?}");
}

#[test]
fn every_network_gives_a_law_of_the_value_about_the_keys_own_mean() {
    for (cell, kind) in Cell::NETWORKS
        .into_iter()
        .zip([crate::data::value::ValueKind::Gaussian, crate::data::value::ValueKind::Quantile].into_iter().cycle())
    {
        let mut plan = value_plan(kind, Some(50));
        (plan.fit.cell, plan.fit.epochs) = (cell, 2);
        let whole = fitted(&plan, readings(40, false, 3.0, 13)).unwrap_or_else(|e| panic!("{cell:?}: {e}"));
        let folder = tempfile::tempdir().unwrap();
        let served = write(&whole, &folder.path().join("model")).unwrap_or_else(|e| panic!("{cell:?}: {e}")).served.unwrap();
        let value = whole.report.part(Part::Test).unwrap().value.unwrap();
        assert!((served.value - value.nll).abs() < 1e-4 * value.nll.abs().max(1.0), "{cell:?}: {served:?} {value:?}");
    }
}
