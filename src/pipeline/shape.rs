//! A document against the schema of `written`: unknown and missing keys, wrong types, values out of range; every one of them.
//!
//! What is faulty is marked so in the tree; what is left can be read by serde without an error. Only the part of JSON Schema that
//! `written` uses is known here.

mod words;

use serde_json::Value as Json;

use super::document::{Document, Entry, Node, Value};
use super::fault::{Faults, Place};
use super::unit::{Length, Moment, Size, UNIT};
use crate::base::nearest::nearest;
use crate::base::number::{f64_of, i64_of_count};
use words::{cure, example, expected, last, one_of, toml_text};

/// Keys and values of the contract that this version does not have: path, value (of any, if none is given), and what there is instead.
const NOT_YET: &[(&str, Option<&str>, &str)] =
    &[("event.format", Some("protobuf"), "write format = \"json\" or \"avro\" (or \"parquet\" for files)")];

/// Checks the document and marks what is faulty.
pub(super) fn check(document: &mut Document, schema: &Json, faults: &mut Faults) {
    let whole = document.broken.is_empty();
    let mut shape = Shape { root: schema, whole, faults };
    shape.walk(schema, &mut document.root, &[]);
}

struct Shape<'a> {
    root: &'a Json,
    /// Whether all of the file could be read: otherwise what is missing may be in the part that could not.
    whole: bool,
    faults: &'a mut Faults,
}

