//! The eight cells of the shared folder, from both PyTorch exporters, and refusals.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use tract_onnx::prelude::Framework;

use super::manifest::{InputSpec, Manifest, StateSpec};
use super::*;
use crate::base::time::TimeUnit;
use crate::data::law::{HeadSpec, LawSpec, ScoreLink};

/// Arrays of an uncompressed or deflated `.npz`, f32 only, by name.
fn npz(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let bytes = std::fs::read(path).unwrap();
    let u16_at = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
    let mut arrays = BTreeMap::new();
    let end = bytes.windows(4).rposition(|w| w == b"PK\x05\x06").unwrap();
    let (count, mut at) = (u16_at(end + 10), u32_at(end + 16));
    for _ in 0..count {
        let (method, packed, name_len) = (u16_at(at + 10), u32_at(at + 20), u16_at(at + 28));
        let local = u32_at(at + 42);
        let name = String::from_utf8(bytes[at + 46..at + 46 + name_len].to_vec()).unwrap();
        let start = local + 30 + u16_at(local + 26) + u16_at(local + 28);
        assert_eq!(method, 0, "{name}: numpy.savez stores without compression");
        let mut body = &bytes[start..start + packed];
        let mut head = [0u8; 10];
        body.read_exact(&mut head).unwrap();
        let length = usize::from(u16::from_le_bytes([head[8], head[9]]));
        let header = String::from_utf8(body[..length].to_vec()).unwrap();
        assert!(header.contains("'<f4'"), "{header}");
        let shape = header.split('(').nth(1).unwrap().split(')').next().unwrap();
        let shape = shape.split(',').filter_map(|d| d.trim().parse().ok()).collect();
        let values = body[length..].chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        arrays.insert(name.trim_end_matches(".npy").to_owned(), (shape, values));
        at += 46 + name_len + u16_at(at + 30) + u16_at(at + 32);
    }
    arrays
}

struct Rows {
    width: usize,
    hidden: Vec<f32>,
}

impl Memory for Rows {
    fn hidden(&mut self, row: usize) -> &mut [f32] {
        &mut self.hidden[row * self.width..(row + 1) * self.width]
    }
}

/// A package folder around one of the cells. Input and output names are read from the graph itself.
fn package(folder: &Path, onnx: &Path, arrays: &BTreeMap<String, (Vec<usize>, Vec<f32>)>, has_gap: bool) -> Manifest {
    let graph = tract_onnx::onnx();
    let proto = graph.proto_model_for_path(onnx).unwrap().graph.unwrap();
    let inputs: Vec<String> = proto.input.iter().map(|i| i.name.clone()).collect();
    let outputs: Vec<String> = proto.output.iter().map(|o| o.name.clone()).collect();
    let first = 1 + usize::from(has_gap);
    let states = inputs[first..].iter().zip(&outputs[1..]).enumerate();
    let head = arrays["out0"].0[1];
    let manifest = Manifest {
        format: 1,
        name: "cell".into(),
        version: "1".into(),
        input: InputSpec { features: inputs[0].clone(), gap: has_gap.then(|| inputs[1].clone()), gap_unit: TimeUnit::Second },
        states: states
            .map(|(i, (input, output))| StateSpec {
                input: input.clone(),
                output: output.clone(),
                shape: arrays[&format!("arr_{}", first + i)].0[1..].to_vec(),
                init: 0.0,
            })
            .collect(),
        attention: None,
        head: HeadSpec::LognormalMixture(LawSpec {
            components: Some(head / 3),
            marks: (0..head % 3).map(|i| i.to_string()).collect(),
            ..LawSpec::new(&[&outputs[0]], TimeUnit::Hour, 1e-6)
        }),
    };
    std::fs::copy(onnx, folder.join("model.onnx")).unwrap();
    std::fs::write(folder.join("model.toml"), manifest.to_toml().unwrap()).unwrap();
    std::fs::write(folder.join("features.toml"), "format = 1\n[[column]]\nkind = \"constant\"\nvalue = 1.0\n").unwrap();
    manifest
}

