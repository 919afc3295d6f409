//! Counts outputs against inputs: two bits an input offset, and the order of the keys it can remember.

use std::collections::BTreeMap;

use hashbrown::hash_map::Entry;
use hashbrown::{HashMap, HashSet};
use serde::Serialize;

use crate::base::error::{Error, Result};
use crate::base::offset::{Offset, Partition};

/// Keys that are remembered at once, about 40 bytes each.
const MAX_KEYS: usize = 1 << 20;
/// Examples of each fault.
const EXAMPLES: usize = 5;

/// Where something stands.
pub type Position = (Partition, Offset);

/// One kind of fault: how many there are, and the first few.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// How many.
    pub count: u64,
    /// `partition:offset` of the first few, or `partition:first-last` of neighbours, with what was found.
    pub first: Vec<String>,
}

impl Faults {
    /// Counts one; `example` says which.
    pub fn note(&mut self, example: impl FnOnce() -> String) {
        self.add(1, example);
    }

    fn add(&mut self, count: u64, example: impl FnOnce() -> String) {
        self.count = self.count.saturating_add(count);
        if self.first.len() < EXAMPLES {
            self.first.push(example());
        }
    }
}

/// What a ledger has found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// Records without an output.
    pub missing: Faults,
    /// Outputs beyond the first one of a record.
    pub repeated: Faults,
    /// Outputs of records that do not exist.
    pub unknown: Faults,
    /// Forecasts that stand before one of an earlier event of their key.
    pub out_of_order: Faults,
    /// Forecasts in another output partition than earlier ones of their key, or of records in another input partition: then the key has a state in each,
    /// of a part of its events.
    pub split_keys: Faults,
    /// Outputs of records that are not committed as done.
    pub ahead: Faults,
    /// Input records that are committed as done.
    pub records: u64,
    /// Outputs of records that the input topic has deleted since.
    pub deleted: u64,
    /// Keys whose order was checked.
    pub keys_checked: u64,
    /// Whether these are all keys; otherwise an even sample.
    pub all_keys: bool,
}

/// Progress of one input partition.
struct Line {
    low: i64,
    /// Records below must have an output.
    required: i64,
    /// Records below may have one.
    allowed: i64,
    /// Two bits an offset from `low` to `allowed`.
    bits: Vec<u8>,
}

// What the two bits say.
const NO_RECORD: u8 = 0;
const NO_OUTPUT: u8 = 1;
const ONE_OUTPUT: u8 = 2;
const REPEATED: u8 = 3;

impl Line {
    fn place(&self, offset: Offset) -> Option<(usize, u32)> {
        let at = usize::try_from(offset.0.checked_sub(self.low)?).ok().filter(|_| offset.0 < self.allowed)?;
        Some((at / 4, u32::try_from(at % 4).ok()? * 2))
    }

    fn get(&self, offset: Offset) -> u8 {
        self.place(offset).and_then(|(byte, shift)| Some((self.bits.get(byte)? >> shift) & 3)).unwrap_or(NO_RECORD)
    }

    fn set(&mut self, offset: Offset, value: u8) {
        if let Some((byte, shift)) = self.place(offset)
            && let Some(bits) = self.bits.get_mut(byte)
        {
            *bits = (*bits & !(3 << shift)) | (value << shift);
        }
    }
}

/// A forecast's place among those of its key.
#[derive(Clone, Copy, Debug)]
pub struct Keyed<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Where the forecast stands in the output topic; `None` in a file.
    pub stands: Option<Position>,
    /// What must rise from forecast to forecast of a key in one input partition: the input offset, or the key's count of events, which
    /// begins anew at 1 when a key has expired.
    pub rank: Rank,
}

/// What orders the forecasts of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// The offset of the input record.
    Offset,
    /// `n_events` of the forecast.
    Count(i64),
}

struct Last {
    rank: i64,
    /// Of the output topic; `None` as long as all stood in files.
    partition: Option<Partition>,
}

/// Outputs counted against inputs. First all records, then all outputs, in the order of each output partition.
pub struct Ledger {
    lines: BTreeMap<Partition, Line>,
    keys: HashMap<u64, Last, foldhash::fast::FixedState>,
    /// Input partition of each key, by its hash alone.
    homes: HashMap<u64, Partition, foldhash::fast::FixedState>,
    hasher: foldhash::quality::FixedState,
    /// Rows of the kind `overdue` that were seen: position and bits of the quantile.
    overdue: HashSet<(Position, u64), foldhash::fast::FixedState>,
    /// Only keys whose hash ends in so many zeros are remembered.
    sampled: u32,
    /// The same of `homes`.
    homes_sampled: u32,
    max_keys: usize,
    findings: Findings,
}

