//! Whether a package's graph bears every index that its recipe makes: an embedding that is one row short fails, or panics, at the first value that is in no
//! vocabulary, which may come weeks later.

use crate::base::error::{Error, Result};
use crate::base::guard::tried;
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
/// Configuration: the graph does not bear one, or takes a value that is in no vocabulary for the last word of it.
pub fn check(package: &Package, recipe: &Recipe) -> Result<()> {
    if package.signature().features != recipe.width() {
        // That is another error, of whoever steps it.
        return Ok(());
    }
    for (at, spec) in recipe.places() {
        if let Spec::Category { field, vocabulary, encoding: Encoding::Index, unknown } = spec {
            check_column(package, at, field, vocabulary, *unknown)?;
        }
    }
    Ok(())
}

fn check_column(package: &Package, at: usize, field: &str, vocabulary: &[String], unknown: bool) -> Result<()> {
    let words = vocabulary.len();
    let place = package.folder.join("model.onnx").display().to_string();
    let mut model = package.model()?;
    let float = |index: usize| f32_of(f64_of_count(index));
    // The bits of what the graph gives for an index, from a new key's state.
    let mut gives = |index: f32, of: &str| -> Result<Vec<u32>> {
        let mut row = vec![0.0; package.signature().features];
        if let Some(cell) = row.get_mut(at) {
            *cell = index;
        }
        let (mut memory, mut outputs) = (Blank(model.initial_hidden().to_vec()), Outputs::default());
        let stepped = tried(|| model.steps(&row, &[None], &[0], &mut memory, &mut outputs).map_err(|error| error.message));
        stepped.and_then(|stepped| stepped).map_err(|said| {
            Error::config("model", format!("the graph cannot be run for `{field}` = {index}, the index of {of}: {said}"))
                .at(place.clone())
                .help(format!(
                    "its embedding of `{field}` has too few rows: {words} words make {} indices from 0 on; a value in no vocabulary is -1 unless the column says \
                     `unknown = true`",
                    words + usize::from(unknown)
                ))
        })?;
        Ok(outputs.after.iter().chain(&memory.0).map(|value| value.to_bits()).collect())
    };
    let last = gives(float(words.saturating_sub(1)), "the last word of its vocabulary")?;
    let stranger = gives(if unknown { float(words) } else { -1.0 }, "a value that is not in its vocabulary")?;
    if unknown || last != stranger {
        return Ok(());
    }
    // Where no word makes a difference the column has no effect; otherwise -1 was counted from the end, as ONNX says of a lookup.
    for index in 0..words.saturating_sub(1) {
        if gives(float(index), "a word of its vocabulary")? != last {
            let word = vocabulary.last().map_or("", String::as_str);
            return Err(Error::config(
                "model",
                format!("a value of `{field}` that is not in its vocabulary is the index -1, which the graph takes for the last word, `{word}`"),
            )
            .at(place)
            .help(format!(
                "set `unknown = true` for `{field}` in features.toml and give its embedding a row more, {words}, for values that are in no vocabulary; or have the graph \
                 look at -1 itself"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Probes;
    use crate::model::onnx::Graph;

    /// A package that adds an embedding with these rows to its state.
    fn folder(rows: &[f32], unknown: bool) -> (tempfile::TempDir, Recipe) {
        let folder = tempfile::tempdir().unwrap();
        let mut graph = Graph::new("embedding");
        graph.input("x", &[2]);
        graph.input("h", &[1]);
        graph.positions("second", &[1]);
        graph.positions("axis", &[1]);
        graph.constant("table", &[rows.len(), 1], rows);
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
        let recipe = format!(
            "format = 1\n[[column]]\nkind = \"is_first\"\n[[column]]\nkind = \"category\"\nfield = \"channel\"\nvocabulary = [\"pos\", \"web\"]\n\
                      encoding = \"index\"\nunknown = {unknown}\n"
        );
        std::fs::write(folder.path().join("features.toml"), recipe).unwrap();
        let recipe = Recipe::load(&folder.path().join("features.toml")).unwrap();
        (folder, recipe)
    }

    fn package(rows: &[f32], unknown: bool) -> (tempfile::TempDir, Package, Recipe) {
        let (folder, recipe) = folder(rows, unknown);
        let package = Package::load(folder.path()).unwrap();
        (folder, package, recipe)
    }

    #[test]
    fn a_value_in_no_vocabulary_that_passes_for_the_last_word_is_refused() {
        let (_folder, wraps, recipe) = package(&[0.25, 0.5], false);
        let text = check(&wraps, &recipe).unwrap_err().to_string();
        assert!(text.contains("`channel`") && text.contains("the last word, `web`") && text.contains("set `unknown = true`"), "{text}");
        // A column without effect does no harm; and one more row is what is asked for.
        let (_folder, idle, recipe) = package(&[0.25, 0.25], false);
        check(&idle, &recipe).unwrap();
        let (_folder, own, recipe) = package(&[0.25, 0.5, 0.5], true);
        check(&own, &recipe).unwrap();
    }

    #[test]
    fn a_panic_of_tract_is_an_error_with_its_text_and_probes_are_indices_of_the_recipe() {
        // Far too short: even the words that the recipe makes are beyond it.
        let (place, recipe) = folder(&[0.25], true);
        let error = Package::load(place.path()).err().unwrap();
        let text = error.to_string();
        assert!(error.exit_code() == 78 && text.contains("cannot be run") && text.contains("`channel` is an index from 0 to 1"), "{text}");
        assert_eq!(Probes::load(place.path(), recipe.width()).indices, [(1, "channel".to_owned(), 2)]);
        // One name for two inputs: tract would panic while it orders the graph.
        let (place, _) = folder(&[0.25, 0.5, 0.75], true);
        let path = place.path().join("model.toml");
        let manifest = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, manifest.replace("features = \"x\"", "features = \"x\"\ngap = \"x\"")).unwrap();
        let text = Package::load(place.path()).err().unwrap().to_string();
        assert!(text.contains("`x` stands for two inputs") && text.contains("model.toml"), "{text}");
    }

    #[test]
    fn probes_know_the_widths_of_every_kind_of_column() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("features.toml");
        let columns = [
            "kind = \"gap\"\nunit = \"h\"\nscale = \"raw\"",
            "kind = \"is_first\"",
            "kind = \"numeric\"\nfield = \"a\"\nscale = \"identity\"",
            "kind = \"numeric\"\nfield = \"a\"\nscale = \"identity\"\nmissing_flag = true",
            "kind = \"category\"\nfield = \"b\"\nvocabulary = [\"p\", \"q\", \"r\"]\nencoding = \"one_hot\"",
            "kind = \"category\"\nfield = \"b\"\nvocabulary = [\"p\", \"q\", \"r\"]\nencoding = \"one_hot\"\nunknown = true",
            "kind = \"calendar\"\ncycle = \"hour\"",
            "kind = \"decay\"\nstatistic = \"count\"\nhalf_life = \"1d\"\nscale = \"identity\"",
            "kind = \"deviation\"\nfield = \"a\"\ntransform = \"identity\"\nmemory = 10",
            "kind = \"constant\"\nvalue = 1.0",
            "kind = \"category\"\nfield = \"c\"\nvocabulary = [\"p\", \"q\"]\nencoding = \"index\"",
        ];
        for last in 1..=columns.len() {
            let index = columns[columns.len() - 1];
            let own: Vec<String> = columns[..last].iter().chain([&index]).map(|column| format!("[[column]]\n{column}\n")).collect();
            std::fs::write(&path, format!("format = 1\n{}", own.concat())).unwrap();
            let width = Recipe::load(&path).unwrap().width();
            let probes = Probes::load(folder.path(), width);
            assert_eq!(probes.indices.last(), Some(&(width - 1, "c".to_owned(), 2)), "{}", own.concat());
            let rows = probes.rows(3);
            assert_eq!([rows[width - 1], rows[2 * width - 1], rows[3 * width - 1]], [0.0, 1.0, 0.0]);
        }
    }

    #[test]
    fn an_embedding_that_is_a_row_short_is_refused_with_the_field_and_the_index() {
        let (_folder, whole, recipe) = package(&[0.25, 0.5, 0.75], true);
        check(&whole, &recipe).unwrap();
        let (_folder, short, recipe) = package(&[0.25, 0.5], true);
        let error = check(&short, &recipe).unwrap_err();
        assert_eq!(error.exit_code(), 78);
        let text = error.to_string();
        assert!(
            text.contains("`channel` = 2, the index of a value that is not in its vocabulary") && text.contains("make 3 indices"),
            "{text}"
        );
    }
}
