//! In a program that is built without NCCL there is none.

use std::time::Duration;

use lockstep_collective::{AbortHandle, CollectiveError};
use lockstep_nn::Communicators;
use lockstep_proto::ids::Generation;
use lockstep_proto::{CommunicatorIds, World};
use tch::Device;

use crate::commands::Misuse;

/// What cannot be had.
#[derive(Debug)]
pub(crate) enum Nccl {}

impl Nccl {
    pub(crate) fn open() -> Result<Self, Misuse> {
        Err(Misuse(
            "the run has `collective.backend = \"nccl\"`, which this worker is built without; build it with \
             `cargo build --release --features worker/nccl`, or set `collective.backend` to `host`"
                .into(),
        ))
    }

    pub(crate) fn version(&self) -> u32 {
        match *self {}
    }

    pub(crate) fn make_ids(&self, _: Generation) -> Result<CommunicatorIds, CollectiveError> {
        match *self {}
    }

    pub(crate) fn connect(
        &self,
        _: (&World, &CommunicatorIds),
        _: Device,
        _: &AbortHandle,
        _: Duration,
    ) -> Result<Communicators, CollectiveError> {
        match *self {}
    }
}
