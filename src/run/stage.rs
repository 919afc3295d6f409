//! The stage: a plan with its package, source, lanes and sinks, run to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::counts::Counts;
use super::golden;
use super::lane::{Lane, mix};
use super::shadow::Follower;
use super::shadow::compare::{Compare, Setting};
use super::snapshots::{Cutters, Shelf};
use super::tally::Raise;
use super::worker;
use crate::base::error::{Error, Result};
use crate::base::guard::guarded;
use crate::data::field::Units;
use crate::data::forecasts::Identity;
use crate::data::layout::Layout;
use crate::head;
#[cfg(feature = "kafka")]
use crate::link::kafka::{Client, Instance};
use crate::link::objects::{Objects, Place};
use crate::model::Package;
use crate::pipeline::plan::{Plan, ShadowPlan};
#[cfg(feature = "kafka")]
use crate::sink::Delivery;
use crate::sink::alarm::Alarms;
use crate::sink::{self, DeadLetterSink, ForecastSink};
use crate::source::{self, Feed, Opening};
use crate::state::snapshot::{Migrated, Snapshots};

/// How long the snapshots may take that a run is made for.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// Where the snapshots of a shadow are, from those of the first model.
const BELOW: &str = "shadow";

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
    /// The second model, if there is one that is not the first.
    pub beside: Option<Box<Beside>>,
}

/// A second model that is run in shadow.
pub struct Beside {
    /// The pipeline with its package.
    pub stage: Stage,
    /// Share of the keys that it scores, if not all.
    pub share: Option<f64>,
    /// Fingerprint of its states: that of a stage with its package, unless it has only a share of the keys.
    pub fingerprint: String,
    /// What is compared.
    setting: Arc<Setting>,
}

impl Beside {
    fn load(shadow: ShadowPlan, first: (&Plan, &Identity, &Package)) -> Result<Self> {
        let ShadowPlan { plan, share, thresholds } = shadow;
        let stage = Stage::load(plan).map_err(|error| error.at("[shadow]"))?;
        let own = &stage.identity.fingerprint;
        let fingerprint = match share {
            None => own.clone(),
            Some(share) => format!("{:016x}", mix(u64::from_str_radix(own, 16).unwrap_or_default() ^ share.to_bits())),
        };
        let all = |plan: &Plan, identity: &Identity| Plan { sink_fields: Vec::new(), ..plan.clone() }.layout(identity);
        let (plan, identity, package) = first;
        let units = Units::between(package.manifest.head.law(), stage.package.manifest.head.law());
        let setting = Setting::new(&all(plan, identity), &all(&stage.plan, &stage.identity), units, thresholds);
        Ok(Beside { stage, share, fingerprint, setting: Arc::new(setting) })
    }

    /// Where its snapshots are, with the states of its package.
    ///
    /// # Errors
    /// The place cannot be reached.
    pub fn snapshots(&self) -> Result<Option<Snapshots>> {
        self.stage.snapshots_at(|place| place.join(BELOW).open(), &self.fingerprint)
    }

    fn shelf(&self) -> Result<Option<Shelf>> {
        let (Some(settings), Some(snapshots)) = (&self.stage.plan.snapshots, self.snapshots()?) else { return Ok(None) };
        Ok(Some(Shelf::new(snapshots, settings.every)?.and(self.stage.snapshots()?)))
    }

    /// The shadow of one lane.
    ///
    /// # Errors
    /// See `Lane::new`.
    pub(super) fn follower<'a>(&self, snapshots: Cutters<'a>) -> Result<Follower<'a>> {
        let lane = self.stage.lane()?.sampling(self.share);
        Ok(Follower::new(lane, snapshots, self.fingerprint.clone(), Compare::new(Arc::clone(&self.setting))))
    }

    /// Its sink for lane `lane`, on its own.
    fn sink(&self, lane: usize) -> Result<Box<dyn ForecastSink>> {
        let settings = match &self.stage.plan.sink {
            // They are closed together with those of the first model, and never by themselves.
            sink::Settings::Parquet { place, delta, folders, .. } => sink::Settings::Parquet {
                place: place.clone(),
                roll_bytes: u64::MAX,
                roll_every: Duration::MAX,
                delta: delta.clone(),
                folders: *folders,
            },
            other => other.clone(),
        };
        sink::open_forecasts(&settings, &self.stage.layout, &self.stage.identity, lane)
    }
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

/// The outputs of one lane.
pub struct Sinks {
    /// Takes forecasts.
    pub forecasts: Box<dyn ForecastSink>,
    /// Takes dead letters.
    pub dead_letters: Box<dyn DeadLetterSink>,
    /// Takes the forecasts of the second model; without it none is run.
    pub shadow: Option<Box<dyn ForecastSink>>,
}

