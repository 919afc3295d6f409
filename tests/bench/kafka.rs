//! Kafka to Kafka with the score head, beside a bare topic-to-topic copy in the same run; broker and stage on the same machine.

use std::process::Command;
use std::time::Instant;

use super::harness::Broker;
use super::package::{Head, command, payment, write};

const EVENTS: u64 = 1_000_000;

/// User and system seconds of child processes that have ended.
fn children_cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = after.split_whitespace().skip(13).take(2).filter_map(|t| t.parse::<f64>().ok()).sum();
    ticks / 100.0
}

pub fn kafka() {
    let Some(broker) = super::harness::broker(&[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let package = write(folder.path(), Head::Score);
    for keys in [10_000u64, 1_000_000] {
        println!("\nKafka to Kafka, score head, {EVENTS} events, {keys} keys, 4 partitions, broker on the same machine");
        let input = broker.topic(&format!("bench-{keys}"), 4);
        broker.produce(&input, (0..EVENTS).map(|i| payment(i, keys)));
        let mut copy = (0.0, 0.0);
        let mut stage = (0.0, 0.0);
        let mut loose = (0.0, 0.0);
        for round in 0..3 {
            let (rate, cpu) = bare(broker, &input, round);
            copy = (f64::max(copy.0, rate), if copy.1 == 0.0 { cpu } else { f64::min(copy.1, cpu) });
            let (rate, cpu) = run(broker, &input, &package, round, "exactly_once");
            stage = (f64::max(stage.0, rate), if stage.1 == 0.0 { cpu } else { f64::min(stage.1, cpu) });
            let (rate, cpu) = run(broker, &input, &package, round, "at_least_once");
            loose = (f64::max(loose.0, rate), if loose.1 == 0.0 { cpu } else { f64::min(loose.1, cpu) });
        }
        println!("  bare copy     {:>9.0} events/s  {:.2} CPU s per million", copy.0, copy.1);
        let share = |rate: f64| 100.0 * rate / copy.0;
        println!("  exactly once  {:>9.0} events/s  {:.2} CPU s per million   {:.0} % of the copy", stage.0, stage.1, share(stage.0));
        println!("  at least once {:>9.0} events/s  {:.2} CPU s per million   {:.0} % of the copy", loose.0, loose.1, share(loose.0));
        println!("  exactly once at {:.0} % of at least once", 100.0 * stage.0 / loose.0);
    }
}

/// A copy in a process of its own, so that its CPU time can be told apart: this program, called with `copy`.
fn bare(broker: &Broker, input: &str, round: u32) -> (f64, f64) {
    let output = broker.topic(&format!("{input}-copy-{round}"), 4);
    let (cpu, start) = (children_cpu(), Instant::now());
    let status = Command::new(std::env::current_exe().unwrap()).args(["copy", &broker.address, input, &output]).status().unwrap();
    assert!(status.success());
    measure(start, cpu)
}

fn run(broker: &Broker, input: &str, package: &std::path::Path, round: u32, delivery: &str) -> (f64, f64) {
    let output = broker.topic(&format!("{input}-{delivery}-{round}"), 4);
    let delivery = [format!("sink.delivery={delivery}")];
    let (cpu, start) = (children_cpu(), Instant::now());
    let result = command(broker, package, (input, &output), &delivery).arg("--until-caught-up").output().unwrap();
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    measure(start, cpu)
}

fn measure(start: Instant, cpu: f64) -> (f64, f64) {
    let seconds = start.elapsed().as_secs_f64();
    (EVENTS as f64 / seconds, (children_cpu() - cpu) / (EVENTS as f64 / 1e6))
}
