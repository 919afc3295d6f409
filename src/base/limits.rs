//! Bounds that hold whatever the pipeline says. Everything that can grow has one, here or in the plan.

/// Largest payload of one record that is decoded; a larger one is a dead letter `too_large`.
pub const MAX_RECORD_BYTES: usize = 8 << 20;
/// Most bytes of a dead letter in a Kafka topic, with its key: below what a topic takes by default (`max.message.bytes`, 1,048,588), with room for what
/// stands around it in a batch. Base64 is a third longer than the record that it is of, escapes up to six times.
pub const MAX_LETTER_BYTES: usize = 1_000_000;
/// Bytes that are left of a key or payload in a dead letter that would be larger: less than `MAX_LETTER_BYTES` together, however they are escaped.
pub const LETTER_PREFIX: usize = 1 << 16;
/// Longest key in bytes; a longer one is a dead letter `key_too_long`.
pub const MAX_KEY_BYTES: usize = 4096;
/// Most records one poll hands to a lane, whatever `run.max_batch` says.
pub const MAX_BATCH: usize = 65_536;
/// Most bytes of payload one poll hands to a lane.
pub const MAX_BATCH_BYTES: usize = 64 << 20;
/// Most columns a recipe may produce.
pub const MAX_FEATURES: usize = 4096;
/// Most floats of state one key may have.
pub const MAX_STATE_FLOATS: usize = 1 << 20;
/// Most events one partition may hold back for `order.lateness`.
pub const MAX_HELD: usize = 1 << 20;
/// Most ticks that are noted beside a committed offset: Kafka takes 4096 bytes there.
pub const MAX_TICKS: usize = 100;
/// Most cohorts of new keys: each new key is compared with all of them.
pub const MAX_COHORTS: usize = 1024;
/// Most marks of one law.
pub const MAX_MARKS: usize = 4096;
/// Most entries of one category vocabulary.
pub const MAX_VOCABULARY: usize = 65_536;
