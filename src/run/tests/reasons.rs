//! Reasons of a surprise by the columns of the event before: what they are, and that they depend on nothing but the key's events.

use serde_json::Value;

use super::*;
use crate::model::onnx::Graph;

const HOUR: i64 = 3_600_000;

/// Fields that events of the small model have besides key and time.
type Fields<'a> = &'a [(&'a str, f64)];

/// A package whose law is known in closed form, and its pipeline. The rate depends on `amount` and on a state that sums up earlier amounts, the mark on `noise`,
/// and `gap` and `idle` are read and weigh nothing.
fn small(folder: &Path, reasons: &str) -> Stage {
    let model = folder.join("model");
    std::fs::create_dir_all(&model).unwrap();
    let mut graph = Graph::new("small");
    graph.input("x", &[4]);
    graph.input("h", &[1]);
    graph.constant("of_x", &[4, 3], &[0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0]);
    graph.constant("of_h", &[1, 3], &[0.5, 0.0, 0.0]);
    graph.constant("amount", &[4, 1], &[0.0, 1.0, 0.0, 0.0]);
    graph.constant("half", &[1, 1], &[0.5]);
    graph.node("MatMul", &["x", "of_x"], &["law_of_x"], &[]);
    graph.node("MatMul", &["h", "of_h"], &["law_of_h"], &[]);
    graph.node("Add", &["law_of_x", "law_of_h"], &["law"], &[]);
    graph.node("MatMul", &["x", "amount"], &["more"], &[]);
    graph.node("MatMul", &["h", "half"], &["less"], &[]);
    graph.node("Add", &["more", "less"], &["h_next"], &[]);
    graph.output("law", &[3]);
    graph.output("h_next", &[1]);
    std::fs::write(model.join("model.onnx"), graph.to_bytes()).unwrap();
    let manifest = "format = 1\nname = \"small\"\nversion = \"1\"\n[input]\nfeatures = \"x\"\n\
        [[state]]\ninput = \"h\"\noutput = \"h_next\"\nshape = [1]\n\
        [head]\nkind = \"exponential\"\noutputs = [\"law\"]\ntime_unit = \"h\"\nmin_gap = 0.001\nmarks = [\"a\", \"b\"]\n";
    std::fs::write(model.join("model.toml"), manifest).unwrap();
    let number = |field: &str| format!("[[column]]\nkind = \"numeric\"\nfield = \"{field}\"\nscale = \"identity\"\n");
    let recipe = "format = 1\n[[column]]\nkind = \"gap\"\nunit = \"h\"\nscale = \"raw\"\n".to_owned();
    std::fs::write(model.join("features.toml"), recipe + &number("amount") + &number("noise") + &number("idle")).unwrap();
    let words = "[[reason]]\nsubject = \"amount\"\ncode = \"R07\"\ntext = \"The payment before was large\"\n";
    std::fs::write(model.join("reasons.toml"), words).unwrap();
    let pipeline = "name = \"small\"\n[source]\nkind = \"generate\"\nstream = \"cards\"\n\
        [event]\nformat = \"json\"\nkey = \"card\"\ntime = { field = \"ts\", unit = \"ms\" }\nmark = \"mark\"\n\
        [state]\nexpiry = \"30d\"\n[sink]\nkind = \"ndjson\"\npath = \"-\"\n[dead_letter]\nkind = \"ndjson\"\npath = \"dead\"\n";
    std::fs::write(folder.join("pipeline.toml"), pipeline).unwrap();
    let sets: Vec<String> = (!reasons.is_empty()).then(|| format!("reasons={{{reasons}}}")).into_iter().collect();
    Stage::load(pipeline::load(folder, &sets, Purpose::Run).unwrap_or_else(|e| panic!("{e}"))).unwrap()
}

fn event(offset: i64, hours: i64, mark: &str, fields: Fields<'_>) -> Record {
    let fields: String = fields.iter().map(|(name, value)| format!(",\"{name}\":{value}")).collect();
    let payload = format!(r#"{{"card":"k","ts":{},"mark":"{mark}"{fields}}}"#, 1_700_000_000_000 + hours * HOUR);
    record(0, offset, b"k", payload.as_bytes())
}

/// What a row names, by code.
fn named(row: &str) -> Vec<(String, f64)> {
    let reasons = field(row, "reasons");
    let of = |reason: &Value| (reason["code"].as_str().unwrap().to_owned(), reason["effect"].as_f64().unwrap());
    reasons.as_array().unwrap().iter().map(of).collect()
}

/// Nats of a gap in hours and of the mark b, under the law of the small model.
fn surprise(amount: f64, noise: f64, state: f64, hours: f64) -> f64 {
    let log_rate = amount + 0.5 * state;
    log_rate.exp() * hours - log_rate + (1.0 + (2.0 * noise).exp()).ln()
}

#[test]
fn the_columns_of_the_event_before_that_its_law_rests_on_are_named_with_what_they_cost() {
    let folder = tempfile::tempdir().unwrap();
    let stage = small(folder.path(), "top=4,above=0.0,surprise=\"columns\"");
    let given = [(1.0, 0.5, 9.0), (2.0, 1.5, -4.0), (0.0, 1.0, 7.0), (1.5, 0.0, 3.0), (-1.0, -1.0, 1.0)];
    let of = |i: usize| [("amount", given[i].0), ("noise", given[i].1), ("idle", given[i].2)];
    let all: Vec<Record> = (0..5).map(|i| event(i, 2 * i, "b", &of(i as usize))).collect();
    let rows = run(&stage, &[&all], 0);
    assert!(named(&rows[0].2).is_empty(), "no event before the first");
    // The state before the event before.
    let mut state = 0.0;
    for (i, row) in rows.iter().enumerate().skip(1) {
        let (amount, noise, _) = given[i - 1];
        let served = surprise(amount, noise, state, 2.0);
        let expected = [("R07", served - surprise(0.0, noise, state, 2.0)), ("noise", served - surprise(amount, 0.0, state, 2.0))];
        let mut expected: Vec<(&str, f64)> = expected.into_iter().filter(|(_, effect)| *effect > 1e-9).collect();
        expected.sort_by(|a, b| b.1.total_cmp(&a.1));
        let found = named(&row.2);
        assert_eq!(
            found.iter().map(|(code, _)| code.as_str()).collect::<Vec<_>>(),
            expected.iter().map(|(code, _)| *code).collect::<Vec<_>>()
        );
        for ((_, found), (_, expected)) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-4 * expected.max(1.0), "{found} {expected} of event {i}");
        }
        state = 0.5 * state + amount;
    }
    let all: Vec<usize> = rows.iter().map(|row| named(&row.2).len()).collect();
    assert!(all.contains(&2) && all.contains(&1), "a column of 0, and what made the event likelier, is no reason: {all:?}");
    // An event without a mark that is known is surprising by its time alone.
    let unmarked = [event(0, 0, "b", &of(1)), event(1, 3, "c", &of(0))];
    let rows = run(&stage, &[&unmarked], 0);
    assert_eq!(named(&rows[1].2).iter().map(|(code, _)| code.as_str()).collect::<Vec<_>>(), ["R07"]);
}

#[test]
fn there_are_reasons_from_the_same_surprise_on_as_by_parts_and_none_after_a_key_has_expired() {
    let folder = tempfile::tempdir().unwrap();
    let columns = small(folder.path(), "top=4,above=3.0,surprise=\"columns\"");
    let parts = small(folder.path(), "top=4,above=3.0");
    let of = |amount: f64| [("amount", amount), ("noise", 1.0), ("idle", 1.0)];
    let hours = [0, 1, 5, 6, 6 + 24 * 31, 8 + 24 * 31, 12 + 24 * 31];
    // The second comes as is expected, at a likely mark.
    let mark = |i: usize| if i == 1 { "a" } else { "b" };
    let each = hours.iter().enumerate();
    let all: Vec<Record> = each.map(|(i, hours)| event(i as i64, *hours, mark(i), &of(1.0 + i as f64 / 4.0))).collect();
    let (columns, parts) = (run(&columns, &[&all], 0), run(&parts, &[&all], 0));
    let some = |rows: &[(i32, i64, String)]| rows.iter().map(|row| !named(&row.2).is_empty()).collect::<Vec<bool>>();
    assert_eq!(some(&columns), some(&parts));
    assert_eq!(some(&columns)[4..], [false, true, true], "the one after a month begins anew");
    assert_eq!(some(&columns)[..4], [false, false, true, true]);
    // Nothing else of a forecast is another one.
    for (columns, parts) in columns.iter().zip(&parts) {
        let rest = |row: &str| {
            let mut row: serde_json::Map<String, Value> = serde_json::from_str(row).unwrap();
            row.remove("reasons").unwrap();
            row.remove("fingerprint").unwrap();
            row
        };
        assert_eq!(rest(&columns.2), rest(&parts.2));
    }
}

const COLUMNS: &str = "reasons={top=3,above=2.0,surprise=\"columns\"}";

#[test]
fn reasons_by_columns_are_the_same_for_any_batch_any_partitions_and_after_a_silent_replay() {
    for sets in [
        &[COLUMNS][..],
        &[COLUMNS, "order.lateness=30m"][..],
        &[COLUMNS, "state.max_keys=9", "state.when_full=evict", "state.expiry=1d"][..],
        &[COLUMNS, "forecast.overdue=[0.5]"][..],
    ] {
        let stage = stage(sets);
        let all = records(3_000, 40, 3);
        let whole = run(&stage, &[&all], 0);
        let reasoned = whole.iter().filter(|row| field(&row.2, "kind") == "forecast" && !named(&row.2).is_empty()).count();
        assert!(reasoned > 100, "{reasoned} rows have reasons, with {sets:?}");
        for size in [1, 7, 4096] {
            let chunks: Vec<&[Record]> = all.chunks(size).collect();
            assert_eq!(run(&stage, &chunks, 0), whole, "batches of {size}, with {sets:?}");
        }
        assert_eq!(apart(&stage, &all), whole, "each partition in a lane of its own, with {sets:?}");
        if sets.len() == 1 {
            let after: Vec<_> = whole.iter().filter(|row| row.1 >= 600).cloned().collect();
            // Also of batches of which nothing is emitted.
            let chunks: Vec<&[Record]> = all.chunks(100).collect();
            assert_eq!(run(&stage, &chunks, 600), after, "the first event after a silent replay has one before it");
        }
    }
}
