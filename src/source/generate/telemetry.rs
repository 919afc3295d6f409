//! Device telemetry: heartbeats with jitter and drift, and outages.
//!
//! **Law of the next heartbeat.** A device has a nominal period; its own period at time t is `nominal * (1 + 0.1 wave(t))`, where `wave` is a
//! triangle wave of a day or more that starts anywhere: slow drift. With probability 1 - [`OUTAGE`] the next beat comes after
//! period * (1 + 0.05 J), J triangular on [-1, 1]. Otherwise the device is out for [`OUTAGE_PERIODS`] periods on average, exponential, on top of
//! one period, and its next message is a `boot`. Survival: see [`survival`].

use crate::base::number::{f64_of, i64_of, index};
use crate::base::time::{EventTime, Gap};

use super::START;
use super::draw::{Agenda, Draws, Due};
use super::write;

/// Nominal periods in seconds; each is as likely.
pub const PERIODS: [f64; 4] = [60.0, 120.0, 300.0, 900.0];
/// Probability that a beat is followed by an outage.
pub const OUTAGE: f64 = 0.004;
/// Mean length of an outage, in periods.
pub const OUTAGE_PERIODS: f64 = 20.0;
/// Jitter: largest deviation of a beat from the period.
pub const JITTER: f64 = 0.05;
const DRIFT: f64 = 0.1;
const WARN_TEMPERATURE: i64 = 6000;
const WARN_BATTERY: i64 = 15;

/// What a device says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// All is well.
    Ok,
    /// Too hot, or the battery is low.
    Warn,
    /// The first message after an outage.
    Boot,
}

impl Status {
    /// Its name in the record.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Boot => "boot",
        }
    }
}

/// Probability that no message has come `gap` seconds after a beat of a device whose period is then `period` seconds.
#[must_use]
pub fn survival(period: f64, gap: f64) -> f64 {
    let x = ((gap / period - 1.0) / JITTER).clamp(-1.0, 1.0);
    let beat = if x <= 0.0 { 1.0 - 0.5 * (1.0 + x) * (1.0 + x) } else { 0.5 * (1.0 - x) * (1.0 - x) };
    let out = if gap <= period { 1.0 } else { (-(gap - period) / (OUTAGE_PERIODS * period)).exp() };
    (1.0 - OUTAGE) * beat + OUTAGE * out
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Device number, from 0.
    pub device: u32,
    /// Number of the message of this device, from 0.
    pub number: u32,
    /// When, in whole milliseconds.
    pub time: EventTime,
    /// Hundredths of a degree Celsius.
    pub temperature: i64,
    /// Per cent.
    pub battery: i64,
    /// What the device says of itself.
    pub status: Status,
}

impl Beat {
    /// Appends the device's name.
    pub fn write_key(&self, out: &mut Vec<u8>) {
        out.push(b'd');
        write::padded(out, u64::from(self.device), 6);
    }

    /// Appends the message's id, unique in the stream.
    pub fn write_id(&self, out: &mut Vec<u8>) {
        self.write_key(out);
        out.push(b'-');
        write::padded(out, u64::from(self.number), 7);
    }

    /// Appends the message as a JSON object.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        write::text(out, "{\"id\":\"");
        self.write_id(out);
        write::text(out, "\",\"device\":\"");
        self.write_key(out);
        write::text(out, "\",\"ts\":");
        write::integer(out, write::milliseconds(self.time));
        write::text(out, ",\"temperature\":");
        write::hundredths(out, self.temperature);
        write::text(out, ",\"battery\":");
        write::integer(out, self.battery);
        write::text(out, ",\"status\":\"");
        write::text(out, self.status.name());
        write::text(out, "\"}");
    }
}

/// What stays the same of a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Device {
    /// Nominal period in seconds.
    pub nominal: f64,
    /// Length of the drift wave in seconds, and where in it the stream starts (0 to 1).
    pub wave: (f64, f64),
    /// Mean temperature in degrees Celsius.
    pub warmth: f64,
    /// Seconds in which a full battery runs empty, and how full it is at the start (0 to 1).
    pub battery: (f64, f64),
}

