//! `SHA256SUMS`, and the digest of all that the model's behaviour depends on.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path};

use sha2::{Digest, Sha256};

use super::write::SUMS;
use super::{cohorts, external, intensity};
use crate::base::error::{Error, Result};

/// Files that every package has, and whose bytes the model's behaviour depends on.
const FILES: [&str; 3] = ["model.onnx", "model.toml", "features.toml"];
const HELP: &str = "write it as `sha256sum FILES > SHA256SUMS` does, inside the package's folder, or leave it out";

/// A package whose files are what its list says.
pub(super) struct Checked {
    /// SHA-256 over the files that behaviour depends on, in hex.
    pub digest: String,
    /// Whether there is a list.
    pub listed: bool,
}

/// Compares every file that `SHA256SUMS` lists with it, where there is one; it must list all that is served.
///
/// # Errors
/// A file is missing or differs, or the list cannot be read or lacks one.
pub(super) fn check(folder: &Path) -> Result<Checked> {
    let list = read(folder)?;
    let place = folder.join(SUMS).display().to_string();
    let mut sums = BTreeMap::new();
    // What is written for people may be edited.
    for (name, expected) in list.iter().flatten().filter(|(name, _)| !name.ends_with(".md")) {
        let path = folder.join(name);
        let bytes = fs::read(&path).map_err(|e| match e.kind() {
            ErrorKind::NotFound => Error::config("model", format!("SHA256SUMS lists {name}, which is not there"))
                .at(path.display().to_string())
                .help("put it back, or renew SHA256SUMS if it was taken out on purpose"),
            _ => Error::io("model", &path, e),
        })?;
        let sum = of(&bytes);
        if !expected.eq_ignore_ascii_case(&sum) {
            return Err(Error::config("model", format!("the file's SHA-256 is {sum}, SHA256SUMS says {expected}"))
                .at(path.display().to_string())
                .help("the file was changed after it was packaged: export it again, or renew SHA256SUMS if the change is meant"));
        }
        sums.insert(name.clone(), sum);
    }
    // The second graph and the cohorts of the packages that have them, and weights that lie beside the graphs.
    let others = [intensity::FILE, cohorts::FILE].into_iter().filter(|name| folder.join(name).is_file());
    let mut served: Vec<String> = FILES.into_iter().chain(others).map(str::to_owned).collect();
    if FILES.iter().all(|name| folder.join(name).is_file()) {
        served.extend(external::names(folder)?);
    }
    let mut all = Sha256::new();
    for name in &served {
        let path = folder.join(name);
        let sum = match sums.get(name) {
            Some(sum) => sum.clone(),
            None => {
                let help = "a model package holds model.onnx, model.toml and features.toml, and the files that its graphs name";
                of(&fs::read(&path).map_err(|e| Error::io("model", &path, e).help(help))?)
            }
        };
        if list.is_some() && !sums.contains_key(name) {
            return Err(Error::config("model", format!("SHA256SUMS does not list {name}, which is served")).at(place).help(HELP));
        }
        all.update(name.as_bytes());
        all.update(sum.as_bytes());
    }
    Ok(Checked { digest: hex(&all.finalize()), listed: list.is_some() })
}

/// The check sums by file, in the list's order; nothing without a list.
fn read(folder: &Path) -> Result<Option<Vec<(String, String)>>> {
    let path = folder.join(SUMS);
    let fault = |text: String| Error::config("model", text).at(path.display().to_string()).help(HELP);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("model", &path, e)),
    };
    let text = String::from_utf8(bytes).map_err(|_| fault("the list is not UTF-8 text (`>` of PowerShell may write UTF-16)".to_owned()))?;
    let mut list = Vec::new();
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, sum)) = entry(line) else {
            return Err(fault(format!("line {} is no check sum with the name of a file: `{line}`", number + 1)));
        };
        if !Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(fault(format!("line {} names `{name}`, which does not lie in the package's folder", number + 1)));
        }
        list.push((name.to_owned(), sum.to_owned()));
    }
    Ok(Some(list))
}

