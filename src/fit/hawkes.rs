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
use crate::base::number::{f64_of_count, shown};
use crate::base::time::TimeUnit;

/// Most marks: each pair has an excitation, and each event a row with a column for each mark.
pub const MOST_MARKS: usize = 256;
/// Rounds at most, the relative change of all parameters at which it ends, and the gain in likelihood per event.
const ROUNDS: usize = 500;
const SETTLED: f64 = 1e-5;
const GAIN: f64 = 1e-9;
/// Rounds of each beginning, after which the likeliest is gone on with.
const TRIED: usize = 12;
/// Excitations and bases below this share of the mean rate are nothing: how much they change does not keep it from ending.
const NOTHING: f64 = 1e-9;
/// The slowest decay loses this much over the longest time that a key was watched: a slower one cannot be told from none.
const LASTING: f64 = 0.01;
/// Events of each mark that are taken to have come of the base at the least, over all the time: a mark that always came of others, or only as the first event
/// of a key, may yet come of itself.
const FEWEST: f64 = 0.5;

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The process, in the unit of the gaps.
    pub kind: Kind,
    /// Marks whose excitation is gone after about the shortest gap that there is: how much faster it goes, nothing says.
    pub fastest: Vec<usize>,
    /// Marks whose excitation hardly falls while a key is watched: whether it ever does, nothing says.
    pub slowest: Vec<usize>,
}

impl Found {
    /// What to tell of decays that ended on a bound. `names` are those of the marks, none without.
    #[must_use]
    pub fn note(&self, unit: TimeUnit, names: &[String]) -> Option<String> {
        let Kind::Hawkes { decays, .. } = &self.kind else { return None };
        let of = |marks: &[usize], what: &str| {
            let one = |k: &usize| {
                let name = names.get(*k).map(|name| format!(" (`{name}`)")).unwrap_or_default();
                decays.get(*k).map(|decay| format!("{} per `{}`{name}", shown(*decay, 4), unit.name()))
            };
            let found: Vec<String> = marks.iter().filter_map(one).collect();
            (!found.is_empty()).then(|| format!("{what}: {}.", found.join(", ")))
        };
        let parts = [
            of(&self.fastest, "The data bound the decay from above, the excitation is gone after about the shortest gap"),
            of(&self.slowest, "The data bound the decay from below, the excitation hardly falls while a key is watched"),
        ];
        let notes: Vec<String> = parts.into_iter().flatten().collect();
        (!notes.is_empty()).then(|| notes.join(" "))
    }
}

/// The process so far. Its unit of time is the mean gap, so that it takes the same way whatever the unit of the gaps.
#[derive(Clone, Debug)]
struct Guess {
    bases: Vec<f64>,
    jumps: Vec<f64>,
    decays: Vec<f64>,
}

/// The train split as the rounds see it.
struct Watched<'a> {
    history: &'a History,
    marks: &'a dyn Fn(usize) -> Option<usize>,
    count: usize,
    /// Mean gaps in a unit of the history's gaps.
    pace: f64,
    /// No gap is shorter, in mean gaps.
    floor: f64,
}

impl Watched<'_> {
    /// The gap before an event that is not the first of its key, in mean gaps.
    fn gap_before(&self, event: usize) -> f64 {
        (self.history.gaps_next.get(event - 1).copied().unwrap_or(0.0) * self.pace).max(self.floor)
    }

    /// The slowest and the fastest decay that the gaps can show.
    fn bounds(&self) -> (f64, f64) {
        let (mut shortest, mut longest) = (f64::INFINITY, 0.0_f64);
        for range in &self.history.keys {
            let train = range.clone().skip(1).take_while(|event| self.history.parts.get(*event) == Some(&Part::Train));
            let mut span = 0.0;
            for gap in train.map(|event| self.gap_before(event)).filter(|gap| *gap > 0.0) {
                (shortest, span) = (f64::min(shortest, gap), span + gap);
            }
            longest = longest.max(span);
        }
        let slowest = LASTING / longest.max(1e-300);
        (slowest, f64::max(1.0 / shortest, slowest))
    }

    /// Decays to begin with: that of the mean gap and, where gaps are of several scales, those of the shorter ones. A beginning that is far off its bursts takes
    /// more rounds than there are to find them.
    fn beginnings(&self, (slowest, fastest): (f64, f64)) -> Vec<f64> {
        let mut gaps: Vec<f64> = self.history.gaps_of(Part::Train).map(|gap| (gap * self.pace).max(self.floor)).collect();
        gaps.sort_by(f64::total_cmp);
        let quantile = |tenths: usize| gaps.get(gaps.len() * tenths / 10).map_or(1.0, |gap| 1.0 / gap.max(1e-300));
        let mut decays = vec![2.0_f64.clamp(slowest, fastest)];
        for decay in [quantile(5), quantile(2)] {
            if decays.iter().all(|other| decay > 4.0 * other) {
                decays.push(decay.clamp(slowest, fastest));
            }
        }
        decays
    }
}

