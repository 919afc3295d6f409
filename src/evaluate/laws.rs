//! The laws that were published, with what came of each: a sample that does not grow with the data.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::base::time::EventTime;

/// Laws of one run. When there are too many, every second one is dropped and only every second one taken from then on, whatever came of it.
#[derive(Debug)]
pub struct Laws {
    width: usize,
    most: usize,
    /// Of how many laws one is taken.
    every: usize,
    published: usize,
    laws: Vec<Law>,
    parameters: Vec<f32>,
    /// The law of each key whose event has not come yet.
    open: HashMap<Box<[u8]>, usize, FixedState>,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Law {
    /// When it was published.
    pub at: EventTime,
    /// When the next event came, if it did.
    pub came: Option<EventTime>,
}

impl Laws {
    /// None yet; each of `width` parameters, at most `most` of them.
    #[must_use]
    pub fn new(width: usize, most: usize) -> Self {
        Laws { width, most: most.max(2), every: 1, published: 0, laws: Vec::new(), parameters: Vec::new(), open: HashMap::default() }
    }

    /// An event of a key has come, and has published a law, which counts or does not.
    pub fn add(&mut self, key: &[u8], time: EventTime, counted: bool, parameters: &[f32]) {
        if let Some(law) = self.open.remove(key).and_then(|law| self.laws.get_mut(law)) {
            law.came = Some(time);
        }
        if !counted || parameters.len() != self.width {
            return;
        }
        self.published += 1;
        if !self.published.is_multiple_of(self.every) {
            return;
        }
        if self.laws.len() >= self.most {
            self.thin();
            if !self.published.is_multiple_of(self.every) {
                return;
            }
        }
        self.open.insert(key.into(), self.laws.len());
        self.laws.push(Law { at: time, came: None });
        self.parameters.extend_from_slice(parameters);
    }

    fn thin(&mut self) {
        let every_second = |place: usize| place % 2 == 1;
        let mut place = 0;
        self.laws.retain(|_| {
            place += 1;
            every_second(place - 1)
        });
        let kept = self.parameters.chunks_exact(self.width.max(1)).enumerate().filter(|(place, _)| every_second(*place));
        self.parameters = kept.flat_map(|(_, row)| row).copied().collect();
        self.open.retain(|_, place| every_second(*place));
        self.open.values_mut().for_each(|place| *place /= 2);
        self.every *= 2;
    }

    /// All of them with their parameters, in the order in which they were published.
    pub fn iter(&self) -> impl Iterator<Item = (&Law, &[f32])> {
        self.laws.iter().zip(self.parameters.chunks_exact(self.width.max(1)))
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.laws.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.laws.is_empty()
    }

    /// Of how many laws that counted one was taken.
    #[must_use]
    pub fn every(&self) -> usize {
        self.every
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_law_meets_the_next_event_of_its_key_however_many_are_dropped() {
        for most in [2, 7, 64, 10_000] {
            let mut laws = Laws::new(1, most);
            // Key k at times k, k + 10, k + 20, ...
            for time in 0..5000_i64 {
                let key = [u8::try_from(time % 10).unwrap()];
                laws.add(&key, EventTime(time), time % 10 != 3, &[time as f32]);
            }
            assert!(laws.len() <= most && laws.len() * laws.every() <= 4500 && laws.len() * 2 * laws.every() > 4000, "{most}");
            for (law, parameters) in laws.iter() {
                assert_eq!(parameters, [law.at.0 as f32]);
                assert_eq!(law.came, (law.at.0 + 10 < 5000).then_some(EventTime(law.at.0 + 10)));
                assert!(law.at.0 % 10 != 3);
            }
        }
    }
}
