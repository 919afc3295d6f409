//! What is to be done to read a datum, made once of its schema and of what is wanted.

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, Name, UuidSchema};
use hashbrown::HashMap;

use crate::decode::wanted::Wanted;
use crate::link::registry::Written;

/// How deep types may lie within each other, not counting those that name themselves.
const DEPTH: usize = 64;

/// How one value is read.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing.
    Null,
    /// A byte.
    Boolean,
    /// A number of variable length.
    Long,
    /// The same, a time since 1970: microseconds are this much of it, times the first, over the second.
    Instant(i64, i64),
    /// Four bytes.
    Float,
    /// Eight bytes.
    Double,
    /// Length and text.
    Text,
    /// Length and bytes.
    Bytes,
    /// So many bytes.
    Fixed(usize),
    /// A number in two's complement, of the length that is given or written, divided by a power of ten.
    Decimal(Option<usize>, u32),
    /// One of these texts.
    Enum(Vec<String>),
    /// Blocks of values.
    Array(Box<Step>),
    /// Blocks of names and values; those that are wanted.
    Map(Box<Step>, Vec<Entry>),
    /// One of several.
    Union(Vec<Step>),
    /// One after the other.
    Record(Vec<Member>),
    /// A type by its name, of which nothing is wanted.
    Named(usize),
}

/// A field of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// How it is read.
    pub step: Step,
    /// Cells that take its value.
    pub cells: Vec<usize>,
    /// Whether its value, or something within it, is wanted.
    pub is_wanted: bool,
}

/// A value of a map by its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The name.
    pub name: String,
    /// How it is read.
    pub member: Member,
}

/// The steps of a schema.
#[derive(Clone, Debug, PartialEq)]
pub struct Steps {
    /// The whole datum.
    pub root: Step,
    /// Types by number.
    pub named: Vec<Step>,
}

impl Steps {
    /// Of a schema as it is written.
    ///
    /// # Errors
    /// It is no schema of records, or lies too deep.
    pub fn new(written: &Written, wanted: &[Wanted]) -> Result<Self, String> {
        let (root, others) = parse(written)?;
        let Schema::Record(_) = &root else { return Err("it is not one of records".to_owned()) };
        let mut types = Types { schemas: HashMap::new(), numbers: HashMap::new(), named: Vec::new() };
        others.iter().for_each(|schema| types.note(schema, None));
        types.note(&root, None);
        let root = types.step(&root, wanted, None, 0)?;
        Ok(Steps { root, named: types.named.into_iter().map(|step| step.unwrap_or(Step::Null)).collect() })
    }
}

fn parse(written: &Written) -> Result<(Schema, Vec<Schema>), String> {
    if written.references.is_empty() {
        return Schema::parse_str(&written.text).map(|schema| (schema, Vec::new())).map_err(|e| e.to_string());
    }
    Schema::parse_str_with_list(&written.text, &written.references).map_err(|e| e.to_string())
}

/// Fields, by their paths, that a schema does not have.
pub fn missing<'a>(written: &Written, fields: &[&'a str]) -> Result<Vec<&'a str>, String> {
    let (root, others) = parse(written)?;
    let mut types = Types { schemas: HashMap::new(), numbers: HashMap::new(), named: Vec::new() };
    others.iter().for_each(|schema| types.note(schema, None));
    types.note(&root, None);
    Ok(fields.iter().copied().filter(|field| !types.has(&root, field)).collect())
}

struct Types<'a> {
    schemas: HashMap<String, (&'a Schema, Option<&'a str>)>,
    numbers: HashMap<String, usize>,
    named: Vec<Option<Step>>,
}

impl<'a> Types<'a> {
    /// Notes all types that have a name.
    fn note(&mut self, schema: &'a Schema, space: Option<&'a str>) {
        match schema {
            Schema::Record(record) => {
                let own = record.name.namespace().or(space);
                if self.schemas.insert(record.name.fullname(space), (schema, own)).is_none() {
                    record.fields.iter().for_each(|field| self.note(&field.schema, own));
                }
            }
            Schema::Enum(own) => drop(self.schemas.insert(own.name.fullname(space), (schema, space))),
            Schema::Fixed(own) => drop(self.schemas.insert(own.name.fullname(space), (schema, space))),
            Schema::Array(array) => self.note(&array.items, space),
            Schema::Map(map) => self.note(&map.types, space),
            Schema::Union(union) => union.variants().iter().for_each(|schema| self.note(schema, space)),
            _ => {}
        }
    }

    fn find(&self, name: &Name, space: Option<&str>) -> Option<(&'a Schema, Option<&'a str>)> {
        self.schemas.get(&name.fullname(space)).copied()
    }

