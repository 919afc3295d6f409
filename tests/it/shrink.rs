//! `meantime model quantize` and `prune` as a user meets them: smaller packages that still say the same, or are refused.

use std::path::Path;

use meantime::base::number::i64_of;
use meantime::model::onnx::Graph;
use rand::{Rng, SeedableRng};

use super::program::{done, pipeline, refused};

const TABLES: &str = r#"
[fit]
time_unit = "s"
hidden = 64
components = 8
epochs = 4
"#;

/// Gaps that alternate between about 10 s and about 1000 s; the mark says which comes next, nine times in ten.
fn events(path: &Path) {
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(11);
    let mut rows: Vec<(i64, u32, &str)> = Vec::new();
    for key in 0..40 {
        let (mut time, mut long) = (1.7e9 + f64::from(key), key % 2 == 0);
        for _ in 0..80 {
            long = !long;
            let told = long == (random.random::<f64>() < 0.9);
            rows.push((i64_of(time * 1e3), key, if told { "slow" } else { "fast" }));
            time += if long { 1000.0 } else { 10.0 } * (0.7 + 0.6 * random.random::<f64>());
        }
    }
    rows.sort_unstable();
    let lines: String =
        rows.iter().map(|(time, key, what)| format!("{{\"key\":\"k{key}\",\"ts\":{time},\"what\":\"{what}\"}}\n")).collect();
    std::fs::write(path, lines).unwrap();
}

/// A folder with pipeline and events; the events' path.
fn prepared(folder: &Path) -> String {
    std::fs::write(folder.join("pipeline.toml"), pipeline("mark = \"what\"", TABLES)).unwrap();
    events(&folder.join("events.ndjson"));
    folder.join("events.ndjson").display().to_string()
}

fn nll(pipeline: &str, package: &str) -> f64 {
    let set = format!("model.package={package}");
    let report: serde_json::Value = serde_json::from_str(&done(&["evaluate", pipeline, "--json", "-", "--set", &set])).unwrap();
    report["time"]["nll"].as_f64().unwrap()
}

#[test]
fn a_quantised_package_is_a_third_as_large_says_nearly_the_same_and_is_bit_identical_in_any_batch() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let events = prepared(folder.path());
    let pipeline = folder.path().display().to_string();
    for cell in ["gru", "lstm", "ssm"] {
        // The paths of the pipeline are relative to it.
        let source = format!("source={{kind=\"file\",paths=[\"{events}\"]}}");
        done(&["fit", &pipeline, "--set", &source, "--cell", cell, "--out", &at("model")]);
        let shown = done(&["model", "quantize", &at("model"), "--out", &at("int8"), "--pipeline", &pipeline, "--from", &events]);
        assert!(shown.contains("whole numbers of eight bits") && shown.contains("KS of the residuals"), "{shown}");
        let size = |package: &str| std::fs::metadata(folder.path().join(package).join("model.onnx")).unwrap().len();
        assert!(100 * size("int8") < 35 * size("model"), "{cell}: {} of {}", size("int8"), size("model"));
        let (before, after) = (nll(&pipeline, &at("model")), nll(&pipeline, &at("int8")));
        assert!((after - before).abs() < 0.01 && after != before, "{cell}: {before} {after}");
        let verified = done(&["model", "verify", &at("int8")]);
        assert!(
            verified.contains("64 golden events") && verified.contains("bit-identical for batches of 1, 2, 4, 7, 16, 64, 256, 1024"),
            "{verified}"
        );
        let inspected = done(&["model", "inspect", &at("int8")]);
        assert!(inspected.starts_with("tested 1-int8"), "{inspected}");
        assert!(std::fs::read_to_string(folder.path().join("int8/CARD.md")).unwrap().contains("## Quantised"));
        let sums = std::fs::read_to_string(folder.path().join("int8/SHA256SUMS")).unwrap();
        assert_eq!(sums.lines().count(), 5, "{sums}");
    }
    assert!(refused(&["model", "quantize", &at("int8"), "--out", &at("twice")]).contains("already"));
    assert!(!folder.path().join("twice").exists());
    // Without a pipeline it shows what it saves.
    assert!(done(&["model", "quantize", &at("model"), "--out", &at("int8")]).contains("bytes of model.onnx"));
}

