use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::base::offset::{Offset, Partition};
use crate::data::flags::Flags;
use crate::data::rejected::Reason;
use crate::sink::contract::{identity, sample};

fn encode(layout: &Layout, forecasts: &Forecasts, row: usize) -> (String, Json) {
    let mut out = Vec::new();
    RowEncoder::new(layout, &forecasts.identity).row(forecasts, row, &mut out);
    let text = String::from_utf8(out).unwrap();
    let json = serde_json::from_str(&text).unwrap();
    (text, json)
}

#[test]
fn a_full_row_has_every_field_of_the_contract_with_its_type() {
    let forecasts = sample(3, 2);
    let layout = Layout::full(&forecasts.identity, true, true, true);
    let (text, row) = encode(&layout, &forecasts, 1);
    let expected = json!({
        "kind": "forecast", "key": "k1", "event_id": "id-1", "event_time": "2025-01-06T00:00:01.000001Z", "partition": 1, "offset": 1,
        "n_events": 2, "gap_s": 1.5, "surprise_time": 0.25, "surprise_mark": 0.5, "surprise_value": -1.25, "residual": 3600.0, "residual_value": 0.625,
        "score": 0.125, "next_value_q05": -2.5, "next_value_q50": 20.0,
        "next_time_q10": "2025-01-06T00:01:01.000001Z", "next_time_q50": "2025-01-06T01:00:01.000001Z", "next_time_q99_9": null,
        "p_never": 1e-300, "p_within_1h": 0.75, "p_within_24h": 1.0,
        "next_marks": [{"mark": "a\"b", "p": 0.5}, {"mark": "ü", "p": 0.25}], "intensity_now": 1e16,
        "reasons": [{"code": "R\"7", "effect": 1.5}],
        "flags": ["late_clamped", "unknown_mark"], "model": "m", "model_version": "1", "fingerprint": "f00d"
    });
    assert_eq!(row, expected);
    let positions: Vec<_> = layout.fields.iter().map(|(name, _)| text.find(&format!("\"{name}\":")).unwrap()).collect();
    assert!(positions.is_sorted(), "fields stand in the order of the layout");
}

#[test]
fn what_a_row_does_not_have_is_null_or_empty() {
    let forecasts = sample(3, 2);
    let (_, row) = encode(&Layout::full(&forecasts.identity, true, true, true), &forecasts, 0);
    for name in [
        "event_id",
        "gap_s",
        "surprise_time",
        "surprise_mark",
        "surprise_value",
        "residual",
        "residual_value",
        "next_time_q10",
        "next_time_q50",
        "next_value_q05",
        "intensity_now",
    ] {
        assert_eq!(row[name], Json::Null, "{name}");
    }
    assert_eq!((&row["flags"], &row["next_marks"], &row["reasons"]), (&json!([]), &json!([]), &json!([])));
}

