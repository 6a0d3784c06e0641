//! What the ranks of a world say to each other: reductions, broadcasts, digests.
//!
//! ```text
//!  engine (one thread)                      another thread
//!    │ start_all_reduce / wait / …             │ abort
//!    ▼                                         ▼
//!  trait Collective ──────────────────── AbortHandle
//!    ├─ Solo            a world of one: nothing to say
//!    ├─ NcclCollective  ranks on GPUs (feature `nccl`), see nccl.rs and NCCL.md
//!    └─ HostCollective  ranks on CPUs, over TCP
//!         host/forming.rs    who belongs to the world (handshake.rs)
//!         host/mesh.rs       moves bytes, with a deadline
//!         host/algorithm.rs  which bytes go where
//!         host/reduce.rs     adds them, always in rank order
//! ```
//!
//! Three rules keep ranks in step; NCCL can't keep the first, and keeps the second with an order of
//! its own:
//!
//! 1. every rank issues the same operations in the same order; each carries its
//!    generation, sequence, kind, element and length, and a peer that disagrees is
//!    [`CollectiveError::Diverged`];
//! 2. every element is reduced in rank order, `((r₀ + r₁) + r₂) + …`, whichever
//!    algorithm carries it, so the bits depend on neither timing nor message size
//!    and are the same on all ranks (bits of a NaN aside);
//! 3. the first failure is final: every later call on that communicator returns it,
//!    and its sockets are closed, so that the peers fail at once too.
//!
//! Not here: what is reduced ([`bucket`] only plans it), and who is in the world (the coordinator).

mod abort;
pub mod bucket;
mod collective;
mod device;
mod error;
mod failure;
mod host;
#[cfg(feature = "nccl")]
mod nccl;
mod operation;
mod solo;
mod wire;

pub use abort::AbortHandle;
pub use collective::{Collective, Pending, Rank, Reduction};
pub use device::{Element, Region, Values};
pub use error::{CollectiveError, Recovery, Refusal};
pub use failure::{NcclCode, NcclFailure};
pub use host::{HostCollective, HostListener, MAX_GATHERED, Secret, WorldSpec};
#[cfg(feature = "nccl")]
pub use nccl::{Nccl, NcclCollective, NcclError, NcclSpec, UniqueId};
pub use solo::Solo;
