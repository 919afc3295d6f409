//! The pipeline file as a tree that knows where each value stands: TOML, `--set` overrides and `${NAME}` put together.
//!
//! serde stops at the first fault and knows no place after it, so the file is first read into this tree, which keeps on
//! after a fault; what is left of it once `shape` has taken out the faulty values is then read by serde into `Written`.

use serde_json::{Value as Json, json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Faults, Place};
use super::secret;

/// Looks up an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A value and where it stands.
#[derive(Clone, PartialEq)]
pub(super) struct Node {
    /// The value itself; of a table its header.
    pub place: Place,
    /// What it is.
    pub value: Value,
    /// How it may be shown: as the user wrote it, or stars. Never what came from the environment.
    pub shown: String,
    /// Set where the type was not the user's choice (an environment variable, a `--set`): the text, to be read as what is needed.
    pub loose: Option<String>,
}

/// A value.
#[derive(Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Datetime(String),
    List(Vec<Node>),
    Table(Vec<Entry>),
    /// Something that has been reported already.
    Faulty,
}

/// A key with its value; entries keep the order in which they are written.
#[derive(Clone, PartialEq)]
pub(super) struct Entry {
    pub key: String,
    pub key_place: Place,
    pub node: Node,
}

/// The file as a tree.
pub(super) struct Document {
    /// The top-level table.
    pub root: Node,
    /// Places of syntax errors: what is missing may then be missing because of them.
    pub broken: Vec<Place>,
}

impl Value {
    /// The type as the reports call it.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "text",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a number",
            Value::Boolean(_) => "a boolean",
            Value::Datetime(_) => "a time",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Faulty => "a faulty value",
        }
    }
}

