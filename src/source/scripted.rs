//! A feed that follows a script: for tests of everything behind a source. As strict as Kafka: what a broker would refuse or what would lose
//! records is an error here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Assignment, Feed, Handed, Polled};
use crate::base::error::{Error, Kind, Result};
use crate::base::offset::{Offset, Partition};
use crate::base::time::EventTime;
use crate::data::commit::{Commit, Commits};
use crate::data::input::Input;

/// A record of the script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Its partition, which must be assigned.
    pub partition: Partition,
    /// Its offset, higher than that of the partition's last record.
    pub offset: Offset,
    /// When the log took it in.
    pub recorded: Option<EventTime>,
    /// Its own key.
    pub key: Option<Vec<u8>>,
    /// Its payload; `None` is a tombstone.
    pub payload: Option<Vec<u8>>,
}

/// One step of the script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The lane gets a partition, of which the records below the offset are committed (none if it is 0).
    Assign(Partition, Offset),
    /// Records; they take several polls if a poll's `max` is smaller.
    Records(Vec<Record>),
    /// A poll that brings nothing.
    Idle,
    /// The lane is to give a partition up.
    Revoke(Partition),
    /// The lane is to give up a partition that another one has already.
    Lose(Partition),
    /// No more records: every poll from here on says `Ended`. The end of the script means the same.
    End,
    /// The poll fails, with an error of kind `Unavailable`.
    Fail(String),
}

/// What happened to a scripted feed, for assertions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// Every commit in order.
    pub commits: Vec<Commits>,
    /// Partitions that were let go, in order.
    pub released: Vec<Partition>,
    /// Whether the feed was closed.
    pub closed: bool,
}

/// Reads the log of a feed that may be running on another thread.
#[derive(Clone, Debug, Default)]
pub struct Handle(Arc<Mutex<Log>>);

impl Handle {
    /// The log so far.
    #[must_use]
    pub fn log(&self) -> Log {
        self.lock().clone()
    }