#[test]
fn the_sixteen_pytorch_cells_load_match_and_stay_bit_identical_for_any_batch() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/models");
    if !folder.is_dir() {
        eprintln!("SKIPPED the sixteen PyTorch cells: {} is not there", folder.display());
        return;
    }
    let mut tried = 0;
    for cell in ["rnn", "gru", "lstm", "ctlstm", "s4d", "linattn", "ring", "ode"] {
        let arrays = npz(&folder.join(format!("{cell}.npz")));
        let has_gap = ["ctlstm", "s4d", "linattn", "ode"].contains(&cell);
        for exporter in ["torchscript", "dynamo"] {
            let temporary = tempfile::tempdir().unwrap();
            let onnx = folder.join(format!("{cell}.{exporter}.onnx"));
            let manifest = package(temporary.path(), &onnx, &arrays, has_gap);
            let package = Package::load(temporary.path()).unwrap_or_else(|e| panic!("{cell}.{exporter}: {e}"));
            let sizes: Vec<usize> = if cell == "linattn" || cell == "ode" { vec![1, 3, 256] } else { vec![1, 2, 4, 7, 16, 64, 256, 1024] };
            package.check_batches(&sizes).unwrap_or_else(|e| panic!("{cell}.{exporter}: {e}"));

            let mut model = package.model().unwrap();
            let first = 1 + usize::from(has_gap);
            let states = manifest.states.len();
            let width = model.initial_hidden().len();
            let mut memory = Rows { width, hidden: model.initial_hidden().repeat(3) };
            for row in 0..3 {
                let mut start = 0;
                for i in 0..states {
                    let values = &arrays[&format!("arr_{}", first + i)].1;
                    let floats = values.len() / 3;
                    memory.hidden(row)[start..start + floats].copy_from_slice(&values[row * floats..(row + 1) * floats]);
                    start += floats;
                }
            }
            // The cells take the gap in seconds as f32; a Gap has microseconds, so the expected value moves by less than 1e-6.
            let gaps: Vec<_> = (0..3)
                .map(|row| has_gap.then(|| crate::base::time::Gap((f64::from(arrays["arr_1"].1[row]) * 1e6).round() as i64)))
                .collect();
            let mut outputs = crate::data::outputs::Outputs::default();
            model.steps(&arrays["arr_0"].1, &gaps, &[0, 0, 0], &mut memory, &mut outputs).unwrap();
            let close = |found: &[f32], expected: &[f32], what: &str| {
                for (a, b) in found.iter().zip(expected) {
                    assert!((a - b).abs() <= 2e-5 * b.abs().max(1.0), "{cell}.{exporter} {what}: {a} instead of {b}");
                }
            };
            close(&outputs.after, &arrays["out0"].1, "head");
            for row in 0..3 {
                let mut start = 0;
                for i in 0..states {
                    let values = &arrays[&format!("out{}", 1 + i)].1;
                    let floats = values.len() / 3;
                    close(&memory.hidden(row)[start..start + floats], &values[row * floats..(row + 1) * floats], "state");
                    start += floats;
                }
            }
            tried += 1;
        }
    }
    assert_eq!(tried, 16);
}

fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/models").join(name);
    path.is_file().then_some(path)
}