/// Fits the process. Gaps below `floor`, in the history's unit, are taken as that long, as they are where the law is judged: without one, events of one moment
/// would draw the decays to infinity. `progress` is told of each round with the negative log-likelihood per event.
#[must_use]
pub fn fit(
    history: &History,
    marks: &dyn Fn(usize) -> Option<usize>,
    count: usize,
    floor: f64,
    progress: &mut dyn FnMut(Progress),
) -> Found {
    let rate = match poisson(history, floor) {
        Kind::Poisson { log_rate } => log_rate.exp(),
        _ => 1.0,
    };
    let watched = Watched { history, marks, count, pace: rate, floor: floor * rate };
    let bounds = watched.bounds();
    let each = f64_of_count(count);
    let mut told = 0;
    let mut tell = |loss: f64| {
        told += 1;
        // A density of a unit of the history's gaps.
        progress(Progress { epoch: told, epochs: ROUNDS, fraction: 1.0, train: loss - rate.ln(), best: None });
    };
    let beginnings = watched.beginnings(bounds);
    let several = beginnings.len() > 1;
    let mut best: Option<(f64, Guess)> = None;
    for decay in beginnings {
        let mut guess =
            Guess { bases: vec![0.5 / each; count], jumps: vec![0.5 * decay / each; count * count], decays: vec![decay; count] };
        let rounds = if several { TRIED } else { 0 };
        let loss = (0..rounds).fold(f64::INFINITY, |_, _| watched.round(&mut guess, bounds).0);
        if best.as_ref().is_none_or(|(least, _)| loss < *least) {
            best = Some((loss, guess));
        }
    }
    let (mut before, mut guess) = best.unwrap_or((f64::INFINITY, Guess { bases: Vec::new(), jumps: Vec::new(), decays: Vec::new() }));
    for _ in 0..ROUNDS {
        let (loss, change) = watched.round(&mut guess, bounds);
        tell(loss);
        if change < SETTLED || (before - loss).abs() < GAIN {
            break;
        }
        before = loss;
    }
    // Where nothing is excited the decay is that of nothing.
    let excited = |k: &usize| guess.jumps.iter().skip(k * count).take(count).any(|jump| *jump > NOTHING);
    let of = |on_bound: &dyn Fn(f64) -> bool| {
        let ended = guess.decays.iter().enumerate().filter(|(_, decay)| on_bound(**decay));
        ended.map(|(k, _)| k).filter(excited).collect::<Vec<usize>>()
    };
    let (fastest, slowest) = (of(&|decay| decay > 0.5 * bounds.1), of(&|decay| decay < 1.01 * bounds.0));
    let in_unit = |values: Vec<f64>| values.into_iter().map(|value| value * rate).collect::<Vec<f64>>();
    Found {
        kind: Kind::Hawkes { bases: in_unit(guess.bases), jumps: in_unit(guess.jumps), decays: in_unit(guess.decays) },
        fastest,
        slowest,
    }
}

