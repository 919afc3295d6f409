//! The bench's model packages: GRU with F = 32, H = 64 and seeded random weights, written into a temporary folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use meantime::base::time::TimeUnit;
use meantime::data::law::{HeadSpec, LawSpec, ScoreLink};
use meantime::fit::cell::Design;
use meantime::fit::export::{inputs, states, step_graph};
use meantime::fit::network::Weights;
use meantime::model::manifest::Manifest;
use meantime::pipeline::plan::Cell;
use meantime::pipeline::{self, Purpose};
use meantime::run::Stage;
use rand_chacha::rand_core::SeedableRng;

use super::harness::Broker;

pub const FEATURE_FLOATS: usize = 32;
pub const HIDDEN: usize = 64;

/// Which head.
#[derive(Clone, Copy, PartialEq)]
pub enum Head {
    Score,
    Mixture,
}

pub fn spec(head: Head) -> HeadSpec {
    match head {
        Head::Score => HeadSpec::Score { outputs: vec!["out".to_owned()], link: ScoreLink::Logit, calibration: None },
        Head::Mixture => {
            HeadSpec::LognormalMixture(LawSpec { components: Some(16), ..LawSpec::new(&["out"], TimeUnit::Hour, 1.0 / 3600.0) })
        }
    }
}

/// Writes the package and gives its folder.
pub fn write(folder: &Path, head: Head) -> PathBuf {
    let head_spec = spec(head);
    let package = folder.join(if head == Head::Score { "score" } else { "mixture" });
    fs::create_dir_all(&package).unwrap();
    let design = Design {
        cell: Cell::Gru,
        features: FEATURE_FLOATS,
        hidden: HIDDEN,
        outputs: head_spec.width(),
        pace: 1.0,
        anchor: None,
        missing: Vec::new(),
    };
    let bias: Vec<f32> = (0..head_spec.width()).map(|i| (i as f32 * 0.37).sin()).collect();
    let weights = Weights::random(design, &bias, &mut rand_chacha::ChaCha8Rng::seed_from_u64(1));
    let manifest = Manifest {
        format: 1,
        name: "bench".into(),
        version: "1".into(),
        input: inputs(&weights.design, TimeUnit::Second),
        states: states(&weights.design),
        attention: None,
        head: head_spec,
    };
    fs::write(package.join("model.onnx"), step_graph(&weights, "out").unwrap()).unwrap();
    fs::write(package.join("model.toml"), manifest.to_toml().unwrap()).unwrap();
    fs::write(package.join("features.toml"), include_str!("pipeline/features.toml")).unwrap();
    package
}

/// The bench's pipeline with a package of its own.
pub fn stage(folder: &Path, head: Head, sets: &[String]) -> Stage {
    let package = write(folder, head);
    let mut all = vec![format!("model.package={}", package.display())];
    if head == Head::Mixture {
        all.push("sink={kind=\"kafka\",topic=\"bench-scores\"}".into());
        all.push("forecast={quantiles=[0.1,0.5,0.9],horizons=[\"1h\",\"24h\"]}".into());
    }
    all.extend_from_slice(sets);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/pipeline/pipeline.toml");
    Stage::load(pipeline::load(&file, &all, Purpose::Run).unwrap_or_else(|e| panic!("{e}"))).unwrap_or_else(|e| panic!("{e}"))
}

/// The `i`-th payment: key and JSON. Keys come in a scrambled order, each about as often as the others.
pub fn payment(i: u64, keys: u64) -> (String, String) {
    let card = i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
    let card = format!("c{:07}", card % keys);
    let ts = 1_735_000_000_000u64 + i * 37;
    let channel = ["pos", "web", "atm"][(i % 3) as usize];
    let payload = format!(
        r#"{{"id":"p{i:09}","card":"{card}","ts":{ts},"amount":{}.{:02},"mcc":{},"channel":"{channel}"}}"#,
        i * 7 % 400,
        i * 31 % 100,
        i * 13 % 20
    );
    (card, payload)
}

/// `meantime run` of the bench's pipeline from one topic to another; the group has the output's name.
pub fn command(broker: &Broker, package: &Path, (input, output): (&str, &str), more: &[String]) -> Command {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/pipeline/pipeline.toml");
    let sets = [
        format!("model.package={}", package.display()),
        format!("source.brokers={}", broker.address),
        format!("source.topic={input}"),
        format!("source.group={output}"),
        format!("sink.topic={output}"),
        format!("dead_letter.path={}", package.join("dead.ndjson").display()),
    ];
    let mut command = Command::new(env!("CARGO_BIN_EXE_meantime"));
    command.arg("run").arg(file).args(sets.iter().chain(more).flat_map(|set| ["--set", set.as_str()]));
    command
}