impl Ledger {
    /// A ledger for partitions (first offset, end of the records that must have an output, end of those that may have one).
    ///
    /// # Errors
    /// The offsets span more than memory can hold.
    pub fn new(partitions: impl IntoIterator<Item = (Partition, (Offset, Offset, Offset))>) -> Result<Self> {
        let mut lines = BTreeMap::new();
        for (partition, (low, required, allowed)) in partitions {
            let bytes = usize::try_from(allowed.0.saturating_sub(low.0).max(0)).unwrap_or(usize::MAX).div_ceil(4);
            let mut bits = Vec::new();
            if bits.try_reserve_exact(bytes).is_err() {
                let text = format!("{bytes} bytes for the offsets {low} to {allowed} do not fit into memory");
                return Err(Error::config("verify", text).at(format!("partition {partition}")).help("verify on a larger machine"));
            }
            bits.resize(bytes, 0);
            lines.insert(partition, Line { low: low.0, required: required.0, allowed: allowed.0, bits });
        }
        Ok(Ledger {
            lines,
            keys: HashMap::default(),
            homes: HashMap::default(),
            hasher: foldhash::quality::FixedState::default(),
            overdue: HashSet::default(),
            sampled: 0,
            homes_sampled: 0,
            max_keys: MAX_KEYS,
            findings: Findings::default(),
        })
    }

    /// Notes that the input has a record there.
    pub fn record(&mut self, (partition, offset): Position) {
        if let Some(line) = self.lines.get_mut(&partition) {
            line.set(offset, NO_OUTPUT);
            if offset.0 < line.required {
                self.findings.records += 1;
            }
        }
    }

    /// Counts an output of the record at a position; `what` and `stands` name it in examples. Returns whether it is the first one of its record.
    pub fn output(&mut self, (partition, offset): Position, stands: &dyn Fn() -> String) -> bool {
        let findings = &mut self.findings;
        let name = || format!("{partition}:{offset} ({})", stands());
        let Some(line) = self.lines.get_mut(&partition) else {
            findings.unknown.note(name);
            return false;
        };
        if offset.0 >= line.allowed {
            findings.ahead.note(name);
            return false;
        }
        if offset.0 < line.low {
            findings.deleted += 1;
            return false;
        }
        match line.get(offset) {
            NO_RECORD => findings.unknown.note(name),
            NO_OUTPUT => {
                line.set(offset, ONE_OUTPUT);
                return true;
            }
            _ => {
                line.set(offset, REPEATED);
                findings.repeated.note(name);
            }
        }
        false
    }

    /// Counts a row that says that no event has followed the record by a quantile of its law: once a record and quantile.
    pub fn overdue(&mut self, (partition, offset): Position, quantile: f64) {
        let name = || format!("{partition}:{offset} (overdue by {quantile})");
        let findings = &mut self.findings;
        match self.lines.get(&partition) {
            None => findings.unknown.note(name),
            Some(line) if offset.0 >= line.allowed => findings.ahead.note(name),
            Some(line) if offset.0 < line.low => findings.deleted += 1,
            Some(line) if line.get(offset) == NO_RECORD => findings.unknown.note(name),
            Some(_) if !self.overdue.insert(((partition, offset), quantile.to_bits())) => findings.repeated.note(name),
            Some(_) => {}
        }
    }

    /// Checks where the first forecast of a record stands among those of its key.
    pub fn in_order(&mut self, (partition, offset): Position, keyed: &Keyed<'_>) {
        self.at_home((partition, offset), keyed.key);
        let hash = std::hash::BuildHasher::hash_one(&self.hasher, (partition.0, keyed.key));
        if hash.trailing_zeros() < self.sampled {
            return;
        }
        let rank = match keyed.rank {
            Rank::Offset => offset.0,
            Rank::Count(count) => count,
        };
        let name = || match keyed.stands {
            Some((own, at)) => format!("{partition}:{offset} (output {own}:{at})"),
            None => format!("{partition}:{offset} (in a file)"),
        };
        let stands = keyed.stands.map(|(own, _)| own);
        match self.keys.entry(hash) {
            Entry::Vacant(entry) => {
                entry.insert(Last { rank, partition: stands });
            }
            Entry::Occupied(mut entry) => {
                let last = entry.get_mut();
                let anew = matches!(keyed.rank, Rank::Count(1));
                if last.partition.is_some() && stands.is_some() && last.partition != stands {
                    self.findings.split_keys.note(name);
                } else if rank <= last.rank && !anew {
                    self.findings.out_of_order.note(name);
                }
                *last = Last { rank: if anew { rank } else { last.rank.max(rank) }, partition: stands.or(last.partition) };
            }
        }
        while self.keys.len() > self.max_keys {
            self.sampled += 1;
            let sampled = self.sampled;
            self.keys.retain(|hash, _| hash.trailing_zeros() >= sampled);
        }
    }