#[test]
fn a_package_is_refused_with_the_reason() {
    let Some(onnx) = shared("gru.dynamo.onnx") else {
        eprintln!("SKIPPED refusals on the GRU cell: the shared folder is not there");
        return;
    };
    let arrays = npz(&shared("gru.npz").unwrap());
    let refused = |change: &dyn Fn(&Path, &mut Manifest), expected: &str| {
        let temporary = tempfile::tempdir().unwrap();
        let mut manifest = package(temporary.path(), &onnx, &arrays, false);
        change(temporary.path(), &mut manifest);
        if temporary.path().join("model.toml").exists() {
            std::fs::write(temporary.path().join("model.toml"), manifest.to_toml().unwrap()).unwrap();
        }
        let error = Package::load(temporary.path()).err().unwrap_or_else(|| panic!("must be refused: {expected}"));
        assert!(error.to_string().contains(expected), "expected `{expected}` in:\n{error}");
        assert_eq!(error.exit_code(), 78);
    };
    refused(&|_, m| m.states[0].shape = vec![15], "shape [15]");
    refused(&|_, m| m.states[0].output = "nothing".into(), "has no output `nothing`");
    refused(&|_, m| m.states.clear(), "is not named in model.toml");
    refused(&|_, m| m.input.features = "rows".into(), "is not named in model.toml");
    refused(
        &|_, m| m.head = HeadSpec::Score { outputs: m.head.outputs().to_vec(), link: ScoreLink::Logit, calibration: None },
        "the head needs 1 parameters",
    );
    refused(&|p, _| std::fs::write(p.join("model.onnx"), b"not a graph").unwrap(), "model.onnx");
    refused(&|p, _| std::fs::remove_file(p.join("features.toml")).unwrap(), "features.toml");
    refused(&|p, _| std::fs::write(p.join("SHA256SUMS"), format!("{}  model.onnx\n", "0".repeat(64))).unwrap(), "SHA256SUMS says");
    refused(
        &|p, _| {
            use prost::Message;
            let mut proto = tract_onnx::onnx().proto_model_for_path(p.join("model.onnx")).unwrap();
            let graph = proto.graph.as_mut().unwrap();
            for value in graph.input.iter_mut().chain(graph.output.iter_mut()) {
                use tract_onnx::pb::type_proto::Value;
                let Some(Value::TensorType(tensor)) = value.r#type.as_mut().and_then(|t| t.value.as_mut()) else { continue };
                tensor.shape.as_mut().unwrap().dim[0].value = Some(tract_onnx::pb::tensor_shape_proto::dimension::Value::DimValue(1));
            }
            graph.value_info.clear();
            std::fs::write(p.join("model.onnx"), proto.encode_to_vec()).unwrap();
        },
        "the batch axis is frozen to 1",
    );
}

#[test]
fn graphs_of_both_pytorch_exporters_can_be_quantised_and_stay_bit_identical_for_any_batch() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/models");
    if !folder.is_dir() {
        eprintln!("SKIPPED quantising the PyTorch cells: {} is not there", folder.display());
        return;
    }
    let mut done = 0;
    for cell in ["rnn", "gru", "lstm", "ctlstm", "s4d", "linattn", "ring", "ode"] {
        let arrays = npz(&folder.join(format!("{cell}.npz")));
        let has_gap = ["ctlstm", "s4d", "linattn", "ode"].contains(&cell);
        for exporter in ["torchscript", "dynamo"] {
            let temporary = tempfile::tempdir().unwrap();
            let onnx = folder.join(format!("{cell}.{exporter}.onnx"));
            package(temporary.path(), &onnx, &arrays, has_gap);
            let Ok(quantised) = quantize::quantize(&std::fs::read(&onnx).unwrap()) else { continue };
            std::fs::write(temporary.path().join("model.onnx"), &quantised.bytes).unwrap();
            let loaded = Package::load(temporary.path()).unwrap_or_else(|e| panic!("{cell}.{exporter}: {e}"));
            loaded.check_batches(&[1, 3, 256]).unwrap_or_else(|e| panic!("{cell}.{exporter}: {e}"));
            done += 1;
        }
    }
    // Some are too small to have a matrix that is worth it.
    assert!(done >= 8, "{done}");
}

