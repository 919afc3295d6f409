//! What a lane and its worker do at a start, a rebalance and a failure.

use super::*;

/// Records once, and then a panic; or, for the other lane, nothing for ever.
struct Panics(Option<Vec<Record>>);

impl Feed for Panics {
    fn poll(&mut self, _max: usize, _wait: Duration, _input: &mut Input) -> crate::base::error::Result<Polled> {
        match &self.0 {
            Some(records) => panic!("index {} is out of bounds", records.len()),
            None => Ok(Polled::Idle),
        }
    }

    fn start(&mut self, _partition: Partition, _read_from: Offset, _live_from: Offset) -> crate::base::error::Result<()> {
        Ok(())
    }

    fn commit(&mut self, _commits: &Commits) -> crate::base::error::Result<()> {
        Ok(())
    }

    fn released(&mut self, _partition: Partition) {}

    fn backlog(&self) -> Option<u64> {
        None
    }

    fn close(&mut self) -> crate::base::error::Result<()> {
        Ok(())
    }
}

#[test]
fn a_lane_that_panics_stops_the_others_and_is_an_error_that_says_what_it_said() {
    let stage = stage(&[]);
    let store = Store::new();
    let sinks = || Sinks {
        forecasts: Box::new(store.forecasts(&stage.layout, &stage.identity)),
        dead_letters: Box::new(store.dead_letters("cards")),
        shadow: None,
    };
    let feeds: Vec<(Box<dyn Feed>, Sinks)> = vec![(Box::new(Panics(None)), sinks()), (Box::new(Panics(Some(records(7, 2, 1)))), sinks())];
    let (stop, counts) = (Stop::default(), Counts::default());
    counts.partitions.note_assigned(Partition(0), Some(Offset(0)), Offset(0));
    let error = stage.run(feeds, &stop, &counts).unwrap_err();
    assert_eq!(error.exit_code(), 70);
    assert!(error.to_string().contains("lane-1 panicked: index 7 is out of bounds"), "{error}");
    assert!(!counts.partitions.are_live(), "a stage that has lost a lane is not ready");
}

/// What a lane has committed of partition 0.
fn committed(lane: &Lane) -> Commit {
    lane.commits().get(Partition(0)).unwrap().clone()
}

/// A lane that has taken the partition over again, without a snapshot, and has read its log to the end.
fn read_again(stage: &Stage, all: &[Record], commit: &Commit) -> Lane {
    let mut lane = stage.lane().unwrap();
    lane.take_over(Recovered { note: commit.note.clone(), ..Recovered::empty(Partition(0), commit.next) });
    lane.advance(&input(all)).unwrap();
    assert!(lane.forecasts.is_empty(), "replay is silent");
    lane
}

const HOUR: i64 = 3_600_000_000;

#[test]
fn a_partition_that_is_idle_after_a_restart_goes_on_ticking() {
    for (sets, held) in [("forecast.overdue=[0.5, 0.9]", 0), ("order.lateness=2h", 3)] {
        let stage = stage(&[sets]);
        let start = 1_700_000_000_000;
        let all: Vec<Record> = (0..12).map(|i| card(i, &format!("c{}", i % 3), start + i * 30 * 60_000, "web")).collect();
        let at = |hours: i64| EventTime(start * 1000 + hours * HOUR);
        let rows = |lane: &Lane| (lane.forecasts.offsets.clone(), lane.forecasts.event_times.clone(), lane.forecasts.overdue.len());
        // Undisturbed: two ticks, of which the first says part of what is to be said.
        let mut whole = stage.lane().unwrap();
        whole.assign(Partition(0), Offset(0));
        whole.advance(&input(&all)).unwrap();
        let says = |hour: &i64| {
            whole.tick(Partition(0), at(*hour)).unwrap();
            !whole.forecasts.is_empty()
        };
        let first = (6..100).find(says).unwrap();
        let before = committed(&whole);
        assert_eq!(before.note.ticks.len(), 1, "the first tick says something");
        whole.tick(Partition(0), at(2_000)).unwrap();
        let later = rows(&whole);
        assert!(!later.0.is_empty(), "so does the second, of {sets}");
        let after = committed(&whole);
        // The log may end in the mark of a transaction, and the commit with it.
        for mark in [0, 1] {
            let commit = Commit { next: Offset(before.next.0 + mark), ..before.clone() };
            let mut lane = read_again(&stage, &all, &commit);
            assert_eq!(committed(&lane), commit, "all that was committed is known to be replayed");
            lane.tick(Partition(0), at(first)).unwrap();
            assert!(lane.forecasts.is_empty(), "what was said is not said again");
            assert_eq!(committed(&lane), commit);
            lane.tick(Partition(0), at(2_000)).unwrap();
            assert_eq!(rows(&lane), later, "{sets}");
            assert_eq!(committed(&lane).note.ticks.last().unwrap().time, after.note.ticks.last().unwrap().time);
            assert_eq!(lane.partitions()[0].order.held(), 0);
        }
        assert!(held == 0 || later.0.len() >= held, "{held} were held");
    }
}

