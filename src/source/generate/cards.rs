//! Card payments: a renewal process that follows the hours of the day, with bursts of fraud.
//!
//! **Law of the next genuine payment.** Let H(t) be *operational time*: the integral of [`PROFILE`], a rate that is constant within each hour of
//! the UTC day and has mean 1. The operational gap H(next) - H(last) of a card is Erlang with the shape and mean of its [`Class`], independent
//! of everything before. So the survival is S(t) = exp(-k x) sum_{j<k} (k x)^j / j! with x = (H(t) - H(last)) / mean, k = shape,
//! and -ln S of the gap that came is Exp(1) (time rescaling; Brown, Barbieri, Ventura, Kass and Frank 2002).
//! The first payment of a card comes as in a stationary renewal process: the rest of a gap is Erlang with 1..=k stages, each as likely.
//!
//! **Law of the channel.** See [`channels`]: by the card's habit and by whether it is night.
//!
//! **Fraud.** After each genuine payment a card is compromised with probability [`COMPROMISED`], unless it is already. Then 3 or more fraudulent
//! payments follow, minutes apart, mostly on the web, with higher amounts; genuine payments go on meanwhile.

use crate::base::number::{count_of, f64_of_count, i64_of, index};
use crate::base::time::{EventTime, Gap};

use super::START;
use super::draw::{Agenda, Draws, Due};
use super::write;

const HOUR: f64 = 3600.0;
const DAY: f64 = 86_400.0;

/// Rate of payments in each hour of the UTC day, relative to the day's mean: they sum to 24.
pub const PROFILE: [f64; 24] = [
    0.25, 0.15, 0.10, 0.10, 0.15, 0.30, 0.55, 0.90, 1.20, 1.35, 1.40, 1.50, 1.75, 1.55, 1.35, 1.30, 1.45, 1.75, 1.85, 1.60, 1.25, 1.00,
    0.70, 0.50,
];
/// Payment channels, by index.
pub const CHANNELS: [&str; 3] = ["pos", "web", "atm"];
/// Probability that a genuine payment is followed by a burst of fraud.
pub const COMPROMISED: f64 = 0.001;
/// Merchant categories are 0..MERCHANTS; the last one is a cash machine.
pub const MERCHANTS: u32 = 20;
const WEB: usize = 1;
const ATM: usize = 2;
const GENUINE: u8 = 0;
const FRAUD: u8 = 1;
const MAX_BURST: u8 = 30;

/// How often a card pays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Class {
    /// Share of the cards.
    pub share: f64,
    /// Mean operational gap in days.
    pub mean_days: f64,
    /// Shape of the Erlang law of operational gaps.
    pub shape: u32,
}

/// The classes: busy, usual and seldom used cards.
pub const CLASSES: [Class; 3] = [
    Class { share: 0.2, mean_days: 0.25, shape: 1 },
    Class { share: 0.6, mean_days: 1.0, shape: 2 },
    Class { share: 0.2, mean_days: 3.0, shape: 3 },
];

/// What a card is mostly used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// In shops.
    Shops,
    /// On the web.
    Web,
    /// For cash.
    Cash,
}

/// Probabilities of the channels of a genuine payment: by habit; at night (22 to 6 h UTC) the web counts twice.
#[must_use]
pub fn channels(habit: Habit, hour: usize) -> [f64; 3] {
    let [pos, web, atm] = match habit {
        Habit::Shops => [0.80, 0.15, 0.05],
        Habit::Web => [0.20, 0.77, 0.03],
        Habit::Cash => [0.45, 0.10, 0.45],
    };
    let web = if (6..22).contains(&hour) { web } else { 2.0 * web };
    let total = pos + web + atm;
    [pos / total, web / total, atm / total]
}

/// Operational time and back.
#[derive(Clone, Debug)]
pub struct Rhythm {
    /// Operational seconds from midnight to the start of each hour, and the rate in it.
    hours: [(f64, f64); 24],
}

impl Default for Rhythm {
    fn default() -> Self {
        let mut from = 0.0;
        let hours = PROFILE.map(|rate| {
            let start = from;
            from += rate * HOUR;
            (start, rate)
        });
        Rhythm { hours }
    }
}

impl Rhythm {
    /// H(t): operational seconds from the start of the stream to `seconds` after it. The stream starts at midnight.
    #[must_use]
    pub fn operational(&self, seconds: f64) -> f64 {
        let days = (seconds / DAY).floor();
        let rest = seconds - days * DAY;
        let hour = count_of(rest / HOUR).min(23);
        let (start, rate) = self.hours.get(hour).copied().unwrap_or((0.0, 1.0));
        days * DAY + start + rate * (rest - f64_of_count(hour) * HOUR)
    }

