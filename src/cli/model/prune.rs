//! `meantime model prune`: a package of `fit` with fewer hidden units.

use std::path::PathBuf;

use super::table::{self, Judged};
use crate::base::error::{Error, Kind, Result};
use crate::cli::evaluate::Subset;
use crate::cli::fit::{Watch, history};
use crate::cli::history::History;
use crate::cli::print;
use crate::cli::summary::grouped;
use crate::features::recipe::Recipe;
use crate::fit::prune::{self, Pruned, Request};
use crate::fit::split::Held;
use crate::model::{Package, write};
use crate::pipeline::{self, Purpose};
use crate::run::check_golden;

/// Arguments of `model prune`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The package folder; one that `meantime fit` wrote.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Folder of the smaller package: a new one, an empty one, or an earlier package, which is replaced.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The pipeline it was fitted with: which units stay is chosen by the train split of its [fit], and both packages are judged by the test split
    /// (by what --since and --where say, if they are given).
    #[arg(long, value_name = "PIPELINE")]
    pipeline: PathBuf,
    /// Share of the hidden units that is taken out.
    #[arg(long, default_value_t = 0.5)]
    share: f64,
    /// Most passes over the train split afterwards, from the weights that are left; 0 leaves them as they are.
    #[arg(long, default_value_t = 0)]
    epochs: usize,
    #[command(flatten)]
    judged: Judged,
}

/// Writes the smaller package and prints what that costs and saves.
///
/// # Errors
/// The package is not one of `fit`, the pipeline or its history is refused, or the smaller package cannot be written.
pub fn run(args: &Args) -> Result<()> {
    if !(args.share > 0.0 && args.share < 1.0) {
        return Err(Error::new(Kind::Usage, "model", format!("--share {} does not lie between 0 and 1", args.share))
            .help("0.5 takes every second hidden unit out"));
    }
    write::check_folder(&args.out)?;
    let plan = pipeline::load(&args.pipeline, &args.judged.sets, Purpose::Fit)?;
    let source = history(&plan, &args.judged.from)?;
    let mut history = History::open("model", &plan, &source)?;
    let mut watch = Watch::start();
    let request = Request { folder: &args.folder, share: args.share, epochs: args.epochs };
    let mut pruned = prune::run(&plan, &mut *history.feed, &request, &mut |step| watch.show(&step))?;
    watch.stop();

    let draft = tempfile::tempdir().map_err(|e| Error::io("model", &std::env::temp_dir(), e))?;
    let draft = draft.path().join("model");
    write::write_package(&pruned.files, &draft)?;
    let mut judged = args.judged.clone();
    let chosen = judged.since.is_some() || judged.only.is_some();
    let subset = match &pruned.held {
        _ if chosen => None,
        Held::Keys(keys) => Some(Subset::Keys(keys.iter().cloned().collect())),
        Held::Since(time) => Some(Subset::Since(*time)),
        Held::Field(field) => {
            judged.only = Some(format!("{field}=test"));
            None
        }
        Held::Nothing => None,
    };
    let by = match (&pruned.held, chosen) {
        (_, true) => "the events that count",
        (Held::Nothing, _) => "all events: there is no test split",
        _ => "the test split",
    };
    let [before, after] = table::both([&args.folder, &draft], Some(&args.pipeline), &judged, subset.as_ref())?;
    let section = format!("\n## Pruned\n\n{} Figures below: {by}.\n\n{}", told(&pruned, args), table::markdown(&before, &after));
    let card = pruned.files.entry("CARD.md").or_insert_with(|| format!("# {}\n", pruned.manifest.name).into_bytes());
    card.extend_from_slice(section.as_bytes());
    let recipe = Recipe::load(&args.folder.join("features.toml"))?;
    write::write(&pruned.files, &args.out, |draft| check_golden(&Package::load(draft)?, &recipe).map(|_| ()))?;
    print("model", format_args!("{}\n\n", told(&pruned, args)))?;
    print("model", format_args!("by {by}, through the served path\n"))?;
    print("model", format_args!("{}", table::text(&before, &after)))?;
    print("model", format_args!("package: {} (version {})\n", args.out.display(), pruned.manifest.version))?;
    Ok(())
}

/// What was done, in sentences.
fn told(pruned: &Pruned, args: &Args) -> String {
    let ([from, to], [many, few]) = (pruned.hidden, pruned.weights.map(|count| grouped(u64::try_from(count).unwrap_or(u64::MAX))));
    let [before, without, after] = pruned.losses;
    let part = pruned.part.name();
    let passes = match pruned.passes {
        [0, _] => "Not trained afterwards (--epochs does that).".to_owned(),
        [made, 0] => format!("{made} passes over the train split made it no better."),
        [made, best] => format!("{after:.4} after pass {best} of {made} over the train split."),
    };
    let share = 100.0 * args.share;
    format!(
        "{to} of {from} hidden units are left ({share:.0} % taken out), {few} of {many} weights. Loss on the {part} split, nats per event: {before:.4} \
         before, {without:.4} without the units. {passes}"
    )
}
