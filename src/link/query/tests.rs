use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef};
use proptest::prelude::*;

use super::*;
use crate::base::error::{Error, Kind};

fn rows(rows: &[(Option<i64>, Option<&str>, Option<f64>)]) -> RecordBatch {
    let cents: ArrayRef = Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>());
    let country: ArrayRef = Arc::new(rows.iter().map(|row| row.1).collect::<StringArray>());
    let x: ArrayRef = Arc::new(rows.iter().map(|row| row.2).collect::<Float64Array>());
    let at: ArrayRef =
        Arc::new(TimestampMicrosecondArray::from_iter_values((0..rows.len()).map(|i| i as i64 * 3_600_000_000)).with_timezone("UTC"));
    RecordBatch::try_from_iter_with_nullable([("cents", cents, true), ("Country", country, true), ("a.x", x, true), ("at", at, true)])
        .unwrap()
}

fn some() -> RecordBatch {
    rows(&[
        (Some(250), Some("DE"), Some(0.5)),
        (Some(-10), Some("FR"), None),
        (None, Some("de"), Some(-2.0)),
        (Some(9_999), None, Some(f64::NAN)),
        (Some(1), Some("US"), Some(7.25)),
    ])
}

fn names(columns: &SchemaRef) -> Vec<String> {
    columns.fields().iter().map(|field| field.name().clone()).collect()
}

fn asked(filter: Option<&str>, select: Option<&str>) -> Result<Query, Error> {
    Query::parse("backfill", filter, select).map(Option::unwrap)
}

/// What comes out, with all columns of the rows and the computed ones.
fn answer(filter: Option<&str>, select: Option<&str>, rows: &RecordBatch) -> Result<RecordBatch, Error> {
    let query = asked(filter, select)?;
    let mut wanted = names(&rows.schema());
    wanted.extend(query.names().map(str::to_owned));
    query.bind(&rows.schema(), &wanted)?.apply(rows)
}

/// Which rows a condition keeps.
fn kept(filter: &str) -> Vec<i64> {
    let rows = some();
    let numbered = rows.schema().fields().iter().cloned().chain([Arc::new(Field::new("row", DataType::Int64, false))]).collect::<Vec<_>>();
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(Int64Array::from_iter_values(0..rows.num_rows() as i64)));
    let rows = RecordBatch::try_new(Arc::new(Schema::new(numbered)), columns).unwrap();
    let found = answer(Some(filter), None, &rows).unwrap();
    found.column_by_name("row").unwrap().as_primitive::<Int64Type>().values().to_vec()
}

fn numbers(rows: &RecordBatch, name: &str) -> Vec<Option<f64>> {
    rows.column_by_name(name).unwrap().as_primitive::<Float64Type>().iter().collect()
}

#[test]
fn a_condition_keeps_the_rows_for_which_it_is_true_and_null_is_not() {
    for (filter, expected) in [
        ("cents > 0", vec![0, 3, 4]),
        ("NOT cents > 0", vec![1]),
        ("cents IS NULL OR cents < 2", vec![1, 2, 4]),
        ("Country IN ('DE', 'FR')", vec![0, 1]),
        ("upper(\"Country\") = 'DE'", vec![0, 2]),
        ("a.x >= 0.5 AND cents BETWEEN 1 AND 300", vec![0, 4]),
        ("\"a.x\" < 0", vec![2]),
        ("Country LIKE '_E' OR Country ~ '^d'", vec![0, 2]),
        ("at >= '1970-01-01T03:00:00Z'", vec![3, 4]),
        ("extract(hour FROM at) % 2 = 1", vec![1, 3]),
        ("at < TIMESTAMP '1970-01-01 01:00:00' + INTERVAL '1 hour'", vec![0, 1]),
        ("coalesce(cents, 0) = 0", vec![2]),
        ("true", vec![0, 1, 2, 3, 4]),
        ("cents > 1e9", vec![]),
    ] {
        assert_eq!(kept(filter), expected, "{filter}");
    }
}

