//! What snapshots cost while a stage runs, and what they save when it starts again: a million keys with 64 floats, Kafka to Kafka.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::harness::Broker;
use super::package::{Head, command, payment, write};

const EVENTS: u64 = 4_000_000;
const KEYS: u64 = 1_000_000;
const PARTITIONS: usize = 4;

pub fn recovery() {
    let Some(broker) = super::harness::broker(&[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let package = write(folder.path(), Head::Score);
    println!(
        "\nRecovery, score head, {EVENTS} events, {KEYS} keys of 64 floats, {PARTITIONS} partitions, 1 lane, broker on the same machine"
    );
    let input = broker.topic("recovery", PARTITIONS as i32);
    broker.produce(&input, (0..EVENTS).map(|i| payment(i, KEYS)));
    let snapshots = format!("state.snapshots={}", folder.path().join("snapshots").display());
    let with = [snapshots, "state.snapshot_every=10s".to_owned()];
    let (mut bare, mut kept) = (f64::MAX, f64::MAX);
    let (mut plain, mut snapped) = (String::new(), String::new());
    for round in 0..2 {
        plain = broker.topic(&format!("recovery-plain-{round}"), PARTITIONS as i32);
        bare = bare.min(whole(broker, &input, &plain, &package, &[]));
        snapped = broker.topic(&format!("recovery-snapped-{round}"), PARTITIONS as i32);
        kept = kept.min(whole(broker, &input, &snapped, &package, &with));
    }
    let rate = |seconds: f64| EVENTS as f64 / seconds;
    println!("  live, no snapshots           {:>9.0} events/s", rate(bare));
    println!("  live, snapshots every 10 s   {:>9.0} events/s   {:.1} % less", rate(kept), 100.0 * (1.0 - bare / kept));
    let (first, all) = restart(broker, &input, &plain, &package, &[]);
    let replay = rate(all);
    println!(
        "  restart by replay alone      first partition live after {first:.2} s, all after {all:.2} s: {replay:.0} events/s, {:.2} x live",
        replay / rate(bare)
    );
    let (first, all) = restart(broker, &input, &snapped, &package, &with);
    println!("  restart from snapshots       first partition live after {first:.2} s, all after {all:.2} s");
}

/// Seconds of a run over the whole input, its start and end included.
fn whole(broker: &Broker, input: &str, output: &str, package: &Path, more: &[String]) -> f64 {
    let start = Instant::now();
    let result = command(broker, package, (input, output), more).arg("--until-caught-up").output().unwrap();
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    start.elapsed().as_secs_f64()
}

/// Starts it again and says after how many seconds the first partition was live, and all; the process's start and joining the group included.
fn restart(broker: &Broker, input: &str, output: &str, package: &Path, more: &[String]) -> (f64, f64) {
    let start = Instant::now();
    let mut child = command(broker, package, (input, output), more).args(["--http", "127.0.0.1:0"]).stderr(Stdio::piped()).spawn().unwrap();
    let address = served(&mut child);
    let mut first = None;
    let all = loop {
        assert!(start.elapsed() < Duration::from_secs(300), "not live");
        let live = metrics(&address)
            .lines()
            .filter(|line| line.starts_with("meantime_partition_state{") && line.contains("live") && line.ends_with(" 1"))
            .count();
        let now = start.elapsed().as_secs_f64();
        if live > 0 {
            first.get_or_insert(now);
        }
        if live == PARTITIONS {
            break now;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    (first.unwrap_or(all), all)
}

/// Where the child serves its metrics, from its log; the rest of the log is read by a thread.
fn served(child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let found = lines.by_ref().map_while(Result::ok).find_map(|line| {
        let at = line.find("127.0.0.1:").filter(|_| line.contains("serving"))?;
        Some(line[at..].chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect::<String>())
    });
    std::thread::spawn(move || lines.for_each(drop));
    found.expect("the log says where metrics are served")
}

fn metrics(address: &str) -> String {
    let mut answer = String::new();
    if let Ok(mut stream) = TcpStream::connect(address) {
        let _ = stream.write_all(format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes());
        let _ = stream.read_to_string(&mut answer);
    }
    answer
}