    fn step(&mut self, schema: &'a Schema, wanted: &[Wanted], space: Option<&'a str>, depth: usize) -> Result<Step, String> {
        if depth > DEPTH {
            return Err(format!("its types lie more than {DEPTH} deep within each other"));
        }
        Ok(match schema {
            Schema::Null => Step::Null,
            Schema::Boolean => Step::Boolean,
            Schema::Int | Schema::Long | Schema::TimeMillis | Schema::TimeMicros => Step::Long,
            Schema::Date => Step::Instant(86_400_000_000, 1),
            Schema::TimestampMillis | Schema::LocalTimestampMillis => Step::Instant(1000, 1),
            Schema::TimestampMicros | Schema::LocalTimestampMicros => Step::Instant(1, 1),
            Schema::TimestampNanos | Schema::LocalTimestampNanos => Step::Instant(1, 1000),
            Schema::Float => Step::Float,
            Schema::Double => Step::Double,
            Schema::String | Schema::Uuid(UuidSchema::String) => Step::Text,
            Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => Step::Bytes,
            Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => Step::Fixed(fixed.size),
            Schema::Decimal(decimal) => {
                let scale = u32::try_from(decimal.scale).map_err(|_| "a decimal's scale is too large".to_owned())?;
                match &decimal.inner {
                    InnerDecimalSchema::Bytes => Step::Decimal(None, scale),
                    InnerDecimalSchema::Fixed(fixed) => Step::Decimal(Some(fixed.size), scale),
                }
            }
            Schema::Enum(own) => Step::Enum(own.symbols.clone()),
            Schema::Array(array) => Step::Array(Box::new(self.step(&array.items, &[], space, depth + 1)?)),
            Schema::Map(map) => {
                let mut entries = Vec::new();
                for field in wanted {
                    let step = self.step(&map.types, &field.within, space, depth + 1)?;
                    entries.push(Entry { name: field.name.clone(), member: Member { step, cells: field.cells.clone(), is_wanted: true } });
                }
                Step::Map(Box::new(self.step(&map.types, &[], space, depth + 1)?), entries)
            }
            Schema::Union(union) => {
                Step::Union(union.variants().iter().map(|own| self.step(own, wanted, space, depth + 1)).collect::<Result<_, _>>()?)
            }
            Schema::Record(record) if wanted.is_empty() => self.numbered(&record.name, space, depth)?,
            Schema::Record(record) => {
                let own = record.name.namespace().or(space);
                let mut members = Vec::new();
                for field in &record.fields {
                    let asked: Vec<&Wanted> = wanted.iter().filter(|wanted| wanted.name == field.name).collect();
                    let cells = asked.iter().flat_map(|wanted| wanted.cells.iter().copied()).collect();
                    let within = asked.first().map(|wanted| wanted.within.as_slice()).unwrap_or_default();
                    let step = self.step(&field.schema, within, own, depth + 1)?;
                    members.push(Member { step, cells, is_wanted: !asked.is_empty() });
                }
                Step::Record(members)
            }
            Schema::Ref { name } if wanted.is_empty() => self.numbered(name, space, depth)?,
            Schema::Ref { name } => {
                let (schema, space) = self.find(name, space).ok_or_else(|| format!("there is no type `{}`", name.fullname(space)))?;
                self.step(schema, wanted, space, depth + 1)?
            }
        })
    }

    /// A type of which nothing is wanted, made once: it may lie within itself.
    fn numbered(&mut self, name: &Name, space: Option<&'a str>, depth: usize) -> Result<Step, String> {
        let full = name.fullname(space);
        if let Some(number) = self.numbers.get(&full) {
            return Ok(Step::Named(*number));
        }
        let (schema, space) = self.find(name, space).ok_or_else(|| format!("there is no type `{full}`"))?;
        let number = self.named.len();
        self.named.push(None);
        self.numbers.insert(full, number);
        let step = match schema {
            Schema::Record(record) => {
                let own = record.name.namespace().or(space);
                let mut members = Vec::new();
                for field in &record.fields {
                    members.push(Member { step: self.step(&field.schema, &[], own, depth + 1)?, cells: Vec::new(), is_wanted: false });
                }
                Step::Record(members)
            }
            other => self.step(other, &[], space, depth + 1)?,
        };
        if let Some(place) = self.named.get_mut(number) {
            *place = Some(step);
        }
        Ok(Step::Named(number))
    }

    /// Whether there is a field of this path, or one whose own name it is.
    fn has(&self, root: &'a Schema, path: &str) -> bool {
        let whole = self.within(root, path).is_some();
        let mut at = Some(root);
        for name in path.split('.') {
            at = at.and_then(|schema| self.within(schema, name));
        }
        whole || at.is_some()
    }

    fn within(&self, schema: &'a Schema, name: &str) -> Option<&'a Schema> {
        match schema {
            Schema::Record(record) => record.fields.iter().find(|field| field.name == name).map(|field| &field.schema),
            Schema::Map(map) => Some(&map.types),
            Schema::Union(union) => union.variants().iter().find_map(|schema| self.within(schema, name)),
            Schema::Ref { name: of } => {
                let of =
                    self.schemas.iter().find(|(full, _)| **full == of.fullname(None) || full.ends_with(&format!(".{}", of.fullname(None))));
                of.and_then(|(_, (schema, _))| self.within(schema, name))
            }
            _ => None,
        }
    }
}
