//! The package as values, and as a folder that appears whole or not at all.

use std::path::Path;

use arrow::record_batch::RecordBatch;

use super::Fitted;
use super::served::{self, Served};
use crate::base::error::{Error, Result};
use crate::features::recipe::Recipe;
use crate::model::intensity::FILE as INTENSITY;
use crate::model::manifest::Manifest;
use crate::model::write::{self, Files};
use crate::model::{self, Mismatch};

/// Largest difference between the ONNX step and the trainer on the golden events, absolute or relative to the value.
pub const TOLERANCE: f32 = 1e-5;
/// Everything a package holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Package {
    /// `model.toml`.
    pub manifest: Manifest,
    /// `features.toml`.
    pub recipe: Recipe,
    /// `model.onnx`.
    pub graph: Vec<u8>,
    /// `intensity.onnx`, if the law needs one.
    pub intensity: Option<Vec<u8>>,
    /// `golden.parquet`.
    pub golden: RecordBatch,
    /// `CARD.md`.
    pub card: String,
}

/// What was found when a written package was loaded and run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Written {
    /// How far the step is from the trainer on the golden events.
    pub mismatch: Mismatch,
    /// Figures by the served path; `None` if the history has neither a test nor a valid part.
    pub served: Option<Served>,
}

/// Writes the package beside `folder`, loads it as the stage would, compares its step and its figures with the trainer's, and only then
/// puts it in place.
///
/// # Errors
/// The folder is refused (`check_folder`), a file cannot be written, or the package does not load or does not match.
pub fn write(fitted: &Fitted, folder: &Path) -> Result<Written> {
    write::write(&files(&fitted.package)?, folder, |draft| {
        let mismatch = verify(draft)?;
        let served = served::check(draft, &fitted.seen, &fitted.prepared, &fitted.schema, &fitted.report)?;
        Ok(Written { mismatch, served })
    })
}

fn files(package: &Package) -> Result<Files> {
    let mut files = Files::from([
        ("model.onnx", package.graph.clone()),
        ("model.toml", package.manifest.to_toml()?.into_bytes()),
        ("features.toml", package.recipe.to_toml()?.into_bytes()),
        ("golden.parquet", model::to_parquet(&package.golden)?),
        ("CARD.md", package.card.clone().into_bytes()),
    ]);
    files.extend(package.intensity.iter().map(|graph| (INTENSITY, graph.clone())));
    Ok(files)
}

/// Copies the package in `from` to `to` with another manifest, replacing what was there; checked as loading does.
///
/// # Errors
/// A file cannot be read or written, or the copy is refused.
pub fn with_manifest(from: &Path, manifest: &Manifest, to: &Path) -> Result<()> {
    let mut files = write::read(from)?;
    files.insert("model.toml", manifest.to_toml()?.into_bytes());
    write::write_package(&files, to)
}

fn verify(folder: &Path) -> Result<Mismatch> {
    let mismatch = model::Package::load(folder)?.mismatch;
    if mismatch.outputs > TOLERANCE || mismatch.states > TOLERANCE || mismatch.intensities > TOLERANCE {
        let text = format!(
            "the exported step differs from the trainer by {:e} (outputs), {:e} (states) and {:e} (intensities) on the golden events; allowed is {TOLERANCE:e}",
            mismatch.outputs, mismatch.states, mismatch.intensities
        );
        return Err(Error::internal("fit", text));
    }
    Ok(mismatch)
}