impl Node {
    /// The entry of a table.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Table(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node),
            Value::List(items) => items.get(key.parse::<usize>().ok()?),
            _ => None,
        }
    }

    /// The tree without its faulty parts, for serde.
    pub fn to_json(&self) -> Option<Json> {
        Some(match &self.value {
            Value::Text(text) | Value::Datetime(text) => json!(text),
            Value::Integer(number) => json!(number),
            Value::Float(number) => json!(number),
            Value::Boolean(yes) => json!(yes),
            Value::List(items) => items.iter().filter_map(Node::to_json).collect(),
            Value::Table(entries) => entries
                .iter()
                .filter_map(|entry| Some((entry.key.clone(), entry.node.to_json()?)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            Value::Faulty => return None,
        })
    }

    fn merge(&mut self, over: Node) {
        match (&mut self.value, over.value) {
            (Value::Table(entries), Value::Table(others)) => {
                for other in others {
                    match entries.iter_mut().find(|entry| entry.key == other.key) {
                        Some(entry) => entry.node.merge(other.node),
                        None => entries.push(other),
                    }
                }
            }
            (value, other) => {
                *value = other;
                (self.place, self.shown, self.loose) = (over.place, over.shown, over.loose);
            }
        }
    }
}

impl Document {
    /// Reads a file's content and the overrides; syntax faults and missing variables are noted, the rest goes on.
    pub fn read(content: &str, sets: &[String], environment: Environment<'_>, faults: &mut Faults) -> Document {
        let (table, errors) = DeTable::parse_recoverable(content);
        let reader = Reader { text: 0, content, environment };
        let broken: Vec<Place> = errors
            .iter()
            .map(|error| {
                error.span().map_or_else(Place::default, |span| Place { text: 0, start: span.start, end: span.end.max(span.start) })
            })
            .collect();
        if !broken.is_empty() {
            secret::star_lines(content, 0, faults);
        }
        for (error, place) in errors.iter().zip(&broken) {
            faults.note(
                "pipeline::syntax",
                *place,
                format!("not TOML: {}", error.message().replace('\n', ", ")),
                "here",
                "see https://toml.io for the syntax: `name = \"text\"`, `[table]`, `list = [1, 2]`",
            );
        }
        let mut root = reader.table(table.get_ref(), Place { text: 0, start: 0, end: 0 }, faults);
        // Before the overrides as well: what they replace still stands in the file.
        secret::star_values(&mut root, faults);
        for set in sets {
            let text = faults.add_text("--set".to_owned(), set.clone());
            if let Some(node) = read_set(set, text, environment, faults) {
                root.merge(node);
            }
        }
        secret::star_values(&mut root, faults);
        Document { root, broken }
    }

    /// The node at a path such as `sink.topic`.
    pub fn find(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(&self.root, |node, key| node.get(key))
    }

    /// Where the node at a path stands; if it is not there, the nearest table around it.
    pub fn place(&self, path: &[&str]) -> Place {
        let mut node = &self.root;
        for key in path {
            match node.get(key) {
                Some(next) => node = next,
                None => break,
            }
        }
        node.place
    }

    /// How the value at a path may be shown.
    pub fn shown(&self, path: &[&str]) -> String {
        self.find(path).map(|node| node.shown.clone()).unwrap_or_default()
    }

    /// Whether a fault at a place may be an echo of a syntax error: on its line, or in a table whose header is broken.
    pub fn is_echo(&self, content: &str, place: Place) -> bool {
        place.text == 0
            && self.broken.iter().any(|error| {
                let start = content.get(..error.start).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
                let rest = content.get(start..).unwrap_or_default();
                let header = rest.trim_start().starts_with('[');
                let end = if header { rest.find("\n[") } else { rest.find('\n') }.map_or(content.len(), |length| start + length);
                (start..=end.max(error.end)).contains(&place.start)
            })
    }
}

/// Reads `a.b=v`: as TOML if it is, otherwise `v` is text.
fn read_set(set: &str, text: usize, environment: Environment<'_>, faults: &mut Faults) -> Option<Node> {
    let reader = Reader { text, content: set, environment };
    let whole = Place { text, start: 0, end: set.len() };
    if let Ok(table) = DeTable::parse(set)
        && !table.get_ref().is_empty()
    {
        let mut node = reader.table(table.get_ref(), whole, faults);
        loosen(&mut node, set);
        return Some(node);
    }
    let (key, value) = set.split_once('=').unwrap_or((set, ""));
    // The key alone is parsed with a stand-in value; both texts begin alike, so the places of the key parts hold.
    let stand_in = format!("{key}=0");
    let Ok(table) = DeTable::parse(&stand_in) else {
        if secret::is_secret(key) {
            faults.star(Place { text, start: key.len() + 1, end: set.len() });
        }
        faults.note(
            "pipeline::bad_set",
            whole,
            "`--set` takes a path and a value",
            "this is neither",
            "write --set table.key=value, for example --set source.topic=cards",
        );
        return None;
    };
    let mut node = Reader { text, content: &stand_in, environment }.table(table.get_ref(), whole, faults);
    if !set.contains('=') {
        faults.note("pipeline::bad_set", whole, "`--set` has no value", "expected `=` and a value", format!("write --set {set}=value"));
        return None;
    }
    let place = Place { text, start: key.len() + 1, end: set.len() };
    let leaf = leaf_of(&mut node)?;
    *leaf = reader.text(value, place, value.to_owned(), faults);
    leaf.loose.get_or_insert_with(|| value.to_owned());
    Some(node)
}

/// The value at the end of a dotted path.
fn leaf_of(node: &mut Node) -> Option<&mut Node> {
    if matches!(node.value, Value::Table(_)) {
        let Value::Table(entries) = &mut node.value else { return None };
        return entries.first_mut().and_then(|entry| leaf_of(&mut entry.node));
    }
    Some(node)
}

/// Notes of every scalar of a `--set` its text, so that `--set name=5` can be read as text.
fn loosen(node: &mut Node, set: &str) {
    match &mut node.value {
        Value::Table(entries) => entries.iter_mut().for_each(|entry| loosen(&mut entry.node, set)),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {
            node.loose = set.get(node.place.start..node.place.end).map(|text| text.trim().to_owned());
        }
        _ => {}
    }
}

/// Turns the parser's tree into ours.
struct Reader<'a> {
    text: usize,
    content: &'a str,
    environment: Environment<'a>,
}

