//! A log as it may be in the worst case: few keys, times out of order, holes between offsets, records that cannot be used.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::base::offset::{Offset, Partition};
use crate::base::time::EventTime;
use crate::source::scripted::Record;

/// The records of each partition, and where its log ends: after the last one there may be offsets without a record.
pub struct Log {
    pub partitions: Vec<Vec<Record>>,
    pub ends: Vec<Offset>,
}

/// Milliseconds since 1970 at which the first record may come.
pub const START: i64 = 1_700_000_000_000;
pub const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

impl Log {
    pub fn generate(rng: &mut ChaCha8Rng) -> Log {
        let mut log = Log { partitions: Vec::new(), ends: Vec::new() };
        for partition in 0..rng.random_range(1..=3) {
            let (mut next, mut time) = (0_i64, START);
            let mut records = Vec::new();
            for _ in 0..rng.random_range(5..45) {
                if rng.random_bool(0.1) {
                    next += rng.random_range(1..4);
                }
                time += if rng.random_bool(0.02) { 3 * DAY } else { rng.random_range(0..20 * MINUTE) };
                records.push(record(rng, partition, next, time));
                next += 1;
            }
            if rng.random_bool(0.3) {
                next += rng.random_range(1..3);
            }
            log.partitions.push(records);
            log.ends.push(Offset(next));
        }
        log
    }

    pub fn all(&self) -> Vec<Partition> {
        (0..self.ends.len()).map(|p| Partition(p as i32)).collect()
    }

    pub fn records(&self, partition: Partition) -> &[Record] {
        &self.partitions[partition.0 as usize]
    }

    pub fn end(&self, partition: Partition) -> Offset {
        self.ends[partition.0 as usize]
    }

    /// `next`, raised over offsets that have no record.
    pub fn over(&self, partition: Partition, next: Offset) -> Offset {
        let records = self.records(partition);
        records.get(records.partition_point(|record| record.offset < next)).map_or(self.end(partition), |record| record.offset)
    }
}

fn record(rng: &mut ChaCha8Rng, partition: i32, offset: i64, now: i64) -> Record {
    let key = format!("c{}", rng.random_range(0..6));
    let mut time = now;
    if rng.random_bool(0.3) {
        time -= rng.random_range(0..90 * MINUTE);
    }
    let recorded = rng.random_bool(0.7).then_some(EventTime(now * 1000));
    if rng.random_bool(0.03) {
        time += 2 * DAY;
    }
    let channel = ["pos", "web", "atm", "new"][rng.random_range(0..4)];
    let amount = f64::from(rng.random_range(1..100_000)) / 100.0;
    let mcc = rng.random_range(0..5);
    let good =
        format!(r#"{{"id":"e{partition}-{offset}","card":"{key}","ts":{time},"amount":{amount},"mcc":{mcc},"channel":"{channel}"}}"#);
    let payload = match rng.random_range(0..100) {
        0..3 => Some(b"{".to_vec()),
        3 => None,
        _ => Some(good.into_bytes()),
    };
    Record { partition: Partition(partition), offset: Offset(offset), recorded, key: Some(key.into_bytes()), payload }
}
