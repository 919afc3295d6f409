//! `meantime demo`: the main job without Kafka and without network.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::print;
use super::run::execute;
use super::stop::Signals;
use super::summary;
use crate::base::error::{Error, Result};
use crate::pipeline::{self, Purpose};
use crate::run::Stage;

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which stream: `cards` (payments), `visits` (hospital readmissions) or `telemetry` (device heartbeats).
    #[arg(long, default_value = "cards", value_parser = ["cards", "visits", "telemetry"])]
    pipeline: String,
    /// Events to generate.
    #[arg(long, default_value_t = 500_000)]
    events: u64,
    /// Keys to spread them over.
    #[arg(long, default_value_t = 10_000)]
    keys: u32,
    /// Seed of the generated events.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Folder that is made for pipeline, model and forecasts; what an earlier demo left there is replaced.
    #[arg(long, default_value = "meantime-demo")]
    out: PathBuf,
}

/// A pipeline that is built into the program, so that the demo needs no files.
struct Builtin {
    name: &'static str,
    pipeline: &'static str,
    package: [(&'static str, &'static [u8]); 6],
}

macro_rules! builtin {
    ($name:literal) => {
        Builtin {
            name: $name,
            pipeline: include_str!(concat!("../../pipelines/", $name, "/pipeline.toml")),
            package: [
                ("model.onnx", include_bytes!(concat!("../../pipelines/", $name, "/model/model.onnx"))),
                ("model.toml", include_bytes!(concat!("../../pipelines/", $name, "/model/model.toml"))),
                ("features.toml", include_bytes!(concat!("../../pipelines/", $name, "/model/features.toml"))),
                ("golden.parquet", include_bytes!(concat!("../../pipelines/", $name, "/model/golden.parquet"))),
                ("CARD.md", include_bytes!(concat!("../../pipelines/", $name, "/model/CARD.md"))),
                ("SHA256SUMS", include_bytes!(concat!("../../pipelines/", $name, "/model/SHA256SUMS"))),
            ],
        }
    };
}

static BUILTINS: [Builtin; 3] = [builtin!("cards"), builtin!("visits"), builtin!("telemetry")];

/// Runs the demo and prints its summary to stdout.
///
/// # Errors
/// The folder cannot be written, or the stage stops with an error.
pub fn run(args: &Args) -> Result<()> {
    let builtin = BUILTINS.iter().find(|builtin| builtin.name == args.pipeline);
    let builtin = builtin.ok_or_else(|| Error::internal("demo", format!("no built-in pipeline `{}`", args.pipeline)))?;
    let folder = &args.out;
    prepare(folder, builtin)?;
    let sets = [
        format!(
            "source={{ kind = \"generate\", stream = \"{}\", events = {}, keys = {}, seed = {} }}",
            builtin.name, args.events, args.keys, args.seed
        ),
        "sink={ kind = \"parquet\", path = \"forecasts\" }".to_owned(),
        "dead_letter={ kind = \"ndjson\", path = \"dead-letters.ndjson\" }".to_owned(),
        "run.lanes=1".to_owned(),
    ];
    let plan = pipeline::load(&folder.join("pipeline.toml"), &sets, Purpose::Run)?;
    let stage = Arc::new(Stage::load(plan)?);
    print(
        "demo",
        format_args!(
            "meantime demo: {} events of {} keys, stream `{}`\n",
            summary::grouped(args.events),
            summary::grouped(u64::from(args.keys)),
            builtin.name
        ),
    )?;
    print(
        "demo",
        format_args!(
            "  model                      {} {}, fingerprint {}\n",
            stage.identity.model, stage.identity.model_version, stage.identity.fingerprint
        ),
    )?;
    let feeds = stage.feeds(true)?;
    let lanes = feeds.into_iter().enumerate().map(|(lane, feed)| Ok((feed, stage.sinks(lane)?))).collect::<Result<Vec<_>>>()?;
    let outcome = execute(&stage, lanes, Arc::default(), &Signals::listen()?, Some(args.events))?;
    outcome.ended?;
    let mut out = std::io::stdout().lock();
    summary::write(&mut out, &outcome.counts, Some(&outcome.calibration), outcome.elapsed)
        .and_then(|()| farewell(&mut out, folder))
        .map_err(|e| Error::io("demo", Path::new("stdout"), e))
}

fn farewell(out: &mut dyn Write, folder: &Path) -> std::io::Result<()> {
    let path = folder.display();
    writeln!(out, "\nForecasts are in {path}/forecasts (Parquet). Look at them with DuckDB or pyarrow:")?;
    writeln!(
        out,
        "  duckdb -c \"select key, event_time, gap_s, surprise_time, next_time_q50 from '{path}/forecasts/**/*.parquet' limit 5\""
    )?;
    writeln!(
        out,
        "The pipeline and its model are in {path}; the README shows the same pipeline on Kafka, and `meantime fit` on your own data."
    )
}

/// Writes pipeline and package, and removes the forecasts of an earlier demo.
fn prepare(folder: &Path, builtin: &Builtin) -> Result<()> {
    let io = |path: &Path, e: std::io::Error| Error::io("demo", path, e);
    let package = folder.join("model");
    let marker = folder.join("pipeline.toml");
    if folder.exists() && !marker.exists() && std::fs::read_dir(folder).map_err(|e| io(folder, e))?.next().is_some() {
        return Err(Error::config("demo", "the folder holds something that is not a demo's")
            .at(folder.display().to_string())
            .help("name another one with --out"));
    }
    for old in ["forecasts", "model"] {
        let old = folder.join(old);
        if old.exists() {
            std::fs::remove_dir_all(&old).map_err(|e| io(&old, e))?;
        }
    }
    let letters = folder.join("dead-letters.ndjson");
    if letters.exists() {
        std::fs::remove_file(&letters).map_err(|e| io(&letters, e))?;
    }
    std::fs::create_dir_all(&package).map_err(|e| io(&package, e))?;
    std::fs::write(&marker, builtin.pipeline).map_err(|e| io(&marker, e))?;
    for (name, bytes) in &builtin.package {
        let path = package.join(name);
        std::fs::write(&path, bytes).map_err(|e| io(&path, e))?;
    }
    Ok(())
}
