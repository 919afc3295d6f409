//! JSON objects to cells without an allocation per event: one pass of the parser writes each wanted field to the
//! scratch row. The small functions are inlined by order: left to itself the compiler takes them out of the loop over the
//! fields or leaves them in as the rest of the crate happens to be cut up, which is a fifth of the time of a record.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Fault;
use super::cells::{Cell, Cells};
use super::wanted::Wanted;
use crate::data::rejected::Reason;

/// Reads the wanted fields of an object.
pub fn read(payload: &[u8], wanted: &[Wanted], cells: &mut Cells) -> Result<(), Fault> {
    // Objects within are read after their parents, in the order in which they came: a visitor that calls itself would not be
    // inlined, and records that have nothing within would pay for it with a quarter of their time.
    let mut objects = Vec::new();
    let (mut object, mut next) = (Some((payload, wanted)), 0);
    while let Some((text, wanted)) = object {
        let mut parser = serde_json::Deserializer::from_slice(text);
        let whole = Object { wanted, cells, objects: &mut objects }.deserialize(&mut parser).and_then(|()| parser.end());
        whole.map_err(|e| (Reason::Malformed, format!("not a JSON object: {e}")))?;
        object = objects.get(next).copied();
        next += 1;
    }
    Ok(())
}

/// Reads an object; a name that is given twice keeps its last value, as most JSON readers have it.
struct Object<'a, 'de, 'w> {
    wanted: &'w [Wanted],
    cells: &'a mut Cells,
    /// Takes the objects in which something is wanted.
    objects: &'a mut Vec<(&'de [u8], &'w [Wanted])>,
}

impl<'de> DeserializeSeed<'de> for Object<'_, 'de, '_> {
    type Value = ();

    #[inline(always)]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_, 'de, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    #[inline(always)]
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        // Producers write fields in the same order again and again: look first behind the last hit.
        let mut expected = 0;
        while let Some(found) = map.next_key_seed(Name { wanted: self.wanted, expected })? {
            let Some(field) = self.wanted.get(found) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let cell = if field.within.is_empty() {
                map.next_value_seed(Value { cells: self.cells })?
            } else {
                within(&mut map, &field.within, self.cells, self.objects)?
            };
            self.cells.set(&field.cells, cell);
            expected = found + 1;
        }
        Ok(())
    }
}

/// Integers that no float holds to the last digit, as they stand, for the cells that are wanted as text: serial numbers of twenty digits are keys. Called for
/// records that have such a number only.
#[cold]
pub fn exact(payload: &[u8], wanted: &[Wanted], cells: &mut Cells, is_text: &dyn Fn(usize) -> bool) {
    let Ok(object) = serde_json::from_slice::<BTreeMap<Cow<'_, str>, &RawValue>>(payload) else { return };
    for field in wanted {
        let Some(text) = object.get(field.name.as_str()).map(|raw| raw.get()) else { continue };
        if text.starts_with('{') {
            exact(text.as_bytes(), &field.within, cells, is_text);
        } else if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
            for at in field.cells.iter().filter(|at| is_text(**at)) {
                if cells.get(*at).is_large() {
                    let cell = cells.keep(text.as_bytes());
                    cells.set(&[*at], cell);
                }
            }
        }
    }
}

/// A value within which something is wanted. Not inlined: it would push the common case out of the loop over the fields.
#[inline(never)]
fn within<'de, 'w, A: MapAccess<'de>>(
    map: &mut A,
    wanted: &'w [Wanted],
    cells: &mut Cells,
    objects: &mut Vec<(&'de [u8], &'w [Wanted])>,
) -> Result<Cell, A::Error> {
    objects.retain(|(_, other)| !std::ptr::eq(*other, wanted));
    let text = map.next_value::<&'de RawValue>()?.get();
    if text.starts_with('{') {
        objects.push((text.as_bytes(), wanted));
        return Ok(Cell::Nested);
    }
    other(text, cells).map_err(Error::custom)
}

/// A value in which an object was expected.
fn other(text: &str, cells: &mut Cells) -> serde_json::Result<Cell> {
    Ok(match serde_json::from_str::<serde_json::Value>(text)? {
        serde_json::Value::Null => Cell::Missing,
        serde_json::Value::Bool(value) => Cell::Bool(value),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(value), _) => Cell::Int(value),
            (None, value) => value.map_or(Cell::Missing, Cell::Float),
        },
        serde_json::Value::String(text) => cells.keep(text.as_bytes()),
        serde_json::Value::Array(_) | serde_json::Value::Object(_) => Cell::Nested,
    })
}

/// Finds a field name: its index in `wanted`, or their number if it is not wanted.
struct Name<'a> {
    wanted: &'a [Wanted],
    expected: usize,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = usize;

    #[inline(always)]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    #[inline(always)]
    fn visit_str<E>(self, name: &str) -> Result<usize, E> {
        if self.wanted.get(self.expected).is_some_and(|field| field.name == name) {
            return Ok(self.expected);
        }
        Ok(self.wanted.iter().position(|field| field.name == name).unwrap_or(self.wanted.len()))
    }
}

/// Reads any value into a cell; text goes to the scratch.
struct Value<'a> {
    cells: &'a mut Cells,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = Cell;

    #[inline(always)]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cell, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = Cell;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Cell, E> {
        Ok(Cell::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Cell, E> {
        Ok(Cell::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Cell, E> {
        // Where it is wanted as a text `exact` reads it again.
        #[allow(clippy::cast_precision_loss)]
        Ok(i64::try_from(value).map_or_else(|_| Cell::Float(value as f64), Cell::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Cell, E> {
        Ok(Cell::Float(value))
    }

    #[inline(always)]
    fn visit_str<E>(self, value: &str) -> Result<Cell, E> {
        Ok(self.cells.keep(value.as_bytes()))
    }

    fn visit_unit<E>(self) -> Result<Cell, E> {
        Ok(Cell::Missing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Cell, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Cell::Nested)
    }

    #[inline(always)]
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cell, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Cell::Nested)
    }
}
