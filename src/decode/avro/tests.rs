use std::sync::Arc;

use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{Decimal, Schema};
use proptest::prelude::*;

use crate::base::offset::{Offset, Partition};
use crate::base::time::{EventTime, TimeUnit};
use crate::data::events::Events;
use crate::data::input::Input;
use crate::data::rejected::{Reason, Rejected};
use crate::data::schema::{EventSchema, Field, FieldKind, TimeFormat};
use crate::decode::Decoder;
use crate::link::registry::{Schemas, Written};

/// A payment with everything that Avro has: much of it is not wanted.
const PAYMENT: &str = r#"{"type": "record", "name": "Payment", "namespace": "shop", "fields": [
    {"name": "before", "type": {"type": "array", "items": {"type": "map", "values": ["null", "double", "bytes"]}}},
    {"name": "card", "type": {"type": "record", "name": "Card", "fields": [
        {"name": "pin", "type": {"type": "fixed", "name": "Pin", "size": 3}},
        {"name": "id", "type": ["null", "long", "string"]},
        {"name": "parent", "type": ["null", "Card"]}]}},
    {"name": "other", "type": ["null", "shop.Card"]},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "sum", "type": {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 2}},
    {"name": "channel", "type": {"type": "enum", "name": "Channel", "symbols": ["POS", "WEB"]}},
    {"name": "more", "type": {"type": "map", "values": "double"}},
    {"name": "last", "type": ["null", "boolean"]}]}"#;

fn schema() -> EventSchema {
    let field = |name: &str, kind| Field { name: name.into(), kind };
    EventSchema {
        key: "card.id".into(),
        time: "at".into(),
        time_format: TimeFormat::Unit(TimeUnit::Second),
        id: None,
        fields: vec![
            field("sum", FieldKind::Number),
            field("channel", FieldKind::Text),
            field("more.tip", FieldKind::Number),
            field("last", FieldKind::Number),
        ],
        mark: Some(1),
        label: None,
    }
}

fn decode_as(schema: &EventSchema, written: &str, payloads: &[Vec<u8>]) -> (Events, Rejected) {
    let schemas = Schemas::File(Arc::new(Written { text: written.to_owned(), references: Vec::new() }));
    let mut input = Input::default();
    for (i, payload) in payloads.iter().enumerate() {
        input.records.push(Partition(0), Offset(i as i64), None, None, Some(payload));
    }
    let (mut events, mut rejected) = (Events::new(schema), Rejected::default());
    Decoder::of(schema, Some(&schemas)).decode(&input, &mut events, &mut rejected).unwrap();
    (events, rejected)
}

