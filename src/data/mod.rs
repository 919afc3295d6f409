//! Level 1: what crosses a stage border, one file each. Columns, not rows: one entry per event.

pub mod alarm;
pub mod commit;
pub mod events;
pub mod field;
pub mod flags;
pub mod forecasts;
pub mod held;
pub mod input;
pub mod intensity;
pub mod law;
pub mod layout;
pub mod outputs;
pub mod paths;
pub mod rejected;
pub mod schema;
pub mod text;
pub mod value;
