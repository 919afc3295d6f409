//! The pipeline file: as the user writes it (`written`), and as it will run (`plan`), with all its faults told at once.
//!
//! `document` reads TOML, overrides and environment into a tree that knows places; `shape` compares the tree with the schema of
//! `written`; serde reads what is left; `build` makes the plan and checks what needs more than one key. Each notes its faults
//! in `fault` and goes on, so that one run of `meantime check` shows everything that is wrong.
//!
//! | code | what is wrong |
//! |---|---|
//! | `pipeline::syntax` | not TOML |
//! | `pipeline::unknown_key`, `missing_key` | a key that does not exist, or must |
//! | `pipeline::wrong_type`, `bad_value`, `out_of_range` | a value |
//! | `pipeline::bad_duration`, `bad_size`, `bad_time` | a text with a unit |
//! | `pipeline::not_supported_yet` | something of the contract that this version does not have |
//! | `pipeline::missing_variable`, `bad_variable` | `${NAME}` |
//! | `pipeline::bad_set` | a `--set` that is not `a.b=v` |
//! | `pipeline::unsorted`, `duplicate` | quantiles, horizons, fields, dates of a split |
//! | `pipeline::format_source`, `no_files` | the source and what is read from it |
//! | `pipeline::same_topic`, `same_place` | source, sink and dead letters are not three places |
//! | `pipeline::reserved_setting` | a client setting that meantime sets |
//! | `pipeline::field_conflict`, `label_leak` | a field with two types, or a label among the features |
//! | `pipeline::unknown_field` | a field of `[sink] fields` that forecasts do not have |
//! | `pipeline::no_marks`, `no_law_of_time`, `no_law_of_value` | the model cannot give what is asked |
//! | `pipeline::no_package`, `package` | the model package |
//! | `pipeline::shadow_sink` | the shadow's forecasts go to another kind of place than [sink] |

mod build;
mod delivery;
mod document;
pub mod fault;
mod fit;
mod identity;
mod package;
pub mod plan;
mod schema;
mod schemas;
mod secret;
mod settings;
mod shadow;
mod shape;
mod snapshots;
pub mod unit;
mod watch;
pub mod written;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use crate::base::error::{Error, Result};
use build::Build;
use document::Document;
pub use document::Environment;
use fault::Faults;
use plan::Plan;

/// What a plan is made for: it decides what must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To run: source files and model package must be there and fit together.
    Run,
    /// To train: no package yet; the fields of `[fit]` and the label are read.
    Fit,
    /// To evaluate: as to run, with the label, and files that may be named elsewhere.
    Evaluate,
    /// To compare with another model: as to evaluate, and what the pipeline asks and the model does not give is left out.
    Compare,
    /// To run in shadow: as to run, and what the pipeline asks and the model does not give is left out.
    Shadow,
    /// To backfill: as to run, from files that are named elsewhere.
    Backfill,
    /// To generate a stream: neither package nor files.
    Generate,
}

/// Reads, checks and plans a pipeline. `path` is the file or the folder with `pipeline.toml`; `sets` are `--set` arguments, `a.b=v`.
///
/// # Errors
/// The file cannot be read, or has faults: then `report` of the error is the whole report, all of them with their places.
pub fn load(path: &Path, sets: &[String], purpose: Purpose) -> Result<Plan> {
    let environment = |name: &str| std::env::var(name).ok();
    check(path, sets, purpose, &environment)?.map_err(|faults| {
        let file = file_of(path).display().to_string();
        let plural = if faults.len() == 1 { "fault" } else { "faults" };
        let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Error::config("pipeline", format!("{} {plural}", faults.len())).at(file).with_report(faults.report(colours))
    })
}

/// As `load`, with the faults as values and the environment as an argument.
///
/// # Errors
/// The file cannot be read, or is not UTF-8.
pub fn check(path: &Path, sets: &[String], purpose: Purpose, environment: Environment<'_>) -> Result<std::result::Result<Plan, Faults>> {
    let file = file_of(path);
    let name = file.display().to_string();
    let bytes = std::fs::read(&file)
        .map_err(|e| Error::io("pipeline", &file, e).help("name a pipeline.toml, or the folder that holds one".to_owned()))?;
    let content = String::from_utf8(bytes).map_err(|e| {
        Error::config("pipeline", "the file is not UTF-8 text").at(name.clone()).help("save it as UTF-8").caused_by(e.utf8_error())
    })?;
    let folder = file.parent().map(Path::to_path_buf).unwrap_or_default();

    let mut faults = Faults::new(name.clone(), content.clone());
    let schema = written::schema().to_value();
    let mut document = Document::read(&content, sets, environment, &mut faults);
    shape::check(&mut document, &schema, &mut faults);
    let left = document.root.to_json().unwrap_or_default();
    let plan = match serde_path_to_error::deserialize::<_, written::Written>(left) {
        Ok(written) => {
            Build { document: &document, faults: &mut faults, folder: &folder, file: name, purpose, package_key: ["model", "package"] }
                .plan(&written)
        }
        Err(error) => {
            // `shape` lets nothing through that serde refuses; if it did, this is the net.
            let path = error.path().to_string();
            let parts: Vec<&str> = path.split('.').collect();
            let place = document.place(&parts);
            faults.note(
                "pipeline::bad_value",
                place,
                format!("`{path}` cannot be read"),
                "of another shape",
                "compare it with schemas/pipeline.v1.schema.json",
            );
            None
        }
    };
    // Beside a syntax error the tree is a guess: what it says about that part is no fault of the user's.
    faults.retain(|fault| fault.code == "pipeline::syntax" || !document.is_echo(&content, fault.place()));
    match plan {
        Some(plan) if faults.is_empty() => Ok(Ok(plan)),
        _ if faults.is_empty() => Err(Error::internal("pipeline", "a pipeline without faults gave no plan").at(file.display().to_string())),
        _ => Ok(Err(faults)),
    }
}

/// The pipeline file that a path names: itself, or `pipeline.toml` in the folder.
#[must_use]
pub fn file_of(path: &Path) -> PathBuf {
    if path.is_dir() { path.join("pipeline.toml") } else { path.to_path_buf() }
}
