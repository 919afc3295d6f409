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
    Decoder::new(&schema()).decode(&input, &mut events, &mut rejected).unwrap();
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
fn records_whose_own_key_is_not_that_of_the_event_are_counted() {
    let mut input = Input::default();
    let payload = br#"{"card":"c1","ts":1500}"#;
    for (i, key) in [None, Some(&b"c1"[..]), Some(b"c2"), None, Some(b"c1")].into_iter().enumerate() {
        input.records.push(Partition(3), Offset(i as i64), None, key, Some(payload));
    }
    input.records.push(Partition(3), Offset(5), None, None, Some(b"broken"));
    let mut decoder = Decoder::new(&schema());
    decoder.decode(&input, &mut Events::new(&schema()), &mut Rejected::default()).unwrap();
    assert_eq!(decoder.own_keys(), OwnKeys { missing: 2, different: 1 });
    // Where the event's key is the record's own there is nothing to compare.
    let own = EventSchema { key: crate::data::schema::RECORD_KEY.to_owned(), ..schema() };
    let mut decoder = Decoder::new(&own);
    decoder.decode(&input, &mut Events::new(&own), &mut Rejected::default()).unwrap();
    assert_eq!(decoder.own_keys(), OwnKeys::default());
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
    Decoder::new(&schema()).decode(&input, &mut events, &mut rejected).unwrap();
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
    Decoder::new(&schema()).decode(&input, &mut events, &mut rejected).unwrap();
    let (mut json, _) = decode(&[br#"{"id":1,"card":"c1","ts":1500,"amount":12.5,"channel":"web"}"#]);
    json.offsets[0] = Offset(10);
    assert_eq!(events, json);
    assert_eq!(rejected.reasons, [Reason::MissingKey, Reason::MissingTime]);
    assert_eq!(rejected.offsets, [Offset(11), Offset(12)]);
    let letter: serde_json::Value = serde_json::from_slice(rejected.payloads.get(0).unwrap()).unwrap();
    assert_eq!(letter["channel"], "pos");
}

/// The key of a record, its time and its payload.
type Written<'a> = (Option<&'a [u8]>, Option<i64>, &'a str);

/// Decodes JSON objects by a schema whose key, time and amount are named as given.
fn decode_as(names: [&str; 3], records: &[Written<'_>]) -> (Events, Rejected) {
    let [key, time, amount] = names.map(str::to_owned);
    let schema = EventSchema { key, time, fields: vec![Field { name: amount, kind: FieldKind::Number }], mark: None, id: None, ..schema() };
    let mut input = Input::default();
    for (i, (key, millis, payload)) in records.iter().enumerate() {
        let recorded = millis.map(|millis| EventTime(millis * 1000));
        input.records.push(Partition(3), Offset(i as i64), recorded, *key, Some(payload.as_bytes()));
    }
    let (mut events, mut rejected) = (Events::new(&schema), Rejected::default());
    Decoder::new(&schema).decode(&input, &mut events, &mut rejected).unwrap();
    (events, rejected)
}

fn keys_of(events: &Events) -> Vec<&str> {
    events.keys.iter().flatten().map(|key| std::str::from_utf8(key).unwrap()).collect()
}

#[test]
fn a_field_is_found_within_another_and_by_a_name_that_has_a_dot() {
    let records = [
        (None, None, r#"{"card":{"id":"a","n":{"x":1}},"at":{"ts":1},"pay":{"sum":{"eur":1.5}}}"#),
        (None, None, r#"{"at":{"ts":2,"tz":"UTC"},"card":{"more":[{"id":"no"}],"id":"b"},"pay":{"sum":null}}"#),
        (None, None, r#"{"card.id":"c","at.ts":3,"pay.sum.eur":3.5}"#),
        (None, None, r#"{"card":{"id":"d"},"at":{"ts":4},"pay":{"sum":{"eur":4.5}},"pay":{"sum":{}}}"#),
        (None, None, r#"{"card":"e","at":{"ts":5}}"#),
        (None, None, r#"{"card":{"id":{"x":1}},"at":{"ts":6}}"#),
        (None, None, r#"{"card":{"id":"f"},"at":{"ts":7},"pay":{"sum":{"eur":{}}}}"#),
    ];
    let (events, rejected) = decode_as(["card.id", "at.ts", "pay.sum.eur"], &records);
    assert_eq!(keys_of(&events), ["a", "b", "c", "d"]);
    assert_eq!(events.times.iter().map(|time| time.0 / 1000).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let amounts: Vec<f64> = events.columns[0].numbers().unwrap().to_vec();
    assert_eq!((amounts[0], amounts[2]), (1.5, 3.5));
    assert!(amounts[1].is_nan() && amounts[3].is_nan(), "null on the way, and an object given a second time: {amounts:?}");
    let reasons: Vec<Reason> = rejected.reasons.clone();
    assert_eq!(reasons, [Reason::MissingKey, Reason::WrongType, Reason::WrongType]);
}

#[test]
fn key_and_timestamp_of_the_record_itself_serve_as_key_and_time() {
    let records = [
        (Some(&b"k1"[..]), Some(1_700_000_000_123), r#"{"amount":1}"#),
        (Some(&b"k2"[..]), Some(5), r#"{"amount":2,"$key":"not this","$timestamp":9}"#),
        (None, Some(5), r#"{"amount":3}"#),
        (Some(&b"k4"[..]), None, r#"{"amount":4}"#),
        (Some(&b"\xff\x00"[..]), Some(5), r#"{"amount":5}"#),
        (None, None, r#"{"amount":6,"$key":"of a file","$timestamp":7}"#),
    ];
    let (events, rejected) = decode_as(["$key", "$timestamp", "amount"], &records);
    assert_eq!(keys_of(&events), ["k1", "k2", "of a file"]);
    assert_eq!(events.times, [EventTime(1_700_000_000_123_000), EventTime(5000), EventTime(7000)]);
    assert_eq!(rejected.reasons, [Reason::MissingKey, Reason::MissingTime, Reason::WrongType]);
}

#[test]
fn tables_and_records_agree_on_what_is_a_text_and_what_is_a_number() {
    use arrow::array::{ArrayRef, BooleanArray, DictionaryArray, ListArray};
    use arrow::datatypes::Int32Type;

    let table = |columns: Vec<(&str, ArrayRef)>| {
        let rows = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap();
        let input = Input { tables: vec![Table { partition: Partition(0), first: Offset(0), rows }], ..Input::default() };
        let (mut events, mut rejected) = (Events::new(&schema()), Rejected::default());
        Decoder::new(&schema()).decode(&input, &mut events, &mut rejected).unwrap();
        (events, rejected)
    };
    let times: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    // Integers with a null among them are fractions to many tools.
    let keys: ArrayRef = Arc::new(Float64Array::from(vec![Some(3.0), None]));
    let flags: ArrayRef = Arc::new(BooleanArray::from(vec![true, false]));
    let amounts: DictionaryArray<Int32Type> = DictionaryArray::try_new(vec![0, 0].into(), Arc::new(Int64Array::from(vec![7]))).unwrap();
    let (events, rejected) = table(vec![("card", keys), ("ts", times.clone()), ("channel", flags), ("amount", Arc::new(amounts))]);
    assert_eq!(keys_of(&events), ["3"]);
    assert_eq!(events.columns[0].numbers().unwrap(), [7.0]);
    assert_eq!(events.columns[1].texts().unwrap().get(0), Some(&b"true"[..]));
    assert_eq!(rejected.reasons, [Reason::MissingKey]);
    let (events, _) = decode(&[br#"{"card":3.0,"ts":1,"channel":2.50}"#]);
    assert_eq!((keys_of(&events), events.columns[1].texts().unwrap().get(0)), (vec!["3"], Some(&b"2.5"[..])));

    let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<arrow::datatypes::Int64Type, _, _>(vec![Some(vec![Some(1)]), None]));
    let (_, rejected) = table(vec![("card", Arc::new(StringArray::from(vec!["a", "b"]))), ("ts", times), ("channel", lists)]);
    assert_eq!(rejected.reasons, [Reason::WrongType, Reason::WrongType]);
    assert!(rejected.details[0].contains("column `channel`: expected text, found List"), "{}", rejected.details[0]);
}

#[test]
fn integers_of_any_length_keep_their_digits_where_they_are_texts() {
    let records: [&[u8]; 3] = [
        br#"{"card":89490200001234567890,"ts":1,"id":18446744073709551617,"amount":18446744073709551617,"channel":9223372036854775808}"#,
        br#"{"card":89490200001234567891,"ts":1,"channel":1e30}"#,
        br#"{"card":-9223372036854775809,"ts":1}"#,
    ];
    let (events, rejected) = decode(&records);
    assert!(rejected.is_empty(), "{:?}", rejected.details);
    assert_eq!(keys_of(&events), ["89490200001234567890", "89490200001234567891", "-9223372036854775809"]);
    assert_eq!(events.ids.get(0), Some(&b"18446744073709551617"[..]));
    assert_eq!(events.columns[0].numbers().unwrap()[0], 18_446_744_073_709_551_617.0);
    let channels: Vec<_> = events.columns[1].texts().unwrap().iter().collect();
    assert_eq!(channels, [Some(&b"9223372036854775808"[..]), Some(b"1e30"), None]);
    // Also within another field.
    let (events, _) = decode_as(["a.card", "ts", "id"], &[(None, None, r#"{"a":{"card":89490200001234567890},"ts":1}"#)]);
    assert_eq!(keys_of(&events), ["89490200001234567890"]);
}

#[test]
fn an_id_that_is_no_text_is_refused_as_other_texts_are() {
    let (_, rejected) = decode(&[br#"{"card":"c","ts":1,"id":{"a":1}}"#]);
    assert_eq!(
        (rejected.reasons[0], rejected.details[0].as_str()),
        (Reason::WrongType, "id field `id`: expected a text, found an array or object")
    );
}

#[test]
fn tables_have_missing_texts_as_nan_and_times_as_decimals() {
    use arrow::array::{ArrayRef, Decimal128Array};
    let keys: ArrayRef = Arc::new(Float64Array::from(vec![3.0, f64::NAN]));
    let channels: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, 1.0]));
    let decimals = |scale| -> ArrayRef { Arc::new(Decimal128Array::from(vec![1500, 2500]).with_precision_and_scale(38, scale).unwrap()) };
    for (scale, time) in [(0, 1_500_000), (2, 15_000)] {
        let columns = [("card", keys.clone()), ("ts", decimals(scale)), ("channel", channels.clone())];
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let input = Input { tables: vec![Table { partition: Partition(0), first: Offset(0), rows }], ..Input::default() };
        let (mut events, mut rejected) = (Events::new(&schema()), Rejected::default());
        Decoder::new(&schema()).decode(&input, &mut events, &mut rejected).unwrap();
        assert_eq!((keys_of(&events), events.times.as_slice()), (vec!["3"], &[EventTime(time)][..]));
        assert_eq!(events.columns[1].texts().unwrap().get(0), None);
        assert_eq!(rejected.reasons, [Reason::MissingKey]);
    }
}
