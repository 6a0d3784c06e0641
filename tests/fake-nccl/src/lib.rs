//! A libnccl for machines without a GPU, for tests only: it plays NCCL, and the CUDA driver below it,
//! on host memory, between processes of one machine.
//!
//! ```text
//!  exports.rs, driver.rs    the C functions, as NVIDIA's headers declare them (the fence)
//!  comm.rs                  a communicator: returns at once, "in progress" first; aborts
//!  stream.rs                streams as queues with a thread each, and events
//!  meeting.rs               where the ranks meet, and where the numbers are added
//!  script.rs                the faults it plays, from LOCKSTEP_FAKE_NCCL
//! ```
//!
//! It is the seam at the C functions, rather than one above them, so that the production code is
//! tested whole: loader, codes, forming, order of streams, abort. Nothing of it knows about tests,
//! but for one exported symbol that says that host memory is welcome.
//!
//! Where NCCL is unpleasant, so is this: a call is only taken up when asked about it, so an event that
//! is recorded too early comes too early; an operation that lost its peers goes on until it is
//! aborted; an id is good for one communicator; a rank that means another operation makes all wait;
//! the maximum drops a NaN; calls on the null stream want a current context. Two things are
//! friendlier: sums are in rank order, so that results compare with the host backend bit by bit, and
//! handles are never freed, so that using one too late is an error and not a crash.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test's tool: a lock is poisoned only after a panic, and new faults need no look here"
)]

mod comm;
mod driver;
mod exports;
mod meeting;
mod memory;
mod reduce;
mod script;
mod stream;
