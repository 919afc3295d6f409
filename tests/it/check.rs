//! Ten broken pipeline files: every fault of each is told, with its code and line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use meantime::base::error::Kind;
use meantime::link::objects::Place;
use meantime::pipeline::fault::Faults;
use meantime::pipeline::plan::{Plan, Split};
use meantime::pipeline::{self, Purpose};
use meantime::state::snapshot::Settings;
use meantime::{sink, source};

fn file(name: &str) -> PathBuf {
    Path::new("tests/data/broken").join(name)
}

fn environment(name: &str) -> Option<String> {
    match name {
        "MEANTIME_TEST_SECRET" => Some("hidden-3".to_owned()),
        "MEANTIME_TEST_USER" => Some("hidden-4".to_owned()),
        "MEANTIME_TEST_BATCH" => Some("128".to_owned()),
        _ => None,
    }
}

fn check_at(path: &Path, sets: &[&str], purpose: Purpose) -> Result<Plan, Faults> {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    pipeline::check(path, &sets, purpose, &environment).unwrap()
}

fn check_with(name: &str, sets: &[&str]) -> Result<Plan, Faults> {
    check_at(&file(name), sets, Purpose::Run)
}

/// `line code` of every fault of the pipeline file, `file:line code` of those elsewhere.
fn told(name: &str, sets: &[&str]) -> Vec<String> {
    let faults = check_with(name, sets).err().unwrap_or_else(|| panic!("{name} has no fault"));
    let path = file(name).display().to_string();
    let place = |fault: &meantime::pipeline::fault::Fault| match fault.file == path {
        true => fault.line.to_string(),
        false => format!("{}:{}", fault.file.rsplit('/').next().unwrap(), fault.line),
    };
    faults.list().iter().map(|fault| format!("{} {}", place(fault), fault.code.trim_start_matches("pipeline::"))).collect()
}

fn plan(name: &str, sets: &[&str]) -> Plan {
    check_with(name, sets).unwrap_or_else(|faults| panic!("{}", faults.report(false)))
}

#[test]
fn slips_in_names_are_all_found_with_the_name_that_was_meant() {
    let lines = [
        "2 unknown_key",
        "5 bad_value",
        "6 unknown_key",
        "11 unknown_key",
        "15 unknown_key",
        "16 unknown_key",
        "22 unknown_key",
        "25 unknown_key",
        "27 unknown_key",
    ];
    assert_eq!(told("01_slips.toml", &[]), lines);
    insta::assert_snapshot!(check_with("01_slips.toml", &[]).unwrap_err().report(false));
}

#[test]
fn everything_that_is_missing_is_told_at_its_table() {
    let lines = ["1 missing_key", "2 missing_key", "6 missing_key", "7 missing_key", "9 missing_key", "12 missing_key"];
    assert_eq!(told("02_missing.toml", &[]), lines);
}

#[test]
fn every_value_of_the_wrong_type_is_told() {
    let lines = [
        "1 wrong_type",
        "5 wrong_type",
        "8 wrong_type",
        "10 wrong_type",
        "13 wrong_type",
        "16 wrong_type",
        "19 wrong_type",
        "20 wrong_type",
        "25 wrong_type",
        "31 wrong_type",
        "34 wrong_type",
        "35 bad_value",
    ];
    assert_eq!(told("03_types.toml", &[]), lines);
}

#[test]
fn bad_units_and_values_out_of_range_are_told() {
    let lines = [
        "1 out_of_range",
        "5 bad_value",
        "6 out_of_range",
        "7 out_of_range",
        "14 bad_duration",
        "15 bad_duration",
        "18 out_of_range",
        "19 out_of_range",
        "24 bad_size",
        "25 out_of_range",
        "26 out_of_range",
        "29 out_of_range",
        "32 out_of_range",
        "33 out_of_range",
        "36 out_of_range",
        "37 out_of_range",
        "38 bad_value",
        "39 bad_duration",
        "40 unsorted",
    ];
    assert_eq!(told("04_units_and_ranges.toml", &[]), lines);
}

#[test]
fn syntax_errors_are_all_told_and_do_not_hide_or_invent_other_faults() {
    let lines = ["5 syntax", "6 syntax", "10 syntax", "15 unknown_key", "17 syntax"];
    assert_eq!(told("05_syntax.toml", &[]), lines);
}

