//! Two sets of forecasts of the same events, compared bit for bit: what was sent, and what comes out when the events are taken again.
//!
//! Rows are compared field by field as texts that differ if and only if the bits differ. Where a row stands (partition, offset) is left out: it is not
//! part of what was said. An event is known by its key and id, one without an id by its key and time, and where several share these, by their order.
//! An id goes without the time because a late event that is clamped has another time live than in the files.

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use foldhash::quality::FixedState;
use hashbrown::{HashMap, HashSet};
use serde::Serialize;
use serde_json::Value;

use crate::base::time::EventTime;
use crate::data::layout::{FieldId, Layout};

/// The text of a value that is not there.
const NULL: &str = "null";

/// Differences that are shown.
const SHOWN: usize = 5;

/// A row: field names with their values as texts.
pub type Row = BTreeMap<String, String>;

/// Names that the fields which matter here have in the output.
#[derive(Clone, Debug)]
pub struct Names {
    key: Option<String>,
    event: Option<String>,
    time: Option<String>,
    ignored: Vec<String>,
    kind: Option<String>,
    of: BTreeMap<&'static str, String>,
}

impl Names {
    /// The names of a layout; `None` if rows of it cannot be told apart: it has neither an id nor key and time.
    #[must_use]
    pub fn new(layout: &Layout) -> Option<Self> {
        let name = |id: FieldId| layout.fields.iter().find(|(_, field)| *field == id).map(|(name, _)| name.clone());
        let (key, event, time) = (name(FieldId::Key), name(FieldId::EventId), name(FieldId::EventTime));
        if event.is_none() && (key.is_none() || time.is_none()) {
            return None;
        }
        let causes = [
            ("fingerprint", FieldId::Fingerprint),
            ("model", FieldId::Model),
            ("model_version", FieldId::ModelVersion),
            ("n_events", FieldId::NEvents),
            ("gap_s", FieldId::GapS),
            ("flags", FieldId::Flags),
        ];
        Some(Names {
            key,
            event,
            time,
            ignored: [FieldId::Partition, FieldId::Offset].into_iter().filter_map(name).collect(),
            kind: name(FieldId::Kind),
            of: causes.into_iter().filter_map(|(what, id)| Some((what, name(id)?))).collect(),
        })
    }

    /// What an event is known by.
    fn identity<'a>(&self, row: &'a Row) -> Vec<&'a str> {
        let value = |name: &Option<String>| name.as_ref().and_then(|name| row.get(name)).map(String::as_str);
        let event = value(&self.event).filter(|id| *id != NULL);
        let time = if event.is_none() { value(&self.time) } else { None };
        [value(&self.key), event, time].into_iter().flatten().collect()
    }
}

/// A row of a JSON object.
#[must_use]
pub fn of_json(object: &serde_json::Map<String, Value>) -> Row {
    object.iter().map(|(name, value)| (name.clone(), shown(value))).collect()
}

/// A value as a text that says its bits: numbers as the shortest text that gives the same number again.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => NULL.to_owned(),
        Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), |number| format!("{number:?}")),
        Value::String(text) => text.clone(),
        Value::Array(values) => format!("[{}]", values.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            format!("{{{}}}", fields.iter().map(|(name, value)| format!("{name}: {}", shown(value))).collect::<Vec<_>>().join(", "))
        }
        Value::Bool(value) => value.to_string(),
    }
}

/// Rows of a Parquet file.
#[must_use]
pub fn of_table(rows: &RecordBatch) -> Vec<Row> {
    let schema = rows.schema();
    (0..rows.num_rows())
        .map(|row| {
            schema.fields().iter().zip(rows.columns()).map(|(field, column)| (field.name().clone(), cell(column.as_ref(), row))).collect()
        })
        .collect()
}

