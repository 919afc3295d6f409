//! Maximum likelihood for the exponential Hawkes process, from the train split, key by key from its first event on.
//!
//! Expectation maximisation by the branching structure: each event of mark k came of the base or of an earlier event, in proportion to what they add to its
//! intensity (Veen and Schoenberg, "Estimation of Space-Time Branching Process Models", JASA 2008). Over the earlier events of mark j two sums are carried along
//! for each mark k that they excite: S of e^(-d_k age), and U of age e^(-d_k age). They are brought up to date where they are read (those of the mark that
//! arrived, by all earlier ones) and where they grow (those by the mark that arrived), so that an event costs as many exponentials as there are marks, not pairs
//! of them (Ozaki, "Maximum Likelihood Estimation of Hawkes' Self-Exciting Point Processes", 1979, for the recursion).

use super::history::{History, Part};
use super::likelihood::poisson;
use super::process::Kind;
use super::train::Progress;
use crate::base::number::f64_of_count;

/// Most marks: each pair has an excitation, and each event a row with a column for each mark.
pub const MOST_MARKS: usize = 256;
/// Rounds at most, the relative change of all parameters at which it ends, and the gain in likelihood per event.
const ROUNDS: usize = 500;
const SETTLED: f64 = 1e-5;
const GAIN: f64 = 1e-9;
/// Events of each mark that are taken to have come of the base at the least, over all the time: a mark that always came of others, or only as the first event
/// of a key, may yet come of itself.
const FEWEST: f64 = 0.5;

/// Fits the process. `progress` is told of each round with the negative log-likelihood per event.
#[must_use]
pub fn fit(history: &History, marks: &dyn Fn(usize) -> Option<usize>, count: usize, progress: &mut dyn FnMut(Progress)) -> Kind {
    let rate = match poisson(history) {
        Kind::Poisson { log_rate } => log_rate.exp(),
        _ => 1.0,
    };
    let each = f64_of_count(count);
    let mut bases = vec![0.5 * rate / each; count];
    let mut decays = vec![2.0 * rate; count];
    let mut jumps: Vec<f64> = vec![0.5 * 2.0 * rate / each; count * count];
    let mut before = f64::INFINITY;
    for round in 0..ROUNDS {
        let sums = expect(history, marks, count, &bases, &jumps, &decays);
        let loss = sums.loss(&bases, &jumps, &decays);
        progress(Progress { epoch: round + 1, epochs: ROUNDS, fraction: 1.0, train: loss, best: None });
        let mut change = 0.0_f64;
        let mut update = |old: &mut f64, new: f64| {
            if new.is_finite() && new >= 0.0 {
                change = change.max((new / f64::max(*old, 1e-12) - 1.0).abs() * f64::from(u8::from(new > 1e-9)));
                *old = new;
            }
        };
        for k in 0..count {
            let at = |values: &[f64], j: usize| values.get(k * count + j).copied().unwrap_or(0.0);
            let (from_others, weighted): (f64, f64) =
                (0..count).fold((0.0, 0.0), |(p, w), j| (p + at(&sums.caused, j), w + at(&sums.ages, j)));
            let before = decays.get(k).copied().unwrap_or(1.0);
            // Where a sequence ends the tail of each kernel is unseen: it counts as it is expected to be.
            let (unseen, unseen_age): (f64, f64) = (0..count).fold((0.0, 0.0), |(p, w), j| {
                let jump = at(&jumps, j);
                (p + jump / before * at(&sums.tails, j), w + jump / before * at(&sums.tail_ages, j))
            });
            if let Some(decay) = decays.get_mut(k) {
                // Events of one moment would draw it to infinity, and a mark that excites nothing to nowhere.
                update(decay, ((from_others + unseen) / (weighted + unseen_age).max(1e-300)).clamp(1e-4 * rate, 1e4 * rate));
            }
            let decay = decays.get(k).copied().unwrap_or(before);
            for j in 0..count {
                let seen = sums.events.get(j).copied().unwrap_or(0.0) - at(&sums.tails, j);
                if let Some(jump) = jumps.get_mut(k * count + j) {
                    update(jump, decay * at(&sums.caused, j) / seen.max(1e-300));
                }
            }
            if let Some(base) = bases.get_mut(k) {
                update(base, sums.alone.get(k).copied().unwrap_or(0.0).max(FEWEST) / sums.time.max(1e-300));
            }
        }
        if change < SETTLED || (before - loss).abs() < GAIN {
            break;
        }
        before = loss;
    }
    Kind::Hawkes { bases, jumps, decays }
}

