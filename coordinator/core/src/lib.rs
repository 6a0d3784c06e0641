//! What the coordinator decides. A pure state machine: no clock, no sockets, no files, no tasks.
//!
//! ```text
//!             enough workers have enlisted         all ranks ended: complete
//!  Forming ──────────────────────────────▶ Running ─────────────────────────▶ Over
//!     ▲                                     │ │ │ stop, pause or drain          ▲
//!     │  a member failed, was lost or stuck │ │ ▼                               │
//!     ├─────────────────────────────────────┤ │ Stopping ── all ranks ended ────┤
//!     │  others join: all ranks ended       │ │                                 │
//!     └─────────────────────────────────────┘ └─ no state is right, no progress ┘
//!
//!  started again with a world in the journal: Running, once more than half of its members are back
//! ```
//!
//! The shell turns streams and timers into [`Event`]s, calls [`Core::step`] and carries out the
//! [`Effect`]s in order. The same events at the same times give the same effects.
//!
//! * `core.rs`: the machine, one function per event; `training.rs`: events from inside a world;
//! * `forming.rs`, `ending.rs`: worlds come and go; `world.rs`, `lanes.rs`: who trains together, and what each reads;
//! * `journal.rs`: what survives; `adoption.rs`: what a coordinator that was started again makes of it;
//! * `communicators.rs`: what carries the collectives of a world, and where its ranks meet;
//! * `operator.rs`: what operators ask for; `admission.rs`: who may join; `roster.rs`: who is here;
//! * `liveness.rs`, `cooldown.rs`: who is silent, stuck, or fails again and again;
//! * `plan.rs`: how long the run is, and which steps were planned ahead; `progress.rs`: how far it is;
//! * `digests.rs`, `arrivals.rs`, `gather.rs`: what only all ranks together can tell;
//! * `status.rs`: all of this for people; `event_log.rs`: what happened lately.

mod admission;
mod adoption;
mod arrivals;
mod communicators;
mod cooldown;
mod core;
mod digests;
mod ending;
mod event;
mod event_log;
mod forming;
mod gather;
mod journal;
mod lanes;
mod liveness;
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
pub use journal::{Banned, Memory, Place, Planned, Record, Stopping, Then, WorldRecord};
pub use lanes::deal_lanes;