fn cell(column: &dyn Array, row: usize) -> String {
    if column.is_null(row) {
        return NULL.to_owned();
    }
    match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        DataType::Int32 => format!("{:?}", f64::from(column.as_primitive::<Int32Type>().value(row))),
        DataType::Int64 => format!("{:?}", crate::base::number::f64_of(column.as_primitive::<Int64Type>().value(row))),
        DataType::Float64 => format!("{:?}", column.as_primitive::<Float64Type>().value(row)),
        // As JSON has it: the text that its writer gives the single number, read as a double one. A number may have two shortest texts, and `Display`
        // then takes the other one.
        DataType::Float32 => {
            let mut text = ryu::Buffer::new();
            let text = text.format(column.as_primitive::<Float32Type>().value(row));
            text.parse::<f64>().map_or_else(|_| text.to_owned(), |number| format!("{number:?}"))
        }
        DataType::Timestamp(..) => EventTime(column.as_primitive::<TimestampMicrosecondType>().value(row)).to_string(),
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            format!("[{}]", (0..items.len()).map(|item| cell(items.as_ref(), item)).collect::<Vec<_>>().join(", "))
        }
        DataType::Struct(_) => {
            let parts = column.as_struct();
            let mut fields: Vec<String> = parts
                .fields()
                .iter()
                .zip(parts.columns())
                .map(|(field, column)| format!("{}: {}", field.name(), cell(column.as_ref(), row)))
                .collect();
            fields.sort();
            format!("{{{}}}", fields.join(", "))
        }
        other => format!("a value of the type {other}"),
    }
}

/// One field of one event that is not the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The event.
    pub event: String,
    /// The field.
    pub field: String,
    /// What was sent.
    pub live: String,
    /// What comes out.
    pub recomputed: String,
    /// Why that probably is.
    pub cause: String,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// Rows that are equal, bit for bit.
    pub equal: usize,
    /// Rows that are not.
    pub different: usize,
    /// Events of which only the live side has a row.
    pub only_live: usize,
    /// Events of which only the files' side has one.
    pub only_files: usize,
    /// Rows of the kind `overdue`, which are not compared: they say when, not what.
    pub overdue: usize,
    /// The first differences, in the order in which the events are taken.
    pub first: Vec<Difference>,
    /// The first events that one side lacks.
    pub missing: Vec<String>,
}

impl Findings {
    /// Whether both sides say the same of the same events.
    #[must_use]
    pub fn equal_in_all(&self) -> bool {
        self.different + self.only_live + self.only_files == 0
    }
}

/// The comparison: first all live rows, then all recomputed ones; then, if any differ, both once more, for their values. 16 bytes and more a row.
pub struct Parity {
    names: Names,
    hasher: FixedState,
    /// Hash of each live event to that of its row; a recomputed row takes it out.
    live: HashMap<u64, u64>,
    /// How often an identity was seen on either side.
    seen: [HashMap<u64, u32>; 2],
    /// Live rows that will be shown.
    wanted: HashSet<u64>,
    kept: HashMap<u64, Row>,
    findings: Findings,
    second: bool,
    /// Rows of events from the first time on and before the second are compared, in the words of the rows.
    span: (Option<String>, Option<String>),
}

/// Which side a row is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What was sent.
    Live,
    /// What comes out.
    Recomputed,
}

impl Parity {
    /// Nothing compared yet.
    #[must_use]
    pub fn new(names: Names) -> Self {
        Parity {
            names,
            hasher: FixedState::default(),
            live: HashMap::new(),
            seen: [HashMap::new(), HashMap::new()],
            wanted: HashSet::new(),
            kept: HashMap::new(),
            findings: Findings::default(),
            second: false,
            span: (None, None),
        }
    }

    /// Compares only rows of events from `since` on and before `until`; `None` if rows do not say when their events were.
    #[must_use]
    pub fn within(self, since: Option<EventTime>, until: Option<EventTime>) -> Option<Self> {
        let asked = since.is_some() || until.is_some();
        let span = (since.map(|time| time.to_string()), until.map(|time| time.to_string()));
        (!asked || self.names.time.is_some()).then_some(Parity { span, ..self })
    }