impl Stage {
    /// Loads the plan's package, and that of its shadow, with all their checks.
    ///
    /// # Errors
    /// The package is refused, or does not fit the plan.
    pub fn load(plan: Plan) -> Result<Self> {
        let package = Package::load(&plan.package)?;
        head::check(&package.manifest.head).map_err(|e| e.at(plan.package.join("model.toml").display().to_string()))?;
        if let Some((_, recipe)) = &plan.model {
            golden::check(&package, recipe)?;
        }
        let fingerprint = plan.fingerprint(&package.digest)?;
        let identity = plan.identity(&fingerprint);
        let layout = plan.layout(&identity);
        let beside = plan.shadow.clone().map(|shadow| Beside::load(*shadow, (&plan, &identity, &package))).transpose()?;
        let beside = beside.filter(|beside| beside.stage.identity.fingerprint != fingerprint).map(Box::new);
        let identity = Arc::new(identity);
        Ok(Stage { plan: Arc::new(plan), package, identity, layout, migrated: None, hands_over: false, beside })
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
        if self.plan.shadow.is_some() && self.beside.is_none() {
            tracing::warn!("[shadow] names the package that runs: there is nothing to compare, and no shadow is run");
        }
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
        let shadow = self.beside.as_ref().and_then(|beside| match &beside.stage.plan.sink {
            sink::Settings::Kafka { topic, .. } => Some((topic.as_str(), &beside.stage.layout, &*beside.stage.identity)),
            _ => None,
        });
        let (forecasts, dead_letters, shadow) =
            sink::kafka::open_exactly_once(opening, (&self.layout, &self.identity), (&plan.dead_letter, &self.origin()), shadow)?;
        let dead_letters = match dead_letters {
            Some(sink) => sink,
            None => sink::open_dead_letters(&plan.dead_letter, &self.origin(), lane)?,
        };
        Ok((feed, Sinks { forecasts, dead_letters, shadow }))
    }

    /// The sinks that the plan names, for lane `lane`, each on its own.
    ///
    /// # Errors
    /// A sink cannot be opened.
    pub fn sinks(&self, lane: usize) -> Result<Sinks> {
        Ok(Sinks {
            forecasts: sink::open_forecasts(&self.plan.sink, &self.layout, &self.identity, lane)?,
            dead_letters: sink::open_dead_letters(&self.plan.dead_letter, &self.origin(), lane)?,
            shadow: self.beside.as_ref().map(|beside| beside.sink(lane)).transpose()?,
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
        let snapshots = self.snapshots_at(Place::open, &self.identity.fingerprint)?;
        Ok(snapshots.map(|snapshots| match &self.migrated {
            Some(migrated) => snapshots.migrating(migrated.clone()),
            None => snapshots,
        }))
    }

    /// The snapshots that a shadow with this stage's package has taken, if the plan names a place for them: to be read alone. Where there has been no
    /// shadow there is no folder for them, and none is made.
    ///
    /// # Errors
    /// The place cannot be reached.
    pub fn shadow_snapshots(&self) -> Result<Option<Snapshots>> {
        self.snapshots_at(|place| place.join(BELOW).open_as_it_is(), &self.identity.fingerprint)
    }

    fn snapshots_at(&self, open: impl FnOnce(&Place) -> Result<Arc<dyn Objects>>, fingerprint: &str) -> Result<Option<Snapshots>> {
        let (Some(settings), Some(columns)) = (&self.plan.snapshots, self.plan.state_columns()?) else { return Ok(None) };
        Ok(Some(Snapshots::new(open(&settings.place)?, columns, fingerprint)))
    }

    fn shelf(&self) -> Result<Option<Shelf>> {
        let (Some(settings), Some(snapshots)) = (&self.plan.snapshots, self.snapshots()?) else { return Ok(None) };
        let shelf = Shelf::new(snapshots, settings.every)?.and(self.shadow_snapshots()?);
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
        let mut fields = self.plan.field_names();
        let more = self.beside.iter().flat_map(|beside| beside.stage.plan.field_names()).filter(|name| !fields.contains(name));
        let more: Vec<String> = more.collect();
        fields.extend(more);
        let opening = Opening { lanes: self.plan.lanes, until_caught_up, fields, ..Opening::default() };
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
        let beside = self.beside.as_ref().filter(|_| feeds.iter().any(|(_, sinks)| sinks.shadow.is_some()));
        let second = beside.map(|beside| beside.shelf()).transpose()?.flatten();
        let mut followers = Vec::new();
        for (_, sinks) in &feeds {
            let follower = beside.filter(|_| sinks.shadow.is_some()).map(|beside| beside.follower(Cutters::new(second.as_ref())));
            followers.push(follower.transpose()?);
        }
        counts.shadow.runs.store(u64::from(beside.is_some()), Ordering::Relaxed);
        thread::scope(|scope| {
            let shelf = shelf.as_ref();
            let mut handles = Vec::new();
            for (index, (((feed, sinks), lane), follower)) in feeds.into_iter().zip(lanes).zip(followers).enumerate() {
                let plan = Arc::clone(&self.plan);
                let spawned = thread::Builder::new().name(format!("lane-{index}")).spawn_scoped(scope, move || {
                    let run = || worker::run(&plan, feed, (lane, follower), sinks, Cutters::new(shelf), stop, counts);
                    let outcome = guarded("run", &format!("lane {index}"), run).and_then(|outcome| outcome);
                    if outcome.is_err() {
                        // The others wait for nothing that this one would have done.
                        counts.partitions.note_failed();
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