#[test]
fn a_pruned_package_has_fewer_floats_a_key_and_what_is_not_of_fit_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let events = prepared(folder.path());
    let pipeline = folder.path().display().to_string();
    let (model, small) = (at("model"), at("small"));
    let prune = ["model", "prune", &model, "--out", &small, "--pipeline", &pipeline, "--from", &events, "--share", "0.75", "--epochs", "3"];
    for (cell, law, floats) in [("gru", "lognormal_mixture", 1), ("lstm", "gompertz", 2), ("ct_lstm", "weibull", 4)] {
        done(&["fit", &pipeline, "--from", &events, "--cell", cell, "--law", law, "--out", &at("model")]);
        let shown = done(&prune);
        assert!(shown.contains("16 of 64 hidden units are left") && shown.contains("by the test split"), "{shown}");
        let inspected = done(&["model", "inspect", &at("small")]);
        assert!(
            inspected.starts_with("tested 1-h16") && inspected.contains(&format!("{} bytes of recurrent state", 4 * 16 * floats)),
            "{inspected}"
        );
        assert!(done(&["model", "verify", &at("small")]).contains("64 golden events"));
        let (before, after) = (nll(&pipeline, &at("model")), nll(&pipeline, &at("small")));
        assert!(after < before + 0.1, "{cell}: {before} {after}\n{shown}");
        assert!(std::fs::read_to_string(folder.path().join("small/CARD.md")).unwrap().contains("## Pruned"));
    }
    // A smaller one can be made smaller in the other way, not the other way round.
    done(&["model", "quantize", &at("small"), "--out", &at("int8")]);
    let of_bytes = refused(&["model", "prune", &at("int8"), "--out", &at("no"), "--pipeline", &pipeline, "--from", &events]);
    assert!(of_bytes.contains("whole numbers of eight bits"), "{of_bytes}");

    // A graph from elsewhere.
    let mut graph = Graph::new("torch-jit-export");
    graph.input("x", &[2]);
    graph.input("h", &[4]);
    graph.constant("w", &[2, 4], &[0.1; 8]);
    graph.constant("o", &[4, 1], &[0.1; 4]);
    graph.node("MatMul", &["x", "w"], &["xw"], &[]);
    graph.node("Add", &["xw", "h"], &["sum"], &[]);
    graph.node("Tanh", &["sum"], &["h_next"], &[]);
    graph.node("MatMul", &["h_next", "o"], &["law"], &[]);
    graph.output("law", &[1]);
    graph.output("h_next", &[4]);
    let foreign = folder.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("model.onnx"), graph.to_bytes()).unwrap();
    std::fs::write(
        foreign.join("model.toml"),
        "format = 1\nname = \"foreign\"\nversion = \"1\"\n[input]\nfeatures = \"x\"\n[[state]]\ninput = \"h\"\noutput = \"h_next\"\nshape = [4]\n\
         [head]\nkind = \"exponential\"\noutputs = [\"law\"]\ntime_unit = \"s\"\nmin_gap = 0.001\n",
    )
    .unwrap();
    std::fs::write(
        foreign.join("features.toml"),
        "format = 1\n[[column]]\nkind = \"is_first\"\n[[column]]\nkind = \"constant\"\nvalue = 1.0\n",
    )
    .unwrap();
    let reason = refused(&["model", "prune", &at("foreign"), "--out", &at("no"), "--pipeline", &pipeline, "--from", &events]);
    assert!(reason.contains("`torch-jit-export` is none of the cells") && reason.contains("quantize"), "{reason}");
    assert!(!folder.path().join("no").exists());
}
