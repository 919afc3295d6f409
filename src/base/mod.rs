//! Level 0: the words everything else is written in. Imports nothing of this crate.

pub mod clock;
pub mod error;
pub mod fail_point;
pub mod guard;
pub mod limits;
pub mod metrics;
pub mod nearest;
pub mod number;
pub mod offset;
pub mod rfc3339;
pub mod time;
