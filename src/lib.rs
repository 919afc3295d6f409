//! meantime: forecasts on irregular event streams.
//!
//! A **partition** is a deterministic state machine over its log: key states, held events and watermark are a function of the pipeline,
//! the model, the records from the first to the last one taken in, and the ticks of the wall clock that were recorded among them. Nothing between source and sink reads a clock, a random source or
//! another partition. So a restart rebuilds states by replaying silently, and a forecast never depends on batches, lanes or polls.
//!
//! A **lane** is a thread that owns several partitions and batches across them: one run of the graph steps some hundreds of keys.
//!
//! Reading order is the order in which an event travels; a module imports only lower levels (a test holds it to that):
//!
//! | module | level | what |
//! |---|---|---|
//! | [`source`] | 2 | records in, positions back: kafka, file, generate, scripted |
//! | [`decode`] | 2 | records (JSON, Avro) or table rows to columns, or a rejected value |
//! | [`order`] | 2 | watermark, hold buffer, clock hygiene |
//! | [`features`] | 2 | the recipe and the rows it makes; the wording of reasons |
//! | [`model`] | 2 | the package: graph, signature, rounds, step; tract lives only here |
//! | [`head`] | 2 | outputs to the law of the next time, mark and value, and surprise; next events drawn from it |
//! | [`state`] | 2 | key table, arena and timers; snapshots of them |
//! | [`sink`] | 2 | forecasts and dead letters out: kafka, parquet (folder or bucket, by partition or date, with a Delta log), ndjson, memory, void; alarms |
//! | [`pipeline`] | 3 | the file as written to the plan that runs; all faults at once |
//! | [`run`] | 4 | the only place that knows the order of the stages; start with `run/lane.rs`; states for another model (`run/migrate`), a second one beside it (`run/shadow`) |
//! | [`backfill`] | 4 | history in files through the same machine: order, shards, resuming |
//! | [`evaluate`] | 4 | forecasts against what happened: likelihood, calibration, ranking, report |
//! | `fit` | 4 | history to model package (feature `fit`) |
//! | [`cli`] | 5 | one file per command |
//! | [`data`], [`link`] | 1 | what crosses a stage border; client settings that edges share, files in folders or buckets, SQL on their rows, schema registries |
//! | [`base`] | 0 | time, offset, error, clock, limits, numbers, fail points |
//!
//! Invariants, each with a test named as the sentence or close to it:
//!
//! 1. The state of a partition is a function of its pipeline, model and records; a replay gives the same bits.
//! 2. Offsets are committed only after the outputs below them are durable.
//! 3. Batch size, lane count, poll boundaries and the number of partitions per lane never change a forecast.
//! 4. Two events of one key never share a round; a key's events are applied in (event time, offset) order.
//! 5. A watermark never goes back; one future timestamp never moves it past `max_future_skew`.
//! 6. No NaN or infinity leaves `head` (a NaN in a column means "has none" and is written as null).
//! 7. A record that cannot be used is a dead letter with its position and reason: never dropped, never a crash.
//! 8. Every queue, buffer and key map has a bound from the plan or from `base/limits.rs`.
//! 9. A partition that was revoked publishes nothing after it.
//! 10. The arrived event never influences its own surprise.

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

pub mod backfill;
pub mod base;
pub mod cli;
pub mod data;
pub mod decode;
pub mod evaluate;
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
