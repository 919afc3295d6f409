//! A real Apache Kafka for tests: one broker per test process, from Maven artifacts, without Docker.
//!
//! `broker` gives the broker at `MEANTIME_KAFKA=host:port`, or starts one where Java 17+ and Maven are found. Otherwise it says in one
//! line how many tests are skipped, or panics where `MEANTIME_REQUIRE_KAFKA=1`. A started broker listens on a free port below the
//! ephemeral range, keeps its log in a folder of its own, and dies with the test process, however that ends.
#![allow(dead_code)] // Several test targets use parts of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use meantime::link::kafka::{Client, Probe};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

/// Base64 of 16 bytes, as Kafka wants the id of a cluster.
const CLUSTER: &str = "bWVhbnRpbWUtdGVzdC0wMQ";
const HOW: &str = "install Java 17+ and Maven, or set MEANTIME_KAFKA=host:port";

/// A record as it stands in a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Row {
    /// A header's value as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| std::str::from_utf8(value).unwrap())
    }
}

/// A broker to test against.
pub struct Broker {
    pub address: String,
    own: Option<Own>,
}

/// A broker that this process has started.
struct Own {
    folder: PathBuf,
    classpath: String,
    child: Mutex<Option<Child>>,
    port: u16,
}

/// The broker shared by all tests of the process; `sources` are the texts of the test files, to count what is skipped.
pub fn broker(sources: &[&str]) -> Option<&'static Broker> {
    static SHARED: OnceLock<Option<Broker>> = OnceLock::new();
    SHARED.get_or_init(|| found(sources)).as_ref()
}

