//! Tests without network.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::cast_precision_loss)]

mod alarm;
mod attention;
mod backfill;
#[cfg(feature = "fit")]
mod calibrate;
mod check;
mod commands;
mod delta;
#[cfg(unix)]
mod kills;
mod layers;
#[cfg(unix)]
mod model_change;
#[cfg(feature = "fit")]
mod nab;
#[cfg(feature = "fit")]
mod next_events;
#[cfg(unix)]
#[cfg(feature = "fit")]
mod odd_data;
mod operations;
mod program;
mod pytorch;
#[cfg(feature = "sql")]
mod query;
mod real_data;
mod reasons;
mod reference;
mod schemas;
#[cfg(feature = "fit")]
mod shrink;
#[cfg(feature = "cloud")]
mod stores;
#[cfg(feature = "fit")]
mod unsorted;
#[cfg(feature = "fit")]
mod value;
