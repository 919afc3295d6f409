//! The package as values, and as a folder that appears whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use sha2::{Digest, Sha256};

use super::Fitted;
use super::served::{self, Served};
use crate::base::error::{Error, Result};
use crate::features::reasons;
use crate::features::recipe::Recipe;
use crate::model::intensity::FILE as INTENSITY;
use crate::model::manifest::Manifest;
use crate::model::{self, Mismatch};

/// Largest difference between the ONNX step and the trainer on the golden events, absolute or relative to the value.
pub const TOLERANCE: f32 = 1e-5;
/// The files of a package, all of which are listed in `SHA256SUMS`; the second graph only where the law needs one.
const FILES: [&str; 6] = ["model.onnx", INTENSITY, "model.toml", "features.toml", "golden.parquet", "CARD.md"];
const SUMS: &str = "SHA256SUMS";
/// Wording of reasons: written and changed by people, so it is not listed in the sums, and goes from one package to the next.
const WORDING: &str = reasons::FILE;

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

/// Refuses a folder that must not be overwritten: one that holds something and is not a model package, or a file. To be asked before training.
///
/// # Errors
/// As above.
pub fn check_folder(folder: &Path) -> Result<()> {
    if folder.as_os_str().is_empty() || folder.file_name().is_none() {
        return Err(Error::config("fit", format!("`{}` is not the name of a folder that can be written", folder.display())));
    }
    if !folder.exists() {
        return Ok(());
    }
    let entries = fs::read_dir(folder).map_err(|e| Error::io("fit", folder, e).help("--out must name a folder"))?;
    let names: Vec<String> = entries.filter_map(|entry| entry.ok()).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let known = |name: &String| FILES.contains(&name.as_str()) || name == SUMS || name == WORDING;
    if let Some(stranger) = names.iter().find(|name| !known(name)) {
        return Err(Error::config("fit", format!("the folder holds `{stranger}`, which is not part of a model package"))
            .at(folder.display().to_string())
            .help("name an empty folder, one that does not exist yet, or a model package that is to be replaced"));
    }
    Ok(())
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
    check_folder(folder)?;
    // Hidden names of our own: a `model.old` that lies there is somebody's backup.
    let beside = |what: &str| -> PathBuf {
        let mut name = std::ffi::OsString::from(".");
        name.push(folder.file_name().unwrap_or_default());
        name.push(what);
        folder.with_file_name(name)
    };
    let (draft, old) = (beside(".meantime-draft"), beside(".meantime-replaced"));
    for path in [&draft, &old] {
        if path.exists() {
            fs::remove_dir_all(path).map_err(|e| Error::io("fit", path, e))?;
        }
    }
    fs::create_dir_all(&draft).map_err(|e| Error::io("fit", &draft, e))?;
    let files = write_files(&fitted.package, &draft).and_then(|()| carry_wording(folder, &draft));
    let written = files.and_then(|()| verify(&draft)).and_then(|mismatch| {
        let served = served::check(&draft, &fitted.seen, &fitted.prepared, &fitted.schema, &fitted.report)?;
        Ok(Written { mismatch, served })
    });
    let written = match written {
        Ok(written) => written,
        Err(error) => {
            // The draft is of no use to anybody; that it cannot be removed would only hide the reason.
            let _ = fs::remove_dir_all(&draft);
            return Err(error);
        }
    };
    let rename = |from: &Path, to: &Path| fs::rename(from, to).map_err(|e| Error::io("fit", to, e));
    let replaces = folder.exists();
    if replaces {
        rename(folder, &old)?;
    }
    rename(&draft, folder)?;
    if replaces {
        fs::remove_dir_all(&old).map_err(|e| Error::io("fit", &old, e))?;
    }
    Ok(written)
}

fn write_files(package: &Package, folder: &Path) -> Result<()> {
    let golden = parquet(&package.golden)?;
    let contents: [Option<Vec<u8>>; 6] = [
        Some(package.graph.clone()),
        package.intensity.clone(),
        Some(package.manifest.to_toml()?.into_bytes()),
        Some(package.recipe.to_toml()?.into_bytes()),
        Some(golden),
        Some(package.card.clone().into_bytes()),
    ];
    let mut sums = String::new();
    for (name, bytes) in FILES.iter().zip(&contents).filter_map(|(name, bytes)| Some((name, bytes.as_ref()?))) {
        let path = folder.join(name);
        fs::write(&path, bytes).map_err(|e| Error::io("fit", &path, e))?;
        let sum: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        sums.push_str(&format!("{sum}  {name}\n"));
    }
    let path = folder.join(SUMS);
    fs::write(&path, sums).map_err(|e| Error::io("fit", &path, e))
}

fn carry_wording(from: &Path, to: &Path) -> Result<()> {
    let path = from.join(WORDING);
    if path.is_file() {
        fs::copy(&path, to.join(WORDING)).map_err(|e| Error::io("fit", &path, e))?;
    }
    Ok(())
}

/// Copies the package in `from` to `to` with another manifest, replacing what was there; checked as loading does.
///
/// # Errors
/// A file cannot be read or written, or the copy is refused.
pub fn with_manifest(from: &Path, manifest: &Manifest, to: &Path) -> Result<()> {
    fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<'_> {
        move |e| Error::io("calibrate", path, e)
    }
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(parent).map_err(io(parent))?;
    let draft = tempfile::tempdir_in(parent).map_err(io(parent))?;
    let mut sums = String::new();
    for name in FILES.into_iter().filter(|name| from.join(name).exists()) {
        let path = from.join(name);
        let bytes = if name == "model.toml" { manifest.to_toml()?.into_bytes() } else { fs::read(&path).map_err(io(&path))? };
        let sum: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        sums.push_str(&format!("{sum}  {name}\n"));
        let path = draft.path().join(name);
        fs::write(&path, bytes).map_err(io(&path))?;
    }
    let path = draft.path().join(SUMS);
    fs::write(&path, sums).map_err(io(&path))?;
    carry_wording(from, draft.path())?;
    model::Package::load(draft.path())?;
    if to.exists() {
        fs::remove_dir_all(to).map_err(io(to))?;
    }
    fs::rename(draft.keep(), to).map_err(io(to))
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

fn parquet(table: &RecordBatch) -> Result<Vec<u8>> {
    let fault = |e: parquet::errors::ParquetError| Error::internal("fit", e.to_string()).caused_by(e);
    let level = ZstdLevel::try_new(9).map_err(fault)?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, table.schema(), Some(properties)).map_err(fault)?;
    writer.write(table).map_err(fault)?;
    writer.close().map_err(fault)?;
    Ok(bytes)
}
