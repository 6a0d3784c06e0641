//! Chaos: a run of real processes under faults, each of them timed, and the proof that nothing was lost.
//!
//! ```text
//!  ordeal.rs   fault after fault              restarts.rs   a coordinator that is killed again and again
//!    │ fault.rs      the kinds
//!    │ watch.rs      when each was noticed and made good;  report.rs  the table
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
mod report;
mod restarts;
mod tail;
mod watch;

pub use arena::{Arena, Place};
pub use audit::History;
pub use fault::Fault;
pub use ordeal::Ordeal;
pub use proxy::{Network, Proxy};
pub use report::{Measured, Report};
pub use restarts::Restarts;
