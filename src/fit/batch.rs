//! Sequences to batches and windows: keys of like length side by side, cut into windows that carry the state on.

use candle_core::{Device, Result, Tensor};
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::history::{History, Part};
use super::loss::{Objective, Target};
use crate::base::number::{count_of, f32_of, f64_of_count};

/// Steps of a window: how far back a gradient reaches.
pub const WINDOW: usize = 64;
/// Most keys side by side.
const MAX_ROWS: usize = 256;
/// Events of a window that batches aim at: few enough for many updates per pass, enough for the matrix products to be worth it.
const EVENTS_PER_UPDATE: std::ops::RangeInclusive<usize> = 256..=4096;
/// Updates per pass that a short history aims at.
const UPDATES: usize = 32;

/// First event and number of events of a key that are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Position of its first event.
    pub start: usize,
    /// Events up to and including the last one that counts.
    pub len: usize,
}

/// The keys that have events scored in `part`, each up to the last such event.
#[must_use]
pub fn sequences(history: &History, objective: &Objective, part: Part) -> Vec<Sequence> {
    let last = |range: &std::ops::Range<usize>| range.clone().rev().find(|event| history.scored_in(*event, objective) == Some(part));
    let found =
        history.keys.iter().filter_map(|range| last(range).map(|last| Sequence { start: range.start, len: last + 1 - range.start }));
    found.collect()
}

/// Groups sequences of like length; longest first within a group. With `random`, lengths are blurred by up to a fifth and groups come in
/// random order, so that every pass sees other neighbours.
#[must_use]
pub fn groups(sequences: &[Sequence], mut random: Option<&mut ChaCha8Rng>) -> Vec<Vec<Sequence>> {
    let mut blurred: Vec<(usize, Sequence)> = sequences
        .iter()
        .map(|sequence| {
            let blur = random.as_deref_mut().map_or(1.0, |random| 1.0 + 0.2 * random.random::<f64>());
            (count_of(f64_of_count(sequence.len) * blur * 16.0), *sequence)
        })
        .collect();
    blurred.sort_by_key(|(len, sequence)| (std::cmp::Reverse(*len), sequence.start));
    let events: usize = sequences.iter().map(|sequence| sequence.len).sum();
    // Without shuffling nothing is learnt: then the largest batches are the fastest.
    let aim = if random.is_some() { events / UPDATES } else { usize::MAX }.clamp(*EVENTS_PER_UPDATE.start(), *EVENTS_PER_UPDATE.end());
    let mut groups: Vec<Vec<Sequence>> = Vec::new();
    let mut rest: &[(usize, Sequence)] = &blurred;
    while let Some((_, first)) = rest.first() {
        let rows = (aim / first.len.clamp(1, WINDOW)).clamp(1, MAX_ROWS).min(rest.len());
        let (group, after) = rest.split_at(rows);
        let mut group: Vec<Sequence> = group.iter().map(|(_, sequence)| *sequence).collect();
        group.sort_by_key(|sequence| std::cmp::Reverse(sequence.len));
        groups.push(group);
        rest = after;
    }
    if let Some(random) = random {
        groups.shuffle(random);
    }
    groups
}

/// A window of a group: the first `rows` sequences still run.
pub struct Window {
    /// Feature rows `[T, B, F]`; zeros after a sequence's end.
    pub x: Tensor,
    /// The gap before each event `[T, B, 1]`, in the law's unit; zero for a first event.
    pub gaps: Tensor,
    /// Sequences that are still running, B.
    pub rows: usize,
    /// The event of each `[T, B]` cell; `None` after a sequence's end.
    pub events: Vec<Option<usize>>,
}

impl Window {
    /// Targets of all cells, in the order of the outputs `[T * B, P]`.
    #[must_use]
    pub fn targets(&self, history: &History, objective: &Objective, part: Part) -> Vec<Target> {
        self.events.iter().map(|event| event.map_or(Target::NONE, |event| history.target(event, objective, part))).collect()
    }
}

/// The window of a group that begins at step `from`; `None` past the longest sequence. Needs the group longest first.
///
/// # Errors
/// Never for a history whose rows have its width.
pub fn window(history: &History, group: &[Sequence], from: usize) -> Result<Option<Window>> {
    let Some(longest) = group.first().map(|sequence| sequence.len).filter(|len| *len > from) else { return Ok(None) };
    let steps = (longest - from).min(WINDOW);
    let rows = group.iter().take_while(|sequence| sequence.len > from).count();
    let mut x = Vec::with_capacity(steps * rows * history.width);
    let mut gaps = Vec::with_capacity(steps * rows);
    let mut events = Vec::with_capacity(steps * rows);
    for step in from..from + steps {
        for sequence in group.iter().take(rows) {
            if step < sequence.len {
                x.extend_from_slice(history.row(sequence.start + step));
                gaps.push(if step == 0 { 0.0 } else { history.gaps_next.get(sequence.start + step - 1).map_or(0.0, |gap| f32_of(*gap)) });
                events.push(Some(sequence.start + step));
            } else {
                gaps.push(0.0);
                x.resize(x.len() + history.width, 0.0);
                events.push(None);
            }
        }
    }
    let x = Tensor::from_vec(x, (steps, rows, history.width), &Device::Cpu)?;
    Ok(Some(Window { x, gaps: Tensor::from_vec(gaps, (steps, rows, 1), &Device::Cpu)?, rows, events }))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const LAW: Objective =
        Objective::Law { law: super::super::loss::LawKind::Mixture(1), min_gap: 1e-6, resolution: None, marks: 0, value: None };

    /// Keys of the given lengths, all in the train split; the row of event i is [i].
    fn history(lengths: &[usize]) -> History {
        let mut history = History { width: 1, ..History::default() };
        for len in lengths {
            let start = history.len();
            history.keys.push(start..start + len);
            for i in 0..*len {
                history.rows.push(f32::from(u16::try_from(start + i).unwrap()));
                history.gaps_next.push(if i + 1 < *len { 1.0 } else { f64::NAN });
                history.parts.push(Part::Train);
            }
        }
        history
    }

    #[test]
    fn windows_cover_every_event_that_counts_once_and_in_order() {
        let history = history(&[1, 200, 3, 65, 130, 2]);
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let all = sequences(&history, &LAW, Part::Train);
        assert_eq!(all.iter().map(|s| s.len).collect::<Vec<_>>(), [199, 2, 64, 129, 1], "the last event of a key has nothing after it");
        for random in [None, Some(&mut random)] {
            let mut seen = vec![0; history.len()];
            for group in groups(&all, random) {
                let (mut from, mut last) = (0, std::collections::BTreeMap::new());
                while let Some(window) = window(&history, &group, from).unwrap() {
                    let x = window.x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                    for (i, event) in window.events.iter().enumerate() {
                        let Some(event) = *event else { continue };
                        assert_eq!(x[i], event as f32);
                        seen[event] += 1;
                        let before = last.insert(i % window.rows, event);
                        assert!(before.is_none_or(|before| before + 1 == event), "{before:?} {event}");
                    }
                    from += WINDOW;
                }
            }
            let expected: Vec<usize> = history.gaps_next.iter().map(|gap| usize::from(!gap.is_nan())).collect();
            assert_eq!(seen, expected);
        }
    }
}
