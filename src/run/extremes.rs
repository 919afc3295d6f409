//! Whether a package's graph bears every index that its recipe makes: an embedding that is one row short fails, or panics, at the first value that is in no
//! vocabulary, which may come weeks later.

use crate::base::error::{Error, Result};
use crate::base::guard::guarded;
use crate::base::number::{f32_of, f64_of_count};
use crate::data::outputs::Outputs;
use crate::features::recipe::{Encoding, Recipe, Spec};
use crate::model::{Memory, Package};

/// States of a key that nothing is known of.
struct Blank(Vec<f32>);

impl Memory for Blank {
    fn hidden(&mut self, _row: usize) -> &mut [f32] {
        &mut self.0
    }
}

/// Steps the graph once for the last index of each vocabulary, and once for that of values that are in none.
///
/// # Errors
/// Configuration: the graph does not bear one.
pub fn check(package: &Package, recipe: &Recipe) -> Result<()> {
    let width = package.signature().features;
    if width != recipe.columns.iter().map(Spec::width).sum::<usize>() {
        // That is another error, of whoever steps it.
        return Ok(());
    }
    let mut model = package.model()?;
    let mut at = 0;
    for spec in &recipe.columns {
        if let Spec::Category { field, vocabulary, encoding: Encoding::Index, unknown } = spec {
            let last = f32_of(f64_of_count(vocabulary.len().saturating_sub(1)));
            let none = if *unknown { f32_of(f64_of_count(vocabulary.len())) } else { -1.0 };
            for (index, of) in [(last, "the last word of its vocabulary"), (none, "a value that is not in its vocabulary")] {
                let mut row = vec![0.0; width];
                if let Some(cell) = row.get_mut(at) {
                    *cell = index;
                }
                let mut memory = Blank(model.initial_hidden().to_vec());
                let step = || model.steps(&row, &[None], &[0], &mut memory, &mut Outputs::default());
                guarded("model", "the graph", step).and_then(|stepped| stepped).map_err(|error| {
                    Error::config("model", format!("the graph cannot be run for `{field}` = {index}, the index of {of}: {}", error.message))
                        .at(package.folder.join("model.onnx").display().to_string())
                        .help(format!(
                            "its embedding of `{field}` has too few rows: {} words make {} indices from 0 on; a value in no vocabulary is -1 unless the column says \
                             `unknown = true`",
                            vocabulary.len(),
                            vocabulary.len() + usize::from(*unknown)
                        ))
                })?;
            }
        }
        at += spec.width();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::onnx::Graph;

    /// A package that adds an embedding with so many rows to its state.
    fn package(rows: usize) -> (tempfile::TempDir, Package, Recipe) {
        let folder = tempfile::tempdir().unwrap();
        let mut graph = Graph::new("embedding");
        graph.input("x", &[2]);
        graph.input("h", &[1]);
        graph.positions("second", &[1]);
        graph.positions("axis", &[1]);
        graph.constant("table", &[rows, 1], &vec![0.25; rows]);
        graph.node("Gather", &["x", "second"], &["index"], &[("axis", 1)]);
        graph.node("Cast", &["index"], &["whole"], &[("to", 7)]);
        graph.node("Gather", &["table", "whole"], &["looked_up"], &[("axis", 0)]);
        graph.node("Squeeze", &["looked_up", "axis"], &["embedded"], &[]);
        graph.node("Add", &["embedded", "h"], &["h_next"], &[]);
        graph.node("Neg", &["h_next"], &["law"], &[]);
        graph.output("law", &[1]);
        graph.output("h_next", &[1]);
        std::fs::write(folder.path().join("model.onnx"), graph.to_bytes()).unwrap();
        let manifest = "format = 1\nname = \"e\"\nversion = \"1\"\n[input]\nfeatures = \"x\"\n[[state]]\ninput = \"h\"\noutput = \"h_next\"\nshape = [1]\n\
                        [head]\nkind = \"exponential\"\noutputs = [\"law\"]\ntime_unit = \"s\"\nmin_gap = 0.001\n";
        std::fs::write(folder.path().join("model.toml"), manifest).unwrap();
        let recipe = "format = 1\n[[column]]\nkind = \"is_first\"\n[[column]]\nkind = \"category\"\nfield = \"channel\"\nvocabulary = [\"pos\", \"web\"]\n\
                      encoding = \"index\"\nunknown = true\n";
        std::fs::write(folder.path().join("features.toml"), recipe).unwrap();
        let package = Package::load(folder.path()).unwrap();
        let recipe = Recipe::load(&folder.path().join("features.toml")).unwrap();
        (folder, package, recipe)
    }

    #[test]
    fn an_embedding_that_is_a_row_short_is_refused_with_the_field_and_the_index() {
        let (_folder, whole, recipe) = package(3);
        check(&whole, &recipe).unwrap();
        let (_folder, short, recipe) = package(2);
        let error = check(&short, &recipe).unwrap_err();
        assert_eq!(error.exit_code(), 78);
        let text = error.to_string();
        assert!(
            text.contains("`channel` = 2, the index of a value that is not in its vocabulary") && text.contains("make 3 indices"),
            "{text}"
        );
    }
}