    /// Whether the records of a key are in one input partition. It is told for each record that stands elsewhere than the one before.
    fn at_home(&mut self, (partition, offset): Position, key: &[u8]) {
        let hash = std::hash::BuildHasher::hash_one(&self.hasher, key);
        if hash.trailing_zeros() < self.homes_sampled {
            return;
        }
        if let Some(last) = self.homes.insert(hash, partition).filter(|last| *last != partition) {
            self.findings.split_keys.note(|| format!("{partition}:{offset} (input, before it partition {last})"));
        }
        while self.homes.len() > self.max_keys {
            self.homes_sampled += 1;
            let sampled = self.homes_sampled;
            self.homes.retain(|hash, _| hash.trailing_zeros() >= sampled);
        }
    }

    /// What was found, once all outputs were counted.
    #[must_use]
    pub fn close(mut self) -> Findings {
        for (partition, line) in &self.lines {
            let mut hole: Option<(i64, i64, u64)> = None;
            for offset in line.low..line.required.min(line.allowed) {
                match line.get(Offset(offset)) {
                    NO_RECORD => {}
                    NO_OUTPUT => {
                        let (first, _, count) = hole.unwrap_or((offset, offset, 0));
                        hole = Some((first, offset, count + 1));
                    }
                    _ => note_hole(&mut self.findings.missing, *partition, hole.take()),
                }
            }
            note_hole(&mut self.findings.missing, *partition, hole);
        }
        self.findings.keys_checked = u64::try_from(self.keys.len()).unwrap_or(u64::MAX);
        self.findings.all_keys = self.sampled == 0;
        self.findings
    }
}

