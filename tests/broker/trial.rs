//! A whole pipeline as a program, on topics of its own: its instances, and what must be true of what they have written.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use meantime::link::kafka::Probe;
use meantime::sink::kafka::{Position, audit};
use serde_json::Value;

use super::harness::Broker;

/// A stage that needs longer for what is left does not work.
pub const PATIENCE: Duration = Duration::from_secs(900);

pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

pub fn seed() -> u64 {
    setting("MEANTIME_KILL_SEED", 1)
}

pub fn program() -> String {
    std::env::var("MEANTIME_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_meantime").to_owned())
}

/// Event `i`: 997 keys that are hit again and again, one record in a thousand that cannot be used.
pub fn event(i: u64) -> (String, String) {
    let key = format!("c{}", (i * 7919) % 997);
    if i % 1000 == 13 {
        return (key, format!("event {i} is not JSON"));
    }
    let (ts, channel) = (1_735_000_000_000 + i * 1700, ["pos", "web", "atm"][(i % 3) as usize]);
    let payload = format!(r#"{{"id":"e{i}","card":"{key}","ts":{ts},"amount":{}.25,"mcc":"{}","channel":"{channel}"}}"#, i % 90, i % 7);
    (key, payload)
}

/// One pipeline on topics of its own, with logs of its instances.
pub struct Trial<'a> {
    pub broker: &'a Broker,
    pub name: String,
    pub input: String,
    pub output: String,
    pub logs: tempfile::TempDir,
    pub delivery: &'static str,
    pub dead: String,
    /// Instances keep their names over restarts, so the group knows them again and does not wait for their sessions to end.
    pub named: bool,
    /// Key states are kept in snapshots; otherwise every start replays the whole input.
    pub snapshots: bool,
    /// More of the pipeline's options.
    pub sets: Vec<String>,
}

impl<'a> Trial<'a> {
    pub fn new(broker: &'a Broker, name: &str, delivery: &'static str) -> Self {
        let topic = |suffix: &str| broker.topic(&format!("{name}-{suffix}"), 4);
        let logs = tempfile::tempdir().unwrap();
        let (input, output, dead) = (topic("in"), topic("out"), topic("dead"));
        Trial { broker, name: name.to_owned(), input, output, dead, logs, delivery, named: true, snapshots: false, sets: Vec::new() }
    }