/// A package of a graph from `x` [1] and a state `h` to `law` [1] and `h_next`.
fn write_small(folder: &Path, graph: &onnx::Graph, floats: usize, init: f32) {
    let manifest = Manifest {
        format: 1,
        name: "small".into(),
        version: "1".into(),
        input: InputSpec { features: "x".into(), gap: None, gap_unit: TimeUnit::Second },
        states: vec![StateSpec { input: "h".into(), output: "h_next".into(), shape: vec![floats], init }],
        head: HeadSpec::Exponential(LawSpec::new(&["law"], TimeUnit::Hour, 1e-6)),
        attention: None,
    };
    std::fs::write(folder.join("model.onnx"), graph.to_bytes()).unwrap();
    std::fs::write(folder.join("model.toml"), manifest.to_toml().unwrap()).unwrap();
    std::fs::write(folder.join("features.toml"), "format = 1\n[[column]]\nkind = \"constant\"\nvalue = 1.0\n").unwrap();
}

#[test]
fn an_event_without_a_gap_starts_from_its_cohort_and_one_with_a_gap_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut graph = onnx::Graph::new("sum");
    graph.input("x", &[1]);
    graph.input("h", &[2]);
    graph.constant("w", &[1, 2], &[1.0, 0.0]);
    graph.constant("o", &[2, 1], &[1.0, 1.0]);
    graph.node("MatMul", &["x", "w"], &["xw"], &[]);
    graph.node("Add", &["xw", "h"], &["h_next"], &[]);
    graph.node("MatMul", &["h_next", "o"], &["law"], &[]);
    graph.output("law", &[1]);
    graph.output("h_next", &[2]);
    write_small(folder.path(), &graph, 2, 0.0);
    let plain = Package::load(folder.path()).unwrap();
    let cohort = |x: f32| cohorts::Cohort { centre: vec![x], state: vec![x * 10.0, 0.5] };
    let cohorts = cohorts::Cohorts::new(vec![1.0], vec![cohort(1.0), cohort(2.0)]);
    std::fs::write(folder.path().join(cohorts::FILE), cohorts.to_toml().unwrap()).unwrap();
    let package = Package::load(folder.path()).unwrap();
    assert_ne!(plain.digest, package.digest);
    assert_eq!(package.cohorts(), Some(&cohorts));

    let mut model = package.model().unwrap();
    let width = model.initial_hidden().len();
    let mut memory = Rows { width, hidden: model.initial_hidden().repeat(3) };
    let mut outputs = crate::data::outputs::Outputs::default();
    let gap = Some(crate::base::time::Gap(1));
    model.steps(&[1.2, 1.9, 7.0], &[None, None, gap], &[0; 3], &mut memory, &mut outputs).unwrap();
    let states: Vec<_> = (0..3).map(|row| memory.hidden(row)[..2].to_vec()).collect();
    assert_eq!(states, [vec![11.2, 0.5], vec![21.9, 0.5], vec![7.0, 0.0]]);
    // No law was there to score a first event by, whatever state it starts from.
    assert!(outputs.before.iter().all(|value| value.is_nan()));
    // A key that has expired begins again.
    model.steps(&[2.0, 1.0, 1.0], &[None, gap, gap], &[0; 3], &mut memory, &mut outputs).unwrap();
    let states: Vec<_> = (0..3).map(|row| memory.hidden(row)[0]).collect();
    assert_eq!(states, [22.0, 22.9, 8.0]);
}

