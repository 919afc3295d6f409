//! Seeded streams with a known law, in order of event time: what `demo`, `generate`, `fit` and the tests run on.
//!
//! The same settings give the same bytes on every machine and in every build (see [`draw`]). The laws are written in each stream's file, with
//! their closed forms as public functions, so that forecasts can be held against the truth.

pub mod cards;
pub mod draw;
pub mod telemetry;
pub mod visits;
mod write;

use std::time::Duration;

use super::start::ended;
use super::{Assignment, Feed, GenerateSettings, Handed, Polled, Stream};
use crate::base::error::{Error, Result};
use crate::base::limits::MAX_BATCH_BYTES;
use crate::base::offset::{Offset, Partition};
use crate::base::time::EventTime;
use crate::data::commit::Commits;
use crate::data::input::Input;

/// Every stream starts at 2025-01-06T00:00:00Z, a Monday.
pub const START: EventTime = EventTime(1_736_121_600_000_000);
/// Most keys: each takes some hundred bytes of memory while the stream runs.
pub const MAX_KEYS: u32 = 20_000_000;
/// What errors call a generated stream.
const PLACE: &str = "generated stream";

impl Stream {
    /// All streams.
    pub const ALL: [Stream; 3] = [Stream::Cards, Stream::Visits, Stream::Telemetry];

    /// Its name in pipelines and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Stream::Cards => "cards",
            Stream::Visits => "visits",
            Stream::Telemetry => "telemetry",
        }
    }

    /// The stream of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Stream> {
        Self::ALL.into_iter().find(|stream| stream.name() == name)
    }
}

/// One generated event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generated {
    /// A card payment.
    Payment(cards::Payment),
    /// A hospital visit.
    Visit(visits::Visit),
    /// A device's message.
    Beat(telemetry::Beat),
}

impl Generated {
    /// When it happened, as it is written: in whole milliseconds or, for visits, seconds.
    #[must_use]
    pub fn time(&self) -> EventTime {
        match self {
            Generated::Payment(payment) => payment.time,
            Generated::Visit(visit) => visit.time,
            Generated::Beat(beat) => beat.time,
        }
    }

    /// Appends the key.
    pub fn write_key(&self, out: &mut Vec<u8>) {
        match self {
            Generated::Payment(payment) => payment.write_key(out),
            Generated::Visit(visit) => visit.write_key(out),
            Generated::Beat(beat) => beat.write_key(out),
        }
    }

    /// Appends the event as a JSON object.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Generated::Payment(payment) => payment.write_json(out),
            Generated::Visit(visit) => visit.write_json(out),
            Generated::Beat(beat) => beat.write_json(out),
        }
    }
}

#[derive(Clone, Debug)]
enum Kind {
    Cards(Box<cards::Cards>),
    Visits(Box<visits::Visits>),
    Telemetry(Box<telemetry::Telemetry>),
}

/// A stream that is running. As an iterator it gives typed events.
#[derive(Clone, Debug)]
pub struct Generator {
    kind: Kind,
    left: u64,
}

/// Starts a stream.
#[must_use]
pub fn stream(settings: &GenerateSettings) -> Generator {
    let (keys, seed) = (settings.keys, settings.seed);
    let kind = match settings.stream {
        Stream::Cards => Kind::Cards(Box::new(cards::Cards::new(keys, seed))),
        Stream::Visits => Kind::Visits(Box::new(visits::Visits::new(keys, seed))),
        Stream::Telemetry => Kind::Telemetry(Box::new(telemetry::Telemetry::new(keys, seed))),
    };
    Generator { kind, left: settings.events }
}

impl Iterator for Generator {
    type Item = Generated;

    fn next(&mut self) -> Option<Generated> {
        self.left = self.left.checked_sub(1)?;
        match &mut self.kind {
            Kind::Cards(cards) => cards.next_payment().map(Generated::Payment),
            Kind::Visits(visits) => visits.next_visit().map(Generated::Visit),
            Kind::Telemetry(telemetry) => telemetry.next_beat().map(Generated::Beat),
        }
    }
}

impl Generator {
    /// Writes the next event's JSON and key over what the buffers held. `None` at the end; the buffers are then empty.
    pub fn next_into(&mut self, payload: &mut Vec<u8>, key: &mut Vec<u8>) -> Option<EventTime> {
        payload.clear();
        key.clear();
        let event = self.next()?;
        event.write_json(payload);
        event.write_key(key);
        Some(event.time())
    }

    /// Events still to come.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }
}

/// A stream as one partition, 0, whose offsets are running numbers from 0. There is nothing to commit to: a run always starts at offset 0.
#[derive(Debug)]
pub struct GenerateFeed {
    generator: Generator,
    announced: bool,
    next: Offset,
    /// First record whose forecasts are emitted: the sink has all below.
    live_from: Offset,
    payload: Vec<u8>,
    key: Vec<u8>,
}

impl GenerateFeed {
    /// A feed over the whole stream.
    ///
    /// # Errors
    /// No keys, or more than [`MAX_KEYS`].
    pub fn open(settings: &GenerateSettings) -> Result<Self> {
        if settings.keys == 0 || settings.keys > MAX_KEYS {
            return Err(Error::config("source", format!("{} keys cannot be generated; allowed are 1 to {MAX_KEYS}", settings.keys))
                .help("set `keys` under [source] or --keys"));
        }
        let generator = stream(settings);
        Ok(GenerateFeed { generator, announced: false, next: Offset(0), live_from: Offset(0), payload: Vec::new(), key: Vec::new() })
    }
}

impl Feed for GenerateFeed {
    fn poll(&mut self, max: usize, _wait: Duration, input: &mut Input) -> Result<Polled> {
        if !self.announced {
            self.announced = true;
            return Ok(Polled::Assigned(Box::new(Assignment::whole(Partition(0), PLACE))));
        }
        while input.records.len() < max && input.records.payloads.byte_len() < MAX_BATCH_BYTES {
            if self.generator.next_into(&mut self.payload, &mut self.key).is_none() {
                break;
            }
            input.records.push(Partition(0), self.next, None, Some(&self.key), Some(&self.payload));
            self.next = self.next.next();
        }
        if input.records.is_empty() && max > 0 {
            ended("the generated stream ends", self.next, self.live_from, PLACE)?;
            return Ok(Polled::Ended);
        }
        Ok(Polled::Records)
    }

    /// Generates from the beginning: the lane leaves out what it has.
    fn start(&mut self, _partition: Partition, _read_from: Offset, live_from: Offset) -> Result<()> {
        self.live_from = live_from;
        Ok(())
    }

    /// Does nothing: a generated stream is made anew from its seed by every run.
    fn commit(&mut self, _commits: &Commits) -> Result<()> {
        Ok(())
    }

    fn released(&mut self, _partition: Partition) {}

    fn backlog(&self) -> Option<u64> {
        Some(self.generator.left())
    }

    fn handed(&self, note: &mut dyn FnMut(Handed)) {
        let end = Some(Offset(self.next.0.saturating_add_unsigned(self.generator.left())));
        note(Handed { partition: Partition(0), next: self.next, end });
    }

    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
