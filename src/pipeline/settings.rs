//! `[order]` and `[state]` as they will run.

use super::written;
use crate::base::time::Gap;
use crate::{order, state};

/// The `[order]` table; `timed`: who is overdue is watched.
pub(super) fn order(written: Option<&written::Order>, timed: bool) -> order::Settings {
    let default: written::Order = serde_json::from_str("{}").expect("every key of [order] has a default");
    let order = written.unwrap_or(&default);
    let late = match order.late {
        written::Late::Clamp => order::Late::Clamp,
        written::Late::DeadLetter => order::Late::DeadLetter,
    };
    order::Settings { lateness: Gap::from(order.lateness.value), max_future_skew: Gap::from(order.max_future_skew.value), late, timed }
}

/// The bounds of the `[state]` table.
pub(super) fn state(written: Option<&written::State>) -> state::Settings {
    let default: written::State = serde_json::from_str("{}").expect("every key of [state] has a default");
    let state = written.unwrap_or(&default);
    state::Settings {
        max_keys: usize::try_from(state.max_keys).unwrap_or(usize::MAX),
        when_full: match state.when_full {
            written::WhenFull::Stop => state::WhenFull::Stop,
            written::WhenFull::Evict => state::WhenFull::Evict,
        },
        expiry: state.expiry.as_ref().map(|length| Gap::from(length.value)),
    }
}