fn record(fields: Vec<(&str, Value)>) -> Value {
    Value::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn union(at: u32, value: Value) -> Value {
    Value::Union(at, Box::new(value))
}

fn card(id: Value, parent: Value) -> Value {
    record(vec![("pin", Value::Fixed(3, vec![1, 2, 3])), ("id", id), ("parent", parent)])
}

fn payment(id: Value, millis: i64, cents: i64, tip: Option<f64>) -> Value {
    let map = |entries: Vec<(&str, Value)>| Value::Map(entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
    let inner = map(vec![("a", union(0, Value::Null)), ("b", union(2, Value::Bytes(vec![0; 9])))]);
    let tips = tip.map(|tip| ("tip", Value::Double(tip))).into_iter().chain([("other", Value::Double(9.0))]);
    record(vec![
        ("before", Value::Array(vec![inner.clone(), inner])),
        ("card", card(id, union(1, card(union(0, Value::Null), union(0, Value::Null))))),
        ("other", union(1, card(union(1, Value::Long(5)), union(0, Value::Null)))),
        ("at", Value::TimestampMillis(millis)),
        ("sum", Value::Decimal(Decimal::from(cents.to_be_bytes().to_vec()))),
        ("channel", Value::Enum(1, "WEB".to_owned())),
        ("more", map(tips.collect())),
        ("last", union(1, Value::Boolean(true))),
    ])
}

fn written(value: Value) -> Vec<u8> {
    let schema = Schema::parse_str(PAYMENT).unwrap();
    GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(value).unwrap()
}

#[test]
fn a_datum_becomes_a_row_whatever_lies_between_the_wanted_fields() {
    let payloads = [
        written(payment(union(1, Value::Long(42)), 1_700_000_000_123, -1_234_567, Some(1.5))),
        written(payment(union(2, Value::String("c7".to_owned())), -5, 99_999_999_999_999_999, None)),
    ];
    let (events, rejected) = decode_as(&schema(), PAYMENT, &payloads);
    assert!(rejected.is_empty(), "{:?}", rejected.details);
    assert_eq!(events.keys.iter().flatten().collect::<Vec<_>>(), [&b"42"[..], b"c7"]);
    // A typed time says itself what it is.
    assert_eq!(events.times, [EventTime(1_700_000_000_123_000), EventTime(-5000)]);
    assert_eq!(events.columns[0].numbers().unwrap(), [-12_345.67, 999_999_999_999_999.99]);
    assert_eq!(events.columns[1].texts().unwrap().iter().flatten().collect::<Vec<_>>(), [&b"WEB"[..], b"WEB"]);
    let tips = events.columns[2].numbers().unwrap();
    assert!(tips[0] == 1.5 && tips[1].is_nan(), "{tips:?}");
    assert_eq!(events.columns[3].numbers().unwrap(), [1.0, 1.0]);
}

#[test]
fn what_is_missing_or_of_another_type_is_said_as_of_json() {
    let good = payment(union(1, Value::Long(1)), 1, 1, None);
    let (_, rejected) = decode_as(&schema(), PAYMENT, &[written(payment(union(0, Value::Null), 1, 1, None))]);
    assert_eq!(rejected.reasons, [Reason::MissingKey]);
    let nested = EventSchema { key: "card".into(), ..schema() };
    let (_, rejected) = decode_as(&nested, PAYMENT, &[written(good.clone())]);
    assert_eq!(rejected.reasons, [Reason::WrongType]);
    let timed = EventSchema { fields: vec![Field { name: "at".into(), kind: FieldKind::Number }], mark: None, ..schema() };
    let (_, rejected) = decode_as(&timed, PAYMENT, &[written(good.clone())]);
    assert!(rejected.details[0].contains("expected a number, found a time"), "{:?}", rejected.details);
    let mut longer = written(good);
    longer.push(0);
    let (_, rejected) = decode_as(&schema(), PAYMENT, &[longer, Vec::new(), vec![0xff; 40]]);
    assert_eq!(rejected.reasons, [Reason::Malformed; 3]);
    assert!(rejected.details[0].contains("1 bytes follow it"), "{:?}", rejected.details);
    let (_, rejected) = decode_as(&schema(), "{\"type\": \"string\"}", &[vec![2, 65]]);
    assert!(rejected.details[0].contains("it is not one of records"), "{:?}", rejected.details);
}

#[test]
fn fields_that_a_schema_does_not_have_are_named() {
    let found = super::steps::missing(
        &Written { text: PAYMENT.to_owned(), references: Vec::new() },
        &["card.id", "card.parent.parent.id", "other.id", "more.anything", "card.name", "crad", "sum.x"],
    );
    assert_eq!(found.unwrap(), ["card.name", "crad", "sum.x"]);
}

#[test]
fn types_of_other_schemas_are_found_by_their_names() {
    let text =
        r#"{"type": "record", "name": "E", "namespace": "a", "fields": [{"name": "k", "type": "b.Key"}, {"name": "t", "type": "long"}]}"#;
    let key = r#"{"type": "record", "name": "Key", "namespace": "b", "fields": [{"name": "id", "type": "string"}]}"#;
    let schema = EventSchema { key: "k.id".into(), time: "t".into(), fields: Vec::new(), mark: None, ..schema() };
    let schemas = Schemas::File(Arc::new(Written { text: text.to_owned(), references: vec![key.to_owned()] }));
    let mut input = Input::default();
    input.records.push(Partition(0), Offset(0), None, None, Some(&[4, b'a', b'b', 14]));
    let (mut events, mut rejected) = (Events::new(&schema), Rejected::default());
    Decoder::of(&schema, Some(&schemas)).decode(&input, &mut events, &mut rejected).unwrap();
    assert_eq!((events.keys.bytes_at(0), events.times[0]), (&b"ab"[..], EventTime(7_000_000)), "{:?}", rejected.details);
}

#[test]
fn lines_of_a_file_are_json_whatever_the_records_of_the_topic_are() {
    let schemas = Schemas::File(Arc::new(Written { text: PAYMENT.to_owned(), references: Vec::new() }));
    let mut input = Input::default();
    input.records.lines = true;
    input.records.push(Partition(0), Offset(0), None, None, Some(br#"{"card":{"id":"a"},"at":7,"channel":"WEB"}"#));
    let (mut events, mut rejected) = (Events::new(&schema()), Rejected::default());
    Decoder::of(&schema(), Some(&schemas)).decode(&input, &mut events, &mut rejected).unwrap();
    assert_eq!((events.keys.bytes_at(0), events.times[0]), (&b"a"[..], EventTime(7_000_000)), "{:?}", rejected.details);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_make_it_panic_or_take_long(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (events, rejected) = decode_as(&schema(), PAYMENT, &[bytes]);
        prop_assert_eq!(events.len() + rejected.len(), 1);
    }

    #[test]
    fn a_datum_that_is_cut_off_is_malformed_and_one_with_a_changed_byte_is_one_row_or_one_fault(at in 0_usize..200, byte in any::<u8>()) {
        let whole = written(payment(union(2, Value::String("c7".to_owned())), 1_700_000_000_123, 5, Some(2.0)));
        let cut = whole[..at.min(whole.len() - 1)].to_vec();
        let mut changed = whole.clone();
        let at = at % changed.len();
        changed[at] = byte;
        let (events, rejected) = decode_as(&schema(), PAYMENT, &[cut, changed]);
        prop_assert_eq!(rejected.reasons[0], Reason::Malformed);
        prop_assert_eq!(events.len() + rejected.len(), 2);
    }
}
