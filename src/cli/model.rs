//! `meantime model inspect|verify|bench|quantize|prune`: what a package is, whether it can be trusted, what a step costs, and how it becomes smaller.

#[cfg(feature = "fit")]
mod prune;
mod quantize;
mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::print;
use crate::base::clock;
use crate::base::error::{Error, Kind, Result};
use crate::base::number::f64_of_count;
use crate::base::time::Gap;
use crate::data::outputs::Outputs;
use crate::features::recipe::Recipe;
use crate::head;
use crate::model::{Memory, Package};
use crate::run::check_golden;

/// The sub-commands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print inputs, states, head and features of a package.
    Inspect(Args),
    /// Check a package: check sums, shapes, golden events, and bit-identity over batch sizes from 1 to 1024.
    Verify(Args),
    /// Time a step by batch size, on one thread.
    Bench(Args),
    /// Write a copy of a package whose weights are whole numbers of eight bits.
    Quantize(quantize::Args),
    /// Write a copy of a package that `fit` made with fewer hidden units: fewer floats a key, faster steps.
    #[cfg(feature = "fit")]
    Prune(prune::Args),
}

/// A package.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The package folder: model.onnx, model.toml, features.toml, ...
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Batch sizes that `verify` compares.
const SIZES: [usize; 8] = [1, 2, 4, 7, 16, 64, 256, 1024];

/// Runs the sub-command.
///
/// # Errors
/// The package is refused; under `verify` that is exit code 1, a failed check.
pub fn run(command: &Command) -> Result<()> {
    match command {
        Command::Inspect(args) => inspect(args),
        Command::Verify(args) => verify(args).map_err(|e| Error { kind: Kind::Check, ..e }),
        Command::Bench(args) => bench(args),
        Command::Quantize(args) => quantize::run(args),
        #[cfg(feature = "fit")]
        Command::Prune(args) => prune::run(args),
    }
}

fn load(folder: &Path) -> Result<(Package, Recipe)> {
    let package = Package::load(folder)?;
    let recipe = Recipe::load(&folder.join("features.toml"))?;
    if recipe.width() != package.signature().features {
        let text = format!("the recipe makes {} floats, the graph takes {}", recipe.width(), package.signature().features);
        return Err(Error::config("model", text).at(folder.display().to_string()));
    }
    let place = |e: Error| e.at(folder.join("model.toml").display().to_string());
    head::check(&package.manifest.head).map_err(place)?;
    package.attention().map_err(place)?;
    Ok((package, recipe))
}

fn inspect(args: &Args) -> Result<()> {
    let (package, recipe) = load(&args.folder)?;
    let (manifest, signature) = (&package.manifest, package.signature());
    print("model", format_args!("{} {}\n", manifest.name, manifest.version))?;
    print("model", format_args!("  digest    {}\n", package.digest))?;
    print("model", format_args!("  graph     {} operators after optimisation\n", signature.operators))?;
    print("model", format_args!("  input     {}: [B, {}]\n", manifest.input.features, signature.features))?;
    if let Some(gap) = &manifest.input.gap {
        print("model", format_args!("  input     {gap}: [B, 1], gap in {}\n", manifest.input.gap_unit.name()))?;
    }
    for state in &manifest.states {
        print(
            "model",
            format_args!("  state     {} -> {}: [B, {}], starts at {}\n", state.input, state.output, shape(&state.shape), state.init),
        )?;
    }
    print(
        "model",
        format_args!(
            "  head      {}: {} parameters from {}\n",
            manifest.head.describe(),
            manifest.head.width(),
            manifest.head.outputs().join(", ")
        ),
    )?;
    if !manifest.head.marks().is_empty() {
        print("model", format_args!("  marks     {}\n", manifest.head.marks().join(", ")))?;
    }
    let law = if manifest.head.is_timed() { manifest.head.width() * 4 } else { 0 };
    print("model", format_args!("  per key   {} bytes of recurrent state, {law} bytes of published law\n", signature.state_floats * 4))?;
    if let Some(cohorts) = package.cohorts() {
        print("model", format_args!("  cohorts   new keys start from the state of one of {}\n", cohorts.cohorts.len()))?;
    }
    if let Some(levels) = manifest.head.law().and_then(|law| law.quantile_calibration.as_ref()) {
        let ends = (levels.at.first().copied().unwrap_or(0.0), levels.at.last().copied().unwrap_or(1.0));
        print("model", format_args!("  quantiles calibrated at {} levels, {} to {}\n", levels.at.len(), ends.0, ends.1))?;
    }
    print("model", format_args!("  features\n"))?;
    let mut at = 0;
    for spec in &recipe.columns {
        let field = spec.field().map(|field| format!("({})", field.name)).unwrap_or_default();
        let width = spec.width();
        let range = if width == 1 { at.to_string() } else { format!("{at}..{}", at + width - 1) };
        print("model", format_args!("    {range:<9} {}{field}\n", spec.kind()))?;
        at += width;
    }
    match &package.golden {
        Some(golden) => print("model", format_args!("  golden    {} events\n", golden.len()))?,
        None => print("model", format_args!("  golden    none: this package cannot be compared with what its trainer computed\n"))?,
    }
    Ok(())
}

