//! The model package as far as a plan needs it: its manifest and recipe, read and checked; faults become faults of the pipeline.

use std::path::Path;

use super::build::Build;
use super::fault::Place;
use crate::base::error::{Error, Result};
use crate::features::recipe::Recipe;
use crate::model::manifest::Manifest;

impl Build<'_> {
    /// Manifest and recipe, if both can be read. Every fault of either is noted.
    pub(super) fn package(&mut self, folder: &Path) -> Option<(Manifest, Recipe)> {
        let path = self.package_key;
        if matches!(self.find(&path), Some(node) if matches!(node.value, super::document::Value::Faulty)) {
            return None;
        }
        let shown = match self.find(&path) {
            Some(node) => node.shown.clone(),
            None => "\"model\", the default".to_owned(),
        };
        if !folder.is_dir() {
            let label = format!("got {shown}, expected a folder with model.onnx, model.toml and features.toml");
            let own = self.find(&path).map(|node| node.shown.trim_matches(['"', '\'']).to_owned());
            let help = match own.is_some_and(|own| Path::new(&own).join("model.toml").is_file()) {
                true => format!(
                    "paths of a pipeline are relative to its folder, {}: name it from there, or make one: {}",
                    self.folder.display(),
                    self.fit_command()
                ),
                false => format!("make one: {}", self.fit_command()),
            };
            self.note("pipeline::no_package", &path, "there is no model package", label, help);
            return None;
        }
        if !folder.join("model.onnx").is_file() {
            let help = format!("write the package anew: {}", self.fit_command());
            self.note("pipeline::package", &path, "the model package has no model.onnx", format!("in {shown}"), help);
        }
        let manifest = self.read(folder, "model.toml", Manifest::load);
        let recipe = self.read(folder, "features.toml", Recipe::load);
        manifest.zip(recipe)
    }

    /// Reads a file of the package; a fault is told at its line of that file.
    fn read<T>(&mut self, folder: &Path, name: &str, load: fn(&Path) -> Result<T>) -> Option<T> {
        let path = folder.join(name);
        let error = match load(&path) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let help = error.help.clone().unwrap_or_else(|| format!("mend {name}, or write the package anew: {}", self.fit_command()));
        match toml_place(&error).zip(std::fs::read_to_string(&path).ok()) {
            Some(((message, span), content)) => {
                // The folder's name may come from the environment, so the file is named by what the user wrote.
                let package = match self.find(&self.package_key) {
                    Some(node) => node.shown.trim_matches(['"', '\'']).to_owned(),
                    None => "model".to_owned(),
                };
                let text = self.faults.add_text(self.folder.join(package).join(name).display().to_string(), content);
                let place = Place { text, start: span.start, end: span.end };
                self.faults.note("pipeline::package", place, format!("{name} of the model package: {message}"), "here", help);
            }
            None => {
                let message = format!("{name} of the model package: {}", error.message);
                self.note("pipeline::package", &self.package_key.clone(), message, format!("read for {}", error.stage), help);
            }
        }
        None
    }
}

/// What a TOML error says, and where.
fn toml_place(error: &Error) -> Option<(String, std::ops::Range<usize>)> {
    let toml = error.source.as_ref()?.downcast_ref::<toml::de::Error>()?;
    Some((toml.message().replace('\n', ", "), toml.span().unwrap_or(0..0)))
}