impl Device {
    /// The device's period at a time, in seconds.
    #[must_use]
    pub fn period(&self, time: EventTime) -> f64 {
        self.nominal * (1.0 + DRIFT * triangle(time.since(START).seconds() / self.wave.0 + self.wave.1))
    }
}

/// A triangle wave of period 1 between -1 and 1.
fn triangle(x: f64) -> f64 {
    4.0 * (x - (x + 0.5).floor()).abs() - 1.0
}

#[derive(Clone, Debug)]
struct Run {
    device: Device,
    messages: u32,
    /// The next message is the first after an outage.
    boots: bool,
    /// Deviation of the temperature from its daily course: an autoregression over messages.
    unrest: f64,
}

/// The stream of messages, in order of time.
#[derive(Clone, Debug)]
pub struct Telemetry {
    draws: Draws,
    agenda: Agenda,
    devices: Vec<Run>,
}

impl Telemetry {
    /// `keys` devices.
    #[must_use]
    pub fn new(keys: u32, seed: u64) -> Self {
        let mut draws = Draws::new(seed);
        let (mut devices, mut due) = (Vec::with_capacity(index(keys)), Vec::with_capacity(index(keys)));
        for key in 0..keys {
            let nominal = PERIODS.get(draws.weighted(&[1.0; 4])).copied().unwrap_or(60.0);
            let wave = (86_400.0 * (1.0 + 6.0 * draws.uniform()), draws.uniform());
            let warmth = 25.0 + 20.0 * draws.uniform();
            let battery = (86_400.0 * (5.0 + 25.0 * draws.uniform()), draws.uniform());
            devices.push(Run { device: Device { nominal, wave, warmth, battery }, messages: 0, boots: false, unrest: 0.0 });
            due.push(Due { at: START.after(seconds(nominal * draws.uniform())), key, process: 0 });
        }
        Telemetry { draws, agenda: Agenda::new(due), devices }
    }

    /// What stays the same of a device.
    #[must_use]
    pub fn device(&self, device: u32) -> Option<Device> {
        self.devices.get(index(device)).map(|run| run.device)
    }

    /// The next message; `None` only without devices.
    pub fn next_beat(&mut self) -> Option<Beat> {
        let due = self.agenda.earliest()?;
        let run = self.devices.get_mut(index(due.key))?;
        let draws = &mut self.draws;
        let since = due.at.since(START).seconds();
        run.unrest = 0.95 * run.unrest + 0.6 * draws.normal();
        let daily = 6.0 * triangle(since / 86_400.0 + 0.15);
        let temperature = i64_of(100.0 * (run.device.warmth + daily + run.unrest));
        let (life, full) = run.device.battery;
        let battery = i64_of(100.0 * (1.0 - (since / life + 1.0 - full).fract())).clamp(0, 100);
        let status = match (run.boots, temperature > WARN_TEMPERATURE || battery < WARN_BATTERY) {
            (true, _) => Status::Boot,
            (false, true) => Status::Warn,
            (false, false) => Status::Ok,
        };
        let time = EventTime(write::milliseconds(due.at) * 1000);
        let beat = Beat { device: due.key, number: run.messages, time, temperature, battery, status };
        run.messages = run.messages.saturating_add(1);
        let period = run.device.period(due.at);
        run.boots = draws.chance(OUTAGE);
        let gap = if run.boots {
            period * (1.0 + OUTAGE_PERIODS * draws.exponential())
        } else {
            period * (1.0 + JITTER * (draws.uniform() + draws.uniform() - 1.0))
        };
        self.agenda.replace_earliest(Due { at: due.at.after(seconds(gap)), ..due });
        Some(beat)
    }
}

fn seconds(seconds: f64) -> Gap {
    Gap(i64_of(seconds * 1e6))
}

/// Degrees from hundredths, for typed columns.
#[must_use]
pub fn degrees(hundredths: i64) -> f64 {
    f64_of(hundredths) / 100.0
}
