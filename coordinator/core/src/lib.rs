//! What the coordinator decides. A pure state machine: no clock, no sockets, no files, no tasks.
//!
//! ```text
//!             every slot has enlisted           all ranks ended: complete
//!  Forming ─────────────────────────▶ Running ─────────────────────────▶ Over
//!     ▲                                 │ │ stop, pause or drain           ▲
//!     │  a member failed or was lost    │ ▼                                │
//!     └─────────────────────────────────┤ Stopping ── all ranks ended ─────┤
//!                                       └── digests differ, no progress ───┘
//! ```
//!
//! The shell turns streams and timers into [`Event`]s, calls [`Core::step`] and carries out the
//! [`Effect`]s in order. The same events at the same times give the same effects.
//!
//! * `core.rs`: the machine, one function per event; `training.rs`: events from inside a world;
//! * `operator.rs`: what operators ask for; `admission.rs`: who may join; `roster.rs`: who is here;
//! * `world.rs`, `lanes.rs`: who trains together, and what each reads;
//! * `plan.rs`: how long the run is, and which steps were planned ahead;
//! * `digests.rs`: whether the ranks still agree; `progress.rs`: how far the run is;
//! * `status.rs`: all of this for people; `event_log.rs`: what happened lately.

mod admission;
mod core;
mod digests;
mod event;
mod event_log;
mod lanes;
mod operator;
mod plan;
mod progress;
mod roster;
mod status;
mod training;
mod world;

pub use crate::core::{Core, Settings};
pub use event::{AppliedStep, Effect, Event, SessionId};
pub use event_log::EventLog;
pub use lanes::deal_lanes;
