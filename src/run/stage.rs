//! The stage: a plan with its package, source, lanes and sinks, run to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::counts::Counts;
use super::golden;
use super::lane::Lane;
use super::snapshots::{Cutters, Shelf};
use super::tally::Raise;
use super::worker;
use crate::base::error::{Error, Result};
use crate::data::forecasts::Identity;
use crate::data::layout::Layout;
#[cfg(feature = "kafka")]
use crate::link::kafka::{Client, Instance};
use crate::model::Package;
use crate::pipeline::plan::Plan;
#[cfg(feature = "kafka")]
use crate::sink::Delivery;
use crate::sink::alarm::Alarms;
use crate::sink::{self, DeadLetterSink, ForecastSink};
use crate::source::{self, Feed, Opening};
use crate::state::snapshot::{Migrated, Snapshots};

/// How long the snapshots may take that a run is made for.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// A plan whose package has been loaded and checked.
pub struct Stage {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The package.
    pub package: Package,
    /// Names shared by all forecasts.
    pub identity: Arc<Identity>,
    /// Fields that are written.
    pub layout: Layout,
    /// Where a run that only makes states says they come from; its last snapshots may take as long as they need.
    pub migrated: Option<Migrated>,
    /// Another run is to go on from the last snapshots: they may take as long as they need.
    pub hands_over: bool,
}

