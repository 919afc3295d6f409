//! A lane that follows another one: it takes in the same records, at the same ticks, of all keys or of a share of them.

use super::Lane;
use super::paths::mix;
use crate::base::error::Result;
use crate::base::number::f64_of_count;
use crate::base::offset::{Offset, Partition};
use crate::data::commit::Tick;
use crate::data::events::Events;
use crate::data::input::Input;

impl Lane {
    /// From now on takes in the events of a share of the keys only, always the same ones.
    #[must_use]
    pub fn sampling(self, share: Option<f64>) -> Self {
        Lane { share, ..self }
    }

    /// Takes the ticks that another lane has noted. `ended`: that one has come to the end of its input; then recorded ticks that no record follows are
    /// passed as well.
    ///
    /// # Errors
    /// As `advance`.
    pub fn follow(&mut self, ticks: &[(Partition, Tick)], ended: bool) -> Result<()> {
        self.begin();
        for (partition, tick) in ticks {
            let Some(home) = self.home(*partition) else { continue };
            self.pass_ticks(home, tick.at);
            let Some(state) = self.partitions.get_mut(home) else { continue };
            state.order.tick(tick.time, &mut self.ready);
            state.note_tick(*tick);
            state.advance(tick.at, None);
            self.note_moment(home, true);
        }
        for home in 0..if ended { self.partitions.len() } else { 0 } {
            // The other lane may have come further, over offsets without a record.
            if self.partitions.get(home).is_some_and(|state| state.end().is_some()) {
                self.pass_ticks(home, Offset(i64::MAX));
            }
        }
        self.finish_batch(&Input::default())
    }

    /// Forecasts of the last batch that say nothing: what the graph gave is no law and no score.
    #[must_use]
    pub fn without_law(&self) -> usize {
        let forecasts = &self.forecasts;
        let none = |row: &usize| {
            let is_none = |column: &[f64]| column.get(*row).is_none_or(|value| value.is_nan());
            forecasts.overdue_at(*row).is_none() && is_none(&forecasts.p_never) && is_none(&forecasts.score)
        };
        (0..forecasts.len()).filter(none).count()
    }

    /// Events of keys that are not in the sample: out of `ready`. They have moved the watermark before, so that what is left is released as without a sample.
    pub(super) fn thin(&mut self, share: f64) {
        let keep: Vec<bool> = (0..self.ready.len()).map(|row| is_sampled(self.ready.keys.get(row).unwrap_or_default(), share)).collect();
        if keep.iter().all(|keep| *keep) {
            return;
        }
        let (mut kept, mut emit, mut left) = (Events::new(&self.plan.schema), Vec::new(), vec![0]);
        for (row, _) in keep.iter().enumerate() {
            if keep.get(row) == Some(&true) {
                kept.push_from(&self.ready, row);
                emit.push(self.emit.get(row).copied().unwrap_or(true));
            }
            left.push(kept.len());
        }
        self.moments.iter_mut().for_each(|moment| moment.released = left.get(moment.released).copied().unwrap_or(kept.len()));
        self.ready = kept;
        self.emit = emit;
    }
}

/// Whether a key is in a sample of this share: by a hash of it that has nothing to do with that of the partitions.
fn is_sampled(key: &[u8], share: f64) -> bool {
    const LEVELS: u64 = 1 << 53;
    let level = usize::try_from(mix(u64::from(crc32c::crc32c(key))) % LEVELS).unwrap_or(usize::MAX);
    f64_of_count(level) < share * f64_of_count(usize::try_from(LEVELS).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_its_share_of_the_keys_and_a_smaller_one_is_part_of_a_larger_one() {
        let keys: Vec<String> = (0..20_000).map(|i| format!("card-{i}")).collect();
        let of = |share: f64| keys.iter().filter(|key| is_sampled(key.as_bytes(), share)).collect::<Vec<_>>();
        for share in [0.01, 0.1, 0.5] {
            let found = f64_of_count(of(share).len()) / 20_000.0;
            assert!((found - share).abs() < 4.0 * (share * (1.0 - share) / 20_000.0).sqrt(), "{found} for {share}");
        }
        assert!(of(0.01).iter().all(|key| of(0.1).contains(key)));
        assert_eq!(of(1.0).len(), keys.len());
    }
}
