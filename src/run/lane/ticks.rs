//! What a lane does without records: the clock, the end of the input, and ticks that were recorded.

use super::Lane;
use crate::base::error::Result;
use crate::base::offset::{Offset, Partition};
use crate::base::time::EventTime;
use crate::data::commit::Tick;
use crate::data::input::Input;
use crate::run::partition::PartitionState;

impl Lane {
    /// The input has ended: takes everything that is still held back.
    ///
    /// # Errors
    /// As `advance`.
    pub fn finish(&mut self) -> Result<()> {
        self.begin();
        for home in 0..self.partitions.len() {
            let Some(at) = self.partitions.get(home).and_then(PartitionState::end) else { continue };
            // An earlier run may have come to the same end.
            self.pass_ticks(home, at);
            let Some(state) = self.partitions.get_mut(home) else { continue };
            if state.order.held() > 0 {
                state.order.finish(&mut self.ready);
                let tick = Tick { at, time: EventTime::MAX };
                state.note_tick(tick);
                state.advance(at, None);
                self.ticks.push((state.partition, tick));
                self.note_moment(home, true);
            }
        }
        self.finish_batch(&Input::default())?;
        self.say_strangers(true);
        self.say_absent(true);
        Ok(())
    }

    /// The clock on the wall says that the event time of a partition has come to `time`, though no record says so: what waited for that is
    /// released, and who is overdue is said to be. It is noted for the replay, but only if it changes anything. `forecasts` are then as after `advance`.
    ///
    /// # Errors
    /// As `advance`.
    pub fn tick(&mut self, partition: Partition, time: EventTime) -> Result<()> {
        self.begin();
        let Some(home) = self.home(partition) else { return Ok(()) };
        let Some(state) = self.partitions.get_mut(home) else { return Ok(()) };
        if let Some(at) = state.awaits_ticks() {
            // Those that were recorded come first: by themselves, since timers are only set when a batch is done. The clock will come again.
            self.pass_ticks(home, at);
            return self.finish_batch(&Input::default());
        }
        let Some(at) = state.tick_at(time) else { return Ok(()) };
        state.order.tick(time, &mut self.ready);
        state.note_tick(Tick { at, time });
        state.advance(at, None);
        self.ticks.push((partition, Tick { at, time }));
        self.note_moment(home, true);
        self.finish_batch(&Input::default())
    }

    /// The source has handed out all records of a partition below `handed`, and they were taken in.
    pub fn read_to(&mut self, partition: Partition, handed: Offset) {
        if let Some(state) = self.home(partition).and_then(|home| self.partitions.get_mut(home)) {
            state.read_to(handed);
        }
    }

    /// Ticks that were recorded before `offset`: what they brought about was emitted then, as a rule.
    pub(super) fn pass_ticks(&mut self, home: usize, offset: Offset) {
        let Some(state) = self.partitions.get_mut(home) else { return };
        for (tick, live) in state.ticks_before(offset) {
            let Some(state) = self.partitions.get_mut(home) else { return };
            state.order.tick(tick.time, &mut self.ready);
            if live {
                state.advance(tick.at, None);
            }
            self.note_moment(home, live);
        }
    }
}