    /// The same input into other topics, as another group, exactly once.
    pub fn undisturbed(&self) -> Trial<'a> {
        let other = Trial::new(self.broker, &format!("{}-ref", self.name), "exactly_once");
        Trial { input: self.input.clone(), named: false, ..other }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        let (name, options) = arguments.split_first().unwrap();
        // `state ls` is two words.
        command.args(name.split(' ')).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/cards")).args(options);
        for set in [
            format!("source.brokers={}", self.broker.address),
            format!("source.topic={}", self.input),
            format!("source.group={}", self.output),
            format!("sink.topic={}", self.output),
            format!("sink.delivery={}", self.delivery),
            format!("dead_letter.topic={}", self.dead),
            "dead_letter.max_bad_ratio=0.01".to_owned(),
        ] {
            command.args(["--set", &set]);
        }
        if self.snapshots {
            command.args(["--set", &format!("state.snapshots={}", self.logs.path().join("snapshots").display())]);
            command.args(["--set", "state.snapshot_every=1s"]);
        }
        for set in &self.sets {
            command.args(["--set", set]);
        }
        command.stdin(Stdio::null());
        command
    }

    pub fn log(&self, instance: &str) -> PathBuf {
        self.logs.path().join(instance)
    }

    /// Starts an instance.
    pub fn start(&self, instance: &str) -> Instance {
        self.start_dying(instance, None)
    }

    /// Starts an instance that dies at a fail point.
    pub fn start_dying(&self, instance: &str, point: Option<&str>) -> Instance {
        self.start_with(instance, &|command| {
            if let Some(point) = point {
                command.env("MEANTIME_FAIL_POINT", point);
            }
        })
    }

    /// Starts an instance that reaches the broker at another address.
    pub fn start_at(&self, instance: &str, address: &str) -> Instance {
        self.start_with(instance, &|command| {
            command.args(["--set", &format!("source.brokers={address}")]);
        })
    }

    fn start_with(&self, instance: &str, with: &dyn Fn(&mut Command)) -> Instance {
        let log = OpenOptions::new().create(true).append(true).open(self.log(instance)).unwrap();
        let mut command = self.command(&["run"]);
        if self.named {
            command.args(["--set", &format!("source.instance={instance}")]);
        }
        with(&mut command);
        command.stdout(Stdio::null()).stderr(log);
        Instance { child: command.spawn().unwrap(), log: self.log(instance) }
    }

    /// Runs until everything is done that the input holds now.
    pub fn finish(&self) {
        let started = Instant::now();
        let log = OpenOptions::new().create(true).append(true).open(self.log("finish")).unwrap();
        let mut command = self.command(&["run", "--until-caught-up"]);
        if self.named {
            command.args(["--set", "source.instance=a"]);
        }
        command.stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn().unwrap();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if started.elapsed() > PATIENCE {
                child.kill().unwrap();
                panic!("not caught up after {PATIENCE:?}:\n{}", tail(&self.log("finish")));
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(status.success(), "{status}:\n{}", tail(&self.log("finish")));
    }

    /// Waits until the group has committed so many records.
    pub fn wait_committed(&self, records: u64) {
        self.wait_committed_while(records, &mut || ());
    }

    /// As `wait_committed`; looks after something meanwhile.
    pub fn wait_committed_while(&self, records: u64, look: &mut dyn FnMut()) {
        let started = Instant::now();
        let client = self.broker.client();
        // A broker that has just been started again does not answer for a while.
        let committed = || Probe::new("test", &client, Some(&self.output)).and_then(|probe| probe.committed(&self.input, 4));
        while committed().map_or(0, |found| found.iter().map(|(_, next, _)| *next).sum::<i64>()) < records as i64 {
            look();
            assert!(started.elapsed() < PATIENCE, "{records} records were not committed; seed {}\n{}", seed(), self.tails());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn verify(&self) -> (Output, Value) {
        let output = self.command(&["verify", "--json"]).output().unwrap();
        let found = serde_json::from_slice(&output.stdout);
        let found = found.unwrap_or_else(|_| panic!("verify: {}", String::from_utf8_lossy(&output.stderr)));
        (output, found)
    }

    pub fn must_be_complete(&self, events: u64) {
        let (output, found) = self.verify();
        println!("{}: {found}", self.name);
        assert!(output.status.success(), "seed {}: {found}\n{}", seed(), self.tails());
        for kind in ["missing", "repeated", "unknown", "out_of_order", "split_keys", "ahead", "unplaced"] {
            assert_eq!(found[kind]["count"], 0, "seed {}: {found}", seed());
        }
        assert_eq!((&found["records"], &found["behind"]), (&Value::from(events), &Value::from(0)), "{found}");
        assert_eq!(found["forecasts"].as_u64().unwrap() + found["dead_letters"].as_u64().unwrap(), events);
        assert_eq!(found["all_keys"], true, "{found}");
    }

    pub fn tails(&self) -> String {
        let logs = fs::read_dir(self.logs.path()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        logs.map(|log| format!("== {}\n{}", log.display(), tail(&log))).collect()
    }

    /// Hash of the value bytes of each forecast by input position. A repeat must have the same; returns how many repeats there were.
    pub fn forecasts(&self) -> (BTreeMap<(i32, i64), u64>, u64) {
        let (mut all, mut repeats) = (BTreeMap::new(), 0);
        let client = self.broker.client();
        let spans = audit::spans(&client, &self.output).unwrap();
        audit::read(&client, &self.output, &self.output, &spans, &mut |found| {
            let audit::Origin::At(Position { partition, offset, .. }) = found.origin else { panic!("no position at {:?}", found.at) };
            let mut hasher = DefaultHasher::new();
            (found.key, found.payload).hash(&mut hasher);
            let hash = hasher.finish();
            if let Some(before) = all.insert((partition.0, offset.0), hash) {
                assert_eq!(before, hash, "the repeat of {partition}:{offset} has other bytes; seed {}", seed());
                repeats += 1;
            }
            Ok(())
        })
        .unwrap();
        (all, repeats)
    }

    /// The forecasts must be those of a run that nothing disturbs.
    pub fn must_equal_an_undisturbed_run(&self) -> u64 {
        let reference = self.undisturbed();
        reference.finish();
        let ((expected, _), (found, repeats)) = (reference.forecasts(), self.forecasts());
        assert_eq!(found.len(), expected.len(), "seed {}", seed());
        let differ: Vec<_> = expected.iter().filter(|(position, hash)| found.get(position) != Some(hash)).map(|(at, _)| at).collect();
        assert!(differ.is_empty(), "seed {}: {} forecasts differ, first {:?}", seed(), differ.len(), &differ[..differ.len().min(5)]);
        repeats
    }
}

pub fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}

/// A running instance; killed when it goes out of scope.
pub struct Instance {
    pub child: Child,
    pub log: PathBuf,
}

impl Instance {
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success(), "kill {signal}");
    }

    /// The status, if it ends by itself within the limit.
    pub fn ended(&mut self, limit: Duration) -> Option<ExitStatus> {
        let started = Instant::now();
        loop {
            match self.child.try_wait().unwrap() {
                None if started.elapsed() < limit => std::thread::sleep(Duration::from_millis(20)),
                status => return status,
            }
        }
    }

    /// SIGTERM must end it with 0.
    pub fn stop(mut self) {
        self.signal("-TERM");
        let status = self.ended(Duration::from_secs(60));
        assert!(status.is_some_and(|status| status.success()), "SIGTERM: {status:?}\n{}", tail(&self.log));
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