    /// The inverse of `operational`.
    #[must_use]
    pub fn seconds(&self, operational: f64) -> f64 {
        let days = (operational / DAY).floor();
        let rest = operational - days * DAY;
        let hour = self.hours.partition_point(|(start, _)| *start <= rest).saturating_sub(1);
        let (start, rate) = self.hours.get(hour).copied().unwrap_or((0.0, 1.0));
        days * DAY + f64_of_count(hour) * HOUR + (rest - start) / rate
    }

    /// Operational gap from `last` to `next` in units of the class's mean.
    fn gap(&self, class: Class, last: EventTime, next: EventTime) -> f64 {
        let operational = |time: EventTime| self.operational(time.since(START).seconds());
        (operational(next) - operational(last)) / (class.mean_days * DAY)
    }

    /// Probability that a card of `class` which paid at `last` has not paid again by `next`.
    #[must_use]
    pub fn survival(&self, class: Class, last: EventTime, next: EventTime) -> f64 {
        (-self.residual(class, last, next)).exp()
    }

    /// The compensator over the gap: -ln survival. Exp(1) distributed at the payments that come.
    #[must_use]
    pub fn residual(&self, class: Class, last: EventTime, next: EventTime) -> f64 {
        let x = f64::from(class.shape) * self.gap(class, last, next).max(0.0);
        let (mut term, mut sum) = (1.0, 1.0);
        for j in 1..class.shape {
            term *= x / f64::from(j);
            sum += term;
        }
        x - sum.ln()
    }

    /// Density, per second of wall-clock time, of the next payment at `next` after one at `last`.
    #[must_use]
    pub fn density(&self, class: Class, last: EventTime, next: EventTime) -> f64 {
        let scale = f64::from(class.shape) / (class.mean_days * DAY);
        let x = f64::from(class.shape) * self.gap(class, last, next);
        if x < 0.0 {
            return 0.0;
        }
        let factorial: f64 = (1..class.shape).map(f64::from).product();
        let power = (1..class.shape).fold(1.0, |product, _| product * x);
        let hour = hour_of(next);
        let rate = self.hours.get(hour).map_or(1.0, |(_, rate)| *rate);
        scale * rate * power / factorial * (-x).exp()
    }
}

/// Hour of the UTC day, 0..24.
fn hour_of(time: EventTime) -> usize {
    usize::try_from(time.0.rem_euclid(86_400_000_000) / 3_600_000_000).unwrap_or(0)
}

/// One payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payment {
    /// Card number, from 0.
    pub card: u32,
    /// Number of the payment of this card, from 0: card and number make the id.
    pub number: u32,
    /// When, in whole milliseconds.
    pub time: EventTime,
    /// Hundredths of the currency.
    pub cents: i64,
    /// Merchant category, 0..20.
    pub merchant: u32,
    /// Index into [`CHANNELS`].
    pub channel: usize,
    /// Whether the card holder did not make it.
    pub fraud: bool,
}

impl Payment {
    /// Appends the card's name.
    pub fn write_key(&self, out: &mut Vec<u8>) {
        out.push(b'c');
        write::padded(out, u64::from(self.card), 7);
    }

    /// Appends the payment's id, unique in the stream.
    pub fn write_id(&self, out: &mut Vec<u8>) {
        self.write_key(out);
        out.push(b'-');
        write::padded(out, u64::from(self.number), 6);
    }

    /// Name of the channel.
    #[must_use]
    pub fn channel_name(&self) -> &'static str {
        CHANNELS.get(self.channel).copied().unwrap_or_default()
    }

    /// Appends the payment as a JSON object.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        write::text(out, "{\"id\":\"");
        self.write_id(out);
        write::text(out, "\",\"card\":\"");
        self.write_key(out);
        write::text(out, "\",\"ts\":");
        write::integer(out, write::milliseconds(self.time));
        write::text(out, ",\"amount\":");
        write::hundredths(out, self.cents);
        write::text(out, ",\"mcc\":");
        write::integer(out, i64::from(self.merchant));
        write::text(out, ",\"channel\":\"");
        write::text(out, self.channel_name());
        write::text(out, if self.fraud { "\",\"fraud\":1}" } else { "\",\"fraud\":0}" });
    }
}

#[derive(Clone, Debug)]
struct Card {
    class: Class,
    habit: Habit,
    favourites: [u32; 4],
    /// Natural logarithm of how much its holder spends, relative to others.
    spends: f64,
    payments: u32,
    /// Fraudulent payments still to come.
    burst: u8,
}

/// The stream of payments, in order of time.
#[derive(Clone, Debug)]
pub struct Cards {
    draws: Draws,
    rhythm: Rhythm,
    agenda: Agenda,
    cards: Vec<Card>,
}

