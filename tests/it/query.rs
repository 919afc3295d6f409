//! `--where` and `--select`, on the program itself: the same bytes as from files that were filtered and computed by hand.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, RecordBatch, StringArray, StructArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Float64Type};

use super::backfill::{EVENTS, backfill, cards, command, files, generate, read, text, write};

const WHERE: &str = "payment.kind <> 'ATM' AND (payment.cents >= 500 OR card IS NULL)";
const SELECT: &str = "payment.cents / 100 AS amount, lower(payment.kind) AS channel";

/// The generated payments as another house would keep them, in cents and capital letters within a column, beside those that the expressions make of them.
fn houses(folder: &Path) -> (String, String) {
    let generated = folder.join("generated.parquet");
    generate(&generated, EVENTS);
    let rows = read(&generated);
    let column = |name: &str| rows.column_by_name(name).unwrap();
    let texts = |name: &str| column(name).as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect::<Vec<_>>();
    // Some cards are not known: those rows are dead letters, if the condition takes them.
    let cards: Vec<Option<String>> = texts("card").into_iter().enumerate().map(|(i, card)| card.filter(|_| i % 97 != 0)).collect();
    let cents: Vec<Option<f64>> = column("amount").as_primitive::<Float64Type>().iter().map(|x| x.map(|x| (x * 100.0).round())).collect();
    let channels = texts("channel");
    let kinds: Vec<Option<String>> = channels.iter().map(|text| text.as_ref().map(|text| text.to_uppercase())).collect();
    let card: ArrayRef = Arc::new(cards.iter().cloned().collect::<StringArray>());
    let inner: Vec<(Arc<Field>, ArrayRef)> = vec![
        (Arc::new(Field::new("cents", DataType::Float64, true)), Arc::new(cents.iter().copied().collect::<Float64Array>())),
        (Arc::new(Field::new("kind", DataType::Utf8, true)), Arc::new(kinds.iter().cloned().collect::<StringArray>())),
    ];
    let payment: ArrayRef = Arc::new(StructArray::from(inner));
    let theirs = RecordBatch::try_from_iter_with_nullable([
        ("payment", payment, true),
        ("ts", column("ts").clone(), true),
        ("card", card.clone(), true),
        ("mcc", column("mcc").clone(), true),
        ("id", column("id").clone(), true),
        // Replaced by a computed column, never read.
        ("amount", Arc::new(StringArray::from(vec!["no number"; rows.num_rows()])) as ArrayRef, true),
    ]);
    let amount: ArrayRef = Arc::new(cents.iter().map(|x| x.map(|x| x / 100.0)).collect::<Float64Array>());
    let ours = RecordBatch::try_from_iter_with_nullable([
        ("ts", column("ts").clone(), true),
        ("card", card, true),
        ("mcc", column("mcc").clone(), true),
        ("id", column("id").clone(), true),
        ("amount", amount, true),
        ("channel", column("channel").clone(), true),
    ]);
    let taken: BooleanArray = (0..rows.num_rows())
        .map(|i| Some(channels[i].as_deref() != Some("atm") && (cents[i].is_some_and(|cents| cents >= 500.0) || cards[i].is_none())))
        .collect();
    let ours = filter_record_batch(&ours.unwrap(), &taken).unwrap();
    assert!(ours.num_rows() > 5_000 && ours.num_rows() < rows.num_rows() - 1_000, "{} rows", ours.num_rows());
    assert!(ours.column_by_name("card").unwrap().null_count() > 20);
    // In two files each, cut elsewhere.
    let theirs = theirs.unwrap();
    for (name, rows, cut) in [("theirs", &theirs, 9_000), ("ours", &ours, 4_000)] {
        write(&folder.join(format!("{name}-0.parquet")), &rows.slice(0, cut));
        write(&folder.join(format!("{name}-1.parquet")), &rows.slice(cut, rows.num_rows() - cut));
    }
    let path = |name: &str| folder.join(name).display().to_string();
    (path("theirs-?.parquet"), path("ours-?.parquet"))
}

/// The same forecasts to the byte, and the same dead letters but for the names of the files that their records are of.
fn same(expected: &Path, found: &Path) {
    for folder in ["forecasts", "dead-letters"] {
        let (expected, found) = (files(&expected.join(folder)), files(&found.join(folder)));
        assert_eq!(expected.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>());
        assert!(expected.len() > 2);
        for (name, path) in &expected {
            if folder == "forecasts" {
                assert!(std::fs::read(path).unwrap() == std::fs::read(&found[name]).unwrap(), "{name} has other bytes");
                continue;
            }
            let [before, now] = [path, &found[name]].map(|path| {
                let mut rows = read(path);
                rows.remove_column(rows.schema().index_of("topic").unwrap());
                rows
            });
            assert!(before.num_rows() > 0 && before == now, "{name}");
        }
    }
}

