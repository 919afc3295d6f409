//! Rows that a graph is tried with when its package is loaded: repeatable numbers, and in columns of indices those that the recipe makes, as an embedding bears
//! no others.

use std::path::Path;

use toml::{Table, Value};

use crate::base::number::{f32_of, f64_of_count};

/// What a recipe makes, as far as probes need it. The recipe itself belongs to another stage, which checks it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Probes {
    /// Floats of a row.
    pub width: usize,
    /// Columns of indices: where each stands, its field, and how many words its vocabulary has.
    pub indices: Vec<(usize, String, usize)>,
}

impl Probes {
    /// Those of the recipe in a package's folder. Of one that is faulty, or is of other rows than the graph takes, no columns of indices are known: whoever reads
    /// it says why.
    #[must_use]
    pub fn load(folder: &Path, width: usize) -> Self {
        let text = std::fs::read_to_string(folder.join("features.toml")).unwrap_or_default();
        let own = Self::of(&text.parse().unwrap_or_default());
        if own.width == width { own } else { Probes { width, indices: Vec::new() } }
    }

    fn of(recipe: &Table) -> Self {
        let mut probes = Probes::default();
        for column in recipe.get("column").and_then(Value::as_array).into_iter().flatten() {
            let text = |key: &str| column.get(key).and_then(Value::as_str).unwrap_or_default();
            let flag = |key: &str| usize::from(column.get(key).and_then(Value::as_bool).unwrap_or_default());
            let words = column.get("vocabulary").and_then(Value::as_array).map_or(0, Vec::len);
            if text("encoding") == "index" {
                probes.indices.push((probes.width, text("field").to_owned(), words));
            }
            probes.width += match (text("kind"), text("encoding")) {
                ("numeric", _) => 1 + flag("missing_flag"),
                ("category", "one_hot") => words + flag("unknown"),
                ("calendar", _) => 2,
                ("deviation", _) => 3,
                _ => 1,
            };
        }
        probes
    }

    /// So many rows, one after the other.
    #[must_use]
    pub fn rows(&self, count: usize) -> Vec<f32> {
        let mut rows: Vec<f32> = (0..count * self.width).map(probe).collect();
        for (row, cells) in rows.chunks_exact_mut(self.width.max(1)).enumerate() {
            for (at, _, words) in &self.indices {
                if let Some(cell) = cells.get_mut(*at) {
                    *cell = f32_of(f64_of_count(row % (*words).max(1)));
                }
            }
        }
        rows
    }

    /// What to look at in a graph that cannot be run.
    #[must_use]
    pub fn help(&self) -> String {
        let indices: Vec<String> = self
            .indices
            .iter()
            .map(|(_, field, words)| {
                format!("`{field}` is an index from 0 to {}, so its embedding needs {words} rows", words.saturating_sub(1))
            })
            .collect();
        match indices.is_empty() {
            true => "export the graph again, and try it with onnxruntime on rows of numbers".to_owned(),
            false => format!("by features.toml {}", indices.join("; ")),
        }
    }
}

/// Repeatable numbers in about [-2, 2] without any library's random generator.
pub(super) fn probe(i: usize) -> f32 {
    f32_of((f64_of_count(i) * 0.754_877_666).fract() * 4.0 - 2.0)
}
