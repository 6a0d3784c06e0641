//! NCCL: where the ranks meet, and both communicators of a world.

use std::time::Duration;

use lockstep_collective::{
    AbortHandle, Collective, CollectiveError, NcclCollective, NcclError, NcclSpec, Rank, UniqueId,
};
use lockstep_nn::Communicators;
use lockstep_proto::ids::Generation;
use lockstep_proto::{CommunicatorId, CommunicatorIds, World};
use tch::Device;

use crate::commands::Misuse;

/// NCCL, opened.
#[derive(Debug)]
pub(crate) struct Nccl(lockstep_collective::Nccl);

impl Nccl {
    /// Finds the library and checks that it will do.
    pub(crate) fn open() -> Result<Self, Misuse> {
        let nccl = lockstep_collective::Nccl::load();
        nccl.map(Self).map_err(|error| Misuse(format!("cannot use NCCL: {error}")))
    }

    pub(crate) fn version(&self) -> u32 {
        self.0.version()
    }

    /// Fresh ids for one attempt to form this world. This process must stay: the ranks meet here.
    pub(crate) fn make_ids(
        &self,
        generation: Generation,
    ) -> Result<CommunicatorIds, CollectiveError> {
        let fresh = || match self.0.unique_id() {
            Ok(id) => Ok(CommunicatorId(*id.as_bytes())),
            Err(error) => Err(unusable(&error)),
        };
        Ok(CommunicatorIds { generation, statistics: fresh()?, gradients: fresh()? })
    }

    /// Both communicators of a world, formed one after the other, in the same order on every rank.
    pub(crate) fn connect(
        &self,
        (world, ids): (&World, &CommunicatorIds),
        device: Device,
        abort: &AbortHandle,
        deadline: Duration,
    ) -> Result<Communicators, CollectiveError> {
        let form = |id: &CommunicatorId| -> Result<Box<dyn Collective>, CollectiveError> {
            let spec = NcclSpec {
                rank: Rank(world.rank.0),
                world: u32::try_from(world.members.len()).expect("worlds are small"),
                generation: world.generation.0,
                id: UniqueId::from_bytes(&id.0).map_err(|error| unusable(&error))?,
                device: gpu(device),
                deadline,
            };
            Ok(Box::new(NcclCollective::form(&self.0, spec, abort.clone())?))
        };
        Ok(Communicators { statistics: form(&ids.statistics)?, gradients: form(&ids.gradients)? })
    }
}

fn gpu(device: Device) -> Option<u32> {
    match device {
        Device::Cuda(index) => Some(u32::try_from(index).expect("a machine has few GPUs")),
        Device::Cpu | Device::Mps | Device::Vulkan => None,
    }
}

fn unusable(error: &NcclError) -> CollectiveError {
    CollectiveError::Unusable(error.to_string())
}
