//! Tests without network.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod alarm;
mod attention;
mod backfill;
mod calibrate;
mod check;
mod commands;
#[cfg(unix)]
mod kills;
mod layers;
#[cfg(feature = "fit")]
mod nab;
#[cfg(unix)]
mod operations;
mod pytorch;
mod real_data;
mod reasons;
mod schemas;
#[cfg(feature = "fit")]
mod value;