#[test]
fn missing_variables_are_told_and_what_came_from_the_environment_or_is_secret_is_not_shown() {
    let lines =
        ["5 missing_variable", "6 bad_variable", "7 wrong_type", "11 bad_value", "15 bad_duration", "18 bad_value", "21 wrong_type"];
    assert_eq!(told("06_environment.toml", &[]), lines);
    for name in ["05_syntax.toml", "06_environment.toml"] {
        let faults = check_with(name, &["source.client.\"ssl.key.password\"=hidden-5", "source.client.sasl.secret=\"hidden-6\"", "a=1"])
            .unwrap_err();
        let text = format!("{}\n{faults:?}", faults.report(false));
        assert!(!text.contains("hidden"), "{text}");
    }
}

#[test]
fn what_the_contract_has_and_this_version_has_not_is_refused_by_name() {
    let lines = ["9", "22"].map(|line| format!("{line} not_supported_yet"));
    assert_eq!(told("07_not_yet.toml", &[]), lines);
    let protobuf = told("good.toml", &["event.format=protobuf"]);
    assert_eq!(protobuf, ["--set:1 not_supported_yet"]);
}

#[test]
fn avro_needs_one_place_of_its_schemas() {
    let avro = "event.format=avro";
    let registry = "event.registry={url=\"http://127.0.0.1:8081\",username=\"u\",password=\"p\"}";
    assert!(plan("good.toml", &[avro, registry]).schemas.is_some());
    assert_eq!(told("good.toml", &[avro]).len(), 1);
    assert_eq!(told("good.toml", &[registry]).len(), 1);
    assert_eq!(told("good.toml", &[avro, registry, "event.schema=none.avsc"]).len(), 1);
    assert_eq!(told("good.toml", &[avro, "event.schema=none.avsc"]).len(), 1);
    assert_eq!(told("good.toml", &[avro, "event.registry={url=\"127.0.0.1:8081\"}"]).len(), 1);
}

#[test]
fn snapshots_have_a_place_and_an_interval() {
    let settings = |sets: &[&str]| plan("good.toml", sets).snapshots;
    assert_eq!(settings(&[]), None);
    let minute = Duration::from_secs(60);
    let beside = Place::Folder(PathBuf::from("tests/data/broken/snapshots"));
    assert_eq!(settings(&["state.snapshots=snapshots"]), Some(Settings { place: beside, every: minute }));
    let elsewhere = settings(&["state.snapshots=file:///var/lib/cards", "state.snapshot_every=5s"]).unwrap();
    assert_eq!(elsewhere, Settings { place: Place::Folder(PathBuf::from("/var/lib/cards")), every: Duration::from_secs(5) });
    assert_eq!(told("good.toml", &["state.snapshot_every=5s"]), ["--set:1 missing_key"], "an interval alone does nothing");
    assert_eq!(told("good.toml", &["state.snapshots=gs://bucket"]), ["--set:1 bad_value"]);
    assert_eq!(told("good.toml", &["state.snapshots=x", "state.snapshot_every=5ms"]), ["--set:1 out_of_range"]);
    if cfg!(not(feature = "cloud")) {
        for set in ["state.snapshots=s3://bucket/cards", "sink={kind=\"parquet\",path=\"s3://bucket/cards\"}"] {
            let faults = check_with("good.toml", &[set]).unwrap_err().report(false);
            assert!(faults.contains("--features cloud"), "{faults}");
        }
    }
    assert_eq!(told("good.toml", &["sink={kind=\"parquet\",path=\"gs://bucket/cards\"}"]), ["--set:1 bad_value"]);
}

#[test]
fn a_kind_of_sink_promises_what_it_can_keep_and_refuses_the_rest_with_a_reason() {
    let with = |kind: &str, delivery: &str| format!("sink={{ kind = \"{kind}\", path = \"out\", delivery = \"{delivery}\" }}");
    let good = "dead_letter={ kind = \"ndjson\" }";
    for (kind, right, wrong, reason) in [
        ("parquet", "exactly_once", "at_least_once", "names of the files make it exactly once"),
        ("ndjson", "at_least_once", "exactly_once", "cannot be told from those after it"),
    ] {
        assert!(check_with("good.toml", &[&with(kind, right), good]).is_ok());
        assert_eq!(told("good.toml", &[&with(kind, "exactly_twice"), good]), ["--set:1 bad_value"]);
        let faults = check_with("good.toml", &[&with(kind, wrong), good]).unwrap_err();
        assert!(faults.list().len() == 1 && faults.report(false).contains(reason), "{}", faults.report(false));
    }
}

