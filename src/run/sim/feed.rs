//! A source as a lane may meet it: polls of any size, partitions that come and go, commits that are lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::log::{MINUTE, START};
use super::world::{Flavour, Process, World, fenced};
use crate::base::error::{Error, Kind, Result};
use crate::base::offset::{Offset, Partition};
use crate::base::time::EventTime;
use crate::data::commit::Commits;
use crate::data::input::Input;
use crate::run::stage::Stop;
use crate::source::{Assignment, Feed, Handed, Polled};

#[derive(Clone, Copy, Default)]
struct Owned {
    /// Index of the next record.
    at: usize,
    started: bool,
    revoked: bool,
}

pub struct SimFeed {
    pub process: Arc<Process>,
    pub stop: Stop,
    /// Partitions that it is about to be given.
    pub waiting: Vec<Partition>,
    /// Polls until it asks for a stop.
    pub polls: u32,
    /// Whether partitions may seem idle.
    pub quiet: bool,
    owned: BTreeMap<Partition, Owned>,
    /// Commits that the broker has not confirmed.
    unconfirmed: Vec<Commits>,
}

impl SimFeed {
    pub fn new(process: Arc<Process>, stop: Stop, waiting: Vec<Partition>, polls: u32, quiet: bool) -> Self {
        SimFeed { process, stop, waiting, polls, quiet, owned: BTreeMap::new(), unconfirmed: Vec::new() }
    }

    fn world(&self) -> &World {
        &self.process.world
    }

    fn confirm(&mut self) {
        for commits in std::mem::take(&mut self.unconfirmed) {
            for (partition, commit) in commits.iter().filter(|(partition, _)| self.process.owns(*partition)) {
                self.world().commit(partition, commit);
            }
        }
    }

    fn assign(&mut self) -> Polled {
        let partition = self.waiting.remove(self.world().below(self.waiting.len()));
        assert!(self.owned.insert(partition, Owned::default()).is_none(), "assigned twice");
        let world = self.world();
        let mut state = world.state();
        state.owners.insert(partition, self.process.id);
        *state.terms.entry(partition).or_default() += 1;
        let committed = state.group.get(&partition).cloned();
        let (high, group) = (Some(world.log.end(partition)), Some("simulation".to_owned()));
        Polled::Assigned(Box::new(Assignment { committed, high, group, ..Assignment::whole(partition, "simulation") }))
    }

    fn revoke(&mut self, which: impl Fn(&SimFeed, Partition) -> bool) -> Option<Polled> {
        let some: Vec<Partition> =
            self.owned.iter().filter(|(p, owned)| owned.started && !owned.revoked && which(self, **p)).map(|(p, _)| *p).collect();
        let partition = *some.get(self.world().below(some.len()))?;
        self.owned.get_mut(&partition)?.revoked = true;
        Some(Polled::Revoked(partition))
    }

    /// Some partition is taken for idle: its next records, if there are any, come later.
    fn quiet(&self) -> Option<Polled> {
        let some: Vec<Partition> = self.owned.iter().filter(|(_, owned)| owned.started && !owned.revoked).map(|(p, _)| *p).collect();
        let partition = *some.get(self.world().below(some.len()))?;
        let at = self.owned.get(&partition)?.at;
        let minutes = at * 10 + self.world().below(6 * 60);
        Some(Polled::Quiet(partition, EventTime((START + minutes as i64 * MINUTE) * 1000)))
    }

    fn has_more(&self) -> Vec<Partition> {
        let more = |p: &Partition, owned: &Owned| owned.started && !owned.revoked && owned.at < self.world().log.records(*p).len();
        self.owned.iter().filter(|(p, owned)| more(p, owned)).map(|(p, _)| *p).collect()
    }

    fn records(&mut self, input: &mut Input) {
        let most = [1, 4, 12, 60][self.world().below(4)];
        for _ in 0..=self.world().below(most) {
            let more = self.has_more();
            let Some(partition) = more.get(self.world().below(more.len())).copied() else { return };
            let run = 1 + self.world().below(4);
            let from = self.owned[&partition].at;
            let records = self.world().log.records(partition);
            let to = records.len().min(from + run);
            for r in &records[from..to] {
                input.records.push(r.partition, r.offset, r.recorded, r.key.as_deref(), r.payload.as_deref());
            }
            self.owned.get_mut(&partition).expect("it was just looked at").at = to;
        }
    }
}

