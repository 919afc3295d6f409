//! What a lane holds of one partition: its order stage and its key states. A pure function of the records taken in.

use crate::base::offset::{Offset, Partition};
use crate::base::time::EventTime;
use crate::data::events::Events;
use crate::order::{self, Order};
use crate::state::KeyStates;

/// One partition of a lane.
#[derive(Debug)]
pub struct PartitionState {
    pub partition: Partition,
    /// First offset whose outputs are emitted; below it is silent replay.
    pub live_from: Offset,
    /// Latest event time that was applied; for lag only.
    pub latest: Option<EventTime>,
    pub order: Order,
    pub keys: KeyStates,
}

impl PartitionState {
    pub fn new(partition: Partition, live_from: Offset, order: order::Settings, empty: &Events, init: &[f32], aggregates: usize) -> Self {
        PartitionState {
            partition,
            live_from,
            latest: None,
            order: Order::new(order, empty.clone()),
            keys: KeyStates::new(init, aggregates),
        }
    }

    /// Whether what the record at `offset` brings about is emitted.
    pub fn is_live(&self, offset: Offset) -> bool {
        offset >= self.live_from
    }
}
