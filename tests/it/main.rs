//! Tests without network.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod check;
mod schemas;
