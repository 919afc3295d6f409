//! A change of the model between topics: stop, migrate, start; with a crash between; and a shadow that is promoted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::broker;
use super::trial::{Trial, event};

/// The package of the cards as another version.
fn package(folder: &Path, version: &str) -> PathBuf {
    let (from, to) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/cards/model"), folder.join(format!("model-{version}")));
    std::fs::create_dir_all(&to).unwrap();
    for name in ["model.onnx", "features.toml", "golden.parquet"] {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
    let manifest = std::fs::read_to_string(from.join("model.toml")).unwrap();
    std::fs::write(to.join("model.toml"), manifest.replace("version = \"1\"", &format!("version = \"{version}\""))).unwrap();
    to
}

/// Forecasts by position: fingerprint, and everything but fingerprint and version.
fn forecasts(trial: &Trial<'_>) -> BTreeMap<(i32, i64), (String, Value)> {
    forecasts_in(trial, &trial.output)
}

/// The same of another topic.
fn forecasts_in(trial: &Trial<'_>, topic: &str) -> BTreeMap<(i32, i64), (String, Value)> {
    let mut all = BTreeMap::new();
    for row in trial.broker.read_all(topic) {
        let mut json: Value = serde_json::from_slice(row.payload.as_deref().unwrap()).unwrap();
        let fields = json.as_object_mut().unwrap();
        fields.remove("model_version");
        let fingerprint = fields.remove("fingerprint").unwrap().as_str().unwrap().to_owned();
        let (partition, offset) = row.header("meantime-position").unwrap().split_once(':').unwrap();
        let at = (partition.parse().unwrap(), offset.parse().unwrap());
        assert!(all.insert(at, (fingerprint, json)).is_none(), "{at:?} stands twice");
    }
    all
}

/// Where the fingerprint changes in each partition: it does so once, at the offset after which the new one says everything.
fn changes(of: &BTreeMap<(i32, i64), (String, Value)>) -> BTreeMap<i32, i64> {
    let mut changes = BTreeMap::new();
    for partition in 0..4 {
        let rows: Vec<(i64, &String)> =
            of.range((partition, 0)..(partition + 1, 0)).map(|((_, offset), (print, _))| (*offset, print)).collect();
        let turns: Vec<i64> = rows.windows(2).filter(|pair| pair[0].1 != pair[1].1).map(|pair| pair[1].0).collect();
        assert_eq!(turns.len(), 1, "partition {partition}: {turns:?}");
        changes.insert(partition, turns[0]);
    }
    changes
}

fn succeed(trial: &Trial<'_>, arguments: &[&str]) -> String {
    let output = trial.command(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until every partition has a snapshot.
fn wait_for_snapshots(trial: &Trial<'_>) {
    let started = std::time::Instant::now();
    let has = |partition: i32| {
        let folder = trial.logs.path().join(format!("snapshots/partition-{partition}"));
        std::fs::read_dir(folder)
            .is_ok_and(|mut entries| entries.any(|entry| entry.unwrap().path().extension().is_some_and(|e| e == "json")))
    };
    while !(0..4).all(has) {
        assert!(started.elapsed() < super::trial::PATIENCE, "{}", trial.tails());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// First so many events with the old model, the rest with the new one; `stop` says whether the old one is stopped or killed.
fn changed(trial: &mut Trial<'_>, stop: bool, mode: &str) -> BTreeMap<(i32, i64), (String, Value)> {
    const FIRST: u64 = 6_000;
    const ALL: u64 = 12_000;
    let model = package(trial.logs.path(), "2");
    let model = model.to_str().unwrap().to_owned();
    trial.snapshots = true;
    trial.broker.produce(&trial.input, (0..FIRST).map(event));
    let mut instance = trial.start("a");
    trial.wait_committed(FIRST);
    if stop {
        instance.stop();
    } else {
        // Its snapshots are those of a moment before.
        wait_for_snapshots(trial);
        trial.broker.produce(&trial.input, (FIRST..FIRST + 1000).map(event));
        trial.wait_committed(FIRST + 1000);
        instance.kill();
    }
    let committed = trial.broker.committed(&trial.output, &trial.input);
    let dry = succeed(trial, &["state migrate", "--to", &model, "--mode", mode, "--dry-run"]);
    assert!(dry.contains("nothing was written") || mode == "rebuild", "{dry}");
    let said = succeed(trial, &["state migrate", "--to", &model, "--mode", mode]);
    for (partition, next) in &committed {
        let row: Vec<&str> = said.lines().find(|line| line.starts_with(&format!("{partition} "))).unwrap().split_whitespace().collect();
        assert_eq!(row[2], next.to_string(), "{said}");
        assert!(!stop || row[1] == row[2], "after a stop nothing is left to replay: {said}");
    }
    let produced = if stop { FIRST } else { FIRST + 1000 };
    trial.broker.produce(&trial.input, (produced..ALL).map(event));
    trial.sets.push(format!("model.package=\"{model}\""));
    trial.finish();
    trial.must_be_complete(ALL);
    let found = forecasts(trial);
    // The new model says everything from the committed offset on, and the commits after it name it.
    for (partition, turn) in changes(&found) {
        let before = found.range((partition, 0)..(partition, committed[&partition])).next_back().unwrap();
        assert!(before.0.1 < turn && turn >= committed[&partition], "partition {partition}: {turn} {committed:?}");
        assert!(
            found.range((partition, committed[&partition])..).next().unwrap().0.1 == turn,
            "partition {partition}: {turn} {committed:?}"
        );
    }
    let client = trial.broker.client();
    let probe = meantime::link::kafka::Probe::new("test", &client, Some(&trial.output)).unwrap();
    let now = &found.last_key_value().unwrap().1.0;
    for (_, _, note) in probe.committed(&trial.input, 4).unwrap() {
        assert!(note.contains(&format!("fp={now}")), "{note}");
    }
    found
}

fn same_as_undisturbed(trial: &Trial<'_>, found: &BTreeMap<(i32, i64), (String, Value)>) {
    let reference = trial.undisturbed();
    reference.finish();
    let expected = forecasts(&reference);
    assert_eq!(found.len(), expected.len());
    for (at, (_, row)) in found {
        assert_eq!(row, &expected[at].1, "{at:?}");
    }
}

#[test]
fn stop_migrate_start_leaves_no_hole_and_no_repeat_and_changes_nothing_but_the_model() {
    let Some(broker) = broker() else { return };
    let mut trial = Trial::new(broker, "change-stop", "exactly_once");
    let found = changed(&mut trial, true, "carry");
    same_as_undisturbed(&trial, &found);
}

#[test]
fn a_killed_stage_is_migrated_from_its_last_snapshot() {
    let Some(broker) = broker() else { return };
    let mut trial = Trial::new(broker, "change-kill", "exactly_once");
    let found = changed(&mut trial, false, "carry");
    same_as_undisturbed(&trial, &found);
}

#[test]
fn states_are_rebuilt_from_the_topic_ahead_of_the_start() {
    let Some(broker) = broker() else { return };
    let mut trial = Trial::new(broker, "change-rebuild", "exactly_once");
    let found = changed(&mut trial, true, "rebuild");
    same_as_undisturbed(&trial, &found);
    let log = std::fs::read_to_string(trial.log("finish")).unwrap();
    assert!(log.contains("migrated (rebuild)") && !log.contains("replayed silently"), "{log}");
}

#[test]
fn a_shadow_scores_the_same_events_as_another_group_and_is_promoted_with_its_states() {
    let Some(broker) = broker() else { return };
    let mut trial = Trial::new(broker, "shadow", "exactly_once");
    trial.snapshots = true;
    let model = package(trial.logs.path(), "2");
    let model = model.to_str().unwrap().to_owned();
    // The same input, another group, another package, topics and snapshots of its own.
    let mut shadow = trial.undisturbed();
    shadow.snapshots = true;
    shadow.sets.push(format!("model.package=\"{model}\""));
    trial.broker.produce(&trial.input, (0..5_000).map(event));
    let (main, second) = (trial.start("a"), shadow.start("shadow"));
    trial.wait_committed(5_000);
    shadow.wait_committed(5_000);
    second.stop();
    main.stop();
    let said = succeed(&trial, &["replay", "--diff", "--live", &shadow.output, "--json", "-"]);
    let report: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&report["events"], &report["events_only_before"], &report["events_only_after"]),
        (&Value::from(4_995), &0.into(), &0.into())
    );
    assert!(report["before"]["name"].as_str().unwrap().starts_with("cards 2, as sent"), "{report}");
    assert!(report["fields"].as_array().unwrap().iter().all(|field| field["mean_absolute_change"] == 0.0), "{report}");
    // Promoted: the shadow's package, and the place of its snapshots.
    trial.sets.push(format!("model.package=\"{model}\""));
    trial.sets.push(format!("state.snapshots=\"{}\"", shadow.logs.path().join("snapshots").display()));
    trial.broker.produce(&trial.input, (5_000..8_000).map(event));
    trial.finish();
    trial.must_be_complete(8_000);
    let log = std::fs::read_to_string(trial.log("finish")).unwrap();
    assert!(log.contains("an earlier run of this model") && !log.contains("replayed silently"), "{log}");
    let found = forecasts(&trial);
    assert_eq!(changes(&found).len(), 4);
    same_as_undisturbed(&trial, &found);
}

#[test]
fn sighup_changes_the_model_of_a_running_stage_at_one_offset_of_each_partition() {
    let Some(broker) = broker() else { return };
    let mut trial = Trial::new(broker, "change-hup", "exactly_once");
    // As most stages run: known to the group and to the transactions by a lock file of the machine.
    trial.named = false;
    trial.snapshots = true;
    let model = package(trial.logs.path(), "2");
    trial.sets.push(format!("model.package=\"{}\"", model.display()));
    trial.broker.produce(&trial.input, (0..4_000).map(event));
    let instance = trial.start("a");
    trial.wait_committed(4_000);
    let manifest = std::fs::read_to_string(model.join("model.toml")).unwrap();
    std::fs::write(model.join("model.toml"), manifest.replace("version = \"2\"", "version = \"3\"")).unwrap();
    instance.signal("-HUP");
    let started = std::time::Instant::now();
    while !std::fs::read_to_string(&instance.log).unwrap().contains("migrated (carry)") {
        assert!(started.elapsed() < std::time::Duration::from_secs(120), "{}", trial.tails());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    trial.broker.produce(&trial.input, (4_000..8_000).map(event));
    trial.wait_committed(8_000);
    instance.stop();
    trial.must_be_complete(8_000);
    let found = forecasts(&trial);
    assert_eq!(changes(&found).len(), 4);
    same_as_undisturbed(&trial, &found);
}

#[test]
fn a_shadow_in_the_stage_survives_a_kill_and_is_promoted_by_sighup_at_one_offset_of_each_partition() {
    let Some(broker) = broker() else { return };
    let mut trial = Trial::new(broker, "shadow-within", "exactly_once");
    trial.snapshots = true;
    let (first, second) = (package(trial.logs.path(), "2"), package(trial.logs.path(), "3"));
    let model = trial.logs.path().join("model");
    std::os::unix::fs::symlink(&first, &model).unwrap();
    let topic = broker.topic("shadow-within-next", 4);
    trial.sets.push(format!("model.package=\"{}\"", model.display()));
    trial.sets.push(format!("shadow={{model=\"{}\",topic=\"{topic}\"}}", second.display()));
    trial.broker.produce(&trial.input, (0..4_000).map(event));
    let mut killed = trial.start("a");
    trial.wait_committed(2_000);
    killed.kill();
    let instance = trial.start("a");
    trial.wait_committed(4_000);
    std::fs::remove_file(&model).unwrap();
    std::os::unix::fs::symlink(&second, &model).unwrap();
    instance.signal("-HUP");
    let started = std::time::Instant::now();
    while !std::fs::read_to_string(&instance.log).unwrap().contains("an earlier run of this model") {
        assert!(started.elapsed() < std::time::Duration::from_secs(120), "{}", trial.tails());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    trial.broker.produce(&trial.input, (4_000..8_000).map(event));
    trial.wait_committed(8_000);
    instance.stop();
    trial.must_be_complete(8_000);
    let log = std::fs::read_to_string(trial.log("a")).unwrap();
    assert!(log.contains("promoting the shadow") && log.contains("the states of the shadow are those of the first model now"), "{log}");
    let (found, beside) = (forecasts(&trial), forecasts_in(&trial, &topic));
    same_as_undisturbed(&trial, &found);
    // What the shadow said up to the promotion, and the first model from there on, is one run of the second model: no hole, no repeat.
    let turns = changes(&found);
    let (before, after): (Vec<_>, Vec<_>) = found.iter().partition(|((partition, offset), _)| *offset < turns[partition]);
    assert_eq!(beside.keys().collect::<Vec<_>>(), before.iter().map(|(at, _)| *at).collect::<Vec<_>>());
    let now = &after[0].1.0;
    assert!(after.iter().all(|(_, (print, _))| print == now) && beside.values().all(|(print, _)| print == now));
    assert!(before.iter().all(|(at, (_, row))| beside[*at].1 == *row), "both packages have the same network");
}
