//! A package folder that appears whole or not at all.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::golden::{Golden, to_parquet};
use super::package::Package;
use super::{cohorts, external, intensity, sums};
use crate::base::error::{Error, Result};

/// The files of a package, all of which are listed in `SHA256SUMS`.
pub const FILES: [&str; 7] = ["model.onnx", intensity::FILE, "model.toml", "features.toml", cohorts::FILE, "golden.parquet", "CARD.md"];
pub(super) const SUMS: &str = "SHA256SUMS";
/// Wording of reasons: written and changed by people, so it is not listed in the sums, and goes from one package to the next.
pub const WORDING: &str = "reasons.toml";

/// Files by their names.
pub type Files = BTreeMap<&'static str, Vec<u8>>;

/// Refuses a folder that must not be overwritten: one that holds something and is not a model package, or a file; and a place where none can be made, which is
/// tried. To be asked before long work.
///
/// # Errors
/// As above.
pub fn check_folder(folder: &Path) -> Result<()> {
    if folder.as_os_str().is_empty() || folder.file_name().is_none() {
        return Err(Error::config("model", format!("`{}` is not the name of a folder that can be written", folder.display())));
    }
    // The package is made beside its place: in the folder above, or below the first one above that is there.
    let above = std::path::absolute(folder).map_err(|e| Error::io("model", folder, e))?;
    let above = above.ancestors().skip(1).find(|above| above.exists()).unwrap_or(Path::new("/"));
    tempfile::Builder::new().prefix(".meantime-").tempdir_in(above).map_err(|e| {
        Error::io("model", folder, e)
            .help(format!("no folder can be made in {}: name another place for the model package", above.display()))
    })?;
    if !folder.exists() {
        return Ok(());
    }
    let entries = fs::read_dir(folder).map_err(|e| Error::io("model", folder, e).help("--out must name a folder"))?;
    let names: Vec<String> = entries.filter_map(|entry| entry.ok()).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let weights = external::names(folder).unwrap_or_default();
    let known = |name: &String| FILES.contains(&name.as_str()) || name == SUMS || name == WORDING || weights.contains(name);
    if let Some(stranger) = names.iter().find(|name| !known(name)) {
        return Err(Error::config("model", format!("the folder holds `{stranger}`, which is not part of a model package"))
            .at(folder.display().to_string())
            .help("name an empty folder, one that does not exist yet, or a model package that is to be replaced"));
    }
    Ok(())
}

/// The files of the package in a folder, the wording of reasons among them. Weights that lie beside a graph are put into it, so that they go where it goes.
///
/// # Errors
/// One cannot be read.
pub fn read(folder: &Path) -> Result<Files> {
    let there = FILES.into_iter().chain([WORDING]).map(|name| (name, folder.join(name))).filter(|(_, path)| path.is_file());
    let read = |name: &'static str, path: PathBuf| -> Result<(&'static str, Vec<u8>)> {
        let bytes = fs::read(&path).map_err(|e| Error::io("model", &path, e))?;
        let is_graph = matches!(name, "model.onnx" | intensity::FILE);
        let whole = if is_graph { external::inlined(bytes, folder).map_err(|e| e.at(path.display().to_string()))? } else { bytes };
        Ok((name, whole))
    };
    there.map(|(name, path)| read(name, path)).collect()
}

/// Writes the files beside `folder`, has them checked there, and only then puts them in place of what was there. Wording of reasons that was there stays, if the
/// files bring none.
///
/// # Errors
/// The folder is refused (`check_folder`), a file cannot be written, or `check` finds something wrong.
pub fn write<T>(files: &Files, folder: &Path, check: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
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
            fs::remove_dir_all(path).map_err(|e| Error::io("model", path, e))?;
        }
    }
    fs::create_dir_all(&draft).map_err(|e| Error::io("model", &draft, e))?;
    let checked = match write_files(files, folder, &draft).and_then(|()| check(&draft)) {
        Ok(checked) => checked,
        Err(error) => {
            // The draft is of no use to anybody; that it cannot be removed would only hide the reason.
            let _ = fs::remove_dir_all(&draft);
            return Err(error);
        }
    };
    let rename = |from: &Path, to: &Path| fs::rename(from, to).map_err(|e| Error::io("model", to, e));
    let replaces = folder.exists();
    if replaces {
        rename(folder, &old)?;
    }
    rename(&draft, folder)?;
    if replaces {
        fs::remove_dir_all(&old).map_err(|e| Error::io("model", &old, e))?;
    }
    Ok(checked)
}

/// As `write`, checked as loading does.
///
/// # Errors
/// As `write`; or the package is refused.
pub fn write_package(files: &Files, folder: &Path) -> Result<()> {
    write(files, folder, |draft| Package::load(draft).map(|_| ()))
}

/// Puts golden events that the package itself gives in place of those that its files hold: where nobody else has computed with these weights or states, they
/// are what later machines and versions are compared with. The package lies in the folder that is returned, as long as that is kept.
///
/// # Errors
/// As `write_package`; or the graph fails to run.
pub fn recompute(files: &mut Files, golden: Option<&Golden>) -> Result<(tempfile::TempDir, PathBuf)> {
    let home = tempfile::tempdir().map_err(|e| Error::io("model", &std::env::temp_dir(), e))?;
    let folder = home.path().join("model");
    files.remove("golden.parquet");
    write_package(files, &folder)?;
    if let Some(golden) = golden {
        let package = Package::load(&folder)?;
        files.insert("golden.parquet", to_parquet(&golden.by(&mut package.model()?, &package.manifest)?)?);
    }
    Ok((home, folder))
}

fn write_files(files: &Files, before: &Path, folder: &Path) -> Result<()> {
    let mut list = String::new();
    for (name, bytes) in FILES.into_iter().filter_map(|name| files.get(name).map(|bytes| (name, bytes))) {
        let path = folder.join(name);
        fs::write(&path, bytes).map_err(|e| Error::io("model", &path, e))?;
        list.push_str(&format!("{}  {name}\n", sums::of(bytes)));
    }
    let path = before.join(WORDING);
    let own = if path.is_file() { Some(fs::read(&path).map_err(|e| Error::io("model", &path, e))?) } else { None };
    if let Some(wording) = files.get(WORDING).or(own.as_ref()) {
        let path = folder.join(WORDING);
        fs::write(&path, wording).map_err(|e| Error::io("model", &path, e))?;
    }
    let path = folder.join(SUMS);
    fs::write(&path, list).map_err(|e| Error::io("model", &path, e))
}