    /// The highest position committed for a partition.
    #[must_use]
    pub fn committed(&self, partition: Partition) -> Option<Offset> {
        self.lock().commits.iter().filter_map(|commits| commits.next(partition)).max()
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        // The log is plain data: a panic elsewhere cannot have left it half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy, Debug)]
struct Owned {
    /// Next offset that may be handed out.
    next: Offset,
    /// All records below it have been handed out.
    handed: Offset,
    committed: Option<Offset>,
    started: bool,
    revoked: bool,
    lost: bool,
}

/// The feed.
#[derive(Debug)]
pub struct Scripted {
    steps: VecDeque<Step>,
    owned: BTreeMap<Partition, Owned>,
    handle: Handle,
    group: Option<String>,
    low: Offset,
}

fn broken(what: String) -> Error {
    Error::internal("source", what).at("scripted source")
}

impl Scripted {
    /// A feed for a script and a handle to look at what it was told.
    #[must_use]
    pub fn new(steps: Vec<Step>) -> (Self, Handle) {
        let handle = Handle::default();
        (Scripted { steps: steps.into(), owned: BTreeMap::new(), handle: handle.clone(), group: None, low: Offset(0) }, handle)
    }

    /// The same as of a consumer group that keeps the offsets of a log whose first record is at `low`.
    #[must_use]
    pub fn of_group(self, group: &str, low: Offset) -> Self {
        Scripted { group: Some(group.to_owned()), low, ..self }
    }

    fn open(&self) -> Result<()> {
        if self.handle.lock().closed { Err(broken("used after close".to_owned())) } else { Ok(()) }
    }

    fn hand_out(&mut self, record: Record, input: &mut Input) -> Result<()> {
        let Record { partition, offset, recorded, key, payload } = record;
        let owned = self.owned.get_mut(&partition).filter(|owned| owned.started && !owned.revoked);
        let owned = owned.ok_or_else(|| broken(format!("record {offset} of partition {partition}, which is not assigned")))?;
        if offset < owned.next {
            return Err(broken(format!("record {offset} of partition {partition} after {} was expected", owned.next)));
        }
        owned.next = offset.next();
        owned.handed = offset.next();
        input.records.push(partition, offset, recorded, key.as_deref(), payload.as_deref());
        Ok(())
    }
}

impl Feed for Scripted {
    fn poll(&mut self, max: usize, _wait: Duration, input: &mut Input) -> Result<Polled> {
        self.open()?;
        if !input.is_empty() {
            return Err(broken("the caller has not cleared the input".to_owned()));
        }
        match self.steps.pop_front() {
            None | Some(Step::End) => {
                self.steps.clear();
                Ok(Polled::Ended)
            }
            Some(Step::Idle) => Ok(Polled::Idle),
            Some(Step::Fail(text)) => Err(Error::new(Kind::Unavailable, "source", text).at("scripted source")),
            Some(Step::Assign(partition, live_from)) => {
                let fresh = Owned { next: Offset(0), handed: Offset(0), committed: None, started: false, revoked: false, lost: false };
                if self.owned.insert(partition, fresh).is_some() {
                    return Err(broken(format!("partition {partition} is assigned while the lane still has it")));
                }
                let committed = (live_from > Offset(0)).then(|| Commit::at(live_from));
                Ok(Polled::Assigned(Box::new(Assignment {
                    committed,
                    group: self.group.clone(),
                    low: self.low,
                    ..Assignment::whole(partition, "scripted source")
                })))
            }
            Some(step @ (Step::Revoke(partition) | Step::Lose(partition))) => match self.owned.get_mut(&partition) {
                Some(owned) if !owned.revoked => {
                    owned.revoked = true;
                    owned.lost = matches!(step, Step::Lose(_));
                    Ok(Polled::Revoked(partition))
                }
                _ => Err(broken(format!("partition {partition} is revoked but not assigned"))),
            },
            Some(Step::Records(mut records)) => {
                let rest = records.split_off(max.min(records.len()));
                if !rest.is_empty() {
                    self.steps.push_front(Step::Records(rest));
                }
                for record in records {
                    self.hand_out(record, input)?;
                }
                Ok(if input.is_empty() { Polled::Idle } else { Polled::Records })
            }
        }
    }

    fn start(&mut self, partition: Partition, _read_from: Offset, _live_from: Offset) -> Result<()> {
        match self.owned.get_mut(&partition) {
            Some(owned) if !owned.started => {
                owned.started = true;
                Ok(())
            }
            _ => Err(broken(format!("partition {partition} is started, but it does not wait for that"))),
        }
    }

    fn commit(&mut self, commits: &Commits) -> Result<()> {
        self.open()?;
        for (partition, Commit { next, .. }) in commits.iter() {
            let next = *next;
            let owned =
                self.owned.get_mut(&partition).ok_or_else(|| broken(format!("commit of partition {partition}, which is not assigned")))?;
            if next > owned.handed {
                return Err(broken(format!("commit of partition {partition} up to {next}, handed out below {} only", owned.handed)));
            }
            if owned.committed.is_some_and(|committed| next < committed) {
                return Err(broken(format!("commit of partition {partition} goes back to {next}")));
            }
            owned.committed = Some(next);
        }
        self.handle.lock().commits.push(commits.clone());
        Ok(())
    }

    fn owns(&self, partition: Partition) -> bool {
        self.owned.get(&partition).is_some_and(|owned| !owned.lost)
    }

    fn released(&mut self, partition: Partition) {
        if self.owned.get(&partition).is_some_and(|owned| owned.revoked) {
            self.owned.remove(&partition);
        }
        self.handle.lock().released.push(partition);
    }

    fn backlog(&self) -> Option<u64> {
        let records = self.steps.iter().map(|step| if let Step::Records(records) = step { records.len() } else { 0 });
        u64::try_from(records.sum::<usize>()).ok()
    }

    fn handed(&self, note: &mut dyn FnMut(Handed)) {
        for (partition, owned) in &self.owned {
            note(Handed { partition: *partition, next: owned.handed, end: None });
        }
    }

    fn close(&mut self) -> Result<()> {
        self.handle.lock().closed = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(partition: i32, offset: i64) -> Record {
        Record { partition: Partition(partition), offset: Offset(offset), payload: Some(b"{}".to_vec()), ..Record::default() }
    }

    fn poll(feed: &mut Scripted) -> Result<Polled> {
        feed.poll(10, Duration::ZERO, &mut Input::default())
    }

    fn upto(partition: i32, next: i64) -> Commits {
        [(Partition(partition), Commit::at(Offset(next)))].into_iter().collect()
    }

    #[test]
    fn commits_and_releases_are_noted_and_a_commit_beyond_what_was_handed_out_is_an_error() {
        let steps =
            vec![Step::Assign(Partition(1), Offset(0)), Step::Records(vec![record(1, 4), record(1, 6)]), Step::Revoke(Partition(1))];
        let (mut feed, handle) = Scripted::new(steps);
        poll(&mut feed).unwrap();
        feed.start(Partition(1), Offset(0), Offset(0)).unwrap();
        poll(&mut feed).unwrap();
        assert!(feed.commit(&upto(1, 8)).is_err());
        assert!(feed.commit(&upto(2, 1)).is_err());
        feed.commit(&upto(1, 5)).unwrap();
        assert!(feed.commit(&upto(1, 4)).is_err());
        assert_eq!(poll(&mut feed).unwrap(), Polled::Revoked(Partition(1)));
        feed.commit(&upto(1, 7)).unwrap();
        feed.released(Partition(1));
        assert!(feed.commit(&upto(1, 7)).is_err());
        feed.close().unwrap();
        assert!(poll(&mut feed).is_err());
        assert_eq!(handle.log(), Log { commits: vec![upto(1, 5), upto(1, 7)], released: vec![Partition(1)], closed: true });
        assert_eq!(handle.committed(Partition(1)), Some(Offset(7)));
    }

    #[test]
    fn a_script_that_no_broker_could_follow_is_an_error() {
        let assigned = Step::Assign(Partition(0), Offset(0));
        for steps in [
            vec![Step::Records(vec![record(0, 0)])],
            vec![assigned.clone(), Step::Records(vec![record(0, 3), record(0, 3)])],
            vec![assigned.clone(), Step::Revoke(Partition(0)), Step::Records(vec![record(0, 3)])],
            vec![assigned.clone(), assigned],
            vec![Step::Fail("broker is away".to_owned())],
        ] {
            let (mut feed, _) = Scripted::new(steps.clone());
            let step = |feed: &mut Scripted| match poll(feed)? {
                Polled::Assigned(assignment) => feed.start(assignment.partition, Offset(0), Offset(0)),
                _ => Ok(()),
            };
            assert!((0..3).any(|_| step(&mut feed).is_err()), "{steps:?}");
        }
    }
}
