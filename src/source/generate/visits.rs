//! Hospital visits: readmissions that excite each other.
//!
//! A multivariate Hawkes process per patient with exponential kernels of one rate: the intensity of diagnosis m at time t is
//! base_m + sum over earlier visits i of CHILDREN[m_i][m] * DECAY * exp(-DECAY (t - t_i)), in visits per day. `CHILDREN[a][b]` is the mean
//! number of visits for b that one visit for a brings about directly; its rows sum to less than 0.7, so the process is stationary.
//!
//! Simulated exactly and without rejections (Dassios and Zhao 2013, "Exact simulation of Hawkes process with exponentially decaying intensity"):
//! the next visit is the earlier of one of the base process, an exponential gap, and one of the decaying part, whose compensator
//! S (1 - exp(-DECAY tau)) / DECAY is inverted in closed form. The diagnosis is then drawn by the intensities at that time.

use crate::base::number::{i64_of, index};
use crate::base::time::{EventTime, Gap};

use super::START;
use super::draw::{Agenda, Draws, Due};
use super::write;

const DAY: f64 = 86_400.0;

/// Number of diagnoses.
pub const MARKS: usize = 10;
/// The diagnoses (ICD-10): heart failure, lung disease, diabetes, kidney disease, infarction, pneumonia, stroke, hip fracture, bleeding, sepsis.
pub const DIAGNOSES: [&str; MARKS] = ["I50", "J44", "E11", "N18", "I21", "J18", "I63", "S72", "K92", "A41"];
/// Rate, per day, at which excitement fades: its mean age is 10 days.
pub const DECAY: f64 = 0.1;
/// Visits per day and diagnosis without excitement, before the patient's frailty.
pub const BASE: [f64; MARKS] = [0.018, 0.014, 0.012, 0.010, 0.008, 0.012, 0.006, 0.005, 0.007, 0.008];
/// Share of the patients and factor on `BASE`.
pub const FRAILTY: [(f64, f64); 3] = [(0.5, 0.5), (0.35, 1.0), (0.15, 2.5)];
/// Mean number of direct follow-up visits: a row per cause, a column per consequence.
pub const CHILDREN: [[f64; MARKS]; MARKS] = [
    [0.35, 0.02, 0.00, 0.10, 0.06, 0.06, 0.02, 0.00, 0.00, 0.02],
    [0.04, 0.34, 0.00, 0.00, 0.02, 0.18, 0.00, 0.00, 0.00, 0.03],
    [0.04, 0.00, 0.26, 0.14, 0.05, 0.02, 0.04, 0.00, 0.00, 0.05],
    [0.14, 0.00, 0.02, 0.34, 0.02, 0.02, 0.00, 0.00, 0.04, 0.06],
    [0.24, 0.00, 0.00, 0.02, 0.20, 0.02, 0.05, 0.00, 0.04, 0.00],
    [0.04, 0.10, 0.00, 0.00, 0.00, 0.22, 0.00, 0.00, 0.00, 0.12],
    [0.02, 0.00, 0.00, 0.00, 0.03, 0.16, 0.20, 0.06, 0.02, 0.04],
    [0.02, 0.00, 0.00, 0.00, 0.00, 0.14, 0.02, 0.16, 0.03, 0.08],
    [0.02, 0.00, 0.00, 0.04, 0.02, 0.02, 0.00, 0.00, 0.34, 0.05],
    [0.04, 0.02, 0.00, 0.12, 0.00, 0.10, 0.00, 0.00, 0.02, 0.26],
];

/// The law of a patient's next visit, right after its last one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Law {
    /// Factor on `BASE`.
    pub frailty: f64,
    /// Excitement of each diagnosis right after the last visit, in visits per day.
    pub excitement: [f64; MARKS],
}

impl Law {
    /// The law before a patient's first visit.
    #[must_use]
    pub fn new(frailty: f64) -> Self {
        Law { frailty, excitement: [0.0; MARKS] }
    }

    /// Intensity of each diagnosis `days` after the last visit, in visits per day.
    #[must_use]
    pub fn intensities(&self, days: f64) -> [f64; MARKS] {
        let fade = libm::exp(-DECAY * days);
        let mut intensities = BASE.map(|base| self.frailty * base);
        for (intensity, excitement) in intensities.iter_mut().zip(&self.excitement) {
            *intensity += excitement * fade;
        }
        intensities
    }

    /// ln of the intensity of diagnosis `mark`, `days` after the last visit; `None` for an unknown mark.
    #[must_use]
    pub fn log_intensity(&self, mark: usize, days: f64) -> Option<f64> {
        self.intensities(days).get(mark).map(|intensity| libm::log(*intensity))
    }

    /// Expected number of visits of all diagnoses within `days` if none comes: the integral of the intensities. Exp(1) distributed at the
    /// visits that come.
    #[must_use]
    pub fn compensator(&self, days: f64) -> f64 {
        self.base() * days + self.excited() * -libm::expm1(-DECAY * days) / DECAY
    }

    /// Takes a visit for `mark`, `days` after the last one.
    pub fn visit(&mut self, mark: usize, days: f64) {
        let fade = libm::exp(-DECAY * days);
        let children = CHILDREN.get(mark).copied().unwrap_or_default();
        for (excitement, children) in self.excitement.iter_mut().zip(children) {
            *excitement = *excitement * fade + children * DECAY;
        }
    }

