//! Which fields of a record are wanted, as a tree: `a.b` is the field `b` of the field `a`.

use super::cells::{COLUMNS, ID, KEY, TIME};
use crate::data::schema::EventSchema;

/// A field by its name, the cells it is written to, and what is wanted within it.
#[derive(Debug, PartialEq)]
pub struct Wanted {
    /// Its name at this level.
    pub name: String,
    /// A field may serve as key and as column at once.
    pub cells: Vec<usize>,
    /// Fields of this field.
    pub within: Vec<Wanted>,
}

/// All that a schema wants. A field whose own name has a dot is found as well as one within another.
pub fn wanted(schema: &EventSchema) -> Vec<Wanted> {
    let roles = [(Some(&schema.key), KEY), (Some(&schema.time), TIME), (schema.id.as_ref(), ID)];
    let roles = roles.into_iter().filter_map(|(name, cell)| Some((name?, cell)));
    let fields = schema.fields.iter().enumerate().map(|(i, field)| (&field.name, COLUMNS + i));
    let all: Vec<(&String, usize)> = roles.chain(fields).collect();
    let mut tree = Vec::new();
    for (name, cell) in &all {
        add(&mut tree, &name.split('.').collect::<Vec<_>>(), *cell);
    }
    // Last, because hardly anybody has them, and the search begins at the front.
    for (name, cell) in all.iter().filter(|(name, _)| name.contains('.')) {
        add(&mut tree, &[name], *cell);
    }
    tree
}

fn add(level: &mut Vec<Wanted>, path: &[&str], cell: usize) {
    let Some((name, rest)) = path.split_first() else { return };
    let at = level.iter().position(|field| field.name == *name).unwrap_or_else(|| {
        level.push(Wanted { name: (*name).to_owned(), cells: Vec::new(), within: Vec::new() });
        level.len() - 1
    });
    match level.get_mut(at) {
        Some(field) if rest.is_empty() => field.cells.push(cell),
        Some(field) => add(&mut field.within, rest, cell),
        None => {}
    }
}