#[test]
fn what_is_asked_of_the_law_must_fit_together() {
    let lines = ["12 unsorted", "13 duplicate", "14 no_marks", "19 unknown_field", "19 unknown_field", "19 unknown_field", "23 duplicate"];
    assert_eq!(told("08_forecast.toml", &[]), lines);
    assert_eq!(told("good.toml", &["forecast.marks=3", "run.lanes=0"]), ["--set:1 out_of_range", "--set:1 out_of_range"]);
    // A score says nothing of the next event: neither its time nor its mark. That the pipeline names a mark is no fault: the recipe may read the field.
    assert_eq!(told("good.toml", &["model.package=score"]), ["32 no_law_of_time", "33 no_law_of_time", "34 out_of_range"]);
}

#[test]
fn source_sink_and_dead_letters_must_be_three_places_that_fit_the_format() {
    let lines = [
        "9 reserved_setting",
        "10 reserved_setting",
        "13 format_source",
        "15 field_conflict",
        "19 same_topic",
        "20 reserved_setting",
        "24 same_topic",
        "24 same_place",
    ];
    assert_eq!(told("09_places.toml", &[]), lines);
}

#[test]
fn faults_of_the_model_package_are_told_with_those_of_the_file() {
    let lines = ["5 no_files", "5 format_source", "5 no_files", "21 same_place", "model.toml:3 package", "features.toml:4 package"];
    assert_eq!(told("10_package.toml", &[]), lines);
    let gone = told("10_package.toml", &["model.package=gone"]);
    assert_eq!(gone.iter().filter(|line| line.ends_with("no_package")).collect::<Vec<_>>(), ["--set:1 no_package"]);
}

#[test]
fn a_recipe_that_reads_the_label_or_takes_the_mark_for_a_number_is_refused() {
    let lines = told("good.toml", &["model.package=leaky", "event.label=fraud"]);
    assert!(lines.contains(&"--set:1 label_leak".to_owned()), "{lines:?}");
    assert!(lines.contains(&"15 field_conflict".to_owned()), "{lines:?}");
    assert!(!told("good.toml", &["model.package=leaky"]).contains(&"--set:1 label_leak".to_owned()), "without a label nothing leaks");
}

#[test]
fn an_override_that_names_no_key_is_told_with_the_nearest_right_one() {
    let faults = check_with("good.toml", &["sink.topc=x", "foo.bar=1", "run.lanes=two", "run.max_batch"]).unwrap_err();
    let seen: Vec<_> = faults.list().iter().map(|f| (f.file.clone(), f.column, f.code, f.help.clone())).collect();
    assert_eq!(seen.len(), 4, "{seen:?}");
    assert_eq!(seen[0], ("--set".to_owned(), 6, "pipeline::unknown_key", "did you mean `topic`?".to_owned()));
    assert_eq!((seen[1].2, seen[2].2, seen[3].2), ("pipeline::unknown_key", "pipeline::wrong_type", "pipeline::bad_set"));
}

#[test]
fn the_good_file_gives_the_plan_it_describes() {
    let plan = plan("good.toml", &["sink.fields={ z = \"event_id\", a = \"key\", m = \"next_marks\" }"]);
    let source::Settings::Kafka(kafka) = &plan.source else { panic!("not Kafka") };
    assert_eq!((kafka.topic.as_str(), kafka.group.as_str(), kafka.client.brokers.as_str()), ("cards", "meantime-cards", "127.0.0.1:9092"));
    let sink::Settings::Kafka { client, topic } = &plan.sink else { panic!("not Kafka") };
    assert!(client == &kafka.client && topic == "cards-forecasts", "the sink takes over brokers and client of the source");
    assert_eq!(plan.field_names(), ["card", "ts", "id", "amount", "channel"]);
    assert_eq!((plan.schema.mark, plan.schema.label), (Some(1), None));
    assert_eq!(
        (plan.asks.quantiles.as_slice(), plan.asks.marks, plan.horizon_names.as_slice()),
        ([0.1, 0.5, 0.9].as_slice(), 2, ["1h", "24h"].map(String::from).as_slice())
    );
    assert_eq!((plan.lanes, plan.max_batch, plan.commit_every.as_millis(), plan.state.max_keys), (2, 4096, 100, 10_000_000));
    let names: Vec<String> = plan.layout(&plan.identity("f")).fields.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["z", "a", "m"], "fields keep the order in which they are written");
    assert_eq!((plan.identity("f").model.as_str(), plan.identity("f").marks.len()), ("cards", 2));
}