fn found(sources: &[&str]) -> Option<Broker> {
    if let Ok(address) = std::env::var("MEANTIME_KAFKA") {
        return Some(Broker { address, own: None });
    }
    match Broker::start() {
        Ok(broker) => Some(broker),
        Err(why) if std::env::var("MEANTIME_REQUIRE_KAFKA").is_ok_and(|value| value == "1") => {
            panic!("MEANTIME_REQUIRE_KAFKA=1, but there is no broker: {why}; {HOW}")
        }
        Err(why) => {
            let tests: usize = sources.iter().map(|source| source.matches("= broker() else { return };").count()).sum();
            // Straight to stderr: the test runner would swallow `eprintln!` of a passing test.
            let line = format!("skipped {tests} tests that need Kafka ({why}); to run them {HOW}\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            None
        }
    }
}

impl Broker {
    /// Starts a broker of its own, for a test that kills it. `Err` says what is missing.
    pub fn start() -> Result<Broker, String> {
        Broker::start_with(None)
    }

    /// As `start`; clients that come by way of this port of a `Wire` are led there for everything. Returns where the wire has to end, too.
    pub fn start_behind(wire: u16) -> Result<(Broker, u16), String> {
        let broker = Broker::start_with(Some(wire))?;
        let port = broker.own.as_ref().map_or(0, |own| own.port + 2);
        Ok((broker, port))
    }

    fn start_with(wire: Option<u16>) -> Result<Broker, String> {
        let java = java_version()?;
        if java < 17 {
            return Err(format!("Java {java} is too old"));
        }
        let classpath = classpath()?;
        // Two that look for a free port at the same time would find the same one.
        static STARTING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last = String::new();
        for attempt in 0..3 {
            match Broker::start_on(&classpath, free_port(attempt), wire) {
                Ok(broker) => return Ok(broker),
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    fn start_on(classpath: &str, port: u16, wire: Option<u16>) -> Result<Broker, String> {
        let folder = std::env::temp_dir().join(format!("meantime-broker-{}-{port}", std::process::id()));
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let logs = folder.join("logs");
        let controller = port + 1;
        let (listens, advertised) =
            wire.map_or_else(Default::default, |wire| (format!(",WIRE://127.0.0.1:{}", port + 2), format!(",WIRE://127.0.0.1:{wire}")));
        let settings = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{listens}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}{advertised}\ncontroller.listener.names=CONTROLLER\n\
             inter.broker.listener.name=PLAINTEXT\nlistener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,WIRE:PLAINTEXT\n\
             log.dirs={}\noffsets.topic.replication.factor=1\noffsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\ntransaction.state.log.num.partitions=4\n\
             group.initial.rebalance.delay.ms=0\nlog.retention.ms=-1\nauto.create.topics.enable=true\n",
            logs.display()
        );
        fs::write(folder.join("server.properties"), settings).map_err(|error| error.to_string())?;
        let own = Own { folder, classpath: classpath.to_owned(), child: Mutex::new(None), port };
        let formatted = own
            .java("kafka.tools.StorageTool")
            .args(["format", "-t", CLUSTER, "-c"])
            .arg(own.folder.join("server.properties"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !formatted.is_ok_and(|status| status.success()) {
            return Err("the log folder could not be formatted".to_owned());
        }
        own.watch()?;
        own.launch()?;
        Ok(Broker { address: format!("127.0.0.1:{port}"), own: Some(own) })
    }

    /// kill -9, as a crash would.
    pub fn kill(&self) {
        let own = self.own.as_ref().expect("a broker of its own");
        let child = own.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut child) = child {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again on the same folder and port.
    pub fn restart(&self) {
        self.own.as_ref().expect("a broker of its own").launch().unwrap();
    }

    /// How the code under test reaches it.
    pub fn client(&self) -> Client {
        Client { brokers: self.address.clone(), ..Client::default() }
    }

    /// Settings for a plain rdkafka client.
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address);
        config
    }

    /// A new topic whose name starts with `name`.
    pub fn topic(&self, name: &str, partitions: i32) -> String {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let topic = format!("{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        self.create_topic(&topic, partitions);
        topic
    }

    /// Creates a topic.
    pub fn create_topic(&self, topic: &str, partitions: i32) {
        meantime::sink::kafka::create_topic(&self.client(), topic, partitions).unwrap();
    }

    /// Writes records (key, payload) by key and waits until all are acknowledged.
    pub fn produce(&self, topic: &str, records: impl IntoIterator<Item = (String, String)>) {
        let producer: ThreadedProducer<DefaultProducerContext> =
            self.config().set("partitioner", "murmur2_random").set("linger.ms", "5").create().unwrap();
        records.into_iter().for_each(|(key, payload)| send(&producer, topic, None, &key, &payload));
        producer.flush(Duration::from_secs(30)).unwrap();
    }

    /// Writes records (partition, payload) in one transaction, committed or aborted: a control record follows them in each partition.
    pub fn transaction(&self, topic: &str, records: impl IntoIterator<Item = (i32, String)>, commit: bool) {
        let producer: ThreadedProducer<DefaultProducerContext> =
            self.config().set("transactional.id", format!("txn-{topic}")).create().unwrap();
        producer.init_transactions(Duration::from_secs(30)).unwrap();
        producer.begin_transaction().unwrap();
        records.into_iter().for_each(|(partition, payload)| send(&producer, topic, Some(partition), "k", &payload));
        producer.flush(Duration::from_secs(30)).unwrap();
        if commit {
            producer.commit_transaction(Duration::from_secs(30)).unwrap();
        } else {
            producer.abort_transaction(Duration::from_secs(30)).unwrap();
        }
    }

    /// First and next offset of each partition, control records included.
    pub fn ends(&self, topic: &str) -> BTreeMap<i32, (i64, i64)> {
        let consumer: BaseConsumer = self.config().create().unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).unwrap();
        let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions()).map(|partition| partition.id());
        partitions.map(|p| (p, consumer.fetch_watermarks(topic, p, Duration::from_secs(10)).unwrap())).collect()
    }

    /// All committed records of a topic, by partition and offset.
    pub fn read_all(&self, topic: &str) -> Vec<Row> {
        let ends = self.ends(topic);
        let consumer: BaseConsumer = self
            .config()
            .set("group.id", "read-all")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        let open = ends.iter().filter(|(_, (low, high))| high > low).map(|(partition, _)| *partition).collect::<Vec<_>>();
        open.iter().for_each(|partition| list.add_partition_offset(topic, *partition, Offset::Beginning).unwrap());
        consumer.assign(&list).unwrap();
        let mut rows = Vec::new();
        let mut at_end = 0;
        let started = Instant::now();
        while at_end < open.len() {
            assert!(started.elapsed() < Duration::from_secs(60), "topic {topic} could not be read to its end");
            match consumer.poll(Duration::from_millis(200)) {
                Some(Ok(message)) => rows.push(Row {
                    partition: message.partition(),
                    offset: message.offset(),
                    key: message.key().map(<[u8]>::to_vec),
                    payload: message.payload().map(<[u8]>::to_vec),
                    headers: message.headers().map_or_else(Vec::new, |headers| {
                        headers.iter().map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec())).collect()
                    }),
                }),
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => at_end += 1,
                Some(Err(error)) => panic!("{error}"),
                None => {}
            }
        }
        rows.sort_by_key(|row| (row.partition, row.offset));
        rows
    }

    /// Committed offsets of a group.
    pub fn committed(&self, group: &str, topic: &str) -> BTreeMap<i32, i64> {
        let client = self.client();
        let probe = Probe::new("test", &client, Some(group)).unwrap();
        let (_, partitions) = probe.topic(topic).unwrap();
        probe.committed(topic, partitions).unwrap().into_iter().map(|(partition, next, _)| (partition, next)).collect()
    }

    /// Commits an offset for a group that has no members.
    pub fn commit(&self, group: &str, topic: &str, partition: i32, offset: i64) {
        let consumer: BaseConsumer = self.config().set("group.id", group).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
        consumer.commit(&list, CommitMode::Sync).unwrap();
    }
}