fn note_hole(missing: &mut Faults, partition: Partition, hole: Option<(i64, i64, u64)>) {
    match hole {
        None => {}
        Some((first, last, _)) if first == last => missing.note(|| format!("{partition}:{first}")),
        Some((first, last, count)) => missing.add(count, || format!("{partition}:{first}-{last} ({count} records)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(partition: i32, offset: i64) -> Position {
        (Partition(partition), Offset(offset))
    }

    fn ledger(low: i64, required: i64, allowed: i64, records: impl IntoIterator<Item = i64>) -> Ledger {
        let mut ledger = Ledger::new([(Partition(0), (Offset(low), Offset(required), Offset(allowed)))]).unwrap();
        records.into_iter().for_each(|offset| ledger.record(at(0, offset)));
        ledger
    }

    fn stands() -> String {
        "x".to_owned()
    }

    #[test]
    fn every_fault_is_counted_and_named() {
        // Offset 4 is a mark of a transaction: no record.
        let mut ledger = ledger(2, 12, 14, (2..14).filter(|offset| *offset != 4));
        for offset in [1, 2, 3, 4, 5, 5, 9, 13, 14] {
            ledger.output(at(0, offset), &stands);
        }
        ledger.output(at(7, 0), &stands);
        let found = ledger.close();
        assert_eq!(found.records, 9);
        assert_eq!((found.missing.count, found.missing.first), (5, vec!["0:6-8 (3 records)".to_owned(), "0:10-11 (2 records)".to_owned()]));
        assert_eq!((found.repeated.count, found.repeated.first), (1, vec!["0:5 (x)".to_owned()]));
        assert_eq!((found.unknown.count, found.unknown.first), (2, vec!["0:4 (x)".to_owned(), "7:0 (x)".to_owned()]));
        assert_eq!((found.ahead.count, found.ahead.first), (1, vec!["0:14 (x)".to_owned()]));
        assert_eq!(found.deleted, 1);
    }

    #[test]
    fn overdue_rows_are_counted_once_a_record_and_quantile() {
        let mut ledger = ledger(2, 12, 14, (2..14).filter(|offset| *offset != 4));
        for (offset, quantile) in [(5, 0.5), (5, 0.9), (5, 0.9), (1, 0.5), (4, 0.5), (13, 0.5), (14, 0.5)] {
            ledger.overdue(at(0, offset), quantile);
        }
        let found = ledger.close();
        assert_eq!((found.repeated.count, found.unknown.count, found.ahead.count, found.deleted), (1, 1, 1, 1));
        assert_eq!(found.repeated.first, ["0:5 (overdue by 0.9)"]);
    }

    #[test]
    fn the_forecasts_of_a_key_stand_in_one_partition_in_the_order_of_its_events() {
        let mut ledger = ledger(0, 10, 10, 0..10);
        let mut put = |offset, key: &[u8], out: (i32, i64), rank| {
            ledger.in_order(at(0, offset), &Keyed { key, stands: Some(at(out.0, out.1)), rank });
        };
        put(0, b"a", (0, 0), Rank::Offset);
        put(3, b"a", (0, 1), Rank::Offset);
        put(2, b"a", (0, 2), Rank::Offset);
        put(1, b"b", (0, 3), Rank::Offset);
        put(4, b"b", (1, 0), Rank::Offset);
        // Held events come in the order of their times; an expired key counts anew.
        for (offset, count) in [(9, 1), (5, 2), (7, 1), (8, 2), (6, 2)] {
            put(offset, b"c", (0, 10 + offset), Rank::Count(count));
        }
        let found = ledger.close();
        assert_eq!(
            (found.out_of_order.count, found.out_of_order.first),
            (2, vec!["0:2 (output 0:2)".to_owned(), "0:6 (output 0:16)".to_owned()])
        );
        assert_eq!((found.split_keys.count, found.split_keys.first), (1, vec!["0:4 (output 1:0)".to_owned()]));
        assert_eq!((found.keys_checked, found.all_keys), (3, true));
    }

    #[test]
    fn a_key_whose_records_are_in_two_input_partitions_is_told_wherever_its_forecasts_stand() {
        let line = |partition| (Partition(partition), (Offset(0), Offset(9), Offset(9)));
        let mut ledger = Ledger::new([line(0), line(1)]).unwrap();
        // The sink puts both into the partition of the event's key.
        for (i, (partition, offset, key)) in
            [(0, 0, b"a"), (0, 1, b"b"), (1, 0, b"a"), (1, 1, b"c"), (1, 2, b"a"), (0, 2, b"a")].into_iter().enumerate()
        {
            let stands = Some(at(3, i64::try_from(i).unwrap()));
            ledger.in_order(at(partition, offset), &Keyed { key, stands, rank: Rank::Offset });
        }
        let found = ledger.close();
        assert_eq!(found.split_keys.first, ["1:0 (input, before it partition 0)", "0:2 (input, before it partition 1)"]);
        assert_eq!((found.split_keys.count, found.out_of_order.count), (2, 0));
    }

    #[test]
    fn forecasts_in_files_come_before_those_in_the_topic_and_have_no_partition_there() {
        let mut ledger = ledger(0, 10, 10, 0..10);
        for (offset, stands) in
            [(1, None), (3, None), (2, None), (4, Some(at(5, 0))), (6, Some(at(5, 1))), (5, Some(at(5, 2))), (7, Some(at(4, 0)))]
        {
            ledger.in_order(at(0, offset), &Keyed { key: b"a", stands, rank: Rank::Offset });
        }
        let found = ledger.close();
        assert_eq!(found.out_of_order.first, ["0:2 (in a file)", "0:5 (output 5:2)"]);
        assert_eq!(found.split_keys.first, ["0:7 (output 4:0)"]);
    }

    #[test]
    fn memory_for_keys_is_bounded_and_those_that_are_kept_are_still_checked() {
        let mut ledger = ledger(0, 0, 0, []);
        ledger.max_keys = 100;
        for turn in 0..3_i64 {
            for key in 0..10_000_i64 {
                let offset = (2 - turn) * 10_000 + key;
                let keyed = Keyed { key: &key.to_le_bytes(), stands: Some(at(0, turn * 10_000 + key)), rank: Rank::Offset };
                ledger.in_order(at(0, offset), &keyed);
                assert!(ledger.keys.len() <= 100);
            }
        }
        let found = ledger.close();
        assert!(!found.all_keys && (20..=100).contains(&found.keys_checked), "{}", found.keys_checked);
        assert!(found.out_of_order.count >= 2 * found.keys_checked, "each kept key goes back twice");
    }

    proptest! {
        #[test]
        fn it_counts_as_sets_do(
            records in prop::collection::btree_set(0i64..60, 0..50), outputs in prop::collection::vec(0i64..60, 0..80), required in 0i64..60
        ) {
            let mut ledger = ledger(0, required, 60, records.iter().copied());
            let firsts = outputs.iter().filter(|offset| ledger.output(at(0, **offset), &stands)).count();
            let found = ledger.close();
            let distinct: std::collections::BTreeSet<i64> = outputs.iter().copied().filter(|offset| records.contains(offset)).collect();
            let known = outputs.iter().filter(|offset| records.contains(offset)).count();
            prop_assert_eq!(firsts, distinct.len());
            prop_assert_eq!(found.repeated.count, (known - distinct.len()) as u64);
            prop_assert_eq!(found.unknown.count, (outputs.len() - known) as u64);
            prop_assert_eq!(found.missing.count, records.iter().filter(|o| **o < required && !distinct.contains(o)).count() as u64);
        }
    }
}