#[test]
fn variables_may_stand_for_numbers_and_sinks_do_not_take_credentials_to_other_brokers() {
    let sets = ["run.max_batch=\"${MEANTIME_TEST_BATCH}\"", "source.client.sasl.password=x", "sink.brokers=elsewhere:9092", "name=7"];
    let plan = plan("good.toml", &sets);
    assert_eq!((plan.max_batch, plan.name.as_str()), (128, "7"));
    let source::Settings::Kafka(kafka) = &plan.source else { panic!("not Kafka") };
    assert_eq!(kafka.client.settings.get("sasl.password").map(String::as_str), Some("x"));
    let sink::Settings::Kafka { client, .. } = &plan.sink else { panic!("not Kafka") };
    assert_eq!((client.brokers.as_str(), client.settings.len()), ("elsewhere:9092", 0));
    let sink::Settings::Kafka { client, .. } = &plan.dead_letter else { panic!("not Kafka") };
    assert!(client == &kafka.client);
    assert!(!format!("{plan:?}").contains("elsewhere"));
}

#[test]
fn a_small_file_gets_the_defaults_and_paths_from_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let text = "name = 'x'\n[source]\nkind = 'file'\npaths = ['*.ndjson']\n[event]\nkey = 'k'\nlabel = 'y'\nmark = 'm'\ntime = { field = 't', unit = 'rfc3339' }\n[sink]\nkind = 'parquet'\npath = 'out'\n[fit]\nnumeric = ['a']\nsplit = { field = 'part' }\n";
    std::fs::write(folder.path().join("pipeline.toml"), text).unwrap();
    for name in ["b.ndjson", "a.ndjson", "c.txt"] {
        std::fs::write(folder.path().join(name), "").unwrap();
    }
    let plan = check_at(folder.path(), &[], Purpose::Fit).unwrap();
    let at = |name: &str| folder.path().join(name);
    assert_eq!(plan.source, source::Settings::File(source::FileSettings { paths: vec![at("a.ndjson").into(), at("b.ndjson").into()] }));
    assert_eq!(plan.dead_letter, sink::Settings::Ndjson { path: at("dead-letters.ndjson") });
    let sink::Settings::Parquet { place, roll_bytes, roll_every, delta: None, folders: sink::Folders::Partition } = &plan.sink else {
        panic!("not Parquet")
    };
    assert_eq!((place, *roll_bytes, roll_every.as_secs()), (&Place::Folder(at("out")), 128 << 20, 60));
    assert_eq!((plan.max_bad_ratio, plan.lanes, plan.max_batch, plan.asks.marks), (0.001, 1, 4096, 3));
    assert_eq!(plan.stop_timeout.as_secs(), 30);
    let with = |set: &str| check_at(folder.path(), &[set], Purpose::Fit);
    assert_eq!(with("run.lanes=2").unwrap().stop_timeout.as_secs(), 30, "the table without the key");
    assert_eq!(with("run.stop_timeout=2m").unwrap().stop_timeout.as_secs(), 120);
    for faulty in ["10ms", "2h", "soon", "5"] {
        assert!(with(&format!("run.stop_timeout={faulty}")).is_err(), "{faulty}");
    }
    assert_eq!((plan.fit.hidden, plan.fit.components, plan.fit.split.clone()), (64, 16, Split::Field("part".to_owned())));
    assert_eq!(plan.field_names(), ["k", "t", "a", "m", "y", "part"]);
    assert_eq!((plan.schema.mark, plan.schema.label, plan.package.clone()), (Some(1), Some(2), at("model")));
    let faults = check_at(folder.path(), &["fit.numeric=['y']"], Purpose::Fit).unwrap_err();
    assert_eq!(faults.list().iter().map(|f| f.code).collect::<Vec<_>>(), ["pipeline::label_leak"]);
    assert!(check_at(folder.path(), &["source.paths=['none']"], Purpose::Generate).is_ok(), "to generate needs neither package nor files");
}