#[test]
fn a_layout_chooses_fields_and_names() {
    let forecasts = sample(3, 2);
    let fields = [("id", FieldId::EventId), ("card", FieldId::Key), ("score", FieldId::Score)];
    let layout = Layout { fields: fields.map(|(name, field)| (name.to_owned(), field)).to_vec() };
    assert_eq!(encode(&layout, &forecasts, 1).0, r#"{"id":"id-1","card":"k1","score":0.125}"#);
    let constants = Layout { fields: vec![("m".to_owned(), FieldId::Model), ("k".to_owned(), FieldId::Kind)] };
    assert_eq!(encode(&constants, &forecasts, 1).0, r#"{"m":"m","k":"forecast"}"#);
    assert_eq!(encode(&Layout { fields: vec![] }, &forecasts, 1).0, "{}");
}

#[test]
fn rows_of_different_batches_do_not_mix() {
    let forecasts = sample(3, 2);
    let mut encoder = RowEncoder::new(&Layout::full(&forecasts.identity, true, true, true), &forecasts.identity);
    let (mut together, mut apart) = (Vec::new(), Vec::new());
    (0..3).for_each(|row| encoder.row(&forecasts, row, &mut together));
    for row in 0..3 {
        RowEncoder::new(&Layout::full(&forecasts.identity, true, true, true), &forecasts.identity).row(&forecasts, row, &mut apart);
    }
    assert_eq!(together, apart);
}

#[test]
fn a_dead_letter_has_position_reason_and_the_bytes() {
    let mut rejected = Rejected::default();
    rejected.push((Partition(2), Offset(7)), Reason::Malformed, "not \"JSON\"", Some(b"k"), Some(b"{\n"));
    rejected.push((Partition(0), Offset(0)), Reason::Empty, "no payload", None, None);
    rejected.push((Partition(0), Offset(1)), Reason::Malformed, "not UTF-8", Some(&[0xff]), Some(&[0xfe, 0, 1, 2]));
    let lines = [0, 1, 2].map(|row| {
        let mut out = Vec::new();
        dead_letter(&rejected, row, if row == 0 { "cards" } else { "" }, &mut out);
        serde_json::from_slice::<Json>(&out).unwrap()
    });
    let first = json!({"topic": "cards", "partition": 2, "offset": 7, "reason": "malformed", "detail": "not \"JSON\"", "key": "k", "payload": "{\n"});
    assert_eq!(lines[0], first);
    assert_eq!(lines[1], json!({"partition": 0, "offset": 0, "reason": "empty", "detail": "no payload", "key": null, "payload": null}));
    assert_eq!((&lines[2]["key_base64"], &lines[2]["payload_base64"]), (&json!("/w=="), &json!("/gABAg==")));
}

#[test]
fn a_dead_letter_for_a_topic_is_never_larger_than_a_topic_takes() {
    let text = "{\"a\": \"".to_owned() + &"\u{1}".repeat(700_000);
    let accents = "\u{e9}".repeat(600_000);
    for (payload, key, cut) in [
        (vec![0xff; 800_000], vec![b'k'], true),
        (vec![0xff; 8 << 20], vec![0xfe; 8 << 20], true),
        (text.into_bytes(), vec![1; 900_000], true),
        (accents.into_bytes(), vec![b'k'], true),
        (vec![b'x'; 900_000], vec![b'k'], false),
        (vec![0xff; 700_000], vec![b'k'], false),
    ] {
        let mut rejected = Rejected::default();
        let detail = "\u{2}".repeat(if cut { 1_000_000 } else { 10 });
        rejected.push((Partition(2), Offset(7)), Reason::Malformed, &detail, Some(&key), Some(&payload));
        let (mut whole, mut out) = (Vec::new(), b"before".to_vec());
        dead_letter(&rejected, 0, "cards", &mut whole);
        bounded_dead_letter(&rejected, 0, "cards", &mut out);
        let letter = &out[6..];
        assert!(letter.len() + letter_key(&rejected, 0).unwrap().len() <= 1_000_000, "{}", letter.len());
        assert_eq!(letter != whole, cut);
        let json: Json = serde_json::from_slice(letter).unwrap();
        assert_eq!((&json["partition"], &json["offset"], &json["topic"]), (&json!(2), &json!(7), &json!("cards")));
        assert_eq!(json.get("payload_bytes"), cut.then(|| json!(payload.len())).as_ref());
        assert_eq!(json.get("key_bytes"), (key.len() > 65_536 && cut).then(|| json!(key.len())).as_ref());
        if let Some(text) = json.get("payload").filter(|_| cut) {
            let text = text.as_str().unwrap();
            assert!(payload.starts_with(text.as_bytes()) && text.len() > 65_530);
        }
    }
}

#[test]
fn base64_agrees_with_the_examples_of_rfc_4648() {
    for (plain, coded) in
        [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="), ("foobar", "Zm9vYmFy")]
    {
        let mut out = Vec::new();
        base64(&mut out, plain.as_bytes());
        assert_eq!(String::from_utf8(out).unwrap(), coded);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_json_string_and_text_survives(bytes in proptest::collection::vec(any::<u8>(), 0..40), text in "\\PC*|[\\x00-\\x7f]*") {
        let mut out = Vec::new();
        string(&mut out, &bytes);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), String::from_utf8_lossy(&bytes));
        out.clear();
        string(&mut out, text.as_bytes());
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }

    #[test]
    fn any_number_reads_back_to_the_bit(value in any::<f64>()) {
        let mut forecasts = sample(1, 1);
        forecasts.score = vec![value];
        let layout = Layout { fields: vec![("score".to_owned(), FieldId::Score)] };
        let (text, row) = encode(&layout, &forecasts, 0);
        if value.is_finite() {
            let digits = text.trim_start_matches("{\"score\":").trim_end_matches('}');
            prop_assert_eq!(digits.parse::<f64>().unwrap().to_bits(), value.to_bits());
        } else {
            prop_assert_eq!(&row["score"], &Json::Null);
        }
    }
}

#[test]
fn a_mark_the_identity_does_not_know_is_left_out() {
    let mut forecasts = sample(1, 1);
    forecasts.identity = Arc::new(Identity { marks: vec![], ..identity() });
    forecasts.flags = vec![Flags::NOT_FINITE];
    let (text, _) = encode(&Layout::full(&forecasts.identity, true, true, true), &forecasts, 0);
    assert!(text.contains("\"next_marks\":[],"));
}