#[test]
fn a_log_with_nothing_but_marks_behind_what_is_known_is_done_to_its_end() {
    let stage = stage(&[]);
    let all = records(20, 3, 1);
    let mut lane = stage.lane().unwrap();
    lane.assign(Partition(0), Offset(0));
    lane.read_to(Partition(0), Offset(0));
    assert!(lane.commits().is_empty(), "nothing has been read");
    // Only records of aborted transactions.
    lane.read_to(Partition(0), Offset(7));
    assert_eq!(committed(&lane).next, Offset(0), "the source raises it over them");
    // An offset that another program has set: no record is known that could be looked at.
    lane.assign(Partition(0), Offset(25));
    lane.advance(&input(&all)).unwrap();
    lane.read_to(Partition(0), Offset(20));
    assert!(lane.commits().is_empty(), "below it there may be more");
    lane.read_to(Partition(0), Offset(25));
    assert_eq!(committed(&lane).next, Offset(25));
    assert!(lane.partitions()[0].stands_as_committed());
}

#[test]
fn a_snapshot_of_a_topic_that_was_made_anew_is_an_error_that_says_so() {
    let stage = stage(&[]);
    let all = records(300, 20, 1);
    let take = |last: usize, of: &[Record]| {
        let mut lane = stage.lane().unwrap();
        lane.assign(Partition(0), Offset(0));
        lane.advance(&input(&of[..last])).unwrap();
        committed(&lane).note
    };
    let mut other = all.clone();
    other[199].payload = other[17].payload.clone();
    for (of, expected) in [(&all, None), (&other, Some("the snapshot at offset 200, is another one now"))] {
        let mut lane = stage.lane().unwrap();
        // The states do not matter here: they are those of the snapshot, whatever they are.
        let recovered =
            Recovered { from: Offset(200), note: take(300, &all), included: take(200, of), ..Recovered::empty(Partition(0), Offset(300)) };
        lane.take_over(recovered);
        let outcome = lane.advance(&input(&all[199..]));
        match expected {
            None => outcome.unwrap(),
            Some(text) => {
                let error = outcome.unwrap_err();
                assert!(error.exit_code() == 78 && error.to_string().contains(text), "{error}");
                assert!(error.to_string().contains("state.snapshots"), "{error}");
            }
        }
    }
}

#[test]
fn a_snapshot_is_held_to_its_last_record_when_a_partition_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let place = format!("state.snapshots={}", folder.path().display());
    let stage = stage(&[&place]);
    let all = records(1_000, 40, 1);
    let assign = |p| Step::Assign(Partition(0), Offset(p));
    let first = vec![assign(0), Step::Records(all[..400].to_vec()), Step::Revoke(Partition(0))];
    drive(&stage, first).0.unwrap();
    // The topic was deleted and made anew, and has more records now.
    let anew: Vec<Record> = all.iter().zip(&all[500..]).map(|(old, new)| Record { offset: old.offset, ..new.clone() }).collect();
    let (ended, store, _, _) = drive(&stage, vec![assign(450), Step::Records(anew), Step::End]);
    let error = ended.unwrap_err();
    assert!(error.exit_code() == 78 && error.to_string().contains("below the snapshot at offset 400"), "{error}");
    assert!(store.collected().forecasts.written.is_empty());
    let (ended, _, _, counts) = drive(&stage, vec![assign(450), Step::Records(all), Step::End]);
    ended.unwrap();
    assert_eq!(counts.replayed.load(std::sync::atomic::Ordering::Relaxed), 50, "the snapshot of the same log is used");
}

#[test]
fn a_group_whose_offsets_were_forgotten_does_not_emit_the_topic_again() {
    let folder = tempfile::tempdir().unwrap();
    let place = format!("state.snapshots={}", folder.path().display());
    let stage = stage(&[&place]);
    let all = records(400, 40, 1);
    let run = |committed, last| {
        let (feed, handle) = Scripted::new(vec![Step::Assign(Partition(0), Offset(committed)), Step::Records(all[..300].to_vec()), last]);
        drive_feed(&stage, (feed.of_group("g", Offset(0)), handle))
    };
    run(0, Step::Revoke(Partition(0))).0.unwrap();
    let (ended, store, _, _) = run(0, Step::End);
    let error = ended.unwrap_err();
    assert!(error.exit_code() == 78 && error.to_string().contains("--to-offset 300"), "{error}");
    assert!(store.collected().forecasts.written.is_empty());
    // Where nobody keeps offsets every run begins at the first record.
    let (ended, store, _, _) = drive(&stage, vec![Step::Assign(Partition(0), Offset(0)), Step::Records(all[..300].to_vec()), Step::End]);
    ended.unwrap();
    assert_eq!(store.collected().forecasts.durable, 300);
    std::fs::remove_dir_all(folder.path().join("partition-0")).unwrap();
    run(0, Step::End).0.unwrap();
}