#[test]
fn the_fingerprint_changes_with_what_states_depend_on_and_with_nothing_else() {
    let of = |sets: &[&str], digest: &str| plan("good.toml", sets).fingerprint(digest).unwrap();
    let base = of(&[], "d");
    assert!(base.len() == 16 && base.bytes().all(|byte| byte.is_ascii_hexdigit()), "{base}");
    for other in ["run.lanes=1", "run.max_batch=1", "sink.topic=x", "forecast.quantiles=[0.5]", "name=other", "source.topic=x"] {
        assert_eq!(of(&[other], "d"), base, "{other}");
    }
    for other in
        ["event.key=c", "event.time.unit=s", "order.lateness=1s", "order.late=dead_letter", "state.expiry=1d", "order.max_future_skew=1s"]
    {
        assert_ne!(of(&[other], "d"), base, "{other}");
    }
    // A bound on keys that only stops the stage changes no state; one at which keys are forgotten does.
    assert_eq!(of(&["state.max_keys=5"], "d"), base);
    let evicting = |most: &str| of(&["state.when_full=evict", most], "d");
    assert!(evicting("state.max_keys=5") != base && evicting("state.max_keys=5") != evicting("state.max_keys=6"));
    assert_ne!(of(&[], "e"), base, "another package");
}

#[test]
fn the_error_is_of_the_configuration_and_carries_the_whole_report() {
    let error = pipeline::load(&file("04_units_and_ranges.toml"), &[], Purpose::Run).unwrap_err();
    assert_eq!((error.kind, error.exit_code()), (Kind::Config, 78));
    assert!(error.to_string().ends_with("19 faults in tests/data/broken/04_units_and_ranges.toml"), "{error}");
    let error = pipeline::load(Path::new("tests/data"), &[], Purpose::Run).unwrap_err();
    assert!(error.to_string().contains("tests/data/pipeline.toml"), "{error}");
}

/// What the check of shapes lets through, serde reads: else a fault would hide all others.
#[test]
fn no_value_of_any_type_at_any_key_gets_past_the_check_of_shapes() {
    let values = [
        "1",
        "-1",
        "1.5",
        "nan",
        "true",
        "\"x\"",
        "\"\"",
        "\"1h\"",
        "\"key\"",
        "[]",
        "[1]",
        "[\"x\", 1]",
        "{}",
        "{ a = 1 }",
        "{ kind = 1 }",
        "{ time = 1 }",
        "{ time = {} }",
        "{ field = \"x\", time = {} }",
        "1979-05-27",
        "9223372036854775807",
        "{ time = { valid = 1979-05-27 } }",
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipeline.toml");
    let all = "split = 'key'\nnumeric = []\ncalendar = []\ntime_unit = 's'\nresolution = '1d'\nlearning_rate = 0.1\nseed = 1\nhidden = 1\ndecay = []\n";
    let good = std::fs::read_to_string(file("good.toml")).unwrap() + "[fit]\n" + all + "[sink.fields]\nx = 'key'\n";
    let lines: Vec<&str> = good.lines().collect();
    let mut checked = 0;
    for (i, line) in lines.iter().enumerate() {
        let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) else { continue };
        for value in values {
            let changed = format!("{key} = {value}");
            let text: Vec<&str> = lines.iter().enumerate().map(|(j, line)| if i == j { changed.as_str() } else { line }).collect();
            std::fs::write(&path, text.join("\n")).unwrap();
            for purpose in [Purpose::Run, Purpose::Fit] {
                if let Err(faults) = check_at(&path, &[], purpose) {
                    assert!(faults.list().iter().all(|fault| fault.label != "of another shape"), "{changed}: {faults:?}");
                }
            }
            checked += 1;
        }
    }
    assert!(checked > 500, "{checked}");
}
