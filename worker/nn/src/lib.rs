//! The networks of BYOL as explicit layers: forward, backward, optimizer, moving average.
//!
//! ```text
//!  views ─▶ encoder ─▶ projector ─▶ predictor ─▶ q ┐
//!           (resnet)    (head)       (head)        ├─▶ loss ─▶ backward ─▶ gradients ─▶ optimizer ─▶ moving average
//!  views ─▶ encoder ─▶ projector ───────────────▶ z′┘            │             │
//!           (target: no gradient)                          batch norm      buckets      over all ranks
//! ```
//!
//! `step.rs` is the algorithm; `byol.rs` the model it works on, made from `spec.rs`; `views.rs` what it sees;
//! `pass.rs` what a layer needs to run, `talk.rs` how it talks to the other ranks; `kernels/` the loops that are bound by memory. `named.rs` and
//! `recording.rs` show state and steps to other programs.
//! Layers are explicit because batch norm talks to the other ranks in the middle of forward *and*
//! backward, in the same order everywhere, and because a gradient may leave as soon as it is final.
//!
//! State is flat: parameters, gradients, momentum and target each live in one permanent buffer
//! (`layout.rs`, `store.rs`), so an all-reduce, a moving average or a checkpoint is one pass.
//!
//! Tensor names end in their dimensions where it helps: `b` samples of this rank, `v` views stacked along
//! the batch (so `vb` = 2·b rows, view 1 first), `c` classes or channels, `d` dimensions of a projection,
//! `f` features of the representation, `h`, `w` pixels.
//!
//! Not here: where images come from (`lockstep-data`), how ranks talk (`lockstep-collective`).

mod batch_norm;
mod byol;
mod conv;
mod gradients;
mod head;
mod init;
mod kernels;
mod layout;
pub mod loss;
mod named;
#[cfg(test)]
mod on_a_device;
mod optimizer;
mod pass;
mod probe;
mod recording;
mod resnet;
mod spec;
mod step;
mod store;
mod talk;
mod tensor;
mod views;
mod window;

pub use byol::{Byol, Report};
pub use init::{Init, TargetInit};
pub use layout::{Layout, ParamId, ParamSpec, Role, StatsSpec};
pub use named::Side;
pub use optimizer::Optimizer;
pub use recording::Recording;
pub use resnet::{BlockKind, ResNetSpec, Stem};
pub use spec::ModelSpec;
pub use step::{Outcome, Rates, step};
pub use talk::Communicators;
pub use tensor::{Scalar, host, host_bytes};
pub use views::Views;
pub use window::Padding;