fn shape(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

fn verify(args: &Args) -> Result<()> {
    let (package, recipe) = load(&args.folder)?;
    let sums = if package.has_sums { "check sums, " } else { "" };
    print("model", format_args!("ok  {sums}manifest, graph, recipe of {} floats\n", recipe.width()))?;
    if !package.has_sums {
        print("model", format_args!("--  no SHA256SUMS: whether files were changed since they were packaged is not known\n"))?;
    }
    let compared = check_golden(&package, &recipe)?;
    if compared == 0 {
        print("model", format_args!("--  no golden.parquet: the graph was not compared with its trainer\n"))?;
    } else {
        print(
            "model",
            format_args!(
                "ok  {compared} golden events: features; outputs within {:.1e}, states within {:.1e}\n",
                package.mismatch.outputs, package.mismatch.states
            ),
        )?;
        if package.golden.as_ref().is_some_and(|golden| golden.intensities.is_some()) {
            print("model", format_args!("ok  intensities of the second graph within {:.1e}\n", package.mismatch.intensities))?;
        }
    }
    package.check_batches(&SIZES)?;
    print("model", format_args!("ok  bit-identical for batches of {}\n", SIZES.map(|size| size.to_string()).join(", ")))?;
    Ok(())
}

/// Rows of states, one per key.
struct Flat {
    width: usize,
    hidden: Vec<f32>,
}

impl Memory for Flat {
    fn hidden(&mut self, row: usize) -> &mut [f32] {
        self.hidden.get_mut(row * self.width..(row + 1) * self.width).unwrap_or_default()
    }
}

fn bench(args: &Args) -> Result<()> {
    let (package, _) = load(&args.folder)?;
    print("model", format_args!("{:>6} {:>12} {:>14}\n", "batch", "ns/event", "events/s"))?;
    for size in [1, 4, 16, 64, 256, 512] {
        let best = seconds(&package, size, 5, Duration::from_millis(100))?;
        print("model", format_args!("{size:>6} {:>12.0} {:>14.0}\n", best * 1e9, 1.0 / best))?;
    }
    print("model", format_args!("best of five runs of 100 ms each, one thread, gather and scatter of the states included\n"))?;
    Ok(())
}

/// Seconds an event of steps in batches of this size: the best of so many runs, each of at least one batch and of that duration.
fn seconds(package: &Package, size: usize, runs: usize, duration: Duration) -> Result<f64> {
    let mut model = package.model()?;
    let width = package.signature().features;
    let mut memory = Flat { width: model.initial_hidden().len(), hidden: model.initial_hidden().repeat(size) };
    let (rows, gaps, first) = (vec![0.1; size * width], vec![Some(Gap(60_000_000)); size], vec![0; size]);
    let mut outputs = Outputs::default();
    let mut best = f64::INFINITY;
    for _ in 0..runs {
        let (start, mut steps) = (clock::tick(), 0);
        while steps == 0 || start.elapsed() < duration {
            model.steps(&rows, &gaps, &first, &mut memory, &mut outputs)?;
            steps += 1;
        }
        best = best.min(start.elapsed().as_secs_f64() / f64_of_count(steps * size));
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_faulty_head_and_an_attention_that_the_graph_does_not_give_are_told_with_the_manifest() {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/visits/model");
        let manifest = std::fs::read_to_string(own.join("model.toml")).unwrap();
        let gap = manifest.lines().find(|line| line.starts_with("min_gap")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for name in ["model.onnx", "features.toml", "golden.parquet"] {
            std::fs::copy(own.join(name), folder.path().join(name)).unwrap();
        }
        let refusal = |manifest: String| {
            std::fs::write(folder.path().join("model.toml"), manifest).unwrap();
            load(folder.path()).map(|_| ()).map_err(|e| e.to_string())
        };
        refusal(manifest.clone()).unwrap();
        for (manifest, says) in [
            (manifest.replace(gap, "min_gap = 0.0"), "min_gap = 0 is not above 0"),
            (format!("attention = \"weights\"\n{manifest}"), "has no output `weights`"),
        ] {
            let said = refusal(manifest).unwrap_err();
            assert!(said.contains(says) && said.contains("model.toml"), "{said}");
        }
    }
}