/// Name and sum of a line: `SUM  NAME`, `SUM *NAME`, or `SHA256 (NAME) = SUM` as with `sha256sum --tag` and on BSD.
fn entry(line: &str) -> Option<(&str, &str)> {
    let (name, sum) = match line.strip_prefix("SHA256 (") {
        Some(rest) => rest.rsplit_once(") = ")?,
        None => line.split_once(char::is_whitespace).map(|(sum, name)| (name, sum))?,
    };
    let name = name.trim().trim_start_matches('*');
    let name = name.strip_prefix("./").unwrap_or(name);
    (!name.is_empty() && sum.trim().len() == 64 && sum.trim().bytes().all(|byte| byte.is_ascii_hexdigit())).then_some((name, sum.trim()))
}

/// The SHA-256 of bytes, in hex.
pub(super) fn of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|nibble| char::from_digit(u32::from(nibble), 16)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::onnx::Graph;

    #[test]
    fn every_file_of_the_list_is_compared_and_the_list_names_all_that_is_served() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
        let names = ["model.onnx", "model.toml", "features.toml", "golden.parquet"];
        names.iter().for_each(|name| put(name, name.as_bytes()));
        put("model.onnx", &Graph::new("nothing").to_bytes());
        let sum = |name: &str| of(&fs::read(folder.path().join(name)).unwrap());
        let plain = check(folder.path()).unwrap();
        assert!(!plain.listed);
        let with = |list: &[u8]| {
            put(SUMS, list);
            check(folder.path()).map(|checked| (checked.listed, checked.digest)).map_err(|e| e.to_string())
        };
        let lines = |form: &dyn Fn(&str) -> String| names.map(form).concat().into_bytes();
        let usual = lines(&|name| format!("{}  {name}\n", sum(name)));
        let sound = [
            usual.clone(),
            lines(&|name| format!("{} *./{name}\r\n", sum(name).to_uppercase())),
            lines(&|name| format!("SHA256 ({name}) = {}\n", sum(name))),
        ];
        for list in sound {
            assert_eq!(with(&list).unwrap(), (true, plain.digest.clone()), "{}", String::from_utf8_lossy(&list));
        }
        let wide: Vec<u8> = String::from_utf8_lossy(&usual).encode_utf16().flat_map(u16::to_le_bytes).collect();
        let zeros = "0".repeat(64);
        for (list, says) in [
            (Vec::new(), "does not list model.onnx"),
            (format!("{}  golden.parquet\n", sum("golden.parquet")).into_bytes(), "does not list model.onnx"),
            (lines(&|name| format!("{name}  {}\n", sum(name))), "line 1 is no check sum"),
            ([&[0xff, 0xfe][..], &wide].concat(), "not UTF-8"),
            (wide, "line 1 is no check sum"),
            (lines(&|name| format!("{}  model/{name}\n", sum(name))), "lists model/model.onnx, which is not there"),
            (lines(&|name| format!("{}  ../{name}\n", sum(name))), "does not lie in the package's folder"),
            ([&usual[..], format!("{zeros}  golden.parquet\n").as_bytes()].concat(), "SHA256SUMS says 0000"),
        ] {
            let said = with(&list).unwrap_err();
            assert!(said.contains(says), "{says}: {said}");
        }
        // What is for people may be edited, and need not be there.
        put("CARD.md", b"edited");
        for list in [format!("{zeros}  CARD.md\n"), format!("{zeros}  NOTES.md\n")] {
            assert_eq!(with(&[&usual[..], list.as_bytes()].concat()).unwrap(), (true, plain.digest.clone()));
        }
        fs::remove_file(folder.path().join("golden.parquet")).unwrap();
        assert!(with(&usual).unwrap_err().contains("lists golden.parquet, which is not there"));
    }
}
