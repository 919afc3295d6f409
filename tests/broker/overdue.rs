//! Keys of which nothing comes, on a partition of which nothing comes: only the clock on the wall can say so.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::broker;
use super::trial::Trial;

const KEYS: u64 = 40;
const DAY: u64 = 24 * 60 * 60 * 1000;

fn payment(number: u64, days_ago: u64) -> (String, String) {
    let now = meantime::base::clock::now().0 as u64 / 1000;
    let (key, ts) = (format!("c{}", number % KEYS), now - days_ago * DAY);
    let payload = format!(r#"{{"id":"e{number}","card":"{key}","ts":{ts},"amount":1.25,"mcc":"3","channel":"web"}}"#);
    (key, payload)
}

/// Rows of the output by the event that they are about: forecasts, and those that say that the key is overdue.
fn rows(trial: &Trial<'_>) -> BTreeMap<(String, u64), (usize, usize)> {
    let mut found = BTreeMap::new();
    for row in trial.broker.read_all(&trial.output) {
        let json: Value = serde_json::from_slice(row.payload.as_deref().unwrap()).unwrap();
        let of = found.entry((json["key"].as_str().unwrap().to_owned(), json["n_events"].as_u64().unwrap())).or_insert((0, 0));
        match json["kind"].as_str() {
            Some("forecast") => of.0 += 1,
            Some("overdue") => {
                assert_eq!(json["overdue"], 0.5, "{json}");
                assert!(json["gap_s"].as_f64().unwrap() > 0.0 && json["event_time"].is_string(), "{json}");
                assert!(row.header("meantime-position").unwrap().ends_with(":0.5"), "{json}");
                of.1 += 1;
            }
            _ => panic!("{json}"),
        }
    }
    found
}

fn wait(trial: &Trial<'_>, overdue: usize) {
    let started = Instant::now();
    while rows(trial).values().map(|of| of.1).sum::<usize>() < overdue {
        assert!(started.elapsed() < Duration::from_secs(60), "{:?}\n{}", rows(trial), trial.tails());
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_silent_key_of_an_idle_partition_is_overdue_exactly_once_whatever_is_killed() {
    let Some(broker) = broker() else { return };
    let mut trial = Trial::new(broker, "overdue", "exactly_once");
    trial.snapshots = true;
    trial.sets = vec!["forecast.overdue=[0.5]".to_owned(), "order.idle_after=1s".to_owned()];
    broker.produce(&trial.input, (0..KEYS).map(|number| payment(number, 200)));
    let mut instance = trial.start("a");
    wait(&trial, 40);
    instance.kill();

    // A quarter of them come again, long ago; the last ten only now, so that nothing is overdue.
    broker.produce(&trial.input, (0..10).map(|number| payment(KEYS + number, 100)));
    broker.produce(&trial.input, (30..40).map(|number| payment(KEYS + number, 0)));
    let mut instance = trial.start("a");
    wait(&trial, 50);
    instance.kill();
    trial.finish();

    let found = rows(&trial);
    assert_eq!(found.len(), 60, "{found:?}");
    for ((key, n), of) in &found {
        let number: u64 = key[1..].parse().unwrap();
        let silent = *n == 1 || number < 10;
        assert_eq!(*of, (1, usize::from(silent)), "event {n} of {key}: forecasts, overdue");
    }
    let (output, report) = trial.verify();
    assert!(output.status.success(), "{report}");
    assert_eq!((&report["forecasts"], &report["overdue"]), (&Value::from(60), &Value::from(50)), "{report}");
}