impl Reader<'_> {
    fn place(&self, span: std::ops::Range<usize>) -> Place {
        Place { text: self.text, start: span.start, end: span.end }
    }

    fn table(&self, table: &DeTable<'_>, place: Place, faults: &mut Faults) -> Node {
        let mut entries: Vec<Entry> = table
            .iter()
            .map(|(key, value)| Entry {
                key: key.get_ref().to_string(),
                key_place: self.place(key.span()),
                node: self.value(value, faults),
            })
            .collect();
        entries.sort_by_key(|entry| entry.key_place);
        Node { place, value: Value::Table(entries), shown: "a table".to_owned(), loose: None }
    }

    fn value(&self, value: &Spanned<DeValue<'_>>, faults: &mut Faults) -> Node {
        let place = self.place(value.span());
        let shown = self.content.get(value.span()).unwrap_or_default().to_owned();
        let value = match value.get_ref() {
            DeValue::String(text) => return self.text(text, place, shown, faults),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Value::Integer(number),
                Err(_) => {
                    faults.note("pipeline::out_of_range", place, "the number is too large", "beyond 64 bits", "write a smaller number");
                    Value::Faulty
                }
            },
            DeValue::Float(number) => number.as_str().parse().map_or(Value::Faulty, Value::Float),
            DeValue::Boolean(yes) => Value::Boolean(*yes),
            DeValue::Datetime(time) => Value::Datetime(time.to_string()),
            DeValue::Array(items) => Value::List(items.iter().map(|item| self.value(item, faults)).collect()),
            DeValue::Table(table) => return self.table(table, place, faults),
        };
        Node { place, value, shown, loose: None }
    }

    /// A text with its `${NAME}` replaced.
    fn text(&self, text: &str, place: Place, shown: String, faults: &mut Faults) -> Node {
        match substitute(text, self.environment) {
            Ok((text, from_environment)) => {
                let loose = from_environment.then(|| text.clone());
                Node { place, value: Value::Text(text), shown, loose }
            }
            Err(Missing::Variable(name)) => {
                faults.note(
                    "pipeline::missing_variable",
                    place,
                    format!("the environment has no variable `{name}`"),
                    "needed here",
                    format!("set it (`export {name}=...`), or write `$${{` for a literal `${{`"),
                );
                Node { place, value: Value::Faulty, shown, loose: None }
            }
            Err(Missing::Name) => {
                faults.note(
                    "pipeline::bad_variable",
                    place,
                    "`${` is not followed by a name and `}`",
                    "a name has letters, digits and `_`",
                    "write `${NAME}`, or `$${` for a literal `${`",
                );
                Node { place, value: Value::Faulty, shown, loose: None }
            }
        }
    }
}

enum Missing {
    Variable(String),
    Name,
}