impl Feed for SimFeed {
    fn poll(&mut self, _max: usize, _wait: Duration, input: &mut Input) -> Result<Polled> {
        self.process.step()?;
        assert!(input.is_empty(), "the input was not cleared");
        if self.world().chance(0.5) {
            self.confirm();
        }
        if self.polls == 0 {
            self.stop.request();
            return Ok(Polled::Idle);
        }
        self.polls -= 1;
        if !self.waiting.is_empty() && (self.owned.is_empty() || self.world().chance(0.3)) {
            return Ok(self.assign());
        }
        if self.world().chance(0.05) {
            return Ok(Polled::Idle);
        }
        if self.quiet
            && self.world().chance(0.1)
            && let Some(quiet) = self.quiet()
        {
            return Ok(quiet);
        }
        if self.process.faulty {
            if self.world().chance(0.01) {
                return Err(Error::new(Kind::Unavailable, "sim", "the broker is gone"));
            }
            if self.world().chance(0.03)
                && let Some(revoked) = self.revoke(|_, _| true)
            {
                return Ok(revoked);
            }
            // What was lost while the process slept is noticed some time.
            if self.world().chance(0.1)
                && let Some(revoked) = self.revoke(|feed, partition| !feed.process.owns(partition))
            {
                return Ok(revoked);
            }
        }
        self.records(input);
        Ok(match (input.is_empty(), self.waiting.is_empty()) {
            (false, _) => Polled::Records,
            (true, false) => self.assign(),
            (true, true) => Polled::Ended,
        })
    }

    fn start(&mut self, partition: Partition, read_from: Offset, _live_from: Offset) -> Result<()> {
        self.process.step()?;
        let at = self.world().log.records(partition).partition_point(|record| record.offset < read_from);
        let owned = self.owned.get_mut(&partition).expect("only what was assigned is started");
        assert!(!owned.started, "started twice");
        (owned.at, owned.started) = (at, true);
        Ok(())
    }

    fn settle(&self, commits: &mut Commits) {
        for (partition, owned) in &self.owned {
            let records = self.world().log.records(*partition);
            let handed = owned.at.checked_sub(1).map(|last| records[last].offset.next());
            if let Some(commit) = commits.get_mut(*partition).filter(|commit| Some(commit.next) == handed) {
                commit.next = self.world().log.over(*partition, commit.next);
            }
        }
    }

    fn commit(&mut self, commits: &Commits) -> Result<()> {
        self.process.step()?;
        if commits.iter().any(|(partition, _)| !self.process.owns(partition)) {
            return Err(fenced("commit"));
        }
        self.unconfirmed.push(commits.clone());
        if self.world().chance(0.5) {
            self.confirm();
        }
        self.process.step()
    }

    fn owns(&self, partition: Partition) -> bool {
        // With the mutation nothing but the sinks could stop it.
        !self.world().fencing || self.process.owns(partition)
    }

    fn has_stored(&self, partition: Partition) -> bool {
        let world = self.world();
        world.flavour == Flavour::Folder || world.state().group.contains_key(&partition)
    }

    fn committed(&mut self, _commits: &Commits) -> Result<()> {
        assert_ne!(self.world().flavour, Flavour::AtLeastOnce, "such sinks keep no offsets");
        self.process.step()
    }

    fn released(&mut self, partition: Partition) {
        self.confirm();
        assert!(self.owned.remove(&partition).is_some_and(|owned| owned.revoked), "released without being revoked");
        if self.process.owns(partition) {
            self.world().state().owners.remove(&partition);
            if self.world().chance(0.8) {
                self.waiting.push(partition);
            }
        } else if self.world().chance(0.5) {
            // What was lost comes back.
            self.waiting.push(partition);
        }
    }

    fn handed(&self, note: &mut dyn FnMut(Handed)) {
        for (partition, owned) in self.owned.iter().filter(|(_, owned)| owned.started) {
            let log = &self.world().log;
            let next = log.records(*partition).get(owned.at).map_or(log.end(*partition), |record| record.offset);
            note(Handed { partition: *partition, next, end: Some(log.end(*partition)) });
        }
    }

    fn backlog(&self) -> Option<u64> {
        None
    }

    fn close(&mut self) -> Result<()> {
        self.process.step()?;
        self.confirm();
        Ok(())
    }
}