#[test]
fn what_has_another_number_of_rows_than_the_batch_or_the_batch_elsewhere_is_refused() {
    // A law of [2 B, 1], half of which would be left out.
    let mut graph = onnx::Graph::new("rows");
    graph.input("x", &[2]);
    graph.positions("shape", &[-1, 1]);
    graph.node("Reshape", &["x", "shape"], &["law"], &[]);
    graph.output("law", &[1]);
    let refusal = |graph: &[u8], states: &str| {
        let folder = tempfile::tempdir().unwrap();
        let head = "[head]\nkind = \"exponential\"\noutputs = [\"law\"]\ntime_unit = \"s\"\nmin_gap = 0.001\n";
        let manifest = format!("format = 1\nname = \"e\"\nversion = \"1\"\n[input]\nfeatures = \"x\"\n{states}{head}");
        std::fs::write(folder.path().join("model.toml"), manifest).unwrap();
        std::fs::write(folder.path().join("model.onnx"), graph).unwrap();
        std::fs::write(folder.path().join("features.toml"), "format = 1\n[[column]]\nkind = \"constant\"\nvalue = 1.0\n").unwrap();
        Package::load(folder.path()).err().unwrap().to_string()
    };
    use prost::Message;
    use tract_onnx::pb::{ModelProto, tensor_shape_proto::dimension::Value, type_proto};
    let shaped = |graph: &onnx::Graph, inputs: bool, name: &str, dims: &[Option<&str>]| {
        let mut proto = ModelProto::decode(&graph.to_bytes()[..]).unwrap();
        let own = proto.graph.as_mut().unwrap();
        let values = if inputs { &mut own.input } else { &mut own.output };
        let value = values.iter_mut().find(|value| value.name == name).unwrap();
        let Some(type_proto::Value::TensorType(tensor)) = value.r#type.as_mut().unwrap().value.as_mut() else { panic!() };
        for (dim, to) in tensor.shape.as_mut().unwrap().dim.iter_mut().zip(dims) {
            dim.value = to.map(|to| to.parse().map_or_else(|_| Value::DimParam(to.to_owned()), Value::DimValue));
        }
        proto.encode_to_vec()
    };
    // Without a shape of its own, as exporters leave it where they do not know it.
    let said = refusal(&shaped(&graph, false, "law", &[None, Some("1")]), "");
    assert!(said.contains("output `law`: axis 0 must be the batch") && said.contains("2*B"), "{said}");

    let mut layers = onnx::Graph::new("layers");
    layers.input("x", &[1]);
    layers.input("h", &[2, 1]);
    layers.node("Neg", &["x"], &["law"], &[]);
    layers.node("Neg", &["h"], &["h_next"], &[]);
    layers.output("law", &[1]);
    layers.output("h_next", &[2, 1]);
    let dims = [Some("2"), Some("B"), Some("1")];
    let first = shaped(&layers, true, "h", &dims);
    let mut proto = ModelProto::decode(&first[..]).unwrap();
    proto.graph.as_mut().unwrap().output[1] = proto.graph.as_ref().unwrap().input[1].clone();
    proto.graph.as_mut().unwrap().output[1].name = "h_next".to_owned();
    let state = "[[state]]\ninput = \"h\"\noutput = \"h_next\"\nshape = [2, 1]\n";
    let said = refusal(&proto.encode_to_vec(), state);
    assert!(said.contains("input `h`: axis 0 must be the batch, found [2, B, 1]"), "{said}");
}

#[test]
fn a_step_whose_next_state_is_not_finite_leaves_it_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut graph = onnx::Graph::new("logarithm");
    graph.input("x", &[1]);
    graph.input("h", &[1]);
    graph.node("Log", &["x"], &["l"], &[]);
    graph.node("Add", &["l", "h"], &["h_next"], &[]);
    graph.node("Tanh", &["h"], &["law"], &[]);
    graph.output("law", &[1]);
    graph.output("h_next", &[1]);
    write_small(folder.path(), &graph, 1, 0.5);
    let mut model = Package::load(folder.path()).unwrap().model().unwrap();
    let width = model.initial_hidden().len();
    let mut memory = Rows { width, hidden: model.initial_hidden().repeat(3) };
    let mut outputs = crate::data::outputs::Outputs::default();
    model.steps(&[1.0, -1.0, 0.0], &[None; 3], &[0; 3], &mut memory, &mut outputs).unwrap();
    assert_eq!(outputs.kept, [1, 2], "the logarithm of -1, and of 0");
    let states: Vec<f32> = memory.hidden.chunks(width).map(|hidden| hidden[0]).collect();
    assert_eq!(states, [0.5, 0.5, 0.5]);
    model.steps(&[1.0], &[None], &[0], &mut memory, &mut outputs).unwrap();
    assert!(outputs.kept.is_empty());
}
