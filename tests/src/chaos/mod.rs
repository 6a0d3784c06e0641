//! Chaos: a run of real processes under faults, each of them timed, and the proof that nothing was lost.
//!
//! ```text
//!  ordeal.rs   fault after fault, and what the coordinator's events say of each
//!    │ fault.rs      the kinds
//!    ▼
//!  arena.rs    one coordinator, workers by slot, restarted as a supervisor would
//!    │ proxy.rs      the network between them
//!    │ faults.c      their clocks and disks
//!    ▼
//!  audit.rs    afterwards: every sample once, every state that of a run without faults
//! ```

mod arena;
mod audit;
mod fault;
mod ordeal;
mod proxy;
mod restarts;
mod tail;

pub use arena::{Arena, Place, WORLD};
pub use audit::History;
pub use fault::Fault;
pub use ordeal::{Measured, Ordeal, Report, undisturbed};
pub use proxy::{Network, Proxy};
pub use restarts::Restarts;
