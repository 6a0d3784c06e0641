//! What coordinator and workers must agree on: messages, configuration, schedules.
//!
//! ```text
//!   worker                                          coordinator
//!   WorkerMessage ── wire ──▶ TryFrom, checked ──▶  WorkerMessage
//!   CoordinatorMessage ◀── TryFrom, checked ── wire ── CoordinatorMessage
//! ```
//!
//! * [`ids`]: newtypes of names and counts;
//! * [`worker_message`], [`report`], [`coordinator_message`], [`communicators`], [`members`], [`status`], [`run_event`],
//!   [`operator`]: the messages, as types that are valid once they exist;
//! * [`client`], [`server`]: the gRPC services in terms of those types;
//! * [`connection`], [`tls`]: reaching a coordinator, and who may;
//! * [`limits`]: how much of anything the wire may carry, and the protocol's version;
//! * [`config`], [`layers`], [`presets`], [`validate`]: what a run computes, and how it is told;
//! * [`schedule`]: how long a run is, and τ and η of its steps;
//! * [`exit`]: how processes end.
//!
//! Not here: tensors, files, clocks.

pub mod client;
pub mod communicators;
pub mod config;
pub mod connection;
pub mod coordinator_message;
pub mod exit;
pub mod ids;
pub mod layers;
pub mod limits;
pub mod members;
pub mod operator;
pub mod presets;
pub mod report;
pub mod run_event;
pub mod schedule;
pub mod server;
pub mod status;
pub mod tls;
pub mod validate;
pub mod worker_message;

mod border;
mod faults;
#[cfg(test)]
mod fuzz;
mod plain;
mod print;
mod wire;

pub use border::Malformed;
pub use client::{
    Credentials, OperatorClient, PlainText, RunEvents, SessionClient, SessionError,
    SessionMessages, SessionSender, StatusClient, Verdict,
};
pub use communicators::{Backend, CommunicatorId, CommunicatorIds};
pub use connection::Destination;
pub use coordinator_message::{
    Abort, CoordinatorMessage, Dismiss, Dump, LaneRange, PlanWindow, Secret, StepPlan, Stop,
    Welcome, World,
};
pub use exit::Exit;
pub use limits::PROTOCOL_VERSION;
pub use members::{Member, Members};
pub use operator::OperatorCommand;
pub use print::Difference;
pub use report::{StepReport, StepReports};
pub use run_event::{Occurrence, RunEvent};
pub use status::{Phase, RunStatus, Straggler, WorkerStatus};
pub use worker_message::{
    Activity, CheckpointWritten, DataSet, Enlist, Goodbye, Heartbeat, Hello, Membership,
    TrainingState, WorkerMessage, WorldEnd, WorldEnded,
};

/// Descriptors of the `.proto` files, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/lockstep.v1.bin"));
