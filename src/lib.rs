//! meantime: forecasts on irregular event streams.

#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap,
        clippy::cast_precision_loss,
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::panic
    )
)]

pub mod base;
pub mod cli;
pub mod data;
pub mod decode;
pub mod features;
#[cfg(feature = "fit")]
pub mod fit;
pub mod head;
pub mod link;
pub mod model;
pub mod order;
pub mod pipeline;
pub mod run;
pub mod sink;
pub mod source;
pub mod state;
