//! Loops of our own on the host's memory.

#![expect(
    clippy::inline_always,
    reason = "code must become part of the loop that is compiled for wide vectors"
)]

mod backward;
mod forward;
mod rows;
mod update;

pub(super) use backward::{gradient_sums, input_gradient};
pub(super) use forward::{normalize, sums};
pub(super) use update::update;