#[test]
fn a_start_without_the_records_that_the_states_rest_on_is_counted() {
    let all = records(300, 20, 1);
    let count = |sets: &[&str], low: usize, committed: i64| {
        let (feed, handle) =
            Scripted::new(vec![Step::Assign(Partition(0), Offset(committed)), Step::Records(all[low..].to_vec()), Step::End]);
        let (ended, _, _, counts) = drive_feed(&stage(sets), (feed.of_group("g", Offset(low as i64)), handle));
        ended.unwrap();
        counts.incomplete_starts.load(std::sync::atomic::Ordering::Relaxed)
    };
    assert_eq!(count(&[], 100, 200), 1);
    assert_eq!(count(&[], 0, 200), 0, "the log is whole");
    assert_eq!(count(&[], 100, 0), 0, "there were no states before");
}

/// Keeps rows back until it must not any more, and how long that was.
struct Holding {
    inner: crate::sink::memory::MemoryForecasts,
    since: Option<std::time::Instant>,
    held: std::sync::Arc<std::sync::Mutex<Option<Duration>>>,
}

impl Sink for Holding {
    fn written(&self) -> u64 {
        self.inner.written()
    }

    fn durable(&mut self) -> crate::base::error::Result<u64> {
        self.inner.durable()
    }

    fn end_epoch(&mut self, commits: &Commits, force: bool) -> crate::base::error::Result<bool> {
        if self.inner.written() == 0 {
            return Ok(true);
        }
        let since = *self.since.get_or_insert_with(crate::base::clock::tick);
        if force {
            self.held.lock().unwrap().get_or_insert_with(|| since.elapsed());
            return self.inner.end_epoch(commits, force);
        }
        Ok(false)
    }

    fn close(&mut self) -> crate::base::error::Result<()> {
        self.inner.close()
    }
}

impl ForecastSink for Holding {
    fn write(&mut self, forecasts: &crate::data::forecasts::Forecasts) -> crate::base::error::Result<()> {
        self.inner.write(forecasts)
    }
}

#[test]
fn the_time_of_a_commit_is_that_of_the_oldest_epoch_and_a_partition_that_was_let_go_has_no_keys() {
    let stage = stage(&["sink.commit_every=1ms", "run.max_batch=64"]);
    let (feed, _) = Scripted::new(vec![
        Step::Assign(Partition(0), Offset(0)),
        Step::Records(records(2_000, 20, 1)),
        Step::Revoke(Partition(0)),
        Step::Idle,
        Step::End,
    ]);
    let (store, held) = (Store::new(), std::sync::Arc::default());
    let inner = store.forecasts(&stage.layout, &stage.identity);
    let sinks = Sinks {
        forecasts: Box::new(Holding { inner, since: None, held: std::sync::Arc::clone(&held) }),
        dead_letters: Box::new(store.dead_letters("cards")),
        shadow: None,
    };
    let counts = Counts::default();
    stage.run(vec![(Box::new(feed), sinks)], &Stop::default(), &counts).unwrap();
    let (read, held) = (counts.commits.read(), held.lock().unwrap().unwrap().as_secs_f64());
    assert!(held > 0.0 && read.count == 1 && read.sum >= held, "{read:?} for {held}");
    let load = |count: &std::sync::atomic::AtomicU64| count.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((load(&counts.keys), load(&counts.bytes)), (0, 0));
}

#[test]
fn a_partition_that_is_anothers_already_gets_no_file_and_the_others_do() {
    let folder = tempfile::tempdir().unwrap();
    let sink = format!("sink={{kind=\"parquet\",path=\"{}\"}}", folder.path().display());
    let stage = stage(&[&sink]);
    let assign = |p| Step::Assign(Partition(p), Offset(0));
    let all = records(200, 20, 2);
    let run = |given_up: Step| {
        let (feed, handle) = Scripted::new(vec![assign(0), assign(1), Step::Records(all.clone()), given_up, Step::Idle, Step::End]);
        let sinks = Sinks {
            forecasts: crate::sink::open_forecasts(&stage.plan.sink, &stage.layout, &stage.identity, 0).unwrap(),
            dead_letters: Box::new(Store::new().dead_letters("cards")),
            shadow: None,
        };
        stage.run(vec![(Box::new(feed), sinks)], &Stop::default(), &Counts::default()).unwrap();
        let files = |p: i32| {
            std::fs::read_dir(folder.path().join(format!("partition-{p}")))
                .map_or(0, |files| files.filter(|file| !file.as_ref().unwrap().file_name().to_string_lossy().starts_with('.')).count())
        };
        (files(0), files(1), handle.committed(Partition(0)), handle.log().released)
    };
    assert_eq!(run(Step::Lose(Partition(0))), (0, 1, None, vec![Partition(0)]));
    let (zero, _, committed, _) = run(Step::Revoke(Partition(0)));
    assert!(zero == 1 && committed.is_some(), "its heir has all");
}