#[test]
fn asked_rows_give_the_bytes_of_rows_made_by_hand_also_in_parts_and_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let (theirs, ours) = houses(folder.path());
    let to = |name: &str| folder.path().join(name);
    let by_hand = to("by-hand");
    let output = backfill(&[&ours], &by_hand, &["--shards", "3"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(files(&by_hand.join("dead-letters")).len() > 2);

    let asked = ["--shards", "3", "--where", WHERE, "--select", SELECT];
    let output = backfill(&[&theirs], &to("asked"), &asked);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains(&format!("where    {WHERE}")) && said.contains("rows by --where"), "{said}");
    same(&by_hand, &to("asked"));

    // In parts; none with another expression.
    let part = |i: &str, filter: &str, select: &[&str]| {
        let mut more = vec!["--shards", "3", "--shard", i, "--where", filter];
        more.extend(select);
        backfill(&[&theirs], &to("parts"), &more)
    };
    assert!(part("0/2", WHERE, &["--select", SELECT]).status.success());
    for (filter, select, says) in [
        ("payment.kind <> 'ATM'", &["--select", SELECT][..], "another --where"),
        (WHERE, &["--select", "payment.cents / 100 AS amount, payment.kind AS channel"], "another --select"),
        (WHERE, &[], "another --select"),
    ] {
        let output = part("1/2", filter, select);
        assert_eq!(output.status.code(), Some(78), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(says), "{says}: {}", text(&output.stderr));
    }
    assert!(part("1/2", WHERE, &["--select", SELECT]).status.success());
    same(&by_hand, &to("parts"));

    // Killed once a file is there.
    let killed = to("killed");
    let mut child = command(&[&theirs], &killed, &asked).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while files(&killed.join("forecasts")).is_empty() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let output = backfill(&[&theirs], &killed, &["--shards", "3", "--resume"]);
    assert_eq!(output.status.code(), Some(78), "{}", text(&output.stderr));
    let mut resumed = asked.to_vec();
    resumed.push("--resume");
    let output = backfill(&[&theirs], &killed, &resumed);
    assert!(output.status.success(), "{}", text(&output.stderr));
    same(&by_hand, &killed);

    // The files against what was made of them.
    let parity = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meantime"));
        command.arg("parity").arg(cards()).arg("--live").arg(to("asked")).args(["--files", &theirs, "--json"]).args(more);
        command.args(["--set", "dead_letter.max_bad_ratio=0.5"]).output().unwrap()
    };
    let output = parity(&["--where", WHERE, "--select", SELECT]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let output = parity(&["--where", "payment.kind <> 'ATM'", "--select", SELECT]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
}

#[test]
fn what_cannot_be_asked_of_the_files_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (from, lines) = (folder.path().join("a.parquet"), folder.path().join("a.ndjson"));
    generate(&from, "1000");
    generate(&lines, "1000");
    let (from, lines) = (from.display().to_string(), lines.display().to_string());
    let to = folder.path().join("out");
    for (from, more, code, says) in [
        (&from, &["--where", "amuont > 1"][..], 2, "did you mean `amount`?"),
        (&from, &["--where", "amount"], 2, "not true or false"),
        (&from, &["--where", "amount > "], 2, "write a condition"),
        (&from, &["--where", "ts > now()"], 2, "another value in another run"),
        (&from, &["--select", "amount * 2 AS amuont"], 2, "did you mean `AS amount`?"),
        (&from, &["--select", "amount * 2"], 2, "has no name"),
        (&from, &["--where", "CAST(channel AS BIGINT) > 1"], 1, "TRY_CAST"),
        (&lines, &["--where", "amount > 1"], 78, "write the files as Parquet"),
        (&from, &["--shards", "1", "--where", "amount > 1", "--positions", "mcc,ts", "--hand-over"], 2, "would be taken live"),
    ] {
        let output = backfill(&[from], &to, more);
        assert_eq!(output.status.code(), Some(code), "{more:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(says), "{says}: {}", text(&output.stderr));
        assert!(!to.exists(), "{more:?}");
    }
    let shown = text(&backfill(&[&from], &to, &["--where", "amount > 1e9 AND id IS NOT NULL", "--dry-run"]).stderr);
    assert!(shown.contains("0 rows") && shown.contains("excluded 1,000 rows by --where"), "{shown}");
}