#[test]
fn a_computed_column_takes_the_place_of_one_or_comes_in_addition_and_both_see_the_files_columns() {
    let select = "cents / 100.0 AS cents, cents AS before, 'x' AS \"a.y\", lower(Country) AS country";
    let found = answer(Some("cents > 100"), Some(select), &some()).unwrap();
    assert_eq!(names(&found.schema()), ["cents", "Country", "a.x", "at", "before", "a.y", "country"]);
    assert_eq!(numbers(&found, "cents"), [Some(2.5), Some(99.99)], "the condition saw the cents of the file");
    assert_eq!(found.column_by_name("before").unwrap().as_primitive::<Int64Type>().values(), &[250, 9_999]);
    assert_eq!(found.column_by_name("a.y").unwrap().as_string::<i32>().iter().collect::<Vec<_>>(), [Some("x"), Some("x")]);
    assert_eq!(found.column_by_name("country").unwrap().as_string::<i32>().iter().collect::<Vec<_>>(), [Some("de"), None]);
}

#[test]
fn only_what_is_wanted_is_read_and_computed() {
    let query = asked(Some("a.b.c > 0"), Some("f + g AS f, h AS i")).unwrap();
    let wanted = |names: &[&str]| query.inputs(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    assert_eq!(wanted(&["k", "f", "i"]), ["k", "a.b.c", "f", "g", "h"]);
    assert_eq!(wanted(&["k"]), ["k", "a.b.c"]);
    let there: SchemaRef = Arc::new(Schema::new(["a.b.c", "f", "g"].map(|name| Field::new(name, DataType::Float64, true)).to_vec()));
    assert_eq!(query.missing(&there), Some((SELECT, "h")));
    let bound = query.bind(&there, &["f".to_owned(), "k".to_owned()]).unwrap();
    assert_eq!(names(bound.columns()), ["f"], "what is read for the condition only does not come out");
    assert!(Query::parse("backfill", None, None).unwrap().is_none());
}

#[test]
fn what_cannot_be_asked_is_refused_with_the_reason() {
    for (filter, says) in [
        ("cents >", "Expected: an expression"),
        ("cents > 1 cents", "Expected: EOF"),
        ("cents > 'x", "Unterminated string"),
        ("", "Expected: an expression"),
        ("cents + 1", "is Int64, not true or false"),
        ("NULL", "is Null, not true or false"),
        ("Country", "is Utf8, not true or false"),
        ("now() > at", "`now` gives another value in another run"),
        ("random() < 0.1", "`random` gives another value"),
        ("at > CURRENT_DATE", "`current_date` gives another value"),
        ("at > current_timestamp", "`current_timestamp` gives another value"),
        ("uuid() = Country", "`uuid` gives another value"),
        ("uper(Country) = 'DE'", "did you mean `upper`?"),
        ("sum(cents) > 1", "no function `sum` of a row"),
        ("row_number() OVER (ORDER BY at) = 1", "over other rows"),
        ("cents IN (SELECT 1)", "a query within the expression"),
        ("cents = (SELECT 1)", "a query within the expression"),
        ("EXISTS (SELECT 1)", "a query within the expression"),
        ("sqrt(cents, 2) > 1", "sqrt"),
        ("cents AND true", "AND"),
    ] {
        let error = answer(Some(filter), None, &some()).unwrap_err();
        assert_eq!(error.kind, Kind::Usage, "{error}");
        assert!(error.to_string().contains(says) && error.to_string().starts_with("backfill: --where: "), "{filter}: {error}");
    }
    for (select, says) in [
        ("cents / 100", "`cents / 100` has no name"),
        ("*", "`*` has no name"),
        ("1 AS a, 2 AS a", "two columns have the name `a`"),
        ("cents AS a,", "Expected: an expression"),
        ("cents AS a FROM b", "Expected: EOF"),
        ("arrow_cast(cents, 'Binary') AS a", "`a` would be Binary"),
        ("struct(cents) AS a", "`a` would be Struct"),
        ("random() AS a", "`random` gives another value"),
    ] {
        let error = answer(None, Some(select), &some()).unwrap_err();
        assert_eq!(error.kind, Kind::Usage, "{error}");
        assert!(error.to_string().contains(says) && error.to_string().starts_with("backfill: --select: "), "{select}: {error}");
    }
}

#[test]
fn a_row_without_a_value_is_an_error_of_the_data_that_says_how_to_guard_it() {
    for (filter, select, says) in [
        (Some("cents / (cents - 1) > 0"), None, "ivide by zero"),
        (Some("CAST(Country AS BIGINT) > 0"), None, "Cannot cast string 'DE'"),
        (None, Some("cents % (cents - 1) AS cents"), "ivide by zero"),
    ] {
        let error = answer(filter, select, &some()).unwrap_err();
        assert_eq!(error.kind, Kind::Data);
        assert!(error.to_string().contains(says) && error.to_string().contains("NULLIF"), "{error}");
    }
    assert_eq!(kept("cents / NULLIF(cents - 1, 0) >= 1"), [0, 3]);
    assert_eq!(kept("TRY_CAST(Country AS BIGINT) IS NULL AND cents > 300"), [3]);
}

#[test]
fn functions_have_the_bits_of_libm() {
    let values = [0.1, 2.5, 0.9999, 123.456, 1e-9];
    let rows = rows(&values.map(|x| (Some(3), None, Some(x))));
    let select = "ln(a.x) AS l, exp(a.x) AS e, power(a.x, cents) AS p, sin(a.x) AS s, tanh(a.x) AS t, log10(a.x) AS d";
    let found = answer(None, Some(select), &rows).unwrap();
    for (name, function) in [
        ("l", libm::log as fn(f64) -> f64),
        ("e", libm::exp),
        ("p", |x| libm::pow(x, 3.0)),
        ("s", libm::sin),
        ("t", libm::tanh),
        ("d", libm::log10),
    ] {
        assert_eq!(numbers(&found, name), values.map(|x| Some(function(x))), "{name}");
    }
    // Of literals only, and of what is not there.
    assert_eq!(numbers(&answer(None, Some("atan2(1, 2) AS q"), &rows).unwrap(), "q"), [Some(libm::atan2(1.0, 2.0)); 5]);
    assert_eq!(numbers(&answer(None, Some("ln(a.x) AS q"), &rows.slice(0, 0)).unwrap(), "q"), []);
    assert_eq!(numbers(&answer(None, Some("ln(a.x) AS q"), &some()).unwrap(), "q")[1], None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn what_comes_out_of_a_row_does_not_depend_on_the_rows_beside_it(
        cents in prop::collection::vec((prop::option::of(-50_i64..50), prop::option::of(prop::sample::select(vec!["DE", "FR", "x1", ""])), prop::option::of(-3.0..3.0)), 1..60),
        cuts in prop::collection::vec(1_usize..20, 1..12),
        which in 0_usize..4,
    ) {
        let filter = ["cents > 0 OR Country = 'DE'", "a.x * cents > 1.5 AND length(Country) > 0", "CASE WHEN cents <> 0 THEN 10 / cents > 1 ELSE a.x > 0 END", "true"][which];
        let select = "sin(a.x) * cents AS s, Country || '-' || cents AS t, CASE WHEN a.x > 0 THEN ln(a.x) END AS u, round(a.x * 100) / 100 AS v";
        let all = rows(&cents);
        let whole = answer(Some(filter), Some(select), &all).unwrap();
        let (mut parts, mut at) = (Vec::new(), 0);
        for cut in cuts.iter().cycle() {
            if at >= all.num_rows() {
                break;
            }
            let len = (*cut).min(all.num_rows() - at);
            parts.push(answer(Some(filter), Some(select), &all.slice(at, len)).unwrap());
            at += len;
        }
        prop_assert_eq!(&concat_batches(&whole.schema(), &parts).unwrap(), &whole);
        if which == 0 {
            let by_hand = cents.iter().filter(|(cents, country, _)| cents.is_some_and(|cents| cents > 0) || *country == Some("DE")).count();
            prop_assert_eq!(whole.num_rows(), by_hand);
        }
    }
}