/// What the expectation step gives, by marks (rows: excited, columns: exciting).
#[derive(Debug)]
struct Sums {
    /// Events that came of the base, by mark.
    alone: Vec<f64>,
    /// Events that came of earlier ones.
    caused: Vec<f64>,
    /// The sum of the ages of those earlier ones.
    ages: Vec<f64>,
    /// Sum over events of e^(-d (end - t)): the share of their kernels that is beyond the end.
    tails: Vec<f64>,
    /// Sum over events of the mean age beyond the end, times that share.
    tail_ages: Vec<f64>,
    /// Events that can excite, by mark.
    events: Vec<f64>,
    /// Time in which events were looked for.
    time: f64,
    /// Events that came in it, and the sum of the logarithms of their intensities.
    came: f64,
    ln_intensities: f64,
}

impl Sums {
    /// -ln of the likelihood of the parameters that it was computed with, per event.
    fn loss(&self, bases: &[f64], jumps: &[f64], decays: &[f64]) -> f64 {
        let count = decays.len();
        let mut compensator = bases.iter().sum::<f64>() * self.time;
        for (k, decay) in decays.iter().enumerate() {
            let own = jumps.iter().zip(&self.tails).skip(k * count).take(count);
            compensator += own.zip(&self.events).map(|((jump, tail), events)| jump / decay * (events - tail)).sum::<f64>();
        }
        (compensator - self.ln_intensities) / self.came.max(1.0)
    }
}

/// S and U of one key: of what has happened by the time at which each exciting mark came last.
struct Carried {
    /// Place j * count + k: by events of mark j, of the excitation of mark k.
    sums: Vec<(f64, f64)>,
    /// When mark j came last.
    last: Vec<f64>,
    /// How often.
    events: Vec<f64>,
    /// Marks that have come.
    seen: Vec<usize>,
}

impl Carried {
    /// S and U of mark k by each mark j that has come, at a time.
    fn of<'a>(&'a self, k: usize, decay: f64, now: f64) -> impl Iterator<Item = (usize, f64, f64)> + 'a {
        let count = self.last.len();
        self.seen.iter().filter_map(move |j| {
            let ((s, u), age) = (self.sums.get(j * count + k)?, now - self.last.get(*j)?);
            let fall = (-decay * age).exp();
            Some((*j, s * fall, (u + s * age) * fall))
        })
    }

    /// An event of mark j.
    fn take(&mut self, j: usize, decays: &[f64], now: f64) {
        let count = self.last.len();
        let (Some(last), Some(events)) = (self.last.get_mut(j), self.events.get_mut(j)) else { return };
        if *events == 0.0 {
            self.seen.push(j);
            *last = now;
        }
        let age = now - *last;
        for ((s, u), decay) in self.sums.iter_mut().skip(j * count).zip(decays) {
            let fall = (-decay * age).exp();
            (*s, *u) = (*s * fall + 1.0, (*u + *s * age) * fall);
        }
        (*last, *events) = (now, *events + 1.0);
    }

    /// For the next key.
    fn clear(&mut self) {
        let count = self.last.len();
        for j in self.seen.drain(..) {
            self.sums.iter_mut().skip(j * count).take(count).for_each(|sums| *sums = (0.0, 0.0));
            self.events.iter_mut().skip(j).take(1).for_each(|events| *events = 0.0);
        }
    }
}

