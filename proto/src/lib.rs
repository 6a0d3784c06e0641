//! lockstep-proto

pub mod config;
mod faults;
pub mod ids;
pub mod layers;
pub mod presets;
mod print;
pub mod schedule;
pub mod validate;

pub use print::Difference;
