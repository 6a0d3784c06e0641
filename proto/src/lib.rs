//! lockstep-proto

pub mod config;
pub mod ids;
pub mod schedule;
