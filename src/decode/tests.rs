use std::sync::Arc;

use arrow::array::{Array, Float64Array, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::record_batch::RecordBatch;

use super::*;
use crate::base::offset::{Offset, Partition};
use crate::base::time::{EventTime, TimeUnit};
use crate::data::input::Table;
use crate::data::schema::{Field, FieldKind, TimeFormat};

fn schema() -> EventSchema {
    EventSchema {
        key: "card".into(),
        time: "ts".into(),
        time_format: TimeFormat::Unit(TimeUnit::Millisecond),
        id: Some("id".into()),
        fields: vec![Field { name: "amount".into(), kind: FieldKind::Number }, Field { name: "channel".into(), kind: FieldKind::Text }],
        mark: Some(1),
        label: None,
    }
}

fn decode(payloads: &[&[u8]]) -> (Events, Rejected) {
    let mut input = Input::default();
    for (i, payload) in payloads.iter().enumerate() {
        input.records.push(Partition(3), Offset(i as i64), None, Some(b"k"), Some(payload));
    }
    let (mut events, mut rejected) = (Events::new(&schema()), Rejected::default());
    Decoder::new(&schema()).decode(&input, &mut events, &mut rejected);
    (events, rejected)
}

#[test]
fn a_record_becomes_a_row_whatever_the_order_of_its_fields() {
    let (events, rejected) = decode(&[
        br#"{"id":"e1","card":"c1","ts":1500,"amount":12.5,"channel":"web"}"#,
        br#" {"x":{"y":[1,"]"]},"channel":7,"amount":null,"ts":1500.25,"card":42,"id":9} "#,
        br#"{"card":"a\"\u00e9","ts":0,"amount":true}"#,
    ]);
    assert!(rejected.is_empty(), "{:?}", rejected.details);
    assert_eq!(events.times, [EventTime(1_500_000), EventTime(1_500_250), EventTime(0)]);
    assert_eq!(events.keys.iter().flatten().collect::<Vec<_>>(), [&b"c1"[..], b"42", "a\"é".as_bytes()]);
    assert_eq!(events.ids.iter().collect::<Vec<_>>(), [Some(&b"e1"[..]), Some(b"9"), None]);
    let amounts = events.columns[0].numbers().unwrap();
    assert_eq!(amounts[0], 12.5);
    assert!(amounts[1].is_nan());
    assert_eq!(amounts[2], 1.0);
    assert_eq!(events.columns[1].texts().unwrap().iter().collect::<Vec<_>>(), [Some(&b"web"[..]), Some(b"7"), None]);
}

#[test]
fn every_broken_record_is_rejected_with_its_reason_position_and_bytes() {
    let huge = format!(r#"{{"card":"c","ts":1,"pad":"{}"}}"#, "x".repeat(MAX_RECORD_BYTES));
    let long = format!(r#"{{"card":"{}","ts":1}}"#, "k".repeat(MAX_KEY_BYTES + 1));
    let cases: Vec<(&[u8], Reason)> = vec![
        (b"not json", Reason::Malformed),
        (br#"{"card":"c","ts":1"#, Reason::Malformed),
        (br#"{"card":"c","ts":1} trailing"#, Reason::Malformed),
        (br#"[1,2]"#, Reason::Malformed),
        (b"{\"card\":\"\xff\xfe\",\"ts\":1}", Reason::Malformed),
        (b"", Reason::Malformed),
        (br#"{"ts":1}"#, Reason::MissingKey),
        (br#"{"card":null,"ts":1}"#, Reason::MissingKey),
        (br#"{"card":"","ts":1}"#, Reason::MissingKey),
        (long.as_bytes(), Reason::KeyTooLong),
        (br#"{"card":["c"],"ts":1}"#, Reason::WrongType),
        (br#"{"card":"c"}"#, Reason::MissingTime),
        (br#"{"card":"c","ts":"1"}"#, Reason::WrongType),
        (br#"{"card":"c","ts":99999999999999999}"#, Reason::TimeOutOfRange),
        (br#"{"card":"c","ts":-9e18}"#, Reason::TimeOutOfRange),
        (br#"{"card":"c","ts":1,"amount":"12"}"#, Reason::WrongType),
        (br#"{"card":"c","ts":1,"channel":{"a":1}}"#, Reason::WrongType),
        (huge.as_bytes(), Reason::TooLarge),
    ];
    let (events, rejected) = decode(&cases.iter().map(|(payload, _)| *payload).collect::<Vec<_>>());
    assert!(events.is_empty());
    assert!(events.keys.is_empty() && events.ids.is_empty(), "a rejected record must leave nothing behind");
    for (row, (payload, reason)) in cases.iter().enumerate() {
        assert_eq!(
            rejected.reasons[row],
            *reason,
            "{}: {}",
            String::from_utf8_lossy(&payload[..payload.len().min(80)]),
            rejected.details[row]
        );
        assert_eq!(rejected.payloads.get(row), Some(*payload));
        assert_eq!(rejected.offsets[row], Offset(row as i64));
    }
}

#[test]
fn a_tombstone_is_rejected_as_empty() {
    let mut input = Input::default();
    input.records.push(Partition(0), Offset(0), None, Some(b"k"), None);
    let (mut events, mut rejected) = (Events::new(&schema()), Rejected::default());
    Decoder::new(&schema()).decode(&input, &mut events, &mut rejected);
    assert_eq!(rejected.reasons, [Reason::Empty]);
}

#[test]
fn a_table_gives_the_same_events_as_json() {
    let rows = RecordBatch::try_from_iter([
        ("card", Arc::new(StringArray::from(vec![Some("c1"), None, Some("c3")])) as Arc<dyn Array>),
        ("ts", Arc::new(TimestampMillisecondArray::from(vec![Some(1500), Some(1), None]))),
        ("amount", Arc::new(Float64Array::from(vec![Some(12.5), None, None]))),
        ("channel", Arc::new(StringArray::from(vec!["web", "pos", "atm"]))),
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3]))),
    ])
    .unwrap();
    let input = Input { tables: vec![Table { partition: Partition(3), first: Offset(10), rows }], ..Input::default() };
    let (mut events, mut rejected) = (Events::new(&schema()), Rejected::default());
    Decoder::new(&schema()).decode(&input, &mut events, &mut rejected);
    let (mut json, _) = decode(&[br#"{"id":1,"card":"c1","ts":1500,"amount":12.5,"channel":"web"}"#]);
    json.offsets[0] = Offset(10);
    assert_eq!(events, json);
    assert_eq!(rejected.reasons, [Reason::MissingKey, Reason::MissingTime]);
    assert_eq!(rejected.offsets, [Offset(11), Offset(12)]);
    let letter: serde_json::Value = serde_json::from_slice(rejected.payloads.get(0).unwrap()).unwrap();
    assert_eq!(letter["channel"], "pos");
}
