//! A worker of a BYOL run: one process per GPU, or per CPU share.
//!
//! ```text
//!  coordinator ◀──gRPC──▶ session.rs ◀──border.rs──▶ trainer.rs ──▶ lockstep_nn::step
//!                          (async)                    │   ▲
//!                    lockstep_data, through feed.rs   lockstep_collective, through world.rs
//! ```
//!
//! * [`cli`]: arguments; [`run()`]: one worker from start to end; `place.rs`: which one of its job it is;
//!   `supervisor.rs`: several on one machine;
//! * `trainer.rs`: the one loop of this process; `world.rs`, `backend.rs`, `held.rs`: forming a world and agreeing on a
//!   state;
//!   `told.rs`: what it hears of its world; `feed.rs`: batches, a step ahead; `one_step.rs`: one of them;
//!   `watched.rs`: what heartbeats tell of the collectives;
//! * [`checkpoint`], `archive.rs`: the state on disk; `audit.rs`: one step, for others to recompute;
//!   `applied_log.rs`: what every step consumed;
//!   `tensor_file.rs`: the format of both;
//! * [`engine`]: from the run's configuration to model and pipeline; `data_set.rs`: folders and URLs;
//!   `device.rs`: CPU or which GPU;
//! * [`eval`], [`report`], [`commands`]: what one does before and after training;
//!   `view_pair.rs`, `bitmap.rs`: images and their views for people.
//!
//! Not here: layers (`lockstep-nn`), images (`lockstep-data`), messages between ranks
//! (`lockstep-collective`), decisions (`coordinator`).

pub mod checkpoint;
pub mod cli;
pub mod commands;
pub mod engine;
pub mod eval;
mod feed;
pub mod report;

mod applied_log;
mod archive;
mod audit;
mod backend;
mod bitmap;
mod border;
mod data_set;
mod device;
mod ending;
#[cfg(feature = "failpoints")]
mod failpoints;
mod held;
mod meters;
mod odd_samples;
mod one_step;
mod online_knn;
mod place;
mod run;
mod session;
mod signals;
mod supervisor;
mod tensor_file;
#[cfg(test)]
mod testing;
mod told;
mod trainer;
mod view_pair;
mod watched;
mod world;

pub use meters::Meters;
pub use run::run;
