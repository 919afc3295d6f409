//! `meantime model quantize`: the same package with weights of eight bits.

use std::path::PathBuf;

use super::load;
use super::table::{self, Judged};
use crate::base::error::{Error, Result};
use crate::cli::print;
use crate::cli::summary::grouped;
use crate::model::quantize::quantize;
use crate::model::{Package, write};
use crate::run::check_golden;

/// Arguments of `model quantize`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The package folder.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Folder of the smaller package: a new one, an empty one, or an earlier package, which is replaced.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Pipeline whose events both packages are judged by; without it the table has sizes and times only.
    #[arg(long, value_name = "PIPELINE")]
    pipeline: Option<PathBuf>,
    #[command(flatten)]
    judged: Judged,
}

/// Writes the package with weights of eight bits and prints what that costs and saves.
///
/// # Errors
/// The package is refused, its graph cannot be rewritten, or the copy cannot be written or differs by more than its golden events allow.
pub fn run(args: &Args) -> Result<()> {
    write::check_folder(&args.out)?;
    let (package, recipe) = load(&args.folder)?;
    let mut files = write::read(&args.folder)?;
    let place = |e: Error| e.at(args.folder.join("model.onnx").display().to_string());
    let done = quantize(files.get("model.onnx").map(Vec::as_slice).unwrap_or_default()).map_err(place)?;
    let mut manifest = package.manifest.clone();
    manifest.version.push_str("-int8");
    files.insert("model.onnx", done.bytes.clone());
    files.insert("model.toml", manifest.to_toml()?.into_bytes());
    let (_home, draft) = write::recompute(&mut files, package.golden.as_ref())?;
    let [before, after] = table::both([&args.folder, &draft], args.pipeline.as_ref(), &args.judged, None)?;
    let section = format!(
        "\n## Quantised\n\n{} weights in {} matrices are whole numbers of eight bits with a scale for each row or column (they lost {:.2} % of their size, \
         root mean square); {} biases and small constants, all states, features and outputs are single floats. Golden events are what this graph gives.\n\n{}",
        grouped(u64::try_from(done.weights).unwrap_or(u64::MAX)),
        done.matrices,
        100.0 * done.lost,
        grouped(u64::try_from(done.kept).unwrap_or(u64::MAX)),
        table::markdown(&before, &after),
    );
    let card = files.entry("CARD.md").or_insert_with(|| format!("# {}\n", manifest.name).into_bytes());
    card.extend_from_slice(section.as_bytes());
    write::write(&files, &args.out, |draft| check_golden(&Package::load(draft)?, &recipe).map(|_| ()))?;
    let weights = grouped(u64::try_from(done.weights).unwrap_or(u64::MAX));
    print(
        "model",
        format_args!(
            "{weights} weights in {} matrices are whole numbers of eight bits now; they lost {:.2} %\n",
            done.matrices,
            100.0 * done.lost
        ),
    )?;
    print("model", format_args!("{}", table::text(&before, &after)))?;
    if args.pipeline.is_none() {
        print("model", format_args!("  name --pipeline and --from to see what it costs in likelihood\n"))?;
    }
    print("model", format_args!("package: {} (version {})\n", args.out.display(), manifest.version))?;
    Ok(())
}