impl Watched<'_> {
    /// One round: the loss of the guess as it was, and the largest relative change that it brought.
    fn round(&self, guess: &mut Guess, (slowest, fastest): (f64, f64)) -> (f64, f64) {
        let count = self.count;
        let sums = self.expect(guess);
        let loss = sums.loss(guess);
        let mut change = 0.0_f64;
        let mut update = |old: &mut f64, new: f64| {
            if new.is_finite() && new >= 0.0 {
                change = change.max((new / f64::max(*old, 1e-300) - 1.0).abs() * f64::from(u8::from(new > NOTHING)));
                *old = new;
            }
        };
        for k in 0..count {
            let at = |values: &[f64], j: usize| values.get(k * count + j).copied().unwrap_or(0.0);
            let (from_others, weighted): (f64, f64) =
                (0..count).fold((0.0, 0.0), |(p, w), j| (p + at(&sums.caused, j), w + at(&sums.ages, j)));
            let before = guess.decays.get(k).copied().unwrap_or(1.0);
            // Where a sequence ends the tail of each kernel is unseen: it counts as it is expected to be.
            let (unseen, unseen_age): (f64, f64) = (0..count).fold((0.0, 0.0), |(p, w), j| {
                let jump = at(&guess.jumps, j);
                (p + jump / before * at(&sums.tails, j), w + jump / before * at(&sums.tail_ages, j))
            });
            if let Some(decay) = guess.decays.get_mut(k) {
                // A mark that excites nothing would draw it to nowhere.
                update(decay, ((from_others + unseen) / (weighted + unseen_age).max(1e-300)).clamp(slowest, fastest));
            }
            let decay = guess.decays.get(k).copied().unwrap_or(before);
            for j in 0..count {
                let seen = sums.events.get(j).copied().unwrap_or(0.0) - at(&sums.tails, j);
                if let Some(jump) = guess.jumps.get_mut(k * count + j) {
                    update(jump, decay * at(&sums.caused, j) / seen.max(1e-300));
                }
            }
            if let Some(base) = guess.bases.get_mut(k) {
                update(base, sums.alone.get(k).copied().unwrap_or(0.0).max(FEWEST) / sums.time.max(1e-300));
            }
        }
        (loss, change)
    }
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
    fn loss(&self, Guess { bases, jumps, decays }: &Guess) -> f64 {
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

impl Watched<'_> {
    fn expect(&self, Guess { bases, jumps, decays }: &Guess) -> Sums {
        let (history, count) = (self.history, self.count);
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
        let mut carried =
            Carried { sums: vec![(0.0, 0.0); count * count], last: vec![0.0; count], events: vec![0.0; count], seen: Vec::new() };
        for range in &history.keys {
            let train = range.clone().take_while(|event| history.parts.get(*event) == Some(&Part::Train));
            let mut now = 0.0;
            for event in train {
                let mark = (self.marks)(event);
                if event > range.start {
                    now += self.gap_before(event);
                    if let Some((k, decay)) = mark.and_then(|k| Some((k, *decays.get(k)?))) {
                        let base = bases.get(k).copied().unwrap_or(0.0);
                        let jump = |j: usize| jumps.get(k * count + j).copied().unwrap_or(0.0);
                        let from: Vec<(usize, f64, f64)> =
                            carried.of(k, decay, now).map(|(j, s, u)| (j, jump(j) * s, jump(j) * u)).collect();
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
        let marks = |event: usize| all[event];
        let guess = Guess { bases: bases.to_vec(), jumps: jumps.clone(), decays: decays.to_vec() };
        let found = Watched { history: &history, marks: &marks, count: 3, pace: 1.0, floor: 0.0 }.expect(&guess);
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
        assert!((found.loss(&guess) - loss).abs() < 1e-12 * loss.abs());
    }

    #[test]
    fn each_round_makes_the_history_likelier_and_says_so() {
        let (history, all) = history(20, 60, 2);
        let mut losses = Vec::new();
        let kind = fit(&history, &|event| all[event], 2, 1e-3, &mut |at| losses.push(at.train)).kind;
        assert!(losses.len() > 3 && losses.windows(2).all(|two| two[1] < two[0] + 1e-9), "{losses:?}");
        // Nothing excites here: the rate is what the bases and the excitations make together.
        let Kind::Hawkes { bases, .. } = kind else { panic!() };
        assert!(bases.iter().all(|base| *base > 0.1), "{bases:?}");
    }

    /// Bursts of a process whose events each excite half an event more within a few seconds, weeks apart; seconds.
    fn bursts() -> History {
        let mut random = ChaCha8Rng::seed_from_u64(55);
        let mut exponential = move |mean: f64| -mean * (1.0 - random.random::<f64>()).ln();
        let mut history = History::default();
        for _ in 0..40 {
            let (mut times, mut base) = (Vec::new(), 0.0);
            for _ in 0..20 {
                base += exponential(7.0 * 86_400.0);
                let mut young = vec![base];
                while let Some(time) = young.pop() {
                    times.push(time);
                    // A Poisson number of mean a half: unit exponentials within it.
                    let mut sum = exponential(1.0);
                    while sum < 0.5 {
                        young.push(time + exponential(2.0));
                        sum += exponential(1.0);
                    }
                }
            }
            times.sort_by(f64::total_cmp);
            let start = history.parts.len();
            history.gaps_next.extend(times.windows(2).map(|two| two[1] - two[0]).chain([f64::NAN]));
            history.parts.resize(history.gaps_next.len(), Part::Train);
            history.keys.push(start..history.parts.len());
        }
        history
    }

    #[test]
    fn bursts_far_shorter_than_the_mean_gap_are_found_and_the_same_in_every_unit() {
        let history = bursts();
        let mut laws = Vec::new();
        for unit in [1.0, 1e-6, 86_400.0] {
            let mut scaled = history.clone();
            scaled.gaps_next.iter_mut().for_each(|gap| *gap /= unit);
            let mut loss = f64::NAN;
            let found = fit(&scaled, &|_| Some(0), 1, 1e-6 / unit, &mut |at| loss = at.train);
            assert!(found.fastest.is_empty() && found.slowest.is_empty(), "{found:?}");
            let Kind::Hawkes { bases, jumps, decays } = found.kind else { panic!() };
            // Bases of one in a week, half an event more each, gone after two seconds.
            assert!((bases[0] / unit * 7.0 * 86_400.0 - 1.0).abs() < 0.1, "{unit}: {bases:?}");
            assert!(
                (decays[0] / unit / 0.5 - 1.0).abs() < 0.1 && (jumps[0] / decays[0] - 0.5).abs() < 0.05,
                "{unit}: {jumps:?} {decays:?}"
            );
            laws.push((loss + unit.ln(), decays[0] / unit));
        }
        for (loss, decay) in &laws {
            assert!((loss - laws[0].0).abs() < 1e-9 && (decay / laws[0].1 - 1.0).abs() < 1e-9, "{laws:?}");
        }
    }

    #[test]
    fn events_of_one_moment_end_the_decay_on_a_bound_and_that_is_said() {
        let mut history = bursts();
        history.gaps_next.iter_mut().for_each(|gap| *gap = if *gap < 60.0 { 0.0 } else { *gap });
        let found = fit(&history, &|_| Some(0), 1, 1e-3, &mut |_| {});
        assert_eq!((found.fastest.as_slice(), found.slowest.as_slice()), (&[0][..], &[][..]), "{found:?}");
        let note = found.note(TimeUnit::Second, &["knock".to_owned()]).unwrap();
        assert!(note.contains("gone after about the shortest gap") && note.contains("per `s` (`knock`)"), "{note}");
        // As fast as the floor at the most.
        let Kind::Hawkes { decays, .. } = found.kind else { panic!() };
        assert!(decays[0] > 500.0 && decays[0] < 1001.0, "{decays:?}");
    }

    #[test]
    fn a_mark_that_has_only_begun_keys_is_not_impossible() {
        let (history, mut all) = history(30, 20, 2);
        for (event, mark) in all.iter_mut().enumerate() {
            *mark = Some(if event % 20 == 0 { 2 } else { mark.unwrap_or(0) });
        }
        let Kind::Hawkes { bases, .. } = fit(&history, &|event| all[event], 3, 1e-9, &mut |_| {}).kind else { panic!() };
        let time: f64 = history.keys.iter().flat_map(|key| &history.gaps_next[key.start..key.end - 4]).sum();
        assert!((bases[2] * time - 0.5).abs() < 1e-9, "half an event in all the time: {bases:?}");
    }

    #[test]
    fn whatever_came_came_of_a_base_or_of_an_earlier_event_also_of_many_marks() {
        // By pairs of marks this would be 5e8 exponentials.
        let (history, all) = history(20, 400, MOST_MARKS);
        let guess = Guess { bases: vec![0.1; MOST_MARKS], decays: vec![1.0; MOST_MARKS], jumps: vec![1e-3; MOST_MARKS * MOST_MARKS] };
        let marks = |event: usize| all[event];
        let sums = Watched { history: &history, marks: &marks, count: MOST_MARKS, pace: 1.0, floor: 0.0 }.expect(&guess);
        let all_events: f64 = sums.events.iter().sum();
        let explained: f64 = sums.alone.iter().chain(&sums.caused).sum();
        assert!(all_events > 7000.0 && (explained - sums.came).abs() < 1e-6 * sums.came, "{explained} {}", sums.came);
    }
}
