//! History whose files are not in order, or lack what the pipeline reads.

use std::path::Path;

use crate::program::{done, meantime, pipeline, refused};

/// Generated payments, and the same lines turned around in two files.
fn history(folder: &Path) {
    let cards = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/cards");
    let sorted = folder.join("sorted.ndjson");
    done(&["generate", cards.to_str().unwrap(), "--events", "3000", "--keys", "60", "--to", "file", "--out", sorted.to_str().unwrap()]);
    let text = std::fs::read_to_string(&sorted).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.reverse();
    let (a, b) = lines.split_at(1100);
    std::fs::write(folder.join("turned-a.ndjson"), a.join("\n") + "\n").unwrap();
    std::fs::write(folder.join("turned-b.ndjson"), b.join("\n") + "\n").unwrap();
    let text = pipeline("mark = \"channel\"", "[fit]\nhidden = 4\ncomponents = 2\nepochs = 2\n").replace("key = \"key\"", "key = \"card\"");
    std::fs::write(folder.join("pipeline.toml"), text).unwrap();
}

#[test]
fn a_model_fitted_to_files_in_any_order_is_the_same_to_the_byte_and_so_are_its_figures() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    history(folder.path());
    let own = folder.path().to_str().unwrap();
    done(&["fit", own, "--from", &at("sorted.ndjson"), "--out", &at("model")]);
    done(&["fit", own, "--from", &at("turned-*.ndjson"), "--out", &at("model-turned")]);
    for file in ["model.onnx", "features.toml", "golden.parquet"] {
        assert_eq!(
            std::fs::read(folder.path().join("model").join(file)).unwrap(),
            std::fs::read(folder.path().join("model-turned").join(file)).unwrap(),
            "{file}"
        );
    }
    let figures = |from: &str| {
        let report = at("report.json");
        done(&["evaluate", own, "--from", from, "--json", &report]);
        let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
        let mut report = report.as_object().unwrap().clone();
        report.retain(|name, _| !["seconds", "events_per_s"].contains(&name.as_str()));
        report
    };
    assert!(figures(&at("sorted.ndjson")) == figures(&at("turned-*.ndjson")));
}

#[test]
fn a_column_that_no_file_has_is_an_error_or_a_warning_with_the_nearest_name() {
    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
    use arrow::record_batch::RecordBatch;

    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    history(folder.path());
    let table = |name: &str, key: &str, mark: &str| {
        let columns: [(&str, ArrayRef); 4] = [
            (key, std::sync::Arc::new(StringArray::from(vec!["a", "a", "b"]))),
            ("ts", std::sync::Arc::new(Int64Array::from(vec![1_764_000_000_000_i64, 1_764_000_100_000, 1_764_000_200_000]))),
            (mark, std::sync::Arc::new(StringArray::from(vec!["pos", "web", "pos"]))),
            ("amount", std::sync::Arc::new(Float64Array::from(vec![1.0, 2.0, 3.0]))),
        ];
        crate::backfill::write(&folder.path().join(name), &RecordBatch::try_from_iter(columns).unwrap());
    };
    table("key.parquet", "crad", "channel");
    table("mark.parquet", "card", "chanel");
    let own = folder.path().to_str().unwrap();
    done(&["fit", own, "--from", &at("sorted.ndjson"), "--out", &at("model")]);
    let parquet = ["--set", "event.format=parquet", "--set", "source.paths=[\"key.parquet\"]"];
    let said = refused(&[&["evaluate", own, "--from", &at("key.parquet")][..], &parquet].concat());
    assert!(said.contains("no file has a column `card`, the key of [event]") && said.contains("did you mean `crad`?"), "{said}");
    let output = meantime(&[&["backfill", own, "--from", &at("mark.parquet"), "--to", &at("out"), "--dry-run"][..], &parquet].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("no file has this column") && said.contains("did you mean `chanel`?"), "{said}");
}