/// Replaces `${NAME}` by the variable and `$${` by `${`; says whether anything came from the environment.
fn substitute(text: &str, environment: Environment<'_>) -> Result<(String, bool), Missing> {
    let mut out = String::with_capacity(text.len());
    let mut from_environment = false;
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, after) = rest.split_at(at);
        let after = after.get(2..).unwrap_or_default();
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(before);
        let (name, after) = after.split_once('}').ok_or(Missing::Name)?;
        let starts_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        if !starts_well || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(Missing::Name);
        }
        out.push_str(&environment(name).ok_or_else(|| Missing::Variable(name.to_owned()))?);
        from_environment = true;
        rest = after;
    }
    out.push_str(rest);
    Ok((out, from_environment))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(name: &str) -> Option<String> {
        (name == "HOME_TOPIC").then(|| "cards".to_owned())
    }

    fn read(content: &str, sets: &[&str]) -> (Document, Faults) {
        let mut faults = Faults::new("p.toml".to_owned(), content.to_owned());
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        let document = Document::read(content, &sets, &home, &mut faults);
        (document, faults)
    }

    fn line(content: &str, place: Place) -> &str {
        &content[place.start..place.end]
    }

    #[test]
    fn every_value_and_table_knows_its_place() {
        let content = "name = \"x\"\n\n[source]\nkind = 'kafka'\nclient = { a.b = 1 }\n[order]\n";
        let (document, faults) = read(content, &[]);
        assert!(faults.is_empty());
        assert_eq!(line(content, document.place(&["name"])), "\"x\"");
        assert_eq!(line(content, document.place(&["source"])), "[source]");
        assert_eq!(line(content, document.place(&["source", "kind"])), "'kafka'");
        assert_eq!(line(content, document.place(&["source", "topic"])), "[source]", "a missing key is told at its table");
    }

    #[test]
    fn variables_are_replaced_and_their_values_not_shown() {
        let (document, faults) = read("a = \"x-${HOME_TOPIC}-y\"\nb = \"$${HOME_TOPIC}\"\nc = \"$5 {x}\"\n", &[]);
        assert!(faults.is_empty());
        assert!(document.find(&["a"]).unwrap().value == Value::Text("x-cards-y".to_owned()));
        assert_eq!(document.shown(&["a"]), "\"x-${HOME_TOPIC}-y\"");
        assert!(document.find(&["b"]).unwrap().value == Value::Text("${HOME_TOPIC}".to_owned()));
        assert!(document.find(&["c"]).unwrap().value == Value::Text("$5 {x}".to_owned()));
    }

    #[test]
    fn every_missing_variable_is_a_fault() {
        let (_, faults) = read("a = \"${NOPE}\"\nb = [\"${ALSO NOT}\"]\nc = \"${\"\n", &[]);
        let seen: Vec<_> = faults.list().iter().map(|f| (f.code, f.line)).collect();
        assert_eq!(seen, [("pipeline::missing_variable", 1), ("pipeline::bad_variable", 2), ("pipeline::bad_variable", 3)]);
    }

    #[test]
    fn overrides_are_toml_or_else_text_and_merge_into_tables() {
        let (document, faults) =
            read("[source]\nkind = \"kafka\"\n", &["source.topic=cards", "source.kind=\"file\"", "run.lanes=4", "a.b=x=y"]);
        assert!(faults.is_empty(), "{faults:?}");
        assert!(document.find(&["source", "topic"]).unwrap().value == Value::Text("cards".to_owned()));
        assert!(document.find(&["source", "kind"]).unwrap().value == Value::Text("file".to_owned()));
        assert!(document.find(&["run", "lanes"]).unwrap().value == Value::Integer(4));
        assert!(document.find(&["a", "b"]).unwrap().value == Value::Text("x=y".to_owned()));
    }

    #[test]
    fn an_override_without_path_or_value_is_a_fault() {
        let (_, faults) = read("", &["lanes", "=4", ""]);
        assert_eq!(faults.list().iter().filter(|f| f.code == "pipeline::bad_set").count(), 3, "{faults:?}");
        let (_, faults) = read("", &["source client.sasl.password=hidden"]);
        assert!(faults.len() == 1 && !faults.report(false).contains("hidden"), "{}", faults.report(false));
    }

    #[test]
    fn all_syntax_errors_are_told_and_the_rest_is_read() {
        let content = "name = \n[order]\nlateness = \"5s\nlate = \"clamp\"\n";
        let (document, faults) = read(content, &[]);
        let lines: Vec<_> = faults.list().iter().map(|f| (f.code, f.line)).collect();
        assert_eq!(lines, [("pipeline::syntax", 1), ("pipeline::syntax", 3)]);
        assert!(document.find(&["order", "late"]).unwrap().value == Value::Text("clamp".to_owned()));
        assert!(document.is_echo(content, document.place(&["order", "lateness"])));
        assert!(!document.is_echo(content, document.place(&["order", "late"])));
    }
}