impl Cards {
    /// `keys` cards.
    #[must_use]
    pub fn new(keys: u32, seed: u64) -> Self {
        let mut draws = Draws::new(seed);
        let rhythm = Rhythm::default();
        let (mut cards, mut due) = (Vec::with_capacity(index(keys)), Vec::with_capacity(index(keys)));
        for key in 0..keys {
            let class = CLASSES.get(draws.weighted(&CLASSES.map(|class| class.share))).copied().unwrap_or(CLASSES[0]);
            let habit = match draws.below(10) {
                0..5 => Habit::Shops,
                5..8 => Habit::Web,
                _ => Habit::Cash,
            };
            let favourites = [(); 4].map(|()| draws.below(MERCHANTS - 1));
            cards.push(Card { class, habit, favourites, spends: 0.4 * draws.normal(), payments: 0, burst: 0 });
            let stages = 1 + draws.below(class.shape);
            let operational = draws.erlang(stages) * class.mean_days * DAY / f64::from(class.shape);
            due.push(Due { at: at(rhythm.seconds(operational)), key, process: GENUINE });
        }
        Cards { draws, rhythm, agenda: Agenda::new(due), cards }
    }

    /// The class of a card.
    #[must_use]
    pub fn class(&self, card: u32) -> Option<Class> {
        self.cards.get(index(card)).map(|card| card.class)
    }

    /// The habit of a card.
    #[must_use]
    pub fn habit(&self, card: u32) -> Option<Habit> {
        self.cards.get(index(card)).map(|card| card.habit)
    }

    /// The next payment; `None` only without cards.
    pub fn next_payment(&mut self) -> Option<Payment> {
        let due = self.agenda.earliest()?;
        let card = self.cards.get_mut(index(due.key))?;
        let draws = &mut self.draws;
        let fraud = due.process == FRAUD;
        let (channel, merchant, cents) = if fraud { stolen(draws) } else { genuine(draws, card, hour_of(due.at)) };
        let time = EventTime(write::milliseconds(due.at) * 1000);
        let payment = Payment { card: due.key, number: card.payments, time, cents, merchant, channel, fraud };
        card.payments = card.payments.saturating_add(1);
        if fraud {
            card.burst = card.burst.saturating_sub(1);
            if card.burst > 0 {
                let gap = Gap(i64_of(4.0 * 60e6 * draws.exponential()));
                self.agenda.replace_earliest(Due { at: due.at.after(gap), ..due });
            } else {
                self.agenda.remove_earliest();
            }
            return Some(payment);
        }
        let gap = draws.erlang(card.class.shape) * card.class.mean_days * DAY / f64::from(card.class.shape);
        let next = self.rhythm.seconds(self.rhythm.operational(due.at.since(START).seconds()) + gap);
        // A microsecond is not to be lost to rounding: time may stand still, it never goes back.
        self.agenda.replace_earliest(Due { at: at(next).max(due.at), ..due });
        if card.burst == 0 && draws.chance(COMPROMISED) {
            card.burst = 3;
            while card.burst < MAX_BURST && draws.chance(0.75) {
                card.burst += 1;
            }
            let delay = Gap(i64_of(30.0 * 60e6 * draws.exponential()));
            self.agenda.add(Due { at: due.at.after(delay), key: due.key, process: FRAUD });
        }
        Some(payment)
    }
}

fn at(seconds: f64) -> EventTime {
    START.after(Gap(i64_of(seconds * 1e6)))
}

fn genuine(draws: &mut Draws, card: &Card, hour: usize) -> (usize, u32, i64) {
    let channel = draws.weighted(&channels(card.habit, hour));
    if channel == ATM {
        return (channel, MERCHANTS - 1, 1000 * i64::from(2 + draws.below(19)));
    }
    let merchant =
        if draws.chance(0.7) { card.favourites.get(index(draws.below(4))).copied().unwrap_or(0) } else { draws.below(MERCHANTS - 1) };
    // Typical amounts rise from 10 to 65 from the first to the last kind of merchant.
    let level = 2.3 + 0.1 * f64::from(merchant) + card.spends + 0.5 * draws.normal();
    (channel, merchant, cents(level))
}

fn stolen(draws: &mut Draws) -> (usize, u32, i64) {
    let channel = if draws.chance(0.9) { WEB } else { 0 };
    (channel, draws.below(MERCHANTS - 1), cents(4.7 + 0.7 * draws.normal()))
}

fn cents(log_amount: f64) -> i64 {
    i64_of(100.0 * libm::exp(log_amount)).clamp(1, 99_999_999)
}
