//! What a model with attention looks at, in the report.

use std::fmt::Write as _;

use super::program::{done, pipeline};

const TABLES: &str = r#"
[fit]
cell = "attention"
law = "exponential"
hidden = 4
epochs = 2
"#;

#[test]
fn the_report_of_a_model_with_attention_shows_what_each_event_of_a_key_looks_at() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("pipeline.toml"), pipeline("", TABLES)).unwrap();
    let mut text = String::new();
    for i in 0..1200_u32 {
        // Key k0 has 50 events, the others 25 to 48.
        let (key, time) = (i % 30, 1_700_000_000 + i * 613 % 97 + i * 100);
        if key == 0 || i < 720 + 20 * key {
            writeln!(text, "{{\"key\":\"k{key}\",\"ts\":{time}000}}").unwrap();
        }
    }
    for i in 0..10_u32 {
        writeln!(text, "{{\"key\":\"k0\",\"ts\":{}000}}", 1_700_130_000 + i * 50).unwrap();
    }
    std::fs::write(at("events.ndjson"), text).unwrap();
    let pipeline = folder.path().display().to_string();
    done(&["fit", &pipeline, "--from", &at("events.ndjson"), "--out", &at("model")]);
    done(&[
        "evaluate",
        &pipeline,
        "--from",
        &at("events.ndjson"),
        "--key",
        "k0",
        "--html",
        &at("page.html"),
        "--json",
        &at("figures.json"),
    ]);
    let figures: serde_json::Value = serde_json::from_slice(&std::fs::read(at("figures.json")).unwrap()).unwrap();
    let weights = figures["history"]["attention"].as_array().unwrap();
    assert_eq!(weights.len(), figures["history"]["events"].as_array().unwrap().len());
    let mut uneven = 0;
    for row in weights {
        let row: Vec<f64> = row.as_array().unwrap().iter().map(|weight| weight.as_f64().unwrap()).collect();
        assert!(row.len() == 32 && (row.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{row:?}");
        uneven += usize::from(row.iter().any(|weight| (weight - row[31]).abs() > 1e-6));
    }
    // The first one shown is event 11 of 50, with 10 before it: 21 places are empty.
    let first: Vec<f64> = weights[0].as_array().unwrap().iter().map(|weight| weight.as_f64().unwrap()).collect();
    assert!(first[..21].iter().all(|weight| *weight < 1e-6) && first[21..].iter().all(|weight| *weight > 1e-6), "{first:?}");
    assert!(uneven > 30, "all weights alike in {uneven} rows");
    let page = std::fs::read_to_string(at("page.html")).unwrap();
    assert!(page.contains("Attention: what each event looks at") && page.matches("class=\"heat\"").count() > 300);
}