fn send(producer: &ThreadedProducer<DefaultProducerContext>, topic: &str, partition: Option<i32>, key: &str, payload: &str) {
    let mut record = BaseRecord::to(topic).key(key).payload(payload);
    record.partition = partition;
    while let Err((error, refused)) = producer.send(record) {
        assert_eq!(error.rdkafka_error_code(), Some(rdkafka::types::RDKafkaErrorCode::QueueFull), "{error}");
        std::thread::sleep(Duration::from_millis(1));
        record = refused;
    }
}

impl Own {
    fn java(&self, class: &str) -> Command {
        let mut command = Command::new("java");
        command.args(["-Xmx1g", "-cp", &self.classpath, class]).stdin(Stdio::null());
        command
    }

    /// Starts the broker process and waits until it answers.
    fn launch(&self) -> Result<(), String> {
        let log = self.folder.join("broker.log");
        let out = fs::File::create(&log).map_err(|error| error.to_string())?;
        let err = out.try_clone().map_err(|error| error.to_string())?;
        let mut command = self.java("kafka.Kafka");
        // A group of its own: Ctrl-C goes to the test, and the watch cleans up.
        command.arg(self.folder.join("server.properties")).stdout(out).stderr(err).process_group(0);
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        fs::write(self.folder.join("pid"), child.id().to_string()).map_err(|error| error.to_string())?;
        let started = Instant::now();
        loop {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if text.contains("Kafka Server started") {
                *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
                return Ok(());
            }
            if child.try_wait().is_ok_and(|status| status.is_some()) || started.elapsed() > Duration::from_secs(60) {
                let _ = child.kill();
                let tail = text.lines().rev().take(5).collect::<Vec<_>>().join(" | ");
                return Err(format!("the broker did not start on port {}: {tail}", self.port));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A small shell loop that outlives the test process, kills the broker and removes its folder.
    fn watch(&self) -> Result<(), String> {
        let script = "while kill -0 \"$1\" 2>/dev/null && [ -d \"$2\" ]; do sleep 0.3; done; kill -9 \"$(cat \"$2/pid\")\" 2>/dev/null; rm -rf \"$2\"";
        Command::new("sh")
            .args(["-c", script, "watch", &std::process::id().to_string()])
            .arg(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map(|_| ())
            .map_err(|error| error.to_string())
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut child) = child {
            let _ = child.kill();
            let _ = child.wait();
        }
        // The watch sees that the folder is gone and ends.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn java_version() -> Result<u32, String> {
    let output = Command::new("java").arg("-version").output().map_err(|_| "no java".to_owned())?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let version = text.split('"').nth(1).and_then(|version| version.split('.').next()).and_then(|major| major.parse().ok());
    version.ok_or_else(|| "java -version says nothing understandable".to_owned())
}

/// The jars of the broker, resolved by Maven once and kept below the target folder.
fn classpath() -> Result<String, String> {
    let pom = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broker/pom.xml");
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("broker");
    fs::create_dir_all(&cache).map_err(|error| error.to_string())?;
    let text = fs::read_to_string(&pom).map_err(|error| error.to_string())?;
    let kept = (cache.join("pom.xml"), cache.join("classpath"));
    if fs::read_to_string(&kept.0).is_ok_and(|before| before == text)
        && let Ok(path) = fs::read_to_string(&kept.1)
        && path.split(':').all(|jar| Path::new(jar).exists())
    {
        return Ok(path);
    }
    let fresh = cache.join(format!("classpath-{}", std::process::id()));
    let output = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(&pom)
        .arg("dependency:build-classpath")
        .arg(format!("-Dmdep.outputFile={}", fresh.display()))
        .output()
        .map_err(|_| "no mvn".to_owned())?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout).lines().take(3).collect::<Vec<_>>().join(" | ");
        return Err(format!("Maven did not resolve the broker: {text}"));
    }
    fs::rename(&fresh, &kept.1).and_then(|()| fs::write(&kept.0, text)).map_err(|error| error.to_string())?;
    fs::read_to_string(&kept.1).map(|path| path.trim().to_owned()).map_err(|error| error.to_string())
}

/// A port, and the next two, that nobody listens on: below the ephemeral range, so that no client socket takes it meanwhile. Never one that was given before in this
/// process: a broker that is killed comes back to its port, and to the folder that is called after it.
fn free_port(attempt: u32) -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let first = (std::process::id() * 2 + attempt * 1000) % 10_000;
    let own = |port: u16| [port, port + 1, port + 2];
    let port = (0..5_000)
        .map(|step| 19_000 + u16::try_from((first + step * 2) % 10_000).unwrap())
        .find(|port| own(*port).iter().all(|port| !given.contains(port) && TcpListener::bind(("127.0.0.1", *port)).is_ok()))
        .expect("a free port between 19000 and 29000");
    given.extend(own(port));
    port
}