    /// Draws the days to the next visit.
    fn next_gap(&self, draws: &mut Draws) -> f64 {
        let base = draws.exponential() / self.base();
        // The decaying part brings a visit with probability 1 - exp(-S / DECAY) only.
        let left = 1.0 - DECAY * draws.exponential() / self.excited();
        if left > 0.0 { base.min(-libm::log(left) / DECAY) } else { base }
    }

    fn base(&self) -> f64 {
        self.frailty * BASE.iter().sum::<f64>()
    }

    fn excited(&self) -> f64 {
        self.excitement.iter().sum()
    }
}

/// One visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// Patient number, from 0.
    pub patient: u32,
    /// Running number of the visit in the stream, from 0: its id.
    pub number: u64,
    /// When the patient was admitted, in whole seconds.
    pub time: EventTime,
    /// Index into [`DIAGNOSES`].
    pub diagnosis: usize,
    /// Age of the patient in whole years.
    pub age: u32,
    /// Length of the stay in days.
    pub los_days: u32,
}

impl Visit {
    /// Appends the patient's name.
    pub fn write_key(&self, out: &mut Vec<u8>) {
        out.push(b'p');
        write::padded(out, u64::from(self.patient), 6);
    }

    /// Appends the visit's id, unique in the stream.
    pub fn write_id(&self, out: &mut Vec<u8>) {
        out.push(b'v');
        write::padded(out, self.number, 9);
    }

    /// Name of the diagnosis.
    #[must_use]
    pub fn diagnosis_name(&self) -> &'static str {
        DIAGNOSES.get(self.diagnosis).copied().unwrap_or_default()
    }

    /// Appends the visit as a JSON object.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        write::text(out, "{\"visit\":\"");
        self.write_id(out);
        write::text(out, "\",\"patient\":\"");
        self.write_key(out);
        write::text(out, "\",\"admitted\":\"");
        write::date_time(out, self.time);
        write::text(out, "\",\"diagnosis\":\"");
        write::text(out, self.diagnosis_name());
        write::text(out, "\",\"age\":");
        write::integer(out, i64::from(self.age));
        write::text(out, ",\"los_days\":");
        write::integer(out, i64::from(self.los_days));
        out.push(b'}');
    }
}

#[derive(Clone, Debug)]
struct Patient {
    law: Law,
    /// Microseconds, not rounded to the seconds that are written.
    last: EventTime,
    /// Age in days at the start of the stream.
    age_days: u32,
}

/// The stream of visits, in order of time.
#[derive(Clone, Debug)]
pub struct Visits {
    draws: Draws,
    agenda: Agenda,
    patients: Vec<Patient>,
    number: u64,
}

impl Visits {
    /// `keys` patients.
    #[must_use]
    pub fn new(keys: u32, seed: u64) -> Self {
        let mut draws = Draws::new(seed);
        let (mut patients, mut due) = (Vec::with_capacity(index(keys)), Vec::with_capacity(index(keys)));
        for key in 0..keys {
            let class = draws.weighted(&FRAILTY.map(|(share, _)| share));
            let law = Law::new(FRAILTY.get(class).map_or(1.0, |(_, factor)| *factor));
            let age_days = 365 * 40 + draws.below(365 * 50);
            patients.push(Patient { law, last: START, age_days });
            due.push(Due { at: START.after(days(law.next_gap(&mut draws))), key, process: 0 });
        }
        Visits { draws, agenda: Agenda::new(due), patients, number: 0 }
    }

    /// The factor on the base rates of a patient.
    #[must_use]
    pub fn frailty(&self, patient: u32) -> Option<f64> {
        self.patients.get(index(patient)).map(|patient| patient.law.frailty)
    }

    /// The next visit; `None` only without patients.
    pub fn next_visit(&mut self) -> Option<Visit> {
        let due = self.agenda.earliest()?;
        let patient = self.patients.get_mut(index(due.key))?;
        let gap = due.at.since(patient.last).seconds() / DAY;
        let diagnosis = self.draws.weighted(&patient.law.intensities(gap));
        let lived = u32::try_from(due.at.since(START).0 / 86_400_000_000).unwrap_or(0);
        let visit = Visit {
            patient: due.key,
            number: self.number,
            time: EventTime(due.at.0.div_euclid(1_000_000) * 1_000_000),
            diagnosis,
            age: patient.age_days.saturating_add(lived) / 365,
            los_days: stay(&mut self.draws, diagnosis),
        };
        self.number += 1;
        patient.law.visit(diagnosis, gap);
        patient.last = due.at;
        let next = due.at.after(days(patient.law.next_gap(&mut self.draws)));
        self.agenda.replace_earliest(Due { at: next, ..due });
        Some(visit)
    }
}

fn days(days: f64) -> Gap {
    Gap(i64_of(days * DAY * 1e6))
}

/// At least a day; fractures, strokes and sepsis keep patients longest.
fn stay(draws: &mut Draws, diagnosis: usize) -> u32 {
    let mean = [5.0, 4.0, 3.0, 4.0, 5.0, 5.0, 8.0, 10.0, 3.0, 9.0].get(diagnosis).copied().unwrap_or(5.0);
    u32::try_from(i64_of(mean * draws.exponential())).unwrap_or(0).min(60) + 1
}