/// Set once to make all lanes drain, commit and return.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks the lanes to stop.
    pub fn request(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether they were asked.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Both outputs of one lane.
pub struct Sinks {
    /// Takes forecasts.
    pub forecasts: Box<dyn ForecastSink>,
    /// Takes dead letters.
    pub dead_letters: Box<dyn DeadLetterSink>,
}

impl Stage {
    /// Loads the plan's package with all its checks.
    ///
    /// # Errors
    /// The package is refused, or does not fit the plan.
    pub fn load(plan: Plan) -> Result<Self> {
        let package = Package::load(&plan.package)?;
        if let Some((_, recipe)) = &plan.model {
            golden::check(&package, recipe)?;
        }
        let fingerprint = plan.fingerprint(&package.digest)?;
        let identity = plan.identity(&fingerprint);
        let layout = plan.layout(&identity);
        Ok(Stage { plan: Arc::new(plan), package, identity: Arc::new(identity), layout, migrated: None, hands_over: false })
    }

    /// A lane without partitions.
    ///
    /// # Errors
    /// See `Lane::new`.
    pub fn lane(&self) -> Result<Lane> {
        Lane::new(Arc::clone(&self.plan), self.package.model()?, Arc::clone(&self.identity))
    }

    /// Opens source and sinks: what `run` takes, one of each per lane.
    ///
    /// # Errors
    /// The source or a sink cannot be opened.
    pub fn open(&self, until_caught_up: bool) -> Result<Vec<(Box<dyn Feed>, Sinks)>> {
        let feeds = self.feeds(until_caught_up)?;
        #[cfg(feature = "kafka")]
        if self.plan.delivery == Delivery::ExactlyOnce
            && let (sink::Settings::Kafka { client, topic }, source::Settings::Kafka(input)) = (&self.plan.sink, &self.plan.source)
        {
            let instance = match &input.instance {
                Some(name) => Instance::named(name),
                None => Instance::of_machine(&input.client.brokers, &input.group),
            };
            let instance = Arc::new(instance);
            return feeds.into_iter().enumerate().map(|(lane, feed)| self.transactional(lane, feed, client, topic, &instance)).collect();
        }
        feeds.into_iter().enumerate().map(|(lane, feed)| Ok((feed, self.sinks(lane)?))).collect()
    }

    /// Sinks of a lane that make forecasts and offsets visible in one transaction.
    #[cfg(feature = "kafka")]
    fn transactional(
        &self,
        lane: usize,
        mut feed: Box<dyn Feed>,
        client: &Client,
        topic: &str,
        instance: &Arc<Instance>,
    ) -> Result<(Box<dyn Feed>, Sinks)> {
        let plan = &self.plan;
        let membership = feed.membership().ok_or_else(|| Error::internal("run", "the source has no consumer group"))?;
        let opening = sink::kafka::Opening {
            client,
            forecasts: topic,
            membership,
            instance: Arc::clone(instance),
            lane,
            header: plan.position_header,
        };
        let (forecasts, dead_letters) =
            sink::kafka::open_exactly_once(opening, (&self.layout, &self.identity), (&plan.dead_letter, &self.origin()))?;
        let dead_letters = match dead_letters {
            Some(sink) => sink,
            None => sink::open_dead_letters(&plan.dead_letter, &self.origin(), lane)?,
        };
        Ok((feed, Sinks { forecasts, dead_letters }))
    }

    /// The sinks that the plan names, for lane `lane`, each on its own.
    ///
    /// # Errors
    /// A sink cannot be opened.
    pub fn sinks(&self, lane: usize) -> Result<Sinks> {
        Ok(Sinks {
            forecasts: sink::open_forecasts(&self.plan.sink, &self.layout, &self.identity, lane)?,
            dead_letters: sink::open_dead_letters(&self.plan.dead_letter, &self.origin(), lane)?,
        })
    }

    /// Opens the place where alarms are raised, if the plan names one.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn alarms(&self) -> Result<Option<Arc<Raise>>> {
        let Some(settings) = &self.plan.alarm else { return Ok(None) };
        let alarms = Alarms::open(settings)?;
        Ok(Some(Arc::new(Raise { alarms, pipeline: self.plan.name.clone(), identity: Arc::clone(&self.identity) })))
    }

    /// The snapshots of this stage's fingerprint, if the plan names a place for them.
    ///
    /// # Errors
    /// The place cannot be reached.
    pub fn snapshots(&self) -> Result<Option<Snapshots>> {
        let (Some(settings), Some(columns)) = (&self.plan.snapshots, self.plan.state_columns()?) else { return Ok(None) };
        let snapshots = Snapshots::open(&settings.place, columns, &self.identity.fingerprint)?;
        Ok(Some(match &self.migrated {
            Some(migrated) => snapshots.migrating(migrated.clone()),
            None => snapshots,
        }))
    }

    fn shelf(&self) -> Result<Option<Shelf>> {
        let (Some(settings), Some(snapshots)) = (&self.plan.snapshots, self.snapshots()?) else { return Ok(None) };
        let shelf = Shelf::new(snapshots, settings.every)?;
        let shelf = if self.hands_over { shelf.patient(PATIENCE) } else { shelf };
        Ok(Some(if self.migrated.is_some() { shelf.making(PATIENCE) } else { shelf }))
    }

    /// What dead letters name as their origin: topic, files or stream.
    #[must_use]
    pub fn origin(&self) -> String {
        match &self.plan.source {
            source::Settings::Kafka(kafka) => kafka.topic.clone(),
            source::Settings::File(file) => file.paths.first().map(ToString::to_string).unwrap_or_default(),
            source::Settings::Generate(_) => "generate".to_owned(),
        }
    }

    /// Opens the plan's source: one feed per lane.
    ///
    /// # Errors
    /// The source cannot be reached.
    pub fn feeds(&self, until_caught_up: bool) -> Result<Vec<Box<dyn Feed>>> {
        let opening = Opening { lanes: self.plan.lanes, until_caught_up, fields: self.plan.field_names(), ..Opening::default() };
        source::open(&self.plan.source, &opening)
    }

    /// Runs one lane per feed until all have ended, one has failed, or `stop` is requested. All outputs of what was
    /// committed are durable when it returns, whatever it returns.
    ///
    /// # Errors
    /// The first error of any lane; the others are stopped then.
    pub fn run(&self, feeds: Vec<(Box<dyn Feed>, Sinks)>, stop: &Stop, counts: &Counts) -> Result<()> {
        let lanes: Vec<Lane> = feeds.iter().map(|_| self.lane()).collect::<Result<_>>()?;
        let shelf = self.shelf()?;
        thread::scope(|scope| {
            let shelf = shelf.as_ref();
            let mut handles = Vec::new();
            for (index, ((feed, sinks), lane)) in feeds.into_iter().zip(lanes).enumerate() {
                let plan = Arc::clone(&self.plan);
                let spawned = thread::Builder::new().name(format!("lane-{index}")).spawn_scoped(scope, move || {
                    let outcome = worker::run(&plan, feed, lane, sinks, Cutters::new(shelf), stop, counts);
                    if outcome.is_err() {
                        stop.request();
                    }
                    outcome
                });
                handles.push(spawned.map_err(|e| {
                    stop.request();
                    Error::internal("run", format!("a lane's thread cannot be started: {e}"))
                })?);
            }
            let mut outcome = Ok(());
            for handle in handles {
                let ended = handle.join().unwrap_or_else(|_| Err(Error::internal("run", "a lane panicked; see the log above")));
                if outcome.is_ok() {
                    outcome = ended;
                }
            }
            outcome
        })
    }
}
