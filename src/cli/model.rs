//! `meantime model inspect|verify|bench`: what a package is, whether it can be trusted, what a step costs.

use std::path::PathBuf;

use crate::base::clock;
use crate::base::error::{Error, Kind, Result};
use crate::base::number::f64_of_count;
use crate::base::time::Gap;
use crate::data::outputs::Outputs;
use crate::features::recipe::Recipe;
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
    }
}

fn load(args: &Args) -> Result<(Package, Recipe)> {
    let package = Package::load(&args.folder)?;
    let recipe = Recipe::load(&args.folder.join("features.toml"))?;
    if recipe.width() != package.signature().features {
        let text = format!("the recipe makes {} floats, the graph takes {}", recipe.width(), package.signature().features);
        return Err(Error::config("model", text).at(args.folder.display().to_string()));
    }
    Ok((package, recipe))
}

fn inspect(args: &Args) -> Result<()> {
    let (package, recipe) = load(args)?;
    let (manifest, signature) = (&package.manifest, package.signature());
    println!("{} {}", manifest.name, manifest.version);
    println!("  digest    {}", package.digest);
    println!("  graph     {} operators after optimisation", signature.operators);
    println!("  input     {}: [B, {}]", manifest.input.features, signature.features);
    if let Some(gap) = &manifest.input.gap {
        println!("  input     {gap}: [B, 1], gap in {}", manifest.input.gap_unit.name());
    }
    for state in &manifest.states {
        println!("  state     {} -> {}: [B, {}], starts at {}", state.input, state.output, shape(&state.shape), state.init);
    }
    println!("  head      {}: {} parameters from {}", manifest.head.describe(), manifest.head.width(), manifest.head.outputs().join(", "));
    if !manifest.head.marks().is_empty() {
        println!("  marks     {}", manifest.head.marks().join(", "));
    }
    let law = if manifest.head.is_timed() { manifest.head.width() * 4 } else { 0 };
    println!("  per key   {} bytes of recurrent state, {law} bytes of published law", signature.state_floats * 4);
    println!("  features");
    let mut at = 0;
    for spec in &recipe.columns {
        let field = spec.field().map(|field| format!("({})", field.name)).unwrap_or_default();
        let width = spec.width();
        let range = if width == 1 { at.to_string() } else { format!("{at}..{}", at + width - 1) };
        println!("    {range:<9} {}{field}", spec.kind());
        at += width;
    }
    match &package.golden {
        Some(golden) => println!("  golden    {} events", golden.len()),
        None => println!("  golden    none: this package cannot be compared with what its trainer computed"),
    }
    Ok(())
}

fn shape(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

fn verify(args: &Args) -> Result<()> {
    let (package, recipe) = load(args)?;
    println!("ok  check sums, manifest, graph, recipe of {} floats", recipe.width());
    let compared = check_golden(&package, &recipe)?;
    if compared == 0 {
        println!("--  no golden.parquet: the graph was not compared with its trainer");
    } else {
        println!(
            "ok  {compared} golden events: features; outputs within {:.1e}, states within {:.1e}",
            package.mismatch.outputs, package.mismatch.states
        );
        if package.golden.as_ref().is_some_and(|golden| golden.intensities.is_some()) {
            println!("ok  intensities of the second graph within {:.1e}", package.mismatch.intensities);
        }
    }
    package.check_batches(&SIZES)?;
    println!("ok  bit-identical for batches of {}", SIZES.map(|size| size.to_string()).join(", "));
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
    let (package, _) = load(args)?;
    println!("{:>6} {:>12} {:>14}", "batch", "ns/event", "events/s");
    for size in [1, 4, 16, 64, 256, 512] {
        let mut model = package.model()?;
        let width = package.signature().features;
        let mut memory = Flat { width: model.initial_hidden().len(), hidden: model.initial_hidden().repeat(size) };
        let (rows, gaps, first) = (vec![0.1; size * width], vec![Some(Gap(60_000_000)); size], vec![0; size]);
        let mut outputs = Outputs::default();
        let mut best = f64::INFINITY;
        for _ in 0..5 {
            let (start, mut steps) = (clock::tick(), 0);
            while start.elapsed().as_millis() < 100 {
                model.steps(&rows, &gaps, &first, &mut memory, &mut outputs)?;
                steps += 1;
            }
            best = best.min(start.elapsed().as_secs_f64() / f64_of_count(steps * size));
        }
        println!("{size:>6} {:>12.0} {:>14.0}", best * 1e9, 1.0 / best);
    }
    println!("best of five runs of 100 ms each, one thread, gather and scatter of the states included");
    Ok(())
}