/// What a node may be.
enum Kind<'a> {
    Choice(Vec<&'a str>),
    Union(Vec<&'a Json>),
    Map(&'a Json),
    Table,
    List,
    Scalar(Vec<&'a str>),
}

impl Shape<'_> {
    /// Checks a node; a faulty one is marked.
    fn walk(&mut self, schema: &Json, node: &mut Node, path: &[&str]) {
        if matches!(node.value, Value::Faulty) {
            return;
        }
        let fits = match kind_of(schema) {
            Kind::Choice(choices) => self.choice(&choices, node, path),
            Kind::Union(options) => self.union(schema, &options, node, path),
            Kind::Map(values) => self.map(schema, values, node, path),
            Kind::Table => self.table(schema, &[schema], node, path),
            Kind::List => self.list(schema, node, path),
            Kind::Scalar(types) => self.scalar(schema, &types, node, path),
        };
        if !fits {
            node.value = Value::Faulty;
        }
    }

    fn choice(&mut self, choices: &[&str], node: &mut Node, path: &[&str]) -> bool {
        reread(node, &["string"]);
        let found = match &node.value {
            Value::Text(text) if choices.contains(&text.as_str()) => return true,
            Value::Text(text) => text.clone(),
            _ => return self.wrong_type(&one_of(choices), node, path, &example(choices.first().copied().unwrap_or_default(), path)),
        };
        let name = path.join(".");
        let pending = NOT_YET.iter().find(|(at, value, _)| *at == name && *value == Some(found.as_str()));
        if let Some((_, _, instead)) = pending {
            let message = format!("not supported yet: `{name} = \"{found}\"`");
            let label = format!("this version has {}", one_of(choices));
            self.faults.note("pipeline::not_supported_yet", node.place, message, label, *instead);
            return false;
        }
        let guess = if node.loose.is_some() { None } else { nearest(&found, choices.iter().copied()) };
        let help = match guess {
            Some(guess) => format!("did you mean \"{guess}\"?"),
            None => format!("write {}", example(choices.first().copied().unwrap_or_default(), path)),
        };
        let message = format!("`{name}` has a value that is not one of its choices");
        self.faults.note("pipeline::bad_value", node.place, message, format!("got {}, expected {}", node.shown, one_of(choices)), help);
        false
    }

    /// A value that may be one of several: told apart by `kind`, otherwise by its type and keys.
    fn union(&mut self, schema: &Json, options: &[&Json], node: &mut Node, path: &[&str]) -> bool {
        let kinds: Vec<&str> = options.iter().filter_map(|option| kind_name(option)).collect();
        let tagged = kinds.len() == options.len();
        let tables: Vec<&Json> = options.iter().copied().filter(|option| matches!(kind_of(option), Kind::Table)).collect();
        let Value::Table(entries) = &mut node.value else {
            let others: Vec<&Json> = options.iter().copied().filter(|option| !matches!(kind_of(option), Kind::Table)).collect();
            if let [only] = others.as_slice()
                && matches!(node.value, Value::Text(_))
            {
                self.walk(only, node, path);
                return !matches!(node.value, Value::Faulty);
            }
            let (wanted, help) = if tagged {
                ("a table".to_owned(), format!("write [{}] and its keys below it", path.join(".")))
            } else {
                let default = schema.get("default").map(toml_text).unwrap_or_default();
                (expected(schema), format!("write {} = {default}", last(path)))
            };
            return self.wrong_type(&wanted, node, path, &help);
        };
        if !tagged {
            let wanted = |option: &&Json| entries.iter().any(|entry| option.pointer(&format!("/properties/{}", entry.key)).is_some());
            let chosen: Vec<&Json> = tables.iter().copied().filter(wanted).collect();
            return match chosen.as_slice() {
                [only] => {
                    self.table(only, &[only], node, path);
                    // The keys are what tells the options apart: without all of them serde could not.
                    !matches!(&node.value, Value::Table(entries) if entries.iter().any(|entry| matches!(entry.node.value, Value::Faulty)))
                }
                _ => {
                    let label = format!("got a table with other keys, expected {}", expected(schema));
                    let default = schema.get("default").map(toml_text).unwrap_or_default();
                    let help = format!("write {} = {default}, or one of its tables", last(path));
                    self.faults.note(
                        "pipeline::bad_value",
                        node.place,
                        format!("`{}` is not one of its choices", path.join(".")),
                        label,
                        help,
                    );
                    false
                }
            };
        }
        if !entries.iter().any(|entry| entry.key == "kind")
            && let Some(default) = options.iter().find(|option| !required(option).contains(&"kind"))
        {
            let kind = kind_name(default).unwrap_or_default().to_owned();
            let value = Node { place: node.place, shown: String::new(), value: Value::Text(kind), loose: None };
            entries.push(Entry { key: "kind".to_owned(), key_place: node.place, node: value });
        }
        let chosen = match entries.iter_mut().find(|entry| entry.key == "kind") {
            Some(kind) => {
                if !matches!(kind.node.value, Value::Faulty) {
                    let at: Vec<&str> = path.iter().copied().chain(["kind"]).collect();
                    if !self.choice(&kinds, &mut kind.node, &at) {
                        kind.node.value = Value::Faulty;
                    }
                }
                let Value::Text(name) = &kind.node.value else {
                    // Without a kind the keys can only be compared with those of all kinds, and serde has nothing to go by.
                    self.keys(options, node, path);
                    return false;
                };
                options.iter().copied().find(|option| kind_name(option) == Some(name.as_str()))
            }
            None => {
                self.missing(
                    "kind",
                    &format!("kind = \"{}\"", kinds.first().copied().unwrap_or_default()),
                    &one_of(&kinds),
                    node.place,
                    path,
                );
                self.keys(options, node, path);
                return false;
            }
        };
        match chosen {
            Some(chosen) => self.table(chosen, options, node, path),
            None => false,
        }
    }

    /// A table of one kind; `family` are all kinds it could have been.
    fn table(&mut self, schema: &Json, family: &[&Json], node: &mut Node, path: &[&str]) -> bool {
        if !matches!(node.value, Value::Table(_)) {
            let help = match schema.pointer("/examples/0") {
                Some(example) => format!("write {} = {}", last(path), toml_text(example)),
                None => format!("write [{}] and its keys below it", path.join(".")),
            };
            return self.wrong_type("a table", node, path, &help);
        }
        let guesses = self.entries(schema, family, node, path);
        let mut absent: Vec<&str> =
            required(schema).into_iter().filter(|key| node.get(key).is_none() && !guesses.iter().any(|g| g == key)).collect();
        absent.dedup();
        for key in absent {
            let property = schema.pointer(&format!("/properties/{key}")).unwrap_or(&Json::Null);
            let line = match property.pointer("/examples/0") {
                Some(example) => format!("{key} = {}", toml_text(example)),
                None => match path {
                    [] => format!("[{key}]"),
                    _ => format!("{key} = ..."),
                },
            };
            self.missing(key, &line, &expected(property), node.place, path);
        }
        true
    }

    /// The keys of a table whose kind is not known.
    fn keys(&mut self, family: &[&Json], node: &mut Node, path: &[&str]) {
        let Value::Table(entries) = &mut node.value else { return };
        for entry in entries {
            let Some(property) = family.iter().find_map(|option| option.pointer(&format!("/properties/{}", entry.key))) else {
                self.unknown(entry, family, path);
                continue;
            };
            if entry.key != "kind" {
                let at: Vec<&str> = path.iter().copied().chain([entry.key.as_str()]).collect();
                self.walk(property, &mut entry.node, &at);
            }
        }
    }

    /// Walks the entries of a table; returns the keys that unknown ones were probably meant to be.
    fn entries(&mut self, schema: &Json, family: &[&Json], node: &mut Node, path: &[&str]) -> Vec<String> {
        let mut guesses = Vec::new();
        let Value::Table(entries) = &mut node.value else { return guesses };
        for entry in entries {
            match schema.pointer(&format!("/properties/{}", pointer_part(&entry.key))) {
                Some(property) => {
                    let at: Vec<&str> = path.iter().copied().chain([entry.key.as_str()]).collect();
                    // The tag of a union has been checked before the union was entered.
                    if entry.key != "kind" || kind_name(schema).is_none() {
                        self.walk(property, &mut entry.node, &at);
                    }
                }
                None => {
                    let options: &[&Json] = if family.iter().any(|option| has_property(option, &entry.key)) { family } else { &[schema] };
                    guesses.extend(self.unknown(entry, options, path));
                    entry.node.value = Value::Faulty;
                }
            }
        }
        guesses
    }

    /// Notes an unknown key, and says which it was probably meant to be.
    fn unknown(&mut self, entry: &Entry, family: &[&Json], path: &[&str]) -> Option<String> {
        let table = if path.is_empty() { "at the top of the file".to_owned() } else { format!("in [{}]", path.join(".")) };
        let name = path.iter().copied().chain([entry.key.as_str()]).collect::<Vec<_>>().join(".");
        if let Some((_, _, instead)) = NOT_YET.iter().find(|(at, value, _)| *at == name && value.is_none()) {
            let message = format!("not supported yet: `{name}`");
            self.faults.note("pipeline::not_supported_yet", entry.key_place, message, "this version does not have it", *instead);
            return None;
        }
        let kinds: Vec<&str> =
            family.iter().filter(|option| has_property(option, &entry.key)).filter_map(|option| kind_name(option)).collect();
        if !kinds.is_empty() {
            let message = format!("`{}` is not a key of this kind of [{}]", entry.key, path.join("."));
            let label = format!("a key of kind {}", one_of(&kinds));
            let help = format!("remove it, or write kind = \"{}\"", kinds.first().copied().unwrap_or_default());
            self.faults.note("pipeline::unknown_key", entry.key_place, message, label, help);
            return None;
        }
        let mut known: Vec<&str> = family
            .iter()
            .filter_map(|option| option.get("properties")?.as_object())
            .flat_map(|properties| properties.keys().map(String::as_str))
            .collect();
        known.sort_unstable();
        known.dedup();
        let guess = nearest(&entry.key, known.iter().copied());
        let help = match (guess, self.home_of(&entry.key, path)) {
            (Some(guess), _) => format!("did you mean `{guess}`?"),
            (None, Some(home)) => format!("`{}` belongs to [{home}]", entry.key),
            (None, None) => "remove it".to_owned(),
        };
        let message = format!("unknown key `{}` {table}", entry.key);
        self.faults.note("pipeline::unknown_key", entry.key_place, message, format!("expected one of {}", known.join(", ")), help);
        guess.map(str::to_owned)
    }

    /// Another table that has this key.
    fn home_of(&self, key: &str, path: &[&str]) -> Option<String> {
        let tables = self.root.get("properties")?.as_object()?;
        let here = path.first().copied().unwrap_or_default();
        let has = |table: &Json| match kind_of(table) {
            Kind::Union(options) => options.iter().any(|option| has_property(option, key)),
            _ => has_property(table, key),
        };
        tables.iter().find(|(name, table)| name.as_str() != here && has(table)).map(|(name, _)| name.clone())
    }

    /// A table of any keys; `a.b = 1` is the key `a.b`.
    fn map(&mut self, schema: &Json, values: &Json, node: &mut Node, path: &[&str]) -> bool {
        let Value::Table(entries) = &mut node.value else {
            let help = format!("write {} = {{ \"name\" = \"value\" }}", last(path));
            return self.wrong_type(&expected(schema), node, path, &help);
        };
        let mut flat = Vec::new();
        flatten(std::mem::take(entries), None, &mut flat);
        *entries = flat;
        for entry in entries {
            let at: Vec<&str> = path.iter().copied().chain([entry.key.as_str()]).collect();
            self.walk(values, &mut entry.node, &at);
        }
        true
    }

    fn list(&mut self, schema: &Json, node: &mut Node, path: &[&str]) -> bool {
        let mut items_schema = schema.get("items").cloned().unwrap_or(Json::Null);
        // Bounds of a list of texts with a unit stand at the list.
        for bound in ["x-least", "x-most"] {
            if let (Some(limit), Some(items)) = (schema.get(bound), items_schema.as_object_mut()) {
                items.insert(bound.to_owned(), limit.clone());
            }
        }
        let shown = node.shown.clone();
        let Value::List(items) = &mut node.value else {
            let help = format!("write {} = [{shown}]", last(path));
            return self.wrong_type(&expected(schema), node, path, &help);
        };
        let length = i64_of_count(items.len());
        let least = schema.get("minItems").and_then(Json::as_i64).unwrap_or(0);
        let most = schema.get("maxItems").and_then(Json::as_i64).unwrap_or(i64::MAX);
        let mut fits = true;
        if length < least || length > most {
            let wanted = if length < least { format!("at least {least}") } else { format!("at most {most}") };
            let message = format!("`{}` has {length} entries", path.join("."));
            self.faults.note(
                "pipeline::out_of_range",
                node.place,
                message,
                format!("expected {wanted}"),
                format!("write {wanted} of them"),
            );
            fits = false;
        }
        for (i, item) in items.iter_mut().enumerate() {
            let index = i.to_string();
            let at: Vec<&str> = path.iter().copied().chain([index.as_str()]).collect();
            self.walk(&items_schema, item, &at);
            fits &= !matches!(item.value, Value::Faulty);
        }
        fits
    }

    fn scalar(&mut self, schema: &Json, types: &[&str], node: &mut Node, path: &[&str]) -> bool {
        reread(node, types);
        if schema.get(UNIT).is_some_and(|unit| unit == "time")
            && let Value::Datetime(text) = &node.value
        {
            node.value = Value::Text(text.clone());
        }
        let fits = match &node.value {
            Value::Text(_) => types.contains(&"string"),
            Value::Integer(_) => types.contains(&"integer") || types.contains(&"number"),
            Value::Float(_) => types.contains(&"number"),
            Value::Boolean(_) => types.contains(&"boolean"),
            _ => false,
        };
        if !fits {
            return self.wrong_type(&expected(schema), node, path, &cure(schema, types, node, path));
        }
        match node.value.clone() {
            Value::Text(text) => self.text(schema, &text, node, path),
            Value::Integer(number) => self.range(schema, f64_of(number), node, path),
            Value::Float(number) => self.range(schema, number, node, path),
            _ => true,
        }
    }

    fn text(&mut self, schema: &Json, text: &str, node: &Node, path: &[&str]) -> bool {
        let name = path.join(".");
        if text.is_empty() && schema.get("minLength").is_some() {
            self.faults.note(
                "pipeline::out_of_range",
                node.place,
                format!("`{name}` is empty"),
                "expected some text",
                "write a name, or remove the line",
            );
            return false;
        }
        let Some(unit) = schema.get(UNIT).and_then(Json::as_str) else { return true };
        let (code, what) = match unit {
            "duration" => ("pipeline::bad_duration", "a duration"),
            "size" => ("pipeline::bad_size", "a size"),
            _ => ("pipeline::bad_time", "a time"),
        };
        let measured = measure(unit, text);
        let Ok(value) = measured else {
            let label = format!("got {}, {}; expected {}", node.shown, measured.err().unwrap_or_default(), expected(schema));
            self.faults.note(code, node.place, format!("`{name}` is not {what}"), label, cure(schema, &["string"], node, path));
            return false;
        };
        let limit = |bound: &str| {
            let text = schema.get(bound)?.as_str()?;
            Some((text.to_owned(), measure(unit, text).ok()?))
        };
        let (least, most) = (limit("x-least"), limit("x-most"));
        let low = least.as_ref().is_some_and(|(_, limit)| value < *limit);
        if low || most.as_ref().is_some_and(|(_, limit)| value > *limit) {
            let bound = if low { least } else { most }.map(|(text, _)| text).unwrap_or_default();
            let wanted = format!("at {} \"{bound}\"", if low { "least" } else { "most" });
            let message = format!("`{name}` is out of range");
            let label = format!("got {}, expected {wanted}", node.shown);
            let help = format!("write {}", example(&bound, path));
            self.faults.note("pipeline::out_of_range", node.place, message, label, help);
            return false;
        }
        true
    }

    fn range(&mut self, schema: &Json, number: f64, node: &Node, path: &[&str]) -> bool {
        let bound = |name: &str| schema.get(name).and_then(Json::as_f64);
        let fits = number.is_finite()
            && bound("minimum").is_none_or(|least| number >= least)
            && bound("maximum").is_none_or(|most| number <= most)
            && bound("exclusiveMinimum").is_none_or(|least| number > least)
            && bound("exclusiveMaximum").is_none_or(|most| number < most)
            // TOML has no integers beyond 64 bits, but a number that is none of this width must not reach serde either.
            && (schema.get("format").is_none_or(|format| format != "uint32") || number <= f64::from(u32::MAX));
        if !fits {
            let label = format!("got {}, expected {}", node.shown, expected(schema));
            let nearby = [
                bound("minimum").filter(|least| number < *least).map(|_| "minimum"),
                bound("maximum").filter(|most| number > *most).map(|_| "maximum"),
            ];
            let limit = nearby.into_iter().flatten().next().and_then(|name| schema.get(name)).or_else(|| schema.get("default"));
            let help = match limit {
                Some(limit) => format!("write {} = {limit}", last(path)),
                None => format!("write {}", expected(schema)),
            };
            self.faults.note("pipeline::out_of_range", node.place, format!("`{}` is out of range", path.join(".")), label, help);
        }
        fits
    }

    fn wrong_type(&mut self, wanted: &str, node: &Node, path: &[&str], help: &str) -> bool {
        // What is the user's own text is shown; a table's would be the whole table.
        let got = match node.value {
            Value::Table(_) => "a table".to_owned(),
            _ if node.shown.contains('\n') => node.value.kind().to_owned(),
            _ => format!("{} ({})", node.shown, node.value.kind()),
        };
        let message = format!("`{}` has the wrong type", path.join("."));
        self.faults.note("pipeline::wrong_type", node.place, message, format!("got {got}, expected {wanted}"), help);
        false
    }

    fn missing(&mut self, key: &str, line: &str, wanted: &str, place: Place, path: &[&str]) {
        if !self.whole {
            return;
        }
        let (message, help) = match path {
            [] if line.starts_with('[') => (format!("the table [{key}] is missing"), format!("add {line} and its keys")),
            [] => (format!("`{key}` is missing"), format!("add {line} at the top of the file")),
            _ => (format!("`{key}` is missing in [{}]", path.join(".")), format!("add {line}")),
        };
        self.faults.note("pipeline::missing_key", place, message, format!("expected {wanted}"), help);
    }
}

/// What a schema describes.
fn kind_of(schema: &Json) -> Kind<'_> {
    if let Some(choices) = choices(schema) {
        return Kind::Choice(choices);
    }
    if let Some(Json::Array(options)) = schema.get("oneOf").or_else(|| schema.get("anyOf")) {
        return Kind::Union(options.iter().collect());
    }
    let types: Vec<&str> = match schema.get("type") {
        Some(Json::String(one)) => vec![one.as_str()],
        Some(Json::Array(many)) => many.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    };
    match (types.as_slice(), schema.get("additionalProperties")) {
        (["object"], Some(values @ Json::Object(_))) => Kind::Map(values),
        (["object"], _) => Kind::Table,
        (["array"], _) => Kind::List,
        _ => Kind::Scalar(types),
    }
}

/// The texts a schema allows, if it allows nothing else.
fn choices(schema: &Json) -> Option<Vec<&str>> {
    if let Some(only) = schema.get("const") {
        return Some(vec![only.as_str()?]);
    }
    if let Some(Json::Array(values)) = schema.get("enum") {
        return values.iter().map(Json::as_str).collect();
    }
    let Some(Json::Array(options)) = schema.get("oneOf") else { return None };
    options.iter().map(choices).collect::<Option<Vec<_>>>().map(|all| all.concat())
}

fn kind_name(option: &Json) -> Option<&str> {
    option.pointer("/properties/kind/const").and_then(Json::as_str)
}

fn has_property(option: &Json, key: &str) -> bool {
    option.get("properties").and_then(|properties| properties.get(key)).is_some()
}

fn required(schema: &Json) -> Vec<&str> {
    schema.get("required").and_then(Json::as_array).map(|keys| keys.iter().filter_map(Json::as_str).collect()).unwrap_or_default()
}

/// A key as part of a JSON pointer.
fn pointer_part(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Reads a text that came from the environment, or a value of a `--set`, as what is needed.
fn reread(node: &mut Node, types: &[&str]) {
    let Some(loose) = &node.loose else { return };
    node.value = match (&node.value, types) {
        (Value::Text(text), types) if !types.contains(&"string") => {
            let text = text.trim();
            match (text.parse::<i64>(), text.parse::<f64>(), text.parse::<bool>()) {
                (Ok(number), _, _) if types.contains(&"integer") || types.contains(&"number") => Value::Integer(number),
                (_, Ok(number), _) if types.contains(&"number") => Value::Float(number),
                (_, _, Ok(yes)) if types.contains(&"boolean") => Value::Boolean(yes),
                _ => return,
            }
        }
        (Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_), ["string"]) => Value::Text(loose.clone()),
        _ => return,
    };
}

/// `a = { b = 1 }` to `a.b = 1`.
fn flatten(entries: Vec<Entry>, prefix: Option<&str>, flat: &mut Vec<Entry>) {
    for mut entry in entries {
        if let Some(prefix) = prefix {
            entry.key = format!("{prefix}.{}", entry.key);
        }
        match entry.node.value {
            Value::Table(inner) => flatten(inner, Some(&entry.key), flat),
            _ => flat.push(entry),
        }
    }
}

/// A text with a unit as a number that can be compared.
fn measure(unit: &str, text: &str) -> Result<u128, String> {
    match unit {
        "duration" => Length::try_from(text.to_owned()).map(|length| length.value.as_nanos()),
        "size" => Size::try_from(text.to_owned()).map(|size| u128::from(size.bytes)),
        _ => Moment::try_from(text.to_owned()).map(|_| 0),
    }
}