fn expect(history: &History, marks: &dyn Fn(usize) -> Option<usize>, count: usize, bases: &[f64], jumps: &[f64], decays: &[f64]) -> Sums {
    let square = || vec![0.0; count * count];
    let add = |to: &mut [f64], i: usize, what: f64| {
        if let Some(to) = to.get_mut(i) {
            *to += what;
        }
    };
    let mut sums = Sums {
        alone: vec![0.0; count],
        caused: square(),
        ages: square(),
        tails: square(),
        tail_ages: square(),
        events: vec![0.0; count],
        time: 0.0,
        came: 0.0,
        ln_intensities: 0.0,
    };
    let mut carried = Carried { sums: vec![(0.0, 0.0); count * count], last: vec![0.0; count], events: vec![0.0; count], seen: Vec::new() };
    for range in &history.keys {
        let train = range.clone().take_while(|event| history.parts.get(*event) == Some(&Part::Train));
        let mut now = 0.0;
        for event in train {
            let mark = marks(event);
            if event > range.start {
                now += history.gaps_next.get(event - 1).copied().unwrap_or(0.0);
                if let Some((k, decay)) = mark.and_then(|k| Some((k, *decays.get(k)?))) {
                    let base = bases.get(k).copied().unwrap_or(0.0);
                    let jump = |j: usize| jumps.get(k * count + j).copied().unwrap_or(0.0);
                    let from: Vec<(usize, f64, f64)> = carried.of(k, decay, now).map(|(j, s, u)| (j, jump(j) * s, jump(j) * u)).collect();
                    let intensity = (base + from.iter().map(|(_, s, _)| s).sum::<f64>()).max(1e-300);
                    add(&mut sums.alone, k, base / intensity);
                    for (j, s, u) in from {
                        add(&mut sums.caused, k * count + j, s / intensity);
                        add(&mut sums.ages, k * count + j, u / intensity);
                    }
                    sums.came += 1.0;
                    sums.ln_intensities += intensity.ln();
                }
            }
            if let Some(j) = mark {
                carried.take(j, decays, now);
            }
        }
        sums.time += now;
        for (k, decay) in decays.iter().enumerate() {
            for (j, s, u) in carried.of(k, *decay, now) {
                add(&mut sums.tails, k * count + j, s);
                add(&mut sums.tail_ages, k * count + j, u + s / decay);
            }
        }
        sums.events.iter_mut().zip(&carried.events).for_each(|(all, own)| *all += own);
        carried.clear();
    }
    sums
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Keys of random gaps and marks; all in train but the last events of each.
    fn history(keys: usize, events: usize, marks: usize) -> (History, Vec<Option<usize>>) {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let mut history = History::default();
        let mut all = Vec::new();
        for _ in 0..keys {
            let start = history.parts.len();
            for i in 0..events {
                let gap = if random.random::<f64>() < 0.1 { 0.0 } else { -random.random::<f64>().max(1e-9).ln() };
                history.gaps_next.push(if i + 1 < events { gap } else { f64::NAN });
                history.parts.push(if i + 3 < events { Part::Train } else { Part::Test });
                all.push((random.random::<f64>() < 0.95).then(|| random.random_range(0..marks)));
            }
            history.keys.push(start..history.parts.len());
        }
        (history, all)
    }

    #[test]
    fn the_sums_that_are_carried_along_are_those_over_all_pairs_of_events() {
        let (history, all) = history(6, 30, 3);
        let (bases, decays) = ([0.2, 0.3, 0.1], [0.7, 2.0, 0.05]);
        let jumps: Vec<f64> = (0..9).map(|i| 0.1 * f64::from(i)).collect();
        let found = expect(&history, &|event| all[event], 3, &bases, &jumps, &decays);
        let (mut alone, mut caused, mut ages, mut tails, mut tail_ages) =
            (vec![0.0; 3], vec![0.0; 9], vec![0.0; 9], vec![0.0; 9], vec![0.0; 9]);
        let (mut ln_intensities, mut compensator) = (0.0, 0.0);
        for range in &history.keys {
            let train: Vec<usize> = range.clone().filter(|event| history.parts[*event] == Part::Train).collect();
            let time = |event: usize| history.gaps_next[range.start..event].iter().sum::<f64>();
            let end = time(*train.last().unwrap());
            compensator += bases.iter().sum::<f64>() * end;
            for event in &train {
                if let (Some(k), true) = (all[*event], *event > range.start) {
                    let earlier: Vec<(usize, f64)> =
                        train.iter().filter(|e| *e < event).filter_map(|e| Some((all[*e]?, time(*event) - time(*e)))).collect();
                    let intensity = bases[k] + earlier.iter().map(|(j, age)| jumps[k * 3 + j] * (-decays[k] * age).exp()).sum::<f64>();
                    alone[k] += bases[k] / intensity;
                    ln_intensities += intensity.ln();
                    for (j, age) in earlier {
                        let share = jumps[k * 3 + j] * (-decays[k] * age).exp() / intensity;
                        caused[k * 3 + j] += share;
                        ages[k * 3 + j] += share * age;
                    }
                }
                let Some(j) = all[*event] else { continue };
                for k in 0..3 {
                    let age = end - time(*event);
                    let tail = (-decays[k] * age).exp();
                    tails[k * 3 + j] += tail;
                    tail_ages[k * 3 + j] += tail * (age + 1.0 / decays[k]);
                    compensator += jumps[k * 3 + j] / decays[k] * (1.0 - tail);
                }
            }
        }
        let pairs = [
            (&found.alone, &alone),
            (&found.caused, &caused),
            (&found.ages, &ages),
            (&found.tails, &tails),
            (&found.tail_ages, &tail_ages),
        ];
        for (found, expected) in pairs {
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-9 * (1.0 + expected), "{found} {expected}");
            }
        }
        let loss = (compensator - ln_intensities) / found.came;
        assert!((found.loss(&bases, &jumps, &decays) - loss).abs() < 1e-12 * loss.abs());
    }

    #[test]
    fn each_round_makes_the_history_likelier_and_says_so() {
        let (history, all) = history(20, 60, 2);
        let mut losses = Vec::new();
        let kind = fit(&history, &|event| all[event], 2, &mut |at| losses.push(at.train));
        assert!(losses.len() > 3 && losses.windows(2).all(|two| two[1] < two[0] + 1e-9), "{losses:?}");
        // Nothing excites here: the rate is what the bases and the excitations make together.
        let Kind::Hawkes { bases, .. } = kind else { panic!() };
        assert!(bases.iter().all(|base| *base > 0.1), "{bases:?}");
    }

    #[test]
    fn a_mark_that_has_only_begun_keys_is_not_impossible() {
        let (history, mut all) = history(30, 20, 2);
        for (event, mark) in all.iter_mut().enumerate() {
            *mark = Some(if event % 20 == 0 { 2 } else { mark.unwrap_or(0) });
        }
        let Kind::Hawkes { bases, .. } = fit(&history, &|event| all[event], 3, &mut |_| {}) else { panic!() };
        let time: f64 = history.keys.iter().flat_map(|key| &history.gaps_next[key.start..key.end - 4]).sum();
        assert!((bases[2] * time - 0.5).abs() < 1e-9, "half an event in all the time: {bases:?}");
    }

    #[test]
    fn whatever_came_came_of_a_base_or_of_an_earlier_event_also_of_many_marks() {
        // By pairs of marks this would be 5e8 exponentials.
        let (history, all) = history(20, 400, MOST_MARKS);
        let (bases, decays, jumps) = (vec![0.1; MOST_MARKS], vec![1.0; MOST_MARKS], vec![1e-3; MOST_MARKS * MOST_MARKS]);
        let sums = expect(&history, &|event| all[event], MOST_MARKS, &bases, &jumps, &decays);
        let all_events: f64 = sums.events.iter().sum();
        let explained: f64 = sums.alone.iter().chain(&sums.caused).sum();
        assert!(all_events > 7000.0 && (explained - sums.came).abs() < 1e-6 * sums.came, "{explained} {}", sums.came);
    }
}
