//! The level rule of the layout: a module imports only lower levels, and stages never import each other.

use std::fs;
use std::path::{Path, PathBuf};

/// Level of each top-level module, as the map in `src/lib.rs` has it.
const LEVELS: [(&str, u32); 19] = [
    ("base", 0),
    ("data", 1),
    ("link", 1),
    ("source", 2),
    ("decode", 2),
    ("order", 2),
    ("features", 2),
    ("model", 2),
    ("head", 2),
    ("state", 2),
    ("sink", 2),
    ("pipeline", 3),
    ("run", 4),
    ("fit", 4),
    ("evaluate", 4),
    ("backfill", 4),
    ("cli", 5),
    ("lib", 6),
    ("main", 6),
];

/// Crates that may be named in one place only.
const HOMES: [(&str, &[&str]); 11] = [
    ("rdkafka", &["source/kafka", "sink/kafka", "link/kafka"]),
    ("tract_onnx", &["model"]),
    ("candle_core", &["fit"]),
    ("candle_nn", &["fit"]),
    ("prometheus_client", &["run/exposition"]),
    ("httparse", &["cli/http"]),
    ("datafusion", &["link/query"]),
    ("object_store", &["link/objects"]),
    ("tokio", &["link/objects"]),
    ("ureq", &["link/registry"]),
    ("apache_avro", &["decode/avro"]),
];

fn level(module: &str) -> u32 {
    LEVELS.iter().find(|(name, _)| *name == module).unwrap_or_else(|| panic!("module `{module}` has no level: add it to the map")).1
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

fn words_after<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(prefix).map(move |(at, _)| {
        let rest = &text[at + prefix.len()..];
        &rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())]
    })
}

/// The text without comments and without the test module at the end of a file, which may reach anywhere.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_module_imports_only_lower_levels() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut breaches = Vec::new();
    for path in files(&source) {
        let relative = path.strip_prefix(&source).unwrap().to_string_lossy().into_owned();
        if relative.ends_with("tests.rs") {
            continue;
        }
        let module = relative.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
        let text = code(&fs::read_to_string(&path).unwrap());
        let grouped = words_after(&text, "use crate::{").count();
        let mut used: Vec<&str> = words_after(&text, "crate::").filter(|word| !word.is_empty()).collect();
        for list in text.split("use crate::{").skip(1) {
            let list = list.split("};").next().unwrap();
            used.extend(list.split(',').map(|item| item.trim().split("::").next().unwrap()).filter(|item| !item.is_empty()));
        }
        assert!(grouped == 0 || !used.is_empty());
        for other in used.into_iter().filter(|other| LEVELS.iter().any(|(name, _)| name == other)) {
            if other != module && level(other) >= level(&module) {
                breaches.push(format!("{relative} (level {}) imports {other} (level {})", level(&module), level(other)));
            }
        }
        for (library, homes) in HOMES {
            let names = [format!("{library}::"), format!("use {library}")].iter().any(|name| text.contains(name.as_str()));
            if names && !homes.iter().any(|home| relative.starts_with(home)) {
                breaches.push(format!("{relative} names {library}, which belongs in {homes:?}"));
            }
        }
    }
    assert!(breaches.is_empty(), "the level rule is broken:\n{}", breaches.join("\n"));
}

#[test]
fn no_source_file_is_longer_than_600_lines() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let long: Vec<_> = files(&source).into_iter().filter(|path| fs::read_to_string(path).unwrap().lines().count() > 600).collect();
    assert!(long.is_empty(), "split: {long:?}");
}
