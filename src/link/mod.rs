//! Level 1: client settings that edges share.

pub mod kafka;
