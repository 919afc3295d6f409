//! The example that exports a PyTorch cell: what it writes loads, gives the same bits in every batch, and gives what PyTorch gives.
//!
//! Needs a Python with torch, onnx and onnxscript, named by `MEANTIME_PYTORCH`; without it the test says that it is left out.

use std::path::Path;
use std::process::Command;

use meantime::base::number::f32_of;
use meantime::base::time::Gap;
use meantime::data::outputs::Outputs;
use meantime::model::{Memory, Package};

/// The hidden floats of one key.
struct Key(Vec<f32>);

impl Memory for Key {
    fn hidden(&mut self, _row: usize) -> &mut [f32] {
        &mut self.0
    }
}

#[test]
fn the_exported_step_is_served_as_pytorch_computes_it() {
    let Some(python) = std::env::var_os("MEANTIME_PYTORCH") else {
        eprintln!("LEFT OUT: MEANTIME_PYTORCH names no Python with torch, onnx and onnxscript");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/pytorch/export_step.py");
    let exported = Command::new(python).arg(script).arg(&out).output().unwrap();
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    let shown = String::from_utf8(exported.stdout).unwrap();
    let told: serde_json::Value = serde_json::from_str(shown.lines().last().unwrap()).unwrap();

    let verified = Command::new(env!("CARGO_BIN_EXE_meantime")).args(["model", "verify"]).arg(&out).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));

    let numbers =
        |value: &serde_json::Value| -> Vec<f32> { value.as_array().unwrap().iter().map(|v| f32_of(v.as_f64().unwrap())).collect() };
    let package = Package::load(&out).unwrap();
    let mut model = package.model().unwrap();
    let mut key = Key(model.initial_hidden().to_vec());
    let mut outputs = Outputs::default();
    for (x, law) in told["x"].as_array().unwrap().iter().zip(told["law"].as_array().unwrap()) {
        model.steps(&numbers(x), &[Some(Gap(1))], &[0], &mut key, &mut outputs).unwrap();
        let law = numbers(law);
        assert_eq!(outputs.after.len(), law.len());
        for (given, expected) in outputs.after.iter().zip(law) {
            assert!((given - expected).abs() < 1e-5, "{given} is not {expected}");
        }
    }
}
