//! `meantime evaluate --next` on a stream whose law is known: continuations of the true law are nearer to what came than those of a wrong one.

use std::path::{Path, PathBuf};

use meantime::base::time::TimeUnit;
use meantime::data::law::{HeadSpec, LawSpec};
use meantime::features::recipe::{Recipe, Spec};
use meantime::fit::process::{Kind, Process};
use meantime::fit::step::Step;
use meantime::model::manifest::{FORMAT, Manifest};
use serde_json::Value as Json;

use super::program::meantime;

const PIPELINE: &str = r#"
name = "known"
[source]
kind = "file"
paths = ["unused.parquet"]
[event]
format = "parquet"
key = "key"
time = { field = "event_time", unit = "rfc3339" }
[model]
package = "model"
[sink]
kind = "ndjson"
path = "-"
[dead_letter]
kind = "ndjson"
path = "dead.ndjson"
"#;

/// The stream; `None`, loudly, where it is not there.
fn data(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/tpp-synthetic").join(name);
    if !path.is_file() {
        eprintln!("SKIPPED next events of a known law: {} is not there", path.display());
        return None;
    }
    Some(path)
}

/// A pipeline whose package is a process, not a fit.
fn pipeline(folder: &Path, kind: Kind) {
    let process = Process { kind, marks: Vec::new(), unit: TimeUnit::Hour, width: 1 };
    let spec = LawSpec::new(&["law"], TimeUnit::Hour, 1e-9);
    let head = if matches!(process.kind, Kind::Hawkes { .. }) { HeadSpec::Hawkes(spec) } else { HeadSpec::Exponential(spec) };
    let manifest = Manifest {
        format: FORMAT,
        name: "known".to_owned(),
        version: "1".to_owned(),
        input: process.input(),
        states: process.states(),
        attention: None,
        head,
    };
    let model = folder.join("model");
    std::fs::create_dir_all(&model).unwrap();
    std::fs::write(folder.join("pipeline.toml"), PIPELINE).unwrap();
    std::fs::write(model.join("model.onnx"), process.graph("law").unwrap()).unwrap();
    std::fs::write(model.join("model.toml"), manifest.to_toml().unwrap()).unwrap();
    let recipe = Recipe { format: 1, columns: vec![Spec::Constant { value: 1.0 }] };
    std::fs::write(model.join("features.toml"), recipe.to_toml().unwrap()).unwrap();
}

fn next(folder: &Path, data: &Path, more: &[&str]) -> Json {
    let (pipeline, data) = (folder.display().to_string(), data.display().to_string());
    let arguments = ["evaluate", &pipeline, "--from", &data, "--where", "split=test", "--json", "-", "--next", "8"];
    let judged = meantime(&[&arguments[..], more].concat());
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stderr));
    serde_json::from_slice::<Json>(&judged.stdout).unwrap()["next"].clone()
}

#[test]
fn continuations_of_the_true_law_are_nearer_to_what_came_than_those_of_a_wrong_one() {
    let Some(data) = data("hawkes1.parquet") else { return };
    let (right, wrong) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    pipeline(right.path(), Kind::Hawkes { bases: vec![0.2], jumps: vec![0.8], decays: vec![1.0] });
    pipeline(wrong.path(), Kind::Poisson { log_rate: 0.0 });
    let asked = ["--paths", "8", "--next-sample", "300", "--seed", "3"];
    let (true_law, poisson) = (next(right.path(), &data, &asked), next(wrong.path(), &data, &asked));
    let of = |next: &Json, table: &str, figure: &str| next[table][figure].as_f64().unwrap_or_else(|| panic!("no {figure} in {next}"));
    assert_eq!(true_law["points"], 300);
    assert!(of(&true_law, "transport", "points") > 280.0, "{true_law}");
    let distances = [&true_law, &poisson].map(|next| of(next, "transport", "distance"));
    assert!(distances[0] < 0.95 * distances[1], "{distances:?}");
    let precisions = [&true_law, &poisson].map(|next| of(next, "precision", "mean"));
    assert!(precisions[0] > precisions[1], "{precisions:?}");
    // The same seed draws the same, another one does not.
    assert_eq!(next(right.path(), &data, &asked), true_law);
    assert_ne!(next(right.path(), &data, &["--paths", "8", "--next-sample", "300", "--seed", "4"]), true_law);
    // Nor does the size of batches matter.
    let batches = [&asked[..], &["--set", "run.max_batch=512"]].concat();
    assert_eq!(next(right.path(), &data, &batches), true_law);
}

#[test]
fn what_cannot_be_drawn_is_refused() {
    let pipeline = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("pipelines/visits").display().to_string();
    let alone = meantime(&["evaluate", &pipeline, "--paths", "3"]);
    assert_eq!(alone.status.code(), Some(2), "{}", String::from_utf8_lossy(&alone.stderr));
    let none = meantime(&["evaluate", &pipeline, "--next", "0"]);
    assert_eq!(none.status.code(), Some(2));
}