    /// Times are written so that the order of the texts is theirs.
    fn is_within(&self, row: &Row) -> bool {
        let Some(time) = self.names.time.as_ref().and_then(|name| row.get(name)) else { return true };
        self.span.0.as_ref().is_none_or(|since| time >= since) && self.span.1.as_ref().is_none_or(|until| time < until)
    }

    fn identity(&mut self, side: Side, row: &Row) -> (u64, String) {
        let name = self.names.identity(row);
        let base = self.hasher.hash_one(&name);
        let [live, recomputed] = &mut self.seen;
        let count = if side == Side::Live { live } else { recomputed }.entry(base).or_insert(0);
        *count += 1;
        (self.hasher.hash_one((base, *count)), name.join(" "))
    }

    fn content(&self, row: &Row) -> u64 {
        let fields: Vec<(&String, &String)> = row.iter().filter(|(name, _)| !self.names.ignored.contains(name)).collect();
        self.hasher.hash_one(fields)
    }

    /// Takes a row. All live rows come before the first recomputed one.
    pub fn take(&mut self, side: Side, row: &Row) {
        if self.names.kind.as_ref().and_then(|kind| row.get(kind)).is_some_and(|kind| kind == "overdue") {
            self.findings.overdue += usize::from(!self.second);
            return;
        }
        if !self.is_within(row) {
            return;
        }
        let (id, name) = self.identity(side, row);
        match (self.second, side) {
            (false, Side::Live) => {
                let content = self.content(row);
                self.live.insert(id, content);
            }
            (false, Side::Recomputed) => match self.live.remove(&id) {
                None => {
                    self.findings.only_files += 1;
                    self.note_missing(|| format!("{name}: not on the live side"));
                }
                Some(content) if content == self.content(row) => self.findings.equal += 1,
                Some(_) => {
                    self.findings.different += 1;
                    if self.wanted.len() < SHOWN {
                        self.wanted.insert(id);
                    }
                }
            },
            (true, Side::Live) => {
                if self.live.contains_key(&id) {
                    self.note_missing(|| format!("{name}: not in the files"));
                }
                if self.wanted.contains(&id) {
                    self.kept.insert(id, row.clone());
                }
            }
            (true, Side::Recomputed) => {
                if let Some(live) = self.kept.get(&id) {
                    let difference = self.difference(name, live, row);
                    self.findings.first.push(difference);
                }
            }
        }
    }

    fn note_missing(&mut self, text: impl FnOnce() -> String) {
        if self.findings.missing.len() < SHOWN {
            self.findings.missing.push(text());
        }
    }

    /// Both sides have come to their end. Returns whether they are wanted once more.
    pub fn end(&mut self) -> bool {
        if self.second {
            return false;
        }
        self.second = true;
        self.findings.only_live = self.live.len();
        self.seen = [HashMap::new(), HashMap::new()];
        !self.wanted.is_empty() || !self.live.is_empty()
    }

    /// What was found.
    #[must_use]
    pub fn findings(self) -> Findings {
        self.findings
    }

    fn difference(&self, event: String, live: &Row, recomputed: &Row) -> Difference {
        let none = "no such field".to_owned();
        let value = |row: &Row, name: &str| row.get(name).unwrap_or(&none).clone();
        let names: std::collections::BTreeSet<&String> =
            live.keys().chain(recomputed.keys()).filter(|name| !self.names.ignored.contains(name)).collect();
        let differ = |name: &str| value(live, name) != value(recomputed, name);
        let own = |what: &str| self.names.of.get(what).filter(|name| differ(name));
        let (field, cause) = if let Some(name) = own("model").or_else(|| own("model_version")) {
            (name.clone(), "another model")
        } else if let Some(name) = own("fingerprint") {
            (name.clone(), "another model package, recipe, order or expiry: what the states depend on has changed")
        } else if let Some(name) = own("n_events") {
            (name.clone(), "an earlier event of the key is missing on one side or came in another order, or its state began anew there")
        } else if let Some(name) = own("gap_s").or_else(|| own("flags")) {
            (name.clone(), "the key's events came in another order: a late one was clamped live, files are taken in order")
        } else {
            let first = names.iter().find(|name| differ(name)).map_or_else(String::new, |name| (*name).clone());
            let is_first =
                self.names.of.get("n_events").and_then(|name| live.get(name)).is_some_and(|count| count.parse::<f64>() == Ok(1.0));
            let cause = if is_first {
                "this event, the first of its key, differs in a field that the recipe reads, or the model or the processor does: nothing came before it"
            } else {
                "this event or an earlier one of the key differs in a field that the recipe reads, or came in another order"
            };
            (first, cause)
        };
        Difference { event, live: value(live, &field), recomputed: value(recomputed, &field), field, cause: cause.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::forecasts::Identity;
    use serde_json::json;

    fn parity() -> Parity {
        let identity = Identity { quantiles: vec![0.5], ..Identity::default() };
        Parity::new(Names::new(&Layout::full(&identity, true, false, false)).unwrap())
    }

    fn row(id: &str, more: &Value) -> Row {
        let mut object = json!({"kind": "forecast", "key": "k", "event_id": id, "event_time": "2026-01-01T00:00:00.000000Z", "partition": 1, "offset": 7,
            "n_events": 3, "gap_s": 1.5, "flags": [], "residual": 0.1, "fingerprint": "f", "model": "m", "model_version": "1"});
        if let (Some(object), Some(more)) = (object.as_object_mut(), more.as_object()) {
            object.extend(more.clone());
        }
        of_json(object.as_object().unwrap())
    }

    fn compare(live: &[Row], recomputed: &[Row]) -> Findings {
        let mut parity = parity();
        loop {
            live.iter().for_each(|row| parity.take(Side::Live, row));
            recomputed.iter().for_each(|row| parity.take(Side::Recomputed, row));
            if !parity.end() {
                return parity.findings();
            }
        }
    }

    #[test]
    fn rows_that_stand_elsewhere_are_equal_and_one_bit_makes_a_difference() {
        let same = compare(&[row("a", &json!({}))], &[row("a", &json!({"partition": 0, "offset": 99}))]);
        assert!(same.equal_in_all() && same.equal == 1);
        let residual = f64::from_bits(0.1_f64.to_bits() + 1);
        let other =
            compare(&[row("a", &json!({})), row("b", &json!({}))], &[row("a", &json!({"residual": residual})), row("b", &json!({}))]);
        assert_eq!((other.equal, other.different, other.first.len()), (1, 1, 1));
        assert_eq!((other.first[0].field.as_str(), other.first[0].live.as_str()), ("residual", "0.1"));
        assert!(other.first[0].event.contains('a'));
    }

    #[test]
    fn a_single_number_is_the_same_in_json_and_in_a_table() {
        use crate::data::forecasts::{Forecasts, MarkChance};
        use std::sync::Arc;
        let mut random = 1_u64;
        // The first lies in the middle between two texts of eight digits.
        let numbers = [185.0_f32 / 512.0, 0.0, 1.0, 1e-9, f32::MIN_POSITIVE].into_iter().chain((0..10_000).map(|_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f32::from_bits((random >> 34) as u32 % 1.0_f32.to_bits())
        }));
        let chances: Vec<MarkChance> = numbers.map(|p| MarkChance { mark: 0, p }).collect();
        let identity = Arc::new(Identity { marks: vec!["a".to_owned()], ..Identity::default() });
        let of_one = |chance: MarkChance| Forecasts { marks_per_row: 1, next_marks: vec![chance], ..Forecasts::new(Arc::clone(&identity)) };
        let layout = Layout { fields: vec![("marks".to_owned(), FieldId::NextMarks)] };
        for chance in chances {
            let forecasts = of_one(chance);
            let mut json = Vec::new();
            crate::sink::json::RowEncoder::new(&layout, &identity).row(&forecasts, 0, &mut json);
            let live: Value = serde_json::from_slice(&json).unwrap();
            let column = arrow::array::Float32Array::from(vec![chance.p]);
            assert_eq!(shown(&live["marks"][0]["p"]), cell(&column, 0), "{}", String::from_utf8_lossy(&json));
        }
    }

    #[test]
    fn only_events_of_a_span_are_compared() {
        let at = |second: u32, n: u32| {
            row(&format!("e{second}"), &json!({"event_time": format!("2026-01-01T00:00:0{second}.000000Z"), "n_events": n}))
        };
        let time = |second: i64| Some(EventTime((1_767_225_600 + second) * 1_000_000));
        let (live, again): (Vec<Row>, Vec<Row>) =
            ((1..6).map(|s| at(s, s)).collect(), (1..6).map(|s| at(s, s + u32::from(s == 2 || s == 5))).collect());
        for (since, until, expected) in [(None, None, (3, 2)), (time(3), None, (2, 1)), (None, time(5), (3, 1)), (time(3), time(5), (2, 0))]
        {
            let mut parity = parity().within(since, until).unwrap();
            live.iter().for_each(|row| parity.take(Side::Live, row));
            again.iter().for_each(|row| parity.take(Side::Recomputed, row));
            let found = parity.findings();
            assert_eq!((found.equal, found.different), expected);
        }
        let names = Names { time: None, ..parity().names };
        assert!(Parity::new(names.clone()).within(time(1), None).is_none() && Parity::new(names).within(None, None).is_some());
    }

    #[test]
    fn causes_are_told_apart() {
        for (change, field, says) in [
            (json!({"fingerprint": "g", "residual": 9}), "fingerprint", "package"),
            (json!({"model": "n", "fingerprint": "g"}), "model", "another model"),
            (json!({"n_events": 4, "residual": 9}), "n_events", "missing"),
            (json!({"gap_s": 9, "residual": 9}), "gap_s", "order"),
            // It came late and was clamped.
            (json!({"event_time": "2026-01-01T00:00:05.000000Z", "gap_s": 0, "flags": ["late_clamped"]}), "gap_s", "clamped live"),
            (json!({"residual": 9}), "residual", "or an earlier one"),
        ] {
            let found = compare(&[row("a", &json!({}))], &[row("a", &change)]);
            assert_eq!(found.first[0].field, field);
            assert!(found.first[0].cause.contains(says), "{found:?}");
        }
        let first = |residual: f64| row("a", &json!({"n_events": 1, "residual": residual}));
        let found = compare(&[first(0.1)], &[first(0.2)]);
        assert!(found.first[0].cause.contains("nothing came before it"), "{found:?}");
    }

    #[test]
    fn events_of_one_side_are_counted_and_named_and_repeats_have_their_own_place() {
        let (a, b) = (row("a", &json!({})), row("b", &json!({})));
        let found = compare(&[a.clone(), a.clone(), b.clone()], &[a.clone(), a.clone(), a]);
        assert_eq!((found.equal, found.only_live, found.only_files, found.different), (2, 1, 1, 0));
        assert!(
            found.missing.iter().any(|text| text.contains("not in the files"))
                && found.missing.iter().any(|text| text.contains("not on the live"))
        );
        // Without an id the time tells events apart.
        let [early, late] = ["2026-01-01T00:00:01.000000Z", "2026-01-01T00:00:02.000000Z"]
            .map(|time| row("a", &json!({"event_id": null, "event_time": time})));
        let found = compare(&[early.clone(), late.clone()], &[late, early.clone(), early]);
        assert_eq!((found.equal, found.only_files), (2, 1), "{found:?}");
        let overdue = row("c", &json!({"kind": "overdue"}));
        assert!(compare(&[overdue], &[]).equal_in_all());
    }
}
